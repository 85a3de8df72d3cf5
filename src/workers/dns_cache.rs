//! The DNS cache: cached names, and one question for all sessions that need the same name.
//!
//! It is the loop's side of name resolution. The [`Resolver`] behind it knows names only; which sessions wait for
//! them is known here. Addresses and failures are cached for the times of [`Ttls`], and the number of cached names
//! is bounded.
//!
//! A question is two look-ups, one for each family, so that neither waits for the other (RFC 8305 §3). What the sessions
//! are told when one of them has ended, with the other still running:
//!
//! | that one | sessions are told |
//! |---|---|
//! | has addresses, which go first in any case, or no address of the other family can be reached | at once |
//! | has addresses otherwise | when the other one has ended, but after 50 ms at the latest |
//! | has none, for whatever reason | when the other one has ended |
//!
//! Those who were told of one family get a second [`Resolution`] with the other one. When both have ended without an
//! address, it is [`ResolveError::Failed`] if this machine could not ask for one of them, else `NotFound`; the latter is
//! cached if both are answers. Addresses are cached, whatever became of the other family: it has no addresses then for
//! that time. So a family that is never answered delays one request in that time, not all.
//!
//! The name of an address is one look-up, and is not cached.

mod pending;
mod reverse;

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::families::{Family, Prefer};
use super::resolver::{LookupDone, Resolver};
use super::worker_pool::Limits;
use crate::reactor::slab::Key;
use pending::{Pending, Stage, Waiter};
pub use reverse::NameAnswer;
use reverse::PendingNames;

/// The limit of cached names; the oldest is dropped first.
pub const MAX_NAMES: usize = 4096;

/// Addresses of an answer that are kept at most, be it of one family or of both. An answer can hold thousands, so the
/// owner of a zone could fill the memory, or turn one request into a flood of connections.
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

/// Why there are no addresses, or no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolveError {
    /// The name does not exist or the address has none, no server has answered, or it has waited too long.
    NotFound,
    /// This machine could not ask: it lacks descriptors, memory or threads.
    Failed,
}

/// Names that are being looked up, and names that are cached.
pub struct DnsCache {
    resolver: Resolver,
    /// The names that are being looked up, also those for which no session waits any more.
    pending: HashMap<String, Pending>,
    /// The names of which one family waits for the other, and until when, earliest first.
    delayed: VecDeque<(Instant, String)>,
    /// The addresses whose names are being looked up.
    reverse: PendingNames,
    cached: HashMap<String, Cached>,
    /// The cached names and when they were cached, oldest first.
    order: VecDeque<(Instant, String)>,
    ttls: Ttls,
    prefer: Prefer,
    /// Counters, and what is not known before it is asked for.
    stats: DnsStats,
    /// Look-ups whose descriptor is promised to no session.
    uncovered: usize,
}

/// A cached answer.
struct Cached {
    /// When it came.
    since: Instant,
    addresses: Addresses,
    /// The address that is to be first, by [`DnsCache::prefer_first`].
    winner: Option<SocketAddr>,
}

/// Counters of the cache and the look-ups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DnsStats {
    /// Look-ups that wait for a worker; a name takes two, an address one.
    pub queued: usize,
    /// Look-ups that are being made; a name takes two, an address one.
    pub running: usize,
    /// Names that are cached.
    pub cached: usize,
    /// Names, and addresses for their names, that had to be looked up so far.
    pub queries: u64,
    /// Of these, those for which nothing was found.
    pub failures: u64,
    /// Questions answered from the cache so far.
    pub hits: u64,
}

/// The answer to a session's question, or to the half of it that has come later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The session that asked.
    pub key: Key,
    /// The name as it was asked for.
    pub name: Box<str>,
    /// The port that was asked for.
    pub port: u16,
    /// The addresses with this port. In a second resolution, those of the other family.
    pub addresses: Addresses,
    /// Whether another resolution follows, with the addresses of the other family or an error.
    pub more: bool,
}

impl DnsCache {
    /// An empty cache in front of `resolver`.
    pub fn new(resolver: Resolver, ttls: Ttls, prefer: Prefer) -> Self {
        DnsCache {
            resolver,
            pending: HashMap::new(),
            delayed: VecDeque::new(),
            reverse: PendingNames::default(),
            cached: HashMap::new(),
            order: VecDeque::new(),
            ttls,
            prefer,
            stats: DnsStats::default(),
            uncovered: 0,
        }
    }

