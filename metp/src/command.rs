//! What clients say after their login: commands (§5), read and written.

use std::fmt;
use std::time::Duration;

use super::arguments::{
    acceptable_name, acceptable_password, bad, fits_in_a_line, name_and_password, number, seconds,
    with_password, words,
};
use super::limits::{LimitWord, Subject, limit_words};
use super::role::Role;
use super::rules::RuleCommand;
use super::verb::Verb;
use super::{BUFFER_SIZES, Cause, ConnectionId, INTERVALS, LONGEST_GRACE, Response, Topic, Topics};
use crate::network::Network;
use crate::text::{Escaped, Seconds, unescape};

/// A command of a session that has logged in (§5).
#[derive(Clone, PartialEq, Eq)]
pub enum Command {
    /// `GET_METRICS`
    GetMetrics,
    /// `GET_METRICS ALL`
    GetAllMetrics,
    /// `GET_LOGS [LAST <n>] [USER <user>]`
    GetLogs(LogSelection),
    /// `USERS`
    Users,
    /// `CHANGE-BUFFER <bytes>`
    ChangeBuffer(usize),
    /// `ADD-USER <user> <password>`
    AddUser {
        /// The new name.
        name: Vec<u8>,
        /// Its password.
        password: Vec<u8>,
    },
    /// `DELETE-USER <user>`
    DeleteUser(Vec<u8>),
    /// `SET-ROLE <user> <role>`
    SetRole(Vec<u8>, Role),
    /// `QUIT`
    Quit,
    /// `CAPA`
    Capabilities,
    /// `PING [<token>]`
    Ping(Option<Vec<u8>>),
    /// `INFO`
    Info,
    /// `USER-METRICS [<user>]`
    UserMetrics(Option<Vec<u8>>),
    /// `CHANGE-PASSWORD <user> <password>`
    ChangePassword {
        /// The account's name.
        name: Vec<u8>,
        /// The new password.
        password: Vec<u8>,
    },
    /// `CONNECTIONS [USER <user>]`
    Connections(Option<Vec<u8>>),
    /// `KILL <id>`
    Kill(ConnectionId),
    /// `KILL USER <user>`
    KillUser(Vec<u8>),
    /// `CONFIG GET [<key>]`
    ConfigGet(Option<Vec<u8>>),
    /// `CONFIG SET <key> <value>`
    ConfigSet {
        /// The setting's name.
        key: Vec<u8>,
        /// The new value.
        value: Vec<u8>,
    },
    /// `CONFIG SAVE <key>`
    ConfigSave(Vec<u8>),
    /// `TRUST`
    Trust,
    /// `TRUST ADD <network>`
    TrustAdd(Network),
    /// `TRUST DELETE <network>`
    TrustDelete(Network),
    /// `SUBSCRIBE <topic>... [EVERY <seconds>]`
    Subscribe(Topics, Duration),
    /// `UNSUBSCRIBE`
    Unsubscribe,
    /// `SHUTDOWN [GRACE <seconds>]`
    Shutdown(Option<Duration>),
    /// `LOCK-USER <user>`
    LockUser(Vec<u8>),
    /// `UNLOCK-USER <user>`
    UnlockUser(Vec<u8>),
    /// `GENERATE-PASSWORD <user>`
    GeneratePassword(Vec<u8>),
    /// `IMPORT <line>`: a line of a users file.
    Import(Vec<u8>),
    /// `RELOAD [CUT]`: whether tunnels that the rules deny now are ended.
    Reload(bool),
    /// `LIMITS [<user>]`
    Limits(Option<Subject>),
    /// `SET-LIMIT <user> <key>=<value>...`
    SetLimit(Subject, Vec<LimitWord>),
    /// `RESET-USAGE <user>`
    ResetUsage(Vec<u8>),
    /// `RULES`, `RULES TEST`, `RULE INSERT`, `RULE DELETE`
    Rules(RuleCommand),
}

/// Which records of the access log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSelection {
    /// The number of records, the newest; `None`: all.
    pub last: Option<u64>,
    /// The account's name; `None`: all accounts.
    pub user: Option<Vec<u8>>,
}

