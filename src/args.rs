//! The command line and `PROXY_CTRL_SUPERUSER`, turned into plain data.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use getopts::{Fail, Matches, Options};

use crate::ledger::settings::Timeouts;
use crate::proto::metp::BUFFER_SIZES;
use crate::proto::text::{Escaped, narrow, split_account, widen};
use crate::reactor::names::Memory;

/// The variable that creates the administrator.
pub const SUPERUSER_VARIABLE: &str = "PROXY_CTRL_SUPERUSER";

/// What is said about an argument that belongs to no option. It may be a password, or the second word of one
/// that was not quoted, so it is not shown.
pub const UNEXPECTED: &str = "unexpected argument (not shown: it may be a password)";

/// What the program is asked to do.
#[derive(Debug)]
pub enum Invocation {
    /// Show this text and exit.
    Show(String),
    /// Serve.
    Serve(Box<Args>),
}

/// A name and a password, of 1 to 255 bytes each.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name: no `:` in it.
    pub name: Vec<u8>,
    /// The password.
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
    /// Accounts of role user. None of them has the administrator's name.
    pub users: Vec<Login>,
    /// Whether `-u` named the administrator again, in vain.
    pub superuser_repeated: bool,
    /// Capacity of each direction's buffer, in bytes.
    pub buffer_size: usize,
    /// Bytes of buffers in all, from which on tunnels read in small pieces.
    pub buffer_memory: usize,
    /// SOCKS connections at once; `None`: what the descriptors allow.
    pub max_connections: Option<usize>,
    /// SOCKS connections at once from one address; `None`: any number.
    pub max_connections_per_ip: Option<usize>,
    /// METP sessions at once.
    pub max_metp_sessions: usize,
    /// Whether clients from elsewhere may connect to loopback and link-local addresses.
    pub allow_local: bool,
    /// Names looked up at once.
    pub dns_threads: usize,
    /// Names that may wait to be looked up.
    pub dns_queue: usize,
    /// How long names are remembered.
    pub names: Memory,
    /// Records that METP's access log keeps.
    pub log_entries: usize,
    /// How long open tunnels may go on after SIGTERM.
    pub grace: Duration,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// A command line that means nothing; displays as the line to show.
#[derive(Debug, PartialEq, Eq)]
pub struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Options that take a number of seconds: name, default, what for.
const TIMEOUTS: [(&str, u64, &str); 12] = [
    ("handshake-timeout", 10, "until a client's request is complete"),
    ("resolve-timeout", 15, "for looking up a name"),
    ("connect-timeout", 10, "for connecting to one address"),
    ("connect-total-timeout", 30, "for connecting to all addresses of a name"),
    ("idle-timeout", 3600, "without a byte, then a tunnel is closed"),
    ("half-close-timeout", 300, "the same once one direction is over"),
    ("keepalive", 60, "of silence, then the kernel probes both peers of a tunnel"),
    ("goodbye-timeout", 5, "for a client to take the last reply and close"),
    ("metp-login-timeout", 10, "until a METP session has logged in"),
    ("metp-idle-timeout", 600, "without an octet, then a METP session is closed"),
    ("dns-cache", 30, "for which addresses of a name are remembered"),
    ("dns-negative-cache", 5, "for which a failed look-up is remembered"),
];

/// The longest time an option takes: a year.
const LONGEST_SECONDS: f64 = 31_536_000.0;

fn options() -> Options {
    let mut options = Options::new();
    options
        .optflag("h", "help", "show this help and exit")
        .optflag("v", "version", "show the version and exit")
        .optopt("l", "listen", "SOCKS address (default: all, IPv4 and IPv6)", "ADDR")
        .optopt("p", "port", "SOCKS port (default 1080; 0: any free one)", "PORT")
        .optopt("L", "metp-listen", "METP address (default 127.0.0.1)", "ADDR")
        .optopt("P", "metp-port", "METP port (default 8080; 0: any free one)", "PORT")
        .optmulti("u", "user", "an account of role user; may be repeated", "NAME:PASS")
        .optopt("", "buffer-size", "bytes for each direction of a tunnel (default 65536)", "BYTES")
        .optopt("", "buffer-memory", "bytes of buffers in all (default 268435456)", "BYTES")
        .optopt("", "max-connections", "SOCKS connections at once (default: by ulimit -n)", "N")
        .optopt("", "max-connections-per-ip", "the same from one address (default 0: off)", "N")
        .optopt("", "max-metp-sessions", "METP sessions at once (default 256)", "N")
        .optopt("", "dns-threads", "names looked up at once (default 32)", "N")
        .optopt("", "dns-queue", "names that wait to be looked up (default 1024)", "N")
        .optflag(
            "",
            "allow-local",
            "let clients from elsewhere use loopback and link-local targets",
        )
        .optopt("", "log-entries", "records of METP's access log (default 1000)", "N")
        .optopt("", "grace", "seconds for open tunnels after SIGTERM (default 3)", "SECONDS");
    for (name, default, what) in TIMEOUTS {
        options.optopt("", name, &format!("{what} (default {default}; 0: off)"), "SECONDS");
    }
    options
}

