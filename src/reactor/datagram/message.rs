//! recvmmsg(2) and sendmmsg(2): several messages with one call, and several datagrams in one message (UDP_GRO and
//! UDP_SEGMENT, udp(7)).
//!
//! The structures of C are made here, right before each call, and point into the scratch for as long as the call takes.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::LONGEST_PAYLOAD;
use super::address::RawAddress;
use super::scratch::{MESSAGES, Run, SLOT_BYTES, Scratch};
use super::space::{CONTROL_BYTES, CONTROL_DATA, Control, Group, Space};

/// Datagrams of a message that the kernel cuts (UDP_MAX_SEGMENTS of older kernels).
const SEGMENTS: usize = 64;
/// The two calls. Tests refuse some of them.
pub trait Calls {
    /// recvmmsg(2). Returns how many messages were received, at least one.
    ///
    /// # Errors
    /// Those of the first message.
    fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: &mut [libc::mmsghdr],
    ) -> io::Result<usize>;

    /// sendmmsg(2). Returns how many messages were sent, at least one.
    ///
    /// # Errors
    /// Those of the first message.
    fn send(&mut self, socket: BorrowedFd<'_>, messages: &mut [libc::mmsghdr])
    -> io::Result<usize>;
}

/// The calls of the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

impl Calls for Kernel {
    fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: &mut [libc::mmsghdr],
    ) -> io::Result<usize> {
        let count = messages.len() as libc::c_uint;
        // SAFETY: messages are made in this file alone. Their pointers are to names, parts, controls and slots that
        // outlive the call, with the lengths beside them; nothing else uses these meanwhile.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                count,
                0,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: &mut [libc::mmsghdr],
    ) -> io::Result<usize> {
        let count = messages.len() as libc::c_uint;
        // SAFETY: as above; what is sent is only read.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Receives up to `most` messages, [`MESSAGES`] at most, into the slots of the scratch. Returns how many have come.
///
/// # Errors
/// Those of recvmmsg(2) for the first message.
pub fn receive(
    calls: &mut impl Calls,
    socket: BorrowedFd<'_>,
    scratch: &mut Scratch,
    most: usize,
) -> io::Result<usize> {
    scratch.clear();
    let (slots, space) = scratch.parts();
    space.clear();
    let most = most.min(MESSAGES);
    space.names.resize(most, RawAddress::SPACE);
    space.controls.resize(most, Control([0; CONTROL_BYTES]));
    for slot in slots.chunks_exact_mut(SLOT_BYTES).take(most) {
        space.parts.push(libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT_BYTES });
    }
    let Space { messages, parts, names, controls, .. } = &mut *space;
    for ((name, control), part) in names.iter_mut().zip(controls).zip(parts) {
        let mut message = empty_message();
        let header = &mut message.msg_hdr;
        let name = name.space();
        (header.msg_name, header.msg_namelen) =
            (name.as_mut_ptr().cast(), name.len() as libc::socklen_t);
        (header.msg_iov, header.msg_iovlen) = (part, 1);
        (header.msg_control, header.msg_controllen) =
            (control.0.as_mut_ptr().cast(), CONTROL_BYTES as _);
        messages.push(message);
    }
    let received = calls.receive(socket, &mut space.messages);
    let mut runs = [None; MESSAGES];
    if let Ok(received) = received {
        let messages = space.messages.iter().zip(&space.names).zip(&space.controls);
        for (run, ((message, name), control)) in runs.iter_mut().zip(messages).take(received) {
            *run = Some(run_of(message, name, control));
        }
    }
    space.clear();
    runs.into_iter().flatten().for_each(|run| scratch.add_run(run));
    received
}

/// What a message holds.
fn run_of(message: &libc::mmsghdr, name: &RawAddress, control: &Control) -> Run {
    let length = (message.msg_len as usize).min(SLOT_BYTES);
    let has_control = message.msg_hdr.msg_controllen > CONTROL_DATA;
    let joined = has_control.then(|| control.number(libc::SOL_UDP, libc::UDP_GRO)).flatten();
    let segment = joined.and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
    Run {
        source: name.decode().unwrap_or(NOWHERE),
        length,
        segment: segment.unwrap_or(length).max(1),
        truncated: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
    }
}

/// The source of a message without one.
const NOWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// Sends these entries of the outbox with as few calls as there may be. `most` is the length of the longest datagram
/// that may be joined with others; `each` gets for each group how it went, in order.
pub fn send(
    calls: &mut impl Calls,
    socket: BorrowedFd<'_>,
    scratch: &mut Scratch,
    entries: Range<usize>,
    most: usize,
    mut each: impl FnMut(Group, io::Result<()>),
) {
    let mut space = std::mem::take(&mut scratch.space);
    space.clear();
    fill(&mut space, scratch, entries, most);
    let Space { messages, groups, .. } = &mut space;
    let mut groups = groups.drain(..);
    let (mut first, mut repeated) = (0, false);
    while let Some(rest) = messages.get_mut(first..).filter(|rest| !rest.is_empty()) {
        match calls.send(socket, rest) {
            Ok(sent) => {
                let sent = sent.max(1);
                groups.by_ref().take(sent).for_each(|group| each(group, Ok(())));
                (first, repeated) = (first + sent, false);
            }
            // An ICMP error of a datagram that was sent earlier takes the place of this one's sending, once.
            Err(error) if belongs_to_an_earlier_one(&error) && !repeated => repeated = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                groups
                    .by_ref()
                    .for_each(|group| each(group, Err(io::ErrorKind::WouldBlock.into())));
                break;
            }
            // sendmmsg stops at the first that fails: it is skipped, the others have nothing to do with it.
            Err(error) => {
                groups.by_ref().take(1).for_each(|group| each(group, Err(copy_of(&error))));
                (first, repeated) = (first + 1, false);
            }
        }
    }
    drop(groups);
    space.clear();
    scratch.space = space;
}

