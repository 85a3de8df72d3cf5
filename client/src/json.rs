//! Bodies and events as JSON values, of the form described in `client(1)`.

use metp_protocol::LogWords;
use metp_protocol::key::{self, MetpKey, ValueForm};
use metp_protocol::quantity::is_digits;
use metp_protocol::text::line_of_text;
use serde_json::{Map, Number, Value, json};

use crate::answer::{Answer, AnswerKind};

/// The value of an answer that is no list.
pub fn result(answer: &Answer) -> Value {
    let lines = &answer.lines;
    match answer.kind {
        AnswerKind::Killed => json!({ "killed": digits(&answer.text, key::KILLED) }),
        AnswerKind::Generated => json!({
            "password": key::PASSWORD.of(&answer.text),
            "created": key::CREATED.of(&answer.text) == Some("yes"),
        }),
        AnswerKind::Reloaded => object(&answer.text),
        AnswerKind::Imported => imported(answer),
        AnswerKind::Metrics | AnswerKind::Figures => pairs(lines, ':'),
        AnswerKind::Pairs => pairs(lines, '='),
        AnswerKind::Done | AnswerKind::Users | AnswerKind::Records | AnswerKind::Rows => {
            Value::Null
        }
    }
}

/// What has become of the lines of a file.
fn imported(answer: &Answer) -> Value {
    let refused = answer.lines.iter().filter_map(|line| line.split_once(' '));
    let refused: Vec<Value> =
        refused.map(|(line, error)| json!({ "line": number(line), "error": error })).collect();
    json!({ "imported": answer.imported(), "refused": refused })
}

/// The value of a line of a list.
pub fn row(kind: AnswerKind, line: &str) -> Value {
    match kind {
        AnswerKind::Users => words(line, &[key::USER, key::ROLE]),
        AnswerKind::Records => record(line),
        _ => object(line),
    }
}

/// The value of a key as a number; 0 if it is none.
pub fn digits(line: &str, key: MetpKey) -> Value {
    key.of(line).and_then(number).unwrap_or_else(|| 0.into())
}

/// The object of a line of `key=value` fields.
pub fn object(line: &str) -> Value {
    key::pairs(line).map(|(key, text)| (named(key), value(key, text))).collect::<Map<_, _>>().into()
}

/// The key in JSON: lower case, with underscores.
fn named(key: &str) -> String {
    key.to_lowercase().replace('-', "_")
}

/// The object of a body with one key in each line; `between` separates key and value.
fn pairs(lines: &[String], between: char) -> Value {
    let pair = |line: &String| {
        let (key, text) = line.split_once(between)?;
        Some((named(key), value(key, text.trim())))
    };
    lines.iter().filter_map(pair).collect::<Map<_, _>>().into()
}

/// The value of a key: of the form that the protocol gives it. That of a key of a later version is a number if it
/// looks like one.
fn value(key: &str, text: &str) -> Value {
    match (text, MetpKey::find(key).map(|key| key.form)) {
        ("-", _) => Value::Null,
        (_, Some(ValueForm::List)) => text.split(',').collect(),
        (_, Some(ValueForm::Text)) => text.into(),
        (_, Some(ValueForm::Line)) => line_of_text(text).into(),
        _ => number(text).unwrap_or_else(|| text.into()),
    }
}

/// A number with exactly the digits that the server sent. `None` if it is no number in JSON, as with leading
/// zeros.
fn number(text: &str) -> Option<Value> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let plain = is_digits(whole.as_bytes()) && is_digits(part.as_bytes());
    plain.then(|| text.parse::<Number>().ok()).flatten().map(Value::Number)
}

/// The object of a line whose words are the values of `keys`.
fn words(line: &str, keys: &[MetpKey]) -> Value {
    let named = keys.iter().zip(line.split(' '));
    named.map(|(key, word)| (key.name.to_owned(), word.into())).collect::<Map<_, Value>>().into()
}

