//! The effects of commands. No sockets here: a command and an account in, a reply or a request to the server out.

use std::time::{Duration, Instant};

use super::listing::Listing;
use super::{View, report};
use crate::reactor::slab::Key;
use crate::state::changes::ChangeNumber;
use crate::state::control::{
    ControlAnswer, ControlRequest, ProcessUsage, ReloadSummary, RuleChange, ServerInfo,
};
use crate::state::knobs::{KNOBS, Knob};
use crate::state::samples::SampleSources;
use crate::state::settings::TooManyNetworks;
use crate::state::users::{TRUSTED_NAME, UserId};
use crate::state::{self, Shared};
use metp_protocol::{Cause, Command, Field, Missing, Response, Role, Subject, Topics};

/// The reply to a command.
pub struct CommandOutcome {
    /// The status line.
    pub response: Response,
    /// What follows the status line.
    pub effect: Effect,
}

/// What follows the status line.
pub enum Effect {
    /// Nothing.
    Nothing,
    /// A body.
    Body(Listing),
    /// Events on these topics; totals at this interval.
    Subscribe(Topics, Duration),
    /// The end of the events.
    Unsubscribe,
}

impl From<Response> for CommandOutcome {
    fn from(response: Response) -> Self {
        CommandOutcome { response, effect: Effect::Nothing }
    }
}

impl From<Effect> for CommandOutcome {
    fn from(effect: Effect) -> Self {
        CommandOutcome { response: Response::Done, effect }
    }
}

impl From<Listing> for CommandOutcome {
    fn from(body: Listing) -> Self {
        Effect::Body(body).into()
    }
}

impl From<String> for CommandOutcome {
    fn from(text: String) -> Self {
        Listing::Text(Some(text)).into()
    }
}

/// The result of executing a command.
pub enum Execution {
    /// It is done.
    Done(CommandOutcome),
    /// The server has to be asked; its answer decides about the reply.
    Ask(ControlRequest),
    /// An account was changed. This is the reply once the change is on the disk.
    Store(ChangeNumber, Response),
}

/// The account that gives a command, and the state that the command reads and changes.
pub struct CommandExecutor<'a> {
    pub actor: UserId,
    pub session: Key,
    pub now: Instant,
    pub shared: &'a mut Shared,
}