/// Whether an error may be one that ICMP has left at the socket (those that icmp(7) and its counterpart for IPv6 call
/// fatal), which the kernel tells once and in place of something else, or an interruption.
fn belongs_to_an_earlier_one(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINTR
                | libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::EMSGSIZE
                | libc::EPROTO
                | libc::EACCES
        )
    )
}

fn copy_of(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

fn empty_message() -> libc::mmsghdr {
    // SAFETY: it is plain data, for which zeros mean no name, no parts, no control.
    unsafe { std::mem::zeroed() }
}

/// Makes the messages for these entries. They point into `scratch`, which must not change before they are sent.
fn fill(space: &mut Space, scratch: &Scratch, entries: Range<usize>, most: usize) {
    let mut next = entries.start;
    while next < entries.end
        && let Some(group) = scratch.group(next..entries.end, most)
    {
        next = group.entries.end;
        space.groups.push(group);
    }
    // All parts and controls first, so that they stay where they are.
    for group in &space.groups {
        for (header, payload) in scratch.contents(group.entries.clone()) {
            for bytes in [header, payload] {
                if !bytes.is_empty() {
                    let base = bytes.as_ptr().cast_mut().cast();
                    space.parts.push(libc::iovec { iov_base: base, iov_len: bytes.len() });
                }
            }
        }
        let segment = u16::try_from(group.segment).unwrap_or_default();
        space.controls.push(Control::with_number(libc::SOL_UDP, libc::UDP_SEGMENT, segment));
    }
    let mut parts = space.parts.as_mut_slice();
    for (group, control) in space.groups.iter().zip(&mut space.controls) {
        let contents = scratch.contents(group.entries.clone());
        let count: usize = contents
            .map(|(header, payload)| {
                usize::from(!header.is_empty()) + usize::from(!payload.is_empty())
            })
            .sum();
        let (own, rest) = parts.split_at_mut_checked(count).unwrap_or_default();
        parts = rest;
        let mut message = empty_message();
        let fields = &mut message.msg_hdr;
        let name = scratch.destination(group.entries.start).bytes();
        fields.msg_name = name.as_ptr().cast_mut().cast();
        fields.msg_namelen = name.len() as libc::socklen_t;
        (fields.msg_iov, fields.msg_iovlen) = (own.as_mut_ptr(), own.len() as _);
        if group.entries.len() > 1 {
            fields.msg_control = control.0.as_mut_ptr().cast();
            fields.msg_controllen = CONTROL_BYTES as _;
        }
        space.messages.push(message);
    }
}

impl Scratch {
    /// The entries from the first of `entries` on that may travel in one message: of one destination and one length, but
    /// for the last, which may be shorter. None is joined that is longer than `most`.
    fn group(&self, entries: Range<usize>, most: usize) -> Option<Group> {
        let first = entries.start;
        let destination = self.outbox.entries.get(first)?.destination;
        let mut group = Group { entries: first..first, segment: 0, payload: 0 };
        let mut total = 0;
        for (index, (header, payload)) in (first..).zip(self.contents(entries)) {
            let length = header.len() + payload.len();
            if index == first {
                group.segment = length;
            } else {
                let same = self
                    .outbox
                    .entries
                    .get(index)
                    .is_some_and(|entry| entry.destination == destination);
                let joins = same
                    && (1..=group.segment).contains(&length)
                    && group.segment <= most
                    && group.entries.len() < SEGMENTS
                    && total + length <= LONGEST_PAYLOAD;
                if !joins {
                    break;
                }
            }
            group.entries.end = index + 1;
            group.payload += payload.len() as u64;
            total += length;
            if length < group.segment {
                break;
            }
        }
        Some(group)
    }
}

/// Drops of a socket's receive queue since it was opened (SO_MEMINFO).
///
/// # Errors
/// Those of getsockopt(2).
pub fn drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    const SK_MEMINFO_DROPS: usize = 8;
    let mut values = [0_u32; SK_MEMINFO_DROPS + 1];
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: there is room for `length` bytes, and the kernel stores no more.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let [.., drops] = values;
    if result == 0 { Ok(drops) } else { Err(io::Error::last_os_error()) }
}

/// Has the kernel join datagrams of one source and length (UDP_GRO).
///
/// # Errors
/// Those of setsockopt(2): the kernel is older than Linux 5.0.
pub fn join_received(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option is a number, which is read from `on`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_GRO,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
