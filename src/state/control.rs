//! What sessions ask the server for beyond the shared state: which connections are open, which to close, how the server
//! is doing. METP asks; whatever else shows or changes the server asks here too.
//!
//! It is shaped as messages. A session puts a [`ControlRequest`]; the [`ControlAnswer`] comes in place, or later through
//! the session's method `answered`, and until then the session waits, as it does for a name. Both are plain data that
//! another thread may take. One loop, which owns all connections, answers in place. Several loops, each with its own
//! connections, pass a request on to each other and answer when all have: the numbers are added up, pages of
//! connections follow one another. Sessions need not know which of the two it is.

use std::task::Poll;
use std::time::Duration;

use crate::state::connection::Connection;
use crate::state::users::{UserId, Users};
use crate::workers::dns_cache::DnsStats;
use metp_protocol::ConnectionId;

/// The rest of the server, as a session sees it. The server does it for real; tests do it with scripts.
pub trait Control {
    /// Puts a request. `Pending`: the answer comes through the session, which puts no other request before.
    fn ask(&mut self, request: ControlRequest, users: &Users) -> Poll<ControlAnswer>;

    /// Whether something that has been answered is still to be done, for instance a connection to be closed. A session
    /// that promises its client that a command is done takes no further command before.
    fn has_outstanding(&self) -> bool;
}

/// What a session asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlRequest {
    /// Some connections, from `page` on (`None`: from the first), of this account only if it is given.
    Connections {
        /// Where an earlier page has ended.
        page: Option<Page>,
        /// Whose connections.
        of: Option<UserId>,
    },
    /// Close a connection.
    Kill(ConnectionId),
    /// Close the connections of an account.
    KillUser(UserId),
    /// Begin to close down. Open tunnels may go on for this time, or for that of the settings.
    Drain(Option<Duration>),
    /// How the server is doing, as far as it is known without asking the kernel.
    Status,
    /// How the server is doing, and what the process uses.
    Usage,
}

/// The answers, in the order of the requests.
#[derive(Clone, Debug)]
pub enum ControlAnswer {
    /// Some connections.
    Connections {
        /// They may be none, although a page follows.
        rows: Vec<Connection>,
        /// Where the next page begins; `None` at the end.
        next: Option<Page>,
    },
    /// Whether the connection was there, and is going to be closed.
    Killed(bool),
    /// Connections of the account that are going to be closed.
    UserKilled(usize),
    /// Whether closing down begins by this request; `false`: it had begun before.
    Draining(bool),
    /// How the server is doing.
    Status(Box<ServerInfo>),
    /// How the server is doing, and what the process uses.
    Usage(Box<ServerInfo>, ProcessUsage),
}

const _: () = {
    const fn may_cross_threads<T: Send + 'static>() {}
    may_cross_threads::<ControlRequest>();
    may_cross_threads::<ControlAnswer>();
};

/// Where a page of connections begins. Only what answers knows what it means; a session hands it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The slot to look at next.
    pub next: u32,
    /// The slot behind the last one. Connections that came after the first page may have later ones.
    pub end: u32,
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
