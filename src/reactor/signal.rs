//! Signals, which come to the loop as bytes through a pipe, and the terminal whose loss is one.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicI32, Ordering};

use common::process::{cannot, ignore};
use mio::unix::pipe::{self, Receiver};

/// A signal that the loop handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: drain, then end.
    Terminate,
    /// SIGINT: end at once.
    Interrupt,
    /// SIGQUIT: end at once.
    Quit,
    /// SIGHUP: drain if the terminal is gone, otherwise read the files again, and open the access log again.
    HangUp,
    /// SIGUSR1: open the access log again.
    User1,
    /// SIGUSR2: logged.
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

/// Whether this process was started on a terminal and has to end with it: it has one, and SIGHUP is not ignored
/// (nohup(1) ignores it). To be called before [`signals`].
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

/// The writing end of the pipe, for the handler; -1 until [`signals`] has opened it. Process-wide, since a signal
/// handler has no argument of its own.
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
