//! Names in datagrams: which address each stands for in one association, and the datagrams that wait for a look-up.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::reactor::slab::Key;
use crate::workers::dns_cache::{Addresses, DnsCache};

/// Names that an association keeps. One that is in use keeps its address when the DNS cache has another one: a flow
/// must not change servers.
const MOST_NAMES: usize = 64;
/// Addresses of a name that are kept: a datagram is sent to one, and only a missing route leads to the next.
const MOST_ADDRESSES: usize = 8;
/// Names of an association that may be looked up at once.
const MOST_PENDING: usize = 4;
/// Datagrams of an association that may wait for look-ups, and their payload in bytes.
const MOST_WAITING: usize = 8;
const MOST_WAITING_BYTES: usize = 16 * 1024;

/// The names that an association has used.
#[derive(Default)]
pub struct NameBook {
    names: Vec<Entry>,
    /// Datagrams whose names are being looked up, oldest first.
    waiting: VecDeque<WaitingDatagram>,
    /// Grows with each use of a name.
    uses: u64,
}

struct Entry {
    /// In lower case.
    name: Box<str>,
    answer: Answer,
    /// Whether a resolution is outstanding: the first, or that of the other family.
    asked: bool,
    /// The number of its last use.
    used: u64,
    /// When a datagram was first sent to its present address.
    first_sent: Option<Instant>,
    /// Whether there was a route to that address.
    proven: bool,
}

impl Entry {
    /// A datagram is about to be sent to the present address.
    fn is_sent_to(&mut self, now: Instant) {
        // What was sent in an earlier turn had a route, or the address would be another one by now.
        self.proven |= self.first_sent.is_some_and(|sent| sent < now);
        if matches!(self.answer, Answer::Found(..)) {
            self.first_sent.get_or_insert(now);
        }
    }
}

enum Answer {
    Pending,
    /// The addresses in order of preference, and the index of the one that is tried first.
    Found(Vec<IpAddr>, usize),
    /// There is no address; that was said at this time.
    Failed(Instant),
}

/// A datagram that has waited for its name.
pub struct WaitingDatagram {
    /// The name.
    pub name: Box<str>,
    /// How many addresses of the name there were when it was taken out; it waits for more of them.
    tried: usize,
    /// The port of its target.
    pub port: u16,
    /// What is to be sent.
    pub payload: Box<[u8]>,
}

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// These addresses, the best first.
    Addresses(&'a [IpAddr]),
    /// It is being looked up.
    Pending,
    /// It has no address, or too many names are being looked up.
    Nothing,
}

