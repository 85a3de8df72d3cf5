//! What a service manager is sent (sd_notify(3)), on a socket of the test.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::origin::Origin;
use support::proxy::{Builder, Proxy, connect};
use support::socks::Client;
use support::{PATIENCE, binary, read_exactly};

const READY: &str = "READY=1\nSTATUS=open connections: 0\n";

/// The socket of a manager.
struct Manager {
    socket: UnixDatagram,
    name: OsString,
    _folder: tempfile::TempDir,
}

impl Manager {
    /// At a path.
    fn at_a_path() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path: PathBuf = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Manager::new(socket, path.into(), folder)
    }

    /// With an abstract name.
    fn with_a_name() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let name = folder.path().to_str().expect("text");
        let address = SocketAddr::from_abstract_name(name).expect("a short name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        Manager::new(socket, format!("@{name}").into(), folder)
    }

    fn new(socket: UnixDatagram, name: OsString, folder: tempfile::TempDir) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Manager { socket, name, _folder: folder }
    }

    fn builder(&self) -> Builder {
        Builder::default().env("NOTIFY_SOCKET", &self.name)
    }

    /// The next message.
    fn hears(&self) -> String {
        let mut bytes = [0; 512];
        let count = self.socket.recv(&mut bytes).expect("a message");
        String::from_utf8(bytes[..count].to_vec()).expect("text")
    }

    /// The time of the next message, which says that files are read again.
    fn hears_reloading(&self) -> u64 {
        let message = self.hears();
        let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let time = time.and_then(|time| time.strip_suffix('\n')).map(str::parse);
        time.and_then(Result::ok).unwrap_or_else(|| panic!("{message:?}"))
    }
}

/// Seconds since the machine was started, as CLOCK_MONOTONIC counts where it has not slept.
fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").expect("Linux");
    text.split(' ').next().and_then(|seconds| seconds.parse().ok()).expect("a number")
}

#[test]
fn it_is_ready_once_and_says_when_it_stops() {
    for manager in [Manager::at_a_path(), Manager::with_a_name()] {
        let mut proxy = manager.builder().start();
        assert_eq!(manager.hears(), READY);
        proxy.signal(libc::SIGTERM);
        assert_eq!(manager.hears(), "STOPPING=1\n");
        assert_eq!(proxy.wait().code(), Some(0));
        manager.socket.set_nonblocking(true).expect("a socket");
        let after = manager.socket.recv(&mut [0; 16]).expect_err("no more");
        assert_eq!(after.kind(), ErrorKind::WouldBlock);
    }
}

/// SHUTDOWN of METP, and SIGINT.
#[test]
fn every_end_is_told() {
    let manager = Manager::at_a_path();
    let mut proxy = manager.builder().start();
    assert_eq!(manager.hears(), READY);
    assert!(proxy.admin().say("SHUTDOWN GRACE 0\n").line().starts_with("200 "));
    assert_eq!(manager.hears(), "STOPPING=1\n");
    assert_eq!(proxy.wait().code(), Some(0));
    let mut proxy = manager.builder().start();
    assert_eq!(manager.hears(), READY);
    proxy.signal(libc::SIGINT);
    assert_eq!(manager.hears(), "STOPPING=1\n");
    assert_eq!(proxy.wait().code(), Some(0));
}

/// When `READY=1` comes the accounts of the file can log in, on ports that accept.
#[test]
fn ready_is_behind_users_and_ports() {
    let manager = Manager::at_a_path();
    let folder = tempfile::tempdir().expect("a folder");
    let users = folder.path().join("users");
    std::fs::write(&users, "bob:=builder\n").expect("written");
    let proxy = manager.builder().args(["--users"]).args([&users]).start();
    assert_eq!(manager.hears(), READY);
    Client::new(proxy.socks()).logged_in("bob", "builder");
}

/// A server that cannot start is never ready.
#[test]
fn a_start_that_fails_is_never_ready() {
    let manager = Manager::at_a_path();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = taken.local_addr().expect("bound").port().to_string();
    let mut command = Command::new(binary("socks5d"));
    command.args(["-l", "127.0.0.1", "-p", &port, "-P", "0"]).env("NOTIFY_SOCKET", &manager.name);
    command.stderr(Stdio::null()).stdout(Stdio::null());
    assert_eq!(command.status().expect("it starts").code(), Some(1));
    manager.socket.set_nonblocking(true).expect("a socket");
    assert!(manager.socket.recv(&mut [0; 16]).is_err());
}

