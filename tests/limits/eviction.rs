//! Admission by address: attackers with few addresses keep out neither slow clients nor administrators.
//!
//! Nothing here depends on how fast anything is: there is no deadline for handshakes, and honest clients go on when
//! the flood has gone over them.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};
use support::client::client;
use support::metp::Metp;
use support::origin::Origin;
use support::proxy::{Builder, Proxy, connect};
use support::socks::{CHOSEN, Client, HELLO, credentials};
use support::{PATIENCE, eventually, exchange};

/// Half of this may be unproven, and attackers have fewer addresses than a quarter of that.
const LIMIT: &str = "128";
const UNPROVEN: usize = 64;
const ATTACKERS: u8 = 15;

/// Connections of a flood: several generations of unproven sessions.
const FLOOD: usize = 500;

/// A connection from an address of choice.
fn from(source: [u8; 4], server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::from(source), 0)).into()).expect("loopback");
    socket.connect(&server.into()).expect("it listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// Attackers that have said `said`, from addresses in turn. They stay until they are evicted.
fn flood(server: SocketAddr, addresses: u8, said: &[u8]) -> Vec<TcpStream> {
    let attack = |number: usize| {
        let address = (number % usize::from(addresses)) as u8 + 1;
        let mut stream = from([127, 0, 1, address], server);
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

/// RFC 1928 §3, RFC 1929 §2: a flood goes over clients between any two of their messages.
#[test]
fn a_flood_from_few_addresses_evicts_nobody_else() {
    let echo = Origin::echo();
    let wrong = [HELLO, &credentials(b"admin", b"wrong")[..]].concat();
    for said in [&b""[..], b"\x05\x01", HELLO, &wrong] {
        let proxy = without_deadlines();
        let (server, mut admin) = (proxy.socks_address(), proxy.admin());
        // The last two share an address.
        let mut clients = [1, 2, 3, 4, 4].map(|last| Client::new(from([127, 0, 2, last], server)));
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
    let mut clients = [(); 6].map(|()| Client::new(from([127, 0, 2, 1], server)));
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
