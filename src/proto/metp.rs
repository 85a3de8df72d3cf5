//! METP/1.0, the management protocol: command lines, status lines, bodies. `protocol_metp.txt` is its
//! contract; the section numbers below are its own.
//!
//! Server and client both speak through this module, so they cannot disagree. What a command looks like,
//! how it is printed and who may give it stand together, here; what it does stands in `metp/execute.rs`.

use std::fmt;
use std::net::IpAddr;

use super::Parsed;
use super::socks5::Target;
use super::text::{Escaped, unescape};
use super::timestamp::Timestamp;

/// The longest command line, in octets, its LF included (§3.1).
pub const LINE_LIMIT: usize = 4096;
/// The longest line from the server, in octets, its LF included (§3.2).
pub const REPLY_LIMIT: usize = 999;
/// The line that opens a session (§4.1).
pub const HELLO: &str = "HELLO METP/1.0";
/// The line that ends a multi-line reply (§3.2).
pub const END_OF_BODY: &str = ".";
/// The buffer sizes that `CHANGE-BUFFER` and `--buffer-size` take, in bytes (§5.5).
pub const BUFFER_SIZES: std::ops::RangeInclusive<usize> = 1..=1_048_576;
/// The longest name that `ADD-USER` takes, in characters (§5.6).
pub const LONGEST_NAME: usize = 64;
/// The longest password, in octets (§5.6).
pub const LONGEST_PASSWORD: usize = 255;

/// What an account may do (§6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May read the metrics.
    User,
    /// May do everything.
    Admin,
}

impl Role {
    /// Reads the word of the wire.
    pub fn parse(word: &[u8]) -> Option<Self> {
        match word {
            b"user" => Some(Role::User),
            b"admin" => Some(Role::Admin),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::User => "user",
            Role::Admin => "admin",
        })
    }
}

/// Why a command was answered 400: the word in brackets (§7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Unknown verb, or missing, surplus or malformed arguments.
    Syntax,
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
            Cause::Syntax => "[SYNTAX] unknown verb or wrong arguments",
            Cause::Exists => "[EXISTS] user exists",
            Cause::NoUser => "[NOUSER] no such user",
            Cause::Range => "[RANGE] number out of range",
            Cause::BadName => "[BADNAME] name or password not acceptable",
            Cause::BadRole => "[BADROLE] role must be user or admin",
            Cause::Own => "[SELF] not on your own account",
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

    /// Reads the first three characters of a status line, from 100 to 999. `None` if they are not three
    /// digits, or if a fourth follows.
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

/// A status line: everything the server says in one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// `200 Welcome to METP/1.0`
    Welcome,
    /// `200 OK`
    Done,
    /// `200 Goodbye`
    Goodbye,
    /// `400 Bad Request` with its cause, if it may be told.
    BadRequest(Option<Cause>),
    /// `401 Unauthorized`
    Unauthorized,
    /// `403 Forbidden`
    Forbidden,
}

impl Response {
    /// The number this line begins with.
    pub fn status(&self) -> Status {
        match self {
            Response::Welcome | Response::Done | Response::Goodbye => Status::OK,
            Response::BadRequest(_) => Status::BAD_REQUEST,
            Response::Unauthorized => Status::UNAUTHORIZED,
            Response::Forbidden => Status::FORBIDDEN,
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
        }
    }
}

/// What a client may say before it has logged in (§4).
#[derive(Clone, PartialEq, Eq)]
pub enum Opening {
    /// `HELLO METP/1.0`
    Hello,
    /// `AUTH <user> <password>`
    Auth {
        /// The account's name.
        name: Vec<u8>,
        /// Its password: the rest of the line, blanks included.
        password: Vec<u8>,
    },
}

impl Opening {
    /// Reads a line (without its LF). `None`: 400 and close.
    pub fn parse(line: &[u8]) -> Option<Self> {
        if line == HELLO.as_bytes() {
            return Some(Opening::Hello);
        }
        let (name, password) = name_and_password(line.strip_prefix(b"AUTH ")?)?;
        Some(Opening::Auth { name: unescape(name).into_owned(), password: password.to_vec() })
    }

    /// The line as a client sends it, LF included. `None` if the password cannot travel in a line.
    pub fn encode(&self) -> Option<Vec<u8>> {
        match self {
            Opening::Hello => Some(format!("{HELLO}\n").into_bytes()),
            Opening::Auth { name, password } => with_password("AUTH", name, password),
        }
    }
}

