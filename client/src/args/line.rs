//! Arguments in a form that getopts can parse: options of two values have both in one argument.

use std::ffi::OsString;
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt;

use metp_protocol::text::latin1_decode;

use super::options::{self, ALIASES, Arity, Opt, UsageError};

/// Separates two values of one option; no argument can hold it.
const VALUE_SEPARATOR: char = '\0';

/// Arguments as text, one character for each byte.
pub struct NormalizedArgs {
    /// The options, aliases replaced by their options, each with its values in one argument.
    pub options: Vec<String>,
    /// The words after `--`, if it is there.
    pub raw: Option<Vec<String>>,
    /// The option before the first word that belongs to no option.
    pub stray: Option<&'static str>,
}

impl NormalizedArgs {
    /// Reads arguments.
    ///
    /// # Errors
    /// If an option that needs two values has fewer.
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

/// The values of an option that takes two; the second may be missing.
pub fn values(text: &str) -> (&str, Option<&str>) {
    text.split_once(VALUE_SEPARATOR).map_or((text, None), |(first, second)| (first, Some(second)))
}

/// The error of an option whose second value is missing.
pub fn needs_two(option: &str) -> UsageError {
    UsageError(format!("{option}: needs two values"))
}

/// The second value of an option. A password may begin with a dash; but where the word is an option, the value
/// was most likely forgotten.
fn second(arguments: &mut Peekable<impl Iterator<Item = String>>) -> Option<String> {
    arguments.next_if(|next| next != "--" && named(&advertised(next.clone())).is_none())
}

/// The option that an argument names, with or without `=VALUE`.
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
