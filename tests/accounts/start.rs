//! The start with a users file.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use support::binary;
use support::proxy::Builder;
use support::socks::{DENIED, WELCOME};

use super::{BCRYPT, TOKEN, UsersFile, login};

/// What the program says, and its exit code, when it does not start.
fn refused(file: &UsersFile) -> (Option<i32>, String) {
    output(&["--users"], &file.path)
}

fn output(arguments: &[&str], path: &Path) -> (Option<i32>, String) {
    let output = Command::new(binary("socks5d"))
        .args(["-p", "0", "-P", "0"])
        .args(arguments)
        .arg(path)
        .env_remove("PROXY_CTRL_SUPERUSER")
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    assert_eq!(output.stdout, b"");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

#[test]
fn all_errors_are_told_at_once_with_their_lines() {
    let file = UsersFile::new(
        "alice:=a\nbob\n# c\nalice:=b\ncarol:secret:role=x\ndave:$2y$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n",
    );
    let (code, said) = refused(&file);
    let path = file.path.display();
    assert_eq!(code, Some(64));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    for (line, fault) in lines.iter().zip([
        "line 2: no colon between name and secret",
        "line 4: its name is that of line 1",
        "line 5: role is user or admin",
        "line 6: the hash is too costly: at most m=65536, m times t 262144, p=16 for argon2id, and 13 for bcrypt",
    ]) {
        assert_eq!(*line, format!("socks5d: --users {path}: {fault}"));
    }
}

#[test]
fn what_is_no_file_is_refused() {
    for make in ["mkdir", "mkfifo"] {
        let file = UsersFile::missing();
        assert!(Command::new(make).arg(&file.path).status().expect(make).success());
        let (code, said) = refused(&file);
        let path = file.path.display();
        let line = format!("socks5d: --users {path}: cannot read it: it is no regular file\n");
        assert_eq!((code, said), (Some(64), line));
    }
}

/// The superuser's variable and -u make accounts, and never reset those of the file.
#[test]
fn accounts_of_the_file_stay_as_they_are() {
    let file = UsersFile::new("");
    let mut proxy = file.builder().superuser(Some("root:first")).start();
    assert_eq!(login(&proxy, "root", "first"), WELCOME);
    let mut root = proxy.metp().logged_in("root", "first");
    assert_eq!(root.command("ADD-USER root x"), "400 Bad Request [EXISTS] user exists");
    assert_eq!(file.text(), "");
    proxy.signal(libc::SIGTERM);
    proxy.wait();
    let text = format!("root:{BCRYPT}\nalice:{TOKEN}\n");
    let file = UsersFile::new(&text);
    let proxy =
        file.builder().superuser(Some("root:first")).args(["-u", "alice:a", "-u", "bob:b"]).start();
    for (name, password, status) in [
        ("root", "U*U", WELCOME),
        ("root", "first", DENIED),
        ("alice", "a", DENIED),
        ("bob", "b", WELCOME),
    ] {
        assert_eq!(login(&proxy, name, password), status, "{name}");
    }
    assert_eq!(file.text(), text);
    let said = proxy.stderr.all().join("\n");
    for who in ["PROXY_CTRL_SUPERUSER root", "-u alice"] {
        let line = format!("{who}: the users file has this account, and it stays as it is");
        assert!(said.contains(&line), "{said}");
    }
    assert!(said.contains("there is no administrator"), "{said}");
}

#[test]
fn administrators_may_be_in_the_file_alone() {
    let file = UsersFile::new(&format!("root:{BCRYPT}:role=admin\n"));
    let proxy = file.builder().superuser(None).start();
    let mut root = proxy.metp().logged_in("root", "U*U");
    assert_eq!(root.command("ADD-USER bob b"), "200 OK");
    assert_eq!(root.command("DELETE-USER root"), "400 Bad Request [SELF] not on your own account");
    assert!(!proxy.stderr.all().iter().any(|line| line.contains("administrator")));
}

#[test]
fn a_file_that_does_not_exist_is_made_with_the_first_account() {
    let file = UsersFile::missing();
    let proxy = file.proxy();
    proxy.stderr.wait_for(|line| line.contains("there is no such file yet"));
    assert!(file.names().is_empty());
    assert_eq!(proxy.admin().command("ADD-USER bob b"), "200 OK");
    assert_eq!(file.names(), ["users"]);
}

#[test]
fn passwords_in_clear_are_warned_about_and_stay() {
    let text = "alice:=a\nbob:=b\n";
    let file = UsersFile::new(text);
    let proxy = file.proxy();
    proxy.stderr.wait_for(|line| line.contains("passwords in clear: 2"));
    assert_eq!(login(&proxy, "alice", "a"), WELCOME);
    assert_eq!(file.text(), text);
}

/// Such as one with a slash at its end: the first account would make a file that the next start does not find.
#[test]
fn a_path_that_can_be_no_file_is_refused() {
    let file = UsersFile::missing();
    symlink("new/", file.directory.path().join("link")).expect("linked");
    for (path, fault) in [
        ("users/", "cannot read it: it is the path of a directory"),
        ("users/.", "cannot read it: it is the path of a directory"),
        ("link", "cannot read it: it is the path of a directory"),
        ("", "cannot read it: it is the path of a directory"),
    ] {
        for arguments in [&["--users"][..], &["--check-config", "--users"]] {
            let path = format!("{}/{path}", file.directory.path().display());
            let refusal = format!("socks5d: --users {path}: {fault}\n");
            assert_eq!(output(arguments, path.as_ref()), (Some(64), refusal));
        }
    }
    let state = file.directory.path().join("state");
    symlink("nowhere", &state).expect("linked");
    for (arguments, code) in [(&["--state"][..], 1), (&["--check-config", "--state"], 64)] {
        let refusal =
            format!("socks5d: --state {}: it is a link that leads nowhere\n", state.display());
        assert_eq!(output(arguments, &state), (Some(code), refusal));
    }
    assert_eq!(file.names(), ["link", "state"]);
}

/// The memory of a process that can be written, where this test may read it.
fn memory(pid: u32) -> Option<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let file = std::fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut memory = Vec::new();
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ')?;
        let (first, last) = range.split_once('-')?;
        let [first, last] = [first, last].map(|at| u64::from_str_radix(at, 16).expect("hex"));
        // A stack that is reserved only is not there.
        let mut part = vec![0; usize::try_from(last - first).expect("it is mapped")];
        if rest.starts_with("rw")
            && part.len() < 64 << 20
            && file.read_exact_at(&mut part, first).is_ok()
        {
            memory.extend_from_slice(&part);
        }
    }
    Some(memory)
}

