//! What administrators see and change outside of the shared state.

use std::time::Duration;

use crate::state::connection::Connection;
use crate::state::users::{UserId, Users};
use crate::workers::dns_cache::DnsStats;
use metp_protocol::ConnectionId;

/// The rest of the server, as METP sees it. The server does it for real; tests do it with scripts.
pub trait Control {
    /// The connections have numbers below this one.
    fn slots(&self) -> u32;

    /// The connection in this place, unless there is none, or it is not `of` this account.
    fn connection(&self, slot: u32, of: Option<UserId>, users: &Users) -> Option<Connection>;

    /// Closes a connection. Says whether it was there.
    fn kill(&mut self, id: ConnectionId) -> bool;

    /// Closes the connections of an account. Says how many there were.
    fn kill_user(&mut self, user: UserId) -> usize;

    /// Begins to close down: open tunnels may go on for so long, or as long as the settings say. Says
    /// whether this is news.
    fn begin_drain(&mut self, grace: Option<Duration>) -> bool;

    /// Whether all that was asked for has been done.
    fn is_idle(&self) -> bool;

    /// How the server is doing, as far as it knows without asking the kernel.
    fn status(&self) -> ServerInfo;

    /// What the process uses: the kernel is asked.
    fn process_usage(&self) -> ProcessUsage;
}

/// What the process uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessUsage {
    /// Descriptors that are open.
    pub descriptors: usize,
    /// Memory in RAM (RSS), in bytes.
    pub rss: u64,
}

/// How the server is doing.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerInfo {
    /// Since the start.
    pub uptime: Duration,
    /// If it is closing down, how long open connections still have.
    pub closing: Option<Duration>,
    /// Descriptors that may be open.
    pub descriptors_limit: usize,
    /// SOCKS connections for which these suffice, whatever the setting is.
    pub connections_affordable: usize,
    /// Names on their way.
    pub names: DnsStats,
    /// Lines of both logs that had to be dropped.
    pub lines_lost: u64,
}