impl NameBook {
    /// What `name` stands for. An unknown name is looked up: its answer comes with [`NameBook::answer`]. So is one that
    /// had no address `failed` ago.
    pub fn look_up(
        &mut self,
        name: &str,
        key: Key,
        dns: &mut DnsCache,
        now: Instant,
        failed: Option<Duration>,
    ) -> Named<'_> {
        let name = name.to_ascii_lowercase();
        let is_stale = |entry: &Entry| match entry.answer {
            Answer::Failed(since) => {
                failed.is_none_or(|age| now.saturating_duration_since(since) >= age)
            }
            Answer::Pending | Answer::Found(..) => false,
        };
        self.names.retain(|entry| *entry.name != *name || !is_stale(entry));
        if self.position(&name).is_none() {
            // Also those of which one family is there.
            let asked = self.names.iter().filter(|entry| entry.asked).count();
            if asked >= MOST_PENDING {
                return Named::Nothing;
            }
            self.make_room();
            // The datagrams of one name may go to different ports.
            let known = dns.ask_beside(key, &name, now);
            self.names.push(Entry {
                name: name.as_str().into(),
                answer: Answer::Pending,
                asked: true,
                used: 0,
                first_sent: None,
                proven: false,
            });
            if let Some(known) = known {
                self.answer(&name, known.addresses, known.more, now);
            }
        }
        self.uses += 1;
        let uses = self.uses;
        let Some(entry) = self.position(&name).and_then(|index| self.names.get_mut(index)) else {
            return Named::Nothing;
        };
        entry.used = uses;
        entry.is_sent_to(now);
        match &entry.answer {
            Answer::Pending => Named::Pending,
            Answer::Found(addresses, first) => {
                addresses.get(*first..).map_or(Named::Nothing, Named::Addresses)
            }
            Answer::Failed(_) => Named::Nothing,
        }
    }

    /// Keeps a datagram until its name is known. Returns how many had to be dropped for it: the oldest, since what is
    /// sent again supersedes them.
    pub fn hold(&mut self, name: &str, port: u16, payload: &[u8]) -> u64 {
        if payload.len() > MOST_WAITING_BYTES {
            return 1;
        }
        let name = name.to_ascii_lowercase().into_boxed_str();
        self.waiting.push_back(WaitingDatagram { name, tried: 0, port, payload: payload.into() });
        let mut dropped = 0;
        while self.waiting.len() > MOST_WAITING || self.waiting_bytes() > MOST_WAITING_BYTES {
            self.waiting.pop_front();
            dropped += 1;
        }
        dropped
    }

    /// Addresses of `name` have come, or the reason why there are none. Later addresses of a name that has some come
    /// behind them. `more`: they may follow.
    pub fn answer(&mut self, name: &str, addresses: Addresses, more: bool, now: Instant) {
        let Some(index) = self.position(&name.to_ascii_lowercase()) else { return };
        let Some(Entry { answer, asked, .. }) = self.names.get_mut(index) else { return };
        *asked = more;
        let found =
            addresses.unwrap_or_default().into_iter().map(|address| address.ip().to_canonical());
        match answer {
            Answer::Found(known, _) => {
                let room = MOST_ADDRESSES.saturating_sub(known.len());
                known.extend(found.take(room));
            }
            Answer::Pending | Answer::Failed(_) => {
                let mut found: Vec<IpAddr> = found.take(MOST_ADDRESSES).collect();
                // Nothing says that a service on this machine is not on ::1, and so the second address would never be
                // tried. Most are on 127.0.0.1.
                if found.iter().all(IpAddr::is_loopback) {
                    found.sort_by_key(IpAddr::is_ipv6);
                }
                *answer =
                    if found.is_empty() { Answer::Failed(now) } else { Answer::Found(found, 0) };
            }
        }
    }

    /// The first datagram that waits for a name which is known by now, the addresses of that name, which are none if it
    /// has no address, and whether more may come.
    pub fn take_ready(&mut self, now: Instant) -> Option<(WaitingDatagram, Vec<IpAddr>, bool)> {
        let index = self.waiting.iter().position(|waiting| self.is_ready(waiting))?;
        let mut datagram = self.waiting.remove(index)?;
        let entry = self.position(&datagram.name).and_then(|index| self.names.get_mut(index));
        let Some(entry) = entry else { return Some((datagram, Vec::new(), false)) };
        entry.is_sent_to(now);
        let Answer::Found(addresses, first) = &entry.answer else {
            return Some((datagram, Vec::new(), false));
        };
        datagram.tried = addresses.len();
        let addresses = addresses.get(*first..).unwrap_or_default().to_vec();
        Some((datagram, addresses, entry.asked))
    }

    /// Whether there is such a datagram.
    pub fn has_ready(&self) -> bool {
        self.waiting.iter().any(|waiting| self.is_ready(waiting))
    }

    /// Whether the name of a datagram is known, and has an address that was not tried.
    fn is_ready(&self, waiting: &WaitingDatagram) -> bool {
        let entry = self.position(&waiting.name).and_then(|index| self.names.get(index));
        match entry {
            Some(Entry { answer: Answer::Pending, .. }) => false,
            Some(Entry { answer: Answer::Found(addresses, _), asked: true, .. }) => {
                addresses.len() > waiting.tried
            }
            _ => true,
        }
    }

    /// Puts a datagram back that cannot be sent to any address of its name so far: it waits for more of them.
    pub fn hold_on(&mut self, datagram: WaitingDatagram) {
        self.waiting.push_front(datagram);
    }

    /// A datagram to `address` could not be sent, because there is no route. Names that stand for it, and of which no
    /// datagram has been sent there before, stand for their next address from now on; behind the last comes the first. A
    /// route that is lost for a while moves no flow to another server.
    pub fn unreachable(&mut self, address: IpAddr) {
        for entry in &mut self.names {
            if let Answer::Found(addresses, first) = &mut entry.answer
                && !entry.proven
                && addresses.get(*first) == Some(&address)
            {
                *first = if *first + 1 < addresses.len() { *first + 1 } else { 0 };
                entry.first_sent = None;
            }
        }
    }

    /// Withdraws the questions that are open. Returns how many datagrams are lost with them.
    pub fn cancel(&mut self, key: Key, dns: &mut DnsCache) -> u64 {
        for entry in &self.names {
            if entry.asked {
                dns.cancel(key, &entry.name);
            }
        }
        let lost = self.waiting.len() as u64;
        self.waiting.clear();
        lost
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|entry| *entry.name == *name)
    }

    fn waiting_bytes(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.payload.len()).sum()
    }

    /// Forgets the name that has not been used for longest, if there are too many. One that is being looked up stays.
    fn make_room(&mut self) {
        if self.names.len() < MOST_NAMES {
            return;
        }
        let answered = |(_, entry): &(usize, &Entry)| !entry.asked;
        let oldest =
            self.names.iter().enumerate().filter(answered).min_by_key(|(_, entry)| entry.used);
        if let Some(index) = oldest.map(|(index, _)| index) {
            self.names.swap_remove(index);
        }
    }
}
