//! Admission: who is let in, who has to wait, and who has to make room.
//!
//! A session that has not proved itself (no complete request, no login) may be displaced by a newcomer:
//! thousands of half-open connections cannot keep a legitimate one out. Sessions that have proved
//! themselves are never displaced, except for guests in a full house. Pure accounting, no sockets.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::reactor::slab::Key;

/// An unproven session that has said something is safe for this long at first. In a crowd that does not
/// prove itself it is halved for each generation: however large the crowd and however small the house, those
/// behind it wait no longer than twice this.
const RESPITE: Duration = Duration::from_millis(500);

/// The same for a session that is silent: long enough for first words that are on their way.
const SILENT_RESPITE: Duration = Duration::from_millis(62);

/// How often a respite is halved at most.
const HALVINGS: usize = 10;

/// So long after the last displacement a crowd is over.
const CALM: Duration = Duration::from_secs(2);

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
    /// Sessions of each source.
    sources: HashMap<IpAddr, usize>,
    silent: Pressure,
    speaking: Pressure,
}

/// How many have been displaced in a crowd, and when the last of them.
#[derive(Default)]
struct Pressure {
    displaced: usize,
    last: Option<Instant>,
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
    /// It has ended, or proved itself for good: it does not matter here any more.
    Settled,
    /// It has proved itself and stays, but may become a guest yet.
    Host,
    /// It has not had a turn yet: what it says may not have been heard.
    New,
    /// It has had a turn and has said nothing.
    Silent,
    /// It has said something, and not yet enough.
    Speaking,
    /// It has proved itself, but is there to look on: in a full house it makes room for a newcomer, who
    /// may be one that has work to do.
    Guest,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is let in.
    Admit,
    /// It is let in in place of this one.
    Replace(Key),
    /// It has to wait until there is room, or until this time, when another may have to make room.
    Wait(Option<Instant>),
    /// Its address has too many already.
    TooMany,
}

