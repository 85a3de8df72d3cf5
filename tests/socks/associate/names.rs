//! Names in datagrams. The server runs in the test, with names of its own.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socks5d::workers::families::Family;
use support::origin::Origin;
use support::socks::name_request;
use support::udp::{Association, name_header, received, socket, socket_at};
use support::{eventually, has_ipv6, read_the_end};

use crate::inprocess::{Builder, Inprocess};

fn associate(server: &Inprocess) -> Association {
    Association::of(server.client())
}

/// The answer names the address, not the name: clients cannot read ATYP 03.
#[test]
fn a_name_is_looked_up_and_the_answer_has_its_address() {
    let (server, target) = (Inprocess::start(), socket());
    server.names().add_ip("target.test", Ipv4Addr::LOCALHOST.into());
    let association = associate(&server);
    let port = target.local_addr().expect("bound").port();
    for name in [&b"target.test"[..], b"Target.TEST"] {
        association.send_bytes(&[&name_header(name, port)[..], b"by name"].concat());
        let (bytes, from) = received(&target);
        assert_eq!(bytes, b"by name");
        association.is_answered(&target, from, b"answer");
    }
    assert_eq!(server.names().asked(), ["target.test"]);
}

/// An address in a name is no name, with or without brackets.
#[test]
fn a_literal_in_a_name_is_not_looked_up() {
    let (server, target) = (Inprocess::start(), socket());
    let association = associate(&server);
    let port = target.local_addr().expect("bound").port();
    association.send_bytes(&[&name_header(b"127.0.0.1", port)[..], b"literal"].concat());
    assert_eq!(received(&target).0, b"literal");
    assert!(server.names().asked().is_empty());
}

/// `localhost` is 127.0.0.1 for datagrams: unlike with a connection, no refusal leads to the second address.
#[test]
fn localhost_is_ipv4() {
    let (server, target) = (Inprocess::start(), socket());
    let association = associate(&server);
    let port = target.local_addr().expect("bound").port();
    association.send_bytes(&[&name_header(b"localhost", port)[..], b"here"].concat());
    assert_eq!(received(&target).0, b"here");
    assert!(server.names().asked().is_empty());
}

/// Names that cannot exist, and those that do not, cost their datagrams and nothing else.
#[test]
fn unknown_names_end_nothing() {
    let (server, target) = (Inprocess::start(), socket());
    server.names().add("nowhere.test", &[]);
    let association = associate(&server);
    for name in [&b"a\0b"[..], b"*", b"a b", b"nowhere.test", b"unknown.test"] {
        association.send_bytes(&[&name_header(name, 53)[..], b"lost"].concat());
    }
    association.exchanges(&target, b"good");
    let mut admin = server.admin();
    eventually("all five are counted", || admin.figure("UDP_DROPPED_NAME") == 5);
}

/// A name in DST of the request is not looked up.
#[test]
fn the_name_of_the_request_is_not_looked_up() {
    let (server, target) = (Inprocess::start(), socket());
    let request = [b"\x05\x03\x00\x03\x0ctarget.test.", &b"\x00\x50"[..]].concat();
    Association::requesting(server.client(), &request).exchanges(&target, b"any");
    assert!(server.names().asked().is_empty());
}

/// Eight datagrams wait for a slow name, the newest ones, and come in order; others are not held up.
#[test]
fn datagrams_wait_for_a_slow_name() {
    let (server, slow, quick) = (Inprocess::start(), socket(), socket());
    server.names().add_ip("slow.test", Ipv4Addr::LOCALHOST.into());
    let answer = server.names().hang("slow.test");
    let association = associate(&server);
    let port = slow.local_addr().expect("bound").port();
    for number in 0..10_u8 {
        association.send_bytes(&[&name_header(b"slow.test", port)[..], &[number]].concat());
    }
    association.exchanges(&quick, b"meanwhile");
    drop(answer);
    for number in 2..10_u8 {
        assert_eq!(received(&slow).0, [number]);
    }
    assert_eq!(server.admin().figure("UDP_DROPPED_NAME"), 2);
}

