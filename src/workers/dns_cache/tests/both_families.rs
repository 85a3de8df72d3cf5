//! What becomes of a name whose families are answered one after the other, or not both.

use super::*;
use Family::{V4, V6};

const DELAY: Duration = Duration::from_millis(50);
const FAILED: Addresses = Err(ResolveError::Failed);

fn v6(last: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 80))
}

fn four() -> (Family, Outcome) {
    (V4, found(V4, &[v4(80)]))
}

fn six() -> (Family, Outcome) {
    (V6, found(V6, &[v6(1)]))
}

/// An address of IPv6 that goes behind those of IPv4: unique local.
fn local_six() -> (Family, Outcome) {
    (V6, found(V6, &[local()]))
}

fn local() -> SocketAddr {
    SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 1], 80))
}

fn failed(family: Family) -> (Family, Outcome) {
    (family, Outcome::Failed(io::ErrorKind::Other.into()))
}

fn outcome(family: Family, missing: &str) -> (Family, Outcome) {
    match missing {
        "failed" => failed(family),
        "none" => (family, Outcome::NotFound),
        "unanswered" => (family, Outcome::Unanswered),
        "overflow" => (family, Outcome::Overflow),
        "no worker" => (family, Outcome::NoWorker),
        _ => unreachable!("no outcome"),
    }
}

/// A session that waits for `a.example`.
fn asking(now: Instant) -> Fixture {
    let mut fixture = fixture();
    assert_eq!(fixture.ask(1, "a.example", now), None);
    fixture
}

const NAME: &str = "a.example";

#[test]
fn both_at_once_are_one_answer_in_order() {
    for prefer in Prefer::ALL {
        for outcomes in [[four(), six()], [six(), four()]] {
            let now = Instant::now();
            let mut fixture = asking(now);
            fixture.names.set_prefer(prefer);
            let order = match prefer {
                Prefer::Ipv4 => vec![v4(80), v6(1)],
                Prefer::Ipv6 | Prefer::System => vec![v6(1), v4(80)],
            };
            let all = fixture.answers(NAME, outcomes.into(), now);
            assert_eq!(all, [(1, Ok(order.clone()), false)]);
            assert_eq!(fixture.ask(2, NAME, now), Some((Ok(order), false)));
            assert_eq!(fixture.names.pending.len(), 0);
        }
    }
}

/// RFC 8305 §3: 50 ms for the family that goes first, from the first answer on.
#[test]
fn the_second_family_has_50_ms_to_come() {
    let now = Instant::now();
    let mut fixture = asking(now);
    assert_eq!(fixture.answers(NAME, vec![four()], now), []);
    assert_eq!(fixture.names.check(now), Some(now + DELAY));
    let soon = now + DELAY - Duration::from_millis(1);
    assert!(!fixture.names.ready(soon));
    assert_eq!(told(fixture.names.resolutions(soon)), []);
    assert_eq!(fixture.ask(2, NAME, soon), None, "nothing is cached yet");
    let both = Ok(vec![v6(1), v4(80)]);
    let all = fixture.answers(NAME, vec![six()], soon);
    assert_eq!(all, [(1, both.clone(), false), (2, both.clone(), false)]);
    // The end of the delay finds nothing to do.
    assert!(fixture.names.ready(now + DELAY));
    assert_eq!(told(fixture.names.resolutions(now + DELAY)), []);
    assert!(!fixture.names.ready(now + DELAY));
    assert_eq!(fixture.ask(3, NAME, now + DELAY), Some((both, false)));
}

#[test]
fn after_50_ms_what_is_there_goes_out_and_the_rest_follows() {
    let now = Instant::now();
    let mut fixture = asking(now);
    fixture.answers(NAME, vec![four()], now);
    let later = now + DELAY;
    assert!(fixture.names.ready(later));
    assert_eq!(told(fixture.names.resolutions(later)), [(1, at(80), true)]);
    assert!(!fixture.names.ready(later));
    // A family that is late delays nobody else.
    assert_eq!(fixture.ask(2, NAME, later), Some((at(80), true)));
    fixture.ask(3, NAME, later);
    fixture.names.cancel(key(3), NAME);
    let rest = Ok(vec![v6(1)]);
    let all = fixture.answers(NAME, vec![six()], later + DELAY);
    assert_eq!(all, [(1, rest.clone(), false), (2, rest, false)]);
    let both = Some((Ok(vec![v6(1), v4(80)]), false));
    assert_eq!(fixture.ask(4, NAME, later + DELAY), both);
    // The lifetime is that of the first answer.
    assert_eq!(fixture.ask(5, NAME, now + Duration::from_secs(30)), None);
    assert_eq!(fixture.names.order.len(), 1, "cached once");
}

