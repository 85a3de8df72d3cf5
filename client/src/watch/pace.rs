//! Regular intervals that do not drift.

use std::time::{Duration, Instant};

/// How long a session says nothing at most. The server closes those that are silent for too long: by default for
/// ten minutes, but it may be for one second.
pub const KEEPALIVE: Duration = Duration::from_millis(500);

/// When the next interval is over.
pub struct Pace {
    interval: Duration,
    due: Instant,
}

impl Pace {
    /// The first interval begins now.
    pub fn new(interval: Duration, now: Instant) -> Self {
        Pace { interval, due: now }
    }

    /// Begins the next interval where the one before ended, or now if that is over already.
    pub fn next(&mut self, now: Instant) {
        self.due = self.due.checked_add(self.interval).unwrap_or(now).max(now);
    }

    /// What is left of it; `None` if it is over.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        self.due.checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_do_not_drift_and_do_not_pile_up() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut pace = Pace::new(second, start);
        pace.next(start + second / 10);
        assert_eq!(pace.left(start + second / 10), Some(second * 9 / 10));
        assert_eq!((pace.left(start + second), pace.left(start + second * 2)), (None, None));
        pace.next(start + second * 11 / 10);
        assert_eq!(pace.left(start + second * 11 / 10), Some(second * 9 / 10));
        pace.next(start + second * 9);
        assert_eq!(pace.left(start + second * 9), None);
    }
}
