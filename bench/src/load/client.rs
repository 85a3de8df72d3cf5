//! The client's end of a tunnel: connect, log in, ask for the origin, then work.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Instant;

use mio::event::Event;
use mio::net::TcpStream;
use socks5d::proto::socks5::{Command, Host, Request, Target};

use super::{CHUNK, TURN, Tally, Turn};
use crate::sys;
use crate::workload::Kind;

/// The account that clients log in with.
pub const NAME: &str = "bench";
/// Its password.
pub const PASSWORD: &str = "secret";

/// Bytes of a request of `rate`.
pub const ASK: usize = 100;
/// Bytes of its answer.
pub const ANSWER: usize = 1024;
/// Bytes of a round trip.
pub const TRIP: usize = 64;

/// What a client waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connected,
    Method,
    Status,
    Reply,
    /// The answer of `rate`.
    Answer,
    /// The way back of a round trip.
    Back,
    /// Bytes without end.
    Sink,
    /// Room for bytes without end.
    Source,
    Idle,
}

/// A client.
pub struct Client {
    stream: TcpStream,
    /// Whether to log in; `None`: no SOCKS at all.
    login: Option<bool>,
    target: SocketAddr,
    stage: Stage,
    got: usize,
    began: Instant,
}

/// What a read or write came to.
enum Step {
    Moved,
    Wait,
    Gone,
}

