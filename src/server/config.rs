//! What a server is made of.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use mio::unix::pipe::Receiver;

use super::descriptors::FEWEST_DESCRIPTORS;
use crate::reactor::waker::Waker;
use crate::state::service::PerService;
use crate::state::settings::Settings;
use crate::state::users::Users;
use crate::state::verifier::Verifier;
use crate::workers::log_writer::LogWriter;
use crate::workers::resolver::{Lookup, system_lookup};

/// Makes what decides about logins; the waker is called when verdicts have come.
pub type MakeVerifier = dyn FnOnce(Waker) -> Box<dyn Verifier>;

/// What a server is made of.
pub struct Config {
    /// Address of the SOCKS service; `None` is all interfaces.
    pub listen: Option<IpAddr>,
    /// Its port; 0 lets the system choose.
    pub port: u16,
    /// Address of the METP service.
    pub metp_listen: IpAddr,
    /// Its port; 0 lets the system choose.
    pub metp_port: u16,
    /// Who may log in at first.
    pub users: Users,
    /// The settings at first. The server adds its own ports.
    pub settings: Settings,
    /// How names are looked up.
    pub lookup: Box<Lookup>,
    /// How logins are verified; otherwise in place, against the accounts' passwords.
    pub verifier: Option<Box<MakeVerifier>>,
    /// Descriptors that the process may have; no session is admitted that could need more.
    pub descriptors: Descriptors,
    /// Bytes of address space that the process may have, if that is limited: threads take half of it at most.
    pub address_space: Option<usize>,
    /// Where the lines of the access log go.
    pub access_log: Option<LogWriter>,
    /// Where diagnostics go, to tell how many were dropped.
    pub diagnostics: Option<LogWriter>,
    /// Whether the process has been started on a terminal: then it ends when that is gone.
    pub on_terminal: bool,
    /// Where signals come from.
    pub signals: Option<Receiver>,
}

impl Config {
    /// Where each service listens.
    pub(super) fn addresses(&self) -> PerService<(Option<IpAddr>, u16)> {
        PerService {
            socks: (self.listen, self.port),
            metp: (Some(self.metp_listen), self.metp_port),
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
    /// As many as the process may have (RLIMIT_NOFILE); `inherited` of them are open at the start besides the
    /// standard streams.
    ///
    /// # Errors
    /// If those that are left do not suffice for METP and one tunnel.
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

    /// As many as the process may have.
    pub fn limit(self) -> usize {
        self.limit
    }

    /// As many as it may have without what it has inherited.
    pub fn usable(self) -> usize {
        self.limit.saturating_sub(self.inherited)
    }
}

/// Any free ports on 127.0.0.1, nobody who may log in, and all else as the program has it by default.
impl Default for Config {
    fn default() -> Self {
        Config {
            listen: Some(Ipv4Addr::LOCALHOST.into()),
            port: 0,
            metp_listen: Ipv4Addr::LOCALHOST.into(),
            metp_port: 0,
            users: Users::default(),
            settings: Settings::default(),
            lookup: Box::new(system_lookup),
            verifier: None,
            descriptors: Descriptors { limit: usize::MAX, inherited: 0 },
            address_space: None,
            access_log: None,
            diagnostics: None,
            on_terminal: false,
            signals: None,
        }
    }
}
