//! Associations under a rate.

use std::net::SocketAddr;
use std::time::Duration;

use socks5d::workers::dns_cache::Resolution;

use super::{
    Association, BURST, CLIENT, LEAST_GRANT, Server, SharedUdp, TARGET, address, check_rate, key,
    seconds, to_target,
};

/// What one call may receive beyond what was allowed: the longest message.
const MESSAGE: u64 = 64 * 1024;
/// The header of a datagram that goes to the client.
const HEADER: usize = 10;
const STRANGER: &str = "203.0.113.9:5353";

/// Payload bytes that a socket has sent.
fn sent(socket: &SharedUdp, header: usize) -> u64 {
    socket.borrow().sent.iter().map(|(bytes, _)| (bytes.len() - header) as u64).sum()
}

/// Many datagrams arrive at a socket.
fn arrive(socket: &SharedUdp, count: usize, bytes: &[u8], from: &str) {
    for _ in 0..count {
        socket.borrow_mut().arrives(bytes.to_vec(), address(from));
    }
}

/// Payload of this size arrives for both ends, in datagrams of 1,000 bytes.
fn arrives_for_both(server: &Server, association: &Association, size: usize) {
    let (count, payload) = (size / 1000, [7; 1000]);
    arrive(&association.near, count, &to_target(&payload), CLIENT);
    arrive(&server.far(association), count, &payload, TARGET);
}

/// Payload bytes that have reached target and client.
fn passed(server: &Server, association: &Association) -> [u64; 2] {
    [sent(&server.far(association), 0), sent(&association.near, HEADER)]
}

#[test]
fn an_association_has_its_rate_and_no_more() {
    for (text, rate, time) in [("1kbit", 125, 8000), ("64kbit", 8000, 100), ("1Mbit", 125_000, 8)] {
        for joins in [false, true] {
            let mut server = Server::new(text);
            let association = server.association();
            for socket in [&association.near, &server.far(&association)] {
                socket.borrow_mut().joins = joins;
            }
            arrives_for_both(&server, &association, 1_500_000);
            server.turns();
            for passed in passed(&server, &association) {
                assert!(passed <= BURST + MESSAGE, "{text} {joins}: {passed} at once");
            }
            server.passes(seconds(time));
            for passed in passed(&server, &association) {
                check_rate(passed, rate, seconds(time), BURST + MESSAGE);
            }
        }
    }
}

#[test]
fn associations_and_tunnels_share_a_rate() {
    let mut server = Server::new("64kbit");
    let (tunnel, associations) = (server.tunnel(b""), [server.association(), server.association()]);
    tunnel.babble();
    for association in &associations {
        arrives_for_both(&server, association, 1_000_000);
    }
    server.turns();
    server.passes(seconds(100));
    for direction in 0..2 {
        let datagrams = associations.iter().map(|of| passed(&server, of)[direction]);
        let parts = [datagrams.collect::<Vec<_>>(), vec![tunnel.passed()[direction]]].concat();
        check_rate(parts.iter().sum(), 8000, seconds(100), BURST + MESSAGE);
        assert!(parts.iter().all(|part| *part > 8000 * 100 / 10), "{parts:?}");
    }
}

/// Datagrams that go nowhere cost the account nothing, whoever sends them.
#[test]
fn datagrams_that_are_dropped_are_not_paid_for() {
    let mut server = Server::new("64kbit");
    let (tunnel, association) = (server.tunnel(b""), server.association());
    tunnel.babble();
    server.passes(seconds(20));
    let before = tunnel.passed();
    for _ in 0..400 {
        arrive(&association.near, 1, &to_target(b"junk"), STRANGER);
        arrive(&association.near, 1, b"no header", CLIENT);
        arrive(&server.far(&association), 1, b"junk", STRANGER);
        server.passes(Duration::from_millis(50));
    }
    for (after, before) in tunnel.passed().into_iter().zip(before) {
        check_rate(after - before, 8000, seconds(20), LEAST_GRANT);
    }
    // Also if it ends before its turn comes.
    for _ in 0..400 {
        let other = server.association();
        arrive(&other.near, 1, b"no header", CLIENT);
        server.passes(Duration::from_millis(50));
        server.kill(other.number);
    }
    for (after, before) in tunnel.passed().into_iter().zip(before) {
        check_rate(after - before, 8000, seconds(40), 2 * LEAST_GRANT);
    }
}

/// Datagrams that have waited for their names are under the rate as well.
#[test]
fn the_answer_of_a_look_up_is_no_way_past_the_rate() {
    let mut server = Server::new("1kbit");
    let associations: Vec<_> = (0..20).map(|_| server.association()).collect();
    for association in &associations {
        let name = b"a.example";
        let header = [&[0, 0, 0, 3, name.len() as u8][..], name, &[0, 53]].concat();
        arrive(&association.near, 8, &[header, vec![7; 1500]].concat(), CLIENT);
    }
    server.turns();
    let far = |server: &Server, of: &Association| sent(&server.far(of), 0);
    let all = |server: &Server| associations.iter().map(|of| far(server, of)).sum::<u64>();
    assert_eq!(all(&server), 20 * 8, "all wait for their names");
    for association in &associations {
        let number = association.number;
        server.fixture.dns.cancel(key(number), "a.example");
        let addresses: Vec<SocketAddr> = vec![address(TARGET)];
        let (name, addresses) = ("a.example".into(), Ok(addresses));
        let answer = Resolution { key: key(number), name, port: 0, addresses, more: false };
        server.sessions.get_mut(&number).expect("open").session.resolved(answer, server.now);
        server.ready.insert(number);
    }
    server.turns();
    assert!(all(&server) <= BURST + 1500, "{} at once", all(&server));
    server.passes(seconds(1000));
    check_rate(all(&server), 125, seconds(1000), BURST + 1500);
    server.passes(seconds(1000));
    assert_eq!(all(&server), 20 * 8 * 1501);
}
