//! RESOLVE and RESOLVE_PTR (Tor's socks-extensions, section 2): commands F0 and F1.

use std::net::{IpAddr, Ipv4Addr};

use support::eventually;
use support::proxy::Proxy;

use super::{line_of, trusted, trusting};
use crate::inprocess::{Builder, Inprocess};

/// RESOLVE of a name.
fn resolve(name: &[u8]) -> Vec<u8> {
    let length = u8::try_from(name.len()).expect("255 at most");
    [b"\x05\xf0\x00\x03", &[length][..], name, b"\x00\x00"].concat()
}

/// RESOLVE_PTR of an address.
fn resolve_ptr(address: [u8; 4]) -> Vec<u8> {
    [&b"\x05\xf1\x00\x01"[..], &address, b"\x00\x00"].concat()
}

/// The reply names the address, with port 0; then the connection ends.
#[test]
fn a_name_has_an_address() {
    let server = Inprocess::start();
    server.names().add_ip("example.test", Ipv4Addr::new(192, 0, 2, 7).into());
    let mut client = server.client();
    client.say(&resolve(b"Example.test"));
    client.hears(b"\x05\x00\x00\x01\xc0\x00\x02\x07\x00\x00").hears_eof();
    server.names().add_ip("six.test", "2001:db8::7".parse::<IpAddr>().expect("an address"));
    let mut client = server.client();
    client.say(&resolve(b"six.test"));
    client.hears(b"\x05\x00\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\x00\x00").hears_eof();
}

/// Of a name with both families the answer is IPv4, as Tor has it: programs such as torsocks have no use for another.
#[test]
fn an_address_of_ipv4_is_preferred() {
    let server = Inprocess::start();
    let both =
        ["[2001:db8::7]:0", "192.0.2.7:0"].map(|address| address.parse().expect("an address"));
    server.names().add("both.test", &both);
    let mut client = server.client();
    client.say(&resolve(b"both.test")).hears(b"\x05\x00\x00\x01\xc0\x00\x02\x07\x00\x00");
}

/// An address is its own answer, in either spelling.
#[test]
fn literals_need_no_look_up() {
    let server = Inprocess::start();
    for request in [&b"\x05\xf0\x00\x01\xc0\x00\x02\x07\x00\x50"[..], &resolve(b"192.0.2.7")] {
        server.client().say(request).hears(b"\x05\x00\x00\x01\xc0\x00\x02\x07\x00\x00").hears_eof();
    }
    assert_eq!(server.names().asked(), [""; 0]);
}

#[test]
fn what_is_not_found_is_04() {
    let server = Inprocess::start();
    for name in [&b"unknown.test"[..], b"", b"a b", b"*"] {
        server.client().say(&resolve(name)).refused(4);
    }
}

/// It is written to the access log like any request, and is no tunnel.
#[test]
fn a_look_up_is_a_request() {
    let proxy = trusting(&[]);
    proxy.client().say(&resolve(b"localhost")).reply();
    let line = line_of(&proxy, "A");
    assert_eq!(line[5..10], ["localhost", "0", "0", "0", "0"], "{line:?}");
    assert_eq!(line[11], "finished");
    assert!(proxy.admin().ask("GET_LOGS").is_empty(), "no tunnel was open");
    assert_eq!(proxy.admin().figure("REPLY_0"), 1);
}

#[test]
fn an_address_has_a_name() {
    let server = Inprocess::start();
    server.names().add_name([192, 0, 2, 7].into(), "host.test");
    let mut client = server.client();
    client.say(&resolve_ptr([192, 0, 2, 7]));
    client.hears(b"\x05\x00\x00\x03\x09host.test\x00\x00").hears_eof();
    // In the form of IPv6 that is IPv4, and as a name that is an address.
    let mapped = b"\x05\xf1\x00\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\x02\x07\x00\x00";
    for request in [&mapped[..], b"\x05\xf1\x00\x03\x09192.0.2.7\x00\x00"] {
        let mut client = server.client();
        client.say(request).hears(b"\x05\x00\x00\x03\x09host.test\x00\x00").hears_eof();
    }
    server.client().say(&resolve_ptr([192, 0, 2, 8])).refused(4);
    server.client().say(b"\x05\xf1\x00\x03\x09host.test\x00\x00").refused(8);
}

#[test]
fn a_slow_look_up_is_given_up() {
    let builder = Builder::default();
    let server = builder
        .timeouts(|timeouts| timeouts.resolve = Some(std::time::Duration::from_millis(300)))
        .start();
    let _held = server.names().hang_name([192, 0, 2, 9].into());
    server.client().say(&resolve_ptr([192, 0, 2, 9])).refused(4);
    let mut client = server.client();
    client.say(&resolve_ptr([192, 0, 2, 9]));
    drop(client);
    eventually("it has left", || server.admin().info("connections") == "0");
}

#[test]
fn it_can_be_turned_off() {
    let proxy = Proxy::with(&["--allow-resolve", "off"]);
    proxy.client().say(&resolve(b"localhost")).refused(7);
    proxy.client().say(&resolve_ptr([127, 0, 0, 1])).refused(7);
    proxy.admin().set("allow-resolve", "on");
    assert_eq!(proxy.client().say(&resolve(b"localhost")).reply().0, 0);
}

/// Tor has RESOLVE in SOCKS4 too. The reply has room for IPv4 alone.
#[test]
fn socks4_has_it_too() {
    let proxy = trusting(&[]);
    let ask = |name: &[u8]| [&b"\x04\xf0\x00\x00\x00\x00\x00\x01\x00"[..], name, b"\x00"].concat();
    let mut client = trusted(&proxy);
    client.say(&ask(b"localhost")).hears(b"\x00\x5a\x00\x00\x7f\x00\x00\x01").hears_eof();
    trusted(&proxy).say(&ask(b"::1")).hears(b"\x00\x5b\0\0\0\0\0\0").hears_eof();
}
