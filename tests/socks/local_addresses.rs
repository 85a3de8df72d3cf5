//! Where a client may go: loopback, link-local and unspecified addresses are for clients on loopback, the
//! server's own ports for nobody, in every spelling. Nothing here is ever dialled.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use socks5d::state::settings::{LocalFor, Settings};
use socks5d::workers::families::Family;
use socks5d::workers::resolver::{Lookup, SystemLookup};
use support::origin::Origin;
use support::proxy::Builder;
use support::socks::{CHOSEN, Client, HELLO, WELCOME, connect_request, credentials, name_request};

use crate::driven::Fixture;

const STRANGERS: [&str; 2] = ["203.0.113.9:5000", "[2001:db8::9]:5000"];
const NEIGHBOURS: [&str; 2] = ["127.0.0.1:5000", "[::1]:5000"];

/// Addresses of this machine and this link.
const LOCAL: [&str; 31] = [
    "127.0.0.1",
    "127.1.2.3",
    "127.255.255.255",
    "0.0.0.0",
    "0.0.0.1",
    "169.254.169.254",
    "::1",
    "::",
    "fe80::1",
    "febf:ffff::1",
    "::ffff:127.0.0.1",
    "::ffff:0.0.0.0",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b::0.0.0.0",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::",
    "2002::",
    "::169.254.169.254",
    "2001:0:c633:6401::80ff:fffe",
    "2001:db8::5efe:127.0.0.1",
    "64:ff9b:1::127.0.0.1",
    "64:ff9b:1:2:3:4:169.254.169.254",
    "64:ff9b:1:7f00:0:100::",
    "64:ff9b:1:7f:0:1::",
    "64:ff9b:1:5:7f:0:100::",
    "64:ff9b:1:a9fe:a9:fe00::",
    "::ffff:0:127.0.0.1",
    "::ffff:0:0.0.0.0",
];

/// Addresses elsewhere, some of which look alike.
const ELSEWHERE: [&str; 14] = [
    "198.51.100.1",
    "126.255.255.255",
    "128.0.0.1",
    "169.253.255.255",
    "2001:db8::1",
    "64:ff9b::198.51.100.1",
    "64:ff9b:1::198.51.100.1",
    "64:ff9b:1:c633:64:100::",
    "64:ff9b:1:c6:33:6401::",
    "64:ff9b:1:5:c6:3364:100::",
    "::ffff:0:198.51.100.1",
    "2002:c633:6401::1",
    "fec0::1",
    "::ffff:198.51.100.1",
];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal")
}

fn at(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(text), port)
}

/// As a session dials it: v4-mapped is IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn settings(local_for: LocalFor) -> Settings {
    Settings { local_for, own_ports: vec![1080, 8080], ..Settings::default() }
}

/// The reply code to a request, and what was dialled for it.
fn outcome(fixture: &mut Fixture, source: &str, request: &[u8]) -> (u8, Vec<SocketAddr>) {
    let says = [HELLO, &credentials(b"admin", b"1234"), request].concat();
    let source = source.parse().expect("a literal");
    let answer = fixture.converse(source, &says);
    let greeting = [CHOSEN, WELCOME].concat();
    let reply = answer.strip_prefix(&greeting[..]).expect("logged in");
    assert_eq!((reply.len(), reply[0]), (10, 5), "one whole reply: {reply:02x?}");
    (reply[1], std::mem::take(&mut fixture.dialled))
}

fn literal(text: &str) -> Vec<u8> {
    connect_request(at(text, 80))
}

/// All ways to say an address: as ATYP 01 or 04, as a name that is a literal, and as a name whose look-up
/// yields it.
fn spellings(address: &str) -> [Vec<u8>; 4] {
    [
        literal(address),
        name_request(address.as_bytes(), 80),
        name_request(format!("[{address}]").as_bytes(), 80),
        name_request(format!("{address}.example").as_bytes(), 80),
    ]
}

fn directory() -> HashMap<String, Vec<SocketAddr>> {
    let name = |address: &&str| (format!("{address}.example"), vec![at(address, 0)]);
    LOCAL.iter().chain(&ELSEWHERE).map(name).collect()
}

#[test]
fn local_addresses_are_refused_to_strangers_in_every_spelling() {
    let mut fixture = Fixture::new(settings(LocalFor::Loopback), directory());
    for source in STRANGERS {
        for address in LOCAL {
            for request in spellings(address) {
                let got = outcome(&mut fixture, source, &request);
                assert_eq!(got, (2, vec![]), "{address} as {request:02x?} from {source}");
            }
        }
        for address in ELSEWHERE {
            for request in spellings(address) {
                let got = outcome(&mut fixture, source, &request);
                assert_eq!(got, (5, vec![canonical(at(address, 80))]), "{address} from {source}");
            }
        }
    }
}

