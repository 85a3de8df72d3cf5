//! One rule: its text, and what it matches.

use std::fmt;
use std::net::IpAddr;

use metp_protocol::network::Network;
use metp_protocol::text::{Escaped, unescape};

use super::{Fault, LONGEST_LINE, without_end};

/// The longest name of an account, and of a host (RFC 1035 §2.3.4), in bytes.
const LONGEST_USER: usize = 255;
const LONGEST_NAME: usize = 253;
/// The longest label of a name of a host (RFC 1035 §2.3.4), in bytes.
const LONGEST_LABEL: usize = 63;
/// What of a word is shown in an error, in bytes.
const SHOWN: usize = 40;

/// A rule. Displays as it is written, its clauses in their usual order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Whether what matches is allowed.
    pub allow: bool,
    /// Accounts; empty: any, as in all that follows.
    pub users: Vec<UserPattern>,
    /// Networks of clients.
    pub sources: Vec<Network>,
    /// What is asked for.
    pub destinations: Vec<Destination>,
    /// Ports, from and to.
    pub ports: Vec<(u16, u16)>,
    /// Kinds of requests. `None`: any.
    pub commands: Option<Commands>,
}

/// Which accounts a rule is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UserPattern {
    /// This one.
    Exact(Box<[u8]>),
    /// Those whose names begin so.
    Prefix(Box<[u8]>),
}

/// What a rule is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// Addresses.
    Network(Network),
    /// The host of this name, in lower case and without a dot at its end.
    Name(Box<str>),
    /// The host of this name, and all below it.
    Suffix(Box<str>),
}

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Commands(u8);

impl Commands {
    /// A connection to the destination.
    pub const CONNECT: Commands = Commands(1);
    /// A connection from the destination.
    pub const BIND: Commands = Commands(2);
    /// Datagrams to the destination.
    pub const UDP: Commands = Commands(4);
    /// The address of a name, or the name of an address (Tor's extensions).
    pub const RESOLVE: Commands = Commands(8);

    const WORDS: [(&'static str, Commands); 4] = [
        ("connect", Commands::CONNECT),
        ("bind", Commands::BIND),
        ("udp", Commands::UDP),
        ("resolve", Commands::RESOLVE),
    ];

    /// The one of this word.
    pub fn find(word: &[u8]) -> Option<Self> {
        Self::WORDS.iter().find(|(text, _)| text.as_bytes() == word).map(|(_, one)| *one)
    }

    /// Whether those of `other` are among these.
    pub fn has(self, other: Commands) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let these = Self::WORDS.iter().filter(|(_, one)| self.has(*one));
        list(f, these.map(|(word, _)| word))
    }
}

impl UserPattern {
    /// Whether it is for the account of this name.
    pub fn matches(&self, name: &[u8]) -> bool {
        match self {
            UserPattern::Exact(exact) => **exact == *name,
            UserPattern::Prefix(prefix) => name.starts_with(prefix),
        }
    }

    fn parse(text: &[u8]) -> Result<Self, Fault> {
        let (name, is_prefix) = match text.strip_suffix(b"*") {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        // A star that belongs to a name is written \x2a.
        let name: Box<[u8]> =
            if name.contains(&b'*') { Box::default() } else { unescape(name).into() };
        match (name.len(), is_prefix) {
            (0, true) if text == b"*" => Ok(UserPattern::Prefix(name)),
            (1..=LONGEST_USER, true) => Ok(UserPattern::Prefix(name)),
            (1..=LONGEST_USER, false) => Ok(UserPattern::Exact(name)),
            _ => Err(Fault::User(shown(text))),
        }
    }
}

impl fmt::Display for UserPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, end) = match self {
            UserPattern::Exact(name) => (name, ""),
            UserPattern::Prefix(name) => (name, "*"),
        };
        // What separates entries, ends a rule or makes a prefix is none of it.
        let name = Escaped(name).to_string();
        let name = name.replace('*', "\\x2a").replace(',', "\\x2c").replace('#', "\\x23");
        write!(f, "{name}{end}")
    }
}

impl Destination {
    /// Whether it is for what a client asks for by this name, in lower case and without a dot at its end.
    pub fn matches_name(&self, asked: &str) -> bool {
        match self {
            Destination::Network(_) => false,
            Destination::Name(name) => **name == *asked,
            Destination::Suffix(suffix) => asked
                .strip_suffix(&**suffix)
                .is_some_and(|below| below.is_empty() || below.ends_with('.')),
        }
    }

    /// Whether it is for this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match self {
            Destination::Network(network) => network.contains(address),
            Destination::Name(_) | Destination::Suffix(_) => false,
        }
    }

    fn parse(text: &[u8]) -> Result<Self, Fault> {
        let unknown = || Fault::Destination(shown(text));
        let word = std::str::from_utf8(text).map_err(|_| unknown())?;
        let of_digits = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        let absolute = word.strip_suffix('.').unwrap_or(word);
        let last = absolute.rsplit('.').next().unwrap_or_default();
        // A name has no slash and no colon, and its last part is no number (RFC 3696 §2).
        if word.contains(['/', ':']) || of_digits(last) {
            let network = Network::parse(word);
            return network
                .map(Destination::Network)
                .map_err(|expected| Fault::Network(shown(text), expected));
        }
        let lower = absolute.to_ascii_lowercase();
        let (name, is_suffix) = match lower.strip_prefix('.') {
            Some(name) => (name, true),
            None => (lower.as_str(), false),
        };
        let is_label = |label: &str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            (1..=LONGEST_LABEL).contains(&label.len()) && label.bytes().all(known)
        };
        match name.len() <= LONGEST_NAME && name.split('.').all(is_label) {
            true if is_suffix => Ok(Destination::Suffix(name.into())),
            true => Ok(Destination::Name(name.into())),
            false => Err(unknown()),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Network(network) => network.fmt(f),
            Destination::Name(name) => f.write_str(name),
            Destination::Suffix(suffix) => write!(f, ".{suffix}"),
        }
    }
}

