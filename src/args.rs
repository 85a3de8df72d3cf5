//! Layer 5: the command line and `PROXY_CTRL_SUPERUSER`, turned into plain data.

mod config_file;
mod log_options;
mod options;
mod print;
mod values;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use common::usage::UNEXPECTED;
use getopts::{Fail, Matches};

use crate::state::knobs::{KNOBS, Source};
use crate::state::settings::Settings;
use crate::workers::durable;
pub use log_options::{AccessLogTo, LogFormat, LogOptions};
use metp_protocol::text::{Escaped, latin1_decode, latin1_encode, without_line_end};
pub use options::passwords;
use options::{PLAIN_OPTIONS, describe_failure, is_flag, options};
use values::Listeners;

/// The variable that creates the administrator.
pub const SUPERUSER_VARIABLE: &str = "PROXY_CTRL_SUPERUSER";
/// The variable that names a file with the value of [`SUPERUSER_VARIABLE`], such as a secret of a container.
pub const SUPERUSER_FILE_VARIABLE: &str = "PROXY_CTRL_SUPERUSER_FILE";

/// What the command line asks for.
#[derive(Debug)]
pub enum CommandLine {
    /// Show this text and exit.
    Show(String),
    /// Read a password, print its hash and exit.
    HashPassword,
    /// Check the files that are named, and exit.
    Check(Box<Args>),
    /// Serve.
    Serve(Box<Args>),
}

/// A name and a password, of 1 to 255 bytes each.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name: no `:` in it, and no control character.
    pub name: Vec<u8>,
    /// The password: no control character.
    pub password: Vec<u8>,
}

/// The names or numbers of a user and a group, which are not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunAs {
    /// The user.
    pub user: Vec<u8>,
    /// The group; `None`: that of the user.
    pub group: Option<Vec<u8>>,
}

impl RunAs {
    /// As it was given.
    pub fn text(&self) -> Vec<u8> {
        let group = self.group.iter().flat_map(|group| [&b":"[..], group]);
        [&self.user[..]].into_iter().chain(group).collect::<Vec<_>>().concat()
    }
}

/// Shows the name alone.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", Escaped(&self.name))
    }
}

/// Everything that can be set from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args {
    /// Address of the SOCKS service; `None` is all interfaces.
    pub listen: Option<IpAddr>,
    /// Its port.
    pub port: u16,
    /// Address of the METP service.
    pub metp_listen: IpAddr,
    /// Its port.
    pub metp_port: u16,
    /// Address of HTTP, for monitoring; `None`: there is none.
    pub http: Option<SocketAddr>,
    /// The administrator.
    pub superuser: Option<Login>,
    /// The users file.
    pub users_file: Option<PathBuf>,
    /// Whether the users file is changed by others alone.
    pub users_fixed: bool,
    /// The file of rules.
    pub rules_file: Option<PathBuf>,
    /// The state directory.
    pub state: Option<PathBuf>,
    /// The user that the process becomes once its ports are bound.
    pub run_as: Option<RunAs>,
    /// The file with the number of the process.
    pub pid_file: Option<PathBuf>,
    /// The socket at which a new server asks for the listeners of the one before.
    pub takeover: Option<PathBuf>,
    /// Accounts of role user. None of them has the administrator's name.
    pub users: Vec<Login>,
    /// Whether `-u` named the administrator too; it was ignored.
    pub superuser_repeated: bool,
    /// Where the logs go.
    pub logs: LogOptions,
    /// The initial settings. The two below are computed later if they were not given.
    pub settings: Settings,
    /// Whether `--max-connections` was given; otherwise descriptors and address space decide.
    pub max_connections_given: bool,
    /// Where each option comes from.
    pub sources: Sources,
    /// Whether others than its owner may read passwords in the configuration file.
    pub config_exposed: bool,
    /// With a configuration file, the command line, for [`read_again`].
    pub command_line: Option<Vec<String>>,
    /// Whether `--buffer-memory` was given; otherwise the address space decides.
    pub buffer_memory_given: bool,
}

/// A wrong command line, or a wrong configuration file; displays as the messages.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageError(Vec<String>);

impl UsageError {
    fn new(text: String) -> Self {
        UsageError(vec![text])
    }

