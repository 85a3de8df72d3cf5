//! Requests of sessions to the server beyond the shared state: list connections, close them, drain, report the state of
//! the server. METP makes them; other protocols that show or change the server make them too.
//!
//! They are messages. A session sends a [`ControlRequest`]; the [`ControlAnswer`] comes in place, or later through
//! the session's method `answered`, and until then the session waits, as it does for a name. Both are plain data that
//! another thread may take. One loop, which owns all connections, answers in place. Several loops, each with its own
//! connections, pass a request on to each other and answer when all have: the numbers are added up, pages of
//! connections follow one another. Sessions need not know which of the two it is.

use std::net::IpAddr;
use std::task::Poll;
use std::time::Duration;

use super::ProcessWide;
use crate::proto::rules::{Commands, Edit};
use crate::reactor::slab::Key;
use crate::state::connection::Connection;
use crate::state::users::{Reloaded, UserId};
use crate::workers::dns_cache::DnsStats;
use metp_protocol::ConnectionId;

/// The server as a session sees it. The server implements it; so do the fakes of tests.
pub trait Control {
    /// Sends a request. `Pending`: the answer comes through the session, which sends no other request before.
    fn ask(&mut self, request: ControlRequest, process: &ProcessWide) -> Poll<ControlAnswer>;

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
    /// Read the users file, the rules and the configuration file again.
    Reload {
        /// The session.
        session: Key,
        /// Whether tunnels that the rules do not allow any more are ended.
        cut: bool,
    },
    /// Change a line of the rules, for this session.
    ChangeRules {
        /// The session.
        session: Key,
        /// The change.
        edit: Edit,
    },
    /// Which rule would decide?
    TestRules(TestedRequest),
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
    /// What reading the files again has changed, or what is wrong with them.
    Reloaded(Result<ReloadSummary, Vec<String>>),
    /// Whether the rules have changed.
    RulesChanged(RuleChange),
    /// What a request would come to.
    RulesTested(RulesVerdict),
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

impl ControlAnswer {
    /// Whether a change that was asked for has been made.
    pub fn is_change_made(&self) -> bool {
        match self {
            ControlAnswer::Killed(made) | ControlAnswer::Draining(made) => *made,
            ControlAnswer::UserKilled(_)
            | ControlAnswer::Reloaded(Ok(_))
            | ControlAnswer::RulesChanged(RuleChange::Done)
            | ControlAnswer::Saved(Ok(()))
            | ControlAnswer::Reset(Ok(())) => true,
            ControlAnswer::Connections { .. }
            | ControlAnswer::Reloaded(Err(_))
            | ControlAnswer::RulesChanged(_)
            | ControlAnswer::RulesTested(_)
            | ControlAnswer::Saved(Err(_))
            | ControlAnswer::Reset(Err(_))
            | ControlAnswer::NoState
            | ControlAnswer::NoFile
            | ControlAnswer::Status(_)
            | ControlAnswer::Usage(..) => false,
        }
    }
}

const _: () = {
    const fn may_cross_threads<T: Send + 'static>() {}
    may_cross_threads::<ControlRequest>();
    may_cross_threads::<ControlAnswer>();
};

/// What reading the files again has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReloadSummary {
    /// Accounts.
    pub accounts: Reloaded,
    /// Settings that are others now.
    pub settings: usize,
    /// Rules that are in force. `None`: there is no file of rules.
    pub rules: Option<usize>,
    /// Tunnels that are going to be ended. `None`: this session has not asked for that.
    pub cut: Option<usize>,
}

/// What has become of a change of the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleChange {
    /// It is on the disk, and in force.
    Done,
    /// There is no rule in this line.
    NoRule,
    /// The line has another rule; this says which.
    Other(String),
    /// The rules would not be good ones; this says why.
    Invalid(String),
    /// It could not be stored; this says why.
    NotStored(String),
}

/// A request that is not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestedRequest {
    /// The account's name.
    pub user: Box<[u8]>,
    /// The client's address.
    pub source: IpAddr,
    /// The kind of the request.
    pub command: Commands,
    /// The destination: its address, or its name.
    pub host: Result<IpAddr, String>,
    /// The port.
    pub port: u16,
}

/// What a request would come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesVerdict {
    /// Whether it would be allowed. `None`: that depends on the address of the name.
    pub allow: Option<bool>,
    /// What decides, in one word.
    pub by: &'static str,
    /// The line of the rule, and the rule.
    pub rule: Option<(u32, String)>,
}

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
    /// Time on processors.
    pub cpu: Duration,
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
    /// Logins whose hash is waited for, or is being computed.
    pub logins_queued: usize,
}
