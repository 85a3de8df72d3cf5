//! Accounts of the users file: the first ones, and what has changed when the file is read again.

use std::collections::HashMap;
use std::rc::Rc;

use super::{NewAccount, Origin, Role, UserId, Users, unix_time};
use crate::proto::secret::Secret;
use crate::proto::users_file::{FileAccount, FileAccounts};

/// What reading the file again has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Accounts in the file.
    pub accounts: usize,
    /// Accounts that are new.
    pub added: usize,
    /// Accounts that are gone.
    pub deleted: usize,
    /// Accounts whose secret, role, lock or limits are others.
    pub changed: usize,
}

/// The file would leave nobody who can log in as an administrator, while there is one now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAdministrator;

impl std::fmt::Display for NoAdministrator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no account would be an administrator that is not locked")
    }
}

impl Users {
    /// Adds the accounts of the file, all at once: each name is in it once. Those whose names are taken are left out.
    pub fn load(&mut self, file: FileAccounts) {
        self.set_defaults(file.defaults, unix_time());
        self.add_all(file.accounts);
    }

    fn add_all(&mut self, accounts: Vec<FileAccount>) {
        self.logins.reserve(accounts.len());
        let news: Vec<FileAccount> =
            accounts.into_iter().filter(|account| self.find_any(&account.name).is_none()).collect();
        for FileAccount { name, secret, locked, role, limits } in news {
            let credential = self.credential_of(&name, secret);
            let origin = Origin::File;
            let new = NewAccount { name: &name, role, locked, origin, credential, limits };
            let (id, entry) = self.insert(new);
            self.logins.push(entry);
            self.claim(id);
        }
        self.logins.sort_by_key(|entry| entry.hash);
    }

    /// The file has been read again. An account of the same name keeps its identity, counters and sessions; one that is
    /// gone is deleted. One of memory whose name the file has now is that of the file.
    ///
    /// # Errors
    /// [`NoAdministrator`]; nothing is changed then.
    pub fn reload(&mut self, file: FileAccounts) -> Result<Reloaded, NoAdministrator> {
        let FileAccounts { accounts, defaults } = file;
        let mut done = Reloaded { accounts: accounts.len(), ..Reloaded::default() };
        let known = self.accounts.iter().map(|(id, account)| (Rc::clone(&account.name), *id));
        let mut others: HashMap<Rc<[u8]>, UserId> = known.collect();
        let governs = |id: &UserId| self.governs(*id);
        let will = accounts.iter().any(|account| {
            account.role == Role::Admin && !account.locked && account.secret != Secret::None
        });
        let (mut news, mut staying) = (Vec::new(), Vec::with_capacity(accounts.len()));
        for account in accounts {
            match others.remove(&*account.name) {
                Some(id) => staying.push((id, account)),
                None => news.push(account),
            }
        }
        let is_of_file = |id: &UserId| {
            self.accounts.get(id).is_some_and(|account| account.origin == Origin::File)
        };
        let (mut gone, kept): (Vec<UserId>, Vec<UserId>) =
            others.into_values().partition(is_of_file);
        if !will && !kept.iter().any(governs) && self.accounts.keys().any(governs) {
            return Err(NoAdministrator);
        }
        self.set_defaults(defaults, unix_time());
        (done.deleted, done.added) = (gone.len(), news.len());
        gone.sort_unstable();
        self.delete_all(&gone);
        // To search for each of them would take several times as long.
        let places: HashMap<UserId, usize> =
            self.logins.iter().enumerate().map(|(place, entry)| (entry.id, place)).collect();
        for (id, account) in staying {
            let place = places.get(&id).copied();
            done.changed += usize::from(self.take_over(id, place, account));
        }
        self.add_all(news);
        Ok(done)
    }

    /// Makes an account, whose entry is at this place, what the file has of it. Returns whether something was different.
    fn take_over(&mut self, id: UserId, place: Option<usize>, news: FileAccount) -> bool {
        let FileAccount { name, secret, locked, role, limits } = news;
        let entry = place.and_then(|place| self.logins.get(place));
        let same_lock = entry.is_some_and(|entry| entry.locked == locked);
        let same_secret = entry.is_some_and(|entry| self.has_secret(entry, &secret));
        if !same_secret {
            let credential = self.credential_of(&name, secret);
            self.set_credential(id, credential);
        }
        if !same_lock {
            self.set_locked(id, locked);
        }
        let same_limits = self.limits(id) == limits.as_deref();
        if !same_limits {
            self.set_limits(id, limits, unix_time());
        }
        let Some(account) = self.accounts.get_mut(&id) else { return false };
        let same = same_secret && same_lock && same_limits && account.role == role;
        let same = same && account.origin == Origin::File;
        account.role = role;
        account.origin = Origin::File;
        !same
    }

    /// Whether somebody can log in as an administrator.
    pub fn has_administrator(&self) -> bool {
        self.accounts.keys().any(|id| self.governs(*id))
    }

    /// Whether somebody can log in to the account, and administer the server then.
    fn governs(&self, id: UserId) -> bool {
        let is_admin = self.accounts.get(&id).is_some_and(|account| account.role == Role::Admin);
        is_admin && self.has_password(id) && !self.is_locked(id)
    }

    /// Deletes accounts, each of which is there.
    fn delete_all(&mut self, gone: &[UserId]) {
        for id in gone {
            if let Some(account) = self.accounts.remove(id) {
                self.forget_expiry(*id, &account);
            }
        }
        self.logins.retain(|entry| self.accounts.contains_key(&entry.id));
        self.deleted.extend(gone);
    }
}

#[cfg(test)]
mod tests;
