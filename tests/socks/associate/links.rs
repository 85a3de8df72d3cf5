//! Links other than loopback, in a network namespace: the MTU, and addresses of a link (RFC 4007).

use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpListener};

use support::namespace::{has_ipv6, in_namespace, index_of, ip};
use support::noise;
use support::proxy::{Builder, connect};
use support::socks::{Client, connect_request};
use support::test_name;
use support::udp::{Association, name_header, received, socket, socket_at, socket_on};

use crate::inprocess::Inprocess;

/// Datagrams longer than the MTU are fragmented by the kernel and come back whole (the kernel must not set DF:
/// nothing would tell the client about a path MTU).
#[test]
fn datagrams_longer_than_the_mtu_are_whole() {
    in_namespace(test_name!("datagrams_longer_than_the_mtu_are_whole"), || {
        ip("link set lo mtu 1500");
        let proxy = Builder::default().start();
        let association = Association::open(&proxy);
        let target = socket_on([127, 0, 0, 2].into());
        for length in [1471, 1472, 1473, 1500, 2000, 8192, 40_000] {
            association.exchanges(&target, &noise(length, 9));
        }
        // Several of one length, which the kernel does not join beyond the MTU.
        for length in [2000, 1200, 2000, 100] {
            for seed in 0..4 {
                association.send(target.local_addr().expect("bound"), &noise(length, seed));
            }
            for seed in 0..4 {
                let (bytes, from) = received(&target);
                assert!(bytes == noise(length, seed), "{} bytes", bytes.len());
                target.send_to(&bytes, from).expect("sent");
            }
            for seed in 0..4 {
                assert!(association.receive().1 == noise(length, seed));
            }
        }
    });
}

/// A route of type local may have datagrams leave from ::1, which looks like a client on this machine: closed to clients
/// that come from elsewhere, as it is with CONNECT.
#[test]
fn datagrams_of_others_do_not_leave_from_loopback() {
    in_namespace(test_name!("datagrams_of_others_do_not_leave_from_loopback"), || {
        if !has_ipv6() {
            return println!("skipped: no IPv6");
        }
        ip("addr add 10.9.9.1/32 dev lo");
        ip("-6 route add local 2001:db8::/64 dev lo");
        let service = socket_at("[::]:0".parse().expect("a literal"));
        let port = service.local_addr().expect("bound").port();
        let _listener = TcpListener::bind(("::", port)).expect("TCP has ports of its own");
        let target = SocketAddr::new("2001:db8::77".parse().expect("a literal"), port);
        let proxy = Builder::default().listen(None).start();
        let near = SocketAddr::from(([10, 9, 9, 1], proxy.socks_address().port()));
        let client = || Client::new(connect(near)).logged_in("admin", "1234");
        client().say(&connect_request(target)).refused(2);
        let association = Association::of(client());
        association.send(target, b"from ::1");
        association.exchanges(&socket_at("10.9.9.1:0".parse().expect("a literal")), b"allowed");
        let mut admin = proxy.admin();
        assert_eq!(admin.figure("UDP_DROPPED_RULES"), 1);
        // Somebody on this machine may do so anyway.
        let local = Association::open(&proxy);
        local.send(target, b"from this machine");
        assert_eq!(received(&service).0, b"from this machine");
        // Whom the administrator lets.
        admin.set("local-for", "all");
        association.send(target, b"let");
        assert_eq!(received(&service).0, b"let");
    });
}

/// A route that is lost for a while does not move a flow to another address of its name; one that never was does.
#[test]
fn a_lost_route_moves_no_flow() {
    in_namespace(test_name!("a_lost_route_moves_no_flow"), || {
        let server = Inprocess::start();
        let [first, second] = [1, 2].map(|last| IpAddr::from([10, 1, 1, last]));
        let addresses = |up: bool| {
            let word = if up { "add" } else { "del" };
            ip(&format!("addr {word} {first}/32 dev lo"));
            ip(&format!("addr {word} {second}/32 dev lo"));
        };
        addresses(true);
        let one = socket_at((first, 0).into());
        let port = one.local_addr().expect("bound").port();
        let two = socket_at((second, port).into());
        let both: [SocketAddr; 2] = [(first, port).into(), (second, port).into()];
        server.names().add("flow.test", &both);
        server.names().add("new.test", &both);
        let association = Association::of(server.client());
        let say = |name: &[u8], text: &[u8]| {
            association.send_bytes(&[&name_header(name, port)[..], text].concat());
        };
        say(b"flow.test", b"before");
        assert_eq!(received(&one).0, b"before");
        addresses(false);
        say(b"flow.test", b"lost");
        let mut admin = server.admin();
        support::eventually("it is lost", || admin.figure("UDP_DROPPED_ERROR") == 1);
        say(b"new.test", b"lost");
        support::eventually("it is lost", || admin.figure("UDP_DROPPED_ERROR") == 2);
        addresses(true);
        say(b"flow.test", b"after");
        assert_eq!(received(&one).0, b"after");
        say(b"new.test", b"new");
        assert_eq!(received(&two).0, b"new");
    });
}

/// A control connection between addresses of a link: the relay is on that link, too, with its zone.
#[test]
fn a_client_on_a_link_local_address() {
    in_namespace(test_name!("a_client_on_a_link_local_address"), || {
        if !has_ipv6() {
            return println!("skipped: no IPv6");
        }
        ip("link add v0 type veth peer name v1");
        ip("link set v0 up");
        ip("link set v1 up");
        ip("-6 addr add fe80::77/64 dev v0 nodad");
        let index = index_of("v0");
        let proxy = Builder::default().args(["--allow-local"]).listen(None).start();
        let port = proxy.socks_address().port();
        let near = SocketAddrV6::new("fe80::77".parse().expect("a literal"), port, 0, index);
        let client = Client::new(connect(near.into())).logged_in("admin", "1234");
        let mut association = Association::of(client);
        // A reply has no room for a zone; the client knows it from its control connection.
        assert_eq!(association.relay.ip(), *near.ip());
        let relay = SocketAddrV6::new(*near.ip(), association.relay.port(), 0, index);
        association.relay = SocketAddr::from(relay);
        association.exchanges(&socket(), b"over the link");
    });
}