/// A command of a session that has logged in (§5).
#[derive(Clone, PartialEq, Eq)]
pub enum Command {
    /// `GET_METRICS`
    GetMetrics,
    /// `GET_LOGS`
    GetLogs,
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
}

/// The verbs, and who may use them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    GetMetrics,
    GetLogs,
    Users,
    ChangeBuffer,
    AddUser,
    DeleteUser,
    SetRole,
    Quit,
}

impl Verb {
    const WORDS: [(&str, Verb); 8] = [
        ("GET_METRICS", Verb::GetMetrics),
        ("GET_LOGS", Verb::GetLogs),
        ("USERS", Verb::Users),
        ("CHANGE-BUFFER", Verb::ChangeBuffer),
        ("ADD-USER", Verb::AddUser),
        ("DELETE-USER", Verb::DeleteUser),
        ("SET-ROLE", Verb::SetRole),
        ("QUIT", Verb::Quit),
    ];

    fn parse(word: &[u8]) -> Option<Self> {
        Verb::WORDS.iter().find(|(text, _)| text.as_bytes() == word).map(|(_, verb)| *verb)
    }

    fn permitted(self, role: Role) -> bool {
        role == Role::Admin || matches!(self, Verb::GetMetrics | Verb::Quit)
    }
}

impl Command {
    /// Reads a line (without its LF) that an account of this role sent. The role is checked before the
    /// arguments, so that nobody learns more than their role lets them.
    ///
    /// # Errors
    /// The answer to give instead: 400 with its cause, or 403.
    pub fn parse(line: &[u8], role: Role) -> Result<Self, Response> {
        let (word, rest) = match line.iter().position(|byte| *byte == b' ') {
            Some(blank) => line.split_at(blank),
            None => (line, &[][..]),
        };
        let verb = Verb::parse(word).ok_or(bad(Cause::Syntax))?;
        if !verb.permitted(role) {
            return Err(Response::Forbidden);
        }
        match verb {
            Verb::GetMetrics => words(rest).map(|[]| Command::GetMetrics),
            Verb::GetLogs => words(rest).map(|[]| Command::GetLogs),
            Verb::Users => words(rest).map(|[]| Command::Users),
            Verb::Quit => words(rest).map(|[]| Command::Quit),
            Verb::ChangeBuffer => words(rest).and_then(|[size]| buffer_size(size)),
            Verb::AddUser => new_account(rest),
            Verb::DeleteUser => {
                words(rest).map(|[name]| Command::DeleteUser(unescape(name).into()))
            }
            Verb::SetRole => words(rest).and_then(|[name, role]| {
                let role = Role::parse(role).ok_or(bad(Cause::BadRole))?;
                Ok(Command::SetRole(unescape(name).into(), role))
            }),
        }
    }

    /// The line as a client sends it, LF included. `None` if the password cannot travel in a line.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let line = match self {
            Command::GetMetrics => "GET_METRICS\n".to_owned(),
            Command::GetLogs => "GET_LOGS\n".to_owned(),
            Command::Users => "USERS\n".to_owned(),
            Command::Quit => "QUIT\n".to_owned(),
            Command::ChangeBuffer(size) => format!("CHANGE-BUFFER {size}\n"),
            Command::DeleteUser(name) => format!("DELETE-USER {}\n", Escaped(name)),
            Command::SetRole(name, role) => format!("SET-ROLE {} {role}\n", Escaped(name)),
            Command::AddUser { name, password } => {
                return with_password("ADD-USER", name, password);
            }
        };
        Some(line.into_bytes())
    }
}

/// Finds the first line of `input`: the octets before its LF, one CR taken off (§3.1). Returns them with
/// the number of octets that the line took.
///
/// # Errors
/// [`LineTooLong`] once [`LINE_LIMIT`] octets hold no LF.
pub fn line(input: &[u8]) -> Parsed<&[u8], LineTooLong> {
    match input.iter().take(LINE_LIMIT).position(|byte| *byte == b'\n') {
        Some(end) => {
            let (line, _) = input.split_at(end);
            Ok(Some((line.strip_suffix(b"\r").unwrap_or(line), end.saturating_add(1))))
        }
        None if input.len() >= LINE_LIMIT => Err(LineTooLong),
        None => Ok(None),
    }
}

/// A command line had more than [`LINE_LIMIT`] octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineTooLong;

/// The body of `GET_METRICS` (§5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsBody {
    /// SOCKS connections accepted since the start.
    pub historical: u64,
    /// SOCKS connections open now.
    pub current: u64,
    /// Payload bytes relayed, both directions.
    pub bytes: u64,
}

