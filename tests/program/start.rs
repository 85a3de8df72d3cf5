//! The start: the answers to the command line, accounts, ports.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use support::origin::{Origin, closed_port};
use support::proxy::{Builder, Proxy, connect, wait_for_exit};
use support::socks::{Client, HELLO, connect_request, credentials};
use support::{PATIENCE, binary, eventually, has_ipv6, read_exactly};

/// Runs the program until it ends by itself.
fn run(superuser: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("socks5d"));
    command.args(arguments).env_remove("PROXY_CTRL_SUPERUSER").env_remove("RUST_LOG");
    if let Some(superuser) = superuser {
        command.env("PROXY_CTRL_SUPERUSER", superuser);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("socks5d starts");
    let status = wait_for_exit(&mut child, PATIENCE);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    child.stdout.take().expect("piped").read_to_end(&mut stdout).expect("it has ended");
    child.stderr.take().expect("piped").read_to_end(&mut stderr).expect("it has ended");
    Output { status, stdout, stderr }
}

fn echoes(tunnel: &mut TcpStream) {
    tunnel.write_all(b"still here").expect("taken");
    assert_eq!(read_exactly(tunnel, 10), b"still here");
}

/// The server closes a refused client first, so the old connections wait in TIME-WAIT on its side.
#[test]
fn a_restart_takes_its_ports_at_once() {
    // Another program may be quicker to take one of them; but not each time.
    assert!((0..5).any(|_| restarts_on_its_ports()), "it could not have the ports");
}

fn restarts_on_its_ports() -> bool {
    let (_held, closed) = closed_port();
    let mut first = Proxy::start();
    for _ in 0..10 {
        first.client().say(&connect_request(closed)).refused(5);
        first.admin().say("QUIT\n").line();
    }
    first.wait_until_idle();
    let (socks, metp) = (first.socks_address(), first.metp_address());
    first.signal(libc::SIGINT);
    assert_eq!(first.wait().code(), Some(0));
    let on_port = format!(":{:04X} ", socks.port());
    let in_time_wait = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1).is_some_and(|local| local.ends_with(on_port.trim_end())) && fields[3] == "06"
    };
    // A table of many thousand lines changes while it is read; a look may miss one.
    eventually("connections are in TIME-WAIT", || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
        table.lines().any(in_time_wait)
    });
    let mut second = Command::new(binary("socks5d"))
        .args(["-l", "127.0.0.1", "-p", &socks.port().to_string(), "-P", &metp.port().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut ended = false;
    eventually("the second one listens, or could not", || {
        ended = second.try_wait().expect("a child").is_some();
        ended || TcpStream::connect(socks).is_ok() && TcpStream::connect(metp).is_ok()
    });
    if !ended {
        Client::new(connect(socks)).say(b"\x05\x01\x00").hears(b"\x05\xff");
        second.kill().expect("it runs");
        second.wait().expect("it has been killed");
    }
    !ended
}

#[test]
fn help_and_version_go_to_stdout() {
    for (arguments, begins) in [
        (&["-h"][..], "Usage: socks5d [options]\n"),
        (&["--help"], "Usage: socks5d [options]\n"),
        (&["-v"], concat!("socks5d ", env!("CARGO_PKG_VERSION"), "\n")),
        (&["--version"], concat!("socks5d ", env!("CARGO_PKG_VERSION"), "\n")),
    ] {
        let output = run(None, arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&output.stdout).starts_with(begins));
        assert_eq!(output.stderr, b"");
    }
}

/// One line on stderr that names option and value, exit code 64, nothing on stdout.
fn refused(superuser: Option<&str>, arguments: &[&str]) -> String {
    let output = run(superuser, arguments);
    assert_eq!(output.status.code(), Some(64), "{arguments:?}");
    assert_eq!(output.stdout, b"", "{arguments:?}");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.ends_with('\n') && said.matches('\n').count() == 1, "one line: {said:?}");
    said
}

