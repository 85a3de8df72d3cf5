//! A users file whose accounts are to be imported: its lines. `account_import` sends them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use common::stdio;
use metp_protocol::text::Escaped;
use metp_protocol::{LINE_LIMIT, fits_in_a_line};

use crate::failure::Failure;

/// The largest file, in bytes: that of the server.
const MOST_BYTES: u64 = 256 << 20;
/// What stands before the line of an account in its command, and behind it.
const AROUND: usize = "IMPORT \n".len();

/// A users file that is to be imported.
pub struct UsersFile {
    /// Its name; `-` is standard input.
    path: PathBuf,
    /// The lines of accounts with their numbers, once it has been read.
    lines: Vec<(usize, Vec<u8>)>,
}

impl UsersFile {
    /// A file that has not been read yet.
    pub fn new(path: PathBuf) -> Self {
        UsersFile { path, lines: Vec::new() }
    }

    /// Its name as it was given, fit to print.
    pub fn shown(&self) -> String {
        Escaped(self.path.as_os_str().as_encoded_bytes()).to_string()
    }

    /// The lines of accounts, with their numbers.
    pub fn lines(&self) -> &[(usize, Vec<u8>)] {
        &self.lines
    }

    /// Reads it. Blank lines, comments and the line of `*` are left out; whether the others are good is for the server to
    /// say.
    ///
    /// # Errors
    /// [`Failure::Usage`] if it cannot be read, or a line cannot be sent.
    pub fn read(&mut self) -> Result<(), Failure> {
        let wrong = |what: String| Failure::Usage(format!("--import {}: {what}", self.shown()));
        let content = content(&self.path).map_err(|error| wrong(error.to_string()))?;
        self.lines = lines(&content).map_err(wrong)?;
        Ok(())
    }
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let limit = MOST_BYTES.saturating_add(1);
    match path.as_os_str().as_encoded_bytes() {
        b"-" => stdio::stdin().take(limit).read_to_end(&mut content)?,
        _ => File::open(path)?.take(limit).read_to_end(&mut content)?,
    };
    if content.len() as u64 > MOST_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large"));
    }
    Ok(content)
}

/// The lines of accounts, with their numbers.
fn lines(content: &[u8]) -> Result<Vec<(usize, Vec<u8>)>, String> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut lines = Vec::new();
    for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_account = !matches!(line.trim_ascii_start().first(), None | Some(b'#'));
        if !is_account || line.starts_with(b"*:") {
            continue;
        }
        let number = index.saturating_add(1);
        if line.len() > LINE_LIMIT - AROUND || !fits_in_a_line(line) {
            return Err(format!("line {number}: it is too long, or holds NUL or CR"));
        }
        lines.push((number, line.to_vec()));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_accounts_keep_their_numbers() {
        let file = b"\xef\xbb\xbf# c\r\n\nalice:=x:role=admin\r\n*::role=user\n  # d\nbob:=two words \n \nlast:";
        let found = lines(file).expect("good");
        let wanted: [(usize, &[u8]); 3] =
            [(3, b"alice:=x:role=admin"), (6, b"bob:=two words "), (8, b"last:")];
        assert!(found.iter().map(|(number, line)| (*number, &line[..])).eq(wanted));
        assert!(lines(b"").expect("good").is_empty());
    }

    #[test]
    fn what_cannot_be_sent_is_refused_before_anything_is() {
        let long = [b"a:=b\n".to_vec(), vec![b'x'; LINE_LIMIT]].concat();
        for file in [&long[..], b"a:=b\nc:=\0", b"a:=b\nc:=\rd\n"] {
            let wrong = "line 2: it is too long, or holds NUL or CR";
            assert_eq!(lines(file).err().as_deref(), Some(wrong));
        }
    }
}
