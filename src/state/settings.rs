//! The settings of the server.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use log::LevelFilter;

use crate::reactor::family::PerFamily;
use crate::reactor::liveness::Liveness;
use crate::workers::dns_cache::Ttls;
use crate::workers::families::Prefer;
use metp_protocol::network::Network;

/// The settings in force. Their names, ranges and descriptions are in [`super::knobs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Capacity of each direction's buffer in a tunnel, in bytes.
    pub buffer_size: usize,
    /// Bytes of buffers in all from which on leases are small.
    pub buffer_memory: usize,
    /// SOCKS connections that may be open at once.
    pub max_connections: usize,
    /// SOCKS connections from one address that may be open at once; `None`: no limit.
    pub max_connections_per_ip: Option<usize>,
    /// METP sessions that may be open at once.
    pub max_metp_sessions: usize,
    /// Names looked up at once.
    pub dns_threads: usize,
    /// Password hashes that are computed at once.
    pub auth_threads: usize,
    /// Names that may wait to be looked up.
    pub dns_queue: usize,
    /// Records that METP's access log keeps.
    pub log_entries: usize,
    /// The level of the diagnostics.
    pub log_level: LevelFilter,
    /// How long open tunnels may continue while the server drains.
    pub grace: Duration,
    /// How long they may continue once another server has taken over.
    pub drain_limit: Duration,
    /// Which clients may connect to loopback, link-local and unspecified addresses.
    pub local_for: LocalFor,
    /// How long the answers of look-ups are cached.
    pub names: Ttls,
    /// Clients that need no login.
    pub trust: TrustSettings,
    /// Whether CONNECT of HTTP is served on the port of SOCKS.
    pub http_connect: bool,
    /// Whether clients may look names and addresses up (RESOLVE and RESOLVE_PTR).
    pub resolve: bool,
    /// BIND.
    pub bind: BindSettings,
    /// UDP ASSOCIATE.
    pub udp: UdpSettings,
    /// The addresses that connections and datagrams to targets leave from; `None`: the system chooses. Set at the
    /// start.
    pub bind_out: PerFamily<Option<IpAddr>>,
    /// Which family of the addresses of a name goes first.
    pub prefer: Prefer,
    /// The deadlines.
    pub timeouts: Timeouts,
    /// The ports of this server itself, to which no client may connect.
    pub own_ports: Vec<u16>,
    /// HTTP, for monitoring. Set at the start.
    pub http: HttpSettings,
}

/// Sessions of HTTP that may be open at once.
pub const HTTP_SESSIONS: usize = 32;

/// HTTP, for monitoring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpSettings {
    /// Whether an administrator has to log in: the port is not on loopback.
    pub login: bool,
    /// A name of this server, which a field Host may have besides addresses and `localhost`.
    pub host: Option<String>,
    /// Host and port of SOCKS for browsers, as `/proxy.pac` names them. `None`: there is no such file.
    pub pac: Option<String>,
}

/// Which clients may connect to loopback, link-local and unspecified addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalFor {
    /// Clients with a loopback address: they are on this machine already, unless a program there connects for them.
    Loopback,
    /// No client.
    Nobody,
    /// All clients.
    All,
}

impl LocalFor {
    /// All values, in the order of listings.
    pub const ALL: [LocalFor; 3] = [LocalFor::Loopback, LocalFor::Nobody, LocalFor::All];

    /// The value on the command line and in METP.
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
            auth_threads: 1,
            dns_queue: 1024,
            log_entries: 1000,
            log_level: LevelFilter::Info,
            grace: Duration::from_secs(3),
            drain_limit: Duration::from_secs(3600),
            local_for: LocalFor::Loopback,
            names: Ttls { found: seconds(30), failed: seconds(5) },
            trust: TrustSettings::default(),
            http_connect: false,
            resolve: true,
            bind: BindSettings::default(),
            udp: UdpSettings::default(),
            bind_out: PerFamily::default(),
            prefer: Prefer::default(),
            timeouts: Timeouts::default(),
            own_ports: Vec::new(),
            http: HttpSettings::default(),
        }
    }
}

/// Networks that may be trusted at once: each new client is compared with all of them.
pub const MOST_NETWORKS: usize = 256;

/// There are [`MOST_NETWORKS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyNetworks;

/// Clients that need no login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustSettings {
    /// The networks they come from, in the order in which they were named, none twice.
    networks: Vec<Network>,
    /// Whether a login that is wrong does not matter there either.
    pub any_login: bool,
}

