//! Changes of a users file: the lines of the accounts that change are written anew, all others stay byte for byte.

use std::collections::HashMap;
use std::fmt;

use super::line::{BYTE_ORDER_MARK, LONGEST_LINE, Parts, account_line, lines};
use super::{Limits, MOST_BYTES, Role};
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

impl fmt::Debug for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

/// Why a file cannot be changed. Displays as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadEdit {
    /// An edit adds an account that is there, or changes one that is not.
    Misfit,
    /// The line of this account would be longer than [`LONGEST_LINE`].
    LongLine(Box<[u8]>),
    /// The file would be longer than this, in bytes.
    LongFile(u64),
}

impl fmt::Display for BadEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadEdit::Misfit => f.write_str("it has other accounts"),
            BadEdit::LongLine(name) => {
                let shown: &[u8] = if **name == *ALL_ACCOUNTS { b"*" } else { name };
                let shown = metp_protocol::text::Escaped(shown);
                write!(f, "the line of {shown} would have more than {LONGEST_LINE} bytes")
            }
            BadEdit::LongFile(most) => write!(f, "it would have more than {most} bytes"),
        }
    }
}

/// Carries out the edits, in their order. Accounts that are new get lines at the end.
///
/// # Errors
/// [`BadEdit`]. What is returned can be read again.
pub fn rewrite(content: &[u8], edits: &[Edit]) -> Result<Vec<u8>, BadEdit> {
    rewrite_within(MOST_BYTES, content, edits)
}

/// As [`rewrite`], with this bound of the file.
pub(super) fn rewrite_within(
    most: u64,
    content: &[u8],
    edits: &[Edit],
) -> Result<Vec<u8>, BadEdit> {
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
        // The byte order mark of a line that was deleted stands before the next one, which may have its own.
        let is_marked = text == BYTE_ORDER_MARK;
        let Some((edits, parts)) = edits else {
            let rest = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| is_marked);
            text.extend_from_slice(rest.unwrap_or(line));
            continue;
        };
        let changed = change(Some(Written::of(&parts)), &edits)?;
        if text.is_empty() || (changed.is_some() && !is_marked) {
            text.extend_from_slice(parts.mark);
        }
        if let Some(changed) = changed {
            text.extend_from_slice(&changed.text(&edits)?);
            text.extend_from_slice(parts.end);
        }
    }
    // The line end is that of the file.
    let first = lines(content).next().unwrap_or_default();
    let end: &[u8] = if first.ends_with(b"\r\n") { b"\r\n" } else { b"\n" };
    // In the order in which they were added.
    for edit in edits {
        let Some(edits) = of_name.remove(&*edit.name) else { continue };
        if let Some(added) = change(None, &edits)? {
            match &text[..] {
                [] | [.., b'\n'] | BYTE_ORDER_MARK => {}
                [.., b'\r'] => text.push(b'\n'),
                _ => text.extend_from_slice(end),
            }
            text.extend_from_slice(&added.text(&edits)?);
            text.extend_from_slice(end);
        }
    }
    if text.len() as u64 > most { Err(BadEdit::LongFile(most)) } else { Ok(text) }
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

    /// The line, without its end, after these edits.
    fn text(&self, edits: &[&Edit]) -> Result<Vec<u8>, BadEdit> {
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
        let name = edits.first().map_or(ALL_ACCOUNTS, |edit| &edit.name);
        if text.len() > LONGEST_LINE { Err(BadEdit::LongLine(name.into())) } else { Ok(text) }
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
fn change(mut line: Option<Written>, edits: &[&Edit]) -> Result<Option<Written>, BadEdit> {
    for Edit { name, change } in edits {
        let is_all = **name == *ALL_ACCOUNTS;
        line = match (change, line.or_else(|| is_all.then(Written::of_all))) {
            (Change::Add { secret, locked, role, limits }, None) => {
                let text = account_line(name, secret, *locked, *role, limits.as_deref());
                Parts::of(text.as_bytes()).map(|parts| Written::of(&parts))
            }
            (Change::Add { .. }, Some(_)) | (_, None) => return Err(BadEdit::Misfit),
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
