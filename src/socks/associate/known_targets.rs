//! Which targets an association has sent to, and so who may answer.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::state::settings::UdpFilter;

/// Targets of one generation.
const GENERATION: usize = 512;
/// The age of a generation. A target is known for one to two of them after the last datagram to it: at least the 2
/// minutes of RFC 4787 REQ-5.
const GENERATION_AGE: Duration = Duration::from_secs(150);

/// The targets that an association has sent to lately: two generations of at most [`GENERATION`], of which the older is
/// forgotten as a whole. With a filter that lets everything through it stays empty.
pub struct KnownTargets {
    recent: HashSet<SocketAddr>,
    older: HashSet<SocketAddr>,
    /// When the recent generation began.
    began: Instant,
}

impl KnownTargets {
    /// None so far.
    pub fn new(now: Instant) -> Self {
        KnownTargets { recent: HashSet::new(), older: HashSet::new(), began: now }
    }

    /// A datagram goes to `target`, which may answer from now on.
    pub fn add(&mut self, target: SocketAddr, filter: UdpFilter, now: Instant) {
        let Some(target) = as_filtered(target, filter) else { return };
        self.forget(now);
        if self.recent.len() >= GENERATION && !self.recent.contains(&target) {
            self.begin_generation(now);
        }
        self.recent.insert(target);
    }

    /// Whether a datagram from `source` is an answer.
    pub fn may_answer(&mut self, source: SocketAddr, filter: UdpFilter, now: Instant) -> bool {
        let Some(source) = as_filtered(source, filter) else { return true };
        self.forget(now);
        self.recent.contains(&source) || self.older.contains(&source)
    }

    /// Forgets those for which this says so; their port is 0 where it is not compared.
    pub fn retain(&mut self, mut stays: impl FnMut(&SocketAddr) -> bool) {
        self.recent.retain(&mut stays);
        self.older.retain(stays);
    }

    /// Targets that are known.
    pub fn len(&self) -> usize {
        self.recent.len() + self.older.difference(&self.recent).count()
    }

    fn begin_generation(&mut self, now: Instant) {
        self.older = std::mem::take(&mut self.recent);
        self.began = now;
    }

    /// Forgets what is too old.
    fn forget(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.began);
        if age >= GENERATION_AGE {
            self.begin_generation(now);
        }
        if age >= GENERATION_AGE * 2 {
            self.older = HashSet::new();
        }
    }
}

/// What is compared; nothing if everything may pass. After a change of the filter a target is known again with the next
/// datagram to it.
fn as_filtered(mut address: SocketAddr, filter: UdpFilter) -> Option<SocketAddr> {
    match filter {
        UdpFilter::Any => return None,
        UdpFilter::Address => address.set_port(0),
        UdpFilter::Port => {}
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("a literal")
    }

    #[test]
    fn who_may_answer() {
        for (filter, other_port, stranger) in [
            (UdpFilter::Any, true, true),
            (UdpFilter::Address, true, false),
            (UdpFilter::Port, false, false),
        ] {
            let now = Instant::now();
            let mut known = KnownTargets::new(now);
            known.add(at("192.0.2.1:53"), filter, now);
            assert!(known.may_answer(at("192.0.2.1:53"), filter, now));
            assert_eq!(known.may_answer(at("192.0.2.1:54"), filter, now), other_port);
            assert_eq!(known.may_answer(at("192.0.2.2:53"), filter, now), stranger);
            assert_eq!(known.len(), usize::from(filter != UdpFilter::Any));
        }
    }

    #[test]
    fn a_target_is_known_for_one_to_two_generations() {
        let (now, filter) = (Instant::now(), UdpFilter::Address);
        let mut known = KnownTargets::new(now);
        known.add(at("192.0.2.1:53"), filter, now);
        let mut answers = |after| known.may_answer(at("192.0.2.1:53"), filter, now + after);
        assert!(answers(GENERATION_AGE));
        assert!(answers(GENERATION_AGE * 2 - Duration::from_millis(1)));
        assert!(!answers(GENERATION_AGE * 2));
        // Nothing has looked for long: both generations are too old.
        known.add(at("192.0.2.1:53"), filter, now);
        assert!(!known.may_answer(at("192.0.2.1:53"), filter, now + GENERATION_AGE * 5));
    }

    #[test]
    fn the_oldest_are_forgotten_when_there_are_many() {
        let (now, filter) = (Instant::now(), UdpFilter::Port);
        let mut known = KnownTargets::new(now);
        let target = |number: u16| SocketAddr::from(([192, 0, 2, 1], number));
        for number in 1..=1025 {
            known.add(target(number), filter, now);
            assert!(known.len() <= 2 * GENERATION);
        }
        assert!(!known.may_answer(target(1), filter, now));
        assert!(
            known.may_answer(target(513), filter, now)
                && known.may_answer(target(1025), filter, now)
        );
        // One that is used again and again begins no generation.
        for _ in 0..2000 {
            known.add(target(1025), filter, now);
        }
        assert!(known.may_answer(target(513), filter, now));
    }
}
