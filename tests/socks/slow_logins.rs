//! Logins whose verdict comes later than the credentials: nothing is answered or read on before, and whatever
//! happens meanwhile, one session is concerned.

use std::sync::mpsc::Sender;

use support::metp::{Metp, value};
use support::origin::Origin;
use support::socks::{
    CHOSEN, Client, DENIED, HELLO, WELCOME, connect_request, credentials, half_close, reset,
    wait_until_read,
};
use support::{eventually, exchange, read_the_end};

use crate::inprocess::{Builder, Inprocess};

fn server() -> (Inprocess, Sender<()>) {
    let (builder, permit) = Builder::default().account(b"slow", b"pw").slow_logins();
    (builder.start(), permit)
}

fn permits(permit: &Sender<()>) {
    permit.send(()).expect("the verifier lives");
}

/// A client whose login waits for its verdict, with `behind` sent behind the credentials.
fn waiting(server: &Inprocess, admin: &mut Metp, password: &[u8], behind: &[u8]) -> Client {
    let mut client = server.stranger();
    client.say(HELLO).hears(CHOSEN);
    let login = credentials(b"slow", password);
    client.say(&[&login[..], behind].concat());
    wait_until_read(&client.stream);
    // The credentials have been taken out of the buffer, what came behind them has not.
    let line = shown(admin, &client);
    assert_eq!(value(&line, "state"), "auth", "{line}");
    assert_eq!(value(&line, "buffered"), behind.len().to_string(), "{line}");
    client
}

/// The connection that the server shows of this client.
fn shown(admin: &mut Metp, client: &Client) -> String {
    admin.connection_from(&client.stream).expect("it is open")
}

/// RFC 1929: the status answers the credentials, and a request that was sent with them is served behind it.
#[test]
fn nothing_is_answered_before_the_verdict() {
    let ((server, permit), origin) = (server(), Origin::echo());
    let mut admin = server.admin();
    let behind = [&connect_request(origin.address)[..], b"payload"].concat();
    let mut client = waiting(&server, &mut admin, b"pw", &behind);
    assert_eq!(value(&shown(&mut admin, &client), "user"), "-");
    assert_eq!(admin.info("connections-auth"), "1");
    // Others, whose verdict comes at once, are served meanwhile.
    exchange(&mut server.client().connected(origin.address), 10_000);
    client.stream.set_nonblocking(true).expect("a socket");
    let early = std::io::Read::read(&mut client.stream, &mut [0]).expect_err("nothing was said");
    assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock);
    client.stream.set_nonblocking(false).expect("a socket");
    permits(&permit);
    assert_eq!(client.hears(WELCOME).reply().0, 0);
    client.hears(b"payload");
    exchange(&mut client.stream, 10_000);
}

#[test]
fn a_wrong_password_is_denied() {
    let (server, permit) = server();
    let mut admin = server.admin();
    let mut client = waiting(&server, &mut admin, b"no", b"");
    permits(&permit);
    client.hears(DENIED).hears_eof();
}

/// The end of the client's stream is read behind its request, which is served.
#[test]
fn a_client_may_end_its_stream_meanwhile() {
    let ((server, permit), origin) = (server(), Origin::echo());
    let mut admin = server.admin();
    let behind = [&connect_request(origin.address)[..], b"payload"].concat();
    let mut client = waiting(&server, &mut admin, b"pw", &behind);
    half_close(&client.stream);
    permits(&permit);
    assert_eq!(client.hears(WELCOME).reply().0, 0);
    client.hears(b"payload").hears_eof();
}

/// A session that ends while its login is verified is gone at once, and its verdict, when it comes, is no one's.
#[test]
fn a_session_may_end_meanwhile() {
    let (server, permit) = server();
    let mut admin = server.admin();
    let gone = |admin: &mut Metp| admin.metrics()[1] == 0;

    reset(waiting(&server, &mut admin, b"pw", b"").stream);
    eventually("the client's reset ends it", || gone(&mut admin));
    permits(&permit);

    let mut client = waiting(&server, &mut admin, b"pw", b"");
    let id = value(&shown(&mut admin, &client), "id").to_owned();
    assert_eq!(admin.command(&format!("KILL {id}")), "200 OK killed=1");
    read_the_end(&mut client.stream);
    assert!(gone(&mut admin));
    permits(&permit);

    // The last verdict is delivered as well as the first.
    let mut client = waiting(&server, &mut admin, b"pw", b"");
    permits(&permit);
    client.hears(WELCOME);
}

/// The time for the handshake goes on while a login is verified.
#[test]
fn a_verdict_that_does_not_come_is_not_waited_for() {
    let (server, permit) = server();
    let mut admin = server.admin();
    let mut client = waiting(&server, &mut admin, b"pw", b"");
    admin.set("handshake-timeout", 0.1);
    read_the_end(&mut client.stream);
    assert_eq!(admin.metrics()[1], 0);
    drop(permit);
}

/// The verdict is about an account. If that is deleted before the client hears of it, it is worth nothing, even
/// if there is another account of the name.
#[test]
fn an_account_that_is_deleted_meanwhile_lets_nobody_in() {
    let (server, permit) = server();
    let mut admin = server.admin();
    for again in [false, true] {
        let mut client = waiting(&server, &mut admin, b"pw", b"");
        assert_eq!(admin.command("DELETE-USER slow"), "200 OK");
        if again {
            assert_eq!(admin.command("ADD-USER slow pw"), "200 OK");
        }
        assert_eq!(value(&shown(&mut admin, &client), "state"), "auth", "it is nobody's yet");
        permits(&permit);
        client.hears(DENIED).hears_eof();
        if !again {
            assert_eq!(admin.command("ADD-USER slow pw"), "200 OK");
        }
    }
}
