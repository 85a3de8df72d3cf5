//! Links other than loopback, in a network namespace: the MTU, and addresses of a link (RFC 4007).

use std::net::{SocketAddr, SocketAddrV6};

use support::namespace::{has_ipv6, in_namespace, index_of, ip};
use support::noise;
use support::proxy::{Builder, connect};
use support::socks::Client;
use support::test_name;
use support::udp::{Association, socket, socket_on};

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
