//! Access log and diagnostics: their fields, and readers that are slow, stuck or gone.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStringExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use support::origin::{Origin, closed_port};
use support::proxy::{Proxy, connect, connect_from, send_signal, wait_for_exit};
use support::socks::{Client, HELLO, connect_request, credentials, half_close, name_request};
use support::{PATIENCE, SOON, binary, eventually, read_exactly, read_to_end};

/// The program with pipes that nobody reads unless the test does.
struct Unread {
    child: Child,
    stdout: Option<ChildStdout>,
    stderr: Option<BufReader<ChildStderr>>,
    socks: SocketAddr,
}

impl Unread {
    /// Starts it and reads stderr until it listens, no further.
    fn start(arguments: &[&OsStr]) -> Self {
        let mut child = Command::new(binary("socks5d"))
            .args(["-l", "127.0.0.1", "-p", "0", "-P", "0"])
            .args(arguments)
            .env("PROXY_CTRL_SUPERUSER", "admin:1234")
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdout = child.stdout.take();
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut address = || {
            let mut line = String::new();
            stderr.read_line(&mut line).expect("it says where it listens");
            let (_, address) = line.trim_end().split_once("address=").expect("an address");
            address.parse().expect("an address")
        };
        let (socks, _metp): (SocketAddr, SocketAddr) = (address(), address());
        Unread { child, stdout, stderr: Some(stderr), socks }
    }

    fn client(&self) -> Client {
        Client::new(connect(self.socks))
    }

    fn echoes(&self, echo: &Origin) {
        let mut tunnel = self.client().logged_in("admin", "1234").connected(echo.address);
        tunnel.write_all(b"not blocked").expect("taken");
        assert_eq!(read_exactly(&mut tunnel, 11), b"not blocked");
    }

    /// Reads stdout from now on, to its end.
    fn read_stdout(&mut self) -> JoinHandle<String> {
        gather(self.stdout.take().expect("read once"))
    }

    /// Reads stderr from now on, to its end.
    fn read_stderr(&mut self) -> JoinHandle<String> {
        gather(self.stderr.take().expect("read once"))
    }

    /// Ends it with SIGTERM; says how long that took.
    fn stop(&mut self) -> Duration {
        let start = Instant::now();
        send_signal(&self.child, libc::SIGTERM);
        assert_eq!(wait_for_exit(&mut self.child, PATIENCE).code(), Some(0));
        start.elapsed()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("a pipe");
        String::from_utf8(bytes).expect("text")
    })
}

/// How many lines the warnings say were dropped.
fn dropped(diagnostics: &str, stream: &str) -> usize {
    let object = if stream == "diagnostics" { "stderr" } else { "stdout" };
    let marker = format!(" lines of the {stream} were dropped: its reader is slow: {object}");
    let counts = diagnostics.lines().filter_map(|line| line.strip_suffix(&marker));
    counts.map(|rest| rest.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)).sum()
}

/// A name of 255 bytes, each of which is shown as four.
const LOUD: [u8; 255] = [0xff; 255];

#[test]
fn a_request_is_one_line_of_twelve_fields() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let mut tunnel = proxy.tunnel(echo.address);
    let source = tunnel.local_addr().expect("connected").port().to_string();
    tunnel.write_all(b"12345").expect("taken");
    half_close(&tunnel);
    assert_eq!(read_to_end(&mut tunnel), b"12345");
    let line = proxy.stdout.wait_for(|_| true);
    let fields: Vec<&str> = line.split('\t').collect();
    let port = echo.address.port().to_string();
    let [date, rest @ .., milliseconds, reason] = &fields[..] else { panic!("{line}") };
    let expected = ["admin", "A", "127.0.0.1", &source, "127.0.0.1", &port, "0", "5", "5"];
    assert_eq!((rest, *reason), (&expected[..], "finished"));
    assert!(milliseconds.parse::<u64>().is_ok_and(|time| time < 20_000), "{line}");
    let digits: String = date.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(digits, "9999-99-99T99:99:99Z");
}

