//! The poll: which descriptors have something to say.
//!
//! Every descriptor is registered once, for reading and writing, edge-triggered, and never again. What
//! it belongs to travels in its token.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::event::Source as EventSource;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::endpoint::Dial;
use super::errno::INTERRUPTIONS;
use super::readiness::Readiness;
use super::route::Routes;
use super::slab::Key;
use super::waker::Waker;

/// The two services that this program offers, each with a listener of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// RFC 1928.
    Socks,
    /// The management protocol.
    Metp,
}

/// Displays as `socks` or `metp`.
impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Service::Socks => "socks",
            Service::Metp => "metp",
        })
    }
}

/// Which of a session's two descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that was accepted.
    Client,
    /// The one that was opened towards the target.
    Target,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Connections wait to be accepted.
    Listener(Service),
    /// Another thread has called the [`Waker`].
    Wake,
    /// A signal has been delivered.
    Signal,
    /// A session's descriptor is ready.
    Session(Key, Side),
}

const _: () = assert!(usize::BITS >= 64, "a token has to hold a whole key");

/// The two highest bits tell the kind, the next one the side or service, the lower 61 hold the key.
impl From<Source> for Token {
    fn from(source: Source) -> Self {
        let bits = match source {
            Source::Session(key, Side::Client) => key.pack(),
            Source::Session(key, Side::Target) => 1 << 61 | key.pack(),
            Source::Listener(Service::Socks) => 1 << 62,
            Source::Listener(Service::Metp) => 1 << 62 | 1 << 61,
            Source::Wake => 2 << 62,
            Source::Signal => 3 << 62,
        };
        Token(bits as usize)
    }
}

impl From<Token> for Source {
    fn from(token: Token) -> Self {
        let bits = token.0 as u64;
        let second = bits >> 61 & 1 == 1;
        match bits >> 62 {
            0 if second => Source::Session(Key::unpack(bits), Side::Target),
            0 => Source::Session(Key::unpack(bits), Side::Client),
            1 if second => Source::Listener(Service::Metp),
            1 => Source::Listener(Service::Socks),
            2 => Source::Wake,
            _ => Source::Signal,
        }
    }
}

impl Dial<TcpStream> for Selector {
    fn dial(&mut self, address: SocketAddr, key: Key) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        self.register(&mut stream, Source::Session(key, Side::Target))?;
        Ok(stream)
    }

    fn is_local_delivery(&mut self, address: SocketAddr) -> io::Result<bool> {
        self.routes.is_local_delivery(address)
    }
}

/// How many events one look takes at most.
const EVENTS: usize = 1024;

/// How often in a row a look may fail.
const FAILURES: u32 = 16;

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
            events: Events::with_capacity(EVENTS),
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
        for _ in 0..INTERRUPTIONS {
            match self.poll.poll(&mut self.events, timeout) {
                // The process may have been stopped for long (SIGSTOP). What has come meanwhile is to be
                // seen before anybody asks which deadlines have passed.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    timeout = Some(Duration::ZERO);
                }
                Err(_) if failures < FAILURES => failures += 1,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_as_tokens() {
        let highest = Key::unpack(u64::MAX);
        for source in [
            Source::Listener(Service::Socks),
            Source::Listener(Service::Metp),
            Source::Wake,
            Source::Signal,
            Source::Session(Key::unpack(0), Side::Client),
            Source::Session(Key::unpack(0), Side::Target),
            Source::Session(highest, Side::Client),
            Source::Session(highest, Side::Target),
        ] {
            assert_eq!(Source::from(Token::from(source)), source);
        }
    }
}
