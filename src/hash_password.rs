//! Layer 5: `socks5d --hash-password`, which makes a secret for the users file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, IsTerminal, Read, Write};
use std::process::ExitCode;

use common::stdio;
use common::terminal::{Quiet, Typed, read_password};
use metp_protocol::text::without_line_end;
use metp_protocol::{PASSWORD_RULE, acceptable_password};

use crate::reactor::signal::{self, Signal};
use crate::workers::passwords::Hasher;

/// The longest line that is read, in bytes: far more than a password has.
const LONGEST_LINE: u64 = 4096;

/// Reads a password, twice from the terminal or one line of standard input, and prints its hash.
///
/// # Errors
/// If there is no password, no account can have it, or the two differ; [`ErrorKind::InvalidInput`] then. If the hash
/// cannot be made or printed.
pub fn run() -> io::Result<()> {
    let password = if io::stdin().is_terminal() {
        let password = ask("Password: ")?;
        if ask("Repeat the password: ")? != password {
            return Err(wrong("the passwords differ"));
        }
        password
    } else {
        line(BufReader::new(stdio::stdin()))?
    };
    if password.is_empty() || !acceptable_password(&password) {
        return Err(wrong(PASSWORD_RULE));
    }
    let hash = Hasher::default().hash(&password)?;
    stdio::stdout().write_all(format!("{hash}\n").as_bytes())
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, what)
}

/// The first line.
fn line(input: impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    input.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    line.truncate(without_line_end(&line).len());
    Ok(line)
}

/// Asks on the terminal, without showing what is typed. A signal that ends the program restores the terminal first.
fn ask(question: &str) -> io::Result<Vec<u8>> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    write!(terminal, "{question}")?;
    let quiet = Quiet::prepare(terminal.try_clone()?)?;
    restore_at_signals(terminal.try_clone()?)?;
    quiet.begin()?;
    let typed = read_password(BufReader::new(&terminal));
    drop(quiet);
    writeln!(terminal)?;
    match typed? {
        Typed::Password(password) => Ok(password),
        Typed::Interrupt => {
            std::process::exit(EXIT_AT_SIGNAL + libc::SIGINT);
        }
    }
}

/// What a shell adds to the number of a signal.
const EXIT_AT_SIGNAL: i32 = 128;

/// Waits for signals in a thread: the main thread waits for keys.
fn restore_at_signals(terminal: File) -> io::Result<()> {
    let quiet = Quiet::prepare(terminal)?;
    let mut signals = signal::signals()?;
    signals.set_nonblocking(false)?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut byte = [0; 1];
        while signals.read_exact(&mut byte).is_ok() {
            let [byte] = byte;
            if let Some(Signal::Terminate | Signal::Interrupt | Signal::Quit | Signal::HangUp) =
                Signal::from_byte(byte)
            {
                quiet.restore();
                std::process::exit(EXIT_AT_SIGNAL + i32::from(byte));
            }
        }
    })?;
    Ok(())
}

/// The exit code and the line on stderr of an error.
pub fn exit_code(error: &io::Error) -> ExitCode {
    /// EX_USAGE of sysexits(3).
    const BAD_USAGE: u8 = 64;
    match error.kind() {
        ErrorKind::InvalidInput => ExitCode::from(BAD_USAGE),
        _ => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_without_its_end() {
        for (text, password) in [
            (&b"pw"[..], &b"pw"[..]),
            (b"pw\r\nmore", b"pw"),
            (b"two words\n", b"two words"),
            (b"", b""),
        ] {
            assert_eq!(line(text).expect("read"), password);
        }
        assert_eq!(line(&[b'x'; 5000][..]).expect("read").len(), 4096);
    }
}
