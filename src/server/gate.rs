//! Admission: who is let in, who has to wait, and who has to make room.
//!
//! A session that has not proved itself (no complete request, no login) may be displaced by a newcomer:
//! thousands of half-open connections cannot keep a legitimate one out. Sessions that have proved
//! themselves are never displaced. Pure accounting, no sockets.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::reactor::slab::Key;

/// An unproven session that has said something is safe for this long.
const RESPITE: Duration = Duration::from_secs(1);

/// How many unproven sessions are looked at to find one that may be displaced.
const LOOK: usize = 128;

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

/// What a session that was let in has shown of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has ended, or proved itself: it does not matter here any more.
    Settled,
    /// It has not had a turn yet: what it says may not have been heard.
    New,
    /// It has had a turn and has said nothing.
    Silent,
    /// It has said something, and not yet enough.
    Speaking,
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
    /// Judges a connection from `source`. `standing` tells what a session has shown of itself.
    ///
    /// Silent sessions make room at once, the oldest first; those that speak, after a while.
    pub fn judge(
        &mut self,
        source: IpAddr,
        allowance: Allowance,
        now: Instant,
        standing: impl Fn(Key) -> Standing,
    ) -> Verdict {
        let from_here = self.sources.get(&source).copied().unwrap_or(0);
        if allowance.per_source.is_some_and(|limit| from_here >= limit) {
            return Verdict::TooMany;
        }
        if allowance.room && self.unproven < allowance.unproven {
            return Verdict::Admit;
        }
        self.forget_settled(&standing);
        let displaceable = |(key, since): &&(Key, Instant)| match standing(*key) {
            Standing::Settled => false,
            Standing::Silent => true,
            Standing::New | Standing::Speaking => now >= *since + RESPITE,
        };
        match self.arrivals.iter().take(LOOK).find(displaceable) {
            Some((key, _)) => Verdict::Replace(*key),
            None => Verdict::Wait,
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

    /// Forgets settled sessions before the oldest unproven one, and all once they are the majority.
    fn forget_settled(&mut self, standing: impl Fn(Key) -> Standing) {
        while self.arrivals.front().is_some_and(|(key, _)| standing(*key) == Standing::Settled) {
            self.arrivals.pop_front();
        }
        if self.arrivals.len() > 2 * self.unproven + LOOK {
            self.arrivals.retain(|(key, _)| standing(*key) != Standing::Settled);
        }
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
    fn too_many_unproven_displace_the_oldest_that_is_silent() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let silent = |_| Standing::Silent;
        for number in [1, 2] {
            assert_eq!(gate.judge(source(1), ROOMY, now, silent), Verdict::Admit);
            gate.enter(key(number), source(1), now);
        }
        assert_eq!(gate.judge(source(1), ROOMY, now, silent), Verdict::Replace(key(1)));
        let first_speaks = |other: Key| match other.pack() {
            1 => Standing::Speaking,
            _ => Standing::Silent,
        };
        assert_eq!(gate.judge(source(1), ROOMY, now, first_speaks), Verdict::Replace(key(2)));
        gate.proved();
        let first_is_settled = |other: Key| match other.pack() {
            1 => Standing::Settled,
            _ => Standing::Silent,
        };
        assert_eq!(gate.judge(source(1), ROOMY, now, first_is_settled), Verdict::Admit);
        gate.enter(key(3), source(1), now);
        assert_eq!(gate.judge(source(1), ROOMY, now, first_is_settled), Verdict::Replace(key(2)));
    }

    #[test]
    fn who_speaks_has_a_second_whether_the_house_is_full_or_crowded() {
        for allowance in [FULL, Allowance { unproven: 1, ..ROOMY }] {
            for standing in [Standing::New, Standing::Speaking] {
                let (mut gate, now) = (Gate::default(), Instant::now());
                gate.enter(key(1), source(1), now);
                let almost = now + RESPITE - Duration::from_nanos(1);
                let judged = gate.judge(source(1), allowance, almost, |_| standing);
                assert_eq!(judged, Verdict::Wait);
                let judged = gate.judge(source(1), allowance, now + RESPITE, |_| standing);
                assert_eq!(judged, Verdict::Replace(key(1)));
            }
        }
    }

    #[test]
    fn who_has_proved_itself_is_never_displaced() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        gate.enter(key(1), source(1), now);
        gate.proved();
        let later = now + RESPITE * 1000;
        assert_eq!(gate.judge(source(1), FULL, later, |_| Standing::Settled), Verdict::Wait);
    }

    #[test]
    fn one_source_may_have_so_many() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let allowance = Allowance { per_source: Some(1), ..ROOMY };
        gate.enter(key(1), source(1), now);
        assert_eq!(gate.judge(source(1), allowance, now, |_| Standing::New), Verdict::TooMany);
        assert_eq!(gate.judge(source(2), allowance, now, |_| Standing::New), Verdict::Admit);
        gate.leave(source(1), false);
        assert_eq!(gate.judge(source(1), allowance, now, |_| Standing::New), Verdict::Admit);
        assert!(gate.sources.is_empty());
    }

    #[test]
    fn the_list_of_arrivals_stays_short() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let stays = key(0);
        gate.enter(stays, source(1), now);
        for number in 1..10_000 {
            let standing = |key| if key == stays { Standing::New } else { Standing::Settled };
            gate.judge(source(1), FULL, now, standing);
            gate.enter(key(number), source(1), now);
            gate.leave(source(1), false);
        }
        assert!(gate.arrivals.len() < 2 * LOOK, "{}", gate.arrivals.len());
        assert_eq!(gate.unproven, 1);
        let left: HashSet<u64> = gate.arrivals.iter().map(|(key, _)| key.pack()).collect();
        assert!(left.contains(&stays.pack()));
    }
}
