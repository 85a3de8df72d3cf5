//! What the diagnostics say of clients that do not get in: one line for each at level debug, with its address and
//! the cause, and one for each episode at level info where this server is short of something. All of it is printable
//! ASCII.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use support::metp::Metp;
use support::origin::{Origin, closed_port};
use support::proxy::{Builder, Proxy, connect};
use support::socks::{
    CHOSEN, Client, DENIED, HELLO, WELCOME, connect_request, credentials, half_close, name_request,
    reset,
};
use support::{binary, eventually, read_exactly, read_to_end};

const PROXY_V1: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 443\r\n";
const PROXY_V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x9c\x40\x01\xbb";
const TLS: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x0a\x0a\x0a";

/// The line for a connection, whose own end is at this address.
fn waits_for(proxy: &Proxy, service: &str, source: SocketAddr, cause: &str) {
    let line = format!("DEBUG not let in: service={service} remote={source} cause={cause}");
    proxy.stderr.wait_for(|said| said.ends_with(&line));
}

fn address(stream: &TcpStream) -> SocketAddr {
    stream.local_addr().expect("connected")
}

#[test]
fn whoever_does_not_get_in_over_socks_has_a_line() {
    let proxy = Proxy::with(&["--log-level", "debug"]);
    for (bytes, cause) in [
        (&b"\x05\x01\x00"[..], "no-acceptable-method"),
        (b"\x04\x01\x00\x50\x7f\x00\x00\x01user\x00", "socks4"),
        (b"GET / HTTP/1.1\r\n\r\n", "http"),
        (b"CONNECT example.com:443 HTTP/1.1\r\n\r\n", "http"),
        (TLS, "tls"),
        (PROXY_V1, "proxy-header"),
        (PROXY_V2, "proxy-header"),
        (b"HELLO METP/1.0\n", "metp"),
        (b"SSH-2.0-x\r\n", "ssh"),
        (b"\0\0\0", "other-protocol"),
        (b"\x05\x01\x02\x07", "bad-login"),
        (b"\x05\x01\x02\x01\x05admin\x041234\x05\x01\x00\x09", "bad-request"),
        (b"\x05\x01\x02\x01\x05admin\x041234\x04", "bad-request"),
        (b"\x05\x01\x02\x01\x01x\x01y", "auth-failed"),
    ] {
        let mut client = proxy.socks();
        client.write_all(bytes).expect("taken");
        waits_for(&proxy, "socks", address(&client), cause);
    }
    for bytes in [&b""[..], b"\x05", b"\x05\x01\x02\x01\x05adm"] {
        let mut client = proxy.socks();
        client.write_all(bytes).expect("taken");
        half_close(&client);
        waits_for(&proxy, "socks", address(&client), "left");
    }
    let mut client = proxy.socks();
    client.write_all(HELLO).expect("taken");
    assert_eq!(read_exactly(&mut client, 2), CHOSEN);
    let source = address(&client);
    reset(client);
    waits_for(&proxy, "socks", source, "client-reset");
    let told = proxy.stderr.all().iter().filter(|line| line.contains("not let in: ")).count();
    assert_eq!(told, 18, "one for each");
}

/// Whoever says nothing, or too little, whatever has come of it in time.
#[test]
fn whoever_takes_too_long_has_a_line() {
    let timeouts = ["--handshake-timeout", "0.2", "--metp-login-timeout", "0.2"];
    let proxy = Builder::default().args(["--log-level", "debug"]).args(timeouts).start();
    for bytes in [&b""[..], b"\x05\x01\x02", b"\x05\x01\x02\x01\x05admin\x041234"] {
        let mut client = proxy.socks();
        // It may be closed already.
        let _ = client.write_all(bytes);
        waits_for(&proxy, "socks", address(&client), "handshake-timeout");
    }
    for bytes in [&b""[..], b"HELLO METP/1.0\n", b"HELLO MET"] {
        let mut client = connect(proxy.metp_address());
        let _ = client.write_all(bytes);
        waits_for(&proxy, "metp", address(&client), "login-timeout");
    }
}