#[test]
fn bad_values_are_named_in_one_line() {
    for (arguments, says) in [
        (&["-p", "65536"][..], "socks5d: -p 65536: 0 to 65535 expected\n"),
        (&["--port=1e3"], "socks5d: -p 1e3: 0 to 65535 expected\n"),
        (&["-P", "-1"], "socks5d: -P -1: 0 to 65535 expected\n"),
        (&["-l", "localhost"], "socks5d: -l localhost: an IP address expected\n"),
        (&["-L", "1.2.3.4.5"], "socks5d: -L 1.2.3.4.5: an IP address expected\n"),
        (
            &["--buffer-size", "0"],
            "socks5d: --buffer-size 0: 1 to 1048576 bytes (units: k, M, G, T) expected\n",
        ),
        (&["--max-connections", "x"], "socks5d: --max-connections x: 1 to 1000000000 expected\n"),
        (&["--dns-threads", ""], "socks5d: --dns-threads \"\": 1 to 1024 expected\n"),
        (&["--log-entries", "1 2"], "socks5d: --log-entries 1\\x202: 0 to 1000000000 expected\n"),
        (
            &["--grace", "soon"],
            "socks5d: --grace soon: 0 or 0.001 to 31536000 seconds (units: ms, s, m, h, d) expected\n",
        ),
        (
            &["--idle-timeout", "\u{1b}[2J"],
            "\\x1b[2J: 0 or 0.001 to 31536000 seconds (units: ms, s, m, h, d) expected\n",
        ),
        (
            &["--linger-timeout", "1\n2"],
            "1\\x0a2: 0 or 0.001 to 31536000 seconds (units: ms, s, m, h, d) expected\n",
        ),
        (&["--wat"], "socks5d: --wat: unknown option; socks5d -h lists all\n"),
        (&["-z"], "socks5d: -z: unknown option; socks5d -h lists all\n"),
        (&["-p"], "socks5d: -p: needs a value\n"),
        (&["serve"], "socks5d: unexpected argument (not shown: it may be a password)\n"),
    ] {
        let said = refused(None, arguments);
        assert!(said.starts_with("socks5d: ") && said.ends_with(says), "{arguments:?}: {said:?}");
    }
}

/// Whatever is wrong with an account, and wherever it went on the command line.
#[test]
fn no_complaint_shows_a_password() {
    let (long_name, long) = ("n".repeat(256), "hunter2".repeat(40));
    let (nameless, endless) = (format!("{long_name}:hunter2"), format!("bob:{long}"));
    for (superuser, arguments, names) in [
        (None, &["-u", ":hunter2"][..], "-u"),
        (None, &["-u", &nameless], "-u nnnn"),
        (None, &["-u", &endless], "-u bob"),
        (None, &["-u", "bob:hunter2", "-u", "bob:hunter2"], "-u bob"),
        (None, &["-u", "bob:hunter2", "-p", "x"], "-p x"),
        (None, &["-u", "bob:hunter2", "alice:hunter2"], "unexpected argument"),
        (None, &["-u", "bob", "hunter2"], "-u: NAME:PASS expected, no colon"),
        (None, &["-u", "hunter2"], "-u: NAME:PASS expected, no colon"),
        (None, &["-user", "bob:hunter2"], "-u: NAME:PASS expected, no colon"),
        (None, &["--userbob:hunter2"], "--userbob"),
        (None, &["--usr=bob:hunter2"], "--usr"),
        (None, &["-U", "bob:hunter2"], "-U"),
        (None, &["-Ubob:hunter2"], "-U"),
        (None, &["--help=bob:hunter2"], "-h"),
        (Some(":hunter2"), &[], "PROXY_CTRL_SUPERUSER"),
        (Some("hunter2"), &[], "PROXY_CTRL_SUPERUSER: NAME:PASS expected, no colon"),
        (Some(&nameless), &[], "PROXY_CTRL_SUPERUSER nnnn"),
        (Some(&endless), &[], "PROXY_CTRL_SUPERUSER bob"),
        (Some("bob:hunter2"), &["-p", "x"], "-p x"),
    ] {
        let said = refused(superuser, arguments);
        assert!(said.contains(names) && !said.contains("hunter2"), "{arguments:?}: {said:?}");
    }
    let said = refused(None, &["-u", "bob:"]);
    assert!(said.contains(" bob: "), "{said:?}");
}

