//! Changes of a users file: the lines of the accounts that change are written anew, all others stay byte for byte.

use std::collections::HashMap;

use super::line::{Parts, account_line, lines};
use super::{Limits, Role};
use crate::proto::limits::LimitKey;

/// A change of one account.
#[derive(Clone, PartialEq, Eq)]
pub struct Edit {
    /// The account. That of `*` is [`ALL_ACCOUNTS`], which is no name.
    pub name: Box<[u8]>,
    /// What becomes of it.
    pub change: Change,
}

/// In place of a name: the line of `*`.
pub const ALL_ACCOUNTS: &[u8] = b"";

/// What becomes of an account. Secrets are texts as the file has them.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Add {
        /// The secret.
        secret: Box<str>,
        /// Whether it is locked.
        locked: bool,
        /// The role.
        role: Role,
        /// Its own limits.
        limits: Option<Box<Limits>>,
    },
    /// Its line goes.
    Delete,
    /// It has this role.
    Role(Role),
    /// It has this secret. A locked account stays locked.
    Secret(Box<str>),
    /// It is locked, or not.
    Lock(bool),
    /// These limits of it are said, as they are written; or no more, where the text is empty.
    Limits(Vec<(LimitKey, Box<str>)>),
}

impl std::fmt::Debug for Edit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let change = match &self.change {
            Change::Add { .. } => "add",
            Change::Delete => "delete",
            Change::Role(_) => "role",
            Change::Secret(_) => "secret",
            Change::Lock(_) => "lock",
            Change::Limits(_) => "limits",
        };
        write!(f, "Edit({change} {})", metp_protocol::text::Escaped(&self.name))
    }
}

/// An edit does not fit the file: it adds an account that is there, or changes one that is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfit;

/// Carries out the edits, in their order. Accounts that are new get lines at the end.
///
/// # Errors
/// [`Misfit`].
pub fn rewrite(content: &[u8], edits: &[Edit]) -> Result<Vec<u8>, Misfit> {
    let mut of_name: HashMap<&[u8], Vec<&Edit>> = HashMap::new();
    for edit in edits {
        of_name.entry(&edit.name).or_default().push(edit);
    }
    let mut text = Vec::with_capacity(content.len() + 256 * edits.len());
    for line in lines(content) {
        let edits = Parts::of(line).and_then(|parts| {
            let name = parts.name().unwrap_or_else(|| ALL_ACCOUNTS.into());
            Some((of_name.remove(&*name)?, parts))
        });
        match edits {
            None => text.extend_from_slice(line),
            Some((edits, parts)) => {
                let mark = parts.mark;
                let end = parts.end;
                text.extend_from_slice(mark);
                let changed = change(Some(Written::of(&parts)), &edits)?;
                if let Some(changed) = changed {
                    text.extend_from_slice(&changed.text());
                    text.extend_from_slice(end);
                }
            }
        }
    }
    // In the order in which they were added.
    for edit in edits {
        let Some(edits) = of_name.remove(&*edit.name) else { continue };
        if let Some(added) = change(None, &edits)? {
            if text.last().is_some_and(|byte| *byte != b'\n') {
                text.push(b'\n');
            }
            text.extend_from_slice(&added.text());
            text.push(b'\n');
        }
    }
    Ok(text)
}

/// A line that changes.
struct Written {
    name: Vec<u8>,
    locked: bool,
    secret: Vec<u8>,
    keys: Option<Vec<u8>>,
}

impl Written {
    fn of(parts: &Parts<'_>) -> Self {
        Written {
            name: parts.name.to_vec(),
            locked: parts.locked,
            secret: parts.secret.to_vec(),
            keys: parts.keys.map(<[u8]>::to_vec),
        }
    }

    fn text(&self) -> Vec<u8> {
        let mut text = self.name.clone();
        text.push(b':');
        if self.locked {
            text.push(b'!');
        }
        text.extend_from_slice(&self.secret);
        if let Some(keys) = &self.keys {
            text.push(b':');
            text.extend_from_slice(keys);
        }
        text
    }

    /// The line of `*` that says nothing.
    fn of_all() -> Self {
        Written { name: b"*".to_vec(), locked: false, secret: Vec::new(), keys: Some(Vec::new()) }
    }

    /// Writes a value in place of the one that is written, or behind all keys. `None`: none is written any more.
    fn set(&mut self, key: &str, value: Option<&str>) {
        let keys = self.keys.take().unwrap_or_default();
        let mut words: Vec<&[u8]> = keys.split(|byte| matches!(byte, b' ' | b'\t')).collect();
        words.retain(|word| !word.is_empty());
        let key = format!("{key}=");
        let place = words.iter().position(|word| word.starts_with(key.as_bytes()));
        let text = value.map(|value| format!("{key}{value}"));
        match (place.and_then(|place| words.get_mut(place)), &text) {
            (Some(word), Some(text)) => *word = text.as_bytes(),
            (None, Some(text)) => words.push(text.as_bytes()),
            (Some(_), None) => words.retain(|word| !word.starts_with(key.as_bytes())),
            (None, None) => {}
        }
        // That of all accounts is no line without its colons.
        let some = !words.is_empty() || self.name == b"*";
        self.keys = some.then(|| words.join(&b' '));
    }
}

/// A line after the edits. `None`: there is none.
fn change(mut line: Option<Written>, edits: &[&Edit]) -> Result<Option<Written>, Misfit> {
    for Edit { name, change } in edits {
        let is_all = **name == *ALL_ACCOUNTS;
        line = match (change, line.or_else(|| is_all.then(Written::of_all))) {
            (Change::Add { secret, locked, role, limits }, None) => {
                let text = account_line(name, secret, *locked, *role, limits.as_deref());
                Parts::of(text.as_bytes()).map(|parts| Written::of(&parts))
            }
            (Change::Add { .. }, Some(_)) | (_, None) => return Err(Misfit),
            (Change::Delete, Some(_)) => None,
            (Change::Role(role), Some(mut line)) => {
                let word = match role {
                    Role::User => "user",
                    Role::Admin => "admin",
                };
                line.set("role", Some(word));
                Some(line)
            }
            (Change::Limits(limits), Some(mut line)) => {
                for (key, value) in limits {
                    line.set(key.word(), (!value.is_empty()).then_some(value));
                }
                Some(line)
            }
            (Change::Secret(secret), Some(line)) => {
                Some(Written { secret: secret.as_bytes().to_vec(), ..line })
            }
            (Change::Lock(locked), Some(line)) => Some(Written { locked: *locked, ..line }),
        };
    }
    Ok(line)
}
