//! Admission control: whether a connection is admitted, waits, or takes the place of a session that is evicted.
//!
//! A session that has not proved itself (no complete request, no login) may be evicted for a new connection:
//! thousands of half-open connections cannot keep a legitimate one out. [`Unproven`] decides which session is evicted,
//! this module when. Sessions that have proved themselves are never evicted, except for METP sessions of role user and
//! those that linger. Pure accounting, no sockets.
//!
//! ```text
//! Nothing --greeting--> Greeted --login--> LoggedIn --request (SOCKS)--> proven: never evicted
//!    |                     |                  |
//!    +-----refusal---------+------------------+-------> Refused
//!                          |
//!                          +--login (METP)--> proven: Evictable::OfAccount while its role is user,
//!                                             Evictable::Done while it lingers, else never evicted
//! ```
//!
//! | class | may be evicted after |
//! |---|---|
//! | Nothing, Refused | [`EVICT_SILENT_AFTER`] |
//! | Greeted, LoggedIn | [`EVICT_AFTER`] |
//! | not among those that weigh most | [`EVICT_AFTER`], flood or not |
//!
//! During a flood the first two times are divided by [`FLOOD_DIVISOR`] at each step.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::unproven::{Candidate, ClientNetwork, Place, Progress, Unproven};
use crate::reactor::slab::Key;
use crate::state::users::UserId;

/// A session that has been answered may be evicted after this time without progress: a round trip and a busy client.
const EVICT_AFTER: Duration = Duration::from_millis(500);

/// A session whose first message is incomplete, or which has been refused, may be evicted after this time without
/// progress: it waits for no answer.
const EVICT_SILENT_AFTER: Duration = Duration::from_millis(62);

/// Each step of a flood divides both times by this number.
const FLOOD_DIVISOR: u32 = 4;

/// The highest step of a flood; the times are below a millisecond then.
const FLOOD_STEPS: u32 = 5;

/// A flood ends after this time without an eviction.
const FLOOD_QUIET: Duration = Duration::from_secs(2);

/// A flood goes down a step when a generation takes this many times as long as it would at its fastest.
const SLOW_GENERATION: u32 = 4;

/// Different weights of unproven sessions that one decision looks at, at most.
const SCAN_LIMIT: usize = 128;

/// METP sessions that one decision looks at to find the account with most of them, at most.
const LOGGED_IN_SCAN_LIMIT: usize = 1024;

/// Admission control of one service.
#[derive(Default)]
pub struct AdmissionControl {
    unproven: Unproven,
    flood: Flood,
    /// Sessions that have proved themselves and may become evictable, the oldest first.
    logged_in: Vec<Key>,
}

/// The limits of a service at this moment.
#[derive(Clone, Copy)]
pub struct Allowance {
    /// Whether there are a place and descriptors for one more session.
    pub room: bool,
    /// The limit of unproven sessions.
    pub unproven: usize,
    /// The limit of sessions from one address; `None`: none.
    pub per_source: Option<usize>,
}

/// Why a proven session may be evicted all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evictable {
    /// It lingers: nothing is left to do but to wait for its client to close. Or (HTTP) its client takes nothing.
    Done,
    /// It belongs to this account, whose role is user.
    OfAccount(UserId),
}

/// Connections accepted in one turn of the loop, so that a burst does not hold up the tunnels.
pub(super) const ACCEPTS_PER_TURN: usize = 16;

/// The decision about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is admitted.
    Admit,
    /// It is admitted after this session has been evicted.
    Replace(Key),
    /// It waits until there is room, or until this time, when a session may have become evictable.
    Wait(Option<Instant>),
    /// It is closed: its address has reached its limit.
    TooMany,
}

