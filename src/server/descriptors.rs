//! The sum of descriptors: how many are open or promised, how many are free, and who may have those. Pure accounting:
//! the kernel is not asked.
//!
//! A session is promised its service's number of descriptors when it is admitted. Pipes are not promised, since they
//! give way.

use super::service::{self, row};
use crate::state::service::{PerService, Service};

/// Descriptors of the process itself: standard streams, poll, waker, signals, listeners, a waiting
/// connection for each of these, and a few that are opened for a moment. What the process has inherited beyond
/// its standard streams is counted at the start and comes on top.
const BASE_DESCRIPTORS: usize = 16;

/// With fewer descriptors there is no tunnel.
pub(super) const FEWEST_DESCRIPTORS: usize =
    BASE_DESCRIPTORS + service::METP.reserved + service::SOCKS.descriptors;

/// Descriptors that a pipe has.
const PIPE_DESCRIPTORS: usize = 2;

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
    /// Pipes that are open.
    pub(super) pipes: usize,
}

impl DescriptorSum {
    /// Descriptors that are open or promised, pipes not counted.
    pub(super) fn reserved(&self) -> usize {
        let sessions = Service::ALL.map(|service| self.of_sessions(service));
        let others = [self.orphans, self.closes, BASE_DESCRIPTORS];
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
        others.map(|other| row(other).reserved.saturating_sub(self.of_sessions(other))).sum()
    }
}
