//! Which addresses are closed to whom, without asking the system.

use std::net::Ipv6Addr;

use super::*;

fn settings(local_for: LocalFor) -> Settings {
    Settings { local_for, own_ports: vec![1080, 8080], ..Settings::default() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal")
}

const LOCAL: [&str; 22] = [
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
    "2001:0:c000:201::80ff:fffe",
    "2001:0:7f00:1::3fff:fdfe",
    "2001:db8::5efe:127.0.0.1",
    "2001:db8::200:5efe:169.254.1.1",
];

const ELSEWHERE: [&str; 11] = [
    "192.0.2.1",
    "10.0.0.1",
    "128.0.0.1",
    "169.253.0.1",
    "2001:db8::1",
    "64:ff9b::192.0.2.1",
    "2002:c000:201::1",
    "2001:0:c000:201::3fff:fdfe",
    "2001:db8::5efe:192.0.2.1",
    "2001:db8::100:5efe:127.0.0.1",
    "fec0::1",
];

const STRANGERS: [&str; 2] = ["203.0.113.9", "2001:db8::9"];
const NEIGHBOURS: [&str; 4] = ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"];

fn may(source: &str, address: &str, local_for: LocalFor) -> bool {
    let not_asked = |address| panic!("asked where {address} leads, which is no own port");
    permitted(ip(source), SocketAddr::new(ip(address), 80), &settings(local_for), not_asked)
}

#[test]
fn local_addresses_are_for_those_whom_the_settings_name() {
    for (local_for, strangers, neighbours) in [
        (LocalFor::Loopback, false, true),
        (LocalFor::Nobody, false, false),
        (LocalFor::All, true, true),
    ] {
        let strangers = STRANGERS.map(|source| (source, strangers));
        let neighbours = NEIGHBOURS.map(|source| (source, neighbours));
        for (source, open) in strangers.into_iter().chain(neighbours) {
            for address in LOCAL {
                assert_eq!(may(source, address, local_for), open, "{source} {address}");
            }
            for address in ELSEWHERE {
                assert!(may(source, address, local_for), "{source} {address}");
            }
        }
    }
}

/// A target that sees a client on loopback may trust it.
#[test]
fn whoever_may_not_use_local_addresses_does_not_come_from_one() {
    for (bound, loopback) in
        [("127.0.0.1", true), ("::1", true), ("192.0.2.1", false), ("2001:db8::1", false)]
    {
        let bound = SocketAddr::new(ip(bound), 40_000);
        for local_for in LocalFor::ALL {
            for source in STRANGERS.into_iter().chain(NEIGHBOURS) {
                let open = !loopback || may(source, "127.0.0.1", local_for);
                let may = may_come_from(ip(source), bound, &settings(local_for));
                assert_eq!(may, open, "{source} {bound} {local_for:?}");
            }
        }
    }
}

/// RFC 6052 §2.2: where each form has the octets of the IPv4 address. Octet 8, bits 64 to 71, is not used.
const FORMS: [(u8, [usize; 4]); 4] =
    [(48, [6, 7, 9, 10]), (56, [7, 9, 10, 11]), (64, [9, 10, 11, 12]), (96, [12, 13, 14, 15])];

fn embed(v4: [u8; 4], at: [usize; 4], mut octets: [u8; 16]) -> IpAddr {
    for (octet, at) in v4.into_iter().zip(at) {
        octets[at] = octet;
    }
    Ipv6Addr::from(octets).into()
}

/// 64:ff9b:1:: (RFC 8215 §4).
const LOCAL_USE: [u8; 16] = [0, 0x64, 0xff, 0x9b, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The table of RFC 6052 §2.4, with the prefix of RFC 8215 in place of 2001:db8:100::.
#[test]
fn addresses_are_embedded_as_in_rfc_6052() {
    for (address, v4) in [
        ("64:ff9b:1:c000:2:2100::", "192.0.2.33"),
        ("64:ff9b:1:1c0:0:221::", "192.0.2.33"),
        ("64:ff9b:1:122:c0:2:2100::", "192.0.2.33"),
        ("64:ff9b:1:122:344::192.0.2.33", "192.0.2.33"),
        ("64:ff9b::192.0.2.33", "192.0.2.33"),
    ] {
        let IpAddr::V6(v6) = ip(address) else { panic!("{address} is IPv6") };
        assert!(embedded(v6).any(|found| found == ip(v4)), "{address}");
        assert!(!is_local(ip(address)), "{address}");
    }
    for address in [
        "64:ff9b:1:7f00:0:100::",
        "64:ff9b:1:7f:0:1::",
        "64:ff9b:1:0:7f:0:100::",
        "64:ff9b:1::127.0.0.1",
        "64:ff9b:1:7f00:ff00:100::",
        "64:ff9b:1:a9fe:a9:fe00::",
        "64:ff9b:1:a9:fe:a9fe::",
        "64:ff9b:1:0:a9:fea9:fe00:0",
        "64:ff9b:1:2:3:4:169.254.169.254",
        "64:ff9b:1::",
        "64:ff9b:1::0.0.0.1",
        "64:ff9b:1:2:3:4:0.0.0.1",
    ] {
        assert!(is_local(ip(address)), "{address}");
    }
    for outside in ["64:ff9b:2::127.0.0.1", "64:ff9a:1::127.0.0.1", "64:ff9b:0:1::127.0.0.1"] {
        assert!(!is_local(ip(outside)), "{outside}");
    }
}

/// Whatever prefix a translator has, and whatever is put where it does not look.
#[test]
fn loopback_is_local_in_every_form_and_192_0_2_1_is_not() {
    // Numbers without a pattern, the same in each run (xorshift64).
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for (length, at) in FORMS {
        assert!(!is_local(embed([192, 0, 2, 1], at, LOCAL_USE)), "/{length}");
        for _ in 0..2_000 {
            let noise = u128::from(next()) << 64 | u128::from(next());
            let noise = (noise & (u128::MAX >> 48)).to_be_bytes();
            let mut octets = LOCAL_USE;
            octets[6..].copy_from_slice(&noise[6..]);
            let [b, c, d, ..] = next().to_be_bytes();
            for v4 in [[127, b, c, d], [127, 0, 0, 1], [169, 254, c, d]] {
                for rest in [octets, LOCAL_USE] {
                    let address = embed(v4, at, rest);
                    assert!(is_local(address), "{v4:?} as /{length}: {address}");
                    let own = SocketAddr::new(address, 1080);
                    let asked = |asked: SocketAddr| Ok(asked.ip() == IpAddr::from(v4));
                    let all = settings(LocalFor::All);
                    assert!(!permitted(ip("127.0.0.1"), own, &all, asked), "{address}");
                }
            }
        }
    }
}

fn own(address: &str, answer: impl Fn(SocketAddr) -> io::Result<bool>) -> bool {
    let address: SocketAddr = address.parse().expect("a literal");
    let refused = |source| !permitted(ip(source), address, &settings(LocalFor::All), &answer);
    let verdicts = ["127.0.0.1", "203.0.113.9"].map(refused);
    assert_eq!(verdicts[0], verdicts[1], "{address}");
    verdicts[0]
}

#[test]
fn own_ports_are_closed_to_everybody_where_the_route_leads_here() {
    let here = ["198.51.100.7:1080", "[2001:db8:5::99]:8080", "[fe80::1%3]:1080"];
    let route = |asked: SocketAddr| Ok(here.contains(&asked.to_string().as_str()));
    for local in here.into_iter().chain([
        "[64:ff9b::198.51.100.7]:1080",
        "[64:ff9b:1::198.51.100.7]:1080",
        "[64:ff9b:1:c633:64:700::]:1080",
        "[2002:c633:6407::]:1080",
        "[::198.51.100.7]:1080",
    ]) {
        assert!(own(local, route), "{local}");
    }
    for other in ["198.51.100.8:1080", "[2001:db8:5::98]:8080", "198.51.100.7:1081"] {
        assert!(!own(other, route), "{other}");
    }
}

#[test]
fn own_ports_are_closed_where_there_is_no_clear_answer() {
    assert!(own("198.51.100.7:1080", |_| Err(io::ErrorKind::OutOfMemory.into())));
    assert!(!own("198.51.100.7:1081", |_| Err(io::ErrorKind::OutOfMemory.into())));
}

/// RFC 9293 §3.5, simultaneous open.
#[test]
fn a_connection_to_itself_is_recognised() {
    let itself = |candidate: &str, bound: &str| {
        let literal = |text: &str| text.parse().expect("a literal");
        is_itself(literal(candidate), literal(bound))
    };
    assert!(itself("127.0.0.1:40000", "127.0.0.1:40000"));
    assert!(itself("[::1]:40000", "[::1]:40000"));
    assert!(itself("0.0.0.0:40000", "127.0.0.1:40000"));
    assert!(itself("[::]:40000", "[::1]:40000"));
    assert!(!itself("127.0.0.1:40000", "127.0.0.1:40001"));
    assert!(!itself("127.0.0.1:40000", "127.0.0.2:40000"));
    assert!(!itself("0.0.0.0:40000", "192.0.2.1:40000"));
}
