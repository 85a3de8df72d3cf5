//! Accounts. A session belongs to an account, not to a name: an identity is never used twice, so deleting
//! a user and adding the name again revives nothing.
//!
//! A login that fails does the same work whether its name is known or not: it is compared with one entry of
//! one table, found in a number of steps that depends on the number of accounts alone.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::ops::Bound;
use std::rc::Rc;
use std::time::Instant;

use metp_protocol::{LONGEST_PASSWORD, Role};

/// The identity of an account, in order of creation. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(u64);

/// An account.
#[derive(Debug)]
pub struct Account {
    /// The name: 1 to 255 bytes.
    pub name: Rc<[u8]>,
    /// What the account may do over METP. Every account may use SOCKS.
    pub role: Role,
    /// Its counters.
    pub usage: Rc<Usage>,
    password: Password,
}

/// What an account has used of the SOCKS service. Shared with its sessions, so that counting needs no look-up.
#[derive(Debug, Default)]
pub struct Usage {
    /// Connections of this account that are open.
    pub open: Cell<u64>,
    /// Connections that have logged in so far.
    pub total: Cell<u64>,
    /// Associations of this account that are open.
    pub associations: Cell<u64>,
    /// Payload bytes delivered to targets.
    pub up: Cell<u64>,
    /// Payload bytes delivered to clients.
    pub down: Cell<u64>,
    /// When it last logged in or moved a byte.
    pub seen: Cell<Option<Instant>>,
}

/// Counts one open SOCKS connection of an account; dropping it counts the connection off.
#[derive(Debug)]
pub struct SessionGuard {
    /// The account.
    pub user: UserId,
    usage: Rc<Usage>,
}

impl SessionGuard {
    /// The account's counters.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Counts an association of the account. `None` if it has `limit` already.
    pub fn open_association(&self, limit: Option<usize>) -> Option<AssociationGuard> {
        let open = self.usage.associations.get();
        if limit.is_some_and(|limit| open >= limit as u64) {
            return None;
        }
        self.usage.associations.set(open + 1);
        Some(AssociationGuard { usage: Rc::clone(&self.usage) })
    }
}

/// Counts one open association of an account; dropping it counts the association off.
#[derive(Debug)]
pub struct AssociationGuard {
    usage: Rc<Usage>,
}

impl Drop for AssociationGuard {
    fn drop(&mut self) {
        self.usage.associations.set(self.usage.associations.get().saturating_sub(1));
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.usage.open.set(self.usage.open.get().saturating_sub(1));
    }
}

/// The accounts, in order of creation.
#[derive(Default)]
pub struct Users {
    accounts: BTreeMap<UserId, Account>,
    /// All accounts, in the order of their names' hashes.
    logins: Vec<Entry>,
    /// Hashes names, with a key of this process.
    names: RandomState,
    /// Hashes names together with passwords, with another one.
    secrets: RandomState,
    next: u64,
    /// Accounts deleted since [`Users::take_deleted`] was last called; their sessions have to be closed.
    deleted: Vec<UserId>,
}

/// The name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exists;

impl Users {
    /// Adds an account.
    ///
    /// # Errors
    /// [`Exists`] if the name is taken.
    pub fn add(&mut self, name: &[u8], password: &[u8], role: Role) -> Result<UserId, Exists> {
        if self.find(name).is_some() {
            return Err(Exists);
        }
        let id = UserId(self.next);
        self.next += 1;
        let (hash, secret) = (self.names.hash_one(name), self.secrets.hash_one((name, password)));
        self.logins.insert(self.position(hash), Entry { hash, secret, id });
        let (usage, password) = (Rc::default(), Password(password.into()));
        self.accounts.insert(id, Account { name: name.into(), role, usage, password });
        Ok(id)
    }

