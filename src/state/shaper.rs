//! The rate of an account, and what has been read under it.
//!
//! Each direction has a meter: the time up to which what was read is paid for. It runs ahead of the clock while more is
//! read than the rate allows, and lies behind it by a burst at most. So nothing is counted in pieces of time, and what was
//! read too much is waited for afterwards: in the long run the rate is exact.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::Direction;

/// The least that a tunnel is given at once, in bytes: two segments of Ethernet.
pub const LEAST_GRANT: u64 = 2896;
/// What an account that has been silent may read at once: this many bytes, or those of [`BURST_TIME`].
const BURST_BYTES: u64 = 64 * 1024;
/// Twice the time that a busy loop may be late.
const BURST_TIME: Duration = Duration::from_millis(64);
/// The most bytes that can have been read and not paid for: more than a turn reads beyond what was allowed.
const MOST_DEBT: u64 = 256 * 1024;
/// Bytes beyond which it need not be known to the byte how many may be read: twice what a turn reads.
const PLENTY: u64 = 512 * 1024;
/// How long that is not computed anew then: an eighth of the burst at most.
const COMPUTED_FOR: Duration = Duration::from_millis(8);
/// How long those who wait are left waiting, so that fast accounts do not have an alarm for each segment.
const PAUSE: Duration = Duration::from_millis(4);

/// What one direction of an account has read, under a rate.
///
/// Where much more may be read than a turn reads, a while passes until that is computed anew, and what is read meanwhile
/// is counted and paid for later.
#[derive(Clone, Copy, Debug, Default)]
struct Meter {
    /// Up to when it is paid for. `None`: nothing was read yet.
    paid: Option<Instant>,
    /// Bytes that may be read without asking for the time, until then.
    spare: u64,
    until: Option<Instant>,
    /// Bytes that have been read so.
    unpaid: u64,
}

impl Meter {
    /// Bytes that may be read now.
    #[inline]
    fn available(&mut self, rate: NonZeroU64, burst: Duration, now: Instant) -> u64 {
        if self.spare >= PLENTY && self.until.is_some_and(|until| now < until) {
            return self.spare;
        }
        self.compute(rate, burst, now)
    }

    fn compute(&mut self, rate: NonZeroU64, burst: Duration, now: Instant) -> u64 {
        self.pay(rate);
        let ahead = self.paid.map_or(burst, |paid| now.saturating_duration_since(paid));
        let available = bytes_in(ahead.min(burst), rate);
        if available >= PLENTY {
            let begin = now.checked_sub(burst).unwrap_or(now);
            self.paid = Some(self.paid.map_or(begin, |paid| paid.max(begin)));
            (self.spare, self.until) = (available, now.checked_add(COMPUTED_FOR));
        }
        available
    }

    /// Pays for what was read without asking for the time.
    fn pay(&mut self, rate: NonZeroU64) {
        let unpaid = std::mem::take(&mut self.unpaid);
        (self.spare, self.until) = (0, None);
        if unpaid > 0 {
            self.paid = self.paid.and_then(|paid| paid.checked_add(time_for(unpaid, rate)));
        }
    }

    /// Bytes have been read.
    #[inline]
    fn charge(&mut self, bytes: u64, rate: NonZeroU64, burst: Duration, now: Instant) {
        match self.spare.checked_sub(bytes) {
            Some(spare) => (self.spare, self.unpaid) = (spare, self.unpaid.saturating_add(bytes)),
            None => self.charge_now(bytes, rate, burst, now),
        }
    }

    fn charge_now(&mut self, bytes: u64, rate: NonZeroU64, burst: Duration, now: Instant) {
        self.pay(rate);
        let begin = now.checked_sub(burst).unwrap_or(now);
        let paid = self.paid.map_or(begin, |paid| paid.max(begin));
        let most = now.checked_add(time_for(MOST_DEBT, rate));
        self.paid = paid.checked_add(time_for(bytes, rate)).min(most);
    }

    /// The rate was `before` until now. What has been read and not paid for takes as long as it does at the new rate,
    /// and never longer than before.
    fn convert(&mut self, before: NonZeroU64, rate: NonZeroU64, now: Instant) {
        self.pay(before);
        if let Some(paid) = self.paid {
            let debt = paid.saturating_duration_since(now);
            let converted = time_for(bytes_in(debt, before), rate).min(debt);
            self.paid = paid.checked_sub(debt.saturating_sub(converted));
        }
    }