impl Client {
    pub fn new(stream: TcpStream, login: Option<bool>, target: SocketAddr) -> Self {
        let (stage, began) = (Stage::Connected, Instant::now());
        Client { stream, login, target, stage, got: 0, began }
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Whether the tunnel is open. A `rate` client never counts as a tunnel.
    pub fn open(&self) -> bool {
        matches!(self.stage, Stage::Back | Stage::Sink | Stage::Source | Stage::Idle)
    }

    /// Whether an event can change anything.
    pub fn concerned(&self, event: &Event) -> bool {
        match self.stage {
            Stage::Connected | Stage::Source => event.is_writable() || event.is_error(),
            _ => event.is_readable() || event.is_read_closed() || event.is_error(),
        }
    }

    /// Goes as far as possible.
    pub(super) fn turn(&mut self, kind: Kind, chunk: &mut [u8], tally: &mut Tally) -> Turn {
        let mut calls = 0;
        loop {
            let step = match self.stage {
                Stage::Connected => match self.login {
                    None => return self.begin(kind, chunk),
                    Some(login) => self.say(&[5, 1, if login { 2 } else { 0 }], Stage::Method),
                },
                Stage::Method => match self.hear::<2>(chunk) {
                    Ok([5, 2]) => self.say(&credentials(), Stage::Status),
                    Ok([5, 0]) => self.say(&self.request(), Stage::Reply),
                    Ok(_) => Step::Gone,
                    Err(step) => step,
                },
                Stage::Status => match self.hear::<2>(chunk) {
                    Ok([1, 0]) => self.say(&self.request(), Stage::Reply),
                    Ok(_) => Step::Gone,
                    Err(step) => step,
                },
                Stage::Reply => match self.hear::<10>(chunk) {
                    Ok([5, 0, 0, 1, ..]) => return self.begin(kind, chunk),
                    Ok(_) => Step::Gone,
                    Err(step) => step,
                },
                Stage::Answer => match self.read(chunk, ANSWER) {
                    Step::Moved => {
                        tally.complete(self.began);
                        return Turn::Done;
                    }
                    step => step,
                },
                Stage::Back => match self.read(chunk, TRIP) {
                    Step::Moved => {
                        tally.complete(self.began);
                        if kind == Kind::Hold {
                            self.stage = Stage::Idle;
                            return Turn::Wait;
                        }
                        return self.trip(chunk);
                    }
                    step => step,
                },
                Stage::Sink => match sys::discard(self.stream.as_fd(), CHUNK) {
                    Ok(0) => Step::Gone,
                    Ok(count) => {
                        tally.bytes += count as u64;
                        Step::Moved
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Step::Wait,
                    Err(_) => Step::Gone,
                },
                Stage::Source => match self.stream.write(chunk) {
                    Ok(_) => Step::Moved,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Step::Wait,
                    Err(_) => Step::Gone,
                },
                // Nothing is due, so whatever comes is the end.
                Stage::Idle => match self.read(chunk, 1) {
                    Step::Wait => Step::Wait,
                    _ => Step::Gone,
                },
            };
            calls += 1;
            match step {
                Step::Moved if calls >= TURN && self.bulk() => return Turn::Again,
                // What was said has to be answered first, and the answer makes an event.
                Step::Moved if !self.bulk() => return Turn::Wait,
                Step::Moved => {}
                Step::Wait => return Turn::Wait,
                Step::Gone => return Turn::Gone,
            }
        }
    }

    /// Sends 64 bytes and waits for as many.
    pub(super) fn trip(&mut self, chunk: &[u8]) -> Turn {
        self.began = Instant::now();
        match self.say(&chunk[..TRIP], Stage::Back) {
            Step::Moved => Turn::Wait,
            _ => Turn::Gone,
        }
    }

    fn bulk(&self) -> bool {
        matches!(self.stage, Stage::Sink | Stage::Source)
    }

    /// The tunnel is open: starts its work. What is already there is looked at in the next turn.
    fn begin(&mut self, kind: Kind, chunk: &[u8]) -> Turn {
        let step = match kind {
            Kind::Rate => {
                return match self.say(&chunk[..ASK], Stage::Answer) {
                    Step::Moved | Step::Wait => Turn::Wait,
                    Step::Gone => Turn::Gone,
                };
            }
            Kind::PingPong | Kind::Hold => {
                self.began = Instant::now();
                self.say(&chunk[..TRIP], Stage::Back)
            }
            Kind::Down | Kind::Fair => {
                self.stage = Stage::Sink;
                Step::Moved
            }
            Kind::Up => {
                self.stage = Stage::Source;
                Step::Moved
            }
        };
        match step {
            Step::Moved => Turn::Opened,
            Step::Wait => Turn::Wait,
            Step::Gone => Turn::Gone,
        }
    }

    fn request(&self) -> Vec<u8> {
        let host = Host::Ip(self.target.ip());
        let target = Target { host, port: self.target.port() };
        Request { command: Command::Connect, target }.encode()
    }

    /// Sends a short message whole. On a connection that is still being made nothing is sent, and nothing
    /// changes.
    fn say(&mut self, bytes: &[u8], next: Stage) -> Step {
        match self.stream.write(bytes) {
            Ok(count) if count == bytes.len() => {
                self.stage = next;
                self.got = 0;
                Step::Moved
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Step::Wait,
            _ => Step::Gone,
        }
    }

    /// Receives a message of `N` bytes. A peer that sends only part of one is as good as gone: loopback
    /// does not split them.
    fn hear<const N: usize>(&mut self, chunk: &mut [u8]) -> Result<[u8; N], Step> {
        match self.read(chunk, N) {
            Step::Moved => chunk[..N].try_into().map_err(|_| Step::Gone),
            Step::Wait if self.got > 0 => Err(Step::Gone),
            step => Err(step),
        }
    }

    /// Reads until `wanted` bytes are there, and no byte more.
    fn read(&mut self, chunk: &mut [u8], wanted: usize) -> Step {
        while self.got < wanted {
            match self.stream.read(&mut chunk[self.got..wanted]) {
                Ok(0) => return Step::Gone,
                Ok(count) => self.got += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Wait,
                Err(_) => return Step::Gone,
            }
        }
        Step::Moved
    }
}

/// Name and password as RFC 1929 wants them.
pub fn credentials() -> Vec<u8> {
    let mut message = vec![1, NAME.len() as u8];
    message.extend(NAME.bytes());
    message.push(PASSWORD.len() as u8);
    message.extend(PASSWORD.bytes());
    message
}
