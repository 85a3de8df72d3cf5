//! Lines of `key=value` fields (METP §3.4), and of `KEY: number`. Unknown keys are ignored.

use metp_protocol::quantity::is_digits;

/// The `key=value` pairs of a line, in their order; words without `=` are skipped.
pub fn pairs(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split(' ').filter_map(|word| word.split_once('='))
}

/// The value of a key. `None` if the line does not have the key, or its value is `-`, which stands for no
/// value.
pub fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let value = pairs(line).find(|(name, _)| *name == key).map(|(_, value)| value);
    value.filter(|value| *value != "-")
}

/// The value of a key, if it is a number of any size without a sign or a fraction: its digits as they came.
pub fn digits<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    value(line, key).filter(|value| is_digits(value.as_bytes()))
}

/// The number of the line `KEY: number`, of any size: its digits as they came. `None` if no line has the key, or
/// its value is no number.
pub fn figure<'a>(lines: &'a [String], key: &str) -> Option<&'a str> {
    let value = lines.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    value.map(str::trim).filter(|value| is_digits(value.as_bytes()))
}

/// The value of a key as a number; 0 if there is none, or it does not fit.
pub fn number(line: &str, key: &str) -> u64 {
    value(line, key).and_then(|value| value.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_keys() {
        let line = "id=17.3 user=a\\x20b peer=- up=12 x=y=z new";
        assert_eq!(value(line, "id"), Some("17.3"));
        assert_eq!(value(line, "user"), Some("a\\x20b"));
        assert_eq!(
            (value(line, "peer"), value(line, "ser"), value(line, "new")),
            (None, None, None)
        );
        assert_eq!(value(line, "x"), Some("y=z"));
        assert_eq!((number(line, "up"), number(line, "id"), number(line, "peer")), (12, 0, 0));
        assert_eq!(pairs(line).count(), 5);
        assert_eq!(
            (digits(line, "up"), digits(line, "id"), digits("a=", "a")),
            (Some("12"), None, None)
        );
    }
}
