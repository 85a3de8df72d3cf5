//! Answers for programs: one JSON document for a call, one line for an event. Its shape stands in `client(1)`.

use serde_json::{Map, Value, json};
use socks5d::proto::text::Escaped;

use crate::answer::{Answer, Kind};
use crate::conversation::{Failure, Server};
use crate::order::Order;
use crate::{fields, render};

/// Keys whose values are words, whatever they look like. All others are numbers if they look like one.
const WORDS: [&str; 20] = [
    "implementation",
    "version",
    "protocol",
    "state",
    "user",
    "role",
    "last-seen",
    "id",
    "source",
    "destination",
    "peer",
    "key",
    "unit",
    "acts",
    "event",
    "reason",
    "service",
    "result",
    "time",
    "text",
];
/// Keys whose values are lists.
const LISTS: [&str; 2] = ["verbs", "topics"];

/// The answers of a call.
pub struct Document {
    server: String,
    user: String,
    results: Vec<Value>,
}

impl Document {
    /// A call that begins.
    pub fn new(server: &Server) -> Self {
        Document {
            server: render::endpoint(&server.host, server.port),
            user: Escaped(&server.name).to_string(),
            results: Vec::new(),
        }
    }

    /// Adds what an order came to.
    pub fn add(&mut self, order: &Order, answer: &Result<Answer, Failure>) {
        let mut entry = Map::new();
        entry.insert("option".to_owned(), order.option.into());
        entry.insert("command".to_owned(), order.shown().into());
        entry.insert("ok".to_owned(), answer.is_ok().into());
        let (key, value) = match answer {
            Ok(answer) if order.line.is_some() => {
                ("result", json!({ "text": answer.text, "lines": answer.lines }))
            }
            Ok(answer) => ("result", result(answer)),
            Err(failure) => ("error", error(failure)),
        };
        entry.insert(key.to_owned(), value);
        self.results.push(Value::Object(entry));
    }

    /// The document, and why the call broke off if it did.
    pub fn text(self, failure: Option<&Failure>) -> String {
        let Document { server, user, results } = self;
        let mut document = json!({ "server": server, "user": user, "results": results });
        if let (Some(failure), Value::Object(document)) = (failure, &mut document) {
            document.insert("error".to_owned(), error(failure));
        }
        format!("{document:#}\n")
    }
}

fn error(failure: &Failure) -> Value {
    let message = failure.to_string();
    let cause = message.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    let cause = cause.map(|(cause, _)| cause).filter(|_| matches!(failure, Failure::Refused(_)));
    json!({ "message": message, "cause": cause, "exit": failure.exit_code() })
}

fn result(answer: &Answer) -> Value {
    let lines = &answer.lines;
    match answer.kind {
        Kind::Done => Value::Null,
        Kind::Killed => json!({ "killed": fields::number(&answer.text, "killed") }),
        Kind::Metrics | Kind::Figures => pairs(lines, ':'),
        Kind::Pairs => pairs(lines, '='),
        Kind::Users => lines.iter().map(|line| words(line, &["user", "role"])).collect(),
        Kind::Records => lines.iter().map(|line| record(line)).collect(),
        Kind::Rows => lines.iter().map(|line| object(line)).collect(),
    }
}

/// One object of `key=value` fields.
pub fn object(line: &str) -> Value {
    fields::pairs(line)
        .map(|(key, text)| (key.to_owned(), value(key, text)))
        .collect::<Map<_, _>>()
        .into()
}

/// One object out of a line for each key, which is in lower case.
fn pairs(lines: &[String], between: char) -> Value {
    let pair = |line: &String| {
        let (key, text) = line.split_once(between)?;
        Some((key.to_lowercase(), value(key, text.trim())))
    };
    lines.iter().filter_map(pair).collect::<Map<_, _>>().into()
}

