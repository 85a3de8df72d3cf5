//! System calls of a change that fail, or in which the server is killed: the file is the old one or the new one, whole,
//! and what was not stored is undone and answered 500 (METP section 5.1).

use std::ffi::OsStr;
use std::path::PathBuf;

use support::PATIENCE;
use support::proxy::wait_for_exit;
use support::strace::Injected;

use super::{TOKEN, UsersFile};

/// The calls of a change, in their order, and what each is about.
enum About {
    /// The file that is to be.
    Temporary,
    Directory,
}

fn paths(file: &UsersFile, about: &About) -> PathBuf {
    match about {
        About::Temporary => file.directory.path().join(".users.socks5d-new"),
        About::Directory => file.directory.path().to_owned(),
    }
}

/// A server in which this call is made to do something else, once: in the second change. strace counts the calls of each
/// thread, and the main thread makes some of them at the start, too.
fn injected(file: &UsersFile, inject: &str, about: &About) -> Option<Injected> {
    let arguments: [&OsStr; 2] = ["--users".as_ref(), file.path.as_os_str()];
    Injected::with(inject, &[&paths(file, about)], &arguments)
}

const RENAMES: &str = "?rename,?renameat,?renameat2";

#[test]
fn what_cannot_be_stored_is_undone() {
    for (calls, error, about) in [
        ("openat", "EROFS", About::Temporary),
        ("openat", "EMFILE", About::Temporary),
        ("write", "ENOSPC", About::Temporary),
        ("write", "EIO", About::Temporary),
        ("fsync", "EIO", About::Temporary),
        ("fsync", "ENOSPC", About::Temporary),
        ("?fchmod", "EIO", About::Temporary),
        (RENAMES, "EXDEV", About::Temporary),
        (RENAMES, "EBUSY", About::Temporary),
    ] {
        let text = format!("# c\nalice:{TOKEN}\nbob:{TOKEN}");
        let file = UsersFile::new(&text);
        let inject = format!("{calls}:error={error}:when=2");
        let Some(server) = injected(&file, &inject, &about) else { return };
        let mut admin = server.admin();
        assert_eq!(admin.command("LOCK-USER bob"), "200 OK");
        let text = file.text();
        // Several at once: one that fails takes those behind it along.
        admin.say(&format!("DELETE-USER alice\nIMPORT carol:{TOKEN}\nUNLOCK-USER bob\n"));
        let told: Vec<String> = (0..3).map(|_| admin.line()).collect();
        let failed = told.iter().filter(|line| line.starts_with("500 ")).count();
        assert!(failed > 0, "{inject}: {told:?}");
        assert!(
            told[..failed]
                .iter()
                .all(|line| line.starts_with("500 Internal Server Error [STORE] cannot ")),
            "{inject}: {told:?}"
        );
        // What was answered 500 has not happened, and what came after it has, if it could.
        let users = admin.ask("USERS");
        for (number, (name, lost)) in
            [("alice user", false), ("carol user", true)].into_iter().enumerate()
        {
            let there = users.contains(&name.to_owned());
            assert_eq!(
                there,
                lost == told[number].starts_with("200"),
                "{inject}: {told:?} {users:?}"
            );
        }
        if failed == 3 {
            assert_eq!((file.text(), file.names()), (text, vec!["users".to_owned()]), "{inject}");
        }
        // The fault is over.
        assert_eq!(admin.command(&format!("IMPORT dave:{TOKEN}")), "200 OK", "{inject}");
        assert!(file.text().contains("\ndave:"));
        assert_eq!(file.names(), ["users"], "{inject}");
        assert_eq!(file.text().contains("alice:"), told[0].starts_with("500"), "{inject}");
        server.wait_for("users file: changes were not stored, and have been undone: cannot ");
        drop(admin);
        server.ends_by_sigterm();
    }
}

/// A call that was interrupted is made again.
#[test]
fn interrupted_calls_are_repeated() {
    for calls in ["openat", "write", "fsync"] {
        let file = UsersFile::new("");
        let inject = format!("{calls}:error=EINTR:when=2");
        let Some(server) = injected(&file, &inject, &About::Temporary) else { return };
        let mut admin = server.admin();
        for name in ["alice", "bob"] {
            let told = admin.command(&format!("IMPORT {name}:{TOKEN}"));
            assert_eq!(told, "200 OK", "{inject}");
        }
        assert_eq!(file.text(), format!("alice:{TOKEN}\nbob:{TOKEN}\n"));
        drop(admin);
        server.ends_by_sigterm();
    }
}

