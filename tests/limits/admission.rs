//! Admission: crowds that say nothing, or too little, keep nobody out who has something to say.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use support::origin::Origin;
use support::proxy::{Proxy, connect};
use support::socks::{CHOSEN, Client, HELLO, connect_request, credentials};
use support::{PATIENCE, SOON, eventually, has_descriptors, note, read_exactly};

/// Clients that have said `said` and then nothing.
fn crowd(server: SocketAddr, count: usize, said: &[u8]) -> Vec<TcpStream> {
    socks5d::process::raise_descriptor_limit().expect("a limit");
    let knock = |_| {
        let mut stream = TcpStream::connect_timeout(&server, PATIENCE).expect("it listens");
        // It may have been evicted already.
        let _ = stream.write_all(said);
        stream
    };
    (0..count).map(knock).collect()
}

/// Everything that a client says until its tunnel is open, in one piece.
fn whole_handshake(target: SocketAddr) -> Vec<u8> {
    [HELLO, &credentials(b"admin", b"1234")[..], &connect_request(target)[..]].concat()
}

fn echoes(tunnel: &mut TcpStream) {
    tunnel.write_all(b"here").expect("taken");
    assert_eq!(read_exactly(tunnel, 4), b"here");
}

/// Whether the server has closed this connection, whatever it has said before.
fn closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let mut bytes = [0; 64];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

fn limit_lines(proxy: &Proxy) -> usize {
    let lines = proxy.stderr.all();
    lines.iter().filter(|line| line.contains("limit of connections")).count()
}

/// With no deadline to help: half-open clients are evicted, with many places and with few.
fn half_open_clients_keep_nobody_out(said: &[u8], limit: usize) {
    if !has_descriptors(12_000, "a crowd of 5000 clients") {
        return;
    }
    let limit_text = limit.to_string();
    let options = ["--handshake-timeout", "0", "--max-connections", &limit_text];
    let (proxy, echo) = (Proxy::with(&options), Origin::echo());
    let mut before = proxy.tunnel(echo.address);
    let mut admin = proxy.admin();
    let half_open = crowd(proxy.socks_address(), 5000, said);
    for _ in 0..3 {
        let began = Instant::now();
        echoes(&mut proxy.tunnel(echo.address));
        assert!(began.elapsed() < SOON, "{:?} beside {limit}", began.elapsed());
        let current = admin.metrics()[1];
        assert!(current <= limit as u64 / 2 + 3, "{current} of {limit} are open");
    }
    echoes(&mut before);
    assert!(limit_lines(&proxy) <= 1, "{:#?}", proxy.stderr.all());
    drop(half_open);
}

#[test]
fn thousands_of_silent_clients_keep_nobody_out() {
    half_open_clients_keep_nobody_out(b"", 8000);
    half_open_clients_keep_nobody_out(b"", 100);
}

#[test]
fn thousands_of_clients_that_have_said_one_byte_keep_nobody_out() {
    half_open_clients_keep_nobody_out(b"\x05", 8000);
    half_open_clients_keep_nobody_out(b"\x05", 448);
}

/// Handshakes take at most half of the house; over that it is the oldest that goes.
#[test]
fn unfinished_handshakes_have_half_of_the_house() {
    let options = ["--max-connections", "20", "--handshake-timeout", "0"];
    let (proxy, echo) = (Proxy::with(&options), Origin::echo());
    let mut first = crowd(proxy.socks_address(), 10, b"");
    let mut admin = proxy.admin();
    eventually("ten are in", || admin.metrics()[1] == 10);
    let mut second = crowd(proxy.socks_address(), 4, b"");
    eventually("the oldest are evicted", || first[..4].iter_mut().all(closed));
    assert!(!first[4..].iter_mut().any(closed) && !second.iter_mut().any(closed));
    assert_eq!(admin.metrics()[..2], [14, 10]);
    // Those that have proved themselves take the other half, and are never evicted.
    let mut tunnels: Vec<TcpStream> = (0..10).map(|_| proxy.tunnel(echo.address)).collect();
    let _third = crowd(proxy.socks_address(), 30, b"");
    eventually("all have come in", || admin.metrics()[0] == 54);
    assert!(admin.metrics()[1] <= 20);
    tunnels.iter_mut().for_each(echoes);
}

/// Clients that do all they can to get on do not throw one another out, even if they come all at once and
/// only one or two fit in.
#[test]
fn a_burst_of_handshakes_displaces_none_of_them() {
    const CLIENTS: usize = 150;
    for limit in ["1", "4"] {
        let (proxy, echo) = (Proxy::with(&["--max-connections", limit]), Origin::echo());
        let most: u64 = limit.parse().expect("a number");
        let over = AtomicBool::new(false);
        let mut admin = proxy.admin();
        thread::scope(|scope| {
            // Nothing that METP can see is ever above the limit.
            let watch = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert!(admin.metrics()[1] <= most);
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| scope.spawn(|| echoes(&mut proxy.tunnel(echo.address))))
                .collect();
            let served = clients.into_iter().filter_map(|client| client.join().ok()).count();
            over.store(true, Ordering::Relaxed);
            watch.join().expect("within the limit");
            assert_eq!(served, CLIENTS);
        });
        assert_eq!(proxy.metrics()[0], CLIENTS as u64);
    }
}

