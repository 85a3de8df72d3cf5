//! Accounts in a users file: passwords that the server makes, locks, imports, and what cannot be stored.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use support::client::{client, command, outcome, run};
use support::proxy::{Builder, Proxy};
use support::socks::Client;

const TOKEN: &str = "$b2$AAECAwQFBgcICQoLDA0ODw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A proxy with a users file.
fn with_file(text: &str) -> (Proxy, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("users");
    fs::write(&path, text).expect("written");
    (Builder::default().args(["--users".as_ref(), path.as_os_str()]).start(), directory)
}

#[test]
fn a_generated_password_is_all_that_is_printed() {
    let proxy = Proxy::start();
    let server = proxy.metp_address();
    let made = client(server, ["-q", "--generate", "bob"]);
    assert_eq!((made.code, made.stderr.as_str()), (0, ""));
    let password = made.stdout.strip_suffix('\n').expect("a line");
    assert!(password.len() == 32 && password.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    Client::new(proxy.socks()).logged_in("bob", password);
    let again = client(server, ["--json", "--generate", "bob"]);
    let document: serde_json::Value = serde_json::from_str(&again.stdout).expect("JSON");
    let result = &document["results"][0]["result"];
    assert_eq!(result["created"], false);
    let password = result["password"].as_str().expect("text");
    Client::new(proxy.socks()).logged_in("bob", password);
    let refused = client(server, ["-q", "--generate", "-"]);
    assert_eq!(refused.code, 64);
    assert_eq!(refused.stderr, "client: --generate -: names are 1 to 255 bytes, and not - alone\n");
}

#[test]
fn accounts_are_locked_and_unlocked() {
    let proxy = Proxy::with(&["-u", "bob:pw"]);
    let server = proxy.metp_address();
    for (option, shown) in [("--lock", "yes"), ("--unlock", "no")] {
        let done = client(server, ["-q", option, "bob", "--user-metrics", "bob"]);
        assert_eq!((done.code, done.stderr.as_str()), (0, ""));
        assert!(done.stdout.starts_with("Operation successful\n"), "{}", done.stdout);
        let row = done.stdout.lines().last().expect("a row");
        assert!(row.split_whitespace().rev().nth(1) == Some(shown), "{row}");
    }
    let refused = client(server, ["-q", "--lock", "admin", "--unlock", "nobody"]);
    assert_eq!(refused.code, 65);
    assert_eq!(
        refused.stderr,
        "LOCK-USER admin: not on your own account\nUNLOCK-USER nobody: no such user\n"
    );
}

#[test]
fn a_file_is_imported_and_what_is_refused_is_told() {
    let (proxy, directory) = with_file("old:=x\n");
    let file = directory.path().join("more");
    let good: String = (0..500).map(|number| format!("u{number}:{TOKEN}\r\n")).collect();
    fs::write(&file, format!("# c\n{good}*::role=user\nold:=y\nbad\nlast:=z:role=admin"))
        .expect("written");
    let name = file.to_str().expect("UTF-8");
    let server = proxy.metp_address();
    let done = client(server, ["-q", "--import", name, "--users"]);
    assert_eq!(done.code, 65);
    assert_eq!(
        done.stderr,
        format!(
            "--import {name}: line 503: user exists\n\
             --import {name}: line 504: no colon between name and secret\n"
        )
    );
    assert!(done.stdout.starts_with("Accounts imported: 501, refused: 2\n"), "{}", done.stdout);
    assert_eq!(done.stdout.lines().count(), 1 + 503);
    let text = fs::read_to_string(directory.path().join("users")).expect("read");
    assert_eq!(text.lines().count(), 502);
    let again = client(server, ["--json", "-q", "--import", name]);
    assert_eq!(again.code, 65);
    let document: serde_json::Value = serde_json::from_str(&again.stdout).expect("JSON");
    let result = &document["results"][0]["result"];
    assert_eq!(result["imported"], 0);
    assert_eq!(result["refused"].as_array().map(Vec::len), Some(503));
    assert_eq!(result["refused"][0]["line"], 2);
    assert_eq!(result["refused"][0]["error"], "user exists");
}

#[test]
fn a_file_may_come_on_standard_input() {
    let proxy = Proxy::start();
    let mut import = command(["-q", "-u", "admin:1234", "--import", "-"]);
    import.args(["-H", &proxy.metp_address().to_string()]).stdin(Stdio::piped());
    let mut child = import.spawn().expect("it runs");
    child.stdin.take().expect("piped").write_all(b"bob:=secret\n").expect("taken");
    let done = outcome(child);
    assert_eq!((done.code, done.stdout.as_str()), (0, "Accounts imported: 1, refused: 0\n"));
    Client::new(proxy.socks()).logged_in("bob", "secret");
    for (file, why) in [
        ("/nonexistent", "No such file or directory (os error 2)"),
        ("/", "Is a directory (os error 21)"),
    ] {
        let refused = run(&mut command(["-u", "admin:1234", "--import", file]));
        let says = format!("client: --import {file}: {why}\n");
        assert_eq!((refused.code, refused.stderr), (64, says));
    }
}

#[test]
fn a_reload_tells_what_has_changed_or_what_is_wrong() {
    let (proxy, directory) = with_file("old:=x\n");
    let server = proxy.metp_address();
    let path = directory.path().join("users");
    fs::write(&path, "new:=x\nmore:=y\n").expect("written");
    let done = client(server, ["-q", "--reload"]);
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (0, "Accounts: 2, 2 added, 1 deleted, 0 changed; settings changed: 0\n")
    );
    fs::write(&path, "new\nmore:y\n").expect("written");
    let refused = client(server, ["-q", "--reload"]);
    assert_eq!(refused.code, 65);
    assert!(
        refused.stderr.starts_with(
            "RELOAD: users: line 1: no colon between name and secret; users: line 2: "
        ),
        "{}",
        refused.stderr
    );
    // What cannot be stored is no refusal, and no end of the session.
    let failed = client(server, ["-q", "--lock", "new", "--users"]);
    assert_eq!(
        (failed.code, failed.stderr.as_str()),
        (70, "LOCK-USER new: changed on disk, RELOAD first\n")
    );
    assert!(failed.stdout.contains("more user"), "{}", failed.stdout);
}
