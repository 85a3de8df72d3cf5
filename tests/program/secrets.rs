//! Secrets stay where they are: no password in the environment, in anything the programs say, or in a core.

use std::ffi::OsStr;
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use std::io::{Read, Write};
use support::client::{Outcome, command, run};
use support::origin::{Origin, closed_port};
use support::proxy::{Builder, connect, send_signal, wait_for_exit};
use support::socks::{HELLO, connect_request, credentials, half_close, name_request, reset};
use support::{PATIENCE, binary, eventually, test_name};

fn proc_file(pid: u32, name: &str) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/{name}")).expect("it runs")
}

fn holds(text: &[u8], secret: &[u8]) -> bool {
    text.windows(secret.len()).any(|window| window == secret)
}

#[test]
fn the_superuser_is_taken_out_of_the_environment() {
    let proxy = Builder::default().superuser(Some("root:swordfish")).start();
    // The password works, so it has been read; all else is still there.
    proxy.metp().logged_in("root", "swordfish");
    let environment = proc_file(proxy.pid(), "environ");
    assert!(!holds(&environment, b"swordfish") && !holds(&environment, b"root:"));
    let path = format!("PATH={}", std::env::var("PATH").expect("inherited"));
    assert!(holds(&environment, path.as_bytes()));
    assert!(!holds(&proc_file(proxy.pid(), "cmdline"), b"swordfish"));
}

/// What ps(1) shows to everybody has the names of the accounts, in every spelling of `-u`, and no password.
#[test]
fn passwords_are_erased_from_the_command_line() {
    let arguments =
        ["-u", "amy:swordfish", "-ubob:sword:fish", "--user=eve:swordfish", "--grace", "2"];
    let proxy = Builder::default().args(arguments).start();
    proxy.metp().logged_in("bob", "sword:fish");
    proxy.metp().logged_in("eve", "swordfish");
    let line = proc_file(proxy.pid(), "cmdline");
    assert!(!holds(&line, b"sword") && !holds(&line, b"fish"), "{}", line.escape_ascii());
    for kept in [&b"\0-u\0amy:*********\0"[..], b"\0-ubob:**********\0", b"\0--grace\x002\0"] {
        assert!(holds(&line, kept), "{}", line.escape_ascii());
    }
}

/// The variable is wiped, whatever it holds, before anything can fail.
#[test]
fn what_children_would_inherit_has_no_superuser() {
    // The test's own process stands for the program's: the same call, then a child.
    let program = std::env::current_exe().expect("a test");
    let child = Command::new(program)
        .args(["--exact", test_name!("inner_environment"), "--ignored", "--nocapture"])
        .env("SOCKS5D_TEST_SECRET", "root:swordfish")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "run by what_children_would_inherit_has_no_superuser in a process of its own"]
fn inner_environment() {
    let secret = common::process::take_from_environment("SOCKS5D_TEST_SECRET");
    assert_eq!(secret.as_deref(), Some(OsStr::new("root:swordfish")));
    assert_eq!(common::process::take_from_environment("SOCKS5D_TEST_SECRET"), None);
    let child = Command::new("env").output().expect("env");
    assert!(!holds(&child.stdout, b"swordfish") && !holds(&child.stdout, b"SOCKS5D_TEST_SECRET"));
    assert!(!holds(&proc_file(std::process::id(), "environ"), b"swordfish"));
}

/// No core dump, and no new privileges for anything that is started.
#[test]
fn the_process_gives_up_cores_and_privileges() {
    // Whoever starts it would allow cores.
    let proxy = Builder::default().limits("-c unlimited 2>/dev/null; ulimit -n 256").start();
    let limits = String::from_utf8(proc_file(proxy.pid(), "limits")).expect("text");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    let words: Vec<&str> = core.split_whitespace().collect();
    assert_eq!(words, ["Max", "core", "file", "size", "0", "0", "bytes"]);
    let status = String::from_utf8(proc_file(proxy.pid(), "status")).expect("text");
    assert!(status.lines().any(|line| line == "NoNewPrivs:\t1"), "{status}");
}

/// The program with all that it ever says kept as bytes.
struct Witness {
    child: Child,
    socks: std::net::SocketAddr,
    metp: std::net::SocketAddr,
    said: Arc<Mutex<Vec<u8>>>,
    heard: Vec<u8>,
}

