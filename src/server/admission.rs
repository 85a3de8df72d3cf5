//! Admission: who is let in, who has to wait, and who is evicted to make room.
//!
//! A session that has not proved itself (no complete request, no login) may be evicted by a newcomer:
//! thousands of half-open connections cannot keep a legitimate one out. Which one it is, [`Unproven`] decides;
//! when, is decided here. Sessions that have proved themselves are never evicted, except for METP sessions that
//! only look on. Pure accounting, no sockets.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::unproven::{Candidate, Network, Place, Progress, Unproven};
use crate::reactor::slab::Key;
use crate::state::users::UserId;

/// A session may be evicted when it has made no progress for so long: the time for a round trip and a
/// busy client, since an answer has been sent to it.
const EVICT_AFTER: Duration = Duration::from_millis(500);

/// The same for a session whose first message is not complete, and needs no answer to become so; and for one
/// that has been refused.
const EVICT_SILENT_AFTER: Duration = Duration::from_millis(62);

/// Each step of a flood divides both times by so much.
const FLOOD_DIVISOR: u32 = 4;

/// How many steps there are: then the times are below a millisecond, which is as good as none.
const FLOOD_STEPS: u32 = 5;

/// So long after the last eviction a flood is over.
const QUIET: Duration = Duration::from_secs(2);

/// A flood goes down a step when a generation takes so many times as long as it would at its fastest.
const RELAXED: u32 = 4;

/// How many different weights of unproven sessions are looked at to find one that may be evicted.
const SCAN_LIMIT: usize = 128;

/// How many METP sessions are looked at to find the account that has most of them.
const LOGGED_IN_SCAN_LIMIT: usize = 1024;

/// Who is let in to one service.
#[derive(Default)]
pub struct AdmissionControl {
    unproven: Unproven,
    flood: Flood,
    /// Sessions that have proved themselves and may become evictable, the oldest first.
    logged_in: Vec<Key>,
}

/// What a service allows at this moment.
#[derive(Clone, Copy)]
pub struct Allowance {
    /// Whether there is room for one more session at all.
    pub room: bool,
    /// Unproven sessions at once.
    pub unproven: usize,
    /// Sessions from one address at once.
    pub per_source: Option<usize>,
}

/// Why a session that has logged in may be evicted all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evictable {
    /// It is over, and its client has not left yet.
    Done,
    /// It is of this account, which may only look on.
    OfAccount(UserId),
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is let in.
    Admit,
    /// It is let in in place of this one.
    Replace(Key),
    /// It has to wait until there is room, or until this time, when another may have to make room.
    Wait(Option<Instant>),
    /// Its address has too many already.
    TooMany,
}

impl AdmissionControl {
    /// Judges a connection from `network`. `evictable` tells of a session that has logged in whether it may be
    /// evicted.
    ///
    /// Where the unproven have all the places that they may have, one of them is evicted. Where there is no room
    /// for anybody, it is a session that only looks on, if there is one.
    pub fn decide(
        &mut self,
        network: Network,
        allowance: Allowance,
        now: Instant,
        evictable: impl Fn(Key) -> Option<Evictable>,
    ) -> Verdict {
        let limit = allowance.per_source;
        if limit.is_some_and(|limit| self.unproven.open_from(network) >= limit) {
            return Verdict::TooMany;
        }
        if self.unproven.len() < allowance.unproven {
            if allowance.room {
                return Verdict::Admit;
            }
            if let Some(key) = self.onlooker(evictable) {
                return Verdict::Replace(key);
            }
        }
        let divisor = self.flood.divisor(now);
        let mut until: Option<Instant> = None;
        for candidate in self.unproven.candidates(SCAN_LIMIT) {
            let Candidate { key, progress, since, heard, heaviest } = candidate;
            if !heard {
                // What it says may not have been heard; ask again with the next turn.
                match heaviest {
                    true => return Verdict::Wait(Some(now)),
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
                return Verdict::Replace(key);
            }
            until = until.into_iter().chain([due]).min();
        }
        self.flood.waited |= until.is_some();
        Verdict::Wait(until)
    }

    /// The number of sessions that have not proved themselves.
    #[cfg(debug_assertions)]
    pub fn unproven(&self) -> usize {
        self.unproven.len()
    }

    /// A session has been let in. `None` if there are too many to count.
    pub fn enter(&mut self, key: Key, network: Network, now: Instant) -> Option<Place> {
        self.unproven.enter(key, network, now)
    }

    /// An unproven session has had a turn, and has come so far.
    pub fn advance(&mut self, place: Place, progress: Progress, now: Instant) {
        self.unproven.advance(place, progress, now);
    }

    /// A session has proved itself, and has another place from now on. `key`: it may become evictable all the same.
    pub fn prove(&mut self, place: Place, key: Option<Key>) -> Option<Place> {
        self.logged_in.extend(key);
        self.unproven.prove(place)
    }

    /// A session has ended, which was counted in this place.
    pub fn leave(&mut self, key: Key, place: Place) {
        if place.is_proven() {
            self.logged_in.retain(|other| *other != key);
        }
        self.unproven.leave(place);
    }

    /// A session that is over, or else the oldest one of the account that has most of those that look on.
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

/// How fast newcomers come that do not prove themselves. As long as those behind them have to wait for
/// evictions, the times shrink: whoever comes behind any flood, to a server of any size, waits no longer than
/// all of them together, which is 4/3 of the first.
#[derive(Default)]
struct Flood {
    step: u32,
    /// Evictions in this generation: half as many as there are unproven sessions.
    evicted: usize,
    /// Whether somebody had to wait in it.
    waited: bool,
    began: Option<Instant>,
    last: Option<Instant>,
}

impl Flood {
    /// What times are divided by.
    fn divisor(&mut self, now: Instant) -> u32 {
        if self.last.is_some_and(|last| now > last + QUIET) {
            *self = Flood::default();
        }
        FLOOD_DIVISOR.pow(self.step)
    }

    /// An unproven session has been evicted, one of so many.
    fn evicted(&mut self, unproven: usize, now: Instant) {
        self.last = Some(now);
        self.evicted += 1;
        let began = *self.began.get_or_insert(now);
        if self.evicted < unproven / 2 {
            return;
        }
        let relaxed = now.saturating_duration_since(began)
            > EVICT_AFTER * RELAXED / FLOOD_DIVISOR.pow(self.step);
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
