//! What this process uses of the machine: descriptors, memory and processors.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// Descriptors that this process has open; 0 if /proc is not there.
pub fn open_descriptors() -> usize {
    let size = fs::metadata("/proc/self/fd").map_or(0, |folder| folder.size());
    match usize::try_from(size) {
        // Before Linux 6.2 the size is 0, and they are counted. Reading the folder opens one itself.
        Ok(0) | Err(_) => {
            fs::read_dir("/proc/self/fd").map_or(0, |all| all.count().saturating_sub(1))
        }
        Ok(count) => count,
    }
}

/// Time that all threads of this process have had on processors.
pub fn cpu_time() -> Duration {
    time_of(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// The time of CLOCK_MONOTONIC, which other processes can compare with their own.
pub fn monotonic() -> Duration {
    time_of(libc::CLOCK_MONOTONIC)
}

fn time_of(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to a valid place and keeps nothing.
    let asked = unsafe { libc::clock_gettime(clock, &raw mut time) };
    match (asked, u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec)) {
        (0, Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Duration::new(seconds, nanos),
        _ => Duration::ZERO,
    }
}

/// Memory of this process in RAM (RSS), in bytes; 0 if /proc is not there.
pub fn rss_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    // SAFETY: this call takes a number and gives one.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) });
    pages.unwrap_or(0).saturating_mul(page.unwrap_or(0))
}
