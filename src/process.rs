//! What only the operating system's C interface offers: limits, secrets in the environment, signals, the terminal,
//! standard streams.

#![allow(unsafe_code)] // Each block tells why it is sound.

pub mod stdio;

use std::ffi::{CStr, OsString};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::atomic::{AtomicI32, Ordering};

use mio::unix::pipe::{self, Receiver};

/// An error together with what was being done, for the one line that is shown: `cannot WHAT: ERROR`.
pub fn cannot(what: &str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("cannot {what}: {error}"))
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

/// How many descriptors are tried one by one where the system does not list them.
const PROBED_DESCRIPTORS: i32 = 1 << 16;

/// Descriptors that are open and count against this limit, which is one of their numbers. To be asked at the
/// start: what the process has inherited is not known otherwise.
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
        return Err(cannot("give up core dumps")(io::Error::last_os_error()));
    }
    #[cfg(target_os = "linux")]
    // SAFETY: this option takes four numbers and no pointer (PR_SET_NO_NEW_PRIVS(2const)).
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(cannot("give up new privileges")(io::Error::last_os_error()));
    }
    Ok(())
}

unsafe extern "C" {
    /// The variables of this process: pointers to `NAME=VALUE`, and null behind the last (environ(7)).
    static environ: *const *mut libc::c_char;
}

/// Takes a secret out of the environment: from the variables that children would inherit, and from the
/// memory that /proc/PID/environ shows. To be called before there is a second thread.
pub fn take_from_environment(variable: &str) -> Option<OsString> {
    let secret = std::env::var_os(variable);
    // SAFETY: there is no other thread that could read or change the environment. Each pointer before the null
    // leads to a string that ends in NUL and belongs to the process, which is allowed to write there; nothing
    // is read behind the NUL, and none is used any more when the environment changes.
    unsafe {
        let mut entry = environ;
        // A variable may be there twice.
        while !entry.is_null() && !(*entry).is_null() {
            let name = CStr::from_ptr(*entry).to_bytes();
            let value =
                name.strip_prefix(variable.as_bytes()).filter(|rest| rest.starts_with(b"="));
            if let Some(length) = value.map(|value| value.len().saturating_sub(1)) {
                let at = name.len().saturating_sub(length);
                (*entry).add(at).write_bytes(0, length);
            }
            entry = entry.add(1);
        }
        std::env::remove_var(variable);
    }
    secret
}

/// Overwrites parts of the command line (the program's name left out) in the memory that /proc/PID/cmdline
/// shows, and that ps(1) therefore shows to everybody. `secrets` has a range of octets for each argument. Where
/// that memory does not hold the arguments that the program has got, as behind a loader, all of it is
/// overwritten but the first. To be called before there is a second thread; [`std::env::args_os`] sees what is
/// written here from then on.
///
/// # Errors
/// If the system does not tell where it is.
pub fn erase_arguments(secrets: &[Range<usize>]) -> io::Result<()> {
    let (start, end) = command_line()?;
    // SAFETY: the kernel says that these addresses, of this process, hold its arguments: strings on its stack,
    // which it may write to. The standard library and libc keep pointers to them (argv), but no references, and
    // copy from there only when they are asked. Nobody asks while this slice lives: there is no other thread.
    // Later each string still ends where it did, since no NUL is overwritten.
    let memory = unsafe {
        let length = end.saturating_sub(start);
        std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut::<u8>(start), length)
    };
    erase(memory, secrets);
    Ok(())
}

fn erase(memory: &mut [u8], secrets: &[Range<usize>]) {
    const INSTEAD: u8 = b'*';
    let arguments = memory.strip_suffix(b"\0").unwrap_or(memory).split(|byte| *byte == 0).count();
    let expected = arguments == secrets.len().saturating_add(1);
    for (index, argument) in memory.split_mut(|byte| *byte == 0).enumerate() {
        let Some(index) = index.checked_sub(1) else { continue };
        let secret = match secrets.get(index) {
            Some(secret) if expected => argument.get_mut(secret.clone()),
            _ => Some(argument),
        };
        secret.unwrap_or_default().fill(INSTEAD);
    }
}

/// Where the arguments of this process begin and end in its memory: fields 48 and 49 of proc_pid_stat(5).
fn command_line() -> io::Result<(usize, usize)> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in brackets, may hold anything; the third field follows it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let mut addresses = fields.skip(48 - 3).map(|field| field.parse::<usize>());
    match (addresses.next(), addresses.next()) {
        // Where they are not told, as under an emulator, they are 0.
        (Some(Ok(start @ 1..)), Some(Ok(end))) if start < end => Ok((start, end)),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// A signal that the loop is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: close down, with grace.
    Terminate,
    /// SIGINT: close down at once.
    Interrupt,
    /// SIGQUIT: the same.
    Quit,
    /// SIGHUP: the terminal is gone, or it is noted and nothing else.
    HangUp,
    /// SIGUSR1: noted, and nothing else.
    User1,
    /// SIGUSR2: noted, and nothing else.
    User2,
}

