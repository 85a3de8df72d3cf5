//! How a connection is called.

use std::fmt;

use super::arguments::{bad, number};
use super::{Cause, Response};

/// The identity of a SOCKS connection, unique for as long as anybody remembers it. Displays as
/// `slot.generation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId {
    /// Its place in the server's table.
    pub slot: u32,
    /// How many connections have had that place before.
    pub generation: u32,
}

impl ConnectionId {
    /// Reads two numbers with a dot between them.
    ///
    /// # Errors
    /// The answer to give instead: 400 with its cause.
    pub fn parse(word: &[u8]) -> Result<Self, Response> {
        let mut parts = word.splitn(2, |byte| *byte == b'.');
        let mut part = || {
            let number = number(parts.next().unwrap_or_default(), 10)?;
            u32::try_from(number).map_err(|_| bad(Cause::Range))
        };
        match (part(), part()) {
            (Ok(slot), Ok(generation)) => Ok(ConnectionId { slot, generation }),
            // Malformed counts more than out of range.
            (Err(slot), Err(generation)) if generation == bad(Cause::Range) => Err(slot),
            (_, Err(cause)) | (Err(cause), _) => Err(cause),
        }
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}
