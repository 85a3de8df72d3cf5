//! What must hold after every turn of the loop. Checked in builds with debug assertions, so that each test that runs a
//! server checks it as well.

use super::Server;
use super::descriptors::BASE_DESCRIPTORS;
use super::service::row;
use crate::state::metrics::Stage;
use crate::state::service::Service;

/// With more sessions than this, the check is made in one of [`SPARSE`] turns only: it looks at all of them.
const MANY_SESSIONS: usize = 64;
const SPARSE: u64 = 64;

impl Server {
    /// Compares what is counted step by step with what there is.
    ///
    /// # Panics
    /// If they differ: the server has a fault.
    pub(super) fn check_invariants(&self) {
        let metrics = &self.services.shared.metrics;
        let many = self.sessions.len() > MANY_SESSIONS;
        if many && !metrics.turns.count().is_multiple_of(SPARSE) {
            return;
        }
        self.check_counts();
        self.check_descriptors();
        let timeouts = &self.services.shared.process.settings.timeouts;
        for (key, entry) in self.sessions.iter() {
            let is_asked = entry.queued || entry.armed.is_some();
            let waits = entry.session.deadline(timeouts).is_some();
            assert!(is_asked || !waits, "{key:?} has a deadline that the wheel does not know");
        }
        if self.sessions.is_empty() {
            assert_eq!(self.services.pool.leased(), 0, "buffers without a session");
            let near_ends = &self.services.shared.process.to_own_ports;
            assert!(near_ends.is_empty(), "near ends of no session: {near_ends:?}");
        }
    }

    /// Sessions by service, by stage and by proof.
    fn check_counts(&self) {
        let metrics = &self.services.shared.metrics;
        for service in Service::ALL {
            let (mut open, mut unproven) = (0, 0);
            for (_, entry) in self.sessions.iter() {
                if entry.session.service() == service {
                    open += 1;
                    unproven += usize::from(!entry.is_proven());
                }
            }
            assert_eq!(open, metrics.sessions.of(service).open, "{service}: open sessions");
            let admission = &self.table.of(service).admission;
            assert_eq!(unproven, admission.unproven(), "{service}: sessions without proof");
        }
        let mut stages = [0; Stage::ALL.len()];
        for session in self.sessions.iter().filter_map(|(_, entry)| entry.session.as_socks()) {
            if let Some(count) = stages.get_mut(session.stage() as usize) {
                *count += 1;
            }
        }
        assert_eq!(stages, metrics.stages, "connections by stage");
    }

    /// The sum of descriptors is the sum of what sessions, look-ups and closes have.
    fn check_descriptors(&self) {
        let sessions = self.sessions.iter().map(|(_, entry)| row(entry.session.service()));
        let admitted: usize = sessions.map(|row| row.descriptors).sum();
        let promised = self.services.reserve.promised();
        let others = self.services.dns.orphans() + self.services.closes.len();
        let sum = admitted + promised + others + BASE_DESCRIPTORS;
        assert_eq!(self.descriptor_sum().reserved(), sum, "reserved descriptors");
        assert!(promised == 0 || !self.sessions.is_empty(), "promises without a session");
    }
}
