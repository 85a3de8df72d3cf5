//! What administrators see of a connection.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::metrics::Stage;
use crate::proto::socks5::Target;
use crate::reactor::slab::Key;
use metp_protocol::text::Escaped;
use metp_protocol::{ConnectionId, field};

/// The name under which administrators see the session of this key.
pub fn id_of(key: Key) -> ConnectionId {
    ConnectionId { slot: key.slot(), generation: key.generation() }
}

/// The key of the session that administrators call by this name. Reverses [`id_of`].
pub fn key_of(id: ConnectionId) -> Key {
    Key::new(id.slot, id.generation)
}

/// A SOCKS connection as it is now. Displays as a line of `CONNECTIONS`, without its LF.
#[derive(Clone, Debug)]
pub struct Connection {
    /// What it is called.
    pub id: ConnectionId,
    /// Whose it is, once somebody has logged in.
    pub user: Option<Rc<[u8]>>,
    /// Where the client is.
    pub source: SocketAddr,
    /// What it asked for, once it has.
    pub target: Option<Rc<Target>>,
    /// What it is connected to.
    pub peer: Option<SocketAddr>,
    /// How far it has come.
    pub stage: Stage,
    /// Since it was accepted.
    pub age: Duration,
    /// Since the last byte of its tunnel, or since it was accepted.
    pub idle: Duration,
    /// Payload bytes delivered to the target.
    pub up: u64,
    /// Payload bytes delivered to the client.
    pub down: u64,
    /// Bytes received and not yet delivered.
    pub buffered: usize,
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = or_dash(self.user.as_ref().map(|user| field(Escaped(user))));
        let target = or_dash(self.target.as_ref().map(field));
        let peer = or_dash(self.peer.map(field));
        write!(
            f,
            "id={} user={user} source={} destination={target} peer={peer} state={} age={:.3} \
             idle={:.3} up={} down={} buffered={}",
            self.id,
            self.source,
            self.stage.word(),
            self.age.as_secs_f64(),
            self.idle.as_secs_f64(),
            self.up,
            self.down,
            self.buffered,
        )
    }
}

fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".to_owned())
}
