//! Names in datagrams. The server runs in the test, with names of its own.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use support::udp::{Association, name_header, received, socket};
use support::{eventually, has_ipv6};

use crate::inprocess::Inprocess;

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
    answer.send(()).expect("the look-up waits");
    for number in 2..10_u8 {
        assert_eq!(received(&slow).0, [number]);
    }
    assert_eq!(server.admin().figure("UDP_DROPPED_NAME"), 2);
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
    answer.send(()).expect("the look-up waits");
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
