//! `--import`: the accounts of a users file, sent line by line.

use std::collections::VecDeque;

use metp_protocol::{Command, split_cause};

use crate::answer::{Answer, AnswerKind};
use crate::failure::Failure;
use crate::output::Output;
use crate::session::Session;
use crate::users_file::UsersFile;

/// Commands that are sent ahead of their answers. The server takes 64.
const AHEAD: usize = 32;

/// Sends all accounts, some ahead of their answers, and reports those that are refused.
///
/// # Errors
/// If the session ends.
pub fn send(file: &UsersFile, session: &mut Session, output: &Output) -> Result<Answer, Failure> {
    let (mut sent, mut imported, mut refused) = (file.lines().iter(), 0_usize, Vec::new());
    let mut pending = VecDeque::new();
    loop {
        while pending.len() < AHEAD
            && let Some((number, line)) = sent.next()
        {
            session.send_ahead(&Command::Import(line.clone()))?;
            pending.push_back(*number);
        }
        let Some(number) = pending.pop_front() else { break };
        match session.answered() {
            Ok(()) => imported += 1,
            Err(failure) if failure.ends_session() => return Err(failure),
            Err(failure) => {
                let text = failure.to_string();
                let why = split_cause(&text).map(|(_, why)| why).filter(|why| !why.is_empty());
                let why = why.unwrap_or(&text);
                output.eprint_line(&format!("--import {}: line {number}: {why}", file.shown()));
                refused.push(format!("{number} {why}"));
            }
        }
    }
    let text = format!("imported={imported}");
    Ok(Answer { kind: AnswerKind::Imported, text, lines: refused })
}
