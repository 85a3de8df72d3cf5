//! METP's changes of a users file: on the disk before the reply (METP section 5.1).

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use support::proxy::Builder;
use support::socks::{DENIED, WELCOME};

use super::{BCRYPT, TOKEN, UsersFile, login};

const OK: &str = "200 OK";

/// Every line that no command touches is there afterwards, byte for byte.
#[test]
fn each_command_changes_its_line_alone() {
    let text = format!(
        "# staff\r\nalice:{BCRYPT}:role=admin\r\n\n  # odd \nb\\x6fb:{TOKEN}: \nzoe:!{TOKEN}"
    );
    let file = UsersFile::new(&text);
    let proxy = file.proxy();
    let mut admin = proxy.admin();
    for (command, before, after) in [
        (
            "SET-ROLE bob admin",
            format!("b\\x6fb:{TOKEN}: \n"),
            format!("b\\x6fb:{TOKEN}:role=admin\n"),
        ),
        ("LOCK-USER bob", format!("b\\x6fb:{TOKEN}"), format!("b\\x6fb:!{TOKEN}")),
        ("UNLOCK-USER zoe", format!("zoe:!{TOKEN}"), format!("zoe:{TOKEN}")),
        ("SET-ROLE alice user", "role=admin\r\n".to_owned(), "role=user\r\n".to_owned()),
        ("DELETE-USER bob", format!("b\\x6fb:!{TOKEN}:role=admin\n"), String::new()),
    ] {
        let wanted = file.text().replace(&before, &after);
        assert_ne!(wanted, file.text(), "{command}");
        assert_eq!(admin.command(command), OK);
        assert_eq!(file.text(), wanted, "{command}");
    }
    let before = file.text();
    assert_eq!(admin.command(&format!("IMPORT new\\x20one:!{BCRYPT}:role=admin")), OK);
    assert_eq!(file.text(), format!("{before}\r\nnew\\x20one:!{BCRYPT}:role=admin\r\n"));
    assert_eq!(file.names(), ["users"]);
}

#[test]
fn what_was_answered_is_there_after_a_restart() {
    let file = UsersFile::missing();
    let mut proxy = file.proxy();
    let mut admin = proxy.admin();
    assert_eq!(admin.command("ADD-USER alice first password"), OK);
    assert_eq!(admin.command("CHANGE-PASSWORD alice second: password"), OK);
    assert_eq!(admin.command("ADD-USER bob builder"), OK);
    assert_eq!(admin.command("SET-ROLE bob admin"), OK);
    assert_eq!(admin.command("LOCK-USER bob"), OK);
    assert_eq!(admin.command("IMPORT clear:=in\\x20clear"), OK);
    assert_eq!(admin.command("ADD-USER gone x"), OK);
    assert_eq!(admin.command("DELETE-USER gone"), OK);
    let told = admin.command("GENERATE-PASSWORD carol");
    let generated = told.split(['=', ' ']).nth(3).expect("a password").to_owned();
    // No password is in the file, not even the one that came in clear.
    for secret in ["password", "builder", "clear:=", "in\\x20clear", &generated] {
        assert!(!file.text().contains(secret), "{}", file.text());
    }
    proxy.signal(libc::SIGKILL);
    proxy.wait();
    let proxy = file.proxy();
    for (name, password, status) in [
        ("alice", "second: password", WELCOME),
        ("alice", "first password", DENIED),
        ("clear", "in clear", WELCOME),
        ("carol", &generated, WELCOME),
        ("bob", "builder", DENIED),
        ("gone", "x", DENIED),
    ] {
        assert_eq!(login(&proxy, name, password), status, "{name}");
    }
    let mut admin = proxy.admin();
    assert_eq!(admin.command("UNLOCK-USER bob"), OK);
    let mut bob = proxy.metp().logged_in("bob", "builder");
    assert_eq!(
        bob.ask("USERS"),
        ["alice user", "bob admin", "clear user", "carol user", "admin admin"]
    );
}

