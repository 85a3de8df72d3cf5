//! The poll: which descriptors have something to say.
//!
//! Every descriptor is registered once, for reading and writing, edge-triggered, and never again. What
//! it belongs to travels in its token.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::time::Duration;

use mio::event::Source as EventSource;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll};
use socket2::{Domain, Socket, Type};

use super::datagram::socket::UdpSocket;
use super::datagram::{DatagramConfig, Datagrams};
use super::errno::MAX_INTERRUPTIONS;
use super::family::PerFamily;
use super::network::Network;
use super::peer_listener::{PeerListener, TcpPeerListener};
use super::readiness::Readiness;
use super::route::Routes;
use super::slab::Key;
use super::tcp_state::choose_port_late;
use super::token::{Side, Source};
use super::waker::Waker;

impl Network<TcpStream> for Selector {
    fn dial(&mut self, address: SocketAddr, key: Key, side: Side) -> io::Result<TcpStream> {
        let mut stream = match self.outgoing.of(address.ip()) {
            None => TcpStream::connect(address)?,
            Some(source) => connect_from(*source, address)?,
        };
        self.register(&mut stream, Source::Session(key, side))?;
        Ok(stream)
    }

    fn open_datagrams(
        &mut self,
        config: &DatagramConfig,
        key: Key,
        side: Side,
    ) -> io::Result<Box<dyn Datagrams>> {
        let mut socket = UdpSocket::open(config)?;
        self.register_readable(socket.source(), Source::Session(key, side))?;
        Ok(Box::new(socket))
    }

    fn listen(
        &mut self,
        address: SocketAddr,
        ports: Option<&RangeInclusive<u16>>,
        key: Key,
        side: Side,
    ) -> io::Result<Box<dyn PeerListener<TcpStream>>> {
        let mut listener = TcpPeerListener::open(address, ports)?;
        self.register_readable(listener.source(), Source::Session(key, side))?;
        Ok(Box::new(listener))
    }

    fn adopt(&mut self, stream: &mut TcpStream, key: Key, side: Side) -> io::Result<()> {
        self.register(stream, Source::Session(key, side))
    }

    fn source_for(&mut self, target: SocketAddr) -> io::Result<SocketAddr> {
        if let Some(source) = self.outgoing.of(target.ip()) {
            return Ok(SocketAddr::new(*source, 0));
        }
        let socket = Socket::new(Domain::for_address(target), Type::DGRAM, None)?;
        // connect(2) of a datagram socket finds the route, and fails for port 0 on some systems.
        let mut target = target;
        target.set_port(target.port().max(1));
        socket.connect(&target.into())?;
        let mut source = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        source.set_port(0);
        Ok(source)
    }

    fn is_local_delivery(&mut self, address: SocketAddr) -> io::Result<bool> {
        self.routes.is_local_delivery(address)
    }
}

/// Starts to connect from this address. The port is chosen with the destination (IP_BIND_ADDRESS_NO_PORT), so that
/// there are as many for each destination as without an address.
fn connect_from(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    // If it is refused, there are fewer ports.
    let _ = choose_port_late(socket.as_fd());
    socket.bind(&SocketAddr::new(source, 0).into())?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// How many events one look takes at most.
const MAX_EVENTS: usize = 1024;

/// How often in a row a look may fail.
const MAX_FAILURES: u32 = 16;

/// The poll and the events of its last look.
pub struct Selector {
    poll: Poll,
    events: Events,
    routes: Routes,
    /// The addresses that connections leave from; `None`: the system chooses.
    outgoing: PerFamily<Option<IpAddr>>,
}

impl Selector {
    /// # Errors
    /// If the kernel has no descriptor left for it.
    pub fn new() -> io::Result<Self> {
        Ok(Selector {
            poll: Poll::new()?,
            events: Events::with_capacity(MAX_EVENTS),
            routes: Routes::open(),
            outgoing: PerFamily::default(),
        })
    }

    /// Sets the addresses that connections leave from.
    ///
    /// # Errors
    /// Those of bind(2): an address is not this machine's.
    pub fn set_outgoing(&mut self, outgoing: PerFamily<Option<IpAddr>>) -> io::Result<()> {
        for address in [outgoing.v4, outgoing.v6].into_iter().flatten() {
            let socket = Socket::new(Domain::for_address((address, 0).into()), Type::DGRAM, None)?;
            socket.bind(&SocketAddr::new(address, 0).into())?;
        }
        self.outgoing = outgoing;
        Ok(())
    }

    /// Registers a connection, once, for reading, writing and urgent data. It unregisters itself when it is closed.
    ///
    /// # Errors
    /// If the kernel refuses, for want of memory.
    pub fn register(&self, descriptor: &mut impl EventSource, source: Source) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        self.poll.registry().register(descriptor, source.into(), interest)
    }

    /// Like [`Selector::register`], for descriptors that can only be read.
    ///
    /// # Errors
    /// If the kernel refuses, for want of memory.
    pub fn register_readable(
        &self,
        descriptor: &mut impl EventSource,
        source: Source,
    ) -> io::Result<()> {
        self.poll.registry().register(descriptor, source.into(), Interest::READABLE)
    }

    /// Ends the registration of a descriptor. Closing it does so, unless another process has it too.
    pub fn deregister(&self, descriptor: &mut impl EventSource) {
        // What is not registered need not be taken out.
        let _ = self.poll.registry().deregister(descriptor);
    }

    /// What other threads use to end a wait; it shows as [`Source::Wake`].
    ///
    /// # Errors
    /// If the kernel has no descriptor left for it.
    pub fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), Source::Wake.into())
    }

    /// Waits for events, at most for `timeout`; `None` waits until there is one.
    ///
    /// # Errors
    /// Those of epoll_wait(2), if it fails 17 times in a row: nothing can mend that. An interruption
    /// is no error, and a failing call takes no event.
    pub fn select(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mut timeout = timeout;
        let mut failures = 0;
        for _ in 0..MAX_INTERRUPTIONS {
            match self.poll.poll(&mut self.events, timeout) {
                // The process may have been stopped for long (SIGSTOP). What has come meanwhile is to be
                // seen before anybody asks which deadlines have passed.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    timeout = Some(Duration::ZERO);
                }
                Err(_) if failures < MAX_FAILURES => failures += 1,
                result => return result,
            }
        }
        // A wait of no time is not interrupted: the kernel will never say anything else.
        Err(io::ErrorKind::Interrupted.into())
    }

    /// The events of the last look.
    pub fn events(&self) -> impl Iterator<Item = (Source, Readiness)> {
        self.events.iter().map(|event| (event.token().into(), event.into()))
    }
}
