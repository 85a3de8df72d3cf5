//! Layer 5: the command line and `PROXY_CTRL_SUPERUSER`, turned into plain data.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::{Range, RangeInclusive};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use common::secrets::{Takes, secrets};
use common::usage::{OptionName, UNEXPECTED, bad_value, describe};
use getopts::{Matches, Options};

use crate::reactor::family::PerFamily;
use crate::state::knobs::{KNOBS, Knob};
use crate::state::settings::{LocalFor, MOST_NETWORKS, Settings};
use crate::state::users::TRUSTED_NAME;
use metp_protocol::network::Network;
use metp_protocol::quantity::is_digits;
use metp_protocol::text::{
    Escaped, ip_literal, latin1_decode, latin1_encode, split_account, without_line_end,
};

/// The variable that creates the administrator.
pub const SUPERUSER_VARIABLE: &str = "PROXY_CTRL_SUPERUSER";

/// What the command line asks for.
#[derive(Debug)]
pub enum CommandLine {
    /// Show this text and exit.
    Show(String),
    /// Read a password, print its hash and exit.
    HashPassword,
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
    /// The administrator.
    pub superuser: Option<Login>,
    /// The users file.
    pub users_file: Option<PathBuf>,
    /// Whether the users file is changed by others alone.
    pub users_fixed: bool,
    /// The state directory.
    pub state: Option<PathBuf>,
    /// Accounts of role user. None of them has the administrator's name.
    pub users: Vec<Login>,
    /// Whether `-u` named the administrator too; it was ignored.
    pub superuser_repeated: bool,
    /// The initial settings. The two below are computed later if they were not given.
    pub settings: Settings,
    /// Whether `--max-connections` was given; otherwise descriptors and address space decide.
    pub max_connections_given: bool,
    /// Whether `--buffer-memory` was given; otherwise the address space decides.
    pub buffer_memory_given: bool,
}

/// A wrong command line; displays as the message.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The options that are not settings.
const PLAIN_OPTIONS: [OptionName; 17] = [
    OptionName { short: "-h", long: "--help" },
    OptionName { short: "-v", long: "--version" },
    OptionName { short: "-l", long: "--listen" },
    OptionName { short: "-p", long: "--port" },
    OptionName { short: "-L", long: "--metp-listen" },
    OptionName { short: "-P", long: "--metp-port" },
    OptionName { short: "-u", long: "--user" },
    OptionName { short: "", long: "--users" },
    OptionName { short: "", long: "--users-fixed" },
    OptionName { short: "", long: "--state" },
    OptionName { short: "", long: "--hash-password" },
    OptionName { short: "", long: "--trust" },
    OptionName { short: "", long: "--bind-out" },
    OptionName { short: "", long: "--bind-ports" },
    OptionName { short: "", long: "--bind-advertise" },
    OptionName { short: "", long: "--udp-ports" },
    OptionName { short: "", long: "--udp-advertise" },
];

fn options() -> Options {
    let mut options = Options::new();
    options
        .optflag("h", "help", "show this help and exit")
        .optflag("v", "version", "show the version and exit")
        .optopt(
            "l",
            "listen",
            "listen for SOCKS on this address (default: all, IPv4 and IPv6)",
            "ADDR",
        )
        .optopt(
            "p",
            "port",
            "listen for SOCKS on this port (default 1080; 0: any free one)",
            "PORT",
        )
        .optopt("L", "metp-listen", "listen for METP on this address (default 127.0.0.1)", "ADDR")
        .optopt(
            "P",
            "metp-port",
            "listen for METP on this port (default 8080; 0: any free one)",
            "PORT",
        )
        .optmulti("u", "user", "add an account of role user; may be repeated", "NAME:PASS")
        .optopt(
            "",
            "users",
            "keep accounts in this file, a superset of those of htpasswd (default: in memory)",
            "FILE",
        )
        .optflag("", "users-fixed", "never change the users file: METP is refused it")
        .optopt(
            "",
            "state",
            "keep figures of accounts in this directory (default $STATE_DIRECTORY, else in memory)",
            "DIR",
        )
        .optflag(
            "",
            "hash-password",
            "read a password, print its hash for the users file, and exit",
        )
        .optmulti(
            "",
            "trust",
            "let clients of this network in without a login, as the account -; may be repeated",
            "CIDR",
        )
        .optmulti(
            "",
            "bind-out",
            "connect and send to targets from this address; once for each family (default: by route)",
            "ADDR",
        )
        .optopt(
            "",
            "bind-ports",
            "accept connections for clients (BIND) on these ports, LOW-HIGH (default: any free one)",
            "PORTS",
        )
        .optmulti(
            "",
            "bind-advertise",
            "tell clients that this address accepts for them (BIND); once for each family (default: the one that does)",
            "ADDR",
        )
        .optopt(
            "",
            "udp-ports",
            "receive the datagrams of clients on these ports, LOW-HIGH (default: any free one)",
            "PORTS",
        )
        .optmulti(
            "",
            "udp-advertise",
            "tell clients to send datagrams to this address; once for each family (default: the one they reached)",
            "ADDR",
        );
    let defaults = Settings::default();
    for knob in &KNOBS {
        if knob.is_flag() {
            options.optflag("", knob.key, knob.what);
        } else {
            options.optopt("", knob.key, &describe_knob(knob, &defaults), hint(knob));
        }
    }
    options
}