#[test]
fn a_port_in_use_is_told_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = taken.local_addr().expect("bound").port().to_string();
    for (service, arguments) in [
        ("SOCKS", ["-l", "127.0.0.1", "-p", &port, "-P", "0"]),
        ("METP", ["-l", "127.0.0.1", "-p", "0", "-P", &port]),
    ] {
        let output = run(Some("admin:1234"), &arguments);
        assert_eq!(output.status.code(), Some(1), "{service}");
        assert_eq!(output.stdout, b"");
        let said = String::from_utf8(output.stderr).expect("text");
        let begins = format!("socks5d: cannot listen for {service} on 127.0.0.1 port {port}: ");
        assert!(said.starts_with(&begins) && said.matches('\n').count() == 1, "{said:?}");
    }
    // An address that is not this machine's (RFC 5737).
    let output = run(None, &["-l", "192.0.2.1", "-p", "0", "-P", "0"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr).matches('\n').count(), 1);
}

#[test]
fn by_default_it_listens_on_ipv4_and_ipv6() {
    let (proxy, echo) = (Builder::default().listen(None).start(), Origin::echo());
    let port = proxy.socks_address().port();
    let v6 = has_ipv6("listening on IPv6");
    let addresses = [SocketAddr::from(([127, 0, 0, 1], port)), (Ipv6Addr::LOCALHOST, port).into()];
    for address in addresses.into_iter().take(if v6 { 2 } else { 1 }) {
        let client = Client::new(connect(address)).logged_in("admin", "1234");
        let mut tunnel = client.connected(echo.address);
        echoes(&mut tunnel);
        drop(tunnel);
        // A v4-mapped address is shown as what it is.
        let source = format!("\tadmin\tA\t{}\t", address.ip());
        proxy.stdout.wait_for(|line| line.contains(&source));
    }
    assert!(proxy.metp_address().ip().is_loopback(), "METP is not for everybody");
}

/// The ports that were chosen are logged; the ones asked for are used.
#[test]
fn ports_are_chosen_or_given() {
    let proxy = Proxy::start();
    for (service, address) in [("socks", proxy.socks_address()), ("metp", proxy.metp_address())] {
        assert_ne!(address.port(), 0);
        let says = format!("INFO  listening: service={service} address={address}");
        proxy.stderr.wait_for(|line| line.ends_with(&says));
    }
    // Ports that were free a moment ago may be taken by another test; then others are tried.
    let started = (0..20).any(|_| {
        let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("loopback"));
        let [socks, metp] = ports.map(|port| port.local_addr().expect("bound"));
        let (p, m) = (format!("--port={}", socks.port()), format!("--metp-port={}", metp.port()));
        let mut child = Command::new(binary("socks5d"))
            .args(["-l", "127.0.0.1", &p, &m])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut up = false;
        eventually("it listens or ends", || {
            up = TcpStream::connect(socks).is_ok() && TcpStream::connect(metp).is_ok();
            up || child.try_wait().expect("a child").is_some()
        });
        // It may have ended.
        let _ = child.kill();
        child.wait().expect("a child");
        up
    });
    assert!(started);
}

#[test]
fn without_accounts_it_warns_and_lets_nobody_in() {
    let proxy = Builder::default().superuser(None).start();
    proxy.stderr.wait_for(|line| line.contains("WARN") && line.contains("nobody can log in"));
    for (name, password) in [("admin", "1234"), ("", ""), ("root", "")] {
        let mut client = Client::new(proxy.socks());
        client.say(HELLO).hears(b"\x05\x02");
        client.say(&credentials(name.as_bytes(), password.as_bytes()));
        client.hears(b"\x01\x01").hears_eof();
    }
}

