//! What a command was answered: the same for people and for programs, which `table` and `json` show it to.

use metp_protocol::Command;

use crate::conversation::{Failure, Session};
use crate::{fields, render};

/// Lines of an answer that is no list: each is another figure.
const MAX_FIGURES: usize = 256;

/// What kind of lines an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// None: it has been done.
    Done,
    /// None: so many connections have been cut.
    Killed,
    /// The three figures of METP/1.0.
    Metrics,
    /// Figures, `KEY: number` in each line.
    Figures,
    /// Pairs, `key=value` in each line.
    Pairs,
    /// `user role`
    Users,
    /// Records of the access log.
    Records,
    /// `key=value` fields, one thing in each line.
    Rows,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// What it holds.
    pub kind: AnswerKind,
    /// What followed the code of the status line.
    pub text: String,
    /// The lines of its body, fit to print.
    pub lines: Vec<String>,
}

impl AnswerKind {
    /// What a command is answered with.
    pub fn of(command: &Command) -> Self {
        match command {
            Command::GetMetrics => AnswerKind::Metrics,
            Command::GetAllMetrics => AnswerKind::Figures,
            Command::Info | Command::Capabilities => AnswerKind::Pairs,
            Command::Users => AnswerKind::Users,
            Command::GetLogs(_) => AnswerKind::Records,
            Command::UserMetrics(_) | Command::Connections(_) | Command::ConfigGet(_) => {
                AnswerKind::Rows
            }
            Command::Kill(_) | Command::KillUser(_) => AnswerKind::Killed,
            _ => AnswerKind::Done,
        }
    }

    /// Whether its lines are a list of any length, each of which stands for itself.
    pub fn is_list(self) -> bool {
        matches!(self, AnswerKind::Users | AnswerKind::Records | AnswerKind::Rows)
    }

    /// Whether lines follow the status line.
    pub fn has_body(self) -> bool {
        !matches!(self, AnswerKind::Done | AnswerKind::Killed)
    }
}

impl Answer {
    /// Reads what follows a status line that was 200, unless that is a list.
    ///
    /// # Errors
    /// If the body breaks off, or never ends.
    pub fn read(kind: AnswerKind, text: String, session: &mut Session) -> Result<Self, Failure> {
        let mut lines = Vec::new();
        if kind.has_body() {
            session.body(|line| {
                if lines.len() >= MAX_FIGURES {
                    let text = "The server's metrics are too long".to_owned();
                    return Err(Failure::Broken(text));
                }
                lines.push(render::text(line));
                Ok(())
            })?;
        }
        let answer = Answer { kind, text, lines };
        answer.check()?;
        Ok(answer)
    }

    /// Whether it holds what it has to.
    fn check(&self) -> Result<(), Failure> {
        let whole = match self.kind {
            AnswerKind::Metrics => return render::metrics(&self.lines).map(drop),
            AnswerKind::Figures | AnswerKind::Pairs => !self.lines.is_empty(),
            AnswerKind::Killed => fields::digits(&self.text, "killed").is_some(),
            AnswerKind::Done | AnswerKind::Users | AnswerKind::Records | AnswerKind::Rows => true,
        };
        let broken = || Failure::Broken("The server's answer is incomplete".to_owned());
        if whole { Ok(()) } else { Err(broken()) }
    }
}
