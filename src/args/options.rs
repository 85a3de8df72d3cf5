//! The table of options: getopts, help and the search for passwords are made from it.

use std::ffi::OsString;
use std::ops::Range;

use common::secrets::{Takes, secrets};
use common::usage::{OptionName, describe};
use getopts::{Fail, Options};

use crate::state::knobs::{KNOBS, Knob};
use crate::state::settings::Settings;

/// The options that are not settings.
pub(super) const PLAIN_OPTIONS: [OptionName; 30] = [
    OptionName { short: "-h", long: "--help" },
    OptionName { short: "-v", long: "--version" },
    OptionName { short: "-l", long: "--listen" },
    OptionName { short: "-p", long: "--port" },
    OptionName { short: "-L", long: "--metp-listen" },
    OptionName { short: "-P", long: "--metp-port" },
    OptionName { short: "", long: "--http" },
    OptionName { short: "", long: "--http-host" },
    OptionName { short: "", long: "--http-pac" },
    OptionName { short: "-u", long: "--user" },
    OptionName { short: "", long: "--users" },
    OptionName { short: "", long: "--users-fixed" },
    OptionName { short: "", long: "--rules" },
    OptionName { short: "", long: "--state" },
    OptionName { short: "", long: "--run-as" },
    OptionName { short: "", long: "--pid-file" },
    OptionName { short: "", long: "--takeover" },
    OptionName { short: "", long: "--access-log" },
    OptionName { short: "", long: "--access-log-format" },
    OptionName { short: "", long: "--log-format" },
    OptionName { short: "", long: "--hash-password" },
    OptionName { short: "", long: "--config" },
    OptionName { short: "", long: "--check-config" },
    OptionName { short: "", long: "--print-config" },
    OptionName { short: "", long: "--trust" },
    OptionName { short: "", long: "--bind-out" },
    OptionName { short: "", long: "--bind-ports" },
    OptionName { short: "", long: "--bind-advertise" },
    OptionName { short: "", long: "--udp-ports" },
    OptionName { short: "", long: "--udp-advertise" },
];

/// The options for getopts.
pub(super) fn options() -> Options {
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
        .optopt(
            "",
            "http",
            "serve metrics and health by HTTP on this address and port (default: off)",
            "ADDR:PORT",
        )
        .optopt(
            "",
            "http-host",
            "answer HTTP requests for this name, besides addresses and localhost",
            "NAME",
        )
        .optopt(
            "",
            "http-pac",
            "serve /proxy.pac, by which browsers use SOCKS at this host and port",
            "HOST:PORT",
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
            "rules",
            "read rules for destinations from this file, one in a line (default: everything is allowed)",
            "FILE",
        )
        .optopt(
            "",
            "state",
            "keep figures of accounts in this directory (default $STATE_DIRECTORY, else in memory)",
            "DIR",
        )
        .optopt("", "run-as", "become this user, started as root, once the ports are bound", "USER[:GROUP]")
        .optopt("", "pid-file", "write the number of the process to this file, and remove it at the end", "FILE")
        .optopt("", "takeover", "take over from the server that listens at this socket, and listen there for the next", "PATH")
        .optopt(
            "",
            "access-log",
            "append the access log to this file; off: none (default: -, standard output)",
            "FILE",
        )
        .optopt("", "access-log-format", "write its lines in this form: tsv, json (default tsv)", "FORM")
        .optopt(
            "",
            "log-format",
            "write the diagnostics in this form: text, json, journal (default text)",
            "FORM",
        )
        .optflag(
            "",
            "hash-password",
            "read a password, print its hash for the users file, and exit",
        )
        .optopt(
            "",
            "config",
            "read options from this file, one in a line; those of the command line win",
            "FILE",
        )
        .optflag("", "check-config", "check options and files, tell all errors, and exit")
        .optflag("", "print-config", "print the options that are in force, and exit")
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

/// Whether the option has no value.
pub(super) fn is_flag(key: &str) -> bool {
    key == "users-fixed" || Knob::find(key.as_bytes()).is_some_and(Knob::is_flag)
}

/// What getopts has found wrong, in a line without any password.
pub(super) fn describe_failure(fail: &Fail, arguments: &[String]) -> String {
    let settings: Vec<String> = KNOBS.iter().map(|knob| format!("--{}", knob.key)).collect();
    let settings = settings.iter().map(|long| OptionName { short: "", long });
    let known: Vec<OptionName> = PLAIN_OPTIONS.into_iter().chain(settings).collect();
    describe(fail, "socks5d", arguments, &known)
}

/// The octets of each argument that are or may be a password.
pub fn passwords(arguments: &[OsString]) -> Vec<Range<usize>> {
    let option = |name: &str| match name {
        "-u" | "--user" | "--users" => Some(Takes::Account),
        "-h" | "--help" | "-v" | "--version" | "--users-fixed" | "--hash-password"
        | "--check-config" | "--print-config" => Some(Takes::Nothing),
        "-l"
        | "--listen"
        | "-p"
        | "--port"
        | "-L"
        | "--metp-listen"
        | "-P"
        | "--metp-port"
        | "--http"
        | "--http-host"
        | "--http-pac"
        | "--rules"
        | "--state"
        | "--run-as"
        | "--pid-file"
        | "--takeover"
        | "--access-log"
        | "--access-log-format"
        | "--log-format"
        | "--config"
        | "--trust"
        | "--bind-out"
        | "--bind-ports"
        | "--bind-advertise"
        | "--udp-ports"
        | "--udp-advertise" => Some(Takes::Plain),
        name => {
            let knob = Knob::find(name.strip_prefix("--")?.as_bytes())?;
            Some(if knob.is_flag() { Takes::Nothing } else { Takes::Plain })
        }
    };
    secrets(arguments, option, |_| false)
}
