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

/// RFC 1928 section 7: a target that is allowed by its name may answer, whoever else may.
#[test]
fn what_is_allowed_by_its_name_answers() {
    for filter in ["any", "address", "port"] {
        let rules = Rules::new("allow to localhost\ndeny\n");
        let proxy = rules.builder().args(["-u", "alice:pw", "--udp-filter", filter]).start();
        let (target, other) = (socket(), socket_on(IpAddr::from([127, 0, 0, 2])));
        let association = open(&proxy);
        let port = target.local_addr().expect("bound").port();
        association.send_bytes(&[&name_header(b"localhost", port)[..], b"question"].concat());
        let mut space = [0; 64];
        let (length, from) = target.recv_from(&mut space).expect("the question");
        assert_eq!(&space[..length], b"question", "{filter}");
        // Who has been asked nothing is denied by its address, and decides nothing.
        other.send_to(b"lost", from).expect("sent");
        target.send_to(b"answer", from).expect("sent");
        assert_eq!(
            association.receive(),
            (target.local_addr().expect("bound"), b"answer".to_vec())
        );
        let mut admin = proxy.admin();
        assert_eq!(value(&admin.ask("CONNECTIONS")[0], "rule"), "1", "{filter}");
        let hits = |line: &String| value(line, "hits").to_owned();
        assert_eq!(admin.ask("RULES").iter().map(hits).collect::<Vec<_>>(), ["1", "0"], "{filter}");
    }
}

/// What other rules do not allow any more does not answer either.
#[test]
fn a_target_that_is_denied_falls_silent() {
    let (denied, kept) = (socket(), socket_on(IpAddr::from([127, 0, 0, 2])));
    let rules = Rules::new("allow\n");
    let proxy = rules.proxy();
    let association = open(&proxy);
    association.exchanges(&denied, b"one");
    let from = association.exchanges(&kept, b"two");
    let mut admin = proxy.admin();
    assert_eq!(admin.command("RULE INSERT 1 deny to 127.0.0.1 command udp"), "200 OK");
    denied.send_to(b"lost", from).expect("sent");
    kept.send_to(b"heard", from).expect("sent");
    assert_eq!(association.receive(), (kept.local_addr().expect("bound"), b"heard".to_vec()));
    assert_eq!(admin.figure("UDP_DROPPED_FILTERED"), 1);
}

/// The filter compares addresses; the rules are about ports, too.
#[test]
fn an_answer_from_a_denied_port_is_dropped() {
    let (asked, other) = (socket(), socket());
    let port = other.local_addr().expect("bound").port();
    let rules = Rules::new(&format!("deny port {port} command udp\nallow\n"));
    let proxy = rules.builder().args(["-u", "alice:pw", "--udp-filter", "address"]).start();
    let association = open(&proxy);
    let from = association.exchanges(&asked, b"one");
    other.send_to(b"lost", from).expect("sent");
    asked.send_to(b"heard", from).expect("sent");
    assert_eq!(association.receive(), (asked.local_addr().expect("bound"), b"heard".to_vec()));
}

/// The line of the access log names the rule that has decided about the target, if one has.
#[test]
fn the_log_says_what_has_decided() {
    let target = socket();
    let proxy = Rules::new("deny to .corp.test\nallow\n").proxy();
    let association = open(&proxy);
    association.exchanges(&target, b"one");
    // Own ports are closed above the rules.
    association.send(proxy.metp_address(), b"lost");
    association.send_bytes(&[&name_header(b"www.corp.test", 53)[..], b"lost"].concat());
    association.exchanges(&target, b"two");
    let line_of = |host: &str, port: u16| {
        let port = port.to_string();
        let is_it = move |line: &str| {
            let fields: Vec<&str> = line.split('\t').collect();
            fields.get(5) == Some(&host) && fields.get(6) == Some(&&*port)
        };
        proxy.stdout.wait_for(is_it)
    };
    let line = line_of("127.0.0.1", proxy.metp_address().port());
    assert!(line.ends_with("\trefused\trule=-") || !line.contains("rule="), "{line}");
    let line = line_of("www.corp.test", 53);
    assert!(line.ends_with("\trefused\trule=1"), "{line}");
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