impl Command {
    /// Reads a line (without its LF) that an account of this role sent. The role is checked before the
    /// arguments, so that an account learns nothing about commands that its role forbids.
    ///
    /// ```
    /// use metp_protocol::{Command, Response, Role};
    ///
    /// let command = Command::parse(b"CHANGE-BUFFER 4096 ", Role::Admin);
    /// assert!(command == Ok(Command::ChangeBuffer(4096)));
    /// assert!(Command::parse(b"CHANGE-BUFFER x", Role::User) == Err(Response::Forbidden));
    /// ```
    ///
    /// # Errors
    /// The answer to give instead: 400 with its cause, or 403.
    pub fn parse(line: &[u8], role: Role) -> Result<Self, Response> {
        let (word, rest) = match line.iter().position(|byte| *byte == b' ') {
            Some(blank) => line.split_at(blank),
            None => (line, &[][..]),
        };
        let unknown = if word.is_empty() { Cause::NoVerb } else { Cause::Verb };
        let verb = Verb::parse(word).ok_or(bad(unknown))?;
        if !verb.permitted(role) {
            return Err(Response::Forbidden);
        }
        if verb.takes_password() {
            return with_new_password(verb, rest);
        }
        if verb == Verb::Import {
            return import(rest);
        }
        let words: Vec<&[u8]> = words(rest).collect();
        arguments(verb, &words).unwrap_or(Err(bad(Cause::Syntax)))
    }

    /// The line as a client sends it, LF included. `None` if the password cannot travel in a line.
    ///
    /// ```
    /// let command = metp_protocol::Command::DeleteUser(b"a b".to_vec());
    /// assert_eq!(command.encode().as_deref(), Some(&b"DELETE-USER a\\x20b\n"[..]));
    /// ```
    pub fn encode(&self) -> Option<Vec<u8>> {
        match self {
            Command::AddUser { name, password } => with_password("ADD-USER", name, password),
            Command::ChangePassword { name, password } => {
                with_password("CHANGE-PASSWORD", name, password)
            }
            Command::Import(line) => {
                fits_in_a_line(line).then(|| [b"IMPORT ", &line[..], b"\n"].concat())
            }
            _ => Some(format!("{self}\n").into_bytes()),
        }
    }

    /// Whether METP/1.0 has this command, with these arguments: a server of that version knows no other.
    pub fn is_of_1_0(&self) -> bool {
        match self {
            Command::GetMetrics
            | Command::Users
            | Command::ChangeBuffer(_)
            | Command::AddUser { .. }
            | Command::DeleteUser(_)
            | Command::SetRole(..)
            | Command::Quit => true,
            Command::GetLogs(selection) => *selection == LogSelection::default(),
            Command::GetAllMetrics
            | Command::Capabilities
            | Command::Ping(_)
            | Command::Info
            | Command::UserMetrics(_)
            | Command::ChangePassword { .. }
            | Command::Connections(_)
            | Command::Kill(_)
            | Command::KillUser(_)
            | Command::ConfigGet(_)
            | Command::ConfigSet { .. }
            | Command::ConfigSave(_)
            | Command::Trust
            | Command::TrustAdd(_)
            | Command::TrustDelete(_)
            | Command::Subscribe(..)
            | Command::Unsubscribe
            | Command::Shutdown(_)
            | Command::LockUser(_)
            | Command::UnlockUser(_)
            | Command::GeneratePassword(_)
            | Command::Import(_)
            | Command::Reload(_)
            | Command::Limits(_)
            | Command::SetLimit(..)
            | Command::ResetUsage(_)
            | Command::Rules(_) => false,
        }
    }