/// Names are answered in any order, and each datagram goes where its own name leads.
#[test]
fn names_may_be_answered_in_reverse_order() {
    let (server, first, second) = (Inprocess::start(), socket(), socket());
    let ask = |name: &str| {
        server.names().add_ip(name, Ipv4Addr::LOCALHOST.into());
        server.names().hang(name)
    };
    let (first_answer, second_answer) = (ask("first.test"), ask("second.test"));
    let association = associate(&server);
    for (name, target) in [(&b"first.test"[..], &first), (b"second.test", &second)] {
        let port = target.local_addr().expect("bound").port();
        association.send_bytes(&[&name_header(name, port)[..], name].concat());
    }
    drop(second_answer);
    assert_eq!(received(&second).0, b"second.test");
    drop(first_answer);
    assert_eq!(received(&first).0, b"first.test");
}

/// A name that cannot be looked up in a datagram cannot be in a request either, and what can be one can be the other:
/// a dot at the end, 255 bytes, NUL, a space.
#[test]
fn names_are_those_of_a_connect() {
    let (server, origin) = (Inprocess::start(), Origin::echo());
    server.names().add_ip("dotted.test.", Ipv4Addr::LOCALHOST.into());
    server.names().add_ip("dotted.test", Ipv4Addr::LOCALHOST.into());
    // UDP has ports of its own.
    let target = socket_at(origin.address);
    let association = associate(&server);
    let mut admin = server.admin();
    let mut dropped = 0;
    for (name, exists) in [
        (&b"dotted.test."[..], true),
        (b"dotted.test", true),
        (b"DOTTED.test.", true),
        (&[b'a'; 255], false),
        (b"dotted.test\0", false),
        (b"\0", false),
        (b" dotted.test", false),
        (b"dotted..test", false),
        (b".", false),
        (b"*", false),
    ] {
        let request = name_request(name, origin.address.port());
        let code = server.client().say(&request).reply().0;
        let what = String::from_utf8_lossy(name);
        assert_eq!(code == 0, exists, "{what:?}: {code}");
        association.send_bytes(&[&name_header(name, origin.address.port())[..], b"x"].concat());
        if exists {
            assert_eq!(received(&target).0, b"x", "{what:?}");
        } else {
            dropped += 1;
            eventually("it is dropped", || admin.figure("UDP_DROPPED_NAME") == dropped);
        }
    }
}

/// Four names of an association may be looked up at once, also if one family of each is there.
#[test]
fn look_ups_of_an_association_are_limited() {
    let (server, target) = (Inprocess::start(), socket());
    let association = associate(&server);
    let port = target.local_addr().expect("bound").port();
    let names: Vec<String> = (0..7).map(|number| format!("half{number}.test")).collect();
    let ask = |name: &String| {
        server.names().add_ip(name, Ipv4Addr::LOCALHOST.into());
        let never = server.names().hang_family(name, Family::V6);
        association.send_bytes(&[&name_header(name.as_bytes(), port)[..], b"half"].concat());
        never
    };
    let never: Vec<_> = names[..4].iter().map(ask).collect();
    for _ in &never {
        assert_eq!(received(&target).0, b"half");
    }
    let _more: Vec<_> = names[4..].iter().map(ask).collect();
    let mut admin = server.admin();
    eventually("the others are dropped", || admin.figure("UDP_DROPPED_NAME") == 3);
    drop(never);
    // The first four are known by now, and others have a chance.
    eventually("another name", || {
        association.send_bytes(&[&name_header(b"half6.test", port)[..], b"half"].concat());
        target.set_nonblocking(true).expect("a socket");
        target.recv(&mut [0; 16]).is_ok()
    });
}

