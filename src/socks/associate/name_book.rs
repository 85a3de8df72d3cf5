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
    waiting: VecDeque<Waiting>,
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
}

enum Answer {
    Pending,
    /// The addresses in order of preference; those before the index have turned out to be unreachable.
    Found(Vec<IpAddr>, usize),
    /// There is no address; that was said at this time.
    Failed(Instant),
}

struct Waiting {
    name: Box<str>,
    datagram: WaitingDatagram,
}

/// A datagram that has waited for its name.
pub struct WaitingDatagram {
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
            let pending = self.names.iter().filter(|entry| matches!(entry.answer, Answer::Pending));
            if pending.count() >= MOST_PENDING {
                return Named::Nothing;
            }
            // Port 0: the datagrams of one name may go to different ports.
            let known = dns.ask(key, &name, 0, now);
            self.make_room();
            self.names.push(Entry {
                name: name.as_str().into(),
                answer: Answer::Pending,
                asked: true,
                used: 0,
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
        self.waiting.push_back(Waiting {
            name,
            datagram: WaitingDatagram { port, payload: payload.into() },
        });
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

    /// The first datagram that waits for a name which is known by now, and the addresses of that name; none if it has
    /// no address.
    pub fn take_ready(&mut self) -> Option<(WaitingDatagram, Vec<IpAddr>)> {
        let ready = |waiting: &Waiting| {
            let entry = self.position(&waiting.name).and_then(|index| self.names.get(index));
            !matches!(entry, Some(Entry { answer: Answer::Pending, .. }))
        };
        let index = self.waiting.iter().position(ready)?;
        let Waiting { name, datagram } = self.waiting.remove(index)?;
        let entry = self.position(&name).and_then(|index| self.names.get(index));
        let addresses = match entry.map(|entry| &entry.answer) {
            Some(Answer::Found(addresses, first)) => {
                addresses.get(*first..).unwrap_or_default().to_vec()
            }
            _ => Vec::new(),
        };
        Some((datagram, addresses))
    }

    /// A first datagram to `address` could not be sent, because there is no route: names that stand for it stand for
    /// their next address from now on, if they have one.
    pub fn unreachable(&mut self, address: IpAddr) {
        for entry in &mut self.names {
            if let Answer::Found(addresses, first) = &mut entry.answer
                && addresses.get(*first) == Some(&address)
                && *first + 1 < addresses.len()
            {
                *first += 1;
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
        self.waiting.iter().map(|waiting| waiting.datagram.payload.len()).sum()
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
