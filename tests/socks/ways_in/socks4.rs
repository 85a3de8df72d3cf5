//! SOCKS4 and 4A (the memos "SOCKS: A protocol for TCP proxy across firewalls" and "SOCKS 4A"), for trusted networks
//! alone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use support::origin::{Origin, closed_port};
use support::proxy::{Builder, Proxy, connect_from};
use support::socks::{Client, half_close, wait_until_read};
use support::{has_ipv6, noise, read_exactly, read_to_end};

use super::{echoes, figures, line_of, port, stranger, trusted, trusting, wait_until_left};

const REJECTED: &[u8] = b"\x00\x5b\x00\x00\x00\x00\x00\x00";

/// CONNECT or BIND to an address of IPv4.
fn request(command: u8, target: SocketAddr, userid: &[u8]) -> Vec<u8> {
    let IpAddr::V4(address) = target.ip() else { panic!("IPv4") };
    [&[4, command][..], &port(target), &address.octets(), userid, b"\0"].concat()
}

/// CONNECT to a name (4A).
fn name_request(name: &[u8], target_port: u16) -> Vec<u8> {
    [&b"\x04\x01"[..], &target_port.to_be_bytes(), b"\0\0\0\x01me\0", name, b"\0"].concat()
}

/// Reads a reply: CD, and the address.
fn reply(client: &mut Client) -> (u8, SocketAddr) {
    let bytes = read_exactly(&mut client.stream, 8);
    assert_eq!(bytes[0], 0, "VN of a reply");
    let address = Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]);
    (bytes[1], SocketAddr::from((address, u16::from_be_bytes([bytes[2], bytes[3]]))))
}

/// The memo, CONNECT: the reply is 5A, payload behind the request is kept.
#[test]
fn a_connect_opens_a_tunnel() {
    let (proxy, echo) = (trusting(&[]), Origin::echo());
    let mut client = trusted(&proxy);
    client.say(&[&request(1, echo.address, b"Fred")[..], b"early"].concat());
    let (code, bound) = reply(&mut client);
    assert_eq!((code, bound.ip()), (0x5a, Ipv4Addr::LOCALHOST.into()));
    client.hears(b"early").say(b"late").hears(b"late");
    half_close(&client.stream);
    client.hears_eof();
    let line = line_of(&proxy, "4");
    let target_port = echo.address.port().to_string();
    assert_eq!(line[1..4], ["-", "4", "127.0.0.2"], "{line:?}");
    assert_eq!(line[5..10], ["127.0.0.1", &target_port, "0", "9", "9"], "{line:?}");
    assert_eq!(line[11], "finished");
    wait_until_left(&proxy);
    assert!(figures(&proxy).contains(" total=1 up=9 down=9 "), "{}", figures(&proxy));
}

/// 4A: the name is looked up by the proxy.
#[test]
fn a_connect_to_a_name_opens_a_tunnel() {
    let (proxy, echo) = (trusting(&[]), Origin::echo());
    for name in [&b"localhost"[..], b"127.0.0.1"] {
        let mut client = trusted(&proxy);
        client.say(&name_request(name, echo.address.port()));
        assert_eq!(reply(&mut client).0, 0x5a);
        client.say(b"hello").hears(b"hello");
    }
    trusted(&proxy).say(&name_request(b"", 80)).hears(REJECTED).hears_eof();
    trusted(&proxy).say(&name_request(b"no such name", 80)).hears(REJECTED).hears_eof();
}

/// A tunnel to a target of IPv6 is one; its address has no room in the reply.
#[test]
fn a_name_may_lead_to_ipv6() {
    if !has_ipv6("SOCKS4A to a target of IPv6") {
        return;
    }
    let (proxy, echo) = (trusting(&[]), Origin::v6(support::origin::echo));
    let mut client = trusted(&proxy);
    let all = name_request(b"::1", echo.address.port());
    echoes(&mut client, &all, b"\x00\x5a\x00\x00\x00\x00\x00\x00");
}

#[test]
fn requests_may_be_split_anywhere() {
    let (proxy, echo) = (trusting(&[]), Origin::echo());
    let named = name_request(b"127.0.0.1", echo.address.port());
    for all in [request(1, echo.address, b"Fred"), named] {
        for split in 1..all.len() {
            let mut client = trusted(&proxy);
            client.say(&all[..split]);
            wait_until_read(&client.stream);
            client.say(&all[split..]);
            assert_eq!(reply(&mut client).0, 0x5a);
            client.say(b"x").hears(b"x");
        }
    }
}

