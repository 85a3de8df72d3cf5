//! Rates of accounts: who may read how much, and who waits until it may.
//!
//! Each direction of an account has a [`Meter`]: the time up to which what was read is paid for. It runs ahead of the
//! clock while more is read than the rate allows, and lies behind it by a burst at most. So nothing is counted in pieces
//! of time, and what was read too much is waited for afterwards: in the long run the rate is exact.
//!
//! A tunnel that may read nothing waits in the queue of its account, and there is one alarm for all accounts: the first
//! that has something to give. It is shared between as many of those that have waited longest as there are pieces of
//! [`LEAST_GRANT`]; each tunnel is queued once at most, and goes to the end for its next piece.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::Direction;
use super::users::{UserId, Users};
use crate::reactor::slab::Key;

/// The least that a tunnel is given at once, in bytes: two segments of Ethernet.
pub const LEAST_GRANT: u64 = 2896;
/// The most that a tunnel is given at once, in bytes: the budget of a turn.
pub const LARGEST_GRANT: u64 = 256 * 1024;
/// What an account that has been silent may read at once: this many bytes, or those of [`BURST_TIME`].
const BURST_BYTES: u64 = 64 * 1024;
/// Twice the time that a busy loop may be late.
const BURST_TIME: Duration = Duration::from_millis(64);
/// How long those who wait are left waiting, so that fast accounts do not have an alarm for each segment.
const PAUSE: Duration = Duration::from_millis(4);

/// What one direction of an account has read, under a rate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    /// Up to when it is paid for. `None`: nothing was read yet.
    paid: Option<Instant>,
}

impl Meter {
    /// Bytes that may be read now.
    pub fn available(&self, rate: NonZeroU64, now: Instant) -> u64 {
        let ahead = self.paid.map_or(burst(rate), |paid| now.saturating_duration_since(paid));
        let bytes = ahead.min(burst(rate)).as_nanos().saturating_mul(rate.get().into()) / SECOND;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Bytes have been read.
    pub fn charge(&mut self, bytes: u64, rate: NonZeroU64, now: Instant) {
        let begin = now.checked_sub(burst(rate)).unwrap_or(now);
        let paid = self.paid.map_or(begin, |paid| paid.max(begin));
        self.paid = paid.checked_add(time_for(bytes, rate));
    }

    /// Bytes that were paid for have not been read.
    fn refund(&mut self, bytes: u64, rate: NonZeroU64) {
        self.paid = self.paid.and_then(|paid| paid.checked_sub(time_for(bytes, rate)));
    }

    /// When so many bytes may be read.
    fn due(&self, bytes: u64, rate: NonZeroU64, now: Instant) -> Instant {
        let due = self.paid.and_then(|paid| paid.checked_add(time_for(bytes, rate)));
        due.map_or(now, |due| due.max(now))
    }
}

const SECOND: u128 = 1_000_000_000;

/// How long so many bytes take.
fn time_for(bytes: u64, rate: NonZeroU64) -> Duration {
    let nanos = u128::from(bytes).saturating_mul(SECOND) / u128::from(rate.get());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// What an account may read at once, as time.
fn burst(rate: NonZeroU64) -> Duration {
    time_for(BURST_BYTES, rate).max(BURST_TIME)
}

/// What has to be there before those who wait are woken: less is not worth a turn.
fn worth_waking(rate: NonZeroU64) -> u64 {
    let pause = PAUSE.as_nanos().saturating_mul(rate.get().into()) / SECOND;
    u64::try_from(pause).unwrap_or(u64::MAX).max(LEAST_GRANT)
}

/// Both directions of an account under a rate.
#[derive(Clone, Copy, Debug)]
pub struct Shaper {
    /// Bytes in a second.
    pub rate: NonZeroU64,
    up: Meter,
    down: Meter,
}

impl Shaper {
    /// Nothing has been read yet.
    pub fn new(rate: NonZeroU64) -> Self {
        Shaper { rate, up: Meter::default(), down: Meter::default() }
    }

    /// Bytes that may be read now in this direction.
    pub fn available(&self, direction: Direction, now: Instant) -> u64 {
        self.meter(direction).available(self.rate, now)
    }

    /// Bytes have been read in this direction.
    pub fn charge(&mut self, direction: Direction, bytes: u64, now: Instant) {
        let rate = self.rate;
        match direction {
            Direction::Up => self.up.charge(bytes, rate, now),
            Direction::Down => self.down.charge(bytes, rate, now),
        }
    }

    /// Bytes that were charged have not been read.
    pub fn refund(&mut self, direction: Direction, bytes: u64) {
        let rate = self.rate;
        match direction {
            Direction::Up => self.up.refund(bytes, rate),
            Direction::Down => self.down.refund(bytes, rate),
        }
    }

    fn meter(&self, direction: Direction) -> &Meter {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    /// When those who wait are to be woken.
    fn due(&self, direction: Direction, now: Instant) -> Instant {
        self.meter(direction).due(worth_waking(self.rate), self.rate, now)
    }
}

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
        shaper: &Shaper,
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

    /// Those who may read again. `is_open`: whether a session is still there; others are forgotten.
    pub fn take_due(
        &mut self,
        now: Instant,
        users: &Users,
        is_open: impl Fn(Key) -> bool,
    ) -> Vec<Grant> {
        let mut grants = Vec::new();
        while let Some((due, lane)) = self.due.first().copied()
            && due <= now
        {
            self.due.pop_first();
            let (user, direction) = lane;
            let usage = users.get(user).map(|account| &account.usage);
            let Some((usage, shaper)) = usage.and_then(|usage| Some((usage, usage.shaper()?)))
            else {
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
                    usage.charge(direction, bytes, now);
                    left -= 1;
                }
            }
            if queue.is_empty() {
                self.queues.remove(&lane);
            } else {
                let shaper = usage.shaper().unwrap_or(shaper);
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
