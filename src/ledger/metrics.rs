//! Counters. They only grow, except those that say what is open now.

use super::histogram::Histogram;
use crate::proto::metp::MetricsBody;
use crate::reactor::selector::Service;

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// SOCKS connections accepted.
    pub accepted: u64,
    /// SOCKS connections open now, in whatever state.
    pub open: usize,
    /// METP sessions open now.
    pub metp_open: usize,
    /// Payload bytes delivered, both directions.
    pub bytes: u64,
    /// Turns of sessions that ended in a panic.
    pub panics: u64,
    /// How long the turns of the loop took, from the end of one wait to the beginning of the next.
    pub turns: Histogram,
}

impl Metrics {
    /// What is open of a service.
    pub fn open_mut(&mut self, service: Service) -> &mut usize {
        match service {
            Service::Socks => &mut self.open,
            Service::Metp => &mut self.metp_open,
        }
    }

    /// The figures that METP/1.0 shows.
    pub fn body(&self) -> MetricsBody {
        MetricsBody { historical: self.accepted, current: self.open as u64, bytes: self.bytes }
    }
}
