//! Eviction: neither floods that say nothing, or too little, nor attackers with few addresses keep out clients that
//! have something to say, slow ones, or administrators.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::client::client;
use support::descriptors::Descriptors;
use support::metp::Metp;
use support::origin::Origin;
use support::proxy::{Builder, Proxy, connect, connect_from};
use support::socks::{CHOSEN, Client, HELLO, credentials};
use support::{PATIENCE, SOON, eventually, exchange, note, read_exactly};

use super::clients::{closed, connect_many, echoes, whole_handshake};

/// Half of this may be unproven, and attackers have fewer addresses than a quarter of that.
const LIMIT: &str = "128";
const UNPROVEN: usize = 64;
const ATTACKERS: u8 = 15;

/// Connections of a flood: several generations of unproven sessions.
const FLOOD: usize = 500;

/// Attackers that have said `said`, from addresses in turn. They stay until they are evicted.
fn flood(server: SocketAddr, addresses: u8, said: &[u8]) -> Vec<TcpStream> {
    let attack = |number: usize| {
        let address = (number % usize::from(addresses)) as u8 + 1;
        let mut stream = connect_from([127, 0, 1, address].into(), server);
        // It may have been evicted already.
        let _ = stream.write_all(said);
        stream
    };
    (0..FLOOD).map(attack).collect()
}

/// A proxy whose handshakes have no deadline, so that whoever is closed was evicted.
fn without_deadlines() -> Proxy {
    Proxy::with(&[
        "--handshake-timeout",
        "0",
        "--metp-login-timeout",
        "0",
        "--linger-timeout",
        "0",
        "--max-connections",
        LIMIT,
    ])
}

fn limit_lines(proxy: &Proxy) -> usize {
    let lines = proxy.stderr.all();
    lines.iter().filter(|line| line.contains("limit of connections")).count()
}

/// RFC 1928 §3, RFC 1929 §2: a flood goes over clients between any two of their messages.
#[test]
fn a_flood_from_few_addresses_evicts_nobody_else() {
    let echo = Origin::echo();
    let wrong = [HELLO, &credentials(b"admin", b"wrong")[..]].concat();
    for said in [&b""[..], b"\x05\x01", HELLO, &wrong] {
        let proxy = without_deadlines();
        let (server, mut admin) = (proxy.socks_address(), proxy.admin());
        // The last two share an address.
        let mut clients =
            [1, 2, 3, 4, 4].map(|last| Client::new(connect_from([127, 0, 2, last].into(), server)));
        let mut accepted = clients.len() as u64;
        let mut flood_over = |admin: &mut Metp| {
            let attackers = flood(server, ATTACKERS, said);
            accepted += FLOOD as u64;
            eventually("all have been let in", || admin.metrics()[0] == accepted);
            assert!(admin.metrics()[1] <= UNPROVEN as u64);
            attackers
        };
        for client in &mut clients {
            client.say(HELLO).hears(CHOSEN);
        }
        let _first = flood_over(&mut admin);
        for client in &mut clients {
            client.say(&credentials(b"admin", b"1234")).hears(b"\x01\x00");
        }
        let _second = flood_over(&mut admin);
        for client in clients {
            exchange(&mut client.connected(echo.address), 100);
        }
    }
}

/// With more addresses than there are places: who has greeted is not pushed out by those who do not even that.
#[test]
fn those_who_say_too_little_evict_one_another() {
    let (proxy, echo) = (without_deadlines(), Origin::echo());
    let (server, mut admin) = (proxy.socks_address(), proxy.admin());
    let mut clients = [(); 6].map(|()| Client::new(connect_from([127, 0, 2, 1].into(), server)));
    for client in &mut clients {
        client.say(HELLO).hears(CHOSEN);
    }
    let _attackers = flood(server, 250, b"\x05\x01");
    eventually("all have been let in", || admin.metrics()[0] == 6 + FLOOD as u64);
    for mut client in clients {
        client.say(&credentials(b"admin", b"1234")).hears(b"\x01\x00");
        exchange(&mut client.connected(echo.address), 100);
    }
}

/// METP §8. All come from one address, as on loopback: neither those who say nothing nor those who greet push out
/// the other kind, and `client` gets in.
#[test]
fn a_flood_of_metp_keeps_no_administrator_out() {
    const WELCOME: &str = "200 Welcome to METP/1.0\n";
    let wrong = "HELLO METP/1.0\nAUTH admin wrong\n";
    for said in ["", "HE", "HELLO METP/1.0\n", wrong] {
        let proxy = without_deadlines();
        let (server, mut admin) = (proxy.metp_address(), proxy.admin());
        let (mut silent, mut greeted) = (Metp::new(connect(server)), Metp::new(connect(server)));
        greeted.say("HELLO METP/1.0\n").hears(WELCOME);
        eventually("both are in", || admin.info("metp-sessions") == "3");
        let _attackers = flood(server, 1, said.as_bytes());
        let sessions = 3 + FLOOD as u64;
        eventually("all have been let in", || admin.figure("METP_SESSIONS_TOTAL") == sessions);
        let port = server.port().to_string();
        let outcome = client(server, ["-m"]);
        assert_eq!(outcome.code, 0, "{said:?}, port {port}: {}", outcome.stderr);
        if !said.starts_with("HELLO METP/1.0\n") || said == wrong {
            greeted.say("AUTH admin 1234\n").hears("200 OK\n").metrics();
        }
        if said.starts_with("HELLO") {
            silent.say("HELLO METP/1.0\nAUTH admin 1234\n").hears(WELCOME).hears("200 OK\n");
            silent.metrics();
        }
    }
}

