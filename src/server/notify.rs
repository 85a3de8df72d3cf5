//! What a service manager is sent while the server runs: the datagrams of sd_notify(3), without libsystemd.
//!
//! The socket never blocks. A change of state that the manager has no room for is sent again a little later; what is
//! only news (`WATCHDOG`, `STATUS`) is dropped. The watchdog is fed by the turns of the loop and by nothing else: if
//! they stop, so does it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use super::Server;
use super::shutdown::Shutdown;
use crate::reactor::process_usage::monotonic;

/// When a message is sent again for which there was no room.
const SEND_AGAIN: Duration = Duration::from_millis(100);
/// Messages that wait for room. Beyond that the manager does not read.
const MOST_UNSENT: usize = 8;
/// The shortest time between two lines `STATUS`.
const STATUS_AFTER: Duration = Duration::from_secs(5);

/// The watchdog is fed no more often than this, however impatient it is.
const LEAST_FEED: Duration = Duration::from_millis(10);

/// The socket of the service manager, and what it is due.
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
    /// How often the watchdog is fed: half of the time after which it ends the process.
    watchdog: Option<Duration>,
    /// When it is fed next.
    feed: Option<Instant>,
    /// Open connections, as the manager knows them.
    reported: Option<u64>,
    /// When it may be sent the next number.
    status: Option<Instant>,
    /// Changes of state that could not be sent yet, the oldest first.
    unsent: VecDeque<String>,
    /// When they are sent again.
    again: Option<Instant>,
    /// It has been sent that files are read again.
    is_reloading: bool,
    /// It has been sent that the server ends.
    is_stopping: bool,
}

impl Notifier {
    /// The values are those of `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. `None`: there is no manager.
    ///
    /// # Errors
    /// If the socket's name is none, or no descriptor is left.
    pub fn open(
        socket: Option<&OsStr>,
        watchdog: Option<&OsStr>,
        watchdog_pid: Option<&OsStr>,
    ) -> io::Result<Option<Self>> {
        let Some(name) = socket.filter(|name| !name.is_empty()) else { return Ok(None) };
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => {
                let text = "neither a path from / on nor a name behind @";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let number = |text: Option<&OsStr>| text?.to_str()?.parse::<u64>().ok();
        let is_ours =
            watchdog_pid.is_none_or(|_| number(watchdog_pid) == Some(std::process::id().into()));
        let half = number(watchdog).filter(|usec| is_ours && *usec > 1).map(|usec| usec / 2);
        Ok(Some(Notifier {
            socket,
            address,
            watchdog: half.map(|half| Duration::from_micros(half).max(LEAST_FEED)),
            feed: None,
            reported: None,
            status: None,
            unsent: VecDeque::new(),
            again: None,
            is_reloading: false,
            is_stopping: false,
        }))
    }

    /// Sends a message, unless the manager has no room for it, or is gone.
    fn send(&self, message: &str) -> io::Result<()> {
        self.socket.send_to_addr(message.as_bytes(), &self.address).map(drop)
    }

    /// Sends changes of state, in their order.
    fn flush(&mut self, now: Instant) {
        self.again = None;
        while let Some(message) = self.unsent.front() {
            match self.send(message) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.again = now.checked_add(SEND_AGAIN);
                    return;
                }
                Err(error) => log::debug!("the service manager was not sent {message:?}: {error}"),
                Ok(()) => {}
            }
            self.unsent.pop_front();
        }
    }

    fn change(&mut self, message: String, now: Instant) {
        // What the manager has to know is the newest state.
        if self.unsent.len() >= MOST_UNSENT {
            self.unsent.pop_front();
        }
        self.unsent.push_back(message);
        self.flush(now);
    }

    /// When there is something to be sent.
    fn due(&self, open: u64) -> Option<Instant> {
        let status = self.status.filter(|_| self.reported != Some(open));
        [self.feed, self.again, status].into_iter().flatten().min()
    }

    /// Sends what is due. `open`: connections that are open.
    fn keep_up(&mut self, open: u64, now: Instant) {
        if self.again.is_some_and(|due| due <= now) {
            self.flush(now);
        }
        let feeds = self.feed.is_some_and(|due| due <= now);
        let reports = self.reported != Some(open) && self.status.is_some_and(|due| due <= now);
        let mut message = String::new();
        if feeds {
            message.push_str("WATCHDOG=1\n");
            self.feed = self.watchdog.and_then(|time| now.checked_add(time));
        }
        if reports {
            message.push_str(&format!("STATUS=open connections: {open}\n"));
            self.reported = Some(open);
            self.status = now.checked_add(STATUS_AFTER);
        }
        if !message.is_empty() {
            // The next one comes soon enough.
            let _ = self.send(&message);
        }
    }
}