/// The object of an access log record: `[time] user source destination bytes`.
pub fn record(line: &str) -> Value {
    let LogWords { time, user, source, destination, bytes } = LogWords::parse(line);
    let texts = [
        (key::TIME, time),
        (key::USER, user),
        (key::SOURCE, source),
        (key::DESTINATION, destination),
    ];
    let texts = texts.map(|(key, text)| (key.name.to_owned(), text.into()));
    let bytes = ("bytes".to_owned(), number(bytes).unwrap_or(Value::Null));
    texts.into_iter().chain([bytes]).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value as text: a comparison of numbers would not see their digits.
    fn shown(line: &str) -> String {
        object(line).to_string()
    }

    #[test]
    fn strings_stay_strings_and_numbers_become_numbers() {
        assert_eq!(
            shown(
                "id=17.3 user=123 peer=- up=18446744073709551615 age=0.250 last-seen=- new-key=later"
            ),
            r#"{"id":"17.3","user":"123","peer":null,"up":18446744073709551615,"age":0.250,"last_seen":null,"new_key":"later"}"#
        );
        assert_eq!(
            shown("key=log-level value=info unit=level min=- max=- applies=now"),
            r#"{"key":"log-level","value":"info","unit":"level","min":null,"max":null,"applies":"now"}"#
        );
        assert_eq!(
            shown("a=inf b=-3 c=NaN d=1e5 e=1. f=.5 topics=- g=007 h=0x1 i=1.2.3 j="),
            r#"{"a":"inf","b":"-3","c":"NaN","d":"1e5","e":"1.","f":".5","topics":null,"g":"007","h":"0x1","i":"1.2.3","j":""}"#
        );
    }

    /// Numbers are passed on with the digits that came, whatever the limits of a reader.
    #[test]
    fn numbers_of_any_size_keep_their_digits() {
        let long = "9".repeat(3000);
        for number in [
            "0",
            "9007199254740993",
            "18446744073709551616",
            "340282366920938463463374607431768211456",
            "1.234567890123456789",
            "0.000",
            "123456789012345678901234567890.5",
            &long,
        ] {
            assert_eq!(shown(&format!("up={number}")), format!("{{\"up\":{number}}}"));
            let killed = Answer {
                kind: AnswerKind::Killed,
                text: format!("OK killed={number}"),
                lines: Vec::new(),
            };
            assert_eq!(result(&killed).to_string(), format!("{{\"killed\":{number}}}"));
            let record = row(AnswerKind::Records, &format!("[x] a b c {number}"));
            assert_eq!(record["bytes"].to_string(), number);
        }
    }

    #[test]
    fn each_kind_has_its_shape() {
        let answer = |kind, lines: &[&str]| {
            let lines = lines.iter().map(|line| (*line).to_owned()).collect();
            result(&Answer { kind, text: "OK killed=2".to_owned(), lines })
        };
        for (kind, lines, shape) in [
            (AnswerKind::Done, &[][..], json!(null)),
            (AnswerKind::Killed, &[], json!({"killed": 2})),
            (
                AnswerKind::Metrics,
                &[
                    "HISTORICAL_CONNECTIONS: 1",
                    "CURRENT_CONNECTIONS:    0",
                    "BYTES_TRANSFERRED:      5",
                ],
                json!({"historical_connections": 1, "current_connections": 0, "bytes_transferred": 5}),
            ),
            (
                AnswerKind::Pairs,
                &["version=0.1.0", "verbs=A,B", "uptime=1.5", "closing-in=-", "pid=7"],
                json!({"version": "0.1.0", "verbs": ["A", "B"], "uptime": 1.5, "closing_in": null, "pid": 7}),
            ),
        ] {
            assert_eq!(answer(kind, lines), shape, "{kind:?}");
        }
        assert_eq!(row(AnswerKind::Users, "007 admin"), json!({"user": "007", "role": "admin"}));
        assert_eq!(
            row(AnswerKind::Records, "[2025-06-28T14:32:10Z] alice 192.0.2.1 [::1]:80 1024"),
            json!({"time": "2025-06-28T14:32:10Z", "user": "alice", "source": "192.0.2.1",
                   "destination": "[::1]:80", "bytes": 1024})
        );
    }
}
