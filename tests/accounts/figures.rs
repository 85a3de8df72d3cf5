//! Figures that outlive the server (`--state`).

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use support::origin::Origin;
use support::proxy::{Builder, Proxy};
use support::socks::{Client, half_close};
use support::{PATIENCE, binary, eventually, exchange};
use tempfile::TempDir;

/// A state directory beside a users file.
struct State {
    directory: TempDir,
}

impl State {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("users"), "alice:=a\nbob:=b\n").expect("written");
        State { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn builder(&self) -> Builder {
        let arguments =
            ["--users".into(), self.path("users"), "--state".into(), self.path("state")];
        Builder::default().args(arguments)
    }

    fn proxy(&self) -> Proxy {
        self.builder().start()
    }

    fn usage(&self) -> String {
        fs::read_to_string(self.path("state/usage")).unwrap_or_default()
    }
}

/// Relays 1000 bytes in each direction.
fn transfer(proxy: &Proxy, echo: &Origin, name: &str, password: &str) {
    let client = Client::new(proxy.socks()).logged_in(name, password);
    let mut tunnel = client.connected(echo.address);
    exchange(&mut tunnel, 1000);
    half_close(&tunnel);
    let mut rest = Vec::new();
    tunnel.read_to_end(&mut rest).expect("an orderly end");
}

/// Total, up and down of an account.
fn usage(proxy: &Proxy, name: &str) -> [u64; 3] {
    let line = proxy.admin().ask(&format!("USER-METRICS {name}"))[0].clone();
    ["total", "up", "down"].map(|key| support::metp::value(&line, key).parse().expect("a number"))
}

#[test]
fn figures_go_on_after_a_restart() {
    let (state, echo) = (State::new(), Origin::echo());
    let mut since = None;
    for round in 1..=3 {
        let mut proxy = state.proxy();
        transfer(&proxy, &echo, "alice", "a");
        assert_eq!(usage(&proxy, "alice"), [round, 1000 * round, 1000 * round]);
        assert_eq!(usage(&proxy, "bob"), [0; 3]);
        let mut admin = proxy.admin();
        assert_eq!(admin.metrics(), [round, 0, 2000 * round]);
        let counted = admin.figure("COUNTED_SINCE");
        assert_eq!(*since.get_or_insert(counted), counted);
        assert_eq!(admin.figure("BYTES_UP"), 1000 * round);
        let seen = proxy.admin().ask("USER-METRICS alice")[0].clone();
        assert!(!seen.contains("last-seen=-"), "{seen}");
        drop(admin);
        // Both ways to end it write them.
        proxy.signal(if round == 1 { libc::SIGTERM } else { libc::SIGINT });
        assert_eq!(proxy.wait().code(), Some(0));
        // What it says at its end is about itself alone.
        proxy.stderr.wait_for(|line| line.contains("served: connections=1 bytes=2000 "));
    }
}

/// After a while they are on the disk, so that not even a kill loses them.
#[test]
fn a_kill_loses_no_more_than_the_last_seconds() {
    let (state, echo) = (State::new(), Origin::echo());
    let mut proxy = state.proxy();
    transfer(&proxy, &echo, "alice", "a");
    eventually("they are written", || state.usage().contains("user=alice "));
    proxy.signal(libc::SIGKILL);
    proxy.wait();
    assert_eq!(usage(&state.proxy(), "alice"), [1, 1000, 1000]);
}

/// Changes of accounts that come without end do not hold them up, nor do changes that fail.
#[test]
fn figures_are_written_among_changes() {
    /// Changes that wait at any time: more than there are in a group of those with hashes.
    const WAITING: usize = 64;
    for fails in [false, true] {
        let (state, echo) = (State::new(), Origin::echo());
        let proxy = state.proxy();
        transfer(&proxy, &echo, "alice", "a");
        if fails {
            let text = fs::read(state.path("users")).expect("read");
            fs::write(state.path("users"), [&text[..], b"# by hand\n"].concat()).expect("written");
        }
        let mut admin = proxy.admin();
        let add = |number: usize| format!("ADD-USER n{number} secret\n");
        admin.say(&(0..WAITING).map(add).collect::<String>());
        let deadline = Instant::now() + 3 * PATIENCE;
        let mut number = WAITING;
        while !state.usage().contains("user=alice ") {
            assert!(Instant::now() < deadline, "not written");
            let expected =
                if fails { "500 Internal Server Error [STORE] changed" } else { "200 OK" };
            let told = admin.line();
            assert!(told.starts_with(expected), "{told}");
            admin.say(&add(number));
            number += 1;
        }
    }
}

