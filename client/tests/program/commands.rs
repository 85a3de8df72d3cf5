//! Every option against a live server: stdout and stderr to the letter, and the exit codes.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use support::client::{Outcome, client, command, outcome, run};
use support::eventually;
use support::origin::{Origin, closed_port};
use support::proxy::{Builder, Proxy};
use support::socks::{Client, half_close};

const DONE: &str = "Operation successful\nConnection closed\n";

fn connecting(server: SocketAddr) -> String {
    format!("Connecting to {server} with user 'admin'\n")
}

/// A call that does everything it was asked for.
fn succeeds(server: SocketAddr, arguments: &[&str], stdout: &str) {
    let expected = Outcome { code: 0, stdout: stdout.to_owned(), stderr: connecting(server) };
    assert_eq!(client(server, arguments), expected, "{arguments:?}");
}

/// A call that the server refuses.
fn fails(server: SocketAddr, arguments: &[&str], code: u8, stdout: &str, stderr: &str) {
    let stderr = connecting(server) + stderr + "\n";
    let expected = Outcome { code: code.into(), stdout: stdout.to_owned(), stderr };
    assert_eq!(client(server, arguments), expected, "{arguments:?}");
}

#[test]
fn metrics_by_all_their_names() {
    let (proxy, origin) = (Proxy::start(), Origin::echo());
    let mut client = Client::new(proxy.tunnel(origin.address));
    client.say(b"0123456789").hears(b"0123456789");
    let mut admin = proxy.admin();
    eventually("20 bytes", || admin.metrics() == [1, 1, 20]);
    for option in ["-m", "--metrics", "--gm"] {
        let shown = "Historical Connections: 1\nCurrent Connections:    1\nBytes Transferred:      20\nConnection closed\n";
        succeeds(proxy.metp_address(), &[option], shown);
    }
}

/// RFC 1929 section 2: a name may hold any bytes. It is the one that was typed, a backslash in it included.
#[test]
fn names_are_taken_as_they_are_typed() {
    let proxy = Proxy::start();
    let call = |arguments: &[&[u8]]| {
        client(proxy.metp_address(), arguments.iter().map(|argument| OsStr::from_bytes(argument)))
    };
    for (name, shown) in [
        (&b"DOMAIN\\user"[..], "DOMAIN\\x5cuser"),
        ("J\u{fc}rgen".as_bytes(), "J\\xc3\\xbcrgen"),
        (b"a:b", "a:b"),
        (b"a\\x41", "a\\x5cx41"),
        (b"two words", "two\\x20words"),
        (b"\xff\x01", "\\xff\\x01"),
        (b"--", "--"),
    ] {
        assert_eq!(call(&[b"-a", name, b"pw"]).code, 0, "{shown}");
        let listed = format!("admin admin\n{shown} user\nConnection closed\n");
        assert_eq!(call(&[b"-l"]).stdout, listed);
        let mut socks = Client::new(proxy.socks());
        let login = support::socks::credentials(name, b"pw");
        socks.say(b"\x05\x01\x02").hears(b"\x05\x02").say(&login).hears(b"\x01\x00");
        // Another option takes the name as METP shows it.
        assert_eq!(call(&[b"-d", shown.as_bytes()]).code, 0, "{shown}");
    }
}

/// METP section 5.21.
#[test]
fn trusted_networks() {
    let proxy = Proxy::with(&["--trust", "::1"]);
    let server = proxy.metp_address();
    succeeds(server, &["--trust-add", "10.0.0.0/8"], DONE);
    let shown = "NETWORK\n::1/128\n10.0.0.0/8\nConnection closed\n";
    succeeds(server, &["--trust"], shown);
    succeeds(server, &["--trust-delete", "::1"], DONE);
    let why = "TRUST DELETE ::1/128: this network is not in the list";
    fails(server, &["--trust-delete", "::1"], 65, "Connection closed\n", why);
    let json = client(server, ["-q", "--json", "--trust"]);
    assert!(json.stdout.contains("{\"network\":\"10.0.0.0/8\"}"), "{}", json.stdout);
}

