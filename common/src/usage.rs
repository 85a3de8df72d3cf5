//! Messages about a wrong command line, in one form for both programs: `OPTION VALUE: RULE expected`, or
//! `OPTION: what is wrong with it`. For an unknown option the most similar one is suggested.

use std::fmt::Display;

use getopts::Fail;

use metp_protocol::text::{Escaped, latin1_encode};

/// The message about an argument that belongs to no option. It may be a password, or the second word of one
/// that was not quoted, so it is not shown.
pub const UNEXPECTED: &str = "unexpected argument (not shown: it may be a password)";

/// The names of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionName<'a> {
    /// `-p`, or empty.
    pub short: &'a str,
    /// `--port`
    pub long: &'a str,
}

impl<'a> OptionName<'a> {
    /// The name that messages use: the short one, if there is one.
    pub fn shown(&self) -> &'a str {
        if self.short.is_empty() { self.long } else { self.short }
    }
}

/// `-p 0: 1 to 65535 expected`. The value is one of the command line,
/// [`latin1_decode`](metp_protocol::text::latin1_decode)ed; `rule` says which values there are.
pub fn bad_value(option: &str, value: &str, rule: &dyn Display) -> String {
    let value = latin1_encode(value);
    // Every byte that could be mistaken for the message is escaped, so only no value at all needs quotes.
    let shown = if value.is_empty() { "\"\"".to_owned() } else { Escaped(&value).to_string() };
    format!("{option} {shown}: {rule} expected")
}

/// The message for `fail`, an error of the parser over `arguments` (as
/// [`latin1_decode`](metp_protocol::text::latin1_decode) returns them) of a program whose options are `known`.
pub fn describe(
    fail: &Fail,
    program: &str,
    arguments: &[String],
    known: &[OptionName<'_>],
) -> String {
    let of = |name: &str| {
        let dashed = dashed(name);
        let option = known.iter().find(|option| option.long == dashed);
        option.map_or(dashed, |option| option.shown().to_owned())
    };
    match fail {
        Fail::ArgumentMissing(name) => format!("{}: needs a value", of(name)),
        Fail::OptionMissing(name) => format!("{}: missing", of(name)),
        Fail::OptionDuplicated(name) => format!("{}: given more than once", of(name)),
        Fail::UnexpectedArgument(name) => format!("{}: takes no value", of(name)),
        Fail::UnrecognizedOption(name) => {
            let hint = match meant(name, arguments, known) {
                Some(option) => format!("did you mean {option}? "),
                None => String::new(),
            };
            format!("{}: unknown option; {hint}{program} -h lists all", dashed(name))
        }
    }
}

/// A name with its dashes, up to its first colon: what is not a known option may be NAME:PASS.
fn dashed(name: &str) -> String {
    let nameable = name.split_once(':').map_or(name, |(name, _)| name);
    let dashes = if name.chars().count() == 1 { "-" } else { "--" };
    format!("{dashes}{}", Escaped(&latin1_encode(nameable)))
}

/// The option that was probably meant. `name` has no dashes: it is a letter, or a long name.
fn meant<'a>(name: &str, arguments: &[String], known: &[OptionName<'a>]) -> Option<&'a str> {
    let mut letters = name.chars();
    let (Some(letter), None) = (letters.next(), letters.next()) else {
        return nearest(name, known.iter().map(|option| option.long));
    };
    // `-port` is read as the letters -p, -o, -r and -t.
    let whole = known.iter().map(|option| option.long).find(|long| {
        arguments.iter().any(|argument| {
            argument.contains(letter) && long.strip_prefix('-').is_some_and(|one| one == argument)
        })
    });
    let other_case = known.iter().map(|option| option.short).find(|short| {
        short.strip_prefix('-').is_some_and(|short| short.eq_ignore_ascii_case(name))
    });
    whole.or(other_case)
}

