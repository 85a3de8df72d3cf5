//! Accounts of the users file: the first ones, and what has changed when the file is read again.

use std::collections::HashSet;

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
        let names: HashSet<&[u8]> = accounts.iter().map(|account| &*account.name).collect();
        let stays = |id: &UserId| {
            let account = self.accounts.get(id);
            account.is_some_and(|account| {
                account.origin == Origin::Memory && !names.contains(&*account.name)
            })
        };
        let (gone, kept): (Vec<UserId>, Vec<UserId>) = {
            let file = |id: &UserId| {
                self.accounts.get(id).is_some_and(|account| {
                    account.origin == Origin::File && !names.contains(&*account.name)
                })
            };
            (
                self.accounts.keys().copied().filter(file).collect(),
                self.accounts.keys().copied().filter(stays).collect(),
            )
        };
        let governs = |id: &UserId| self.governs(*id);
        let will = accounts.iter().any(|account| {
            account.role == Role::Admin && !account.locked && account.secret != Secret::None
        });
        if !will && !kept.iter().any(governs) && self.accounts.keys().any(governs) {
            return Err(NoAdministrator);
        }
        self.set_defaults(defaults, unix_time());
        let mut done = Reloaded { accounts: accounts.len(), ..Reloaded::default() };
        done.deleted = gone.len();
        self.delete_all(&gone);
        let mut news = Vec::new();
        for account in accounts {
            match self.find(&account.name) {
                Some(id) => done.changed += usize::from(self.take_over(id, account)),
                None => news.push(account),
            }
        }
        done.added = news.len();
        self.add_all(news);
        Ok(done)
    }

    /// Makes an account what the file has of it. Returns whether something was different.
    fn take_over(&mut self, id: UserId, news: FileAccount) -> bool {
        let FileAccount { name, secret, locked, role, limits } = news;
        let same_secret = self.has_secret(id, &secret);
        if !same_secret {
            let credential = self.credential_of(&name, secret);
            self.set_credential(id, credential);
        }
        let same_lock = self.is_locked(id) == locked;
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
