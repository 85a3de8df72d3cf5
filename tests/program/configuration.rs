//! The configuration file, from outside: start, check, print, and secrets that come from files.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use support::binary;
use support::proxy::Builder;
use support::socks::Client;
use tempfile::TempDir;

/// A file with this text, in a directory of its own.
fn file(text: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("conf");
    fs::write(&path, text).expect("written");
    (directory, path)
}

/// The program with a configuration file, until it ends.
fn run(path: &PathBuf, more: &[&str]) -> Output {
    let mut command = Command::new(binary("socks5d"));
    command.arg("--config").arg(path).args(more).stdin(Stdio::null());
    command.env_remove("PROXY_CTRL_SUPERUSER").output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn a_server_is_what_its_file_says() {
    let (_directory, path) = file("user bob:builder\nbuffer-size 4k\ngrace 7\ndns-queue 5\n");
    let builder = Builder::default().args(["--config".as_ref(), path.as_os_str()]);
    let proxy = builder.args(["--grace", "9"]).start();
    Client::new(proxy.socks()).logged_in("bob", "builder");
    let mut admin = proxy.admin();
    for (key, value) in [("buffer-size", "4096"), ("grace", "9"), ("dns-queue", "5")] {
        assert_eq!(admin.setting(key), value, "{key}");
    }
}

#[test]
fn a_check_tells_all_errors_and_touches_nothing() {
    let (directory, path) = file("port 0\nmetp-port 0\nusers users\nstate state\n");
    let check = || {
        let mut command = Command::new(binary("socks5d"));
        command.current_dir(directory.path()).args(["--config", "conf", "--check-config"]);
        command.env_remove("PROXY_CTRL_SUPERUSER").output().expect("it runs")
    };
    let good = check();
    assert_eq!(
        (good.status.code(), &good.stdout[..], &good.stderr[..]),
        (Some(0), &b""[..], &b""[..])
    );
    assert_eq!(fs::read_dir(directory.path()).expect("read").count(), 1, "something was made");
    fs::write(directory.path().join("users"), "alice\nbob:x\n").expect("written");
    let bad = check();
    assert_eq!((bad.status.code(), &bad.stdout[..]), (Some(64), &b""[..]));
    let said = text(&bad.stderr);
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.starts_with("socks5d: --users users: line 1: no colon"), "{said}");
    fs::write(&path, "prot 0\ngrace x\n").expect("written");
    let said = text(&check().stderr);
    assert!(said.starts_with("socks5d: --config conf: line 1: --prot"), "{said}");
    assert!(said.contains("\nsocks5d: --config conf: line 2: --grace x: "), "{said}");
}

/// Beside a server with the same files: no connection is lost, and no port is asked for.
#[test]
fn a_check_disturbs_no_server() {
    let (directory, path) = file("port 1\nmetp-port 2\n");
    let users = directory.path().join("users");
    fs::write(&users, "alice:=a\n").expect("written");
    let state = directory.path().join("state");
    fs::write(
        &path,
        format!("port 1\nmetp-port 2\nusers {}\nstate {}\n", users.display(), state.display()),
    )
    .expect("written");
    let arguments = ["--users".as_ref(), users.as_os_str(), "--state".as_ref(), state.as_os_str()];
    let proxy = Builder::default().args(arguments).start();
    let mut alice = proxy.metp().logged_in("alice", "a");
    for _ in 0..3 {
        let checked = run(&path, &["--check-config"]);
        assert_eq!((checked.status.code(), text(&checked.stderr)), (Some(0), String::new()));
        assert_eq!(alice.command("PING"), "200 PONG");
    }
    assert_eq!(proxy.admin().command("LOCK-USER alice"), "200 OK");
}

#[test]
fn what_is_in_force_is_printed_without_passwords() {
    let (_directory, path) = file("port 0\nuser bob:tulip\ngrace 7\nhttp-connect\n");
    let printed = run(&path, &["--idle-timeout", "9", "--print-config"]);
    assert_eq!((printed.status.code(), text(&printed.stderr)), (Some(0), String::new()));
    let said = text(&printed.stdout);
    assert!(!said.contains("tulip"), "{said}");
    for lines in [
        "# file\nport 0\n",
        "# file\n# user bob; the password is not shown\n",
        "# file\ngrace 7\n",
        "# file\nhttp-connect on\n",
        "# option\nidle-timeout 9\n",
        "# default\nmetp-port 8080\n",
        "# default\nudp on\n",
    ] {
        assert!(said.contains(lines), "{lines:?} in {said}");
    }
    // It is a file itself.
    fs::write(&path, &said).expect("written");
    let again = run(&path, &["--check-config"]);
    assert_eq!((again.status.code(), text(&again.stderr)), (Some(0), String::new()));
}

