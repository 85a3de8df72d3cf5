//! HELLO and AUTH, and the log lines about sessions that end before their login (§4).

use crate::proto::foreign::protocol;
use crate::reactor::endpoint::Stream;
use crate::state::diagnostics::not_let_in;
use crate::state::service::Service;
use crate::state::verifier::{Asked, PendingLogin, Verdict};
use metp_protocol::{PreAuthCommand, Response};

use super::{Context, Session, Stage, Step};

impl<S: Stream> Session<S> {
    /// §4: before the login anything unexpected ends the session, so that no browser can be made to
    /// talk to this port.
    pub(super) fn opening(&mut self, line: &[u8], spoken: Option<&str>, cx: &mut Context<'_>) {
        match (PreAuthCommand::parse(line), &self.stage) {
            (Some(PreAuthCommand::Hello), _) => {
                self.reply(&Response::Welcome);
                self.stage = Stage::Greeted;
            }
            (Some(PreAuthCommand::Auth { name, password }), Stage::Greeted) => {
                match cx.verifier.ask(cx.key, &name, &password, &cx.shared.process.users) {
                    Asked::Done(verdict) => self.decided(&name, verdict, cx),
                    Asked::Pending(ticket) => {
                        self.stage = Stage::Verify(Box::new(PendingLogin::new(&name, ticket)));
                    }
                }
            }
            _ => {
                not_let_in(Service::Metp, self.source, spoken.unwrap_or("bad-request"));
                self.reply(&Response::BadRequest(None));
                self.begin_linger(cx.now);
            }
        }
    }

    /// Answers AUTH if the verdict has come. `None`: it has not.
    pub(super) fn verify(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        let Stage::Verify(login) = &self.stage else { return None };
        let verdict = login.verdict(&cx.shared.process.users)?;
        let name = login.name().to_vec();
        self.decided(&name, verdict, cx);
        Some(self.after_opening())
    }

    /// After the login the turn ends: commands are taken from another run queue.
    pub(super) fn after_opening(&self) -> Step {
        if self.logged_in() { Step::Pause } else { Step::Go }
    }

    fn decided(&mut self, name: &[u8], user: Verdict, cx: &mut Context<'_>) {
        cx.shared.record_login(Service::Metp, self.source, name, user.is_some(), cx.now);
        if let Some(user) = user {
            self.reply(&Response::Done);
            self.stage = Stage::Open(user);
            self.since = cx.now;
        } else {
            cx.shared.metrics.sessions.metp.refused_auth += 1;
            self.reply(&Response::Unauthorized);
            self.begin_linger(cx.now);
        }
    }

    /// Logs why a session ends before its login. Another protocol that it seems to speak says more than `cause`.
    pub(super) fn log_lost(&self, cause: &str) {
        let spoken = match self.stage {
            Stage::Start => protocol(self.input.bytes()).filter(|spoken| *spoken != "metp"),
            Stage::Greeted | Stage::Verify(_) => None,
            Stage::Open(_) | Stage::Linger(_) => return,
        };
        not_let_in(Service::Metp, self.source, spoken.unwrap_or(cause));
    }
}
