//! METP/1.0: deadlines, the number of sessions, and a client that does not read.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::metp::Metp;
use support::origin::Origin;
use support::proxy::{Builder, Proxy, connect};
use support::{SOON, eventually, read_exactly, read_to_end};

/// How long the server kept this connection, which it ends with EOF and no reset.
fn lifetime(stream: &mut TcpStream, since: Instant) -> (Vec<u8>, Duration) {
    (read_to_end(stream), since.elapsed())
}

const SHORT: Duration = Duration::from_millis(400);

fn about_short(time: Duration) -> bool {
    (SHORT..SOON).contains(&time)
}

#[test]
fn whoever_does_not_log_in_in_time_is_closed() {
    let proxy = Proxy::with(&["--metp-login-timeout", "0.4"]);
    let welcome = "200 Welcome to METP/1.0\n";
    for (said, answer) in [("", ""), ("HELLO", ""), ("HELLO METP/1.0\nAUTH admin 12", welcome)] {
        let began = Instant::now();
        let mut stream = connect(proxy.metp_address());
        stream.write_all(said.as_bytes()).expect("taken");
        let (heard, time) = lifetime(&mut stream, began);
        assert_eq!(String::from_utf8_lossy(&heard), answer);
        assert!(about_short(time), "{time:?} after {said:?}");
    }
}

#[test]
fn an_idle_session_is_closed_and_a_busy_one_is_not() {
    // Long enough that a busy machine is no idle one.
    const TIME: Duration = Duration::from_secs(2);
    let proxy = Proxy::with(&["--metp-idle-timeout", "2"]);
    let mut busy = proxy.admin();
    busy.say("GET_METRICS");
    let mut idle = connect(proxy.metp_address());
    let login = b"HELLO METP/1.0\nAUTH admin 1234\n";
    idle.write_all(login).expect("taken");
    assert_eq!(read_exactly(&mut idle, 31), b"200 Welcome to METP/1.0\n200 OK\n");
    idle.set_nonblocking(true).expect("a socket");
    let mut last = Instant::now();
    eventually("the idle one is closed", || {
        last = Instant::now();
        // Not a whole command yet, and still a sign of life.
        busy.say(" ");
        matches!(idle.read(&mut [0]), Ok(0))
    });
    busy.say("\n").hears("200 OK\n");
    busy.body();
    busy.hears_eof();
    assert!(last.elapsed() >= TIME, "{:?}", last.elapsed());
}

#[test]
fn without_deadlines_sessions_stay() {
    let proxy = Proxy::with(&["--metp-idle-timeout", "0", "--metp-login-timeout", "0"]);
    let (mut silent, mut admin) = (proxy.metp(), proxy.admin());
    std::thread::sleep(SHORT);
    silent.say("HELLO METP/1.0\n").hears("200 Welcome to METP/1.0\n");
    assert_eq!(admin.metrics(), [0, 0, 0]);
}

#[test]
fn there_can_be_256_sessions_at_once_and_the_next_waits() {
    let proxy = Proxy::start();
    let mut sessions: Vec<Metp> = (0..256).map(|_| proxy.admin()).collect();
    for session in &mut sessions {
        assert_eq!(session.metrics(), [0, 0, 0]);
    }
    waits_until_one_leaves(&proxy, sessions);
}

#[test]
fn the_number_of_sessions_is_an_option() {
    let proxy = Proxy::with(&["--max-metp-sessions", "2"]);
    let sessions = vec![proxy.admin(), proxy.admin()];
    waits_until_one_leaves(&proxy, sessions);
    // Tunnels are not affected.
    let proxy = Proxy::with(&["--max-metp-sessions", "1"]);
    let (_admin, origin) = (proxy.admin(), Origin::echo());
    proxy.tunnel(origin.address);
}

fn waits_until_one_leaves(proxy: &Proxy, mut sessions: Vec<Metp>) {
    let mut next = connect(proxy.metp_address());
    next.write_all(b"HELLO METP/1.0\n").expect("the kernel takes it");
    for session in &mut sessions {
        session.metrics();
    }
    next.set_nonblocking(true).expect("a socket");
    let nothing = next.read(&mut [0]).expect_err("no answer and no end");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    next.set_nonblocking(false).expect("a socket");
    drop(sessions.pop());
    Metp::new(next).hears("200 Welcome to METP/1.0\n");
}

/// METP section 1: the server stops reading commands while much of its answer is unsent.
#[test]
fn a_client_that_does_not_read_costs_a_bounded_amount_of_memory() {
    const ROUNDS: usize = 3000;
    const RECORDS: usize = 100;
    let name = "n".repeat(255);
    let login = format!("{name}:pw");
    let (proxy, origin) = (Builder::default().args(["-u", &login]).start(), Origin::echo());
    let _tunnels: Vec<TcpStream> = (0..RECORDS)
        .map(|_| support::socks::Client::new(proxy.socks()).logged_in(&name, "pw"))
        .map(|client| client.connected(origin.address))
        .collect();
    let mut witness = proxy.admin();
    let before = proxy.status_kib("VmRSS");
    let mut greedy = proxy.admin();
    // More than 80 MB of answers; the commands themselves fit into the kernel's buffers.
    greedy.say(&"GET_LOGS\nDELETE-USER nobody\nCHANGE-BUFFER 0\n".repeat(ROUNDS));
    let records = witness.ask("GET_LOGS");
    assert_eq!(records.len(), RECORDS);
    for _ in 0..200 {
        witness.metrics();
    }
    let expected = format!(
        "200 OK\n{}\n.\n400 Bad Request [NOUSER] no such user\n400 Bad Request [RANGE] number out of range\n",
        records.join("\n")
    );
    for _ in 0..ROUNDS {
        greedy.hears(&expected);
    }
    greedy.say("QUIT\n").hears("200 Goodbye\n").hears_eof();
    let grown = proxy.status_kib("VmHWM").saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB more at the peak");
    eventually("its memory is given back", || proxy.status_kib("VmRSS") < before + 4096);
}
