//! Sockets that a service manager hands over (sd_listen_fds(3)): the test forks and executes as it does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Stdio;

use socket2::{Domain, SockRef, Socket, Type};
use support::origin::Origin;
use support::proxy::{Builder, connect, in_shell};
use support::socks::Client;
use support::system::hand_over;
use support::{PATIENCE, eventually, read_exactly};

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

/// What the program says of these descriptors, and its exit code.
fn refused(names: Option<&str>, sockets: Vec<OwnedFd>) -> (Option<i32>, String) {
    let mut command = in_shell("LISTEN_PID=$$");
    command.args(["-l", "127.0.0.1", "-p", "0", "-P", "0"]).stdout(Stdio::null());
    command.env("LISTEN_FDS", sockets.len().to_string()).env_remove("LISTEN_FDNAMES");
    if let Some(names) = names {
        command.env("LISTEN_FDNAMES", names);
    }
    hand_over(&mut command, sockets);
    let output = command.output().expect("it starts");
    (output.status.code(), String::from_utf8(output.stderr).expect("ASCII"))
}

#[test]
fn the_given_sockets_are_served_in_place_of_own_ones() {
    let ((socks, at), (metp, metp_at), (http, http_at)) = (listener(), listener(), listener());
    let mut waits = TcpStream::connect(at).expect("it listens before there is a server");
    waits.write_all(b"\x05\x01\x02").expect("taken");
    // Not in the order of the services, and without --http.
    let sockets = vec![metp.into(), http.into(), socks.into()];
    let proxy = Builder::default().sockets("metp:http:socks", sockets).start();
    assert_eq!((proxy.socks_address(), proxy.metp_address()), (at, metp_at));
    assert_eq!(read_exactly(&mut waits, 2), b"\x05\x02");
    let echo = Origin::echo();
    let mut tunnel = proxy.tunnel(echo.address);
    tunnel.write_all(b"round trip").expect("taken");
    assert_eq!(read_exactly(&mut tunnel, 10), b"round trip");
    assert_eq!(proxy.admin().info("version"), env!("CARGO_PKG_VERSION"));
    let mut health = connect(http_at);
    health.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("taken");
    let mut answer = String::new();
    health.read_to_string(&mut answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // The own port is closed to clients, whoever has opened it.
    Client::new(proxy.socks())
        .logged_in("admin", "1234")
        .say(&support::socks::connect_request(at))
        .refused(2);
}

/// Accepted connections inherit what listeners have (src/reactor/listener.rs).
#[test]
fn the_options_of_own_listeners_are_set() {
    let (socks, _) = listener();
    let copy = socks.try_clone().expect("a descriptor");
    let _proxy = Builder::default().sockets("socks", vec![socks.into()]).start();
    let socket = SockRef::from(&copy);
    assert!(socket.tcp_nodelay().expect("an option"));
    assert!(socket.out_of_band_inline().expect("an option"));
    assert!(socket.keepalive().expect("an option"));
    assert!(socket.nonblocking().expect("a flag"));
}

/// It closes its copy at the end, and connections wait for the next server.
#[test]
fn the_socket_outlives_the_server() {
    let (socks, at) = listener();
    let kept = socks.try_clone().expect("a descriptor");
    let mut proxy = Builder::default().sockets("socks", vec![socks.into()]).start();
    drop(Client::new(connect(at)).logged_in("admin", "1234"));
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
    let waits = connect(at);
    let proxy = Builder::default().sockets("socks", vec![kept.into()]).start();
    Client::new(waits).logged_in("admin", "1234");
    drop(proxy);
}

/// Beyond loopback HTTP wants a login, also without --http.
#[test]
fn http_on_a_given_socket_wants_its_login() {
    let http = TcpListener::bind("0.0.0.0:0").expect("loopback");
    let port = http.local_addr().expect("bound").port();
    let _proxy = Builder::default().sockets("http", vec![http.into()]).start();
    let mut metrics = connect(([127, 0, 0, 1], port).into());
    metrics.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("taken");
    let mut answer = String::new();
    metrics.read_to_string(&mut answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[test]
fn what_does_not_fit_is_one_line() {
    let tcp = || OwnedFd::from(listener().0);
    let unconnected = || OwnedFd::from(Socket::new(Domain::IPV4, Type::STREAM, None).expect("one"));
    let udp = || OwnedFd::from(UdpSocket::bind("127.0.0.1:0").expect("loopback"));
    let file = || OwnedFd::from(std::fs::File::open("/dev/null").expect("Linux"));
    let no_listener = "socks5d: LISTEN_FDNAMES: socks: a listening TCP socket expected\n";
    let (twice, at) = listener();
    let copy = twice.try_clone().expect("a descriptor");
    let is_twice = format!("socks5d: LISTEN_FDS: {at} is handed over twice\n");
    for (names, sockets, line) in [
        (Some("socks:metp"), vec![twice.into(), copy.into()], &*is_twice),
        (
            Some("web"),
            vec![tcp()],
            "socks5d: LISTEN_FDNAMES: \"web\": socks, metp or http expected\n",
        ),
        (None, vec![tcp()], "socks5d: LISTEN_FDNAMES: \"\": socks, metp or http expected\n"),
        (
            Some("socks:socks"),
            vec![tcp(), tcp()],
            "socks5d: LISTEN_FDNAMES: socks comes twice: one socket expected\n",
        ),
        (Some("socks"), vec![unconnected()], no_listener),
        (Some("socks"), vec![udp()], no_listener),
        (Some("socks"), vec![file()], no_listener),
    ] {
        assert_eq!(refused(names, sockets), (Some(64), line.to_owned()), "{names:?}");
    }
}

/// The variables are gone, and so are the descriptors for what it might start (FD_CLOEXEC). A shell's child that has
/// inherited the variables of another process has sockets of its own.
#[test]
fn variables_and_descriptors_are_for_this_process_alone() {
    let (socks, at) = listener();
    let number = socks.as_raw_fd();
    let proxy = Builder::default().sockets("socks", vec![socks.into()]).start();
    let environment = std::fs::read(format!("/proc/{}/environ", proxy.pid())).expect("readable");
    for value in ["LISTEN_FDS=1", "LISTEN_FDNAMES=socks"] {
        assert!(!String::from_utf8_lossy(&environment).contains(value), "{value}");
    }
    let flags = std::fs::read_to_string(format!("/proc/{}/fdinfo/3", proxy.pid()));
    let flags = flags.expect("descriptor 3 is open");
    let flags = flags.lines().find_map(|line| line.strip_prefix("flags:\t")).expect("flags");
    let flags = i32::from_str_radix(flags.trim(), 8).expect("octal");
    assert!(flags & libc::O_CLOEXEC != 0 && flags & libc::O_NONBLOCK != 0, "{flags:o}");
    assert!(number > 2);
    drop(proxy);
    eventually("nothing listens there", || TcpStream::connect_timeout(&at, PATIENCE).is_err());
    let (other, at) = listener();
    let proxy = Builder::default()
        .sockets("socks", vec![other.into()])
        .env("LISTEN_PID", "1")
        .limits("-n 1024")
        .start();
    assert_ne!(proxy.socks_address(), at);
}
