use metp_protocol::Role;

use super::*;
use crate::proto::users_file::{Change, Edit, parse};
use crate::state::users::{Credential, NewAccount, Origin};
use crate::workers::passwords::Password;

struct Fixture {
    changes: Changes,
    users: Users,
}

const SESSION: Key = Key::unpack(3);

impl Fixture {
    /// With the accounts `a`, `b` and `c` of a users file.
    fn new() -> Self {
        let mut users = Users::default();
        users.load(parse(b"a:=a\nb:=b\nc:=c:role=admin\n").expect("good"));
        Fixture { changes: Changes::default(), users }
    }

    fn note(
        &mut self,
        name: &str,
        change: Change,
        password: Option<&[u8]>,
        undo: Undo,
    ) -> ChangeNumber {
        let edit = Edit { name: name.as_bytes().into(), change };
        let store = Store { edit, password: password.map(Password::new) };
        self.changes.push(SESSION, store, undo, None)
    }

    fn credential(&mut self, name: &str, password: &[u8]) -> Credential {
        self.users.credential(name.as_bytes(), Stored::Nothing, Some(password))
    }

    fn add(&mut self, name: &str, password: &[u8]) -> ChangeNumber {
        let credential = self.credential(name, password);
        let epoch = credential.epoch();
        let (role, origin) = (Role::User, Origin::File);
        let name_bytes = name.as_bytes();
        let new =
            NewAccount { name: name_bytes, role, locked: false, origin, credential, limits: None };
        let user = self.users.add_account(new).expect("new");
        let change = Change::Add { secret: "".into(), locked: false, role, limits: None };
        self.note(name, change, Some(password), Undo::Remove(user, epoch))
    }

    fn delete(&mut self, name: &str) -> ChangeNumber {
        let user = self.users.find(name.as_bytes()).expect("there");
        let removed = self.users.remove(user).expect("there");
        self.note(name, Change::Delete, None, Undo::Restore(Box::new(removed)))
    }

    fn set_password(&mut self, name: &str, password: &[u8]) -> ChangeNumber {
        let user = self.users.find(name.as_bytes()).expect("there");
        let credential = self.credential(name, password);
        let epoch = credential.epoch();
        let before = self.users.set_credential(user, credential).expect("there");
        let undo = Undo::Credential(user, Box::new(before), epoch);
        self.note(name, Change::Secret("".into()), Some(password), undo)
    }

    fn logs_in(&mut self, name: &str, password: &str) -> bool {
        self.users.authenticate(name.as_bytes(), password.as_bytes()).is_some()
    }

    fn begin(&mut self) -> Vec<String> {
        let group = self.changes.begin();
        group.iter().map(|store| String::from_utf8_lossy(&store.edit.name).into_owned()).collect()
    }
}

/// What has become of changes, as numbers and outcomes.
fn outcomes(settled: Vec<Settled>) -> Vec<(ChangeNumber, bool)> {
    assert!(settled.iter().all(|settled| settled.session == SESSION));
    settled.into_iter().map(|settled| (settled.number, settled.outcome.is_ok())).collect()
}

#[test]
fn what_comes_during_one_write_is_the_next() {
    let mut fixture = Fixture::new();
    let (d, e) = (fixture.add("d", b"d"), fixture.add("e", b"e"));
    assert_eq!(fixture.begin(), ["d", "e"]);
    let f = fixture.add("f", b"f");
    assert!(fixture.begin().is_empty(), "one at a time");
    let settled = fixture.changes.stored(vec![Some("hash".into()), None], &mut fixture.users);
    assert_eq!(outcomes(settled), [(d, true), (e, true)]);
    assert_eq!(fixture.begin(), ["f"]);
    assert_eq!(outcomes(fixture.changes.stored(vec![None], &mut fixture.users)), [(f, true)]);
    assert!(fixture.changes.is_empty() && fixture.begin().is_empty());
    assert!(["d", "e", "f"].into_iter().all(|name| fixture.logs_in(name, name)));
}

