//! Connections that go where a script leads them, with the readiness that a kernel would report.
//!
//! The [`Peer`] is the far end of a connection. It behaves like an edge-triggered socket at its strictest:
//! an event comes when something arrives, and when there is room again after a write was refused; never else. So a
//! session that loses an event, or lowers a flag too early, stalls here too.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use socks5d::reactor::endpoint::Stream;
use socks5d::reactor::liveness::Liveness;
use socks5d::reactor::readiness::Readiness;
use socks5d::reactor::tcp_state::Acknowledgement;

/// Calls that a stream takes in a whole run. A session that makes more is in an endless loop.
const MOST_CALLS: u32 = 1_000_000;

/// Bytes that a peer sends in a whole run.
const MOST_BYTES: usize = 32 * 1024;

/// There is no memory for a packet, although the peer lives.
const ENOBUFS: i32 = 105;

/// How a peer's bytes come to their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It has closed its writing direction.
    Eof,
    /// It has reset the connection.
    Reset,
}

/// How far a connection has come that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Making {
    Pending,
    Made,
    /// It cannot be made, for this reason (an errno).
    Failed(i32),
}

/// The far end of a connection.
pub struct Peer {
    /// All that it has sent.
    pub sent: Vec<u8>,
    /// How much of that the session has read.
    pub read: usize,
    /// Lengths of the segments that have not been read yet.
    segments: VecDeque<usize>,
    /// The next bytes come in one segment with those before them.
    pub join: bool,
    pub end: Option<End>,
    /// Whether the session has read the end.
    pub end_read: bool,
    /// Whether an event has reported the end.
    end_told: bool,
    /// Bytes that it takes now.
    room: usize,
    /// The most that one write takes.
    pub cut: usize,
    /// Writes fail although reads do not.
    pub deaf: bool,
    /// Writes fail for want of memory; and whether one has.
    pub starves_writes: bool,
    pub write_starved: bool,
    /// All that it was sent.
    pub received: Vec<u8>,
    /// Whether the session has closed its writing direction.
    pub finished: bool,
    /// Whether the session has closed the connection, and whether with a reset.
    pub dropped: bool,
    pub aborted: bool,
    /// Calls that are interrupted first.
    pub interruptions: u8,
    /// It sends this again and again, more than can be read; and how much of that was read.
    pub babble: Vec<u8>,
    pub babbled: usize,
    pub making: Making,
    /// Setting an option fails.
    pub stubborn: bool,
    /// The session's own end.
    pub near: SocketAddr,
    /// The address that was dialled; the near end before that.
    pub far: SocketAddr,
    /// There was no room when the session last asked.
    starved: bool,
    /// An event is due.
    edge: bool,
    pub calls: u32,
}

impl Peer {
    /// The far end of a connection that is there already, or has been asked for.
    pub fn new(making: Making, near: SocketAddr, room: usize) -> Rc<RefCell<Peer>> {
        Rc::new(RefCell::new(Peer {
            sent: Vec::new(),
            read: 0,
            segments: VecDeque::new(),
            join: false,
            end: None,
            end_read: false,
            end_told: false,
            room,
            cut: usize::MAX,
            deaf: false,
            starves_writes: false,
            write_starved: false,
            received: Vec::new(),
            finished: false,
            dropped: false,
            aborted: false,
            interruptions: 0,
            babble: Vec::new(),
            babbled: 0,
            making,
            stubborn: false,
            near,
            far: near,
            starved: false,
            edge: making == Making::Made,
            calls: 0,
        }))
    }

    /// Sends a segment, unless it has ended.
    pub fn send(&mut self, bytes: &[u8]) {
        let much = self.sent.len() + bytes.len() > MOST_BYTES;
        if self.end.is_some() || bytes.is_empty() || much || self.making != Making::Made {
            return;
        }
        self.sent.extend(bytes);
        match self.segments.back_mut() {
            Some(last) if self.join => *last += bytes.len(),
            _ => self.segments.push_back(bytes.len()),
        }
        self.join = false;
        self.edge = true;
    }

    /// Ends. A reset may still follow an EOF.
    pub fn ends(&mut self, end: End) {
        if self.making == Making::Made && self.end != Some(End::Reset) {
            self.end = self.end.filter(|_| end == End::Eof).or(Some(end));
            self.edge = true;
        }
    }

    /// Takes `room` bytes more.
    pub fn open(&mut self, room: usize) {
        self.room = self.room.saturating_add(room);
        self.edge |= self.starved && self.room > 0;
    }

    /// Takes nothing more.
    #[cfg(test)]
    pub fn stops_reading(&mut self) {
        self.room = 0;
    }

    /// The attempt to connect comes to its end.
    pub fn complete(&mut self, making: Making) {
        if self.making == Making::Pending {
            self.making = making;
            self.edge = true;
        }
    }

    /// Repeats the event of its present state.
    pub fn repeat(&mut self) {
        self.edge |= self.making != Making::Pending;
    }

    fn reset(&self) -> bool {
        self.end == Some(End::Reset)
    }

