//! Accounts. A session belongs to an account, not to a name: an identity is never used twice, so deleting
//! a user and adding the name again revives nothing.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hint::black_box;
use std::ops::Bound;
use std::rc::Rc;
use std::time::Instant;

use crate::proto::metp::{LONGEST_PASSWORD, Role};

/// Which account. Ordered by creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(u64);

/// Somebody who may log in.
#[derive(Debug)]
pub struct Account {
    /// The name: 1 to 255 bytes.
    pub name: Rc<[u8]>,
    /// What the account may do over METP. Every account may use SOCKS.
    pub role: Role,
    /// What it has used so far.
    pub usage: Rc<Usage>,
    password: Password,
}

/// What an account has used of the SOCKS service. Shared with its sessions, so that counting takes no
/// look-up.
#[derive(Debug, Default)]
pub struct Usage {
    /// Connections that are logged in now.
    pub open: Cell<u64>,
    /// Connections that have logged in so far.
    pub total: Cell<u64>,
    /// Payload bytes delivered to targets.
    pub up: Cell<u64>,
    /// Payload bytes delivered to clients.
    pub down: Cell<u64>,
    /// When it last logged in or moved a byte.
    pub seen: Cell<Option<Instant>>,
}

/// A SOCKS connection that is logged in, for as long as this lives.
#[derive(Debug)]
pub struct Login {
    /// Whose it is.
    pub user: UserId,
    usage: Rc<Usage>,
}

impl Login {
    /// The account's counters.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.usage.open.set(self.usage.open.get().saturating_sub(1));
    }
}

/// The accounts, in order of creation.
#[derive(Default)]
pub struct Users {
    accounts: BTreeMap<UserId, Account>,
    names: HashMap<Rc<[u8]>, UserId>,
    next: u64,
    /// Accounts deleted since this was last asked; their sessions are to be closed.
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
        if self.names.contains_key(name) {
            return Err(Exists);
        }
        let (id, name) = (UserId(self.next), Rc::<[u8]>::from(name));
        self.next += 1;
        self.names.insert(Rc::clone(&name), id);
        let (usage, password) = (Rc::default(), Password(password.into()));
        self.accounts.insert(id, Account { name, role, usage, password });
        Ok(id)
    }

    /// The account whose name and password these are. An unknown name costs the same work as a wrong
    /// password.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<UserId> {
        const NOBODY: &Password = &Password(Vec::new());
        let id = self.find(name);
        let account = id.and_then(|id| self.accounts.get(&id));
        let matches = account.map_or(NOBODY, |account| &account.password).matches(password);
        id.filter(|_| matches)
    }

    /// Counts a SOCKS connection that has logged in. `None` if the account is gone.
    pub fn enter(&self, user: UserId, now: Instant) -> Option<Login> {
        let usage = Rc::clone(&self.accounts.get(&user)?.usage);
        usage.open.set(usage.open.get() + 1);
        usage.total.set(usage.total.get() + 1);
        usage.seen.set(Some(now));
        Some(Login { user, usage })
    }

    /// The account of this name.
    pub fn find(&self, name: &[u8]) -> Option<UserId> {
        self.names.get(name).copied()
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
        if let Some(account) = self.accounts.get_mut(&id) {
            account.password = Password(password.into());
        }
    }

    /// Deletes an account, if it is there.
    pub fn delete(&mut self, id: UserId) {
        if let Some(account) = self.accounts.remove(&id) {
            self.names.remove(&account.name);
            self.deleted.push(id);
        }
    }

    /// The accounts deleted since the last call.
    pub fn take_deleted(&mut self) -> Vec<UserId> {
        std::mem::take(&mut self.deleted)
    }
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
    use super::*;

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
        let (first, second) = (users.enter(id, now), users.enter(id, now));
        let usage = Rc::clone(&users.get(id).expect("there").usage);
        let counts = || (usage.open.get(), usage.total.get());
        assert_eq!(counts(), (2, 2));
        drop(first);
        assert_eq!(counts(), (1, 2));
        users.delete(id);
        assert!(users.enter(id, now).is_none());
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
