//! The past, in bounded memory: samples for the charts, and tombstones of connections that are not listed any
//! more.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::news::Bytes;

/// Samples that are kept: more than a screen has columns.
const MAX_SAMPLES: usize = 1024;

/// The figures of the time between two snapshots.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The time of the first snapshot.
    pub since: Instant,
    /// The time of the second.
    pub until: Instant,
    pub figures: Figures,
}

/// The figures of the charts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Octets per second to destinations.
    pub up: u64,
    /// Octets per second to clients.
    pub down: u64,
    /// Connections open at the second snapshot.
    pub connections: u64,
}

/// The newest samples, and the peaks since the start of the watch.
#[derive(Clone, Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    peak: Figures,
}

impl History {
    /// Adds the newest sample.
    pub fn push(&mut self, sample: Sample) {
        if self.samples.len() >= MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        self.raise_peak(sample.figures);
    }

    /// Raises the peaks to these figures, which are no sample: the first snapshot has none before it.
    pub fn raise_peak(&mut self, Figures { up, down, connections }: Figures) {
        self.peak = Figures {
            up: self.peak.up.max(up),
            down: self.peak.down.max(down),
            connections: self.peak.connections.max(connections),
        };
    }

    /// The newest figures.
    pub fn current(&self) -> Option<Figures> {
        self.samples.back().map(|sample| sample.figures)
    }

    /// The highest figures since the start of the watch, older than the samples perhaps.
    pub fn peak(&self) -> Figures {
        self.peak
    }

    /// The figure that `pick` selects, in `count` columns of one `interval` each, the newest last. Snapshots
    /// may be late or early: a column shows the sample in which its middle lies.
    pub fn columns(
        &self,
        interval: Duration,
        count: usize,
        pick: fn(&Figures) -> u64,
    ) -> Vec<Option<u64>> {
        let Some(newest) = self.samples.back() else { return vec![None; count] };
        let mut samples = self.samples.iter().rev().peekable();
        let mut middle = interval / 2;
        let mut columns = Vec::with_capacity(count);
        for _ in 0..count {
            let age = |sample: &Sample| newest.until.saturating_duration_since(sample.since);
            while samples.next_if(|sample| age(sample) < middle).is_some() {}
            columns.push(samples.peek().map(|sample| pick(&sample.figures)));
            middle = middle.saturating_add(interval);
        }
        columns.reverse();
        columns
    }
}

/// How far one session may be behind the other: tombstones are kept for this long.
const TOMBSTONE_LIFE: Duration = Duration::from_secs(5);
/// Tombstones that are kept.
const MAX_TOMBSTONES: usize = 65_536;

/// Connections that have gone from the list. Snapshots and events come over two sessions, in any order: the
/// bytes that were counted of a connection are kept for a while, so that nothing is counted twice.
#[derive(Clone, Debug, Default)]
pub struct Tombstones {
    known: HashMap<String, Tombstone>,
    order: VecDeque<(Instant, String)>,
}

#[derive(Clone, Copy, Debug)]
struct Tombstone {
    at: Instant,
    bytes: Bytes,
    closed: bool,
}

impl Tombstones {
    /// Adds a connection: the bytes that were counted of it, and whether its close event has come.
    pub fn remember(&mut self, id: String, bytes: Bytes, closed: bool, now: Instant) {
        self.forget(now);
        self.order.push_back((now, id.clone()));
        self.known.insert(id, Tombstone { at: now, bytes, closed });
    }

    /// The bytes that were counted of a connection.
    pub fn counted(&self, id: &str) -> Option<Bytes> {
        self.known.get(id).map(|tombstone| tombstone.bytes)
    }

    /// Whether the close event of a connection has come.
    pub fn has_closed(&self, id: &str) -> bool {
        self.known.get(id).is_some_and(|tombstone| tombstone.closed)
    }

    /// Removes tombstones that are too old, and the oldest if there are too many.
    fn forget(&mut self, now: Instant) {
        while let Some((at, id)) = self.order.front() {
            let old = now.saturating_duration_since(*at) > TOMBSTONE_LIFE
                || self.order.len() >= MAX_TOMBSTONES;
            if !old {
                return;
            }
            // A newer tombstone of the connection stays.
            if self.known.get(id).is_some_and(|tombstone| tombstone.at == *at) {
                self.known.remove(id);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A history of samples, written as milliseconds and octets up per second.
    fn history(samples: &[(u64, u64)]) -> History {
        let mut history = History::default();
        let mut since = Instant::now();
        for &(millis, up) in samples {
            let until = since + Duration::from_millis(millis);
            let figures = Figures { up, down: up / 2, connections: up % 10 };
            history.push(Sample { since, until, figures });
            since = until;
        }
        history
    }

    #[test]
    fn one_column_for_each_interval() {
        let history = history(&[(1000, 5), (1003, 6), (998, 7)]);
        let columns = history.columns(SECOND, 5, |figures| figures.up);
        assert_eq!(columns, [None, None, Some(5), Some(6), Some(7)]);
        assert_eq!(history.columns(SECOND, 2, |figures| figures.down), [Some(3), Some(3)]);
        assert_eq!(history.columns(SECOND, 0, |figures| figures.up), []);
        assert_eq!(History::default().columns(SECOND, 2, |figures| figures.up), [None, None]);
    }

    #[test]
    fn a_late_snapshot_is_a_wide_bar_and_an_early_one_no_column() {
        let history = history(&[(1000, 5), (3000, 6), (100, 7), (1000, 8)]);
        let columns = history.columns(SECOND, 5, |figures| figures.up);
        assert_eq!(columns, [Some(5), Some(6), Some(6), Some(6), Some(8)]);
    }

    #[test]
    fn the_peak_outlives_the_samples() {
        let samples: Vec<_> =
            (0..2000).map(|index| (10, if index == 3 { 99 } else { 1 })).collect();
        let history = history(&samples);
        assert_eq!(history.samples.len(), MAX_SAMPLES);
        assert_eq!(history.peak(), Figures { up: 99, down: 49, connections: 9 });
        assert_eq!(history.current(), Some(Figures { up: 1, down: 0, connections: 1 }));
    }

    #[test]
    fn tombstones_are_kept_for_a_while() {
        let start = Instant::now();
        let bytes = Bytes { up: 1, down: 2 };
        let mut gone = Tombstones::default();
        gone.remember("1.1".into(), bytes, false, start);
        gone.remember("1.1".into(), bytes, true, start + TOMBSTONE_LIFE);
        gone.remember("2.1".into(), bytes, false, start + TOMBSTONE_LIFE * 2);
        assert_eq!((gone.counted("1.1"), gone.has_closed("1.1")), (Some(bytes), true));
        assert_eq!((gone.counted("2.1"), gone.has_closed("2.1")), (Some(bytes), false));
        gone.remember("3.1".into(), bytes, true, start + TOMBSTONE_LIFE * 3);
        assert_eq!((gone.counted("1.1"), gone.has_closed("1.1")), (None, false));
    }

    #[test]
    fn tombstones_are_bounded() {
        let now = Instant::now();
        let mut gone = Tombstones::default();
        for index in 0..MAX_TOMBSTONES + 10 {
            gone.remember(index.to_string(), Bytes::default(), true, now);
        }
        assert!(gone.known.len() <= MAX_TOMBSTONES && gone.order.len() <= MAX_TOMBSTONES);
        assert!(!gone.has_closed("0") && gone.has_closed(&(MAX_TOMBSTONES + 9).to_string()));
    }
}
