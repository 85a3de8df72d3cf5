//! Commands that change accounts (§5.6 to §5.8, §5.14, §5.22 to §5.25).
//!
//! They take effect at once. Without a users file that is all; with one, the change goes on to the disk, and the reply
//! comes when it is there.

use super::execute::{CommandExecutor, CommandOutcome, Execution, refusal};
use crate::proto::limits::LimitKey;
use crate::proto::secret::{Secret, Token};
use crate::proto::users_file::{self, ALL_ACCOUNTS, Change, Edit};
use crate::state::changes::Undo;
use crate::state::users::{Account, NewAccount, Origin, Stored, UserId, Users};
use crate::workers::passwords::Password;
use crate::workers::users_file::Store;
use common::random;
use metp_protocol::{
    Cause, Command, LimitWord, Missing, NewPassword, Response, Role, Subject, acceptable_name,
};

/// The random bytes of a generated password: 160 bits.
const RANDOM_BYTES: usize = 20;
/// The letters of a generated password, five bits each: without those that look alike.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

impl CommandExecutor<'_> {
    /// Executes a command that changes an account.
    pub(super) fn change_account(&mut self, command: Command) -> Execution {
        if self.shared.process.users_fixed {
            return Execution::Done(Response::Fixed.into());
        }
        match command {
            Command::AddUser { name, password } => self.add(&name, &password),
            Command::DeleteUser(name) => self.on_another(&name, Self::delete),
            Command::SetRole(name, role) => {
                self.on_another(&name, |executor, user| executor.set_role(user, role))
            }
            Command::ChangePassword { name, password } => match self.permitted(&name) {
                Ok(user) => self.set_password(user, &password),
                Err(response) => done(response),
            },
            Command::LockUser(name) => {
                self.on_another(&name, |executor, user| executor.set_locked(user, true))
            }
            Command::UnlockUser(name) => {
                self.on_another(&name, |executor, user| executor.set_locked(user, false))
            }
            Command::GeneratePassword(name) => self.generate(&name),
            Command::Import(line) => self.import(&line),
            Command::SetLimit(subject, words) => self.set_limits(&subject, &words),
            _ => done(refusal(Cause::Syntax)),
        }
    }

    fn users(&mut self) -> &mut Users {
        &mut self.shared.process.users
    }

    /// Whether new accounts live in the users file.
    fn origin(&self) -> Origin {
        if self.shared.process.has_users_file { Origin::File } else { Origin::Memory }
    }

    /// Applies `change` to the account `name` unless it is the actor's own, so that one administrator always remains.
    fn on_another(
        &mut self,
        name: &[u8],
        change: impl FnOnce(&mut Self, UserId) -> Execution,
    ) -> Execution {
        match self.users().find(name) {
            None => done(refusal(Cause::NoUser)),
            Some(user) if user == self.actor => done(refusal(Cause::Own)),
            Some(user) => {
                let execution = change(self, user);
                self.shared.process.changes += 1;
                execution
            }
        }
    }

    /// The account has been changed. If it lives in the users file, the change is stored before the reply.
    fn stored(
        &mut self,
        account: (Box<[u8]>, Origin),
        change: Change,
        password: Option<&[u8]>,
        undo: Undo,
        response: Response,
    ) -> Execution {
        let (name, origin) = account;
        if origin == Origin::Memory {
            if let Undo::Remove(user, _) = undo {
                self.users().forget_figures(user);
            }
            return done(response);
        }
        let password = password.map(Password::new);
        let store = Store { edit: Edit { name, change }, password };
        let own = (!self.is_admin()).then_some(self.actor);
        let number = self.shared.process.account_changes.push(self.session, store, undo, own);
        Execution::Store(number, response)
    }

    /// Name and origin of an account.
    fn account(&mut self, user: UserId) -> Option<(Box<[u8]>, Origin)> {
        self.users().get(user).map(|Account { name, origin, .. }| ((**name).into(), *origin))
    }

    fn add(&mut self, name: &[u8], password: &[u8]) -> Execution {
        let credential = self.users().credential(name, Stored::Nothing, Some(password));
        let (epoch, origin) = (credential.epoch(), self.origin());
        let new =
            NewAccount { name, role: Role::User, locked: false, origin, credential, limits: None };
        match self.users().add_account(new) {
            Err(_) => done(refusal(Cause::Exists)),
            Ok(user) => {
                let change = Change::Add {
                    secret: "".into(),
                    locked: false,
                    role: Role::User,
                    limits: None,
                };
                let undo = Undo::Remove(user, epoch);
                self.stored((name.into(), origin), change, Some(password), undo, Response::Done)
            }
        }
    }

    fn delete(&mut self, user: UserId) -> Execution {
        let Some(account) = self.account(user) else { return done(refusal(Cause::NoUser)) };
        let Some(removed) = self.users().remove(user) else { return done(refusal(Cause::NoUser)) };
        if account.1 == Origin::Memory {
            self.users().end_sessions(user);
        }
        let undo = Undo::Restore(Box::new(removed));
        self.stored(account, Change::Delete, None, undo, Response::Done)
    }

    fn set_role(&mut self, user: UserId, role: Role) -> Execution {
        let Some(account) = self.account(user) else { return done(refusal(Cause::NoUser)) };
        let before = self.users().get(user).map_or(role, |account| account.role);
        self.users().set_role(user, role);
        let undo = Undo::Role(user, before);
        self.stored(account, Change::Role(role), None, undo, Response::Done)
    }

    fn set_locked(&mut self, user: UserId, locked: bool) -> Execution {
        let Some(account) = self.account(user) else { return done(refusal(Cause::NoUser)) };
        let before = self.users().is_locked(user);
        self.users().set_locked(user, locked);
        let undo = Undo::Lock(user, before);
        self.stored(account, Change::Lock(locked), None, undo, Response::Done)
    }

    /// All of the limits, or none if one cannot be used.
    fn set_limits(&mut self, subject: &Subject, words: &[LimitWord]) -> Execution {
        let user = match subject {
            Subject::All => None,
            Subject::Account(name) => match self.users().find(name) {
                Some(user) => Some(user),
                None => return done(Response::NotFound(Missing::User)),
            },
        };
        let users = self.users();
        let mut limits = match user {
            Some(user) => users.limits(user).cloned().unwrap_or_default(),
            None => users.defaults().clone(),
        };
        let mut written = Vec::with_capacity(words.len());
        for LimitWord { key, value } in words {
            let Some(key) = LimitKey::find(key) else {
                return done(Response::NotFound(Missing::Limit));
            };
            if let Err(bad) = limits.set(key, value) {
                return done(Response::Range(bad.to_string()));
            }
            written.push((key, limits.written(key).unwrap_or_default().into()));
        }
        let time = self.shared.time;
        let change = Change::Limits(written);
        match user {
            Some(user) => {
                let Some(account) = self.account(user) else { return done(refusal(Cause::NoUser)) };
                let before = self.users().set_limits(user, Some(Box::new(limits)), time);
                self.stored(account, change, None, Undo::Limits(user, before), Response::Done)
            }
            None => {
                let before = Box::new(self.users().set_defaults(limits, time));
                let (name, origin) = (ALL_ACCOUNTS.into(), self.origin());
                self.stored((name, origin), change, None, Undo::Defaults(before), Response::Done)
            }
        }
    }

    fn set_password(&mut self, user: UserId, password: &[u8]) -> Execution {
        let Some(account) = self.account(user) else { return done(refusal(Cause::NoUser)) };
        let credential = self.users().credential(&account.0, Stored::Nothing, Some(password));
        let epoch = credential.epoch();
        let Some(before) = self.users().set_credential(user, credential) else {
            return done(refusal(Cause::NoUser));
        };
        let undo = Undo::Credential(user, Box::new(before), epoch);
        let change = Change::Secret("".into());
        self.stored(account, change, Some(password), undo, Response::Done)
    }

    /// A new password that the server makes, for an account that is there or not.
    fn generate(&mut self, name: &[u8]) -> Execution {
        // The account may be new.
        if !acceptable_name(name) {
            return done(refusal(Cause::BadName));
        }
        let (random, salt) = match (random::bytes::<RANDOM_BYTES>(), random::bytes()) {
            (Ok(random), Ok(salt)) => (random, salt),
            (Err(error), _) | (_, Err(error)) => {
                return done(Response::NotStored(format!("no random bytes: {error}")));
            }
        };
        let password = letters(&random);
        let token = Token::new(salt, password.as_bytes());
        let secret: Box<str> = token.text().into();
        let stored = Stored::Token(Box::new(token));
        let credential = self.users().credential(name, stored, Some(password.as_bytes()));
        let epoch = credential.epoch();
        let found = self.users().find(name);
        let response =
            Response::Generated { password: NewPassword(password), created: found.is_none() };
        match found {
            Some(user) => {
                let Some(account) = self.account(user) else { return done(refusal(Cause::NoUser)) };
                let Some(before) = self.users().set_credential(user, credential) else {
                    return done(refusal(Cause::NoUser));
                };
                let undo = Undo::Credential(user, Box::new(before), epoch);
                self.stored(account, Change::Secret(secret), None, undo, response)
            }
            None => {
                let origin = self.origin();
                let new = NewAccount {
                    name,
                    role: Role::User,
                    locked: false,
                    origin,
                    credential,
                    limits: None,
                };
                let Ok(user) = self.users().add_account(new) else {
                    return done(refusal(Cause::Exists));
                };
                let change = Change::Add { secret, locked: false, role: Role::User, limits: None };
                let undo = Undo::Remove(user, epoch);
                self.stored((name.into(), origin), change, None, undo, response)
            }
        }
    }

    /// An account as a line of a users file. A password in clear is not stored as it is.
    fn import(&mut self, line: &[u8]) -> Execution {
        let account = match users_file::parse_line(line) {
            Ok(account) => account,
            Err(fault) => return done(Response::BadLine(fault.to_string())),
        };
        let users_file::FileAccount { name, secret, locked, role, limits } = account;
        let (text, password): (Box<str>, Option<Box<[u8]>>) = match &secret {
            Secret::None => ("".into(), None),
            Secret::Clear(password) => ("".into(), Some(password.clone())),
            Secret::Token(token) => (token.text().into(), None),
            Secret::Slow(hash) => (hash.clone(), None),
        };
        let credential = self.users().credential_of(&name, secret);
        let (epoch, origin) = (credential.epoch(), self.origin());
        let new =
            NewAccount { name: &name, role, locked, origin, credential, limits: limits.clone() };
        match self.users().add_account(new) {
            Err(_) => done(refusal(Cause::Exists)),
            Ok(user) => {
                let change = Change::Add { secret: text, locked, role, limits };
                let undo = Undo::Remove(user, epoch);
                let password = password.as_deref();
                self.stored((name, origin), change, password, undo, Response::Done)
            }
        }
    }
}

fn done(outcome: impl Into<CommandOutcome>) -> Execution {
    Execution::Done(outcome.into())
}

/// A password of these bits.
fn letters(random: &[u8]) -> String {
    let mut text = String::with_capacity(random.len() * 8 / 5);
    for five in random.chunks(5) {
        let bits = five.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        for place in (0..five.len() * 8 / 5).rev() {
            let letter = LETTERS.get((bits >> (5 * place) & 31) as usize);
            text.push(letter.copied().map_or('a', char::from));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_password_has_all_its_bits() {
        assert_eq!(letters(&[0; 20]), "a".repeat(32));
        assert_eq!(letters(&[0xff; 20]), "9".repeat(32));
        let counted: Vec<u8> = vec![0x00, 0x44, 0x32, 0x14, 0xc7];
        assert_eq!(letters(&counted), "abcdefgh");
        let mut seen = LETTERS.to_vec();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 32);
    }
}
