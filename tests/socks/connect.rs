//! CONNECT: to which targets, what is answered, what a refusal looks like.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{self, Sender};
use std::time::Instant;

use support::origin::{Origin, closed_port, unresponsive};
use support::proxy::{Builder, Proxy, connect};
use support::socks::{
    CHOSEN, Client, HELLO, WELCOME, connect_request, credentials, half_close, name_request, reset,
    wait_until_read,
};
use support::{PATIENCE, SOON, eventually, has_ipv6, noise, read_to_end};

/// A proxy whose refusals end because it says so, not because the time for lingering is over.
fn proxy() -> Proxy {
    Proxy::with(&["--linger-timeout", "0"])
}

/// What a server does that tells who has connected to it.
fn report(tell: Sender<SocketAddr>) -> impl Fn(TcpStream) + Send + Sync + 'static {
    move |stream| tell.send(stream.peer_addr().expect("connected")).expect("the test waits")
}

/// RFC 1928 §6: BND.ADDR and BND.PORT are the proxy's end of the connection, as the target sees it.
#[test]
fn bnd_is_the_address_that_the_target_sees() {
    let (tell, told) = mpsc::channel();
    let (proxy, origin) = (proxy(), Origin::new(report(tell)));
    let port = origin.address.port();
    let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), port);
    for request in [
        connect_request(origin.address),
        connect_request(mapped),
        connect_request(([0, 0, 0, 0], port).into()),
        name_request(b"localhost", port),
        name_request(b"127.0.0.1", port),
        name_request(b"::ffff:127.0.0.1", port),
    ] {
        let (code, bound) = proxy.client().say(&request).reply();
        assert_eq!((code, bound), (0, told.recv_timeout(PATIENCE).expect("it was reached")));
    }
}

#[test]
fn connect_to_ipv6() {
    if !has_ipv6("BND of an IPv6 address") {
        return;
    }
    let (tell, told) = mpsc::channel();
    let (proxy, origin) = (proxy(), Origin::v6(report(tell)));
    let port = origin.address.port();
    for request in [
        connect_request(origin.address),
        name_request(b"::1", port),
        name_request(b"[::1]", port),
        name_request(b"[0:0::0:1]", port),
    ] {
        let (code, bound) = proxy.client().say(&request).reply();
        assert_eq!((code, bound), (0, told.recv_timeout(PATIENCE).expect("it was reached")));
    }
}

/// RSV is reserved; other servers do not look at it, and clients have been seen that fill it.
#[test]
fn rsv_may_be_anything() {
    let (proxy, origin) = (proxy(), Origin::echo());
    for reserved in [0x01, 0x05, 0xff] {
        let mut request = connect_request(origin.address);
        request[2] = reserved;
        let mut client = proxy.client();
        assert_eq!(client.say(&request).reply().0, 0);
        client.say(b"ping").hears(b"ping");
    }
}

/// RFC 1928 §4: other commands than CONNECT are answered 07, whatever their target is.
#[test]
fn other_commands_are_refused() {
    let (proxy, origin) = (proxy(), Origin::echo());
    for command in [0x00, 0x04, 0xef, 0xf2, 0xff] {
        for mut request in
            [connect_request(origin.address), name_request(b"*", 80), name_request(b"", 0)]
        {
            request[1] = command;
            proxy.client().say(&request).refused(7);
        }
    }
}

/// RFC 1928 §5. Nothing tells how long such an address is, so the answer comes at the byte.
#[test]
fn unknown_address_types_are_refused() {
    let proxy = proxy();
    for kind in [0x00, 0x02, 0x05, 0xff] {
        proxy.client().say(&[5, 1, 0, kind]).refused(8);
        proxy.client().say(&[5, 1, 0, kind, 127, 0, 0, 1, 0, 80]).refused(8);
    }
}

#[test]
fn another_version_in_the_request_is_a_failure() {
    let proxy = proxy();
    for version in [0x00, 0x01, 0x04, 0xff] {
        proxy.client().say(&[version]).refused(1);
    }
}

#[test]
fn a_refused_connection_is_told() {
    let (proxy, (_guard, closed)) = (proxy(), closed_port());
    proxy.client().say(&connect_request(closed)).refused(5);
    proxy.client().say(&name_request(b"localhost", closed.port())).refused(5);
    proxy.client().say(&name_request(b"127.0.0.1", closed.port())).refused(5);
}

/// TCP has no broadcast: the kernel knows no way to such an address. Nor to a link-local address
/// without a link (EINVAL). Nothing is sent to either.
#[test]
fn unreachable_targets_are_told() {
    let proxy = proxy();
    proxy.client().say(&connect_request(([127, 255, 255, 255], 9).into())).refused(3);
    let nowhere: Ipv6Addr = "fe80::1".parse().expect("a literal");
    proxy.client().say(&connect_request((nowhere, 9).into())).refused(3);
}

