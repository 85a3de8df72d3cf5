//! Accounts. A session belongs to an account, not to a name: an identity is never used twice, so deleting
//! a user and adding the name again revives nothing.
//!
//! Passwords are not kept: an account has a [`Digest`] of its name and password. A login that fails does the same work
//! whether its name is known or not: its digest is compared with one entry of one table, found in a number of steps that
//! depends on the number of accounts alone.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::Bound;
use std::rc::Rc;
use std::time::Instant;

use metp_protocol::Role;
pub use metp_protocol::TRUSTED_NAME;

use super::digest::{Digest, DigestKey};

/// The identity of an account, in order of creation. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(u64);

impl UserId {
    /// The account of clients that need no login. It is always there, comes last, and has no password.
    pub const TRUSTED: UserId = UserId(u64::MAX);
}

/// An account.
#[derive(Debug)]
pub struct Account {
    /// The name: 1 to 255 bytes.
    pub name: Rc<[u8]>,
    /// What the account may do over METP. Every account may use SOCKS.
    pub role: Role,
    /// Its counters.
    pub usage: Rc<Usage>,
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
pub struct Users {
    accounts: BTreeMap<UserId, Account>,
    /// That of [`UserId::TRUSTED`]. It is in no other field, so nobody can log in to it.
    trusted: Account,
    /// All accounts, in the order of their names' hashes.
    logins: Vec<Entry>,
    /// Hashes names, with a key of this process.
    names: RandomState,
    /// Makes digests of names and passwords.
    key: DigestKey,
    next: u64,
    /// Accounts deleted since [`Users::take_deleted`] was last called; their sessions have to be closed.
    deleted: Vec<UserId>,
}

/// The name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exists;

impl Default for Users {
    fn default() -> Self {
        let (name, role) = (TRUSTED_NAME.into(), Role::User);
        Users {
            accounts: BTreeMap::new(),
            trusted: Account { name, role, usage: Rc::default() },
            logins: Vec::new(),
            names: RandomState::default(),
            key: DigestKey::random(),
            next: 0,
            deleted: Vec::new(),
        }
    }
}

impl Users {
    /// Adds an account.
    ///
    /// # Errors
    /// [`Exists`] if the name is taken, as [`TRUSTED_NAME`] always is.
    pub fn add(&mut self, name: &[u8], password: &[u8], role: Role) -> Result<UserId, Exists> {
        if self.find_any(name).is_some() {
            return Err(Exists);
        }
        let id = UserId(self.next);
        self.next += 1;
        let (hash, digest) = (self.names.hash_one(name), self.key.digest(name, password));
        self.logins.insert(self.position(hash), Entry { hash, digest, id });
        self.accounts.insert(id, Account { name: name.into(), role, usage: Rc::default() });
        Ok(id)
    }

    /// The account with this name and password. An unknown name costs as much work as a wrong password and touches
    /// the same memory. An empty password is nobody's.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<UserId> {
        let digest = self.key.digest(name, password);
        let mut user = None;
        for entry in self.candidates(self.names.hash_one(name)) {
            if entry.digest.matches(&digest) {
                user = Some(entry.id);
            }
        }
        user.filter(|_| !password.is_empty())
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
        let usage = Rc::clone(&self.get(user)?.usage);
        usage.open.set(usage.open.get() + 1);
        usage.total.set(usage.total.get() + 1);
        usage.seen.set(Some(now));
        Some(SessionGuard { user, usage })
    }

    /// The account of this name, if one can log in to it.
    pub fn find(&self, name: &[u8]) -> Option<UserId> {
        let mut candidates = self.candidates(self.names.hash_one(name)).map(|entry| entry.id);
        candidates.find(|id| self.accounts.get(id).is_some_and(|account| *account.name == *name))
    }

    /// The account of this name; also [`UserId::TRUSTED`].
    pub fn find_any(&self, name: &[u8]) -> Option<UserId> {
        if name == TRUSTED_NAME { Some(UserId::TRUSTED) } else { self.find(name) }
    }

    /// The account, unless it has been deleted.
    pub fn get(&self, id: UserId) -> Option<&Account> {
        if id == UserId::TRUSTED { Some(&self.trusted) } else { self.accounts.get(&id) }
    }

    /// Like [`Users::after`], with [`UserId::TRUSTED`] at the end.
    pub fn after_any(&self, id: Option<UserId>) -> Option<(UserId, &Account)> {
        let trusted = || Some((UserId::TRUSTED, &self.trusted));
        self.after(id).or_else(|| if id == Some(UserId::TRUSTED) { None } else { trusted() })
    }

    /// The account created next after `id`, or the first. Not [`UserId::TRUSTED`].
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
            && let Some(account) = self.accounts.get(&id)
        {
            entry.digest = self.key.digest(&account.name, password);
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
    /// That of name and password.
    digest: Digest,
    id: UserId,
}

#[cfg(test)]
mod tests;
