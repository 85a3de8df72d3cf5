//! Tunnels that wait because of the rate of their account.
//!
//! A tunnel that may read nothing waits in the queue of its account, and there is one alarm for all accounts: the first
//! that has something to give. It is shared between as many of those that have waited longest as there are pieces of
//! [`LEAST_GRANT`]; each tunnel is queued once at most, and goes to the end for its next piece.

use std::cell::RefMut;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use super::Direction;
use super::shaper::{LEAST_GRANT, Shaper};
use super::users::UserId;
use crate::reactor::slab::Key;

/// The most that a tunnel is given at once, in bytes: the budget of a turn.
const LARGEST_GRANT: u64 = 256 * 1024;

/// A queue: that of one direction of an account.
type Lane = (UserId, Direction);

/// The tunnels that wait.
#[derive(Debug, Default)]
pub struct Rates {
    /// Those of each account that has some, the longest first.
    queues: HashMap<Lane, VecDeque<Key>>,
    /// When each of them has something to give.
    due: BTreeSet<(Instant, Lane)>,
}

/// A tunnel that may read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its session.
    pub key: Key,
    /// In which direction.
    pub direction: Direction,
    /// So many bytes, which are charged already. `None`: it has to ask again, since there may be another rate now, or none.
    pub bytes: Option<u64>,
}

impl Rates {
    /// Whether somebody waits: who comes now has to wait behind them.
    pub fn has_waiting(&self, user: UserId, direction: Direction) -> bool {
        self.queues.contains_key(&(user, direction))
    }

    /// A session waits until its account may read again.
    pub fn wait(
        &mut self,
        user: UserId,
        direction: Direction,
        key: Key,
        shaper: &mut Shaper,
        now: Instant,
    ) {
        let queue = self.queues.entry((user, direction)).or_default();
        if queue.is_empty() {
            self.due.insert((shaper.due(direction, now), (user, direction)));
        }
        queue.push_back(key);
    }

    /// When somebody has to be woken.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Those who may read again. `shaper`: that of an account, if it has a rate. `is_open`: whether a session is still
    /// there; others are forgotten.
    pub fn take_due<'a>(
        &mut self,
        now: Instant,
        shaper: impl Fn(UserId) -> Option<RefMut<'a, Shaper>>,
        is_open: impl Fn(Key) -> bool,
    ) -> Vec<Grant> {
        let mut grants = Vec::new();
        while let Some((due, lane)) = self.due.first().copied()
            && due <= now
        {
            self.due.pop_first();
            let (user, direction) = lane;
            let Some(mut shaper) = shaper(user) else {
                self.release_lane(lane, &mut grants);
                continue;
            };
            let Some(queue) = self.queues.get_mut(&lane) else { continue };
            let available = shaper.available(direction, now);
            let waiting = queue.len() as u64;
            let woken = (available / LEAST_GRANT).clamp(1, waiting.max(1)).min(waiting);
            let bytes = available.checked_div(woken).unwrap_or(0);
            let bytes = bytes.clamp(LEAST_GRANT, LARGEST_GRANT);
            let mut left = woken;
            while left > 0
                && let Some(key) = queue.pop_front()
            {
                // The place of a session that has ended goes to the next one.
                if is_open(key) {
                    grants.push(Grant { key, direction, bytes: Some(bytes) });
                    // Nobody else may take it meanwhile.
                    shaper.charge(direction, bytes, now);
                    left -= 1;
                }
            }
            if queue.is_empty() {
                self.queues.remove(&lane);
            } else {
                self.due.insert((shaper.due(direction, now), lane));
            }
        }
        grants
    }

    /// The rate of an account is another one, or it has none any more: all who wait have to ask again.
    pub fn release(&mut self, user: UserId) -> Vec<Grant> {
        let mut grants = Vec::new();
        for direction in [Direction::Up, Direction::Down] {
            let lane = (user, direction);
            if self.queues.contains_key(&lane) {
                self.due.retain(|(_, other)| *other != lane);
                self.release_lane(lane, &mut grants);
            }
        }
        grants
    }

    fn release_lane(&mut self, lane: Lane, grants: &mut Vec<Grant>) {
        let queue = self.queues.remove(&lane).unwrap_or_default();
        let direction = lane.1;
        grants.extend(queue.into_iter().map(|key| Grant { key, direction, bytes: None }));
    }
}

#[cfg(test)]
mod tests;