#[test]
fn the_superuser_wins_over_a_user_of_its_name() {
    let proxy = Proxy::with(&["-u", "admin:other", "-u", "bob:x"]);
    let warning = proxy.stderr.wait_for(|line| line.contains("WARN"));
    assert!(warning.contains("PROXY_CTRL_SUPERUSER wins") && !warning.contains("other"));
    let mut client = Client::new(proxy.socks());
    client.say(HELLO).hears(b"\x05\x02").say(&credentials(b"admin", b"other")).hears(b"\x01\x01");
    drop(proxy.client());
    assert_eq!(proxy.admin().ask("USERS"), ["admin admin", "bob user"]);
}

/// Files, here-documents and secrets managers leave a line end behind the value; other control characters are a
/// mistake that nobody could type again.
#[test]
fn a_line_end_behind_the_superuser_is_no_part_of_the_password() {
    for superuser in ["admin:1234\n", "admin:1234\r\n"] {
        let proxy = Builder::default().superuser(Some(superuser)).start();
        Client::new(proxy.socks()).logged_in("admin", "1234");
        proxy.metp().logged_in("admin", "1234");
    }
    let hidden = "hun\tter2";
    for (superuser, arguments, says) in [
        (Some("admin:hunter2\n\n"), &[][..], "PROXY_CTRL_SUPERUSER admin: the password"),
        (Some("admin:hunter2\r"), &[], "PROXY_CTRL_SUPERUSER admin: the password"),
        (Some("admin:hunter2\nbob:hunter3"), &[], "PROXY_CTRL_SUPERUSER admin: the password"),
        (Some("\nadmin:hunter2"), &[], "PROXY_CTRL_SUPERUSER \\x0aadmin: the name"),
        (None, &["-u", "bob:hunter2\n"], "-u bob: the password"),
        (None, &["-u", "bob:hunter2\r\n"], "-u bob: the password"),
        (None, &["-u", "bob:\u{1b}hunter2"], "-u bob: the password"),
        (None, &["-u", "bob:hunter2\u{7f}"], "-u bob: the password"),
        (None, &["-u", "b\tob:hunter2"], "-u b\\x09ob: the name"),
        (None, &["--user", &format!("bob:{hidden}")], "-u bob: the password"),
    ] {
        let said = refused(superuser, arguments);
        let expected = format!("socks5d: {says} holds a control character\n");
        assert_eq!(said, expected, "{arguments:?}");
    }
}

/// Whatever the system refuses at the start, the one line says what for.
#[test]
fn an_error_of_the_start_says_what_was_being_done() {
    let mut complaints = 0;
    for descriptors in 4..64 {
        let mut command = Command::new("sh");
        let limited = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
        command.args(["-c", &limited]).arg(binary("socks5d"));
        command.args(["-l", "127.0.0.1", "-p", "0", "-P", "0"]).env_remove("RUST_LOG");
        command.env("PROXY_CTRL_SUPERUSER", "admin:1234");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut stderr = std::io::BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        std::io::BufRead::read_line(&mut stderr, &mut line).expect("it says something");
        if line.contains("listening: ") {
            child.kill().expect("it runs");
            child.wait().expect("a child");
            break;
        }
        let code = wait_for_exit(&mut child, Duration::from_secs(10)).code();
        // With so few, some of them inherited, the program cannot even be loaded.
        if code == Some(127) {
            continue;
        }
        assert_eq!(code, Some(1), "{descriptors}: {line}");
        let (_, what) = line.split_once("socks5d: ").expect("its name");
        assert!(!what.starts_with("Too many open files"), "{descriptors}: {line}");
        assert!(what.starts_with("cannot ") || what.contains("descriptors"), "{line}");
        complaints += 1;
    }
    assert!(complaints > 0, "what it needs at least");
}
