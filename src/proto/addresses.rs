//! Addresses that lead to another one: what a translator, a tunnel or the system makes of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address, which is canonical, may lead beside itself: to the IPv4 addresses that are embedded in it, and
/// from the unspecified address to loopback, which is where connect(2) goes.
pub fn leads_to(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let (own, carried) = match address {
        IpAddr::V4(v4) => (loopback_of(v4), None),
        // It has the form of an IPv4-compatible one, and is none (RFC 4291 §2.5.5.1).
        IpAddr::V6(v6) if v6.is_loopback() => (None, None),
        IpAddr::V6(v6) => {
            let own = v6.is_unspecified().then_some(IpAddr::V6(Ipv6Addr::LOCALHOST));
            (own, Some(embedded(v6)))
        }
    };
    let carried = carried.into_iter().flatten();
    let carried = carried.flat_map(|v4| [Some(IpAddr::V4(v4)), loopback_of(v4)]);
    carried.flatten().chain(own)
}

fn loopback_of(address: Ipv4Addr) -> Option<IpAddr> {
    address.is_unspecified().then_some(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// The IPv4 addresses to which a translator or a tunnel on this machine might send what is sent to an IPv6
/// address: NAT64 with the well-known prefix (RFC 6052 §2.1) or a local one (RFC 8215 §4), 6to4 (RFC 3056 §2),
/// Teredo (RFC 4380 §4), ISATAP (RFC 5214 §6.1), the IPv4-translated form (RFC 2765 §2.1), and the deprecated
/// IPv4-compatible one (RFC 4291 §2.5.5.1).
pub fn embedded(address: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let octets = address.octets();
    let in_prefix = match octets {
        [0x00, 0x64, 0xff, 0x9b, 0x00, 0x01, ..] => local_use(octets),
        [0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
        | [0x20, 0x02, a, b, c, d, ..]
        | [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, a, b, c, d]
        | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => {
            [Some(Ipv4Addr::new(a, b, c, d)), None, None, None]
        }
        // The server, and the client with all bits inverted.
        [0x20, 0x01, 0, 0, s, e, r, v, _, _, _, _, a, b, c, d] => {
            [Some(Ipv4Addr::new(s, e, r, v)), Some(Ipv4Addr::new(!a, !b, !c, !d)), None, None]
        }
        _ => [None; 4],
    };
    // Behind any prefix; the bit tells whether the address is globally unique.
    let in_identifier = match octets {
        [.., 0x00 | 0x02, 0x00, 0x5e, 0xfe, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
        _ => None,
    };
    in_prefix.into_iter().flatten().chain(in_identifier)
}

/// The IPv4 addresses that an address below 64:ff9b:1::/48 can mean. A translator may use this prefix or any longer
/// one of RFC 6052 §2.2; the address does not show which:
///
/// ```text
/// octet  6   7   8   9  10  11  12  13  14  15
/// /48    a   b   u   c   d   suffix
/// /56        a   u   b   c   d   suffix
/// /64            u   a   b   c   d   suffix
/// /96            u               a   b   c   d
/// ```
///
/// All readings count, so some addresses are refused that are in fact harmless. The zeros around an
/// address are no reading, or nothing would be left: 0.0.0.0/8 counts only where no other form has an
/// address with nothing but zeros behind it.
fn local_use(octets: [u8; 16]) -> [Option<Ipv4Addr>; 4] {
    let [.., o6, o7, _, o9, o10, o11, o12, o13, o14, o15] = octets;
    let readings = [
        (Ipv4Addr::new(o6, o7, o9, o10), &[o11, o12, o13, o14, o15][..]),
        (Ipv4Addr::new(o7, o9, o10, o11), &[o12, o13, o14, o15]),
        (Ipv4Addr::new(o9, o10, o11, o12), &[o13, o14, o15]),
        (Ipv4Addr::new(o12, o13, o14, o15), &[]),
    ];
    let exact = readings
        .iter()
        .any(|(v4, suffix)| !is_this_network(*v4) && suffix.iter().all(|octet| *octet == 0));
    readings.map(|(v4, _)| (!exact || !is_this_network(v4)).then_some(v4))
}

/// Whether it is one of 0.0.0.0/8: "this host on this network" (RFC 1122 §3.2.1.3).
pub fn is_this_network(address: Ipv4Addr) -> bool {
    address.octets().starts_with(&[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_where_the_system_or_a_translator_takes_it() {
        let leads = |text: &str| -> Vec<String> {
            leads_to(text.parse().expect("a literal")).map(|address| address.to_string()).collect()
        };
        for (address, others) in [
            ("192.0.2.1", &[][..]),
            ("127.0.0.1", &[]),
            ("0.0.0.1", &[]),
            ("0.0.0.0", &["127.0.0.1"]),
            ("::1", &[]),
            ("2001:db8::1", &[]),
            ("::", &["0.0.0.0", "127.0.0.1", "::1"]),
            ("64:ff9b::10.0.0.1", &["10.0.0.1"]),
            ("64:ff9b::", &["0.0.0.0", "127.0.0.1"]),
            ("2002:a00:1::", &["10.0.0.1"]),
            ("::10.0.0.1", &["10.0.0.1"]),
            ("2001:db8::5efe:10.0.0.1", &["10.0.0.1"]),
            ("2001:0:c000:201::f5ff:fffe", &["192.0.2.1", "10.0.0.1"]),
        ] {
            assert_eq!(leads(address), others, "{address}");
        }
    }
}
