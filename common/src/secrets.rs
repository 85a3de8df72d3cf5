//! Secrets in memory are overwritten. Finds the passwords on a command line, so that they can be erased there. This happens before the command line
//! is parsed, by the rules of the parser; an argument that the parser would refuse counts as a password.

use std::ffi::OsString;
use std::hint::black_box;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;

/// Overwrites a secret, before its memory is given back.
pub fn wipe(secret: &mut [u8]) {
    secret.fill(0);
    // So that the compiler does not leave out what nobody reads.
    black_box(secret);
}

/// What an option takes, as far as passwords are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// No value.
    Nothing,
    /// A value that is not secret.
    Plain,
    /// Two values that are not secret.
    TwoPlain,
    /// A value that is not secret, unless the next argument is an option.
    Maybe,
    /// `NAME:PASSWORD`
    Account,
    /// A name, then a password that may be left out.
    NameAndPassword,
}

/// The octets of each argument that are or may be a password; an empty range if none are. `option` knows the
/// options, `-u` and `--user` alike, and `shows` whether what follows `--` may be seen.
pub fn secrets(
    arguments: &[OsString],
    option: impl Fn(&str) -> Option<Takes>,
    shows: impl Fn(&[OsString]) -> bool,
) -> Vec<Range<usize>> {
    let known = |text: &[u8]| std::str::from_utf8(text).ok().and_then(&option);
    let mut ranges = vec![0..0; arguments.len()];
    let mut pending = Pending::Nothing;
    for (index, argument) in arguments.iter().enumerate() {
        let text = argument.as_bytes();
        let all = 0..text.len();
        let range = match pending {
            Pending::Value(Takes::Account) => behind_colon(text, 0),
            Pending::Value(Takes::NameAndPassword) => {
                pending = Pending::Password;
                continue;
            }
            Pending::Value(Takes::TwoPlain) => {
                pending = Pending::Value(Takes::Plain);
                continue;
            }
            Pending::Value(_) => 0..0,
            Pending::Password if known(text).is_none() && text != b"--" => all,
            Pending::Maybe if !text.starts_with(b"-") => 0..0,
            _ if text == b"--" => {
                let rest = arguments.get(index.saturating_add(1)..).unwrap_or_default();
                if !shows(rest) {
                    let all = rest.iter().map(|argument| 0..argument.len());
                    ranges.truncate(index.saturating_add(1));
                    ranges.extend(all);
                }
                return ranges;
            }
            _ => {
                let (range, next) = match text {
                    [b'-', b'-', ..] => long(text, known),
                    [b'-', _, ..] => short(text, known),
                    _ => (all, Pending::Nothing),
                };
                pending = next;
                set(&mut ranges, index, range);
                continue;
            }
        };
        pending = Pending::Nothing;
        set(&mut ranges, index, range);
    }
    ranges
}

/// What the next argument is.
#[derive(Clone, Copy)]
enum Pending {
    /// An option, or nothing that is known.
    Nothing,
    /// The value of an option.
    Value(Takes),
    /// The value of an option, unless it is an option itself.
    Maybe,
    /// A password, unless it is an option.
    Password,
}

impl Pending {
    fn after(takes: Takes) -> Self {
        match takes {
            Takes::Nothing => Pending::Nothing,
            Takes::Maybe => Pending::Maybe,
            takes => Pending::Value(takes),
        }
    }
}

fn set(ranges: &mut [Range<usize>], index: usize, range: Range<usize>) {
    if let Some(place) = ranges.get_mut(index) {
        *place = range;
    }
}

/// `--user`, `--user=NAME:PASSWORD`
fn long(text: &[u8], known: impl Fn(&[u8]) -> Option<Takes>) -> (Range<usize>, Pending) {
    let end = text.iter().position(|byte| *byte == b'=').unwrap_or(text.len());
    let name = text.get(..end).unwrap_or_default();
    let value = end.saturating_add(1).min(text.len());
    let has_value = end < text.len();
    match known(name) {
        Some(takes) if !has_value => (0..0, Pending::after(takes)),
        Some(Takes::Account) => (behind_colon(text, value), Pending::Nothing),
        Some(Takes::Plain | Takes::Maybe) => (0..0, Pending::Nothing),
        Some(_) => (value..text.len(), Pending::Nothing),
        // Perhaps a name that is misspelt, or a password that begins like an option.
        None => (2..text.len(), Pending::Nothing),
    }
}

