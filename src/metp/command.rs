//! Commands after the login: from a line to the reply and the effect (§5).

use std::rc::Rc;
use std::task::Poll;

use super::execute::{CommandExecutor, CommandOutcome, Effect, Execution, outcome_of};
use super::listing::Listing;
use super::subscriber::Subscriber;
use super::{Context, Session, Step, View};
use crate::reactor::endpoint::Stream;
use crate::state::audit::AuditRecord;
use crate::state::connection::Connection;
use crate::state::control::{ControlAnswer, ControlRequest, Page};
use crate::state::users::UserId;
use metp_protocol::{Command, END_OF_BODY, Response, Status, ended};

/// A request that the server has not answered yet.
pub(super) struct Asked {
    /// Whether it is for a change.
    change: bool,
    /// The answer, when it has come.
    answer: Option<ControlAnswer>,
}

impl<S: Stream> Session<S> {
    /// The server's answer to a request has come. It is used in the next turn.
    pub fn answered(&mut self, answer: ControlAnswer) {
        if let Some(asked) = &mut self.asked {
            asked.answer = Some(answer);
        }
    }

    /// §5. The account is looked up each time: it may have been deleted or locked, or have another role.
    pub(super) fn command(&mut self, user: UserId, line: &[u8], cx: &mut Context<'_>) -> Step {
        let users = &cx.shared.process.users;
        let Some(account) = users.get(user).filter(|_| !users.is_locked(user)) else {
            self.reply(&Response::Unauthorized);
            self.begin_linger(cx.now);
            return Step::Go;
        };
        let name = Rc::clone(&account.name);
        let command = match Command::parse(line, account.role) {
            Ok(command) => command,
            Err(response) => {
                self.reply(&response);
                return Step::Go;
            }
        };
        let (remote, change) = (self.source, command.is_change());
        let record =
            change.then(|| AuditRecord { remote, user: name, command: command.to_string() });
        let (session, now) = (cx.key, cx.now);
        let mut executor = CommandExecutor { actor: user, session, now, shared: cx.shared };
        match executor.execute(command) {
            // It comes behind replies that are held; only commands that change accounts do.
            Execution::Done(outcome) if !self.held.is_empty() => {
                audit(&outcome, record);
                self.held.push(None, outcome.response);
                Step::Go
            }
            Execution::Done(outcome) => {
                audit(&outcome, record);
                self.conclude(outcome, change, cx)
            }
            Execution::Store(number, response) => {
                if let Some(record) = record {
                    cx.shared.process.account_changes.audit(number, record);
                }
                self.held.push(Some(number), response);
                Step::Go
            }
            Execution::Ask(request) => self.ask(request, record, cx),
        }
    }

    /// Asks for the next lines of the list of connections, if that is being sent.
    pub(super) fn ask_for_page(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        let Some(Listing::Connections(page, of)) = &self.listing else { return None };
        let request = ControlRequest::Connections { page: *page, of: *of };
        Some(self.ask(request, None, cx))
    }

    /// Continues with the server's answer. `None`: it has not come.
    pub(super) fn take_answer(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        let answer = self.asked.as_mut()?.answer.take()?;
        let change = self.asked.take().is_some_and(|asked| asked.change);
        Some(self.follow_up(answer, change, cx))
    }

    fn ask(
        &mut self,
        request: ControlRequest,
        record: Option<AuditRecord>,
        cx: &mut Context<'_>,
    ) -> Step {
        let change = record.is_some();
        let answer = cx.control.ask(request, &cx.shared.process);
        if let Some(record) = record {
            cx.shared.process.requested.note(cx.key, record);
        }
        match answer {
            Poll::Ready(answer) => {
                cx.shared.process.requested.settle(cx.key, answer.is_change_made());
                self.follow_up(answer, change, cx)
            }
            Poll::Pending => {
                self.asked = Some(Box::new(Asked { change, answer: None }));
                Step::Go
            }
        }
    }

    fn follow_up(&mut self, answer: ControlAnswer, change: bool, cx: &mut Context<'_>) -> Step {
        let view = View { now: cx.now, pool: cx.pool, shared: cx.shared };
        let outcome = outcome_of(&answer, &view);
        if let ControlAnswer::Connections { rows, next } = &answer {
            self.add_page(rows, *next);
        }
        outcome.map_or(Step::Go, |outcome| self.conclude(outcome, change, cx))
    }

    /// Some lines of the list of connections, of which the last are followed by its end.
    fn add_page(&mut self, rows: &[Connection], next: Option<Page>) {
        let Some(Listing::Connections(page, _)) = &mut self.listing else { return };
        let mut text: String = rows.iter().map(|row| ended(row.to_string())).collect();
        match next {
            Some(next) => *page = Some(next),
            None => {
                text.push_str(&ended(END_OF_BODY.to_owned()));
                self.listing = None;
            }
        }
        self.output.append(text.as_bytes());
    }

    /// Sends the reply and carries out its effect.
    fn conclude(&mut self, outcome: CommandOutcome, change: bool, cx: &mut Context<'_>) -> Step {
        let done = outcome.response.status() == Status::OK;
        self.bring_about(outcome, cx);
        if change && done { Step::Pause } else { Step::Go }
    }

    fn bring_about(&mut self, outcome: CommandOutcome, cx: &mut Context<'_>) {
        let mut response = outcome.response;
        match outcome.effect {
            Effect::Nothing => {}
            Effect::Body(listing) => self.listing = Some(listing),
            Effect::Unsubscribe => self.subscriber = None,
            Effect::Subscribe(topics, every) => {
                let waiting =
                    self.subscriber.take().map_or(0, |subscriber| subscriber.waiting(cx.shared));
                match cx.shared.events.subscribe(topics, waiting) {
                    Some(subscription) => {
                        self.subscriber = Some(Subscriber::new(subscription, every, cx.now))
                    }
                    None => response = Response::TooMany,
                }
                self.stuck = None;
            }
        }
        self.reply(&response);
        if response == Response::Goodbye {
            self.begin_linger(cx.now);
        }
    }
}

/// Logs a change that has been made in place.
fn audit(outcome: &CommandOutcome, record: Option<AuditRecord>) {
    if let Some(record) = record.filter(|_| outcome.response.status() == Status::OK) {
        record.write();
    }
}
