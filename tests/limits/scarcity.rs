//! Few descriptors: whoever is let in gets a tunnel, an administrator always gets in, nothing spins.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use support::metp::Metp;
use support::origin::Origin;
use support::proxy::{Builder, Proxy, connect};
use support::socks::{Client, HELLO, connect_request, credentials};
use support::{PATIENCE, SOON, eventually, has_descriptors, read_exactly};

fn whole_handshake(target: SocketAddr) -> Vec<u8> {
    [HELLO, &credentials(b"admin", b"1234")[..], &connect_request(target)[..]].concat()
}

fn crowd(server: SocketAddr, count: usize, said: &[u8]) -> Vec<TcpStream> {
    let knock = |_| {
        let mut stream = connect(server);
        // It may have been evicted already.
        let _ = stream.write_all(said);
        stream
    };
    (0..count).map(knock).collect()
}

fn echoes(tunnel: &mut TcpStream) {
    tunnel.write_all(b"here").expect("taken");
    assert_eq!(read_exactly(tunnel, 4), b"here");
}

/// CPU below 5 % of a core. This is a measurement, not a wait.
fn rests(proxy: &Proxy) {
    let before = proxy.cpu_ticks();
    thread::sleep(Duration::from_secs(1));
    let used = proxy.cpu_ticks() - before;
    assert!(used <= 5, "{used} ticks of processor time in a second without work");
}

fn admin_gets_in(proxy: &Proxy) -> Metp {
    let began = Instant::now();
    let admin = proxy.admin();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    admin
}

/// 500 clients that want tunnels at a process with 64 descriptors.
fn is_full_and_recovers(arguments: &[&str], said: impl Fn(SocketAddr) -> Vec<u8>) {
    if !has_descriptors(2000, "a crowd of 500 clients") {
        return;
    }
    let proxy = Builder::default().limits("-n 64").args(arguments).start();
    let echo = Origin::echo();
    let mut kept: Vec<TcpStream> = (0..5).map(|_| proxy.tunnel(echo.address)).collect();
    let said = said(echo.address);
    let crowd = crowd(proxy.socks_address(), 500, &said);
    let full = || proxy.descriptors() >= 30;
    eventually("it is full", full);
    // An administrator gets in although every connection there can be is there.
    let mut admin = admin_gets_in(&proxy);
    assert!(admin.metrics()[1] <= 24);
    kept.iter_mut().for_each(echoes);
    rests(&proxy);
    admin.metrics();
    kept.iter_mut().for_each(echoes);
    assert!(proxy.descriptors() <= 64);
    let lines = proxy.stderr.all();
    let episodes = lines.iter().filter(|line| line.contains(" WARN ")).count();
    assert!(episodes <= 1, "one line an episode: {lines:#?}");
    drop(crowd);
    let began = Instant::now();
    echoes(&mut proxy.tunnel(echo.address));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    kept.iter_mut().for_each(echoes);
    drop(kept);
    eventually("nothing is left", || admin.metrics()[1] == 0);
}

#[test]
fn hundreds_of_silent_clients_find_few_descriptors() {
    is_full_and_recovers(&["--handshake-timeout", "0"], |_| Vec::new());
}

#[test]
fn hundreds_of_tunnels_find_few_descriptors() {
    is_full_and_recovers(&[], whole_handshake);
}

#[test]
fn hundreds_of_tunnels_find_a_limit_that_descriptors_do_not_allow() {
    is_full_and_recovers(&["--max-connections", "1000"], whole_handshake);
}

/// A place that comes free is taken at once by the one who waits: not only when everybody has left.
#[test]
fn a_descriptor_that_comes_free_is_used_within_a_second() {
    let (proxy, echo) = (Builder::default().limits("-n 64").start(), Origin::echo());
    let mut all = crowd(proxy.socks_address(), 150, &whole_handshake(echo.address));
    let began = Instant::now();
    while !all.is_empty() {
        // In order of arrival; each finds the place of one before it.
        let mut tunnel = all.remove(0);
        assert_eq!(read_exactly(&mut tunnel, 14)[..6], [5, 2, 1, 0, 5, 0]);
        echoes(&mut tunnel);
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// METP sessions take descriptors away from SOCKS, and whoever is let in is let in with both of its own:
/// no request ever fails for want of one.
#[test]
fn what_has_been_promised_is_there() {
    for sessions in [0, 1, 7, 20] {
        let builder = Builder::default().limits("-n 64").args(["--max-connections", "1000"]);
        let (proxy, echo) = (builder.start(), Origin::echo());
        let mut admins: Vec<Metp> = (0..sessions).map(|_| proxy.admin()).collect();
        let mut all = crowd(proxy.socks_address(), 40, &whole_handshake(echo.address));
        // More of METP meanwhile, which log in or do not.
        let _strangers = crowd(proxy.metp_address(), 40, b"HELLO METP/1.0\n");
        while !all.is_empty() {
            let mut tunnel = all.remove(0);
            assert_eq!(read_exactly(&mut tunnel, 14)[..6], [5, 2, 1, 0, 5, 0], "{sessions}");
        }
        for admin in &mut admins {
            admin.metrics();
        }
        assert!(proxy.stderr.all().iter().all(|line| !line.contains("os error")));
    }
}

/// Logged in and still without a request: their second descriptors are not given to anybody else.
#[test]
fn a_promise_is_kept_while_its_request_is_awaited() {
    let (proxy, echo) = (Builder::default().limits("-n 64").start(), Origin::echo());
    let mut tunnels: Vec<TcpStream> = (0..10).map(|_| proxy.tunnel(echo.address)).collect();
    let mut waiting: Vec<Client> = (0..10).map(|_| proxy.client()).collect();
    let mut admins = Vec::new();
    loop {
        let mut stream = connect(proxy.metp_address());
        stream.write_all(b"HELLO METP/1.0\nAUTH admin 1234\n").expect("taken");
        stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a socket");
        match stream.read(&mut [0; 31]) {
            Ok(_) => admins.push(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        assert!(admins.len() < 64, "there are no more descriptors");
    }
    assert!(!admins.is_empty());
    for client in &mut waiting {
        client.stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let (code, _) = client.say(&connect_request(echo.address)).reply();
        assert_eq!(code, 0);
        echoes(&mut client.stream);
    }
    tunnels.iter_mut().for_each(echoes);
}

/// Strangers at METP cannot take the descriptors that SOCKS lives on.
#[test]
fn strangers_at_metp_leave_descriptors_to_socks() {
    let builder = Builder::default().limits("-n 64").args(["--metp-login-timeout", "0"]);
    let (proxy, echo) = (builder.start(), Origin::echo());
    let _strangers = crowd(proxy.metp_address(), 100, b"");
    for _ in 0..10 {
        let began = Instant::now();
        echoes(&mut proxy.tunnel(echo.address));
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
}
