//! A listener that waits for one peer, for a session of its own (BIND, RFC 1928 §4).

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Socket, Type};

use super::listener::concerns_one_connection;
use super::ports;

/// Connections that the kernel holds: one is wanted.
const BACKLOG: i32 = 1;
/// Lost connections that one call skips.
const MAX_LOST: u32 = 16;

/// A listener for one peer. Tests implement it with scripts.
pub trait PeerListener<S> {
    /// A connection waits.
    fn on_event(&mut self);

    /// The address it is bound to.
    fn address(&self) -> SocketAddr;

    /// Whether there may be a connection; if not, an event will come.
    fn ready(&self) -> bool;

    /// Accepts a connection, which has TCP_NODELAY and SO_OOBINLINE. `None`: there is none that could be had.
    ///
    /// # Errors
    /// Those of accept(2) that concern this machine and not a single connection.
    fn accept(&mut self) -> io::Result<Option<(S, SocketAddr)>>;
}

/// A listener of the kernel.
pub struct TcpPeerListener {
    socket: TcpListener,
    address: SocketAddr,
    ready: bool,
}

impl TcpPeerListener {
    /// Binds and listens.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and listen(2). EADDRINUSE: no port of the range is free.
    pub fn open(address: SocketAddr, range: Option<&RangeInclusive<u16>>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
        // The port may be taken again while connections of an earlier listener are in TIME-WAIT. What is accepted
        // inherits the others. Without any of these it serves, a little worse.
        let _ = socket.set_reuse_address(true);
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_out_of_band_inline(true);
        ports::bind(&socket, address, range)?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into());
        let address = socket.local_addr()?;
        Ok(TcpPeerListener { socket, address, ready: false })
    }

    /// The socket, to be registered.
    pub fn source(&mut self) -> &mut TcpListener {
        &mut self.socket
    }
}

impl PeerListener<TcpStream> for TcpPeerListener {
    fn on_event(&mut self) {
        self.ready = true;
    }

    fn ready(&self) -> bool {
        self.ready
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        for _ in 0..MAX_LOST {
            if !self.ready {
                return Ok(None);
            }
            match self.socket.accept() {
                Ok(accepted) => return Ok(Some(accepted)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.ready = false,
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}
