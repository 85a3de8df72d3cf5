//! The cache over answers that a test gives, and over look-ups that it ends one by one.

mod both_families;
mod reverse;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use crate::workers::families::Rank;
use crate::workers::fixture::{Loop, gate};
use crate::workers::resolver::{Lookup, Outcome};

const TTLS: Ttls =
    Ttls { found: Some(Duration::from_secs(30)), failed: Some(Duration::from_secs(5)) };

struct Fixture {
    waits: Loop,
    names: DnsCache,
    /// Look-ups that have begun.
    asked: Arc<AtomicUsize>,
    /// Each look-up waits for one of these, and finds nothing.
    permits: mpsc::Sender<()>,
}

/// Finds nothing, after a call.
struct FindsNothing<F>(F);

impl<F: Fn() + Send + Sync> Lookup for FindsNothing<F> {
    fn addresses(&self, _: &str, _: Family, _: u16) -> io::Result<Vec<SocketAddr>> {
        (self.0)();
        Ok(Vec::new())
    }

    fn name(&self, _: IpAddr) -> io::Result<String> {
        (self.0)();
        Err(io::ErrorKind::NotFound.into())
    }
}

fn fixture() -> Fixture {
    let (waits, waker) = Loop::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let (permits, pass) = gate();
    let count = Arc::clone(&asked);
    let begin = move || {
        count.fetch_add(1, Ordering::SeqCst);
        pass();
    };
    let limits = Limits { threads: 1, threads_in_all: 1, queue: 8 };
    let lookup = Box::new(FindsNothing(begin));
    let resolver = Resolver::with_routes(limits, waker, lookup, Box::new(|_| true));
    Fixture { waits, names: DnsCache::new(resolver, TTLS, Prefer::System), asked, permits }
}

fn key(number: u64) -> Key {
    Key::unpack(number)
}

