//! Input of the live screen: keys, from the bytes of a terminal in raw mode, and signals, as flags. A signal
//! that ends or stops the program takes effect only after the terminal has been restored.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::{flag, low_level};

/// A key that the screen uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPress {
    /// A printable ASCII character.
    Char(char),
    Enter,
    Backspace,
    Escape,
    /// Ctrl-C or Ctrl-D.
    End,
    /// Ctrl-Z.
    Stop,
    /// Ctrl-L.
    Redraw,
    Up,
    Down,
}

/// Opens the controlling terminal for its keys, even if stdin is redirected.
///
/// # Errors
/// If the process has no controlling terminal.
pub fn open_terminal() -> io::Result<File> {
    File::open("/dev/tty")
}

/// Passes keys to `take` until it returns `false`, or the terminal has gone away. Returns whether it has.
pub fn read_keys(mut terminal: impl Read, mut take: impl FnMut(KeyPress) -> bool) -> bool {
    let mut bytes = [0; 256];
    loop {
        match terminal.read(&mut bytes) {
            Ok(0) => return true,
            Ok(count) => {
                if !keys(bytes.get(..count).unwrap_or_default()).into_iter().all(&mut take) {
                    return false;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}

/// The keys in `bytes`. A terminal sends an arrow, a function key and the like as ESC and more bytes in one
/// write; most of these are not used here.
fn keys(bytes: &[u8]) -> Vec<KeyPress> {
    let mut keys = Vec::new();
    let mut bytes = bytes.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.peek()) {
            (0x1b, Some(b'[')) => {
                bytes.next();
                let plain = bytes.peek().copied();
                // ECMA-48 section 5.4: a control sequence goes on up to its final byte.
                bytes.by_ref().find(|byte| (0x40..=0x7e).contains(byte));
                keys.extend(arrow(plain));
            }
            // Arrows in application mode (DECCKM).
            (0x1b, Some(b'O')) => keys.extend(arrow(bytes.nth(1))),
            (0x1b, _) => keys.push(KeyPress::Escape),
            (0x03 | 0x04, _) => keys.push(KeyPress::End),
            (0x0c, _) => keys.push(KeyPress::Redraw),
            (0x1a, _) => keys.push(KeyPress::Stop),
            (b'\r' | b'\n', _) => keys.push(KeyPress::Enter),
            (0x08 | 0x7f, _) => keys.push(KeyPress::Backspace),
            (b' '..=b'~', _) => keys.push(KeyPress::Char(char::from(byte))),
            _ => {}
        }
    }
    keys
}

/// The arrow key whose sequence ends in `last`.
fn arrow(last: Option<u8>) -> Option<KeyPress> {
    match last {
        Some(b'A') => Some(KeyPress::Up),
        Some(b'B') => Some(KeyPress::Down),
        _ => None,
    }
}

/// The signals that have been caught.
pub struct Signals {
    end: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    continued: Arc<AtomicBool>,
    resized: Arc<AtomicBool>,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// If sigaction(2) fails.
    pub fn catch() -> io::Result<Self> {
        let signals = Signals {
            end: Arc::default(),
            stop: Arc::default(),
            continued: Arc::default(),
            resized: Arc::default(),
        };
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            // Drawing blocks while the terminal is not read. The second signal ends the program at once.
            flag::register_conditional_default(signal, Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
            let number = usize::try_from(signal).unwrap_or(0);
            flag::register_usize(signal, Arc::clone(&signals.end), number)?;
        }
        flag::register(SIGTSTP, Arc::clone(&signals.stop))?;
        flag::register(SIGCONT, Arc::clone(&signals.continued))?;
        flag::register(SIGWINCH, Arc::clone(&signals.resized))?;
        Ok(signals)
    }

    /// Whether a signal has asked for the end of the program.
    pub fn end_requested(&self) -> bool {
        self.end.load(Ordering::Relaxed) != 0
    }

    /// Whether SIGTSTP has come since the last call.
    pub fn stop_requested(&self) -> bool {
        self.stop.swap(false, Ordering::Relaxed)
    }

    /// Whether SIGCONT has come since the last call.
    pub fn continued(&self) -> bool {
        self.continued.swap(false, Ordering::Relaxed)
    }

    /// Whether SIGWINCH has come since the last call.
    pub fn resized(&self) -> bool {
        self.resized.swap(false, Ordering::Relaxed)
    }

    /// Ends the program by the signal that was caught, as if there were no handler. Returns if there was none.
    pub fn raise(&self) {
        if let Ok(signal @ 1..) = i32::try_from(self.end.load(Ordering::Relaxed)) {
            // If it fails, main returns.
            let _ = low_level::emulate_default_handler(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_control_sequences() {
        use KeyPress::{Backspace, Char, End, Enter, Escape, Redraw, Stop};
        assert_eq!(
            keys(b"k1.\x7f\x08\r\n"),
            [Char('k'), Char('1'), Char('.'), Backspace, Backspace, Enter, Enter]
        );
        assert_eq!(keys(b"\x03\x04\x01\xc3\xa4\x0c\x1a"), [End, End, Redraw, Stop]);
        assert_eq!(keys(b"\x1b"), [Escape]);
        assert_eq!(keys(b"\x1by\x1b\x1b"), [Escape, Char('y'), Escape, Escape]);
        assert_eq!(keys(b"\x1b[A\x1b[B\x1bOB"), [KeyPress::Up, KeyPress::Down, KeyPress::Down]);
        // Shift-Up, Shift-Delete, F1, F5, and a sequence without its end.
        assert_eq!(keys(b"\x1b[1;2A\x1b[3;2~\x1bOPa\x1b[15~b\x1b[1"), [Char('a'), Char('b')]);
    }

    #[test]
    fn reading_ends_with_the_receiver_or_the_terminal() {
        let mut taken = Vec::new();
        assert!(read_keys(&b"qp"[..], |key| {
            taken.push(key);
            true
        }));
        assert_eq!(taken, [KeyPress::Char('q'), KeyPress::Char('p')]);
        assert!(!read_keys(&b"qp"[..], |_| false));
    }
}
