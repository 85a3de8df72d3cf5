//! RELOAD and SIGHUP: the file is read again, all of it or nothing (METP section 5.25).

use std::fs;

use support::origin::Origin;
use support::socks::{Client, DENIED, WELCOME};
use support::{exchange, read_to_reset};

use super::{BCRYPT, TOKEN, UsersFile, login};

#[test]
fn tunnels_of_accounts_that_stay_stay() {
    let file = UsersFile::new("alice:=a\nbob:=b\ncarol:=c\n");
    let (proxy, echo) = (file.proxy(), Origin::echo());
    let mut tunnels: Vec<_> = [("alice", "a"), ("bob", "b"), ("carol", "c")]
        .into_iter()
        .map(|(name, password)| {
            Client::new(proxy.socks()).logged_in(name, password).connected(echo.address)
        })
        .collect();
    fs::write(&file.path, "carol:=new\nalice:=a\ndave:=d\n").expect("written");
    let mut admin = proxy.admin();
    assert_eq!(admin.command("RELOAD"), "200 OK accounts=3 added=1 deleted=1 changed=1 settings=0");
    read_to_reset(&mut tunnels[1]);
    exchange(&mut tunnels[0], 1000);
    exchange(&mut tunnels[2], 1000);
    for (name, password, status) in [
        ("carol", "c", DENIED),
        ("carol", "new", WELCOME),
        ("bob", "b", DENIED),
        ("dave", "d", WELCOME),
    ] {
        assert_eq!(login(&proxy, name, password), status, "{name}");
    }
    let usage = admin.ask("USER-METRICS carol")[0].clone();
    assert!(usage.contains("connections=1 total=2 up=1000 down=1000"), "{usage}");
}

#[test]
fn one_bad_line_among_thousands_changes_nothing() {
    let lines = |count: usize| -> String {
        (0..count).map(|number| format!("u{number}:{TOKEN}\n")).collect()
    };
    let file = UsersFile::new(&lines(100));
    let proxy = file.proxy();
    let mut admin = proxy.admin();
    let bad = lines(10_000).replacen("u7000:", "u7000 ", 1).replacen(":$b2", ":role=x:$b2", 1);
    fs::write(&file.path, bad).expect("written");
    let told = admin.command("RELOAD");
    assert!(told.starts_with("409 Conflict [INVALID] users: line 1: "), "{told}");
    assert!(told.contains("; users: line 7001: no colon between name and secret"), "{told}");
    assert_eq!(admin.ask("USERS").len(), 101);
    proxy.stderr.wait_for(|line| line.contains("reload: users: line 7001: no colon"));
    proxy.stderr.wait_for(|line| line.contains("not reloaded: nothing has changed"));
    fs::write(&file.path, lines(10_000)).expect("written");
    assert_eq!(
        admin.command("RELOAD"),
        "200 OK accounts=10000 added=9900 deleted=0 changed=0 settings=0"
    );
}

#[test]
fn a_signal_reads_the_file_again() {
    let file = UsersFile::new("alice:=a\n");
    let proxy = file.proxy();
    fs::write(&file.path, "alice:=a\nbob:=b\n").expect("written");
    proxy.signal(libc::SIGHUP);
    proxy.stderr.wait_for(|line| line.contains("reloaded: accounts=2 added=1 deleted=0 changed=0"));
    assert_eq!(login(&proxy, "bob", "b"), WELCOME);
    fs::write(&file.path, "alice\n").expect("written");
    proxy.signal(libc::SIGHUP);
    proxy.stderr.wait_for(|line| line.contains("reload: users: line 1: no colon"));
    assert_eq!(login(&proxy, "bob", "b"), WELCOME);
}

#[test]
fn the_last_administrator_is_not_lost() {
    let file = UsersFile::new(&format!("root:{BCRYPT}:role=admin\n"));
    let proxy = file.builder().superuser(None).start();
    let mut root = proxy.metp().logged_in("root", "U*U");
    fs::write(&file.path, format!("root:{BCRYPT}\n")).expect("written");
    assert_eq!(
        root.command("RELOAD"),
        "409 Conflict [INVALID] no account would be an administrator that is not locked"
    );
    assert_eq!(root.ask("USERS"), ["root admin"]);
}

/// Reloads and changes at once: a reload sees all changes that were answered, and no change is lost to it.
#[test]
fn reloads_and_changes_take_turns() {
    let file = UsersFile::new("");
    let proxy = file.proxy();
    std::thread::scope(|scope| {
        let mut admin = proxy.admin();
        scope.spawn(move || {
            for number in 0..200 {
                admin.say(&format!("IMPORT u{number}:{TOKEN}\n"));
            }
            for _ in 0..200 {
                admin.hears("200 OK\n");
            }
        });
        let mut admin = proxy.admin();
        scope.spawn(move || {
            for _ in 0..20 {
                let told = admin.command("RELOAD");
                assert!(told.ends_with("added=0 deleted=0 changed=0 settings=0"), "{told}");
            }
        });
    });
    let mut admin = proxy.admin();
    assert_eq!(
        admin.command("RELOAD"),
        "200 OK accounts=200 added=0 deleted=0 changed=0 settings=0"
    );
    assert_eq!(admin.ask("USERS").len(), 201);
}

#[test]
fn a_file_that_is_gone_has_no_accounts() {
    let file = UsersFile::new("alice:=a\n");
    let proxy = file.proxy();
    fs::remove_file(&file.path).expect("removed");
    let mut admin = proxy.admin();
    assert_eq!(
        admin.command("LOCK-USER alice"),
        "500 Internal Server Error [STORE] changed on disk, RELOAD first"
    );
    assert_eq!(admin.command("RELOAD"), "200 OK accounts=0 added=0 deleted=1 changed=0 settings=0");
    assert_eq!(admin.command("ADD-USER bob b"), "200 OK");
    assert_eq!(file.text().lines().count(), 1);
}

/// A reload that is asked for while another one reads sees what was in the file when it was asked for.
#[test]
fn a_reload_reads_what_is_there_when_it_is_asked_for() {
    let many: String = (0..20_000).map(|number| format!("u{number}:{TOKEN}\n")).collect();
    let file = UsersFile::new(&many);
    let proxy = file.proxy();
    let (mut first, mut second) = (proxy.admin(), proxy.admin());
    let edited = file.directory.path().join("edited");
    for round in 0..5 {
        std::fs::write(&edited, format!("{many}new:=pw{round}\n")).expect("written");
        first.say("PING asks\nRELOAD\n").hears("200 PONG asks\n");
        std::fs::rename(&edited, &file.path).expect("in its place");
        assert!(second.command("RELOAD").starts_with("200 "));
        assert!(first.line().starts_with("200 "));
        let password = format!("pw{round}");
        assert_eq!(login(&proxy, "new", &password), WELCOME, "{round}");
    }
}
