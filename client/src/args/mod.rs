//! The command line and `METP_AUTH`, turned into plain data.

mod options;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::Ipv6Addr;
use std::ops::{Range, RangeInclusive};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use getopts::Matches;
use options::{ALIASES, Takes};
use socks5d::args::{UNEXPECTED, describe, secrets, shown};
use socks5d::proto::metp::{Command, ConnectionId, LINE_LIMIT, LONGEST_GRACE, LogSelection, Role};
use socks5d::proto::quantity;
use socks5d::proto::text::{Escaped, narrow, split_account, unescape, widen};

/// The variable that stands in for `-u`.
pub const LOGIN_VARIABLE: &str = "METP_AUTH";

/// What the program is asked to do.
pub enum Invocation {
    /// Show this text and exit.
    Show(String),
    /// Talk to a server.
    Talk(Args),
}

/// A whole call.
pub struct Args {
    /// Name or address of the server.
    pub host: String,
    /// Its METP port.
    pub port: u16,
    /// Who gives the commands.
    pub login: Login,
    /// Whether the answers are to be JSON.
    pub json: bool,
    /// What is to be done, in the order in which it was given.
    pub tasks: Vec<Task>,
    /// What is to be shown then, until somebody ends it.
    pub live: Option<Live>,
}

/// Something to be done.
pub struct Task {
    /// The option that asks for it.
    pub option: &'static str,
    /// What it asks for.
    pub act: Act,
}

/// What a task comes to.
pub enum Act {
    /// A command.
    Give(Command),
    /// A new password for this account, which is still to be asked for.
    NewPassword(Vec<u8>),
    /// A line that is sent as it is, without its LF.
    Say(Vec<u8>),
}

/// What is shown as it happens.
pub enum Live {
    /// The access log.
    Follow,
    /// Everything, renewed so often.
    Watch(Duration),
}

/// A name, and where its password comes from.
pub struct Login {
    /// The account's name.
    pub name: Vec<u8>,
    /// Its password.
    pub password: Password,
}

/// Where a password comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum Password {
    /// It is here.
    Given(Vec<u8>),
    /// It is the first line of this file.
    In(PathBuf),
    /// It is asked for.
    Asked,
}

/// A command line that means nothing; displays as the line to show.
#[derive(Debug, PartialEq, Eq)]
pub struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Stands between two values of one option; no argument can hold it.
const BETWEEN: char = '\0';

/// How often a live screen can be renewed, in seconds.
const INTERVALS: RangeInclusive<f64> = 0.1..=3600.0;

/// The octets of each argument that are or may be a password.
pub fn passwords(arguments: &[OsString]) -> Vec<Range<usize>> {
    let option = |name: &str| {
        let long = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, long)| *long);
        let option = options::find(long)?;
        Some(match (option.long, option.takes) {
            ("--user", _) => secrets::Takes::Account,
            ("--add-user", _) => secrets::Takes::NameAndPassword,
            (_, Takes::Nothing) => secrets::Takes::Nothing,
            (_, Takes::Maybe) => secrets::Takes::Maybe,
            (_, Takes::One) => secrets::Takes::Plain,
            // The first would be a name, and so is the second where it is no password.
            (_, Takes::Two) => secrets::Takes::TwoPlain,
        })
    };
    secrets::secrets(arguments, option, is_public)
}

/// Whether a line of METP holds no password. In one that is not known, there may be one.
fn is_public(words: &[OsString]) -> bool {
    let line = words.join(OsStr::new(" "));
    let command = Command::parse(line.as_bytes(), Role::Admin);
    command.is_ok_and(|command| {
        !matches!(command, Command::AddUser { .. } | Command::ChangePassword { .. })
    })
}

/// Reads the arguments (without the program's name) and the value of [`LOGIN_VARIABLE`].
///
/// # Errors
/// One line that names what is wrong, but never a password.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Option<&OsStr>,
) -> Result<Invocation, Usage> {
    let line = Line::read(arguments)?;
    let given = options::getopts().parse(&line.options).map_err(|fail| Usage(describe(&fail)))?;
    if given.opt_present("help") {
        return Ok(Invocation::Show(options::usage()));
    }
    if given.opt_present("version") {
        return Ok(Invocation::Show(format!("client {}\n", env!("CARGO_PKG_VERSION"))));
    }
    let mut tasks = tasks(&given)?;
    if !given.free.is_empty() {
        let behind = line.stray.map(|option| format!(" behind {option}")).unwrap_or_default();
        return Err(Usage(format!("{UNEXPECTED}{behind}")));
    }
    tasks.extend(line.raw.map(raw).transpose()?);
    let live = live(&given)?;
    if tasks.is_empty() && live.is_none() {
        return Err(Usage("no command: one of those that client -h lists expected".to_owned()));
    }
    let host = given.opt_str("host").unwrap_or_else(|| "127.0.0.1".to_owned());
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&host);
    let host = String::from_utf8(narrow(bare))
        .ok()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| Usage(format!("-H {}: a name or an address expected", shown(&host))))?;
    if host.contains(':') && host.split('%').next().is_none_or(|ip| ip.parse::<Ipv6Addr>().is_err())
    {
        return Err(Usage(format!("-H {}: no address; the port is given by -p", shown(&host))));
    }
    let port = match given.opt_str("port") {
        None => 8080,
        Some(text) => quantity::count(&text)
            .and_then(|number| u16::try_from(number).ok())
            .filter(|port| *port > 0)
            .ok_or_else(|| Usage(format!("-p {}: 1 to 65535 expected", shown(&text))))?,
    };
    let login = login(&given, environment)?;
    let json = given.opt_present("json");
    Ok(Invocation::Talk(Args { host, port, login, json, tasks, live }))
}

