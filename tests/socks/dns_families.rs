//! Names of which one family is answered late, or not at all. Addresses of IPv6 are v4-mapped ones, so that they lead to
//! 127.0.0.1 on every machine.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use socks5d::workers::families::{Family, Prefer};
use support::origin::{Origin, closed_port};
use support::socks::{name_request, reset};
use support::{eventually, read_to_end};

use crate::inprocess::{Builder, Inprocess};

/// The same address as one of IPv6.
fn mapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), address.port())
}

/// RFC 8305 §3: the family that is there is used, whichever of the two is never answered.
#[test]
fn a_family_that_is_never_answered_costs_less_than_a_second() {
    for prefer in Prefer::ALL {
        let server = Builder::default().settings(|settings| settings.prefer = prefer).start();
        let origin = Origin::echo();
        let both = [origin.address, mapped(origin.address)];
        for family in Family::ALL {
            let name = format!("half-{family:?}.test").to_ascii_lowercase();
            server.names().add(&name, &both);
            let _never = server.names().hang_family(&name, family);
            for _ in 0..2 {
                let began = Instant::now();
                let (code, _) = server.client().say(&name_request(name.as_bytes(), 80)).reply();
                assert_eq!(code, 0, "{name}");
                assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
            }
        }
    }
}

/// `prefer` acts on the next question, also on a cached name.
#[test]
fn the_preferred_family_is_tried_first() {
    let saying = |word: &'static [u8]| Origin::new(move |mut stream| drop(stream.write_all(word)));
    let (server, four, six) = (Inprocess::start(), saying(b"four"), saying(b"six"));
    server.names().add("both.test", &[four.address, mapped(six.address)]);
    let mut admin = server.admin();
    for (family, word) in [("ipv4", "four"), ("ipv6", "six")].repeat(2) {
        admin.set("prefer", family);
        for _ in 0..2 {
            let mut client = server.client();
            assert_eq!(client.say(&name_request(b"both.test", 80)).reply().0, 0);
            assert_eq!(read_to_end(&mut client.stream), word.as_bytes(), "{family}");
        }
    }
    assert_eq!(server.names().asked().len(), 4, "once for each change");
}

/// With one thread, in the order in which it looks families up.
#[test]
fn one_thread_looks_up_ipv4_first() {
    let server = Builder::default().settings(|settings| settings.dns_threads = 1).start();
    let origin = Origin::echo();
    server.names().add("half.test", &[origin.address]);
    let _never = server.names().hang_family("half.test", Family::V6);
    let began = Instant::now();
    assert_eq!(server.client().say(&name_request(b"half.test", 80)).reply().0, 0);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

/// A family that does not exist is no answer while the other one is looked up.
#[test]
fn the_other_family_is_waited_for_if_there_is_no_address_yet() {
    let (server, origin) = (Inprocess::start(), Origin::echo());
    server.names().add("six.test", &[mapped(origin.address)]);
    let release = server.names().hang_family("six.test", Family::V6);
    let mut client = server.client();
    client.say(&name_request(b"six.test", 80));
    let mut admin = server.admin();
    eventually("the one look-up has ended, and the other one has not", || {
        let info = admin.ask("INFO");
        server.names().asked().len() == 1 && info.iter().any(|line| line == "dns-running=1")
    });
    drop(release);
    assert_eq!(client.reply().0, 0);
}

/// All addresses of the first family have failed when the other one comes.
#[test]
fn addresses_that_come_late_are_tried() {
    let server = Inprocess::start();
    let ((_guard, closed), origin) = (closed_port(), Origin::echo());
    server.names().add("late.test", &[closed, closed, mapped(origin.address)]);
    let release = server.names().hang_family("late.test", Family::V6);
    let mut client = server.client();
    client.say(&name_request(b"late.test", 80));
    let mut admin = server.admin();
    eventually("it connects", || {
        admin.ask("CONNECTIONS").iter().any(|line| line.contains("state=connect"))
    });
    drop(release);
    assert_eq!(client.reply().0, 0);
}

/// Nothing follows, or not in time: the failure of what has been tried is told.
#[test]
fn without_the_other_family_the_failure_is_told() {
    let resolve = |timeout| {
        Builder::default()
            .timeouts(move |timeouts| timeouts.resolve = Some(Duration::from_secs(timeout)))
            .start()
    };
    let (_guard, closed) = closed_port();
    let server = resolve(1);
    server.names().add("never.test", &[closed]);
    let never = server.names().hang_family("never.test", Family::V6);
    let began = Instant::now();
    server.client().say(&name_request(b"never.test", 80)).refused(5);
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    drop(never);

    let server = resolve(600);
    server.names().add("none.test", &[closed]);
    let none = server.names().hang_family("none.test", Family::V6);
    let mut client = server.client();
    client.say(&name_request(b"none.test", 80));
    let mut admin = server.admin();
    eventually("it connects", || {
        admin.ask("CONNECTIONS").iter().any(|line| line.contains("state=connect"))
    });
    drop(none);
    client.refused(5);
}

/// A client that leaves while the other family is waited for is gone at once.
#[test]
fn who_waits_for_the_other_family_may_leave() {
    let server = Inprocess::start();
    let (_guard, closed) = closed_port();
    server.names().add("never.test", &[closed]);
    let _never = server.names().hang_family("never.test", Family::V6);
    let mut client = server.client();
    client.say(&name_request(b"never.test", 80));
    let mut admin = server.admin();
    eventually("it connects", || {
        admin.ask("CONNECTIONS").iter().any(|line| line.contains("state=connect"))
    });
    reset(client.stream);
    eventually("it is gone", || admin.metrics()[1] == 0);
}