/// The help text of a setting: its description and its default.
fn describe_knob(knob: &Knob, defaults: &Settings) -> String {
    let default = match knob.key {
        "max-connections" => "default: by ulimit -n".to_owned(),
        _ if knob.has_off() => format!("default {}; 0: off", knob.get(defaults)),
        _ => format!("default {}", knob.get(defaults)),
    };
    format!("{} ({default})", knob.what)
}

fn hint(knob: &Knob) -> &'static str {
    match knob.unit {
        "bytes" => "BYTES",
        "seconds" => "SECONDS",
        "level" => "LEVEL",
        "clients" | "senders" => "WHO",
        "switch" => "SWITCH",
        "family" => "FAMILY",
        _ => "N",
    }
}

/// The octets of each argument that are or may be a password.
pub fn passwords(arguments: &[OsString]) -> Vec<Range<usize>> {
    let option = |name: &str| match name {
        "-u" | "--user" | "--users" => Some(Takes::Account),
        "-h" | "--help" | "-v" | "--version" | "--users-fixed" | "--hash-password" => {
            Some(Takes::Nothing)
        }
        "-l" | "--listen" | "-p" | "--port" | "-L" | "--metp-listen" | "-P" | "--metp-port"
        | "--state" | "--trust" | "--bind-out" | "--bind-ports" | "--bind-advertise"
        | "--udp-ports" | "--udp-advertise" => Some(Takes::Plain),
        name => {
            let knob = Knob::find(name.strip_prefix("--")?.as_bytes())?;
            Some(if knob.is_flag() { Takes::Nothing } else { Takes::Plain })
        }
    };
    secrets(arguments, option, |_| false)
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
    let given = options.parse(&arguments).map_err(|fail| {
        let settings: Vec<String> = KNOBS.iter().map(|knob| format!("--{}", knob.key)).collect();
        let settings = settings.iter().map(|long| OptionName { short: "", long });
        let known: Vec<OptionName> = PLAIN_OPTIONS.into_iter().chain(settings).collect();
        UsageError(describe(&fail, "socks5d", &arguments, &known))
    })?;
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
            _ => Err(UsageError("--hash-password stands alone".to_owned())),
        };
    }
    // The accounts first: in `-u NAME PASS` the error to report is the missing colon.
    let args = serve(&given, superuser)?;
    if given.free.is_empty() {
        Ok(CommandLine::Serve(Box::new(args)))
    } else {
        Err(UsageError(UNEXPECTED.to_owned()))
    }
}

fn serve(given: &Matches, superuser: Option<&OsStr>) -> Result<Args, UsageError> {
    let superuser = superuser
        .map(|text| login(SUPERUSER_VARIABLE, without_line_end(text.as_bytes())))
        .transpose()?;
    let mut users = accounts(given)?;
    let named = users.len();
    users.retain(|user| superuser.as_ref().is_none_or(|superuser| superuser.name != user.name));
    let mut settings = Settings::default();
    for knob in &KNOBS {
        if knob.is_flag() {
            let value = if given.opt_present(knob.key) { "on" } else { continue };
            let _ = knob.set(&mut settings, value);
        } else if let Some(text) = given.opt_str(knob.key) {
            knob.set(&mut settings, &text).map_err(|range| bad(knob.key, &text, &range))?;
        }
    }
    // Two names of one setting: the table keeps the later value, whatever was meant.
    if given.opt_present("allow-local") && settings.local_for != LocalFor::All {
        let word = settings.local_for.word();
        return Err(UsageError(format!("--allow-local: means --local-for all, not {word}")));
    }
    for text in given.opt_strs("trust") {
        let network = Network::parse(&text).map_err(|expected| bad("trust", &text, &expected))?;
        let most = format_args!("{MOST_NETWORKS} networks at most");
        settings.trust.add(network).map_err(|_| bad("trust", &text, &most))?;
    }
    let users_file = given.opt_str("users").map(|text| users_path(&text)).transpose()?;
    let users_fixed = given.opt_present("users-fixed");
    if users_fixed && users_file.is_none() {
        return Err(UsageError("--users-fixed: there is no --users".to_owned()));
    }
    let state = given.opt_str("state").map(|text| match text.as_str() {
        "" => Err(bad("state", "", &"the name of a directory")),
        text => Ok(PathBuf::from(OsString::from_vec(latin1_encode(text)))),
    });
    let state = state.transpose()?;
    settings.bind_out = addresses(given, "bind-out")?;
    settings.bind.ports = ports(given, "bind-ports")?;
    settings.bind.advertise = addresses(given, "bind-advertise")?;
    settings.udp.ports = ports(given, "udp-ports")?;
    settings.udp.advertise = addresses(given, "udp-advertise")?;
    Ok(Args {
        listen: address(given, "listen")?,
        port: number(given, "port", 0..=65535)?.unwrap_or(1080),
        metp_listen: address(given, "metp-listen")?.unwrap_or(Ipv4Addr::LOCALHOST.into()),
        metp_port: number(given, "metp-port", 0..=65535)?.unwrap_or(8080),
        superuser,
        users_file,
        users_fixed,
        state,
        superuser_repeated: users.len() < named,
        users,
        settings,
        max_connections_given: given.opt_present("max-connections"),
        buffer_memory_given: given.opt_present("buffer-memory"),
    })
}

