//! The table of options: their names, their values and their help. getopts and `-h` are built from it.

use std::fmt;

use common::usage::OptionName;
use getopts::{HasArg, Occur, Options};

/// An error in the command line. Displays as the message.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An option of the command line.
pub struct Opt {
    /// `-m`; empty if there is no short name.
    pub short: &'static str,
    /// `--metrics`
    pub long: &'static str,
    /// The number of values.
    pub takes: Arity,
    /// The values as `-h` shows them.
    pub hint: &'static str,
    /// The description in `-h`.
    pub help: &'static str,
}

impl Opt {
    /// Both names.
    pub fn name(&self) -> OptionName<'static> {
        OptionName { short: self.short, long: self.long }
    }
}

/// The number of values of an option.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    Nothing,
    One,
    Two,
    OneOrTwo,
    Maybe,
}

const fn opt(
    short: &'static str,
    long: &'static str,
    takes: Arity,
    hint: &'static str,
    help: &'static str,
) -> Opt {
    Opt { short, long, takes, hint, help }
}

/// All options, in the sections of `-h`.
pub const SECTIONS: [(&str, &[Opt]); 5] = {
    use Arity::{Maybe, Nothing, One, OneOrTwo, Two};
    [
        (
            "Options:",
            &[
                opt("-h", "--help", Nothing, "", "show this help and exit"),
                opt("-v", "--version", Nothing, "", "show the version and exit"),
                opt(
                    "-H",
                    "--host",
                    One,
                    "HOST[:PORT],...",
                    "servers (default METP_HOST, else 127.0.0.1)",
                ),
                opt("-p", "--port", One, "PORT", "METP port (default METP_PORT, else 8080)"),
                opt("", "--wait", One, "SECONDS", "try for SECONDS to reach a server"),
                opt(
                    "-u",
                    "--user",
                    One,
                    "USER[:PASS]",
                    "account to log in with (default METP_AUTH)",
                ),
                opt(
                    "",
                    "--password-file",
                    One,
                    "FILE",
                    "read the password from the first line of FILE",
                ),
                opt("-q", "--quiet", Nothing, "", "do not mention connecting and closing"),
                opt("", "--json", Nothing, "", "print answers as JSON"),
            ],
        ),
        (
            "Monitoring:",
            &[
                opt("-m", "--metrics", Nothing, "", "show the number of connections and bytes"),
                opt("", "--metrics-all", Nothing, "", "show all metrics"),
                opt("", "--user-metrics", Maybe, "USER", "show usage of all users, or of USER"),
                opt("", "--connections", Maybe, "USER", "show open connections with their ids"),
                opt("-g", "--logs", Nothing, "", "show the tunnels that were opened"),
                opt("", "--info", Nothing, "", "show state, version and limits of the server"),
                opt(
                    "",
                    "--capabilities",
                    Nothing,
                    "",
                    "show commands and event topics of the server",
                ),
                opt("-f", "--follow", Nothing, "", "show each request when it has finished"),
                opt("-n", "--last", One, "N", "newest N tunnels: only these (-g), or first (-f)"),
                opt(
                    "-w",
                    "--watch",
                    Maybe,
                    "SECONDS",
                    "live screen, refreshed every SECONDS (default 1)",
                ),
            ],
        ),
        (
            "Accounts:",
            &[
                opt("-l", "--users", Nothing, "", "show the users"),
                opt(
                    "-a",
                    "--add-user",
                    OneOrTwo,
                    "USER [PASS]",
                    "add a user; PASS is asked for if missing",
                ),
                opt("-d", "--delete-user", One, "USER", "delete a user and cut their connections"),
                opt("-r", "--set-role", Two, "USER ROLE", "set the role of a user: user or admin"),
                opt("", "--password", One, "USER", "change a password; the new one is asked for"),
                opt("", "--generate", One, "USER", "have a password made, and print it once"),
                opt("", "--lock", One, "USER", "let nobody log in to an account"),
                opt("", "--unlock", One, "USER", "let its user log in again"),
                opt(
                    "",
                    "--import",
                    One,
                    "FILE",
                    "add the accounts of a users file, or of stdin (-)",
                ),
                opt("", "--limits", Maybe, "USER", "show the limits of all users, or of USER"),
                opt(
                    "",
                    "--set-limit",
                    Two,
                    "USER LIMITS",
                    "set limits, KEY=VALUE, with blanks between them",
                ),
                opt("", "--reset-usage", One, "USER", "set the counters of a user back to zero"),
                opt("", "--reload", Nothing, "", "have the server read its files again"),
                opt("", "--reload-cut", Nothing, "", "reload, and cut what the rules deny now"),
            ],
        ),
        (
            "Rules:",
            &[
                opt("", "--rules", Nothing, "", "show the rules with their hits"),
                opt(
                    "",
                    "--rules-test",
                    One,
                    "REQUEST",
                    "show what decides about USER ADDRESS HOST:PORT",
                ),
                opt("", "--rule-insert", Two, "LINE RULE", "make RULE line LINE of the rules"),
                opt("", "--rule-delete", Two, "LINE RULE", "delete RULE, which is in line LINE"),
            ],
        ),
        (
            "Control:",
            &[
                opt("", "--kill", One, "ID", "cut a connection"),
                opt("", "--kill-user", One, "USER", "cut all connections of a user"),
                opt("", "--config", Maybe, "KEY", "show all settings, or KEY, with their ranges"),
                opt("", "--set", One, "KEY=VALUE", "change a setting"),
                opt("", "--save", One, "KEY", "keep a setting as it is for later starts"),
                opt("", "--trust", Nothing, "", "show the networks that need no login"),
                opt("", "--trust-add", One, "CIDR", "let a network in without a login"),
                opt("", "--trust-delete", One, "CIDR", "ask a network for a login again"),
                opt("-c", "--change-buffer", One, "BYTES", "set the size of relay buffers"),
                opt(
                    "",
                    "--shutdown",
                    Maybe,
                    "SECONDS",
                    "stop the server; tunnels get SECONDS to finish",
                ),
            ],
        ),
    ]
};