/// Arguments as text.
struct Line {
    /// Aliases by their names, and the values of an option in one argument with it.
    options: Vec<String>,
    /// What follows `--`.
    raw: Option<Vec<String>>,
    /// The option before the first word that belongs to none.
    stray: Option<&'static str>,
}

impl Line {
    fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Usage> {
        let arguments = arguments.into_iter().map(|argument| widen(argument.as_bytes()));
        let mut arguments = arguments.peekable();
        let mut options = Vec::new();
        let (mut last, mut stray) = (None, None);
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                return Ok(Line { options, raw: Some(arguments.collect()), stray });
            }
            let argument = advertised(argument);
            match options::find(&argument) {
                Some(option) => last = Some(option.long),
                None if !argument.starts_with('-') => stray = stray.or(last),
                None => {}
            }
            let takes = options::find(&argument).map_or(Takes::Nothing, |option| option.takes);
            match takes {
                Takes::Nothing => options.push(argument),
                Takes::One => options.extend([argument].into_iter().chain(arguments.next())),
                Takes::Two => {
                    let Some(first) = arguments.next() else {
                        options.push(argument);
                        continue;
                    };
                    // Another option: more likely the value before it was forgotten.
                    let second = arguments.next().filter(|value| options::find(value).is_none());
                    let Some(second) = second else {
                        return Err(Usage(format!("{argument}: needs two values")));
                    };
                    options.extend([argument, format!("{first}{BETWEEN}{second}")]);
                }
                Takes::Maybe => {
                    let value = arguments.next_if(|next| !next.starts_with('-'));
                    let name = options::find(&argument).map_or("", |option| option.long);
                    options.push(value.map_or(name.to_owned(), |value| format!("{name}={value}")));
                }
            }
        }
        Ok(Line { options, raw: None, stray })
    }
}

fn advertised(argument: String) -> String {
    let (name, value) = match argument.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (argument.as_str(), None),
    };
    match (ALIASES.iter().find(|(alias, _)| *alias == name), value) {
        (None, _) => argument,
        (Some((_, long)), None) => (*long).to_owned(),
        (Some((_, long)), Some(value)) => format!("{long}={value}"),
    }
}

/// The tasks in the order in which they stand on the line.
fn tasks(given: &Matches) -> Result<Vec<Task>, Usage> {
    let mut tasks = Vec::new();
    for option in options::all() {
        let name = option.long.trim_start_matches('-');
        let values = given.opt_strs_pos(name);
        for at in given.opt_positions(name) {
            let value =
                values.iter().find(|(place, _)| *place == at).map(|(_, value)| value.as_str());
            tasks.extend(
                task(option.long, value)?.map(|act| (at, Task { option: option.long, act })),
            );
        }
    }
    tasks.sort_by_key(|(at, _)| *at);
    Ok(tasks.into_iter().map(|(_, task)| task).collect())
}

/// What an option asks for, if it is a command.
fn task(option: &'static str, value: Option<&str>) -> Result<Option<Act>, Usage> {
    let text = value.unwrap_or_default();
    let some_name = || value.map(|name| existing(option, name)).transpose();
    let command = match option {
        "--metrics" => Command::GetMetrics,
        "--metrics-all" => Command::GetAllMetrics,
        "--user-metrics" => Command::UserMetrics(some_name()?),
        "--connections" => Command::Connections(some_name()?),
        "--logs" => Command::GetLogs(LogSelection::default()),
        "--info" => Command::Info,
        "--capabilities" => Command::Capabilities,
        "--users" => Command::Users,
        "--add-user" => new_user(text)?,
        "--delete-user" => Command::DeleteUser(existing("-d", text)?),
        "--set-role" => {
            let (name, role) = two("-r", text)?;
            let role = Role::parse(&narrow(role))
                .ok_or_else(|| Usage(format!("-r {}: user or admin expected", shown(role))))?;
            Command::SetRole(existing("-r", name)?, role)
        }
        "--password" => return Ok(Some(Act::NewPassword(existing(option, text)?))),
        "--kill" => Command::Kill(ConnectionId::parse(&narrow(text)).map_err(|_| {
            Usage(format!("{option} {}: an id as --connections shows it expected", shown(text)))
        })?),
        "--kill-user" => Command::KillUser(existing(option, text)?),
        "--config" => Command::ConfigGet(some_name()?),
        "--set" => {
            let (key, value) = text
                .split_once('=')
                .filter(|(key, value)| !key.is_empty() && !value.is_empty())
                .ok_or_else(|| Usage(format!("{option} {}: KEY=VALUE expected", shown(text))))?;
            Command::ConfigSet { key: narrow(key), value: narrow(value) }
        }
        "--change-buffer" => Command::ChangeBuffer(
            quantity::size(text)
                .and_then(|size| usize::try_from(size).ok())
                .ok_or_else(|| Usage(format!("-c {}: a number of bytes expected", shown(text))))?,
        ),
        "--shutdown" => Command::Shutdown(value.map(grace).transpose()?),
        _ => return Ok(None),
    };
    Ok(Some(Act::Give(command)))
}