    /// What is wrong, in lines.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// Where the options that are given come from. Those that are not given have their defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(BTreeMap<String, Source>);

impl Sources {
    fn of(command_line: &Matches, of_file: &[String]) -> Self {
        let file = of_file.iter().map(|key| (key.clone(), Source::File));
        let plain = PLAIN_OPTIONS.iter().map(|option| option.long.trim_start_matches('-'));
        let all = plain.chain(KNOBS.iter().map(|knob| knob.key));
        let option = all.filter(|key| command_line.opt_present(key));
        Sources(file.chain(option.map(|key| (key.to_owned(), Source::Option))).collect())
    }

    /// Where an option comes from.
    pub fn of_key(&self, key: &str) -> Source {
        self.0.get(key).copied().unwrap_or(Source::Default)
    }
}

/// Reads the arguments (without the program's name) and the value of [`SUPERUSER_VARIABLE`].
///
/// # Errors
/// One line that names the option and its value, but never a password.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    superuser: Option<&OsStr>,
) -> Result<CommandLine, UsageError> {
    let options = options();
    let arguments: Vec<String> =
        arguments.into_iter().map(|argument| latin1_decode(argument.as_bytes())).collect();
    let wrong =
        |fail: Fail, arguments: &[String]| UsageError::new(describe_failure(&fail, arguments));
    let given = options.parse(&arguments).map_err(|fail| wrong(fail, &arguments))?;
    if given.opt_present("help") {
        let brief = "Usage: socks5d [options]\n\nA SOCKS5 proxy that is administered while it runs. \
                     PROXY_CTRL_SUPERUSER=NAME:PASS\ncreates the administrator.\n\n\
                     SECONDS may have a unit: ms, s, m, h or d; so may BYTES: k, M, G or T (by 1024).";
        return Ok(CommandLine::Show(options.usage(brief)));
    }
    if given.opt_present("version") {
        return Ok(CommandLine::Show(format!("socks5d {}\n", env!("CARGO_PKG_VERSION"))));
    }
    if given.opt_present("hash-password") {
        return match arguments.len() {
            1 => Ok(CommandLine::HashPassword),
            _ => Err(UsageError::new("--hash-password stands alone".to_owned())),
        };
    }
    let Some(path) = given.opt_str("config") else {
        let sources = Sources::of(&given, &[]);
        return decide(&given, superuser, sources);
    };
    if path.is_empty() {
        return Err(values::bad("config", "", &"the name of a file"));
    }
    // What is wrong with the command line comes first. Whether its parts fit together is seen with those of the file.
    values::check(&given)?;
    let command_line = without_accounts(&given);
    let path = PathBuf::from(OsString::from_vec(latin1_encode(&path)));
    let file = config_file::arguments(&path, &given).map_err(UsageError)?;
    let sources = Sources::of(&given, &file.keys);
    let all: Vec<String> = file.arguments.into_iter().chain(arguments).collect();
    let given = options.parse(&all).map_err(|fail| wrong(fail, &all))?;
    let mut decided = decide(&given, superuser, sources)?;
    if let CommandLine::Serve(args) = &mut decided {
        args.command_line = Some(command_line);
        args.config_exposed = file.exposed;
    }
    Ok(decided)
}

/// Reads the command line that [`Args::command_line`] has kept, and the configuration file that it names, again.
///
/// # Errors
/// All that is wrong with the file.
pub fn read_again(command_line: &[String]) -> Result<Args, UsageError> {
    match parse(command_line.iter().map(|text| OsString::from_vec(latin1_encode(text))), None)? {
        CommandLine::Serve(args) => Ok(*args),
        _ => Err(UsageError::new("the command line is another one".to_owned())),
    }
}

/// The command line without what has been done with it at the start: accounts, and what to do. It can be read again with
/// the configuration file, and holds no password.
fn without_accounts(given: &Matches) -> Vec<String> {
    let kept = |key: &&str| !["user", "check-config", "print-config"].contains(key);
    let plain = PLAIN_OPTIONS.iter().map(|option| option.long.trim_start_matches('-'));
    let keys = plain.chain(KNOBS.iter().map(|knob| knob.key)).filter(kept);
    keys.flat_map(|key| {
        let flag = is_flag(key) && given.opt_present(key);
        let values = if is_flag(key) { Vec::new() } else { given.opt_strs(key) };
        let values = values.into_iter().map(move |value| format!("--{key}={value}"));
        values.chain(flag.then(|| format!("--{key}")))
    })
    .collect()
}

