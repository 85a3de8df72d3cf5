//! System calls that the standard library does not offer.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Keeps the calling thread, and the threads and processes it will start, on one core.
pub fn pin(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: an all-zero set is an empty one, `core` lies within it, and the call only reads it.
    checked(unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    })
}

/// Lets the calling thread run before others on its core, if the system allows it.
pub fn hurry() {
    // SAFETY: numbers alone. On Linux 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -10) };
}

/// Makes a command run on one core, and end when the thread that starts it ends.
pub fn confine(command: &mut Command, core: Option<usize>) {
    // SAFETY: between fork and exec this makes two system calls with numbers on the stack, and allocates
    // nothing.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
            core.map_or(Ok(()), pin)
        });
    }
}

/// Sends a signal to a process of ours.
pub fn signal(pid: u32, signal: libc::c_int) {
    // SAFETY: numbers alone. The caller has not reaped the process yet, so the id is still its own.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// Makes this process the parent of orphans among its descendants, so that it can see them off.
pub fn adopt_orphans() -> io::Result<()> {
    let on: libc::c_ulong = 1;
    // SAFETY: numbers alone.
    checked(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, on) })
}

/// Kills a child of this process and waits until it is gone. Others are left alone.
pub fn see_off(pid: u32) {
    let pid = pid as libc::pid_t;
    let nowhere = std::ptr::null_mut();
    // SAFETY: numbers alone, and no status is wanted. As long as the first call answers 0 this is a living
    // child of ours, and the id cannot belong to another process before the second has reaped it.
    unsafe {
        if libc::waitpid(pid, nowhere, libc::WNOHANG) == 0 {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, nowhere, 0);
        }
    }
}

/// The processor time of a process: all its threads, those that have ended included.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut clock = 0;
    // SAFETY: `clock` has room for the answer.
    let error = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` has room for the answer.
    checked(unsafe { libc::clock_gettime(clock, &mut time) })?;
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// The length of a clock tick, the unit of /proc/PID/stat.
pub fn tick() -> Duration {
    // SAFETY: a number alone.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Duration::from_secs(1) / u32::try_from(per_second).unwrap_or(100).max(1)
}

/// Takes up to `count` received bytes without copying them anywhere. Zero is EOF.
pub fn discard(socket: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
    // SAFETY: with MSG_TRUNC a TCP socket drops the bytes and writes nothing to the address (tcp(7)).
    let taken =
        unsafe { libc::recv(socket.as_raw_fd(), std::ptr::null_mut(), count, libc::MSG_TRUNC) };
    usize::try_from(taken).map_err(|_| io::Error::last_os_error())
}

/// Lets bind(2) choose no port, so that connect(2) can: then a port serves many destinations.
pub fn late_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: address and size are those of `on`, which outlives the call.
    checked(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
}
