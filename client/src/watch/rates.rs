//! Rates: the fastest users and destinations, and the speed of a connection.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use super::limits::UserLimits;
use super::news::Bytes;

/// Names of closed connections that are counted between two snapshots. The bytes of further names are in the
/// charts alone.
const MAX_CLOSED_NAMES: usize = 4096;

/// A user or a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopEntry {
    /// The account, or host and port.
    pub name: String,
    /// Open connections.
    pub connections: u64,
    /// Octets per second since the last snapshot.
    pub rate: Bytes,
    /// The payload of its connections since they were opened, in octets.
    pub total: u64,
    /// The limits of a user, if there are any.
    pub limits: Option<UserLimits>,
}

/// Sums by name, of the time between two snapshots.
#[derive(Clone, Debug, Default)]
pub struct TopList(HashMap<String, Sums>);

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    connections: u64,
    moved: Bytes,
    total: u64,
}

impl TopList {
    /// Adds a connection that has closed: the bytes since the last snapshot.
    pub fn add_closed(&mut self, name: &str, moved: Bytes) {
        if self.0.len() < MAX_CLOSED_NAMES || self.0.contains_key(name) {
            self.add(name, 0, moved, moved.total());
        }
    }

    /// Adds an open connection: the bytes since the last snapshot, and all octets since it was opened.
    pub fn add_open(&mut self, name: &str, moved: Bytes, total: u64) {
        self.add(name, 1, moved, total);
    }

    fn add(&mut self, name: &str, connections: u64, moved: Bytes, total: u64) {
        if name == "-" {
            return; // The login or the request is still to come.
        }
        let sums = match self.0.get_mut(name) {
            Some(sums) => sums,
            None => self.0.entry(name.to_owned()).or_default(),
        };
        sums.connections = sums.connections.saturating_add(connections);
        sums.moved = sums.moved.plus(moved);
        sums.total = sums.total.saturating_add(total);
    }

    /// The `most` fastest names, by rate, then by bytes. `period` is the time between the two snapshots.
    pub fn ranking(self, period: Duration, most: usize) -> Vec<TopEntry> {
        let mut entries: Vec<TopEntry> = self
            .0
            .into_iter()
            .map(|(name, Sums { connections, moved, total })| TopEntry {
                name,
                connections,
                rate: moved.per_second(period),
                total,
                limits: None,
            })
            .collect();
        entries.sort_unstable_by(|a, b| {
            let key = |entry: &TopEntry| Reverse((entry.rate.total(), entry.total));
            key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
        });
        entries.truncate(most);
        entries
    }
}

/// The age at which a rate weighs less than half.
const HALF_WEIGHT_AGE: Duration = Duration::from_secs(2);

/// The rate of a connection: since the last snapshot, and smoothed over a few seconds, so that connections that
/// deliver in bursts keep their place in the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speed {
    /// Octets per second since the last snapshot.
    pub rate: Bytes,
    /// The smoothed rate, in thousandths of octets per second.
    smooth: u64,
}

impl Speed {
    /// The speed after `moved` bytes within `period`.
    #[must_use]
    pub fn after(self, moved: Bytes, period: Duration) -> Self {
        let (memory, new) = (HALF_WEIGHT_AGE.as_millis(), period.as_millis());
        let rate = moved.per_second(period);
        let now = u128::from(rate.total()).saturating_mul(1000);
        // The longer the period, the less weight the past has.
        let sum =
            u128::from(self.smooth).saturating_mul(memory).saturating_add(now.saturating_mul(new));
        let smooth = sum.checked_div(memory.saturating_add(new)).unwrap_or(0);
        Speed { rate, smooth: u64::try_from(smooth).unwrap_or(u64::MAX) }
    }

    /// The smoothed rate, by which connections are sorted.
    pub fn smooth(self) -> u64 {
        self.smooth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(up: u64) -> Bytes {
        Bytes { up, down: 0 }
    }

    #[test]
    fn the_fastest_come_first_then_those_that_moved_most() {
        let mut list = TopList::default();
        list.add_open("amy", up(10), 10);
        list.add_open("amy", up(10), 500);
        list.add_closed("bob", up(50));
        list.add_open("carl", up(0), 1000);
        list.add_open("dora", up(0), 2000);
        list.add_open("-", up(99), 99);
        let ranking = list.ranking(Duration::from_secs(2), 10);
        let shown =
            |entry: &TopEntry| (entry.name.clone(), entry.connections, entry.rate.up, entry.total);
        assert_eq!(
            ranking.iter().map(shown).collect::<Vec<_>>(),
            [
                ("bob".to_owned(), 0, 25, 50),
                ("amy".to_owned(), 2, 10, 510),
                ("dora".to_owned(), 1, 0, 2000),
                ("carl".to_owned(), 1, 0, 1000),
            ]
        );
    }

    #[test]
    fn names_of_closed_connections_are_bounded() {
        let mut list = TopList::default();
        for index in 0..MAX_CLOSED_NAMES + 5 {
            list.add_closed(&index.to_string(), up(1));
        }
        assert_eq!(list.0.len(), MAX_CLOSED_NAMES);
        list.add_closed("0", up(9));
        list.add_open("new", up(50), 50);
        let first = list.ranking(Duration::from_secs(1), 2);
        assert_eq!((first[0].name.as_str(), first[1].rate.up), ("new", 10));
    }

    const SECOND: Duration = Duration::from_secs(1);

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
