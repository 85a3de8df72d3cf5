//! Passwords that are not on the command line: from the terminal, standard input or a file.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::Path;

use common::stdio;
use metp_protocol::text::{Escaped, without_line_end};
use metp_protocol::{Command, PASSWORD_RULE, acceptable_password};

use crate::args::check_password;
use crate::failure::Failure;
use crate::invocation::Invocation;
use crate::terminal;

/// The longest first line of a file or of standard input that is read, in bytes: far more than a password has.
const FIRST_LINE_LIMIT_BYTES: u64 = 4096;

/// Asks for the password of an account on the terminal.
///
/// # Errors
/// If there is no terminal, the user enters nothing, or the password holds a control character.
pub fn ask(name: &[u8]) -> Result<Vec<u8>, Failure> {
    let name = Escaped(name);
    let password = asked(&format!("Password for {name}: "))?;
    check_password(&password)
        .map_err(|wrong| Failure::Usage(format!("password for {name}: {wrong}")))?;
    Ok(password)
}

/// Asks for the new password of the account that the command adds or changes, unless it has one. Reads the file that is
/// to be imported.
///
/// # Errors
/// If no password is entered, or METP does not allow it; if the file cannot be read.
pub fn complete(mut invocation: Invocation) -> Result<Invocation, Failure> {
    if let Some(file) = &mut invocation.import {
        file.read()?;
    }
    let (
        None,
        Some(Command::AddUser { name, password } | Command::ChangePassword { name, password }),
    ) = (&invocation.line, &mut invocation.command)
    else {
        return Ok(invocation);
    };
    if password.is_empty() {
        *password = new(name)?;
        if !acceptable_password(password) {
            let option = invocation.option.shown();
            return Err(Failure::Usage(format!("{option} {}: {PASSWORD_RULE}", Escaped(name))));
        }
    }
    Ok(invocation)
}

/// Reads a new password for an account: twice from the terminal, or one line of standard input if that is no
/// terminal.
///
/// # Errors
/// If there is no password, it holds a control character, or the two differ.
fn new(name: &[u8]) -> Result<Vec<u8>, Failure> {
    let name = Escaped(name);
    let password = if io::stdin().is_terminal() {
        let password = asked(&format!("New password for {name}: "))?;
        if asked("Repeat the new password: ")? != password {
            return Err(Failure::Usage("the passwords differ, nothing was changed".to_owned()));
        }
        password
    } else {
        // One byte at a time: what follows the line may be the password of another account.
        first_line(BufReader::with_capacity(1, stdio::stdin())).map_err(|error| {
            Failure::Usage(format!("no new password for {name} on standard input: {error}"))
        })?
    };
    check_password(&password)
        .map_err(|wrong| Failure::Usage(format!("new password for {name}: {wrong}")))?;
    Ok(password)
}

/// Reads the password from the first line of a file.
///
/// # Errors
/// If the file cannot be read, or the line is empty, too long or holds a control character.
pub fn from_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |what: &dyn Display| {
        let path = Escaped(path.as_os_str().as_encoded_bytes());
        Failure::Usage(format!("--password-file {path}: {what}"))
    };
    let password = File::open(path).and_then(|file| first_line(BufReader::new(file)));
    let password = password.map_err(|error| wrong(&error))?;
    check_password(&password).map_err(|what| wrong(&what))?;
    Ok(password)
}

fn asked(question: &str) -> Result<Vec<u8>, Failure> {
    terminal::ask(question).map_err(|error| {
        Failure::Usage(match error.kind() {
            io::ErrorKind::InvalidInput => error.to_string(),
            _ => format!(
                "cannot ask for the password: {error}; --password-file and METP_AUTH need no terminal"
            ),
        })
    })
}

fn first_line(input: impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    input.take(FIRST_LINE_LIMIT_BYTES).read_until(b'\n', &mut line)?;
    if line.len() as u64 >= FIRST_LINE_LIMIT_BYTES && line.last() != Some(&b'\n') {
        let text = format!("its first line has {FIRST_LINE_LIMIT_BYTES} bytes or more");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    line.truncate(without_line_end(&line).len());
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_counts() {
        for (text, password) in [
            (&b"secret"[..], &b"secret"[..]),
            (b"two words \nmore\n", b"two words "),
            (b"dos\r\n", b"dos"),
            // A CR alone is no line end; the password is refused later, as it holds a control character.
            (b"mac\r", b"mac\r"),
        ] {
            assert_eq!(first_line(text).unwrap_or_default(), password);
        }
        assert!(first_line(&b"\nsecret\n"[..]).is_err());
        assert!(first_line(&b""[..]).is_err());
        // A line that is cut would be another password.
        let long = [b'x'; FIRST_LINE_LIMIT_BYTES as usize];
        assert!(first_line(&long[..]).is_err());
        assert!(first_line(&long[1..]).is_ok());
    }
}
