//! The configuration file: the long options, one in a line, without dashes.
//!
//! ```text
//! # who may use it
//! listen 192.0.2.1
//! trust 192.0.2.0/24
//! http-connect
//! idle-timeout 5m
//! ```
//!
//! Each line is checked by the parser of the command line, so that there is one list of options and one meaning of each.
//! What the command line gives wins: lines with the same option are left out.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use getopts::{Fail, Matches};
use metp_protocol::text::{Escaped, latin1_decode};

use super::options::{PLAIN_OPTIONS, describe_failure, is_flag, options};
use super::values::{accounts, check};
use crate::workers::durable;

/// The most bytes of a file.
const MOST_BYTES: u64 = 1 << 20;
/// The longest line, in bytes.
const LONGEST_LINE: usize = 4096;
/// The most errors that are told.
const MOST_ERRORS: usize = 100;
/// What some editors put in front of a file of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Options that may be given more than once.
const REPEATABLE: [&str; 5] = ["user", "trust", "bind-out", "bind-advertise", "udp-advertise"];
/// Options that have no place in a file: they say what to do, or which file.
const NOT_IN_A_FILE: [&str; 6] =
    ["help", "version", "config", "check-config", "print-config", "hash-password"];

/// A line that sets an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Counted from 1.
    pub number: usize,
    /// The long option, without dashes.
    pub key: String,
    /// What follows it, in Latin-1 as arguments are; `None`: nothing.
    pub value: Option<String>,
}

/// The lines of a file that set options; and what is wrong with others, with their numbers.
pub(super) fn lines(content: &[u8]) -> (Vec<Line>, Vec<(usize, String)>) {
    let content = content.strip_prefix(BYTE_ORDER_MARK).unwrap_or(content);
    let (mut lines, mut faults) = (Vec::new(), Vec::new());
    for (index, text) in content.split(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let trimmed = text.trim_ascii();
        if matches!(trimmed.first(), None | Some(b'#')) {
            continue;
        }
        if text.len() > LONGEST_LINE {
            faults.push((number, format!("more than {LONGEST_LINE} bytes")));
            continue;
        }
        if let Some(byte) = trimmed.iter().find(|byte| byte.is_ascii_control() && **byte != b'\t') {
            faults.push((number, format!("control character \\x{byte:02x}")));
            continue;
        }
        let blank = trimmed.iter().position(|byte| matches!(byte, b' ' | b'\t'));
        let (key, value) = match blank {
            Some(at) => {
                let (key, value) = trimmed.split_at(at);
                (key, Some(latin1_decode(value.trim_ascii())))
            }
            None => (trimmed, None),
        };
        lines.push(Line { number, key: latin1_decode(key), value });
    }
    (lines, faults)
}

/// What a file sets, and what is wrong with it, in the order of the lines.
pub(super) fn text(content: &[u8]) -> Result<Vec<Setting>, Vec<(usize, String)>> {
    let (lines, mut faults) = lines(content);
    let mut first: HashMap<&str, usize> = HashMap::new();
    let mut accounts: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut settings = Vec::new();
    for line in &lines {
        let Line { number, key, .. } = line;
        let earlier = *first.entry(key).or_insert(*number);
        // What is no option may be a password.
        let is_repeated = earlier != *number && is_known(key) && !REPEATABLE.contains(&&**key);
        let checked = if is_repeated {
            Err(format!("{key}: given in line {earlier} already"))
        } else {
            argument(line)
        };
        let checked = checked.and_then(|argument| {
            for user in named(&argument) {
                let earlier = *accounts.entry(user).or_insert(*number);
                if earlier != *number {
                    return Err(format!("{key}: the account of line {earlier}"));
                }
            }
            Ok(argument)
        });
        match checked {
            Err(fault) => faults.push((*number, fault)),
            Ok(argument) => {
                settings.push(Setting { number: *number, key: key.clone(), argument });
            }
        }
    }
    if faults.is_empty() {
        faults.extend(misfit(&settings));
    }
    if faults.is_empty() {
        return Ok(settings);
    }
    faults.sort_by_key(|(number, _)| *number);
    faults.truncate(MOST_ERRORS);
    Err(faults)
}

/// An option that a file sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// The line, counted from 1.
    pub number: usize,
    /// The long option, without dashes.
    pub key: String,
    /// As the command line has it. `None`: a flag that is off.
    pub argument: Option<String>,
}

