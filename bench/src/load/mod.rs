//! Both ends of the load, in one event loop: the clients before the proxy and the origin behind it. Here tunnels;
//! [`datagrams`] has a loop of its own.
//!
//! Events are edge-triggered. A connection that has spent its budget waits in `again` for the next turn,
//! so that bulk transfers share the loop evenly. Every wait is bounded by a deadline.

pub mod client;
pub mod datagrams;
pub mod handshake;
pub mod origin;
pub mod probe;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::sys;
use crate::workload::Kind;
use client::Client;
use origin::Origin;

/// The origin listens on so many addresses, and `rate` clients come from as many: a pair of addresses
/// has only some 28,000 ports, each unusable for a while after its connection.
pub const ADDRESSES: u8 = 16;
/// Tunnels that are being opened at once, except for `rate`.
const OPENING: usize = 64;
/// Most latencies kept of one run.
const SAMPLES: usize = 1 << 22;
/// Bytes of one bulk call.
const CHUNK: usize = 256 * 1024;
/// Bulk calls on one connection before others have their turn.
const TURN: usize = 4;

/// How clients reach the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Straight.
    Direct,
    /// Through a relay that knows the origin itself.
    Relay(SocketAddr),
    /// Through a SOCKS5 server.
    Socks { server: SocketAddr, login: bool },
}

/// What a turn of a connection came to.
enum Turn {
    /// It needs an event.
    Wait,
    /// It could go on at once.
    Again,
    /// The client's tunnel has just become ready for its work.
    Opened,
    /// It has done what it was for.
    Done,
    /// It failed, or its peer has gone.
    Gone,
}

/// What has been counted since the last reset.
#[derive(Default)]
pub struct Tally {
    /// Connections or round trips that were completed.
    pub done: u64,
    /// Bytes that arrived at the far end of bulk transfers.
    pub bytes: u64,
    /// Connections that failed.
    pub failed: u64,
    /// How long each of `done` took, in µs.
    pub latencies: Vec<u32>,
}

impl Tally {
    fn complete(&mut self, started: Instant) {
        self.done += 1;
        self.record(started);
    }

    fn record(&mut self, started: Instant) {
        if self.latencies.len() < SAMPLES {
            self.latencies.push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
    }
}

/// The load of one run, of either kind.
pub trait Runs {
    /// Opens tunnels or associations until there are `count`, or the deadline has passed. Returns how many there are.
    ///
    /// # Errors
    /// If what is opened cannot be, at once.
    fn open(&mut self, route: Route, count: usize, deadline: Instant) -> io::Result<usize>;

    /// Goes on for this long.
    ///
    /// # Errors
    /// Those of sockets and of the poll.
    fn run(&mut self, time: Duration) -> io::Result<()>;

    /// Uses everything that is open once, and returns how much of it worked before the deadline.
    ///
    /// # Errors
    /// Those of sockets and of the poll.
    fn probe_all(&mut self, deadline: Instant) -> io::Result<u64>;

    /// What has been counted.
    fn tally(&mut self) -> &mut Tally;
}

enum End {
    Client(Client),
    Origin(Origin),
}

/// The load of one run.
pub struct Load {
    poll: Poll,
    events: Events,
    kind: Kind,
    listeners: Vec<TcpListener>,
    targets: Vec<SocketAddr>,
    route: Route,
    ends: Vec<Option<End>>,
    free: Vec<usize>,
    again: Vec<usize>,
    /// Clients so far, open tunnels, and those on their way.
    started: usize,
    opened: usize,
    opening: usize,
    /// What every call reads into or writes from.
    chunk: Vec<u8>,
    tally: Tally,
}

impl Load {
    /// An origin for this kind of workload, and no client yet.
    pub fn new(kind: Kind) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listeners = listen_everywhere()?;
        let mut targets = Vec::new();
        for (index, listener) in listeners.iter_mut().enumerate() {
            poll.registry().register(listener, Token(index), Interest::READABLE)?;
            targets.push(listener.local_addr()?);
        }
        Ok(Load {
            poll,
            events: Events::with_capacity(1024),
            kind,
            listeners,
            targets,
            route: Route::Direct,
            ends: Vec::new(),
            free: Vec::new(),
            again: Vec::new(),
            started: 0,
            opened: 0,
            opening: 0,
            chunk: vec![0x5a; CHUNK],
            tally: Tally::default(),
        })
    }

    /// The port of the origin, on all its addresses.
    pub fn port(&self) -> u16 {
        self.targets.first().map_or(0, SocketAddr::port)
    }
}

impl Runs for Load {
    /// For `rate`, which opens connections all the time, those under way count.
    fn open(&mut self, route: Route, tunnels: usize, deadline: Instant) -> io::Result<usize> {
        self.route = route;
        if self.kind == Kind::Rate {
            for _ in 0..tunnels {
                self.start_client();
            }
            return Ok(self.opening);
        }
        // A proxy that refuses is asked a bounded number of times.
        let most = tunnels + OPENING;
        while self.opened < tunnels && Instant::now() < deadline {
            while self.opening < OPENING
                && self.opened + self.opening < tunnels
                && self.started < most
            {
                self.start_client();
            }
            if self.opening == 0 && self.started >= most {
                break;
            }
            self.turn(deadline)?;
        }
        Ok(self.opened)
    }