fn v4(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn at(port: u16) -> Addresses {
    Ok(vec![v4(port)])
}

/// An answer with one address of its family, or with none.
fn found(family: Family, addresses: &[SocketAddr]) -> Outcome {
    match addresses.first() {
        Some(first) => {
            let rank = Rank::new(family, first.ip(), |_| true);
            Outcome::Found((addresses.to_vec(), rank))
        }
        None => Outcome::NotFound,
    }
}

/// What sessions are told: the key, the addresses, and whether there is more.
type Told = (u64, Addresses, bool);

fn told(resolutions: Vec<Resolution>) -> Vec<Told> {
    let told = |reply: Resolution| (reply.key.pack(), reply.addresses, reply.more);
    resolutions.into_iter().map(told).collect()
}

impl Fixture {
    fn ask(&mut self, number: u64, name: &str, now: Instant) -> Option<(Addresses, bool)> {
        let known = self.names.ask(key(number), name, 80, now)?;
        assert_eq!((known.key, &*known.name, known.port), (key(number), name, 80));
        Some((known.addresses, known.more))
    }

    /// These look-ups have ended, at the same time.
    fn answers(&mut self, name: &str, outcomes: Vec<(Family, Outcome)>, now: Instant) -> Vec<Told> {
        let done = |(family, outcome)| LookupDone { name: name.to_owned(), family, outcome };
        let mut resolutions = Vec::new();
        self.names.take_answers(outcomes.into_iter().map(done).collect(), now, &mut resolutions);
        told(resolutions)
    }

    /// The name has this address of IPv4 and none of IPv6.
    fn answer_v4(&mut self, name: &str, now: Instant) -> Vec<Told> {
        let outcomes =
            vec![(Family::V4, found(Family::V4, &[v4(0)])), (Family::V6, Outcome::NotFound)];
        self.answers(name, outcomes, now)
    }

    fn answer_none(&mut self, name: &str, now: Instant) -> Vec<Told> {
        let outcomes = Family::ALL.map(|family| (family, Outcome::NotFound));
        self.answers(name, outcomes.into(), now)
    }

    /// Ends this number of look-ups and waits for their resolutions.
    fn settle(&mut self, lookups: usize, now: Instant) -> Vec<Told> {
        (0..lookups).for_each(|_| self.permits.send(()).expect("the worker lives"));
        let names = &mut self.names;
        let resolutions = self.waits.wait(Duration::from_secs(10), |_| {
            let resolutions = names.resolutions(now);
            (resolutions, names.check(Instant::now()).unwrap_or(now))
        });
        assert!(!resolutions.is_empty(), "no answer came");
        told(resolutions)
    }

    /// Waits until the worker has begun this number of look-ups.
    fn begun(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.asked.load(Ordering::SeqCst) < count {
            assert!(Instant::now() < deadline, "no worker comes");
            std::thread::yield_now();
        }
    }
}

const NOT_FOUND: Addresses = Err(ResolveError::NotFound);

#[test]
fn equal_names_are_looked_up_once() {
    let (mut fixture, now) = (fixture(), Instant::now());
    assert_eq!(fixture.ask(1, "example.com", now), None);
    assert_eq!(fixture.names.ask(key(2), "EXAMPLE.com", 443, now), None);
    assert_eq!(fixture.names.stats().queries, 1);
    let all = fixture.answer_v4("example.com", now);
    assert_eq!(all, [(1, at(80), false), (2, at(443), false)]);
    assert_eq!(fixture.names.stats().queries, 1);
}

/// A session may ask several questions: each answer tells which one it answers.
#[test]
fn an_answer_names_its_question() {
    let (mut fixture, now) = (fixture(), Instant::now());
    fixture.names.ask(key(1), "Example.com", 80, now);
    fixture.names.ask(key(1), "example.COM", 443, now);
    let done = Family::ALL.map(|family| LookupDone {
        name: "example.com".to_owned(),
        family,
        outcome: Outcome::NotFound,
    });
    let mut resolutions = Vec::new();
    fixture.names.take_answers(done.into(), now, &mut resolutions);
    let questions: Vec<_> = resolutions.iter().map(|reply| (&*reply.name, reply.port)).collect();
    assert_eq!(questions, [("Example.com", 80), ("example.COM", 443)]);
}

#[test]
fn answers_are_remembered_for_their_time() {
    let (mut fixture, now) = (fixture(), Instant::now());
    fixture.ask(1, "example.com", now);
    fixture.answer_v4("example.com", now);
    let soon = now + Duration::from_millis(29_999);
    assert_eq!(fixture.ask(2, "Example.com", soon), Some((at(80), false)));
    assert_eq!(fixture.names.stats().hits, 1);
    assert_eq!(fixture.ask(3, "example.com", now + Duration::from_secs(30)), None);
}

#[test]
fn failures_are_remembered_for_a_shorter_time() {
    let (mut fixture, now) = (fixture(), Instant::now());
    fixture.ask(1, "nowhere.example", now);
    assert_eq!(fixture.answer_none("nowhere.example", now), [(1, NOT_FOUND, false)]);
    let soon = now + Duration::from_millis(4_999);
    assert_eq!(fixture.ask(2, "nowhere.example", soon), Some((NOT_FOUND, false)));
    assert_eq!(fixture.ask(3, "nowhere.example", now + Duration::from_secs(5)), None);
}

#[test]
fn memory_is_bounded() {
    let (mut fixture, now) = (fixture(), Instant::now());
    for number in 0..MAX_NAMES + 10 {
        fixture.names.store(number.to_string(), at(0), now);
    }
    assert_eq!(fixture.names.cached.len(), MAX_NAMES);
    assert_eq!(fixture.names.order.len(), MAX_NAMES);
    let last = fixture.ask(1, &(MAX_NAMES + 9).to_string(), now);
    assert_eq!(last, Some((at(80), false)));
}

/// Lifetimes may change: the new ones apply to what is cached already.
#[test]
fn new_lifetimes_act_on_what_is_remembered() {
    let (mut fixture, now) = (fixture(), Instant::now());
    let later = now + Duration::from_secs(10);
    fixture.names.store("example.com".to_owned(), at(0), now);
    fixture.names.store("nowhere.example".to_owned(), NOT_FOUND, now);
    let shorter = Ttls { found: Some(Duration::from_secs(10)), ..TTLS };
    fixture.names.set_ttls(shorter, later);
    assert_eq!((fixture.names.cached.len(), fixture.names.order.len()), (0, 0));
    fixture.names.store("example.com".to_owned(), at(0), now);
    fixture.names.set_ttls(TTLS, later);
    assert_eq!(fixture.ask(1, "example.com", later), Some((at(80), false)));
    fixture.names.set_ttls(Ttls { found: None, failed: None }, later);
    assert_eq!(fixture.names.stats().cached, 0);
    fixture.names.store("example.com".to_owned(), at(0), later);
    assert_eq!(fixture.ask(1, "example.com", later), None);
}

#[test]
fn who_has_left_gets_no_answer_and_a_name_nobody_wants_is_dropped() {
    let (mut fixture, now) = (fixture(), Instant::now());
    fixture.ask(1, "example.com", now);
    fixture.begun(1);
    fixture.ask(2, "example.com", now);
    fixture.ask(3, "second.example", now);
    fixture.names.cancel(key(3), "second.example");
    assert_eq!(fixture.names.pending.len(), 1);
    assert_eq!(fixture.names.stats().queued, 1, "IPv6 of the first");
    fixture.names.cancel(key(1), "example.com");
    fixture.names.cancel(key(9), "example.com");
    fixture.names.cancel(key(2), "Example.com");
    assert_eq!((fixture.names.pending.len(), fixture.names.uncovered), (1, 2));
    fixture.ask(4, "example.com", now);
    assert_eq!(fixture.names.uncovered, 1, "the session's descriptor is for one of two");
    assert_eq!(fixture.answer_v4("example.com", now), [(4, at(80), false)]);
    assert_eq!(fixture.names.uncovered, 0);
}

/// What METP's INFO and the metrics show.
#[test]
fn the_counters_show_what_waits_runs_and_is_cached() {
    let (mut fixture, now) = (fixture(), Instant::now());
    fixture.ask(1, "none.example", now);
    fixture.begun(1);
    fixture.ask(2, "a.example", now);
    fixture.ask(3, "b.example", now);
    let stats = fixture.names.stats();
    assert_eq!((stats.queued, stats.running, stats.cached), (5, 1, 0));
    assert_eq!((stats.queries, stats.failures, stats.hits), (3, 0, 0));
    // Newest first: IPv4 of the first one, then both of b.
    assert_eq!(fixture.settle(3, now), [(3, NOT_FOUND, false)]);
    fixture.begun(4);
    let stats = fixture.names.stats();
    assert_eq!((stats.queued, stats.running, stats.cached), (2, 1, 1));
    assert_eq!(fixture.settle(2, now), [(2, NOT_FOUND, false)]);
    assert_eq!(fixture.settle(1, now), [(1, NOT_FOUND, false)]);
    let stats = fixture.names.stats();
    assert_eq!((stats.queued, stats.running, stats.cached), (0, 0, 3));
    assert_eq!((stats.queries, stats.failures, stats.hits), (3, 3, 0));
}

/// A look-up without a session that waits counts until its answer has come, as one descriptor for each worker at most.
#[test]
fn an_orphan_counts_until_it_is_answered() {
    let (mut fixture, now) = (fixture(), Instant::now());
    fixture.ask(1, "a.example", now);
    fixture.begun(1);
    fixture.names.cancel(key(1), "a.example");
    assert_eq!((fixture.names.uncovered, fixture.names.orphans()), (2, 1));
    assert_eq!(fixture.answers("a.example", vec![(Family::V4, Outcome::NotFound)], now), []);
    assert_eq!(fixture.names.uncovered, 1);
    assert_eq!(fixture.answers("a.example", vec![(Family::V6, Outcome::NotFound)], now), []);
    assert_eq!((fixture.names.uncovered, fixture.names.stats().cached), (0, 1));
}

/// An association uses all descriptors that it has been promised: its look-ups need their own.
#[test]
fn look_ups_beside_other_work_count_in_full() {
    let (mut fixture, now) = (fixture(), Instant::now());
    assert!(fixture.names.ask_beside(key(1), "a.example", now).is_none());
    fixture.names.ask_beside(key(2), "a.example", now);
    assert_eq!(fixture.names.uncovered, 2, "one for each family");
    fixture.ask(3, "a.example", now);
    assert_eq!(fixture.names.uncovered, 1);
    fixture.names.cancel(key(3), "a.example");
    assert_eq!(fixture.names.uncovered, 2);
}

#[test]
fn the_loop_comes_by_itself_while_a_name_is_looked_up() {
    let (mut fixture, now) = (fixture(), Instant::now());
    assert!(!fixture.names.ready(now));
    assert_eq!(fixture.names.check(now), None, "nothing is looked up");
    fixture.ask(1, "a.example", now);
    assert!(fixture.names.check(now).is_some_and(|next| next > now));
    fixture.permits.send(()).expect("the worker lives");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !fixture.names.ready(now) {
        assert!(Instant::now() < deadline, "no answer came");
        std::thread::yield_now();
    }
    assert_eq!(fixture.names.check(now), Some(now), "an answer waits");
    assert_eq!(told(fixture.names.resolutions(now)), []);
    assert!(fixture.names.check(now).is_some(), "the other family is looked up");
    fixture.settle(1, now);
    assert!(!fixture.names.ready(now));
    assert_eq!(fixture.names.check(now), None);
}

#[test]
fn new_limits_apply_to_names_that_wait() {
    let (mut fixture, now) = (fixture(), Instant::now());
    fixture.ask(1, "a.example", now);
    fixture.ask(2, "b.example", now);
    fixture.begun(1);
    fixture.names.limit(Limits { threads: 2, threads_in_all: 2, queue: 8 });
    fixture.begun(2);
    assert_eq!(fixture.names.stats().running, 2);
}

/// Whoever owns a name decides how many addresses it has; memory must not follow.
#[test]
fn of_many_addresses_the_first_are_kept() {
    let (mut fixture, now) = (fixture(), Instant::now());
    let many =
        |first: u16| -> Vec<SocketAddr> { (0..1000).map(|number| v4(first + number)).collect() };
    fixture.ask(1, "many", now);
    let (four, six) = (many(1000), many(3000));
    let outcomes =
        vec![(Family::V4, found(Family::V4, &four)), (Family::V6, found(Family::V6, &six))];
    let all = fixture.answers("many", outcomes, now);
    let Some((1, Ok(kept), false)) = all.first() else { panic!("{all:?}") };
    // Half of each.
    assert_eq!(kept.len(), MAX_ADDRESSES);
    assert_eq!((kept[0], kept[1], kept[30], kept[31]), (six[0], four[0], six[15], four[15]));
    assert_eq!(fixture.ask(2, "many", now), Some((Ok(kept.clone()), false)));
    let kept = fixture.names.cached.get("many").and_then(|cached| cached.addresses.as_ref().ok());
    assert!(kept.expect("cached").capacity() <= MAX_ADDRESSES);
}

/// RFC 6761 §6.3.
#[test]
fn localhost_is_loopback_and_nobody_is_asked() {
    let (mut fixture, now) = (fixture(), Instant::now());
    for name in
        ["localhost", "LocalHost", "localhost.", "a.localhost", "a.b.LOCALHOST.", "*.localhost"]
    {
        let (known, more) = fixture.ask(1, name, now).expect("at once");
        let shown: Vec<String> = known.expect("found").iter().map(SocketAddr::to_string).collect();
        assert_eq!((shown, more), (vec!["[::1]:80".to_owned(), "127.0.0.1:80".to_owned()], false));
        fixture.names.cancel(key(1), name);
    }
    for name in
        ["localhost..", "notlocalhost", "localhost.example", "localhos", "localhost.a.", "local"]
    {
        assert!(!is_localhost(name), "{name}");
    }
    assert_eq!((fixture.names.stats(), fixture.names.orphans()), (DnsStats::default(), 0));
    assert_eq!(fixture.asked.load(Ordering::SeqCst), 0);
}
