//! Rates that change, and accounts that go, while sessions wait.

use std::time::Duration;

use metp_protocol::Role;
use socks5d::socks::CloseReason;

use super::{BURST, CLIENT, LEAST_GRANT, Server, address, check_rate, seconds, to_target};
use crate::network::{NAME, PASSWORD};

/// A server whose account has read a long message more than it was allowed to.
fn in_debt(rate: &str) -> Server {
    let mut server = Server::new(rate);
    let association = server.association();
    association.near.borrow_mut().joins = true;
    for _ in 0..3000 {
        association.near.borrow_mut().arrives(to_target(&[7; 1000]), address(CLIENT));
    }
    server.turns();
    server.kill(association.number);
    server
}

#[test]
fn a_higher_rate_is_there_at_once() {
    let mut server = in_debt("1kbit");
    let tunnel = server.tunnel(b"");
    tunnel.client.borrow_mut().send(&[7; 20_000]);
    server.passes(seconds(1));
    assert_eq!(tunnel.passed()[0], 0, "it waits");
    server.set_rate("100Mbit");
    server.passes(Duration::from_millis(100));
    assert_eq!(tunnel.passed()[0], 20_000);
    // Nobody has waited when it was changed.
    let mut server = in_debt("1kbit");
    server.set_rate("100Mbit");
    let tunnel = server.tunnel(b"");
    tunnel.client.borrow_mut().send(&[7; 20_000]);
    server.passes(Duration::from_millis(100));
    assert_eq!(tunnel.passed()[0], 20_000);
}

#[test]
fn a_lower_rate_holds_at_once_and_stops_nobody() {
    let mut server = in_debt("100Mbit");
    let tunnel = server.tunnel(b"");
    tunnel.babble();
    server.passes(Duration::from_millis(200));
    server.set_rate("1kbit");
    server.turns();
    let before = tunnel.passed();
    server.passes(seconds(1000));
    for (after, before) in tunnel.passed().into_iter().zip(before) {
        check_rate(after - before, 125, seconds(1000), LEAST_GRANT);
    }
}

/// A rate that is lifted is none, and one that is set again begins with its burst.
#[test]
fn a_rate_is_lifted_and_set_again() {
    let mut server = in_debt("1kbit");
    let tunnel = server.tunnel(b"early");
    tunnel.client.borrow_mut().send(&[7; 20_000]);
    server.passes(seconds(1));
    assert_eq!(tunnel.passed()[0], 0);
    server.set_rate("none");
    server.turns();
    assert_eq!(tunnel.passed()[0], 20_005);
    server.set_rate("1kbit");
    let before = tunnel.passed();
    tunnel.babble();
    server.turns();
    server.passes(seconds(1000));
    for (after, before) in tunnel.passed().into_iter().zip(before) {
        check_rate(after - before, 125, seconds(1000), BURST + LEAST_GRANT);
    }
}

/// What was given under a rate that is lifted is not kept for the next one.
#[test]
fn a_rate_is_lifted_right_behind_a_grant() {
    let mut server = Server::new("100Mbit");
    let tunnel = server.tunnel(b"");
    tunnel.babble();
    server.passes(Duration::from_millis(100));
    tunnel.hush();
    tunnel.client.borrow_mut().send(&[7; 1000]);
    server.grant();
    server.set_rate("none");
    server.turns();
    server.set_rate("1kbit");
    let before = tunnel.passed();
    tunnel.babble();
    server.turns();
    for (after, before) in tunnel.passed().into_iter().zip(before) {
        assert!(after - before <= BURST + LEAST_GRANT, "{}", after - before);
    }
}

/// However often a rate changes, and whatever is asked in the same instant.
#[test]
fn a_clock_that_stands_gives_nothing() {
    let mut server = Server::new("1kbit");
    let tunnels = [server.tunnel(b""), server.tunnel(b"early")];
    for tunnel in &tunnels {
        tunnel.babble();
    }
    for _ in 0..200 {
        for rate in ["2kbit", "1kbit"] {
            server.set_rate(rate);
            server.turns();
            server.passes(Duration::ZERO);
        }
    }
    for direction in 0..2 {
        let all: u64 = tunnels.iter().map(|tunnel| tunnel.passed()[direction]).sum();
        assert!(all <= BURST + LEAST_GRANT, "{all}");
    }
}

/// An account of the same name owes nothing of what the old one has read.
#[test]
fn an_account_that_is_made_anew_begins_with_its_burst() {
    let mut server = in_debt("1kbit");
    let old = server.tunnel(b"");
    old.babble();
    server.turns();
    let users = &mut server.shared.process.users;
    users.delete(server.user);
    assert_eq!(users.take_deleted(), [server.user]);
    server.user = users.add(NAME, PASSWORD, Role::User).expect("free");
    server.set_rate("1kbit");
    let new = server.tunnel(b"");
    new.client.borrow_mut().send(&[7; 20_000]);
    server.turns();
    assert_eq!((old.passed()[0], new.passed()[0]), (0, 20_000));
    // As the server does in its next turn.
    let open = server.sessions.remove(&old.number).expect("open");
    open.session.close(CloseReason::UserDeleted, &mut server.context(old.number));
    assert_eq!(server.shared.rates.waiting(), 0);
    server.passes(seconds(100));
    assert_eq!(new.passed()[0], 20_000);
}
