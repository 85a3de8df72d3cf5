//! A request on its way: whose it is, where it goes, what came of it.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use crate::proto::socks5::{ReplyCode, Target};
use crate::reactor::errno::is_of_the_peer;
use crate::reactor::slab::Key;
use crate::state::access_log::{Outcome, Record};
use crate::state::metrics::Metrics;
use crate::state::users::SessionGuard;
use crate::state::{Shared, Traffic};
use metp_protocol::text::Escaped;
use metp_protocol::{Topic, field};

/// Why a session ended. Displays as the last field of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Both directions came to their end.
    Finished,
    /// The request was answered with a refusal.
    Refused,
    /// The client does not speak SOCKS5, or not properly.
    Protocol,
    /// The client may not log in.
    Unauthorized,
    /// The client closed before its request was complete.
    Left,
    /// The client has reset its connection.
    ClientReset,
    /// The target has reset its connection.
    TargetReset,
    /// The client has acknowledged nothing for too long although bytes were under way to it.
    ClientTimeout,
    /// The target has, likewise.
    TargetTimeout,
    /// The request was not complete in time.
    HandshakeTimeout,
    /// No byte has moved for too long.
    IdleTimeout,
    /// No byte has moved for too long, and one direction was over.
    HalfCloseTimeout,
    /// The account has been deleted.
    UserDeleted,
    /// An administrator has closed it.
    Killed,
    /// It made room for a newcomer, its own request not being complete.
    Displaced,
    /// The server is closing down.
    Shutdown,
    /// A call failed on this machine although the peers live, for instance for want of memory.
    LocalError,
    /// The session's turn panicked.
    Panic,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Reason {
    /// Counts a connection that ended for this reason before its request was complete.
    pub fn count_unfinished(self, metrics: &mut Metrics) {
        match self {
            Reason::Unauthorized => metrics.refused_auth += 1,
            Reason::Displaced => metrics.refused_limit += 1,
            Reason::Protocol
            | Reason::Left
            | Reason::ClientReset
            | Reason::LocalError
            | Reason::HandshakeTimeout => {
                metrics.unfinished += 1;
            }
            _ => {}
        }
    }

    /// What a failing call comes to: `peers`, if its error is news of the peer, or this machine's own fault.
    pub fn of(error: &std::io::Error, peers: Reason) -> Self {
        if is_of_the_peer(error) { peers } else { Reason::LocalError }
    }

    /// Whether the peers see the end as an orderly one (FIN). All other ends are passed on as a reset, so that
    /// nobody takes what came before for the whole.
    pub fn is_orderly(self) -> bool {
        matches!(
            self,
            Reason::Finished
                | Reason::Refused
                | Reason::Protocol
                | Reason::Unauthorized
                | Reason::Left
                | Reason::HandshakeTimeout
                | Reason::Displaced
        )
    }

    /// Whether the diagnostics have been told already why a connection ended before its request was complete, or
    /// need not be.
    pub fn is_told(self) -> bool {
        matches!(
            self,
            Reason::Protocol
                | Reason::Unauthorized
                | Reason::Panic
                | Reason::Shutdown
                | Reason::Finished
                | Reason::Refused
                | Reason::Killed
        )
    }

    fn word(self) -> &'static str {
        match self {
            Reason::Finished => "finished",
            Reason::Refused => "refused",
            Reason::Protocol => "protocol-error",
            Reason::Unauthorized => "unauthorized",
            Reason::Left => "left",
            Reason::ClientReset => "client-reset",
            Reason::TargetReset => "target-reset",
            Reason::ClientTimeout => "client-timeout",
            Reason::TargetTimeout => "target-timeout",
            Reason::HandshakeTimeout => "handshake-timeout",
            Reason::IdleTimeout => "idle-timeout",
            Reason::HalfCloseTimeout => "half-close-timeout",
            Reason::UserDeleted => "user-deleted",
            Reason::Killed => "killed",
            Reason::Displaced => "displaced",
            Reason::Shutdown => "shutdown",
            Reason::LocalError => "local-error",
            Reason::Panic => "panic",
        }
    }
}

/// A request on its way.
pub struct Errand {
    /// Whose it is.
    pub guard: SessionGuard,
    /// Where it goes.
    pub target: Rc<Target>,
    /// What was answered; a general failure as long as nothing was.
    pub status: ReplyCode,
    /// Payload delivered.
    pub traffic: Traffic,
    /// The account's name, which the log needs even after the account is gone.
    name: Rc<[u8]>,
    began: Instant,
}

impl Errand {
    /// A request that has just been read.
    pub fn new(guard: SessionGuard, name: Rc<[u8]>, target: Target, now: Instant) -> Self {
        let (target, status) = (Rc::new(target), ReplyCode::GeneralFailure);
        Errand { guard, target, status, traffic: Traffic::default(), name, began: now }
    }

    /// When the request was complete.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The account's name.
    pub fn name(&self) -> &Rc<[u8]> {
        &self.name
    }

    /// The tunnel of the client at `source` is open: it appears in METP's access log.
    pub fn open(&mut self, key: Key, source: SocketAddr, shared: &mut Shared) {
        self.status = ReplyCode::Succeeded;
        self.traffic.record = Some(shared.access_log.open(Record {
            time: SystemTime::now().into(),
            user: Rc::clone(&self.name),
            source: source.ip(),
            target: Rc::clone(&self.target),
            bytes: 0,
        }));
        shared.events.publish(Topic::Connections, || {
            let (user, target) = (field(Escaped(&self.name)), field(&self.target));
            format!("event=open id={} user={user} source={source} destination={target}", key.id())
        });
    }

    /// It is over: its line is written.
    pub fn finish(
        &self,
        key: Key,
        source: SocketAddr,
        reason: Reason,
        now: Instant,
        shared: &mut Shared,
    ) {
        shared.close(&Outcome {
            id: key.id(),
            time: SystemTime::now().into(),
            user: &self.name,
            source,
            target: &self.target,
            status: self.status,
            traffic: self.traffic,
            duration: now.saturating_duration_since(self.began),
            reason: reason.word(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_this_machine_is_not_booked_as_the_peers() {
        let of = |errno| Reason::of(&std::io::Error::from_raw_os_error(errno), Reason::ClientReset);
        for errno in [libc::ENOBUFS, libc::ENOMEM, libc::EPERM, libc::ENOSYS] {
            assert_eq!(of(errno), Reason::LocalError, "{errno}");
        }
        for errno in [libc::ECONNRESET, libc::EPIPE, libc::ETIMEDOUT, libc::EHOSTUNREACH] {
            assert_eq!(of(errno), Reason::ClientReset, "{errno}");
        }
    }
}
