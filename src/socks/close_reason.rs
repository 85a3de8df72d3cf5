//! Why a session ended.

use std::fmt;

use crate::reactor::errno::is_of_the_peer;
use crate::state::metrics::Metrics;
use crate::state::users::LimitReached;

/// Why a session ended. Displays as the last field of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Both directions came to their end.
    Finished,
    /// The request was answered with a refusal.
    Refused,
    /// The request was refused, since a limit of the account does not allow it.
    LimitRefused(LimitReached),
    /// A limit of the account has been reached while it was served.
    LimitEnded(LimitReached),
    /// The client does not speak SOCKS5, or not properly.
    Protocol,
    /// The client may not log in.
    Unauthorized,
    /// Too many logins wait for a verdict.
    Overloaded,
    /// The client closed before its request was complete.
    Left,
    /// The client has reset its connection.
    ClientReset,
    /// The target has reset its connection.
    TargetReset,
    /// The client has acknowledged nothing for too long although bytes were under way to it.
    ClientTimeout,
    /// The target has acknowledged nothing for too long although bytes were under way to it.
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
    /// The rules do not allow it any more.
    Denied,
    /// It was evicted for a new connection before its request was complete.
    Evicted,
    /// The server has ended.
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

    /// The reason for an error of a call: `peers` if the error is the peer's, otherwise [`CloseReason::LocalError`].
    pub fn of(error: &std::io::Error, peers: CloseReason) -> Self {
        if is_of_the_peer(error) { peers } else { CloseReason::LocalError }
    }

    /// Whether the peers get a FIN. All other ends are passed on as a reset, so that a peer does not take what it
    /// received for a complete transfer.
    pub fn is_orderly(self) -> bool {
        matches!(
            self,
            CloseReason::Finished
                | CloseReason::Refused
                | CloseReason::LimitRefused(_)
                | CloseReason::Protocol
                | CloseReason::Unauthorized
                | CloseReason::Overloaded
                | CloseReason::Left
                | CloseReason::HandshakeTimeout
                | CloseReason::Evicted
        )
    }

    /// Whether this end before a complete request needs no log line: it has been logged, or is no fault.
    pub fn is_logged(self) -> bool {
        matches!(
            self,
            CloseReason::Protocol
                | CloseReason::Unauthorized
                | CloseReason::Overloaded
                | CloseReason::Panic
                | CloseReason::Shutdown
                | CloseReason::Finished
                | CloseReason::Refused
                | CloseReason::LimitRefused(_)
                | CloseReason::LimitEnded(_)
                | CloseReason::Killed
                | CloseReason::Denied
        )
    }

    /// The word of the access log.
    pub fn word(self) -> &'static str {
        match self {
            CloseReason::Finished => "finished",
            CloseReason::Refused => "refused",
            CloseReason::LimitRefused(reached) | CloseReason::LimitEnded(reached) => reached.word(),
            CloseReason::Protocol => "protocol-error",
            CloseReason::Unauthorized => "unauthorized",
            CloseReason::Overloaded => "overloaded",
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
            CloseReason::Denied => "denied",
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
