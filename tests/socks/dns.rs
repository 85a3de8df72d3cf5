//! Names: which are looked up, what becomes of the answer, and that slow ones hold up nobody else.
//!
//! The server runs in the test, with names of its own: none of them ever leaves the machine.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use support::origin::{Origin, closed_port, listen, unresponsive};
use support::socks::{
    CHOSEN, HELLO, WELCOME, connect_request, credentials, half_close, name_request, reset,
    wait_until_read,
};
use support::{SOON, eventually, read_to_end};

use crate::inprocess::{Builder, Inprocess};

/// A server whose only word is its own.
fn saying(word: &'static str) -> Origin {
    use std::io::Write;
    // The client may be gone.
    Origin::new(move |mut stream| drop(stream.write_all(word.as_bytes())))
}

/// Asks for a name; what the server behind it says.
fn word_of(server: &Inprocess, name: &str, port: u16) -> String {
    let mut client = server.client();
    let (code, _) = client.say(&name_request(name.as_bytes(), port)).reply();
    assert_eq!(code, 0, "{name}");
    String::from_utf8(read_to_end(&mut client.stream)).expect("ASCII")
}

/// The look-up gets the name as it was sent, in lower case; the port is the one that was asked for.
#[test]
fn names_are_looked_up() {
    let (server, origin) = (Inprocess::start(), saying("found"));
    let port = origin.address.port();
    let longest = ["n".repeat(63), "a".repeat(63), "m".repeat(63), "e".repeat(63)].join(".");
    assert_eq!(longest.len(), 255);
    let names =
        ["example.test", "Example.test.", "*.test", "b\u{fc}cher.test", "127.1", "[::1", &longest];
    for name in names {
        server.names().add_ip(&name.to_ascii_lowercase(), Ipv4Addr::LOCALHOST.into());
        assert_eq!(word_of(&server, name, port), "found");
    }
    let asked = names.map(str::to_ascii_lowercase);
    assert_eq!(server.names().asked(), asked);
}

#[test]
fn unknown_names_are_refused() {
    let server = Inprocess::start();
    server.names().add("nowhere.test", &[]);
    server.client().say(&name_request(b"unknown.test", 80)).refused(4);
    server.client().say(&name_request(b"nowhere.test", 80)).refused(4);
    assert_eq!(server.names().asked().len(), 2);
}

/// Who sends everything at once is answered as far as possible at once, however long the name takes.
#[test]
fn replies_do_not_wait_for_the_look_up() {
    let server = Inprocess::start();
    let _hanging = server.names().hang("slow.test");
    let login = [HELLO, &credentials(b"admin", b"1234"), &name_request(b"slow.test", 80)].concat();
    server.stranger().say(&login).hears(CHOSEN).hears(WELCOME);
}

/// Names are bytes from the wire. What cannot be a name is not asked for.
#[test]
fn bad_names_are_refused_before_any_look_up() {
    let server = Inprocess::start();
    let mut names: Vec<Vec<u8>> = vec![b"".to_vec(), b"*".to_vec(), b"\xff\xfe.test".to_vec()];
    for byte in (0x00..=0x20).chain([0x7f]) {
        names.extend([vec![byte], [b"example", &[byte][..], b".test"].concat()]);
        names.extend([[&[byte], &b"localhost"[..]].concat(), [b"localhost", &[byte][..]].concat()]);
    }
    names.push([b' '; 255].to_vec());
    for name in names {
        server.client().say(&name_request(&name, 80)).refused(4);
    }
    assert_eq!(server.names().asked(), [""; 0]);
}

/// An address that comes as a name is an address.
#[test]
fn literals_are_never_looked_up() {
    let (server, origin) = (Inprocess::start(), saying("found"));
    let port = origin.address.port();
    for literal in ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "[::ffff:7f00:1]", "[127.0.0.1]"] {
        assert_eq!(word_of(&server, literal, port), "found", "{literal}");
    }
    // Whether there is IPv6 or not, these are no names.
    for literal in ["::1", "[::1]", "[0:0:0:0:0:0:0:1]"] {
        let (code, _) = server.client().say(&name_request(literal.as_bytes(), port)).reply();
        assert!(code != 0 && code != 4, "{literal}: {code}");
    }
    assert_eq!(server.names().asked(), [""; 0]);
}

/// Something at a port of 127.0.0.1 at which nobody listens on ::1, and the socket that sees to it.
fn v4_alone<T: Port>(make: impl Fn() -> T) -> (T, Option<Socket>) {
    loop {
        let made = make();
        let Ok(guard) = Socket::new(Domain::IPV6, Type::STREAM, None) else { return (made, None) };
        match guard.bind(&SocketAddr::from((Ipv6Addr::LOCALHOST, made.port())).into()) {
            Ok(()) => return (made, Some(guard)),
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => return (made, None),
            Err(_) => {}
        }
    }
}

trait Port {
    fn port(&self) -> u16;
}

