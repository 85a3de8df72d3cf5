//! What only the operating system's C interface offers: limits, secrets in the environment, signals.

#![allow(unsafe_code)] // Each block tells why it is sound.

use std::ffi::{CString, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicI32, Ordering};

use mio::unix::pipe::{self, Receiver};

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

/// Descriptors that this process has open; 0 if the system does not tell.
pub fn open_descriptors() -> usize {
    let told = fs::metadata("/proc/self/fd").map_or(0, |folder| folder.size());
    match usize::try_from(told) {
        // Linux before 6.2 does not tell: then they are counted. Listing opens one itself.
        Ok(0) | Err(_) => {
            fs::read_dir("/proc/self/fd").map_or(0, |all| all.count().saturating_sub(1))
        }
        Ok(count) => count,
    }
}

/// Memory of this process that is resident, in bytes; 0 if the system does not tell.
pub fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    // SAFETY: this call takes a number and gives one.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) });
    pages.unwrap_or(0).saturating_mul(page.unwrap_or(0))
}

/// Lets the allocator share few heaps among all threads; to be called before there is a second one.
///
/// glibc otherwise gives each thread a heap of its own, and reserves 64 MiB of address space for it. Two are
/// enough: one for the loop, which so waits for nobody, and one for all who look up names and write logs.
/// Where address space is limited (RLIMIT_AS) they share the loop's, which reserves nothing.
pub fn share_heaps() {
    #[cfg(target_env = "gnu")]
    {
        let heaps = if address_space().is_some() { 1 } else { 2 };
        // SAFETY: this parameter takes a number (mallopt(3)), and no other thread allocates yet.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, heaps) };
    }
}

/// The limit of this process's address space in bytes (RLIMIT_AS); `None` if there is none.
pub fn address_space() -> Option<usize> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that the call fills in and does not keep.
    let told = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) } == 0;
    let limited = told && limit.rlim_cur != libc::RLIM_INFINITY;
    limited.then(|| usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
}

/// Gives up what this process never needs and an intruder would like: core dumps, which hold passwords,
/// and new privileges through programs with the set-user-ID bit.
///
/// # Errors
/// If the system refuses.
pub fn harden() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` is a valid rlimit that the call only reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) } != 0 {
        return Err(io::Error::last_os_error());
    }
    #[cfg(target_os = "linux")]
    // SAFETY: this option takes four numbers and no pointer (PR_SET_NO_NEW_PRIVS(2const)).
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Takes a secret out of the environment: from the variables that children would inherit, and from the
/// memory that /proc/PID/environ shows. To be called before there is a second thread.
pub fn take_from_environment(variable: &str) -> Option<OsString> {
    let secret = std::env::var_os(variable)?;
    let name = CString::new(variable).ok()?;
    // SAFETY: there is no other thread that could read or change the environment. The pointer that getenv
    // returns leads to a string that ends in NUL and belongs to the process, which is allowed to write there;
    // it is used before the environment changes.
    unsafe {
        let mut byte = libc::getenv(name.as_ptr());
        while !byte.is_null() && *byte != 0 {
            *byte = 0;
            byte = byte.add(1);
        }
        std::env::remove_var(variable);
    }
    Some(secret)
}

/// A signal that the loop is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: close down, with grace.
    Terminate,
    /// SIGINT: close down at once.
    Interrupt,
    /// SIGHUP: noted, and nothing else.
    HangUp,
}

impl Signal {
    const ALL: [Signal; 3] = [Signal::Terminate, Signal::Interrupt, Signal::HangUp];

    fn number(self) -> i32 {
        match self {
            Signal::Terminate => libc::SIGTERM,
            Signal::Interrupt => libc::SIGINT,
            Signal::HangUp => libc::SIGHUP,
        }
    }

    /// The signal that a byte from the pipe stands for.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Signal::ALL.into_iter().find(|signal| signal.number() == i32::from(byte))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signal::Terminate => "SIGTERM",
            Signal::Interrupt => "SIGINT",
            Signal::HangUp => "SIGHUP",
        })
    }
}

/// The writing end of the pipe, for the handler; -1 before there is one.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Lets SIGTERM, SIGINT and SIGHUP come as bytes through a pipe instead of ending the process. SIGPIPE is
/// ignored by Rust's runtime already.
///
/// # Errors
/// If there is no descriptor left for the pipe, or a handler cannot be installed.
pub fn signals() -> io::Result<Receiver> {
    let (sender, receiver) = pipe::new()?;
    // Lives as long as the process: a handler may write to it at any time.
    PIPE.store(sender.into_raw_fd(), Ordering::Release);
    for signal in Signal::ALL {
        // SAFETY: sigaction is plain data for which all zeros is a valid value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as extern "C" fn(i32) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: `action` is fully initialised and only read; `handler` calls nothing but write(2), which
        // signal-safety(7) allows.
        if unsafe { libc::sigaction(signal.number(), &raw const action, std::ptr::null_mut()) } != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(receiver)
}

extern "C" fn handler(number: i32) {
    let byte = number.to_le_bytes();
    // SAFETY: errno belongs to this thread and is restored, so that the interrupted code sees none of this;
    // write reads one byte of a live array. The pipe does not block: if it is full, enough signals wait.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        libc::write(PIPE.load(Ordering::Acquire), byte.as_ptr().cast(), 1);
        *errno = saved;
    }
}
