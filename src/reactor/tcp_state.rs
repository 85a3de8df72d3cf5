//! What the kernel knows about the send queue of a TCP connection, and how a connection is dissolved.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Whether the peer has acknowledged what was sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledgement {
    /// All of it.
    Complete,
    /// Not all of it, but the peer answers: it may have closed its window, because it does not read.
    Pending,
    /// Not all of it, and two transmissions or more in a row were not answered. The last answer of any kind came
    /// this long ago.
    Unanswered(Duration),
}

/// Lets the port of an address that is bound be chosen with the destination (IP_BIND_ADDRESS_NO_PORT, ip(7)).
///
/// # Errors
/// Those of setsockopt(2).
pub fn choose_port_late(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option is a number, which is read from `on`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bytes in the send queue of a connection that the peer has not acknowledged; a FIN counts as one (tcp(7),
/// SIOCOUTQ). None if the connection is closed, since then nothing is sent any more.
///
/// # Errors
/// Those of ioctl(2) and getsockopt(2).
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<usize> {
    match queued(socket)? {
        0 => Ok(0),
        _ if info(socket)?.tcpi_state == TCP_CLOSE => Ok(0),
        bytes => Ok(bytes),
    }
}

/// Whether the peer answers (tcp(7), TCP_INFO). Retransmissions and window probes are counted until an
/// acknowledgement comes.
///
/// # Errors
/// Those of ioctl(2) and getsockopt(2).
pub fn acknowledgement(socket: BorrowedFd<'_>) -> io::Result<Acknowledgement> {
    if queued(socket)? == 0 {
        return Ok(Acknowledgement::Complete);
    }
    let info = info(socket)?;
    let unanswered = u32::from(info.tcpi_retransmits) + u32::from(info.tcpi_probes);
    Ok(match unanswered {
        0 | 1 => Acknowledgement::Pending,
        _ => Acknowledgement::Unanswered(Duration::from_millis(info.tcpi_last_ack_recv.into())),
    })
}

/// Dissolves a connection, which sends RST and drops what is unsent (connect(2), AF_UNSPEC).
///
/// # Errors
/// Those of connect(2).
pub fn disconnect(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: sockaddr is plain data for which all zeros is a valid value; AF_UNSPEC is 0.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes, which is the size of `nowhere`; the descriptor is open.
    match unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The state CLOSED (RFC 9293 §3.3.2), as the kernel numbers it.
const TCP_CLOSE: u8 = 7;

/// What was sent and not acknowledged when the connection was last alive.
fn queued(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: this request stores one int, for which there is room; the descriptor is open. SIOCOUTQ has the
    // number of TIOCOUTQ.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

fn info(socket: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
    // SAFETY: tcp_info is plain data for which all zeros is a valid value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel stores at most `length` bytes, which is the size of `info`; the descriptor is open.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info)
}