/// What waits for a name that has turned out to be of no use in one family waits for the other one.
#[test]
fn datagrams_wait_for_the_family_that_is_of_use() {
    let (server, target) = (Inprocess::start(), socket());
    let port = target.local_addr().expect("bound").port();
    let addresses: [SocketAddr; 2] =
        [(Ipv6Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::LOCALHOST, port).into()];
    server.names().add("both.test", &addresses);
    let answer = server.names().hang_family("both.test", Family::V4);
    let association = associate(&server);
    association.send_bytes(&[&name_header(b"both.test", port)[..], b"patient"].concat());
    // One address of a family that cannot be used is there after the resolution delay.
    target.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
    assert!(target.recv(&mut [0; 16]).is_err());
    drop(answer);
    target.set_read_timeout(Some(support::PATIENCE)).expect("a socket");
    assert_eq!(received(&target).0, b"patient");
    assert_eq!(server.admin().figure("UDP_DROPPED_NAME"), 0);
}

/// A look-up that takes longer than the idle timeout does not keep the association.
#[test]
fn an_idle_association_ends_while_a_name_is_looked_up() {
    let idle = Some(Duration::from_millis(300));
    let server = Builder::default().timeouts(|t| t.udp_idle = idle).start();
    server.names().add_ip("slow.test", Ipv4Addr::LOCALHOST.into());
    let answer = server.names().hang("slow.test");
    let mut association = associate(&server);
    association.send_bytes(&[&name_header(b"slow.test", 53)[..], b"late"].concat());
    read_the_end(&mut association.control);
    let mut admin = server.admin();
    assert_eq!(admin.figure("UDP_ASSOCIATIONS_OPEN"), 0);
    assert_eq!(admin.figure("UDP_DROPPED_NAME"), 1);
    drop(answer);
}

/// KILL while a look-up is pending: its descriptors count until it is done, as the checks of the server's sums see it,
/// which are made at each turn here.
#[test]
fn a_look_up_may_outlive_its_association() {
    let server = Inprocess::start();
    server.names().add_ip("slow.test", Ipv4Addr::LOCALHOST.into());
    let answer = server.names().hang("slow.test");
    let mut association = associate(&server);
    association.send_bytes(&[&name_header(b"slow.test", 53)[..], b"late"].concat());
    eventually("it is being looked up", || server.names().asked() == ["slow.test"]);
    let mut admin = server.admin();
    admin.command("KILL USER admin");
    read_the_end(&mut association.control);
    assert_eq!(admin.figure("UDP_DROPPED_NAME"), 1);
    // The same name again joins the look-up, or finds what it has found.
    let target = socket();
    let again = associate(&server);
    let port = target.local_addr().expect("bound").port();
    again.send_bytes(&[&name_header(b"slow.test", port)[..], b"again"].concat());
    drop(answer);
    assert_eq!(received(&target).0, b"again");
}

/// The control connection ends while a look-up is pending: its answer finds nobody.
#[test]
fn an_answer_may_come_too_late() {
    let (server, target) = (Inprocess::start(), socket());
    server.names().add_ip("slow.test", Ipv4Addr::LOCALHOST.into());
    let answer = server.names().hang("slow.test");
    let association = associate(&server);
    association.send_bytes(&[&name_header(b"slow.test", 53)[..], b"late"].concat());
    association.exchanges(&target, b"read");
    drop(association);
    let mut admin = server.admin();
    eventually("it has ended", || admin.figure("UDP_ASSOCIATIONS_OPEN") == 0);
    drop(answer);
    associate(&server).exchanges(&target, b"next");
}

/// A name with addresses of both families uses the first that can be reached.
#[test]
fn the_first_permitted_address_is_used() {
    if !has_ipv6("a name with both families") {
        return;
    }
    let (server, target) = (Inprocess::start(), socket());
    let port = target.local_addr().expect("bound").port();
    let addresses: [SocketAddr; 2] =
        [(Ipv6Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::LOCALHOST, 0).into()];
    server.names().add("both.test", &addresses);
    let association = associate(&server);
    association.send_bytes(&[&name_header(b"both.test", port)[..], b"second"].concat());
    assert_eq!(received(&target).0, b"second");
}
