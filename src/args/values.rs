//! The values of options: what each means, or what is wrong with it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use common::usage::{OptionName, bad_value};
use getopts::Matches;

use super::log_options::{AccessLogTo, LogFormat, LogOptions};
use super::options::PLAIN_OPTIONS;
use super::{Login, RunAs, UsageError};
use crate::reactor::family::PerFamily;
use crate::state::access_log::AccessLogFormat;
use crate::state::knobs::KNOBS;
use crate::state::settings::{HttpSettings, LocalFor, MOST_NETWORKS, Settings};
use crate::state::users::TRUSTED_NAME;
use metp_protocol::network::Network;
use metp_protocol::quantity::is_digits;
use metp_protocol::text::{Escaped, ip_literal, latin1_encode, split_account};

/// The settings that are given; the others have their defaults.
pub(super) fn settings(given: &Matches) -> Result<Settings, UsageError> {
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
        return Err(UsageError::new(format!("--allow-local: means --local-for all, not {word}")));
    }
    for text in given.opt_strs("trust") {
        let network = Network::parse(&text).map_err(|expected| bad("trust", &text, &expected))?;
        let most = format_args!("{MOST_NETWORKS} networks at most");
        settings.trust.add(network).map_err(|_| bad("trust", &text, &most))?;
    }
    settings.bind_out = addresses(given, "bind-out")?;
    settings.bind.ports = ports(given, "bind-ports")?;
    settings.bind.advertise = addresses(given, "bind-advertise")?;
    settings.udp.ports = ports(given, "udp-ports")?;
    settings.udp.advertise = addresses(given, "udp-advertise")?;
    let on_loopback = http(given)?.is_none_or(|http| http.ip().to_canonical().is_loopback());
    settings.http =
        HttpSettings { login: !on_loopback, host: http_host(given)?, pac: http_pac(given)? };
    Ok(settings)
}

/// Where the services listen.
pub(super) struct Listeners {
    pub listen: Option<IpAddr>,
    pub port: u16,
    pub metp_listen: IpAddr,
    pub metp_port: u16,
    pub http: Option<SocketAddr>,
}

pub(super) fn listeners(given: &Matches) -> Result<Listeners, UsageError> {
    Ok(Listeners {
        listen: address(given, "listen")?,
        port: number(given, "port", 0..=65535)?.unwrap_or(1080),
        metp_listen: address(given, "metp-listen")?.unwrap_or(Ipv4Addr::LOCALHOST.into()),
        metp_port: number(given, "metp-port", 0..=65535)?.unwrap_or(8080),
        http: http(given)?,
    })
}

/// Where HTTP listens: an address and a port, as in `127.0.0.1:9105` and `[::1]:9105`.
fn http(given: &Matches) -> Result<Option<SocketAddr>, UsageError> {
    let Some(text) = given.opt_str("http") else { return Ok(None) };
    match text.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(bad("http", &text, &"ADDR:PORT")),
    }
}

/// The name that `--http-host` gives.
fn http_host(given: &Matches) -> Result<Option<String>, UsageError> {
    let Some(name) = given.opt_str("http-host") else { return Ok(None) };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    match !name.is_empty() && name.bytes().all(is_name) {
        true => Ok(Some(name.strip_suffix('.').unwrap_or(&name).to_owned())),
        false => Err(bad("http-host", &name, &"a name without a port")),
    }
}

/// The proxy that `/proxy.pac` names: nothing in it ends a string of JavaScript.
fn http_pac(given: &Matches) -> Result<Option<String>, UsageError> {
    let Some(text) = given.opt_str("http-pac") else { return Ok(None) };
    let is_host = |host: &str| {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        !host.is_empty() && host.bytes().all(is_letter)
    };
    let port = |port: &str| is_digits(port.as_bytes()) && port.parse::<u16>().is_ok_and(|n| n > 0);
    match text.rsplit_once(':') {
        Some((host, number)) if is_host(host) && port(number) => Ok(Some(text)),
        _ => Err(bad("http-pac", &text, &"HOST:PORT")),
    }
}

/// Whether each value is one that its option takes.
pub(super) fn check(given: &Matches) -> Result<(), UsageError> {
    accounts(given)?;
    settings(given)?;
    listeners(given)?;
    users(given)?;
    rules(given)?;
    logs(given)?;
    run_as(given)?;
    pid_file(given)?;
    takeover(given)?;
    state(given).map(drop)
}

/// The state directory.
pub(super) fn state(given: &Matches) -> Result<Option<PathBuf>, UsageError> {
    path(given, "state", "the name of a directory")
}

