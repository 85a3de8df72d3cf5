//! Standard streams that somebody else has made non-blocking, and a file that may not grow.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use support::client::{command, outcome};
use support::proxy::{Builder, Proxy, wait_for_exit};
use support::socks::Client;
use support::system::{bytes_waiting, is_non_blocking, limit_file_size, make_non_blocking};
use support::{PATIENCE, eventually};
use tempfile::TempDir;

fn call(proxy: &Proxy, arguments: &[&str]) -> Command {
    let port = proxy.metp_address().port().to_string();
    let mut command = command(["-p", &port, "-u", "admin:1234"]);
    command.args(arguments);
    command
}

/// A proxy whose list of accounts is longer than any pipe.
fn crowded() -> Proxy {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    for number in 0..3000 {
        admin.say(&format!("ADD-USER acct{number:056} pw\n")).hears("200 OK\n");
    }
    proxy
}

/// As with a parent such as node: what does not fit into the pipe has to wait for its reader.
#[test]
fn output_waits_for_a_non_blocking_pipe() {
    let proxy = crowded();
    for (arguments, last) in [(&["-l"][..], "Connection closed\n"), (&["--json", "-l"], "}\n")] {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        make_non_blocking(&writer);
        let mut command = call(&proxy, arguments);
        command.stdout(OwnedFd::from(writer.try_clone().expect("a descriptor")));
        let mut child = command.spawn().expect("it starts");
        drop(command);
        eventually("the pipe is full, or it has ended", || {
            bytes_waiting(&reader) > 60_000 || child.try_wait().expect("a child").is_some()
        });
        assert!(is_non_blocking(&writer), "the flag is the parent's");
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        assert_eq!(wait_for_exit(&mut child, PATIENCE).code(), Some(0), "{arguments:?}");
        assert!(text.ends_with(last), "{arguments:?}");
        assert_eq!(text.matches("acct").count(), 3000, "{arguments:?}");
    }
}

/// What is said on stderr waits as well: the pipe is full when the call is made.
#[test]
fn complaints_wait_for_a_non_blocking_pipe() {
    let proxy = Proxy::start();
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    make_non_blocking(&writer);
    let mut filled = 0;
    while let Ok(count) = writer.write(&[b'.'; 4096]) {
        filled += count;
    }
    let mut command = call(&proxy, &["-l"]);
    let child = command.stderr(OwnedFd::from(writer)).spawn().expect("it starts");
    drop(command);
    wait_until_idle(&child);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("text");
    assert_eq!(outcome(child).code, 0);
    let said = format!("Connecting to {} with user 'admin'\n", proxy.metp_address());
    assert_eq!(text[filled..], said);
}

/// Waits until a child that has been started sleeps, or has ended.
fn wait_until_idle(child: &Child) {
    let state = |path: &str| std::fs::read_to_string(format!("/proc/{}/{path}", child.id()));
    eventually("it waits, or has ended", || {
        let stat = state("stat").expect("it has not been waited for");
        let started = state("comm").is_ok_and(|name| name == "client\n");
        started && (stat.contains(") S ") || stat.contains(") Z "))
    });
}

/// New passwords on standard input: read when they come, each line for its account.
#[test]
fn passwords_are_waited_for_on_a_non_blocking_pipe() {
    let proxy = Builder::default().args(["-u", "alice:old", "-u", "bob:old"]).start();
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    make_non_blocking(&reader);
    let mut command = call(&proxy, &["--password", "alice", "--password", "bob"]);
    let child = command.stdin(OwnedFd::from(reader)).spawn().expect("it starts");
    drop(command);
    wait_until_idle(&child);
    writer.write_all(b"for ").expect("it reads");
    writer.write_all(b"alice\nfor bob\n").expect("it reads");
    let outcome = outcome(child);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    for name in ["alice", "bob"] {
        Client::new(proxy.socks()).logged_in(name, &format!("for {name}"));
    }
}

/// A file that may not grow (RLIMIT_FSIZE) is an output that fails: EX_IOERR, and no signal.
#[test]
fn a_file_that_may_not_grow_is_an_error() {
    let (proxy, folder) = (crowded(), TempDir::new().expect("a folder"));
    for arguments in [&["-l"][..], &["--json", "-l"], &["-h"]] {
        let path = folder.path().join("output");
        let mut command = call(&proxy, arguments);
        command.stdout(File::create(&path).expect("a folder of its own")).stdin(Stdio::null());
        limit_file_size(&mut command, 1000);
        let outcome = outcome(command.spawn().expect("it starts"));
        assert_eq!(outcome.code, 74, "{arguments:?}: {outcome:?}");
        assert!(outcome.stderr.contains("File too large"), "{arguments:?}: {outcome:?}");
        assert_eq!(std::fs::read(&path).expect("written").len(), 1000, "{arguments:?}");
    }
}