/// As on file systems that can rename, but not exchange two files.
#[test]
fn without_an_exchange_the_file_is_renamed() {
    for error in ["EINVAL", "ENOSYS", "EPERM"] {
        let file = UsersFile::missing();
        let inject = format!("renameat2:error={error}");
        let Some(server) = injected(&file, &inject, &About::Temporary) else { return };
        let mut admin = server.admin();
        for name in ["alice", "bob"] {
            let told = admin.command(&format!("IMPORT {name}:{TOKEN}"));
            assert_eq!(told, "200 OK", "{inject}");
        }
        assert_eq!(file.text(), format!("alice:{TOKEN}\nbob:{TOKEN}\n"));
        assert_eq!(file.names(), ["users"]);
        drop(admin);
        server.ends_by_sigterm();
    }
}

/// Whether a new name of a file is on the disk is not known if the directory cannot be synced: it is no success, and the
/// file has to be read again.
#[test]
fn a_directory_that_cannot_be_synced_is_no_success() {
    let file = UsersFile::new("");
    let Some(server) = injected(&file, "fsync:error=EIO:when=1", &About::Directory) else { return };
    let mut admin = server.admin();
    let told = admin.command(&format!("IMPORT alice:{TOKEN}"));
    assert_eq!(
        told,
        "500 Internal Server Error [STORE] cannot sync the directory: Input/output error (os error 5)"
    );
    assert_eq!(admin.ask("USERS"), ["admin admin"]);
    assert_eq!(
        admin.command(&format!("IMPORT bob:{TOKEN}")),
        "500 Internal Server Error [STORE] changed on disk, RELOAD first"
    );
    assert_eq!(admin.command("RELOAD"), "200 OK accounts=1 added=1 deleted=0 changed=0 settings=0");
    assert_eq!(admin.command(&format!("IMPORT bob:{TOKEN}")), "200 OK");
    drop(admin);
    server.ends_by_sigterm();
}

/// Killed in each of the calls: the file is whole, and the next start finds it.
#[test]
fn a_kill_between_any_two_steps_leaves_a_whole_file() {
    for (calls, about) in [
        ("openat", About::Temporary),
        ("write", About::Temporary),
        ("fsync", About::Temporary),
        (RENAMES, About::Temporary),
        ("?unlink,?unlinkat", About::Temporary),
        ("fsync", About::Directory),
    ] {
        let file = UsersFile::new("");
        let old = format!("alice:{TOKEN}\n");
        let inject = format!("{calls}:signal=KILL:when=2");
        let Some(mut server) = injected(&file, &inject, &about) else { return };
        let mut admin = server.admin();
        assert_eq!(admin.command(&format!("IMPORT alice:{TOKEN}")), "200 OK", "{inject}");
        admin.say(&format!("IMPORT bob:{TOKEN}\n"));
        assert_eq!(wait_for_exit(&mut server.child, PATIENCE).code(), None, "{inject}");
        let text = file.text();
        assert!(text == old || text == format!("{old}bob:{TOKEN}\n"), "{inject}: {text}");
        let proxy = file.proxy();
        assert_eq!(proxy.admin().command(&format!("IMPORT carol:{TOKEN}")), "200 OK", "{inject}");
        assert_eq!(file.names(), ["users"], "{inject}");
        assert_eq!(file.text(), format!("{text}carol:{TOKEN}\n"));
    }
}

/// As on a full disk, where a part of the file can be written and the rest cannot.
#[test]
fn a_file_that_has_no_room_stays_as_it_was() {
    let file = UsersFile::new("");
    let text: String = (0..8).map(|number| format!("u{number}:{TOKEN}\n")).collect();
    std::fs::write(&file.path, &text).expect("written");
    // Blocks of 512 bytes or of 1 KiB, as the shell has it: the file is below one of them, and will be above two.
    let proxy = file.builder().limits("-f 2").start();
    let mut admin = proxy.admin();
    let mut stored = 0;
    let told = (0..64)
        .map(|number| admin.command(&format!("IMPORT n{number}:{TOKEN}")))
        .inspect(|told| stored += usize::from(told == "200 OK"))
        .find(|told| told != "200 OK");
    assert_eq!(
        told.expect("it is full at some time"),
        "500 Internal Server Error [STORE] cannot write the new file: File too large (os error 27)"
    );
    assert_eq!(file.text().lines().count(), 8 + stored);
    assert_eq!(file.names(), ["users"]);
    assert_eq!(admin.ask("USERS").len(), 1 + 8 + stored);
    // Room can be made.
    assert_eq!(admin.command("DELETE-USER u0"), "200 OK");
}
