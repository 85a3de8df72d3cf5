//! The command line and the environment as plain data.

mod environment;
mod line;
mod login;
mod options;
mod rules;
mod servers;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use common::{
    secrets,
    usage::{UNEXPECTED, bad_value, describe},
};
pub use environment::{
    Environment, HOST_VARIABLE, LOGIN_FILE_VARIABLE, LOGIN_VARIABLE, PORT_VARIABLE,
};
use getopts::Matches;
use line::{NormalizedArgs, needs_two, values};
pub use login::{LoginArgs, PasswordSource, check_password};
use metp_protocol::network::Network;
use metp_protocol::quantity;
use metp_protocol::text::{Escaped, latin1_encode, split_account, unescape, without_line_end};
use metp_protocol::{
    BUFFER_SIZES, Command, ConnectionId, LINE_LIMIT, LONGEST_GRACE, LimitWord, LogSelection,
    NAME_RULE, PASSWORD_RULE, Role, Subject, acceptable_name, acceptable_password, fits_in_a_line,
};
use options::{ALIASES, Arity, UsageError};
pub use servers::ServerAddress;

use crate::invocation::Invocation;
use crate::users_file::UsersFile;

/// What the command line asks for.
pub enum CommandLine {
    /// Show this text and exit.
    Show(String),
    /// Send commands to servers.
    Run(Args),
}

/// A call of the client.
pub struct Args {
    /// The servers: one or more, but exactly one with `-w`.
    pub servers: Vec<ServerAddress>,
    /// `--wait`: how long attempts to connect are repeated. `None`: one attempt at the start, and without end
    /// after a session has ended.
    pub wait: Option<Duration>,
    /// The account.
    pub login: LoginArgs,
    /// `--json`.
    pub json: bool,
    /// `-q`: connecting and closing are not mentioned.
    pub quiet: bool,
    /// The commands, in command-line order.
    pub invocations: Vec<Invocation>,
    /// The live view that follows the commands, if there is one.
    pub live: Option<Live>,
}

/// A live view.
pub enum Live {
    /// `-f`: finished requests, after this number of records of the access log.
    Follow(u64),
    /// `-w`: everything, refreshed at this interval.
    Watch(Duration),
}

/// The interval of `-w`, in seconds.
const INTERVAL_SECONDS: RangeInclusive<f64> = 0.1..=3600.0;
/// The longest `--wait`, in seconds.
const MAX_WAIT_SECONDS: u32 = 86_400;
/// The largest `-n`.
const MAX_RECORDS: u64 = 1_000_000;

/// The byte ranges of each argument that are or may be a password, to be erased from the process's command
/// line.
pub fn passwords(arguments: &[OsString]) -> Vec<Range<usize>> {
    let option = |name: &str| {
        let long = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, long)| *long);
        let option = options::find(long)?;
        Some(match (option.long, option.takes) {
            ("--user", _) => secrets::Takes::Account,
            ("--add-user", _) => secrets::Takes::NameAndPassword,
            (_, Arity::Nothing) => secrets::Takes::Nothing,
            (_, Arity::Maybe) => secrets::Takes::Maybe,
            (_, Arity::One) => secrets::Takes::Plain,
            // Both may be a password: the name may have been forgotten.
            (_, Arity::OneOrTwo | Arity::Two) => secrets::Takes::TwoPlain,
        })
    };
    secrets::secrets(arguments, option, is_public)
}

/// Whether a line of METP holds no password. A line that cannot be parsed may hold one.
fn is_public(words: &[OsString]) -> bool {
    let line = words.join(OsStr::new(" "));
    let command = Command::parse(line.as_bytes(), Role::Admin);
    command.is_ok_and(|command| {
        !matches!(
            command,
            Command::AddUser { .. } | Command::ChangePassword { .. } | Command::Import(_)
        )
    })
}

