//! HELLO and AUTH, and the log lines about sessions that end before their login (§4).

use crate::proto::foreign::protocol;
use crate::reactor::endpoint::Stream;
use crate::state::diagnostics::not_let_in;
use crate::state::service::Service;
use crate::state::verifier::{Asked, PendingLogin, Question, Verdict};
use metp_protocol::{PreAuthCommand, Response};

use super::{Context, Session, Stage, Step};

impl<S: Stream> Session<S> {
    /// §4: before the login anything unexpected ends the session, so that no browser can be made to
    /// talk to this port.
    pub(super) fn opening(
        &mut self,
        line: &[u8],
        spoken: Option<&str>,
        cx: &mut Context<'_>,
    ) -> Step {
        match (PreAuthCommand::parse(line), &self.stage) {
            (Some(PreAuthCommand::Hello), _) => {
                self.reply(&Response::Welcome);
                self.stage = Stage::Greeted;
            }
            (Some(PreAuthCommand::Auth { name, password }), Stage::Greeted) => {
                let (key, service, now) = (cx.key, Service::Metp, cx.now);
                let (source, name, password) = (self.source.ip(), &name[..], &password[..]);
                let any_will_do = false;
                let question = Question { key, service, source, name, password, any_will_do, now };
                match cx.verifier.ask(&question, &mut cx.shared.process.users) {
                    Asked::Done(verdict) => return self.decided(name, verdict, cx),
                    Asked::Pending(ticket) => {
                        self.stage = Stage::Verify(Box::new(PendingLogin::new(name, ticket)));
                    }
                }
            }
            _ => {
                not_let_in(Service::Metp, self.source, spoken.unwrap_or("bad-request"));
                self.reply(&Response::BadRequest(None));
                self.begin_linger(cx.now);
            }
        }
        Step::Go
    }

    /// Answers AUTH if the verdict has come. `None`: it has not.
    pub(super) fn verify(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        let Stage::Verify(login) = &self.stage else { return None };
        let verdict = login.verdict(&cx.shared.process.users)?;
        let name = login.name().to_vec();
        Some(self.decided(&name, verdict, cx))
    }

    /// After the login the turn ends: commands are taken from another run queue.
    fn decided(&mut self, name: &[u8], verdict: Verdict, cx: &mut Context<'_>) -> Step {
        let good = matches!(verdict, Verdict::Accepted(_));
        if verdict != Verdict::Shed {
            cx.shared.record_login(Service::Metp, self.source, name, good, cx.now);
        }
        match verdict {
            Verdict::Accepted(user) => {
                self.reply(&Response::Done);
                self.stage = Stage::Open(user);
                self.since = cx.now;
                Step::Pause
            }
            Verdict::Refused => {
                cx.shared.metrics.sessions.metp.refused_auth += 1;
                self.reply(&Response::Unauthorized);
                self.begin_linger(cx.now);
                Step::Go
            }
            Verdict::Shed => {
                cx.shared.login_shed(Service::Metp, self.source);
                Step::Close
            }
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
