//! Accounts. A session belongs to an account, not to a name: an identity is never used twice, so deleting
//! a user and adding the name again revives nothing.
//!
//! Passwords are not kept. An account has a [`Credential`]: a secret of the users file, and the digest of the password
//! that is known to be right, once there is one. A login that fails does the same work whether its name is known or not:
//! its digest is compared with one entry of one table, found in a number of steps that depends on the number of accounts
//! alone.

mod credential;
mod figures;
mod limits;
mod reload;

use std::cell::{Cell, RefCell};
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::ops::Bound;
use std::rc::Rc;
use std::time::Instant;

use metp_protocol::Role;
pub use metp_protocol::TRUSTED_NAME;

use super::digest::{Digest, DigestKey};
use super::shaper::Shaper;
use crate::proto::limits::{InForce, Limits};
use crate::proto::usage_file::AccountFigures;
pub use credential::{Confirmed, Credential, Login, Stored, Unverified};
pub use figures::unix_time;
pub use limits::{Counted, LimitReached, RequestGuard, Used};
pub use reload::{NoAdministrator, Reloaded};

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
    /// Where it lives.
    pub origin: Origin,
    /// Its counters.
    pub usage: Rc<Usage>,
    /// What the users file has of it.
    secret: Stored,
    /// Its own limits. `None`: those of all accounts alone hold.
    limits: Option<Box<Limits>>,
}

/// Where an account lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In memory: it ends with the process.
    Memory,
    /// In the users file.
    File,
}

/// An account that is to be.
#[derive(Debug)]
pub struct NewAccount<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The role.
    pub role: Role,
    /// Whether nobody can log in to it.
    pub locked: bool,
    /// Where it lives.
    pub origin: Origin,
    /// Its secret.
    pub credential: Credential,
    /// Its own limits.
    pub limits: Option<Box<Limits>>,
}

/// An account that has been taken out, as it was.
#[derive(Debug)]
pub struct Removed {
    id: UserId,
    account: Account,
    entry: Entry,
}

impl Removed {
    /// The identity.
    pub fn id(&self) -> UserId {
        self.id
    }
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
    /// What `seen` was set to from the file of figures, and what the file has, in seconds of UNIX time.
    seen_before: Cell<(Option<Instant>, Option<u64>)>,
    /// When the account was created, in seconds of UNIX time.
    pub since: Cell<u64>,
    /// What it has used of its limits.
    pub used: Used,
    /// What it has read under its rate. `None`: there is no such limit.
    shaper: RefCell<Option<Box<Shaper>>>,
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
    /// The number of the next credential.
    epoch: u64,
    /// Whether an account has, or has had, a hash that takes milliseconds.
    has_hashes: bool,
    /// Figures of names that no account has: one of the users file may get them back.
    unclaimed: HashMap<Box<[u8]>, AccountFigures>,
    /// Accounts deleted since [`Users::take_deleted`] was last called; their sessions have to be closed.
    deleted: Vec<UserId>,
    /// What holds for all accounts that do not say otherwise.
    defaults: Limits,
    /// The same, as accounts share it. `None`: no limit.
    defaults_in_force: Option<Rc<InForce>>,
    /// Accounts that expire, by time.
    expiries: BTreeSet<(u64, UserId)>,
    /// Until when those that have expired are known.
    expired_until: u64,
    /// Accounts whose tunnels are to be ended, since [`Users::take_cut`] was last called.
    cut: Vec<(UserId, LimitReached)>,
    /// Accounts whose rate is another one, since [`Users::take_rate_changes`] was last called.
    rate_changes: Vec<UserId>,
}

/// The name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exists;

impl Default for Users {
    fn default() -> Self {
        let (name, role) = (TRUSTED_NAME.into(), Role::User);
        Users {
            accounts: BTreeMap::new(),
            trusted: Account {
                name,
                role,
                origin: Origin::Memory,
                usage: Rc::default(),
                secret: Stored::Nothing,
                limits: None,
            },
            logins: Vec::new(),
            names: RandomState::default(),
            key: DigestKey::random(),
            next: 0,
            epoch: 0,
            has_hashes: false,
            unclaimed: HashMap::new(),
            deleted: Vec::new(),
            defaults: Limits::default(),
            defaults_in_force: None,
            expiries: BTreeSet::new(),
            expired_until: 0,
            cut: Vec::new(),
            rate_changes: Vec::new(),
        }
    }
}

impl Users {
    /// Adds an account that lives in memory.
    ///
    /// # Errors
    /// [`Exists`] if the name is taken, as [`TRUSTED_NAME`] always is.
    pub fn add(&mut self, name: &[u8], password: &[u8], role: Role) -> Result<UserId, Exists> {
        let credential = self.credential(name, Stored::Nothing, Some(password));
        let origin = Origin::Memory;
        self.add_account(NewAccount { name, role, locked: false, origin, credential, limits: None })
    }

