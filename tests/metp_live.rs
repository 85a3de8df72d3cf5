//! METP/1.1: connections seen and closed, accounts and server measured, passwords changed
//! (`protocol_metp.txt` §5.10 to §5.16).

use std::collections::HashMap;
use std::io::Write;
use std::net::TcpStream;

use support::metp::Metp;
use support::origin::{Origin, closed_port};
use support::proxy::Proxy;
use support::socks::{Client, connect_request, credentials, name_request};
use support::{eventually, read_exactly, read_to_end};

const OK: &str = "200 OK";
const FORBIDDEN: &str = "403 Forbidden";
const SYNTAX: &str = "400 Bad Request [SYNTAX] unknown verb or wrong arguments";

/// The `key=value` fields of a line.
fn fields(line: &str) -> HashMap<&str, &str> {
    line.split(' ').map(|pair| pair.split_once('=').expect("a pair")).collect()
}

/// The figures of `GET_METRICS ALL`, by key.
fn figures(admin: &mut Metp) -> HashMap<String, u64> {
    let lines = admin.ask("GET_METRICS ALL");
    let figure = |line: &String| {
        let (key, value) = line.split_once(':').expect("a key");
        (key.to_owned(), value.trim().parse().expect("a number"))
    };
    lines.iter().map(figure).collect()
}

/// Sends bytes through a tunnel and waits until they are back.
fn exchange(tunnel: &mut TcpStream, count: usize) {
    tunnel.write_all(&vec![b'x'; count]).expect("taken");
    assert_eq!(read_exactly(tunnel, count).len(), count);
}

fn alice(proxy: &Proxy) -> Client {
    Client::new(proxy.socks()).logged_in("alice", "pw")
}

#[test]
fn each_state_of_a_connection_is_shown() {
    let (proxy, echo) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let silent = proxy.socks();
    let mut greeted = Client::new(proxy.socks());
    greeted.say(&[5, 1, 2]).hears(&[5, 2]);
    let _logged_in = alice(&proxy);
    let mut tunnel = alice(&proxy).connected(echo.address);
    exchange(&mut tunnel, 10);
    let mut admin = proxy.admin();
    eventually("all are there", || admin.ask("CONNECTIONS").len() == 4);
    let lines = admin.ask("CONNECTIONS");
    let at = |local: std::net::SocketAddr| {
        let source = format!("source={local} ");
        lines.iter().find(|line| line.contains(&source)).expect("it is listed").clone()
    };
    let line = at(silent.local_addr().expect("open"));
    assert_eq!(
        ["user", "destination", "peer", "state"].map(|key| fields(&line)[key]),
        ["-", "-", "-", "hello"]
    );
    let line = at(greeted.stream.local_addr().expect("open"));
    assert_eq!((fields(&line)["user"], fields(&line)["state"]), ("-", "auth"));
    let line = at(tunnel.local_addr().expect("open"));
    let (shown, target) = (fields(&line), echo.address.to_string());
    for (key, value) in [
        ("user", "alice"),
        ("destination", &target),
        ("peer", &target),
        ("state", "relay"),
        ("up", "10"),
        ("down", "10"),
        ("buffered", "0"),
    ] {
        assert_eq!(shown[key], value, "{line}");
    }
    let keys: Vec<&str> = line.split(' ').map(|p| p.split('=').next().unwrap_or("")).collect();
    assert_eq!(keys.join(" "), "id user source destination peer state age idle up down buffered");
    assert_eq!(admin.ask("CONNECTIONS USER alice").len(), 2, "one expects its request");
    assert_eq!(admin.ask("CONNECTIONS USER admin"), [""; 0]);
    assert_eq!(admin.tell("CONNECTIONS USER bob"), "404 Not Found [NOUSER] no such user");
    let info = admin.ask("INFO");
    for line in
        ["connections=4", "connections-hello=1", "connections-auth=1", "connections-relay=1"]
    {
        assert!(info.iter().any(|told| told == line), "{line}: {info:?}");
    }
}

