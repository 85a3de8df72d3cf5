//! The DNS cache: cached names, and one look-up for all sessions that need the same name.
//!
//! It is the loop's side of name resolution. The [`Resolver`] behind it knows names only; which sessions wait for
//! them is known here. Addresses and failures are cached for the times of [`Ttls`], and the number of cached names
//! is bounded.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::resolver::{Outcome, Resolver};
use super::worker_pool::Limits;
use crate::reactor::slab::Key;

/// The limit of cached names; the oldest is dropped first.
pub const MAX_NAMES: usize = 4096;

/// Addresses of a name that are kept at most. An answer can hold thousands, so the owner of a zone could fill the
/// memory, or turn one request into a flood of connections.
pub const MAX_ADDRESSES: usize = 32;

/// The times for which answers are cached; `None`: not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttls {
    /// Addresses that were found.
    pub found: Option<Duration>,
    /// Names that do not exist.
    pub failed: Option<Duration>,
}

/// The addresses of a name in order of preference, or why there are none.
pub type Addresses = Result<Vec<SocketAddr>, ResolveError>;

/// Why there are no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolveError {
    /// The name does not exist, no server has answered, or it has waited too long.
    NotFound,
    /// This machine could not ask: it lacks descriptors, memory or threads.
    Failed,
}

/// Names that are being looked up, and names that are cached.
pub struct DnsCache {
    resolver: Resolver,
    /// The sessions that wait for each name that is being looked up. A look-up goes on even without one.
    pending: HashMap<String, Vec<Waiter>>,
    /// Answers, and when they came.
    cached: HashMap<String, (Instant, Addresses)>,
    /// The cached names and when they were cached, oldest first.
    order: VecDeque<(Instant, String)>,
    ttls: Ttls,
    /// Counters, and what is not known before it is asked for.
    stats: DnsStats,
    /// Pending names for which no session waits.
    orphans: usize,
}

/// Counters of the cache and the look-ups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DnsStats {
    /// Names that wait to be looked up.
    pub queued: usize,
    /// Names that are being looked up.
    pub running: usize,
    /// Names that are cached.
    pub cached: usize,
    /// Names that had to be looked up so far.
    pub queries: u64,
    /// Of these, those that were not found.
    pub failures: u64,
    /// Questions answered from the cache so far.
    pub hits: u64,
}

struct Waiter {
    key: Key,
    port: u16,
}

/// The answer to a session's question.
pub struct Resolution {
    /// The session that asked.
    pub key: Key,
    /// The addresses with the port it asked for.
    pub addresses: Addresses,
}

impl DnsCache {
    /// An empty cache in front of `resolver`.
    pub fn new(resolver: Resolver, ttls: Ttls) -> Self {
        DnsCache {
            resolver,
            pending: HashMap::new(),
            cached: HashMap::new(),
            order: VecDeque::new(),
            ttls,
            stats: DnsStats::default(),
            orphans: 0,
        }
    }

    /// Asks for a name. A cached name is answered at once; otherwise the answer comes with
    /// [`DnsCache::resolutions`].
    pub fn ask(&mut self, key: Key, name: &str, port: u16, now: Instant) -> Option<Addresses> {
        let name = name.to_ascii_lowercase();
        if is_localhost(&name) {
            return Some(Ok(loopback(port)));
        }
        let known = self.cached.get(&name);
        let good = |(since, addresses): &&_| self.ttls.is_fresh(*since, addresses, now);
        if let Some((_, addresses)) = known.filter(good) {
            self.stats.hits += 1;
            return Some(with_port(addresses, port));
        }
        let waiter = Waiter { key, port };
        match self.pending.get_mut(&name) {
            Some(waiters) => {
                self.orphans -= usize::from(waiters.is_empty());
                waiters.push(waiter);
            }
            None => {
                self.pending.insert(name.clone(), vec![waiter]);
                self.stats.queries += 1;
                self.resolver.submit(name);
            }
        }
        None
    }

    /// The session `key` no longer waits for this name. If no session does, and no worker has taken it yet, it is not
    /// looked up.
    pub fn cancel(&mut self, key: Key, name: &str) {
        let name = name.to_ascii_lowercase();
        if let Some(waiters) = self.pending.get_mut(&name) {
            let before = waiters.len();
            waiters.retain(|waiter| waiter.key != key);
            if !waiters.is_empty() || before == 0 {
                return;
            }
            if self.resolver.cancel(&name) {
                self.pending.remove(&name);
            } else {
                self.orphans += 1;
            }
        }
    }

