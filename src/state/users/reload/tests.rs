use std::time::Instant;

use super::*;
use crate::proto::users_file::parse;

/// A vector of crypt_blowfish: password `U*U`.
const BCRYPT: &str = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
const TOKEN: &str = "$b2$AAECAwQFBgcICQoLDA0ODw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn users(file: &str) -> Users {
    let mut users = Users::default();
    users.load(parse(file.as_bytes()).expect("good"));
    users
}

fn reload(users: &mut Users, file: &str) -> Result<Reloaded, NoAdministrator> {
    users.reload(parse(file.as_bytes()).expect("good"))
}

fn id(users: &Users, name: &str) -> UserId {
    users.find(name.as_bytes()).expect("there")
}

#[test]
fn the_same_name_is_the_same_account() {
    let mut users = users(&format!("alice:=a:role=admin\nbob:{BCRYPT}\ntok:{TOKEN}\nold:=x\n"));
    let before = ["alice", "bob", "tok"].map(|name| id(&users, name));
    let session = users.open_session(before[1], Instant::now()).expect("there");
    let old = id(&users, "old");
    // Nothing is new but the order, and one account.
    let file = format!("tok:{TOKEN}\n# c\nbob:{BCRYPT}\nalice:=a:role=admin\nnew:=n\n");
    let done = reload(&mut users, &file).expect("an admin");
    assert_eq!(done, Reloaded { accounts: 4, added: 1, deleted: 1, changed: 0 });
    assert_eq!(["alice", "bob", "tok"].map(|name| id(&users, name)), before);
    assert_eq!(users.take_deleted(), [old]);
    assert_eq!(session.usage().open.get(), 1);
    assert_eq!(users.authenticate(b"new", b"n"), Some(id(&users, "new")));
}

/// The digest of the old password is not good any more, in whatever form the new secret comes.
#[test]
fn another_secret_is_another_password_from_the_next_login_on() {
    let mut users = users("root:=r:role=admin\nbob:=old\n");
    let bob = id(&users, "bob");
    for (secret, right) in [
        ("=new", Some("new")),
        ("", None),
        ("=", None),
        (TOKEN, None),
        (BCRYPT, None),
        ("=last", Some("last")),
    ] {
        let file = format!("root:=r:role=admin\nbob:{secret}\n");
        let done = reload(&mut users, &file).expect("an admin");
        let changed = usize::from(secret != "=");
        assert_eq!((done.changed, id(&users, "bob")), (changed, bob), "{secret}");
        for password in ["old", "new", "last", ""] {
            let accepted = users.authenticate(b"bob", password.as_bytes()).is_some();
            assert_eq!(accepted, right == Some(password), "{secret} {password}");
        }
    }
}

#[test]
fn role_and_lock_are_those_of_the_file() {
    let mut users = users("root:=r:role=admin\nbob:=b\n");
    let bob = id(&users, "bob");
    for (line, role, works) in [
        ("bob:=b:role=admin", Role::Admin, true),
        ("bob:!=b:role=admin", Role::Admin, false),
        ("bob:!=b", Role::User, false),
        ("bob:=b", Role::User, true),
    ] {
        let done = reload(&mut users, &format!("root:=r:role=admin\n{line}\n")).expect("an admin");
        assert_eq!(done.changed, 1);
        assert_eq!(users.get(bob).map(|account| account.role), Some(role));
        assert_eq!(users.authenticate(b"bob", b"b").is_some(), works);
    }
}

#[test]
fn the_last_administrator_cannot_be_lost() {
    let mut users = users("root:=r:role=admin\nbob:=b\n");
    for file in ["bob:=b\n", "root:=r\nbob:=b\n", "root:!=r:role=admin\n", "root::role=admin\n", ""]
    {
        assert_eq!(reload(&mut users, file), Err(NoAdministrator));
        assert!(users.authenticate(b"root", b"r").is_some());
        assert!(users.authenticate(b"bob", b"b").is_some());
        assert!(users.take_deleted().is_empty());
    }
    // One that lives in memory is enough, unless the file has the name.
    users.add(b"super", b"s", Role::Admin).expect("new");
    assert!(reload(&mut users, "bob:=b\n").is_ok());
    assert_eq!(reload(&mut users, "bob:=b\nsuper:=s\n"), Err(NoAdministrator));
    // Where there is none that can log in, none can be lost.
    let mut users = self::users("root::role=admin\nbob:=b\n");
    assert!(!users.has_administrator());
    assert!(reload(&mut users, "bob:=b\n").is_ok());
    let mut users = self::users("bob:=b\n");
    assert!(reload(&mut users, "carol:=c\n").is_ok());
}

#[test]
fn accounts_of_memory_stay_unless_the_file_has_the_name() {
    let mut users = users("root:=r:role=admin\n");
    let alice = users.add(b"alice", b"memory", Role::User).expect("new");
    let done = reload(&mut users, "root:=r:role=admin\n").expect("an admin");
    assert_eq!((done.deleted, id(&users, "alice")), (0, alice));
    let done = reload(&mut users, "root:=r:role=admin\nalice:=file\n").expect("an admin");
    assert_eq!((done.changed, done.added, id(&users, "alice")), (1, 0, alice));
    assert_eq!(users.get(alice).map(|account| account.origin), Some(Origin::File));
    assert_eq!(users.authenticate(b"alice", b"memory"), None);
    assert_eq!(users.authenticate(b"alice", b"file"), Some(alice));
    // From then on it is one of the file.
    let done = reload(&mut users, "root:=r:role=admin\n").expect("an admin");
    assert_eq!((done.deleted, users.find(b"alice")), (1, None));
}

#[test]
fn many_accounts_are_gone_at_once() {
    let line = |number: usize| format!("u{number}:=p:expires=2{number:03}-01-01\n");
    let root = "root:=r:role=admin\n".to_owned();
    let mut users = users(&(root.clone() + &(0..600).map(line).collect::<String>()));
    let gone: Vec<UserId> = (0..600)
        .filter(|number| number % 3 != 0)
        .map(|number| id(&users, &format!("u{number}")))
        .collect();
    let kept: String = (0..600).step_by(3).map(line).collect();
    let done = reload(&mut users, &(root + &kept)).expect("an admin");
    assert_eq!(done, Reloaded { accounts: 201, added: 0, deleted: 400, changed: 0 });
    assert_eq!(users.take_deleted(), gone);
    for number in 0..600 {
        let found = users.authenticate(format!("u{number}").as_bytes(), b"p");
        assert_eq!(found.is_some(), number % 3 == 0, "{number}");
    }
    // None of those that are gone expires any more.
    assert_eq!(users.expiries.len(), 200);
}

#[test]
fn many_accounts_are_found_after_they_were_loaded_at_once() {
    let lines: String = (0..5000).map(|number| format!("u{number}:=p{number}\n")).collect();
    let mut users = users(&lines);
    assert!((0..5000).all(|number| {
        let (name, password) = (format!("u{number}"), format!("p{number}"));
        let user = users.authenticate(name.as_bytes(), password.as_bytes());
        user.is_some() && user == users.find(name.as_bytes())
    }));
    assert!(!users.has_hashes());
    let first = users.after(None).expect("one").1;
    assert_eq!(&*first.name, b"u0");
}
