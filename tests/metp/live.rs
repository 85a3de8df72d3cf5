//! METP/1.1: commands in one segment, new passwords, long answers
//! (`protocol_metp.txt` §5.14 to §5.16).

use std::collections::HashMap;
use std::net::TcpStream;

use support::origin::Origin;
use support::proxy::Proxy;
use support::socks::{Client, credentials};
use support::{eventually, exchange};

const OK: &str = "200 OK";
const FORBIDDEN: &str = "403 Forbidden";
const SYNTAX: &str = "400 Bad Request [SYNTAX] wrong arguments";

/// The `key=value` fields of a line.
fn fields(line: &str) -> HashMap<&str, &str> {
    line.split(' ').map(|pair| pair.split_once('=').expect("a pair")).collect()
}

fn alice(proxy: &Proxy) -> Client {
    Client::new(proxy.socks()).logged_in("alice", "pw")
}

/// One pipelined after the other, a session is closed once.
#[test]
fn kill_twice_in_one_segment() {
    let (proxy, echo) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let _tunnel = alice(&proxy).connected(echo.address);
    let mut admin = proxy.admin();
    let id = fields(&admin.ask("CONNECTIONS")[0])["id"].to_owned();
    admin.say(&format!("KILL {id}\nKILL {id}\nKILL USER alice\nPING\n"));
    for answer in
        ["200 OK killed=1", "404 Not Found [NOCONN] no such connection", "200 OK killed=0"]
    {
        assert_eq!(admin.line(), answer);
    }
    assert_eq!(admin.line(), "200 PONG");
    assert_eq!(admin.ask("CONNECTIONS"), [""; 0]);
}

#[test]
fn a_new_password_acts_on_logins_and_nothing_that_is_open() {
    let (proxy, echo) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let mut tunnel = alice(&proxy).connected(echo.address);
    let mut user = proxy.metp().logged_in("alice", "pw");
    assert_eq!(user.tell("CHANGE-PASSWORD alice two  words "), OK);
    assert_eq!(user.tell("CHANGE-PASSWORD admin x"), FORBIDDEN);
    assert_eq!(user.tell("CHANGE-PASSWORD nobody x"), FORBIDDEN);
    exchange(&mut tunnel, 5);
    assert_eq!(user.ask("USER-METRICS").len(), 1, "the session stays");
    let mut old = Client::new(proxy.socks());
    old.say(&[5, 1, 2]).hears(&[5, 2]);
    old.say(&credentials(b"alice", b"pw")).hears(&[1, 1]);
    let _new = Client::new(proxy.socks()).logged_in("alice", "two  words ");
    let mut admin = proxy.admin();
    assert_eq!(admin.tell("CHANGE-PASSWORD alice pw"), OK);
    let _again = alice(&proxy);
    assert_eq!(admin.tell("CHANGE-PASSWORD nobody x"), "404 Not Found [NOUSER] no such user");
    let bad = "400 Bad Request [BADNAME] name or password not acceptable";
    assert_eq!(admin.tell(&format!("CHANGE-PASSWORD alice {}", "x".repeat(256))), bad);
    assert_eq!(admin.tell("CHANGE-PASSWORD alice a\0b"), bad);
    for line in ["CHANGE-PASSWORD", "CHANGE-PASSWORD alice", "CHANGE-PASSWORD alice "] {
        assert_eq!(admin.tell(line), SYNTAX, "{line}");
    }
}

/// What is long is made as it is read: a reader who does not read costs one piece.
#[test]
fn a_long_list_waits_for_its_reader_and_nobody_for_it() {
    if !support::has_descriptors(2048, "a list of 300 connections") {
        return;
    }
    let (proxy, echo) = (Proxy::with(&["--handshake-timeout", "0"]), Origin::echo());
    let mut tunnel = proxy.tunnel(echo.address);
    let many: Vec<TcpStream> = (0..300).map(|_| proxy.socks()).collect();
    let mut admin = proxy.admin();
    eventually("they are admitted", || admin.metrics()[1] == 301);
    let before = proxy.status_kib("VmRSS");
    let mut stuck = proxy.admin();
    // 200 lists of 300 lines: some 8 MiB, which nobody reads yet.
    stuck.say(&"CONNECTIONS\n".repeat(200));
    for _ in 0..50 {
        exchange(&mut tunnel, 100);
    }
    assert_eq!(admin.tell("PING"), "200 PONG");
    let grown = proxy.status_kib("VmRSS").saturating_sub(before);
    assert!(grown < 1024, "{grown} KiB for answers that nobody reads");
    for _ in 0..200 {
        assert_eq!(stuck.line(), OK);
        assert_eq!(stuck.body().len(), 301);
    }
    drop(many);
}
