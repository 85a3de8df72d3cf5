//! The two families of addresses: which of them goes first (RFC 6724), and how two answers become one (RFC 8305 §4).
//!
//! The kernel is asked for routes in a worker; the rest is pure.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4: A records.
    V4,
    /// IPv6: AAAA records.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        }
    }

    /// The family of an address; a v4-mapped one is of IPv6, as its record is.
    pub fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// An address of documentation (RFC 5737, RFC 3849): only a route to all addresses leads there.
    fn somewhere(self) -> IpAddr {
        match self {
            Family::V4 => Ipv4Addr::new(192, 0, 2, 1).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        }
    }
}

/// Which family goes first if a name has addresses of both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefer {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// The one that RFC 6724 puts first.
    #[default]
    System,
}

impl Prefer {
    /// All values, in the order of listings.
    pub const ALL: [Prefer; 3] = [Prefer::Ipv4, Prefer::Ipv6, Prefer::System];

    /// The value on the command line and in METP.
    pub fn word(self) -> &'static str {
        match self {
            Prefer::Ipv4 => "ipv4",
            Prefer::Ipv6 => "ipv6",
            Prefer::System => "system",
        }
    }
}

/// What decides about the place of an answer beside that of the other family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Whether there is a route to its first address (RFC 6724 §6, rule 1).
    pub reachable: bool,
    /// The precedence of its first address (rule 6).
    pub precedence: u8,
    /// Whether no general route is known for the other family: its answer is not waited for.
    pub alone: bool,
}

impl Rank {
    /// The rank of an answer of this family. `has_route` is asked twice.
    pub fn new(family: Family, first: IpAddr, has_route: impl Fn(IpAddr) -> bool) -> Self {
        let reachable = has_route(first);
        let alone = !has_route(family.other().somewhere());
        Rank { reachable, precedence: precedence(first), alone }
    }

    /// Whether an answer of this family need not wait for the other one: its place is first whatever that one is, or
    /// the other one is of no use.
    pub fn goes_at_once(self, family: Family, prefer: Prefer) -> bool {
        let first = match prefer {
            Prefer::Ipv4 => family == Family::V4,
            Prefer::Ipv6 => family == Family::V6,
            Prefer::System => {
                family == Family::V6 && self.reachable && self.precedence >= V4_PRECEDENCE
            }
        };
        first || self.alone
    }
}

/// The family that goes first. With equal ranks it is IPv6.
pub fn first_family(prefer: Prefer, v4: Rank, v6: Rank) -> Family {
    match prefer {
        Prefer::Ipv4 => Family::V4,
        Prefer::Ipv6 => Family::V6,
        Prefer::System => {
            let key = |rank: Rank| (rank.reachable, rank.precedence);
            if key(v4) > key(v6) { Family::V4 } else { Family::V6 }
        }
    }
}

/// One address of each in turn, beginning with `first`; then the rest of the longer one (RFC 8305 §4, with a First
/// Address Family Count of 1).
pub fn interleave(first: &[SocketAddr], second: &[SocketAddr]) -> Vec<SocketAddr> {
    let longest = first.len().max(second.len());
    let pairs = (0..longest).flat_map(|index| [first.get(index), second.get(index)]);
    pairs.flatten().copied().collect()
}

const V4_PRECEDENCE: u8 = 35;

/// The precedence of an address in the default policy table (RFC 6724 §2.1): that of the longest prefix.
fn precedence(ip: IpAddr) -> u8 {
    let IpAddr::V6(ip) = ip else { return V4_PRECEDENCE };
    let [first, second, ..] = ip.segments();
    match ip {
        Ipv6Addr::LOCALHOST => 50,
        _ if ip.to_ipv4_mapped().is_some() => V4_PRECEDENCE,
        // ::/96, the compatible ones.
        _ if ip.to_bits() >> 32 == 0 => 1,
        _ if first == 0x2001 && second == 0 => 5,
        _ if first == 0x2002 => 30,
        _ if first == 0x3ffe || first & 0xffc0 == 0xfec0 => 1,
        _ if first & 0xfe00 == 0xfc00 => 3,
        _ => 40,
    }
}

/// Whether the system has a route to an address. It connects a UDP socket, for which no packet is sent. If no socket
/// can be had for want of descriptors or memory, nothing is known against the address, and it has one.
pub fn has_route(ip: IpAddr) -> bool {
    let to = SocketAddr::new(ip, 0);
    let connected = Socket::new(Domain::for_address(to), Type::DGRAM, None)
        .and_then(|socket| socket.connect(&to.into()));
    connected.map_or_else(|error| !means_no_route(&error), |()| true)
}