/// Type=notify-reload: `RELOADING=1` with the time of CLOCK_MONOTONIC, then `READY=1`; also if nothing can be read again,
/// and if what was read is wrong.
#[test]
fn a_reload_is_told_from_its_begin_to_its_end() {
    let manager = Manager::with_a_name();
    let mut proxy = manager.builder().start();
    assert_eq!(manager.hears(), READY);
    proxy.signal(libc::SIGHUP);
    let time = manager.hears_reloading();
    assert_eq!(manager.hears(), "READY=1\n");
    let now = uptime();
    let seconds = time as f64 / 1e6;
    assert!(seconds > 0.0 && seconds <= now + 1.0, "{seconds} at {now}");
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
    assert_eq!(manager.hears(), "STOPPING=1\n");

    let folder = tempfile::tempdir().expect("a folder");
    let users = folder.path().join("users");
    std::fs::write(&users, "bob:=builder\n").expect("written");
    let proxy = manager.builder().args(["--users"]).args([&users]).start();
    assert_eq!(manager.hears(), READY);
    let mut before = time;
    for content in ["bob:=tulip\n", "no line\n"] {
        std::fs::write(&users, content).expect("written");
        proxy.signal(libc::SIGHUP);
        let time = manager.hears_reloading();
        assert!(time > before, "{time} behind {before}");
        before = time;
        assert_eq!(manager.hears(), "READY=1\n");
    }
    std::fs::write(&users, "bob:=tulip\n").expect("written");
    assert!(proxy.admin().say("RELOAD\n").line().starts_with("200 "));
    assert!(manager.hears_reloading() > before);
    assert_eq!(manager.hears(), "READY=1\n");
}

/// With `WATCHDOG_USEC` it comes again and again, from a loop that turns; a process that is stopped sends none.
#[test]
fn the_watchdog_is_fed_while_the_loop_turns() {
    let manager = Manager::at_a_path();
    let proxy = manager.builder().env("WATCHDOG_USEC", "100000").start();
    assert_eq!(manager.hears(), READY);
    for _ in 0..3 {
        assert_eq!(manager.hears(), "WATCHDOG=1\n");
    }
    proxy.signal(libc::SIGSTOP);
    manager.socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
    // What had been sent before it stopped, and then nothing.
    while manager.socket.recv(&mut [0; 64]).is_ok() {}
    manager.socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    proxy.signal(libc::SIGCONT);
    assert_eq!(manager.hears(), "WATCHDOG=1\n");
}

/// The variables name the process that they are for.
#[test]
fn the_watchdog_of_another_process_is_not_fed() {
    let (manager, echo) = (Manager::at_a_path(), Origin::echo());
    let mut proxy = manager.builder().env("WATCHDOG_USEC", "2000").env("WATCHDOG_PID", "1").start();
    assert_eq!(manager.hears(), READY);
    let mut tunnel = proxy.tunnel(echo.address);
    std::io::Write::write_all(&mut tunnel, b"round trip").expect("taken");
    assert_eq!(read_exactly(&mut tunnel, 10), b"round trip");
    proxy.signal(libc::SIGINT);
    assert_eq!(manager.hears(), "STOPPING=1\n");
    assert_eq!(proxy.wait().code(), Some(0));
}

/// The line `STATUS` has the number of open connections, some seconds after it has changed.
#[test]
fn the_status_follows_the_connections() {
    let (manager, echo) = (Manager::at_a_path(), Origin::echo());
    let proxy = manager.builder().start();
    assert_eq!(manager.hears(), READY);
    let _tunnels = [proxy.tunnel(echo.address), proxy.tunnel(echo.address)];
    assert_eq!(manager.hears(), "STATUS=open connections: 2\n");
}

/// Neither the process nor what it might start has the variables; a manager that is gone is no trouble.
#[test]
fn the_variables_are_taken_and_a_manager_may_be_gone() {
    let manager = Manager::at_a_path();
    let proxy = manager.builder().env("WATCHDOG_USEC", "100000").env("WATCHDOG_PID", "1").start();
    assert_eq!(manager.hears(), READY);
    let environment = std::fs::read(format!("/proc/{}/environ", proxy.pid())).expect("readable");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let value = manager.name.to_str().expect("text");
    assert!(!environment.contains(value) && !environment.contains("100000"), "{environment:?}");
    drop(proxy);
    for name in ["/nowhere/at/all", "@socks5d/nobody/listens"] {
        let proxy: Proxy =
            Builder::default().env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", "1000").start();
        connect(proxy.socks_address());
        proxy.admin();
    }
}

/// systemd leaves out credentials that it does not find; any other file has to be there.
#[test]
fn a_credential_may_be_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("superuser");
    let mut command = Command::new(binary("socks5d"));
    command.args(["-p", "0", "-P", "0"]).env_remove("PROXY_CTRL_SUPERUSER");
    command.env("PROXY_CTRL_SUPERUSER_FILE", &path).stdout(Stdio::null());
    let output = command.output().expect("it starts");
    assert_eq!(output.status.code(), Some(64), "{}", String::from_utf8_lossy(&output.stderr));
    let builder = || {
        let builder = Builder::default().superuser(None);
        builder.env("PROXY_CTRL_SUPERUSER_FILE", &path).env("CREDENTIALS_DIRECTORY", folder.path())
    };
    builder().start().stderr.wait_for(|line| line.contains("there is no account"));
    std::fs::write(&path, "root:swordfish\n").expect("written");
    builder().start().metp().logged_in("root", "swordfish");
}