#[test]
fn kill_closes_one_connection_and_no_other() {
    let (proxy, echo) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let (mut first, mut second) =
        (alice(&proxy).connected(echo.address), alice(&proxy).connected(echo.address));
    exchange(&mut first, 3);
    let mut admin = proxy.admin();
    let source = format!("source={} ", first.local_addr().expect("open"));
    let lines = admin.ask("CONNECTIONS");
    let line = lines.iter().find(|line| line.contains(&source)).expect("it is listed");
    let id = fields(line)["id"].to_owned();
    assert_eq!(admin.tell(&format!("KILL {id}")), "200 OK killed=1");
    assert_eq!(read_to_end(&mut first), b"");
    proxy.stdout.wait_for(|line| line.contains("\t0\t3\t3\t") && line.ends_with("\tkilled"));
    exchange(&mut second, 3);
    // The next connection takes the place, and not the id.
    let mut third = alice(&proxy).connected(echo.address);
    assert_eq!(admin.tell(&format!("KILL {id}")), "404 Not Found [NOCONN] no such connection");
    exchange(&mut third, 3);
    assert_eq!(admin.tell("KILL USER alice"), "200 OK killed=2");
    assert_eq!((read_to_end(&mut second), read_to_end(&mut third)), (vec![], vec![]));
    assert_eq!(admin.tell("KILL USER alice"), "200 OK killed=0");
    assert_eq!(admin.tell("KILL USER bob"), "404 Not Found [NOUSER] no such user");
    for line in ["KILL", "KILL x", "KILL 1", "KILL 1.", "KILL .1", "KILL 1.2 3", "KILL USER"] {
        assert_eq!(admin.tell(line), SYNTAX, "{line}");
    }
    assert_eq!(figures(&mut admin)["CONNECTIONS_KILLED"], 3);
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
fn usage_is_counted_by_account_from_its_creation_on() {
    let (proxy, echo) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let mut admin = proxy.admin();
    assert_eq!(admin.tell("ADD-USER bob pw"), OK);
    let bob = "user=bob role=user connections=0 total=0 up=0 down=0 last-seen=-";
    assert_eq!(admin.ask("USER-METRICS bob"), [bob]);
    let mut tunnel = alice(&proxy).connected(echo.address);
    exchange(&mut tunnel, 100);
    let line = admin.ask("USER-METRICS alice").remove(0);
    assert!(
        line.starts_with("user=alice role=user connections=1 total=1 up=100 down=100 last-seen=20")
    );
    drop(tunnel);
    proxy.wait_until_idle();
    let _idle = alice(&proxy);
    let all = admin.ask("USER-METRICS");
    assert!(all[0].starts_with("user=admin role=admin connections=0 total=0 "), "{all:?}");
    assert!(all[1].starts_with("user=alice role=user connections=1 total=2 up=100 down=100 "));
    assert_eq!((all.len(), all[2].as_str()), (3, bob));
    // A user sees the own line, and learns of nobody else.
    let mut user = proxy.metp().logged_in("alice", "pw");
    let own = user.ask("USER-METRICS");
    assert!(own.len() == 1 && own[0].starts_with("user=alice "), "{own:?}");
    assert_eq!(user.ask("USER-METRICS alice").len(), 1);
    assert_eq!(user.tell("USER-METRICS bob"), FORBIDDEN);
    assert_eq!(user.tell("USER-METRICS nobody"), FORBIDDEN);
    assert_eq!(admin.tell("USER-METRICS nobody"), "404 Not Found [NOUSER] no such user");
    assert_eq!(admin.tell("USER-METRICS a b"), SYNTAX);
}

#[test]
fn refusals_are_counted_by_cause() {
    let proxy = Proxy::with(&["-u", "alice:pw", "--max-connections-per-ip", "3"]);
    let mut admin = proxy.admin();
    let before = figures(&mut admin);
    assert_eq!(before.len(), 3 + 34, "{before:?}");
    let (_keep, closed) = closed_port();
    let code = |request: &[u8]| {
        let mut client = alice(&proxy);
        let code = client.say(request).reply().0;
        client.hears_eof();
        drop(client);
        proxy.wait_until_idle();
        code
    };
    assert_eq!(code(&connect_request(closed)), 5);
    assert_eq!(code(&connect_request(proxy.socks_address())), 2);
    assert_eq!(code(&[5, 2, 0, 1, 127, 0, 0, 1, 0, 80]), 7);
    assert_eq!(code(&[5, 1, 0, 9]), 8);
    let echo = Origin::echo();
    for _ in 0..2 {
        let mut client = alice(&proxy);
        assert_eq!(client.say(&name_request(b"localhost", echo.address.port())).reply().0, 0);
    }
    proxy.wait_until_idle();
    Client::new(proxy.socks()).say(&[5, 1, 0]).hears(&[5, 0xff]).hears_eof();
    let mut wrong = Client::new(proxy.socks());
    wrong.say(&[5, 1, 2]).hears(&[5, 2]);
    wrong.say(&credentials(b"alice", b"no")).hears(&[1, 1]).hears_eof();
    drop(wrong);
    Client::new(proxy.socks()).say(b"GET / HTTP/1.1\r\n").hears_eof();
    proxy.wait_until_idle();
    let held: Vec<TcpStream> = (0..3).map(|_| proxy.socks()).collect();
    eventually("they are admitted", || admin.metrics()[1] == 3);
    assert_eq!(read_to_end(&mut proxy.socks()), b"");
    drop(held);
    let mut guess = proxy.metp();
    guess.say("HELLO METP/1.0\nAUTH admin no\n").hears("200 Welcome to METP/1.0");
    proxy.wait_until_idle();
    let after = figures(&mut admin);
    let grown = |key: &str| after[key] - before[key];
    for (key, count) in [
        ("REPLY_0", 2),
        ("REPLY_1", 0),
        ("REPLY_2", 1),
        ("REPLY_5", 1),
        ("REPLY_7", 1),
        ("REPLY_8", 1),
        ("REFUSED_RULES", 1),
        ("REFUSED_AUTH", 2),
        ("REFUSED_LIMIT", 1),
        ("DNS_QUERIES", 1),
        ("DNS_CACHE_HITS", 1),
        ("DNS_FAILURES", 0),
        ("CONNECT_TIME_LE_INF", 2),
        ("PANICS", 0),
    ] {
        assert_eq!(grown(key), count, "{key}");
    }
    // The one that is no SOCKS5, the request of an unknown address type, and the three that left.
    assert_eq!(grown("HANDSHAKE_FAILED"), 5);
    assert_eq!(after["ACCEPTED"], after["HISTORICAL_CONNECTIONS"]);
    eventually("the guess is counted", || figures(&mut admin)["METP_AUTH_FAILED"] == 1);
    // Reading resets nothing.
    assert_eq!(figures(&mut admin)["REPLY_0"], after["REPLY_0"]);
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

#[test]
fn logs_by_number_and_by_user() {
    let proxy = Proxy::with(&["-u", "alice:pw", "-u", "bob:pw", "--log-entries", "5"]);
    let echo = Origin::echo();
    for name in ["alice", "bob", "alice", "bob", "bob", "alice"] {
        drop(Client::new(proxy.socks()).logged_in(name, "pw").connected(echo.address));
    }
    let mut admin = proxy.admin();
    let mut users = |command: &str| -> String {
        let initial = |line: &String| line.split(' ').nth(1).expect("a name")[..1].to_owned();
        admin.ask(command).iter().map(initial).collect()
    };
    for (command, expected) in [
        ("GET_LOGS", "babba"),
        ("GET_LOGS LAST 2", "ba"),
        ("GET_LOGS LAST 0", ""),
        ("GET_LOGS LAST 9999999999", "babba"),
        ("GET_LOGS USER alice", "aa"),
        ("GET_LOGS USER nobody", ""),
        ("GET_LOGS LAST 2 USER bob", "bb"),
        ("GET_LOGS USER alice LAST 1", "a"),
    ] {
        assert_eq!(users(command), expected, "{command}");
    }
    for line in ["LAST", "LAST x", "LAST -1", "USER", "LAST 1 LAST 2", "USER a USER b", "ALL"] {
        assert_eq!(admin.tell(&format!("GET_LOGS {line}")), SYNTAX, "{line}");
    }
    let range = "400 Bad Request [RANGE] number out of range";
    assert_eq!(admin.tell("GET_LOGS LAST 99999999999"), range);
}

/// §6: the role comes before the arguments.
#[test]
fn what_a_user_may_not_do_is_403_whatever_follows() {
    let proxy = Proxy::with(&["-u", "alice:pw"]);
    let mut user = proxy.metp().logged_in("alice", "pw");
    for verb in ["INFO", "CONNECTIONS", "KILL", "CONFIG", "SUBSCRIBE", "UNSUBSCRIBE", "SHUTDOWN"] {
        for arguments in ["", " x", " GET", " GRACE 0", " connections", " 0.0", " USER alice"] {
            assert_eq!(user.tell(&format!("{verb}{arguments}")), FORBIDDEN, "{verb}{arguments}");
        }
    }
    assert_eq!(user.ask("CAPA").len(), 11);
    assert_eq!(user.tell("PING a b"), SYNTAX);
    assert_eq!(user.tell("PING \\x41\x1b"), "200 PONG A\\x1b");
    assert_eq!(user.ask("GET_METRICS ALL").len(), 37);
}

/// What is long is made as it is read: a reader who does not read costs one piece.
#[test]
fn a_long_list_waits_for_its_reader_and_nobody_for_it() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
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
