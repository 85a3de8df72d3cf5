//! The cache over look-ups that the test ends one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use crate::workers::fixture::{Loop, gate};

const TTLS: Ttls =
    Ttls { found: Some(Duration::from_secs(30)), failed: Some(Duration::from_secs(5)) };

struct Fixture {
    waits: Loop,
    names: DnsCache,
    asked: Arc<AtomicUsize>,
    /// Each look-up waits for one of these.
    permits: mpsc::Sender<()>,
}

/// Names that begin with `no` do not exist; `many` has a thousand addresses; all others are 192.0.2.1.
fn fixture() -> Fixture {
    let (waits, waker) = Loop::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let (permits, pass) = gate();
    let count = Arc::clone(&asked);
    let lookup = move |name: &str, port| {
        count.fetch_add(1, Ordering::SeqCst);
        pass();
        match name.starts_with("no") {
            true => Err(std::io::ErrorKind::NotFound.into()),
            false if name == "many" => Ok(vec![SocketAddr::from(([192, 0, 2, 1], port)); 1000]),
            false => Ok(vec![SocketAddr::from(([192, 0, 2, 1], port))]),
        }
    };
    let limits = Limits { threads: 1, threads_in_all: 1, queue: 8 };
    let names = DnsCache::new(Resolver::new(limits, waker, Box::new(lookup)), TTLS);
    Fixture { waits, names, asked, permits }
}

fn key(number: u64) -> Key {
    Key::unpack(number)
}

fn at(port: u16) -> Addresses {
    Ok(vec![SocketAddr::from(([192, 0, 2, 1], port))])
}

impl Fixture {
    /// Ends one look-up and waits for its resolutions.
    fn settle(&mut self, now: Instant) -> Vec<(Key, Addresses)> {
        self.permits.send(()).expect("the worker lives");
        let names = &mut self.names;
        let resolutions = self.waits.wait(Duration::from_secs(10), |_| {
            let resolutions = names.resolutions(now);
            (resolutions, names.check(Instant::now()).unwrap_or(now))
        });
        assert!(!resolutions.is_empty(), "no answer came");
        resolutions.into_iter().map(|reply| (reply.key, reply.addresses)).collect()
    }
}

#[test]
fn equal_names_are_looked_up_once() {
    let (mut fixture, now) = (fixture(), Instant::now());
    assert_eq!(fixture.names.ask(key(1), "example.com", 80, now), None);
    assert_eq!(fixture.names.ask(key(2), "EXAMPLE.com", 443, now), None);
    assert_eq!(fixture.settle(now), [(key(1), at(80)), (key(2), at(443))]);
    assert_eq!(fixture.asked.load(Ordering::SeqCst), 1);
}

#[test]
fn answers_are_remembered_for_their_time() {
    let (mut fixture, now) = (fixture(), Instant::now());
    fixture.names.ask(key(1), "example.com", 80, now);
    fixture.settle(now);
    let soon = now + Duration::from_millis(29_999);
    assert_eq!(fixture.names.ask(key(2), "Example.com", 7, soon), Some(at(7)));
    assert_eq!(fixture.names.stats().hits, 1);
    assert_eq!(fixture.names.ask(key(3), "example.com", 7, now + Duration::from_secs(30)), None);
}

#[test]
fn failures_are_remembered_for_a_shorter_time() {
    let (mut fixture, now) = (fixture(), Instant::now());
    fixture.names.ask(key(1), "nowhere.example", 80, now);
    assert_eq!(fixture.settle(now), [(key(1), Err(ResolveError::NotFound))]);
    let soon = now + Duration::from_millis(4_999);
    assert_eq!(
        fixture.names.ask(key(2), "nowhere.example", 80, soon),
        Some(Err(ResolveError::NotFound))
    );
    assert_eq!(
        fixture.names.ask(key(3), "nowhere.example", 80, now + Duration::from_secs(5)),
        None
    );
}

#[test]
fn memory_is_bounded() {
    let (mut fixture, now) = (fixture(), Instant::now());
    for number in 0..MAX_NAMES + 10 {
        fixture.names.store(number.to_string(), at(0), now);
    }
    assert_eq!(fixture.names.cached.len(), MAX_NAMES);
    assert_eq!(fixture.names.order.len(), MAX_NAMES);
    assert_eq!(fixture.names.ask(key(1), &(MAX_NAMES + 9).to_string(), 1, now), Some(at(1)));
}

/// Lifetimes may change: the new ones apply to what is cached already.
#[test]
fn new_lifetimes_act_on_what_is_remembered() {
    let (mut fixture, now) = (fixture(), Instant::now());
    let later = now + Duration::from_secs(10);
    fixture.names.store("example.com".to_owned(), at(0), now);
    fixture.names.store("nowhere.example".to_owned(), Err(ResolveError::NotFound), now);
    let shorter = Ttls { found: Some(Duration::from_secs(10)), ..TTLS };
    fixture.names.set_ttls(shorter, later);
    assert_eq!((fixture.names.cached.len(), fixture.names.order.len()), (0, 0));
    fixture.names.store("example.com".to_owned(), at(0), now);
    fixture.names.set_ttls(TTLS, later);
    assert_eq!(fixture.names.ask(key(1), "example.com", 1, later), Some(at(1)));
    fixture.names.set_ttls(Ttls { found: None, failed: None }, later);
    assert_eq!(fixture.names.stats().cached, 0);
    fixture.names.store("example.com".to_owned(), at(0), later);
    assert_eq!(fixture.names.ask(key(1), "example.com", 1, later), None);
}

