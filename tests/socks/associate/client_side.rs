//! The client's side: who is the client, and which datagrams are read (RFC 1928 section 7).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use support::has_ipv6;
use support::proxy::{Builder, Proxy, connect_from};
use support::udp::{
    Association, associate_request, header, name_header, received, socket, socket_on,
};

fn at(text: &str) -> SocketAddr {
    text.parse().expect("a literal")
}

/// Section 6: BND is where the client sends its datagrams, on the address that the control connection reached.
#[test]
fn the_reply_names_the_relay() {
    let (proxy, target) = (Proxy::start(), socket());
    let association = Association::open(&proxy);
    assert_eq!(association.relay.ip(), proxy.socks_address().ip());
    assert_ne!(association.relay.port(), proxy.socks_address().port());
    // A header in literal bytes: RSV 0000, FRAG 00, ATYP 01, address, port.
    let port = target.local_addr().expect("bound").port().to_be_bytes();
    association.send_bytes(&[b"\x00\x00\x00\x01\x7f\x00\x00\x01", &port[..], b"ping"].concat());
    let (bytes, from) = received(&target);
    assert_eq!(bytes, b"ping");
    target.send_to(b"pong", from).expect("sent");
    let (bytes, _) = received(&association.socket);
    assert_eq!(bytes, [b"\x00\x00\x00\x01\x7f\x00\x00\x01", &port[..], b"pong"].concat());
}

/// A datagram from another address than the client's is dropped, and does not decide the port.
#[test]
fn strangers_are_not_relayed() {
    let (proxy, target) = (Proxy::start(), socket());
    let association = Association::open(&proxy);
    let stranger = socket_on([127, 0, 0, 9].into());
    let to_target = header(target.local_addr().expect("bound"));
    for _ in 0..3 {
        let datagram = [&to_target[..], b"stranger"].concat();
        stranger.send_to(&datagram, association.relay).expect("sent");
    }
    association.exchanges(&target, b"client");
}

/// The port of the first datagram is the client's; another port of its address is not.
#[test]
fn another_port_of_the_client_is_not_relayed() {
    let (proxy, target) = (Proxy::start(), socket());
    let association = Association::open(&proxy);
    let mapped = association.exchanges(&target, b"first");
    let other = socket();
    let datagram = [&header(target.local_addr().expect("bound"))[..], b"other"].concat();
    other.send_to(&datagram, association.relay).expect("sent");
    assert_eq!(association.exchanges(&target, b"second"), mapped);
}

/// DST of the request may be anything; only the client's own address with a port binds it.
#[test]
fn what_the_client_announces() {
    let (proxy, target) = (Proxy::start(), socket());
    let address = target.local_addr().expect("bound");
    for announced in
        [at("0.0.0.0:0"), at("[::]:0"), at("10.1.2.3:4444"), at("127.0.0.1:0"), at("192.0.2.1:53")]
    {
        Association::announcing(proxy.client(), announced).exchanges(&target, b"any");
    }
    // PySocks announces the name "0"; a name is never looked up.
    let request = [b"\x05\x03\x00\x03\x01", &b"0"[..], b"\x12\x34"].concat();
    Association::requesting(proxy.client(), &request).exchanges(&target, b"name");

    let announced = socket();
    let port = announced.local_addr().expect("bound");
    let association = Association::announcing(proxy.client(), port);
    association.send(address, b"another port");
    announced
        .send_to(&[&header(address)[..], b"announced"].concat(), association.relay)
        .expect("sent");
    assert_eq!(received(&target).0, b"announced");
}

/// Section 7: an empty payload is a datagram, in both directions.
#[test]
fn empty_datagrams_are_relayed() {
    let (proxy, target) = (Proxy::start(), socket());
    let association = Association::open(&proxy);
    for payload in [&b""[..], b"between", b"", b""] {
        association.exchanges(&target, payload);
    }
}

/// Datagrams without a complete header are dropped, and the association goes on.
#[test]
fn malformed_datagrams_are_dropped() {
    let (proxy, target) = (Proxy::start(), socket());
    let association = Association::open(&proxy);
    let good = header(target.local_addr().expect("bound"));
    let mut malformed: Vec<Vec<u8>> =
        (0..good.len()).map(|length| good[..length].to_vec()).collect();
    let v6 = header(at("[::1]:53"));
    malformed.extend((4..v6.len()).map(|length| v6[..length].to_vec()));
    // ATYP 02, 00 and ff; a name of no bytes; one that is longer than the datagram.
    malformed.extend([2, 0, 0xff].map(|kind| [b"\x00\x00\x00", &[kind][..], &[0; 30]].concat()));
    malformed.push(name_header(b"", 53));
    malformed.push(b"\x00\x00\x00\x03\xffshort\x00\x35".to_vec());
    for bytes in &malformed {
        association.send_bytes(bytes);
    }
    association.exchanges(&target, b"good");
    let mut admin = proxy.admin();
    let figure = admin.figure("UDP_DROPPED_MALFORMED");
    assert_eq!(figure, malformed.len() as u64);
}