#[test]
fn a_target_that_does_not_answer_is_given_up() {
    let proxy = Proxy::with(&["--connect-timeout", "0.3", "--linger-timeout", "0"]);
    let (_waiting, silent) = unresponsive();
    let request = connect_request(silent.local_addr().expect("bound"));
    proxy.client().say(&request).refused(6);
    // The client's EOF is a half-close: the attempt goes on to its end, and the answer still comes.
    let mut client = proxy.client();
    client.say(&request);
    half_close(&client.stream);
    client.refused(6);
}

/// All 10 bytes of a refusal arrive, and no reset, from a proxy whose client does not stop to listen.
#[test]
fn a_refusal_survives_what_the_client_still_sends() {
    let (proxy, (_guard, closed)) = (proxy(), closed_port());
    let handshake = [HELLO, &credentials(b"admin", b"1234")].concat();
    for (request, code) in [
        (connect_request(closed), 5),
        (name_request(b"*", 80), 4),
        (b"\x05\x09\x00\x01\x7f\x00\x00\x01\x00\x50".to_vec(), 7),
        (b"\x05\x01\x00\x99".to_vec(), 8),
        (b"\x04".to_vec(), 1),
    ] {
        let mut client = Client::new(proxy.socks());
        client.say(&[&handshake, &request, &noise(4 << 20, 11)[..]].concat());
        client.hears(CHOSEN).hears(WELCOME).refused(code);
    }
    proxy.wait_until_idle();
}

/// A client may send all it has to say and half-close before the tunnel is open.
#[test]
fn eof_before_the_reply_is_a_half_close() {
    let (proxy, origin) = (proxy(), Origin::http(b"hello".to_vec()));
    for request in
        [connect_request(origin.address), name_request(b"localhost", origin.address.port())]
    {
        let mut client = Client::new(proxy.socks());
        let handshake = [HELLO, &credentials(b"admin", b"1234"), &request].concat();
        client.say(&[&handshake[..], b"GET / HTTP/1.0\r\n\r\n"].concat());
        half_close(&client.stream);
        client.hears(CHOSEN).hears(WELCOME);
        assert_eq!(client.reply().0, 0);
        let answer = String::from_utf8(read_to_end(&mut client.stream)).expect("ASCII");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"));
    }
    let (_guard, closed) = closed_port();
    let mut client = proxy.client();
    client.say(&connect_request(closed));
    half_close(&client.stream);
    client.refused(5);
}

#[test]
fn a_reset_ends_an_attempt_at_once() {
    let proxy = Proxy::with(&["--connect-timeout", "0", "--connect-total-timeout", "0"]);
    let (_waiting, silent) = unresponsive();
    let mut client = proxy.client();
    client.say(&connect_request(silent.local_addr().expect("bound")));
    wait_until_read(&client.stream);
    assert_eq!(proxy.metrics()[1], 1);
    let began = Instant::now();
    reset(client.stream);
    proxy.wait_until_idle();
    assert!(began.elapsed() < SOON);
}

/// The addresses of this machine, without asking anybody else.
fn addresses_here() -> Vec<IpAddr> {
    let trie = std::fs::read_to_string("/proc/net/fib_trie").expect("Linux");
    let lines: Vec<&str> = trie.lines().map(str::trim).collect();
    let v4 = lines.windows(2).filter(|pair| pair[1] == "/32 host LOCAL");
    let mut here: Vec<IpAddr> =
        v4.map(|pair| pair[0].trim_start_matches("|-- ").parse().expect("an address")).collect();
    // A machine without IPv6 has no such file.
    let v6 = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    here.extend(v6.lines().map(|line| {
        let bits = u128::from_str_radix(&line[..32], 16).expect("an address");
        IpAddr::from(Ipv6Addr::from(bits))
    }));
    here
}

/// Whoever could reach the server through itself could reach METP past its bind address, or let it
/// talk to itself without end.
#[test]
fn its_own_ports_are_refused_on_every_address_of_this_machine() {
    let proxy = Builder::default().args(["--linger-timeout", "0"]).listen(None).start();
    let mut here = addresses_here();
    assert!(here.contains(&Ipv4Addr::LOCALHOST.into()), "{here:?}");
    // Without IPv6, ::1 is no address of this machine.
    let v6 = has_ipv6("its own port on ::1");
    let spellings = ["127.0.0.2", "127.9.8.7", "0.0.0.0", "::", "::1"];
    here.extend(
        spellings
            .into_iter()
            .take(if v6 { 5 } else { 4 })
            .map(|literal| literal.parse::<IpAddr>().expect("a literal")),
    );
    let mapped = |address: &IpAddr| match address {
        IpAddr::V4(v4) => Some(IpAddr::from(v4.to_ipv6_mapped())),
        IpAddr::V6(_) => None,
    };
    let mapped: Vec<IpAddr> = here.iter().filter_map(mapped).collect();
    here.extend(mapped);
    for port in [proxy.socks_address().port(), proxy.metp_address().port()] {
        for address in &here {
            let mut client = proxy.client();
            client.say(&connect_request((*address, port).into())).refused(2);
            client = proxy.client();
            client.say(&name_request(address.to_string().as_bytes(), port)).refused(2);
        }
        for name in [&b"localhost"[..], b"[::1]", b"[::ffff:127.0.0.1]", b"[::]"] {
            if name == b"[::1]" && !v6 {
                continue;
            }
            proxy.client().say(&name_request(name, port)).refused(2);
        }
    }
    assert_eq!(proxy.metrics()[2], 0, "no payload has gone anywhere");
}

