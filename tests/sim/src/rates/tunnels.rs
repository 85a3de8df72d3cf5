//! Tunnels under a rate.

use std::time::Duration;

use socks5d::state::settings::{Settings, Timeouts};

use super::{BURST, LEAST_GRANT, Server, Tunnel, check_rate, seconds};
use crate::fake::End;

/// Rates, and the bytes per second that they are.
const RATES: [(&str, u64); 3] = [("1kbit", 125), ("64kbit", 8000), ("1Mbit", 125_000)];
/// What a tunnel at a low rate has to send so that it takes longer than any of [`timeouts`].
const LONG: usize = 30_000;

/// Short ones, all of them.
fn timeouts() -> Settings {
    let (idle, half_close, linger) = (Some(seconds(9)), Some(seconds(7)), Some(seconds(5)));
    let timeouts = Timeouts { idle, half_close, linger, ..Timeouts::default() };
    Settings { timeouts, ..Settings::default() }
}

/// A server of which nothing is left that an account may read at once.
fn without_burst(rate: &str) -> Server {
    let mut server = Server::with(rate, timeouts());
    let greedy = server.tunnel(b"");
    greedy.babble();
    server.turns();
    greedy.hush();
    server.kill(greedy.number);
    server.reasons();
    server
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn a_tunnel_has_its_rate_and_no_more() {
    for (text, rate) in RATES {
        let mut server = Server::new(text);
        let tunnel = server.tunnel(b"");
        tunnel.babble();
        server.turns();
        for passed in tunnel.passed() {
            assert!((LEAST_GRANT..=BURST).contains(&passed), "{text}: {passed} at once");
        }
        let time = seconds(4000 * 125 / rate + 2);
        server.passes(time);
        for passed in tunnel.passed() {
            check_rate(passed, rate, time, BURST + LEAST_GRANT);
        }
    }
}

#[test]
fn two_tunnels_share_a_rate() {
    for (text, rate) in RATES {
        let mut server = Server::new(text);
        let tunnels = [server.tunnel(b""), server.tunnel(b"")];
        tunnels.iter().for_each(Tunnel::babble);
        server.turns();
        let before = tunnels.each_ref().map(Tunnel::passed);
        let time = seconds(8000 * 125 / rate + 2);
        server.passes(time);
        let after = tunnels.each_ref().map(Tunnel::passed);
        for direction in 0..2 {
            let [first, second] = after.map(|passed| passed[direction]);
            check_rate(first + second, rate, time, BURST + LEAST_GRANT);
            let [before, other] = before.map(|passed| passed[direction]);
            let (first, second) = (first - before, second - other);
            let allowed = (first + second) / 10 + LEAST_GRANT;
            assert!(first.abs_diff(second) <= allowed, "{text}: {first}, {second}");
        }
    }
}

/// The peer has sent, and reset its connection. That its bytes have to wait is not its silence.
#[test]
fn what_a_reset_peer_has_sent_is_delivered_however_slowly() {
    for (sends, up) in [(0, true), (1, false)] {
        let mut server = without_burst("1kbit");
        let tunnel = server.tunnel(b"");
        let sent = payload(12_000);
        let peer = [&tunnel.client, &tunnel.target][sends];
        peer.borrow_mut().send(&sent);
        server.passes(seconds(2));
        peer.borrow_mut().ends(End::Reset);
        server.passes(seconds(200));
        let received = [&tunnel.target, &tunnel.client][sends].borrow();
        assert!(received.received.ends_with(&sent), "{} {up}", received.received.len());
        assert!(received.aborted, "the end is none that is orderly");
        assert_eq!(server.reasons(), [if up { "client-reset" } else { "target-reset" }]);
    }
}

/// A client cannot leave tunnels behind that wait for days: those that have much to deliver, or many before them, end.
#[test]
fn what_a_peer_leaves_behind_ends() {
    let mut server = without_burst("1kbit");
    let sent = payload(LONG);
    let tunnels: Vec<Tunnel> = (0..20).map(|_| server.tunnel(b"")).collect();
    for tunnel in &tunnels {
        tunnel.client.borrow_mut().send(&sent);
    }
    server.turns();
    for tunnel in &tunnels {
        tunnel.client.borrow_mut().ends(End::Reset);
    }
    server.passes(seconds(599));
    assert!(server.reasons().is_empty());
    server.passes(seconds(2));
    assert_eq!(server.reasons(), vec!["client-reset"; 20]);
    let passed = tunnels.iter().map(|tunnel| tunnel.passed()[0]).sum();
    check_rate(passed, 125, seconds(600), LEAST_GRANT);
    assert_eq!(server.shared.rates.waiting(), 0);
}

#[test]
fn a_half_closed_tunnel_waits_for_its_rate() {
    let mut server = without_burst("8kbit");
    let (tunnel, sent) = (server.tunnel(b""), payload(LONG));
    tunnel.client.borrow_mut().ends(End::Eof);
    tunnel.target.borrow_mut().send(&sent);
    server.passes(seconds(6));
    assert!(tunnel.target.borrow().finished);
    tunnel.target.borrow_mut().ends(End::Eof);
    server.passes(seconds(40));
    assert!(tunnel.client.borrow().received.ends_with(&sent));
    assert_eq!(server.reasons(), ["finished"]);
}

/// Many wait, so that each has to for longer than any timeout.
#[test]
fn the_time_of_a_tunnel_begins_anew_when_its_turn_comes() {
    let mut server = without_burst("8kbit");
    let busy: Vec<Tunnel> = (0..10).map(|_| server.tunnel(b"")).collect();
    busy.iter().for_each(Tunnel::babble);
    server.turns();
    let (resets, closes) = (server.tunnel(b""), server.tunnel(b""));
    let sent = payload(5000);
    for target in [&resets.target, &closes.target] {
        target.borrow_mut().send(&sent);
    }
    server.turns();
    resets.target.borrow_mut().ends(End::Reset);
    closes.target.borrow_mut().ends(End::Eof);
    server.passes(seconds(200));
    for tunnel in [&resets, &closes] {
        assert!(tunnel.client.borrow().received.ends_with(&sent));
    }
    // The half-closed one had its seven seconds from then on.
    assert_eq!(server.reasons(), ["target-reset", "half-close-timeout"]);
}

/// A peer that does not read is not waited for, whatever the rate is: it has its time from when the wait for the rate,
/// which is longer here, is over.
#[test]
fn a_peer_that_does_not_read_has_its_time_and_no_more() {
    for (end, time, reason) in [
        (Some(End::Reset), 5, "target-reset"),
        (Some(End::Eof), 7, "half-close-timeout"),
        (None, 9, "idle-timeout"),
    ] {
        let mut server = without_burst("1kbit");
        let tunnel = server.tunnel(b"");
        tunnel.client.borrow_mut().stops_reading();
        tunnel.target.borrow_mut().send(&payload(LONG));
        if let Some(end) = end {
            // The other direction is over.
            if end == End::Eof {
                tunnel.client.borrow_mut().ends(end);
            }
            tunnel.target.borrow_mut().ends(end);
        }
        server.turns();
        while server.shared.rates.waiting() > 0 {
            server.passes(seconds(1));
        }
        server.passes(seconds(time - 2));
        assert!(server.reasons().is_empty(), "{reason}: too early");
        server.passes(seconds(2));
        assert_eq!(server.reasons(), [reason]);
        assert_eq!(tunnel.passed()[1], 0);
    }
}

/// A lane whose receiver is gone waits for nothing any more, and the other one goes on.
#[test]
fn the_lane_to_a_peer_that_is_gone_leaves_the_queue() {
    let mut server = without_burst("1kbit");
    let tunnel = server.tunnel(b"");
    tunnel.client.borrow_mut().send(&payload(LONG));
    tunnel.target.borrow_mut().send(&payload(5000));
    server.turns();
    assert_eq!(server.shared.rates.waiting(), 2);
    tunnel.target.borrow_mut().ends(End::Reset);
    server.turns();
    assert_eq!(server.shared.rates.waiting(), 1);
    server.passes(seconds(200));
    assert_eq!((tunnel.passed(), server.reasons()), ([0, 5000], vec!["target-reset".to_owned()]));
}

/// What a session has been given and has not read by its end is there for the others.
#[test]
fn who_ends_before_its_turn_pays_nothing() {
    let mut server = without_burst("1kbit");
    let stays = server.tunnel(b"");
    for _ in 0..20 {
        let ends = server.tunnel(b"");
        ends.babble();
        server.turns();
        server.grant();
        server.kill(ends.number);
    }
    stays.babble();
    server.turns();
    for passed in stays.passed() {
        assert!((1..=LEAST_GRANT).contains(&passed), "{passed}");
    }
}

/// What comes with the request is no way past the rate.
#[test]
fn what_comes_with_the_request_is_under_the_rate() {
    let mut server = without_burst("1kbit");
    let early = payload(900);
    let tunnels: Vec<Tunnel> = (0..50).map(|_| server.tunnel(&early)).collect();
    let passed = || tunnels.iter().map(|tunnel| tunnel.passed()[0]).sum::<u64>();
    assert_eq!(passed(), 0);
    // The debt of the tunnel that took the burst.
    server.passes(seconds(30));
    let before = passed();
    server.passes(seconds(200));
    check_rate(passed() - before, 125, seconds(200), LEAST_GRANT);
    server.passes(seconds(200));
    for tunnel in &tunnels {
        assert_eq!(tunnel.target.borrow().received, early);
    }
    // One that ends first loses nothing, and pays.
    for _ in 0..40 {
        let tunnel = server.tunnel(&early);
        server.kill(tunnel.number);
        assert_eq!(tunnel.target.borrow().received, early);
    }
    assert_eq!(server.shared.rates.waiting(), 0);
    let tunnel = server.tunnel(&early);
    server.passes(seconds(20 * 900 / 125));
    assert_eq!(tunnel.passed()[0], 0);
    server.passes(seconds(20 * 900 / 125 + 30));
    assert_eq!(tunnel.passed()[0], 900);
}

/// However many sessions come, wait and end, only those that are there stand in the queue.
#[test]
fn sessions_that_end_leave_the_queue() {
    let mut server = without_burst("1kbit");
    let stays = server.tunnel(b"");
    stays.babble();
    server.turns();
    assert_eq!(server.shared.rates.waiting(), 2, "one in each direction");
    for round in 0..300 {
        let tunnel = server.tunnel(if round % 2 == 0 { b"early" } else { b"" });
        tunnel.babble();
        server.turns();
        assert!(server.shared.rates.waiting() > 2);
        match round % 3 {
            0 => server.kill(tunnel.number),
            1 => {
                // Nothing more can reach either of them.
                tunnel.hush();
                tunnel.client.borrow_mut().ends(End::Reset);
                tunnel.target.borrow_mut().ends(End::Reset);
                server.turns();
            }
            _ => {
                let association = server.association().number;
                server.kill(association);
                server.kill(tunnel.number);
            }
        }
        assert_eq!(server.shared.rates.waiting(), 2, "round {round}");
    }
    // Nobody has taken anything away.
    let before = stays.passed();
    server.passes(Duration::from_secs(1000));
    for (passed, before) in stays.passed().into_iter().zip(before) {
        check_rate(passed - before, 125, seconds(1000), LEAST_GRANT);
    }
}
