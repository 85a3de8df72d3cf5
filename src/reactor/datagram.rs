//! Datagram sockets, in batches.
//!
//! A batch travels through the [`Scratch`], which there is once for each loop: `receive` fills its slots with messages,
//! the session puts what is to be sent into its outbox, and `send` takes it from there. So no association has a buffer,
//! and no payload is copied.
//!
//! Readiness: as with an [`Endpoint`](super::endpoint::Endpoint), a flag rises on events and falls when the kernel has
//! nothing more. That a message is shorter than its slot says nothing; what lowers the flag is `WouldBlock`, or a batch
//! of fewer messages than were asked for. An error as the first result belongs to a datagram that was sent earlier
//! (ICMP, udp(7)), and there may be more behind it: the flag stays up. There is no flag for writing: a datagram that
//! finds the buffer full is dropped, as a router does it.

pub mod address;
mod message;
pub mod open_ports;
pub mod scratch;
pub mod socket;
mod space;

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use super::readiness::Readiness;
pub use open_ports::{OpenPort, OpenPorts};
pub use scratch::{HeaderId, Run, Scratch};

/// The longest payload of a datagram in bytes: an IPv4 packet without its headers. IPv6 would take 20 more.
pub const LONGEST_PAYLOAD: usize = 65_507;

/// What a socket for datagrams is opened with.
#[derive(Clone, Debug)]
pub struct DatagramConfig {
    /// The address, with the scope of a link-local one. Its port counts if there are no `ports`; 0: the kernel chooses.
    pub bind: SocketAddr,
    /// Ports of which one is taken.
    pub ports: Option<RangeInclusive<u16>>,
    /// The kernel drops what comes from other addresses. What has arrived before it knows that is passed on, so the
    /// source has to be checked all the same.
    pub only_from: Option<SocketAddr>,
}

/// What came of a call of [`Datagrams::receive`].
#[derive(Debug)]
pub enum Received {
    /// The scratch holds messages, at least one.
    Messages,
    /// There is nothing now; an event will come.
    Blocked,
    /// An error, which may belong to a datagram that was sent before. There may be messages behind it.
    Failed(io::Error),
}

/// What has been sent of the outbox. Why the rest was not is in [`Scratch::failures`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams.
    pub datagrams: u64,
    /// Their payload in bytes, without the headers.
    pub payload: u64,
}

/// A socket for datagrams. Tests implement it with scripts.
pub trait Datagrams {
    /// An event has come.
    fn on_event(&mut self, readiness: Readiness);

    /// Whether a call of [`Datagrams::receive`] may find something.
    fn readable(&self) -> bool;

    /// Receives a batch of at most `most` messages, each of which may be a run of datagrams, into the scratch, whose
    /// earlier contents are lost.
    fn receive(&mut self, scratch: &mut Scratch, most: usize) -> Received;

    /// Sends what is in the outbox, which is empty afterwards. What cannot be sent is dropped.
    fn send(&mut self, scratch: &mut Scratch) -> Sent;

    /// The address that it is bound to.
    ///
    /// # Errors
    /// Those of getsockname(2).
    fn local_address(&self) -> io::Result<SocketAddr>;

    /// Datagrams that the kernel has dropped because this socket's buffer was full; 0 if it does not say.
    fn kernel_drops(&self) -> u64;
}
