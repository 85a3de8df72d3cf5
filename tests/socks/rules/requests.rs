//! CONNECT, BIND and look-ups under rules.

use std::net::{IpAddr, Ipv4Addr};

use support::exchange;
use support::metp::value;
use support::origin::{Origin, closed_port};
use support::proxy::{Proxy, connect, connect_from};
use support::socks::{Client, connect_request};

use super::{NOT_ALLOWED, Rules, alice, code, local, rules_of};
use crate::bind::is_turned_away;

/// RFC 1928 section 6: X'02' connection not allowed by ruleset.
#[test]
fn the_first_rule_that_matches_decides() {
    let echo = Origin::http_on(Ipv4Addr::UNSPECIFIED.into(), b"x".to_vec());
    let port = echo.address.port();
    let rules = Rules::new(&format!(
        "# for tests\ndeny user alice to 127.0.0.2\nallow to 127.0.0.0/30 port {port}\ndeny\n"
    ));
    let proxy = rules.proxy();
    alice(&proxy).say(&connect_request(local(2, port))).hears(b"\x05\x02\x00\x01\0\0\0\0\0\0");
    assert_eq!(rules_of(&proxy, port, 1), ["rule=2"]);
    assert_eq!(code(proxy.client(), local(2, port)), 0);
    assert_eq!(rules_of(&proxy, port, 2), ["rule=2", "rule=3"]);
    assert_eq!(code(alice(&proxy), local(1, port)), 0);
    assert_eq!(code(alice(&proxy), local(4, port)), NOT_ALLOWED);
    let (_held, closed) = closed_port();
    assert_eq!(code(proxy.client(), closed), NOT_ALLOWED);
    assert_eq!(rules_of(&proxy, closed.port(), 1), ["rule=4"]);
    let hits = |line: &String| (value(line, "rule").to_owned(), value(line, "hits").to_owned());
    let hits: Vec<_> = proxy.admin().ask("RULES").iter().map(hits).collect();
    let expected = [("2", "1"), ("3", "2"), ("4", "2")];
    assert_eq!(hits, expected.map(|(rule, hits)| (rule.to_owned(), hits.to_owned())));
    assert_eq!(proxy.admin().figure("REFUSED_RULES"), 3);
}

/// Trap 20: an IPv4-mapped target is that IPv4 address.
#[test]
fn no_spelling_of_an_address_passes_a_rule() {
    let echo = Origin::echo();
    let proxy = Rules::new("deny to 127.0.0.0/8\nallow\n").proxy();
    let port = echo.address.port();
    let mapped = [&[0; 10][..], &[0xff, 0xff, 127, 0, 0, 1]].concat();
    let nat64 = b"\x00\x64\xff\x9b\0\0\0\0\0\0\0\0\x7f\0\0\x01";
    for address in [&mapped[..], nat64, &[0; 16]] {
        let request = [&b"\x05\x01\x00\x04"[..], address, &port.to_be_bytes()].concat();
        alice(&proxy).say(&request).refused(NOT_ALLOWED);
    }
    let nowhere = [&b"\x05\x01\x00\x01\0\0\0\0"[..], &port.to_be_bytes()].concat();
    alice(&proxy).say(&nowhere).refused(NOT_ALLOWED);
    for name in
        ["127.0.0.1", "[::ffff:127.0.0.1]", "127.1", "0x7f.1", "2130706433", "0.0.0.0", "0", "[::]"]
    {
        let (code, _) =
            alice(&proxy).say(&support::socks::name_request(name.as_bytes(), port)).reply();
        assert_eq!(code, NOT_ALLOWED, "{name}");
    }
}

#[test]
fn clients_are_told_apart_by_their_network() {
    let echo = Origin::echo();
    let proxy = Rules::new("allow from 127.0.0.3\ndeny\n").proxy();
    let from = |last: u8| {
        let source = IpAddr::from([127, 0, 0, last]);
        Client::new(connect_from(source, proxy.socks_address())).logged_in("alice", "pw")
    };
    assert_eq!(code(from(3), echo.address), 0);
    assert_eq!(code(from(4), echo.address), NOT_ALLOWED);
}

/// Own ports stay closed above all rules, and so does what `--local-for` closes.
#[test]
fn no_rule_opens_what_is_closed_above_rules() {
    let echo = Origin::echo();
    let rules = Rules::new("allow\n");
    let proxy = rules.builder().args(["--local-for", "nobody"]).start();
    assert_eq!(code(proxy.client(), echo.address), NOT_ALLOWED);
    let proxy = rules.proxy();
    assert_eq!(code(proxy.client(), proxy.metp_address()), NOT_ALLOWED);
    assert_eq!(code(proxy.client(), proxy.socks_address()), NOT_ALLOWED);
}

/// RFC 1928 section 4: BIND is judged by the peer.
#[test]
fn a_peer_that_the_rules_deny_is_turned_away() {
    let rules = Rules::new(
        "deny user alice command bind\ndeny to 127.0.0.2 command bind\ndeny to 127.0.0.3 port 1 command bind\nallow\n",
    );
    let proxy = rules.proxy();
    let request = |target| {
        let mut request = connect_request(target);
        request[1] = 2;
        request
    };
    alice(&proxy).say(&request(local(1, 80))).refused(NOT_ALLOWED);
    proxy.client().say(&request(local(2, 80))).refused(NOT_ALLOWED);
    // Not at this port, and no other is known.
    let (code, _) = proxy.client().say(&request(local(3, 80))).reply();
    assert_eq!(code, 0);
    // Anybody may come, but for that one.
    let anybody = "0.0.0.0:80".parse().expect("an address");
    let mut client = proxy.client();
    let (code, listener) = client.say(&request(anybody)).reply();
    assert_eq!(code, 0);
    is_turned_away(2, listener);
    let peer = connect(listener);
    let (code, address) = client.reply();
    assert_eq!((code, Some(address)), (0, peer.local_addr().ok()));
}

/// Without `--rules` a line of the access log is as it always was.
#[test]
fn without_rules_nothing_is_added() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    exchange(&mut proxy.tunnel(echo.address), 100);
    let line = proxy.stdout.wait_for(|line| line.contains("admin"));
    assert_eq!(line.split('\t').count(), 12, "{line}");
    assert_eq!(proxy.admin().command("RULES"), "409 Conflict [NORULES] there is no file of rules");
}

/// A request that no rule has decided about says so.
#[test]
fn what_no_rule_decides_has_none() {
    let (rules, echo) = (Rules::new("allow\n"), Origin::echo());
    let proxy = rules.proxy();
    assert_eq!(proxy.admin().command("SET-LIMIT alice conns=0"), "200 OK");
    assert_eq!(code(alice(&proxy), echo.address), NOT_ALLOWED);
    assert_eq!(rules_of(&proxy, echo.address.port(), 1), ["rule=-"]);
}