/// Deleted and added again: it is another account, and begins at zero, even if the server is killed right after.
#[test]
fn an_account_that_is_added_again_begins_at_zero() {
    let (state, echo) = (State::new(), Origin::echo());
    let mut proxy = state.proxy();
    transfer(&proxy, &echo, "alice", "a");
    proxy.signal(libc::SIGTERM);
    proxy.wait();
    let mut proxy = state.proxy();
    assert_eq!(usage(&proxy, "alice"), [1, 1000, 1000]);
    let mut admin = proxy.admin();
    admin.say("DELETE-USER alice\nIMPORT alice:=a\n").hears("200 OK\n200 OK\n");
    proxy.signal(libc::SIGKILL);
    proxy.wait();
    let proxy = state.proxy();
    assert_eq!(usage(&proxy, "alice"), [0; 3]);
    // What was relayed stays relayed.
    assert_eq!(proxy.metrics(), [1, 0, 2000]);
}

/// A damaged file, one that is cut off and one of another version: the start succeeds, with the figures before.
#[test]
fn a_damaged_file_is_told_and_the_one_before_it_is_used() {
    let (state, echo) = (State::new(), Origin::echo());
    for _ in 0..2 {
        let mut proxy = state.proxy();
        transfer(&proxy, &echo, "alice", "a");
        proxy.signal(libc::SIGTERM);
        proxy.wait();
    }
    let whole = state.usage();
    for bad in [
        whole.replace("total=2", "total=3"),
        whole[..whole.len() - 1].to_owned(),
        whole.replace("usage 1", "usage 9"),
    ] {
        fs::write(state.path("state/usage"), bad).expect("written");
        let mut proxy = state.proxy();
        assert_eq!(usage(&proxy, "alice"), [1, 1000, 1000]);
        proxy.stderr.wait_for(|line| line.contains("ERROR") && line.contains("usage: it is "));
        proxy.stderr.wait_for(|line| line.contains("the figures are those of usage.1"));
        assert_eq!(proxy.admin().figure("STORE_ERRORS"), 1);
        proxy.signal(libc::SIGKILL);
        proxy.wait();
    }
}

#[test]
fn one_server_has_the_directory() {
    let state = State::new();
    let first = state.proxy();
    let refused = |directory: &str| {
        let mut command = Command::new(binary("socks5d"));
        command.args(["-p", "0", "-P", "0", "--state", directory]);
        let output = command.env_remove("PROXY_CTRL_SUPERUSER").output().expect("it runs");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("text")
    };
    let path = state.path("state");
    let path = path.to_str().expect("UTF-8");
    assert_eq!(refused(path), format!("socks5d: --state {path}: another server has it\n"));
    assert_eq!(refused("/dev/null"), "socks5d: --state /dev/null: it is no directory\n");
    assert_eq!(
        refused("/nonexistent/state"),
        "socks5d: --state /nonexistent/state: cannot make it: No such file or directory (os error 2)\n"
    );
    drop(first);
    // A lock file that is left is no lock.
    state.proxy();
}

/// systemd names the directory in the environment.
#[test]
fn systemd_may_name_the_directory() {
    let state = State::new();
    let path = state.path("state");
    let mut command = Command::new(binary("socks5d"));
    command.args(["-p", "0", "-P", "0", "-l", "127.0.0.1"]);
    command.env("STATE_DIRECTORY", format!("{}:/nonexistent", path.display()));
    command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut child = command.spawn().expect("it runs");
    let lines = support::proxy::Lines::gather(child.stderr.take().expect("piped"));
    lines.wait_for(|line| line.contains("listening: service=metp"));
    support::proxy::send_signal(&child, libc::SIGTERM);
    support::proxy::wait_for_exit(&mut child, support::PATIENCE);
    assert!(path.join("usage").exists());
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: PathBuf| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(path.clone()), mode(path.join("usage"))), (0o700, 0o600));
}
