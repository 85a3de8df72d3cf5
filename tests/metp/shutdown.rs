//! METP/1.1: SHUTDOWN (`protocol_metp.txt` §5.20). Who may go on, for how long, and what everybody is told.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use support::metp::{Metp, value};
use support::origin::{Origin, deaf};
use support::proxy::Proxy;
use support::socks::{Client, connect_request, half_close};
use support::{eventually, exchange, read_the_end, read_to_end};

const OK: &str = "200 OK";
const CLOSING: &str = "421 Closing [SHUTDOWN] the server is closing down\n";
const FAR: &str = "SHUTDOWN GRACE 600";

/// Expects that nobody listens there any more.
fn refused(address: SocketAddr) {
    let error = TcpStream::connect(address).expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

/// §5.20: 200 to the one who asked, 421 to everybody, also to those who have not logged in.
#[test]
fn every_session_is_told_and_closed() {
    let mut proxy = Proxy::start();
    let mut admin = proxy.admin();
    let mut idle: Vec<Metp> = (0..3).map(|_| proxy.admin()).collect();
    let mut subscribed = proxy.admin();
    assert_eq!(subscribed.command("SUBSCRIBE logs"), OK);
    let (mut silent, mut greeted) = (proxy.metp(), proxy.metp());
    greeted.say("HELLO METP/1.0\n").hears("200 Welcome to METP/1.0\n");
    eventually("the silent one is in", || admin.info("metp-sessions") == "7");
    admin.say(&format!("{FAR}\n")).hears("200 OK\n").hears(CLOSING).hears_eof();
    for session in idle.iter_mut().chain([&mut subscribed, &mut greeted, &mut silent]) {
        session.hears(CLOSING).hears_eof();
    }
    drop((admin, idle, subscribed, greeted, silent));
    // No tunnel is open, so nothing is waited for.
    assert_eq!(proxy.wait().code(), Some(0));
}

/// The SOCKS port closes before the answer can have been acted upon. Tunnels go on, and so does METP, with
/// which they can be watched and ended; then it is told.
#[test]
fn tunnels_go_on_and_are_administered_to_the_end() {
    let (mut proxy, echo) = (Proxy::start(), Origin::echo());
    let mut tunnels = [(); 3].map(|()| proxy.tunnel(echo.address));
    let (mut admin, mut other) = (proxy.admin(), proxy.admin());
    assert_eq!(admin.command(FAR), OK);
    refused(proxy.socks_address());
    for size in [1, 100_000] {
        tunnels.iter_mut().for_each(|tunnel| exchange(tunnel, size));
    }
    assert_eq!(admin.info("state"), "closing");
    let left: f64 = admin.info("closing-in").parse().expect("seconds");
    assert!((500.0..600.0).contains(&left), "{left}");
    assert_eq!(
        other.command("SHUTDOWN GRACE 0"),
        "409 Conflict [CLOSING] the server is closing down"
    );
    let mut late = proxy.admin();
    let [first, second, mut third] = tunnels;
    let line = late.connection_from(&first).expect("it is open");
    assert_eq!(late.command(&format!("KILL {}", value(&line, "id"))), "200 OK killed=1");
    for mut tunnel in [second, third.try_clone().expect("a descriptor")] {
        assert!(proxy.running(), "a tunnel is open");
        half_close(&tunnel);
        assert_eq!(read_to_end(&mut tunnel), b"");
    }
    read_the_end(&mut third);
    for mut session in [admin, other, late] {
        session.hears(CLOSING).hears_eof();
    }
    assert_eq!(proxy.wait().code(), Some(0));
    let logged = proxy.stdout.all();
    let ended = |how: &str| logged.iter().filter(|line| line.ends_with(how)).count();
    assert_eq!([ended("\tkilled"), ended("\tfinished"), logged.len()], [1, 2, 3], "{logged:?}");
}

/// GRACE is what tunnels get, to the fraction of a second; without it the setting says.
#[test]
fn grace_is_how_long_tunnels_go_on() {
    for (option, command, least) in [
        ("600", "SHUTDOWN GRACE 0.4", 400),
        ("0.4", "SHUTDOWN", 400),
        ("600", "SHUTDOWN GRACE 0", 0),
        ("600", "SHUTDOWN GRACE 1", 1000),
    ] {
        let (mut proxy, echo) = (Proxy::with(&["--grace", option]), Origin::echo());
        let mut tunnel = proxy.tunnel(echo.address);
        exchange(&mut tunnel, 100);
        let mut admin = proxy.admin();
        let began = Instant::now();
        admin.say(&format!("{command}\n")).hears("200 OK\n");
        drop(admin);
        read_the_end(&mut tunnel);
        assert_eq!(proxy.wait().code(), Some(0));
        // What it must not be, 600 s, is not waited for.
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(least), "{command}: {took:?}");
        proxy
            .stdout
            .wait_for(|line| line.contains("\t0\t100\t100\t") && line.ends_with("\tshutdown"));
    }
}