    fn run(&mut self, time: Duration) -> io::Result<()> {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            self.turn(deadline)?;
        }
        Ok(())
    }

    fn probe_all(&mut self, deadline: Instant) -> io::Result<u64> {
        self.tally = Tally::default();
        for index in 0..self.ends.len() {
            if let Some(Some(End::Client(client))) = self.ends.get_mut(index)
                && client.open()
                && matches!(client.trip(&self.chunk), Turn::Gone)
            {
                self.remove(index);
            }
        }
        let wanted = self.ends.iter().flatten().filter(|end| matches!(end, End::Client(_))).count();
        while self.tally.done + self.tally.failed < wanted as u64 && Instant::now() < deadline {
            self.turn(deadline)?;
        }
        Ok(self.tally.done)
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }
}

impl Load {
    /// Waits for events, at most until the deadline, and serves them.
    fn turn(&mut self, deadline: Instant) -> io::Result<()> {
        let wait = match self.again.is_empty() {
            true => deadline.saturating_duration_since(Instant::now()),
            false => Duration::ZERO,
        };
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let again = std::mem::take(&mut self.again);
        for event in &events {
            self.note(event);
        }
        self.events = events;
        for index in again {
            self.drive(index);
        }
        Ok(())
    }

    fn note(&mut self, event: &Event) {
        let Token(token) = event.token();
        if token < self.listeners.len() {
            return self.accept(token);
        }
        let index = token - self.listeners.len();
        let concerned = match self.ends.get(index) {
            Some(Some(End::Client(client))) => client.concerned(event),
            Some(Some(End::Origin(origin))) => origin.concerned(event),
            _ => false,
        };
        if concerned {
            self.drive(index);
        }
    }

    fn drive(&mut self, index: usize) {
        let Load { ends, chunk, tally, kind, .. } = self;
        let (turn, client) = match ends.get_mut(index) {
            Some(Some(End::Client(client))) => (client.turn(*kind, chunk, tally), true),
            Some(Some(End::Origin(origin))) => (origin.turn(chunk, tally), false),
            _ => return,
        };
        match turn {
            Turn::Wait => {}
            Turn::Again => self.again.push(index),
            Turn::Opened => {
                self.opening -= 1;
                self.opened += 1;
                self.again.push(index);
            }
            Turn::Done | Turn::Gone => {
                if client && matches!(turn, Turn::Gone) {
                    self.tally.failed += 1;
                }
                self.remove(index);
                if client && self.kind == Kind::Rate {
                    self.start_client();
                }
            }
        }
    }

    fn remove(&mut self, index: usize) {
        if let Some(end) = self.ends.get_mut(index).and_then(Option::take) {
            self.free.push(index);
            match end {
                End::Client(client) if client.open() => self.opened -= 1,
                End::Client(_) => self.opening -= 1,
                End::Origin(_) => {}
            }
        }
    }

    fn accept(&mut self, listener: usize) {
        // Bounded: each acceptance takes one connection off the backlog.
        while let Ok((stream, _)) = self.listeners[listener].accept() {
            let _ = stream.set_nodelay(self.kind != Kind::Rate);
            self.insert(End::Origin(Origin::new(stream, self.kind)));
        }
    }

    fn start_client(&mut self) {
        let target = self.targets[self.started % self.targets.len()];
        let number = self.started;
        self.started += 1;
        match self.connect(number, target) {
            Ok(stream) => {
                let (login, target) = match self.route {
                    Route::Socks { login, .. } => (Some(login), target),
                    Route::Direct | Route::Relay(_) => (None, target),
                };
                self.opening += 1;
                self.insert(End::Client(Client::new(stream, login, target)));
            }
            Err(_) => self.tally.failed += 1,
        }
    }

    fn connect(&self, number: usize, target: SocketAddr) -> io::Result<TcpStream> {
        let to = match self.route {
            Route::Direct => target,
            Route::Relay(address) | Route::Socks { server: address, .. } => address,
        };
        if self.kind != Kind::Rate {
            let stream = TcpStream::connect(to)?;
            stream.set_nodelay(true)?;
            return Ok(stream);
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        sys::late_port(socket.as_fd())?;
        let from = Ipv4Addr::new(127, 0, 1, 1 + (number % usize::from(ADDRESSES)) as u8);
        socket.bind(&SockAddr::from(SocketAddr::from((from, 0))))?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(TcpStream::from_std(socket.into())),
        }
    }

    fn insert(&mut self, mut end: End) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.ends.push(None);
            self.ends.len() - 1
        });
        let stream = match &mut end {
            End::Client(client) => client.stream(),
            End::Origin(origin) => origin.stream(),
        };
        let both = Interest::READABLE | Interest::WRITABLE;
        let known =
            self.poll.registry().register(stream, Token(index + self.listeners.len()), both);
        self.ends[index] = Some(end);
        if known.is_err() {
            self.tally.failed += 1;
            self.remove(index);
        }
    }
}

/// Listeners on 127.0.0.1 to 127.0.0.16, all with one port.
fn listen_everywhere() -> io::Result<Vec<TcpListener>> {
    let mut failure = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..20 {
        let first = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let port = first.local_addr()?.port();
        let others: io::Result<Vec<_>> = (2..=ADDRESSES)
            .map(|last| listen(SocketAddr::new(IpAddr::from([127, 0, 0, last]), port)))
            .collect();
        match others {
            Ok(others) => return Ok(std::iter::once(first).chain(others).collect()),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into()))
}
