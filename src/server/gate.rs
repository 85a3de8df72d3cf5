//! Admission: who is let in, who has to wait, and who has to make room.
//!
//! A session that has not proved itself (no complete request, no login) may be displaced by a newcomer:
//! thousands of half-open connections cannot keep a legitimate one out. Sessions that have proved
//! themselves are never displaced. Pure accounting, no sockets.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::reactor::slab::Key;

/// When a service is full, an unproven session is safe for this long.
const RESPITE: Duration = Duration::from_secs(1);

/// Descriptors of the process itself: standard streams, poll, waker, signals, listeners, a waiting
/// connection for each of these, and a few that are opened for a moment.
pub const BASE_DESCRIPTORS: usize = 16;

/// The door of one service.
#[derive(Default)]
pub struct Gate {
    unproven: usize,
    /// Unproven sessions in order of arrival, among others that have proved themselves or ended since.
    arrivals: VecDeque<(Key, Instant)>,
    /// Sessions of each source, while there is a limit for them.
    sources: HashMap<IpAddr, usize>,
}

/// What a service allows at this moment.
#[derive(Clone, Copy)]
pub struct Allowance {
    /// Whether there is room for one more session at all.
    pub room: bool,
    /// Unproven sessions at once.
    pub unproven: usize,
    /// Sessions from one address at once.
    pub per_source: Option<usize>,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is let in.
    Admit,
    /// It is let in in place of this one.
    Replace(Key),
    /// It has to wait until there is room.
    Wait,
    /// Its address has too many already.
    TooMany,
}

impl Gate {
    /// Judges a connection from `source`. `unproven` tells whether a session still has to prove itself.
    pub fn judge(
        &mut self,
        source: IpAddr,
        allowance: Allowance,
        now: Instant,
        unproven: impl Fn(Key) -> bool,
    ) -> Verdict {
        let from_here = self.sources.get(&source).copied().unwrap_or(0);
        if allowance.per_source.is_some_and(|limit| from_here >= limit) {
            return Verdict::TooMany;
        }
        let crowded = self.unproven >= allowance.unproven;
        match self.oldest(unproven) {
            Some((key, _)) if crowded => Verdict::Replace(key),
            Some((key, since)) if !allowance.room && now >= since + RESPITE => {
                Verdict::Replace(key)
            }
            _ if allowance.room => Verdict::Admit,
            _ => Verdict::Wait,
        }
    }

    /// A session has been let in.
    pub fn enter(&mut self, key: Key, source: IpAddr, now: Instant) {
        self.unproven += 1;
        self.arrivals.push_back((key, now));
        *self.sources.entry(source).or_default() += 1;
    }

    /// A session has proved itself.
    pub fn proved(&mut self) {
        self.unproven = self.unproven.saturating_sub(1);
    }

    /// A session has ended.
    pub fn leave(&mut self, source: IpAddr, proven: bool) {
        if !proven {
            self.proved();
        }
        if let Some(count) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }

    /// The unproven session that came first. Forgets those before it, and all others that no longer
    /// matter once they are the majority.
    fn oldest(&mut self, unproven: impl Fn(Key) -> bool) -> Option<(Key, Instant)> {
        if self.arrivals.len() > 2 * self.unproven + 64 {
            self.arrivals.retain(|(key, _)| unproven(*key));
        }
        while self.arrivals.front().is_some_and(|(key, _)| !unproven(*key)) {
            self.arrivals.pop_front();
        }
        self.arrivals.front().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const ROOMY: Allowance = Allowance { room: true, unproven: 2, per_source: None };
    const FULL: Allowance = Allowance { room: false, ..ROOMY };

    fn key(number: u64) -> Key {
        Key::unpack(number)
    }

    fn source(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    #[test]
    fn too_many_unproven_displace_the_oldest() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        assert_eq!(gate.judge(source(1), ROOMY, now, |_| true), Verdict::Admit);
        gate.enter(key(1), source(1), now);
        assert_eq!(gate.judge(source(1), ROOMY, now, |_| true), Verdict::Admit);
        gate.enter(key(2), source(1), now);
        assert_eq!(gate.judge(source(1), ROOMY, now, |_| true), Verdict::Replace(key(1)));
        gate.proved();
        let unproven = |other: Key| other.pack() != 1;
        assert_eq!(gate.judge(source(1), ROOMY, now, unproven), Verdict::Admit);
        gate.enter(key(3), source(1), now);
        assert_eq!(gate.judge(source(1), ROOMY, now, unproven), Verdict::Replace(key(2)));
    }

    #[test]
    fn a_full_house_displaces_who_has_had_a_second() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        assert_eq!(gate.judge(source(1), FULL, now, |_| true), Verdict::Wait);
        gate.enter(key(1), source(1), now);
        let almost = now + RESPITE - Duration::from_nanos(1);
        assert_eq!(gate.judge(source(1), FULL, almost, |_| true), Verdict::Wait);
        assert_eq!(gate.judge(source(1), FULL, now + RESPITE, |_| true), Verdict::Replace(key(1)));
        assert_eq!(gate.judge(source(1), FULL, now + RESPITE, |_| false), Verdict::Wait);
    }

    #[test]
    fn one_source_may_have_so_many() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let allowance = Allowance { per_source: Some(1), ..ROOMY };
        gate.enter(key(1), source(1), now);
        assert_eq!(gate.judge(source(1), allowance, now, |_| true), Verdict::TooMany);
        assert_eq!(gate.judge(source(2), allowance, now, |_| true), Verdict::Admit);
        gate.leave(source(1), false);
        assert_eq!(gate.judge(source(1), allowance, now, |_| true), Verdict::Admit);
        assert!(gate.sources.is_empty());
    }

    #[test]
    fn the_list_of_arrivals_stays_short() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let stays = key(0);
        gate.enter(stays, source(1), now);
        for number in 1..10_000 {
            gate.judge(source(1), ROOMY, now, |key| key == stays);
            gate.enter(key(number), source(1), now);
            gate.leave(source(1), false);
        }
        assert!(gate.arrivals.len() < 100, "{}", gate.arrivals.len());
        assert_eq!(gate.unproven, 1);
        let left: HashSet<u64> = gate.arrivals.iter().map(|(key, _)| key.pack()).collect();
        assert!(left.contains(&stays.pack()));
    }
}
