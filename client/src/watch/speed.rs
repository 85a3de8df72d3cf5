//! How fast a connection is: since the last look, and about how fast over the last few seconds, so that those
//! that deliver in bursts keep their place in an order.

use std::time::Duration;

use super::news::Bytes;

/// What is older than this counts for less than half.
const HALF_WEIGHT_AGE: Duration = Duration::from_secs(2);

/// The speed of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speed {
    /// Octets per second since the look before.
    pub rate: Bytes,
    /// Thousandths of octets per second over a few seconds.
    smooth: u64,
}

impl Speed {
    /// The speed after it has moved so much in so long.
    #[must_use]
    pub fn after(self, moved: Bytes, period: Duration) -> Self {
        let (memory, new) = (HALF_WEIGHT_AGE.as_millis(), period.as_millis());
        let rate = moved.per_second(period);
        let now = u128::from(rate.total()).saturating_mul(1000);
        // The longer the period, the less counts what was before.
        let sum =
            u128::from(self.smooth).saturating_mul(memory).saturating_add(now.saturating_mul(new));
        let smooth = sum.checked_div(memory.saturating_add(new)).unwrap_or(0);
        Speed { rate, smooth: u64::try_from(smooth).unwrap_or(u64::MAX) }
    }

    /// What an order goes by.
    pub fn smooth(self) -> u64 {
        self.smooth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn up(up: u64) -> Bytes {
        Bytes { up, down: 0 }
    }

    #[test]
    fn bursts_and_a_steady_stream_of_the_same_size_are_nearly_as_fast() {
        let (mut steady, mut bursts) = (Speed::default(), Speed::default());
        for second in 0..20_u64 {
            steady = steady.after(up(1000), SECOND);
            bursts = bursts.after(up((second % 2) * 2000), SECOND);
            if second > 10 {
                let share = bursts.smooth() * 100 / steady.smooth();
                assert!((75..130).contains(&share), "{share}");
            }
        }
        assert_eq!(bursts.rate, up(2000));
    }

    #[test]
    fn what_has_become_slow_is_soon_so() {
        let mut speed = Speed::default().after(up(1 << 30), SECOND * 60);
        for _ in 0..10 {
            speed = speed.after(up(0), SECOND);
        }
        assert!(speed.smooth() / 1000 < (1 << 30) / 50, "{speed:?}");
        for _ in 0..100 {
            speed = speed.after(up(0), SECOND);
        }
        assert_eq!(speed, Speed::default());
    }

    #[test]
    fn no_time_and_no_number_are_too_much() {
        assert_eq!(Speed::default().after(up(5), Duration::ZERO), Speed::default());
        let much = Bytes { up: u64::MAX, down: u64::MAX };
        assert_eq!(Speed::default().after(much, Duration::MAX).rate.up, 0);
        assert_eq!(Speed::default().after(much, SECOND * 1000).after(much, SECOND).rate, much);
    }
}