impl Rule {
    /// Reads a line, with or without its end. `None`: it is blank, or a comment.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Option<Self>, Fault> {
        let text = without_end(line);
        if text.len() > LONGEST_LINE {
            return Err(Fault::TooLong);
        }
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let words = text.split(is_blank).filter(|word| !word.is_empty());
        let mut words = words.take_while(|word| !word.starts_with(b"#"));
        let Some(verdict) = words.next() else { return Ok(None) };
        let words: Vec<&[u8]> = words.collect();
        let mut all = words.iter().chain([&verdict]).flat_map(|word| word.iter());
        if let Some(control) = all.find(|byte| byte.is_ascii_control()) {
            return Err(Fault::Control(*control));
        }
        let allow = match verdict {
            b"allow" => true,
            b"deny" => false,
            other => return Err(Fault::Verdict(shown(other))),
        };
        let mut rule = Rule { allow, ..Rule::unconditional() };
        for clause in words.chunks(2) {
            rule.add(clause.first().copied().unwrap_or_default(), clause.get(1).copied())?;
        }
        Ok(Some(rule))
    }

    fn unconditional() -> Self {
        let (users, sources, destinations, ports) = Default::default();
        Rule { allow: false, users, sources, destinations, ports, commands: None }
    }

    /// Whether it matches everything.
    pub fn is_unconditional(&self) -> bool {
        *self == Rule { allow: self.allow, ..Rule::unconditional() }
    }

    fn add(&mut self, clause: &[u8], value: Option<&[u8]>) -> Result<(), Fault> {
        match clause {
            b"user" => fill(&mut self.users, "user", value, UserPattern::parse),
            b"from" => fill(&mut self.sources, "from", value, |word| {
                let text = std::str::from_utf8(word).unwrap_or_default();
                Network::parse(text).map_err(|expected| Fault::Network(shown(word), expected))
            }),
            b"to" => fill(&mut self.destinations, "to", value, Destination::parse),
            b"port" => fill(&mut self.ports, "port", value, ports),
            b"command" => {
                let mut some = self.commands.map(|known| vec![known]).unwrap_or_default();
                fill(&mut some, "command", value, |word| {
                    Commands::find(word).ok_or_else(|| Fault::Command(shown(word)))
                })?;
                let all = some.iter().fold(0, |all, one| all | one.0);
                self.commands = Some(Commands(all));
                Ok(())
            }
            other => Err(Fault::Clause(shown(other))),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allow { "allow" } else { "deny" })?;
        clause(f, "user", &self.users)?;
        clause(f, "from", &self.sources)?;
        clause(f, "to", &self.destinations)?;
        let ports = self.ports.iter().map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        clause(f, "port", &ports.collect::<Vec<_>>())?;
        self.commands.map_or(Ok(()), |commands| write!(f, " command {commands}"))
    }
}

fn clause(f: &mut fmt::Formatter<'_>, word: &str, entries: &[impl fmt::Display]) -> fmt::Result {
    if entries.is_empty() {
        return Ok(());
    }
    write!(f, " {word} ")?;
    list(f, entries.iter())
}

fn list(
    f: &mut fmt::Formatter<'_>,
    entries: impl Iterator<Item = impl fmt::Display>,
) -> fmt::Result {
    for (place, entry) in entries.enumerate() {
        write!(f, "{}{entry}", if place == 0 { "" } else { "," })?;
    }
    Ok(())
}

/// Reads the list of a clause, which is empty before.
fn fill<T>(
    entries: &mut Vec<T>,
    clause: &'static str,
    value: Option<&[u8]>,
    parse: impl Fn(&[u8]) -> Result<T, Fault>,
) -> Result<(), Fault> {
    if !entries.is_empty() {
        return Err(Fault::Twice(clause));
    }
    for word in value.ok_or(Fault::NoValue(clause))?.split(|byte| *byte == b',') {
        if word.is_empty() {
            return Err(Fault::EmptyEntry(clause));
        }
        entries.push(parse(word)?);
    }
    Ok(())
}

/// Reads a port, or a range of ports.
fn ports(word: &[u8]) -> Result<(u16, u16), Fault> {
    let port = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| is_number)
    };
    let range = std::str::from_utf8(word).ok().and_then(|text| match text.split_once('-') {
        Some((first, last)) => Some((port(first)?, port(last)?)),
        None => port(text).map(|port| (port, port)),
    });
    let range = range.filter(|(first, last)| first <= last);
    range.ok_or_else(|| Fault::Port(shown(word)))
}

/// A word as it is shown in an error.
fn shown(word: &[u8]) -> String {
    metp_protocol::text::shortened(Escaped(word).to_string(), SHOWN)
}
