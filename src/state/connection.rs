//! A SOCKS connection as METP shows it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::metrics::Stage;
use crate::proto::socks5::Target;
use crate::reactor::slab::Key;
use metp_protocol::{ConnectionId, ConnectionLine, Field};

/// The id that METP shows for the session of this key.
pub fn id_of(key: Key) -> ConnectionId {
    ConnectionId { slot: key.slot(), generation: key.generation() }
}

/// The key of the session with this id. Reverses [`id_of`].
pub fn key_of(id: ConnectionId) -> Key {
    Key::new(id.slot, id.generation)
}

/// A SOCKS connection as it is now. Displays as a line of `CONNECTIONS`, without its LF.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// The account's name; `None` before the login.
    pub user: Option<Box<[u8]>>,
    /// The client's address.
    pub source: SocketAddr,
    /// DST.ADDR and DST.PORT; `None` before the request.
    pub target: Option<Target>,
    /// The address of the target; `None` before the tunnel is open.
    pub peer: Option<SocketAddr>,
    /// The stage.
    pub stage: Stage,
    /// Time since it was accepted.
    pub age: Duration,
    /// Time since the last byte of its tunnel, or since it was accepted.
    pub idle: Duration,
    /// Payload bytes delivered to the target.
    pub up: u64,
    /// Payload bytes delivered to the client.
    pub down: u64,
    /// Bytes received and not yet delivered.
    pub buffered: usize,
    /// The datagrams of an association.
    pub datagrams: Option<Datagrams>,
    /// The line of the rule that has decided about its request.
    pub rule: Option<u32>,
}

/// The datagrams of an association as METP shows them.
#[derive(Clone, Copy, Debug)]
pub struct Datagrams {
    /// Targets that may answer now.
    pub targets: usize,
    /// Datagrams relayed, both directions.
    pub relayed: u64,
    /// Datagrams dropped.
    pub dropped: u64,
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = ConnectionLine {
            id: Field::new(self.id),
            user: self.user.as_ref().map_or(Field::NONE, |user| Field::name(user)),
            source: Field::new(self.source),
            destination: Field::optional(self.target.as_ref()),
            peer: Field::optional(self.peer),
            state: Field::new(self.stage.word()),
            age: self.age,
            idle: self.idle,
            up: self.up,
            down: self.down,
            buffered: self.buffered as u64,
            targets: self.datagrams.map(|datagrams| datagrams.targets as u64),
            datagrams: self.datagrams.map(|datagrams| datagrams.relayed),
            dropped: self.datagrams.map(|datagrams| datagrams.dropped),
            rule: self.rule.map(u64::from),
        };
        line.fmt(f)
    }
}