#[test]
fn whoever_does_not_get_in_over_metp_has_a_line() {
    let proxy = Proxy::with(&["--log-level", "debug"]);
    for (bytes, cause) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "http"),
        (b"POST / HTTP/1.1\r\n\r\n", "http"),
        (TLS, "tls"),
        (PROXY_V1, "proxy-header"),
        (PROXY_V2, "proxy-header"),
        (b"AUTH admin 1234\n", "bad-request"),
        (b"HELLO METP/9.9\n", "bad-request"),
        (b"HELLO METP/1.0\nUSERS\n", "bad-request"),
        (&[b'x'; 5000], "bad-request"),
        (b"HELLO METP/1.0\nAUTH admin wrong\n", "auth-failed"),
    ] {
        let mut client = connect(proxy.metp_address());
        client.write_all(bytes).expect("taken");
        waits_for(&proxy, "metp", address(&client), cause);
    }
    for (bytes, cause) in [
        (&b""[..], "left"),
        (b"HELLO METP/1.0\n", "left"),
        (b"HELLO MET", "left"),
        // What comes without a line end is waited for.
        (&TLS[..8], "tls"),
        (HELLO, "socks5"),
        (b"\x04\x01\x00\x50", "socks4"),
    ] {
        let mut client = connect(proxy.metp_address());
        client.write_all(bytes).expect("taken");
        half_close(&client);
        waits_for(&proxy, "metp", address(&client), cause);
    }
    let told = proxy.stderr.all().iter().filter(|line| line.contains("not let in: ")).count();
    assert_eq!(told, 16, "one for each");
    // Whoever gets in has none, however it ends.
    let mut admin = proxy.admin();
    admin.say("QUIT\n").line();
    drop(proxy.admin());
    drop(proxy.client());
    proxy.wait_until_idle();
}

/// A newcomer evicts whoever has said nothing for too long.
#[test]
fn whoever_makes_room_has_a_line() {
    let arguments = ["--log-level", "debug", "--max-connections", "2", "--max-metp-sessions", "2"];
    let proxy = Proxy::with(&arguments);
    let silent = proxy.socks();
    let newcomer = proxy.socks();
    waits_for(&proxy, "socks", address(&silent), "evicted");
    drop((silent, newcomer));
    let silent: Vec<TcpStream> = (0..2).map(|_| connect(proxy.metp_address())).collect();
    let _admin = proxy.admin();
    eventually("one of them makes room", || {
        let all = proxy.stderr.all();
        silent.iter().any(|stream| {
            let source = address(stream);
            let line = format!("not let in: service=metp remote={source} cause=evicted");
            all.iter().any(|said| said.ends_with(&line))
        })
    });
}

/// Whoever has logged in was let in, though he makes room later; and why somebody was refused is said once.
#[test]
fn whoever_makes_room_at_metp_has_no_second_line() {
    let proxy = Builder::default()
        .args(["--log-level", "debug", "--max-metp-sessions", "2", "--linger-timeout", "600"])
        .args(["-u", "bob:pw"])
        .start();
    let mut admin = proxy.admin();
    let stream = connect(proxy.metp_address());
    let bob = address(&stream);
    let mut guest = Metp::new(stream).logged_in("bob", "pw");
    assert_eq!(guest.command("GET_METRICS"), "200 OK");
    let stream = connect(proxy.metp_address());
    let eve = address(&stream);
    let mut refused = Metp::new(stream);
    refused
        .say("HELLO METP/1.0\nAUTH bob wrong\n")
        .hears("200 Welcome to METP/1.0\n401 Unauthorized\n");
    waits_for(&proxy, "metp", eve, "auth-failed");
    let mut other = connect(proxy.metp_address());
    other.write_all(b"GET / HTTP/1.1\n").expect("taken");
    waits_for(&proxy, "metp", address(&other), "http");
    assert_eq!(admin.command("PING"), "200 PONG");
    let lines = proxy.stderr.all();
    let about = |source: SocketAddr| {
        let remote = format!("remote={source} ");
        lines.iter().filter(|line| line.contains("not let in") && line.contains(&remote)).count()
    };
    assert_eq!((about(bob), about(eve)), (0, 1), "{lines:?}");
}

/// At the level that is the default there is one line for an episode, with the address.
#[test]
fn a_full_address_is_told_once() {
    let proxy = Proxy::with(&["--max-connections-per-ip", "1"]);
    let _held = proxy.client();
    for _ in 0..20 {
        assert_eq!(read_to_end(&mut proxy.socks()), b"");
    }
    let full = "INFO  socks: 127.0.0.1 has as many connections as one address may have";
    proxy.stderr.wait_for(|line| line.ends_with(full));
    let mut admin = proxy.admin();
    admin.ask("USERS");
    let lines = proxy.stderr.all();
    assert_eq!(lines.iter().filter(|line| line.contains("one address may have")).count(), 1);
    assert!(!lines.iter().any(|line| line.contains("not let in")), "{lines:?}");
}

/// In a network of its own with four local ports, which are taken by connections to the same target.
const FEW_PORTS: &str = r#"
import socket, subprocess, sys, os
open("/proc/sys/net/ipv4/ip_local_port_range", "w").write("40000 40003")
proxy = subprocess.Popen([sys.argv[1], "-l", "127.0.0.1", "-p", "1080", "-P", "8080", "--grace", "0"],
    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    env={"PROXY_CTRL_SUPERUSER": "admin:1234"})
