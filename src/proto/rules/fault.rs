//! What is wrong with a file of rules.

use std::fmt;

use metp_protocol::network::NetworkError;

use super::{LONGEST_LINE, MOST_RULES};

/// What is wrong with a line, and where. Displays as `line 7: ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// Counted from 1.
    pub line: u32,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a line. Displays as a sentence. Words of the file are in it as `\xHH` where they are not printable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is longer than [`LONGEST_LINE`].
    TooLong,
    /// The file has more than [`MOST_RULES`].
    TooMany,
    /// It holds this control character.
    Control(u8),
    /// It does not begin with `allow` or `deny`.
    Verdict(String),
    /// There is no such clause.
    Clause(String),
    /// The clause is given twice.
    Twice(&'static str),
    /// The clause has no value.
    NoValue(&'static str),
    /// An entry of a list is empty.
    EmptyEntry(&'static str),
    /// No account can have this name.
    User(String),
    /// The text is no network.
    Network(String, NetworkError),
    /// The text is neither a network nor a name.
    Destination(String),
    /// The text is neither a port nor a range of ports.
    Port(String),
    /// There is no such command.
    Command(String),
    /// The last rule has conditions.
    LastIsConditional,
    /// There is no rule.
    Nothing,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::TooLong => write!(f, "more than {LONGEST_LINE} bytes"),
            Fault::TooMany => write!(f, "more than {MOST_RULES} rules"),
            Fault::Control(byte) => write!(f, "control character \\x{byte:02x}"),
            Fault::Verdict(word) => write!(f, "a rule begins with allow or deny, not \"{word}\""),
            Fault::Clause(word) => {
                write!(f, "unknown word \"{word}\": known are user, from, to, port, command")
            }
            Fault::Twice(clause) => write!(f, "{clause} is given twice"),
            Fault::NoValue(clause) => write!(f, "{clause} has no value"),
            Fault::EmptyEntry(clause) => {
                write!(f, "{clause} has an empty entry: a list is written a,b without blanks")
            }
            Fault::User(word) => write!(
                f,
                "\"{word}\" is no user: a name has up to 255 bytes, and a * at its end only"
            ),
            Fault::Network(word, expected) => write!(f, "\"{word}\" is not {expected}"),
            Fault::Destination(word) => write!(
                f,
                "\"{word}\" is neither a network, such as 10.0.0.0/8, nor a name, such as example.com or .example.com"
            ),
            Fault::Port(word) => {
                write!(f, "\"{word}\" is neither a port nor a range, such as 443 or 8000-8099")
            }
            Fault::Command(word) => {
                write!(f, "unknown command \"{word}\": known are connect, bind, udp, resolve")
            }
            Fault::LastIsConditional => {
                f.write_str("the last rule has to be a bare allow or deny, for all the rest")
            }
            Fault::Nothing => {
                f.write_str("there is no rule: the last has to be a bare allow or deny")
            }
        }
    }
}