/// Reads the arguments (without the program's name) and the environment.
///
/// # Errors
/// A message of one line, without any password.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &Environment,
) -> Result<CommandLine, UsageError> {
    let line = NormalizedArgs::read(arguments)?;
    let given = options::getopts()
        .parse(&line.options)
        .map_err(|fail| UsageError(describe(&fail, "client", &line.options, &options::names())))?;
    if given.opt_present("help") {
        return Ok(CommandLine::Show(options::usage()));
    }
    if given.opt_present("version") {
        return Ok(CommandLine::Show(format!("client {}\n", env!("CARGO_PKG_VERSION"))));
    }
    let last = last(&given)?;
    let mut invocations = invocations(&given, last)?;
    if !given.free.is_empty() {
        let after = line.stray.map(|option| format!(" after {option}")).unwrap_or_default();
        return Err(UsageError(format!("{UNEXPECTED}{after}")));
    }
    invocations.extend(line.raw.map(raw).transpose()?);
    let live = live(&given, last)?;
    if invocations.is_empty() && live.is_none() {
        return Err(UsageError("no command given; client -h lists them".to_owned()));
    }
    let servers = servers::servers(&given, environment)?;
    if servers.len() > 1 && matches!(live, Some(Live::Watch(_))) {
        return Err(UsageError(format!("-w: one server expected, not {}", servers.len())));
    }
    let wait =
        given.opt_str("wait").map(|text| time("--wait", &text, MAX_WAIT_SECONDS)).transpose()?;
    let login = login::login(&given, environment)?;
    let (json, quiet) = (given.opt_present("json"), given.opt_present("quiet"));
    Ok(CommandLine::Run(Args { servers, wait, login, json, quiet, invocations, live }))
}

/// The commands of the options, in command-line order.
fn invocations(given: &Matches, last: Option<u64>) -> Result<Vec<Invocation>, UsageError> {
    let mut invocations = Vec::new();
    for option in options::all() {
        let name = option.long.trim_start_matches('-');
        let values = given.opt_strs_pos(name);
        for at in given.opt_positions(name) {
            let value = values.iter().find(|(place, _)| *place == at);
            let value = value.map(|(_, value)| value.as_str());
            if option.long == "--import" {
                let path = OsString::from_vec(latin1_encode(value.unwrap_or_default()));
                let file = UsersFile::new(path.into());
                invocations.push((at, Invocation::import(option.name(), file)));
                continue;
            }
            let command = command(option.long, value, last)?;
            invocations
                .extend(command.map(|command| (at, Invocation::command(option.name(), command))));
        }
    }
    invocations.sort_by_key(|(at, _)| *at);
    Ok(invocations.into_iter().map(|(_, invocation)| invocation).collect())
}

