//! An upgrade without a pause: a new server takes the listening sockets over (`--takeover`).

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use socket2::SockRef;
use socks5d::reactor::handover;
use support::origin::Origin;
use support::proxy::{Builder, Proxy};
use support::socks::{HELLO, connect_request, credentials};
use support::{PATIENCE, eventually, exchange, note, read_exactly};

/// What servers share: the socket, accounts and figures.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Place { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn builder(&self) -> Builder {
        let options = ["takeover", "users", "state"];
        let arguments = options.map(|name| {
            let path = self.path(name);
            format!("--{name}={}", path.to_str().expect("text"))
        });
        Builder::default().args(arguments)
    }

    fn start(&self) -> Proxy {
        self.builder().start()
    }

    /// A process that asks as a new server does.
    fn successor(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path("takeover")).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream
    }
}

/// One connection of a client, from its beginning to its end.
fn visit(proxy: SocketAddr, target: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut say = |bytes: &[u8], answer: usize| {
        stream.write_all(bytes)?;
        let mut heard = vec![0; answer];
        stream.read_exact(&mut heard).map(|()| heard)
    };
    say(HELLO, 2)?;
    say(&credentials(b"admin", b"1234"), 2)?;
    let reply = say(&connect_request(target), 10)?;
    if reply.get(1) != Some(&0) || say(b"round trip", 10)? != b"round trip" {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok(())
}

/// Threads that connect without a pause.
struct Visitors {
    stop: &'static AtomicBool,
    count: &'static AtomicUsize,
    threads: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Visitors {
    fn start(proxy: SocketAddr, target: SocketAddr) -> Self {
        let stop: &'static AtomicBool = Box::leak(Box::default());
        let count: &'static AtomicUsize = Box::leak(Box::default());
        let visits = move || {
            let mut failures = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                match visit(proxy, target) {
                    Ok(()) => drop(count.fetch_add(1, Ordering::SeqCst)),
                    Err(error) => failures.push(error.to_string()),
                }
            }
            failures
        };
        Visitors { stop, count, threads: (0..4).map(|_| thread::spawn(visits)).collect() }
    }

    /// Waits for some more visits.
    fn more(&self) {
        let before = self.count.load(Ordering::SeqCst);
        eventually("visits", || self.count.load(Ordering::SeqCst) >= before + 40);
    }

    /// How many visits there were, none of which has failed.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            assert_eq!(thread.join().expect("it ends"), [""; 0]);
        }
        self.count.load(Ordering::SeqCst) as u64
    }
}

/// Two upgrades follow each other while clients connect: none is refused or reset, and a tunnel of the first server goes
/// on to its end.
#[test]
fn two_upgrades_are_not_noticed() {
    let (place, echo) = (Place::new(), Origin::echo());
    let mut first = place.start();
    let (socks, metp) = (first.socks_address(), first.metp_address());
    let mut tunnel = first.tunnel(echo.address);
    exchange(&mut tunnel, 1000);
    let visitors = Visitors::start(socks, echo.address);
    visitors.more();
    let mut second = place.start();
    assert_eq!((second.socks_address(), second.metp_address()), (socks, metp));
    first.stderr.wait_for(|line| line.contains("takeover: a new server accepts"));
    visitors.more();
    exchange(&mut tunnel, 1000);
    assert_eq!(second.admin().say("ADD-USER bob tulip\n").line(), "200 OK");
    let mut of_second = second.tunnel(echo.address);
    visitors.more();
    let third = place.start();
    second.stderr.wait_for(|line| line.contains("takeover: a new server accepts"));
    assert_eq!(third.socks_address(), socks);
    visitors.more();
    let visits = visitors.stop();
    // Both servers of before have their tunnels, and end with them.
    exchange(&mut tunnel, 100_000);
    exchange(&mut of_second, 100_000);
    assert!(first.running() && second.running());
    drop(tunnel);
    assert_eq!(first.wait().code(), Some(0));
    assert!(second.running());
    drop(of_second);
    assert_eq!(second.wait().code(), Some(0));
    third.metp().logged_in("admin", "1234");
    assert!(fs::read_to_string(place.path("users")).expect("there").starts_with("bob:"));
    // The third one knows what all of them have counted: 10 bytes there and back of each visit, and the tunnels.
    let bytes = 2 * (10 * visits + 1000 + 1000 + 100_000 + 100_000);
    eventually("all figures have come", || third.metrics() == [visits + 2, 0, bytes]);
    let of_admin = third.admin().ask("USER-METRICS admin").remove(0);
    assert!(of_admin.contains(&format!("total={} ", visits + 2)), "{of_admin}");
    let found = fs::symlink_metadata(place.path("takeover")).expect("there");
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
}

