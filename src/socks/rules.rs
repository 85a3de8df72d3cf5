//! Where a client may go. Decided on the address itself, right before each attempt to connect, so that no
//! spelling and no name gets around it.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::ledger::settings::Settings;
use crate::reactor::listener::canonical;

/// Whether a client at `source` may connect to `candidate`.
///
/// The server's own ports are closed to everybody. This machine's loopback, link-local and unspecified
/// addresses are open to clients on loopback, who are there already, and to others if the settings say so.
pub fn permitted(source: IpAddr, candidate: SocketAddr, settings: &Settings) -> bool {
    if is_own(candidate, &settings.own_ports) {
        return false;
    }
    settings.allow_local || source.to_canonical().is_loopback() || !is_local(candidate.ip())
}

/// Whether an address leads to this machine or this link, also when it is wrapped in IPv6.
fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        // All of 0.0.0.0/8 is "this host on this network" (RFC 1122 §3.2.1.3).
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.octets().starts_with(&[0]),
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unicast_link_local()
                || embedded(v6).is_some_and(|v4| is_local(v4.into()))
        }
    }
}

/// The IPv4 address that a translator would make of an IPv6 address: NAT64 with the well-known prefix
/// (RFC 6052 §2.1) or a local one (RFC 8215 §4), 6to4 (RFC 3056 §2), the IPv4-translated form (RFC 2765
/// §2.1), and the deprecated IPv4-compatible one (RFC 4291 §2.5.5.1).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.octets() {
        [0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
        | [0x00, 0x64, 0xff, 0x9b, 0x00, 0x01, .., a, b, c, d]
        | [0x20, 0x02, a, b, c, d, ..]
        | [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, a, b, c, d]
        | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
        _ => None,
    }
}

/// Whether this is one of the server's own ports on an address of this machine. The port is compared
/// first, so that ordinary requests cost no call; an address is local if it can be bound to.
fn is_own(address: SocketAddr, own_ports: &[u16]) -> bool {
    if !own_ports.contains(&address.port()) {
        return false;
    }
    let mut local = canonical(address);
    local.set_port(0);
    if let IpAddr::V6(v6) = local.ip()
        && let Some(v4) = embedded(v6)
        && is_own(SocketAddr::from((v4, address.port())), own_ports)
    {
        return true;
    }
    match UdpSocket::bind(local) {
        Ok(_) => true,
        // Anything but a clear "not mine" is refused: descriptors may have run out.
        Err(error) => error.kind() != ErrorKind::AddrNotAvailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(allow_local: bool) -> Settings {
        Settings { allow_local, own_ports: vec![1080, 8080], ..Settings::default() }
    }

    const LOCAL: [&str; 18] = [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "::1",
        "::",
        "::127.0.0.1",
        "fe80::1",
        "febf::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.1.1",
        "::ffff:0.0.0.0",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::",
        "2002:7f00:1::",
        "2002:a9fe:a9fe:1::1",
    ];

    const ELSEWHERE: [&str; 8] = [
        "192.0.2.1",
        "10.0.0.1",
        "128.0.0.1",
        "169.253.0.1",
        "2001:db8::1",
        "64:ff9b::192.0.2.1",
        "2002:c000:201::1",
        "fec0::1",
    ];

    fn may(source: &str, address: &str, allow_local: bool) -> bool {
        let address: IpAddr = address.parse().expect("a literal");
        let source = source.parse().expect("a literal");
        permitted(source, SocketAddr::new(address, 80), &settings(allow_local))
    }

    #[test]
    fn local_addresses_are_closed_to_clients_from_elsewhere() {
        for address in LOCAL {
            assert!(!may("203.0.113.9", address, false), "{address}");
            assert!(!may("2001:db8::9", address, false), "{address}");
            assert!(may("203.0.113.9", address, true), "{address}");
        }
        for address in ELSEWHERE {
            assert!(may("203.0.113.9", address, false), "{address}");
        }
    }

    #[test]
    fn clients_on_loopback_may_use_loopback() {
        for address in LOCAL.into_iter().chain(ELSEWHERE) {
            for source in ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"] {
                assert!(may(source, address, false), "{address}");
            }
        }
    }

    #[test]
    fn own_ports_are_closed_to_everybody_on_local_addresses_alone() {
        let own = |text: &str| is_own(text.parse().expect("a literal"), &[1080, 8080]);
        for local in [
            "127.0.0.1:1080",
            "127.9.9.9:8080",
            "0.0.0.0:1080",
            "[::]:8080",
            "[::1]:1080",
            "[::ffff:127.0.0.1]:1080",
            "[64:ff9b::127.0.0.1]:1080",
            "[2002:7f00:1::]:8080",
        ] {
            // Without IPv6, ::1 is no address of this machine.
            if local == "[::1]:1080" && !support::has_ipv6("its own port on ::1") {
                continue;
            }
            assert!(own(local), "{local}");
            let address = local.parse().expect("a literal");
            assert!(!permitted([127, 0, 0, 1].into(), address, &settings(true)), "{local}");
        }
        for other in ["127.0.0.1:1081", "192.0.2.77:1080", "198.51.100.1:8080"] {
            assert!(!own(other), "{other}");
        }
    }
}
