//! What a process takes, as the kernel counts it.

#![allow(unsafe_code, reason = "wait4 is a C interface")]

use std::io;
use std::process::Child;
use std::time::Duration;

use crate::eventually;

/// The outcome of a child.
#[derive(Debug, PartialEq, Eq)]
pub struct Usage {
    /// The exit code; -1 if a signal ended it.
    pub code: i32,
    /// The greatest memory in RAM (RSS), in KiB; what the test itself had when it started the child counts.
    pub peak_kib: i64,
}

/// Processor time that a process has used so far, with all its threads.
pub fn cpu_time(pid: u32) -> Duration {
    let pid = i32::try_from(pid).expect("pids are small");
    let mut clock = 0;
    // SAFETY: the call fills in the valid place that it is given.
    assert_eq!(unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) }, 0, "it runs");
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills in the valid place that it is given.
    assert_eq!(unsafe { libc::clock_gettime(clock, &raw mut time) }, 0, "it runs");
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.expect("not negative"), nanos.expect("below a second"))
}

/// Waits until a process takes less than a twentieth of a core in a second. One that spins never does; one that still
/// has work to do, because the machine is busy, does in the end.
pub fn wait_until_at_rest(pid: u32) {
    const SECOND: Duration = Duration::from_secs(1);
    eventually("it rests", || {
        let before = cpu_time(pid);
        // This is a measurement, not a wait.
        std::thread::sleep(SECOND);
        cpu_time(pid) - before < SECOND / 20
    });
}

/// Waits for the end of a child, for as long as it takes.
pub fn wait(mut child: Child) -> Usage {
    loop {
        if let Some(usage) = wait4(&mut child, 0) {
            return usage;
        }
    }
}

/// The outcome of a child, if it has ended.
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
