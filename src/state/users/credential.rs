//! What a login is compared with.
//!
//! The digest of a right password makes each further login a comparison: it differs for every other password, so that a
//! wrong one is known at once, too. An account whose right password has not been seen yet has a hash of the users file
//! alone; that of a generated password is compared in place, others take a worker's milliseconds.
//!
//! A credential has a number, its epoch, which is never used twice. A verification that began before the secret was
//! changed is about another number, and its result is nothing that holds any more.

use super::{Account, Digest, Entry, UserId, Users};
use crate::proto::secret::{Secret, Token};

/// What a login is compared with.
#[derive(Clone, Debug)]
pub struct Credential {
    pub(super) secret: Stored,
    pub(super) epoch: u64,
    pub(super) digest: Option<Digest>,
}

/// What an account has of the secret in the users file.
#[derive(Clone, PartialEq, Eq)]
pub enum Stored {
    /// Nothing: it has none, or its password is known.
    Nothing,
    /// The hash of a generated password.
    Token(Box<Token>),
    /// A hash that takes milliseconds, as text.
    Slow(Box<str>),
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stored")
    }
}

/// What a name and a password are found to be.
#[derive(Debug)]
pub enum Login {
    /// Those of this account.
    Accepted(UserId),
    /// A known name, and not its password; or an account that is locked.
    Refused,
    /// Nobody's name, or one that has no password. With a digest of the login.
    Unknown(Digest),
    /// The name of an account whose password has not been seen yet.
    Unverified(Unverified),
}

/// A login that a hash has to be computed for.
#[derive(Clone, Debug)]
pub struct Unverified {
    /// The account.
    pub user: UserId,
    /// The number of its credential.
    pub epoch: u64,
    /// The digest of the login.
    pub digest: Digest,
    /// The hash, as text.
    pub secret: Box<str>,
}

/// What has become of a login while its hash was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// The account is there, and its password is known now.
    Accepted(UserId),
    /// The account is locked, or gone.
    Refused,
    /// Another secret has taken the place of the one that was verified.
    Changed,
}

impl Credential {
    /// Its number, which is never used twice.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Users {
    /// A new credential for an account of this name. With a password, that is known to be right.
    pub fn credential(
        &mut self,
        name: &[u8],
        secret: Stored,
        password: Option<&[u8]>,
    ) -> Credential {
        let epoch = self.epoch;
        self.epoch += 1;
        let password = password.filter(|password| !password.is_empty());
        self.has_hashes |= password.is_none() && matches!(secret, Stored::Slow(_));
        let digest = password.map(|password| self.key.digest(epoch, name, password));
        Credential { secret, epoch, digest }
    }

    /// Whether a password fits the account.
    pub(super) fn has_password(&self, id: UserId) -> bool {
        let stored = self.accounts.get(&id).is_some_and(|it| it.secret != Stored::Nothing);
        stored || self.entry(id).is_some_and(|entry| entry.digest.is_some())
    }

    /// The credential of a secret of the users file.
    pub fn credential_of(&mut self, name: &[u8], mut secret: Secret) -> Credential {
        match &mut secret {
            Secret::None => self.credential(name, Stored::Nothing, None),
            Secret::Clear(password) => self.credential(name, Stored::Nothing, Some(password)),
            Secret::Token(token) => self.credential(name, Stored::Token(token.clone()), None),
            Secret::Slow(hash) => {
                let hash = std::mem::take(hash);
                self.credential(name, Stored::Slow(hash), None)
            }
        }
    }

    /// Compares a login with the account of its name. An unknown name costs as much work as a wrong password, and touches
    /// the same memory. An empty password is nobody's.
    pub fn check(&mut self, name: &[u8], password: &[u8]) -> Login {
        let hash = self.hash(name);
        let mut login = None;
        let mut open = None;
        let mut compared = None;
        for entry in self.candidates(hash) {
            let digest = self.key.digest(entry.epoch, name, password);
            match &entry.digest {
                Some(right) if right.matches(&digest) => {
                    let locked = entry.locked || password.is_empty();
                    login = Some(if locked { Login::Refused } else { Login::Accepted(entry.id) });
                }
                // That the names are equal, too, need not be looked up: nobody is let in.
                Some(_) if entry.hash == hash && !matches!(login, Some(Login::Accepted(_))) => {
                    login = Some(Login::Refused);
                }
                None if entry.hash == hash && self.is_named(entry.id, name) => {
                    open = Some((entry.id, entry.epoch, digest.clone()));
                }
                Some(_) | None => {}
            }
            compared = Some(digest);
        }
        if let Some((user, epoch, digest)) = open {
            return self.check_secret(user, epoch, digest, password);
        }
        login.unwrap_or_else(|| {
            Login::Unknown(compared.unwrap_or_else(|| self.key.digest(0, name, password)))
        })
    }