impl Signal {
    const ALL: [Signal; 6] = [
        Signal::Terminate,
        Signal::Interrupt,
        Signal::Quit,
        Signal::HangUp,
        Signal::User1,
        Signal::User2,
    ];

    fn number(self) -> i32 {
        match self {
            Signal::Terminate => libc::SIGTERM,
            Signal::Interrupt => libc::SIGINT,
            Signal::Quit => libc::SIGQUIT,
            Signal::HangUp => libc::SIGHUP,
            Signal::User1 => libc::SIGUSR1,
            Signal::User2 => libc::SIGUSR2,
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
            Signal::Quit => "SIGQUIT",
            Signal::HangUp => "SIGHUP",
            Signal::User1 => "SIGUSR1",
            Signal::User2 => "SIGUSR2",
        })
    }
}

/// Signals that would end or stop this process, are sent to it by mistake or by the kernel, and ask for nothing
/// that it does: a file that may not grow (SIGXFSZ: the write fails), timers, readiness, power, and the terminal
/// that a job in the background is kept from.
const STRAY: [i32; 11] = [
    libc::SIGXFSZ,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// Ignores the signals that do not concern this process, those for real time among them. [`signals`] takes some of
/// them back. To be called first of all: each of them would end a process that is just starting.
pub fn ignore_stray_signals() {
    for signal in STRAY.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
        ignore(signal);
    }
}

/// Lets a write to a file that may not grow fail, instead of ending the process.
pub fn ignore_file_size_signal() {
    ignore(libc::SIGXFSZ);
}

fn ignore(signal: i32) {
    // SAFETY: this call takes two numbers, SIG_IGN being one; no handler is installed. A number that is no signal
    // is refused, and changes nothing.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Whether this process has been started on a terminal and is to end with it: nohup(1) and those who do as it does
/// leave SIGHUP ignored. To be asked before [`signals`] is called.
pub fn starts_on_terminal() -> bool {
    // SAFETY: sigaction is plain data for which all zeros is a valid value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: no action is set, and the present one is written into a valid place.
    let asked = unsafe { libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut action) };
    asked == 0 && action.sa_sigaction != libc::SIG_IGN && open_terminal().is_ok()
}

/// Whether there is no controlling terminal, or no longer one (tty(4)).
pub fn has_lost_terminal() -> bool {
    // Any other error, as for want of descriptors, says nothing about the terminal.
    let gone = |error: io::Error| matches!(error.raw_os_error(), Some(libc::ENXIO | libc::EIO));
    open_terminal().is_err_and(gone)
}

fn open_terminal() -> io::Result<fs::File> {
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_CLOEXEC;
    OpenOptions::new().read(true).custom_flags(flags).open("/dev/tty")
}

/// The writing end of the pipe, for the handler; -1 before there is one.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Lets the signals of [`Signal`] come as bytes through a pipe instead of ending the process. SIGPIPE is ignored by
/// Rust's runtime already.
///
/// # Errors
/// If there is no descriptor left for the pipe, or a handler cannot be installed.
pub fn signals() -> io::Result<Receiver> {
    let (sender, receiver) = pipe::new().map_err(cannot("create the pipe for signals"))?;
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
            let error = io::Error::last_os_error();
            return Err(cannot(&format!("take {signal}"))(error));
        }
    }
    Ok(receiver)
}

/// How often the handler tries to pass a signal on.
const SIGNAL_WRITES: u32 = 16;

extern "C" fn handler(number: i32) {
    let byte = number.to_le_bytes();
    // SAFETY: errno belongs to this thread and is restored, so that the interrupted code sees none of this;
    // write reads one byte of a live array. The pipe does not block: if it is full, enough signals wait. Any other
    // failure would lose the signal, so the call is tried again, a few times.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        let pipe = PIPE.load(Ordering::Acquire);
        let _ = (0..SIGNAL_WRITES).any(|_| libc::write(pipe, byte.as_ptr().cast(), 1) == 1);
        *errno = saved;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn erased(memory: &[u8], secrets: &[Range<usize>]) -> String {
        let mut memory = memory.to_vec();
        erase(&mut memory, secrets);
        String::from_utf8(memory).expect("text").replace('\0', " ")
    }

    #[test]
    fn what_is_secret_is_overwritten_and_no_more() {
        let line = b"socks5d\0-u\0a:secret\0-p\x001080\0";
        assert_eq!(erased(line, &[0..0, 2..8, 0..0, 0..0]), "socks5d -u a:****** -p 1080 ");
        // What goes beyond the argument, or belongs to another command line, is no reason to keep a secret.
        assert_eq!(erased(line, &[0..0, 2..8]), "socks5d ** ******** ** **** ");
        assert_eq!(erased(b"x\0", &[]), "x ");
        assert_eq!(erased(b"x\0\0y\0", &[0..0, 0..1]), "x  * ");
        assert_eq!(erased(b"", &[0..1, 0..1]), "");
    }
}
