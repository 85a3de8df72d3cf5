//! BIND (RFC 1928 sections 4 and 6): two replies, one peer.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use socks5d::workers::families::Family;
use support::proxy::{Builder, Proxy, connect, connect_from};
use support::socks::{Client, connect_request, half_close, name_request, reset};
use support::{eventually, has_ipv6, read_exactly, read_the_end, read_to_end, read_to_reset};

use crate::inprocess::Inprocess;

/// A BIND request for a peer with this address.
fn bind_request(peer: SocketAddr) -> Vec<u8> {
    let mut request = connect_request(peer);
    request[1] = 2;
    request
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("a literal")
}

fn localhost(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A client of the administrator that waits for a peer, and where its listener is.
fn waiting(proxy: &Proxy, peer: SocketAddr) -> (Client, SocketAddr) {
    let mut client = proxy.client();
    let (code, listener) = client.say(&bind_request(peer)).reply();
    assert_eq!(code, 0, "the first reply");
    (client, listener)
}

/// The second reply; then the tunnel is open.
fn met(client: &mut Client, peer: &TcpStream) {
    let (code, address) = client.reply();
    assert_eq!((code, address), (0, peer.local_addr().expect("connected")), "the second reply");
}

/// Connects from this address of loopback and expects a reset, which may come before connect(2) returns.
pub fn is_turned_away(last: u8, listener: SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).expect("loopback");
    match socket.connect(&listener.into()) {
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        Ok(()) => assert_eq!(read_to_reset(&mut TcpStream::from(socket)), b""),
    }
}

/// Expects that this listener is closed.
fn is_closed(listener: SocketAddr) {
    eventually("the listener is closed", || TcpStream::connect(listener).is_err());
}

/// The first reply names the listener, in literal bytes; the second one the peer. Then bytes and half-closes pass.
#[test]
fn two_replies_and_a_tunnel() {
    let proxy = Proxy::start();
    let mut client = proxy.client();
    client.say(b"\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50");
    let first = read_exactly(&mut client.stream, 10);
    assert_eq!(first[..8], *b"\x05\x00\x00\x01\x7f\x00\x00\x01");
    let listener = localhost(u16::from_be_bytes([first[8], first[9]]));
    let mut peer = connect(listener);
    let second = read_exactly(&mut client.stream, 10);
    let port = peer.local_addr().expect("connected").port().to_be_bytes();
    assert_eq!(second, [&b"\x05\x00\x00\x01\x7f\x00\x00\x01"[..], &port].concat());
    is_closed(listener);
    peer.write_all(b"220 data\r\n").expect("sent");
    client.hears(b"220 data\r\n");
    client.say(b"answer");
    half_close(&client.stream);
    assert_eq!(read_to_end(&mut peer), b"answer");
    peer.write_all(b"more").expect("the other direction is open");
    drop(peer);
    assert_eq!(read_to_end(&mut client.stream), b"more");
}

/// What the client has sent already, and what the peer sends with its first packet, arrives in order behind the replies.
#[test]
fn early_bytes_keep_their_order() {
    let proxy = Proxy::start();
    let mut client = proxy.client();
    client.say(&[bind_request(localhost(0)), b"early".to_vec()].concat());
    let (code, listener) = client.reply();
    assert_eq!(code, 0);
    client.say(b" and later");
    let mut peer = connect(listener);
    peer.write_all(b"greeting").expect("sent");
    met(&mut client, &peer);
    client.hears(b"greeting");
    assert_eq!(read_exactly(&mut peer, 15), b"early and later");
}

/// A stranger is reset, and waiting goes on: whoever scans ports cannot break a transfer.
#[test]
fn strangers_are_turned_away() {
    let proxy = Proxy::start();
    let (mut client, listener) = waiting(&proxy, SocketAddr::from(([127, 0, 0, 7], 20)));
    for last in [1, 8, 9] {
        is_turned_away(last, listener);
    }
    let mut peer = connect_from([127, 0, 0, 7].into(), listener);
    met(&mut client, &peer);
    client.say(b"right");
    assert_eq!(read_exactly(&mut peer, 5), b"right");
    assert_eq!(proxy.admin().figure("BIND_STRANGERS"), 3);
}