/// The path of the users file, byte for byte. It may be the value of a `--user` that is misspelt.
fn users_path(text: &str) -> Result<PathBuf, UsageError> {
    match text {
        "" => Err(bad("users", "", &"the name of a file")),
        _ if text.contains(':') && !text.contains('/') => Err(UsageError(
            "--users: the name of a file expected, with a slash if it holds a colon (not shown: it may be a password)"
                .to_owned(),
        )),
        _ => Ok(OsString::from_vec(latin1_encode(text)).into()),
    }
}

/// The accounts of `-u`, no name twice.
fn accounts(given: &Matches) -> Result<Vec<Login>, UsageError> {
    let mut users: Vec<Login> = Vec::new();
    for text in given.opt_strs("user") {
        let user = login("-u", &latin1_encode(&text))?;
        if users.iter().any(|other| other.name == user.name) {
            return Err(UsageError(format!("-u {}: given twice", Escaped(&user.name))));
        }
        users.push(user);
    }
    Ok(users)
}

fn login(option: &str, text: &[u8]) -> Result<Login, UsageError> {
    let Some((name, password)) = split_account(text) else {
        // The text may be a password in the wrong place.
        return Err(UsageError(match text {
            [] => format!("{option} \"\": NAME:PASS expected"),
            _ => {
                format!("{option}: NAME:PASS expected, no colon (not shown: it may be a password)")
            }
        }));
    };
    let wrong = |what: &str| Err(UsageError(format!("{option} {}: {what}", Escaped(name))));
    let has_controls = |text: &[u8]| text.iter().any(u8::is_ascii_control);
    match (name.len(), password.len()) {
        _ if has_controls(name) => wrong("the name holds a control character"),
        _ if has_controls(password) => wrong("the password holds a control character"),
        _ if name == TRUSTED_NAME => wrong("this name is that of clients of trusted networks"),
        (1..=255, 1..=255) => Ok(Login { name: name.to_vec(), password: password.to_vec() }),
        (0, _) => wrong("the name before the colon is empty"),
        (_, 0) => wrong("the password after the colon is empty"),
        (256.., _) => wrong("the name is longer than 255 bytes"),
        (_, 256..) => wrong("the password is longer than 255 bytes"),
    }
}

fn address(given: &Matches, name: &str) -> Result<Option<IpAddr>, UsageError> {
    let Some(text) = given.opt_str(name) else { return Ok(None) };
    match ip_literal(&text) {
        Some(address) => Ok(Some(address)),
        None => Err(bad(name, &text, &"an IP address")),
    }
}

/// One address for each family at most.
fn addresses(given: &Matches, name: &str) -> Result<PerFamily<Option<IpAddr>>, UsageError> {
    let mut addresses = PerFamily::<Option<IpAddr>>::default();
    for text in given.opt_strs(name) {
        let Some(address) = ip_literal(&text) else {
            return Err(bad(name, &text, &"an IP address"));
        };
        if addresses.of_mut(address).replace(address).is_some() {
            return Err(bad(name, &text, &"one address of each family"));
        }
    }
    Ok(addresses)
}

/// A range of ports: the lowest and the highest.
fn ports(given: &Matches, name: &str) -> Result<Option<RangeInclusive<u16>>, UsageError> {
    let Some(text) = given.opt_str(name) else { return Ok(None) };
    let port =
        |text: &str| text.parse().ok().filter(|port| *port > 0 && is_digits(text.as_bytes()));
    let ends = text.split_once('-').map(|(low, high)| (port(low), port(high)));
    match ends {
        Some((Some(low), Some(high))) if low <= high => Ok(Some(low..=high)),
        _ => Err(bad(name, &text, &"LOW-HIGH, ports from 1 to 65535")),
    }
}

fn number<T>(given: &Matches, name: &str, range: RangeInclusive<T>) -> Result<Option<T>, UsageError>
where
    T: std::str::FromStr + PartialOrd + fmt::Display,
{
    let Some(text) = given.opt_str(name) else { return Ok(None) };
    match text.parse() {
        Ok(number) if is_digits(text.as_bytes()) && range.contains(&number) => Ok(Some(number)),
        _ => Err(bad(name, &text, &format_args!("{} to {}", range.start(), range.end()))),
    }
}

fn bad(name: &str, text: &str, expected: &dyn fmt::Display) -> UsageError {
    let long = format!("--{name}");
    let option = PLAIN_OPTIONS.iter().find(|option| option.long == long);
    UsageError(bad_value(option.map_or(long.as_str(), OptionName::shown), text, expected))
}

#[cfg(test)]
mod tests;