#[test]
fn users_by_all_their_names() {
    let proxy = Proxy::with(&["-u", "two words:pw", "-u", "bob:pw"]);
    for option in ["-l", "--users"] {
        let shown = "admin admin\ntwo\\x20words user\nbob user\nConnection closed\n";
        succeeds(proxy.metp_address(), &[option], shown);
    }
}

#[test]
fn the_access_log_by_all_its_names() {
    let (proxy, origin) = (Proxy::start(), Origin::echo());
    let server = proxy.metp_address();
    succeeds(server, &["-g"], "Connection closed\n");
    for _ in 0..2 {
        let mut client = Client::new(proxy.tunnel(origin.address));
        client.say(b"abc").hears(b"abc");
        half_close(&client.stream);
        client.hears_eof();
    }
    proxy.wait_until_idle();
    let records = proxy.admin().ask("GET_LOGS");
    let line = format!("admin 127.0.0.1 {} 6", origin.address);
    assert!(records.len() == 2 && records.iter().all(|record| record.ends_with(&line)));
    for option in ["-g", "--logs", "--gl"] {
        succeeds(server, &[option], &format!("{}\nConnection closed\n", records.join("\n")));
    }
}

#[test]
fn accounts_by_all_the_names_of_their_options() {
    let proxy = Proxy::start();
    let server = proxy.metp_address();
    for (add, role, delete) in [
        ("-a", "-r", "-d"),
        ("--add-user", "--set-role", "--delete-user"),
        ("--au", "--sr", "--du"),
    ] {
        succeeds(server, &[add, "bob", "two words "], DONE);
        proxy.metp().logged_in("bob", "two words ");
        succeeds(server, &[role, "bob", "admin"], DONE);
        assert_eq!(proxy.admin().ask("USERS"), ["admin admin", "bob admin"]);
        succeeds(server, &[role, "bob", "user"], DONE);
        assert_eq!(proxy.admin().ask("USERS"), ["admin admin", "bob user"]);
        succeeds(server, &[delete, "bob"], DONE);
        assert_eq!(proxy.admin().ask("USERS"), ["admin admin"]);
    }
}

#[test]
fn the_buffer_size_by_all_the_names_of_its_option() {
    let proxy = Proxy::start();
    for option in ["-c", "--change-buffer", "--cb"] {
        succeeds(proxy.metp_address(), &[option, "4096"], DONE);
        // That is no matter of the server.
        let outcome = client(proxy.metp_address(), [option, "0"]);
        let stderr = "client: -c 0: 1 to 1048576 bytes (units: k, M, G, T) expected\n".to_owned();
        assert_eq!(outcome, Outcome { code: 64, stdout: String::new(), stderr });
    }
}

#[test]
fn several_commands_in_one_call_are_given_in_order() {
    let proxy = Proxy::start();
    let server = proxy.metp_address();
    let line = [
        "-a", "a", "1", "-a", "b", "2", "--au", "c", "3", "-r", "b", "admin", "-l", "-d", "a", "-l",
    ];
    let ok = "Operation successful\n";
    let expected = format!(
        "{ok}{ok}{ok}{ok}admin admin\na user\nb admin\nc user\n{ok}admin admin\nb admin\nc user\nConnection closed\n"
    );
    succeeds(server, &line, &expected);
}

#[test]
fn a_refused_command_is_65_with_the_servers_cause_and_the_others_are_done() {
    let proxy = Proxy::with(&["-u", "alice:pw"]);
    let server = proxy.metp_address();
    for (arguments, cause) in [
        (&["-a", "alice", "pw"][..], "ADD-USER alice: user exists"),
        (&["-d", "nobody"], "DELETE-USER nobody: no such user"),
        (&["-d", "admin"], "DELETE-USER admin: not on your own account"),
        (&["-r", "admin", "user"], "SET-ROLE admin user: not on your own account"),
        (&["-r", "a b", "user"], "SET-ROLE a\\x20b user: no such user"),
        (&["--kill", "99.9"], "KILL 99.9: no such connection"),
        (&["--kill-user", "nobody"], "KILL USER nobody: no such user"),
        (&["--connections", "nobody"], "CONNECTIONS USER nobody: no such user"),
        (&["--user-metrics", "nobody"], "USER-METRICS nobody: no such user"),
        (&["--config", "no-key"], "CONFIG GET no-key: no such setting"),
        (&["--set", "no-key=1"], "CONFIG SET no-key 1: no such setting"),
        (
            &["--set", "buffer-size=0"],
            "CONFIG SET buffer-size 0: buffer-size takes 1 to 1048576 bytes (units: k, M, G, T)",
        ),
        (&["--", "CHANGE-BUFFER 0"], "CHANGE-BUFFER: 1 to 1048576 bytes"),
        (&["--", "ADD-USER alice secret"], "ADD-USER alice: user exists"),
    ] {
        fails(server, arguments, 65, "Connection closed\n", cause);
    }
    let arguments = ["-a", "alice", "pw", "-a", "bob", "pw"];
    fails(server, &arguments, 65, DONE, "ADD-USER alice: user exists");
    assert_eq!(proxy.admin().ask("USERS"), ["admin admin", "alice user", "bob user"]);
}