#[test]
fn the_family_that_goes_first_does_not_wait() {
    let cases = [
        (Prefer::System, six(), true),
        (Prefer::System, local_six(), false),
        (Prefer::System, four(), false),
        (Prefer::Ipv6, local_six(), true),
        (Prefer::Ipv6, four(), false),
        (Prefer::Ipv4, four(), true),
        (Prefer::Ipv4, six(), false),
    ];
    for (prefer, first, at_once) in cases {
        let now = Instant::now();
        let mut fixture = asking(now);
        fixture.names.set_prefer(prefer);
        let shown = format!("{prefer:?} {first:?}");
        let all = fixture.answers(NAME, vec![first], now);
        assert_eq!(all.len(), usize::from(at_once), "{shown}");
        assert!(all.iter().all(|(_, addresses, more)| addresses.is_ok() && *more), "{shown}");
    }
}

/// No address of the other family can be reached, so that it is not waited for. What it has follows all the same.
#[test]
fn a_family_without_a_route_is_not_waited_for() {
    let now = Instant::now();
    let mut fixture = asking(now);
    let rank = Rank::new(V4, v4(0).ip(), |ip| ip.is_ipv4());
    let outcome = Outcome::Found((vec![v4(0)], rank));
    assert_eq!(fixture.answers(NAME, vec![(V4, outcome)], now), [(1, at(80), true)]);
    let loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, 80));
    let all = fixture.answers(NAME, vec![(V6, found(V6, &[loopback]))], now);
    assert_eq!(all, [(1, Ok(vec![loopback]), false)]);
}

#[test]
fn one_family_without_addresses_leaves_those_of_the_other() {
    for missing in ["none", "unanswered", "failed", "overflow", "no worker"] {
        for (has, addresses) in [(V4, at(80)), (V6, Ok(vec![v6(1)]))] {
            let hits = || if has == V4 { four() } else { six() };
            let lacks = || outcome(has.other(), missing);
            // At once.
            let now = Instant::now();
            let mut fixture = asking(now);
            let all = fixture.answers(NAME, vec![lacks(), hits()], now);
            assert_eq!(all, [(1, addresses.clone(), false)], "{missing}");
            // One after the other: nothing goes out before the addresses, which do not wait.
            let mut fixture = asking(now);
            assert_eq!(fixture.answers(NAME, vec![lacks()], now), [], "{missing}");
            assert_eq!(told(fixture.names.resolutions(now + 10 * DELAY)), []);
            let later = now + Duration::from_secs(10);
            let all = fixture.answers(NAME, vec![hits()], later);
            assert_eq!(all, [(1, addresses.clone(), false)], "{missing}");
            // The next one need not wait.
            assert_eq!(fixture.ask(2, NAME, later), Some((addresses.clone(), false)), "{missing}");
            assert_eq!(fixture.names.stats().failures, 0);
        }
    }
}

/// Those who have been told of one family are told that nothing follows.
#[test]
fn a_late_family_without_addresses_ends_the_wait() {
    for missing in ["none", "unanswered", "failed", "overflow"] {
        let now = Instant::now();
        let mut fixture = asking(now);
        fixture.answers(NAME, vec![four()], now);
        let later = now + DELAY;
        assert_eq!(told(fixture.names.resolutions(later)), [(1, at(80), true)]);
        let all = fixture.answers(NAME, vec![outcome(V6, missing)], later);
        let why = if missing == "failed" { FAILED } else { NOT_FOUND };
        assert_eq!(all, [(1, why, false)], "{missing}");
        assert_eq!(fixture.ask(2, NAME, later), Some((at(80), false)), "{missing}");
        assert_eq!(fixture.names.stats().failures, 0);
    }
}

/// Only two answers that there is nothing are one; what one of them lacked says nothing about the name.
#[test]
fn without_any_address_the_worst_decides() {
    for (one, other, why, cached) in [
        ("none", "none", NOT_FOUND, true),
        ("none", "unanswered", NOT_FOUND, false),
        ("none", "overflow", NOT_FOUND, false),
        ("none", "failed", FAILED, false),
        ("none", "no worker", FAILED, false),
        ("unanswered", "unanswered", NOT_FOUND, false),
        ("unanswered", "failed", FAILED, false),
        ("failed", "failed", FAILED, false),
    ] {
        for (first, second) in [(V4, V6), (V6, V4)] {
            let now = Instant::now();
            let mut fixture = asking(now);
            assert_eq!(fixture.answers(NAME, vec![outcome(first, one)], now), []);
            let all = fixture.answers(NAME, vec![outcome(second, other)], now);
            assert_eq!(all, [(1, why.clone(), false)], "{one} {other}");
            let known = fixture.ask(2, NAME, now);
            assert_eq!(known, cached.then(|| (why.clone(), false)), "{one} {other}");
            assert_eq!(fixture.names.stats().failures, 1);
        }
    }
}