    /// Asks for a name to connect to: until there is an address, the look-up may use the descriptor that has been
    /// promised for the connection. A cached name is answered at once; otherwise the answer comes with
    /// [`DnsCache::resolutions`]. Either way another one comes there if [`Resolution::more`] says so, unless
    /// [`DnsCache::cancel`] is called.
    pub fn ask(&mut self, key: Key, name: &str, port: u16, now: Instant) -> Option<Resolution> {
        self.add(Waiter { key, name: name.into(), port, served: None, spares: true }, now)
    }

    /// The same for a session that uses all descriptors that it has been promised. The addresses come with port 0.
    pub fn ask_beside(&mut self, key: Key, name: &str, now: Instant) -> Option<Resolution> {
        self.add(Waiter { key, name: name.into(), port: 0, served: None, spares: false }, now)
    }

    fn add(&mut self, mut waiter: Waiter, now: Instant) -> Option<Resolution> {
        let name = waiter.name.to_ascii_lowercase();
        if is_localhost(&name) {
            return Some(waiter.resolution(&Ok(loopback()), false));
        }
        let known = self.cached.get(&name);
        let good = |cached: &&Cached| self.ttls.is_fresh(cached.since, &cached.addresses, now);
        if let Some(cached) = known.filter(good) {
            self.stats.hits += 1;
            let pending = self.pending.get_mut(&name);
            let late = pending.and_then(|pending| Some((pending.late()?, pending)));
            let resolution = waiter.resolution(&cached.addresses, late.is_some());
            if let Some((late, pending)) = late {
                waiter.served = Some(late.other());
                pending.waiters.push(waiter);
            }
            return Some(resolution);
        }
        let mut pending = self.take_pending(&name).unwrap_or_default();
        pending.waiters.push(waiter);
        let families = pending.begin();
        self.put_pending(name.clone(), pending);
        if !families.is_empty() {
            self.stats.queries += 1;
            self.resolver.submit(&name, &families);
        }
        None
    }

    /// The session `key` no longer waits for this name. If no session does, and no worker has taken it yet, it is not
    /// looked up.
    pub fn cancel(&mut self, key: Key, name: &str) {
        let name = name.to_ascii_lowercase();
        let Some(mut pending) = self.take_pending(&name) else { return };
        let before = pending.waiters.len();
        pending.waiters.retain(|waiter| waiter.key != key);
        if pending.waiters.is_empty() && before > 0 {
            // IPv4 is taken first. Once it has been taken, both go on, so that the answer can be cached.
            for family in Family::ALL {
                if !pending.is_asked_for(family) {
                    continue;
                }
                if !self.resolver.cancel(&name, family) {
                    break;
                }
                pending.withdraw(family);
            }
            if !pending.is_asked() {
                return;
            }
        }
        self.put_pending(name, pending);
    }

    /// Moves an address to the front of the cached answer for the rest of its lifetime: a connection to it has been made,
    /// and not to those before it. Does nothing if the name or the address is not cached.
    pub fn prefer_first(&mut self, name: &str, address: SocketAddr) {
        if let Some(cached) = self.cached.get_mut(&name.to_ascii_lowercase()) {
            cached.put_first(address);
        }
    }

    /// Takes the answers that have come, one for each session that waits, and caches them.
    pub fn resolutions(&mut self, now: Instant) -> Vec<Resolution> {
        let mut resolutions = Vec::new();
        let done = self.resolver.answers();
        self.take_answers(done, now, &mut resolutions);
        while self.delayed.front().is_some_and(|(due, _)| *due <= now)
            && let Some((_, name)) = self.delayed.pop_front()
        {
            if let Some(pending) = self.take_pending(&name) {
                self.hand_out(name, pending, now, &mut resolutions);
            }
        }
        resolutions
    }

    /// All are taken before anything goes out, so that both families go together if both have come.
    fn take_answers(
        &mut self,
        done: Vec<LookupDone>,
        now: Instant,
        resolutions: &mut Vec<Resolution>,
    ) {
        let mut names = Vec::new();
        for LookupDone { name, family, outcome } in done {
            if let Some(mut pending) = self.take_pending(&name) {
                pending.answered(family, outcome, now);
                self.put_pending(name.clone(), pending);
                names.push(name);
            }
        }
        for name in names {
            if let Some(pending) = self.take_pending(&name) {
                self.hand_out(name, pending, now, resolutions);
            }
        }
    }