/// Section 7: "an implementation that does not support fragmentation MUST drop any datagram whose FRAG field is other
/// than X'00'".
#[test]
fn fragments_are_dropped() {
    let (proxy, target) = (Proxy::start(), socket());
    let association = Association::open(&proxy);
    for fragment in [1, 0x7f, 0x80, 0x82, 0xff] {
        let mut bytes = header(target.local_addr().expect("bound"));
        bytes[2] = fragment;
        association.send_bytes(&[&bytes[..], b"fragment"].concat());
    }
    association.exchanges(&target, b"whole");
    assert_eq!(proxy.admin().figure("UDP_DROPPED_FRAGMENT"), 5);
}

/// RSV is not looked at, as in a request.
#[test]
fn rsv_may_be_anything() {
    let (proxy, target) = (Proxy::start(), socket());
    let association = Association::open(&proxy);
    let mut bytes = header(target.local_addr().expect("bound"));
    bytes[..2].copy_from_slice(b"\xab\xcd");
    association.send_bytes(&[&bytes[..], b"reserved"].concat());
    assert_eq!(received(&target).0, b"reserved");
}

/// Targets that no datagram may go to: port 0, broadcast, multicast, the unspecified addresses.
#[test]
fn impossible_targets_are_dropped() {
    let (proxy, target) = (Proxy::with(&["--allow-local"]), socket());
    let association = Association::open(&proxy);
    let impossible = [
        "127.0.0.1:0",
        "255.255.255.255:53",
        "224.0.0.1:53",
        "239.255.255.250:1900",
        "0.0.0.0:53",
        "[::]:53",
        "[ff02::1]:53",
        "[::ffff:224.0.0.1]:53",
        "[::ffff:255.255.255.255]:53",
    ];
    for text in impossible {
        association.send(at(text), b"impossible");
    }
    association.exchanges(&target, b"possible");
    assert_eq!(proxy.admin().figure("UDP_DROPPED_RULES"), impossible.len() as u64);
}

/// The server's own ports are closed to datagrams too, in every spelling.
#[test]
fn own_ports_are_closed() {
    let (proxy, target) = (Proxy::start(), socket());
    let association = Association::open(&proxy);
    let mut dropped = 0;
    for port in [proxy.socks_address().port(), proxy.metp_address().port()] {
        for ip in ["127.0.0.1", "::ffff:127.0.0.1", "127.1.2.3", "::1"] {
            let address = SocketAddr::new(ip.parse().expect("a literal"), port);
            association.send(address, b"own");
            dropped += 1;
        }
    }
    association.exchanges(&target, b"other");
    assert_eq!(proxy.admin().figure("UDP_DROPPED_RULES"), dropped);
}

/// `--local-for nobody`: not even a client on loopback reaches loopback.
#[test]
fn rules_are_asked_for_every_datagram() {
    let (proxy, target) = (Proxy::start(), socket());
    let association = Association::open(&proxy);
    association.exchanges(&target, b"allowed");
    let mut admin = proxy.admin();
    admin.set("local-for", "nobody");
    association.send(target.local_addr().expect("bound"), b"forbidden");
    support::eventually("it is dropped", || admin.figure("UDP_DROPPED_RULES") == 1);
    admin.set("local-for", "loopback");
    association.exchanges(&target, b"allowed again");
}

/// A client of the server cannot become the client of somebody else's association by sending through its own.
#[test]
fn an_association_cannot_take_another_over() {
    let (proxy, target) = (Proxy::start(), socket());
    let (attacker, victim) = (Association::open(&proxy), Association::open(&proxy));
    let inner = [&header(target.local_addr().expect("bound"))[..], b"hijacked"].concat();
    // The source of this datagram at the victim's relay is 127.0.0.1, as the victim's own would be.
    attacker.send(victim.relay, &inner);
    let mut admin = proxy.admin();
    support::eventually("it is dropped", || admin.figure("UDP_DROPPED_STRANGER") == 1);
    victim.exchanges(&target, b"mine");
}

/// A client elsewhere may have the port number of one of the server's sockets: only the whole address counts.
#[test]
fn a_port_number_of_the_server_is_no_reason() {
    let (proxy, target) = (Proxy::start(), socket());
    let first = Association::open(&proxy);
    let mapped = first.exchanges(&target, b"its target socket is open");
    for port in [first.relay.port(), mapped.port()] {
        let control = connect_from([127, 0, 0, 2].into(), proxy.socks_address());
        let client = support::socks::Client::new(control).logged_in("admin", "1234");
        let mut second = Association::of(client);
        let Ok(socket) = UdpSocket::bind(("127.0.0.2", port)) else {
            // The target socket has this port of all addresses.
            assert_eq!(port, mapped.port());
            continue;
        };
        socket.set_read_timeout(Some(support::PATIENCE)).expect("a socket");
        second.socket = socket;
        second.exchanges(&target, b"elsewhere");
    }
}

