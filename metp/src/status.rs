//! Status lines: what the server says in one line (§7).

use std::fmt;

use super::key;
use crate::network::NetworkError;
use crate::quantity::decimal;

/// Why a command was answered 400: the word in brackets (§7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The line is empty, or begins with a blank.
    NoVerb,
    /// There is no such verb.
    Verb,
    /// Missing, surplus or malformed arguments.
    Syntax,
    /// The line has more than [`LINE_LIMIT`](super::LINE_LIMIT) octets.
    LongLine,
    /// The account is already there.
    Exists,
    /// There is no such account.
    NoUser,
    /// A number outside its range.
    Range,
    /// A name or password that a new account may not have.
    BadName,
    /// The role is neither `user` nor `admin`.
    BadRole,
    /// One's own account or role.
    Own,
}

/// Displays as `[WORD] explanation`.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::NoVerb => "[SYNTAX] no verb at the beginning of the line",
            Cause::Verb => "[SYNTAX] unknown verb",
            Cause::Syntax => "[SYNTAX] wrong arguments",
            Cause::LongLine => "[SYNTAX] line too long",
            Cause::Exists => "[EXISTS] user exists",
            Cause::NoUser => "[NOUSER] no such user",
            Cause::Range => "[RANGE] number out of range",
            Cause::BadName => "[BADNAME] name or password not acceptable",
            Cause::BadRole => "[BADROLE] role must be user or admin",
            Cause::Own => "[SELF] not on your own account",
        })
    }
}

/// What was not found: the word in brackets of a 404 (§7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// There is no such account.
    User,
    /// There is no such connection.
    Connection,
    /// There is no such setting.
    Key,
    /// This network is not trusted.
    Network,
    /// There is no such limit.
    Limit,
    /// There is no such rule.
    Rule,
}

/// Displays as `[WORD] explanation`.
impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Missing::User => "[NOUSER] no such user",
            Missing::Connection => "[NOCONN] no such connection",
            Missing::Key => "[NOKEY] no such setting",
            Missing::Limit => "[NOKEY] no such limit",
            Missing::Rule => "[NORULE] there is no rule in this line",
            Missing::Network => "[NONET] this network is not in the list",
        })
    }
}

/// Why the server closes a session: the word in brackets of a 421 (§7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The server is closing down.
    Shutdown,
    /// The client does not read its events.
    Slow,
}

/// Displays as `[WORD] explanation`.
impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Notice::Shutdown => "[SHUTDOWN] the server is closing down",
            Notice::Slow => "[SLOW] events were not read",
        })
    }
}

/// The number that begins a status line (§7.1). Clients read nothing else of that line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(u16);

impl Status {
    /// 200: done.
    pub const OK: Status = Status(200);
    /// 400: the command cannot be carried out as it stands.
    pub const BAD_REQUEST: Status = Status(400);
    /// 401: name or password wrong, or the account is gone.
    pub const UNAUTHORIZED: Status = Status(401);
    /// 403: the account's role does not allow it.
    pub const FORBIDDEN: Status = Status(403);
    /// 404: what the command names is not there.
    pub const NOT_FOUND: Status = Status(404);
    /// 409: not in the server's present state.
    pub const CONFLICT: Status = Status(409);
    /// 421: the server closes this session.
    pub const CLOSING: Status = Status(421);
    /// 429: too many, try later.
    pub const TOO_MANY: Status = Status(429);
    /// 500: it could not be done, and nothing was changed.
    pub const FAILED: Status = Status(500);
    /// 650: an event, and no reply.
    pub const EVENT: Status = Status(650);