/// What METP has changed and counted is with the new server, on the disk.
#[test]
fn figures_and_settings_go_over() {
    let (place, echo) = (Place::new(), Origin::echo());
    let mut first = place.start();
    exchange(&mut first.tunnel(echo.address), 5000);
    assert_eq!(first.admin().say("CONFIG SET grace 90\nCONFIG SAVE grace\n").line(), "200 OK");
    eventually("the tunnel has ended", || first.metrics()[1] == 0);
    let before = first.metrics();
    let second = place.start();
    assert_eq!(first.wait().code(), Some(0));
    assert_eq!(second.metrics(), before);
    assert!(second.admin().ask("CONFIG GET grace")[0].contains("value=90"));
}

/// A new server that cannot start changes nothing.
#[test]
fn a_new_server_that_fails_leaves_the_old_one_serving() {
    let (place, echo) = (Place::new(), Origin::echo());
    let first = place.start();
    let mut tunnel = first.tunnel(echo.address);
    assert_eq!(first.admin().say("ADD-USER bob tulip\n").line(), "200 OK");
    for round in 0..2 {
        let mut command = Command::new(support::binary("socks5d"));
        command.args(["-l", "127.0.0.1", "-p", "0", "-P", "0", "--users", "/dev/full/none"]);
        command.arg("--takeover").arg(place.path("takeover"));
        let output = command.output().expect("it starts");
        assert_eq!(output.status.code(), Some(64), "{}", String::from_utf8_lossy(&output.stderr));
        let left = |line: &&String| line.contains("does not take over: it has ended");
        eventually("it goes on", || first.stderr.all().iter().filter(left).count() == round + 1);
        exchange(&mut tunnel, 1000);
        exchange(&mut first.tunnel(echo.address), 1000);
        // Changes are stored again, and so are settings, in the state directory.
        let mut admin = first.admin();
        eventually("the directory is back", || admin.say("CONFIG SAVE grace\n").line() == "200 OK");
        assert_eq!(admin.say("CHANGE-PASSWORD bob rose\n").line(), "200 OK");
    }
    let second = place.start();
    exchange(&mut second.tunnel(echo.address), 1000);
}

/// The conversation, byte for byte, and a successor that ends in the middle.
#[test]
fn a_successor_gets_sockets_and_may_fail() {
    let (place, echo) = (Place::new(), Origin::echo());
    let first = place.start();
    let (socks, metp) = (first.socks_address(), first.metp_address());
    for last in [&b"ready now\n"[..], b"", b"\xff", b"ready\n"] {
        let mut successor = place.successor();
        successor.write_all(b"socks5d-takeover 1\n").expect("taken");
        let mut bytes = [0; 64];
        let (count, sockets) = handover::receive(&successor, &mut bytes).expect("an answer");
        assert_eq!(&bytes[..count], b"sockets socks metp\n");
        let addresses = sockets.iter().map(|socket: &OwnedFd| {
            SockRef::from(socket).local_addr().expect("bound").as_socket().expect("IP")
        });
        assert_eq!(addresses.collect::<Vec<_>>(), [socks, metp]);
        // Meanwhile it serves, but changes nothing that the other one has read.
        exchange(&mut first.tunnel(echo.address), 1000);
        let refused = first.admin().say("ADD-USER eve rose\n").line();
        assert!(refused.starts_with("409 ") && refused.contains("[FIXED]"), "{refused}");
        let refused = first.admin().say("RESET-USAGE admin\n").line();
        assert!(refused.starts_with("500 "), "{refused}");
        // A second one has to wait.
        let mut other = place.successor();
        let busy = b"no: another server is taking over\n";
        assert_eq!(read_exactly(&mut other, busy.len()), busy);
        successor.write_all(last).expect("taken");
        drop((successor, sockets));
        let mut admin = first.admin();
        eventually("it goes on", || admin.say("CONFIG SAVE grace\n").line() == "200 OK");
    }
    // Nor is a promise a takeover.
    let mut successor = place.successor();
    successor.write_all(b"socks5d-takeover 1\n").expect("taken");
    let (_, sockets) = handover::receive(&successor, &mut [0; 64]).expect("an answer");
    successor.write_all(b"ready\n").expect("taken");
    assert_eq!(read_exactly(&mut successor, 6), b"yours\n");
    drop((successor, sockets));
    let left = |line: &&String| line.contains("does not take over: it has ended");
    eventually("it goes on", || first.stderr.all().iter().filter(left).count() >= 2);
    exchange(&mut first.tunnel(echo.address), 1000);
}

