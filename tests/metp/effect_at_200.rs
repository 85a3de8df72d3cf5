//! METP §5.1: a command that was answered 200 is done. Commands behind it in the same segment find it so, also
//! where others have to act on it, and where that is much.

use support::metp::Metp;
use support::origin::Origin;
use support::proxy::Proxy;
use support::socks::Client;
use support::{eventually, exchange, read_the_end};

const OK: &str = "200 OK";

/// Gives commands in one segment.
fn say(admin: &mut Metp, commands: &[&str]) {
    admin.say(&commands.iter().map(|command| format!("{command}\n")).collect::<String>());
}

/// Expects the body of GET_METRICS with so many open connections.
fn hears_open(admin: &mut Metp, count: usize) {
    assert_eq!(admin.line(), OK);
    assert_eq!(admin.body()[1], format!("CURRENT_CONNECTIONS:    {count}"));
}

#[test]
fn what_was_killed_is_gone_for_the_next_command() {
    let (proxy, echo) = (Proxy::with(&["-u", "bob:pw"]), Origin::echo());
    let client = || Client::new(proxy.socks()).logged_in("bob", "pw").connected(echo.address);
    let mut admin = proxy.admin();
    for kill in ["KILL", "KILL USER", "DELETE-USER"] {
        let (mut tunnel, other) = (client(), proxy.client());
        exchange(&mut tunnel, 10);
        let line = admin.connection_from(&tunnel).expect("it is open");
        let id = support::metp::value(&line, "id");
        let one = format!("KILL {id}");
        let (command, answer) = match kill {
            "KILL" => (one.as_str(), "200 OK killed=1"),
            "KILL USER" => ("KILL USER bob", "200 OK killed=1"),
            _ => ("DELETE-USER bob", OK),
        };
        say(&mut admin, &[command, "CONNECTIONS", "GET_METRICS", &one, "PING"]);
        assert_eq!(admin.line(), answer);
        assert_eq!(admin.line(), OK);
        let left = admin.body();
        assert!(left.len() == 1 && left[0].contains(" user=admin "), "{kill}: {left:?}");
        hears_open(&mut admin, 1);
        admin.hears("404 Not Found [NOCONN] no such connection\n200 PONG\n");
        read_the_end(&mut tunnel);
        drop(other);
        eventually("the other has left", || admin.metrics()[1] == 0);
    }
}

/// More than the server closes between two looks at its events.
#[test]
fn a_crowd_that_was_killed_is_gone_too_and_each_end_is_told() {
    const CROWD: usize = 400;
    let (proxy, echo) = (Proxy::with(&["-u", "bob:pw"]), Origin::echo());
    let bob = || Client::new(proxy.socks()).logged_in("bob", "pw").connected(echo.address);
    let mut tunnel = proxy.tunnel(echo.address);
    let tunnels: Vec<_> = (0..CROWD).map(|_| bob()).collect();
    let (mut admin, mut watcher) = (proxy.admin(), proxy.admin());
    assert_eq!(watcher.command("SUBSCRIBE connections logs"), OK);
    say(&mut admin, &["KILL USER bob", "GET_METRICS", "CONNECTIONS USER bob", "KILL USER bob"]);
    assert_eq!(admin.line(), format!("200 OK killed={CROWD}"));
    hears_open(&mut admin, 1);
    admin.hears("200 OK\n.\n200 OK killed=0\n");
    assert_eq!(admin.figure("CONNECTIONS_KILLED"), CROWD as u64);
    exchange(&mut tunnel, 1000);
    let told: Vec<String> = (0..2 * CROWD).map(|_| watcher.line()).collect();
    let of = |topic: &str| told.iter().filter(|line| line.starts_with(topic)).count();
    assert_eq!([of("650 connections event=close"), of("650 logs")], [CROWD; 2]);
    eventually("all are logged", || proxy.stdout.all().len() == CROWD);
    drop(tunnels);
}

#[test]
fn what_was_set_acts_on_the_next_command() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let _tunnel = proxy.tunnel(echo.address);
    let mut admin = proxy.admin();
    assert_eq!(admin.ask("GET_LOGS").len(), 1);
    say(&mut admin, &["CONFIG SET log-entries 0", "GET_LOGS"]);
    admin.hears("200 OK\n200 OK\n.\n");
}

/// §11.8: not even with the level at off, nor in the segment that changes it.
#[test]
fn changes_are_remembered_at_every_level() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    admin.set("log-level", "off");
    say(&mut admin, &["ADD-USER x secret", "DELETE-USER x"]);
    admin.hears("200 OK\n200 OK\n");
    for command in ["CONFIG SET log-level off", "ADD-USER x", "DELETE-USER x"] {
        proxy.stderr.wait_for(|line| line.ends_with(&format!("command=\"{command}\"")));
    }
}

/// §8: whoever has said QUIT and does not leave, or is no administrator any more, keeps nobody out; also if
/// a client has had to wait in the accept queue before.
#[test]
fn sessions_that_are_over_or_of_lesser_accounts_make_room() {
    const SESSIONS: usize = 4;
    for end in ["QUIT", "SET-ROLE bob user", "DELETE-USER bob"] {
        let proxy =
            Proxy::with(&["--max-metp-sessions", "5", "--linger-timeout", "600", "-u", "bob:pw"]);
        let mut admin = proxy.admin();
        assert_eq!(admin.command("SET-ROLE bob admin"), OK);
        let mut bobs: Vec<Metp> =
            (0..SESSIONS).map(|_| proxy.metp().logged_in("bob", "pw")).collect();
        let mut waiting = proxy.metp();
        waiting.say("HELLO METP/1.0\n");
        for bob in &mut bobs {
            assert_eq!(bob.command("PING"), "200 PONG");
        }
        if end == "QUIT" {
            bobs.iter_mut().for_each(|bob| drop(bob.command(end)));
        } else {
            assert_eq!(admin.command(end), OK);
        }
        waiting.hears("200 Welcome to METP/1.0\n").say("AUTH admin 1234\n").hears("200 OK\n");
        let mut later: Vec<Metp> = (1..SESSIONS).map(|_| proxy.admin()).collect();
        for session in later.iter_mut().chain([&mut waiting, &mut admin]) {
            assert_eq!(session.command("PING"), "200 PONG", "{end}");
        }
    }
}
