//! The built binaries, curl, and files: what a user does, from one end to the other.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::thread;

use support::client::client;
use support::metp::Metp;
use support::origin::{Origin, listen};
use support::proxy::{Proxy, connect};
use support::socks::half_close;
use support::{eventually, has_ipv6, noise, read_exactly, read_to_end, read_to_reset};

/// curl as a user of the proxy, with no other setting from outside.
fn curl(proxy: &Proxy, login: &str) -> Command {
    let mut curl = Command::new("curl");
    let server = format!("socks5h://{login}@{}", proxy.socks_address());
    curl.args(["-q", "-sS", "--max-time", "60", "--noproxy", "", "--proxy", &server]);
    curl.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    curl.stdin(Stdio::null());
    curl
}

#[test]
fn a_file_by_name_by_ipv4_and_by_ipv6_is_identical() {
    let (proxy, file) = (Proxy::with(&["-u", "alice:secret"]), noise(3_000_001, 5));
    let v4 = Origin::http_on(Ipv4Addr::LOCALHOST.into(), file.clone());
    // Without IPv6, the other address of loopback is IPv4 again.
    let v6 = has_ipv6("curl to an IPv6 address");
    let other = if v6 { Ipv6Addr::LOCALHOST.into() } else { IpAddr::from([127, 0, 0, 2]) };
    let v6 = Origin::http_on(other, file.clone());
    let by_name = SocketAddr::from((Ipv4Addr::LOCALHOST, v4.address.port())).port();
    let urls = [
        format!("http://localhost:{by_name}/file"),
        format!("http://{}/file", v4.address),
        format!("http://{}/file", v6.address),
    ];
    for url in &urls {
        let done = curl(&proxy, "alice:secret").arg(url).output().expect("curl is installed");
        assert!(done.status.success(), "{url}: {}", String::from_utf8_lossy(&done.stderr));
        assert!(done.stdout == file, "{url}");
    }
    proxy.wait_until_idle();
    assert_eq!(proxy.metrics()[0], 3);
    let targets = urls.map(|url| url["http://".len()..].trim_end_matches("/file").to_owned());
    let records = proxy.admin().ask("GET_LOGS");
    for (record, target) in records.iter().zip(&targets) {
        assert!(record.contains(&format!(" alice 127.0.0.1 {target} 300")), "{record}");
    }
}

#[test]
fn a_wrong_password_gets_nothing() {
    let (proxy, origin) = (Proxy::start(), Origin::http(b"body".to_vec()));
    let url = format!("http://{}/", origin.address);
    for login in ["admin:wrong", "nobody:1234"] {
        let done = curl(&proxy, login).arg(&url).output().expect("curl is installed");
        assert!(!done.status.success() && done.stdout.is_empty(), "{login}");
    }
    assert_eq!(proxy.metrics(), [2, 0, 0]);
}

#[test]
fn a_thousand_curls_at_once() {
    let (proxy, origin) = (Proxy::start(), Origin::http(b"an answer\n".to_vec()));
    let server = format!("socks5h://admin:1234@{}", proxy.socks_address());
    let mut admin = proxy.admin();
    let before = proxy.descriptors();
    // The number stands inside the only URL: curl would take a stray argument for another one.
    let script = format!(
        "seq 1 1000 | xargs -P1000 -I{{}} curl -q -sS --max-time 60 --noproxy '' --proxy {server} 'http://{}/{{}}'",
        origin.address
    );
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).env_clear().env("PATH", path).stdin(Stdio::null());
    let done = shell.output().expect("a shell");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(done.stdout == b"an answer\n".repeat(1000));
    eventually("no connection is open", || admin.metrics()[1] == 0);
    let shown = client(proxy.metp_address(), ["-m"]).stdout;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[..2], ["Historical Connections: 1000", "Current Connections:    0"]);
    eventually("all descriptors are closed", || proxy.descriptors() == before);
}

