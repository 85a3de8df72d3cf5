//! System calls that the tests make themselves, as functions that are safe to call.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use libc::rlimit;

/// A resource of setrlimit(2).
pub type Resource = libc::__rlimit_resource_t;

/// Sends a signal to a child that has not been waited for.
pub fn send_signal(child: &Child, signal: i32) {
    let pid = i32::try_from(child.id()).expect("pids are small");
    // SAFETY: kill takes two numbers; the process is our child and has not been waited for.
    let sent = unsafe { libc::kill(pid, signal) };
    assert_eq!(sent, 0, "the process is there");
}

/// Keeps from a program what descriptors the test was started with, such as those of a `make -j`: how many
/// it has decides how many connections it takes.
pub(crate) fn close_others(command: &mut Command) {
    const CLOEXEC: libc::c_uint = 4;
    let close = || {
        let (first, last) = (3 as libc::c_uint, libc::c_uint::MAX);
        // SAFETY: close_range(2) takes three numbers. With CLOSE_RANGE_CLOEXEC nothing is closed before exec.
        // Linux before 5.11 does not have it; then they stay open.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, CLOEXEC) };
        Ok(())
    };
    // SAFETY: between fork and exec it makes one system call, and allocates nothing.
    unsafe { command.pre_exec(close) };
}

/// Has a program find these descriptors from 3 on, as a service manager hands them over (sd_listen_fds(3)). Others that
/// are open stay below them or above.
pub fn hand_over(command: &mut Command, descriptors: Vec<OwnedFd>) {
    const ABOVE: libc::c_int = 100;
    let raise = |descriptor: OwnedFd| {
        // SAFETY: numbers in, a descriptor out, which has no other owner.
        let raised = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, ABOVE) };
        assert!(raised >= ABOVE, "a descriptor");
        // SAFETY: as above.
        unsafe { OwnedFd::from_raw_fd(raised) }
    };
    let descriptors: Vec<OwnedFd> = descriptors.into_iter().map(raise).collect();
    let place = move || {
        for (place, descriptor) in (3..).zip(&descriptors) {
            // SAFETY: dup2(2) takes two numbers. What had the place belongs to the test, and this is its child.
            if unsafe { libc::dup2(descriptor.as_raw_fd(), place) } == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls alone, and allocates nothing.
    unsafe { command.pre_exec(place) };
}

/// Starts a program whose files may have `bytes` and no more (RLIMIT_FSIZE).
pub fn limit_file_size(command: &mut Command, bytes: u64) {
    let limit = move || {
        let limit = rlimit { rlim_cur: bytes, rlim_max: bytes };
        // SAFETY: `limit` is a valid rlimit that the call only reads.
        match unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec it makes one call, which is async-signal-safe.
    unsafe { command.pre_exec(limit) };
}

/// Gives a file an extended attribute.
///
/// # Errors
/// Those of setxattr(2), such as where the file system has none of this kind.
pub fn set_attribute(path: &Path, name: &CStr, value: &[u8]) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: both names end in NUL, and the kernel reads the length of `value` there.
    let set = unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An access control list, as the kernel keeps it (acl(5)): the owner may read and write, this user may read, and neither
/// the group of the file nor others may do anything.
pub fn acl_for(user: u32) -> Vec<u8> {
    const ANY: u32 = u32::MAX;
    // The kinds of entries: owner, user, group, mask, others.
    let entries: [(u16, u16, u32); 5] =
        [(0x01, 6, ANY), (0x02, 4, user), (0x04, 0, ANY), (0x10, 4, ANY), (0x20, 0, ANY)];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (kind, permissions, number) in entries {
        list.extend_from_slice(&kind.to_le_bytes());
        list.extend_from_slice(&permissions.to_le_bytes());
        list.extend_from_slice(&number.to_le_bytes());
    }
    list
}

/// The soft and the hard limit of a resource.
fn limits(resource: Resource) -> rlimit {
    let mut limit = rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that the call fills in.
    assert_eq!(unsafe { libc::getrlimit(resource, &raw mut limit) }, 0, "a limit");
    limit
}

/// Sets the soft limit of a resource of this process, to the hard limit at most. Returns what it was.
pub fn set_limit(resource: Resource, value: u64) -> u64 {
    let mut limit = limits(resource);
    let before = limit.rlim_cur;
    limit.rlim_cur = value.min(limit.rlim_max);
    // SAFETY: `limit` is a valid rlimit that the call only reads.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0, "a limit");
    before
}

/// Raises the soft limit of descriptors to the hard limit, which is returned. The soft one is for programs that
/// call select(2); a test has both ends of hundreds of connections.
pub(crate) fn raise_descriptor_limit() -> u64 {
    set_limit(libc::RLIMIT_NOFILE, u64::MAX);
    limits(libc::RLIMIT_NOFILE).rlim_max
}

/// Makes the file behind a descriptor non-blocking, for all descriptors of it.
pub fn make_non_blocking(file: &impl AsRawFd) {
    // SAFETY: fcntl takes numbers here; the descriptor is open.
    let set = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    assert_eq!(set, 0);
}

/// Whether the file behind a descriptor is non-blocking.
pub fn is_non_blocking(file: &impl AsRawFd) -> bool {
    // SAFETY: as above.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    flags & libc::O_NONBLOCK != 0
}

/// Whether all that is written through a descriptor is appended.
pub fn is_appending(file: &impl AsRawFd) -> bool {
    // SAFETY: as above.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    flags & libc::O_APPEND != 0
}

/// Bytes that wait in a pipe.
pub fn bytes_waiting(pipe: &impl AsRawFd) -> i32 {
    let mut count = 0;
    // SAFETY: the descriptor is open, and the call writes a number into a valid place.
    let asked = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    assert_eq!(asked, 0);
    count
}

/// Puts a file in the place of a descriptor that another part of this process owns, and which stays open.
pub fn replace_descriptor(descriptor: RawFd, file: &impl AsRawFd) {
    // SAFETY: both descriptors are open. The owner of the first one uses another file from now on, as if its own had
    // turned into that.
    assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), descriptor) }, descriptor);
}
