//! A stream that remembers its readiness.
//!
//! Events are edge-triggered: the kernel reports each change once. An endpoint keeps them in two flags, which
//! rise on events and fall when a call returns `WouldBlock`, or moves less than it could have: then the kernel
//! has nothing more for now, and whatever comes later makes a new event. While a flag is up a call is worth
//! making, and while it is down an event is sure to come.
//!
//! The rule about short calls holds for byte streams alone: a datagram is nearly always shorter than the space for
//! it, and says nothing about the next one. A datagram socket therefore must not be an `Endpoint`; its flag may fall
//! on `WouldBlock` only.
//!
//! Two exceptions, after which a short read does not lower the flag: EOF may have arrived together with the
//! bytes, in the same event; and a read stops at urgent data (RFC 9293 §3.8.5), with more behind it.
//!
//! Without SO_OOBINLINE, a read that starts at the urgent mark discards the urgent byte. The option is set lazily, at
//! the first EPOLLPRI or at the first read that filled its space (after which no edge announces the mark), so that
//! short connections save a setsockopt(2).

use std::io::{self, ErrorKind};

use super::buffer::{Buffer, Pool};
pub use super::errno::Transfer;
use super::errno::{self, retry_eintr};
use super::pipe::Pipe;
use super::readiness::Readiness;
pub use super::stream::Stream;

/// Attempts of shutdown(2) in a row while memory is short.
const FINISH_ATTEMPTS: u32 = 4;

/// A byte stream and its readiness.
pub struct Endpoint<S: Stream> {
    stream: S,
    readable: bool,
    writable: bool,
    broken: bool,
    /// The writing direction has been shut.
    finished: bool,
    /// The peer has shut its writing direction, or failed: EOF or the error can be read after its bytes.
    ending: bool,
    urgent: Urgent,
    /// Dropping the endpoint resets the connection.
    resets: bool,
    nagle: Nagle,
}

impl<S: Stream> Drop for Endpoint<S> {
    fn drop(&mut self) {
        if self.resets && self.stream.reset_on_close().is_err() {
            // If this fails too, the connection is gone already.
            let _ = self.stream.disconnect();
        }
    }
}

/// How urgent data is received.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Urgent {
    /// A read that starts at it discards it.
    Dropped,
    /// It stays in its place (SO_OOBINLINE), and none has arrived yet.
    Inline,
    /// It stays in its place, and some has arrived.
    Seen,
}

/// Whether small writes may wait for one another (Nagle's algorithm).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nagle {
    /// Nothing has been written: a first write never waits.
    Harmless,
    /// Something has been written: the next write would wait for its acknowledgement.
    Harmful,
    /// Writes go out at once.
    Off,
}

/// Why bytes are still unwritten.
#[derive(Debug)]
pub enum FlushError {
    /// The stream takes no more now; an event will come.
    Blocked,
    /// The stream has failed.
    Failed(io::Error),
}

impl<S: Stream> Endpoint<S> {
    /// A stream for which no event has come yet. It has TCP_NODELAY and SO_OOBINLINE already: accepted connections
    /// inherit both from their listener.
    pub fn new(stream: S) -> Self {
        Endpoint {
            stream,
            readable: false,
            writable: false,
            broken: false,
            finished: false,
            ending: false,
            urgent: Urgent::Inline,
            resets: false,
            nagle: Nagle::Off,
        }
    }

    /// Like [`Endpoint::new`], for a connection without TCP_NODELAY and SO_OOBINLINE. TCP_NODELAY is set before the
    /// second write, SO_OOBINLINE at the first urgent data or full read, so that short connections save the calls.
    pub fn with_lazy_nodelay(stream: S) -> Self {
        let mut endpoint = Endpoint::new(stream);
        (endpoint.nagle, endpoint.urgent) = (Nagle::Harmless, Urgent::Dropped);
        endpoint
    }

    /// From now on dropping this value resets the connection, in a panic too, so that the peer does not take the end
    /// for an orderly one. [`Endpoint::close_orderly`] revokes that.
    pub fn reset_unless_orderly(&mut self) {
        self.resets = true;
    }