/// As in a container: the secret is a file, and no variable holds it.
#[test]
fn the_superuser_may_come_from_a_file() {
    let start = |content: &[u8], variable: Option<&str>| {
        let (directory, path) = file("");
        fs::write(&path, content).expect("written");
        let mut command = Command::new(binary("socks5d"));
        command.args(["-p", "0", "-P", "0", "--check-config"]).env_remove("PROXY_CTRL_SUPERUSER");
        command.envs(variable.map(|login| ("PROXY_CTRL_SUPERUSER", login)));
        let output = command.env("PROXY_CTRL_SUPERUSER_FILE", &path).output().expect("it runs");
        drop(directory);
        (output.status.code(), text(&output.stderr))
    };
    for good in [&b"root:tulip"[..], b"root:tulip\n", b"root:tulip\r\n"] {
        assert_eq!(start(good, None), (Some(0), String::new()));
    }
    for (bad, why) in [
        (&b"root:tulip\n\n"[..], "root: the password holds a control character"),
        (b"root:tu\tlip", "root: the password holds a control character"),
        (b"tulip", ": NAME:PASS expected, no colon (not shown: it may be a password)"),
        (b"", " \"\": NAME:PASS expected"),
    ] {
        let (code, said) = start(bad, None);
        assert_eq!(code, Some(64));
        assert!(
            said.lines().count() == 1 && said.contains(why) && !said.contains("tulip"),
            "{said}"
        );
    }
    let (code, said) = start(b"root:tulip", Some("root:rose"));
    assert_eq!(code, Some(64));
    assert_eq!(said, "socks5d: PROXY_CTRL_SUPERUSER_FILE: PROXY_CTRL_SUPERUSER is set, too\n");
    let missing = Command::new(binary("socks5d"))
        .args(["--check-config"])
        .env_remove("PROXY_CTRL_SUPERUSER")
        .env("PROXY_CTRL_SUPERUSER_FILE", "/nonexistent")
        .output()
        .expect("it runs");
    assert_eq!(missing.status.code(), Some(64));
}

/// The value of a setting, and where it comes from.
fn setting(admin: &mut support::metp::Metp, key: &str) -> (String, String) {
    let line = admin.ask(&format!("CONFIG GET {key}"))[0].clone();
    let value = |key| support::metp::value(&line, key).to_owned();
    (value("value"), value("source"))
}

fn is(value: &str, source: &str) -> (String, String) {
    (value.to_owned(), source.to_owned())
}

/// The command line wins over what was saved, that over the file, that over the default; METP over all, until the end.
#[test]
fn each_setting_tells_where_it_comes_from() {
    let (directory, path) = file("grace 7\ndns-queue 8\nudp-log 9\n");
    let state = directory.path().join("state");
    let start = || {
        let arguments =
            ["--config".as_ref(), path.as_os_str(), "--state".as_ref(), state.as_os_str()];
        Builder::default().args(arguments).args(["--dns-queue", "5"]).start()
    };
    let mut proxy = start();
    let mut admin = proxy.admin();
    for (key, value, source) in
        [("grace", "7", "file"), ("dns-queue", "5", "option"), ("keepalive", "60", "default")]
    {
        assert_eq!(setting(&mut admin, key), is(value, source), "{key}");
    }
    for key in ["grace", "dns-queue", "keepalive", "udp-log"] {
        assert_eq!(admin.command(&format!("CONFIG SET {key} 77")), "200 OK");
        assert_eq!(setting(&mut admin, key), is("77", "runtime"), "{key}");
    }
    for key in ["grace", "dns-queue", "keepalive"] {
        assert_eq!(admin.command(&format!("CONFIG SAVE {key}")), "200 OK");
    }
    assert_eq!(admin.command("CONFIG SAVE no"), "404 Not Found [NOKEY] no such setting");
    assert_eq!(setting(&mut admin, "grace"), is("77", "saved"));
    proxy.signal(libc::SIGKILL);
    proxy.wait();
    let mut proxy = start();
    let mut admin = proxy.admin();
    for (key, value, source) in [
        ("grace", "77", "saved"),
        ("dns-queue", "5", "option"),
        ("keepalive", "77", "saved"),
        ("udp-log", "9", "file"),
    ] {
        assert_eq!(setting(&mut admin, key), is(value, source), "{key}");
    }
    proxy.signal(libc::SIGKILL);
    proxy.wait();
    // What cannot be used of it is told, and is no end.
    fs::write(state.join("settings"), "grace x\nno 1\nkeepalive 5\n").expect("written");
    let proxy = start();
    let mut admin = proxy.admin();
    assert_eq!(setting(&mut admin, "grace"), is("7", "file"));
    assert_eq!(setting(&mut admin, "keepalive"), is("5", "saved"));
    proxy.stderr.wait_for(|line| line.contains("settings: grace takes "));
    proxy.stderr.wait_for(|line| line.contains("settings: there is no no"));
    // It may be of use to another version, and stays.
    assert_eq!(admin.command("CONFIG SAVE udp-log"), "200 OK");
    let text = fs::read_to_string(state.join("settings")).expect("UTF-8");
    assert!(text.ends_with(".\nkeepalive 5\nudp-log 9\ngrace x\nno 1\n"), "{text}");
    // A damaged file is kept beside the new one.
    fs::write(state.join("settings"), b"keepalive 6\n\xff\n").expect("written");
    assert_eq!(admin.command("CONFIG SAVE udp-log"), "200 OK");
    let text = fs::read_to_string(state.join("settings")).expect("UTF-8");
    assert!(text.ends_with(".\nkeepalive 5\nudp-log 9\n"), "{text}");
    assert_eq!(fs::read(state.join("settings.bad")).expect("kept"), b"keepalive 6\n\xff\n");
    let line = "settings: the file that could not be read is settings.bad now";
    proxy.stderr.wait_for(|told| told.contains(line));
}

