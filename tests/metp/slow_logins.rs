//! Logins whose verdict comes later than AUTH.

use std::sync::mpsc::Sender;

use support::metp::Metp;
use support::proxy::connect;
use support::socks::wait_until_read;

use crate::inprocess::{Builder, Inprocess};

const WELCOME: &str = "200 Welcome to METP/1.0\n";

fn server() -> (Inprocess, Sender<()>) {
    let (builder, permit) = Builder::default().account(b"slow", b"pw").slow_logins();
    (builder.start(), permit)
}

/// A client whose login waits for its verdict, with `behind` sent behind AUTH.
fn waiting(server: &Inprocess, password: &str, behind: &str) -> Metp {
    let stream = connect(server.metp_address());
    let read = stream.try_clone().expect("a descriptor");
    let mut metp = Metp::new(stream);
    metp.say("HELLO METP/1.0\n").hears(WELCOME);
    metp.say(&format!("AUTH slow {password}\n{behind}"));
    wait_until_read(&read);
    metp
}

/// What is pipelined behind AUTH is answered behind it, also if the client's stream has ended.
#[test]
fn commands_wait_for_the_verdict() {
    let (server, permit) = server();
    let mut metp = waiting(&server, "pw", "NOSUCH\nQUIT\n");
    metp.half_close();
    // Others are served meanwhile.
    assert!(server.admin().command("NOSUCH").starts_with("400 "));
    permit.send(()).expect("the verifier lives");
    let heard = metp.rest();
    let lines: Vec<&str> = heard.lines().collect();
    assert_eq!((lines[0], lines.len()), ("200 OK", 3), "{heard}");
    assert!(lines[1].starts_with("400 ") && lines[2].starts_with("200 "), "{heard}");
}

#[test]
fn a_wrong_password_is_denied() {
    let (server, permit) = server();
    let mut metp = waiting(&server, "no", "QUIT\n");
    permit.send(()).expect("the verifier lives");
    let heard = metp.rest();
    assert!(heard.starts_with("401 ") && heard.lines().count() == 1, "{heard}");
    assert_eq!(server.admin().figure("METP_AUTH_FAILED"), 1);
}

#[test]
fn an_account_that_is_deleted_meanwhile_lets_nobody_in() {
    let (server, permit) = server();
    let mut metp = waiting(&server, "pw", "");
    let mut admin = server.admin();
    assert_eq!(admin.command("DELETE-USER slow"), "200 OK");
    assert_eq!(admin.command("ADD-USER slow pw"), "200 OK");
    permit.send(()).expect("the verifier lives");
    assert!(metp.rest().starts_with("401 "));
}

/// The time for the login goes on, and so does a shutdown.
#[test]
fn a_session_may_end_meanwhile() {
    let (server, _permit) = server();
    let mut admin = server.admin();
    let mut late = waiting(&server, "pw", "");
    admin.set("metp-login-timeout", 0.1);
    assert_eq!(late.rest(), "");
    admin.set("metp-login-timeout", 0);
    let mut told = waiting(&server, "pw", "");
    assert_eq!(admin.command("SHUTDOWN GRACE 0"), "200 OK");
    assert_eq!(told.rest(), "421 Closing [SHUTDOWN] the server is closing down\n");
}