/// With `--local-for all`, and for those who are there already.
#[test]
fn local_addresses_are_open_if_allowed_and_to_neighbours() {
    for (local_for, sources) in
        [(LocalFor::All, STRANGERS), (LocalFor::Loopback, NEIGHBOURS), (LocalFor::All, NEIGHBOURS)]
    {
        let mut fixture = Fixture::new(settings(local_for), directory());
        for source in sources {
            for address in LOCAL.into_iter().chain(ELSEWHERE) {
                for request in spellings(address) {
                    let got = outcome(&mut fixture, source, &request);
                    assert_eq!(got, (5, vec![canonical(at(address, 80))]), "{address}");
                }
            }
        }
    }
}

/// With `--local-for nobody`: behind something that connects from this machine, everybody is a neighbour.
#[test]
fn local_addresses_are_refused_to_neighbours_too_if_they_are_for_nobody() {
    let mut fixture = Fixture::new(settings(LocalFor::Nobody), directory());
    for source in STRANGERS.into_iter().chain(NEIGHBOURS) {
        for address in LOCAL {
            for request in spellings(address) {
                let got = outcome(&mut fixture, source, &request);
                assert_eq!(got, (2, vec![]), "{address} as {request:02x?} from {source}");
            }
        }
        let elsewhere = at(ELSEWHERE[0], 80);
        let got = outcome(&mut fixture, source, &literal(ELSEWHERE[0]));
        assert_eq!(got, (5, vec![elsewhere]), "from {source}");
    }
}

/// The odd spellings that the system's resolver understands: what counts is the address it makes of them.
/// Numbers and `localhost` reach no name server.
#[test]
fn odd_spellings_are_looked_up_by_the_system_and_refused() {
    let odd = ["127.1", "0x7f.1", "2130706433", "0x7f000001", "0177.0.0.1", "017700000001", "0"];
    let found = |name: &str| {
        let looked_up = Family::ALL.map(|family| SystemLookup.addresses(name, family, 80));
        let found: Vec<SocketAddr> = looked_up.into_iter().flatten().flatten().collect();
        assert!(!found.is_empty(), "{name}");
        found
    };
    let names: Vec<&str> = odd.into_iter().chain(["localhost", "LOCALHOST", "127.0.0.1"]).collect();
    let directory = names.iter().map(|name| (name.to_lowercase(), found(name))).collect();
    let mut fixture = Fixture::new(settings(LocalFor::Loopback), directory);
    for name in names {
        let request = name_request(name.as_bytes(), 80);
        for source in STRANGERS {
            assert_eq!(outcome(&mut fixture, source, &request), (2, vec![]), "{name}");
        }
        let (code, dialled) = outcome(&mut fixture, NEIGHBOURS[0], &request);
        assert_eq!(code, 5, "{name}");
        let local =
            |address: &SocketAddr| address.ip().is_loopback() || ip("0.0.0.0") == address.ip();
        assert!(!dialled.is_empty() && dialled.iter().all(local), "{name}: {dialled:?}");
    }
}

/// The rule is applied to each address of a name, whatever was found before it and whoever asked first.
#[test]
fn of_several_addresses_only_the_permitted_are_dialled() {
    let list = |texts: &[&str]| texts.iter().map(|text| at(text, 0)).collect::<Vec<_>>();
    let mixed = ["127.0.0.1", "198.51.100.1", "::1", "2001:db8::1", "64:ff9b::7f00:1", "0.0.0.0"];
    let directory = HashMap::from([
        ("mixed.example".to_owned(), list(&mixed)),
        ("last.example".to_owned(), list(&["198.51.100.7", "169.254.169.254"])),
        ("none.example".to_owned(), list(&["::1", "127.0.0.1"])),
    ]);
    let mut fixture = Fixture::new(settings(LocalFor::Loopback), directory);
    let ask = |fixture: &mut Fixture, source, name: &str| {
        outcome(fixture, source, &name_request(name.as_bytes(), 80))
    };
    // Remembered from the neighbour's question, and still judged anew.
    assert_eq!(ask(&mut fixture, NEIGHBOURS[0], "mixed.example").1.len(), mixed.len());
    // The families take turns, and ::1 is the very first.
    let permitted = vec![at("2001:db8::1", 80), at("198.51.100.1", 80)];
    assert_eq!(ask(&mut fixture, STRANGERS[0], "mixed.example"), (5, permitted));
    assert_eq!(ask(&mut fixture, STRANGERS[1], "last.example"), (5, vec![at("198.51.100.7", 80)]));
    assert_eq!(ask(&mut fixture, STRANGERS[0], "none.example"), (2, vec![]));
    assert_eq!(ask(&mut fixture, NEIGHBOURS[1], "none.example").1.len(), 2);
}

