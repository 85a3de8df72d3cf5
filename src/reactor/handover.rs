//! A stream socket between two processes of one machine, over which open files are passed (unix(7): SCM_RIGHTS).

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Descriptors of one message, at most.
pub const MOST_DESCRIPTORS: usize = 8;
/// Room for the control message, in words, so that it is aligned as its head.
const CONTROL_WORDS: usize = 16;
/// The bytes of all descriptors of a message.
const DESCRIPTOR_BYTES: usize = MOST_DESCRIPTORS * size_of::<RawFd>();

// SAFETY: the macro computes with numbers alone.
const _: () =
    assert!(unsafe { libc::CMSG_SPACE(DESCRIPTOR_BYTES as u32) } as usize <= CONTROL_WORDS * 8);

/// The user whose process is at the other end (SO_PEERCRED).
///
/// # Errors
/// Those of getsockopt(2).
pub fn peer_user(socket: &impl AsFd) -> io::Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: a valid place of that length is written, and not kept.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if asked == 0 { Ok(peer.uid) } else { Err(io::Error::last_os_error()) }
}

/// The user of this process.
pub fn own_user() -> u32 {
    // SAFETY: the call takes nothing, and always succeeds.
    unsafe { libc::geteuid() }
}

fn message(part: &mut libc::iovec, control: &mut [u64], bytes: usize) -> libc::msghdr {
    // SAFETY: msghdr is plain data for which all zeros is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = ptr::from_mut(part);
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = bytes as _;
    message
}

/// Sends bytes, and with them descriptors, [`MOST_DESCRIPTORS`] at most. Returns how many bytes went.
///
/// # Errors
/// Those of sendmsg(2).
pub fn send(socket: &impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if descriptors.is_empty() || descriptors.len() > MOST_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let size = size_of::<RawFd>() * numbers.len();
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = [0; CONTROL_WORDS];
    // SAFETY: the macro computes with numbers alone.
    let space = unsafe { libc::CMSG_SPACE(size as u32) } as usize;
    let message = message(&mut part, &mut control, space);
    // SAFETY: there is room for a head and `size` bytes in `control`, which is aligned for it and lives during the call;
    // the kernel reads the bytes and keeps nothing.
    let sent = unsafe {
        let head = libc::CMSG_FIRSTHDR(&raw const message);
        (*head).cmsg_level = libc::SOL_SOCKET;
        (*head).cmsg_type = libc::SCM_RIGHTS;
        (*head).cmsg_len = libc::CMSG_LEN(size as u32) as _;
        ptr::copy_nonoverlapping(numbers.as_ptr().cast::<u8>(), libc::CMSG_DATA(head), size);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, flags)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives bytes, and the descriptors that came with them, which programs that are started do not inherit.
///
/// # Errors
/// Those of recvmsg(2).
pub fn receive(socket: &impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = [0; CONTROL_WORDS];
    let size = size_of_val(&control);
    let mut message = message(&mut part, &mut control, size);
    let mut received = Vec::new();
    // SAFETY: bytes and `control` are valid places of these lengths, which live during the call. What the kernel has
    // written of the control message is read within its bounds; each descriptor in it is new and has no other owner.
    let count = unsafe {
        let flags = libc::MSG_CMSG_CLOEXEC;
        let count = libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags);
        let mut head =
            if count < 0 { ptr::null_mut() } else { libc::CMSG_FIRSTHDR(&raw const message) };
        while !head.is_null() {
            if (*head).cmsg_level == libc::SOL_SOCKET && (*head).cmsg_type == libc::SCM_RIGHTS {
                let size = (*head).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let first = libc::CMSG_DATA(head).cast::<RawFd>();
                for place in 0..size / size_of::<RawFd>() {
                    let number = ptr::read_unaligned(first.add(place));
                    received.push(OwnedFd::from_raw_fd(number));
                }
            }
            head = libc::CMSG_NXTHDR(&raw const message, head);
        }
        count
    };
    usize::try_from(count).map(|count| (count, received)).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn open_files_travel_with_bytes() {
        let (left, right) = UnixStream::pair().expect("sockets");
        let listeners: Vec<TcpListener> =
            (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback")).collect();
        let descriptors: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
        assert_eq!(send(&left, b"three\n", &descriptors).expect("sent"), 6);
        (&left).write_all(b"and more").expect("sent");
        let mut bytes = [0; 64];
        let (count, received) = receive(&right, &mut bytes).expect("received");
        assert_eq!((&bytes[..6], received.len()), (&b"three\n"[..], 3));
        assert!(count >= 6);
        for (sent, received) in listeners.iter().zip(received) {
            let received = TcpListener::from(received);
            let [there, here] = [sent, &received].map(|one| one.local_addr().expect("bound"));
            assert_eq!(there, here);
        }
        assert_eq!(peer_user(&left).expect("a socket"), own_user());
    }

    #[test]
    fn none_and_too_many_are_not_sent() {
        let (left, right) = UnixStream::pair().expect("sockets");
        let own = left.as_fd();
        assert!(send(&left, b"x", &[]).is_err());
        assert!(send(&left, b"x", &[own; MOST_DESCRIPTORS + 1]).is_err());
        assert!(send(&left, b"x", &[own; MOST_DESCRIPTORS]).is_ok());
        assert_eq!(receive(&right, &mut [0; 4]).expect("received").1.len(), MOST_DESCRIPTORS);
    }
}