/// `-u`, `-uNAME:PASSWORD`, `-mu`
fn short(text: &[u8], known: impl Fn(&[u8]) -> Option<Takes>) -> (Range<usize>, Pending) {
    for (at, letter) in text.iter().enumerate().skip(1) {
        let behind = at.saturating_add(1);
        let is_last = behind >= text.len();
        match known(&[b'-', *letter]) {
            Some(Takes::Nothing) => {}
            Some(takes) if is_last => return (0..0, Pending::after(takes)),
            Some(Takes::Account) => return (behind_colon(text, behind), Pending::Nothing),
            Some(Takes::Plain | Takes::Maybe) => return (0..0, Pending::Nothing),
            Some(_) => return (behind..text.len(), Pending::Nothing),
            None => return (at..text.len(), Pending::Nothing),
        }
    }
    (0..0, Pending::Nothing)
}

/// What follows the first colon of an account that begins at `from`.
fn behind_colon(text: &[u8], from: usize) -> Range<usize> {
    let account = text.get(from..).unwrap_or_default();
    let name = account.iter().position(|byte| *byte == b':');
    name.map_or(0..0, |length| from.saturating_add(length).saturating_add(1)..text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: &str) -> Option<Takes> {
        Some(match name {
            "-m" | "--metrics" => Takes::Nothing,
            "-H" | "--host" => Takes::Plain,
            "-w" | "--watch" => Takes::Maybe,
            "-u" | "--user" => Takes::Account,
            "-a" | "--add-user" => Takes::NameAndPassword,
            "-r" | "--set-role" => Takes::TwoPlain,
            _ => return None,
        })
    }

    /// The line with each octet of a password as `*`.
    fn shown(line: &str) -> String {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let ranges =
            secrets(&arguments, option, |rest| rest.first().is_some_and(|word| word == "USERS"));
        assert_eq!(ranges.len(), arguments.len());
        let words = arguments.iter().zip(ranges).map(|(argument, range)| {
            let mut bytes = argument.as_bytes().to_vec();
            bytes[range].fill(b'*');
            String::from_utf8(bytes).unwrap()
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn passwords_are_found_and_the_rest_is_not() {
        for (line, shows) in [
            ("-H ::1 -u admin:12:34 -m", "-H ::1 -u admin:***** -m"),
            ("-uadmin:1234 -m", "-uadmin:**** -m"),
            ("-mu admin:1234", "-mu admin:****"),
            ("-muadmin:1234", "-muadmin:****"),
            ("--user admin:1234", "--user admin:****"),
            ("--user=admin:1234", "--user=admin:****"),
            ("-u admin -m", "-u admin -m"),
            ("-a bob pw -m", "-a bob ** -m"),
            ("-a bob -m", "-a bob -m"),
            ("-a bob -pw", "-a bob ***"),
            ("-a bob - -m", "-a bob * -m"),
            ("-a --user pw", "-a --user **"),
            ("--add-user bob pw -a eve pw2", "--add-user bob ** -a eve ***"),
            ("-r bob admin pw", "-r bob admin **"),
            ("-w 2 -H proxy:80", "-w 2 -H proxy:80"),
            ("-w -u a:b", "-w -u a:*"),
            ("-w2", "-w2"),
            ("--watch=2", "--watch=2"),
            // Nothing that would be accepted.
            ("-u alice pw", "-u alice **"),
            ("pw", "**"),
            ("--pasword=pw", "--**********"),
            ("--metrics=pw", "--metrics=**"),
            ("--add-user=bob pw", "--add-user=*** **"),
            ("-xpw", "-***"),
            ("-abob pw", "-a*** **"),
            ("-a bob -- USERS", "-a bob -- USERS"),
            ("-- USERS all", "-- USERS all"),
            ("-m -- ADD-USER bob pw", "-m -- ******** *** **"),
            ("-m --", "-m --"),
            ("-H -- -u a:b", "-H -- -u a:*"),
            ("-u", "-u"),
            ("-", "*"),
        ] {
            assert_eq!(shown(line), shows, "{line}");
        }
    }
}