/// Reads the arguments (without the program's name) and the value of [`SUPERUSER_VARIABLE`].
///
/// # Errors
/// One line that names the option and its value, but never a password.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    superuser: Option<&OsStr>,
) -> Result<Invocation, Usage> {
    let options = options();
    let arguments: Vec<String> =
        arguments.into_iter().map(|argument| widen(argument.as_bytes())).collect();
    let given = options.parse(&arguments).map_err(|fail| Usage(describe(&fail)))?;
    if given.opt_present("help") {
        let brief = "Usage: socks5d [options]\n\nA SOCKS5 proxy that is administered while it runs. \
                     PROXY_CTRL_SUPERUSER=NAME:PASS\ncreates the administrator.";
        return Ok(Invocation::Show(options.usage(brief)));
    }
    if given.opt_present("version") {
        return Ok(Invocation::Show(format!("socks5d {}\n", env!("CARGO_PKG_VERSION"))));
    }
    // First the accounts: in `-u NAME PASS` it is the missing colon that is to be named.
    let args = serve(&given, superuser)?;
    if given.free.is_empty() {
        Ok(Invocation::Serve(Box::new(args)))
    } else {
        Err(Usage(UNEXPECTED.to_owned()))
    }
}

fn serve(given: &Matches, superuser: Option<&OsStr>) -> Result<Args, Usage> {
    let superuser = superuser.map(|text| login(SUPERUSER_VARIABLE, text.as_bytes())).transpose()?;
    let mut users = accounts(given)?;
    let named = users.len();
    users.retain(|user| superuser.as_ref().is_none_or(|superuser| superuser.name != user.name));
    let many = 1_000_000_000;
    let timeout = |name| timeout(given, name);
    Ok(Args {
        listen: address(given, "listen")?,
        port: number(given, "port", 0..=65535)?.unwrap_or(1080),
        metp_listen: address(given, "metp-listen")?.unwrap_or(Ipv4Addr::LOCALHOST.into()),
        metp_port: number(given, "metp-port", 0..=65535)?.unwrap_or(8080),
        superuser,
        superuser_repeated: users.len() < named,
        users,
        buffer_size: number(given, "buffer-size", BUFFER_SIZES)?.unwrap_or(65536),
        buffer_memory: number(given, "buffer-memory", 0..=1 << 40)?.unwrap_or(256 << 20),
        max_connections: number(given, "max-connections", 1..=many)?,
        max_connections_per_ip: number(given, "max-connections-per-ip", 0..=many)?
            .filter(|limit| *limit > 0),
        max_metp_sessions: number(given, "max-metp-sessions", 1..=many)?.unwrap_or(256),
        allow_local: given.opt_present("allow-local"),
        dns_threads: number(given, "dns-threads", 1..=1024)?.unwrap_or(32),
        dns_queue: number(given, "dns-queue", 1..=1_000_000)?.unwrap_or(1024),
        names: Memory { found: timeout("dns-cache")?, failed: timeout("dns-negative-cache")? },
        log_entries: number(given, "log-entries", 0..=many)?.unwrap_or(1000),
        grace: seconds(given, "grace")?.unwrap_or(Duration::from_secs(3)),
        timeouts: Timeouts {
            handshake: timeout("handshake-timeout")?,
            resolve: timeout("resolve-timeout")?,
            connect: timeout("connect-timeout")?,
            connect_total: timeout("connect-total-timeout")?,
            idle: timeout("idle-timeout")?,
            half_close: timeout("half-close-timeout")?,
            keepalive: timeout("keepalive")?,
            goodbye: timeout("goodbye-timeout")?,
            metp_login: timeout("metp-login-timeout")?,
            metp_idle: timeout("metp-idle-timeout")?,
        },
    })
}