    /// Reads the first three characters of a status line, from 100 to 999. `None` if they are not three
    /// digits, or if a fourth follows.
    ///
    /// ```
    /// use metp_protocol::Status;
    ///
    /// assert_eq!(Status::parse(b"404 Not Found"), Some(Status::NOT_FOUND));
    /// assert_eq!(Status::parse(b"2000"), None);
    /// ```
    pub fn parse(line: &[u8]) -> Option<Self> {
        let (digits, rest) = line.split_first_chunk::<3>()?;
        if rest.first().is_some_and(u8::is_ascii_digit) {
            return None;
        }
        decimal(digits).filter(|code| *code >= 100)?.try_into().ok().map(Status)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The word in brackets of a status line and the explanation after it (§7.2): `EXISTS` and `user exists` of
/// `400 Bad Request [EXISTS] user exists`. `None` if it has no word in brackets.
///
/// ```
/// let line = "400 Bad Request [EXISTS] user exists";
/// assert_eq!(metp_protocol::split_cause(line), Some(("EXISTS", "user exists")));
/// ```
pub fn split_cause(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once('[')?;
    let (word, explanation) = rest.split_once(']')?;
    Some((word, explanation.trim()))
}

/// A password that the server has made. No debug print shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct NewPassword(pub String);

impl fmt::Debug for NewPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewPassword")
    }
}

/// A status line: everything the server says in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// `200 Welcome to METP/1.0`
    Welcome,
    /// `200 OK`
    Done,
    /// `200 Goodbye`
    Goodbye,
    /// `400 Bad Request` with its cause; `None` before the login, where it is not told.
    BadRequest(Option<Cause>),
    /// `401 Unauthorized`
    Unauthorized,
    /// `403 Forbidden`
    Forbidden,
    /// `200 PONG`, with the token of the `PING`, made fit to print.
    Pong(Option<String>),
    /// `200 OK killed=…`, with the number of connections.
    Killed(usize),
    /// `400 Bad Request [RANGE]` with what would have been in range.
    Range(String),
    /// `400 Bad Request [BADNET]` with what would have been a network.
    BadNetwork(NetworkError),
    /// `404 Not Found`
    NotFound(Missing),
    /// `409 Conflict`: the server is already closing down.
    AlreadyClosing,
    /// `409 Conflict`: no more networks can be trusted.
    TooManyNetworks,
    /// `421 Closing`
    Closing(Notice),
    /// `429 Too Many`: subscribers.
    TooMany,
    /// `200 OK password=… created=…`
    Generated {
        /// The new password, of printable ASCII without blanks.
        password: NewPassword,
        /// Whether the account is new, too.
        created: bool,
    },
    /// `400 Bad Request [BADLINE]` with what is wrong with the line of an `IMPORT`.
    BadLine(String),
    /// `500 Internal Server Error [STORE]` with the reason why a change of the users file was not stored.
    NotStored(String),
    /// `409 Conflict [FIXED]`: the server does not change the users file.
    Fixed,
    /// `200 OK accounts=…` with what `RELOAD` has changed.
    Reloaded {
        /// Accounts in the users file.
        accounts: usize,
        /// Those that are new.
        added: usize,
        /// Those that are gone.
        deleted: usize,
        /// Those that are different.
        changed: usize,
        /// Settings that are others now.
        settings: usize,
        /// Rules. `None`: there is no file of rules.
        rules: Option<usize>,
        /// Tunnels that are going to be ended. `None`: that was not asked for.
        cut: Option<usize>,
    },
    /// `409 Conflict [INVALID]` with what is wrong with the file that `RELOAD` has read.
    Invalid(String),
    /// `409 Conflict [NOFILE]`: there is no file that `RELOAD` could read.
    NoFile,
    /// `409 Conflict [NOSTATE]`: there is no state directory in which `CONFIG SAVE` could save.
    NoState,
    /// `400 Bad Request [BADRULE]` with what is wrong with a rule, or with the rules as they would be.
    BadRule(String),
    /// `409 Conflict [MISMATCH]` with the rule that is in this line.
    OtherRule(String),
    /// `409 Conflict [NORULES]`: the server has no file of rules.
    NoRules,
    /// `409 Conflict [FIXED]`: the server does not change the rules.
    RulesFixed,
}