    /// Adds an account.
    ///
    /// # Errors
    /// [`Exists`] if the name is taken, as [`TRUSTED_NAME`] always is.
    pub fn add_account(&mut self, new: NewAccount<'_>) -> Result<UserId, Exists> {
        if self.find_any(new.name).is_some() {
            return Err(Exists);
        }
        let (id, entry) = self.insert(new);
        self.logins.insert(self.position(entry.hash), entry);
        Ok(id)
    }

    /// Adds an account whose entry is put into its place by the caller.
    fn insert(&mut self, new: NewAccount<'_>) -> (UserId, Entry) {
        let id = UserId(self.next);
        self.next += 1;
        let NewAccount { name, role, locked, origin, credential, limits } = new;
        let Credential { secret, epoch, digest } = credential;
        let entry = Entry { hash: self.hash(name), id, epoch, digest, locked };
        let usage = Rc::new(figures::fresh());
        let account = Account { name: name.into(), role, origin, usage, secret, limits };
        self.accounts.insert(id, account);
        self.enforce(id, unix_time());
        (id, entry)
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

    /// The hash by which the accounts are ordered.
    fn hash(&self, name: &[u8]) -> u64 {
        self.names.hash_one(name)
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
        let mut candidates = self.candidates(self.hash(name)).map(|entry| entry.id);
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

    /// The identity that the next account is going to have: those that there are have lower ones, but for
    /// [`UserId::TRUSTED`].
    pub fn next_id(&self) -> UserId {
        UserId(self.next)
    }

    /// Like [`Users::after_any`], without accounts from the identity `end` on.
    pub fn after_any_before(&self, id: Option<UserId>, end: UserId) -> Option<(UserId, &Account)> {
        match self.after_any(id) {
            Some((id, _)) if id >= end => Some((UserId::TRUSTED, &self.trusted)),
            found => found,
        }
    }

    /// The account created next after `id`, or the first. Not [`UserId::TRUSTED`].
    pub fn after(&self, id: Option<UserId>) -> Option<(UserId, &Account)> {
        let start = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.accounts.range((start, Bound::Unbounded)).next().map(|(id, account)| (*id, account))
    }

    /// Whether an account has, or has had, a hash that takes milliseconds, so that a login may take as long.
    pub fn has_hashes(&self) -> bool {
        self.has_hashes
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

    /// Locks an account or unlocks it, if it is there: nobody logs in to one that is locked. Open tunnels stay.
    pub fn set_locked(&mut self, id: UserId, locked: bool) {
        if let Some(entry) = self.entry_mut(id) {
            entry.locked = locked;
        }
    }

    /// Whether the account is locked.
    pub fn is_locked(&self, id: UserId) -> bool {
        self.entry(id).is_some_and(|entry| entry.locked)
    }

    /// The entry of an account.
    fn entry(&self, id: UserId) -> Option<&Entry> {
        self.logins.get(self.place(id)?)
    }

    fn entry_mut(&mut self, id: UserId) -> Option<&mut Entry> {
        let place = self.place(id)?;
        self.logins.get_mut(place)
    }

    /// Takes an account out, so that it can be put back. Its sessions stay, and lead nowhere.
    pub fn remove(&mut self, id: UserId) -> Option<Removed> {
        let place = self.place(id)?;
        let account = self.accounts.remove(&id)?;
        self.forget_expiry(id, &account);
        Some(Removed { id, account, entry: self.logins.remove(place) })
    }

    /// An account that is taken out does not expire.
    fn forget_expiry(&mut self, id: UserId, account: &Account) {
        if let Some(expires) = account.usage.in_force().and_then(|limits| limits.expires) {
            self.expiries.remove(&(expires, id));
        }
    }

    /// Puts back what [`Users::remove`] has taken out. Nothing may have taken its name meanwhile.
    pub fn restore(&mut self, removed: Removed) {
        let Removed { id, account, entry } = removed;
        if let Some(expires) = account.usage.in_force().and_then(|limits| limits.expires) {
            self.expiries.insert((expires, id));
        }
        self.logins.insert(self.position(entry.hash), entry);
        self.accounts.insert(id, account);
    }

    /// Deletes an account, if it is there.
    pub fn delete(&mut self, id: UserId) {
        if self.remove(id).is_some() {
            self.end_sessions(id);
        }
    }

    /// The sessions of an account that has been removed are to be closed.
    pub fn end_sessions(&mut self, id: UserId) {
        self.deleted.push(id);
    }

    /// The accounts deleted since the last call.
    pub fn take_deleted(&mut self) -> Vec<UserId> {
        std::mem::take(&mut self.deleted)
    }
}

/// An account in the order of its name's hash.
#[derive(Debug)]
struct Entry {
    hash: u64,
    id: UserId,
    /// The number of its credential.
    epoch: u64,
    /// That of the login that is known to be right.
    digest: Option<Digest>,
    locked: bool,
}

#[cfg(test)]
mod tests;
