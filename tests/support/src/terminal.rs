//! A pseudo-terminal: the keyboard and the screen of a program under test.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::eventually;

/// A terminal with nobody in front of it but the test.
pub struct Terminal {
    keyboard: File,
    /// The program's side, kept open so that what is on the screen survives the program.
    line: OwnedFd,
    screen: Vec<u8>,
}

impl Default for Terminal {
    fn default() -> Self {
        let (mut master, mut slave) = (-1, -1);
        let (name, null) = (std::ptr::null_mut(), std::ptr::null());
        // SAFETY: two valid places for descriptors; name, attributes and size may be null.
        let made = unsafe { libc::openpty(&mut master, &mut slave, name, null, null.cast()) };
        assert_eq!(made, 0, "a pseudo-terminal");
        for descriptor in [master, slave] {
            // SAFETY: the descriptors were just opened; fcntl takes numbers.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        // SAFETY: as above.
        unsafe { libc::fcntl(master, libc::F_SETFL, libc::O_NONBLOCK) };
        // SAFETY: both descriptors were just opened and belong to nobody else.
        let (keyboard, line) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
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

    /// Presses keys.
    pub fn type_keys(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).expect("the terminal takes keys");
    }

    /// All that has been shown so far.
    pub fn screen(&mut self) -> String {
        let mut bytes = [0; 4096];
        loop {
            match self.keyboard.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => self.screen.extend(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the screen can be read: {error}"),
            }
        }
        String::from_utf8_lossy(&self.screen).into_owned()
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

fn in_new_session(command: &mut Command, terminal: Option<RawFd>) {
    let enter = move || {
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
