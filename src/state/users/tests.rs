//! Logins, identities and counters.

use std::collections::HashSet;

use super::*;

/// Known names and unknown ones, wrong passwords of all lengths: each is compared with one entry.
#[test]
fn all_failed_logins_are_the_same_work() {
    for count in [1_usize, 2, 3, 1000] {
        let mut users = Users::default();
        let name = |number: usize| format!("name{number}").into_bytes();
        for number in 0..count {
            users.add(&name(number), b"password", Role::User).expect("new");
        }
        let (long, longest) = ([b'x'; 255], [b'x'; 4000]);
        let mut names: Vec<Vec<u8>> = (0..2 * count).map(name).collect();
        names.extend([&b""[..], b"\0", &long, &longest].map(<[u8]>::to_vec));
        for (number, name) in names.iter().enumerate() {
            assert_eq!(users.candidates(users.names.hash_one(&name[..])).count(), 1);
            for password in [&b"password"[..], b"wrong", b"", &long, &longest] {
                let right = number < count && password == b"password";
                assert_eq!(users.authenticate(name, password).is_some(), right);
            }
        }
    }
}

/// The entry that is compared with an unknown name is another one for each, so that it is as likely to be
/// in a cache as that of a known one.
#[test]
fn unknown_names_stand_beside_all_kinds_of_accounts() {
    let mut users = Users::default();
    for number in 0..1000 {
        users.add(format!("name{number}").as_bytes(), b"pw", Role::User).expect("new");
    }
    let beside = |number: usize| {
        let hash = users.names.hash_one(format!("unknown{number}").as_bytes());
        users.candidates(hash).next().map(|entry| entry.id)
    };
    let different: HashSet<_> = (0..1000).map(beside).collect();
    assert!(different.len() > 300 && !different.contains(&None), "{}", different.len());
}

/// Two names may have one hash, rare as that is.
#[test]
fn equal_hashes_are_told_apart() {
    let mut users = Users::default();
    for (name, password) in [(b"amy", b"1"), (b"bob", b"2"), (b"eve", b"3")] {
        users.add(name, password, Role::User).expect("new");
    }
    let hash = users.names.hash_one(&b"bob"[..]);
    for entry in &mut users.logins {
        entry.hash = hash;
    }
    let bob = users.find(b"bob").expect("there");
    assert_eq!(users.authenticate(b"bob", b"2"), Some(bob));
    for (name, password) in [(b"bob", b"1"), (b"amy", b"2"), (b"eve", b"1")] {
        assert_eq!(users.authenticate(name, password), None);
    }
    users.set_password(bob, b"4");
    assert_eq!(users.authenticate(b"bob", b"2"), None);
    assert_eq!(users.authenticate(b"bob", b"4"), Some(bob));
    users.delete(bob);
    assert_eq!((users.find(b"bob"), users.logins.len()), (None, 2));
}

#[test]
fn names_and_passwords_are_compared_whole() {
    let mut users = Users::default();
    let alice = users.add(b"alice", b"se\0cret", Role::User).expect("new");
    assert_eq!(users.authenticate(b"alice", b"se\0cret"), Some(alice));
    let longest = [b'p'; 255];
    let bob = users.add(b"bob\0", &longest, Role::User).expect("new");
    assert_eq!(users.authenticate(b"bob\0", &longest), Some(bob));
    let mut last_differs = longest;
    last_differs[254] = b'q';
    for (name, password) in [
        (&b"alice"[..], &b"se"[..]),
        (b"alice", b"se\0"),
        (b"alice", b"se\0cret\0"),
        (b"alice", b"se\0cretx"),
        (b"alice", b"SE\0CRET"),
        (b"alice", b""),
        (b"alic", b"se\0cret"),
        (b"alice\0", b"se\0cret"),
        (b"Alice", b"se\0cret"),
        (b"", b""),
        (b"nobody", b""),
        (b"nobody", b"se\0cret"),
        (b"bob", &longest),
        (b"bob\0", &last_differs),
        (b"bob\0", &longest[..254]),
        (b"bob\0", &[b'p'; 256]),
    ] {
        assert_eq!(users.authenticate(name, password), None, "{name:?} {password:?}");
    }
}