/// An IPv4 client of a listener for both families: the relay is on IPv4, and BND has ATYP 01.
#[test]
fn an_ipv4_client_of_a_dual_stack_listener_gets_an_ipv4_relay() {
    if !has_ipv6("a listener for both families") {
        return;
    }
    let (proxy, target) = (Builder::default().listen(None).start(), socket());
    let association = Association::open(&proxy);
    assert!(association.relay.is_ipv4());
    association.exchanges(&target, b"four");
}

/// A client on IPv6 has a relay on IPv6, and reaches both families.
#[test]
fn an_ipv6_client_reaches_both_families() {
    if !has_ipv6("a client on IPv6") {
        return;
    }
    let proxy = Builder::default().listen(Some("::1")).start();
    let association = Association::open(&proxy);
    assert_eq!(association.relay.ip(), Ipv6Addr::LOCALHOST);
    for target in [socket(), socket_on(Ipv6Addr::LOCALHOST.into())] {
        association.exchanges(&target, b"both");
    }
}

/// `--udp off`: reply 07, and what is open stays.
#[test]
fn associations_can_be_switched_off() {
    let (proxy, target) = (Proxy::start(), socket());
    let association = Association::open(&proxy);
    association.exchanges(&target, b"before");
    let mut admin = proxy.admin();
    admin.set("udp", "off");
    proxy.client().say(&associate_request(at("0.0.0.0:0"))).refused(7);
    association.exchanges(&target, b"after");
    admin.set("udp", "on");
    Association::open(&proxy).exchanges(&target, b"again");

    let proxy = Proxy::with(&["--udp", "off"]);
    proxy.client().say(&associate_request(at("0.0.0.0:0"))).refused(7);
}

/// `--udp-advertise`: another address in the reply, for its family alone.
#[test]
fn another_address_can_be_advertised() {
    let proxy = Proxy::with(&["--udp-advertise", "203.0.113.7", "--udp-advertise", "2001:db8::7"]);
    let (code, relay) = proxy.client().say(&associate_request(at("0.0.0.0:0"))).reply();
    assert_eq!((code, relay.ip().to_string().as_str()), (0, "203.0.113.7"));
    let proxy = Proxy::with(&["--udp-advertise", "2001:db8::7"]);
    let association = Association::open(&proxy);
    assert_eq!(association.relay.ip(), Ipv4Addr::LOCALHOST);
    association.exchanges(&socket(), b"local");
}

/// `--udp-ports`: the relay's port is in the range; when all are taken, the request is refused with 01, and one that
/// has become free is used at once.
#[test]
fn ports_can_be_confined() {
    // Below the ports that the kernel chooses: nothing else takes it while it is free.
    let free = (20_100..20_200).find_map(|port| UdpSocket::bind(("0.0.0.0", port)).ok());
    let free = free.expect("one of them is free");
    let port = free.local_addr().expect("bound").port();
    let builder = Builder::default().listen(Some("127.77.0.1"));
    let proxy = builder.args(["--udp-ports", &format!("{port}-{port}")]).start();
    proxy.client().say(&associate_request(at("0.0.0.0:0"))).refused(1);
    drop(free);
    // A child of another test may hold a copy of the socket for a moment, between fork and exec.
    let mut opened = None;
    support::eventually("the port is free", || {
        let mut client = proxy.client();
        let (code, relay) = client.say(&associate_request(at("0.0.0.0:0"))).reply();
        opened = (code == 0).then_some((client, relay));
        opened.is_some()
    });
    let (client, relay) = opened.expect("it is open");
    let association = Association::opened(client, relay);
    assert_eq!(association.relay.port(), port);
    association.exchanges(&socket(), b"confined");
    proxy.client().say(&associate_request(at("0.0.0.0:0"))).refused(1);
    drop(association);
    support::eventually("the port is free", || {
        let mut client = proxy.client();
        client.say(&associate_request(at("0.0.0.0:0"))).reply().0 == 0
    });
}

/// `--max-associations`: more are refused with 02, until one has ended; another account is not concerned.
#[test]
fn associations_of_an_account_are_limited() {
    let proxy = Proxy::with(&["--max-associations", "2", "-u", "other:pw"]);
    let (first, _second) = (Association::open(&proxy), Association::open(&proxy));
    proxy.client().say(&associate_request(at("0.0.0.0:0"))).refused(2);
    let other = support::socks::Client::new(proxy.socks()).logged_in("other", "pw");
    Association::of(other).exchanges(&socket(), b"other");
    drop(first);
    support::eventually("a place is free", || {
        let mut client = proxy.client();
        client.say(&associate_request(at("0.0.0.0:0"))).reply().0 == 0
    });
}
