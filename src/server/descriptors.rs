//! The sum of descriptors: how many are open or promised, how many are free, and what those may be used for. Pure
//! accounting: the kernel is not asked.
//!
//! A session is promised its service's number of descriptors when it is admitted; for more it asks the [`Reserve`].
//! Look-ups whose sessions have gone and connections that wait for their reset count as well: they come of sessions,
//! which have just given more back. Pipes are not promised, since they give way.
//!
//! [`Reserve`]: crate::reactor::reserve::Reserve

use super::service::{self, row};
use crate::state::service::{PerService, Service};

/// Descriptors of the process itself: standard streams, poll, waker, signals, listeners, a waiting
/// connection for each of these, and a few that are opened for a moment. What the process has inherited beyond
/// its standard streams is counted at the start and comes on top.
pub(super) const BASE_DESCRIPTORS: usize = 16;

/// With fewer descriptors there is no tunnel.
pub(super) const FEWEST_DESCRIPTORS: usize =
    BASE_DESCRIPTORS + service::METP.reserved + service::SOCKS.descriptors;

/// Descriptors that a pipe has.
const PIPE_DESCRIPTORS: usize = 2;

/// The part of all descriptors that is not promised beyond admission: a quarter.
const PROMISE_MARGIN: usize = 4;

/// What descriptors are promised for at this moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DescriptorSum {
    /// Descriptors that the process may have, without those that it has inherited.
    pub(super) usable: usize,
    /// Sessions that are open.
    pub(super) sessions: PerService<usize>,
    /// Look-ups that their sessions have left behind, each with one descriptor.
    pub(super) orphans: usize,
    /// Connections that wait for their reset.
    pub(super) closes: usize,
    /// Descriptors that sessions have been promised beyond those of their admission, by the reserve.
    pub(super) promised: usize,
    /// Pipes that are open.
    pub(super) pipes: usize,
    /// Pipes that may be open before this is asked again.
    pub(super) most_pipes: usize,
}

impl DescriptorSum {
    /// Descriptors that are open or promised, pipes not counted.
    pub(super) fn reserved(&self) -> usize {
        let sessions = Service::ALL.map(|service| self.of_sessions(service));
        let others = [self.orphans, self.closes, self.promised, BASE_DESCRIPTORS];
        sessions.into_iter().chain(others).fold(0, usize::saturating_add)
    }

    /// Descriptors that connections waiting for their reset may have: a quarter of those that others leave.
    pub(super) fn for_closes(&self) -> usize {
        self.usable.saturating_sub(self.reserved().saturating_sub(self.closes)) / 4
    }

    /// Pipes that may be open: as many as a quarter of what is left.
    pub(super) fn for_pipes(&self) -> usize {
        self.usable.saturating_sub(self.reserved()) / 4
    }

    /// Descriptors that may be promised beyond those of admission. Neither what is kept for services nor the last
    /// quarter of all descriptors is among them, so that sessions which want more do not keep others out.
    pub(super) fn for_promises(&self) -> usize {
        let kept: usize = Service::ALL.map(|service| self.kept_for(service)).into_iter().sum();
        let pipes = self.most_pipes.saturating_mul(PIPE_DESCRIPTORS);
        let free = self.usable.saturating_sub(self.reserved()).saturating_sub(pipes);
        free.saturating_sub(kept.max(self.usable / PROMISE_MARGIN))
    }

    /// Whether there are descriptors for one more session.
    pub(super) fn has_room(&self, service: Service) -> bool {
        self.free() >= row(service).descriptors.saturating_add(self.kept_from(service))
    }

    /// Sessions for which there are descriptors, those that are open included. Pipes do not count.
    pub(super) fn affordable(&self, service: Service) -> usize {
        let others = self.reserved().saturating_sub(self.of_sessions(service));
        let left = self.usable.saturating_sub(others).saturating_sub(self.kept_from(service));
        left.checked_div(row(service).descriptors).unwrap_or_default()
    }

    /// Descriptors that are neither promised nor open.
    fn free(&self) -> usize {
        let pipes = self.pipes.saturating_mul(PIPE_DESCRIPTORS);
        self.usable.saturating_sub(self.reserved()).saturating_sub(pipes)
    }

    fn of_sessions(&self, service: Service) -> usize {
        self.sessions.of(service).saturating_mul(row(service).descriptors)
    }

    /// Free descriptors that are kept for services other than this one.
    fn kept_from(&self, service: Service) -> usize {
        let others = Service::ALL.into_iter().filter(|other| *other != service);
        others.map(|other| self.kept_for(other)).sum()
    }