impl Server {
    /// The ports accept, and what is needed is loaded.
    pub(super) fn notify_ready(&mut self, now: Instant) {
        let open = self.services.shared.metrics.sessions.socks.open as u64;
        let Some(notifier) = &mut self.notifier else { return };
        notifier.change(format!("READY=1\nSTATUS=open connections: {open}\n"), now);
        notifier.reported = Some(open);
        notifier.status = now.checked_add(STATUS_AFTER);
        notifier.feed = notifier.watchdog.and_then(|time| now.checked_add(time));
    }

    /// Files are about to be read again.
    pub(super) fn notify_reloading(&mut self, now: Instant) {
        let Some(notifier) = &mut self.notifier else { return };
        if !notifier.is_stopping {
            let time = monotonic().as_micros();
            notifier.change(format!("RELOADING=1\nMONOTONIC_USEC={time}\n"), now);
            notifier.is_reloading = true;
        }
    }

    /// If no more files are about to be read, the server is ready again.
    pub(super) fn notify_reloaded(&mut self, now: Instant) {
        let is_reloading = self.services.files.is_reloading();
        let Some(notifier) = &mut self.notifier else { return };
        if notifier.is_reloading && !is_reloading && !notifier.is_stopping {
            notifier.is_reloading = false;
            notifier.change("READY=1\n".to_owned(), now);
        }
    }

    /// When the service manager is due something.
    pub(super) fn next_notice(&self) -> Option<Instant> {
        let open = self.services.shared.metrics.sessions.socks.open as u64;
        self.notifier.as_ref()?.due(open)
    }

    /// Sends the service manager what it is due.
    pub(super) fn notify(&mut self, now: Instant) {
        let open = self.services.shared.metrics.sessions.socks.open as u64;
        let Some(notifier) = &mut self.notifier else { return };
        // Behind a takeover open tunnels may have more time than the manager gives a service that stops.
        let drains = matches!(self.shutdown, Shutdown::Draining { signalled: false, .. });
        let goes_on = self.shutdown == Shutdown::Running || self.takeover.is_done && drains;
        if !goes_on && !notifier.is_stopping {
            notifier.is_stopping = true;
            notifier.change("STOPPING=1\n".to_owned(), now);
        }
        notifier.keep_up(open, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Option<&OsStr> {
        Some(OsStr::new(value))
    }

    #[test]
    fn what_is_no_socket_is_an_error_and_nothing_is_none() {
        assert!(matches!(Notifier::open(None, text("5"), None), Ok(None)));
        assert!(matches!(Notifier::open(text(""), None, None), Ok(None)));
        for wrong in ["run/notify", "vsock:2:1234"] {
            assert!(Notifier::open(text(wrong), None, None).is_err(), "{wrong}");
        }
        assert!(Notifier::open(text(&"/x".repeat(100)), None, None).is_err());
    }

    #[test]
    fn the_watchdog_is_fed_at_half_its_time_and_only_ours() {
        let own = std::process::id().to_string();
        let fed = |usec: Option<&str>, pid: Option<&str>| {
            let notifier = Notifier::open(text("@x"), usec.map(OsStr::new), pid.map(OsStr::new));
            notifier.expect("a socket").expect("a name").watchdog
        };
        assert_eq!(fed(Some("5000000"), None), Some(Duration::from_micros(2_500_000)));
        assert_eq!(fed(Some("5000000"), Some(&own)), Some(Duration::from_micros(2_500_000)));
        for (usec, pid) in
            [(Some("5000000"), Some("1")), (Some("5000000"), Some("x")), (Some("0"), None)]
        {
            assert_eq!(fed(usec, pid), None, "{usec:?} {pid:?}");
        }
        assert_eq!((fed(Some("-5"), None), fed(None, Some(&own))), (None, None));
    }

    /// What is a change of state comes, in its order, once there is room; what is only news does not wait.
    #[test]
    fn a_manager_without_room_gets_changes_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        manager.set_nonblocking(true).expect("a socket");
        let mut notifier =
            Notifier::open(Some(path.as_os_str()), None, None).expect("a socket").expect("a name");
        let now = Instant::now();
        while notifier.send("X=1\n").is_ok() {}
        for number in 0..20 {
            notifier.change(format!("N={number}\n"), now);
        }
        let again = notifier.due(0).expect("to be sent again");
        assert_eq!(again, now + SEND_AGAIN);
        let read = || {
            let mut bytes = [0; 64];
            let count = manager.recv(&mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
        };
        while read().is_some_and(|line| line == "X=1\n") {}
        notifier.keep_up(0, again);
        let got: Vec<String> = std::iter::from_fn(read).collect();
        // The newest, since the last one says how it is.
        let expected: Vec<String> = (12..20).map(|number| format!("N={number}\n")).collect();
        assert_eq!(got, expected);
        assert_eq!(notifier.due(0), None);
    }
}
