//! What cannot be stored is answered 500 each time (METP section 5.1), and logged once, with cause and path.

use std::fs;

use super::UsersFile;

const ATTEMPTS: usize = 5;

/// No file may grow: each command fails, again and again.
#[test]
fn a_disk_that_stays_full_is_logged_once_for_each_file() {
    let file = UsersFile::new("");
    let [rules, state] = ["rules", "state"].map(|name| file.directory.path().join(name));
    fs::write(&rules, "allow\n").expect("written");
    let options = ["--rules".into(), rules.clone(), "--state".into(), state.clone()];
    let proxy = file.builder().args(options).limits("-f 0").start();
    let mut admin = proxy.admin();
    for number in 0..ATTEMPTS {
        for command in [
            format!("IMPORT n{number}:=secret"),
            "CONFIG SAVE grace".to_owned(),
            "RULE INSERT 1 deny port 25".to_owned(),
            "RESET-USAGE admin".to_owned(),
        ] {
            let told = admin.command(&command);
            assert!(told.starts_with("500 "), "{command}: {told}");
        }
    }
    let cause = "cannot write the new file: File too large (os error 27)";
    let shown = |path: &std::path::Path| path.display().to_string();
    let users = "users file: changes were not stored, and have been undone";
    for (what, path) in [
        (users, shown(&file.path)),
        ("settings: not saved", shown(&state)),
        ("rules: not changed", shown(&rules)),
        ("figures: not written", shown(&state)),
    ] {
        let wanted = format!("ERROR {what}: {cause}: {path}");
        proxy.stderr.wait_for(|line| line.ends_with(&wanted));
        let lines = proxy.stderr.all();
        assert_eq!(lines.iter().filter(|line| line.contains(what)).count(), 1, "{lines:?}");
    }
    assert!(admin.figure("STORE_ERRORS") >= 4 * ATTEMPTS as u64);
}
