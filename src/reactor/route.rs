//! Where the kernel would deliver a connection: to this machine itself, or elsewhere.
//!
//! connect(2) goes by the routing table, so that is what is asked (RTM_GETROUTE, rtnetlink(7)). bind(2) goes
//! by another one: it accepts no address of an IPv6 route of type `local` (AnyIP), and with
//! `net.ipv4.ip_nonlocal_bind` it accepts every address.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Answers read for one question. Only the last can be meant; those before it were left by questions that failed.
const ANSWERS: usize = 16;

/// struct nlmsghdr (netlink(7)): length, type, flags, sequence number, port, of 4, 2, 2, 4 and 4 bytes.
const HEADER: usize = 16;
/// struct rtmsg (rtnetlink(7)): family, length of the destination in bits, six more bytes of which the last is
/// the type of the route, and four bytes of flags.
const ROUTE: usize = 12;
/// Where the type of the route stands in an answer.
const ROUTE_TYPE: usize = HEADER + 7;

/// RTA_IP_PROTO and RTA_DPORT of linux/rtnetlink.h: routing rules may look at them.
const RTA_IP_PROTO: u16 = 27;
const RTA_DPORT: u16 = 29;

/// Asks the kernel's routing table.
pub struct Routes {
    /// Does not block. The error says why there is none.
    socket: io::Result<Socket>,
    sequence: u32,
    /// Whether the log knows that there is no socket.
    reported: bool,
}

impl Routes {
    /// Opens a socket, which is kept: a question has to be answered where descriptors have run out, too.
    pub fn open() -> Self {
        let mut routes = Routes { socket: netlink(), sequence: 0, reported: false };
        // A sandbox or another kernel may take questions and answer nonsense.
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        if let Err(error) = routes.ask(loopback).and_then(|here| match here {
            true => Ok(()),
            false => Err(io::Error::other("127.0.0.1 is said to be elsewhere")),
        }) {
            routes.socket = Err(error);
        }
        routes
    }

    /// Whether a TCP connection to this address would be delivered to this machine itself. The unspecified
    /// address is loopback to connect(2) and needs no question. Without rtnetlink, as in a sandbox, it is
    /// bind(2) that is asked.
    ///
    /// # Errors
    /// If there is no clear answer: those of send(2) and recv(2), and of the routing table.
    pub fn is_local_delivery(&mut self, address: SocketAddr) -> io::Result<bool> {
        if address.ip().is_unspecified() || address.ip().is_loopback() {
            return Ok(true);
        }
        match &self.socket {
            Ok(_) => self.ask(address),
            Err(error) => {
                if !std::mem::replace(&mut self.reported, true) {
                    log::warn!(
                        "cannot ask for routes ({error}): whether an address is this machine's is asked of \
                         bind(2), which does not know IPv6 routes of type local"
                    );
                }
                can_be_bound(address)
            }
        }
    }

    fn ask(&mut self, address: SocketAddr) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let question = question(address, self.sequence);
        let mut socket = match &self.socket {
            Ok(socket) => socket,
            Err(error) => return Err(error.kind().into()),
        };
        socket.send(&question)?;
        // The kernel has answered when send returns.
        for _ in 0..ANSWERS {
            let mut answer = [0; 4096];
            let count = socket.read(&mut answer)?;
            if let Some(verdict) = verdict(answer.get(..count).unwrap_or(&[]), self.sequence) {
                return verdict;
            }
        }
        Err(io::Error::other("no answer from rtnetlink"))
    }
}

fn netlink() -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::RAW,
        Some(Protocol::from(libc::NETLINK_ROUTE)),
    )?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A request for the route that connect(2) would take: with protocol and port, which rules may ask for, and