impl AdmissionControl {
    /// Decides about a connection from `network`. `evictable` returns why a proven session may be evicted, if it may.
    ///
    /// If the limit of unproven sessions is reached, one of them is evicted; otherwise, if there is no room, an
    /// evictable proven session, or an unproven one if there is none.
    pub fn decide(
        &mut self,
        network: ClientNetwork,
        allowance: Allowance,
        now: Instant,
        evictable: impl Fn(Key) -> Option<Evictable>,
    ) -> Decision {
        let limit = allowance.per_source;
        if limit.is_some_and(|limit| self.unproven.open_from(network) >= limit) {
            return Decision::TooMany;
        }
        if self.unproven.len() < allowance.unproven {
            if allowance.room {
                return Decision::Admit;
            }
            if let Some(key) = self.onlooker(evictable) {
                return Decision::Replace(key);
            }
        }
        let divisor = self.flood.divisor(now);
        let mut until: Option<Instant> = None;
        for candidate in self.unproven.candidates(SCAN_LIMIT) {
            let Candidate { key, progress, since, heard, heaviest } = candidate;
            if !heard {
                // Its input may not have been read yet; decide again after its turn.
                match heaviest {
                    true => return Decision::Wait(Some(now)),
                    false => continue,
                }
            }
            let due = since
                + match (progress, heaviest) {
                    (Progress::Refused | Progress::Nothing, true) => EVICT_SILENT_AFTER / divisor,
                    (Progress::Greeted | Progress::LoggedIn, true) => EVICT_AFTER / divisor,
                    (_, false) => EVICT_AFTER,
                };
            if due <= now {
                self.flood.evicted(self.unproven.len(), now);
                return Decision::Replace(key);
            }
            until = until.into_iter().chain([due]).min();
        }
        self.flood.waited |= until.is_some();
        Decision::Wait(until)
    }

    /// The number of sessions that have not proved themselves.
    #[cfg(debug_assertions)]
    pub fn unproven(&self) -> usize {
        self.unproven.len()
    }

    /// Counts a session that is admitted. `None` if there are too many to count.
    pub fn enter(&mut self, key: Key, network: ClientNetwork, now: Instant) -> Option<Place> {
        self.unproven.enter(key, network, now)
    }

    /// Records the progress of an unproven session after its turn.
    pub fn advance(&mut self, place: Place, progress: Progress, now: Instant) {
        self.unproven.advance(place, progress, now);
    }

    /// A session has proved itself; returns its place from now on. `key` is given if it may become evictable later.
    pub fn prove(&mut self, place: Place, key: Option<Key>) -> Option<Place> {
        self.logged_in.extend(key);
        self.unproven.prove(place)
    }

    /// Counts off a session that has ended, at the place where it was counted.
    pub fn leave(&mut self, key: Key, place: Place) {
        if place.is_proven() {
            self.logged_in.retain(|other| *other != key);
        }
        self.unproven.leave(place);
    }

    /// A proven session to evict: one that lingers, or else the oldest of the account with most evictable sessions.
    fn onlooker(&self, evictable: impl Fn(Key) -> Option<Evictable>) -> Option<Key> {
        let mut accounts: HashMap<UserId, (usize, Reverse<usize>, Key)> = HashMap::new();
        for (age, key) in self.logged_in.iter().take(LOGGED_IN_SCAN_LIMIT).enumerate() {
            match evictable(*key) {
                None => {}
                Some(Evictable::Done) => return Some(*key),
                Some(Evictable::OfAccount(user)) => {
                    accounts.entry(user).or_insert((0, Reverse(age), *key)).0 += 1;
                }
            }
        }
        accounts.into_values().max_by_key(|(count, age, _)| (*count, *age)).map(|(.., key)| key)
    }
}

/// The rate of connections that do not prove themselves. While others wait for evictions, the times shrink step by
/// step. So a connection behind any flood waits no longer than the sum of all steps, which is 4/3 of the first,
/// whatever the size of the server is.
#[derive(Default)]
struct Flood {
    step: u32,
    /// Evictions in this generation, which ends at half the number of unproven sessions.
    evicted: usize,
    /// Whether a connection had to wait in this generation.
    waited: bool,
    began: Option<Instant>,
    last: Option<Instant>,
}

impl Flood {
    /// The divisor of the eviction times.
    fn divisor(&mut self, now: Instant) -> u32 {
        if self.last.is_some_and(|last| now > last + FLOOD_QUIET) {
            *self = Flood::default();
        }
        FLOOD_DIVISOR.pow(self.step)
    }

    /// An unproven session has been evicted; `unproven` is their number.
    fn evicted(&mut self, unproven: usize, now: Instant) {
        self.last = Some(now);
        self.evicted += 1;
        let began = *self.began.get_or_insert(now);
        if self.evicted < unproven / 2 {
            return;
        }
        let relaxed = now.saturating_duration_since(began)
            > EVICT_AFTER * SLOW_GENERATION / FLOOD_DIVISOR.pow(self.step);
        self.step = match (self.waited, relaxed) {
            (true, _) => (self.step + 1).min(FLOOD_STEPS),
            (false, true) => self.step.saturating_sub(1),
            (false, false) => self.step,
        };
        (self.evicted, self.waited, self.began) = (0, false, Some(now));
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