#[test]
fn refused_requests_have_a_line_and_lost_handshakes_none() {
    let proxy = Proxy::with(&["--linger-timeout", "0.2"]);
    let (_held, closed) = closed_port();
    proxy.socks();
    Client::new(proxy.socks()).say(HELLO).hears(b"\x05\x02");
    let mut wrong = Client::new(proxy.socks());
    wrong.say(HELLO).hears(b"\x05\x02").say(&credentials(b"admin", b"x")).hears(b"\x01\x01");
    drop(wrong);
    proxy.wait_until_idle();
    proxy.client().say(&connect_request(closed)).refused(5);
    let ends = |middle: &str| {
        let wanted = format!("\t{middle}\t0\t0\t");
        proxy.stdout.wait_for(|line| line.contains(&wanted) && line.ends_with("\trefused"))
    };
    ends(&format!("127.0.0.1\t{}\t5", closed.port()));
    proxy.client().say(b"\x05\x09\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50").refused(7);
    ends("::1\t80\t7");
    proxy.client().say(&name_request(b"*", 443)).refused(4);
    ends("*\t443\t4");
    assert_eq!(proxy.stdout.all().len(), 3);
}

/// What comes from the wire cannot forge a line, a field or an escape sequence: not in the access log, not
/// in the diagnostics.
#[test]
fn names_are_escaped_in_both_logs() {
    let name = b"e\\v\te\x1b[2J\r\nl\xff \"";
    let shown = "e\\x5cv\\x09e\\x1b[2J\\x0d\\x0al\\xff\\x20\"";
    // What no account on the command line can hold: control characters.
    let (good, good_shown) = (b"e\\vel\xff \"", "e\\x5cvel\\xff\\x20\"");
    let account = OsString::from_vec([&good[..], b":pass"].concat());
    let proxy = support::proxy::Builder::default().args([OsString::from("-u"), account]).start();
    let log_in = |name: &[u8], password: &[u8]| {
        let mut client = Client::new(proxy.socks());
        client.say(HELLO).hears(b"\x05\x02").say(&credentials(name, password));
        client
    };
    log_in(name, b"wrong").hears(b"\x01\x01").hears_eof();
    let says = format!("WARN  auth failed: service=socks remote=127.0.0.1 user=\"{shown}\"");
    proxy.stderr.wait_for(|line| line.ends_with(&says));
    let mut client = log_in(good, b"pass");
    client.hears(b"\x01\x00").say(&name_request(name, 80)).refused(4);
    drop(client);
    let line = proxy.stdout.wait_for(|line| line.contains("refused"));
    let fields: Vec<&str> = line.split('\t').collect();
    assert_eq!((fields.len(), fields[1], fields[5]), (12, good_shown, shown));
    assert_eq!(proxy.stdout.all().len(), 1);
}

/// Nobody reads stdout. Requests go on; later what fitted is there in whole lines, and a warning tells how
/// many did not fit.
#[test]
fn a_stuck_reader_of_the_access_log_stops_nobody() {
    const REQUESTS: usize = 1500;
    let account = OsString::from_vec([&LOUD[..], b":pass"].concat());
    let mut proxy = Unread::start(&["-u".as_ref(), &account]);
    let (stderr, echo) = (proxy.read_stderr(), Origin::echo());
    let request = [HELLO, &credentials(&LOUD, b"pass"), &name_request(&LOUD, 80)].concat();
    for _ in 0..REQUESTS {
        let mut client = proxy.client();
        client.say(&request).hears(b"\x05\x02\x01\x00").refused(4);
    }
    proxy.echoes(&echo);
    let stdout = proxy.read_stdout();
    proxy.stop();
    let (log, diagnostics) = (stdout.join().expect("read"), stderr.join().expect("read"));
    assert!(log.ends_with('\n') && log.lines().all(|line| line.split('\t').count() == 12));
    let (written, dropped) = (log.lines().count(), dropped(&diagnostics, "access log"));
    assert!(written > 500 && dropped > 0, "{written} written, {dropped} dropped");
    assert_eq!(written + dropped, REQUESTS + 1);
}