/// The accounts of `-u`, no name twice.
fn accounts(given: &Matches) -> Result<Vec<Login>, Usage> {
    let mut users: Vec<Login> = Vec::new();
    for text in given.opt_strs("user") {
        let user = login("-u", &narrow(&text))?;
        if users.iter().any(|other| other.name == user.name) {
            return Err(Usage(format!("-u {}: given twice", Escaped(&user.name))));
        }
        users.push(user);
    }
    Ok(users)
}

fn login(option: &str, text: &[u8]) -> Result<Login, Usage> {
    let Some((name, password)) = split_account(text) else {
        return Err(Usage(format!("{option} {}: NAME:PASS expected, no colon", Escaped(text))));
    };
    let wrong = |what: &str| Err(Usage(format!("{option} {}: {what}", Escaped(name))));
    match (name.len(), password.len()) {
        (1..=255, 1..=255) => Ok(Login { name: name.to_vec(), password: password.to_vec() }),
        (0, _) => wrong("the name before the colon is empty"),
        (_, 0) => wrong("the password behind the colon is empty"),
        (256.., _) => wrong("the name is longer than 255 bytes"),
        (_, 256..) => wrong("the password is longer than 255 bytes"),
    }
}

fn address(given: &Matches, name: &str) -> Result<Option<IpAddr>, Usage> {
    let Some(text) = given.opt_str(name) else { return Ok(None) };
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&text);
    match bare.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(bad(name, &text, "an IP address")),
    }
}

fn number<T>(given: &Matches, name: &str, range: RangeInclusive<T>) -> Result<Option<T>, Usage>
where
    T: std::str::FromStr + PartialOrd + fmt::Display,
{
    let Some(text) = given.opt_str(name) else { return Ok(None) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && range.contains(&number) => Ok(Some(number)),
        _ => Err(bad(name, &text, &format!("{} to {}", range.start(), range.end()))),
    }
}

/// A time in seconds, fractions allowed.
fn seconds(given: &Matches, name: &str) -> Result<Option<Duration>, Usage> {
    let Some(text) = given.opt_str(name) else { return Ok(None) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match text.parse() {
        Ok(number) if digits && number <= LONGEST_SECONDS => {
            Ok(Some(Duration::from_secs_f64(number)))
        }
        _ => Err(bad(name, &text, "0 to 31536000 seconds")),
    }
}

/// The timeout of this name: as given, or its default. Zero turns it off.
fn timeout(given: &Matches, name: &str) -> Result<Option<Duration>, Usage> {
    let default = || TIMEOUTS.iter().find(|row| row.0 == name).map(|row| row.1);
    let time = match seconds(given, name)? {
        Some(time) => Some(time),
        None => default().map(Duration::from_secs),
    };
    Ok(time.filter(|time| !time.is_zero()))
}

fn bad(name: &str, text: &str, expected: &str) -> Usage {
    let option = match name {
        "listen" => "-l",
        "port" => "-p",
        "metp-listen" => "-L",
        "metp-port" => "-P",
        long => &format!("--{long}"),
    };
    Usage(format!("{option} {}: {expected} expected", shown(text)))
}

/// A value from the command line, [`widen`]ed, as it is shown back.
pub fn shown(text: &str) -> String {
    format!("\"{}\"", Escaped(&narrow(text)))
}

/// The part that may be shown of something that is in no place known, and so may be NAME:PASS.
fn nameable(text: &str) -> &str {
    text.split_once(':').map_or(text, |(name, _)| name)
}

/// What is wrong with a command line of [`widen`]ed arguments.
pub fn describe(fail: &Fail) -> String {
    let dashes = |name: &str| match name.chars().count() {
        1 => format!("-{}", Escaped(&narrow(name))),
        _ => format!("--{}", Escaped(&narrow(nameable(name)))),
    };
    match fail {
        Fail::ArgumentMissing(name) => format!("{}: needs a value", dashes(name)),
        Fail::UnrecognizedOption(name) => format!("{}: unknown option", dashes(name)),
        Fail::OptionMissing(name) => format!("{}: missing", dashes(name)),
        Fail::OptionDuplicated(name) => format!("{}: given more than once", dashes(name)),
        Fail::UnexpectedArgument(name) => format!("{}: takes no value", dashes(name)),
    }
}

#[cfg(test)]
mod tests;
