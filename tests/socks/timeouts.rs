//! Each timeout, shortened: what it ends, what it says, and what keeps it from striking.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::TcpStream as Dialling;
use socket2::{Domain, Socket, Type};
use support::origin::{Origin, listen};
use support::proxy::{Proxy, connect};
use support::socks::{CHOSEN, Client, HELLO, connect_request, credentials, half_close};
use support::{PATIENCE, SOON, eventually, read_exactly, read_to_end, read_to_reset};

/// A port on which connections are neither accepted nor refused: its backlog is full, so that the kernel
/// drops what else comes. It lasts as long as this value.
struct BlackHole {
    address: SocketAddr,
    _listener: Socket,
    _fill: Vec<Dialling>,
}

impl BlackHole {
    fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("loopback");
        listener.listen(0).expect("bound");
        let address = listener.local_addr().expect("bound").as_socket().expect("an IP address");
        let fill = (0..4).map(|_| Dialling::connect(address).expect("it is begun")).collect();
        eventually("its backlog is full", || {
            let probe = TcpStream::connect_timeout(&address, Duration::from_millis(50));
            probe.is_err_and(|error| error.kind() == ErrorKind::TimedOut)
        });
        BlackHole { address, _listener: listener, _fill: fill }
    }
}

fn with_server(proxy: &Proxy) -> (TcpStream, TcpStream) {
    let listener: TcpListener = listen([127, 0, 0, 1].into()).expect("loopback");
    let client = proxy.tunnel(listener.local_addr().expect("bound"));
    let (server, _) = listener.accept().expect("the tunnel leads here");
    server.set_read_timeout(Some(PATIENCE)).expect("a socket");
    (client, server)
}

/// How long something takes. It begins before the server can count, so that what is too short is too early.
fn timed(what: impl FnOnce()) -> Duration {
    let start = Instant::now();
    what();
    let took = start.elapsed();
    assert!(took < SOON, "too late: {took:?}");
    took
}