/// Who has just come in has a moment to say something before it must make room.
#[test]
fn first_words_may_be_on_their_way() {
    let (proxy, echo) = (Proxy::with(&["--max-connections", "4"]), Origin::echo());
    let mut admin = proxy.admin();
    // On a busy machine the moment may be over before they have spoken; then that round says nothing.
    let mut in_time = 0;
    for _ in 0..100 {
        let before = admin.metrics()[0];
        let began = Instant::now();
        let mut clients = crowd(proxy.socks_address(), 2, b"");
        eventually("they are in", || admin.metrics()[0] == before + 2);
        clients.extend(crowd(proxy.socks_address(), 3, &whole_handshake(echo.address)));
        for mut client in &clients[..2] {
            // It may have been evicted already.
            let _ = client.write_all(&whole_handshake(echo.address));
        }
        // Each makes room for the next.
        let answers = clients.into_iter().map(|mut client| {
            let mut answer = [0; 14];
            client.set_read_timeout(Some(PATIENCE)).expect("a socket");
            client.read_exact(&mut answer).map(|()| answer[..6] == [5, 2, 1, 0, 5, 0])
        });
        let answers: Vec<_> = answers.collect();
        if began.elapsed() < Duration::from_millis(60) {
            in_time += 1;
            assert!(answers.iter().all(|answer| matches!(answer, Ok(true))), "{answers:?}");
        }
        eventually("all have left", || admin.metrics()[1] == 0);
        if in_time == 5 {
            return;
        }
    }
    note("the machine is too busy: whether first words have their moment was seldom tried");
}

/// The limit holds for those who say everything at once, too; each of them gets its turn.
#[test]
fn no_more_connections_than_the_limit_are_ever_open() {
    let (proxy, echo) = (Proxy::with(&["--max-connections", "10"]), Origin::echo());
    let mut admin = proxy.admin();
    let mut waiting = crowd(proxy.socks_address(), 200, &whole_handshake(echo.address));
    let mut served = 0;
    while !waiting.is_empty() {
        assert!(admin.metrics()[1] <= 10);
        let mut tunnel = waiting.remove(0);
        tunnel.set_read_timeout(Some(PATIENCE)).expect("a socket");
        assert_eq!(read_exactly(&mut tunnel, 14)[..6], [5, 2, 1, 0, 5, 0]);
        served += 1;
    }
    assert_eq!((served, limit_lines(&proxy)), (200, 1), "one line an episode");
}

/// A connection from an address of choice.
fn from(source: [u8; 4], server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::from(source), 0)).into()).expect("loopback");
    socket.connect(&server.into()).expect("it listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

#[test]
fn one_address_may_have_so_many_connections() {
    let (proxy, echo) = (Proxy::with(&["--max-connections-per-ip", "3"]), Origin::echo());
    let server = proxy.socks_address();
    let client = |source| Client::new(from(source, server)).logged_in("admin", "1234");
    let (here, elsewhere) = ([127, 0, 0, 2], [127, 0, 0, 3]);
    let mut tunnels: Vec<_> = (0..2).map(|_| client(here).connected(echo.address)).collect();
    let mut greeted = Client::new(from(here, server));
    greeted.say(HELLO).hears(CHOSEN);
    for _ in 0..5 {
        let mut surplus = from(here, server);
        eventually("it is closed", || closed(&mut surplus));
    }
    assert_eq!(proxy.metrics()[1], 3);
    tunnels.push(client(elsewhere).connected(echo.address));
    // METP is not counted, nor limited.
    let sessions: Vec<_> = (0..5).map(|_| from(here, proxy.metp_address())).collect();
    let mut last = support::metp::Metp::new(sessions.into_iter().next_back().expect("five"));
    last.say("HELLO METP/1.0\n").hears("200 Welcome to METP/1.0\n");
    drop(greeted);
    let mut admin = proxy.admin();
    eventually("one has left", || admin.metrics()[1] == 3);
    tunnels.push(client(here).connected(echo.address));
    tunnels.iter_mut().for_each(echoes);
}

/// Without the option one address may have them all.
#[test]
fn addresses_are_not_limited_by_default() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let mut tunnels: Vec<_> = (0..100).map(|_| proxy.tunnel(echo.address)).collect();
    tunnels.iter_mut().for_each(echoes);
    assert_eq!(proxy.metrics()[1], 100);
}

/// METP: at most 64 sessions that have not logged in, the newest displaces the oldest.
#[test]
fn metp_sessions_without_a_login_displace_one_another() {
    let proxy = Proxy::with(&["--metp-login-timeout", "0"]);
    let mut early = proxy.admin();
    let before = proxy.descriptors();
    let mut strangers = crowd(proxy.metp_address(), 64, b"");
    eventually("all are in", || proxy.descriptors() == before + 64);
    assert!(!strangers.iter_mut().any(closed));
    // The newest of all, which logs in, displaces the oldest.
    let mut late = proxy.admin();
    eventually("the oldest is evicted", || closed(&mut strangers[0]));
    assert!(!strangers[1..].iter_mut().any(closed));
    // Now that it is logged in, there is room for one, and no more.
    let _two = crowd(proxy.metp_address(), 2, b"");
    eventually("the next is evicted", || closed(&mut strangers[1]));
    assert!(!strangers[2..].iter_mut().any(closed));
    early.metrics();
    late.metrics();
}

/// An administrator gets in beside hundreds of strangers, silent or greeting.
#[test]
fn strangers_do_not_keep_an_administrator_out() {
    for said in ["", "H", "HELLO METP/1.0\n"] {
        let proxy = Proxy::with(&["--metp-login-timeout", "0"]);
        let _strangers = crowd(proxy.metp_address(), 500, said.as_bytes());
        let began = Instant::now();
        let mut admin = connect(proxy.metp_address());
        admin.write_all(b"HELLO METP/1.0\nAUTH admin 1234\n").expect("taken");
        assert_eq!(read_exactly(&mut admin, 31), b"200 Welcome to METP/1.0\n200 OK\n");
        assert!(began.elapsed() < SOON, "{:?} after {said:?}", began.elapsed());
    }
}