said = [proxy.stderr.readline(), proxy.stderr.readline()]
target = socket.socket()
target.bind(("127.0.0.1", 7000))
target.listen(64)
clients = []
for number in range(8):
    client = socket.socket()
    client.bind(("127.0.0.1", 50000 + number))
    client.connect(("127.0.0.1", 1080))
    client.sendall(b"\x05\x01\x02\x01\x05admin\x041234\x05\x01\x00\x01\x7f\0\0\x01\x1b\x58")
    reply = b""
    while len(reply) < 14:
        reply += client.recv(14 - len(reply)) or sys.exit("the end")
    clients.append((client, reply[5]))
print([code for _, code in clients])
proxy.terminate()
sys.stdout.write(proxy.stderr.read())
"#;

#[test]
fn a_lack_of_local_ports_is_told_once() {
    let mut inside = Command::new("unshare");
    inside.args(["-rn", "sh", "-c", "ip link set lo up && exec python3 -c \"$0\" \"$1\""]);
    let output = inside.arg(FEW_PORTS).arg(binary("socks5d")).stdin(Stdio::null()).output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        other => {
            println!("skipped: no network of its own can be had here: {other:?}");
            return;
        }
    };
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.starts_with("[0, 0, 0, 0, 1, 1, 1, 1]\n"), "{said}");
    let told = "WARN  no free local port or address for a connection to 127.0.0.1:7000: ";
    assert_eq!(said.matches(told).count(), 1, "{said}");
}

/// Whatever the program says, on both streams: lines of printable ASCII. So it is made to say much.
#[test]
fn every_line_is_printable_ascii() {
    let options = ["--log-level", "trace"];
    let mut proxy = Builder::default().args(options).args(["-u", "\u{e9}t\u{e9}:pw"]).start();
    let (echo, (_held, closed)) = (Origin::echo(), closed_port());
    let hostile = "\u{e9}\u{1b}[2J\u{202e}\n\t\u{fffd}".as_bytes();
    let mut admin = proxy.admin();
    admin.say("ADD-USER bob p\u{e9}\n").hears("200 OK\n");
    admin.say("ADD-USER b\u{e9} p\n").line();
    admin.say("CHANGE-BUFFER 4096\n").hears("200 OK\n");
    let mut tunnel = proxy.tunnel(echo.address);
    tunnel.write_all(b"here").expect("taken");
    assert_eq!(read_exactly(&mut tunnel, 4), b"here");
    proxy.client().say(&connect_request(closed)).refused(5);
    proxy.client().say(&name_request(hostile, 80)).refused(4);
    let mut client = Client::new(proxy.socks());
    client.say(HELLO).hears(CHOSEN).say(&credentials("\u{e9}t\u{e9}".as_bytes(), b"pw"));
    client.hears(WELCOME).say(&name_request("\u{fc}".as_bytes(), 80)).reply();
    drop(client);
    for _ in 0..15 {
        let mut client = Client::new(proxy.socks());
        client
            .say(HELLO)
            .hears(CHOSEN)
            .say(&credentials(hostile, hostile))
            .hears(DENIED)
            .hears_eof();
    }
    for bytes in [TLS, PROXY_V2, b"\xff\xfe\0", b"\x05\x02\x00\xff", hostile] {
        let mut client = proxy.socks();
        // It may be closed already.
        let _ = client.write_all(bytes);
        Metp::new(connect(proxy.metp_address())).say_bytes(bytes).say("\n");
    }
    admin.set("handshake-timeout", "0.1");
    let _silent = proxy.socks();
    proxy.stderr.wait_for(|line| line.contains("cause=handshake-timeout"));
    admin.set("max-connections-per-ip", 1);
    assert_eq!(read_to_end(&mut proxy.socks()), b"");
    proxy.stderr.wait_for(|line| line.contains("one address may have"));
    proxy.stderr.wait_for(|line| line.contains("more times: remote=127.0.0.1"));
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2, libc::SIGTERM, libc::SIGTERM] {
        proxy.signal(signal);
    }
    assert_eq!(proxy.wait().code(), Some(0));
    let served = proxy.stderr.wait_for(|line| line.contains("INFO  served: "));
    assert!(served.contains(" turn_p50=") && served.contains(" turn_p99="), "{served}");
    let printable = |line: &String| line.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    for line in proxy.stderr.all() {
        assert!(printable(&line), "{line:?}");
        assert!(!line.contains("Metp") && !line.contains("Socks:"), "{line:?}");
    }
    for line in proxy.stdout.all() {
        assert!(printable(&line.replace('\t', " ")), "{line:?}");
    }
    assert!(proxy.stdout.all().len() >= 4);
}
