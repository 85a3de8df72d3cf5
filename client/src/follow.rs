//! The access log as it is written: one line for each request that is over.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::json;
use socks5d::proto::metp::{Command, Topic, Topics};

use crate::conversation::{Failure, Server};
use crate::table::Style;
use crate::{complain, fields, json, show, units};

/// What the reply of the server to the request was: RFC 1928 §6.
const REPLIES: [&str; 9] = [
    "succeeded",
    "failed",
    "not-allowed",
    "network-unreachable",
    "host-unreachable",
    "refused",
    "timed-out",
    "command-not-supported",
    "address-not-supported",
];

/// Shows requests until the server or the reader ends it.
///
/// # Errors
/// Why it ended.
pub fn follow(server: &Server, json: bool) -> Result<(), Failure> {
    let mut conversation = server.log_in()?;
    conversation.require("--follow", &["SUBSCRIBE"])?;
    let topics = Topics::default().with(Topic::Logs);
    conversation.command(&Command::Subscribe(topics, Duration::from_secs(1)))?;
    let style = Style::of_stdout();
    loop {
        let (topic, event) = conversation.event()?;
        match (topic.as_str(), json) {
            ("lost", true) => {
                show(format!("{}\n", json!({ "lost": json::digits(&event, "count") })).as_bytes())?
            }
            ("lost", false) => {
                let count = fields::digits(&event, "count").unwrap_or("0");
                complain(&format_args!("{count} requests were missed"));
            }
            ("logs", true) => show(format!("{}\n", json::object(&event)).as_bytes())?,
            ("logs", false) => show(line(&event, style).as_bytes())?,
            // A later version may tell of more.
            _ => {}
        }
        io::stdout().flush().map_err(Failure::Output)?;
    }
}

/// `[time] user source destination reply up down duration reason`
fn line(event: &str, style: Style) -> String {
    let word = |key| fields::value(event, key).unwrap_or("-");
    let size = |key| {
        let digits = fields::digits(event, key).unwrap_or("0");
        match digits.parse().ok().filter(|_| style.human) {
            Some(octets) => units::size(octets).replace(' ', ""),
            None => digits.to_owned(),
        }
    };
    let reply = word("reply").parse::<usize>().ok().and_then(|code| REPLIES.get(code));
    format!(
        "[{}] {} {} {} {} {} {} {} {}\n",
        word("time"),
        word("user"),
        word("source"),
        word("destination"),
        reply.copied().unwrap_or_else(|| word("reply")),
        size("up"),
        size("down"),
        word("duration"),
        word("reason"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = "time=2026-11-24T10:00:00Z user=alice source=192.0.2.1:5000 \
         destination=example.com:443 reply=0 up=78 down=1187000 duration=0.120 reason=finished new=x";

    #[test]
    fn a_request_is_a_line() {
        assert_eq!(
            line(EVENT, Style::default()),
            "[2026-11-24T10:00:00Z] alice 192.0.2.1:5000 example.com:443 succeeded 78 1187000 0.120 \
             finished\n"
        );
        let human = line(EVENT, Style { human: true, ..Style::default() });
        assert!(human.contains(" 78B 1.1MiB "), "{human}");
        assert!(line(&EVENT.replace("reply=0", "reply=99"), Style::default()).contains(" 99 78 "));
    }
}
