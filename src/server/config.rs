//! The configuration of a server.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use mio::unix::pipe::Receiver;

use super::descriptors::FEWEST_DESCRIPTORS;
use super::notify::Notifier;
use super::takeover::TakeoverSocket;
use crate::proto::rules::RuleSet;
use crate::proto::usage_file::Figures;
use crate::reactor::waker::Waker;
use crate::state::access_log::AccessLogFormat;
use crate::state::configuration::{Configuration, Reading};
use crate::state::service::PerService;
use crate::state::settings::Settings;
use crate::state::users::Users;
use crate::state::verifier::Verifier;
use crate::workers::log_writer::LogWriter;
use crate::workers::resolver::{Lookup, SystemLookup};
use crate::workers::store::Files;

/// Where each service listens: an address (`None`: all interfaces) and a port.
pub type Addresses = PerService<Option<(Option<IpAddr>, u16)>>;

/// Makes the verifier of logins; it calls the waker when verdicts have come.
pub type MakeVerifier = dyn FnOnce(Waker) -> Box<dyn Verifier>;

/// The configuration of a server.
pub struct Config {
    /// Address of the SOCKS service; `None` is all interfaces.
    pub listen: Option<IpAddr>,
    /// Its port; 0 lets the system choose.
    pub port: u16,
    /// Address of the METP service.
    pub metp_listen: IpAddr,
    /// Its port; 0 lets the system choose.
    pub metp_port: u16,
    /// Address of HTTP, for monitoring; `None`: there is none.
    pub http: Option<SocketAddr>,
    /// Sockets that listen already, each in place of one that would be bound; with one, a service is on in any case.
    pub sockets: PerService<Option<TcpListener>>,
    /// The initial accounts.
    pub users: Users,
    /// The users file, from which the initial accounts were read, the state directory, and what reads the configuration.
    pub files: Files<Reading>,
    /// Where the initial settings come from.
    pub configuration: Configuration,
    /// The figures that the server before has left. Those of accounts have been restored already.
    pub figures: Option<Figures>,
    /// Files that were found to be damaged.
    pub store_errors: u64,
    /// Whether the users file is changed by others alone.
    pub users_fixed: bool,
    /// The rules for destinations, read from their file.
    pub rules: Option<RuleSet>,
    /// Whether METP may not change the rules.
    pub rules_fixed: bool,
    /// The initial settings. The server adds its own ports.
    pub settings: Settings,
    /// How names, and names of addresses, are looked up.
    pub lookup: Box<dyn Lookup>,
    /// How logins are verified; otherwise against the accounts' passwords and hashes.
    pub verifier: Option<Box<MakeVerifier>>,
    /// The limit of descriptors; admission never exceeds it.
    pub descriptors: Descriptors,
    /// The limit of address space in bytes, if there is one; threads take half of it at most.
    pub address_space: Option<usize>,
    /// The writer of the access log. `None`: there is none.
    pub access_log: Option<LogWriter>,
    /// The form of its lines.
    pub access_log_format: AccessLogFormat,
    /// The writer of the diagnostics, for the number of dropped lines.
    pub diagnostics: Option<LogWriter>,
    /// Whether the process has been started on a terminal: then it ends when that is gone.
    pub on_terminal: bool,
    /// The pipe of signals.
    pub signals: Option<Receiver>,
    /// The service manager. `None`: there is none.
    pub notifier: Option<Notifier>,
    /// Where a new server may ask for the listeners. `None`: nowhere.
    pub takeover: Option<TakeoverSocket>,
}

impl Config {
    /// Where each service listens.
    pub(super) fn addresses(&self) -> Addresses {
        PerService {
            socks: Some((self.listen, self.port)),
            metp: Some((Some(self.metp_listen), self.metp_port)),
            http: self.http.map(|http| (Some(http.ip()), http.port())),
        }
    }
}

/// Descriptors of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    limit: usize,
    inherited: usize,
}

impl Descriptors {
    /// `limit` is RLIMIT_NOFILE; `inherited` descriptors are open at the start besides the standard streams.
    ///
    /// # Errors
    /// If the rest does not suffice for METP and one tunnel.
    pub fn new(limit: usize, inherited: usize) -> io::Result<Self> {
        let descriptors = Descriptors { limit, inherited };
        if descriptors.usable() >= FEWEST_DESCRIPTORS {
            return Ok(descriptors);
        }
        let needed = FEWEST_DESCRIPTORS.saturating_add(inherited);
        Err(io::Error::other(format!(
            "too few descriptors: the limit is {limit}, and {needed} are needed, {inherited} of them for \
             what is open already (ulimit -n)"
        )))
    }

    /// The limit of the process.
    pub fn limit(self) -> usize {
        self.limit
    }

    /// The limit without the inherited descriptors.
    pub fn usable(self) -> usize {
        self.limit.saturating_sub(self.inherited)
    }
}

/// Any free ports on 127.0.0.1, no account, and the defaults of the program otherwise.
impl Default for Config {
    fn default() -> Self {
        Config {
            listen: Some(Ipv4Addr::LOCALHOST.into()),
            port: 0,
            metp_listen: Ipv4Addr::LOCALHOST.into(),
            metp_port: 0,
            http: None,
            sockets: PerService::default(),
            users: Users::default(),
            files: Files::default(),
            configuration: Configuration::default(),
            figures: None,
            store_errors: 0,
            users_fixed: false,
            rules: None,
            rules_fixed: false,
            settings: Settings::default(),
            lookup: Box::new(SystemLookup),
            verifier: None,
            descriptors: Descriptors { limit: usize::MAX, inherited: 0 },
            address_space: None,
            access_log: None,
            access_log_format: AccessLogFormat::default(),
            diagnostics: None,
            on_terminal: false,
            signals: None,
            notifier: None,
            takeover: None,
        }
    }
}
