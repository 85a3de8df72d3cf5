//! A pseudo-terminal: the keyboard and the screen of a program under test.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::eventually;

/// A terminal that the test reads and writes.
pub struct Terminal {
    keyboard: File,
    /// The program's side, kept open so that what is on the screen survives the program.
    line: OwnedFd,
    screen: Vec<u8>,
}

impl Default for Terminal {
    fn default() -> Self {
        // None of them may be inherited by what other tests start at this moment, so they are born with O_CLOEXEC,
        // which openpty(3) cannot do.
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the call takes flags.
        let master = unsafe { libc::posix_openpt(flags) };
        assert!(master >= 0, "a pseudo-terminal: {}", Error::last_os_error());
        // SAFETY: the descriptor was just opened and has no other owner.
        let keyboard = unsafe { File::from_raw_fd(master) };
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { libc::unlockpt(master) }, 0, "{}", Error::last_os_error());
        let mut name = [0; 64];
        // SAFETY: the descriptor is open, and the name gets no longer than the place for it.
        let failed = unsafe { libc::ptsname_r(master, name.as_mut_ptr(), name.len()) };
        assert_eq!(failed, 0, "the program's side has a name");
        let name: Vec<u8> =
            name.iter().map_while(|c| u8::try_from(*c).ok().filter(|c| *c != 0)).collect();
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NOCTTY);
        let line = options.open(OsStr::from_bytes(&name)).expect("the program's side").into();
        Terminal { keyboard, line, screen: Vec::new() }
    }
}

impl Terminal {
    /// Makes this the controlling terminal of a program that is going to be started.
    pub fn control(&self, command: &mut Command) {
        in_new_session(command, Some(self.line.as_raw_fd()));
    }

    /// The program's side, to be its standard input or output.
    pub fn line(&self) -> OwnedFd {
        self.line.try_clone().expect("a descriptor")
    }

    /// Has a program that is going to be started read from this terminal and write to it, too.
    pub fn attach(&self, command: &mut Command) {
        let stream = || Stdio::from(self.line());
        command.stdin(stream()).stdout(stream()).stderr(stream());
        self.control(command);
    }

    /// Gives it another size. The program that it controls gets SIGWINCH if the size has changed.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is open, and `size` is a valid winsize that the call only reads.
        let set =
            unsafe { libc::ioctl(self.keyboard.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(set, 0, "a terminal has a size");
    }

    /// Presses keys.
    pub fn type_keys(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).expect("the terminal takes keys");
    }

    /// All that has been shown so far.
    pub fn screen(&mut self) -> String {
        String::from_utf8_lossy(self.shown()).into_owned()
    }

    /// All that has been shown so far, to the byte.
    pub fn shown(&mut self) -> &[u8] {
        let mut bytes = [0; 4096];
        loop {
            match self.keyboard.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => self.screen.extend(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the screen can be read: {error}"),
            }
        }
        &self.screen
    }

    /// Sends a signal to the job in the foreground.
    pub fn signal_foreground(&self, signal: i32) {
        // SAFETY: the descriptor is open; the call takes a number.
        let job = unsafe { libc::tcgetpgrp(self.keyboard.as_raw_fd()) };
        assert!(job > 1, "there is a job in the foreground");
        // SAFETY: kill takes two numbers; the job is a group of processes of the test.
        let sent = unsafe { libc::kill(-job, signal) };
        assert_eq!(sent, 0, "the job is there");
    }

    /// Waits until the program hides what is typed.
    pub fn wait_until_hidden(&self) {
        eventually("the terminal does not echo", || self.local_flags() & libc::ECHO == 0);
    }

    /// Echo, line editing, signals: the flags that a program may have changed.
    pub fn local_flags(&self) -> libc::tcflag_t {
        // SAFETY: termios is plain data for which all zeros is a valid value.
        let mut attributes: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open, and the call fills in a valid termios.
        let asked = unsafe { libc::tcgetattr(self.line.as_raw_fd(), &raw mut attributes) };
        assert_eq!(asked, 0, "a terminal has attributes");
        attributes.c_lflag
    }
}

/// Takes the controlling terminal away from a program that is going to be started.
pub fn without_terminal(command: &mut Command) -> &mut Command {
    in_new_session(command, None);
    command
}

/// Signals that may be ignored when the tests start: nohup(1) ignores one of them, a shell without job control
/// others for what it starts in the background.
const OF_TERMINALS: [i32; 7] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

fn in_new_session(command: &mut Command, terminal: Option<RawFd>) {
    let enter = move || {
        for signal in OF_TERMINALS {
            // SAFETY: the call takes numbers and is async-signal-safe.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        // SAFETY: setsid and ioctl are async-signal-safe calls that take numbers.
        let failed = unsafe {
            libc::setsid() == -1
                || terminal.is_some_and(|line| libc::ioctl(line, libc::TIOCSCTTY, 0) == -1)
        };
        if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: between fork and exec it makes async-signal-safe calls alone.
    unsafe { command.pre_exec(enter) };
}