/// The name that begins with `typed`, else the one at the smallest distance, if that is small.
fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    /// Characters of the typed name that are compared: no option is longer.
    const LONGEST: usize = 64;
    /// Characters from which on a common beginning counts.
    const BEGINNING: usize = 3;
    let typed: Vec<char> = typed.chars().take(LONGEST).collect();
    let distances = names.map(|name| {
        let letters: Vec<char> = name.trim_start_matches('-').chars().collect();
        let begins = typed.len() >= BEGINNING && letters.starts_with(&typed);
        (if begins { 0 } else { distance(&typed, &letters) }, letters.len(), name)
    });
    let few = 1.max(typed.len() / 3);
    let near = distances.filter(|(distance, length, _)| *distance <= few && *distance < *length);
    near.min_by_key(|(distance, length, _)| (*distance, *length)).map(|(_, _, name)| name)
}

/// The edit distance of `a` and `b`: insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, other) in b.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX);
            let replaced = at(&above, j).saturating_add(usize::from(letter != other));
            let put_in = at(&row, j).saturating_add(1);
            let taken = at(&above, j + 1).saturating_add(1);
            let mut least = replaced.min(put_in).min(taken);
            let crossed =
                i > 0 && j > 0 && a.get(i - 1) == Some(other) && b.get(j - 1) == Some(letter);
            if crossed {
                least = least.min(at(&before, j - 1).saturating_add(1));
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [OptionName<'_>; 5] = [
        OptionName { short: "-m", long: "--metrics" },
        OptionName { short: "", long: "--metrics-all" },
        OptionName { short: "-p", long: "--port" },
        OptionName { short: "-P", long: "--metp-port" },
        OptionName { short: "-w", long: "--watch" },
    ];

    fn said(name: &str, arguments: &[&str]) -> String {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        describe(&Fail::UnrecognizedOption(name.to_owned()), "program", &arguments, &KNOWN)
    }

    #[test]
    fn an_unknown_option_is_shown_the_nearest() {
        for (name, meant) in [
            ("metrisc", "--metrics"),
            ("metric", "--metrics"),
            ("metrics-al", "--metrics-all"),
            ("mertics", "--metrics"),
            ("prot", "--port"),
            ("Port", "--port"),
            ("wat", "--watch"),
            ("wacth", "--watch"),
            ("metpport", "--metp-port"),
            ("M", "-m"),
            ("W", "-w"),
        ] {
            let says = format!("unknown option; did you mean {meant}? program -h lists all");
            assert!(said(name, &[]).ends_with(&says), "{name}: {}", said(name, &[]));
        }
        // One dash is missing: getopts reads the word as letters.
        assert!(said("e", &["-metrics"]).contains("did you mean --metrics?"));
        assert!(said("e", &["-u", "-metric"]).starts_with("-e: unknown option; program -h"));
    }

    #[test]
    fn what_is_like_nothing_is_not_guessed_at_and_no_password_is_shown() {
        for name in ["x", "nonsense", "admin", "a", "secret", "\u{e9}\u{e9}"] {
            assert!(said(name, &[]).ends_with(": unknown option; program -h lists all"), "{name}");
        }
        let says = "--admin: unknown option; program -h lists all";
        assert_eq!(said("admin:secret", &["--admin:secret"]), says);
        assert!(said(&"x".repeat(5000), &[]).len() < 5100);
    }

    #[test]
    fn there_is_one_form() {
        assert_eq!(bad_value("-c", "0", &"1 to 1048576"), "-c 0: 1 to 1048576 expected");
        assert_eq!(bad_value("-p", "", &"1 to 65535"), "-p \"\": 1 to 65535 expected");
        assert_eq!(bad_value("-p", "a b\n", &"a port"), "-p a\\x20b\\x0a: a port expected");
        for (fail, says) in [
            (Fail::ArgumentMissing("port".into()), "-p: needs a value"),
            (Fail::ArgumentMissing("p".into()), "-p: needs a value"),
            (Fail::OptionDuplicated("watch".into()), "-w: given more than once"),
            (Fail::UnexpectedArgument("metrics-all".into()), "--metrics-all: takes no value"),
        ] {
            assert_eq!(describe(&fail, "program", &[], &KNOWN), says);
        }
    }

    #[test]
    fn letters_that_differ_are_counted() {
        let distance = |a: &str, b: &str| {
            distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>())
        };
        assert_eq!(distance("", ""), 0);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("port", "prot"), 1);
        assert_eq!(distance("port", "sport"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
