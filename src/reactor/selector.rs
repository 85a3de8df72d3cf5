//! The poll: which descriptors have something to say.
//!
//! Every descriptor is registered once, for reading and writing, edge-triggered, and never again. What
//! it belongs to travels in its token.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::event::Source as EventSource;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll};

use super::datagram::socket::UdpSocket;
use super::datagram::{DatagramConfig, Datagrams};
use super::errno::MAX_INTERRUPTIONS;
use super::network::Network;
use super::readiness::Readiness;
use super::route::Routes;
use super::slab::Key;
use super::token::{Side, Source};
use super::waker::Waker;

impl Network<TcpStream> for Selector {
    fn dial(&mut self, address: SocketAddr, key: Key, side: Side) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
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

    fn is_local_delivery(&mut self, address: SocketAddr) -> io::Result<bool> {
        self.routes.is_local_delivery(address)
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
}

impl Selector {
    /// # Errors
    /// If the kernel has no descriptor left for it.
    pub fn new() -> io::Result<Self> {
        Ok(Selector {
            poll: Poll::new()?,
            events: Events::with_capacity(MAX_EVENTS),
            routes: Routes::open(),
        })
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
