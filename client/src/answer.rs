//! What a command was answered: the same for people and for programs, which `table` and `json` show it to.

use metp_protocol::Command;

use crate::conversation::{Conversation, Failure};
use crate::{fields, render};

/// Lines of an answer that is no list: each is another figure.
const MOST_FIGURES: usize = 256;

/// What kind of lines an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
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
    pub kind: Kind,
    /// What followed the code of the status line.
    pub text: String,
    /// The lines of its body, fit to print.
    pub lines: Vec<String>,
}

impl Kind {
    /// What a command is answered with.
    pub fn of(command: &Command) -> Self {
        match command {
            Command::GetMetrics => Kind::Metrics,
            Command::GetAllMetrics => Kind::Figures,
            Command::Info | Command::Capabilities => Kind::Pairs,
            Command::Users => Kind::Users,
            Command::GetLogs(_) => Kind::Records,
            Command::UserMetrics(_) | Command::Connections(_) | Command::ConfigGet(_) => Kind::Rows,
            Command::Kill(_) | Command::KillUser(_) => Kind::Killed,
            _ => Kind::Done,
        }
    }

    /// Whether its lines are a list of any length, each of which stands for itself.
    pub fn is_list(self) -> bool {
        matches!(self, Kind::Users | Kind::Records | Kind::Rows)
    }

    /// Whether lines follow the status line.
    pub fn has_body(self) -> bool {
        !matches!(self, Kind::Done | Kind::Killed)
    }
}

impl Answer {
    /// Reads what follows a status line that was 200, unless that is a list.
    ///
    /// # Errors
    /// If the body breaks off, or never ends.
    pub fn read(
        kind: Kind,
        text: String,
        conversation: &mut Conversation,
    ) -> Result<Self, Failure> {
        let mut lines = Vec::new();
        if kind.has_body() {
            conversation.body(|line| {
                if lines.len() >= MOST_FIGURES {
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
            Kind::Metrics => return render::metrics(&self.lines).map(drop),
            Kind::Figures | Kind::Pairs => !self.lines.is_empty(),
            Kind::Killed => fields::digits(&self.text, "killed").is_some(),
            Kind::Done | Kind::Users | Kind::Records | Kind::Rows => true,
        };
        let broken = || Failure::Broken("The server's answer is incomplete".to_owned());
        if whole { Ok(()) } else { Err(broken()) }
    }
}