/// What is to be done with these options.
fn decide(
    given: &Matches,
    superuser: Option<&OsStr>,
    sources: Sources,
) -> Result<CommandLine, UsageError> {
    // The accounts first: in `-u NAME PASS` the error to report is the missing colon.
    let args = Box::new(serve(given, superuser, sources)?);
    if !given.free.is_empty() {
        return Err(UsageError::new(UNEXPECTED.to_owned()));
    }
    Ok(match (given.opt_present("check-config"), given.opt_present("print-config")) {
        (false, false) => CommandLine::Serve(args),
        (false, true) => CommandLine::Show(print::configuration(given, &args)?),
        (true, false) => CommandLine::Check(args),
        (true, true) => {
            let text = "--check-config and --print-config: one of them expected";
            return Err(UsageError::new(text.to_owned()));
        }
    })
}

fn serve(given: &Matches, superuser: Option<&OsStr>, sources: Sources) -> Result<Args, UsageError> {
    let superuser = superuser
        .map(|text| values::login(SUPERUSER_VARIABLE, without_line_end(text.as_bytes())))
        .transpose()?;
    let mut users = values::accounts(given)?;
    let named = users.len();
    users.retain(|user| superuser.as_ref().is_none_or(|superuser| superuser.name != user.name));
    let settings = values::settings(given)?;
    let (users_file, state) = (values::users(given)?, values::state(given)?);
    let rules_file = values::rules(given)?;
    let logs = values::logs(given)?;
    let Listeners { listen, port, metp_listen, metp_port, http } = values::listeners(given)?;
    let users_fixed = given.opt_present("users-fixed");
    if users_fixed && users_file.is_none() {
        return Err(UsageError::new("--users-fixed: there is no --users".to_owned()));
    }
    Ok(Args {
        listen,
        port,
        metp_listen,
        metp_port,
        http,
        superuser,
        users_file,
        users_fixed,
        rules_file,
        state,
        run_as: values::run_as(given)?,
        pid_file: values::pid_file(given)?,
        takeover: values::takeover(given)?,
        logs,
        sources,
        config_exposed: false,
        command_line: None,
        superuser_repeated: users.len() < named,
        users,
        settings,
        max_connections_given: given.opt_present("max-connections"),
        buffer_memory_given: given.opt_present("buffer-memory"),
    })
}

/// The value of [`SUPERUSER_VARIABLE`], or of the file that [`SUPERUSER_FILE_VARIABLE`] names. That file may be missing
/// where it would be a credential, in the directory `credentials` of systemd.exec(5), which leaves out those that it
/// does not find.
///
/// # Errors
/// If both are set, or the file cannot be read.
pub fn superuser(
    variable: Option<OsString>,
    file: Option<&OsStr>,
    credentials: Option<&OsStr>,
) -> Result<Option<OsString>, UsageError> {
    /// A name and a password have 511 bytes with their colon.
    const MOST_BYTES: u64 = 4096;
    let Some(path) = file else { return Ok(variable) };
    if variable.is_some() {
        let text = format!("{SUPERUSER_FILE_VARIABLE}: {SUPERUSER_VARIABLE} is set, too");
        return Err(UsageError::new(text));
    }
    let read = durable::read(path.as_ref(), MOST_BYTES);
    let is_missing = read.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    let directory = credentials.filter(|directory| !directory.is_empty());
    if is_missing && directory.is_some_and(|directory| PathBuf::from(path).starts_with(directory)) {
        return Ok(None);
    }
    let (content, _) = read.map_err(|error| {
        let path = Escaped(path.as_bytes());
        UsageError::new(format!("{SUPERUSER_FILE_VARIABLE}={path}: cannot read it: {error}"))
    })?;
    Ok(Some(OsString::from_vec(content)))
}

/// The arguments that a configuration file with this text stands for.
///
/// # Errors
/// What is wrong with it, with the numbers of the lines.
pub fn config_text(content: &[u8]) -> Result<Vec<String>, Vec<(usize, String)>> {
    let settings = config_file::text(content)?;
    Ok(settings.into_iter().filter_map(|setting| setting.argument).collect())
}

#[cfg(test)]
mod tests;