    /// The account with this name and password. An unknown name costs as much work as a wrong password and touches
    /// the same memory: no account is looked at unless both are right.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<UserId> {
        let secret = self.secrets.hash_one((name, password));
        let mut user = None;
        for entry in self.candidates(self.names.hash_one(name)) {
            if entry.secret == secret {
                user = user.or(self.confirmed(entry.id, name, password));
            }
        }
        user
    }

    /// Compares bytes where hashes are equal already.
    fn confirmed(&self, id: UserId, name: &[u8], password: &[u8]) -> Option<UserId> {
        #[cfg(test)]
        tests::CONFIRMATIONS.set(tests::CONFIRMATIONS.get() + 1);
        let account = self.accounts.get(&id)?;
        (*account.name == *name && account.password.matches(password)).then_some(id)
    }

    /// The entries with which a name of this hash is to be compared: those that have it, or else the next one.
    /// One, as good as always; none only if there is no account.
    fn candidates(&self, hash: u64) -> impl Iterator<Item = &Entry> {
        let position = self.position(hash);
        let first = if position < self.logins.len() { position } else { 0 };
        let mut rest = self.logins.iter().skip(first);
        let next = rest.next();
        next.into_iter().chain(rest.take_while(move |entry| entry.hash == hash))
    }

    /// Where in the order of hashes this one stands, or would stand. Takes as many steps for one as for the
    /// other.
    fn position(&self, hash: u64) -> usize {
        self.logins.partition_point(|entry| entry.hash < hash)
    }

    /// Where this account stands in the order of hashes.
    fn place(&self, id: UserId) -> Option<usize> {
        let hash = self.names.hash_one(&*self.accounts.get(&id)?.name);
        let first = self.position(hash);
        let mut from_there = self.logins.iter().skip(first).take_while(|entry| entry.hash == hash);
        from_there.position(|entry| entry.id == id).and_then(|offset| first.checked_add(offset))
    }

    /// Counts a SOCKS connection that has logged in. `None` if the account is gone.
    pub fn open_session(&self, user: UserId, now: Instant) -> Option<SessionGuard> {
        let usage = Rc::clone(&self.accounts.get(&user)?.usage);
        usage.open.set(usage.open.get() + 1);
        usage.total.set(usage.total.get() + 1);
        usage.seen.set(Some(now));
        Some(SessionGuard { user, usage })
    }

    /// The account of this name.
    pub fn find(&self, name: &[u8]) -> Option<UserId> {
        let mut candidates = self.candidates(self.names.hash_one(name)).map(|entry| entry.id);
        candidates.find(|id| self.accounts.get(id).is_some_and(|account| *account.name == *name))
    }

    /// The account, unless it has been deleted.
    pub fn get(&self, id: UserId) -> Option<&Account> {
        self.accounts.get(&id)
    }

    /// The account created next after `id`, or the first.
    pub fn after(&self, id: Option<UserId>) -> Option<(UserId, &Account)> {
        let start = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.accounts.range((start, Bound::Unbounded)).next().map(|(id, account)| (*id, account))
    }

    /// Whether nobody can log in.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Changes the role of an account, if it is there.
    pub fn set_role(&mut self, id: UserId, role: Role) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.role = role;
        }
    }

    /// Gives an account another password, if it is there. Open sessions stay.
    pub fn set_password(&mut self, id: UserId, password: &[u8]) {
        if let Some(place) = self.place(id)
            && let Some(entry) = self.logins.get_mut(place)
            && let Some(account) = self.accounts.get_mut(&id)
        {
            entry.secret = self.secrets.hash_one((&*account.name, password));
            account.password = Password(password.into());
        }
    }

    /// Deletes an account, if it is there.
    pub fn delete(&mut self, id: UserId) {
        if let Some(place) = self.place(id) {
            self.logins.remove(place);
            self.accounts.remove(&id);
            self.deleted.push(id);
        }
    }

    /// The accounts deleted since the last call.
    pub fn take_deleted(&mut self) -> Vec<UserId> {
        std::mem::take(&mut self.deleted)
    }
}

/// An account in the order of its name's hash.
struct Entry {
    hash: u64,
    /// The hash of name and password.
    secret: u64,
    id: UserId,
}

/// A password. No debug print shows it.
struct Password(Vec<u8>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

impl Password {
    /// Compares whole passwords in a time that depends on neither of them. An empty one matches nothing.
    fn matches(&self, attempt: &[u8]) -> bool {
        let mut differs = self.0.len() != attempt.len() || self.0.is_empty();
        for position in 0..LONGEST_PASSWORD {
            let byte = |bytes: &[u8]| bytes.get(position).copied().unwrap_or(0);
            differs |= black_box(byte(&self.0) ^ byte(attempt)) != 0;
        }
        !black_box(differs)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    thread_local! {
        /// Accounts of this thread that were looked at for a login so far.
        pub(super) static CONFIRMATIONS: Cell<usize> = const { Cell::new(0) };
    }

    /// Known names and unknown ones, wrong passwords of all lengths: each is compared with one entry, and no
    /// account is looked at. Only a right password leads to one.
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
                    let before = CONFIRMATIONS.get();
                    assert_eq!(users.authenticate(name, password).is_some(), right);
                    assert_eq!(CONFIRMATIONS.get() - before, usize::from(right), "{number}");
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

    /// Two names may have one hash, and two logins one secret, rare as that is.
    #[test]
    fn equal_hashes_are_told_apart() {
        let mut users = Users::default();
        for (name, password) in [(b"amy", b"1"), (b"bob", b"2"), (b"eve", b"3")] {
            users.add(name, password, Role::User).expect("new");
        }
        let (hash, secret) =
            (users.names.hash_one(&b"bob"[..]), users.secrets.hash_one((&b"bob"[..], &b"2"[..])));
        for entry in &mut users.logins {
            entry.hash = hash;
        }
        let bob = users.find(b"bob").expect("there");
        assert_eq!(users.authenticate(b"bob", b"2"), Some(bob));
        assert_eq!(users.authenticate(b"bob", b"1"), None);
        for entry in &mut users.logins {
            entry.secret = secret;
        }
        assert_eq!(users.authenticate(b"bob", b"2"), Some(bob));
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

    #[test]
    fn debug_output_has_no_password() {
        let mut users = Users::default();
        let id = users.add(b"alice", b"hunter2", Role::User).expect("new");
        assert!(!format!("{:?}", users.get(id)).contains("hunter2"));
        assert!(!format!("{:?}", users.get(id)).contains("104"));
    }
}