/// The command of an option; `None` for an option that is no command. `last` is the value of `-n`.
fn command(
    option: &str,
    value: Option<&str>,
    last: Option<u64>,
) -> Result<Option<Command>, UsageError> {
    let text = value.unwrap_or_default();
    let some_name = || value.map(|name| existing(option, name)).transpose();
    let command = match option {
        "--metrics" => Command::GetMetrics,
        "--metrics-all" => Command::GetAllMetrics,
        "--user-metrics" => Command::UserMetrics(some_name()?),
        "--connections" => Command::Connections(some_name()?),
        "--logs" => Command::GetLogs(LogSelection { last, user: None }),
        "--info" => Command::Info,
        "--capabilities" => Command::Capabilities,
        "--users" => Command::Users,
        "--add-user" => new_user(text)?,
        "--delete-user" => Command::DeleteUser(existing("-d", text)?),
        "--set-role" => {
            let (name, Some(role)) = values(text) else { return Err(needs_two("-r")) };
            let wrong = || UsageError(bad_value("-r", role, &"user or admin"));
            let role = Role::parse(&latin1_encode(role)).ok_or_else(wrong)?;
            Command::SetRole(existing("-r", name)?, role)
        }
        "--password" => {
            Command::ChangePassword { name: existing(option, text)?, password: Vec::new() }
        }
        "--generate" => {
            let name = existing(option, text)?;
            if !acceptable_name(&name) {
                return Err(UsageError(format!("{option} {}: {NAME_RULE}", Escaped(&name))));
            }
            Command::GeneratePassword(name)
        }
        "--lock" => Command::LockUser(existing(option, text)?),
        "--unlock" => Command::UnlockUser(existing(option, text)?),
        "--limits" => Command::Limits(value.map(|user| subject(option, user)).transpose()?),
        "--set-limit" => {
            let (user, Some(limits)) = values(text) else { return Err(needs_two(option)) };
            Command::SetLimit(subject(option, user)?, limit_words(option, limits)?)
        }
        "--reset-usage" => Command::ResetUsage(existing(option, text)?),
        "--reload" => Command::Reload(false),
        "--reload-cut" => Command::Reload(true),
        "--kill" => Command::Kill(ConnectionId::parse(&latin1_encode(text)).map_err(|_| {
            UsageError(bad_value(option, text, &"an id as --connections shows it"))
        })?),
        "--kill-user" => Command::KillUser(existing(option, text)?),
        "--config" => Command::ConfigGet(some_name()?),
        "--set" => {
            let (key, value) = text
                .split_once('=')
                .filter(|(key, value)| !key.is_empty() && !value.is_empty())
                .ok_or_else(|| UsageError(bad_value(option, text, &"KEY=VALUE")))?;
            Command::ConfigSet { key: latin1_encode(key), value: latin1_encode(value) }
        }
        "--save" => Command::ConfigSave(existing(option, text)?),
        "--trust" => Command::Trust,
        "--trust-add" => Command::TrustAdd(network(option, text)?),
        "--trust-delete" => Command::TrustDelete(network(option, text)?),
        "--change-buffer" => {
            let (least, most) = (BUFFER_SIZES.start(), BUFFER_SIZES.end());
            let bytes = format!("{least} to {most} bytes ({})", quantity::SIZE_UNITS);
            let size = quantity::size(text).and_then(|size| usize::try_from(size).ok());
            let size = size.filter(|size| BUFFER_SIZES.contains(size));
            let wrong = || UsageError(bad_value("-c", text, &bytes));
            Command::ChangeBuffer(size.ok_or_else(wrong)?)
        }
        "--shutdown" => {
            Command::Shutdown(value.map(|text| time(option, text, LONGEST_GRACE)).transpose()?)
        }
        _ => return rules::command(option, text),
    };
    Ok(Some(command))
}

/// The account of this name, or all that do not say otherwise (`*`).
fn subject(option: &str, user: &str) -> Result<Subject, UsageError> {
    existing(option, user)?;
    Ok(Subject::parse(&latin1_encode(user)))
}

/// Limits with blanks between them.
fn limit_words(option: &str, text: &str) -> Result<Vec<LimitWord>, UsageError> {
    let wrong = || UsageError(bad_value(option, text, &"KEY=VALUE ..."));
    let word = |word: &str| LimitWord::parse(&latin1_encode(word)).ok_or_else(wrong);
    let words: Vec<LimitWord> =
        text.split(' ').filter(|text| !text.is_empty()).map(word).collect::<Result<_, _>>()?;
    if words.is_empty() { Err(wrong()) } else { Ok(words) }
}