/// What is counted while another process has the sockets is on the disk at the end, if that process does not take over.
#[test]
fn the_end_during_a_takeover_loses_no_figures() {
    let (place, echo) = (Place::new(), Origin::echo());
    let mut first = place.start();
    let mut successor = place.successor();
    successor.write_all(b"socks5d-takeover 1\n").expect("taken");
    let offered = handover::receive(&successor, &mut [0; 64]).expect("an answer");
    exchange(&mut first.tunnel(echo.address), 5000);
    eventually("the tunnel has ended", || first.metrics()[1] == 0);
    let before = first.metrics();
    first.signal(libc::SIGTERM);
    assert_eq!(first.wait().code(), Some(0));
    drop(offered);
    assert_eq!(place.start().metrics(), before);
}

/// An account that is used for the first time while the old server drains has what it has counted there.
#[test]
fn figures_of_new_users_go_over() {
    let (place, echo) = (Place::new(), Origin::echo());
    let mut first = place.start();
    assert_eq!(first.admin().say("ADD-USER bob tulip\n").line(), "200 OK");
    let held = first.client();
    let client = support::socks::Client::new(first.socks()).logged_in("bob", "tulip");
    let second = place.start();
    // The session of the old server makes its first request only now.
    let mut tunnel = client.connected(echo.address);
    exchange(&mut tunnel, 5000);
    drop((tunnel, held));
    assert_eq!(first.wait().code(), Some(0));
    let of_bob = || second.admin().ask("USER-METRICS bob")[0].clone();
    eventually("what the old server has counted", || of_bob().contains(" up=5000 down=5000 "));
}

/// Only its own user, and root, may take the sockets.
#[test]
fn another_user_is_refused() {
    use std::os::unix::fs::MetadataExt;
    if fs::metadata("/proc/self").expect("Linux").uid() != 0 {
        return note("the test does not run as root, another user was not tried");
    }
    let place = Place::new();
    let first = place.start();
    // As if the directory and the socket were open to all.
    let allow = |path: PathBuf| fs::set_permissions(path, fs::Permissions::from_mode(0o777));
    allow(place.path("")).expect("ours");
    allow(place.path("takeover")).expect("ours");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=54321", "--regid=54322", "--clear-groups"]);
    command.arg(support::binary("socks5d")).args(["-p", "0", "-P", "0", "--takeover"]);
    let output = command.arg(place.path("takeover")).output().expect("setpriv");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.ends_with(": the server there refuses: another user\n"), "{said}");
    first.stderr.wait_for(|line| line.ends_with("takeover: refused to a process of user 54321"));
}

/// A socket that a killed server has left is replaced; anything else is not.
#[test]
fn what_is_left_is_replaced() {
    let place = Place::new();
    let mut first = place.start();
    first.signal(libc::SIGKILL);
    first.wait();
    assert!(place.path("takeover").exists());
    let mut second = place.start();
    second.signal(libc::SIGTERM);
    assert_eq!(second.wait().code(), Some(0));
    assert!(!place.path("takeover").exists());
    fs::write(place.path("takeover"), "a file\n").expect("written");
    let mut command = Command::new(support::binary("socks5d"));
    command.args(["-l", "127.0.0.1", "-p", "0", "-P", "0", "--takeover"]);
    let output = command.arg(place.path("takeover")).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.ends_with(": there is something else\n") && said.lines().count() == 1, "{said}");
    assert_eq!(fs::read_to_string(place.path("takeover")).expect("there"), "a file\n");
}