/// A call by somebody else than admin.
fn call(server: SocketAddr, login: &str, arguments: &[&str]) -> Outcome {
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    run(command(["-H", &host, "-p", &port, "-u", login]).args(arguments))
}

#[test]
fn who_may_not_is_77() {
    let proxy = Proxy::with(&["-u", "alice:pw"]);
    let server = proxy.metp_address();
    for login in ["alice:wrong", "nobody:pw", "alice:pw "] {
        let name = login.split(':').next().expect("a name");
        let stderr = format!("Connecting to {server} with user '{name}'\nAuthentication failed\n");
        let expected = Outcome { code: 77, stdout: String::new(), stderr };
        assert_eq!(call(server, login, &["-m"]), expected, "{login}");
    }
    for (arguments, command) in [
        (&["-l"][..], "USERS"),
        (&["-g"], "GET_LOGS"),
        (&["-a", "x", "y"], "ADD-USER x"),
        (&["-d", "admin"], "DELETE-USER admin"),
        (&["-c", "1"], "CHANGE-BUFFER 1"),
    ] {
        let stderr = format!(
            "Connecting to {server} with user 'alice'\n{command}: Not authorized to execute command\n"
        );
        let expected = Outcome { code: 77, stdout: "Connection closed\n".to_owned(), stderr };
        assert_eq!(call(server, "alice:pw", arguments), expected, "{arguments:?}");
    }
    assert_eq!(call(server, "alice:pw", &["-m"]).code, 0);
}

#[test]
fn nobody_there_is_69() {
    let (_guard, closed) = closed_port();
    let outcome = client(closed, ["-m"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (69, ""));
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], format!("Connecting to {closed} with user 'admin'"));
    assert!(lines[1].contains("refused"), "{lines:?}");
}

#[test]
fn bad_usage_is_64_and_never_shows_a_password() {
    for arguments in [
        &[][..],
        &["-m"],
        &["-u", "admin:secret"],
        &["-u", "admin:secret", "-x"],
        &["-u", "admin:secret", "-m", "surplus"],
        &["-u", "admin:secret", "-a", "bob"],
        &["-u", "admin:secret", "-a", "bob", "sec\nret"],
        &["-u", "admin:sec\nret", "-m"],
        &["-u", "admin:", "-m"],
        &["-u", ":secret", "-m"],
        &["-u", "admin:secret", "-r", "bob", "king"],
        &["-u", "admin:secret", "-c", "4096abc"],
        &["-u", "admin:secret", "-p", "65536", "-m"],
        &["-u", "admin:secret", "-p", "http", "-m"],
    ] {
        let outcome = run(&mut command(arguments));
        assert_eq!((outcome.code, outcome.stdout.as_str()), (64, ""), "{arguments:?}");
        assert!(outcome.stderr.starts_with("client: "), "{arguments:?}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), 1, "{arguments:?}: {}", outcome.stderr);
        assert!(!outcome.stderr.contains("ret"), "{arguments:?}: {}", outcome.stderr);
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    for option in ["-h", "--help", "-v", "--version"] {
        let outcome = run(&mut command([option]));
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{option}");
        let expected = if option.contains('v') {
            concat!("client ", env!("CARGO_PKG_VERSION"), "\n")
        } else {
            "Usage: client "
        };
        assert!(outcome.stdout.starts_with(expected), "{option}: {}", outcome.stdout);
    }
}

#[test]
fn ipv6_and_names_are_hosts_too() {
    let there = support::has_ipv6("client -H ::1");
    let v6 = there.then(|| Builder::default().args(["-L", "::1"]).start());
    let hosts = [("::1", "[::1]"), ("[::1]", "[::1]"), ("0:0::1", "[0:0::1]")];
    for (v6, (host, shown)) in v6.iter().flat_map(|v6| hosts.map(|host| (v6, host))) {
        let port = v6.metp_address().port().to_string();
        let outcome = run(&mut command(["-H", host, "-p", &port, "-u", "admin:1234", "-l"]));
        let stderr = format!("Connecting to {shown}:{port} with user 'admin'\n");
        let stdout = "admin admin\nConnection closed\n".to_owned();
        assert_eq!(outcome, Outcome { code: 0, stdout, stderr });
    }
    let v4 = Proxy::start();
    let port = v4.metp_address().port().to_string();
    let arguments = ["--host", "localhost", "--port", &port, "--user", "admin:1234", "-l"];
    let outcome = run(&mut command(arguments));
    assert_eq!(outcome.stderr, format!("Connecting to localhost:{port} with user 'admin'\n"));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "admin admin\nConnection closed\n"));
}

