//! Pairs of METP as JSON (RFC 8259), in the form in which `client --json` shows them.

use metp_protocol::key::{self, MetpKey, ValueForm};
use metp_protocol::quantity::is_digits;

/// The object of a line of `key=value` pairs: numbers as such, `-` as null. Keys have underscores.
pub fn object(line: &str) -> String {
    of_pairs(key::pairs(line))
}

/// The object of a body with a pair in each line; `between` separates key and value.
pub fn body(lines: &str, between: char) -> String {
    let pairs = lines.lines().filter_map(|line| line.split_once(between));
    of_pairs(pairs.map(|(key, text)| (key, text.trim())))
}

fn of_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut object = "{".to_owned();
    for (key, text) in pairs {
        if object.len() > 1 {
            object.push(',');
        }
        string(&key.to_lowercase().replace('-', "_"), &mut object);
        object.push(':');
        value(key, text, &mut object);
    }
    object.push('}');
    object
}

fn value(key: &str, text: &str, into: &mut String) {
    match (text, MetpKey::find(key).map(|key| key.form)) {
        ("-", _) => into.push_str("null"),
        (_, Some(ValueForm::Text | ValueForm::List | ValueForm::Line)) => string(text, into),
        _ if is_number(text) => into.push_str(text),
        _ => string(text, into),
    }
}

/// Whether JSON has it as a number.
fn is_number(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && is_digits(text.as_bytes());
    digits(whole) && digits(fraction) && (whole == "0" || !whole.starts_with('0'))
}

/// Appends a string, with its quotes.
pub fn string(text: &str, into: &mut String) {
    into.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => into.extend(['\\', letter]),
            '\n' => into.push_str("\\n"),
            letter if letter.is_control() => {
                into.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            letter => into.push(letter),
        }
    }
    into.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_object() {
        let line = "time=2026-11-27T05:00:00Z user=7 source=[::1]:5 destination=\\x22\":80 reply=0 up=12 down=- \
                    duration=0.250 reason=finished later-key=01 new=1.5";
        assert_eq!(
            object(line),
            concat!(
                r#"{"time":"2026-11-27T05:00:00Z","user":"7","source":"[::1]:5","#,
                r#""destination":"\\x22\":80","reply":0,"up":12,"down":null,"duration":0.250,"#,
                r#""reason":"finished","later_key":"01","new":1.5}"#,
            )
        );
        assert_eq!(object(""), "{}");
        assert_eq!(body("A_B:   1\nSTATE: up\n", ':'), r#"{"a_b":1,"state":"up"}"#);
    }

    #[test]
    fn any_text_is_a_string() {
        for (text, expected) in [
            ("", r#""""#),
            (r#"a"b\c"#, r#""a\"b\\c""#),
            ("\n\0\u{7f}\u{9f}", r#""\n\u0000\u007f\u009f""#),
            ("\u{e4}\u{1f600}", "\"\u{e4}\u{1f600}\""),
        ] {
            let mut shown = String::new();
            string(text, &mut shown);
            assert_eq!(shown, expected);
        }
    }
}
