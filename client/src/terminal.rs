//! The controlling terminal: prompts for passwords, its width and colours, and job control.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Write};
use std::os::fd::AsRawFd;

use common::terminal::{Quiet, Typed, read_password};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::{SigId, low_level};

/// Asks for a password on the controlling terminal, even if stdin and stdout are redirected. The input is not
/// shown. Ctrl-C ends the program as SIGINT does, once the terminal is restored.
///
/// # Errors
/// If there is no terminal; [`ErrorKind::InvalidInput`] if the user enters nothing.
pub fn ask(prompt: &str) -> io::Result<Vec<u8>> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    write!(terminal, "{prompt}")?;
    let quiet = Prompt::new(terminal.try_clone()?)?;
    let password = read_password(BufReader::new(&terminal));
    drop(quiet);
    writeln!(terminal)?;
    match password? {
        Typed::Password(password) => Ok(password),
        Typed::Interrupt => {
            low_level::emulate_default_handler(SIGINT)?;
            Err(ErrorKind::Interrupted.into())
        }
    }
}

/// Whether colours may be used: not with `NO_COLOR` (<https://no-color.org>), nor on a dumb terminal.
pub fn colours() -> bool {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !plain && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// The columns of standard output; `None` if it is no terminal, or its size is unknown.
pub fn width() -> Option<usize> {
    // SAFETY: winsize is plain data for which all zeros is a valid value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: standard output is open, or the call fails; `size` is a valid winsize that it fills in.
    let asked = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    Some(usize::from(size.ws_col)).filter(|columns| asked == 0 && *columns > 0)
}

/// Which processes a stop signal goes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum StopTarget {
    /// This process alone, as with `kill -TSTP`.
    Process,
    /// All processes of the job, as with Ctrl-Z: the script that started this program stops, too.
    Job,
}

/// Stops the target with SIGTSTP until it is continued. Where no shell can continue it, as under `xterm -e` or
/// `ssh -t`, the kernel ignores the signal; SIGSTOP would stop it for ever.
///
/// # Errors
/// If sigaction(2) or kill(2) fails.
pub fn stop(who: StopTarget) -> io::Result<()> {
    // SAFETY: sigaction is plain data for which all zeros is a valid value: the default, no flags, no mask.
    let [default, mut before]: [libc::sigaction; 2] = unsafe { std::mem::zeroed() };
    // SAFETY: both are valid; the first is only read, and no handler is set.
    if unsafe { libc::sigaction(libc::SIGTSTP, &raw const default, &raw mut before) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let process = match who {
        // SAFETY: getpid takes nothing and cannot fail.
        StopTarget::Process => unsafe { libc::getpid() },
        StopTarget::Job => 0,
    };
    // SAFETY: kill takes two numbers.
    let sent = match unsafe { libc::kill(process, libc::SIGTSTP) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: `before` was filled in above: its handler is the one that was set.
    if unsafe { libc::sigaction(libc::SIGTSTP, &raw const before, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    sent
}

/// A terminal without echo and line editing. Restored when dropped, and before a signal ends the program.
struct Prompt {
    quiet: Quiet,
    handlers: Vec<SigId>,
}

impl Prompt {
    fn new(terminal: File) -> io::Result<Self> {
        let descriptor = terminal.as_raw_fd();
        let mut prompt = Prompt { quiet: Quiet::prepare(terminal)?, handlers: Vec::new() };
        let before = prompt.quiet.before();
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            let restore = move || {
                // SAFETY: tcsetattr is async-signal-safe; the terminal is open as long as the handler is there.
                unsafe { libc::tcsetattr(descriptor, libc::TCSAFLUSH, &raw const before) };
                // If the signal does not end the program, the prompt goes on.
                let _ = low_level::emulate_default_handler(signal);
            };
            // SAFETY: all that the handler does is async-signal-safe; what it uses it owns.
            prompt.handlers.push(unsafe { low_level::register(signal, restore) }?);
        }
        prompt.quiet.begin()?;
        Ok(prompt)
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        self.quiet.restore();
        for handler in self.handlers.drain(..) {
            low_level::unregister(handler);
        }
    }
}
