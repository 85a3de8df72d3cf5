//! Names under rules. The server runs in the test, with names of its own.

use std::net::Ipv4Addr;

use socks5d::proto::rules::RuleSet;
use support::origin::Origin;
use support::socks::name_request;

use super::NOT_ALLOWED;
use crate::inprocess::{Builder, Inprocess};

fn server(rules: &str) -> Inprocess {
    let rules = RuleSet::parse(rules.as_bytes()).expect("good rules");
    let server = Builder::default().rules(rules).start();
    for name in ["good.test", "www.corp.test", "corp.test", "other.test"] {
        server.names().add_ip(name, Ipv4Addr::LOCALHOST.into());
    }
    server
}

fn code(server: &Inprocess, name: &str, port: u16) -> u8 {
    server.client().say(&name_request(name.as_bytes(), port)).reply().0
}

/// A name that is denied is not looked up, in whatever way it is spelt.
#[test]
fn a_denied_name_is_not_looked_up() {
    let echo = Origin::echo();
    let port = echo.address.port();
    let server = server("deny to .corp.test\nallow\n");
    for name in ["corp.test", "www.corp.test", "WWW.Corp.TEST", "corp.test.", "Www.corp.test."] {
        assert_eq!(code(&server, name, port), NOT_ALLOWED, "{name}");
    }
    assert_eq!(server.names().asked(), [""; 0]);
    assert_eq!(code(&server, "good.test", port), 0);
    assert_eq!(server.names().asked(), ["good.test"]);
}

/// Escapes that resolvers know would make another name of what the rules have seen.
#[test]
fn no_escape_hides_a_name() {
    let server = server("deny to .corp.test\nallow\n");
    for name in [r"\099orp.test", r"corp\.test", r"cor\p.test"] {
        server.client().say(&name_request(name.as_bytes(), 80)).refused(4);
    }
    assert_eq!(server.names().asked(), [""; 0]);
}

/// A name that rules allow for some addresses is looked up, and each address is judged.
#[test]
fn each_address_of_a_name_is_judged() {
    let echo = Origin::echo();
    let port = echo.address.port();
    let server = server("allow to good.test\ndeny to 127.0.0.0/8\nallow\n");
    assert_eq!(code(&server, "good.test", port), 0);
    assert_eq!(code(&server, "other.test", port), NOT_ALLOWED);
    // Several addresses: the first that is allowed is tried.
    let (denied, allowed) = (([127, 0, 0, 9], port).into(), echo.address);
    server.names().add("both.test", &[denied, allowed]);
    let server2 = self::server("deny to 127.0.0.9\nallow\n");
    server2.names().add("both.test", &[denied, allowed]);
    assert_eq!(code(&server2, "both.test", port), 0);
}

/// Tor's RESOLVE tells no address that the client may not connect to.
#[test]
fn look_ups_are_judged() {
    let request = |name: &str| {
        let mut request = name_request(name.as_bytes(), 0);
        request[1] = 0xf0;
        request
    };
    let rules = RuleSet::parse(b"deny to corp.test command resolve\ndeny to 127.0.0.9\ndeny to 10.0.0.0/8 port 1-65535\nallow\n");
    let rules = rules.expect("good rules");
    let settings = |settings: &mut socks5d::state::settings::Settings| settings.resolve = true;
    let server = Builder::default().settings(settings).rules(rules).start();
    let names = server.names();
    names.add("both.test", &[([127, 0, 0, 9], 0).into(), ([192, 0, 2, 1], 0).into()]);
    names.add_ip("closed.test", Ipv4Addr::new(127, 0, 0, 9).into());
    names.add_ip("ten.test", Ipv4Addr::new(10, 0, 0, 1).into());
    server.client().say(&request("both.test")).hears(b"\x05\x00\x00\x01\xc0\x00\x02\x01\x00\x00");
    server.client().say(&request("closed.test")).refused(NOT_ALLOWED);
    // A look-up has no port, so that a rule for ports says nothing about it.
    server.client().say(&request("ten.test")).hears(b"\x05\x00\x00\x01\x0a\x00\x00\x01\x00\x00");
    server.client().say(&request("corp.test")).refused(NOT_ALLOWED);
    let reverse = b"\x05\xf1\x00\x01\x7f\x00\x00\x09\x00\x00";
    server.client().say(reverse).refused(NOT_ALLOWED);
}
