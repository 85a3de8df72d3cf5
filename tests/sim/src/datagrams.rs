//! A socket for datagrams that does what a scenario says. It is edge-triggered at its strictest: an event comes when a
//! datagram arrives, and never else.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use socks5d::reactor::datagram::{Datagrams, LONGEST_PAYLOAD, Received, Run, Scratch, Sent};
use socks5d::reactor::readiness::Readiness;

/// What there is behind a socket of the session.
pub struct FakeUdp {
    /// The address of the socket.
    pub bound: SocketAddr,
    /// Datagrams that have arrived and are not received: payload and source.
    pub queue: VecDeque<(Vec<u8>, SocketAddr)>,
    /// Datagrams that were sent: header and payload, and the destination.
    pub sent: Vec<(Vec<u8>, SocketAddr)>,
    /// Errors (errno) of the next datagrams that are sent.
    pub refused: VecDeque<i32>,
    /// Errors of the next calls that receive.
    pub failing: VecDeque<i32>,
    /// Messages that one call receives at most.
    pub batch: usize,
    /// Whether datagrams of one source and length come joined.
    pub joins: bool,
    /// Whether the session has closed it.
    pub dropped: bool,
    /// An event is due.
    edge: bool,
    /// Calls that receive, so far.
    pub calls: u32,
}

impl FakeUdp {
    /// A socket that is bound to this address.
    pub fn new(bound: SocketAddr) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(FakeUdp {
            bound,
            queue: VecDeque::new(),
            sent: Vec::new(),
            refused: VecDeque::new(),
            failing: VecDeque::new(),
            batch: 4,
            joins: false,
            dropped: false,
            edge: false,
            calls: 0,
        }))
    }

    /// A datagram arrives.
    pub fn arrives(&mut self, payload: Vec<u8>, source: SocketAddr) {
        self.queue.push_back((payload, source));
        self.edge = true;
    }

    /// The next call that receives fails, as after an ICMP message.
    pub fn fails(&mut self, errno: i32) {
        self.failing.push_back(errno);
        self.edge = true;
    }

    /// The event that is due.
    pub fn event(&mut self) -> Option<Readiness> {
        let due = std::mem::take(&mut self.edge) && !self.dropped;
        due.then(|| Readiness { readable: true, ..Readiness::default() })
    }
}

/// The session's end of a [`FakeUdp`].
pub struct FakeDatagrams {
    peer: Rc<RefCell<FakeUdp>>,
    readable: bool,
}

impl FakeDatagrams {
    /// The end of the session.
    pub fn to(peer: &Rc<RefCell<FakeUdp>>) -> Self {
        FakeDatagrams { peer: Rc::clone(peer), readable: false }
    }
}

impl Drop for FakeDatagrams {
    fn drop(&mut self) {
        self.peer.borrow_mut().dropped = true;
    }
}

impl Datagrams for FakeDatagrams {
    fn on_event(&mut self, readiness: Readiness) {
        self.readable |= readiness.readable;
    }

    fn readable(&self) -> bool {
        self.readable
    }

    fn receive(&mut self, scratch: &mut Scratch, most: usize) -> Received {
        let mut peer = self.peer.borrow_mut();
        peer.calls += 1;
        assert!(peer.calls < 100_000, "an endless loop of calls");
        assert!(self.readable, "received without an event");
        scratch.clear();
        if let Some(errno) = peer.failing.pop_front() {
            return Received::Failed(io::Error::from_raw_os_error(errno));
        }
        for slot in 0..peer.batch.min(most) {
            let Some((payload, source)) = peer.queue.pop_front() else {
                self.readable = false;
                break;
            };
            let (mut length, segment) = (payload.len(), payload.len().max(1));
            scratch.slot_mut(slot)[..length].copy_from_slice(&payload);
            while peer.joins
                && length > 0
                && length % segment == 0
                && let Some((next, from)) = peer.queue.front()
                && *from == source
                && (1..=segment).contains(&next.len())
                && length + next.len() <= LONGEST_PAYLOAD
            {
                scratch.slot_mut(slot)[length..length + next.len()].copy_from_slice(next);
                length += next.len();
                peer.queue.pop_front();
            }
            scratch.add_run(Run { source, length, segment, truncated: false });
        }
        if scratch.runs() == 0 { Received::Blocked } else { Received::Messages }
    }

    fn send(&mut self, scratch: &mut Scratch) -> Sent {
        let mut peer = self.peer.borrow_mut();
        let (mut sent, mut failures) = (Sent::default(), Vec::new());
        let outgoing: Vec<_> = scratch
            .outgoing()
            .map(|(header, payload, to)| ([header, payload].concat(), payload.len(), to))
            .collect();
        for (bytes, payload, to) in outgoing {
            match peer.refused.pop_front() {
                Some(errno) => failures.push((to, errno)),
                None => {
                    sent.datagrams += 1;
                    sent.payload += payload as u64;
                    peer.sent.push((bytes, to));
                }
            }
        }
        scratch.sent(failures);
        sent
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.peer.borrow().bound)
    }

    fn kernel_drops(&self) -> u64 {
        0
    }
}
