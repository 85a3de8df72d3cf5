//! A line of the users file: from text to meaning, and the parts of which it is made.

use metp_protocol::acceptable_name;
use metp_protocol::text::{Escaped, unescape};

use super::{BadLimit, Fault, FileAccount, Limits, Role, Secret};
use crate::proto::limits::LimitKey;

/// The longest line, in bytes, without its end and a byte order mark before it.
pub const LONGEST_LINE: usize = 4096;
/// What some editors put in front of a file of UTF-8.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// The name of the line whose keys are those of all accounts.
const ALL: &[u8] = b"*";

/// What a line means.
pub(super) enum Line {
    /// Nothing: it is blank, or a comment.
    Blank,
    /// That of all accounts, with what it says of limits.
    Defaults(Option<Box<Limits>>),
    /// An account.
    Account(FileAccount),
}

/// The parts of a line that are not blank: `NAME:[!]SECRET[:KEYS]`.
pub(super) struct Parts<'a> {
    /// What is in front of the name: a byte order mark, or nothing.
    pub(super) mark: &'a [u8],
    /// As it is written.
    pub(super) name: &'a [u8],
    pub(super) locked: bool,
    /// As it is written, without the `!`.
    pub(super) secret: &'a [u8],
    /// What follows the second colon; `None` if there is none.
    pub(super) keys: Option<&'a [u8]>,
    /// CR and LF, LF, or nothing at the end of a file.
    pub(super) end: &'a [u8],
}

/// The lines of a file, each with its end.
pub(super) fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content.split_inclusive(|byte| *byte == b'\n')
}

/// A line without its end, and the end.
fn without_end(line: &[u8]) -> (&[u8], &[u8]) {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    // At the end of a file a line may have no LF; a CR that is left of its end is none of a name or a secret.
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    line.split_at_checked(text.len()).unwrap_or((line, b""))
}

impl<'a> Parts<'a> {
    /// Cuts a line into its parts. `None`: it is blank, a comment, or has no colon.
    pub(super) fn of(line: &'a [u8]) -> Option<Self> {
        let (text, end) = without_end(line);
        let rest = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let (mark, text) = text.split_at_checked(text.len() - rest.len())?;
        if matches!(text.trim_ascii_start().first(), None | Some(b'#')) {
            return None;
        }
        let mut parts = text.splitn(3, |byte| *byte == b':');
        let (name, secret, keys) = (parts.next()?, parts.next()?, parts.next());
        let unlocked = secret.strip_prefix(b"!");
        let (locked, secret) = (unlocked.is_some(), unlocked.unwrap_or(secret));
        Some(Parts { mark, name, locked, secret, keys, end })
    }

    /// The keys with their values, as they are written.
    pub(super) fn words(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let words = self.keys.unwrap_or_default().split(|byte| matches!(byte, b' ' | b'\t'));
        words.filter(|word| !word.is_empty())
    }

    /// The name; that of all accounts is `None`.
    pub(super) fn name(&self) -> Option<Box<[u8]>> {
        (self.name != ALL).then(|| unescape(self.name).into())
    }
}

impl Line {
    /// Reads a line, with or without its end.
    pub(super) fn parse(line: &[u8]) -> Result<Line, Fault> {
        let (text, _) = without_end(line);
        if text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text).len() > LONGEST_LINE {
            return Err(Fault::TooLong);
        }
        let Some(parts) = Parts::of(line) else {
            let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text).trim_ascii_start();
            return if matches!(text.first(), None | Some(b'#')) {
                Ok(Line::Blank)
            } else {
                Err(Fault::NoColon)
            };
        };
        if let Some(control) = text.iter().find(|byte| byte.is_ascii_control() && **byte != b'\t') {
            return Err(Fault::Control(*control));
        }
        let (role, limits) = keys_of(&parts)?;
        let Some(name) = parts.name() else {
            return match (parts.secret.is_empty() && !parts.locked, role) {
                (false, _) => Err(Fault::SecretOfAll),
                (true, Some(Role::Admin)) => Err(Fault::AdminsAll),
                (true, _) => Ok(Line::Defaults(limits)),
            };
        };
        let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if !acceptable_name(&name) || blank(parts.name.first()) || blank(parts.name.last()) {
            return Err(Fault::Name);
        }
        let secret = Secret::parse(parts.secret).map_err(Fault::Secret)?;
        let role = role.unwrap_or(Role::User);
        Ok(Line::Account(FileAccount { name, secret, locked: parts.locked, role, limits }))
    }
}

/// The role and the limits that a line gives.
fn keys_of(parts: &Parts<'_>) -> Result<(Option<Role>, Option<Box<Limits>>), Fault> {
    let mut role = None;
    let mut limits: Option<Box<Limits>> = None;
    for word in parts.words() {
        let (key, value) = match word.iter().position(|byte| *byte == b'=') {
            Some(at) => (word.get(..at).unwrap_or_default(), word.get(at + 1..)),
            None => (word, None),
        };
        match (key, value) {
            (b"role", Some(value)) => {
                let news = match value {
                    b"user" => Role::User,
                    b"admin" => Role::Admin,
                    _ => return Err(Fault::Role),
                };
                if role.replace(news).is_some() {
                    return Err(Fault::KeyTwice("role"));
                }
            }
            (b"role", None) => return Err(Fault::Role),
            (key, value) => {
                let Some(limit) = LimitKey::find(key) else {
                    return Err(Fault::UnknownKey(shown(key)));
                };
                let limits = limits.get_or_insert_default();
                if limits.has(limit) {
                    return Err(Fault::KeyTwice(limit.word()));
                }
                // An empty value says nothing, which nobody can have meant.
                let value = value.filter(|value| !value.is_empty());
                let bad = Fault::Limit(BadLimit(limit));
                limits.set(limit, value.ok_or(bad)?).map_err(Fault::Limit)?;
            }
        }
    }
    Ok((role, limits))
}

/// A key that is not known, as it is shown. It may be a part of a secret with a colon in it, so only what looks like a
/// key is shown, and not much of it.
fn shown(key: &[u8]) -> String {
    let is_key =
        key.len() <= 16 && key.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'-');
    if is_key { String::from_utf8_lossy(key).into_owned() } else { "...".to_owned() }
}

/// A name as a line has it: `\xHH` for each byte that METP escapes, for a colon, and for what would make the line a
/// comment or that of all accounts.
pub(super) fn written_name(name: &[u8]) -> String {
    let mut text = Escaped(name).to_string().replace(':', "\\x3a");
    for (first, escape) in [("#", "\\x23"), ("*", "\\x2a")] {
        if let Some(rest) = text.strip_prefix(first) {
            text = format!("{escape}{rest}");
            break;
        }
    }
    text
}

/// The line of an account, without its end.
pub fn account_line(
    name: &[u8],
    secret: &str,
    locked: bool,
    role: Role,
    limits: Option<&Limits>,
) -> String {
    let lock = if locked { "!" } else { "" };
    let mut line = format!("{}:{lock}{secret}", written_name(name));
    let role = (role == Role::Admin).then(|| "role=admin".to_owned());
    let limit = |key: LimitKey| Some(format!("{}={}", key.word(), limits?.written(key)?));
    let words = role.into_iter().chain(LimitKey::ALL.into_iter().filter_map(limit));
    for (place, word) in words.enumerate() {
        line.push(if place == 0 { ':' } else { ' ' });
        line.push_str(&word);
    }
    line
}