#[test]
fn who_has_left_gets_no_answer_and_a_name_nobody_wants_is_dropped() {
    let (mut fixture, now) = (fixture(), Instant::now());
    fixture.names.ask(key(1), "example.com", 80, now);
    let deadline = Instant::now() + Duration::from_secs(10);
    while fixture.asked.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < deadline, "no worker came");
        std::thread::yield_now();
    }
    fixture.names.ask(key(2), "example.com", 80, now);
    fixture.names.ask(key(3), "second.example", 80, now);
    fixture.names.cancel(key(3), "second.example");
    assert_eq!((fixture.names.pending.len(), fixture.names.orphans()), (1, 0));
    fixture.names.cancel(key(1), "example.com");
    fixture.names.cancel(key(2), "example.com");
    assert_eq!((fixture.names.pending.len(), fixture.names.orphans()), (1, 1));
    fixture.names.ask(key(4), "example.com", 80, now);
    assert_eq!(fixture.names.orphans(), 0);
    assert_eq!(fixture.settle(now), [(key(4), at(80))]);
}

/// Waits until the fixture's worker has begun this number of look-ups.
fn begun(fixture: &Fixture, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while fixture.asked.load(Ordering::SeqCst) < count {
        assert!(Instant::now() < deadline, "no worker comes");
        std::thread::yield_now();
    }
}

/// What METP's INFO and the metrics show.
#[test]
fn the_counters_show_what_waits_runs_and_is_cached() {
    let (mut fixture, now) = (fixture(), Instant::now());
    fixture.names.ask(key(1), "none.example", 80, now);
    begun(&fixture, 1);
    fixture.names.ask(key(2), "a.example", 80, now);
    fixture.names.ask(key(3), "b.example", 80, now);
    let stats = fixture.names.stats();
    assert_eq!((stats.queued, stats.running, stats.cached), (2, 1, 0));
    assert_eq!((stats.queries, stats.failures, stats.hits), (3, 0, 0));
    fixture.settle(now);
    begun(&fixture, 2);
    let stats = fixture.names.stats();
    assert_eq!((stats.queued, stats.running, stats.cached), (1, 1, 1));
    fixture.settle(now);
    fixture.settle(now);
    let stats = fixture.names.stats();
    assert_eq!((stats.queued, stats.running, stats.cached), (0, 0, 3));
    assert_eq!((stats.queries, stats.failures, stats.hits), (3, 1, 0));
}

/// A look-up without a session that waits counts until its answer has come.
#[test]
fn an_orphan_counts_until_it_is_answered() {
    let (mut fixture, now) = (fixture(), Instant::now());
    fixture.names.ask(key(1), "a.example", 80, now);
    begun(&fixture, 1);
    fixture.names.cancel(key(1), "a.example");
    assert_eq!(fixture.names.orphans(), 1);
    // The only session that waits for the next one shows that the answer of the orphan has been taken.
    fixture.names.ask(key(2), "b.example", 80, now);
    fixture.permits.send(()).expect("the worker lives");
    fixture.settle(now);
    assert_eq!((fixture.names.orphans(), fixture.names.stats().cached), (0, 2));
}

#[test]
fn the_loop_comes_by_itself_while_a_name_is_looked_up() {
    let (mut fixture, now) = (fixture(), Instant::now());
    assert!(!fixture.names.ready());
    assert_eq!(fixture.names.check(now), None, "nothing is looked up");
    fixture.names.ask(key(1), "a.example", 80, now);
    assert!(fixture.names.check(now).is_some_and(|next| next > now));
    fixture.permits.send(()).expect("the worker lives");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !fixture.names.ready() {
        assert!(Instant::now() < deadline, "no answer came");
        std::thread::yield_now();
    }
    assert_eq!(fixture.names.check(now), Some(now), "an answer waits");
    assert_eq!(fixture.names.resolutions(now).len(), 1);
    assert!(!fixture.names.ready());
    assert_eq!(fixture.names.check(now), None);
}

#[test]
fn new_limits_apply_to_names_that_wait() {
    let (mut fixture, now) = (fixture(), Instant::now());
    fixture.names.ask(key(1), "a.example", 80, now);
    fixture.names.ask(key(2), "b.example", 80, now);
    begun(&fixture, 1);
    fixture.names.limit(Limits { threads: 2, threads_in_all: 2, queue: 8 });
    begun(&fixture, 2);
    assert_eq!(fixture.names.stats().running, 2);
}

#[test]
fn of_many_addresses_the_first_are_kept() {
    let (mut fixture, now) = (fixture(), Instant::now());
    assert!(fixture.names.ask(key(1), "many", 80, now).is_none());
    let first = Ok(vec![SocketAddr::from(([192, 0, 2, 1], 80)); MAX_ADDRESSES]);
    assert_eq!(fixture.settle(now), [(key(1), first.clone())]);
    assert_eq!(fixture.names.ask(key(2), "many", 80, now), Some(first));
    let (_, kept) = fixture.names.cached.get("many").expect("cached");
    assert!(kept.as_ref().is_ok_and(|kept| kept.capacity() <= MAX_ADDRESSES));
}

/// RFC 6761 §6.3.
#[test]
fn localhost_is_loopback_and_nobody_is_asked() {
    let (mut fixture, now) = (fixture(), Instant::now());
    for name in
        ["localhost", "LocalHost", "localhost.", "a.localhost", "a.b.LOCALHOST.", "*.localhost"]
    {
        let known = fixture.names.ask(key(1), name, 80, now).expect("at once").expect("found");
        let shown: Vec<String> = known.iter().map(SocketAddr::to_string).collect();
        assert_eq!(shown, ["[::1]:80", "127.0.0.1:80"], "{name}");
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