/// The command of `-a`. Its password is empty if it has to be asked for: if it is `-` or missing. A name or
/// password that METP does not allow is refused here.
fn new_user(text: &str) -> Result<Command, UsageError> {
    let (name, password) = values(text);
    if password.is_none()
        && let Some((name, _)) = split_account(&latin1_encode(name))
    {
        // The rest may be a password, and is not shown.
        return Err(UsageError(format!("-a {}: USER PASS expected, no colon", Escaped(name))));
    }
    let (shown, name) = (Escaped(&latin1_encode(name)).to_string(), latin1_encode(name));
    if !acceptable_name(&name) {
        return Err(UsageError(format!("-a {shown}: {NAME_RULE}")));
    }
    let Some(password) = password.filter(|password| *password != "-").map(latin1_encode) else {
        return Ok(Command::AddUser { name, password: Vec::new() });
    };
    let password = without_line_end(&password).to_vec();
    check_password(&password).map_err(|wrong| UsageError(format!("-a {shown}: {wrong}")))?;
    if !acceptable_password(&password) {
        return Err(UsageError(format!("-a {shown}: {PASSWORD_RULE}")));
    }
    Ok(Command::AddUser { name, password })
}

/// Parses the network of an option.
fn network(option: &str, text: &str) -> Result<Network, UsageError> {
    Network::parse(text).map_err(|expected| UsageError(bad_value(option, text, &expected)))
}

/// Parses the time of an option: 0 to `longest` seconds.
fn time(option: &str, text: &str, longest: u32) -> Result<Duration, UsageError> {
    let most = Duration::from_secs(longest.into());
    quantity::time(text)
        .filter(|time| *time <= most)
        .ok_or_else(|| bad_time(option, text, 0, longest))
}

/// The error of a time that is malformed or out of range.
fn bad_time(
    option: &str,
    text: &str,
    least: impl fmt::Display,
    most: impl fmt::Display,
) -> UsageError {
    let rule = format_args!("{least} to {most} seconds ({})", quantity::TIME_UNITS).to_string();
    UsageError(bad_value(option, text, &rule))
}

/// The value of `-n`.
fn last(given: &Matches) -> Result<Option<u64>, UsageError> {
    let Some(text) = given.opt_str("last") else { return Ok(None) };
    if !given.opt_present("logs") && !given.opt_present("follow") {
        return Err(UsageError("-n: -g or -f expected with it".to_owned()));
    }
    let number = quantity::count(&text);
    let wrong = || UsageError(bad_value("-n", &text, &format_args!("0 to {MAX_RECORDS}")));
    number.filter(|number| *number <= MAX_RECORDS).map(Some).ok_or_else(wrong)
}

/// The line of METP after `--`.
fn raw(words: Vec<String>) -> Result<Invocation, UsageError> {
    let line = latin1_encode(&words.join(" "));
    // LINE_LIMIT includes the LF.
    if line.len() >= LINE_LIMIT {
        let most = LINE_LIMIT.saturating_sub(1);
        let text = format!("--: the line has {} bytes, the most is {most}", line.len());
        return Err(UsageError(text));
    }
    if line.is_empty() || !fits_in_a_line(&line) {
        return Err(UsageError("--: one line of METP expected".to_owned()));
    }
    Ok(Invocation::line(line))
}

fn live(given: &Matches, last: Option<u64>) -> Result<Option<Live>, UsageError> {
    match (given.opt_present("watch"), given.opt_present("follow")) {
        (false, false) => Ok(None),
        (false, true) => Ok(Some(Live::Follow(last.unwrap_or(0)))),
        (true, true) => Err(UsageError("-w and -f: one of them expected".to_owned())),
        (true, false) => {
            let text = given.opt_str("watch").unwrap_or_else(|| "1".to_owned());
            let every = quantity::time(&text)
                .filter(|every| INTERVAL_SECONDS.contains(&every.as_secs_f64()));
            every.map(|every| Some(Live::Watch(every))).ok_or_else(|| {
                bad_time("-w", &text, INTERVAL_SECONDS.start(), INTERVAL_SECONDS.end())
            })
        }
    }
}

/// The name of an existing account, setting or the like, with the escapes `\xHH` that the server shows.
fn existing(option: &str, name: &str) -> Result<Vec<u8>, UsageError> {
    let name = unescape(&latin1_encode(name)).into_owned();
    if name.is_empty() {
        return Err(UsageError(format!("{option}: the name is empty")));
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