fn means_no_route(error: &io::Error) -> bool {
    use libc::{EADDRNOTAVAIL, EAFNOSUPPORT, EHOSTUNREACH, ENETDOWN, ENETUNREACH};
    let none = [ENETUNREACH, EHOSTUNREACH, ENETDOWN, EADDRNOTAVAIL, EAFNOSUPPORT];
    error.raw_os_error().is_some_and(|errno| none.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// RFC 6724 §2.1.
    #[test]
    fn precedences_are_those_of_the_default_policy_table() {
        for (address, expected) in [
            ("::1", 50),
            ("2001:db8::1", 40),
            ("fe80::1", 40),
            ("64:ff9b::1", 40),
            ("::ffff:192.0.2.1", 35),
            ("192.0.2.1", 35),
            ("127.0.0.1", 35),
            ("2002::1", 30),
            ("2002:ffff::", 30),
            ("2003::1", 40),
            ("2001::1", 5),
            ("2001:1::1", 40),
            ("fc00::1", 3),
            ("fdff::1", 3),
            ("fe00::1", 40),
            ("::2", 1),
            ("::192.0.2.1", 1),
            ("::1:0:0", 40),
            ("fec0::1", 1),
            ("feff::1", 1),
            ("ff00::1", 40),
            ("3ffe::1", 1),
            ("3fff::1", 40),
        ] {
            assert_eq!(precedence(ip(address)), expected, "{address}");
        }
    }

    #[test]
    fn the_family_with_the_better_first_address_goes_first() {
        let all = |v6: &str, routes: &[Family]| {
            let has = |ip: IpAddr| routes.contains(&Family::of(SocketAddr::new(ip, 0)));
            let v4 = Rank::new(Family::V4, ip("192.0.2.1"), has);
            let v6 = Rank::new(Family::V6, ip(v6), has);
            Prefer::ALL.map(|prefer| first_family(prefer, v4, v6))
        };
        use Family::{V4, V6};
        for (v6, routes, expected) in [
            ("2001:db8::1", &[V4, V6][..], V6),
            ("2001:db8::1", &[V4], V4),
            ("2001:db8::1", &[V6], V6),
            ("2001:db8::1", &[], V6),
            ("fd00::1", &[V4, V6], V4),
            ("fd00::1", &[V6], V6),
            ("2002::1", &[V4, V6], V4),
            ("::1", &[V4, V6], V6),
            ("::ffff:192.0.2.1", &[V4, V6], V6),
        ] {
            assert_eq!(all(v6, routes), [V4, V6, expected], "{v6} {routes:?}");
        }
    }

    #[test]
    fn what_is_first_in_any_case_need_not_wait() {
        use Family::{V4, V6};
        let rank = |reachable, precedence, alone| Rank { reachable, precedence, alone };
        for (family, rank, expected) in [
            (V4, rank(true, 35, false), [true, false, false]),
            (V6, rank(true, 40, false), [false, true, true]),
            (V6, rank(true, 35, false), [false, true, true]),
            (V6, rank(true, 30, false), [false, true, false]),
            (V6, rank(false, 40, false), [false, true, false]),
            (V4, rank(true, 35, true), [true, true, true]),
            (V6, rank(false, 3, true), [true, true, true]),
        ] {
            let at_once = Prefer::ALL.map(|prefer| rank.goes_at_once(family, prefer));
            assert_eq!(at_once, expected, "{family:?} {rank:?}");
        }
    }

    #[test]
    fn families_take_turns() {
        let list = |ports: &[u16]| -> Vec<SocketAddr> {
            ports.iter().map(|port| SocketAddr::from(([192, 0, 2, 1], *port))).collect()
        };
        for (first, second, both) in [
            (&[][..], &[][..], &[][..]),
            (&[1, 2], &[], &[1, 2]),
            (&[], &[3, 4], &[3, 4]),
            (&[1, 2], &[3, 4], &[1, 3, 2, 4]),
            (&[1, 2, 5, 6], &[3], &[1, 3, 2, 5, 6]),
            (&[1], &[3, 4, 5], &[1, 3, 4, 5]),
        ] {
            assert_eq!(interleave(&list(first), &list(second)), list(both));
        }
    }

    #[test]
    fn only_a_missing_route_is_one() {
        assert!(has_route(ip("127.0.0.1")));
        for errno in [libc::ENETUNREACH, libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL] {
            assert!(means_no_route(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        for errno in [libc::EMFILE, libc::ENOMEM, libc::EPERM] {
            assert!(!means_no_route(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
    }
}