fn value(key: &str, text: &str) -> Value {
    match text {
        "-" => Value::Null,
        _ if LISTS.contains(&key) => text.split(',').collect(),
        _ if WORDS.contains(&key) => text.into(),
        _ => number(text).unwrap_or_else(|| text.into()),
    }
}

/// What is no number of the server's, or would not be the same as a number of JSON, stays a word.
fn number(text: &str) -> Option<Value> {
    /// Digits that every reader of JSON keeps.
    const EXACT: usize = 15;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('.') {
        None if digits(text) => text.parse::<u64>().ok().map(Value::from),
        Some((whole, part)) if digits(whole) && digits(part) && text.len() <= EXACT + 1 => {
            text.parse::<f64>().ok().map(Value::from)
        }
        _ => None,
    }
}

/// A line of words that have names.
fn words(line: &str, names: &[&str]) -> Value {
    let named = names.iter().zip(line.split(' '));
    named.map(|(name, word)| ((*name).to_owned(), word.into())).collect::<Map<_, Value>>().into()
}

/// A record of the access log: `[time] user source destination bytes`.
fn record(line: &str) -> Value {
    let (rest, bytes) = line.rsplit_once(' ').unwrap_or((line, ""));
    let rest = rest.replacen(['[', ']'], "", 2);
    let mut record = words(&rest, &["time", "user", "source", "destination"]);
    if let Value::Object(record) = &mut record {
        record.insert("bytes".to_owned(), number(bytes).unwrap_or(Value::Null));
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: Kind, lines: &[&str]) -> Answer {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        Answer { kind, text: "OK killed=2".to_owned(), lines }
    }

    #[test]
    fn words_stay_words_and_numbers_become_numbers() {
        let line = "id=17.3 user=123 peer=- up=18446744073709551615 age=0.250 new=later";
        assert_eq!(
            object(line),
            json!({"id": "17.3", "user": "123", "peer": null, "up": u64::MAX, "age": 0.25, "new": "later"})
        );
        let setting = "key=log-level value=info unit=level min=- max=- acts=now";
        assert_eq!(
            object(setting),
            json!({"key": "log-level", "value": "info", "unit": "level", "min": null, "max": null,
                   "acts": "now"})
        );
        let odd =
            "a=inf b=-3 c=NaN d=99999999999999999999999 e=1. f=.5 topics=- g=1.234567890123456";
        assert_eq!(
            object(odd),
            json!({"a": "inf", "b": "-3", "c": "NaN", "d": "99999999999999999999999", "e": "1.",
                   "f": ".5", "topics": null, "g": "1.234567890123456"})
        );
    }

    #[test]
    fn each_kind_has_its_shape() {
        for (kind, lines, shape) in [
            (Kind::Done, &[][..], json!(null)),
            (Kind::Killed, &[], json!({"killed": 2})),
            (
                Kind::Metrics,
                &[
                    "HISTORICAL_CONNECTIONS: 1",
                    "CURRENT_CONNECTIONS:    0",
                    "BYTES_TRANSFERRED:      5",
                ],
                json!({"historical_connections": 1, "current_connections": 0, "bytes_transferred": 5}),
            ),
            (
                Kind::Pairs,
                &["version=0.1.0", "verbs=A,B", "uptime=1.5", "pid=7"],
                json!({"version": "0.1.0", "verbs": ["A", "B"], "uptime": 1.5, "pid": 7}),
            ),
            (Kind::Users, &["007 admin"], json!([{"user": "007", "role": "admin"}])),
            (
                Kind::Records,
                &["[2025-06-28T14:32:10Z] alice 192.0.2.1 [::1]:80 1024"],
                json!([{"time": "2025-06-28T14:32:10Z", "user": "alice", "source": "192.0.2.1",
                        "destination": "[::1]:80", "bytes": 1024}]),
            ),
            (Kind::Rows, &[], json!([])),
        ] {
            assert_eq!(result(&answer(kind, lines)), shape, "{kind:?}");
        }
    }
}