/// Own ports are closed to everybody on all addresses of this machine, and open elsewhere.
#[test]
fn own_ports_are_refused_to_everybody() {
    let own = |name: &str, address| (name.to_owned(), vec![at(address, 0)]);
    let directory = HashMap::from([own("own.example", "127.9.9.9"), own("six.example", "::1")]);
    for local_for in LocalFor::ALL {
        let mut fixture = Fixture::new(settings(local_for), directory.clone());
        fixture.here = vec![ip("198.51.100.9"), ip("2001:db8:5::99")];
        for source in STRANGERS.into_iter().chain(NEIGHBOURS) {
            for port in [1080, 8080] {
                for address in [
                    "127.0.0.1",
                    "127.9.9.9",
                    "0.0.0.0",
                    "::",
                    "::1",
                    "::ffff:127.0.0.1",
                    "198.51.100.9",
                    "2001:db8:5::99",
                    "64:ff9b:1:c633:64:900::",
                ] {
                    for request in
                        [connect_request(at(address, port)), name_request(address.as_bytes(), port)]
                    {
                        let got = outcome(&mut fixture, source, &request);
                        assert_eq!(got, (2, vec![]), "{address} {port} from {source}");
                    }
                }
                for name in ["own.example", "six.example"] {
                    let request = name_request(name.as_bytes(), port);
                    assert_eq!(outcome(&mut fixture, source, &request), (2, vec![]), "{name}");
                }
                let elsewhere = at("198.51.100.1", port);
                let got = outcome(&mut fixture, source, &connect_request(elsewhere));
                assert_eq!(got, (5, vec![elsewhere]));
            }
        }
    }
}

/// The option reaches the rule, and the program's clients on loopback need none. Own ports stay closed.
#[test]
fn the_program_lets_neighbours_in_and_nobody_to_its_own_ports() {
    let origin = Origin::echo();
    for options in [&[][..], &["--allow-local"], &["--local-for", "all"]] {
        let proxy = Builder::default().args(options).start();
        proxy.tunnel(origin.address);
        for own in [proxy.socks_address(), proxy.metp_address()] {
            let mut client = Client::new(proxy.socks()).logged_in("admin", "1234");
            client.say(&connect_request(own)).refused(2);
        }
    }
    let parsed = |options: &[&str]| {
        let options = options.iter().map(std::ffi::OsString::from);
        match socks5d::args::parse(options, None) {
            Ok(socks5d::args::CommandLine::Serve(args)) => args.settings.local_for,
            _ => panic!("good options"),
        }
    };
    assert_eq!(parsed(&[]), LocalFor::Loopback);
    assert_eq!(parsed(&["--allow-local"]), LocalFor::All);
}

/// METP §5.17: a change acts on the next request. `allow-local` is another name of `local-for all`.
#[test]
fn who_may_use_local_addresses_can_be_changed_at_runtime() {
    let origin = Origin::echo();
    let proxy = Builder::default().args(["--local-for", "nobody"]).start();
    let mut admin = proxy.admin();
    let reply = || proxy.client().say(&connect_request(origin.address)).reply().0;
    assert_eq!((admin.setting("local-for"), admin.setting("allow-local")), both("nobody", "off"));
    assert_eq!(reply(), 2);
    for (key, value, code, now) in [
        ("local-for", "loopback", 0, both("loopback", "off")),
        ("allow-local", "on", 0, both("all", "on")),
        ("local-for", "nobody", 2, both("nobody", "off")),
        ("allow-local", "off", 2, both("nobody", "off")),
        ("local-for", "all", 0, both("all", "on")),
        ("allow-local", "off", 0, both("loopback", "off")),
    ] {
        admin.set(key, value);
        assert_eq!((admin.setting("local-for"), admin.setting("allow-local")), now);
        assert_eq!(reply(), code, "{key} {value}");
    }
}

fn both(local_for: &str, allow_local: &str) -> (String, String) {
    (local_for.to_owned(), allow_local.to_owned())
}

/// A name with very many addresses is no way to make the server try them all.
#[test]
fn a_name_has_a_bounded_number_of_addresses() {
    let crowd =
        (0..=254).flat_map(|c| (0..16).map(move |d| SocketAddr::from(([198, 51, c, d], 0))));
    let directory = HashMap::from([("crowd.example".to_owned(), crowd.collect())]);
    let mut fixture = Fixture::new(settings(LocalFor::Loopback), directory);
    let (code, dialled) = outcome(&mut fixture, STRANGERS[0], &name_request(b"crowd.example", 80));
    assert_eq!(code, 5);
    assert_eq!(dialled.len(), socks5d::workers::dns_cache::MAX_ADDRESSES);
}
