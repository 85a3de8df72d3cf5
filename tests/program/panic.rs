//! A panic in one session's turn ends that session and nothing else.
//!
//! It is injected from outside: the logger of this program panics when a magic name fails to log in. A
//! process has one logger, so the test has one of its own.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;

use log::{LevelFilter, Log, Metadata, Record};
use support::alone::alone;
use support::metp::Metp;
use support::origin::Origin;
use support::proxy::connect_from;
use support::socks::{Client, HELLO, credentials};
use support::{eventually, read_exactly, test_name};

use crate::inprocess::Builder;

/// Whoever fails to log in under this name makes the server panic.
const MAGIC: &str = "explosive";

struct Explosive;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Log for Explosive {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = record.args().to_string();
        let explodes = line.contains("auth failed") && line.contains(MAGIC);
        LINES.lock().expect("nobody panics with it").push(line);
        assert!(!explodes, "injected");
    }

    fn flush(&self) {}
}

fn echoes(tunnel: &mut TcpStream) {
    tunnel.write_all(b"here").expect("taken");
    assert_eq!(read_exactly(tunnel, 4), b"here");
}

#[test]
fn a_panic_closes_one_session_and_harms_nobody_else() {
    alone(test_name!("a_panic_closes_one_session_and_harms_nobody_else"), panics_and_others);
}

fn panics_and_others() {
    log::set_logger(&Explosive).expect("the first logger");
    log::set_max_level(LevelFilter::Info);
    // As the program does.
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    let server = Builder::default().account(b"alice", b"pw").start();
    let echo = Origin::echo();
    let mut tunnel = server.client().connected(echo.address);
    let mut admin = server.admin();
    for round in 1..=20_u8 {
        // Failures of one source beyond ten a second have no line, and so no panic.
        let source = [127, 0, 1, round].into();
        let mut metp = Client::new(connect_from(source, server.socks_address()));
        // Both in one turn of the loop, with others before and behind them.
        let mut before = server.stranger();
        let mut behind = server.stranger();
        before.say(HELLO).hears(b"\x05\x02");
        metp.say(HELLO).hears(b"\x05\x02");
        behind.say(HELLO).hears(b"\x05\x02");
        before.say(&credentials(b"alice", b"pw"));
        metp.say(&credentials(MAGIC.as_bytes(), b"x"));
        behind.say(&credentials(b"alice", b"pw"));
        assert_closed(&mut metp.stream);
        let mut session = Metp::new(connect_from(source, server.metp_address()));
        session.say(&format!("HELLO METP/1.0\nAUTH {MAGIC} x\n"));
        eventually("both are logged", || injected() == 2 * usize::from(round));
        for client in [before, behind] {
            let mut client = client;
            client.hears(b"\x01\x00");
            echoes(&mut client.connected(echo.address));
        }
        echoes(&mut tunnel);
        // The session that has panicked is not counted any more.
        eventually("only the tunnel is left", || admin.metrics()[1] == 1);
    }
    // None of the METP sessions has kept its place: as many as ever can be logged in are.
    let sessions: Vec<Metp> = (0..255).map(|_| server.admin()).collect();
    drop(sessions);
    echoes(&mut tunnel);
}

/// Panics that have been logged.
fn injected() -> usize {
    let lines = LINES.lock().expect("nobody panics with it");
    lines.iter().filter(|line| line.contains("panicked at") && line.contains("injected")).count()
}

fn assert_closed(stream: &mut TcpStream) {
    use std::io::{ErrorKind, Read};
    match stream.read(&mut [0; 16]) {
        Ok(0) => {}
        Ok(count) => panic!("{count} bytes from a session that has panicked"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}
