//! What sessions open besides their client's connection, as they see it: sockets of the kernel, or scripts of a test.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use super::datagram::{DatagramConfig, Datagrams};
use super::peer_listener::PeerListener;
use super::slab::Key;
use super::token::Side;

/// Opens sockets and registers them: their events reach the given side of the session with the given key. The
/// selector does it for real; tests do it with scripts.
///
/// What is rare is a trait object, so that sessions are generic over the type of connections alone.
pub trait Network<S> {
    /// Starts to connect to `address`.
    ///
    /// # Errors
    /// Those of socket(2) and connect(2), except that it is still in progress.
    fn dial(&mut self, address: SocketAddr, key: Key, side: Side) -> io::Result<S>;

    /// Opens a socket for datagrams.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and connect(2).
    fn open_datagrams(
        &mut self,
        config: &DatagramConfig,
        key: Key,
        side: Side,
    ) -> io::Result<Box<dyn Datagrams>>;

    /// Listens for one peer on a port of `address`, or one of `ports` there.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and listen(2).
    fn listen(
        &mut self,
        address: SocketAddr,
        ports: Option<&RangeInclusive<u16>>,
        key: Key,
        side: Side,
    ) -> io::Result<Box<dyn PeerListener<S>>>;

    /// Registers a connection that such a listener has accepted.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    fn adopt(&mut self, stream: &mut S, key: Key, side: Side) -> io::Result<()>;

    /// The address from which a connection to `target` would leave, with any port. No packet is sent.
    ///
    /// # Errors
    /// There is no route: those of connect(2).
    fn source_for(&mut self, target: SocketAddr) -> io::Result<SocketAddr>;

    /// Whether the kernel would deliver a connection to this address to this machine itself.
    ///
    /// # Errors
    /// If there is no clear answer.
    fn is_local_delivery(&mut self, address: SocketAddr) -> io::Result<bool>;
}