/// Sends `bytes` in pieces as they are asked for; the rest when nobody asks any more.
fn pieces(mut stream: impl Write, bytes: &[u8], gate: &std::sync::mpsc::Receiver<usize>) {
    let mut rest = bytes;
    while let Ok(count) = gate.recv() {
        let (piece, later) = rest.split_at(count.min(rest.len()));
        stream.write_all(piece).expect("the proxy takes it");
        rest = later;
    }
    stream.write_all(rest).expect("the proxy takes it");
}

#[test]
fn both_ways_at_once_while_the_buffer_size_changes() {
    const MIB: usize = 1 << 20;
    const TOTAL: usize = 32 * MIB;
    // Size, payload let loose under it in each direction, and relayed bytes to wait for. The last bytes of
    // each step are still on their way when the next size comes.
    const STEPS: [(usize, usize, u64); 6] = [
        (1, 256 << 10, 16 << 10),
        (17, 512 << 10, 256 << 10),
        (4096, 4 * MIB, 4 << 20),
        (65536, 8 * MIB, 8 << 20),
        (1 << 20, 8 * MIB, 8 << 20),
        (1, 64 << 10, 16 << 10),
    ];
    let proxy = Proxy::start();
    let (up, down) = (noise(TOTAL, 11), noise(TOTAL, 22));
    let listener = listen(Ipv4Addr::LOCALHOST.into()).expect("loopback");
    let mut near = proxy.tunnel(listener.local_addr().expect("bound"));
    let (mut far, _) = listener.accept().expect("the proxy connects");
    far.set_read_timeout(Some(support::PATIENCE)).expect("a socket");
    let mut admin = proxy.admin();
    thread::scope(|scope| {
        let (open_up, gate_up) = std::sync::mpsc::channel();
        let (open_down, gate_down) = std::sync::mpsc::channel();
        let (near_out, far_out) =
            (near.try_clone().expect("a socket"), far.try_clone().expect("a socket"));
        let (up, down) = (&up, &down);
        scope.spawn(move || {
            pieces(&near_out, up, &gate_up);
            half_close(&near_out);
        });
        scope.spawn(move || {
            pieces(&far_out, down, &gate_down);
            half_close(&far_out);
        });
        let arrived_up = scope.spawn(move || read_to_end(&mut far) == *up);
        let arrived_down = scope.spawn(move || read_to_end(&mut near) == *down);
        let mut relayed = 0;
        for (size, let_loose, wait_for) in STEPS {
            assert_eq!(admin.command(&format!("CHANGE-BUFFER {size}")), "200 OK");
            open_up.send(let_loose).expect("it listens");
            open_down.send(let_loose).expect("it listens");
            eventually("bytes move", || admin.metrics()[2] >= relayed + wait_for);
            relayed = admin.metrics()[2];
        }
        assert!(relayed < 2 * TOTAL as u64, "all sizes were used during the transfer");
        assert_eq!(admin.command("CHANGE-BUFFER 65536"), "200 OK");
        drop((open_up, open_down));
        assert!(arrived_up.join().expect("no panic"), "what was sent up");
        assert!(arrived_down.join().expect("no panic"), "what was sent down");
    });
    eventually("every byte is counted once", || admin.metrics() == [1, 0, 2 * TOTAL as u64]);
}

