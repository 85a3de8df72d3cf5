//! The network of an association in a scenario.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::rc::Rc;

use socks5d::reactor::datagram::{DatagramConfig, Datagrams};
use socks5d::reactor::network::Network;
use socks5d::reactor::peer_listener::PeerListener;
use socks5d::reactor::slab::Key;
use socks5d::reactor::token::Side;

use crate::datagrams::{FakeDatagrams, FakeUdp};
use crate::fake::FakeStream;
use crate::network::OWN_PORT;

/// A target to which datagrams leave from loopback, by its route.
pub fn from_loopback() -> IpAddr {
    "2001:db8:5::9".parse().expect("a literal")
}

/// The network of one association.
pub struct UdpNetwork {
    /// The near end of the control connection.
    pub near: SocketAddr,
    /// The client's socket, those for targets, by side.
    pub sockets: [Option<Rc<RefCell<FakeUdp>>>; 4],
    /// Messages that one call receives at most.
    pub batch: usize,
    /// Whether datagrams of one source and length come joined.
    pub joins: bool,
    /// Whether the machine knows IPv6.
    pub has_ipv6: bool,
}

impl Network<FakeStream> for UdpNetwork {
    fn dial(&mut self, _: SocketAddr, _: Key, _: Side) -> io::Result<FakeStream> {
        panic!("an association connects to nothing");
    }

    fn open_datagrams(
        &mut self,
        config: &DatagramConfig,
        _: Key,
        side: Side,
    ) -> io::Result<Box<dyn Datagrams>> {
        let place = &mut self.sockets[side as usize];
        assert!(place.is_none(), "opened twice: {side:?}");
        match side {
            Side::Client => panic!("the control connection's side"),
            Side::First => assert_eq!(config.bind.ip(), self.near.ip(), "bound elsewhere"),
            Side::Second => assert!(config.bind.is_ipv4() && config.bind.ip().is_unspecified()),
            Side::Third => assert!(config.bind.is_ipv6() && config.bind.ip().is_unspecified()),
        }
        if side == Side::Third && !self.has_ipv6 {
            return Err(io::Error::from_raw_os_error(97));
        }
        let bound = SocketAddr::new(config.bind.ip(), 40_000 + side as u16);
        let socket = FakeUdp::new(bound);
        socket.borrow_mut().batch = self.batch;
        socket.borrow_mut().joins = self.joins;
        *place = Some(Rc::clone(&socket));
        Ok(Box::new(FakeDatagrams::to(&socket)))
    }

    fn listen(
        &mut self,
        _: SocketAddr,
        _: Option<&RangeInclusive<u16>>,
        _: Key,
        _: Side,
    ) -> io::Result<Box<dyn PeerListener<FakeStream>>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn adopt(&mut self, _: &mut FakeStream, _: Key, _: Side) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn source_for(&mut self, target: SocketAddr) -> io::Result<SocketAddr> {
        let loopback = target.ip() == from_loopback();
        Ok(if loopback { "[::1]:0" } else { "192.0.2.200:0" }.parse().expect("a literal"))
    }

    fn is_local_delivery(&mut self, address: SocketAddr) -> io::Result<bool> {
        let own = [OWN_PORT, 40_002, 40_003].contains(&address.port());
        assert!(own, "asked for an ordinary target");
        Ok(address.ip().is_loopback())
    }
}