impl Gate {
    /// Judges a connection from `source`. `standing` tells what a session has shown of itself.
    ///
    /// Silent sessions make room after a moment, the oldest first; those that speak, after a while; guests
    /// last.
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
        // Also while there is room for all: each newcomer would leave its entry behind.
        self.forget_settled(&standing);
        if allowance.room && self.unproven < allowance.unproven {
            return Verdict::Admit;
        }
        let silent = SILENT_RESPITE / self.silent.shortening(self.unproven, now);
        let speaking = RESPITE / self.speaking.shortening(self.unproven, now);
        let mut until: Option<Instant> = None;
        let is_unproven = |(key, _): &&(Key, Instant)| {
            !matches!(standing(*key), Standing::Settled | Standing::Host | Standing::Guest)
        };
        let is_guest = |(key, _): &&(Key, Instant)| standing(*key) == Standing::Guest;
        for (key, since) in self.arrivals.iter().filter(|arrival| is_unproven(arrival)).take(LOOK) {
            let (respite, pressure) = match standing(*key) {
                Standing::Settled | Standing::Host | Standing::Guest => continue,
                Standing::Silent => (silent, &mut self.silent),
                // What it says may not have been heard; ask again soon.
                Standing::New => {
                    until = Some(now);
                    continue;
                }
                Standing::Speaking => (speaking, &mut self.speaking),
            };
            if now >= *since + respite {
                pressure.displaced += 1;
                pressure.last = Some(now);
                return Verdict::Replace(*key);
            }
            until = until.into_iter().chain([*since + respite]).min();
        }
        // A guest does not help against too many that are unproven.
        let full = !allowance.room && self.unproven < allowance.unproven;
        match self.arrivals.iter().find(is_guest).filter(|_| full) {
            Some((key, _)) => Verdict::Replace(*key),
            None => Verdict::Wait(until),
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

impl Pressure {
    /// What a respite is divided by among so many unproven sessions.
    fn shortening(&mut self, unproven: usize, now: Instant) -> u32 {
        if self.last.is_none_or(|last| now > last + CALM) {
            self.displaced = 0;
        }
        let generations = self.displaced / unproven.max(1);
        1 << generations.min(HALVINGS)
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
        let (mut gate, then) = (Gate::default(), Instant::now());
        let now = then + SILENT_RESPITE;
        let silent = |_| Standing::Silent;
        for number in [1, 2] {
            assert_eq!(gate.judge(source(1), ROOMY, then, silent), Verdict::Admit);
            gate.enter(key(number), source(1), then);
        }
        assert_eq!(gate.judge(source(1), ROOMY, then, silent), Verdict::Wait(Some(now)));
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
    fn who_speaks_has_its_time_whether_the_house_is_full_or_crowded() {
        for allowance in [FULL, Allowance { unproven: 1, ..ROOMY }] {
            let (mut gate, now) = (Gate::default(), Instant::now());
            gate.enter(key(1), source(1), now);
            let (almost, then) = (now + RESPITE - Duration::from_nanos(1), now + RESPITE);
            let judged = gate.judge(source(1), allowance, almost, |_| Standing::Speaking);
            assert_eq!(judged, Verdict::Wait(Some(then)));
            let judged = gate.judge(source(1), allowance, then, |_| Standing::Speaking);
            assert_eq!(judged, Verdict::Replace(key(1)));
        }
    }

    /// What it says has not been heard yet: it is asked about again with the next turn.
    #[test]
    fn who_has_not_had_a_turn_is_not_displaced() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        gate.enter(key(1), source(1), now);
        let later = now + RESPITE * 10;
        assert_eq!(
            gate.judge(source(1), FULL, later, |_| Standing::New),
            Verdict::Wait(Some(later))
        );
    }

    /// However many they are: who comes behind them waits for twice the first respite, and a little.
    #[test]
    fn a_crowd_is_gone_through_in_bounded_time() {
        for (standing, respite) in
            [(Standing::Silent, SILENT_RESPITE), (Standing::Speaking, RESPITE)]
        {
            let (mut gate, start) = (Gate::default(), Instant::now());
            let mut now = start;
            let mut standings: Vec<Standing> = Vec::new();
            for number in 0..5000 {
                let allowance = Allowance { unproven: 20, ..ROOMY };
                loop {
                    let seen = |key: Key| standings[key.pack() as usize];
                    match gate.judge(source(1), allowance, now, seen) {
                        Verdict::Admit => break,
                        Verdict::Replace(key) => {
                            standings[key.pack() as usize] = Standing::Settled;
                            gate.leave(source(1), false);
                            break;
                        }
                        Verdict::Wait(until) => now = until.expect("it knows"),
                        Verdict::TooMany => panic!("there is no such limit"),
                    }
                }
                gate.enter(key(number), source(1), now);
                standings.push(standing);
            }
            let took = now - start;
            assert!(took >= respite && took < respite * 5 / 2, "{took:?} for {standing:?}");
            // When it is calm again, respites are what they were.
            let calm = now + CALM + RESPITE;
            gate.enter(key(5000), source(1), calm);
            standings[4980..].fill(Standing::Settled);
            standings.push(standing);
            let judged = gate.judge(source(1), FULL, calm, |key| standings[key.pack() as usize]);
            assert_eq!(judged, Verdict::Wait(Some(calm + respite)));
        }
    }

    #[test]
    fn who_has_proved_itself_is_never_displaced() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        gate.enter(key(1), source(1), now);
        gate.proved();
        let later = now + RESPITE * 1000;
        assert_eq!(gate.judge(source(1), FULL, later, |_| Standing::Settled), Verdict::Wait(None));
    }

    #[test]
    fn guests_make_room_in_a_full_house_after_all_others() {
        let (mut gate, then) = (Gate::default(), Instant::now());
        let now = then + SILENT_RESPITE;
        for number in 0..300 {
            gate.enter(key(number), source(1), then);
            gate.proved();
        }
        let guests = |_| Standing::Guest;
        assert_eq!(gate.judge(source(1), ROOMY, now, guests), Verdict::Admit);
        assert_eq!(gate.judge(source(1), FULL, now, guests), Verdict::Replace(key(0)));
        gate.enter(key(300), source(1), then);
        let last =
            |standing| move |other: Key| if other == key(300) { standing } else { Standing::Guest };
        let silent = gate.judge(source(1), FULL, now, last(Standing::Silent));
        assert_eq!(silent, Verdict::Replace(key(300)));
        let speaking = gate.judge(source(1), FULL, now, last(Standing::Speaking));
        assert_eq!(speaking, Verdict::Replace(key(0)));
        gate.enter(key(301), source(1), then);
        let crowded = gate.judge(source(1), FULL, now, |other: Key| match other.pack() {
            300.. => Standing::Speaking,
            _ => Standing::Guest,
        });
        assert!(matches!(crowded, Verdict::Wait(_)), "{crowded:?}");
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
            let allowance = if number < 5000 { FULL } else { ROOMY };
            gate.judge(source(1), allowance, now, standing);
            gate.enter(key(number), source(1), now);
            gate.leave(source(1), false);
        }
        assert!(gate.arrivals.len() < 2 * LOOK, "{}", gate.arrivals.len());
        assert_eq!(gate.unproven, 1);
        let left: HashSet<u64> = gate.arrivals.iter().map(|(key, _)| key.pack()).collect();
        assert!(left.contains(&stays.pack()));
    }
}