/// 0.0.0.0: anybody may connect, but the second one finds nothing.
#[test]
fn anybody_may_be_the_peer_and_only_one() {
    let proxy = Proxy::start();
    let (mut client, listener) = waiting(&proxy, SocketAddr::from(([0, 0, 0, 0], 0)));
    let first = connect_from([127, 0, 0, 5].into(), listener);
    met(&mut client, &first);
    is_closed(listener);
    client.say(b"one");
    let mut first = first;
    assert_eq!(read_exactly(&mut first, 3), b"one");
}

/// Two peers that have both connected before the server looks: one tunnel, and the other one is reset.
#[test]
fn of_two_peers_at_once_one_is_reset() {
    let proxy = Proxy::start();
    let (mut client, listener) = waiting(&proxy, SocketAddr::from(([0, 0, 0, 0], 0)));
    proxy.signal(libc::SIGSTOP);
    let peers = [5, 6].map(|last| connect_from([127, 0, 0, last].into(), listener));
    proxy.signal(libc::SIGCONT);
    let (code, accepted) = client.reply();
    assert_eq!(code, 0);
    let is_accepted = |peer: &TcpStream| peer.local_addr().expect("connected") == accepted;
    let (mut met, mut other): (Vec<_>, Vec<_>) = peers.into_iter().partition(is_accepted);
    assert_eq!((met.len(), other.len()), (1, 1));
    client.say(b"one");
    assert_eq!(read_exactly(&mut met[0], 3), b"one");
    assert_eq!(read_to_reset(&mut other[0]), b"");
    is_closed(listener);
}

/// The client leaves, by FIN or reset: its listener must not stay, however much it has sent before.
#[test]
fn a_client_that_leaves_closes_its_listener() {
    let proxy = Proxy::start();
    let before = proxy.descriptors();
    for (end, early) in [(0, 0), (1, 0), (2, 0), (0, 100), (0, 20_000), (1, 20_000), (2, 20_000)] {
        let (mut client, listener) = waiting(&proxy, localhost(0));
        client.say(&vec![7; early]);
        match end {
            0 => drop(client),
            1 => {
                half_close(&client.stream);
                is_closed(listener);
            }
            _ => reset(client.stream),
        }
        is_closed(listener);
        eventually("nothing is left", || proxy.descriptors() <= before + 1);
    }
}

/// `--bind-timeout`: one reply 06 behind the first, and no second success.
#[test]
fn nobody_comes_in_time() {
    let proxy = Proxy::with(&["--bind-timeout", "0.3"]);
    let (mut client, listener) = waiting(&proxy, localhost(0));
    client.refused(6);
    is_closed(listener);
    let line = proxy.stdout.wait_for(|line| line.ends_with("refused"));
    assert_eq!(line.split('\t').nth(7), Some("6"));
}

/// Rules hold for DST before listening, and for the peer when it comes.
#[test]
fn rules_hold_for_the_peer() {
    let proxy = Proxy::with(&["--local-for", "nobody"]);
    proxy.client().say(&bind_request(localhost(0))).refused(2);
    // Anybody, but not somebody on this machine.
    let (client, listener) = waiting(&proxy, SocketAddr::from(([0, 0, 0, 0], 0)));
    is_turned_away(1, listener);
    assert_eq!(proxy.admin().figure("BIND_STRANGERS"), 1);
    drop(client);
}

/// `--allow-bind off`: reply 07, while it is running and from the start.
#[test]
fn it_can_be_switched_off() {
    let proxy = Proxy::start();
    proxy.admin().set("allow-bind", "off");
    proxy.client().say(&bind_request(localhost(0))).refused(7);
    let proxy = Proxy::with(&["--allow-bind", "off"]);
    proxy.client().say(&bind_request(localhost(0))).refused(7);
}

