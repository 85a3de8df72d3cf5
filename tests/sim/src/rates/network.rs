//! The network of several sessions: each connection is there at once.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use socks5d::reactor::datagram::{DatagramConfig, Datagrams};
use socks5d::reactor::network::Network;
use socks5d::reactor::peer_listener::PeerListener;
use socks5d::reactor::slab::Key;
use socks5d::reactor::token::Side;

use super::{SharedPeer, SharedUdp, TARGET, address, number};
use crate::datagrams::{FakeDatagrams, FakeUdp};
use crate::fake::{FakeStream, Making, Peer};

/// Targets and sockets, by the numbers of their sessions and the sides.
#[derive(Default)]
pub struct SharedNetwork {
    pub targets: BTreeMap<u32, SharedPeer>,
    pub sockets: BTreeMap<(u32, usize), SharedUdp>,
}

impl Network<FakeStream> for SharedNetwork {
    fn dial(&mut self, target: SocketAddr, key: Key, side: Side) -> io::Result<FakeStream> {
        assert_eq!((target, side), (address(TARGET), Side::First));
        let peer = Peer::new(Making::Made, address("192.0.2.200:4000"), usize::MAX);
        self.targets.insert(number(key), SharedPeer::clone(&peer));
        Ok(FakeStream::to(&peer))
    }

    fn open_datagrams(
        &mut self,
        config: &DatagramConfig,
        key: Key,
        side: Side,
    ) -> io::Result<Box<dyn Datagrams>> {
        let socket = FakeUdp::new(SocketAddr::new(config.bind.ip(), 40_000 + side as u16));
        socket.borrow_mut().batch = 32;
        self.sockets.insert((number(key), side as usize), SharedUdp::clone(&socket));
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

    fn source_for(&mut self, _: SocketAddr) -> io::Result<SocketAddr> {
        Ok(address("192.0.2.200:0"))
    }

    fn is_local_delivery(&mut self, _: SocketAddr) -> io::Result<bool> {
        Ok(false)
    }
}