/// Waits for EOF while saying one byte after the other.
fn drip(mut stream: TcpStream, bytes: &[u8]) {
    stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
    for byte in bytes {
        // The peer may have closed; reading tells.
        let _ = stream.write_all(&[*byte]);
        match stream.read(&mut [0; 16]) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("all {} bytes were waited for", bytes.len());
}

const SHORT: Duration = Duration::from_millis(300);

#[test]
fn a_handshake_ends_in_time_whatever_has_been_said() {
    let proxy = Proxy::with(&["--handshake-timeout", "0.3"]);
    let request = connect_request(SocketAddr::from(([127, 0, 0, 1], 9)));
    let login = credentials(b"admin", b"1234");
    let stages: [&[&[u8]]; 5] =
        [&[], &[b"\x05"], &[HELLO], &[HELLO, &login], &[HELLO, &login, &request[..9]]];
    let begin = |stage: &&[&[u8]]| {
        let mut client = Client::new(proxy.socks());
        client.say(&stage.concat());
        client
    };
    let took = timed(|| {
        for mut client in stages.iter().map(begin).collect::<Vec<_>>() {
            let mut heard = Vec::new();
            client.stream.read_to_end(&mut heard).expect("EOF, not a reset");
            assert!([&b""[..], CHOSEN, b"\x05\x02\x01\x00"].contains(&&heard[..]), "{heard:02x?}");
        }
    });
    assert!(took >= SHORT, "too early: {took:?}");
    assert_eq!(proxy.metrics()[..2], [5, 0]);
}

/// The time is for the whole handshake: a byte now and then does not buy more of it.
#[test]
fn a_handshake_in_drips_ends_in_time() {
    let proxy = Proxy::with(&["--handshake-timeout", "0.3"]);
    let methods = [&b"\x05\xff"[..], &[2; 255]].concat();
    timed(|| drip(proxy.socks(), &methods));
    assert_eq!(proxy.metrics()[..2], [1, 0]);
}

/// The handshake's time is over with the handshake.
#[test]
fn a_tunnel_outlives_the_handshake_timeout() {
    let proxy = Proxy::start();
    let (mut client, mut server) = with_server(&proxy);
    let mut silent = proxy.socks();
    proxy.admin().set("handshake-timeout", "0.2");
    // Those who are later have less time than the tunnel has had.
    assert_eq!(read_to_end(&mut silent), b"");
    assert_eq!(read_to_end(&mut proxy.socks()), b"");
    client.set_nonblocking(true).expect("a socket");
    let nothing = client.read(&mut [0]).expect_err("nothing has been said");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    client.set_nonblocking(false).expect("a socket");
    server.write_all(b"here").expect("taken");
    assert_eq!(read_exactly(&mut client, 4), b"here");
}

/// REP 06 for a connection that was not made in time.
#[test]
fn a_connection_that_takes_too_long_is_answered_06() {
    let hole = BlackHole::new();
    for arguments in [
        ["--connect-timeout", "0.3", "--connect-total-timeout", "20"],
        ["--connect-timeout", "20", "--connect-total-timeout", "0.3"],
        ["--connect-timeout", "0", "--connect-total-timeout", "0.3"],
        ["--connect-timeout", "0.3", "--connect-total-timeout", "0"],
    ] {
        let proxy = Proxy::with(&arguments);
        let mut client = proxy.client();
        let took = timed(|| client.say(&connect_request(hole.address)).refused(6));
        assert!(took >= SHORT, "{arguments:?}: {took:?}");
        drop(client);
        proxy.stdout.wait_for(|line| line.contains("\t6\t0\t0\t") && line.ends_with("\trefused"));
    }
}

/// A client that leaves while its connection is being made is a half-close; a reset ends the attempt.
#[test]
fn a_client_may_leave_while_its_connection_is_made() {
    let (hole, proxy) = (BlackHole::new(), Proxy::with(&["--connect-timeout", "0.5"]));
    let mut leaving = proxy.client();
    leaving.say(&connect_request(hole.address));
    half_close(&leaving.stream);
    leaving.refused(6);
    drop(leaving);

    let patient = Proxy::start();
    let before = patient.descriptors();
    let mut client = patient.client();
    client.say(&connect_request(hole.address));
    eventually("the attempt is under way", || patient.descriptors() == before + 2);
    support::socks::reset(client.stream);
    patient
        .stdout
        .wait_for(|line| line.contains("\t1\t0\t0\t") && line.ends_with("\tclient-reset"));
    eventually("nothing is left of it", || patient.descriptors() == before);
}

#[test]
fn an_idle_tunnel_is_closed() {
    let proxy = Proxy::with(&["--idle-timeout", "0.3"]);
    let took = timed(|| {
        let (mut client, mut server) = with_server(&proxy);
        assert_eq!(read_to_reset(&mut client), b"");
        assert_eq!(read_to_reset(&mut server), b"");
    });
    assert!(took >= SHORT, "{took:?}");
    proxy.stdout.wait_for(|line| line.ends_with("\tidle-timeout"));
}

/// Whether a connection has ended, with nothing said before, however it ended.
fn is_over(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let over = !stream.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    stream.set_nonblocking(false).expect("a socket");
    over
}

/// Idle is a tunnel in which nothing moves, either way. Long enough that a busy machine is no idler.
#[test]
fn a_byte_either_way_keeps_a_tunnel_open() {
    let proxy = Proxy::with(&["--idle-timeout", "3"]);
    let mut tunnels = [true, false].map(|upwards| {
        let (client, server) = with_server(&proxy);
        if upwards { (client, server) } else { (server, client) }
    });
    let (idle, _its_server) = with_server(&proxy);
    // Twice as long as one that is idle lasts.
    let began = Instant::now();
    let mut lasted = None;
    eventually("as much again has passed", || {
        for (from, to) in &mut tunnels {
            from.write_all(b"x").expect("taken");
            assert_eq!(read_exactly(to, 1), b"x");
        }
        if lasted.is_none() && is_over(&idle) {
            lasted = Some(began.elapsed());
        }
        lasted.is_some_and(|lasted| began.elapsed() > lasted * 3 / 2)
    });
}

#[test]
fn a_tunnel_with_one_direction_over_is_closed_sooner() {
    let proxy = Proxy::with(&["--half-close-timeout", "0.3"]);
    for (number, by_client) in [(1, true), (2, false)] {
        let (client, server) = with_server(&proxy);
        let (mut ended, mut open) = if by_client { (client, server) } else { (server, client) };
        let (mut other, _its_server) = with_server(&proxy);
        half_close(&ended);
        assert_eq!(read_to_end(&mut open), b"");
        assert_eq!(read_to_reset(&mut ended), b"");
        eventually("its line is written", || {
            let lines = proxy.stdout.all();
            lines.iter().filter(|line| line.ends_with("\thalf-close-timeout")).count() == number
        });
        other.set_nonblocking(true).expect("a socket");
        let whole = other.read(&mut [0]).expect_err("nothing is over there");
        assert_eq!(whole.kind(), ErrorKind::WouldBlock);
    }
}

/// The server has reset the connection, and the client does not read what came before.
#[test]
fn a_tunnel_whose_server_is_gone_does_not_wait_for_its_client() {
    let proxy = Proxy::with(&["--linger-timeout", "0.3"]);
    let (client, mut server) = with_server(&proxy);
    server.set_write_timeout(Some(Duration::from_millis(200))).expect("a socket");
    while server.write_all(&[b'x'; 65536]).is_ok() {}
    support::socks::reset(server);
    proxy.stdout.wait_for(|line| line.ends_with("\ttarget-reset"));
    proxy.wait_until_idle();
    drop(client);
}

/// Bytes in the direction that is left put it off.
#[test]
fn a_download_outlives_the_half_close_timeout() {
    let proxy = Proxy::with(&["--half-close-timeout", "3"]);
    let (mut client, mut server) = with_server(&proxy);
    let (idle, _its_server) = with_server(&proxy);
    half_close(&client);
    half_close(&idle);
    eventually("one without bytes is closed", || {
        server.write_all(b"x").expect("taken");
        assert_eq!(read_exactly(&mut client, 1), b"x");
        is_over(&idle)
    });
    server.write_all(b"x").expect("taken");
    assert_eq!(read_exactly(&mut client, 1), b"x");
}

/// A client that has got its refusal and does not close, silent or talking on.
#[test]
fn a_client_that_stays_after_its_refusal_is_closed() {
    let proxy = Proxy::with(&["--linger-timeout", "0.3"]);
    let before = proxy.descriptors();
    let mut silent = proxy.client();
    silent.say(b"\x05\x09\x00\x01\x7f\x00\x00\x01\x00\x50").refused(7);
    let mut denied = Client::new(proxy.socks());
    denied.say(b"\x05\x01\x00").hears(b"\x05\xff").hears_eof();
    let talking = proxy.client();
    let mut writer = talking.stream.try_clone().expect("a descriptor");
    writer.write_all(b"\x05\x09\x00\x01\x7f\x00\x00\x01\x00\x50").expect("taken");
    let talk = move || {
        let start = Instant::now();
        while start.elapsed() < PATIENCE && writer.write_all(&[b'x'; 4096]).is_ok() {}
    };
    let chatter = thread::spawn(talk);
    timed(|| {
        chatter.join().expect("it is cut off");
        eventually("all are closed", || proxy.descriptors() == before);
    });
    assert_eq!(proxy.metrics()[..2], [3, 0]);
    drop((silent, denied, talking));
}

/// 0 turns a timeout off: it does not mean "at once".
#[test]
fn zero_is_never() {
    let names =
        ["handshake", "resolve", "connect", "connect-total", "idle", "half-close", "linger"];
    let arguments: Vec<String> =
        names.iter().flat_map(|name| [format!("--{name}-timeout"), "0".to_owned()]).collect();
    let proxy = support::proxy::Builder::default().args(&arguments).start();
    let (hole, echo) = (BlackHole::new(), Origin::echo());
    let mut greeted = Client::new(proxy.socks());
    greeted.say(HELLO).hears(CHOSEN);
    let mut waiting = proxy.client();
    waiting.say(&connect_request(hole.address));
    let mut idle = proxy.tunnel(echo.address);
    let (half, mut far) = with_server(&proxy);
    half_close(&half);
    assert_eq!(read_to_end(&mut far), b"");
    let mut refused = proxy.client();
    refused.say(b"\x05\x09\x00\x01\x7f\x00\x00\x01\x00\x50").refused(7);
    // Longer than several ticks of the alarm clock.
    waiting.stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
    let nothing = waiting.stream.read(&mut [0]).expect_err("there is no answer");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    assert_eq!(proxy.metrics()[1], 5, "all are still there");
    greeted.say(&credentials(b"admin", b"1234")).hears(b"\x01\x00");
    idle.write_all(b"awake").expect("taken");
    assert_eq!(read_exactly(&mut idle, 5), b"awake");
}

/// So many that each has sent more whenever its turn comes.
const CLIENTS: usize = 32;

/// Connects, says `first` and goes on with `more` until it is cut off, many times at once.
fn flood(server: SocketAddr, first: &[u8], more: &[u8]) {
    let chunk = more.repeat((1 << 20) / more.len());
    let talk = |mut stream: TcpStream| {
        let began = Instant::now();
        stream.write_all(first).expect("taken");
        let mut answers = stream.try_clone().expect("a descriptor");
        // Answers that nobody takes would hold the server up.
        std::thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
        while stream.write_all(&chunk).is_ok() {
            assert!(began.elapsed() < PATIENCE, "it may talk for ever");
        }
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect(server)).collect();
    std::thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| talk(client));
        }
    });
}

#[test]
fn a_refused_socks_client_cannot_delay_its_close() {
    let proxy = Proxy::with(&["--linger-timeout", "0.3"]);
    flood(proxy.socks_address(), b"\x05\x01\x00", b"\x05\x01\x00");
    proxy.wait_until_idle();
}

/// Greetings are good, only the login never comes.
#[test]
fn a_metp_client_cannot_delay_the_end_of_its_login_time() {
    let proxy = Proxy::with(&["--metp-login-timeout", "0.3", "--linger-timeout", "0.3"]);
    flood(proxy.metp_address(), b"HELLO METP/1.0\n", b"HELLO METP/1.0\n");
}
