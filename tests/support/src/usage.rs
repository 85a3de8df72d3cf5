//! What a process took until its end, as the kernel counts it.

#![allow(unsafe_code, reason = "wait4 is a C interface")]

use std::io;
use std::process::Child;

/// What a child came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Usage {
    /// The exit code; -1 if a signal ended it.
    pub code: i32,
    /// The most memory that was resident at once, in KiB; what the test itself had when it started the child counts.
    pub peak_kib: i64,
}

/// Waits for the end of a child, for as long as it takes.
pub fn wait(child: &Child) -> Usage {
    let pid = i32::try_from(child.id()).expect("pids are small");
    let mut status = 0;
    loop {
        // SAFETY: rusage is plain data for which all zeros is a valid value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both places are valid, and the call only fills them in. The child has not been waited for.
        let ended = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if ended == pid {
            let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 };
            return Usage { code, peak_kib: usage.ru_maxrss };
        }
        let error = io::Error::last_os_error();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted, "{error}");
    }
}