impl Response {
    /// The number this line begins with.
    ///
    /// ```
    /// use metp_protocol::{Response, Status};
    ///
    /// assert_eq!(Response::Killed(2).status(), Status::OK);
    /// assert_eq!(Response::Killed(2).to_string(), "200 OK killed=2");
    /// ```
    pub fn status(&self) -> Status {
        match self {
            Response::Welcome
            | Response::Done
            | Response::Goodbye
            | Response::Pong(_)
            | Response::Killed(_)
            | Response::Generated { .. }
            | Response::Reloaded { .. } => Status::OK,
            Response::BadRequest(_)
            | Response::Range(_)
            | Response::BadNetwork(_)
            | Response::BadLine(_)
            | Response::BadRule(_) => Status::BAD_REQUEST,
            Response::Unauthorized => Status::UNAUTHORIZED,
            Response::Forbidden => Status::FORBIDDEN,
            Response::NotFound(_) => Status::NOT_FOUND,
            Response::AlreadyClosing
            | Response::TooManyNetworks
            | Response::Fixed
            | Response::Invalid(_)
            | Response::NoFile
            | Response::NoState
            | Response::OtherRule(_)
            | Response::NoRules
            | Response::RulesFixed => Status::CONFLICT,
            Response::Closing(_) => Status::CLOSING,
            Response::TooMany => Status::TOO_MANY,
            Response::NotStored(_) => Status::FAILED,
        }
    }
}

/// Displays the line without its LF.
impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.status())?;
        match self {
            Response::Welcome => f.write_str("Welcome to METP/1.0"),
            Response::Done => f.write_str("OK"),
            Response::Goodbye => f.write_str("Goodbye"),
            Response::BadRequest(None) => f.write_str("Bad Request"),
            Response::BadRequest(Some(cause)) => write!(f, "Bad Request {cause}"),
            Response::Unauthorized => f.write_str("Unauthorized"),
            Response::Forbidden => f.write_str("Forbidden"),
            Response::Pong(None) => f.write_str("PONG"),
            Response::Pong(Some(token)) => write!(f, "PONG {token}"),
            Response::Killed(count) => write!(f, "OK {}={count}", key::KILLED),
            Response::Range(range) => write!(f, "Bad Request [RANGE] {range}"),
            Response::BadNetwork(expected) => write!(f, "Bad Request [BADNET] expected {expected}"),
            Response::NotFound(what) => write!(f, "Not Found {what}"),
            Response::AlreadyClosing => {
                f.write_str("Conflict [CLOSING] the server is closing down")
            }
            Response::TooManyNetworks => f.write_str("Conflict [FULL] too many networks"),
            Response::Closing(notice) => write!(f, "Closing {notice}"),
            Response::TooMany => f.write_str("Too Many [BUSY] too many subscribers, try later"),
            Response::Generated { password: NewPassword(password), created } => {
                let created = if *created { "yes" } else { "no" };
                write!(f, "OK {}={password} {}={created}", key::PASSWORD, key::CREATED)
            }
            Response::BadLine(fault) => write!(f, "Bad Request [BADLINE] {fault}"),
            Response::NotStored(cause) => write!(f, "Internal Server Error [STORE] {cause}"),
            Response::Fixed => f.write_str("Conflict [FIXED] the users file is not changed here"),
            Response::Reloaded { accounts, added, deleted, changed, settings, rules, cut } => {
                write!(
                    f,
                    "OK {}={accounts} {}={added} {}={deleted} {}={changed} {}={settings}",
                    key::ACCOUNTS,
                    key::ADDED,
                    key::DELETED,
                    key::CHANGED,
                    key::SETTINGS
                )?;
                rules.map_or(Ok(()), |rules| write!(f, " {}={rules}", key::RULES))?;
                cut.map_or(Ok(()), |cut| write!(f, " {}={cut}", key::CUT))
            }
            Response::Invalid(faults) => write!(f, "Conflict [INVALID] {faults}"),
            Response::NoFile => f.write_str("Conflict [NOFILE] there is no file to be read again"),
            Response::BadRule(fault) => write!(f, "Bad Request [BADRULE] {fault}"),
            Response::OtherRule(rule) => write!(f, "Conflict [MISMATCH] {rule}"),
            Response::NoRules => f.write_str("Conflict [NORULES] there is no file of rules"),
            Response::RulesFixed => f.write_str("Conflict [FIXED] the rules are not changed here"),
            Response::NoState => f.write_str("Conflict [NOSTATE] there is no state directory"),
        }
    }
}
