//! The end: at once, or with grace for the tunnels that are open.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use support::origin::Origin;
use support::proxy::Proxy;
use support::socks::{Client, HELLO, half_close};
use support::{eventually, read_exactly, read_to_end, read_to_reset};

fn echoes(tunnel: &mut TcpStream) {
    tunnel.write_all(b"still here").expect("taken");
    assert_eq!(read_exactly(tunnel, 10), b"still here");
}

fn until_refused(address: SocketAddr) {
    eventually("new connections are refused", || TcpStream::connect(address).is_err());
}

#[test]
fn sigterm_lets_open_tunnels_end_by_themselves() {
    let (mut proxy, echo) = (Proxy::with(&["--grace", "30"]), Origin::echo());
    let mut tunnel = proxy.tunnel(echo.address);
    let mut admin = proxy.admin();
    proxy.signal(libc::SIGTERM);
    until_refused(proxy.socks_address());
    assert_eq!(admin.info("state"), "closing");
    echoes(&mut tunnel);
    assert!(proxy.running());
    half_close(&tunnel);
    assert_eq!(read_to_end(&mut tunnel), b"");
    assert_eq!(admin.line(), "421 Closing [SHUTDOWN] the server is closing down");
    admin.hears_eof();
    drop(admin);
    assert_eq!(proxy.wait().code(), Some(0));
    proxy.stdout.wait_for(|line| line.ends_with("\tfinished") && line.contains("\t0\t10\t10\t"));
}

#[test]
fn sigterm_without_tunnels_ends_at_once() {
    let mut proxy = Proxy::with(&["--grace", "30"]);
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
}

/// The log line of an interrupted tunnel is written before the process ends.
#[test]
fn after_its_grace_a_tunnel_is_cut() {
    let (mut proxy, echo) = (Proxy::with(&["--grace", "0.5"]), Origin::echo());
    let mut tunnel = proxy.tunnel(echo.address);
    echoes(&mut tunnel);
    let start = Instant::now();
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
    assert_eq!(read_to_reset(&mut tunnel), b"");
    proxy.stdout.wait_for(|line| line.ends_with("\tshutdown") && line.contains("\t0\t10\t10\t"));
}

/// Whoever is cut, and however: all lines come, each once.
fn cut_at_once(arguments: &[&str], signals: &[i32]) {
    let (mut proxy, echo) = (Proxy::with(arguments), Origin::echo());
    let mut tunnels: Vec<TcpStream> = (0..50).map(|_| proxy.tunnel(echo.address)).collect();
    let mut unfinished = Client::new(proxy.socks());
    unfinished.say(HELLO).hears(b"\x05\x02");
    for tunnel in &mut tunnels {
        echoes(tunnel);
    }
    for signal in signals {
        proxy.signal(*signal);
    }
    assert_eq!(proxy.wait().code(), Some(0));
    let shutdown = |line: &&String| line.ends_with("\tshutdown") && line.contains("\t0\t10\t10\t");
    eventually("all lines are there", || proxy.stdout.all().iter().filter(shutdown).count() == 50);
    assert_eq!(proxy.stdout.all().len(), 50);
}

#[test]
fn no_grace_is_at_once() {
    cut_at_once(&["--grace", "0"], &[libc::SIGTERM]);
}

#[test]
fn a_second_sigterm_is_at_once() {
    let (mut proxy, echo) = (Proxy::with(&["--grace", "1000"]), Origin::echo());
    let mut tunnel = proxy.tunnel(echo.address);
    proxy.signal(libc::SIGTERM);
    until_refused(proxy.socks_address());
    echoes(&mut tunnel);
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
    proxy.stdout.wait_for(|line| line.ends_with("\tshutdown"));
}

#[test]
fn sigint_is_at_once() {
    cut_at_once(&["--grace", "1000"], &[libc::SIGINT]);
}

#[test]
fn sigint_during_the_grace_is_at_once() {
    cut_at_once(&["--grace", "1000"], &[libc::SIGTERM, libc::SIGINT]);
}
