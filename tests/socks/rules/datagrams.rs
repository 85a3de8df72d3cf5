//! UDP ASSOCIATE under rules (RFC 1928 section 7): each datagram is judged.

use std::net::IpAddr;

use support::metp::value;
use support::proxy::Proxy;
use support::socks::Client;
use support::udp::{Association, associate_request, name_header, socket, socket_on};

use super::{NOT_ALLOWED, Rules, alice};

fn open(proxy: &Proxy) -> Association {
    Association::of(alice(proxy))
}

#[test]
fn each_datagram_is_judged() {
    let (first, second) = (socket(), socket_on(IpAddr::from([127, 0, 0, 2])));
    let rules = Rules::new("deny to 127.0.0.2 command udp\ndeny to .corp.test\nallow\n");
    let proxy = rules.proxy();
    let association = open(&proxy);
    association.exchanges(&first, b"one");
    association.send(second.local_addr().expect("bound"), b"lost");
    association.send_bytes(&[&name_header(b"www.corp.test", 53)[..], b"lost"].concat());
    association.send_bytes(&[&name_header(b"127.0.0.2", 53)[..], b"lost"].concat());
    association.exchanges(&first, b"two");
    assert_eq!(proxy.admin().figure("UDP_DROPPED_RULES"), 3);
    let port = second.local_addr().expect("bound").port().to_string();
    let line = proxy.stdout.wait_for(|line| line.split('\t').nth(6) == Some(&port));
    assert!(line.contains("\t2\t0\t0\t") && line.ends_with("\trefused\trule=1"), "{line}");
    let admin = &mut proxy.admin();
    assert_eq!(value(&admin.ask("CONNECTIONS")[0], "rule"), "3");
    // A change acts on the next datagram.
    assert_eq!(admin.command("RULE INSERT 1 deny to 127.0.0.1 command udp"), "200 OK");
    association.send(first.local_addr().expect("bound"), b"lost");
    assert_eq!(admin.command("RULE DELETE 1 deny to 127.0.0.1 command udp"), "200 OK");
    association.exchanges(&first, b"three");
}

/// Where the rules allow no datagram at all there is no association.
#[test]
fn an_association_without_use_is_refused() {
    let proxy = Rules::new("allow command connect\nallow user admin port 53\ndeny\n").proxy();
    let request = associate_request("0.0.0.0:0".parse().expect("an address"));
    alice(&proxy).say(&request).refused(NOT_ALLOWED);
    let admin = Client::new(proxy.socks()).logged_in("admin", "1234");
    drop(Association::of(admin));
}
