//! Owner, group and permissions of a users file that METP changes: they stay, or become less.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;

use support::system::{acl_for, set_attribute};

use super::{TOKEN, UsersFile};

/// A user and groups that need no names.
const SERVER: u32 = 43210;
const GROUP: u32 = 43211;

/// A program that may do nothing but read the file tries to.
fn may_read(file: &UsersFile, user: u32, group: u32) -> bool {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={group}")]);
    command.args(["--clear-groups", "cat"]).arg(&file.path);
    command.output().expect("it runs").status.success()
}

/// A file of root and the group, in a directory that all may write. `None`, and a line that says so, where a test may not
/// make such a file, or run a program as another user.
fn file_of_group(mode: u32) -> Option<UsersFile> {
    let file = UsersFile::new("alice:=x\n");
    let mut probe = Command::new("setpriv");
    probe.args([format!("--reuid={SERVER}"), "--clear-groups".to_owned()]);
    let probe = probe.arg(support::binary("socks5d")).arg("-v").output();
    if chown(&file.path, Some(0), Some(GROUP)).is_err()
        || !probe.is_ok_and(|it| it.status.success())
    {
        println!("skipped: this needs root, setpriv, and a program that others may run");
        return None;
    }
    fs::set_permissions(&file.directory, Permissions::from_mode(0o777)).expect("ours");
    fs::set_permissions(&file.path, Permissions::from_mode(mode)).expect("ours");
    Some(file)
}

/// With an access control list, the mode shows its mask where it has the bits of the group otherwise.
#[test]
fn an_access_control_list_does_not_become_a_permission_of_the_group() {
    let Some(file) = file_of_group(0o600) else { return };
    if let Err(error) = set_attribute(&file.path, c"system.posix_acl_access", &acl_for(SERVER)) {
        println!("no access control lists here: {error}");
        return;
    }
    let access = || {
        let mode = fs::metadata(&file.path).expect("there").mode() & 0o777;
        (mode, may_read(&file, SERVER, SERVER), may_read(&file, GROUP, GROUP))
    };
    assert_eq!(access(), (0o640, true, false));
    let proxy = file.proxy();
    assert_eq!(proxy.admin().command(&format!("IMPORT bob:{TOKEN}")), "200 OK");
    assert!(file.text().contains("bob:"));
    assert_eq!(access(), (0o640, true, false));
}

/// Without the right to give a file away, a server that is in its group keeps at least that; one that is not makes the
/// file its own alone. It says so at the start.
#[test]
fn a_server_without_privileges_keeps_the_group_if_it_can() {
    const OWNER: &str = "its owner cannot be kept: with the first change it becomes this user's";
    const PRIVATE: &str = "its group or permissions cannot be kept: with the first change it becomes readable by its owner alone";
    for (groups, mode, warning, after) in [
        ("43211", 0o640, OWNER, (SERVER, GROUP, 0o640)),
        ("43211,43212", 0o664, OWNER, (SERVER, GROUP, 0o664)),
        ("43212", 0o644, PRIVATE, (SERVER, SERVER, 0o600)),
    ] {
        let Some(file) = file_of_group(mode) else { return };
        let proxy = file.builder().user(SERVER, groups).start();
        proxy.stderr.wait_for(|line| line.contains(warning));
        let of_file = || {
            let found = fs::metadata(&file.path).expect("there");
            (found.uid(), found.gid(), found.mode() & 0o777)
        };
        assert_eq!(of_file(), (0, GROUP, mode));
        assert_eq!(proxy.admin().command(&format!("IMPORT bob:{TOKEN}")), "200 OK");
        assert_eq!(of_file(), after, "{groups}");
        assert_eq!(file.names(), ["users"]);
    }
}