    /// Whether it changes the server for other sessions, and is logged for that (`audit:`).
    pub fn is_change(&self) -> bool {
        match self {
            Command::ChangeBuffer(_)
            | Command::AddUser { .. }
            | Command::DeleteUser(_)
            | Command::SetRole(..)
            | Command::ChangePassword { .. }
            | Command::Kill(_)
            | Command::KillUser(_)
            | Command::ConfigSet { .. }
            | Command::ConfigSave(_)
            | Command::TrustAdd(_)
            | Command::TrustDelete(_)
            | Command::Shutdown(_)
            | Command::LockUser(_)
            | Command::UnlockUser(_)
            | Command::GeneratePassword(_)
            | Command::Import(_)
            | Command::Reload(_)
            | Command::SetLimit(..)
            | Command::ResetUsage(_) => true,
            Command::Rules(command) => command.is_change(),
            Command::GetMetrics
            | Command::GetAllMetrics
            | Command::GetLogs(_)
            | Command::Users
            | Command::Quit
            | Command::Capabilities
            | Command::Ping(_)
            | Command::Info
            | Command::UserMetrics(_)
            | Command::Connections(_)
            | Command::ConfigGet(_)
            | Command::Trust
            | Command::Subscribe(..)
            | Command::Unsubscribe
            | Command::Limits(_) => false,
        }
    }

    /// Whether it changes accounts. Such commands may be answered later than they are carried out, in their order
    /// (§5.1).
    pub fn is_of_accounts(&self) -> bool {
        matches!(
            self,
            Command::AddUser { .. }
                | Command::DeleteUser(_)
                | Command::SetRole(..)
                | Command::ChangePassword { .. }
                | Command::LockUser(_)
                | Command::UnlockUser(_)
                | Command::GeneratePassword(_)
                | Command::Import(_)
                | Command::SetLimit(..)
        )
    }
}

/// The line without its LF, and without the password if it has one.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::GetMetrics => f.write_str("GET_METRICS"),
            Command::GetAllMetrics => f.write_str("GET_METRICS ALL"),
            Command::GetLogs(LogSelection { last, user }) => {
                f.write_str("GET_LOGS")?;
                last.map_or(Ok(()), |last| write!(f, " LAST {last}"))?;
                with_name(f, " USER", user.as_deref())
            }
            Command::Users => f.write_str("USERS"),
            Command::Quit => f.write_str("QUIT"),
            Command::ChangeBuffer(size) => write!(f, "CHANGE-BUFFER {size}"),
            Command::DeleteUser(name) => write!(f, "DELETE-USER {}", Escaped(name)),
            Command::SetRole(name, role) => write!(f, "SET-ROLE {} {role}", Escaped(name)),
            Command::AddUser { name, .. } => write!(f, "ADD-USER {}", Escaped(name)),
            Command::Capabilities => f.write_str("CAPA"),
            Command::Ping(token) => {
                with_name(f, "PING", Some(token.as_deref().unwrap_or_default()))
            }
            Command::Info => f.write_str("INFO"),
            Command::UserMetrics(None) => f.write_str("USER-METRICS"),
            Command::UserMetrics(name) => with_name(f, "USER-METRICS", name.as_deref()),
            Command::ChangePassword { name, .. } => write!(f, "CHANGE-PASSWORD {}", Escaped(name)),
            Command::Connections(user) => {
                f.write_str("CONNECTIONS")?;
                with_name(f, " USER", user.as_deref())
            }
            Command::Kill(id) => write!(f, "KILL {id}"),
            Command::KillUser(name) => write!(f, "KILL USER {}", Escaped(name)),
            Command::ConfigGet(key) => {
                f.write_str("CONFIG")?;
                with_name(f, " GET", Some(key.as_deref().unwrap_or_default()))
            }
            Command::ConfigSet { key, value } => {
                write!(f, "CONFIG SET {} {}", Escaped(key), Escaped(value))
            }
            Command::ConfigSave(key) => write!(f, "CONFIG SAVE {}", Escaped(key)),
            Command::Trust => f.write_str("TRUST"),
            Command::TrustAdd(network) => write!(f, "TRUST ADD {network}"),
            Command::TrustDelete(network) => write!(f, "TRUST DELETE {network}"),
            Command::Subscribe(topics, every) => {
                f.write_str("SUBSCRIBE")?;
                topics.iter().try_for_each(|topic| write!(f, " {topic}"))?;
                write!(f, " EVERY {}", every.as_secs())
            }
            Command::Unsubscribe => f.write_str("UNSUBSCRIBE"),
            Command::Shutdown(None) => f.write_str("SHUTDOWN"),
            Command::Shutdown(Some(grace)) => write!(f, "SHUTDOWN GRACE {}", Seconds(*grace)),
            Command::LockUser(name) => write!(f, "LOCK-USER {}", Escaped(name)),
            Command::UnlockUser(name) => write!(f, "UNLOCK-USER {}", Escaped(name)),
            Command::GeneratePassword(name) => {
                write!(f, "GENERATE-PASSWORD {}", Escaped(name))
            }
            // What follows the name is a secret.
            Command::Import(line) => {
                let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
                write!(f, "IMPORT {}", Escaped(&unescape(name)))
            }
            Command::Reload(false) => f.write_str("RELOAD"),
            Command::Reload(true) => f.write_str("RELOAD CUT"),
            Command::Limits(None) => f.write_str("LIMITS"),
            Command::Limits(Some(subject)) => write!(f, "LIMITS {subject}"),
            Command::SetLimit(subject, words) => {
                write!(f, "SET-LIMIT {subject}")?;
                words.iter().try_for_each(|word| write!(f, " {word}"))
            }
            Command::ResetUsage(name) => write!(f, "RESET-USAGE {}", Escaped(name)),
            Command::Rules(command) => command.fmt(f),
        }
    }
}

