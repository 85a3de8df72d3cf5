//! The arguments of `LIMITS` and `SET-LIMIT` (§5.26).

use std::fmt;

use crate::text::{Escaped, unescape};

/// The word for all accounts that do not say otherwise.
const ALL: &[u8] = b"*";

/// Whose limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Those of all accounts that do not say otherwise: `*`.
    All,
    /// Those of the account of this name. One that is called `*` is written `\x2a`.
    Account(Vec<u8>),
}

impl Subject {
    /// Reads the word of a command.
    pub fn parse(word: &[u8]) -> Self {
        match word {
            ALL => Subject::All,
            name => Subject::Account(unescape(name).into_owned()),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::All => f.write_str("*"),
            Subject::Account(name) if name == ALL => f.write_str("\\x2a"),
            Subject::Account(name) => Escaped(name).fmt(f),
        }
    }
}

/// `KEY=VALUE`, or `KEY=`, which removes a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitWord {
    /// The key.
    pub key: Vec<u8>,
    /// The value; empty: none.
    pub value: Vec<u8>,
}

impl LimitWord {
    /// Reads a pair. `None` if it is none.
    pub fn parse(word: &[u8]) -> Option<Self> {
        let at = word.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (word.get(..at)?, word.get(at + 1..)?);
        let text = |part: &[u8]| unescape(part).into_owned();
        Some(LimitWord { key: text(key), value: text(value) })
    }
}

impl fmt::Display for LimitWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", Escaped(&self.key), Escaped(&self.value))
    }
}

/// One pair at least. `None`: there is none, or a word is none.
pub(super) fn limit_words(words: &[&[u8]]) -> Option<Vec<LimitWord>> {
    let pairs: Vec<LimitWord> =
        words.iter().map(|word| LimitWord::parse(word)).collect::<Option<_>>()?;
    (!pairs.is_empty()).then_some(pairs)
}