/// with the interface where the address needs one (RFC 4007), which is where connect(2) looks at it.
fn question(address: SocketAddr, sequence: u32) -> Vec<u8> {
    let mut attributes = Vec::with_capacity(64);
    let (family, bits) = match address.ip() {
        IpAddr::V4(v4) => {
            attribute(&mut attributes, libc::RTA_DST, &v4.octets());
            (libc::AF_INET, 32)
        }
        IpAddr::V6(v6) => {
            attribute(&mut attributes, libc::RTA_DST, &v6.octets());
            (libc::AF_INET6, 128)
        }
    };
    attribute(&mut attributes, RTA_IP_PROTO, &[libc::IPPROTO_TCP as u8]);
    attribute(&mut attributes, RTA_DPORT, &address.port().to_be_bytes());
    if let SocketAddr::V6(v6) = address
        && v6.ip().is_unicast_link_local()
        && v6.scope_id() != 0
    {
        attribute(&mut attributes, libc::RTA_OIF, &v6.scope_id().to_ne_bytes());
    }
    let length = (HEADER + ROUTE + attributes.len()) as u32;
    let mut message = Vec::with_capacity(HEADER + ROUTE + attributes.len());
    message.extend(length.to_ne_bytes());
    message.extend(libc::RTM_GETROUTE.to_ne_bytes());
    message.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend([family as u8, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(attributes);
    message
}

/// Appends a struct rtattr: length, type, value, and padding to a multiple of four.
fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend((4 + value.len() as u16).to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// What an answer says, if it is the one to this question.
fn verdict(answer: &[u8], sequence: u32) -> Option<io::Result<bool>> {
    let field = |at: usize| answer.get(at..)?.first_chunk::<4>().copied();
    if field(8).map(u32::from_ne_bytes) != Some(sequence) {
        return None;
    }
    let kind = answer.get(4..).and_then(|rest| rest.first_chunk::<2>()).copied();
    let kind = kind.map(u16::from_ne_bytes)?;
    if kind == libc::RTM_NEWROUTE {
        let here = [libc::RTN_LOCAL, libc::RTN_ANYCAST];
        return Some(Ok(here.contains(answer.get(ROUTE_TYPE)?)));
    }
    if i32::from(kind) != libc::NLMSG_ERROR {
        return Some(Err(io::ErrorKind::InvalidData.into()));
    }
    // struct nlmsgerr: a negative errno comes first.
    let errno = field(HEADER).map_or(libc::EIO, |bytes| i32::from_ne_bytes(bytes).saturating_neg());
    Some(match errno {
        // No route, or one that prohibits: connect(2) will say the same.
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES => Ok(false),
        errno => Err(io::Error::from_raw_os_error(errno)),
    })
}

fn can_be_bound(mut address: SocketAddr) -> io::Result<bool> {
    address.set_port(0);
    match UdpSocket::bind(address) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("a literal")
    }

    /// rtnetlink(7), on a machine with the order of bytes that this test is read in.
    #[test]
    #[cfg(target_endian = "little")]
    fn the_question_is_what_the_kernel_reads() {
        let expected = [
            &b"\x34\0\0\0\x1a\0\x01\0\x07\0\0\0\0\0\0\0"[..],
            b"\x02\x20\0\0\0\0\0\0\0\0\0\0",
            b"\x08\0\x01\0\xc6\x33\x64\x07",
            b"\x05\0\x1b\0\x06\0\0\0",
            b"\x06\0\x1d\0\x04\x38\0\0",
        ];
        assert_eq!(question(at("198.51.100.7:1080"), 7), expected.concat());
        let scoped = question(at("[fe80::1%3]:1080"), 7);
        assert!(scoped.ends_with(b"\x08\0\x04\0\x03\0\0\0"), "{scoped:02x?}");
        assert_eq!(scoped[0] as usize, scoped.len());
        // connect(2) ignores it there, and so must the question.
        assert!(!question(at("[2001:db8::1%3]:1080"), 7).ends_with(b"\x08\0\x04\0\x03\0\0\0"));
    }

    fn answer(kind: u16, sequence: u32, rest: &[u8]) -> Vec<u8> {
        let head =
            [0x2c_u32.to_ne_bytes(), [kind.to_ne_bytes(), [0, 0]].concat().try_into().expect("4")];
        [&head.concat()[..], &sequence.to_ne_bytes(), &[0; 4], rest].concat()
    }

    fn told(kind: u16, rest: &[u8]) -> Option<Result<bool, Option<i32>>> {
        let verdict = verdict(&answer(kind, 7, rest), 7)?;
        Some(verdict.map_err(|error| error.raw_os_error()))
    }

    #[test]
    fn answers_are_read() {
        let route = |kind: u8| [10, 128, 0, 0, 255, 0, 0, kind, 0, 0, 0, 0];
        let types = [libc::RTN_LOCAL, libc::RTN_ANYCAST, libc::RTN_UNICAST, libc::RTN_BLACKHOLE];
        let verdicts = types.map(|kind| told(libc::RTM_NEWROUTE, &route(kind)));
        assert_eq!(verdicts, [true, true, false, false].map(|here| Some(Ok(here))));
        let error = |errno: i32| told(libc::NLMSG_ERROR as u16, &(-errno).to_ne_bytes());
        for errno in [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES] {
            assert_eq!(error(errno), Some(Ok(false)));
        }
        for errno in [libc::EINVAL, libc::ENOBUFS, libc::EOPNOTSUPP] {
            assert_eq!(error(errno), Some(Err(Some(errno))));
        }
        let least = told(libc::NLMSG_ERROR as u16, &i32::MIN.to_ne_bytes());
        assert_eq!(least, Some(Err(Some(i32::MAX))), "and no overflow");
        assert_eq!(told(libc::NLMSG_ERROR as u16, b""), Some(Err(Some(libc::EIO))), "cut off");
        assert_eq!(told(libc::RTM_NEWROUTE, b""), None, "cut off");
        assert_eq!(told(3, b""), Some(Err(None)), "neither");
        assert!(verdict(&answer(libc::RTM_NEWROUTE, 6, &route(2)), 7).is_none(), "an old one");
        for cut in 0..HEADER {
            assert!(verdict(&answer(libc::RTM_NEWROUTE, 7, b"")[..cut], 7).is_none());
        }
    }

    #[test]
    fn loopback_is_here_and_what_is_documentation_is_not() {
        let without =
            Routes { socket: Err(io::ErrorKind::Unsupported.into()), sequence: 0, reported: false };
        for mut routes in [Routes::open(), without] {
            for here in ["127.0.0.1:1080", "127.9.9.9:1080", "0.0.0.0:1080", "[::]:1080", "[::1]:1"]
            {
                assert_eq!(routes.is_local_delivery(at(here)).ok(), Some(true), "{here}");
            }
            assert_eq!(routes.is_local_delivery(at("192.0.2.77:1080")).ok(), Some(false));
        }
    }

    /// An answer to a question that failed is not taken for one to the next.
    #[test]
    fn an_answer_that_comes_late_is_passed_over() {
        let mut routes = Routes::open();
        let Ok(socket) = &routes.socket else {
            return println!("skipped: no rtnetlink here");
        };
        socket.send(&question(at("127.0.0.1:1080"), 1_000)).expect("taken");
        assert_eq!(routes.ask(at("192.0.2.77:1080")).ok(), Some(false));
        assert_eq!(routes.ask(at("127.0.0.1:1080")).ok(), Some(true));
    }
}
