//! Floor 2: the facts that all conversations share. Plain data; no sockets, no protocol.

pub mod access_log;
pub mod histogram;
pub mod metrics;
pub mod settings;
pub mod users;

use access_log::{AccessLog, RecordId};
use metrics::Metrics;
use settings::Settings;
use users::Users;

/// Everything that sessions of both services look at and change.
pub struct Shared {
    /// Who may log in.
    pub users: Users,
    /// What has happened so far.
    pub metrics: Metrics,
    /// Who went where.
    pub access_log: AccessLog,
    /// What can be changed at runtime.
    pub settings: Settings,
}

/// Which way payload flows through a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the target.
    Up,
    /// From the target to the client.
    Down,
}

/// The payload of one tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes delivered to the target.
    pub up: u64,
    /// Bytes delivered to the client.
    pub down: u64,
    /// The tunnel's record in the access log.
    pub record: Option<RecordId>,
}

impl Shared {
    /// Counts payload that has been delivered. The only place where bytes are counted, so that metrics,
    /// records and access log agree.
    pub fn count(&mut self, tally: &mut Tally, direction: Direction, bytes: u64) {
        match direction {
            Direction::Up => tally.up += bytes,
            Direction::Down => tally.down += bytes,
        }
        self.metrics.bytes += bytes;
        if let Some(record) = tally.record {
            self.access_log.add_bytes(record, bytes);
        }
    }
}