/// §5.18: what happened before the end is told before the end.
#[test]
fn subscribers_hear_of_the_last_tunnel() {
    for command in ["SHUTDOWN GRACE 0", "SHUTDOWN GRACE 600\nKILL USER admin"] {
        let (mut proxy, echo) = (Proxy::start(), Origin::echo());
        let mut watcher = proxy.admin();
        assert_eq!(watcher.command("SUBSCRIBE connections logs"), OK);
        let mut tunnel = proxy.tunnel(echo.address);
        exchange(&mut tunnel, 10);
        assert!(watcher.line().starts_with("650 connections event=open "));
        proxy.admin().say(&format!("{command}\n")).hears("200 OK\n");
        let mut told = [watcher.line(), watcher.line()];
        told.sort();
        assert!(told[0].starts_with("650 connections event=close "), "{told:?}");
        assert!(told[1].starts_with("650 logs ") && told[1].contains(" up=10 "), "{told:?}");
        watcher.hears(CLOSING).hears_eof();
        drop(watcher);
        assert_eq!(proxy.wait().code(), Some(0));
    }
}

/// Connections that are not tunnels yet may become one.
#[test]
fn whoever_was_let_in_may_still_finish() {
    let (mut proxy, echo) = (Proxy::with(&["--grace", "0.2"]), Origin::echo());
    let (waiting, (_guard, deaf)) = (proxy.client(), deaf());
    let mut dialling = proxy.client();
    dialling.say(&connect_request(deaf));
    let mut admin = proxy.admin();
    eventually("both are there", || admin.info("connections-connect") == "1");
    assert_eq!(admin.command(FAR), OK);
    let mut late = waiting.connected(echo.address);
    exchange(&mut late, 1000);
    // That was enough.
    proxy.signal(libc::SIGTERM);
    read_the_end(&mut late);
    read_the_end(&mut dialling.stream);
    admin.hears(CLOSING).hears_eof();
    drop(admin);
    assert_eq!(proxy.wait().code(), Some(0));
}

/// Answers before it are whole, and commands behind it are carried out as long as there is a tunnel to wait for.
#[test]
fn pipelined_commands_are_carried_out_until_the_421() {
    let (mut proxy, echo) = (Proxy::start(), Origin::echo());
    let mut tunnel = proxy.tunnel(echo.address);
    let mut admin = proxy.admin();
    let before = "CAPA\n".repeat(500);
    admin.say(&format!("{before}{FAR}\nSHUTDOWN GRACE 0\nADD-USER late pw\nPING\n"));
    for _ in 0..500 {
        assert_eq!(admin.line(), OK);
        assert_eq!(admin.body().len(), 11);
    }
    admin.hears("200 OK\n409 Conflict [CLOSING] the server is closing down\n200 OK\n200 PONG\n");
    // The second one has not shortened the time of the first.
    exchange(&mut tunnel, 1000);
    assert!(proxy.running());
    drop(tunnel);
    admin.hears(CLOSING).hears_eof();
    drop(admin);
    assert_eq!(proxy.wait().code(), Some(0));
}

