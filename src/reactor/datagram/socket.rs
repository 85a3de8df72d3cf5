//! A UDP socket of the kernel.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::os::fd::{AsFd, BorrowedFd};

use mio::net::UdpSocket as MioSocket;
use socket2::{Domain, SockAddr, Socket, Type};

use super::message::{self, Calls, Kernel};
use super::scratch::{MESSAGES, Scratch};
use super::space::Group;
use super::{DatagramConfig, Datagrams, LONGEST_PAYLOAD, Received, Sent};
use crate::reactor::ports;
use crate::reactor::readiness::Readiness;

/// Receive buffer that is asked for. The kernel gives what net.core.rmem_max allows, and counts its own overhead twice.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Errors in a row after which a socket is left alone until its next event. ICMP leaves one at a time; the kernel may
/// refuse the call itself for ever.
const MOST_ERRORS: u8 = 16;

/// A UDP socket, which joins datagrams on their way in and out where the kernel can.
pub struct UdpSocket<C: Calls = Kernel> {
    socket: MioSocket,
    calls: C,
    readable: bool,
    /// Calls that received nothing but an error, in a row.
    errors: u8,
    /// The longest datagram that may be joined with others (UDP_SEGMENT); 0: none.
    longest_joined: usize,
}

impl UdpSocket {
    /// Opens and binds a socket.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and connect(2). EADDRINUSE: no port of the range is free.
    pub fn open(config: &DatagramConfig) -> io::Result<Self> {
        UdpSocket::with_calls(config, Kernel)
    }
}

impl<C: Calls> UdpSocket<C> {
    fn with_calls(config: &DatagramConfig, calls: C) -> io::Result<Self> {
        let DatagramConfig { bind: address, ports: range, only_from } = config;
        let socket = Socket::new(Domain::for_address(*address), Type::DGRAM.nonblocking(), None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Without these it serves, and loses or works a little more.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        let _ = message::join_received(socket.as_fd());
        ports::bind(&socket, *address, range.as_ref())?;
        if let Some(source) = only_from {
            // With port 0 the kernel compares the address alone. The scope is that of the socket.
            let mut source = *source;
            source.set_port(0);
            socket.connect(&SockAddr::from(source))?;
        }
        let socket = MioSocket::from_std(StdSocket::from(socket));
        let longest_joined = LONGEST_PAYLOAD;
        Ok(UdpSocket { socket, calls, readable: false, errors: 0, longest_joined })
    }

    /// The socket, to be registered.
    pub fn source(&mut self) -> &mut MioSocket {
        &mut self.socket
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends a group whose joining the kernel has refused with this error, one datagram after the other. If it takes
    /// them so, joining is what it refuses: datagrams that are too long for the way are not joined from now on, or none
    /// is if device or kernel cannot.
    fn send_apart(
        &mut self,
        group: &Group,
        refusal: &io::Error,
        scratch: &mut Scratch,
        tally: &mut Tally,
    ) {
        let before = tally.sent.datagrams;
        let entries = group.entries.clone();
        let (socket, calls) = (self.socket.as_fd(), &mut self.calls);
        let mut each = Vec::new();
        message::send(calls, socket, scratch, entries, 0, |group, result| {
            each.push((group, result))
        });
        each.into_iter().for_each(|(group, result)| tally.add(&group, result, scratch));
        if tally.sent.datagrams > before {
            self.longest_joined = match refusal.raw_os_error() {
                Some(libc::EINVAL | libc::EMSGSIZE) => {
                    self.longest_joined.min(group.segment.saturating_sub(1))
                }
                _ => 0,
            };
        }
    }
}

/// What has been sent, and what has not.
#[derive(Default)]
struct Tally {
    sent: Sent,
    failures: Vec<(SocketAddr, i32)>,
}

impl Tally {
    fn add(&mut self, group: &Group, result: io::Result<()>, scratch: &Scratch) {
        let count = group.entries.len();
        match result {
            Ok(()) => {
                self.sent.datagrams += count as u64;
                self.sent.payload += group.payload;
            }
            Err(error) => {
                let errno = match error.kind() {
                    ErrorKind::WouldBlock => libc::EAGAIN,
                    _ => error.raw_os_error().unwrap_or(libc::EIO),
                };
                if let Some(to) = scratch.destination(group.entries.start).decode() {
                    self.failures.extend(std::iter::repeat_n((to, errno), count));
                }
            }
        }
    }
}

impl<C: Calls> Datagrams for UdpSocket<C> {
    fn on_event(&mut self, readiness: Readiness) {
        self.readable |= readiness.readable || readiness.read_closed || readiness.error;
    }

    fn readable(&self) -> bool {
        self.readable
    }

    fn receive(&mut self, scratch: &mut Scratch, most: usize) -> Received {
        scratch.clear();
        if !self.readable {
            return Received::Blocked;
        }
        let most = most.clamp(1, MESSAGES);
        match message::receive(&mut self.calls, self.socket.as_fd(), scratch, most) {
            Ok(count) => {
                (self.readable, self.errors) = (count >= most, 0);
                Received::Messages
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Received::Blocked
            }
            Err(error) => {
                self.errors += 1;
                if self.errors >= MOST_ERRORS {
                    (self.readable, self.errors) = (false, 0);
                }
                Received::Failed(error)
            }
        }
    }

    fn send(&mut self, scratch: &mut Scratch) -> Sent {
        let entries = 0..scratch.outgoing().count();
        let mut tally = Tally::default();
        let mut refused = Vec::new();
        let most = self.longest_joined;
        let (socket, calls) = (self.socket.as_fd(), &mut self.calls);
        let mut failed = Vec::new();
        let sent = &mut tally.sent;
        message::send(calls, socket, scratch, entries, most, |group, result| match result {
            Ok(()) => {
                sent.datagrams += group.entries.len() as u64;
                sent.payload += group.payload;
            }
            Err(error) if group.entries.len() > 1 && refuses_joining(&error) => {
                refused.push((group, error))
            }
            Err(error) => failed.push((group, error)),
        });
        failed.into_iter().for_each(|(group, error)| tally.add(&group, Err(error), scratch));
        for (group, refusal) in refused {
            self.send_apart(&group, &refusal, scratch, &mut tally);
        }
        let Tally { sent, failures } = tally;
        scratch.sent(failures);
        sent
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn kernel_drops(&self) -> u64 {
        message::drops(self.descriptor()).unwrap_or_default().into()
    }
}

/// Whether the kernel may have refused a message because it was to be cut: device or kernel cannot, or the datagrams
/// are too long for the way.
fn refuses_joining(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT | libc::EMSGSIZE)
    )
}

#[cfg(test)]
mod tests;
