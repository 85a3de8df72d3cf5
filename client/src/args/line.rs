//! The arguments, made ready for getopts: each option gets all its values in one argument.

use std::ffi::OsString;
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt;

use metp_protocol::text::latin1_decode;

use super::options::{self, ALIASES, Arity, Opt, UsageError};

/// Stands between two values of one option; no argument can hold it.
const VALUE_SEPARATOR: char = '\0';

/// Arguments as text.
pub struct NormalizedArgs {
    /// Aliases by their names, and the values of an option in one argument with it.
    pub options: Vec<String>,
    /// What follows `--`.
    pub raw: Option<Vec<String>>,
    /// The option before the first word that belongs to none.
    pub stray: Option<&'static str>,
}

impl NormalizedArgs {
    /// Reads arguments.
    ///
    /// # Errors
    /// If an option that has to have two values has fewer.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let arguments = arguments.into_iter().map(|argument| latin1_decode(argument.as_bytes()));
        let mut arguments = arguments.peekable();
        let mut options = Vec::new();
        let (mut last, mut stray) = (None, None);
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                return Ok(NormalizedArgs { options, raw: Some(arguments.collect()), stray });
            }
            let argument = advertised(argument);
            let option = options::find(&argument);
            match named(&argument) {
                Some(option) => last = Some(option.name().shown()),
                None if !argument.starts_with('-') => stray = stray.or(last),
                None => {}
            }
            match option.map_or(Arity::Nothing, |option| option.takes) {
                Arity::Nothing => options.push(argument),
                Arity::One => options.extend([argument].into_iter().chain(arguments.next())),
                Arity::Two | Arity::OneOrTwo => {
                    let Some(first) = arguments.next() else {
                        options.push(argument);
                        continue;
                    };
                    let second = second(&mut arguments);
                    if second.is_none() && option.is_some_and(|option| option.takes == Arity::Two) {
                        return Err(needs_two(last.unwrap_or_default()));
                    }
                    let values = second.map_or(first.clone(), |second| pair(&first, &second));
                    options.extend([argument, values]);
                }
                Arity::Maybe => {
                    let value = arguments.next_if(|next| !next.starts_with('-'));
                    let name = option.map_or("", |option| option.long);
                    options.push(value.map_or(name.to_owned(), |value| format!("{name}={value}")));
                }
            }
        }
        Ok(NormalizedArgs { options, raw: None, stray })
    }
}

/// The two values of an option; the second may be missing.
pub fn values(text: &str) -> (&str, Option<&str>) {
    text.split_once(VALUE_SEPARATOR).map_or((text, None), |(first, second)| (first, Some(second)))
}

/// What is said of an option whose second value is missing.
pub fn needs_two(option: &str) -> UsageError {
    UsageError(format!("{option}: needs two values"))
}

/// Passwords may begin with a dash; what is an option is more likely one, and the value before it forgotten.
fn second(arguments: &mut Peekable<impl Iterator<Item = String>>) -> Option<String> {
    arguments.next_if(|next| next != "--" && named(&advertised(next.clone())).is_none())
}

/// The option that an argument names, with its value behind `=` or without.
fn named(argument: &str) -> Option<&'static Opt> {
    argument.split('=').next().and_then(options::find)
}

fn pair(first: &str, second: &str) -> String {
    format!("{first}{VALUE_SEPARATOR}{second}")
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
