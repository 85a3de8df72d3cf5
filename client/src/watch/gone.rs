//! Connections that are not listed any more. Looks and events come over two sessions and so in any order:
//! what a connection had delivered is remembered for a while, so that nothing is counted twice. Bounded.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::news::Bytes;

/// How far one session may be behind the other.
const TOMBSTONE_LIFE: Duration = Duration::from_secs(5);
/// How many are remembered.
const MAX_TOMBSTONES: usize = 65_536;

/// Those that went lately.
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
    /// Remembers a connection: what of it has been counted, and whether its end has been told of.
    pub fn remember(&mut self, id: String, bytes: Bytes, closed: bool, now: Instant) {
        self.forget(now);
        self.order.push_back((now, id.clone()));
        self.known.insert(id, Tombstone { at: now, bytes, closed });
    }

    /// What has been counted of this one.
    pub fn counted(&self, id: &str) -> Option<Bytes> {
        self.known.get(id).map(|stone| stone.bytes)
    }

    /// Whether its end has been told of.
    pub fn has_closed(&self, id: &str) -> bool {
        self.known.get(id).is_some_and(|stone| stone.closed)
    }

    /// Forgets what is old, and the oldest when there are too many.
    fn forget(&mut self, now: Instant) {
        while let Some((at, id)) = self.order.front() {
            let old = now.saturating_duration_since(*at) > TOMBSTONE_LIFE
                || self.order.len() >= MAX_TOMBSTONES;
            if !old {
                return;
            }
            // It may have been remembered anew since.
            if self.known.get(id).is_some_and(|stone| stone.at == *at) {
                self.known.remove(id);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_for_a_while() {
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
    fn it_does_not_remember_any_number() {
        let now = Instant::now();
        let mut gone = Tombstones::default();
        for index in 0..MAX_TOMBSTONES + 10 {
            gone.remember(index.to_string(), Bytes::default(), true, now);
        }
        assert!(gone.known.len() <= MAX_TOMBSTONES && gone.order.len() <= MAX_TOMBSTONES);
        assert!(!gone.has_closed("0") && gone.has_closed(&(MAX_TOMBSTONES + 9).to_string()));
    }
}