impl Witness {
    fn start(arguments: &[&str], superuser: &str) -> Self {
        let mut child = Command::new(binary("socks5d"))
            .args(["-l", "127.0.0.1", "-p", "0", "-P", "0"])
            .args(arguments)
            .env("PROXY_CTRL_SUPERUSER", superuser)
            .env("RUST_LOG", "trace")
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let said = Arc::new(Mutex::new(Vec::new()));
        let gather = |mut stream: Box<dyn Read + Send>| {
            let said = Arc::clone(&said);
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    said.lock().expect("no panic").extend(&bytes[..count]);
                }
            });
        };
        gather(Box::new(child.stdout.take().expect("piped")));
        gather(Box::new(child.stderr.take().expect("piped")));
        let address = |service: &str| {
            let marker = format!("listening: service={service} address=");
            let mut found = None;
            eventually("it listens", || {
                let text = String::from_utf8_lossy(&said.lock().expect("no panic")).into_owned();
                let rest = text.split_once(&marker).and_then(|(_, rest)| rest.split_once('\n'));
                found = rest.and_then(|(address, _)| address.parse().ok());
                found.is_some()
            });
            found.expect("it listens")
        };
        let (socks, metp) = (address("socks"), address("metp"));
        Witness { child, socks, metp, said, heard: Vec::new() }
    }

    /// Says this and keeps all that is answered.
    fn hear(&mut self, server: std::net::SocketAddr, says: &[u8]) {
        let mut stream = connect(server);
        stream.write_all(says).expect("it listens");
        half_close(&stream);
        // Some of these conversations end with a reset.
        let _ = stream.read_to_end(&mut self.heard);
    }

    fn socks(&mut self, says: &[&[u8]]) {
        self.hear(self.socks, &says.concat());
    }

    fn metp(&mut self, login: &str, says: &[u8]) {
        let opening = format!("HELLO METP/1.0\nAUTH {login}\n");
        self.hear(self.metp, &[opening.as_bytes(), says].concat());
    }

    fn client(&mut self, login: &str, arguments: &[&str]) {
        let (host, port) = (self.metp.ip().to_string(), self.metp.port().to_string());
        let Outcome { stdout, stderr, .. } =
            run(command(["-H", &host, "-p", &port, "-u", login]).args(arguments));
        self.heard.extend(stdout.bytes().chain(stderr.bytes()));
    }

    fn end(&mut self) -> Vec<u8> {
        send_signal(&self.child, libc::SIGTERM);
        assert_eq!(wait_for_exit(&mut self.child, PATIENCE).code(), Some(0));
        let said = || self.said.lock().expect("no panic").clone();
        eventually("its last words", || holds(&said(), b"SIGTERM"));
        [said(), std::mem::take(&mut self.heard)].concat()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passwords that are right, wrong, new and misplaced, in everything that can be done and go wrong; not one
/// of them comes back, in whatever level of log.
#[test]
fn no_password_is_ever_told() {
    let origin = Origin::echo();
    let (_held, closed) = closed_port();
    let mut witness =
        Witness::start(&["-u", "alice:tulip-al", "-u", "bob:tu:lip-bo"], "root:tulip-su");
    let open = connect_request(origin.address);
    for (name, password) in [
        (&b"alice"[..], &b"tulip-al"[..]),
        (b"bob", b"tu:lip-bo"),
        (b"root", b"tulip-su"),
        (b"alice", b"tulip-wrong"),
        (b"alice", b"tulip-\n\xff"),
        (b"nobody", b"tulip-nobody"),
        (b"", b"tulip-empty"),
    ] {
        let login = credentials(name, password);
        witness.socks(&[HELLO, &login, &open, b"payload"]);
        witness.socks(&[HELLO, &login, &connect_request(closed)]);
        witness.socks(&[HELLO, &login, &name_request(b"*", 80)]);
        witness.socks(&[HELLO, &login, b"\x05\x09\x00\x01\x7f\x00\x00\x01\x00\x50"]);
        witness.socks(&[HELLO, &login, b"\x05\x01\x00\x09"]);
        // Out of place, cut off, of another version, twice.
        witness.socks(&[&login]);
        witness.socks(&[HELLO, &login[..login.len() - 1]]);
        witness.socks(&[HELLO, &[&[2], &login[1..]].concat()]);
        witness.socks(&[HELLO, &login, &login]);
        witness.socks(&[b"\x05\x01\x00", &login]);
        // A reset in the middle.
        let mut stream: TcpStream = connect(witness.socks);
        stream.write_all(&[HELLO, &login, &open].concat()).expect("it listens");
        reset(stream);
    }
    for login in ["alice tulip-al", "root tulip-su", "root tulip-wrong", "nobody tulip-nobody"] {
        witness.metp(
            login,
            b"GET_METRICS\nUSERS\nGET_LOGS\nADD-USER carol tulip-new\nADD-USER carol tulip-again\n\
              ADD-USER .x tulip-bad\nADD-USER dora tulip-nul\0\nADD-USER tulip-nothing\n\
              AUTH root tulip-late\nCHANGE-BUFFER tulip-size\nSET-ROLE carol tulip-role\n\
              tulip-verb\nDELETE-USER carol tulip-surplus\nDELETE-USER carol\nUSERS\nGET_LOGS\nQUIT\n",
        );
        let long = [&b"ADD-USER carol tulip-"[..], &[b'x'; 5000], b"\nQUIT\n"].concat();
        witness.metp(login, &long);
    }
    witness.metp("root", b"");
    witness.hear(witness.metp, b"AUTH root tulip-early\n");
    witness.hear(witness.metp, b"HELLO METP/1.0 tulip-hello\n");
    for (login, arguments) in [
        ("root:tulip-su", &["-m", "-g", "-l"][..]),
        ("root:tulip-su", &["-a", "carol", "tulip-new", "-a", "carol", "tulip-again"]),
        ("root:tulip-su", &["-a", "x y", "tulip-bad", "-d", "carol", "-c", "0", "-c", "65536"]),
        ("root:tulip-su", &["-a", "carol", "tulip-\n"]),
        ("root:tulip-su", &["-a", "carol", "", "-m"]),
        ("root:tulip-su", &["-m", "tulip-stray"]),
        ("root:tulip-su", &["-a", "carol", "two", "tulip-words"]),
        ("root:tulip-su", &["root:tulip-twice"]),
        ("root:tulip-su", &["-u", "root:tulip-twice", "-m"]),
        ("root:tulip-su", &["--add-users", "carol", "tulip-typo"]),
        ("root:tulip-su", &["--users=tulip-value"]),
        ("root:tulip-su", &[]),
        ("root:tulip-wrong", &["-m"]),
        ("root:tulip-\r", &["-m"]),
        ("root", &["tulip-su", "-m"]),
        ("alice:tulip-al", &["-l", "-g", "-a", "carol", "tulip-new"]),
        ("nobody:tulip-nobody", &["-m"]),
        (":tulip-empty", &["-m"]),
    ] {
        witness.client(login, arguments);
    }
    let told = witness.end();
    for word in ["auth failed", "alice user", "Operation successful", "Authentication failed"] {
        assert!(holds(&told, word.as_bytes()), "{word}");
    }
    for secret in [&b"tulip"[..], b"lip-bo"] {
        if let Some(at) = told.windows(secret.len()).position(|window| window == secret) {
            let around = &told[at.saturating_sub(80)..(at + 40).min(told.len())];
            panic!("{:?}", String::from_utf8_lossy(around));
        }
    }
}

/// A command line that is wrong tells what, and no password.
#[test]
fn the_programs_command_lines_do_not_echo_passwords() {
    for (superuser, arguments) in [
        (Some("root:tulip"), &["-p", "x"][..]),
        (Some(":tulip"), &[]),
        (Some("root:"), &["-u", "bob:tulip"]),
        (None, &["-u", ":tulip"]),
        (None, &["-u", "bob:tulip", "-u", "bob:tulip"]),
        (None, &["-u", "bob:secret", "tulip"]),
        (None, &["-u", "bob:two", "tulip words"]),
        (None, &["bob:tulip"]),
        (None, &["--users=bob:tulip"]),
        (None, &["--user", "bob:tulip", "--bogus"]),
    ] {
        let mut command = Command::new(binary("socks5d"));
        command.args(["-P", "0"]).args(arguments).env_remove("PROXY_CTRL_SUPERUSER");
        command.envs(superuser.map(|login| ("PROXY_CTRL_SUPERUSER", login)));
        let output = command.stdin(Stdio::null()).output().expect("it runs");
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert_eq!(output.stdout, b"");
        let line = String::from_utf8(output.stderr).expect("text");
        assert!(line.ends_with('\n') && line.lines().count() == 1, "{line}");
        assert!(!line.contains("tulip"), "{line}");
    }
    let long = [&b"bob:tulip"[..], &[b'x'; 300]].concat();
    let output = Command::new(binary("socks5d"))
        .args([OsStr::new("-u"), OsStr::from_bytes(&long)])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(64));
    assert!(!holds(&output.stderr, b"tulip"));
}
