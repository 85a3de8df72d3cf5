//! Requests of sessions to the server beyond the shared state: list connections, close them, drain, report the state of
//! the server. METP makes them; other protocols that show or change the server make them too.
//!
//! They are messages. A session sends a [`ControlRequest`]; the [`ControlAnswer`] comes in place, or later through
//! the session's method `answered`, and until then the session waits, as it does for a name. Both are plain data that
//! another thread may take. One loop, which owns all connections, answers in place. Several loops, each with its own
//! connections, pass a request on to each other and answer when all have: the numbers are added up, pages of
//! connections follow one another. Sessions need not know which of the two it is.

use std::task::Poll;
use std::time::Duration;

use crate::reactor::slab::Key;
use crate::state::connection::Connection;
use crate::state::users::{Reloaded, UserId, Users};
use crate::workers::dns_cache::DnsStats;
use metp_protocol::ConnectionId;

/// The server as a session sees it. The server implements it; so do the fakes of tests.
pub trait Control {
    /// Sends a request. `Pending`: the answer comes through the session, which sends no other request before.
    fn ask(&mut self, request: ControlRequest, users: &Users) -> Poll<ControlAnswer>;

    /// Whether an answered request is not carried out yet, for instance a connection is still to be closed. A
    /// session whose protocol says that an answered command is done takes no further command before.
    fn has_outstanding(&self) -> bool;

    /// Whether the users file is being read again. No account is changed meanwhile; the session is woken at the end.
    fn is_reloading(&self) -> bool;
}

/// A request of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlRequest {
    /// Some connections, from `page` on (`None`: from the first), of this account only if it is given.
    Connections {
        /// Where an earlier page has ended.
        page: Option<Page>,
        /// The account.
        of: Option<UserId>,
    },
    /// Close a connection.
    Kill(ConnectionId),
    /// Close the connections of an account.
    KillUser(UserId),
    /// Begin to drain. Open tunnels may continue for this time, or for the setting `grace`.
    Drain(Option<Duration>),
    /// Read the users file and the configuration file again, for this session.
    Reload(Key),
    /// Save the value of a setting, for this session.
    Save {
        /// The session.
        session: Key,
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// Set the counters of an account back to zero, for this session.
    ResetUsage {
        /// The session.
        session: Key,
        /// The account.
        user: UserId,
    },
    /// The state of the server, as far as it is known without asking the kernel.
    Status,
    /// The state of the server, and the usage of the process.
    Usage,
}

/// The answers, in the order of the requests.
#[derive(Clone, Debug)]
pub enum ControlAnswer {
    /// Some connections.
    Connections {
        /// The page; it may be empty although another follows.
        rows: Vec<Connection>,
        /// Where the next page begins; `None` at the end.
        next: Option<Page>,
    },
    /// Whether the connection was there, and is going to be closed.
    Killed(bool),
    /// Connections of the account that are going to be closed.
    UserKilled(usize),
    /// Whether this request began the drain; `false`: it had begun before.
    Draining(bool),
    /// What reading the files again has changed, of accounts and of settings, or what is wrong with them.
    Reloaded(Result<(Reloaded, usize), Vec<String>>),
    /// The setting is saved, or why it is not.
    Saved(Result<(), String>),
    /// The counters are zero, also on the disk; or why they are not.
    Reset(Result<(), String>),
    /// There is no state directory.
    NoState,
    /// There is no file that could be read again.
    NoFile,
    /// The state of the server.
    Status(Box<ServerInfo>),
    /// The state of the server, and the usage of the process.
    Usage(Box<ServerInfo>, ProcessUsage),
}

const _: () = {
    const fn may_cross_threads<T: Send + 'static>() {}
    may_cross_threads::<ControlRequest>();
    may_cross_threads::<ControlAnswer>();
};

/// Where a page of connections begins. Opaque to sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The slot to look at next.
    pub next: u32,
    /// The slot behind the last one. Connections that came after the first page may have later ones.
    pub end: u32,
}

/// The usage of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessUsage {
    /// Descriptors that are open.
    pub descriptors: usize,
    /// Memory in RAM (RSS), in bytes.
    pub rss: u64,
}

/// The state of the server.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerInfo {
    /// Time since the start.
    pub uptime: Duration,
    /// The time that is left for open connections; `None` unless the server drains.
    pub closing: Option<Duration>,
    /// The limit of descriptors.
    pub descriptors_limit: usize,
    /// SOCKS connections for which the descriptors suffice, whatever `max-connections` is.
    pub connections_affordable: usize,
    /// Counters of the DNS cache.
    pub names: DnsStats,
    /// Lines of both logs that were dropped.
    pub lines_dropped: u64,
}