    /// Bytes that were paid for have not been read.
    fn refund(&mut self, bytes: u64, rate: NonZeroU64) {
        self.pay(rate);
        self.paid = self.paid.and_then(|paid| paid.checked_sub(time_for(bytes, rate)));
    }

    /// When so many bytes may be read.
    fn due(&mut self, bytes: u64, rate: NonZeroU64, now: Instant) -> Instant {
        self.pay(rate);
        let due = self.paid.and_then(|paid| paid.checked_add(time_for(bytes, rate)));
        due.map_or(now, |due| due.max(now))
    }
}

const SECOND: u64 = 1_000_000_000;

/// How long so many bytes take. What a turn moves fits into 64 bits, which is quicker.
fn time_for(bytes: u64, rate: NonZeroU64) -> Duration {
    let nanos = match bytes.checked_mul(SECOND) {
        Some(product) => product / rate,
        None => {
            let nanos = u128::from(bytes) * u128::from(SECOND) / u128::from(rate.get());
            u64::try_from(nanos).unwrap_or(u64::MAX)
        }
    };
    Duration::from_nanos(nanos)
}

/// How many bytes a time has.
fn bytes_in(time: Duration, rate: NonZeroU64) -> u64 {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    match nanos.checked_mul(rate.get()) {
        Some(product) => product / SECOND,
        None => {
            let bytes = u128::from(nanos) * u128::from(rate.get()) / u128::from(SECOND);
            u64::try_from(bytes).unwrap_or(u64::MAX)
        }
    }
}

/// What an account may read at once, as time.
pub fn burst(rate: NonZeroU64) -> Duration {
    time_for(BURST_BYTES, rate).max(BURST_TIME)
}

/// What has to be there before those who wait are woken: less is not worth a turn.
pub fn worth_waking(rate: NonZeroU64) -> u64 {
    bytes_in(PAUSE, rate).max(LEAST_GRANT)
}

/// Both directions of an account under a rate.
#[derive(Clone, Copy, Debug)]
pub struct Shaper {
    /// Bytes in a second.
    rate: NonZeroU64,
    /// The rate under which was read what is not paid for, if it is another one.
    before: Option<NonZeroU64>,
    burst: Duration,
    up: Meter,
    down: Meter,
}

impl Shaper {
    /// Nothing has been read yet.
    pub fn new(rate: NonZeroU64) -> Self {
        let (up, down) = (Meter::default(), Meter::default());
        Shaper { rate, before: None, burst: burst(rate), up, down }
    }

    /// Bytes in a second.
    pub fn rate(&self) -> NonZeroU64 {
        self.rate
    }

    /// Another rate. What has been read and not paid for takes no longer than before, and less at a higher rate.
    pub fn set_rate(&mut self, rate: NonZeroU64) {
        self.before.get_or_insert(self.rate);
        (self.rate, self.burst) = (rate, burst(rate));
    }

    /// Has a new rate hold for what is not paid for.
    fn settle(&mut self, now: Instant) {
        if let Some(before) = self.before.take() {
            self.up.convert(before, self.rate, now);
            self.down.convert(before, self.rate, now);
        }
    }

    /// Bytes that may be read now in this direction.
    pub fn available(&mut self, direction: Direction, now: Instant) -> u64 {
        self.settle(now);
        let (rate, burst) = (self.rate, self.burst);
        self.meter(direction).available(rate, burst, now)
    }

    /// Bytes have been read in this direction.
    pub fn charge(&mut self, direction: Direction, bytes: u64, now: Instant) {
        self.settle(now);
        let (rate, burst) = (self.rate, self.burst);
        self.meter(direction).charge(bytes, rate, burst, now);
    }

    /// Bytes that were charged have not been read.
    pub fn refund(&mut self, direction: Direction, bytes: u64, now: Instant) {
        self.settle(now);
        let rate = self.rate;
        self.meter(direction).refund(bytes, rate);
    }

    fn meter(&mut self, direction: Direction) -> &mut Meter {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    /// When those who wait are to be woken.
    pub fn due(&mut self, direction: Direction, now: Instant) -> Instant {
        self.settle(now);
        let rate = self.rate;
        self.meter(direction).due(worth_waking(rate), rate, now)
    }
}

#[cfg(test)]
mod tests;
