//! The command line and `METP_AUTH`, turned into plain data.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::Ipv6Addr;
use std::os::unix::ffi::OsStrExt;

use getopts::{Matches, Options};
use socks5d::args::{UNEXPECTED, describe, shown};
use socks5d::proto::metp::{Command, LogSelection, Role};
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
    /// The commands, in the order in which they were given; at least one.
    pub commands: Vec<Command>,
}

/// A name, and a password unless it is to be asked for.
pub struct Login {
    /// The account's name.
    pub name: Vec<u8>,
    /// Its password.
    pub password: Option<Vec<u8>>,
}

/// A command line that means nothing; displays as the line to show.
#[derive(Debug, PartialEq, Eq)]
pub struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Options by both their names, with the number of their values.
const OPTIONS: [(&str, &str, usize); 12] = [
    ("-h", "--help", 0),
    ("-v", "--version", 0),
    ("-H", "--host", 1),
    ("-p", "--port", 1),
    ("-u", "--user", 1),
    ("-m", "--metrics", 0),
    ("-g", "--logs", 0),
    ("-l", "--users", 0),
    ("-a", "--add-user", 2),
    ("-d", "--delete-user", 1),
    ("-r", "--set-role", 2),
    ("-c", "--change-buffer", 1),
];

/// What an older client called them. They work and are not advertised.
const ALIASES: [(&str, &str); 6] = [
    ("--gm", "--metrics"),
    ("--gl", "--logs"),
    ("--au", "--add-user"),
    ("--du", "--delete-user"),
    ("--sr", "--set-role"),
    ("--cb", "--change-buffer"),
];

/// Stands between two values of one option; no argument can hold it.
const BETWEEN: char = '\0';

fn options() -> Options {
    let mut options = Options::new();
    options
        .optflag("h", "help", "show this help and exit")
        .optflag("v", "version", "show the version and exit")
        .optopt("H", "host", "name or address of the server (default 127.0.0.1)", "HOST")
        .optopt("p", "port", "its METP port (default 8080)", "PORT")
        .optopt("u", "user", "who gives the commands (default: METP_AUTH)", "USER[:PASS]")
        .optflagmulti("m", "metrics", "show the metrics")
        .optflagmulti("g", "logs", "show the access log")
        .optflagmulti("l", "users", "show the users")
        .optmulti("a", "add-user", "add a user; may be repeated", "USER PASS")
        .optmulti("d", "delete-user", "delete a user", "USER")
        .optmulti("r", "set-role", "make a user `user` or `admin`", "USER ROLE")
        .optmulti("c", "change-buffer", "set the buffer size", "BYTES");
    options
}

/// Reads the arguments (without the program's name) and the value of [`LOGIN_VARIABLE`].
///
/// # Errors
/// One line that names what is wrong, but never a password.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Option<&OsStr>,
) -> Result<Invocation, Usage> {
    let options = options();
    let given = options.parse(joined(arguments)?).map_err(|fail| Usage(describe(&fail)))?;
    if given.opt_present("help") {
        let brief = "Usage: client [-H HOST] [-p PORT] -u USER[:PASS] COMMAND...\n\n\
                     Administers a running socks5d over METP. Commands: -m -g -l -a -d -r -c.";
        return Ok(Invocation::Show(options.usage(brief)));
    }
    if given.opt_present("version") {
        return Ok(Invocation::Show(format!("client {}\n", env!("CARGO_PKG_VERSION"))));
    }
    if !given.free.is_empty() {
        return Err(Usage(UNEXPECTED.to_owned()));
    }
    let commands = commands(&given)?;
    if commands.is_empty() {
        return Err(Usage("no command: one of -m -g -l -a -d -r -c expected".to_owned()));
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
        Some(text) => decimal(&text)
            .and_then(|number| u16::try_from(number).ok())
            .filter(|port| *port > 0)
            .ok_or_else(|| Usage(format!("-p {}: 1 to 65535 expected", shown(&text))))?,
    };
    let login = login(given.opt_str("user"), environment)?;
    Ok(Invocation::Talk(Args { host, port, login, commands }))
}