/// Names of an older client, which still work and are not shown by `-h`.
pub const ALIASES: [(&str, &str); 6] = [
    ("--gm", "--metrics"),
    ("--gl", "--logs"),
    ("--au", "--add-user"),
    ("--du", "--delete-user"),
    ("--sr", "--set-role"),
    ("--cb", "--change-buffer"),
];

const SYNOPSIS: &str = "\
Usage: client [-H HOST,...] [-p PORT] -u USER[:PASS] COMMAND... [-- METP LINE]

Administers a running socks5d over METP. Commands are sent in command-line
order; the words after -- are sent as one line of METP.
";

const UNITS_HELP: &str = "
SECONDS may have a unit: ms, s, m, h or d; so may BYTES: k, M, G or T (by 1024).
";

const EXAMPLES: &str = "
Examples:
    client -u admin --connections          show open connections and their bytes
    client -u admin --kill 17.3            cut the connection with this id
    client -u admin --set idle-timeout=90  change a setting
    client -u admin -a bob secret -l       add a user, then show all users
    client -u admin --set-limit bob 'conns=20 rate=10Mbit quota=50GB/month'
    client -u admin --rule-insert 1 'deny user bob to 10.0.0.0/8'
    client -u admin -w                     show everything live
";

/// All options.
pub fn all() -> impl Iterator<Item = &'static Opt> {
    SECTIONS.iter().flat_map(|(_, options)| options.iter())
}

/// The option with this name, short or long, dashes included.
pub fn find(name: &str) -> Option<&'static Opt> {
    all().find(|option| name == option.long || (!option.short.is_empty() && name == option.short))
}

/// The names of all options.
pub fn names() -> Vec<OptionName<'static>> {
    all().map(Opt::name).collect()
}

/// The options for getopts.
pub fn getopts() -> Options {
    let mut options = Options::new();
    for Opt { short, long, takes, hint, help } in all() {
        let (short, long) = (short.trim_start_matches('-'), long.trim_start_matches('-'));
        let has_value = match takes {
            Arity::Nothing => HasArg::No,
            Arity::One | Arity::OneOrTwo | Arity::Two => HasArg::Yes,
            Arity::Maybe => HasArg::Maybe,
        };
        // Commands may be repeated; options of the whole call may not.
        let once = ONCE.contains(&long);
        let occur = if once { Occur::Optional } else { Occur::Multi };
        options.opt(short, long, help, hint, has_value, occur);
    }
    options
}

const ONCE: [&str; 11] = [
    "help",
    "version",
    "port",
    "wait",
    "user",
    "password-file",
    "quiet",
    "json",
    "last",
    "follow",
    "watch",
];

/// The text of `-h`.
pub fn usage() -> String {
    let mut text = SYNOPSIS.to_owned();
    for (title, options) in &SECTIONS {
        text.push_str(&format!("\n{title}\n"));
        for option in *options {
            let between = if option.short.is_empty() { "  " } else { ", " };
            let hint = match option.takes {
                Arity::Nothing => String::new(),
                Arity::Maybe => format!(" [{}]", option.hint),
                _ => format!(" {}", option.hint),
            };
            let name = format!("{:2}{between}{}{hint}", option.short, option.long);
            text.push_str(&format!("    {name:<26} {}\n", option.help));
        }
    }
    text + UNITS_HELP + EXAMPLES
}