/// The rule is about the two ports, not about loopback: another proxy's ports are as good as any.
#[test]
fn ports_of_another_proxy_are_open() {
    let (proxy, other) = (proxy(), Proxy::start());
    let mut tunnel = Client::new(proxy.tunnel(other.socks_address()));
    tunnel.say(HELLO).hears(CHOSEN);
    let mut tunnel = Client::new(proxy.tunnel(other.metp_address()));
    tunnel.say(b"HELLO METP/1.0\n").hears(b"200 Welcome to METP/1.0\n");
}

/// The line of the access log for a client's request: its 12 fields but for time and duration.
fn logged(proxy: &Proxy, client: SocketAddr) -> String {
    let port = client.port().to_string();
    let line = proxy.stdout.wait_for(|line| line.split('\t').nth(4) == Some(&port));
    let fields: Vec<&str> = line.split('\t').collect();
    assert_eq!(fields.len(), 12, "{line:?}");
    // RFC 3339, UTC, whole seconds.
    let shape: String =
        fields[0].chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00Z");
    assert!(fields[10].parse::<u64>().is_ok_and(|duration| duration < 20_000), "{line:?}");
    assert_eq!(fields[3], "127.0.0.1");
    [&fields[1..3], &fields[5..10], &fields[11..]].concat().join(" ")
}

#[test]
fn each_request_has_its_line_in_the_access_log() {
    let proxy = Proxy::with(&["-u", "al ice:secret"]);
    let (origin, (_guard, closed)) = (Origin::echo(), closed_port());
    let (open, shut) = (origin.address.port(), closed.port());

    let mut tunnel = Client::new(proxy.socks()).logged_in("al ice", "secret");
    let source = tunnel.stream.local_addr().expect("connected");
    tunnel.say(&name_request(b"localhost", open));
    assert_eq!(tunnel.reply().0, 0);
    tunnel.say(b"hello").hears(b"hello");
    half_close(&tunnel.stream);
    tunnel.hears_eof();
    let line = logged(&proxy, source);
    assert_eq!(line, format!("al\\x20ice A localhost {open} 0 5 5 finished"));

    for (request, code, target) in [
        (connect_request(closed), 5, format!("127.0.0.1 {shut}")),
        (connect_request(proxy.metp_address()), 2, {
            format!("127.0.0.1 {}", proxy.metp_address().port())
        }),
        (connect_request(([127, 255, 255, 255], 9).into()), 3, "127.255.255.255 9".to_owned()),
        (name_request(b"a\tb\n\xff", 80), 4, "a\\x09b\\x0a\\xff 80".to_owned()),
        (
            b"\x05\x09\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb".to_vec(),
            7,
            "::1 443".into(),
        ),
    ] {
        let mut client = proxy.client();
        let source = client.stream.local_addr().expect("connected");
        client.say(&request).refused(code);
        drop(client);
        assert_eq!(logged(&proxy, source), format!("admin A {target} {code} 0 0 refused"));
    }

    // A client that vanishes while the target is being tried: no answer was given.
    let (_waiting, silent) = unresponsive();
    let silent = silent.local_addr().expect("bound");
    let mut client = proxy.client();
    let source = client.stream.local_addr().expect("connected");
    client.say(&connect_request(silent));
    wait_until_read(&client.stream);
    reset(client.stream);
    let line = logged(&proxy, source);
    assert_eq!(line, format!("admin A 127.0.0.1 {} 1 0 0 client-reset", silent.port()));

    // One line for each request, and none for those who never made one.
    let mut stranger = Client::new(connect(proxy.socks_address()));
    stranger.say(b"\x05\x01\x00").hears(b"\x05\xff").hears_eof();
    drop(stranger);
    proxy.wait_until_idle();
    assert_eq!(proxy.stdout.all().len(), 7);
}

/// The tunnel's first payload may come before the target has answered, in any number of pieces.
#[test]
fn payload_before_the_reply_arrives_in_order() {
    let (proxy, origin) = (proxy(), Origin::echo());
    let payload = noise(300_000, 13);
    let mut client = proxy.client();
    client.say(&connect_request(origin.address));
    let (mut writer, sent) = (client.stream.try_clone().expect("a descriptor"), payload.clone());
    let writing = std::thread::spawn(move || {
        for piece in sent.chunks(1009) {
            writer.write_all(piece).expect("taken");
        }
        half_close(&writer);
    });
    assert_eq!(client.reply().0, 0);
    assert!(read_to_end(&mut client.stream) == payload);
    writing.join().expect("all was taken");
    let mut admin = proxy.admin();
    eventually("both directions are counted", || admin.metrics() == [1, 0, 600_000]);
}
