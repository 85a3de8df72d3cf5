//! `--print-config`: the options that are in force, as a configuration file.

use getopts::Matches;
use metp_protocol::text::latin1_decode;

use super::options::{PLAIN_OPTIONS, is_flag};
use super::{Args, Escaped, UsageError};
use crate::state::knobs::{KNOBS, Source};

/// Options that are no part of a configuration: what to do, and where to read it.
const ACTIONS: [&str; 6] =
    ["--help", "--version", "--hash-password", "--config", "--check-config", "--print-config"];
/// Options with a default that is no setting.
const DEFAULTS: [(&str, &str); 6] = [
    ("port", "1080"),
    ("metp-listen", "127.0.0.1"),
    ("metp-port", "8080"),
    ("access-log", "-"),
    ("access-log-format", "tsv"),
    ("log-format", "text"),
];

/// The text: a comment with the source before each line. Passwords are left out.
///
/// # Errors
/// If a value would be another one in a file.
pub(super) fn configuration(given: &Matches, args: &Args) -> Result<String, UsageError> {
    let mut text = String::new();
    let mut line = |key: &str, line: String| {
        let source = args.sources.of_key(key);
        text.push_str(&format!("# {source}\n{line}\n"));
    };
    if let Some(superuser) = &args.superuser {
        let name = Escaped(&superuser.name);
        line("", format!("# superuser {name}, of the environment; the password is not shown"));
    }
    for option in PLAIN_OPTIONS.iter().filter(|option| !ACTIONS.contains(&option.long)) {
        let key = option.long.trim_start_matches('-');
        if key == "user" {
            for user in &args.users {
                line(key, format!("# user {}; the password is not shown", Escaped(&user.name)));
            }
        } else if is_flag(key) {
            if given.opt_present(key) {
                line(key, key.to_owned());
            }
        } else {
            let default = DEFAULTS.iter().find(|(name, _)| *name == key);
            let mut values = given.opt_strs(key);
            if values.is_empty() {
                values.extend(default.map(|(_, value)| (*value).to_owned()));
            }
            for value in values {
                if !is_value_of_a_line(&value) {
                    let text = format!(
                        "--{key}: a file cannot hold this value (a control character, or a blank at an end)"
                    );
                    return Err(UsageError::new(text));
                }
                line(key, format!("{key} {value}"));
            }
        }
    }
    for knob in &KNOBS {
        let value = knob.get(&args.settings);
        let computed = match knob.key {
            "max-connections" => !args.max_connections_given,
            "buffer-memory" => !args.buffer_memory_given,
            _ => false,
        };
        let at_start = args.sources.of_key(knob.key) == Source::Default && computed;
        // What is computed at the start depends on the limits of the process.
        let shown = if at_start {
            format!("# {}: at the start", knob.key)
        } else {
            format!("{} {value}", knob.key)
        };
        line(knob.key, shown);
    }
    // Arguments are kept in Latin-1, and may be any bytes.
    Ok(latin1_text(&text))
}

/// Whether a line of a file that has this value is read as it is here.
fn is_value_of_a_line(value: &str) -> bool {
    let trimmed = value.trim_matches([' ', '\t']);
    !value.is_empty()
        && trimmed == value
        && !value.chars().any(|c| c.is_ascii_control() && c != '\t')
}

/// The bytes of the arguments as they came, if they are UTF-8.
fn latin1_text(text: &str) -> String {
    let bytes = metp_protocol::text::latin1_encode(text);
    String::from_utf8(bytes).unwrap_or_else(|error| latin1_decode(error.as_bytes()))
}