    /// Free descriptors that are kept for a service.
    fn kept_for(&self, service: Service) -> usize {
        row(service).reserved.saturating_sub(self.of_sessions(service))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::reserve::{Promise, Reserve};

    fn idle(usable: usize) -> DescriptorSum {
        DescriptorSum { usable, ..DescriptorSum::default() }
    }

    #[test]
    fn each_term_counts_its_descriptors() {
        let sessions = PerService { socks: 10, metp: 3, http: 2 };
        let (orphans, closes, promised) = (5, 7, 11);
        let sum = DescriptorSum { sessions, orphans, closes, promised, ..idle(100) };
        assert_eq!(sum.reserved(), 16 + 2 * 10 + 3 + 2 + 5 + 7 + 11);
        assert_eq!(idle(100).affordable(Service::Socks), (100 - 16 - 4) / 2);
        // 64 are reserved, 20 of them for SOCKS; METP has 3 of the 4 that are kept for it.
        assert_eq!(sum.affordable(Service::Socks), (100 - (64 - 20) - 1) / 2);
        assert_eq!((sum.for_pipes(), sum.for_closes()), (36 / 4, 43 / 4));
    }

    #[test]
    fn the_fewest_descriptors_serve_a_tunnel_and_four_administrators() {
        let mut sum = idle(FEWEST_DESCRIPTORS);
        assert!(sum.has_room(Service::Socks));
        sum.sessions.socks = 1;
        assert!(!sum.has_room(Service::Socks));
        assert_eq!(sum.for_promises(), 0);
        for open in 0..4 {
            sum.sessions.metp = open;
            assert!(sum.has_room(Service::Metp), "{open}");
        }
        sum.sessions.metp = 4;
        assert!(!sum.has_room(Service::Metp));
    }

    /// Numbers without a pattern, fixed (xorshift64).
    struct Noise(u64);

    impl Noise {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit as u64) as usize
        }
    }

    /// Whatever is admitted, promised and given back: METP's descriptors are there, and no more are open than there may
    /// be.
    #[test]
    fn promises_never_eat_what_is_kept_for_metp() {
        for usable in [FEWEST_DESCRIPTORS, 40, 100, 1024] {
            let (mut noise, mut sum, mut reserve) = (Noise(1), idle(usable), Reserve::default());
            let mut promises: Vec<Promise> = Vec::new();
            let mut most_promised = 0;
            for _ in 0..20_000 {
                match noise.below(8) {
                    0 | 1 if sum.has_room(Service::Socks) => sum.sessions.socks += 1,
                    2 if sum.has_room(Service::Metp) => sum.sessions.metp += 1,
                    3 if sum.sessions.socks > 0 => {
                        sum.sessions.socks -= 1;
                        match noise.below(3) {
                            0 => sum.orphans += 1,
                            1 if sum.closes < sum.for_closes() => sum.closes += 1,
                            _ => {}
                        }
                    }
                    4 => {
                        sum.sessions.metp = sum.sessions.metp.saturating_sub(1);
                        sum.orphans = sum.orphans.saturating_sub(noise.below(2));
                        sum.closes = sum.closes.saturating_sub(noise.below(2));
                    }
                    5 if !promises.is_empty() => {
                        drop(promises.swap_remove(noise.below(promises.len())));
                    }
                    6 => {
                        // A turn of the loop: pipes are allowed, then promises, and sessions take both.
                        sum.most_pipes = sum.for_pipes();
                        sum.pipes = sum.pipes.min(sum.most_pipes);
                        reserve.allow(sum.for_promises());
                        let before = promises.len();
                        promises.extend((0..8).map_while(|_| reserve.take(1 + noise.below(3))));
                        sum.promised = reserve.promised();
                        sum.pipes = noise.below(sum.most_pipes + 1);
                        if promises.len() > before {
                            assert!(sum.free() >= usable / 4, "the last quarter is promised");
                        }
                    }
                    _ => {}
                }
                sum.promised = reserve.promised();
                most_promised = most_promised.max(sum.promised);
                let kept = sum.kept_for(Service::Metp);
                assert!(usable - sum.reserved() >= kept, "{sum:?}");
                assert!(sum.reserved() + 2 * sum.pipes <= usable, "{sum:?}");
            }
            assert_eq!(most_promised > 0, usable > FEWEST_DESCRIPTORS, "{usable}: {most_promised}");
            drop(promises);
            assert_eq!(reserve.promised(), 0);
        }
    }
}