#[test]
fn a_failure_undoes_all_that_is_not_on_the_disk() {
    let mut fixture = Fixture::new();
    let stored = fixture.add("d", b"d");
    fixture.begin();
    assert_eq!(outcomes(fixture.changes.stored(vec![None], &mut fixture.users)), [(stored, true)]);
    let before: Vec<UserId> = ["a", "b", "c", "d"]
        .map(|name| fixture.users.find(name.as_bytes()).expect("there"))
        .to_vec();
    let numbers = [fixture.set_password("a", b"new"), fixture.add("x", b"x"), fixture.delete("b")];
    assert_eq!(fixture.begin(), ["a", "x", "b"]);
    // Those that follow build on what is being written.
    let later =
        [fixture.add("b", b"other"), fixture.set_password("b", b"third"), fixture.delete("x")];
    assert!(fixture.logs_in("b", "third") && fixture.logs_in("a", "new"));
    let settled = fixture.changes.failed("disk full", &mut fixture.users);
    let wanted: Vec<_> = numbers.into_iter().chain(later).map(|number| (number, false)).collect();
    assert_eq!(outcomes(settled), wanted);
    let after: Vec<UserId> = ["a", "b", "c", "d"]
        .map(|name| fixture.users.find(name.as_bytes()).expect("there"))
        .to_vec();
    assert_eq!(after, before, "the same accounts, not others of the same names");
    for name in ["a", "b", "c", "d"] {
        assert!(fixture.logs_in(name, name));
    }
    assert!(
        !fixture.logs_in("a", "new")
            && !fixture.logs_in("b", "third")
            && !fixture.logs_in("x", "x")
    );
    assert!(fixture.changes.is_empty());
    // Sessions that had logged in to what was undone end; nobody else's do.
    let ended = fixture.users.take_deleted();
    assert!(ended.iter().all(|user| !before.contains(user)) && !ended.is_empty());
}

#[test]
fn sessions_of_a_deleted_account_end_when_that_is_on_the_disk() {
    let mut fixture = Fixture::new();
    let user = fixture.users.find(b"b").expect("there");
    fixture.delete("b");
    assert!(fixture.users.take_deleted().is_empty() && fixture.users.find(b"b").is_none());
    fixture.begin();
    fixture.changes.stored(vec![None], &mut fixture.users);
    assert_eq!(fixture.users.take_deleted(), [user]);
}

#[test]
fn a_group_makes_few_hashes() {
    let mut fixture = Fixture::new();
    for number in 0..40 {
        fixture.add(&format!("n{number}"), b"pw");
    }
    let mut groups = Vec::new();
    loop {
        let group = fixture.begin();
        if group.is_empty() {
            break;
        }
        groups.push(group.len());
        fixture.changes.stored(vec![None; group.len()], &mut fixture.users);
    }
    assert_eq!(groups, [16, 16, 8]);
}

/// What is stored is what was set with it: a later password does not get the hash of an earlier one.
#[test]
fn a_hash_belongs_to_its_password() {
    let mut fixture = Fixture::new();
    fixture.set_password("a", b"first");
    fixture.begin();
    fixture.set_password("a", b"second");
    fixture.changes.stored(vec![Some("hash of first".into())], &mut fixture.users);
    fixture.begin();
    let user = fixture.users.find(b"a").expect("there");
    let hash = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    fixture.changes.stored(vec![Some(hash.into())], &mut fixture.users);
    // Read again, the file has nothing new.
    let line = format!("a:{hash}\nb:=b\nc:=c:role=admin\n");
    let reloaded = fixture.users.reload(parse(line.as_bytes()).expect("good")).expect("an admin");
    assert_eq!((reloaded.changed, fixture.users.find(b"a")), (0, Some(user)));
    assert!(fixture.logs_in("a", "second") && !fixture.logs_in("a", "first"));
}
