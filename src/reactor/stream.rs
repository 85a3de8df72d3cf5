//! Connections as sessions see them: a socket of the kernel, or the script of a test.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use mio::net::TcpStream;
use socket2::SockRef;

use super::liveness::Liveness;
use super::tcp_state::{self, Acknowledgement};

/// A byte stream with two directions that end separately. Tests implement it with scripts.
pub trait Stream: Read + Write {
    /// Ends the writing direction: the peer reads EOF after all that was written.
    ///
    /// # Errors
    /// Those of shutdown(2), for instance that the peer is gone.
    fn finish(&mut self) -> io::Result<()>;

    /// Lets small messages go at once instead of waiting for one another (TCP_NODELAY).
    ///
    /// # Errors
    /// Those of setsockopt(2).
    fn set_nodelay(&mut self) -> io::Result<()>;

    /// Sets how the kernel finds out whether the peer still exists.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    fn set_liveness(&mut self, liveness: Liveness) -> io::Result<()>;

    /// Makes the closing of the stream a reset (SO_LINGER with a timeout of 0), which drops what the peer has
    /// not acknowledged.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    fn reset_on_close(&mut self) -> io::Result<()>;

    /// Resets the connection at once, where [`Stream::reset_on_close`] is refused.
    ///
    /// # Errors
    /// Those of connect(2); that it cannot be done with this stream.
    fn disconnect(&mut self) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Bytes that were written and that the peer has not acknowledged; a FIN counts as one. None once the
    /// connection has failed.
    ///
    /// # Errors
    /// Those of ioctl(2).
    fn unacknowledged(&self) -> io::Result<usize>;

    /// Whether the peer answers what was sent to it.
    ///
    /// # Errors
    /// Those of ioctl(2) and getsockopt(2).
    fn acknowledgement(&self) -> io::Result<Acknowledgement>;

    /// The address of this end.
    ///
    /// # Errors
    /// Those of getsockname(2).
    fn local_address(&self) -> io::Result<SocketAddr>;

    /// The address of the other end.
    ///
    /// # Errors
    /// Those of getpeername(2).
    fn peer_address(&self) -> io::Result<SocketAddr>;

    /// Leaves urgent data where it is in the stream, instead of dropping it (SO_OOBINLINE).
    ///
    /// # Errors
    /// Those of setsockopt(2).
    fn set_oob_inline(&mut self) -> io::Result<()>;

    /// What splice(2) can use, if it can be used with this stream.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// Why the connection could not be made, if it could not (SO_ERROR).
    fn failure(&self) -> Option<io::Error>;
}

impl Stream for TcpStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn set_nodelay(&mut self) -> io::Result<()> {
        TcpStream::set_nodelay(self, true)
    }

    fn set_liveness(&mut self, liveness: Liveness) -> io::Result<()> {
        liveness.apply(&SockRef::from(&*self))
    }

    fn reset_on_close(&mut self) -> io::Result<()> {
        SockRef::from(&*self).set_linger(Some(Duration::ZERO))
    }

    fn disconnect(&mut self) -> io::Result<()> {
        tcp_state::disconnect(self.as_fd())
    }

    fn unacknowledged(&self) -> io::Result<usize> {
        tcp_state::unacknowledged(self.as_fd())
    }

    fn acknowledgement(&self) -> io::Result<Acknowledgement> {
        tcp_state::acknowledgement(self.as_fd())
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn peer_address(&self) -> io::Result<SocketAddr> {
        self.peer_addr()
    }

    fn set_oob_inline(&mut self) -> io::Result<()> {
        SockRef::from(&*self).set_out_of_band_inline(true)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }

    fn failure(&self) -> Option<io::Error> {
        // A refused option says nothing of the peer. A read gives the socket's error as well, and takes nothing.
        self.take_error().unwrap_or_else(|_| match self.peek(&mut [0]) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Some(error),
            _ => None,
        })
    }
}