/// The table of METP section 1, said as with nc(1): all of it in raw lines, and the answers to the letter.
#[test]
fn the_exchange_of_the_contract_in_raw_bytes() {
    let (proxy, origin) = (Proxy::start(), Origin::echo());
    let mut tunnel = proxy.tunnel(origin.address);
    tunnel.write_all(&noise(512, 1)).expect("taken");
    read_exactly(&mut tunnel, 512);
    eventually("1024 bytes are counted", || proxy.metrics() == [1, 1, 1024]);
    let record = proxy.admin().ask("GET_LOGS").remove(0);

    let mut nc = connect(proxy.metp_address());
    nc.write_all(
        b"HELLO METP/1.0\nAUTH admin 1234\nNOSUCHVERB\nGET_METRICS\nGET_LOGS\nUSERS\n\
          CHANGE-BUFFER 8192\nCHANGE-BUFFER none\nADD-USER alice secret\nADD-USER alice secret\n\
          SET-ROLE alice admin\nSET-ROLE alice boss\nUSERS\nDELETE-USER alice\nDELETE-USER alice\n\
          SET-ROLE alice user\nQUIT\n",
    )
    .expect("taken");
    let expected = format!(
        "200 Welcome to METP/1.0\n\
         200 OK\n\
         400 Bad Request [SYNTAX] unknown verb\n\
         200 OK\nHISTORICAL_CONNECTIONS: 1\nCURRENT_CONNECTIONS:    1\nBYTES_TRANSFERRED:      1024\n.\n\
         200 OK\n{record}\n.\n\
         200 OK\nadmin admin\n.\n\
         200 OK\n\
         400 Bad Request [SYNTAX] wrong arguments\n\
         200 OK\n\
         400 Bad Request [EXISTS] user exists\n\
         200 OK\n\
         400 Bad Request [BADROLE] role must be user or admin\n\
         200 OK\nadmin admin\nalice admin\n.\n\
         200 OK\n\
         400 Bad Request [NOUSER] no such user\n\
         400 Bad Request [NOUSER] no such user\n\
         200 Goodbye\n"
    );
    assert_eq!(String::from_utf8_lossy(&read_to_end(&mut nc)), expected);
    assert!(record.ends_with(&format!(" admin 127.0.0.1 {} 1024", origin.address)), "{record}");
}

/// An administrator's day with the command line: what it changes acts on the proxy at once.
#[test]
fn the_client_administers_a_proxy_that_curl_uses() {
    let (proxy, origin) = (Proxy::start(), Origin::http(b"body".to_vec()));
    let url = format!("http://{}/", origin.address);
    let fetch = |login: &str| {
        let done = curl(&proxy, login).arg(&url).output().expect("curl is installed");
        done.status.success().then_some(done.stdout)
    };
    assert_eq!(fetch("alice:pass"), None);
    assert_eq!(client(proxy.metp_address(), ["-a", "alice", "pass"]).code, 0);
    assert_eq!(fetch("alice:pass"), Some(b"body".to_vec()));
    let log = client(proxy.metp_address(), ["-g"]).stdout;
    assert!(log.contains(&format!(" alice 127.0.0.1 {} ", origin.address)), "{log}");
    let mut held = support::socks::Client::new(proxy.socks()).logged_in("alice", "pass");
    let mut alice = Metp::new(connect(proxy.metp_address())).logged_in("alice", "pass");
    assert_eq!(client(proxy.metp_address(), ["-d", "alice"]).code, 0);
    assert_eq!(fetch("alice:pass"), None);
    assert_eq!(read_to_reset(&mut held.stream), b"");
    alice.say("GET_METRICS\n").hears("401 Unauthorized\n").hears_eof();
}

/// The README's example: a question to a DNS server by UDP through the proxy, by a program that needs nothing but Python.
#[test]
fn a_dns_server_is_asked_through_the_proxy() {
    let (proxy, server) = (Proxy::with(&["-u", "alice:secret"]), support::udp::socket());
    let address = server.local_addr().expect("bound");
    let answering = thread::spawn(move || {
        let (question, from) = support::udp::received(&server);
        // RFC 1035 section 4: one question, one answer: its name by a pointer, A, IN, 60 s, 4 octets.
        let mut answer = question.clone();
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 55]);
        server.send_to(&answer, from).expect("sent");
        question
    });
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/socks-dns.py");
    let login = format!("alice:secret@{}", proxy.socks_address());
    let mut python = Command::new("python3");
    python.args([script, &login, &address.to_string(), "host.test"]);
    let done = python.output().expect("python3 is installed");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(String::from_utf8_lossy(&done.stdout), "192.0.2.55\n");
    let question = answering.join().expect("asked");
    assert!(question.ends_with(b"\x04host\x04test\x00\x00\x01\x00\x01"), "{question:x?}");
    let refused = Command::new("python3")
        .args([script, &format!("alice:wrong@{}", proxy.socks_address()), "127.0.0.1", "host.test"])
        .output()
        .expect("python3 is installed");
    assert_eq!(String::from_utf8_lossy(&refused.stderr), "the login failed\n");
}