#[test]
fn metp_auth_stands_in_for_the_login() {
    let proxy = Proxy::with(&["-u", "alice:p:w"]);
    let port = proxy.metp_address().port().to_string();
    let with = |login: &str, arguments: &[&str]| {
        run(command(["-p", &port]).args(arguments).env("METP_AUTH", login)).code
    };
    assert_eq!(with("admin:1234", &["-l"]), 0);
    assert_eq!(with("alice:p:w", &["-m"]), 0);
    assert_eq!(with("alice:p:w", &["-l"]), 77);
    assert_eq!(with("admin:wrong", &["-l"]), 77);
    assert_eq!(with("admin:", &["-l"]), 64);
    // The option wins.
    assert_eq!(with("alice:p:w", &["-u", "admin:1234", "-l"]), 0);
}

#[test]
fn a_name_of_any_bytes_logs_in_as_it_is_or_escaped() {
    let login = OsStr::from_bytes(b"b\xfc cher\\x41:pw");
    let proxy = Builder::default().args([OsStr::new("-u"), login]).start();
    let port = proxy.metp_address().port().to_string();
    let arguments = ["-p", &port, "-m", "-u", r"b\xfc\x20cher\x5cx41:pw"];
    let outcome = run(&mut command(arguments));
    let shown = r"with user 'b\xfc\x20cher\x5cx41'";
    assert!(outcome.code == 0 && outcome.stderr.contains(shown), "{outcome:?}");
    succeeds(proxy.metp_address(), &["-r", r"b\xfc\x20cher\x5cx41", "admin"], DONE);
    let mut deletion = command(["-p", &port, "-u", "admin:1234", "-d"]);
    assert_eq!(run(deletion.arg(OsStr::from_bytes(b"b\xfc cher\\x5cx41"))).code, 0);
    assert_eq!(proxy.admin().ask("USERS"), ["admin admin"]);
}

#[test]
fn a_reader_who_has_seen_enough_is_no_reason_to_panic() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    for number in 0..2000 {
        admin.say(&format!("ADD-USER user-{number} pw\n"));
    }
    admin.hears(&"200 OK\n".repeat(2000));
    let port = proxy.metp_address().port().to_string();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = command(["-p", &port, "-u", "admin:1234", "-l"]);
    let outcome = outcome(command.stdout(Stdio::from(writer)).spawn().expect("it starts"));
    let connecting = connecting(proxy.metp_address());
    assert_eq!((outcome.code, outcome.stderr), (74, connecting), "EX_IOERR, and no word");
}

#[test]
fn a_closed_stderr_does_not_keep_it_from_working() {
    let proxy = Proxy::start();
    let port = proxy.metp_address().port().to_string();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = command(["-p", &port, "-u", "admin:1234", "-l"]);
    let outcome = outcome(command.stderr(Stdio::from(writer)).spawn().expect("it starts"));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "admin admin\nConnection closed\n"));
}