/// What a file stands for, beside what the command line gives.
#[derive(Debug, Default)]
pub(super) struct OfFile {
    /// The arguments.
    pub arguments: Vec<String>,
    /// The options that it sets.
    pub keys: Vec<String>,
    /// Whether others than its owner may read passwords in it.
    pub exposed: bool,
}

/// What the file stands for, without the options that the command line gives.
///
/// # Errors
/// All that is wrong with it, each with the name of the file and the number of the line.
pub(super) fn arguments(path: &Path, command_line: &Matches) -> Result<OfFile, Vec<String>> {
    let shown = Escaped(path.as_os_str().as_encoded_bytes()).to_string();
    let (content, metadata) = durable::read(path, MOST_BYTES)
        .map_err(|error| vec![format!("--config {shown}: cannot read it: {error}")])?;
    let settings = text(&content).map_err(|faults| {
        let line = |(number, fault)| format!("--config {shown}: line {number}: {fault}");
        faults.into_iter().map(line).collect::<Vec<String>>()
    })?;
    let has_passwords = settings.iter().any(|setting| setting.key == "user");
    let exposed = has_passwords && metadata.mode() & 0o077 != 0;
    let mut file = OfFile { exposed, ..OfFile::default() };
    for Setting { key, argument, .. } in settings {
        // Two names of one setting.
        let names: &[&str] = match key.as_str() {
            "allow-local" | "local-for" => &["allow-local", "local-for"],
            key => &[key],
        };
        if !names.iter().any(|name| command_line.opt_present(name)) {
            file.arguments.extend(argument);
            file.keys.push(key);
        }
    }
    Ok(file)
}

/// The argument that a line stands for, if it is good on its own. `None`: it turns a flag off.
fn argument(line: &Line) -> Result<Option<String>, String> {
    let Line { key, value, .. } = line;
    if NOT_IN_A_FILE.contains(&&**key) {
        return Err(format!("{key}: not in a file"));
    }
    if !is_known(key) {
        return Err(describe_unknown(key));
    }
    let argument = match (is_flag(key), value.as_deref()) {
        (true, None | Some("on")) => format!("--{key}"),
        (true, Some("off")) => return Ok(None),
        (true, Some(_)) => return Err(format!("{key}: on or off expected")),
        (false, Some(value)) => format!("--{key}={value}"),
        (false, None) => return Err(format!("{key}: a value expected")),
    };
    let arguments = [argument];
    let given = options().parse(&arguments).map_err(|fail| describe_failure(&fail, &arguments))?;
    check(&given).map_err(|error| error.to_string())?;
    let [argument] = arguments;
    Ok(Some(argument))
}

/// What is wrong with a key that is no long option. What follows a `=` may be a password.
fn describe_unknown(key: &str) -> String {
    let (name, value) =
        key.split_once('=').map_or((key, None), |(name, value)| (name, Some(value)));
    match value {
        Some(_) if NOT_IN_A_FILE.contains(&name) => format!("{name}: not in a file"),
        Some(_) if is_known(name) => format!("{name}: a blank before its value expected, no ="),
        _ => describe_failure(&Fail::UnrecognizedOption(name.to_owned()), &[]),
    }
}

/// The first setting that does not go with those before it, each of which is good on its own.
fn misfit(settings: &[Setting]) -> Option<(usize, String)> {
    let fault = |settings: &[Setting]| {
        let arguments = settings.iter().filter_map(|setting| setting.argument.as_ref());
        check(&options().parse(arguments).ok()?).err()
    };
    fault(settings)?;
    // What does not fit together does not with more lines either.
    let (mut good, mut bad) = (0, settings.len());
    while bad - good > 1 {
        let middle = good.midpoint(bad);
        match settings.get(..middle).and_then(fault) {
            None => good = middle,
            Some(_) => bad = middle,
        }
    }
    let Setting { number, .. } = settings.get(good)?;
    Some((*number, fault(settings.get(..bad)?)?.to_string()))
}

/// The names of the accounts that an argument adds.
fn named(argument: &Option<String>) -> Vec<Vec<u8>> {
    let given = argument.as_ref().and_then(|argument| options().parse([argument]).ok());
    let users = given.and_then(|given| accounts(&given).ok()).unwrap_or_default();
    users.into_iter().map(|user| user.name).collect()
}

/// Whether there is such an option.
fn is_known(key: &str) -> bool {
    let long = format!("--{key}");
    let plain = PLAIN_OPTIONS.iter().any(|option| option.long == long);
    plain || crate::state::knobs::Knob::find(key.as_bytes()).is_some()
}

#[cfg(test)]
mod tests;
