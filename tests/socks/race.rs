//! Several addresses of a target (Happy Eyeballs, RFC 8305 section 5). The server runs in the test, with names of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::Socket;
use support::origin::{Origin, closed_port, deaf};
use support::socks::name_request;
use support::{exchange, read_the_end};

use crate::inprocess::{Builder, Inprocess};

/// A server whose attempts to connect take very long to be given up: only another attempt can help.
fn patient() -> Inprocess {
    let long = Some(Duration::from_secs(600));
    Builder::default().timeouts(|t| (t.connect, t.connect_total) = (long, long)).start()
}

/// The code of the reply to a CONNECT to this name.
fn asked(server: &Inprocess, name: &str) -> u8 {
    server.client().say(&name_request(name.as_bytes(), 80)).reply().0
}

fn figures(server: &Inprocess) -> [u64; 3] {
    let mut admin = server.admin();
    ["CONNECT_ATTEMPTS", "CONNECT_RACES", "CONNECT_LOST"].map(|key| admin.figure(key))
}

/// Addresses where connections hang, and what keeps them so.
fn dead(count: usize) -> (Vec<Vec<Socket>>, Vec<SocketAddr>) {
    (0..count).map(|_| deaf()).unzip()
}

/// A dead first address costs 250 ms, and a tunnel through the second attempt carries everything.
#[test]
fn the_second_address_wins() {
    let (server, echo, (_held, dead)) = (patient(), Origin::echo(), dead(1));
    server.names().add("two.test", &[dead[0], echo.address]);
    let mut client = server.client();
    let (code, bound) = client.say(&name_request(b"two.test", 80)).reply();
    assert_eq!((code, bound.ip()), (0, Ipv4Addr::LOCALHOST.into()));
    exchange(&mut client.stream, 3 << 20);
    assert_eq!(figures(&server), [2, 1, 1]);
    drop(client);
    // The one that has won is tried first next time.
    assert_eq!(asked(&server, "two.test"), 0);
    assert_eq!(figures(&server), [3, 1, 1]);
}

/// The third attempt may win, too: its descriptor is on another side.
#[test]
fn the_third_address_wins() {
    let (server, echo, (_held, dead)) = (patient(), Origin::echo(), dead(2));
    server.names().add("three.test", &[dead[0], dead[1], echo.address]);
    let mut client = server.client();
    assert_eq!(client.say(&name_request(b"three.test", 80)).reply().0, 0);
    exchange(&mut client.stream, 3 << 20);
    assert_eq!(figures(&server), [3, 1, 2]);
}

/// With all places taken the oldest attempt makes room, so that even the seventh address is reached.
#[test]
fn many_dead_addresses_do_not_hide_a_good_one() {
    let (server, echo, (_held, mut addresses)) = (patient(), Origin::echo(), dead(5));
    addresses.push(echo.address);
    server.names().add("six.test", &addresses);
    assert_eq!(asked(&server, "six.test"), 0);
    assert_eq!(figures(&server), [6, 1, 2]);
}

/// A refusal leads to the next address at once: there is never a second attempt beside another one.
#[test]
fn a_refusal_makes_no_race() {
    let (server, echo, (_held, closed)) = (patient(), Origin::echo(), closed_port());
    server.names().add("refused.test", &[closed, closed, echo.address]);
    assert_eq!(asked(&server, "refused.test"), 0);
    assert_eq!(figures(&server), [3, 0, 0]);
}

/// One address: one attempt, whatever it comes to.
#[test]
fn one_address_makes_no_race() {
    let (server, echo, (_held, closed)) = (patient(), Origin::echo(), closed_port());
    server.names().add("one.test", &[echo.address]);
    server.names().add("closed.test", &[closed]);
    assert_eq!((asked(&server, "one.test"), asked(&server, "closed.test")), (0, 5));
    assert_eq!(figures(&server), [2, 0, 0]);
}

/// `--connect-total-timeout` ends all attempts; a refusal says more than a timeout.
#[test]
fn the_total_time_ends_all_attempts() {
    let server = Builder::default()
        .timeouts(|t| {
            t.connect = None;
            t.connect_total = Some(Duration::from_millis(600));
        })
        .start();
    let ((_held, dead), (_closed, closed)) = (dead(4), closed_port());
    server.names().add("dead.test", &dead);
    assert_eq!(asked(&server, "dead.test"), 6);
    server.names().add("mixed.test", &[closed, dead[0], dead[1]]);
    assert_eq!(asked(&server, "mixed.test"), 5);
}

/// The timeout of a single attempt holds for each of several, too.
#[test]
fn each_attempt_has_its_timeout() {
    let server =
        Builder::default().timeouts(|t| t.connect = Some(Duration::from_millis(700))).start();
    let (_held, dead) = dead(2);
    server.names().add("dead.test", &dead);
    assert_eq!(asked(&server, "dead.test"), 6);
    assert_eq!(figures(&server), [2, 1, 0]);
}

/// A client that leaves while attempts are under way leaves none behind.
#[test]
fn all_attempts_end_with_the_client() {
    let (server, (_held, dead)) = (patient(), dead(3));
    server.names().add("dead.test", &dead);
    let mut client = server.client();
    client.say(&name_request(b"dead.test", 80));
    let mut admin = server.admin();
    support::eventually("three attempts", || figures(&server)[0] == 3);
    admin.command("KILL USER admin");
    read_the_end(&mut client.stream);
    support::eventually("it is gone", || admin.info("connections") == "0");
}
