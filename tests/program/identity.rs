//! The user that a server started as root becomes (`--run-as`), and the file with its number (`--pid-file`).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::metp::Metp;
use support::origin::Origin;
use support::proxy::{Lines, Proxy, connect, send_signal, wait_for_exit};
use support::socks::Client;
use support::{PATIENCE, binary, exchange, note};

/// A user that no file belongs to, and its group.
const USER: u32 = 54321;
const GROUP: u32 = 54322;

fn is_root() -> bool {
    let root = fs::metadata("/proc/self").expect("Linux").uid() == 0;
    if !root {
        note("the test does not run as root, --run-as was not tried");
    }
    root
}

/// A directory of that user.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a directory");
    chown(place.path(), Some(USER), Some(GROUP)).expect("root");
    place
}

/// What the program says and its exit code, if it does not start.
fn said(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary("socks5d"));
    command.args(["-l", "127.0.0.1", "-p", "0", "-P", "0"]).args(arguments);
    command.env_remove("PROXY_CTRL_SUPERUSER").stdout(Stdio::null());
    let output = command.output().expect("it starts");
    (output.status.code(), String::from_utf8(output.stderr).expect("ASCII"))
}

/// The values of a line of /proc/PID/task/*/status, of all threads.
fn of_threads(process: &Child, key: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{}/task", process.id())).expect("it runs");
    let status =
        threads.map(|thread| fs::read_to_string(thread.expect("one").path().join("status")));
    status
        .map(|status| {
            let status = status.expect("it runs");
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line");
            line.trim().to_owned()
        })
        .collect()
}

/// On a port below 1024, with accounts, figures, a log and the number of the process in a directory of the user.
#[test]
fn root_binds_and_a_user_serves() {
    if !is_root() {
        return;
    }
    let place = place();
    let path = |name: &str| place.path().join(name);
    // An address of its own, so that the port is free.
    let number = std::process::id();
    let own = format!("127.{}.{}.7", 100 + number % 100, 1 + number / 100 % 250);
    let mut command = Command::new(binary("socks5d"));
    command.args(["-l", &own, "-p", "1023", "-L", &own, "-P", "1022"]);
    command.args(["--run-as", &format!("{USER}:{GROUP}")]);
    for option in ["users", "state", "access-log", "pid-file"] {
        command.arg(format!("--{option}")).arg(path(option));
    }
    command.env("PROXY_CTRL_SUPERUSER", "admin:1234").stderr(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().expect("it starts");
    let stderr = Lines::gather(child.stderr.take().expect("piped"));
    stderr.wait_for(|line| line.contains("listening: service=metp"));
    let ids = |id: u32| [id; 4].map(|id| id.to_string()).join("\t");
    let uids = of_threads(&child, "Uid:");
    assert!(uids.len() > 1 && uids.iter().all(|uid| *uid == ids(USER)), "{uids:?}");
    assert!(of_threads(&child, "Gid:").iter().all(|gid| *gid == ids(GROUP)));
    assert!(of_threads(&child, "Groups:").iter().all(|groups| *groups == GROUP.to_string()));
    for set in ["CapPrm:", "CapEff:"] {
        assert!(of_threads(&child, set).iter().all(|set| *set == "0000000000000000"), "{set}");
    }
    let socket = |port: u16| format!("{own}:{port}").parse().expect("an address");
    let mut admin = Metp::new(connect(socket(1022))).logged_in("admin", "1234");
    assert_eq!(admin.say("ADD-USER bob tulip\n").line(), "200 OK");
    assert!(fs::read_to_string(path("users")).expect("there").starts_with("bob:"));
    let echo = Origin::echo();
    let bob = Client::new(connect(socket(1023))).logged_in("bob", "tulip");
    // The destination is on loopback, and so is the client.
    exchange(&mut bob.connected(echo.address), 1000);
    assert_eq!(fs::read_to_string(path("pid-file")).expect("there"), format!("{}\n", child.id()));
    send_signal(&child, libc::SIGUSR1);
    stderr.wait_for(|line| line.ends_with("SIGUSR1: opening the access log again"));
    send_signal(&child, libc::SIGINT);
    assert_eq!(wait_for_exit(&mut child, PATIENCE).code(), Some(0));
    assert!(!path("pid-file").exists());
    for name in ["users", "state", "state/usage", "access-log"] {
        let found = fs::metadata(path(name)).expect("there");
        assert_eq!((found.uid(), found.gid()), (USER, GROUP), "{name}");
    }
}

/// A file that root alone may read is opened too late for that.
#[test]
fn files_are_opened_as_the_user() {
    if !is_root() {
        return;
    }
    let place = place();
    let users = place.path().join("users");
    fs::write(&users, "bob:=tulip\n").expect("written");
    fs::set_permissions(&users, fs::Permissions::from_mode(0o600)).expect("ours");
    let path = users.to_str().expect("text");
    let (code, line) = said(&["--run-as", &format!("{USER}:{GROUP}"), "--users", path]);
    assert_eq!(code, Some(64), "{line}");
    assert!(line.contains("Permission denied"), "{line}");
}

#[test]
fn a_wrong_user_is_one_line() {
    let usage = |text: &str, what: &str| (Some(64), format!("socks5d: --run-as {text}: {what}\n"));
    for (text, what) in [
        ("no-such-user", "there is no such user"),
        ("nobody:no-such-group", "there is no such group"),
        ("root", "this user is root"),
        ("54321", "a number that is no user of this system needs a group"),
    ] {
        assert_eq!(said(&["--run-as", text]), usage(text, what));
        assert_eq!(said(&["--run-as", text, "--check-config"]), usage(text, what));
    }
    for text in [":nogroup", "nobody:", ""] {
        let (code, line) = said(&["--run-as", text]);
        assert!(code == Some(64) && line.contains("USER[:GROUP] expected"), "{line}");
    }
}

/// Whoever is not root cannot become somebody else.
#[test]
fn without_root_it_is_one_line() {
    if !is_root() {
        return;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=54321", "--regid=54322", "--clear-groups"]).arg(binary("socks5d"));
    command.args(["-l", "127.0.0.1", "-p", "0", "-P", "0", "--run-as", "nobody"]);
    let output = command.output().expect("setpriv");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said, "socks5d: --run-as: only root can become another user\n");
}

/// It is there when the server accepts, and not when it has ended; what was left is replaced.
#[test]
fn the_number_of_the_process_is_in_its_file() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("socks5d.pid");
    let text = path.to_str().expect("text");
    fs::write(&path, "1\n").expect("written");
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut proxy = Proxy::with(&["--pid-file", text]);
        assert_eq!(fs::read_to_string(&path).expect("there"), format!("{}\n", proxy.pid()));
        proxy.signal(signal);
        assert_eq!(proxy.wait().code(), Some(0));
        assert!(!path.exists());
    }
    let missing = Path::new(text).join("no/such");
    let (code, line) = said(&["--pid-file", missing.to_str().expect("text")]);
    assert_eq!(code, Some(1), "{line}");
    assert!(line.starts_with("socks5d: --pid-file ") && line.lines().count() == 1, "{line}");
}
