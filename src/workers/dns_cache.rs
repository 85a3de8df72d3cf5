//! The DNS cache: cached names, and one look-up for all sessions that need the same name.
//!
//! It is the loop's side of name resolution. The [`Resolver`] behind it knows names only; which sessions wait for
//! them is known here. Addresses and failures are cached for the times of [`Ttls`], and the number of cached names
//! is bounded.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
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
    /// The name in lower case: a session may ask for several at once.
    pub name: Rc<str>,
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
            let name: Rc<str> = answer.name.as_str().into();
            self.orphans -= usize::from(waiters.is_empty());
            resolutions.extend(waiters.into_iter().map(|Waiter { key, port }| Resolution {
                key,
                name: Rc::clone(&name),
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
mod tests;