/// A new password works at once, the old one at once no more, whether or not it had been seen.
#[test]
fn passwords_change_at_once() {
    let file = UsersFile::new(&format!("seen:{BCRYPT}\nunseen:{BCRYPT}\n"));
    let proxy = file.proxy();
    let mut admin = proxy.admin();
    assert_eq!(login(&proxy, "seen", "U*U"), WELCOME);
    for name in ["seen", "unseen"] {
        assert_eq!(admin.command(&format!("CHANGE-PASSWORD {name} new")), OK);
        assert_eq!(login(&proxy, name, "U*U"), DENIED);
        assert_eq!(login(&proxy, name, "new"), WELCOME);
    }
}

#[test]
fn permissions_and_links_stay() {
    let file = UsersFile::new("alice:=x\n");
    let link = file.directory.path().join("link");
    symlink("users", &link).expect("linked");
    for mode in [0o600, 0o640] {
        fs::set_permissions(&file.path, fs::Permissions::from_mode(mode)).expect("set");
        let proxy = Builder::default().args(["--users".as_ref(), link.as_os_str()]).start();
        assert_eq!(
            proxy.admin().command(&format!("GENERATE-PASSWORD user{mode}")).split(' ').next(),
            Some("200")
        );
        let found = fs::metadata(&file.path).expect("there").permissions().mode() & 0o777;
        assert_eq!(found, mode);
        assert_eq!(file.names(), ["link", "users"]);
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        let warned = proxy.stderr.all().iter().any(|line| line.contains("others than its owner"));
        assert_eq!(warned, mode != 0o600);
    }
    let file = UsersFile::missing();
    let proxy = file.proxy();
    assert_eq!(proxy.admin().command("ADD-USER bob builder"), OK);
    let mode = fs::metadata(&file.path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
}

/// Somebody edits the file between two commands: nothing of that is lost.
#[test]
fn a_file_that_was_edited_is_not_overwritten() {
    let file = UsersFile::new(&format!("alice:{TOKEN}\n"));
    let proxy = file.proxy();
    let mut admin = proxy.admin();
    assert_eq!(admin.command("LOCK-USER alice"), OK);
    let edited = format!("# by hand\nalice:{TOKEN}\nbob:=b\n");
    fs::write(&file.path, &edited).expect("written");
    let refused = "500 Internal Server Error [STORE] changed on disk, RELOAD first";
    for command in
        ["UNLOCK-USER alice", "ADD-USER carol x", "DELETE-USER alice", "GENERATE-PASSWORD alice"]
    {
        assert_eq!(admin.command(command), refused);
        assert_eq!(file.text(), edited);
        // Undone in memory, too.
        assert_eq!(admin.ask("USERS"), ["alice user", "admin admin"]);
        assert!(admin.ask("USER-METRICS alice")[0].contains("locked=yes"));
    }
    assert_eq!(login(&proxy, "carol", "x"), DENIED);
    assert_eq!(admin.command("RELOAD"), "200 OK accounts=2 added=1 deleted=0 changed=1 settings=0");
    assert_eq!(admin.command("LOCK-USER bob"), OK);
    assert_eq!(file.text(), edited.replace("bob:=", "bob:!="));
}

/// Commands that are sent ahead are answered in their order, whatever becomes of them; other commands wait.
#[test]
fn replies_come_in_the_order_of_the_commands() {
    let file = UsersFile::new("");
    let proxy = file.proxy();
    let mut admin = proxy.admin();
    admin.say(&format!(
        "IMPORT a:{TOKEN}\nIMPORT a:{TOKEN}\nADD-USER b slow\nIMPORT c\nSET-ROLE b admin\nUSERS\nDELETE-USER a\n\
         LOCK-USER a\nNONSENSE\nDELETE-USER admin\nQUIT\n"
    ));
    admin.hears(
        "200 OK\n400 Bad Request [EXISTS] user exists\n200 OK\n\
         400 Bad Request [BADLINE] no colon between name and secret\n200 OK\n\
         200 OK\nadmin admin\na user\nb admin\n.\n200 OK\n400 Bad Request [NOUSER] no such user\n\
         400 Bad Request [SYNTAX] unknown verb\n400 Bad Request [SELF] not on your own account\n200 Goodbye\n",
    );
    admin.hears_eof();
    assert!(file.text().starts_with("b:$argon2id$") && file.text().ends_with(":role=admin\n"));
}

/// Replies that are held come before the end that the client has announced.
#[test]
fn a_client_that_has_sent_everything_is_answered() {
    let file = UsersFile::new("");
    let proxy = file.proxy();
    let mut admin = proxy.admin();
    let commands: String = (0..300).map(|number| format!("IMPORT u{number}:{TOKEN}\n")).collect();
    admin.say(&commands).half_close();
    assert_eq!(admin.rest(), "200 OK\n".repeat(300));
    assert_eq!(file.text().lines().count(), 300);
}

/// Thousands of changes that come one behind the other, and a connection that is lost in the midst of them: what was
/// answered is on the disk, and so is what came before it.
#[test]
fn a_lost_connection_loses_nothing_that_was_answered() {
    const ALL: usize = 3000;
    let file = UsersFile::new("");
    let mut proxy = file.proxy();
    let mut admin = proxy.admin();
    let commands: String = (0..ALL).map(|number| format!("IMPORT u{number}:{TOKEN}\n")).collect();
    let sender = std::thread::scope(|scope| {
        let mut other = proxy.admin();
        let sender = scope.spawn(move || {
            // The server may have closed before all of it is sent.
            other.say(&commands[..commands.len() / 2]);
            for _ in 0..ALL / 4 {
                assert_eq!(other.line(), OK);
            }
        });
        sender.join()
    });
    sender.expect("answered");
    let lines = file.text();
    let lines: Vec<&str> = lines.lines().collect();
    assert!(lines.len() >= ALL / 4);
    assert!(lines.iter().enumerate().all(|(number, line)| *line == format!("u{number}:{TOKEN}")));
    assert_eq!(admin.command("LOCK-USER u1"), OK);
    proxy.signal(libc::SIGKILL);
    proxy.wait();
    assert!(file.proxy().admin().ask("USERS").len() > ALL / 4);
}

/// Two administrators at once: each of them is answered about its own.
#[test]
fn sessions_share_what_is_written_together() {
    let file = UsersFile::new("");
    let proxy = file.proxy();
    std::thread::scope(|scope| {
        for session in 0..4 {
            let mut admin = proxy.admin();
            scope.spawn(move || {
                for number in 0..50 {
                    admin.say(&format!(
                        "IMPORT s{session}-{number}:{TOKEN}\nIMPORT s{session}-{number}:=x\n"
                    ));
                }
                for _ in 0..50 {
                    admin.hears("200 OK\n400 Bad Request [EXISTS] user exists\n");
                }
            });
        }
    });
    assert_eq!(file.text().lines().count(), 200);
}

#[test]
fn a_deleted_account_is_gone_and_so_are_its_sessions() {
    let file = UsersFile::new("alice:=x\n");
    let proxy = file.proxy();
    let mut alice = proxy.metp().logged_in("alice", "x");
    let echo = support::origin::Origin::echo();
    let client = support::socks::Client::new(proxy.socks()).logged_in("alice", "x");
    let mut tunnel = client.connected(echo.address);
    assert_eq!(proxy.admin().command("DELETE-USER alice"), OK);
    support::read_to_reset(&mut tunnel);
    assert_eq!(alice.command("GET_METRICS"), "401 Unauthorized");
    assert_eq!(file.text(), "");
}

#[test]
fn a_locked_account_keeps_its_tunnels_and_loses_its_sessions() {
    let file = UsersFile::new("alice:=x\n");
    let proxy = file.proxy();
    let mut alice = proxy.metp().logged_in("alice", "x");
    let echo = support::origin::Origin::echo();
    let client = support::socks::Client::new(proxy.socks()).logged_in("alice", "x");
    let mut tunnel = client.connected(echo.address);
    assert_eq!(proxy.admin().command("LOCK-USER alice"), OK);
    support::exchange(&mut tunnel, 1000);
    assert_eq!(alice.command("GET_METRICS"), "401 Unauthorized");
    assert_eq!(login(&proxy, "alice", "x"), DENIED);
    assert_eq!(proxy.admin().command("UNLOCK-USER alice"), OK);
    assert_eq!(login(&proxy, "alice", "x"), WELCOME);
}

/// Whatever is changed, the next start reads it.
#[test]
fn a_byte_order_mark_becomes_no_part_of_a_name() {
    let mark = "\u{feff}";
    let file = UsersFile::new(&format!("{mark}alice:=a\r\n{mark}root:=r:role=admin"));
    let mut proxy = file.proxy();
    let mut admin = proxy.admin();
    for command in ["DELETE-USER alice", "LOCK-USER root", &format!("IMPORT zoe:{TOKEN}")] {
        assert_eq!(admin.command(command), OK);
    }
    let text = format!("{mark}root:!=r:role=admin\nzoe:{TOKEN}\n");
    assert_eq!(file.text(), text);
    proxy.signal(libc::SIGKILL);
    proxy.wait();
    assert_eq!(file.proxy().admin().ask("USERS"), ["root admin", "zoe user", "admin admin"]);
}

/// It could not be read at the next start.
#[test]
fn no_line_becomes_longer_than_it_may_be() {
    let line = |name: &str, length: usize| {
        let line = format!("{name}:=x:role=user ");
        format!("{line}{}\n", " ".repeat(length - line.len()))
    };
    let text = line("alice", 4096) + &line("bob", 4090);
    let file = UsersFile::new(&text);
    let proxy = file.proxy();
    let mut admin = proxy.admin();
    for (name, command) in [
        ("alice", "LOCK-USER alice".to_owned()),
        ("bob", "CHANGE-PASSWORD bob longer".to_owned()),
        ("bob", "GENERATE-PASSWORD bob".to_owned()),
    ] {
        let refused = format!(
            "500 Internal Server Error [STORE] cannot change the users file: \
             the line of {name} would have more than 4096 bytes"
        );
        assert_eq!(admin.command(&command), refused);
        assert_eq!(file.text(), text);
        assert_eq!(admin.ask("USERS"), ["alice user", "bob user", "admin admin"]);
        assert!(!admin.ask("USER-METRICS alice")[0].contains("locked=yes"));
        assert_eq!(login(&proxy, "bob", "x"), WELCOME);
    }
    assert_eq!(admin.command("LOCK-USER bob"), OK);
    assert_eq!(file.text(), text.replace("bob:", "bob:!"));
}

#[test]
fn a_fixed_file_is_left_to_others() {
    let file = UsersFile::new(&format!("alice:{BCRYPT}\n"));
    let proxy = file.builder().args(["--users-fixed"]).start();
    let mut admin = proxy.admin();
    let before = file.text();
    for command in [
        "ADD-USER bob x",
        "DELETE-USER alice",
        "LOCK-USER alice",
        "GENERATE-PASSWORD alice",
        "CHANGE-PASSWORD alice x",
    ] {
        assert_eq!(
            admin.command(command),
            "409 Conflict [FIXED] the users file is not changed here"
        );
    }
    assert_eq!(file.text(), before);
    fs::write(&file.path, format!("alice:{BCRYPT}\nbob:=x\n")).expect("written");
    assert_eq!(admin.command("RELOAD"), "200 OK accounts=2 added=1 deleted=0 changed=0 settings=0");
    assert_eq!(login(&proxy, "bob", "x"), WELCOME);
}