impl TrustSettings {
    /// Whether clients with this address need no login.
    pub fn includes(&self, source: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(source))
    }

    /// The networks, in the order in which they were named.
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }

    /// Trusts a network; one that is trusted already stays where it is.
    ///
    /// # Errors
    /// [`TooManyNetworks`] if there are [`MOST_NETWORKS`].
    pub fn add(&mut self, network: Network) -> Result<(), TooManyNetworks> {
        if self.networks.contains(&network) {
            return Ok(());
        }
        if self.networks.len() >= MOST_NETWORKS {
            return Err(TooManyNetworks);
        }
        self.networks.push(network);
        Ok(())
    }

    /// Trusts these networks alone.
    pub fn replace(&mut self, networks: &[Network]) {
        self.networks = networks.to_vec();
    }

    /// The networks among them that every address of a family belongs to.
    pub fn everything(&self) -> impl Iterator<Item = &Network> {
        self.networks.iter().filter(|network| network.is_everything())
    }

    /// Trusts a network no longer; others that have its addresses remain. Returns whether it was there.
    pub fn remove(&mut self, network: Network) -> bool {
        let before = self.networks.len();
        self.networks.retain(|known| *known != network);
        self.networks.len() < before
    }
}

/// BIND (RFC 1928 §4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindSettings {
    /// Whether clients may accept connections at all.
    pub enabled: bool,
    /// The ports of listeners; `None`: the kernel chooses. Set at the start.
    pub ports: Option<RangeInclusive<u16>>,
    /// The addresses that replies name instead of the one that is listened on. Set at the start.
    pub advertise: PerFamily<Option<IpAddr>>,
}

impl Default for BindSettings {
    fn default() -> Self {
        BindSettings { enabled: true, ports: None, advertise: PerFamily::default() }
    }
}

/// UDP ASSOCIATE (RFC 1928 §7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpSettings {
    /// Whether associations are opened at all.
    pub enabled: bool,
    /// Whose datagrams reach the client.
    pub filter: UdpFilter,
    /// Targets of an association that get a line in the access log.
    pub log: usize,
    /// Associations of one account that may be open at once; `None`: no limit.
    pub max_associations: Option<usize>,
    /// The ports towards clients; `None`: the kernel chooses. Set at the start.
    pub ports: Option<RangeInclusive<u16>>,
    /// The addresses that replies name instead of the one that the client reached. Set at the start.
    pub advertise: PerFamily<Option<IpAddr>>,
}

impl Default for UdpSettings {
    fn default() -> Self {
        UdpSettings {
            enabled: true,
            filter: UdpFilter::Address,
            log: 16,
            max_associations: None,
            ports: None,
            advertise: PerFamily::default(),
        }
    }
}

/// Whose datagrams reach the client of an association (RFC 4787 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpFilter {
    /// Anybody's: endpoint-independent filtering.
    Any,
    /// Those from addresses that the client has sent to: address-dependent filtering.
    Address,
    /// Those from addresses and ports that the client has sent to.
    Port,
}

impl UdpFilter {
    /// All values, in the order of listings.
    pub const ALL: [UdpFilter; 3] = [UdpFilter::Any, UdpFilter::Address, UdpFilter::Port];

    /// The value on the command line and in METP.
    pub fn word(self) -> &'static str {
        match self {
            UdpFilter::Any => "any",
            UdpFilter::Address => "address",
            UdpFilter::Port => "port",
        }
    }
}

/// Deadlines; `None`: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accepting a connection to its complete request.
    pub handshake: Option<Duration>,
    /// From the request to the addresses of its name.
    pub resolve: Option<Duration>,
    /// For one connection attempt.
    pub connect: Option<Duration>,
    /// For all connection attempts of a request.
    pub connect_total: Option<Duration>,
    /// Without a byte in a tunnel, until it is closed.
    pub idle: Option<Duration>,
    /// From a BIND to the connection of its peer.
    pub bind: Option<Duration>,
    /// Without a datagram in an association, until it is closed.
    pub udp_idle: Option<Duration>,
    /// Without a byte in a half-closed tunnel, until it is closed.
    pub half_close: Option<Duration>,
    /// Without a byte in a tunnel, until the kernel probes the peers (SO_KEEPALIVE).
    pub keepalive: Option<Duration>,
    /// For a peer to acknowledge sent bytes.
    pub ack: Option<Duration>,
    /// For a peer to read the final output and close.
    pub linger: Option<Duration>,
    /// From a METP connection to its login.
    pub metp_login: Option<Duration>,
    /// Without an octet in a METP session, until it is closed.
    pub metp_idle: Option<Duration>,
    /// For a METP subscriber to read the events that wait.
    pub subscriber: Option<Duration>,
    /// How long connections are still accepted once a shutdown has begun.
    pub drain_wait: Option<Duration>,
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
            bind: seconds(60),
            udp_idle: seconds(300),
            half_close: seconds(300),
            keepalive: seconds(60),
            ack: seconds(120),
            linger: seconds(5),
            metp_login: seconds(10),
            metp_idle: seconds(600),
            subscriber: seconds(30),
            drain_wait: None,
        }
    }
}

impl Timeouts {
    /// Keepalive of tunnels. There is no TCP_USER_TIMEOUT, since it would also end the connections of peers that
    /// exist and do not read.
    pub fn liveness(&self) -> Liveness {
        Liveness::new(self.keepalive, None)
    }

    /// Keepalive and TCP_USER_TIMEOUT of METP sessions.
    pub fn metp_liveness(&self) -> Liveness {
        Liveness::new(self.keepalive, self.ack)
    }
}