#[test]
fn an_identity_is_never_used_twice() {
    let mut users = Users::default();
    let first = users.add(b"alice", b"1", Role::Admin).expect("new");
    assert_eq!(users.add(b"alice", b"2", Role::User), Err(Exists));
    users.delete(first);
    assert_eq!((users.find(b"alice"), users.take_deleted()), (None, vec![first]));
    let second = users.add(b"alice", b"1", Role::User).expect("free again");
    assert_ne!(first, second);
    assert!(users.get(first).is_none());
    users.delete(first);
    assert_eq!(users.find(b"alice"), Some(second));
    assert!(users.take_deleted().is_empty());
}

#[test]
fn connections_are_counted_while_they_live() {
    let (mut users, now) = (Users::default(), Instant::now());
    let id = users.add(b"alice", b"1", Role::User).expect("new");
    let (first, second) = (users.open_session(id, now), users.open_session(id, now));
    let usage = Rc::clone(&users.get(id).expect("there").usage);
    let counts = || (usage.open.get(), usage.total.get());
    assert_eq!(counts(), (2, 2));
    drop(first);
    assert_eq!(counts(), (1, 2));
    users.delete(id);
    assert!(users.open_session(id, now).is_none());
    drop(second);
    assert_eq!(counts(), (0, 2));
}

#[test]
fn a_new_password_takes_the_place_of_the_old() {
    let mut users = Users::default();
    let id = users.add(b"alice", b"old", Role::User).expect("new");
    users.set_password(id, b"new");
    assert_eq!(users.authenticate(b"alice", b"old"), None);
    assert_eq!(users.authenticate(b"alice", b"new"), Some(id));
}

#[test]
fn accounts_are_listed_in_order_of_creation() {
    let mut users = Users::default();
    for name in [b"zoe", b"bob", b"amy"] {
        users.add(name, b"pw", Role::User).expect("new");
    }
    let (mut names, mut last) = (Vec::new(), None);
    while let Some((id, account)) = users.after(last) {
        names.push(account.name.to_vec());
        last = Some(id);
    }
    assert_eq!(names, [b"zoe", b"bob", b"amy"]);
}

/// Nobody can log in to it, and nothing can be done to it.
#[test]
fn the_trusted_account_has_figures_and_nothing_else() {
    let (mut users, now) = (Users::default(), Instant::now());
    assert_eq!(users.add(b"-", b"pw", Role::Admin), Err(Exists));
    let alice = users.add(b"alice", b"1", Role::User).expect("new");
    for change in [
        |users: &mut Users| users.set_password(UserId::TRUSTED, b"pw"),
        |users: &mut Users| users.set_role(UserId::TRUSTED, Role::Admin),
        |users: &mut Users| users.delete(UserId::TRUSTED),
    ] {
        change(&mut users);
        for password in [&b""[..], b"pw", b"-"] {
            assert_eq!(users.authenticate(b"-", password), None);
        }
        let account = users.get(UserId::TRUSTED).expect("always there");
        assert_eq!((&*account.name, account.role), (&b"-"[..], Role::User));
    }
    assert!(users.take_deleted().is_empty());
    assert_eq!((users.find(b"-"), users.find_any(b"-")), (None, Some(UserId::TRUSTED)));
    assert_eq!(users.find_any(b"alice"), Some(alice));
    let guard = users.open_session(UserId::TRUSTED, now).expect("always there");
    assert_eq!(guard.usage().total.get(), 1);
    let (mut listed, mut all) = (Vec::new(), Vec::new());
    while let Some((id, _)) = users.after(listed.last().copied()) {
        listed.push(id);
    }
    while let Some((id, _)) = users.after_any(all.last().copied()) {
        all.push(id);
    }
    assert_eq!((&listed[..], &all[..]), (&[alice][..], &[alice, UserId::TRUSTED][..]));
    users.delete(alice);
    assert!(users.is_empty() && users.after(Some(UserId::TRUSTED)).is_none());
}

#[test]
fn debug_output_has_no_password() {
    let mut users = Users::default();
    let id = users.add(b"alice", b"hunter2", Role::User).expect("new");
    assert!(!format!("{:?}", users.get(id)).contains("hunter2"));
    assert!(!format!("{:?}", users.get(id)).contains("104"));
}