/// With the cache off, or when the first family has become too old, it is asked for again beside the other one, which
/// is still not waited for.
#[test]
fn a_family_that_hangs_delays_one_request_alone() {
    let now = Instant::now();
    let mut fixture = asking(now);
    fixture.names.set_ttls(Ttls { found: None, failed: None }, now);
    fixture.answers(NAME, vec![four()], now);
    let later = now + DELAY;
    assert_eq!(told(fixture.names.resolutions(later)), [(1, at(80), true)]);
    assert_eq!(fixture.ask(2, NAME, later), None);
    assert_eq!(fixture.names.stats().queries, 2);
    assert_eq!(fixture.answers(NAME, vec![four()], later), [(2, at(80), true)]);
    // The first one has ended meanwhile, with the other one under way.
    assert_eq!(fixture.ask(3, NAME, later), None);
    let rest = Ok(vec![v6(1)]);
    let all = fixture.answers(NAME, vec![six()], later);
    assert_eq!(all, [(1, rest.clone(), false), (2, rest.clone(), false), (3, rest, true)]);
    assert_eq!(fixture.answers(NAME, vec![four()], later), [(3, at(80), false)]);
    assert_eq!((fixture.names.pending.len(), fixture.names.uncovered), (0, 0));
}

/// A session that has its first addresses uses its second descriptor for the target.
#[test]
fn the_second_look_up_of_a_name_counts_as_a_descriptor() {
    let now = Instant::now();
    let mut fixture = asking(now);
    assert_eq!(fixture.names.uncovered, 1);
    fixture.ask(2, NAME, now);
    assert_eq!(fixture.names.uncovered, 0);
    fixture.names.cancel(key(2), NAME);
    fixture.answers(NAME, vec![four()], now);
    assert_eq!(fixture.names.uncovered, 0);
    fixture.names.resolutions(now + DELAY);
    assert_eq!(fixture.names.uncovered, 1);
    fixture.names.cancel(key(1), NAME);
    assert_eq!(fixture.names.uncovered, 0, "no worker has taken it");
    assert_eq!(fixture.names.pending.len(), 0);
}

/// Nobody waits, and the delay ends: what is there is cached.
#[test]
fn the_delay_of_an_orphan_ends_too() {
    let now = Instant::now();
    let mut fixture = asking(now);
    fixture.begun(1);
    fixture.names.cancel(key(1), NAME);
    fixture.answers(NAME, vec![four()], now);
    assert_eq!(told(fixture.names.resolutions(now + DELAY)), []);
    assert_eq!(fixture.ask(2, NAME, now + DELAY), Some((at(80), true)));
}

/// RFC 8305 §4: an address that has been used goes first.
#[test]
fn a_winner_is_first_for_the_rest_of_the_lifetime() {
    let now = Instant::now();
    let mut fixture = asking(now);
    let list = [1, 2, 3].map(v6);
    let outcomes = vec![(V6, found(V6, &list)), (V4, found(V4, &[v4(0)]))];
    fixture.answers(NAME, outcomes, now);
    let order = |order: [SocketAddr; 4]| Some((Ok(order.to_vec()), false));
    assert_eq!(fixture.ask(2, NAME, now), order([v6(1), v4(80), v6(2), v6(3)]));
    fixture.names.prefer_first("A.example", v6(2));
    assert_eq!(fixture.ask(2, NAME, now), order([v6(2), v6(1), v4(80), v6(3)]));
    // The port of the request is not part of what is cached.
    fixture.names.prefer_first(NAME, v4(80));
    let last = order([v4(80), v6(2), v6(1), v6(3)]);
    assert_eq!(fixture.ask(2, NAME, now), last);
    for unknown in [v6(9), v4(80)] {
        fixture.names.prefer_first(NAME, unknown);
        assert_eq!(fixture.ask(2, NAME, now), last);
        fixture.names.prefer_first("b.example", unknown);
    }
    let end = now + Duration::from_secs(30);
    assert_eq!(fixture.ask(3, NAME, end), None);
    fixture.answers(NAME, vec![(V6, found(V6, &list)), (V4, Outcome::NotFound)], end);
    assert_eq!(fixture.ask(4, NAME, end), Some((Ok(list.to_vec()), false)));
}

#[test]
fn a_winner_stays_first_when_the_other_family_comes() {
    let now = Instant::now();
    let mut fixture = asking(now);
    let list = [v4(80), SocketAddr::from(([192, 0, 2, 9], 80))];
    fixture.answers(NAME, vec![(V4, found(V4, &list))], now);
    fixture.names.resolutions(now + DELAY);
    fixture.names.prefer_first(NAME, list[1]);
    fixture.answers(NAME, vec![six()], now + DELAY);
    let order = vec![list[1], v6(1), list[0]];
    assert_eq!(fixture.ask(2, NAME, now + DELAY), Some((Ok(order), false)));
}

/// Another order acts on all questions from then on.
#[test]
fn another_preference_forgets_what_is_cached() {
    let now = Instant::now();
    let mut fixture = asking(now);
    fixture.answers(NAME, vec![four(), six()], now);
    fixture.names.set_prefer(Prefer::System);
    assert!(fixture.ask(2, NAME, now).is_some());
    fixture.names.set_prefer(Prefer::Ipv4);
    assert_eq!(fixture.ask(2, NAME, now), None);
    assert_eq!(fixture.names.order.len(), 0);
}