/// METP §8: an account of role user has sessions without end, and so have strangers; administrators get in, and
/// those of another account stay.
#[test]
fn the_account_with_most_sessions_makes_room() {
    let arguments = ["--max-metp-sessions", "8", "-u", "many:pw", "-u", "few:pw"];
    let proxy = Builder::default().args(arguments).start();
    let log_in = |name| Metp::new(connect(proxy.metp_address())).logged_in(name, "pw");
    let mut few = log_in("few");
    let mut many: Vec<Metp> = (0..7).map(|_| log_in("many")).collect();
    for _ in 0..20 {
        many.push(log_in("many"));
        let mut stranger = Metp::new(connect(proxy.metp_address()));
        stranger.say("HELLO METP/1.0\n").hears("200 Welcome to METP/1.0\n");
        proxy.admin().metrics();
        few.metrics();
    }
}

/// With no deadline to help: half-open clients are evicted, with many places and with few.
fn half_open_clients_keep_nobody_out(said: &[u8], limit: usize) {
    let Some(_descriptors) = Descriptors::keep(12_000, "5000 clients at a time") else { return };
    let limit_text = limit.to_string();
    let options = ["--handshake-timeout", "0", "--max-connections", &limit_text];
    let (proxy, echo) = (Proxy::with(&options), Origin::echo());
    let mut before = proxy.tunnel(echo.address);
    let mut admin = proxy.admin();
    let half_open = connect_many(proxy.socks_address(), 5000, said);
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

/// Handshakes take at most half of the connections; beyond that the oldest is evicted.
#[test]
fn unfinished_handshakes_have_half_of_the_connections() {
    let options = ["--max-connections", "20", "--handshake-timeout", "0"];
    let (proxy, echo) = (Proxy::with(&options), Origin::echo());
    let mut first = connect_many(proxy.socks_address(), 10, b"");
    let mut admin = proxy.admin();
    eventually("ten are in", || admin.metrics()[1] == 10);
    let mut second = connect_many(proxy.socks_address(), 4, b"");
    eventually("the oldest are evicted", || first[..4].iter_mut().all(closed));
    assert!(!first[4..].iter_mut().any(closed) && !second.iter_mut().any(closed));
    assert_eq!(admin.metrics()[..2], [14, 10]);
    // Those that have proved themselves take the other half, and are never evicted.
    let mut tunnels: Vec<TcpStream> = (0..10).map(|_| proxy.tunnel(echo.address)).collect();
    let _third = connect_many(proxy.socks_address(), 30, b"");
    eventually("all have come in", || admin.metrics()[0] == 54);
    assert!(admin.metrics()[1] <= 20);
    tunnels.iter_mut().for_each(echoes);
}

/// Clients that do all they can to get on do not throw one another out, even if they come all at once and
/// only one or two fit in.
#[test]
fn a_burst_of_handshakes_evicts_none_of_them() {
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
        let mut clients = connect_many(proxy.socks_address(), 2, b"");
        eventually("they are in", || admin.metrics()[0] == before + 2);
        clients.extend(connect_many(proxy.socks_address(), 3, &whole_handshake(echo.address)));
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

/// METP: at most 64 sessions that have not logged in, the newest evicts the oldest.
#[test]
fn metp_sessions_without_a_login_evict_one_another() {
    let proxy = Proxy::with(&["--metp-login-timeout", "0"]);
    let mut early = proxy.admin();
    let before = proxy.descriptors();
    let mut strangers = connect_many(proxy.metp_address(), 64, b"");
    eventually("all are in", || proxy.descriptors() == before + 64);
    assert!(!strangers.iter_mut().any(closed));
    // The newest of all, which logs in, evicts the oldest.
    let mut late = proxy.admin();
    eventually("the oldest is evicted", || closed(&mut strangers[0]));
    assert!(!strangers[1..].iter_mut().any(closed));
    // Now that it is logged in, there is room for one, and no more.
    let _two = connect_many(proxy.metp_address(), 2, b"");
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
        let _strangers = connect_many(proxy.metp_address(), 500, said.as_bytes());
        let began = Instant::now();
        let mut admin = connect(proxy.metp_address());
        admin.write_all(b"HELLO METP/1.0\nAUTH admin 1234\n").expect("taken");
        assert_eq!(read_exactly(&mut admin, 31), b"200 Welcome to METP/1.0\n200 OK\n");
        assert!(began.elapsed() < SOON, "{:?} after {said:?}", began.elapsed());
    }
}
