//! Datagrams by UDP ASSOCIATE, in one event loop: bursts there and back on many associations, or associations that
//! rest. A burst has to be back before the next one, so that a proxy that is slow gets less to do and loses nothing.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use socks5d::proto::socks5::datagram::Header;
use socks5d::proto::socks5::{Command, Host, Target};

use super::handshake;
use super::{Route, Runs, Tally};
use crate::workload::Exchange;

/// A datagram that is not back by then is lost.
const PATIENCE: Duration = Duration::from_millis(500);
/// Room for what one call receives: the longest message.
const ROOM: usize = 65_536;
/// Receive buffer that is asked for: the origin's has to hold a burst of each association.
const BUFFER: usize = 4 << 20;

/// A socket that sends a burst as one message and receives runs as such, if the kernel can.
struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Socket {
    fn open() -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let state = UdpSocketState::new((&socket).into())?;
        state.set_recv_buffer_size((&socket).into(), BUFFER)?;
        Ok(Socket { socket: UdpSocket::from_std(socket), state })
    }

    fn send(&self, destination: SocketAddr, contents: &[u8], segment: usize) -> io::Result<()> {
        let segment_size = (contents.len() > segment).then_some(segment);
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
        self.state.try_send((&self.socket).into(), &transmit)
    }

    /// The next message: its source, length, and that of each datagram in it.
    fn receive(&self, room: &mut [u8]) -> io::Result<Option<(SocketAddr, usize, usize)>> {
        let mut metas = [RecvMeta::default()];
        let mut rooms = [IoSliceMut::new(room)];
        match self.state.recv((&self.socket).into(), &mut rooms, &mut metas) {
            Ok(_) => Ok(Some((metas[0].addr, metas[0].len, metas[0].stride.max(1)))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

struct Client {
    /// Keeps the association.
    _control: Option<TcpStream>,
    socket: Socket,
    /// Where datagrams go: the relay, or the origin itself.
    to: SocketAddr,
    /// A burst: headers and payloads.
    burst: Vec<u8>,
    /// Datagrams of it that are not back.
    missing: usize,
    began: Instant,
}

/// The load of one run.
pub struct Datagrams {
    poll: Poll,
    events: Events,
    exchange: Exchange,
    origin: Socket,
    clients: Vec<Client>,
    room: Vec<u8>,
    /// Whether a burst that is back is followed by the next.
    goes_on: bool,
    tally: Tally,
}

const ORIGIN: Token = Token(usize::MAX);

impl Datagrams {
    /// An origin that sends everything back, and no client yet.
    ///
    /// # Errors
    /// If there are no sockets.
    pub fn new(exchange: Exchange) -> io::Result<Self> {
        let (poll, mut origin) = (Poll::new()?, Socket::open()?);
        poll.registry().register(&mut origin.socket, ORIGIN, Interest::READABLE)?;
        Ok(Datagrams {
            poll,
            events: Events::with_capacity(1024),
            exchange,
            origin,
            clients: Vec::new(),
            room: vec![0; ROOM],
            goes_on: false,
            tally: Tally::default(),
        })
    }
}

impl Runs for Datagrams {
    /// Each association makes a first exchange.
    fn open(&mut self, route: Route, count: usize, deadline: Instant) -> io::Result<usize> {
        let origin = self.origin.socket.local_addr()?;
        while self.clients.len() < count && Instant::now() < deadline {
            let mut socket = Socket::open()?;
            let (control, to, header) = match route {
                Route::Direct => (None, origin, Vec::new()),
                Route::Relay(_) => return Err(io::Error::other("relays TCP alone")),
                Route::Socks { server, login } => {
                    let mut control = handshake::login(server, login)?;
                    let any = Target { host: Host::Ip(Ipv4Addr::UNSPECIFIED.into()), port: 0 };
                    let relay = handshake::request(&mut control, Command::UdpAssociate, any)?;
                    (Some(control), relay, Header::new(origin).bytes().to_vec())
                }
            };
            let (datagrams, length) = self.exchange.burst();
            let burst = [&header[..], &vec![0x5a; length]].concat().repeat(datagrams);
            let token = Token(self.clients.len());
            self.poll.registry().register(&mut socket.socket, token, Interest::READABLE)?;
            let began = Instant::now();
            self.clients.push(Client { _control: control, socket, to, burst, missing: 0, began });
            self.send_burst(token.0);
            self.turn(Duration::ZERO)?;
        }
        Ok(self.clients.len())
    }

    /// What is under way in the end is not lost.
    fn run(&mut self, time: Duration) -> io::Result<()> {
        self.goes_on = self.exchange != Exchange::Hold;
        let deadline = Instant::now() + time;
        for index in 0..self.clients.len() {
            if self.goes_on && self.clients[index].missing == 0 {
                self.send_burst(index);
            }
        }
        let mut look = Instant::now();
        while Instant::now() < deadline {
            if look.elapsed() > PATIENCE / 5 {
                look = Instant::now();
                self.give_up_late_ones();
            }
            self.turn(PATIENCE / 5)?;
        }
        Ok(())
    }

    fn probe_all(&mut self, deadline: Instant) -> io::Result<u64> {
        self.goes_on = false;
        self.tally = Tally::default();
        for index in 0..self.clients.len() {
            self.send_burst(index);
            self.turn(Duration::ZERO)?;
        }
        let complete = |client: &&Client| client.missing == 0;
        let mut alive = 0;
        while alive < self.clients.len() && Instant::now() < deadline {
            self.turn(PATIENCE / 5)?;
            alive = self.clients.iter().filter(complete).count();
        }
        Ok(alive as u64)
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }
}

impl Datagrams {
    fn send_burst(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else { return };
        let (datagrams, _) = self.exchange.burst();
        client.began = Instant::now();
        client.missing = datagrams;
        // What cannot be sent is lost, and counted when it is late.
        let _ = client.socket.send(client.to, &client.burst, client.burst.len() / datagrams);
    }

    fn give_up_late_ones(&mut self) {
        for index in 0..self.clients.len() {
            let client = &self.clients[index];
            if client.missing > 0 && client.began.elapsed() > PATIENCE {
                self.tally.failed += client.missing as u64;
                self.send_burst(index);
            }
        }
    }

    fn turn(&mut self, wait: Duration) -> io::Result<()> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            match event.token() {
                ORIGIN => self.echo()?,
                Token(index) => self.receive(index)?,
            }
        }
        self.events = events;
        Ok(())
    }

    fn echo(&mut self) -> io::Result<()> {
        while let Some((from, length, stride)) = self.origin.receive(&mut self.room)? {
            let _ = self.origin.send(from, &self.room[..length], stride);
        }
        Ok(())
    }

    fn receive(&mut self, index: usize) -> io::Result<()> {
        let Datagrams { clients, room, tally, .. } = self;
        let Some(client) = clients.get_mut(index) else { return Ok(()) };
        let mut complete = false;
        while let Some((_, length, stride)) = client.socket.receive(room)? {
            let count = length.div_ceil(stride).min(client.missing);
            client.missing -= count;
            tally.done += count as u64;
            complete = count > 0 && client.missing == 0;
        }
        if complete {
            tally.record(client.began);
            if self.goes_on {
                self.send_burst(index);
            }
        }
        Ok(())
    }
}