fn new_user(pair: &str) -> Result<Command, Usage> {
    let (name, password) = two("-a", pair)?;
    let command = Command::AddUser { name: narrow(name), password: narrow(password) };
    if command.encode().is_none() {
        let name = Escaped(&narrow(name)).to_string();
        return Err(Usage(format!("-a {name}: the password is empty or holds a line end")));
    }
    Ok(command)
}

fn grace(text: &str) -> Result<Duration, Usage> {
    let most = Duration::from_secs(LONGEST_GRACE.into());
    quantity::time(text).filter(|time| *time <= most).ok_or_else(|| {
        Usage(format!("--shutdown {}: 0 to {LONGEST_GRACE} seconds expected", shown(text)))
    })
}

/// The line behind `--`.
fn raw(words: Vec<String>) -> Result<Task, Usage> {
    let line = narrow(&words.join(" "));
    if line.is_empty() || line.len() >= LINE_LIMIT || line.iter().any(|byte| b"\r\n".contains(byte))
    {
        return Err(Usage("--: one line of METP expected".to_owned()));
    }
    Ok(Task { option: "--", act: Act::Say(line) })
}

fn live(given: &Matches) -> Result<Option<Live>, Usage> {
    match (given.opt_present("watch"), given.opt_present("follow")) {
        (false, false) => Ok(None),
        (false, true) => Ok(Some(Live::Follow)),
        (true, true) => Err(Usage("-w and -f: one of them expected".to_owned())),
        (true, false) => {
            let text = given.opt_str("watch").unwrap_or_else(|| "1".to_owned());
            let every =
                quantity::time(&text).filter(|every| INTERVALS.contains(&every.as_secs_f64()));
            every.map(|every| Some(Live::Watch(every))).ok_or_else(|| {
                let (least, most) = (INTERVALS.start(), INTERVALS.end());
                Usage(format!("-w {}: {least} to {most} seconds expected", shown(&text)))
            })
        }
    }
}

fn two<'a>(option: &str, pair: &'a str) -> Result<(&'a str, &'a str), Usage> {
    pair.split_once(BETWEEN).ok_or_else(|| Usage(format!("{option}: needs two values")))
}

/// A name as the server shows it, `\xHH` and all.
fn existing(option: &str, name: &str) -> Result<Vec<u8>, Usage> {
    let name = unescape(&narrow(name)).into_owned();
    if name.is_empty() { Err(Usage(format!("{option}: the name is empty"))) } else { Ok(name) }
}

fn login(given: &Matches, environment: Option<&OsStr>) -> Result<Login, Usage> {
    let (source, text) = match (given.opt_str("user"), environment) {
        (Some(text), _) => ("-u", narrow(&text)),
        (None, Some(text)) => (LOGIN_VARIABLE, text.as_bytes().to_vec()),
        (None, None) => {
            return Err(Usage("no user: -u USER:PASS or METP_AUTH expected".to_owned()));
        }
    };
    let (name, password) = match split_account(&text) {
        Some((name, password)) => (name, Some(password)),
        None => (text.as_slice(), None),
    };
    let name = unescape(name).into_owned();
    let travels = |password: &&[u8]| {
        !password.is_empty() && !password.iter().any(|byte| b"\0\r\n".contains(byte))
    };
    if name.is_empty() {
        return Err(Usage(format!("{source}: the name is empty")));
    }
    if password.is_some_and(|password| !travels(&password)) {
        let name = Escaped(&name);
        return Err(Usage(format!("{source} {name}: the password is empty or holds a line end")));
    }
    let password = match (given.opt_str("password-file"), password) {
        (Some(_), Some(_)) if source == "-u" => {
            return Err(Usage("-u and --password-file both give a password".to_owned()));
        }
        (Some(path), _) => Password::In(OsString::from_vec(narrow(&path)).into()),
        (None, Some(password)) => Password::Given(password.to_vec()),
        (None, None) => Password::Asked,
    };
    Ok(Login { name, password })
}

#[cfg(test)]
mod tests;
