//! METP/1.1, §11.9: a change that has been made is told, also if the session that has made it is gone before its answer.

use support::metp::Metp;
use support::proxy::{Proxy, connect};
use support::socks::reset;
use tempfile::TempDir;

use super::UsersFile;

/// Gives commands that wait for the disk, and resets the connection once the server has taken them.
fn gives_and_goes(proxy: &Proxy, commands: &str) {
    let stream = connect(proxy.metp_address());
    let mut session = Metp::new(stream.try_clone().expect("a socket")).logged_in("admin", "1234");
    session.say(&format!("PING taken\n{commands}")).hears("200 PONG taken\n");
    drop(session);
    reset(stream);
}

fn is_told(proxy: &Proxy, command: &str) {
    let end = format!("user=\"admin\" command=\"{command}\"");
    proxy.stderr.wait_for(|line| line.contains(" INFO  audit: ") && line.ends_with(&end));
}

#[test]
fn changes_of_accounts_are_told_when_they_are_stored() {
    let file = UsersFile::new("old:=pw\n");
    let proxy = file.proxy();
    gives_and_goes(
        &proxy,
        "ADD-USER a pw\nCHANGE-PASSWORD old pw\nSET-ROLE old admin\nLOCK-USER old\nGENERATE-PASSWORD b\n\
         SET-LIMIT old conns=1\nIMPORT c:=pw\nDELETE-USER old\n",
    );
    for command in [
        "ADD-USER a",
        "CHANGE-PASSWORD old",
        "SET-ROLE old admin",
        "LOCK-USER old",
        "GENERATE-PASSWORD b",
        "SET-LIMIT old conns=1",
        "DELETE-USER old",
    ] {
        is_told(&proxy, command);
    }
    proxy.stderr.wait_for(|line| line.contains("audit: ") && line.contains("command=\"IMPORT c"));
}

/// Others have the thread busy meanwhile: the answer comes when nobody is there to take it.
#[test]
fn what_else_is_stored_is_told_too() {
    let (file, state) = (UsersFile::missing(), TempDir::new().expect("a directory"));
    let rules = file.directory.path().join("rules");
    std::fs::write(&rules, "deny port 25\nallow\n").expect("written");
    let options =
        ["--state".as_ref(), state.path().as_os_str(), "--rules".as_ref(), rules.as_os_str()];
    let proxy = file.builder().args(options).start();
    let mut busy = proxy.admin();
    for command in
        ["CONFIG SAVE grace", "RESET-USAGE admin", "RULE INSERT 1 deny port 26", "RELOAD"]
    {
        busy.say(&"GENERATE-PASSWORD busy\nCHANGE-PASSWORD busy pw\n".repeat(8));
        gives_and_goes(&proxy, &format!("{command}\n"));
        is_told(&proxy, command);
        for _ in 0..16 {
            busy.line();
        }
    }
    // Each of them once.
    let told: Vec<String> =
        proxy.stderr.all().into_iter().filter(|line| line.contains("audit: ")).collect();
    let of = |command: &str| told.iter().filter(|line| line.contains(command)).count();
    assert_eq!(
        (of("CHANGE-PASSWORD"), of("CONFIG SAVE"), of("RESET-USAGE"), of("RULE "), of("RELOAD")),
        (32, 1, 1, 1, 1)
    );
}

/// What could not be stored is no change.
#[test]
fn what_is_not_stored_is_not_told() {
    let text = "old:=pw\nother:=pw\n";
    let file = UsersFile::new(text);
    let proxy = file.proxy();
    std::fs::write(&file.path, format!("{text}# edited\n")).expect("written");
    gives_and_goes(&proxy, "LOCK-USER old\nDELETE-USER old\n");
    let mut admin = proxy.admin();
    assert!(admin.command("LOCK-USER other").starts_with("500 "));
    assert_eq!(admin.command("CHANGE-BUFFER 4096"), "200 OK");
    is_told(&proxy, "CHANGE-BUFFER 4096");
    let all = proxy.stderr.all();
    assert!(!all.iter().any(|line| line.contains("-USER o")), "{all:?}");
}