#[test]
fn passwords_of_the_file_do_not_stay_in_memory() {
    let lines: String =
        (0..200).map(|number| format!("u{number}:=swordfish-{number}-\\x41\n")).collect();
    let file = UsersFile::new(&lines);
    let proxy = file.proxy();
    let holds = |part: &[u8]| {
        let memory = memory(proxy.pid())?;
        Some(memory.windows(part.len()).filter(|window| *window == part).count())
    };
    // It can be found.
    if holds(b"u199").is_none_or(|found| found == 0) {
        println!("skipped: the memory of the program cannot be read");
        return;
    }
    assert_eq!(holds(b"swordfish-1"), Some(0), "after the start");
    let mut admin = proxy.admin();
    assert_eq!(admin.command("LOCK-USER u7"), "200 OK");
    assert_eq!(holds(b"swordfish-1"), Some(0), "after a change");
    std::fs::write(&file.path, format!("# new\n{lines}")).expect("written");
    assert!(admin.command("RELOAD").starts_with("200 OK accounts=200 "));
    std::fs::write(&file.path, format!("{lines}torn")).expect("written");
    assert!(admin.command("RELOAD").starts_with("409 Conflict [INVALID] "));
    assert_eq!(holds(b"swordfish-1"), Some(0), "after it was read again");
}

/// A directory that cannot be written is found out at the start, not with the first command.
#[test]
fn a_file_that_cannot_be_replaced_is_fixed() {
    // In /proc nobody makes a file, not even root.
    let proxy = Builder::default().args(["--users", "/proc/self/users"]).start();
    let line = proxy.stderr.wait_for(|line| line.contains("METP cannot change it"));
    assert!(line.contains("--users /proc/self/users: "), "{line}");
    let told = proxy.admin().command("ADD-USER bob b");
    assert_eq!(told, "409 Conflict [FIXED] the users file is not changed here");
}