/// `--bind-ports` and `--bind-advertise`.
#[test]
fn ports_and_the_advertised_address() {
    // Below the ports that the kernel chooses: nothing else takes it while it is free.
    let free = (20_200..20_300).find_map(|port| TcpListener::bind(("0.0.0.0", port)).ok());
    let free = free.expect("one of them is free");
    let port = free.local_addr().expect("bound").port();
    let (range, peer) = (format!("{port}-{port}"), SocketAddr::from(([0, 0, 0, 0], 0)));
    let arguments = ["--bind-ports", &range, "--bind-advertise", "203.0.113.7"];
    let proxy = Builder::default().listen(Some("127.78.0.1")).args(arguments).start();
    proxy.client().say(&bind_request(peer)).refused(1);
    drop(free);
    // A child of another test may hold a copy of the socket for a moment, between fork and exec.
    let mut opened = None;
    eventually("the port is free", || {
        let mut client = proxy.client();
        let (code, listener) = client.say(&bind_request(peer)).reply();
        opened = (code == 0).then_some((client, listener));
        opened.is_some()
    });
    let (mut client, listener) = opened.expect("it is open");
    assert_eq!(listener, SocketAddr::from(([203, 0, 113, 7], port)));
    proxy.client().say(&bind_request(peer)).refused(1);
    let met_there = connect(SocketAddr::from(([127, 78, 0, 1], port)));
    met(&mut client, &met_there);
    // It is free again, although connections of the first listener are there.
    let (_client, listener) = waiting(&proxy, peer);
    assert_eq!(listener.port(), port);
}

/// A name: any of its addresses may connect; one that does not exist is 04.
#[test]
fn a_peer_by_its_name() {
    let server = Inprocess::start();
    let addresses = [7, 8].map(|last| SocketAddr::from(([127, 0, 0, last], 0)));
    server.names().add("peer.test", &addresses);
    for last in [7, 8] {
        let mut client = server.client();
        let mut request = name_request(b"peer.test", 20);
        request[1] = 2;
        let (code, listener) = client.say(&request).reply();
        assert_eq!(code, 0);
        is_turned_away(9, listener);
        let peer = connect_from([127, 0, 0, last].into(), listener);
        met(&mut client, &peer);
    }
    let mut request = name_request(b"nowhere.test", 20);
    request[1] = 2;
    server.client().say(&request).refused(4);
}

/// A family that cannot be had is no reason to refuse while the other one is being looked up (RFC 8305 §3).
#[test]
fn the_other_family_of_a_name_is_waited_for() {
    let server = Inprocess::start();
    // No listener for a name that stands for ::.
    server.names().add("both.test", &[at("[::]:0"), at("127.0.0.7:0")]);
    let answer = server.names().hang_family("both.test", Family::V4);
    let mut request = name_request(b"both.test", 20);
    request[1] = 2;
    let mut client = server.client();
    client.say(&request);
    // The first family is there after the resolution delay of 50 ms, and of no use.
    client.stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
    let error = client.stream.peek(&mut [0]).expect_err("a reply without the other family");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    client.stream.set_read_timeout(Some(support::PATIENCE)).expect("a socket");
    drop(answer);
    let (code, listener) = client.reply();
    assert_eq!(code, 0);
    let peer = connect_from([127, 0, 0, 7].into(), listener);
    met(&mut client, &peer);

    // Without the other family the failure of the first is told.
    server.names().add("none.test", &[at("[::]:0")]);
    let mut request = name_request(b"none.test", 20);
    request[1] = 2;
    server.client().say(&request).refused(2);
}