/// The file of rules.
pub(super) fn rules(given: &Matches) -> Result<Option<PathBuf>, UsageError> {
    path(given, "rules", "the name of a file")
}

/// The file with the number of the process.
pub(super) fn pid_file(given: &Matches) -> Result<Option<PathBuf>, UsageError> {
    path(given, "pid-file", "the name of a file")
}

/// The socket for takeovers.
pub(super) fn takeover(given: &Matches) -> Result<Option<PathBuf>, UsageError> {
    path(given, "takeover", "the name of a socket")
}

/// A path, byte for byte, that is not empty.
fn path(given: &Matches, name: &str, expected: &str) -> Result<Option<PathBuf>, UsageError> {
    match given.opt_str(name).as_deref() {
        None => Ok(None),
        Some("") => Err(bad(name, "", &expected)),
        Some(text) => Ok(Some(PathBuf::from(OsString::from_vec(latin1_encode(text))))),
    }
}

/// The user and the group that the process becomes.
pub(super) fn run_as(given: &Matches) -> Result<Option<RunAs>, UsageError> {
    let Some(text) = given.opt_str("run-as") else { return Ok(None) };
    let (user, group) =
        text.split_once(':').map_or((&*text, None), |(user, group)| (user, Some(group)));
    if user.is_empty() || group == Some("") {
        return Err(bad("run-as", &text, &"USER[:GROUP]"));
    }
    Ok(Some(RunAs { user: latin1_encode(user), group: group.map(latin1_encode) }))
}

/// Where the logs go, and in which form.
pub(super) fn logs(given: &Matches) -> Result<LogOptions, UsageError> {
    let access_log = match given.opt_str("access-log").as_deref() {
        None | Some("-") => AccessLogTo::Stdout,
        Some("off") => AccessLogTo::Off,
        Some("") => {
            return Err(bad("access-log", "", &"the name of a file, - (standard output) or off"));
        }
        Some(path) => AccessLogTo::File(OsString::from_vec(latin1_encode(path)).into()),
    };
    let access_log_format = match given.opt_str("access-log-format").as_deref() {
        None | Some("tsv") => AccessLogFormat::Tsv,
        Some("json") => AccessLogFormat::Json,
        Some(other) => return Err(bad("access-log-format", other, &"tsv or json")),
    };
    let format = match given.opt_str("log-format").as_deref() {
        None | Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some("journal") => LogFormat::Journal,
        Some(other) => return Err(bad("log-format", other, &"text, json or journal")),
    };
    Ok(LogOptions { access_log, access_log_format, format })
}

/// The users file.
pub(super) fn users(given: &Matches) -> Result<Option<PathBuf>, UsageError> {
    given.opt_str("users").map(|text| users_path(&text)).transpose()
}

/// The path of the users file, byte for byte. It may be the value of a `--user` that is misspelt.
fn users_path(text: &str) -> Result<PathBuf, UsageError> {
    match text {
        "" => Err(bad("users", "", &"the name of a file")),
        _ if text.contains(':') && !text.contains('/') => Err(UsageError::new(
            "--users: the name of a file expected, with a slash if it holds a colon (not shown: it may be a password)"
                .to_owned(),
        )),
        _ => Ok(OsString::from_vec(latin1_encode(text)).into()),
    }
}

/// The accounts of `-u`, no name twice.
pub(super) fn accounts(given: &Matches) -> Result<Vec<Login>, UsageError> {
    let mut users: Vec<Login> = Vec::new();
    let mut names = HashSet::new();
    for text in given.opt_strs("user") {
        let user = login("-u", &latin1_encode(&text))?;
        if !names.insert(user.name.clone()) {
            return Err(UsageError::new(format!("-u {}: given twice", Escaped(&user.name))));
        }
        users.push(user);
    }
    Ok(users)
}

pub(super) fn login(option: &str, text: &[u8]) -> Result<Login, UsageError> {
    let Some((name, password)) = split_account(text) else {
        // The text may be a password in the wrong place.
        return Err(UsageError::new(match text {
            [] => format!("{option} \"\": NAME:PASS expected"),
            _ => {
                format!("{option}: NAME:PASS expected, no colon (not shown: it may be a password)")
            }
        }));
    };
    let wrong = |what: &str| Err(UsageError::new(format!("{option} {}: {what}", Escaped(name))));
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

pub(super) fn bad(name: &str, text: &str, expected: &dyn fmt::Display) -> UsageError {
    let long = format!("--{name}");
    let option = PLAIN_OPTIONS.iter().find(|option| option.long == long);
    UsageError::new(bad_value(option.map_or(long.as_str(), OptionName::shown), text, expected))
}