/// Without a tunnel there is nothing to wait for: what stands behind it gets no answer.
#[test]
fn nothing_is_carried_out_behind_the_421() {
    let mut proxy = Proxy::start();
    let mut admin = proxy.admin();
    admin.say(&format!("{FAR}\nADD-USER late pw\nPING\n"));
    admin.hears("200 OK\n").hears(CLOSING).hears_eof();
    drop(admin);
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(!proxy.stderr.all().iter().any(|line| line.contains("ADD-USER")), "not carried out");
}

/// A list that is being sent is sent to its end before the session is closed.
#[test]
fn a_long_answer_is_whole_before_the_421() {
    let mut proxy = Proxy::start();
    let mut admin = proxy.admin();
    let many = 2000;
    let add: String = (0..many).map(|n| format!("ADD-USER user-number-{n} pw\n")).collect();
    admin.say(&add).hears(&"200 OK\n".repeat(many));
    let mut reader = proxy.admin();
    let lists = 10;
    reader.say(&"USERS\n".repeat(lists));
    assert_eq!(reader.line(), OK);
    assert_eq!(admin.command("SHUTDOWN GRACE 20"), OK);
    let mut whole = 0;
    loop {
        assert_eq!(reader.body().len(), many + 1);
        whole += 1;
        match reader.line().as_str() {
            OK => {}
            line => {
                assert_eq!(format!("{line}\n"), CLOSING);
                break;
            }
        }
    }
    assert!(whole <= lists);
    reader.hears_eof();
    drop((reader, admin));
    assert_eq!(proxy.wait().code(), Some(0));
}

/// Nobody holds up the end by not reading its 421.
#[test]
fn a_session_that_stays_open_does_not_hold_up_the_end() {
    let mut proxy = Proxy::with(&["--linger-timeout", "600"]);
    let (mut admin, _stays) = (proxy.admin(), proxy.admin());
    assert_eq!(admin.command("SHUTDOWN GRACE 0.2"), OK);
    assert_eq!(proxy.wait().code(), Some(0));
}

/// Signals still count while the server closes down: SIGTERM gives what is left no more than its own grace, and
/// SIGINT nothing.
#[test]
fn a_signal_shortens_the_grace() {
    for (signal, grace, least) in
        [(libc::SIGTERM, "0.5", 500), (libc::SIGTERM, "0", 0), (libc::SIGINT, "600", 0)]
    {
        let (mut proxy, echo) = (Proxy::with(&["--grace", grace]), Origin::echo());
        let mut tunnel = proxy.tunnel(echo.address);
        assert_eq!(proxy.admin().command(FAR), OK);
        exchange(&mut tunnel, 10);
        let began = Instant::now();
        proxy.signal(signal);
        read_the_end(&mut tunnel);
        assert_eq!(proxy.wait().code(), Some(0));
        assert!(began.elapsed() >= Duration::from_millis(least), "{:?}", began.elapsed());
    }
}

#[test]
fn what_is_no_grace_is_400_and_changes_nothing() {
    let proxy = Proxy::with(&["-u", "alice:pw"]);
    let mut admin = proxy.admin();
    let syntax = "400 Bad Request [SYNTAX] wrong arguments";
    let range = "400 Bad Request [RANGE] number out of range";
    for (arguments, answer) in [
        (" now", syntax),
        (" 5", syntax),
        (" GRACE", syntax),
        (" GRACE x", syntax),
        (" GRACE -1", syntax),
        (" GRACE +1", syntax),
        (" GRACE 1e3", syntax),
        (" GRACE 1 2", syntax),
        (" grace 1", syntax),
        (" GRACE 86400.001", range),
        (" GRACE 86401", range),
        (" GRACE 99999999999999999999", range),
    ] {
        let told = admin.command(&format!("SHUTDOWN{arguments}"));
        // What no number can hold is one or the other.
        assert!(told == answer || (arguments.len() > 20 && told == syntax), "{arguments}: {told}");
    }
    let mut alice = proxy.metp().logged_in("alice", "pw");
    assert_eq!(alice.command("SHUTDOWN"), "403 Forbidden");
    assert_eq!(admin.info("state"), "running");
    Client::new(proxy.socks()).logged_in("alice", "pw");
}
