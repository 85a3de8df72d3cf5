//! Changes of accounts on their way to the users file.
//!
//! A change takes effect at once, and is answered when it is on the disk. Until then it stands here, in the order in
//! which all sessions made them, with what it takes to undo it. What came while one group was being written is the
//! next. If a group cannot be written, it and all that came after it are undone, the last first: nothing that was
//! answered is lost, and nothing that is there was not answered.

use std::collections::{HashSet, VecDeque};

use super::audit::AuditRecord;
use super::users::{Credential, Removed, Stored, UserId, Users, unix_time};
use crate::proto::limits::Limits;
use crate::reactor::slab::Key;
use crate::workers::users_file::Store;

/// Changes that are written together, at most.
const MOST_IN_GROUP: usize = 1024;
/// Hashes of passwords that are made for one group, at most: each takes some 15 ms.
const MOST_HASHES_IN_GROUP: usize = 16;

/// The number of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangeNumber(u64);

/// Changes that are not on the disk.
#[derive(Default)]
pub struct Changes {
    /// In their order. The first [`Changes::writing`] are being written, and have no store any more.
    pending: VecDeque<Pending>,
    writing: usize,
    next: u64,
    /// Accounts that may change nothing but their own password, and whose change is not on the disk.
    own: HashSet<UserId>,
    /// Sessions of theirs that wait for that.
    waiting: HashSet<Key>,
}

/// A change that is not on the disk.
struct Pending {
    number: ChangeNumber,
    session: Key,
    store: Option<Store>,
    undo: Undo,
    /// The account that has made it, unless that is an administrator.
    own: Option<UserId>,
    audit: Option<AuditRecord>,
}

/// What it takes to undo a change.
#[derive(Debug)]
pub enum Undo {
    /// The account was added, with this number of its credential.
    Remove(UserId, u64),
    /// The account was removed.
    Restore(Box<Removed>),
    /// The account had this role.
    Role(UserId, metp_protocol::Role),
    /// The account had the credential; the new one has this number.
    Credential(UserId, Box<Credential>, u64),
    /// The account was locked, or not.
    Lock(UserId, bool),
    /// The account had these limits.
    Limits(UserId, Option<Box<Limits>>),
    /// All accounts that do not say otherwise had these limits.
    Defaults(Box<Limits>),
}

/// What has become of a change, for the session that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The session.
    pub session: Key,
    /// The change.
    pub number: ChangeNumber,
    /// Why it was not stored, and has been undone.
    pub outcome: Result<(), String>,
}

impl Changes {
    /// Notes a change that has just been made in memory. `own`: by this account, of its own password.
    pub fn push(
        &mut self,
        session: Key,
        store: Store,
        undo: Undo,
        own: Option<UserId>,
    ) -> ChangeNumber {
        let number = ChangeNumber(self.next);
        self.next += 1;
        self.own.extend(own);
        let (store, audit) = (Some(store), None);
        self.pending.push_back(Pending { number, session, store, undo, own, audit });
        number
    }

    /// Whether a session has to wait until the account's change is on the disk: those who are no administrators have one
    /// under way at a time, in all their sessions, so that they do not hold up others. The session is one of those that
    /// [`Changes::take_waiting`] returns then.
    pub fn has_to_wait(&mut self, user: UserId, session: Key) -> bool {
        let waits = self.own.contains(&user);
        if waits {
            self.waiting.insert(session);
        }
        waits
    }

    /// The sessions that have waited for a change that is settled now.
    pub fn take_waiting(&mut self) -> impl Iterator<Item = Key> + use<> {
        std::mem::take(&mut self.waiting).into_iter()
    }

    /// What is told of a change when it is on the disk. It is the latest.
    pub fn audit(&mut self, number: ChangeNumber, record: AuditRecord) {
        if let Some(pending) = self.pending.back_mut().filter(|it| it.number == number) {
            pending.audit = Some(record);
        }
    }

    /// Whether all changes are on the disk.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The next group to be written; empty if one is being written, or nothing is to be.
    pub fn begin(&mut self) -> Vec<Store> {
        if self.writing > 0 {
            return Vec::new();
        }
        let mut hashes = 0;
        let mut group = Vec::new();
        for pending in self.pending.iter_mut().take(MOST_IN_GROUP) {
            let hash = pending.store.as_ref().is_some_and(|store| store.password.is_some());
            hashes += usize::from(hash);
            if hashes > MOST_HASHES_IN_GROUP {
                break;
            }
            group.extend(pending.store.take());
        }
        self.writing = group.len();
        group
    }

    /// The group is on the disk; `secrets` are those that were made for it.
    pub fn stored(&mut self, secrets: Vec<Option<Box<str>>>, users: &mut Users) -> Vec<Settled> {
        let group = self.pending.drain(..self.writing.min(self.pending.len()));
        self.writing = 0;
        let own = &mut self.own;
        let secrets = secrets.into_iter().chain(std::iter::repeat(None));
        let settle = |(pending, secret): (Pending, Option<Box<str>>)| {
            match (pending.undo, secret) {
                (Undo::Remove(user, epoch), secret) => {
                    users.forget_figures(user);
                    if let Some(secret) = secret {
                        users.set_stored(user, epoch, Stored::Slow(secret));
                    }
                }
                (Undo::Credential(user, _, epoch), Some(secret)) => {
                    users.set_stored(user, epoch, Stored::Slow(secret));
                }
                (Undo::Restore(removed), _) => users.end_sessions(removed.id()),
                _ => {}
            }
            if let Some(user) = pending.own {
                own.remove(&user);
            }
            if let Some(record) = pending.audit {
                record.write();
            }
            Settled { session: pending.session, number: pending.number, outcome: Ok(()) }
        };
        group.zip(secrets).map(settle).collect()
    }

    /// The group could not be written: undoes all changes that are not on the disk.
    pub fn failed(&mut self, cause: &str, users: &mut Users) -> Vec<Settled> {
        self.writing = 0;
        self.own.clear();
        let mut settled = Vec::with_capacity(self.pending.len());
        while let Some(Pending { number, session, undo, .. }) = self.pending.pop_back() {
            match undo {
                Undo::Remove(user, _) => users.delete(user),
                Undo::Restore(removed) => users.restore(*removed),
                Undo::Role(user, role) => users.set_role(user, role),
                Undo::Credential(user, credential, _) => {
                    users.set_credential(user, *credential);
                }
                Undo::Lock(user, locked) => users.set_locked(user, locked),
                Undo::Limits(user, limits) => {
                    users.set_limits(user, limits, unix_time());
                }
                Undo::Defaults(limits) => {
                    users.set_defaults(*limits, unix_time());
                }
            }
            settled.push(Settled { session, number, outcome: Err(cause.to_owned()) });
        }
        settled.reverse();
        settled
    }
}

#[cfg(test)]
mod tests;
