//! The id of a connection, and its stage.

use std::fmt;

use super::arguments::{bad, number};
use super::{Cause, Response};

/// The id of a SOCKS connection. It is not used again for another connection. Displays as `slot.generation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId {
    /// Its place in the server's table.
    pub slot: u32,
    /// The number of connections that had this slot before.
    pub generation: u32,
}

impl ConnectionId {
    /// Reads two numbers with a dot between them.
    ///
    /// ```
    /// use metp_protocol::ConnectionId;
    ///
    /// let id = ConnectionId { slot: 17, generation: 3 };
    /// assert_eq!(ConnectionId::parse(b"17.3"), Ok(id));
    /// assert_eq!(id.to_string(), "17.3");
    /// ```
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

/// How far a SOCKS connection has come: `state` of `CONNECTIONS` (§5.15).
///
/// ```
/// use metp_protocol::Stage;
///
/// assert_eq!(Stage::ALL.map(Stage::word)[5], "relay");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Expects the methods.
    Hello,
    /// Expects name and password.
    Auth,
    /// Expects the request.
    Request,
    /// Waits for the addresses of a name.
    Resolve,
    /// Tries to reach the target.
    Connect,
    /// The tunnel is open.
    Relay,
    /// Waits until the client has read the last reply and closes.
    Linger,
    /// Relays datagrams (RFC 1928 §7).
    Associate,
    /// Waits for the connection of a peer (BIND, RFC 1928 §4).
    Bind,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Stage; 9] = [
        Stage::Hello,
        Stage::Auth,
        Stage::Request,
        Stage::Resolve,
        Stage::Connect,
        Stage::Relay,
        Stage::Linger,
        Stage::Associate,
        Stage::Bind,
    ];

    /// The word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Stage::Hello => "hello",
            Stage::Auth => "auth",
            Stage::Request => "request",
            Stage::Resolve => "resolve",
            Stage::Connect => "connect",
            Stage::Relay => "relay",
            Stage::Linger => "linger",
            Stage::Associate => "associate",
            Stage::Bind => "bind",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Info;

    /// §5.12: one line for each state, behind the sum of them all.
    #[test]
    fn info_has_a_line_for_each_stage() {
        let keys = Info::KEYS.iter().filter_map(|key| key.name.strip_prefix("connections-"));
        let stages: Vec<&str> = keys.filter(|rest| *rest != "limit").collect();
        assert_eq!(stages, Stage::ALL.map(Stage::word));
    }
}