impl MetricsBody {
    /// The three lines.
    pub fn lines(&self) -> [String; 3] {
        [
            format!("HISTORICAL_CONNECTIONS: {}", self.historical),
            format!("CURRENT_CONNECTIONS:    {}", self.current),
            format!("BYTES_TRANSFERRED:      {}", self.bytes),
        ]
    }

    /// Reads a body. Unknown keys are skipped; `None` if one of the three is missing or no number.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let (mut historical, mut current, mut bytes) = (None, None, None);
        for line in lines {
            let Some((key, value)) = std::str::from_utf8(line).ok().and_then(|l| l.split_once(':'))
            else {
                continue;
            };
            let value = decimal(value.trim().as_bytes());
            match key {
                "HISTORICAL_CONNECTIONS" => historical = value,
                "CURRENT_CONNECTIONS" => current = value,
                "BYTES_TRANSFERRED" => bytes = value,
                _ => {}
            }
        }
        Some(MetricsBody { historical: historical?, current: current?, bytes: bytes? })
    }
}

/// One line of `USERS` (§5.4). A leading dot is escaped too, so that no body line can look like the end.
pub fn user_line(name: &[u8], role: Role) -> String {
    let escaped = Escaped(name).to_string();
    let name = match escaped.strip_prefix('.') {
        Some(rest) => format!("\\x2e{rest}"),
        None => escaped,
    };
    format!("{name} {role}")
}

/// One line of `GET_LOGS` (§5.3): `[time] user source destination:port bytes`.
pub fn log_line(
    time: Timestamp,
    user: &[u8],
    source: IpAddr,
    target: &Target,
    bytes: u64,
) -> String {
    format!("[{time}] {} {source} {target} {bytes}", Escaped(user))
}

/// Ends a line from the server with LF. What would exceed [`REPLY_LIMIT`] is cut and ends in `...` (§3.2).
/// Lines are ASCII by construction: all that comes from outside is escaped.
pub fn ended(mut line: String) -> String {
    const ROOM: usize = REPLY_LIMIT - 1;
    if line.len() > ROOM {
        line.truncate(ROOM - 3);
        line.push_str("...");
    }
    line.push('\n');
    line
}

fn bad(cause: Cause) -> Response {
    Response::BadRequest(Some(cause))
}

/// Exactly `N` arguments, separated by blanks.
fn words<const N: usize>(rest: &[u8]) -> Result<[&[u8]; N], Response> {
    let words: Vec<&[u8]> = rest.split(|byte| *byte == b' ').filter(|w| !w.is_empty()).collect();
    words.try_into().map_err(|_| bad(Cause::Syntax))
}

/// A name, one blank, and a password that runs to the end of the line and may hold blanks.
fn name_and_password(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = rest.iter().position(|byte| *byte != b' ')?;
    let mut parts = rest.get(start..)?.splitn(2, |byte| *byte == b' ');
    let (name, password) = (parts.next()?, parts.next()?);
    (!name.is_empty() && !password.is_empty()).then_some((name, password))
}

fn new_account(rest: &[u8]) -> Result<Command, Response> {
    let (name, password) = name_and_password(rest).ok_or(bad(Cause::Syntax))?;
    if !acceptable_name(name) || !acceptable_password(password) {
        return Err(bad(Cause::BadName));
    }
    Ok(Command::AddUser { name: name.to_vec(), password: password.to_vec() })
}

fn acceptable_name(name: &[u8]) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && !name.starts_with(b".")
        && !name.starts_with(b"-")
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-@+.".contains(byte))
}

fn acceptable_password(password: &[u8]) -> bool {
    password.len() <= LONGEST_PASSWORD && fits_in_a_line(password)
}

fn fits_in_a_line(password: &[u8]) -> bool {
    !password.iter().any(|byte| matches!(byte, b'\0' | b'\r' | b'\n'))
}

fn buffer_size(word: &[u8]) -> Result<Command, Response> {
    if !word.iter().all(u8::is_ascii_digit) {
        return Err(bad(Cause::Syntax));
    }
    decimal(word)
        .filter(|_| word.len() <= 8)
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| BUFFER_SIZES.contains(size))
        .map(Command::ChangeBuffer)
        .ok_or(bad(Cause::Range))
}

/// Digits alone, unlike `str::parse`, which takes a sign.
fn decimal(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn with_password(verb: &str, name: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    if password.is_empty() || !fits_in_a_line(password) {
        return None;
    }
    let mut line = format!("{verb} {} ", Escaped(name)).into_bytes();
    line.extend(password);
    line.push(b'\n');
    Some(line)
}

#[cfg(test)]
mod tests;