/// The word, and behind it the name, unless the name is empty.
fn with_name(f: &mut fmt::Formatter<'_>, word: &str, name: Option<&[u8]>) -> fmt::Result {
    match name {
        None => Ok(()),
        Some([]) => f.write_str(word),
        Some(name) => write!(f, "{word} {}", Escaped(name)),
    }
}

/// The command that these words make. `None`: they are no command.
fn arguments(verb: Verb, words: &[&[u8]]) -> Option<Result<Command, Response>> {
    let name = |name: &[u8]| unescape(name).into_owned();
    let command = match (verb, words) {
        (Verb::GetMetrics, []) => Command::GetMetrics,
        (Verb::GetMetrics, [b"ALL"]) => Command::GetAllMetrics,
        (Verb::GetLogs, words) => return Some(log_selection(words).map(Command::GetLogs)),
        (Verb::Users, []) => Command::Users,
        (Verb::Quit, []) => Command::Quit,
        (Verb::ChangeBuffer, [size]) => return Some(buffer_size(size)),
        (Verb::DeleteUser, [user]) => Command::DeleteUser(name(user)),
        (Verb::SetRole, [user, role]) => match Role::parse(role) {
            Some(role) => Command::SetRole(name(user), role),
            None => return Some(Err(bad(Cause::BadRole))),
        },
        (Verb::Capabilities, []) => Command::Capabilities,
        (Verb::Ping, []) => Command::Ping(None),
        (Verb::Ping, [token]) => Command::Ping(Some(name(token))),
        (Verb::Info, []) => Command::Info,
        (Verb::UserMetrics, []) => Command::UserMetrics(None),
        (Verb::UserMetrics, [user]) => Command::UserMetrics(Some(name(user))),
        (Verb::Connections, []) => Command::Connections(None),
        (Verb::Connections, [b"USER", user]) => Command::Connections(Some(name(user))),
        (Verb::Kill, [b"USER", user]) => Command::KillUser(name(user)),
        (Verb::Kill, [id]) => return Some(ConnectionId::parse(id).map(Command::Kill)),
        (Verb::Config, [b"GET"]) => Command::ConfigGet(None),
        (Verb::Config, [b"GET", key]) => Command::ConfigGet(Some(name(key))),
        (Verb::Config, [b"SET", key, value]) => {
            Command::ConfigSet { key: name(key), value: name(value) }
        }
        (Verb::Config, [b"SAVE", key]) => Command::ConfigSave(name(key)),
        (Verb::Trust, []) => Command::Trust,
        (Verb::Trust, [b"ADD", word]) => return Some(network(word).map(Command::TrustAdd)),
        (Verb::Trust, [b"DELETE", word]) => return Some(network(word).map(Command::TrustDelete)),
        (Verb::Subscribe, words) => return Some(subscription(words)),
        (Verb::Unsubscribe, []) => Command::Unsubscribe,
        (Verb::LockUser, [user]) => Command::LockUser(name(user)),
        (Verb::UnlockUser, [user]) => Command::UnlockUser(name(user)),
        (Verb::GeneratePassword, [user]) => Command::GeneratePassword(name(user)),
        (Verb::Reload, []) => Command::Reload(false),
        (Verb::Reload, [b"CUT"]) => Command::Reload(true),
        (Verb::Rules, words) => Command::Rules(RuleCommand::of_rules(words)?),
        (Verb::Rule, words) => return RuleCommand::of_rule(words).map(|it| it.map(Command::Rules)),
        (Verb::Limits, []) => Command::Limits(None),
        (Verb::Limits, [user]) => Command::Limits(Some(Subject::parse(user))),
        (Verb::SetLimit, [user, limits @ ..]) => {
            Command::SetLimit(Subject::parse(user), limit_words(limits)?)
        }
        (Verb::ResetUsage, [user]) => Command::ResetUsage(name(user)),
        (Verb::Shutdown, []) => Command::Shutdown(None),
        (Verb::Shutdown, [b"GRACE", time]) => {
            return Some(seconds(time, LONGEST_GRACE).map(|time| Command::Shutdown(Some(time))));
        }
        _ => return None,
    };
    Some(Ok(command))
}

