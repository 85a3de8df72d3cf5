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
pub fn wait(mut child: Child) -> Usage {
    loop {
        if let Some(usage) = wait4(&mut child, 0) {
            return usage;
        }
    }
}

/// What a child came to, if it has ended.
pub fn ended(child: &mut Child) -> Option<Usage> {
    wait4(child, libc::WNOHANG)
}

fn wait4(child: &mut Child, options: i32) -> Option<Usage> {
    let pid = i32::try_from(child.id()).expect("pids are small");
    let mut status = 0;
    // SAFETY: rusage is plain data for which all zeros is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both places are valid, and the call only fills them in. The child has not been waited for.
    let ended = unsafe { libc::wait4(pid, &raw mut status, options, &raw mut usage) };
    if ended == pid {
        let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 };
        return Some(Usage { code, peak_kib: usage.ru_maxrss });
    }
    let interrupted = io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
    assert!(ended == 0 || interrupted, "{}", io::Error::last_os_error());
    None
}