#[test]
fn files_are_read_again_as_a_whole_or_not_at_all() {
    let (directory, path) = file("grace 7\nudp-log 9\ntrust 192.0.2.0/24\n");
    let users = directory.path().join("users");
    fs::write(&users, "alice:=a\n").expect("written");
    let arguments = ["--config".as_ref(), path.as_os_str(), "--users".as_ref(), users.as_os_str()];
    let proxy = Builder::default().args(arguments).args(["--dns-queue", "5"]).start();
    let mut admin = proxy.admin();
    assert_eq!(admin.command("CONFIG SET grace 9"), "200 OK");
    assert_eq!(admin.command("CONFIG SET keepalive 9"), "200 OK");
    // One of two is wrong: nothing of either takes effect.
    fs::write(&path, "grace 8\nbogus 1\n").expect("written");
    fs::write(&users, "alice:=a\nbob:=b\n").expect("written");
    let told = admin.command("RELOAD");
    let begins = told.starts_with("409 Conflict [INVALID] --config ");
    assert!(begins && told.contains("line 2: "), "{told}");
    assert_eq!(setting(&mut admin, "grace"), is("9", "runtime"));
    assert_eq!(admin.ask("USERS"), ["alice user", "admin admin"]);
    fs::write(&path, "grace 8\nbuffer-size 4k\ndns-queue 99\nport 1\ntrust ::1\n")
        .expect("written");
    assert_eq!(admin.command("RELOAD"), "200 OK accounts=2 added=1 deleted=0 changed=0 settings=4");
    for (key, value, source) in [
        ("grace", "8", "file"),
        ("buffer-size", "4096", "file"),
        ("udp-log", "16", "default"),
        ("keepalive", "9", "runtime"),
        ("dns-queue", "5", "option"),
    ] {
        assert_eq!(setting(&mut admin, key), is(value, source), "{key}");
    }
    assert_eq!(admin.ask("TRUST"), ["network=::1/128"]);
    proxy.stderr.wait_for(|line| line.contains("configuration: grace is 8 now"));
    // The port of the command line is the one that counts.
    assert!(!proxy.stderr.all().iter().any(|line| line.contains("port takes a restart")));
    fs::write(&path, "metp-listen ::1\n").expect("written");
    proxy.signal(libc::SIGHUP);
    proxy.stderr.wait_for(|line| line.contains("configuration: metp-listen takes a restart"));
    let done = "reloaded: accounts=2 added=0 deleted=0 changed=0 settings=3";
    proxy.stderr.wait_for(|line| line.contains(done));
    assert_eq!(admin.command("LOCK-USER bob"), "200 OK");
}

/// What is kept for that holds no password.
#[test]
fn passwords_of_the_start_are_those_that_stay() {
    let (_directory, path) = file("user eve:tulip-of-the-file\n");
    let builder = Builder::default().args(["--config".as_ref(), path.as_os_str()]);
    let proxy = builder.args(["-u", "bob:tulip-of-the-line"]).start();
    assert_eq!(
        proxy.admin().command("RELOAD"),
        "200 OK accounts=0 added=0 deleted=0 changed=0 settings=0"
    );
    Client::new(proxy.socks()).logged_in("bob", "tulip-of-the-line");
}