    /// Compares a login with the secret of an account whose password has not been seen yet.
    fn check_secret(&mut self, user: UserId, epoch: u64, digest: Digest, password: &[u8]) -> Login {
        match self.accounts.get(&user).map(|account| &account.secret) {
            _ if password.is_empty() => Login::Refused,
            None | Some(Stored::Nothing) => Login::Unknown(digest),
            Some(Stored::Slow(hash)) => {
                Login::Unverified(Unverified { user, epoch, digest, secret: hash.clone() })
            }
            Some(Stored::Token(token)) => match token.matches(password) {
                true => match self.confirm(user, epoch, &digest) {
                    Confirmed::Accepted(user) => Login::Accepted(user),
                    Confirmed::Refused | Confirmed::Changed => Login::Refused,
                },
                false => Login::Refused,
            },
        }
    }

    /// The account with this name and password, as far as that is known without a hash that takes milliseconds.
    pub fn authenticate(&mut self, name: &[u8], password: &[u8]) -> Option<UserId> {
        match self.check(name, password) {
            Login::Accepted(user) => Some(user),
            Login::Refused | Login::Unknown(_) | Login::Unverified(_) => None,
        }
    }

    /// The login with this digest has turned out to be right.
    pub fn confirm(&mut self, user: UserId, epoch: u64, digest: &Digest) -> Confirmed {
        match self.entry_mut(user) {
            None => Confirmed::Refused,
            Some(entry) if entry.epoch != epoch => Confirmed::Changed,
            Some(entry) => {
                entry.digest = Some(digest.clone());
                if entry.locked { Confirmed::Refused } else { Confirmed::Accepted(user) }
            }
        }
    }

    /// Whether a verification of this credential is about what the account has now.
    pub fn is_current(&self, user: UserId, epoch: u64) -> bool {
        self.entry(user).is_some_and(|entry| entry.epoch == epoch)
    }

    /// Gives an account of memory another password, if it is there. Open sessions stay.
    pub fn set_password(&mut self, id: UserId, password: &[u8]) {
        if let Some(account) = self.accounts.get(&id) {
            let name = std::rc::Rc::clone(&account.name);
            let credential = self.credential(&name, Stored::Nothing, Some(password));
            self.set_credential(id, credential);
        }
    }

    /// Gives an account another credential. Returns the one that it had; `None`: there is no such account.
    pub fn set_credential(&mut self, id: UserId, credential: Credential) -> Option<Credential> {
        let Credential { secret, epoch, digest } = credential;
        let entry = self.entry_mut(id)?;
        let epoch = std::mem::replace(&mut entry.epoch, epoch);
        let digest = std::mem::replace(&mut entry.digest, digest);
        let secret = std::mem::replace(&mut self.accounts.get_mut(&id)?.secret, secret);
        Some(Credential { secret, epoch, digest })
    }

    /// The users file has this secret of the credential with this number.
    pub fn set_stored(&mut self, id: UserId, epoch: u64, secret: Stored) {
        if self.is_current(id, epoch)
            && let Some(account) = self.accounts.get_mut(&id)
        {
            account.secret = secret;
        }
    }

    /// Whether the account has this secret already. What is known of a password in clear is its digest.
    pub(super) fn has_secret(&self, entry: &Entry, secret: &Secret) -> bool {
        let Some(account) = self.accounts.get(&entry.id) else { return false };
        let Account { name, secret: stored, .. } = account;
        match (secret, stored) {
            (Secret::Clear(password), Stored::Nothing) => entry
                .digest
                .as_ref()
                .is_some_and(|right| right.matches(&self.key.digest(entry.epoch, name, password))),
            (Secret::None, Stored::Nothing) => entry.digest.is_none(),
            (Secret::Token(token), Stored::Token(stored)) => token == stored,
            (Secret::Slow(hash), Stored::Slow(stored)) => hash == stored,
            _ => false,
        }
    }

    fn is_named(&self, id: UserId, name: &[u8]) -> bool {
        self.accounts.get(&id).is_some_and(|account| *account.name == *name)
    }
}
