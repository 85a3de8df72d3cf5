//! The commands `RULES` and `RULE` (§5.27).

use std::fmt;
use std::net::IpAddr;

use super::Response;
use super::arguments::number;
use crate::quantity::is_digits;
use crate::text::{Escaped, ip_literal, split_endpoint, unescape};

/// What is to be done with rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleCommand {
    /// `RULES`
    List,
    /// `RULE INSERT <line> <rule>`
    Insert(u32, String),
    /// `RULE DELETE <line> <rule>`
    Delete(u32, String),
    /// `RULES TEST <user> <source> <destination> [<command>]`
    Test(RuleTest),
}

/// A request that is not made: which rule would decide? What its words mean is for the one who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleTest {
    /// The account's name.
    pub user: Vec<u8>,
    /// The client's address.
    pub source: String,
    /// The name or address that is asked for, and the port, which `resolve` needs not.
    pub destination: String,
    /// `connect`, `bind`, `udp` or `resolve`; `None`: the first.
    pub command: Option<String>,
}

/// What [`RuleTest`] holds, for messages.
pub const RULE_TEST_RULE: &str = "USER ADDRESS HOST:PORT [connect|bind|udp|resolve]";

impl RuleCommand {
    /// Reads the words behind `RULES`. `None`: they make no command.
    pub(super) fn of_rules(words: &[&[u8]]) -> Option<Self> {
        match words {
            [] => Some(RuleCommand::List),
            [b"TEST", words @ ..] => RuleTest::parse(words).map(RuleCommand::Test),
            _ => None,
        }
    }

    /// Reads the words behind `RULE`. `None`: they make no command.
    pub(super) fn of_rule(words: &[&[u8]]) -> Option<Result<Self, Response>> {
        let (make, line, rule): (fn(u32, String) -> Self, _, _) = match words {
            [b"INSERT", line, rule @ ..] => (RuleCommand::Insert, line, rule),
            [b"DELETE", line, rule @ ..] => (RuleCommand::Delete, line, rule),
            _ => return None,
        };
        let rule = rule.iter().map(|word| text(word)).collect::<Option<Vec<_>>>()?;
        if rule.is_empty() {
            return None;
        }
        let line = number(line, 8).and_then(|line| {
            u32::try_from(line).map_err(|_| Response::BadRequest(Some(super::Cause::Range)))
        });
        Some(line.map(|line| make(line, rule.join(" "))))
    }
}

impl RuleTest {
    /// Reads the words of a test: user, source, destination, and the command if it is given.
    ///
    /// ```
    /// use metp_protocol::RuleTest;
    ///
    /// let test = RuleTest::parse(&[b"alice", b"192.0.2.7", b"[::1]:443"]).expect("a test");
    /// assert_eq!(test.endpoint(), Some(("::1", 443)));
    /// assert_eq!(test.source(), Some([192, 0, 2, 7].into()));
    /// assert_eq!(RuleTest::parse(&[b"alice", b"192.0.2.7"]), None);
    /// let look_up = RuleTest::parse(&[b"alice", b"192.0.2.7", b"a.example", b"resolve"]);
    /// assert_eq!(look_up.expect("a test").endpoint(), Some(("a.example", 0)));
    /// ```
    pub fn parse(words: &[&[u8]]) -> Option<Self> {
        let (user, source, destination, command) = match words {
            [user, source, destination] => (user, source, destination, None),
            [user, source, destination, command] => (user, source, destination, Some(command)),
            _ => return None,
        };
        let command = match command {
            Some(word) => Some(text(word)?.to_owned()),
            None => None,
        };
        let (source, destination) = (text(source)?.to_owned(), text(destination)?.to_owned());
        Some(RuleTest { user: unescape(user).into(), source, destination, command })
    }

    /// The client's address, if it is one.
    pub fn source(&self) -> Option<IpAddr> {
        ip_literal(&self.source)
    }

    /// Host and port of the destination, if it has both. A look-up has no port: 0 stands for it.
    pub fn endpoint(&self) -> Option<(&str, u16)> {
        let (host, port) = split_endpoint(&self.destination)?;
        let port = port.or_else(|| (self.command.as_deref() == Some("resolve")).then_some("0"));
        let port = port.filter(|port| is_digits(port.as_bytes()))?.parse().ok()?;
        (!host.is_empty()).then_some((host, port))
    }
}

/// A word of printable ASCII.
fn text(word: &[u8]) -> Option<&str> {
    std::str::from_utf8(word).ok().filter(|word| word.bytes().all(|byte| byte.is_ascii_graphic()))
}

impl fmt::Display for RuleCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleCommand::List => f.write_str("RULES"),
            RuleCommand::Insert(line, rule) => write!(f, "RULE INSERT {line} {rule}"),
            RuleCommand::Delete(line, rule) => write!(f, "RULE DELETE {line} {rule}"),
            RuleCommand::Test(RuleTest { user, source, destination, command }) => {
                write!(f, "RULES TEST {} {source} {destination}", Escaped(user))?;
                command.as_ref().map_or(Ok(()), |command| write!(f, " {command}"))
            }
        }
    }
}

impl RuleCommand {
    /// Whether it changes rules.
    pub(super) fn is_change(&self) -> bool {
        matches!(self, RuleCommand::Insert(..) | RuleCommand::Delete(..))
    }
}
