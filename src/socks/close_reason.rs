//! Why a session ended.

use std::fmt;

use crate::reactor::errno::is_of_the_peer;
use crate::state::metrics::Metrics;

/// Why a session ended. Displays as the last field of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
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
    Evicted,
    /// The server is closing down.
    Shutdown,
    /// A call failed on this machine although the peers live, for instance for want of memory.
    LocalError,
    /// The session's turn panicked.
    Panic,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl CloseReason {
    /// Counts a connection that ended for this reason before its request was complete.
    pub fn count_unfinished(self, metrics: &mut Metrics) {
        match self {
            CloseReason::Unauthorized => metrics.sessions.socks.refused_auth += 1,
            CloseReason::Evicted => metrics.sessions.socks.refused_limit += 1,
            CloseReason::Protocol
            | CloseReason::Left
            | CloseReason::ClientReset
            | CloseReason::LocalError
            | CloseReason::HandshakeTimeout => {
                metrics.unfinished += 1;
            }
            _ => {}
        }
    }

    /// What a failing call comes to: `peers`, if its error is news of the peer, or this machine's own fault.
    pub fn of(error: &std::io::Error, peers: CloseReason) -> Self {
        if is_of_the_peer(error) { peers } else { CloseReason::LocalError }
    }

    /// Whether the peers see the end as an orderly one (FIN). All other ends are passed on as a reset, so that
    /// nobody takes what came before for the whole.
    pub fn is_orderly(self) -> bool {
        matches!(
            self,
            CloseReason::Finished
                | CloseReason::Refused
                | CloseReason::Protocol
                | CloseReason::Unauthorized
                | CloseReason::Left
                | CloseReason::HandshakeTimeout
                | CloseReason::Evicted
        )
    }

    /// Whether the diagnostics have been told already why a connection ended before its request was complete, or
    /// need not be.
    pub fn is_told(self) -> bool {
        matches!(
            self,
            CloseReason::Protocol
                | CloseReason::Unauthorized
                | CloseReason::Panic
                | CloseReason::Shutdown
                | CloseReason::Finished
                | CloseReason::Refused
                | CloseReason::Killed
        )
    }

    /// The word of the access log.
    pub fn word(self) -> &'static str {
        match self {
            CloseReason::Finished => "finished",
            CloseReason::Refused => "refused",
            CloseReason::Protocol => "protocol-error",
            CloseReason::Unauthorized => "unauthorized",
            CloseReason::Left => "left",
            CloseReason::ClientReset => "client-reset",
            CloseReason::TargetReset => "target-reset",
            CloseReason::ClientTimeout => "client-timeout",
            CloseReason::TargetTimeout => "target-timeout",
            CloseReason::HandshakeTimeout => "handshake-timeout",
            CloseReason::IdleTimeout => "idle-timeout",
            CloseReason::HalfCloseTimeout => "half-close-timeout",
            CloseReason::UserDeleted => "user-deleted",
            CloseReason::Killed => "killed",
            CloseReason::Evicted => "evicted",
            CloseReason::Shutdown => "shutdown",
            CloseReason::LocalError => "local-error",
            CloseReason::Panic => "panic",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_this_machine_is_not_booked_as_the_peers() {
        let of = |errno| {
            CloseReason::of(&std::io::Error::from_raw_os_error(errno), CloseReason::ClientReset)
        };
        for errno in [libc::ENOBUFS, libc::ENOMEM, libc::EPERM, libc::ENOSYS] {
            assert_eq!(of(errno), CloseReason::LocalError, "{errno}");
        }
        for errno in [libc::ECONNRESET, libc::EPIPE, libc::ETIMEDOUT, libc::EHOSTUNREACH] {
            assert_eq!(of(errno), CloseReason::ClientReset, "{errno}");
        }
    }
}