/// A name and a password that an account may have.
fn with_new_password(verb: Verb, rest: &[u8]) -> Result<Command, Response> {
    let (name, password) = name_and_password(rest).ok_or(bad(Cause::Syntax))?;
    let (name, password) = (unescape(name).into_owned(), password.to_vec());
    // Only new names are bound by the rule for names.
    if !acceptable_password(&password) || (verb == Verb::AddUser && !acceptable_name(&name)) {
        return Err(bad(Cause::BadName));
    }
    Ok(match verb {
        Verb::AddUser => Command::AddUser { name, password },
        _ => Command::ChangePassword { name, password },
    })
}

/// A line of a users file runs to the end of the command, blanks included.
fn import(rest: &[u8]) -> Result<Command, Response> {
    let start = rest.iter().position(|byte| *byte != b' ').ok_or(bad(Cause::Syntax))?;
    let line = rest.get(start..).unwrap_or_default();
    if fits_in_a_line(line) { Ok(Command::Import(line.to_vec())) } else { Err(bad(Cause::Syntax)) }
}

fn network(word: &[u8]) -> Result<Network, Response> {
    let text = std::str::from_utf8(word).unwrap_or_default();
    Network::parse(text).map_err(Response::BadNetwork)
}

fn buffer_size(word: &[u8]) -> Result<Command, Response> {
    usize::try_from(number(word, 8)?)
        .ok()
        .filter(|size| BUFFER_SIZES.contains(size))
        .map(Command::ChangeBuffer)
        .ok_or(bad(Cause::Range))
}

/// `LAST <n>` and `USER <user>`, in either order, each at most once.
fn log_selection(mut words: &[&[u8]]) -> Result<LogSelection, Response> {
    let (mut last, mut user) = (None, None);
    while !words.is_empty() {
        match words {
            [b"LAST", count, rest @ ..] if last.is_none() => {
                last = Some(number(count, 10));
                words = rest;
            }
            [b"USER", name, rest @ ..] if user.is_none() => {
                user = Some(unescape(name).into_owned());
                words = rest;
            }
            _ => return Err(bad(Cause::Syntax)),
        }
    }
    // Only now: the range of a number does not count in a line that is malformed.
    Ok(LogSelection { last: last.transpose()?, user })
}

fn subscription(words: &[&[u8]]) -> Result<Command, Response> {
    let (topics, every) = match words {
        [topics @ .., b"EVERY", every] => (topics, Some(*every)),
        topics => (topics, None),
    };
    let mut chosen = Topics::default();
    for word in topics {
        chosen = chosen.with(Topic::parse(word).ok_or(bad(Cause::Syntax))?);
    }
    if chosen.is_empty() {
        return Err(bad(Cause::Syntax));
    }
    let every = match every {
        Some(every) => u32::try_from(number(every, 8)?)
            .ok()
            .filter(|every| INTERVALS.contains(every))
            .ok_or(bad(Cause::Range))?,
        None => *INTERVALS.start(),
    };
    Ok(Command::Subscribe(chosen, Duration::from_secs(every.into())))
}