/// The tunnels of the server before have `--drain-limit`, whatever `--grace` is; SIGTERM shortens that.
#[test]
fn a_drain_has_its_limit() {
    let (place, echo) = (Place::new(), Origin::echo());
    for (limit, signal) in [("0.3", None), ("1000", Some(libc::SIGTERM))] {
        let arguments = ["--grace", "0.2", "--drain-limit", limit];
        let mut first = place.builder().args(arguments).start();
        let mut tunnel = first.tunnel(echo.address);
        exchange(&mut tunnel, 1000);
        let mut second = place.start();
        if let Some(signal) = signal {
            first.stderr.wait_for(|line| line.contains("takeover: a new server accepts, 1000 s"));
            exchange(&mut tunnel, 1000);
            first.signal(signal);
        }
        assert_eq!(first.wait().code(), Some(0));
        first.stdout.wait_for(|line| line.ends_with("\tshutdown"));
        second.signal(libc::SIGINT);
        second.wait();
    }
}

/// HTTP goes over, too; a port that the new server does not want does not.
#[test]
fn each_service_goes_over_that_both_have() {
    let place = Place::new();
    let http = |proxy: &Proxy| -> SocketAddr {
        let line = proxy.stderr.wait_for(|line| line.contains("service=http address="));
        line.split("address=").nth(1).and_then(|text| text.parse().ok()).expect("an address")
    };
    let mut first = place.builder().args(["--http", "127.0.0.1:0"]).start();
    let mut second = place.builder().args(["--http", "127.0.0.1:0"]).start();
    assert_eq!((http(&second), second.metp_address()), (http(&first), first.metp_address()));
    assert_eq!(first.wait().code(), Some(0));
    let address = http(&second);
    let third = place.start();
    assert_eq!(second.wait().code(), Some(0));
    eventually("nothing listens there", || TcpStream::connect(address).is_err());
    third.admin();
}

/// While tunnels drain behind a takeover, the service manager is not sent that the server stops: it would end it soon.
#[test]
fn a_manager_does_not_hurry_the_drain() {
    let (place, echo) = (Place::new(), Origin::echo());
    let manager = UnixDatagram::bind(place.path("notify")).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let hears = |expected: &[u8]| {
        let mut bytes = [0; 128];
        let count = manager.recv(&mut bytes).expect("a message");
        assert!(bytes[..count].starts_with(expected), "{:?}", bytes[..count].escape_ascii());
    };
    let builder = place.builder().env("NOTIFY_SOCKET", place.path("notify"));
    let mut first = builder.start();
    hears(b"READY=1\n");
    let mut tunnel = first.tunnel(echo.address);
    let _second = place.start();
    first.stderr.wait_for(|line| line.contains("takeover: a new server accepts"));
    exchange(&mut tunnel, 1000);
    hears(b"STATUS=open connections: 1\n");
    drop(tunnel);
    hears(b"STOPPING=1\n");
    assert_eq!(first.wait().code(), Some(0));
}

/// A new server that is started as root, and becomes the user of the old one, takes over from it.
#[test]
fn root_takes_over_from_a_user() {
    use std::os::unix::fs::{MetadataExt, chown};
    if fs::metadata("/proc/self").expect("Linux").uid() != 0 {
        return note("the test does not run as root, --run-as was not tried");
    }
    let (place, echo) = (Place::new(), Origin::echo());
    chown(place.path(""), Some(54321), Some(54322)).expect("root");
    let start = || place.builder().args(["--run-as", "54321:54322"]).start();
    let mut first = start();
    let second = start();
    assert_eq!(first.wait().code(), Some(0));
    assert_eq!(second.socks_address(), first.socks_address());
    exchange(&mut second.tunnel(echo.address), 1000);
}

/// In a configuration file that is read again, nothing about it has changed.
#[test]
fn a_reload_finds_the_options_as_they_were() {
    let place = Place::new();
    let path = |name: &str| place.path(name).to_str().expect("text").to_owned();
    let text = format!("takeover {}\npid-file {}\n", path("takeover"), path("socks5d.pid"));
    fs::write(place.path("conf"), text).expect("written");
    let proxy = Builder::default().args(["--config", &path("conf")]).start();
    proxy.signal(libc::SIGHUP);
    proxy.stderr.wait_for(|line| line.contains("reloaded: "));
    assert!(!proxy.stderr.all().iter().any(|line| line.contains("takes a restart")));
}
