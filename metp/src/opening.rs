//! What clients say before their login: the opening (§4), read and written.

use super::HELLO;
use super::arguments::{name_and_password, with_password};
use crate::text::unescape;

/// What a client may say before it has logged in (§4).
#[derive(Clone, PartialEq, Eq)]
pub enum PreAuthCommand {
    /// `HELLO METP/1.0`
    Hello,
    /// `AUTH <user> <password>`
    Auth {
        /// The account's name.
        name: Vec<u8>,
        /// Its password: the rest of the line, blanks included.
        password: Vec<u8>,
    },
}

impl PreAuthCommand {
    /// Reads a line (without its LF). `None`: 400 and close.
    ///
    /// ```
    /// use metp_protocol::PreAuthCommand;
    ///
    /// assert!(PreAuthCommand::parse(b"HELLO METP/1.0") == Some(PreAuthCommand::Hello));
    /// assert!(PreAuthCommand::parse(b"GET / HTTP/1.1").is_none());
    /// ```
    pub fn parse(line: &[u8]) -> Option<Self> {
        if line == HELLO.as_bytes() {
            return Some(PreAuthCommand::Hello);
        }
        let (name, password) = name_and_password(line.strip_prefix(b"AUTH ")?)?;
        Some(PreAuthCommand::Auth {
            name: unescape(name).into_owned(),
            password: password.to_vec(),
        })
    }

    /// The line as a client sends it, LF included. `None` if the password cannot travel in a line.
    pub fn encode(&self) -> Option<Vec<u8>> {
        match self {
            PreAuthCommand::Hello => Some(format!("{HELLO}\n").into_bytes()),
            PreAuthCommand::Auth { name, password } => with_password("AUTH", name, password),
        }
    }
}