/// A name that stands for 0.0.0.0, as blocking name servers say, is nobody; DST 0.0.0.0 as a name is anybody.
#[test]
fn a_name_of_no_address_is_nobody() {
    let server = Inprocess::start();
    server.names().add("zero.test", &[at("0.0.0.0:0")]);
    server.names().add("zeros.test", &[at("0.0.0.0:0"), at("127.0.0.7:0")]);
    let bind_name = |name: &[u8]| {
        let mut request = name_request(name, 20);
        request[1] = 2;
        request
    };
    server.client().say(&bind_name(b"zero.test")).refused(2);
    let mut client = server.client();
    let (code, listener) = client.say(&bind_name(b"zeros.test")).reply();
    assert_eq!(code, 0);
    is_turned_away(5, listener);
    met(&mut client, &connect_from([127, 0, 0, 7].into(), listener));
    let mut client = server.client();
    let (code, listener) = client.say(&bind_name(b"0.0.0.0")).reply();
    assert_eq!(code, 0);
    met(&mut client, &connect_from([127, 0, 0, 5].into(), listener));
}

/// A peer that resets right after it has connected: the client sees a reset, and no orderly end.
#[test]
fn a_peer_that_vanishes_is_passed_on() {
    let proxy = Proxy::start();
    let (mut client, listener) = waiting(&proxy, localhost(0));
    let peer = connect(listener);
    let address = peer.local_addr().expect("connected");
    reset(peer);
    match client.stream.peek(&mut [0]) {
        Ok(1) => assert_eq!(client.reply(), (0, address)),
        other => panic!("a reply expected: {other:?}"),
    }
    assert_eq!(read_to_reset(&mut client.stream), b"");
}

/// IPv6: one family, that of DST.
#[test]
fn a_peer_on_ipv6() {
    if !has_ipv6("a listener on IPv6") {
        return;
    }
    let proxy = Proxy::start();
    let (mut client, listener) = waiting(&proxy, (Ipv6Addr::LOCALHOST, 0).into());
    assert_eq!(listener.ip(), IpAddr::from(Ipv6Addr::LOCALHOST));
    let peer = connect(listener);
    met(&mut client, &peer);
}

/// METP shows a client that waits, and KILL ends it with its listener.
#[test]
fn administrators_see_and_end_it() {
    let proxy = Proxy::start();
    let (mut client, listener) = waiting(&proxy, localhost(0));
    let mut admin = proxy.admin();
    let line = admin.connection_from(&client.stream).expect("it is listed");
    assert!(line.contains(" state=bind ") && line.contains(" destination=127.0.0.1:0 "), "{line}");
    assert_eq!(admin.info("connections-bind"), "1");
    assert_eq!((admin.figure("BINDS"), admin.figure("REPLY_0")), (1, 0));
    admin.command("KILL USER admin");
    read_the_end(&mut client.stream);
    is_closed(listener);
}

/// Descriptors are promised before a listener is opened: without one the request is refused with 01.
#[test]
fn a_shortage_of_descriptors_refuses_it() {
    let proxy = Builder::default().limits("-n 64").start();
    let mut open = Vec::new();
    let mut refused = loop {
        let mut client = proxy.client();
        match client.say(&bind_request(localhost(0))).reply() {
            (0, _) => open.push(client),
            (code, _) => {
                assert_eq!(code, 1);
                break client;
            }
        }
        assert!(open.len() < 64, "there is no limit");
    };
    refused.hears_eof();
    assert!(open.len() > 1 && proxy.admin().info("connections-bind") == open.len().to_string());
}

/// `--bind-out`: connections and datagrams leave from this address.
#[test]
fn the_address_that_connections_leave_from() {
    let proxy = Proxy::with(&["--bind-out", "127.0.0.66"]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let mut client = proxy.client();
    let target = listener.local_addr().expect("bound");
    let (code, bound) = client.say(&connect_request(target)).reply();
    let (_accepted, from) = listener.accept().expect("connected");
    assert_eq!((code, bound, from.ip()), (0, from, IpAddr::from([127, 0, 0, 66])));
    let target = support::udp::socket();
    let from = support::udp::Association::open(&proxy).exchanges(&target, b"from there");
    assert_eq!(from.ip(), IpAddr::from([127, 0, 0, 66]));
    let (_client, listener) = waiting(&proxy, localhost(0));
    assert_eq!(listener.ip(), IpAddr::from([127, 0, 0, 66]));
}
