//! How a connection is called.

use std::fmt;

use super::arguments::decimal;

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
    pub fn parse(word: &[u8]) -> Option<Self> {
        let dot = word.iter().position(|byte| *byte == b'.')?;
        let (slot, generation) = (word.get(..dot)?, word.get(dot + 1..)?);
        let number = |digits| decimal(digits).and_then(|number| u32::try_from(number).ok());
        Some(ConnectionId { slot: number(slot)?, generation: number(generation)? })
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}
