//! METP/1.1, §11.9: each change that an administrator makes is one line in the diagnostics, and no password
//! ever is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use support::origin::Origin;
use support::proxy::{Builder, Proxy};
use support::socks::Client;

/// What the diagnostics say of changes: who and what, in order.
fn audit(proxy: &Proxy) -> Vec<String> {
    let told = |line: String| Some(line.split_once(" INFO  audit: ")?.1.to_owned());
    proxy.stderr.all().into_iter().filter_map(told).collect()
}

/// Returns when what was said before is on stderr: lines are written in order.
fn said(proxy: &Proxy) {
    let mut guess = proxy.metp();
    guess.say("HELLO METP/1.0\nAUTH the-last-line x\n").hears("200 Welcome to METP/1.0\n401 ");
    proxy.stderr.wait_for(|line| line.contains("the-last-line"));
}

#[test]
fn each_change_is_told_once_with_who_made_it_and_from_where() {
    let (proxy, echo) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let _tunnel = Client::new(proxy.socks()).logged_in("alice", "pw").connected(echo.address);
    let stream = support::proxy::connect(proxy.metp_address());
    let source = stream.local_addr().expect("connected");
    let mut admin = support::metp::Metp::new(stream).logged_in("admin", "1234");
    let id = support::metp::value(&admin.ask("CONNECTIONS")[0], "id").to_owned();
    let kill = format!("KILL {id}");
    let changes = [
        ("ADD-USER bob secret", "ADD-USER bob"),
        ("ADD-USER carl a secret of  words ", "ADD-USER carl"),
        ("CHANGE-PASSWORD bob secret again", "CHANGE-PASSWORD bob"),
        ("CHANGE-PASSWORD admin secret", "CHANGE-PASSWORD admin"),
        ("SET-ROLE bob admin", "SET-ROLE bob admin"),
        ("CHANGE-BUFFER 00004096", "CHANGE-BUFFER 4096"),
        ("CONFIG SET grace 1.50", "CONFIG SET grace 1.50"),
        (&kill, &kill),
        ("KILL USER alice", "KILL USER alice"),
        ("DELETE-USER bob", "DELETE-USER bob"),
        ("TRUST ADD ::ffff:10.0.0.0/104", "TRUST ADD 10.0.0.0/8"),
        ("TRUST DELETE 10.0.0.0/8", "TRUST DELETE 10.0.0.0/8"),
    ];
    for (command, _) in changes {
        assert!(admin.command(command).starts_with("200 OK"), "{command}");
    }
    said(&proxy);
    let line =
        |(_, told): (&str, &str)| format!("remote={source} user=\"admin\" command=\"{told}\"");
    assert_eq!(audit(&proxy), changes.map(line));
    assert!(!proxy.stderr.all().iter().any(|line| line.contains("secret")));
}

#[test]
fn what_was_not_done_or_changes_nothing_is_not_told() {
    let proxy = Proxy::with(&["-u", "alice:pw"]);
    let (mut admin, mut alice) = (proxy.admin(), proxy.metp().logged_in("alice", "pw"));
    for command in [
        "ADD-USER alice secret",
        "ADD-USER - secret",
        "TRUST ADD secret",
        "TRUST DELETE 10.0.0.0/8",
        "ADD-USER secret",
        "DELETE-USER nobody",
        "DELETE-USER admin",
        "SET-ROLE admin user",
        "CHANGE-PASSWORD nobody secret",
        "CHANGE-BUFFER 0",
        "CONFIG SET grace secret",
        "CONFIG SET secret 1",
        "KILL 99.0",
        "KILL USER nobody",
        "SHUTDOWN GRACE secret",
    ] {
        assert!(admin.command(command).starts_with('4'), "{command}");
    }
    for command in ["ADD-USER x secret", "CHANGE-PASSWORD admin secret", "SHUTDOWN", "KILL 0.0"] {
        assert_eq!(alice.command(command), "403 Forbidden");
    }
    for command in
        ["GET_METRICS", "GET_LOGS", "USERS", "CAPA", "INFO", "USER-METRICS", "CONFIG GET"]
    {
        admin.ask(command);
    }
    assert_eq!(admin.command("PING secret"), "200 PONG secret");
    assert_eq!(admin.command("UNSUBSCRIBE"), "200 OK");
    said(&proxy);
    assert_eq!(audit(&proxy), [""; 0]);
    assert!(!proxy.stderr.all().iter().any(|line| line.contains("secret")));
}

/// A user's own password is a change too; names cannot forge a line.
#[test]
fn names_are_escaped_and_users_are_told_too() {
    let login = [OsStr::new("-u"), OsStr::from_bytes(b"e vil\"\xff:pw")];
    let proxy = Builder::default().args(login).start();
    let shown = "e\\x20vil\"\\xff";
    let mut user = proxy.metp().logged_in(shown, "pw");
    assert_eq!(user.command(&format!("CHANGE-PASSWORD {shown} secret")), "200 OK");
    said(&proxy);
    let told = audit(&proxy);
    let end = format!("user=\"{shown}\" command=\"CHANGE-PASSWORD {shown}\"");
    assert!(told.len() == 1 && told[0].ends_with(&end), "{told:?}");
}

/// Not even where everything is told: neither the one that is set, nor one that logs in or is guessed.
#[test]
fn no_password_is_told_at_any_level() {
    let proxy = Proxy::with(&["--log-level", "trace", "-u", "alice:secret0"]);
    let mut admin = proxy.admin();
    admin.set("log-level", "trace");
    for command in [
        "ADD-USER bob secret1",
        "CHANGE-PASSWORD bob secret2",
        "ADD-USER bob secret3",
        "ADD-USER b\u{fc} secret4",
        "CHANGE-PASSWORD nobody secret5",
        "AUTH bob secret6",
        "add-user bob secret7",
        "CHANGE-PASSWORD  bob secret8 ",
    ] {
        admin.command(command);
    }
    proxy.metp().say("HELLO METP/1.0\nAUTH bob secret9\n").hears("200 Welcome to METP/1.0\n401 ");
    let _socks = Client::new(proxy.socks()).logged_in("alice", "secret0");
    said(&proxy);
    let all = [proxy.stderr.all(), proxy.stdout.all()].concat();
    assert!(!all.iter().any(|line| line.contains("secret")), "{all:#?}");
}

/// The last change of all is told before the end.
#[test]
fn shutdown_is_told() {
    for (command, told) in [
        ("SHUTDOWN", "SHUTDOWN"),
        ("SHUTDOWN GRACE 0.500", "SHUTDOWN GRACE 0.5"),
        ("SHUTDOWN GRACE 0", "SHUTDOWN GRACE 0"),
    ] {
        let mut proxy = Proxy::start();
        assert_eq!(proxy.admin().command(command), "200 OK");
        assert_eq!(proxy.wait().code(), Some(0));
        let end = format!("user=\"admin\" command=\"{told}\"");
        proxy.stderr.wait_for(|line| line.contains("audit: ") && line.ends_with(&end));
    }
}