/// From elsewhere: 5B at the first byte, flushed and closed without a reset, whatever follows; and a line at debug.
#[test]
fn strangers_are_rejected() {
    let (proxy, echo) = (trusting(&["--log-level", "debug"]), Origin::echo());
    let whole = request(1, echo.address, b"admin");
    for bytes in [&b"\x04"[..], &whole, &[&whole[..], &noise(100_000, 3)].concat()] {
        let mut client = stranger(&proxy);
        let source = client.stream.local_addr().expect("connected");
        client.say(bytes).hears(REJECTED).hears_eof();
        let line = format!("not let in: service=socks remote={source} cause=socks4");
        proxy.stderr.wait_for(|said| said.ends_with(&line));
    }
    proxy.wait_until_idle();
    assert_eq!(figures(&proxy), figures(&Proxy::start()), "nobody was let in");
    assert_eq!(proxy.stdout.all(), [""; 0]);
}

/// Nobody is trusted unless that is asked for.
#[test]
fn nobody_is_let_in_by_default() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    trusted(&proxy).say(&request(1, echo.address, b"")).hears(REJECTED).hears_eof();
}

/// USERID is logged, and never believed.
#[test]
fn the_userid_is_logged() {
    let (proxy, echo) = (trusting(&["--log-level", "debug"]), Origin::echo());
    let mut client = trusted(&proxy);
    let source = client.stream.local_addr().expect("connected");
    client.say(&request(1, echo.address, b"ad\x1bmin"));
    assert_eq!(reply(&mut client).0, 0x5a);
    let line = format!("socks4: remote={source} userid=\"ad\\x1bmin\"");
    proxy.stderr.wait_for(|said| said.ends_with(&line));
}

/// Every failure is 5B: what is refused by rule, by the target, and what is no request.
#[test]
fn failures_are_5b() {
    let proxy = trusting(&[]);
    let (_held, closed) = closed_port();
    let refused = |bytes: &[u8]| trusted(&proxy).say(bytes).hears(REJECTED).hears_eof();
    refused(&request(1, closed, b""));
    refused(&request(1, proxy.metp_address(), b""));
    // Commands: 3 is UDP ASSOCIATE in version 5 alone; F1 looks up names of addresses there.
    for command in [0, 3, 9, 0xf1] {
        refused(&request(command, closed, b""));
    }
    let long = [b'u'; 256];
    refused(&request(1, closed, &long));
    refused(&name_request(&long, 80));
    // As soon as it is certain.
    refused(&[&b"\x04\x01\x00\x50\x7f\x00\x00\x01"[..], &long].concat());
    let line = line_of(&proxy, "4");
    assert_eq!((line[7].as_str(), line[11].as_str()), ("5", "refused"), "{line:?}");
}

/// The memo, BIND: the first reply names the listener, the second the peer.
#[test]
fn bind_has_two_replies() {
    let proxy = trusting(&[]);
    let mut client = trusted(&proxy);
    client.say(&request(2, SocketAddr::from(([127, 0, 0, 7], 20)), b"Fred"));
    let (code, listener) = reply(&mut client);
    assert_eq!((code, listener.ip()), (0x5a, Ipv4Addr::LOCALHOST.into()));
    // A stranger, who may be reset before connect(2) returns.
    drop(TcpStream::connect(listener));
    let mut peer = connect_from([127, 0, 0, 7].into(), listener);
    let second = (0x5a, peer.local_addr().expect("connected"));
    assert_eq!(reply(&mut client), second);
    client.say(b"data");
    assert_eq!(read_exactly(&mut peer, 4), b"data");
    half_close(&client.stream);
    assert_eq!(read_to_end(&mut peer), b"");
}

/// A client over IPv6 and anybody as peer: the listener would be where the client has connected, which has no room in
/// the reply.
#[test]
fn bind_is_for_ipv4() {
    if !has_ipv6("BIND of SOCKS4 over IPv6") {
        return;
    }
    let proxy = Builder::default().listen(Some("::1")).args(["--trust", "::1"]).start();
    let anybody = SocketAddr::from(([0, 0, 0, 0], 0));
    let mut client = Client::new(proxy.socks());
    client.say(&request(2, anybody, b"")).hears(REJECTED).hears_eof();
    let mut client = Client::new(proxy.socks());
    client.say(b"\x04\x02\x00\x50\x00\x00\x00\x01\x00::1\x00").hears(REJECTED).hears_eof();
}

/// The deadline of the handshake holds.
#[test]
fn an_unfinished_request_is_given_up() {
    let proxy = trusting(&["--handshake-timeout", "0.2"]);
    trusted(&proxy).say(b"\x04\x01\x00").hears_eof();
}
