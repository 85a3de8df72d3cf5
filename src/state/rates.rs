//! Tunnels that wait because of the rate of their account.
//!
//! A tunnel that may read nothing waits in the queue of its account, and there is one alarm for all accounts: the first
//! that has something to give. It is shared between as many of those that have waited longest as there are pieces of
//! [`LEAST_GRANT`]; each tunnel is queued once at most, and goes to the end for its next piece. One that ends, or need not
//! wait any more, gives its place back, so that no queue is longer than the tunnels that there are.

use std::cell::RefMut;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use super::Direction;
use super::shaper::{LEAST_GRANT, Shaper};
use super::users::UserId;
use crate::reactor::slab::Key;

/// The most that a tunnel is given at once, in bytes: the budget of a turn.
const LARGEST_GRANT: u64 = 256 * 1024;

/// Names a queue: that of one direction of an account.
type QueueId = (UserId, Direction);

/// A place in a queue: those that were given out later are behind it. No two are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

/// The tunnels that wait.
#[derive(Debug, Default)]
pub struct Rates {
    /// The queues in which there is somebody.
    queues: HashMap<QueueId, Queue>,
    /// When each of them has something to give.
    due: BTreeSet<(Instant, QueueId)>,
    /// Places that have been given out.
    places: u64,
}

/// The tunnels that wait in one direction of an account.
#[derive(Debug)]
struct Queue {
    /// The longest first.
    waiting: BTreeMap<Place, Key>,
    /// When it has something to give, as in [`Rates::due`].
    due: Instant,
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

    /// A session waits until its account may read again. Returns its place, which it has to give back by
    /// [`Rates::leave`] if it ends before there is a grant.
    pub fn wait(
        &mut self,
        user: UserId,
        direction: Direction,
        key: Key,
        shaper: &mut Shaper,
        now: Instant,
    ) -> Place {
        let place = Place(self.places);
        self.places = self.places.wrapping_add(1);
        let (id, due) = ((user, direction), &mut self.due);
        let queue = self.queues.entry(id).or_insert_with(|| {
            let first = shaper.due(direction, now);
            due.insert((first, id));
            Queue { waiting: BTreeMap::new(), due: first }
        });
        queue.waiting.insert(place, key);
        place
    }

    /// A session gives its place back. Nothing happens if it has not got it any more.
    pub fn leave(&mut self, user: UserId, direction: Direction, place: Place) {
        let id = (user, direction);
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.waiting.remove(&place);
            if queue.waiting.is_empty() {
                self.take_queue(id);
            }
        }
    }

    /// What was charged has been given back: those who wait may have something sooner.
    pub fn refunded(
        &mut self,
        user: UserId,
        direction: Direction,
        shaper: &mut Shaper,
        now: Instant,
    ) {
        let id = (user, direction);
        if let Some(queue) = self.queues.get_mut(&id) {
            let due = shaper.due(direction, now);
            if due < queue.due {
                self.due.remove(&(queue.due, id));
                self.due.insert((due, id));
                queue.due = due;
            }
        }
    }

    /// How many stand in the queues.
    pub fn waiting(&self) -> usize {
        self.queues.values().map(|queue| queue.waiting.len()).sum()
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
        while let Some((due, id)) = self.due.first().copied()
            && due <= now
        {
            let (user, direction) = id;
            let (Some(mut shaper), Some(queue)) = (shaper(user), self.queues.get_mut(&id)) else {
                self.due.pop_first();
                self.release_queue(id, &mut grants);
                continue;
            };
            // More may have been read than was allowed since then.
            let due = shaper.due(direction, now);
            if due > now {
                self.due.pop_first();
                self.due.insert((due, id));
                queue.due = due;
                continue;
            }
            let available = shaper.available(direction, now);
            let waiting = queue.waiting.len() as u64;
            let woken = (available / LEAST_GRANT).clamp(1, waiting.max(1)).min(waiting);
            let bytes = available.checked_div(woken).unwrap_or(0);
            let bytes = bytes.clamp(LEAST_GRANT, LARGEST_GRANT);
            let mut left = woken;
            while left > 0
                && let Some((_, key)) = queue.waiting.pop_first()
            {
                // The place of a session that has ended goes to the next one.
                if is_open(key) {
                    grants.push(Grant { key, direction, bytes: Some(bytes) });
                    // Nobody else may take it meanwhile.
                    shaper.charge(direction, bytes, now);
                    left -= 1;
                }
            }
            self.due.pop_first();
            if queue.waiting.is_empty() {
                self.queues.remove(&id);
            } else {
                queue.due = shaper.due(direction, now);
                self.due.insert((queue.due, id));
            }
        }
        grants
    }

    /// The rate of an account is another one, or it has none any more: all who wait have to ask again.
    pub fn release(&mut self, user: UserId) -> Vec<Grant> {
        let mut grants = Vec::new();
        for direction in [Direction::Up, Direction::Down] {
            self.release_queue((user, direction), &mut grants);
        }
        grants
    }

    fn release_queue(&mut self, id: QueueId, grants: &mut Vec<Grant>) {
        if let Some(queue) = self.take_queue(id) {
            let keys = queue.waiting.into_values();
            grants.extend(keys.map(|key| Grant { key, direction: id.1, bytes: None }));
        }
    }

    /// Takes a queue out, if there is one.
    fn take_queue(&mut self, id: QueueId) -> Option<Queue> {
        let queue = self.queues.remove(&id)?;
        self.due.remove(&(queue.due, id));
        Some(queue)
    }
}

#[cfg(test)]
mod tests;
