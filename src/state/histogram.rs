//! A histogram of durations.

use std::time::Duration;

/// Buckets. Their upper bounds double from 1 µs to about 8 s; longer durations count in the last one.
const BUCKETS: usize = 24;

/// Durations, counted by their magnitude. Recording takes a few instructions and no memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
}

impl Histogram {
    /// Counts a duration.
    pub fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        // 0 and 1 µs belong to the first bucket, 2 µs to the second, 3 and 4 to the third.
        let bucket = (u64::BITS - micros.saturating_sub(1).leading_zeros()) as usize;
        if let Some(count) = self.buckets.get_mut(bucket.min(BUCKETS - 1)) {
            *count += 1;
        }
    }

    /// The upper bounds with their counts, shortest first.
    pub fn counts(&self) -> impl Iterator<Item = (Duration, u64)> {
        let bounds = (0..).map(|bucket| Duration::from_micros(1 << bucket));
        bounds.zip(self.buckets)
    }

    /// The bound below which `share` (0 to 1) of all durations lie; `None` without durations.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let all: u64 = self.buckets.iter().sum();
        let wanted = (share.clamp(0.0, 1.0) * all as f64).ceil() as u64;
        let mut seen = 0;
        self.counts().find_map(|(bound, count)| {
            seen += count;
            (count > 0 && seen >= wanted).then_some(bound)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_below_their_bound() {
        for (micros, bound) in [(0, 1), (1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (1000, 1024)] {
            let mut histogram = Histogram::default();
            histogram.record(Duration::from_micros(micros));
            assert_eq!(histogram.quantile(0.5), Some(Duration::from_micros(bound)), "{micros}");
        }
        let mut histogram = Histogram::default();
        histogram.record(Duration::MAX);
        assert_eq!(histogram.quantile(1.0), Some(Duration::from_micros(1 << 23)));
    }

    #[test]
    fn quantiles() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        (0..99).for_each(|_| histogram.record(Duration::from_micros(10)));
        histogram.record(Duration::from_millis(10));
        assert_eq!(histogram.quantile(0.0), Some(Duration::from_micros(16)));
        assert_eq!(histogram.quantile(0.99), Some(Duration::from_micros(16)));
        assert_eq!(histogram.quantile(0.999), Some(Duration::from_micros(16384)));
    }
}
