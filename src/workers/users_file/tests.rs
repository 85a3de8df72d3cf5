use std::fs;

use metp_protocol::Role;

use super::*;
use crate::proto::secret::Secret;

const TOKEN: &str = "$b2$AAECAwQFBgcICQoLDA0ODw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn store(name: &str, change: Change, password: Option<&str>) -> Store {
    let edit = Edit { name: name.as_bytes().into(), change };
    Store { edit, password: password.map(|password| Password::new(password.as_bytes())) }
}

fn add(name: &str, password: Option<&str>) -> Store {
    let secret = if password.is_some() { "" } else { TOKEN };
    let change =
        Change::Add { secret: secret.into(), locked: false, role: Role::User, limits: None };
    store(name, change, password)
}

#[test]
fn changes_are_carried_out_together_or_not_at_all() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("users");
    let mut file = UsersFile { path: path.clone(), state: Expected::Missing };
    let made = file.commit(&mut [add("alice", Some("secret")), add("bob", None)]).expect("stored");
    let [Some(hash), None] = &made[..] else { panic!("{made:?}") };
    assert_eq!(fs::read_to_string(&path).expect("read"), format!("alice:{hash}\nbob:{TOKEN}\n"));
    assert_eq!(Hasher::default().verifies(Some(hash), b"secret"), Ok(true));
    let loaded = UsersFile::read(&path).expect("good");
    assert_eq!(
        (loaded.content.accounts.len(), loaded.state, loaded.exposed),
        (2, file.state, false)
    );
    // Somebody writes the file by hand.
    let text = fs::read_to_string(&path).expect("read") + "carol:=x\n";
    fs::write(&path, &text).expect("written");
    let refused = file.commit(&mut [add("dave", None)]);
    assert!(matches!(refused, Err(StoreError::ChangedOnDisk)), "{refused:?}");
    assert_eq!(fs::read_to_string(&path).expect("read"), text);
    file.state = UsersFile::read(&path).expect("good").state;
    file.commit(&mut [add("dave", None)]).expect("stored");
    assert_eq!(fs::read_to_string(&path).expect("read"), format!("{text}dave:{TOKEN}\n"));
    // It is gone.
    fs::remove_file(&path).expect("removed");
    let refused = file.commit(&mut [add("eve", None)]);
    assert!(matches!(refused, Err(StoreError::ChangedOnDisk)), "{refused:?}");
    assert!(!path.exists());
}

#[test]
fn what_others_may_read_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("users");
    assert_eq!(UsersFile::read(&path).expect("none yet").state, Expected::Missing);
    fs::write(&path, "alice:=x\n").expect("written");
    for (mode, exposed) in [(0o600, false), (0o640, true), (0o604, true)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        let loaded = UsersFile::read(&path).expect("good");
        assert_eq!(loaded.exposed, exposed);
        assert!(matches!(loaded.content.accounts[0].secret, Secret::Clear(_)));
    }
    assert!(matches!(UsersFile::read(directory.path()), Err(LoadError::Unreadable(_))));
}