/// Arguments as text, aliases by their names, and the two values of an option as one.
fn joined(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<String>, Usage> {
    let mut arguments = arguments.into_iter().map(|argument| widen(argument.as_bytes()));
    let mut joined = Vec::new();
    while let Some(argument) = arguments.next() {
        let argument = advertised(argument);
        let values = OPTIONS
            .iter()
            .find(|(short, long, _)| argument == *short || argument == *long)
            .map_or(0, |(_, _, values)| *values);
        let first = arguments.by_ref().take(values.min(1)).next();
        match (first, values) {
            (Some(first), 2) => {
                let second = arguments.next().filter(|second| !is_option(second));
                let Some(second) = second else {
                    return Err(Usage(format!("{argument}: needs two values")));
                };
                joined.extend([argument, format!("{first}{BETWEEN}{second}")]);
            }
            (first, _) => joined.extend([argument].into_iter().chain(first)),
        }
    }
    Ok(joined)
}

/// Whether this is an option of this program: more likely the value before it was forgotten.
fn is_option(text: &str) -> bool {
    OPTIONS.iter().any(|(short, long, _)| text == *short || text == *long)
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

/// The commands in the order in which they stand on the line.
fn commands(given: &Matches) -> Result<Vec<Command>, Usage> {
    let mut commands = Vec::new();
    for (name, command) in [
        ("metrics", Command::GetMetrics),
        ("logs", Command::GetLogs(LogSelection::default())),
        ("users", Command::Users),
    ] {
        commands.extend(given.opt_positions(name).into_iter().map(|at| (at, command.clone())));
    }
    for (at, pair) in given.opt_strs_pos("add-user") {
        let (name, password) = two("-a", &pair)?;
        let command = Command::AddUser { name: narrow(name), password: narrow(password) };
        if command.encode().is_none() {
            let name = Escaped(&narrow(name)).to_string();
            return Err(Usage(format!("-a {name}: the password is empty or holds a line end")));
        }
        commands.push((at, command));
    }
    for (at, name) in given.opt_strs_pos("delete-user") {
        commands.push((at, Command::DeleteUser(existing("-d", &name)?)));
    }
    for (at, pair) in given.opt_strs_pos("set-role") {
        let (name, role) = two("-r", &pair)?;
        let role = Role::parse(&narrow(role))
            .ok_or_else(|| Usage(format!("-r {}: user or admin expected", shown(role))))?;
        commands.push((at, Command::SetRole(existing("-r", name)?, role)));
    }
    for (at, size) in given.opt_strs_pos("change-buffer") {
        let number = decimal(&size)
            .ok_or_else(|| Usage(format!("-c {}: a number of bytes expected", shown(&size))))?;
        commands.push((at, Command::ChangeBuffer(number)));
    }
    commands.sort_by_key(|(at, _)| *at);
    Ok(commands.into_iter().map(|(_, command)| command).collect())
}

fn two<'a>(option: &str, pair: &'a str) -> Result<(&'a str, &'a str), Usage> {
    pair.split_once(BETWEEN).ok_or_else(|| Usage(format!("{option}: needs two values")))
}

/// A name as the server shows it, `\xHH` and all.
fn existing(option: &str, name: &str) -> Result<Vec<u8>, Usage> {
    let name = unescape(&narrow(name)).into_owned();
    if name.is_empty() { Err(Usage(format!("{option}: the name is empty"))) } else { Ok(name) }
}

fn login(option: Option<String>, environment: Option<&OsStr>) -> Result<Login, Usage> {
    let (source, text) = match (option, environment) {
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
    Ok(Login { name, password: password.map(<[u8]>::to_vec) })
}

fn decimal(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &[&str]) -> Result<Args, String> {
        match parse(line.iter().map(OsString::from), None) {
            Ok(Invocation::Talk(args)) => Ok(args),
            Ok(Invocation::Show(text)) => Err(text),
            Err(usage) => Err(usage.to_string()),
        }
    }

    /// The lines that would be sent.
    fn lines(line: &[&str]) -> Result<String, String> {
        let line = [&["-u", "admin:1234"], line].concat();
        let commands = args(&line)?.commands;
        let encoded = commands.iter().filter_map(Command::encode).collect::<Vec<_>>().concat();
        Ok(String::from_utf8_lossy(&encoded).into_owned())
    }

    #[test]
    fn defaults() {
        let args = args(&["-u", "admin:12:34", "-m"]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((args.host.as_str(), args.port), ("127.0.0.1", 8080));
        assert_eq!(args.login.name, b"admin");
        assert_eq!(args.login.password.as_deref(), Some(&b"12:34"[..]));
    }

    #[test]
    fn every_option_and_every_alias() {
        for (line, says) in [
            (&["-m"][..], "GET_METRICS\n"),
            (&["--metrics"], "GET_METRICS\n"),
            (&["--gm"], "GET_METRICS\n"),
            (&["-g"], "GET_LOGS\n"),
            (&["--logs"], "GET_LOGS\n"),
            (&["--gl"], "GET_LOGS\n"),
            (&["-l"], "USERS\n"),
            (&["--users"], "USERS\n"),
            (&["-a", "bob", "pass"], "ADD-USER bob pass\n"),
            (&["--add-user", "bob", "pass"], "ADD-USER bob pass\n"),
            (&["--au", "bob", "pass"], "ADD-USER bob pass\n"),
            (&["-a", "bob", "-secret"], "ADD-USER bob -secret\n"),
            (&["-H", "fe80::1%lo", "-m"], "GET_METRICS\n"),
            (&["-a", "bob", "two words"], "ADD-USER bob two words\n"),
            (&["-a", "a", "1", "-a", "b", "2"], "ADD-USER a 1\nADD-USER b 2\n"),
            (&["-d", "bob"], "DELETE-USER bob\n"),
            (&["--delete-user=bob"], "DELETE-USER bob\n"),
            (&["--du", "bob"], "DELETE-USER bob\n"),
            (&["--du=bob"], "DELETE-USER bob\n"),
            (&["-d", "a b"], "DELETE-USER a\\x20b\n"),
            (&["-d", "a\\x20b"], "DELETE-USER a\\x20b\n"),
            (&["-r", "bob", "admin"], "SET-ROLE bob admin\n"),
            (&["--set-role", "bob", "user"], "SET-ROLE bob user\n"),
            (&["--sr", "bob", "user"], "SET-ROLE bob user\n"),
            (&["-c", "4096"], "CHANGE-BUFFER 4096\n"),
            (&["--change-buffer", "1"], "CHANGE-BUFFER 1\n"),
            (&["--cb", "0"], "CHANGE-BUFFER 0\n"),
            (
                &["-c", "1", "-m", "-d", "x", "-g"],
                "CHANGE-BUFFER 1\nGET_METRICS\nDELETE-USER x\nGET_LOGS\n",
            ),
        ] {
            assert_eq!(lines(line).as_deref(), Ok(says), "{line:?}");
        }
    }

    #[test]
    fn bad_usage_is_named_without_passwords() {
        for (line, says) in [
            (&["-m"][..], "no user: -u USER:PASS or METP_AUTH expected"),
            (&["-u", "a:b"], "no command: one of -m -g -l -a -d -r -c expected"),
            (&["-u", ":b", "-m"], "-u: the name is empty"),
            (&["-u", "a:", "-m"], "-u a: the password is empty or holds a line end"),
            (&["-u", "a:b\nQUIT", "-m"], "-u a: the password is empty or holds a line end"),
            (&["-u", "a:b", "-m", "x"], UNEXPECTED),
            (&["-u", "a:b", "-x"], "-x: unknown option"),
            (&["-u", "a:b", "-a", "bob"], "-a: needs two values"),
            (&["-u", "a:b", "-a"], "-a: needs a value"),
            (&["-u", "a:b", "-a", "bob", "-l"], "-a: needs two values"),
            (
                &["-u", "a:b", "-H", "127.0.0.1:8080", "-m"],
                "-H \"127.0.0.1:8080\": no address; the port is given by -p",
            ),
            (&["-u", "a:b", "-a", "bob", ""], "-a bob: the password is empty or holds a line end"),
            (&["-u", "a:b", "-r", "bob", "root"], "-r \"root\": user or admin expected"),
            (&["-u", "a:b", "-c", "4096abc"], "-c \"4096abc\": a number of bytes expected"),
            (&["-u", "a:b", "-c", "-1"], "-c \"-1\": a number of bytes expected"),
            (&["-u", "a:b", "-p", "0", "-m"], "-p \"0\": 1 to 65535 expected"),
            (&["-u", "a:b", "-H", "", "-m"], "-H \"\": a name or an address expected"),
            (&["-u", "a:b", "-u", "c:d", "-m"], "--user: given more than once"),
        ] {
            assert_eq!(args(line).err().as_deref(), Some(says), "{line:?}");
        }
    }

    #[test]
    fn the_variable_stands_in_for_the_option() {
        let parse = |line: &[&str], variable: &str| match parse(
            line.iter().map(OsString::from),
            Some(OsStr::new(variable)),
        ) {
            Ok(Invocation::Talk(args)) => (args.login.name, args.login.password),
            _ => panic!("a good call"),
        };
        assert_eq!(parse(&["-m"], "bob:x"), (b"bob".to_vec(), Some(b"x".to_vec())));
        assert_eq!(parse(&["-m"], "bob"), (b"bob".to_vec(), None));
        assert_eq!(parse(&["-m", "-u", "amy:y"], "bob:x").0, b"amy");
    }

    #[test]
    fn help_shows_every_option_and_no_alias() {
        let help = args(&["-h"]).err().unwrap_or_default();
        for (short, long, _) in OPTIONS {
            assert!(help.contains(&format!("{short}, {long}")), "{long}");
        }
        assert!(ALIASES.iter().all(|(alias, _)| !help.contains(alias)));
        assert!(args(&["-v"]).err().unwrap_or_default().starts_with("client 0."));
    }
}
