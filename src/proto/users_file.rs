//! The users file: one account a line, a superset of the files of htpasswd(1).
//!
//! ```text
//! # a comment; it survives every change of the file, as blank lines and the order do
//! *::conns=100 rate=20Mbit
//! alice:$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$...:role=admin conns=none
//! bob:!$2y$05$...
//! carol:=in\x20clear
//! ```
//!
//! A line is `NAME:SECRET` or `NAME:SECRET:KEY=VALUE ...`. Names are those of METP: an odd byte is written `\xHH`, and
//! so is a colon. `!` before the secret locks the account. The line of `*` has no secret: its keys are those of all
//! accounts that do not have the key themselves.
//!
//! A file is good as a whole or not at all: an unknown key must not pass as a comment, nor a line that is torn.

mod line;
mod rewrite;

use std::collections::HashMap;
use std::fmt;

use metp_protocol::Role;

use super::limits::{BadLimit, Limits};
use super::secret::{self, Secret};
use line::Line;
pub use line::{LONGEST_LINE, account_line};
#[cfg(test)]
use rewrite::rewrite_within;
pub use rewrite::{ALL_ACCOUNTS, BadEdit, Change, Edit, rewrite};

/// The most bytes of a users file.
pub const MOST_BYTES: u64 = 256 << 20;

/// The most errors that are told of one file.
pub const MOST_ERRORS: usize = 100;

/// The keys of a line.
const KNOWN: &str = "role, conns, sources, rate, quota, expires, from";

/// An account as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAccount {
    /// 1 to 255 bytes, and not `-`.
    pub name: Box<[u8]>,
    /// What the password is compared with.
    pub secret: Secret,
    /// Whether nobody can log in, not even with the password.
    pub locked: bool,
    /// What the account may do over METP.
    pub role: Role,
    /// What its line says of limits. `None`: nothing.
    pub limits: Option<Box<Limits>>,
}

/// The accounts of a file, and what holds for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileAccounts {
    /// The accounts, in the order of their lines.
    pub accounts: Vec<FileAccount>,
    /// What the line of `*` says of limits.
    pub defaults: Limits,
}

/// What is wrong with a line, and where. Displays as `line 7: ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a line. Displays as a sentence in which nothing of a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is longer than [`LONGEST_LINE`].
    TooLong,
    /// It holds this control character.
    Control(u8),
    /// It holds no colon.
    NoColon,
    /// The name is empty, longer than 255 bytes, `-`, or begins or ends with a blank.
    Name,
    /// The secret cannot be used.
    Secret(secret::Fault),
    /// There is no such key.
    UnknownKey(String),
    /// The key is given twice.
    KeyTwice(&'static str),
    /// The key has another value than `user` or `admin`.
    Role,
    /// The value of a limit cannot be used.
    Limit(BadLimit),
    /// The line of `*` has a secret.
    SecretOfAll,
    /// The line of `*` makes administrators of all accounts.
    AdminsAll,
    /// The name, or `*`, has a line already: this one.
    Twice(usize),
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::TooLong => write!(f, "more than {LONGEST_LINE} bytes"),
            Fault::Control(byte) => write!(f, "control character \\x{byte:02x}"),
            Fault::NoColon => f.write_str("no colon between name and secret"),
            Fault::Name => f.write_str(
                "a name has 1 to 255 bytes, is not \"-\", and has its first and last blank as \\x20",
            ),
            Fault::Secret(fault) => fault.fmt(f),
            Fault::UnknownKey(key) => write!(f, "unknown key \"{key}\": known are {KNOWN}"),
            Fault::KeyTwice(key) => write!(f, "{key} is given twice"),
            Fault::Limit(bad) => bad.fmt(f),
            Fault::Role => f.write_str("role is user or admin"),
            Fault::SecretOfAll => f.write_str("the line of * has no secret: *::KEY=VALUE"),
            Fault::AdminsAll => f.write_str("role=admin is for single accounts, not for *"),
            Fault::Twice(line) => write!(f, "its name is that of line {line}"),
        }
    }
}

/// Reads a whole file.
///
/// # Errors
/// All that is wrong with it, in the order of the lines, but no more than [`MOST_ERRORS`].
///
/// ```
/// use socks5d::proto::users_file::parse;
///
/// let file = parse(b"alice:=secret:role=admin\n").expect("good");
/// assert_eq!(&*file.accounts[0].name, b"alice");
/// let errors = parse(b"alice:=secret:roel=admin\n").expect_err("misspelt");
/// assert!(errors[0].to_string().starts_with("line 1: unknown key \"roel\": known are role, "));
/// ```
pub fn parse(content: &[u8]) -> Result<FileAccounts, Vec<LineError>> {
    let mut file = FileAccounts::default();
    let mut errors = Vec::new();
    let mut names: HashMap<Box<[u8]>, usize> = HashMap::new();
    let mut of_all = None;
    for (index, text) in line::lines(content).enumerate() {
        let number = index + 1;
        let mut first_line = |name: &[u8]| match names.get(name) {
            Some(line) => Err(Fault::Twice(*line)),
            None => {
                names.insert(name.into(), number);
                Ok(())
            }
        };
        let good = match Line::parse(text) {
            Ok(Line::Blank) => Ok(()),
            Ok(Line::Defaults(limits)) => match of_all.replace(number) {
                Some(line) => Err(Fault::Twice(line)),
                None => {
                    file.defaults = limits.map_or_else(Limits::default, |limits| *limits);
                    Ok(())
                }
            },
            Ok(Line::Account(account)) => {
                first_line(&account.name).map(|()| file.accounts.push(account))
            }
            Err(fault) => Err(fault),
        };
        if let Err(fault) = good {
            errors.push(LineError { line: number, fault });
            if errors.len() == MOST_ERRORS {
                break;
            }
        }
    }
    if errors.is_empty() { Ok(file) } else { Err(errors) }
}

/// Reads one line of a file, which has to be that of an account.
///
/// # Errors
/// What is wrong with it. A blank line or a comment has no colon.
pub fn parse_line(text: &[u8]) -> Result<FileAccount, Fault> {
    match Line::parse(text)? {
        Line::Account(account) => Ok(account),
        Line::Blank => Err(Fault::NoColon),
        Line::Defaults(_) => Err(Fault::Name),
    }
}

#[cfg(test)]
mod tests;