/// Nobody reads stderr, and everybody gets the password wrong. The loop goes on, and the access log too.
#[test]
fn a_stuck_reader_of_the_diagnostics_stops_nobody() {
    const FAILURES: usize = 3000;
    let (mut proxy, echo) = (Unread::start(&[]), Origin::echo());
    let stdout = proxy.read_stdout();
    let attempt = [HELLO, &credentials(&LOUD, b"wrong")].concat();
    for number in 0..FAILURES {
        // Ten of one source have a line each.
        let [.., high, low] = (number / 10).to_be_bytes();
        let source = [127, 1, high, low].into();
        let mut client = Client::new(connect_from(source, proxy.socks));
        client.say(&attempt).hears(b"\x05\x02\x01\x01").hears_eof();
    }
    proxy.echoes(&echo);
    let stderr = proxy.read_stderr();
    proxy.stop();
    let (log, diagnostics) = (stdout.join().expect("read"), stderr.join().expect("read"));
    assert_eq!(log.lines().count(), 1, "the access log has its reader");
    let name = format!(" user=\"{}\"", "\\xff".repeat(255));
    let whole = |line: &&str| {
        line.contains("WARN  auth failed: service=socks remote=127.1.") && line.ends_with(&name)
    };
    let failures = diagnostics.lines().filter(|line| line.contains("auth failed"));
    let written = failures.inspect(|line| assert!(whole(line), "{line}")).count();
    let dropped = dropped(&diagnostics, "diagnostics");
    assert!(written > 500 && dropped > 0, "{written} written, {dropped} dropped");
    // The two last lines may have been told, or dropped with the others.
    let last = |line: &&str| line.contains("SIGTERM") || line.contains("served:");
    let told = diagnostics.lines().filter(last).count();
    assert_eq!(written + dropped + told, FAILURES + 2);
}

/// At exit a stuck reader gets one second, both of them together one.
#[test]
fn a_stuck_reader_does_not_hold_up_the_exit() {
    let account = OsString::from_vec([&LOUD[..], b":pass"].concat());
    let mut proxy = Unread::start(&["-u".as_ref(), &account, "--grace".as_ref(), "0".as_ref()]);
    let request = [HELLO, &credentials(&LOUD, b"pass"), &name_request(&LOUD, 80)].concat();
    let attempt = [HELLO, &credentials(&LOUD, b"wrong")].concat();
    // More than a pipe holds, 64 KiB.
    for _ in 0..100 {
        proxy.client().say(&request).hears(b"\x05\x02\x01\x00").refused(4);
        proxy.client().say(&attempt).hears(b"\x05\x02\x01\x01").hears_eof();
    }
    let took = proxy.stop();
    assert!(took >= Duration::from_millis(900), "the reader had no time: {took:?}");
    assert!(took < SOON, "{took:?}");
}

#[test]
fn closed_logs_are_survived() {
    let (mut proxy, echo) = (Unread::start(&[]), Origin::echo());
    drop(proxy.stdout.take());
    drop(proxy.stderr.take());
    for _ in 0..20 {
        proxy.echoes(&echo);
        let mut wrong = proxy.client();
        wrong.say(HELLO).hears(b"\x05\x02").say(&credentials(b"x", b"x")).hears(b"\x01\x01");
    }
    assert!(proxy.stop() < SOON);
}

/// What the program says on stderr under a level, while it serves a login that fails.
fn said_under(level: Option<&str>) -> String {
    for _ in 0..20 {
        let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("loopback"));
        let [socks, metp] = ports.map(|port| port.local_addr().expect("bound"));
        let (p, m) = (format!("--port={}", socks.port()), format!("--metp-port={}", metp.port()));
        let mut command = Command::new(binary("socks5d"));
        command.args(["-l", "127.0.0.1", &p, &m]).stdin(Stdio::null()).stdout(Stdio::null());
        command.env_remove("RUST_LOG").envs(level.map(|level| ("RUST_LOG", level)));
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let stderr = gather(child.stderr.take().expect("piped"));
        let mut up = false;
        eventually("it listens or ends", || {
            up = TcpStream::connect(metp).is_ok() && TcpStream::connect(socks).is_ok();
            up || child.try_wait().expect("a child").is_some()
        });
        if up {
            let mut wrong = Client::new(connect(socks));
            wrong.say(HELLO).hears(b"\x05\x02").say(&credentials(b"x", b"x")).hears(b"\x01\x01");
            wrong.hears_eof();
            drop(wrong);
            send_signal(&child, libc::SIGTERM);
            assert_eq!(wait_for_exit(&mut child, PATIENCE).code(), Some(0));
            return stderr.join().expect("read");
        }
    }
    panic!("no free ports");
}

#[test]
fn rust_log_is_respected() {
    assert_eq!(said_under(Some("off")), "");
    let errors = said_under(Some("warn"));
    assert!(errors.lines().all(|line| line.contains(" WARN  ")), "{errors}");
    assert!(errors.contains("auth failed"), "{errors}");
    for level in [None, Some("info"), Some("debug"), Some("socks5d=debug")] {
        let said = said_under(level);
        assert!(said.contains(" INFO  listening: service=socks") && said.contains("auth failed"));
    }
}
