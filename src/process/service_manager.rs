//! What a service manager has said in variables of the environment.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use common::process::{cannot, take_from_environment};

use super::activation::Variables;
use crate::server::Notifier;

/// What it has said.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Option<OsString>,
    watchdog: Option<OsString>,
    watchdog_pid: Option<OsString>,
    /// The sockets that it has handed over.
    pub sockets: Variables,
}

impl ServiceManager {
    /// Takes the variables out of the environment: they are for this process alone. To be called before there is a second
    /// thread.
    pub fn take() -> Self {
        let take = take_from_environment;
        ServiceManager {
            socket: take("NOTIFY_SOCKET"),
            watchdog: take("WATCHDOG_USEC"),
            watchdog_pid: take("WATCHDOG_PID"),
            sockets: Variables {
                count: take("LISTEN_FDS"),
                process: take("LISTEN_PID"),
                names: take("LISTEN_FDNAMES"),
            },
        }
    }

    /// What it is to be sent goes there.
    ///
    /// # Errors
    /// If its socket has no good name.
    pub fn notifier(&self) -> io::Result<Option<Notifier>> {
        let [socket, watchdog, pid] =
            [&self.socket, &self.watchdog, &self.watchdog_pid].map(Option::as_deref);
        Notifier::open(socket, watchdog, pid).map_err(cannot("use NOTIFY_SOCKET"))
    }
}

/// The state directory that systemd has made for this service: the first, if there are several.
pub fn state_directory() -> Option<PathBuf> {
    let paths = std::env::var_os("STATE_DIRECTORY")?;
    let first = paths.as_bytes().split(|byte| *byte == b':').next()?.to_owned();
    (!first.is_empty()).then(|| OsString::from_vec(first).into())
}
