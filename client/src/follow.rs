//! `--follow`: one line for each request when it has finished.

use std::sync::mpsc;
use std::time::Duration;

use common::thread;
use metp_protocol::key::{self, MetpKey};
use metp_protocol::{Command, LOST, LogSelection, Topic, Topics};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::print;
use crate::retry::Reconnect;
use crate::session::{Server, Session};
use crate::table::TableStyle;
use crate::{json, refusal, render, units};

/// The topic of events that are printed.
const LOGS: &str = Topic::Logs.word();

/// The reply codes of SOCKS by their numbers (RFC 1928 §6).
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

/// The stack of a thread that follows one server, in bytes: an unoptimised build takes half of it at most.
const FOLLOW_STACK_BYTES: usize = 512 * 1024;

/// Prints the requests of all servers, in one thread for each, until all sessions have ended for good or
/// standard output is closed. Failures are reported as they happen. A server whose thread cannot be started
/// counts as failed; the others are followed.
///
/// # Errors
/// [`Failure::Output`] at once; else the failure of the first server of the command line that failed.
pub fn follow_all(servers: &[Server], json: bool, last: u64) -> Result<(), Failure> {
    let (sender, ended) = mpsc::channel();
    for (number, server) in servers.iter().cloned().enumerate() {
        let output = server.output.clone();
        let end = {
            let sender = sender.clone();
            move |done: Result<(), Failure>| {
                if let Err(failure) = &done {
                    output.report_as(failure, &refusal::shown_live("-f", failure));
                }
                // The receiver is gone after a failure of standard output.
                let _ = sender.send((number, done));
            }
        };
        let work = {
            let end = end.clone();
            move || end(follow(&server, json, last))
        };
        if let Err(error) = thread::start(c"follow", FOLLOW_STACK_BYTES, work) {
            end(Err(Failure::Broken(format!("Cannot start a thread: {error}"))));
        }
    }
    drop(sender);
    let mut failures = Vec::new();
    for (number, done) in ended {
        match done {
            Ok(()) => {}
            Err(failure @ Failure::Output(_)) => return Err(failure),
            Err(failure) => failures.push((number, failure)),
        }
    }
    match failures.into_iter().min_by_key(|(number, _)| *number) {
        Some((_, failure)) => Err(failure),
        None => Ok(()),
    }
}

/// Prints the newest records of one server, then its requests. Subscribes before it asks for the records, so
/// that no request is missed between them. After a restart of the server it subscribes again.
fn follow(server: &Server, json: bool, last: u64) -> Result<(), Failure> {
    let mut session = subscribe(server.log_in()?)?;
    if last > 0 {
        print_records(server, json, last)?;
    }
    let style = TableStyle::of_stdout();
    let mut reconnect = Reconnect::new(server);
    loop {
        let Err(ended) = print_events(server, &mut session, json, style) else { return Ok(()) };
        session = reconnect.reconnect(ended, subscribe)?;
    }
}

fn subscribe(mut session: Session) -> Result<Session, Failure> {
    session.require("-f", &["SUBSCRIBE"])?;
    let topics = Topics::default().with(Topic::Logs);
    session.command(&Command::Subscribe(topics, Duration::from_secs(1)))?;
    Ok(session)
}

/// Prints the newest `last` records as `-g` does. They come over a session of their own: in a subscribed one,
/// [`Session::command`] drops the events that come before its answer.
fn print_records(server: &Server, json: bool, last: u64) -> Result<(), Failure> {
    let mut session = server.log_in()?;
    session.command(&Command::GetLogs(LogSelection { last: Some(last), user: None }))?;
    session.read_body(|line| match json {
        true => print_object(server, json::record(&render::text(line))),
        false => server.output.print(render::line(line).as_bytes()),
    })?;
    session.quit()
}

/// Prints events until the session ends.
fn print_events(
    server: &Server,
    session: &mut Session,
    json: bool,
    style: TableStyle,
) -> Result<(), Failure> {
    let output = &server.output;
    loop {
        let (topic, event) = session.next_event()?;
        match (topic.as_str(), json) {
            (LOST, true) => {
                print_object(server, json!({ "lost": json::digits(&event, key::COUNT) }))?;
            }
            (LOST, false) => {
                let count = key::COUNT.digits(&event).unwrap_or("0");
                output.eprint_line(&format_args!("{count} requests were missed"));
            }
            (LOGS, true) => print_object(server, json::object(&event))?,
            (LOGS, false) => output.print(line(&event, style).as_bytes())?,
            // Topics of a later version.
            _ => {}
        }
    }
}

/// Prints a JSON object in one line. With several servers, `server` is its first member.
fn print_object(server: &Server, object: Value) -> Result<(), Failure> {
    let object = match (server.output.server(), object) {
        (Some(server), Value::Object(fields)) => {
            let named = [("server".to_owned(), server.into())];
            Value::Object(named.into_iter().chain(fields).collect())
        }
        (_, object) => object,
    };
    print(format!("{object}\n").as_bytes())
}

/// `[time] user source destination reply up down duration reason`
fn line(event: &str, style: TableStyle) -> String {
    let word = |key: MetpKey| key.of(event).unwrap_or("-");
    let size = |key: MetpKey| {
        let digits = key.digits(event).unwrap_or("0");
        match digits.parse().ok().filter(|_| style.human) {
            Some(octets) => units::size(octets).replace(' ', ""),
            None => digits.to_owned(),
        }
    };
    let reply = word(key::REPLY).parse::<usize>().ok().and_then(|code| REPLIES.get(code));
    format!(
        "[{}] {} {} {} {} {} {} {} {}\n",
        word(key::TIME),
        word(key::USER),
        word(key::SOURCE),
        word(key::DESTINATION),
        reply.copied().unwrap_or_else(|| word(key::REPLY)),
        size(key::UP),
        size(key::DOWN),
        word(key::DURATION),
        word(key::REASON),
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
            line(EVENT, TableStyle::default()),
            "[2026-11-24T10:00:00Z] alice 192.0.2.1:5000 example.com:443 succeeded 78 1187000 0.120 \
             finished\n"
        );
        let human = line(EVENT, TableStyle { human: true, ..TableStyle::default() });
        assert!(human.contains(" 78B 1.1MiB "), "{human}");
        assert!(
            line(&EVENT.replace("reply=0", "reply=99"), TableStyle::default()).contains(" 99 78 ")
        );
    }
}