    /// Gives the sessions what may go out now.
    fn hand_out(
        &mut self,
        name: String,
        mut pending: Pending,
        now: Instant,
        resolutions: &mut Vec<Resolution>,
    ) {
        pending.complete_served(resolutions);
        match pending.stage(self.prefer, now) {
            Stage::Nothing => {}
            Stage::Partial(family) => {
                pending.serve(family, resolutions);
                self.store(
                    name.clone(),
                    pending.addresses(self.prefer),
                    pending.since.unwrap_or(now),
                );
            }
            Stage::Delayed(due) => {
                if self.delayed.back().is_none_or(|(last, known)| (*last, known) != (due, &name)) {
                    self.delayed.push_back((due, name.clone()));
                }
            }
            Stage::Complete => {
                let addresses = pending.addresses(self.prefer);
                for waiter in &pending.waiters {
                    resolutions.push(waiter.resolution(&addresses, false));
                }
                self.stats.failures += u64::from(addresses.is_err());
                if pending.is_answered() {
                    self.store(name, addresses, pending.since.unwrap_or(now));
                }
                return;
            }
        }
        self.put_pending(name, pending);
    }

    fn take_pending(&mut self, name: &str) -> Option<Pending> {
        let pending = self.pending.remove(name)?;
        self.uncovered = self.uncovered.saturating_sub(pending.uncovered());
        Some(pending)
    }

    fn put_pending(&mut self, name: String, pending: Pending) {
        self.uncovered += pending.uncovered();
        self.pending.insert(name, pending);
    }

    /// Whether there may be resolutions or names, although the loop was not woken for them.
    pub fn ready(&self, now: Instant) -> bool {
        self.resolver.ready() || self.delayed.front().is_some_and(|(due, _)| *due <= now)
    }

    /// Starts queued look-ups whose slots are held by slow ones. Returns when to call again, and to look for
    /// resolutions and names; `None` if nothing is being looked up.
    pub fn check(&mut self, now: Instant) -> Option<Instant> {
        if self.pending.is_empty() && self.reverse.is_empty() {
            return None;
        }
        let next = self.resolver.check(now);
        Some(self.delayed.front().map_or(next, |(due, _)| next.min(*due)))
    }

    /// Look-ups that may hold a descriptor which no session has been promised: those that go on without a session that
    /// waits for its first addresses or for its name, and the second one of each name. They are never more than there
    /// may be workers.
    pub fn orphans(&self) -> usize {
        (self.uncovered + self.reverse.uncovered()).min(self.resolver.most_workers())
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
        self.cached.retain(|_, cached| ttls.is_fresh(cached.since, &cached.addresses, now));
        self.order.retain(|(since, name)| is_of(*since, self.cached.get(name)));
    }

    /// Changes which family goes first. What is cached is forgotten then.
    pub fn set_prefer(&mut self, prefer: Prefer) {
        if self.prefer != prefer {
            self.prefer = prefer;
            self.cached.clear();
            self.order.clear();
        }
    }

    fn store(&mut self, name: String, addresses: Addresses, since: Instant) {
        if self.ttls.lifetime(&addresses).is_none() {
            return;
        }
        let mut cached = Cached { since, addresses, winner: None };
        if let Some(known) = self.cached.get_mut(&name).filter(|known| known.since == since) {
            // The other family of the same answer.
            if let Some(winner) = known.winner {
                cached.put_first(winner);
            }
            *known = cached;
            return;
        }
        self.cached.insert(name.clone(), cached);
        self.order.push_back((since, name));
        while self.order.len() > MAX_NAMES
            && let Some((since, name)) = self.order.pop_front()
        {
            if is_of(since, self.cached.get(&name)) {
                self.cached.remove(&name);
            }
        }
    }
}

impl Cached {
    fn put_first(&mut self, address: SocketAddr) {
        let Ok(addresses) = &mut self.addresses else { return };
        let same = |known: &SocketAddr| {
            let port = known.port() == 0 || known.port() == address.port();
            port && known.ip().to_canonical() == address.ip().to_canonical()
        };
        let Some(position) = addresses.iter().position(same) else { return };
        if let Some(front) = addresses.get_mut(..=position) {
            front.rotate_right(1);
            self.winner = Some(address);
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
fn is_of(since: Instant, cached: Option<&Cached>) -> bool {
    cached.is_some_and(|cached| cached.since == since)
}

/// `localhost` and all names below it mean this machine and are not looked up (RFC 6761 §6.3). `name` is in lower
/// case.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

/// In the order of getaddrinfo (RFC 6724 §2.1: ::1 has the highest precedence). A service that listens on
/// one of the two only is found by the second attempt, since loopback refuses at once.
fn loopback() -> Vec<SocketAddr> {
    vec![(Ipv6Addr::LOCALHOST, 0).into(), (Ipv4Addr::LOCALHOST, 0).into()]
}

/// Names are looked up with port 0, which is replaced by the port of the request.
fn with_port(addresses: &Addresses, port: u16) -> Addresses {
    let mut addresses = addresses.clone()?;
    addresses.iter_mut().filter(|address| address.port() == 0).for_each(|a| a.set_port(port));
    Ok(addresses)
}

#[cfg(test)]
mod tests;