    /// The event that the kernel has for this connection, if one is due.
    pub fn event(&mut self) -> Option<Readiness> {
        if !std::mem::take(&mut self.edge) || self.dropped {
            return None;
        }
        if self.reset() || matches!(self.making, Making::Failed(_)) {
            return Some(Readiness { error: true, write_closed: true, ..Readiness::default() });
        }
        let readable = !self.segments.is_empty() || self.end.is_some() || !self.babble.is_empty();
        let writable = self.room > 0 || self.deaf || self.starves_writes;
        self.starved = !writable;
        let read_closed = readable && writable && self.end.is_some();
        self.end_told |= read_closed;
        (readable || writable).then(|| Readiness {
            readable,
            writable,
            read_closed,
            ..Readiness::default()
        })
    }

    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        assert!(self.calls < MOST_CALLS, "an endless loop of calls");
        assert_eq!(self.making, Making::Made, "used before it was there");
        if self.interruptions > 0 {
            self.interruptions -= 1;
            return Err(ErrorKind::Interrupted.into());
        }
        Ok(())
    }
}

/// The session's end of a connection.
pub struct FakeStream(Rc<RefCell<Peer>>);

impl FakeStream {
    pub fn to(peer: &Rc<RefCell<Peer>>) -> Self {
        FakeStream(Rc::clone(peer))
    }
}

impl Drop for FakeStream {
    fn drop(&mut self) {
        self.0.borrow_mut().dropped = true;
    }
}

impl Read for FakeStream {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let mut peer = self.0.borrow_mut();
        peer.call()?;
        assert!(!space.is_empty(), "a read without space looks like EOF");
        let Some(segment) = peer.segments.pop_front() else {
            return match peer.end {
                None if !peer.babble.is_empty() => {
                    let said = &peer.babble[peer.babbled % peer.babble.len()..];
                    let count = said.len().min(space.len());
                    space[..count].copy_from_slice(&said[..count]);
                    peer.babbled += count;
                    peer.edge = true;
                    Ok(count)
                }
                None => Err(ErrorKind::WouldBlock.into()),
                Some(End::Reset) => Err(ErrorKind::ConnectionReset.into()),
                Some(End::Eof) => {
                    peer.end_read = true;
                    Ok(0)
                }
            };
        };
        let count = segment.min(space.len());
        if count < segment {
            peer.segments.push_front(segment - count);
        }
        if count < space.len() {
            // The rest comes later, and with an event of its own.
            peer.edge |= !peer.segments.is_empty() || (peer.end.is_some() && !peer.end_told);
        }
        let from = peer.read;
        space[..count].copy_from_slice(&peer.sent[from..from + count]);
        peer.read += count;
        Ok(count)
    }
}

impl Write for FakeStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut peer = self.0.borrow_mut();
        peer.call()?;
        assert!(!bytes.is_empty(), "a write of nothing");
        assert!(!peer.finished, "written after the end");
        if peer.deaf || peer.reset() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if peer.starves_writes {
            peer.write_starved = true;
            return Err(io::Error::from_raw_os_error(ENOBUFS));
        }
        if peer.room == 0 {
            peer.starved = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = bytes.len().min(peer.room).min(peer.cut);
        peer.room -= count;
        if count < bytes.len() {
            // An event comes when there is room again, which may be at once.
            peer.starved = true;
            peer.edge |= peer.room > 0;
        }
        peer.received.extend(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for FakeStream {
    fn finish(&mut self) -> io::Result<()> {
        let mut peer = self.0.borrow_mut();
        assert!(!peer.finished, "ended twice");
        assert_eq!(peer.making, Making::Made, "used before it was there");
        peer.finished = true;
        if peer.reset() { Err(ErrorKind::NotConnected.into()) } else { Ok(()) }
    }

    fn set_nodelay(&mut self) -> io::Result<()> {
        let stubborn = self.0.borrow().stubborn;
        if stubborn { Err(ErrorKind::InvalidInput.into()) } else { Ok(()) }
    }

    fn set_liveness(&mut self, _: Liveness) -> io::Result<()> {
        self.set_nodelay()
    }

    fn reset_on_close(&mut self) -> io::Result<()> {
        let mut peer = self.0.borrow_mut();
        assert!(!peer.aborted, "reset twice");
        peer.aborted = true;
        Ok(())
    }

    fn unacknowledged(&self) -> io::Result<usize> {
        Ok(0)
    }

    fn acknowledgement(&self) -> io::Result<Acknowledgement> {
        Ok(Acknowledgement::Complete)
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.0.borrow().near)
    }

    fn peer_address(&self) -> io::Result<SocketAddr> {
        Ok(self.0.borrow().near)
    }

    fn set_oob_inline(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn failure(&self) -> Option<io::Error> {
        let peer = self.0.borrow();
        match peer.making {
            Making::Failed(errno) => Some(io::Error::from_raw_os_error(errno)),
            Making::Pending | Making::Made if peer.reset() => {
                Some(ErrorKind::ConnectionReset.into())
            }
            Making::Pending | Making::Made => None,
        }
    }
}
