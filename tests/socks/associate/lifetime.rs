//! When an association ends, and what does not end it (RFC 1928 section 7: "A UDP association terminates when the TCP
//! connection that the UDP ASSOCIATE request arrived on terminates").

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};

use support::proxy::{Builder, Proxy};
use support::socks::{half_close, reset, wait_until_read};
use support::udp::{Association, associate_request, socket};
use support::{eventually, noise};

fn any() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 0))
}

/// Waits until the server has no sockets but its own.
fn ends(proxy: &Proxy, before: usize) {
    eventually("the association's sockets are closed", || proxy.sockets() == before);
}

/// The control connection's FIN, half-close or reset ends the association and closes its sockets.
#[test]
fn the_control_connection_ends_it() {
    let proxy = Proxy::start();
    let before = proxy.sockets();
    for end in 0..3 {
        let association = Association::open(&proxy);
        association.exchanges(&socket(), b"open");
        let relay = association.relay;
        match end {
            0 => drop(association),
            1 => {
                half_close(&association.control);
                ends(&proxy, before);
            }
            _ => reset(association.control),
        }
        ends(&proxy, before);
        let port = UdpSocket::bind(relay);
        port.expect("the relay's port is free");
    }
    let of = |lines: &[String]| {
        let ends = lines.iter().filter(|line| line.contains("\tA\t"));
        ends.filter_map(|line| line.rsplit('\t').next()).map(str::to_owned).collect::<Vec<_>>()
    };
    eventually("all three are logged", || of(&proxy.stdout.all()).len() == 3);
    let reasons = of(&proxy.stdout.all());
    assert_eq!(reasons, ["finished", "finished", "client-reset"]);
}

/// What comes on the control connection is read and has no meaning.
#[test]
fn bytes_on_the_control_connection_are_ignored() {
    let (proxy, target) = (Proxy::start(), socket());
    let mut association = Association::open(&proxy);
    association.exchanges(&target, b"before");
    association.control.write_all(b"x").expect("sent");
    association.control.write_all(&vec![0; 1 << 20]).expect("read by the server");
    wait_until_read(&association.control);
    association.exchanges(&target, b"after");
}

/// A request behind ASSOCIATE in one segment is not answered.
#[test]
fn a_second_request_is_ignored() {
    let (proxy, target) = (Proxy::start(), socket());
    let mut client = proxy.client();
    let twice = [associate_request(any()), associate_request(any())].concat();
    let (code, relay) = client.say(&twice).reply();
    assert_eq!(code, 0);
    wait_until_read(&client.stream);
    let association = Association { control: client.stream, relay, socket: socket() };
    association.exchanges(&target, b"one");
    half_close(&association.control);
    let mut control = &association.control;
    assert_eq!(support::read_to_end(&mut control), b"", "no second reply");
}

/// `--udp-idle-timeout`: counted from the last datagram; strangers at the target socket do not count.
#[test]
fn an_idle_association_ends() {
    let proxy = Proxy::with(&["--udp-idle-timeout", "0.3"]);
    let before = proxy.sockets();
    let association = Association::open(&proxy);
    let mapped = association.exchanges(&socket(), b"once");
    let stranger = support::udp::socket_on([127, 0, 0, 7].into());
    eventually("it has ended in spite of the stranger", || {
        stranger.send_to(b"stay", mapped).expect("sent");
        proxy.sockets() == before
    });
    proxy.stdout.wait_for(|line| line.ends_with("idle-timeout"));
}

/// KILL, DELETE-USER and the end of the server close an association.
#[test]
fn administrators_end_it() {
    let proxy = Builder::default().args(["-u", "alice:pw"]).start();
    let before = proxy.sockets();
    let mut admin = proxy.admin();
    let association = Association::open(&proxy);
    association.exchanges(&socket(), b"open");
    let line = admin.connection_from(&association.control).expect("it is listed");
    let id = support::metp::value(&line, "id").to_owned();
    admin.command(&format!("KILL {id}"));
    proxy.stdout.wait_for(|line| line.ends_with("killed"));

    let client = support::socks::Client::new(proxy.socks()).logged_in("alice", "pw");
    let association = Association::of(client);
    association.exchanges(&socket(), b"open");
    admin.command("DELETE-USER alice");
    proxy.stdout.wait_for(|line| line.ends_with("user-deleted"));
    drop(admin);
    ends(&proxy, before);
}

/// Descriptors: four for each association at most, and all of them come back.
#[test]
fn descriptors_come_back() {
    let (proxy, target) = (Proxy::start(), socket());
    let before = proxy.descriptors();
    let associations: Vec<Association> = (0..16).map(|_| Association::open(&proxy)).collect();
    for association in &associations {
        association.exchanges(&target, b"open");
    }
    assert_eq!(proxy.descriptors() - before, 3 * associations.len());
    drop(associations);
    eventually("all descriptors are back", || proxy.descriptors() == before);
}

/// When descriptors are short, ASSOCIATE is refused with 01, and administrators still get in.
#[test]
fn a_shortage_of_descriptors_refuses_associations() {
    let proxy = Builder::default().limits("-n 64").start();
    let mut open = Vec::new();
    let mut client = loop {
        let mut client = proxy.client();
        match client.say(&associate_request(any())).reply() {
            (0, _) => open.push(client),
            (code, _) => {
                assert_eq!(code, 1);
                break client;
            }
        }
        assert!(open.len() < 32, "there is no limit");
    };
    client.hears_eof();
    assert!(open.len() > 1);
    assert_eq!(proxy.admin().figure("UDP_ASSOCIATIONS_OPEN"), open.len() as u64);
    open.pop();
    eventually("a promise is back", || {
        let mut client = proxy.client();
        client.say(&associate_request(any())).reply().0 == 0
    });
}

/// A request that is refused after descriptors were promised to it gives the promise back.
#[test]
fn refused_requests_keep_no_promise() {
    let free = (20_300..20_400).find_map(|port| UdpSocket::bind(("0.0.0.0", port)).ok());
    let taken = free.expect("one of them is free");
    let port = taken.local_addr().expect("bound").port();
    let range = format!("{port}-{port}");
    let proxy = Builder::default().limits("-n 64").args(["--udp-ports", &range]).start();
    // More than would fit if each kept three.
    for _ in 0..40 {
        proxy.client().say(&associate_request(any())).refused(1);
    }
    drop(taken);
    eventually("the port is free", || {
        let mut client = proxy.client();
        client.say(&associate_request(any())).reply().0 == 0
    });
}

/// Nothing of a datagram stays behind: associations that have relayed long ones are as small as others.
#[test]
fn associations_hold_no_buffers() {
    const COUNT: usize = 200;
    let (proxy, target) = (Proxy::start(), socket());
    // What is needed once: buffers for one batch.
    let first = Association::open(&proxy);
    first.exchanges(&target, &noise(60_000, 1));
    let associations: Vec<_> = (0..COUNT).map(|_| Association::open(&proxy)).collect();
    let before = proxy.status_kib("VmRSS");
    for association in &associations {
        association.exchanges(&target, &noise(60_000, 2));
    }
    let grown = proxy.status_kib("VmRSS").saturating_sub(before);
    assert!(grown < COUNT as u64 * 60 / 4, "{grown} KiB for {COUNT} associations");
}
