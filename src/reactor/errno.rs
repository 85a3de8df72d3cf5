//! Errors of system calls by their cause: the peer, a shortage on this machine, or a call that this machine will
//! always refuse.
//!
//! A call that is an optimisation (splice(2)) or a courtesy (TCP_NODELAY) may be refused, by a seccomp filter,
//! a sandbox such as gVisor, or for want of memory, while both peers live. Such an error is never taken for
//! the peer's.

use std::io::{self, Error, ErrorKind};

/// Interruptions (EINTR) of one call after which its error is returned.
pub const MAX_INTERRUPTIONS: u32 = 100;

/// Whether it is an error of the connection, such as a socket keeps until a call takes it (SO_ERROR): the
/// peer has reset it, does not answer any more, or cannot be reached.
pub fn is_of_the_peer(error: &Error) -> bool {
    let kind = matches!(
        error.kind(),
        ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionRefused
            | ErrorKind::BrokenPipe
            | ErrorKind::NotConnected
            | ErrorKind::TimedOut
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
    );
    let rare = [libc::EHOSTDOWN, libc::ENETRESET, libc::ENONET, libc::ESHUTDOWN, libc::EPROTO];
    kind || error.raw_os_error().is_some_and(|code| rare.contains(&code))
}

/// Whether a repetition may succeed: something is short, or the call was interrupted.
pub fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
        || error.raw_os_error().is_some_and(is_shortage)
}

/// Whether an errno means a shortage that can pass: memory, descriptors, or room in a table of the kernel.
pub fn is_shortage(code: i32) -> bool {
    [libc::ENOMEM, libc::ENOBUFS, libc::ENOSPC, libc::EMFILE, libc::ENFILE].contains(&code)
}

/// Whether every repetition will be refused: the kernel lacks the call, or a policy forbids it.
pub fn is_for_good(error: &Error) -> bool {
    let refused = [libc::ENOSYS, libc::EPERM, libc::EACCES, libc::EINVAL, libc::EOPNOTSUPP];
    error.raw_os_error().is_some_and(|code| refused.contains(&code))
}

/// The result of a call that moves bytes.
#[derive(Debug)]
pub enum Transfer {
    /// The number of bytes moved, at least one.
    Moved(usize),
    /// Nothing now; an event will come.
    Blocked,
    /// Reading: EOF. Writing: the stream takes no more.
    Ended,
    /// The stream has failed.
    Failed(io::Error),
}

/// Makes a call and repeats it while it is interrupted, up to [`MAX_INTERRUPTIONS`] times.
pub fn retry_eintr(mut call: impl FnMut() -> io::Result<usize>) -> Transfer {
    let mut interruptions = 0;
    loop {
        match call() {
            Ok(0) => return Transfer::Ended,
            Ok(count) => return Transfer::Moved(count),
            Err(error)
                if error.kind() == ErrorKind::Interrupted && interruptions < MAX_INTERRUPTIONS =>
            {
                interruptions += 1;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Transfer::Blocked,
            Err(error) => return Transfer::Failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_is_of_one_kind_at_most() {
        for code in 1..134 {
            let error = Error::from_raw_os_error(code);
            let kinds = [is_of_the_peer(&error), may_pass(&error), is_for_good(&error)];
            assert!(kinds.iter().filter(|kind| **kind).count() <= 1, "{error}: {kinds:?}");
        }
    }

    #[test]
    fn errors_of_the_mechanism_are_not_the_peers() {
        let of = Error::from_raw_os_error;
        for code in [libc::ECONNRESET, libc::EPIPE, libc::ETIMEDOUT, libc::EHOSTUNREACH] {
            assert!(is_of_the_peer(&of(code)), "{code}");
        }
        for code in [libc::ENOSYS, libc::EPERM, libc::EINVAL] {
            assert!(is_for_good(&of(code)), "{code}");
        }
        for code in [libc::ENOMEM, libc::ENOBUFS, libc::EINTR, libc::EAGAIN] {
            assert!(may_pass(&of(code)), "{code}");
        }
    }

    #[test]
    fn what_is_short_may_pass_and_is_nobody_elses_fault() {
        for code in (1..134).filter(|code| is_shortage(*code)) {
            let error = Error::from_raw_os_error(code);
            assert!(may_pass(&error) && !is_of_the_peer(&error) && !is_for_good(&error), "{error}");
        }
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::ENOSPC] {
            assert!(is_shortage(code), "{code}");
        }
        for code in [0, libc::EAGAIN, libc::EINTR, libc::EIO, libc::EADDRNOTAVAIL] {
            assert!(!is_shortage(code), "{code}");
        }
    }
}
