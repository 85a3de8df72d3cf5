//! The targets' side: what reaches the client, and with which header.

use std::net::{Ipv6Addr, SocketAddr};

use support::has_ipv6;
use support::noise;
use support::origin::closed_port;
use support::proxy::Proxy;
use support::udp::{Association, header, received, socket, socket_on};

/// Every target sees the same port (RFC 4787 REQ-1), and each answer has its own source.
#[test]
fn two_targets_are_told_apart() {
    let proxy = Proxy::start();
    let association = Association::open(&proxy);
    let (one, two) = (socket(), socket_on([127, 0, 0, 2].into()));
    let mapped = association.reaches(&one, b"one");
    assert_eq!(association.reaches(&two, b"two").port(), mapped.port());
    for turn in 0..4_u8 {
        association.is_answered(&two, mapped, &[2, turn]);
        association.is_answered(&one, mapped, &[1, turn]);
    }
}

/// The filter of replies, by its three values: RFC 4787 section 5.
#[test]
fn replies_are_filtered() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    for (filter, other_port, stranger) in
        [("any", true, true), ("address", true, false), ("port", false, false)]
    {
        admin.set("udp-filter", filter);
        let association = Association::open(&proxy);
        let (target, neighbour) = (socket(), socket());
        let elsewhere = socket_on([127, 0, 0, 8].into());
        let mapped = association.exchanges(&target, b"known");
        for (sender, passes) in [(&neighbour, other_port), (&elsewhere, stranger)] {
            sender.send_to(b"unasked", mapped).expect("sent");
            if passes {
                let (source, payload) = association.receive();
                assert_eq!(
                    (source, &payload[..]),
                    (sender.local_addr().expect("bound"), &b"unasked"[..])
                );
            }
            association.is_answered(&target, mapped, b"answer");
        }
    }
    assert_eq!(admin.figure("UDP_DROPPED_FILTERED"), 3);
}

/// An IPv6 target over an IPv4 control connection has ATYP 04 in its answers.
#[test]
fn answers_have_the_family_of_their_source() {
    if !has_ipv6("a target on IPv6") {
        return;
    }
    let proxy = Proxy::start();
    let association = Association::open(&proxy);
    let target = socket_on(Ipv6Addr::LOCALHOST.into());
    association.exchanges(&target, b"six");
    // A v4-mapped target is IPv4: ATYP 01 in the answer.
    let four = socket();
    let address = four.local_addr().expect("bound");
    let mapped =
        SocketAddr::new(Ipv6Addr::from([0, 0, 0, 0, 0, 0xffff, 0x7f00, 1]).into(), address.port());
    association.send(mapped, b"mapped");
    let (_, from) = received(&four);
    association.is_answered(&four, from, b"four");
}

/// A datagram of 65,507 bytes with its header is relayed whole; a longer answer is dropped, never cut.
#[test]
fn long_datagrams_are_whole_or_dropped() {
    let (proxy, target) = (Proxy::start(), socket());
    let association = Association::open(&proxy);
    for length in [1472, 1473, 8192, 65_496, 65_497] {
        association.exchanges(&target, &noise(length, 3));
    }
    let mapped = association.reaches(&target, b"more");
    for length in [65_498, 65_507] {
        target.send_to(&noise(length, 4), mapped).expect("sent");
    }
    association.is_answered(&target, mapped, b"short");
    assert_eq!(proxy.admin().figure("UDP_DROPPED_SIZE"), 2);
}

/// Runs of datagrams of equal and of different lengths arrive one by one and in order.
#[test]
fn runs_of_datagrams_stay_what_they_are() {
    let (proxy, target) = (Proxy::start(), socket());
    let association = Association::open(&proxy);
    let mapped = association.reaches(&target, b"first");
    let other = socket_on([127, 0, 0, 2].into());
    association.reaches(&other, b"first");
    let lengths = [1200, 1200, 1200, 1200, 700, 1200, 1200, 1, 0, 1200, 64, 64, 64, 64, 65, 64];
    for (number, length) in lengths.into_iter().enumerate() {
        let to = if number % 5 == 4 { &other } else { &target };
        association.send(to.local_addr().expect("bound"), &noise(length, number as u64));
    }
    for (number, length) in lengths.into_iter().enumerate() {
        let at = if number % 5 == 4 { &other } else { &target };
        assert!(received(at).0 == noise(length, number as u64), "datagram {number}");
    }
    for (number, length) in lengths.into_iter().enumerate() {
        let from = if number % 5 == 4 { &other } else { &target };
        from.send_to(&noise(length, number as u64), mapped).expect("sent");
    }
    let (mut of_target, mut of_other) = (Vec::new(), Vec::new());
    for _ in lengths {
        let (source, payload) = association.receive();
        let from_other = source == other.local_addr().expect("bound");
        if from_other { of_other.push(payload) } else { of_target.push(payload) }
    }
    for (number, length) in lengths.into_iter().enumerate() {
        let from = if number % 5 == 4 { &mut of_other } else { &mut of_target };
        assert!(from.remove(0) == noise(length, number as u64), "answer {number}");
    }
}

/// A target that refuses (ICMP port unreachable) does not end the association, nor does a client whose socket is gone.
#[test]
fn refusals_end_nothing() {
    let (proxy, target) = (Proxy::start(), socket());
    let mut association = Association::open(&proxy);
    let mapped = association.exchanges(&target, b"before");
    let (_kept, closed) = closed_port();
    for _ in 0..8 {
        association.send(closed, b"refused");
    }
    association.exchanges(&target, b"after");

    // The client's socket is closed: what is sent there comes back as ECONNREFUSED.
    let address = association.socket.local_addr().expect("bound");
    association.socket = socket();
    for _ in 0..8 {
        target.send_to(b"gone", mapped).expect("sent");
    }
    let again = std::net::UdpSocket::bind(address);
    association.socket = again.expect("its port is free again");
    association.socket.set_read_timeout(Some(support::PATIENCE)).expect("a socket");
    association.send(target.local_addr().expect("bound"), b"back");
    assert_eq!(received(&target).0, b"back");
}

/// More targets than are remembered: the oldest may no longer answer, and the association goes on.
#[test]
fn the_oldest_targets_are_forgotten() {
    let proxy = Proxy::with(&["--udp-filter", "port"]);
    let association = Association::open(&proxy);
    let first = socket();
    let mapped = association.exchanges(&first, b"first");
    let targets: Vec<_> = (0..8).map(|_| socket()).collect();
    // Ports of 127.0.0.3 where nobody listens; one datagram in eight goes to a socket, which keeps pace.
    for number in 1..=1200_u16 {
        association.send(SocketAddr::from(([127, 0, 0, 3], number)), b"");
        if number % 32 == 0 {
            association.reaches(&targets[usize::from(number / 32) % targets.len()], b"pace");
        }
    }
    first.send_to(b"forgotten", mapped).expect("sent");
    let last = &targets[usize::from(1184_u16 / 32) % targets.len()];
    association.is_answered(last, mapped, b"remembered");
    association.exchanges(&first, b"again");
}

/// The header that a datagram comes back with is the one it was sent with.
#[test]
fn a_header_comes_back() {
    let (proxy, target) = (Proxy::start(), socket());
    let association = Association::open(&proxy);
    let mapped = association.reaches(&target, b"there");
    target.send_to(b"back", mapped).expect("sent");
    let (bytes, _) = received(&association.socket);
    assert_eq!(bytes, [&header(target.local_addr().expect("bound"))[..], b"back"].concat());
}
