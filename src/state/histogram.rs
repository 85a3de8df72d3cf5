//! A histogram of durations.

use std::time::Duration;

/// Buckets. Their upper bounds double from 1 µs to about 8 s; longer durations count in the last one.
const BUCKETS: usize = 24;

/// Durations, counted by their magnitude. Recording takes a few instructions and no memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    sum: Duration,
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
        self.sum = self.sum.saturating_add(duration);
    }

    /// The sum of all durations.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The number of all durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The number of durations of `bound` at most. A bound between those of two buckets counts as the lower one.
    pub fn within(&self, bound: Duration) -> u64 {
        self.counts().filter(|(upper, _)| *upper <= bound).map(|(_, count)| count).sum()
    }

    /// The upper bounds with their counts, shortest first.
    pub fn counts(&self) -> impl Iterator<Item = (Duration, u64)> {
        let bounds = (0..).map(|bucket| Duration::from_micros(1 << bucket));
        bounds.zip(self.buckets)
    }

    /// The bound below which `share` (0 to 1) of all durations lie; `None` without durations.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = (share.clamp(0.0, 1.0) * self.count() as f64).ceil() as u64;
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
    fn durations_have_a_sum_and_are_counted_up_to_a_bound() {
        let (mut histogram, ms) = (Histogram::default(), Duration::from_millis);
        [1, 3, 1000].into_iter().for_each(|time| histogram.record(ms(time)));
        assert_eq!((histogram.sum(), histogram.count()), (ms(1004), 3));
        let within = |micros| histogram.within(Duration::from_micros(micros));
        assert_eq!((within(1 << 9), within(1 << 10), within(1 << 12), within(4097)), (0, 1, 2, 2));
        assert_eq!(histogram.within(Duration::MAX), 3);
        (0..2).for_each(|_| histogram.record(Duration::MAX));
        assert_eq!(histogram.sum(), Duration::MAX);
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