    /// Takes the answers that have come, one for each session that waits, and caches them.
    pub fn resolutions(&mut self, now: Instant) -> Vec<Resolution> {
        let mut resolutions = Vec::new();
        for answer in self.resolver.answers() {
            // Only answers about the name are cached, not failures of this machine.
            let (addresses, answered) = match answer.outcome {
                Outcome::Found(mut addresses) => {
                    addresses.truncate(MAX_ADDRESSES);
                    addresses.shrink_to_fit();
                    (Ok(addresses), true)
                }
                Outcome::NotFound => (Err(ResolveError::NotFound), true),
                Outcome::Unanswered | Outcome::Overflow => (Err(ResolveError::NotFound), false),
                Outcome::Failed(_) | Outcome::NoWorker => (Err(ResolveError::Failed), false),
            };
            let waiters = self.pending.remove(&answer.name).unwrap_or_default();
            self.orphans -= usize::from(waiters.is_empty());
            resolutions.extend(waiters.into_iter().map(|Waiter { key, port }| Resolution {
                key,
                addresses: with_port(&addresses, port),
            }));
            self.stats.failures += u64::from(addresses.is_err());
            if answered {
                self.store(answer.name, addresses, now);
            }
        }
        resolutions
    }

    /// Whether there may be resolutions, although the loop was not woken for them.
    pub fn ready(&self) -> bool {
        self.resolver.ready()
    }

    /// Starts queued look-ups whose slots are held by slow ones. Returns when to call again, and to look for
    /// resolutions;
    /// `None` if no name is being looked up.
    pub fn check(&mut self, now: Instant) -> Option<Instant> {
        (!self.pending.is_empty()).then(|| self.resolver.check(now))
    }

    /// Look-ups that go on without a session that waits. Each may hold a descriptor.
    pub fn orphans(&self) -> usize {
        self.orphans
    }

    /// Counters of the cache and the look-ups.
    pub fn stats(&self) -> DnsStats {
        let (queued, running) = self.resolver.load();
        DnsStats { queued, running, cached: self.cached.len(), ..self.stats }
    }

    /// Changes the limits of look-ups.
    pub fn limit(&mut self, limits: Limits) {
        self.resolver.limit(limits);
    }

    /// Changes the times, also for what is cached already.
    pub fn set_ttls(&mut self, ttls: Ttls, now: Instant) {
        self.ttls = ttls;
        self.cached.retain(|_, (since, addresses)| ttls.is_fresh(*since, addresses, now));
        self.order.retain(|(since, name)| is_of(*since, self.cached.get(name)));
    }

    fn store(&mut self, name: String, addresses: Addresses, now: Instant) {
        if self.ttls.lifetime(&addresses).is_none() {
            return;
        }
        self.cached.insert(name.clone(), (now, addresses));
        self.order.push_back((now, name));
        while self.order.len() > MAX_NAMES
            && let Some((since, name)) = self.order.pop_front()
        {
            if is_of(since, self.cached.get(&name)) {
                self.cached.remove(&name);
            }
        }
    }
}

impl Ttls {
    fn lifetime(&self, addresses: &Addresses) -> Option<Duration> {
        if addresses.is_ok() { self.found } else { self.failed }
    }

    /// Whether an answer of the time `since` may still be used.
    fn is_fresh(&self, since: Instant, addresses: &Addresses, now: Instant) -> bool {
        let age = now.saturating_duration_since(since);
        self.lifetime(addresses).is_some_and(|lifetime| age < lifetime)
    }
}

/// Whether a name was cached at `since`, and not anew later.
fn is_of(since: Instant, cached: Option<&(Instant, Addresses)>) -> bool {
    cached.is_some_and(|(newest, _)| *newest == since)
}

/// `localhost` and all names below it mean this machine and are not looked up (RFC 6761 §6.3). `name` is in lower
/// case.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

/// In the order of getaddrinfo (RFC 6724 §2.1: ::1 has the highest precedence). A service that listens on
/// one of the two only is found by the second attempt, since loopback refuses at once.
fn loopback(port: u16) -> Vec<SocketAddr> {
    vec![(Ipv6Addr::LOCALHOST, port).into(), (Ipv4Addr::LOCALHOST, port).into()]
}

/// Names are looked up with port 0, which is replaced by the port of the request.
fn with_port(addresses: &Addresses, port: u16) -> Addresses {
    let mut addresses = addresses.clone()?;
    addresses.iter_mut().filter(|address| address.port() == 0).for_each(|a| a.set_port(port));
    Ok(addresses)
}

#[cfg(test)]
mod tests {
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
        /// Lets one look-up end and waits for what comes of it.
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
        assert_eq!(
            fixture.names.ask(key(3), "example.com", 7, now + Duration::from_secs(30)),
            None
        );
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

    /// Lifetimes may change: what is cached already keeps to the new ones.
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

    /// Whoever owns a name decides how many addresses it has; ttls must not follow.
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
        for name in [
            "localhost..",
            "notlocalhost",
            "localhost.example",
            "localhos",
            "localhost.a.",
            "local",
        ] {
            assert!(!is_localhost(name), "{name}");
        }
        assert_eq!((fixture.names.stats(), fixture.names.orphans()), (DnsStats::default(), 0));
        assert_eq!(fixture.asked.load(Ordering::SeqCst), 0);
    }
}
