//! What an administrator can set.

use std::time::Duration;

use log::LevelFilter;

use crate::reactor::liveness::Liveness;
use crate::workers::dns_cache::Ttls;

/// The settings in force. What each is called, and what it takes, stands in
/// [`super::knobs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Capacity of each direction's buffer in a tunnel, in bytes.
    pub buffer_size: usize,
    /// Bytes of buffers in all, from which on tunnels read in small pieces.
    pub buffer_memory: usize,
    /// SOCKS connections that may be open at once.
    pub max_connections: usize,
    /// SOCKS connections from one address that may be open at once; `None` is any number.
    pub max_connections_per_ip: Option<usize>,
    /// METP sessions that may be open at once.
    pub max_metp_sessions: usize,
    /// Names looked up at once.
    pub dns_threads: usize,
    /// Names that may wait to be looked up.
    pub dns_queue: usize,
    /// Records that METP's access log keeps.
    pub log_entries: usize,
    /// What diagnostics tell.
    pub log_level: LevelFilter,
    /// How long open tunnels may go on when the server closes down.
    pub grace: Duration,
    /// Which clients may connect to loopback, link-local and unspecified addresses.
    pub local_for: LocalFor,
    /// How long names are remembered.
    pub names: Ttls,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// The ports of this server itself, which no client may connect to.
    pub own_ports: Vec<u16>,
}

/// Which clients may connect to loopback, link-local and unspecified addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalFor {
    /// Those that come from a loopback address, and so are on this machine already, unless something on this
    /// machine connects for them.
    Loopback,
    /// None at all.
    Nobody,
    /// All of them.
    All,
}

impl LocalFor {
    /// All of them, in the order in which they are listed.
    pub const ALL: [LocalFor; 3] = [LocalFor::Loopback, LocalFor::Nobody, LocalFor::All];

    /// The word for it on the command line and in METP.
    pub fn word(self) -> &'static str {
        match self {
            LocalFor::Loopback => "loopback",
            LocalFor::Nobody => "nobody",
            LocalFor::All => "all",
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        Settings {
            buffer_size: 65536,
            buffer_memory: 256 << 20,
            max_connections: 1024,
            max_connections_per_ip: None,
            max_metp_sessions: 256,
            dns_threads: 32,
            dns_queue: 1024,
            log_entries: 1000,
            log_level: LevelFilter::Info,
            grace: Duration::from_secs(3),
            local_for: LocalFor::Loopback,
            names: Ttls { found: seconds(30), failed: seconds(5) },
            timeouts: Timeouts::default(),
            own_ports: Vec::new(),
        }
    }
}

/// How long things may take; `None` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the connection to the whole request.
    pub handshake: Option<Duration>,
    /// From the request to the addresses of its name.
    pub resolve: Option<Duration>,
    /// For connecting to one address.
    pub connect: Option<Duration>,
    /// For connecting to all addresses of a name.
    pub connect_total: Option<Duration>,
    /// Of a tunnel in which no byte moves.
    pub idle: Option<Duration>,
    /// Of a tunnel with one direction over, in which no byte moves.
    pub half_close: Option<Duration>,
    /// Of a tunnel in which no byte moves, until the kernel probes whether the peers still exist.
    pub keepalive: Option<Duration>,
    /// For a peer to acknowledge anything while bytes are under way to it.
    pub ack: Option<Duration>,
    /// For a client to take the last reply and close.
    pub linger: Option<Duration>,
    /// From a METP connection to its login.
    pub metp_login: Option<Duration>,
    /// Of a METP session in which nothing moves.
    pub metp_idle: Option<Duration>,
    /// Of a subscriber who takes nothing, while events wait.
    pub subscriber: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        Timeouts {
            handshake: seconds(10),
            resolve: seconds(15),
            connect: seconds(10),
            connect_total: seconds(30),
            idle: seconds(3600),
            half_close: seconds(300),
            keepalive: seconds(60),
            ack: seconds(120),
            linger: seconds(5),
            metp_login: seconds(10),
            metp_idle: seconds(600),
            subscriber: seconds(30),
        }
    }
}

impl Timeouts {
    /// How the kernel finds out that a peer of a tunnel is gone. It has no user timeout: that would also end the
    /// connections of peers that are there and do not read.
    pub fn liveness(&self) -> Liveness {
        Liveness::new(self.keepalive, None)
    }

    /// How the kernel finds out that a METP client is gone, or takes none of its answers.
    pub fn metp_liveness(&self) -> Liveness {
        Liveness::new(self.keepalive, self.ack)
    }
}
