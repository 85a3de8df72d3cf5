//! Layer 5: what a process has to do with the system when it starts: the limit of descriptors, raised and counted;
//! sockets that were handed over; the user that it becomes; the file with its number.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

pub mod activation;
pub mod identity;
pub mod pid_file;
pub mod service_manager;
pub mod takeover;

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use metp_protocol::text::Escaped;

/// An error of the file or directory that an option names.
pub fn of_file(option: &str, path: &Path, error: io::Error) -> io::Error {
    let shown = Escaped(path.as_os_str().as_bytes());
    io::Error::new(error.kind(), format!("{option} {shown}: {error}"))
}

/// Raises the soft limit of descriptors to the hard limit. Returns the limit now in force.
///
/// # Errors
/// If the limit cannot be read.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that the call fills in and does not keep.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: `raised` is a valid rlimit that the call only reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
        limit = raised;
    }
    Ok(limit.rlim_cur)
}

/// More than the largest buffer of a tunnel: the size from which on the allocator takes memory from the kernel for one block, and gives it back with it.
#[cfg(target_env = "gnu")]
const LARGE_BLOCK: libc::c_int = 2 << 20;

/// Has memory of 2 MiB and more given back to the system when it is free. By default glibc raises that bound to the
/// size of what is freed, and the memory of password hashes (19 MiB each) then stays in pieces between others.
pub fn give_large_blocks_back() {
    // SAFETY: the call takes two numbers, and there are no other threads yet. That it fails costs memory alone.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BLOCK) };
}

/// Descriptors that are tried one by one if /proc is not there.
const PROBED_DESCRIPTORS: i32 = 1 << 16;

/// The number of open descriptors below `limit`. To be called at the start, when they are the inherited ones.
pub fn descriptors_below(limit: u64) -> usize {
    let counts = |descriptor: i32| u64::try_from(descriptor).is_ok_and(|number| number < limit);
    let Ok(folder) = fs::read_dir("/proc/self/fd") else {
        // There is no /proc, or no descriptor left to read it with.
        // SAFETY: F_GETFD takes a number, touches no memory, and fails for what is not open.
        let is_open = |descriptor: &i32| unsafe { libc::fcntl(*descriptor, libc::F_GETFD) } != -1;
        return (0..PROBED_DESCRIPTORS).filter(|number| counts(*number)).filter(is_open).count();
    };
    let number = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    // Listing opens one itself, below the limit.
    folder.filter_map(number).filter(|number| counts(*number)).count().saturating_sub(1)
}
