//! The origin's end of a tunnel: answers, echoes, sends without end, or takes everything.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;

use mio::event::Event;
use mio::net::TcpStream;

use super::client::{ANSWER, ASK};
use super::{CHUNK, TURN, Tally, Turn};
use crate::sys;
use crate::workload::Kind;

/// A connection that the origin has accepted.
pub struct Origin {
    stream: TcpStream,
    kind: Kind,
    got: usize,
}

impl Origin {
    pub fn new(stream: TcpStream, kind: Kind) -> Self {
        Origin { stream, kind, got: 0 }
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Whether an event can change anything.
    pub fn concerned(&self, event: &Event) -> bool {
        match self.kind {
            Kind::Down | Kind::Fair => true,
            _ => event.is_readable() || event.is_read_closed() || event.is_error(),
        }
    }

    /// Goes as far as possible.
    pub(super) fn turn(&mut self, chunk: &mut [u8], tally: &mut Tally) -> Turn {
        match self.kind {
            Kind::Rate => self.answer(chunk),
            Kind::PingPong | Kind::Hold => self.echo(chunk),
            Kind::Down | Kind::Fair => bulk(|| self.stream.write(chunk)),
            Kind::Up => bulk(|| {
                let count = sys::discard(self.stream.as_fd(), CHUNK)?;
                tally.bytes += count as u64;
                Ok(count)
            }),
        }
    }

    fn answer(&mut self, chunk: &mut [u8]) -> Turn {
        match self.stream.read(&mut chunk[..ASK]) {
            Ok(0) => Turn::Done,
            Ok(count) => {
                self.got += count;
                if self.got < ASK {
                    return Turn::Again;
                }
                self.got = 0;
                match self.stream.write(&chunk[..ANSWER]) {
                    Ok(ANSWER) => Turn::Wait,
                    _ => Turn::Gone,
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Turn::Wait,
            Err(_) => Turn::Gone,
        }
    }

    fn echo(&mut self, chunk: &mut [u8]) -> Turn {
        match self.stream.read(chunk) {
            Ok(0) => Turn::Done,
            Ok(count) => match self.stream.write(&chunk[..count]) {
                Ok(written) if written == count => Turn::Wait,
                _ => Turn::Gone,
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => Turn::Wait,
            Err(_) => Turn::Gone,
        }
    }
}

/// A bounded number of calls.
fn bulk(mut call: impl FnMut() -> std::io::Result<usize>) -> Turn {
    for _ in 0..TURN {
        match call() {
            Ok(0) => return Turn::Done,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Turn::Wait,
            Err(_) => return Turn::Gone,
        }
    }
    Turn::Again
}