impl CommandExecutor<'_> {
    /// Executes a command that the actor's role allows.
    pub fn execute(&mut self, command: Command) -> Execution {
        let outcome = match command {
            Command::GetMetrics => state::report::metrics(self.shared).into(),
            Command::GetAllMetrics => return Execution::Ask(ControlRequest::Status),
            Command::GetLogs(selection) => Listing::logs(selection, self.shared).into(),
            Command::Users => Listing::Users(None).into(),
            Command::ChangeBuffer(size) => {
                self.shared.process.settings.buffer_size = size;
                self.shared.process.configuration.changed("buffer-size");
                Response::Done.into()
            }
            Command::AddUser { .. }
            | Command::DeleteUser(_)
            | Command::SetRole(..)
            | Command::ChangePassword { .. }
            | Command::LockUser(_)
            | Command::UnlockUser(_)
            | Command::GeneratePassword(_)
            | Command::Import(_)
            | Command::SetLimit(..) => return self.change_account(command),
            Command::Limits(subject) => self.limits(subject),
            Command::ResetUsage(name) => match self.shared.process.users.find_any(&name) {
                Some(user) => {
                    let session = self.session;
                    return Execution::Ask(ControlRequest::ResetUsage { session, user });
                }
                None => Response::NotFound(Missing::User).into(),
            },
            Command::Reload(cut) => {
                return Execution::Ask(ControlRequest::Reload { session: self.session, cut });
            }
            Command::Rules(command) => return self.rules(command),
            Command::Quit => Response::Goodbye.into(),
            Command::Capabilities => report::capabilities().into(),
            Command::Ping(token) => {
                Response::Pong(token.map(|token| Field::name(&token).to_string())).into()
            }
            Command::Info => return Execution::Ask(ControlRequest::Usage),
            Command::UserMetrics(name) => self.user_metrics(name.as_deref()),
            Command::Connections(None) => Listing::Connections(None, None).into(),
            Command::Connections(Some(name)) => match self.shared.process.users.find_any(&name) {
                Some(user) => Listing::Connections(None, Some(user)).into(),
                None => Response::NotFound(Missing::User).into(),
            },
            Command::Kill(id) => return Execution::Ask(ControlRequest::Kill(id)),
            Command::KillUser(name) => match self.shared.process.users.find_any(&name) {
                Some(user) => return Execution::Ask(ControlRequest::KillUser(user)),
                None => Response::NotFound(Missing::User).into(),
            },
            Command::ConfigGet(None) => KNOBS
                .iter()
                .map(|knob| report::setting(knob, &self.shared.process))
                .collect::<String>()
                .into(),
            Command::ConfigGet(Some(key)) => match Knob::find(&key) {
                Some(knob) => report::setting(knob, &self.shared.process).into(),
                None => Response::NotFound(Missing::Key).into(),
            },
            Command::ConfigSet { key, value } => self.set(&key, &value),
            Command::ConfigSave(key) => match Knob::find(&key) {
                Some(knob) => {
                    let value = knob.get(&self.shared.process.settings);
                    let session = self.session;
                    return Execution::Ask(ControlRequest::Save { session, key: knob.key, value });
                }
                None => Response::NotFound(Missing::Key).into(),
            },
            Command::Trust => report::trust(&self.shared.process.settings.trust).into(),
            Command::TrustAdd(network) => match self.shared.process.settings.trust.add(network) {
                Ok(()) => {
                    if network.is_everything() {
                        log::warn!("trusting {network}: everybody who can connect needs no login");
                    }
                    self.changed()
                }
                Err(TooManyNetworks) => Response::TooManyNetworks.into(),
            },
            Command::TrustDelete(network) => {
                match self.shared.process.settings.trust.remove(network) {
                    true => self.changed(),
                    false => Response::NotFound(Missing::Network).into(),
                }
            }
            Command::Subscribe(topics, every) => Effect::Subscribe(topics, every).into(),
            Command::Unsubscribe => Effect::Unsubscribe.into(),
            Command::Shutdown(grace) => return Execution::Ask(ControlRequest::Drain(grace)),
        };
        Execution::Done(outcome)
    }

    /// A setting has been changed.
    fn changed(&mut self) -> CommandOutcome {
        self.shared.process.changes += 1;
        Response::Done.into()
    }

    pub(super) fn is_admin(&self) -> bool {
        self.shared.process.users.get(self.actor).is_some_and(|account| account.role == Role::Admin)
    }

    /// The account `name`. A user may name their own account only.
    pub(super) fn permitted(&self, name: &[u8]) -> Result<UserId, Response> {
        match self.shared.process.users.find(name) {
            found if found != Some(self.actor) && !self.is_admin() => Err(Response::Forbidden),
            Some(id) => Ok(id),
            None => Err(Response::NotFound(Missing::User)),
        }
    }

    fn user_metrics(&self, name: Option<&[u8]>) -> CommandOutcome {
        let user = match name {
            None if self.is_admin() => return Listing::Usage(None).into(),
            None => Ok(self.actor),
            Some(TRUSTED_NAME) if self.is_admin() => Ok(UserId::TRUSTED),
            Some(name) => self.permitted(name),
        };
        let users = &self.shared.process.users;
        let line = |user| {
            let account = users.get(user)?;
            let (now, time) = (self.now, self.shared.time);
            Some(state::report::usage(account, users.is_locked(user), now, time))
        };
        match user.map(line) {
            Ok(account) => account.unwrap_or_default().into(),
            Err(response) => response.into(),
        }
    }

    fn limits(&self, subject: Option<Subject>) -> CommandOutcome {
        let users = &self.shared.process.users;
        match subject {
            None => Listing::Limits(None).into(),
            Some(Subject::All) => report::limits_of_all(users).into(),
            Some(Subject::Account(name)) => match users.find(&name) {
                Some(user) => report::limits(users, user).unwrap_or_default().into(),
                None => Response::NotFound(Missing::User).into(),
            },
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> CommandOutcome {
        let Some(knob) = Knob::find(key) else { return Response::NotFound(Missing::Key).into() };
        let value = std::str::from_utf8(value).unwrap_or_default();
        match knob.set(&mut self.shared.process.settings, value) {
            Ok(()) => {
                self.shared.process.configuration.changed(knob.key);
                self.changed()
            }
            Err(range) => Response::Range(knob.refusal(&range)).into(),
        }
    }
}

/// The reply to a command from the server's answer. `None`: the answer is a page of connections, which belongs to a
/// reply that has begun.
pub fn outcome_of(answer: &ControlAnswer, view: &View<'_>) -> Option<CommandOutcome> {
    Some(match answer {
        ControlAnswer::Connections { .. } => return None,
        ControlAnswer::Killed(true) => Response::Killed(1).into(),
        ControlAnswer::Killed(false) => Response::NotFound(Missing::Connection).into(),
        ControlAnswer::UserKilled(count) => Response::Killed(*count).into(),
        ControlAnswer::Draining(true) => Response::Done.into(),
        ControlAnswer::Draining(false) => Response::AlreadyClosing.into(),
        ControlAnswer::NoFile => Response::NoFile.into(),
        ControlAnswer::NoState => Response::NoState.into(),
        ControlAnswer::Saved(Ok(())) | ControlAnswer::Reset(Ok(())) => Response::Done.into(),
        ControlAnswer::Saved(Err(cause)) | ControlAnswer::Reset(Err(cause)) => {
            Response::NotStored(cause.clone()).into()
        }
        ControlAnswer::Reloaded(Ok(ReloadSummary { accounts, settings, rules, cut })) => {
            Response::Reloaded {
                accounts: accounts.accounts,
                added: accounts.added,
                deleted: accounts.deleted,
                changed: accounts.changed,
                settings: *settings,
                rules: *rules,
                cut: *cut,
            }
            .into()
        }
        ControlAnswer::RulesChanged(change) => rule_change(change).into(),
        ControlAnswer::RulesTested(verdict) => report::verdict(verdict).into(),
        ControlAnswer::Reloaded(Err(faults)) => Response::Invalid(faults.join("; ")).into(),
        ControlAnswer::Status(info) => {
            state::report::all_metrics(&sources(view, info, None)).into()
        }
        ControlAnswer::Usage(info, usage) => {
            state::report::info(&sources(view, info, Some(*usage))).into()
        }
    })
}

fn sources<'a>(
    view: &View<'a>,
    status: &'a ServerInfo,
    process_usage: Option<ProcessUsage>,
) -> SampleSources<'a> {
    let View { now, pool, shared } = *view;
    SampleSources { shared, pool, status, process_usage, now }
}

/// The reply to a change of the rules.
fn rule_change(change: &RuleChange) -> Response {
    match change {
        RuleChange::Done => Response::Done,
        RuleChange::NoRule => Response::NotFound(Missing::Rule),
        RuleChange::Other(rule) => Response::OtherRule(rule.clone()),
        RuleChange::Invalid(fault) => Response::BadRule(fault.clone()),
        RuleChange::NotStored(cause) => Response::NotStored(cause.clone()),
    }
}

pub(super) fn refusal(cause: Cause) -> CommandOutcome {
    Response::BadRequest(Some(cause)).into()
}

#[cfg(test)]
mod tests;
