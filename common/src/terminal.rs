//! Passwords from the terminal: keys that are not shown.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::fs::File;
use std::io::{self, BufRead, ErrorKind};
use std::os::fd::AsRawFd;

/// What was typed.
#[derive(PartialEq, Eq)]
pub enum Typed {
    /// Not empty.
    Password(Vec<u8>),
    /// Ctrl-C.
    Interrupt,
}

/// Reads up to Enter. Backspace and Ctrl-U erase. Keys that would end the program end the prompt instead, so
/// that the terminal is always restored.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] if nothing is entered; if the terminal cannot be read.
pub fn read_password(keys: impl BufRead) -> io::Result<Typed> {
    const CTRL_C: u8 = 0x03;
    const CTRL_D: u8 = 0x04;
    const CTRL_U: u8 = 0x15;
    const BACKSPACE: u8 = 0x08;
    const DELETE: u8 = 0x7f;
    let none = |text| Err(io::Error::new(ErrorKind::InvalidInput, text));
    let mut password = Vec::new();
    for key in keys.bytes() {
        match key? {
            b'\r' | b'\n' if password.is_empty() => return none("the password is empty"),
            b'\r' | b'\n' => return Ok(Typed::Password(password)),
            CTRL_C => return Ok(Typed::Interrupt),
            CTRL_D => return none("no password was given"),
            CTRL_U => password.clear(),
            BACKSPACE | DELETE => drop(password.pop()),
            byte => password.push(byte),
        }
    }
    Err(ErrorKind::UnexpectedEof.into())
}

/// A terminal whose echo and line editing can be turned off. Restored when dropped.
pub struct Quiet {
    terminal: File,
    before: libc::termios,
}

impl Quiet {
    /// Remembers how the terminal is, and changes nothing yet.
    ///
    /// # Errors
    /// If it is no terminal.
    pub fn prepare(terminal: File) -> io::Result<Self> {
        // SAFETY: termios is plain data for which all zeros is a valid value.
        let mut before: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open, and `before` is a valid termios that the call fills in.
        if unsafe { libc::tcgetattr(terminal.as_raw_fd(), &raw mut before) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Quiet { terminal, before })
    }

    /// Turns off echo, line editing, and the keys that send signals.
    ///
    /// # Errors
    /// If tcsetattr(3) fails.
    pub fn begin(&self) -> io::Result<()> {
        let mut quiet = self.before;
        quiet.c_lflag &= !(libc::ECHO | libc::ECHONL | libc::ICANON | libc::ISIG);
        set(&self.terminal, &quiet)
    }

    /// How the terminal was, for a signal handler that restores it.
    pub fn before(&self) -> libc::termios {
        self.before
    }

    /// Restores the terminal. A failure means that it is gone: there is nothing to restore.
    pub fn restore(&self) {
        let _ = set(&self.terminal, &self.before);
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        self.restore();
    }
}

fn set(terminal: &File, attributes: &libc::termios) -> io::Result<()> {
    // SAFETY: the descriptor is open, and `attributes` is a valid termios that the call only reads.
    if unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSAFLUSH, attributes) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> Option<Typed> {
        read_password(keys).ok()
    }

    fn password(text: &[u8]) -> Option<Typed> {
        Some(Typed::Password(text.to_vec()))
    }

    #[test]
    fn keys() {
        assert!(typed(b"se cret\r") == password(b"se cret"));
        assert!(typed(b"wrong\x15sed\x7fcret\n") == password(b"secret"));
        assert!(typed(b"\x7f\x7fa\n") == password(b"a"));
        assert!(typed(b"secret\x03\n") == Some(Typed::Interrupt));
        assert!(typed(b"secret\x04\n").is_none());
        assert!(typed(b"secret").is_none());
        assert!(typed(b"\n").is_none());
    }
}