    /// What was to be sent has been: from now on dropping this value closes the connection with FIN.
    pub fn end_orderly(&mut self) {
        self.resets = false;
    }

    /// Closes the connection with FIN.
    pub fn close_orderly(mut self) {
        self.resets = false;
    }

    /// Makes the closing of this connection a reset, even if the process is killed before.
    pub fn reset_on_close(&mut self) {
        self.resets = self.stream.reset_on_close().is_err();
    }

    /// Bytes that were written and not acknowledged; `usize::MAX` if the kernel cannot say.
    pub fn unacknowledged(&self) -> usize {
        self.stream.unacknowledged().unwrap_or(usize::MAX)
    }

    /// The stream.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream, for registering it.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Raises the flags that are `true`.
    pub fn raise(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// Whether a read may succeed.
    pub fn readable(&self) -> bool {
        self.readable
    }

    /// Whether a write may succeed.
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// Whether the kernel has reported an error: the peer has reset the connection.
    pub fn broken(&self) -> bool {
        self.broken
    }

    /// Whether the peer has closed its direction, although bytes may be there that it has sent before.
    pub fn ending(&self) -> bool {
        self.ending
    }

    /// Raises the flags that an event names. An error raises both, since the next call will return it.
    pub fn on_event(&mut self, readiness: Readiness) {
        self.broken |= readiness.error;
        if readiness.priority {
            self.set_oob_inline();
            self.urgent = Urgent::Seen;
        }
        self.ending |= readiness.read_closed || self.broken;
        self.raise(
            readiness.readable || readiness.read_closed || self.broken,
            readiness.writable || readiness.write_closed || self.broken,
        );
    }

    /// Sets SO_OOBINLINE unless it is set.
    fn set_oob_inline(&mut self) {
        if self.urgent == Urgent::Dropped {
            // If it is refused for good, the urgent byte itself is lost.
            match self.stream.set_oob_inline() {
                Err(error) if errno::may_pass(&error) => {}
                _ => self.urgent = Urgent::Inline,
            }
        }
    }

    /// Reads once into `space`, which must not be empty.
    pub fn read(&mut self, space: &mut [u8]) -> Transfer {
        if !self.readable {
            return Transfer::Blocked;
        }
        let room = space.len();
        let transfer = retry_eintr(|| self.stream.read(space));
        self.readable = match transfer {
            Transfer::Moved(count) => count == room || self.ending || self.urgent == Urgent::Seen,
            Transfer::Blocked => false,
            Transfer::Ended | Transfer::Failed(_) => true,
        };
        if matches!(transfer, Transfer::Moved(count) if count == room) {
            self.set_oob_inline();
        }
        transfer
    }

    /// Writes once.
    pub fn write(&mut self, bytes: &[u8]) -> Transfer {
        if !self.writable {
            return Transfer::Blocked;
        }
        self.nagle = match self.nagle {
            Nagle::Harmless => Nagle::Harmful,
            Nagle::Harmful => {
                // If it is refused for good, bytes may be late and nothing else.
                match self.stream.set_nodelay() {
                    Err(error) if errno::may_pass(&error) => Nagle::Harmful,
                    _ => Nagle::Off,
                }
            }
            Nagle::Off => Nagle::Off,
        };
        let transfer = retry_eintr(|| self.stream.write(bytes));
        self.writable = match transfer {
            Transfer::Moved(count) => count == bytes.len(),
            Transfer::Blocked => false,
            Transfer::Ended | Transfer::Failed(_) => true,
        };
        transfer
    }

    /// Appends to a buffer what one read yields. An empty buffer leases `capacity` bytes for it; a full one
    /// counts as blocked.
    pub fn fill(&mut self, buffer: &mut Buffer, pool: &mut Pool, capacity: usize) -> Transfer {
        if !self.readable {
            return Transfer::Blocked;
        }
        let read = buffer.fill(pool, capacity, |space| match self.read(space) {
            Transfer::Moved(count) => (count, Transfer::Moved(count)),
            other => (0, other),
        });
        read.unwrap_or(Transfer::Blocked)
    }

    /// Writes a buffer's bytes until it is empty, and adds to `count` how many were taken.
    ///
    /// # Errors
    /// [`FlushError`]: why the buffer is not empty yet.
    pub fn flush(
        &mut self,
        buffer: &mut Buffer,
        pool: &mut Pool,
        count: &mut u64,
    ) -> Result<(), FlushError> {
        while !buffer.is_empty() {
            match self.write(buffer.bytes()) {
                Transfer::Moved(taken) => {
                    buffer.consume(pool, taken);
                    *count += taken as u64;
                }
                Transfer::Blocked => return Err(FlushError::Blocked),
                Transfer::Ended => return Err(FlushError::Failed(ErrorKind::WriteZero.into())),
                Transfer::Failed(error) => return Err(FlushError::Failed(error)),
            }
        }
        Ok(())
    }

    /// Moves what there is into an empty pipe. What fails may be splice(2) and not the stream: a read decides.
    pub fn fill_pipe(&mut self, pipe: &mut Pipe, most: u64) -> Transfer {
        if !self.readable {
            return Transfer::Blocked;
        }
        let Some(descriptor) = self.stream.descriptor() else {
            return Transfer::Failed(ErrorKind::Unsupported.into());
        };
        let transfer = retry_eintr(|| pipe.fill(descriptor, most));
        self.readable = !matches!(transfer, Transfer::Blocked);
        transfer
    }

    /// Moves a pipe's bytes out until it is empty, and adds to `count` how many were taken.
    ///
    /// # Errors
    /// [`FlushError`]: why the pipe is not empty yet. What fails may be splice(2) and not the stream: a write decides.
    pub fn drain_pipe(&mut self, pipe: &mut Pipe, count: &mut u64) -> Result<(), FlushError> {
        while pipe.held() > 0 {
            let (true, Some(descriptor)) = (self.writable, self.stream.descriptor()) else {
                return Err(FlushError::Blocked);
            };
            match retry_eintr(|| pipe.drain(descriptor)) {
                Transfer::Moved(taken) => *count += taken as u64,
                Transfer::Blocked => {
                    self.writable = false;
                    return Err(FlushError::Blocked);
                }
                Transfer::Ended => return Err(FlushError::Failed(ErrorKind::WriteZero.into())),
                Transfer::Failed(error) => return Err(FlushError::Failed(error)),
            }
        }
        Ok(())
    }

    /// Whether splice(2) can be used with this stream. It does not pass urgent data.
    pub fn spliceable(&self) -> bool {
        self.urgent != Urgent::Seen && self.stream.descriptor().is_some()
    }

    /// Ends the writing direction, once. That the peer is gone is no error: reading will show it.
    ///
    /// # Errors
    /// Those of shutdown(2) that are not the peer's: it lives, and has not been told of EOF. Closing tells it.
    pub fn finish(&mut self) -> io::Result<()> {
        let mut attempts = 1;
        while !self.finished {
            match self.stream.finish() {
                Err(error) if errno::may_pass(&error) && attempts < FINISH_ATTEMPTS => {
                    attempts += 1;
                }
                Err(error) if !errno::is_of_the_peer(&error) => return Err(error),
                _ => self.finished = true,
            }
        }
        Ok(())
    }

    /// Reads and forgets up to `budget` bytes: what a peer still sends after the conversation is over.
    /// Closing over unread bytes would send RST, which can destroy the reply on its way.
    pub fn discard(&mut self, budget: usize) -> Transfer {
        let mut scratch = [0; 4096];
        let mut discarded = 0;
        while discarded < budget {
            match self.read(&mut scratch) {
                Transfer::Moved(count) => discarded += count,
                end => return end,
            }
        }
        Transfer::Moved(discarded)
    }
}

#[cfg(test)]
mod tests;