impl Port for Origin {
    fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Port for (Socket, SocketAddr) {
    fn port(&self) -> u16 {
        self.1.port()
    }
}

/// RFC 6761 §6.3: `localhost`, and all names below it, lead to this machine, and nobody is asked, whatever
/// the system's files say. A service that listens on one of the two addresses only is found.
#[test]
fn localhost_is_never_looked_up() {
    use std::io::Write;
    let server = Inprocess::start();
    let ((v4, _v4_alone), (closed, _closed)) = (v4_alone(|| saying("v4")), v4_alone(closed_port));
    let has_v6 =
        listen(Ipv6Addr::LOCALHOST.into()).inspect_err(|error| println!("no ::1: {error}"));
    let v6 = has_v6.map(|_| Origin::v6(|mut stream| drop(stream.write_all(b"v6"))));
    for name in ["localhost", "LocalHost", "localhost.", "app.localhost", "a.B.LOCALHOST."] {
        server.names().add_ip(&name.to_ascii_lowercase(), Ipv4Addr::new(192, 0, 2, 1).into());
        assert_eq!(word_of(&server, name, v4.address.port()), "v4", "{name}");
        if let Ok(v6) = &v6 {
            assert_eq!(word_of(&server, name, v6.address.port()), "v6", "{name}");
        }
        // On neither, nobody listens.
        server.client().say(&name_request(name.as_bytes(), closed.1.port())).refused(5);
    }
    assert_eq!(server.names().asked(), [""; 0]);
    // These are other names.
    for name in ["localhost.test", "mylocalhost", "localhost..", "localhost.localdomain"] {
        server.client().say(&name_request(name.as_bytes(), 80)).refused(4);
    }
    assert_eq!(server.names().asked().len(), 4);
}

/// All addresses of a name are tried, in their order, until one connects.
#[test]
fn addresses_are_tried_in_order() {
    let server = Builder::default()
        .timeouts(|timeouts| timeouts.connect = Some(Duration::from_millis(200)))
        .start();
    let (first, second) = (saying("first"), saying("second"));
    let (_guard, closed) = closed_port();
    let (_waiting, silent) = unresponsive();
    let silent = silent.local_addr().expect("bound");
    let broadcast = SocketAddr::from(([127, 255, 255, 255], 9));
    let own = server.metp_address();
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    let mapped = SocketAddr::from((mapped, second.address.port()));
    for (name, addresses, word) in [
        ("one.test", &[first.address, second.address][..], "first"),
        ("two.test", &[second.address, first.address], "second"),
        ("refused.test", &[closed, second.address, first.address], "second"),
        ("unreachable.test", &[broadcast, closed, closed, first.address], "first"),
        ("silent.test", &[silent, first.address], "first"),
        ("own.test", &[own, second.address], "second"),
        ("mapped.test", &[closed, mapped, first.address], "second"),
    ] {
        server.names().add(name, addresses);
        assert_eq!(word_of(&server, name, 80), word, "{name}");
    }
}

/// If none connects, the client learns what tells it most, whichever came first.
#[test]
fn the_most_telling_failure_is_told() {
    let server = Builder::default()
        .timeouts(|timeouts| timeouts.connect = Some(Duration::from_millis(200)))
        .start();
    let (_guard, closed) = closed_port();
    let (_waiting, silent) = unresponsive();
    let silent = silent.local_addr().expect("bound");
    let broadcast = SocketAddr::from(([127, 255, 255, 255], 9));
    let own = server.metp_address();
    for (name, addresses, code) in [
        ("a.test", &[closed, broadcast][..], 5),
        ("b.test", &[broadcast, own, closed], 5),
        ("c.test", &[silent, closed, broadcast], 5),
        ("d.test", &[silent, broadcast], 6),
        ("e.test", &[own, broadcast], 3),
        ("f.test", &[own, own], 2),
    ] {
        server.names().add(name, addresses);
        server.client().say(&name_request(name.as_bytes(), 80)).refused(code);
    }
}

/// However many addresses a name has, there is one time for all of them.
#[test]
fn all_addresses_together_have_their_time() {
    let server = Builder::default()
        .timeouts(|timeouts| {
            timeouts.connect = Some(Duration::from_millis(200));
            timeouts.connect_total = Some(Duration::from_millis(500));
        })
        .start();
    let (_waiting, silent) = unresponsive();
    server.names().add("silent.test", &[silent.local_addr().expect("bound"); 100]);
    let began = Instant::now();
    server.client().say(&name_request(b"silent.test", 80)).refused(6);
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    // A hundred addresses would take 20 s.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[test]
fn a_look_up_has_its_time() {
    let server = Builder::default()
        .timeouts(|timeouts| timeouts.resolve = Some(Duration::from_secs(1)))
        .start();
    let _never = server.names().hang("hangs.test");
    server.client().say(&name_request(b"hangs.test", 80)).refused(4);
    assert_eq!(server.names().asked().len(), 1);
}

/// The answer to a query that was given up belongs to nobody, even if another client has its place.
#[test]
fn a_late_answer_goes_nowhere() {
    let server = Builder::default()
        .timeouts(|timeouts| timeouts.resolve = Some(Duration::from_secs(2)))
        .start();
    let (wrong, right) = (saying("wrong"), saying("right"));
    server.names().add("late.test", &[wrong.address]);
    server.names().add("good.test", &[right.address]);
    let late = server.names().hang("late.test");
    server.client().say(&name_request(b"late.test", 80)).refused(4);
    let mut admin = server.admin();
    eventually("it is gone", || admin.metrics()[1] == 0);

    let good = server.names().hang("good.test");
    let mut client = server.client();
    client.say(&name_request(b"good.test", 80));
    eventually("it is asked for", || server.names().asked().len() == 2);
    drop(late);
    // Nothing tells that an answer has been thrown away. The good one comes behind it.
    drop(good);
    assert_eq!(client.reply().0, 0);
    assert_eq!(read_to_end(&mut client.stream), b"right");
}

/// A client may say everything and half-close while its name is still being looked up.
#[test]
fn eof_during_a_look_up_is_a_half_close() {
    let (server, origin) = (Inprocess::start(), Origin::http(b"hello".to_vec()));
    server.names().add("slow.test", &[origin.address]);
    let release = server.names().hang("slow.test");
    let mut client = server.stranger();
    let request = name_request(b"slow.test", 80);
    let handshake = [HELLO, &credentials(b"admin", b"1234"), &request].concat();
    client.say(&[&handshake[..], b"GET / HTTP/1.0\r\n\r\n"].concat());
    half_close(&client.stream);
    eventually("it is asked for", || server.names().asked().len() == 1);
    assert_eq!(server.admin().metrics()[1], 1);
    drop(release);
    client.hears(CHOSEN).hears(WELCOME);
    assert_eq!(client.reply().0, 0);
    let answer = String::from_utf8(read_to_end(&mut client.stream)).expect("ASCII");
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer:?}");
    drop(client);
    let mut admin = server.admin();
    eventually("it is over", || admin.metrics()[1] == 0);
}

/// Nothing ends a look-up in this server but its answer, which does not come, and the reset.
#[test]
fn a_reset_during_a_look_up_ends_the_session_at_once() {
    let server = Inprocess::start();
    let _never = ["hangs1.test", "hangs2.test"].map(|name| server.names().hang(name));
    let mut client = server.client();
    client.say(&[&name_request(b"hangs1.test", 80)[..], b"payload"].concat());
    let mut half_closed = server.client();
    half_closed.say(&name_request(b"hangs2.test", 80));
    half_close(&half_closed.stream);
    eventually("both are asked for", || server.names().asked().len() == 2);
    let mut admin = server.admin();
    assert_eq!(admin.metrics(), [2, 2, 0]);
    reset(client.stream);
    eventually("one is gone", || admin.metrics()[1] == 1);
    reset(half_closed.stream);
    eventually("both are gone", || admin.metrics()[1] == 0);
}

/// One dead name server costs only those who ask for it: others wait for seconds at the very most.
#[test]
fn names_that_never_answer_hold_up_nobody_else() {
    let (server, origin) = (Inprocess::start(), saying("found"));
    server.names().add("good.test", &[origin.address]);
    let _never = server.names().hang("dead.test");
    let mut waiting: Vec<_> = (0..300).map(|_| server.client()).collect();
    for client in &mut waiting {
        client.say(&name_request(b"dead.test", 80));
    }
    // The loop takes them in order: with the last one, all have been read.
    wait_until_read(&waiting[299].stream);
    assert_eq!(server.admin().metrics()[1], 300);
    for _ in 0..2 {
        let began = Instant::now();
        assert_eq!(word_of(&server, "good.test", 80), "found");
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
}

/// The server's own ports are closed on the addresses that names lead to, in every spelling.
#[test]
fn its_own_ports_are_refused_under_every_name() {
    let server = Builder::default().listen(None).start();
    let ports = [server.socks_address().port(), server.metp_address().port()];
    let addresses: [IpAddr; 8] = [
        Ipv4Addr::LOCALHOST.into(),
        [127, 200, 30, 4].into(),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv6Addr::LOCALHOST.into(),
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
        Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().into(),
        Ipv4Addr::new(127, 0, 0, 2).to_ipv6_mapped().into(),
    ];
    let v6 = support::has_ipv6("its own port on ::1");
    for port in ports {
        for (number, address) in addresses.into_iter().enumerate() {
            // Without IPv6, it is no address of this machine.
            if address == Ipv6Addr::LOCALHOST && !v6 {
                continue;
            }
            let name = format!("own{number}.test");
            server.names().add_ip(&name, address);
            server.client().say(&name_request(name.as_bytes(), port)).refused(2);
        }
    }
    // What getaddrinfo(3) takes for an address and Rust does not: it is the resolved one that counts.
    for name in ["127.1", "0x7f.1", "2130706433", "0177.0.0.1", "LOCALHOST", "localhost."] {
        server.names().add_ip(&name.to_ascii_lowercase(), Ipv4Addr::LOCALHOST.into());
        server.client().say(&name_request(name.as_bytes(), ports[1])).refused(2);
    }
    // The same machine, another port.
    let origin = saying("found");
    assert_eq!(word_of(&server, "own0.test", origin.address.port()), "found");
    let mut client = server.client();
    assert_eq!(client.say(&connect_request(origin.address)).reply().0, 0);
}
