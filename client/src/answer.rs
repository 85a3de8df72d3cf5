//! The answer to a command as data. `table` formats it for people and scripts, `json` for programs.

use metp_protocol::key::{self, MetpKey};
use metp_protocol::quantity::is_digits;
use metp_protocol::{Command, MetricsBody, RuleCommand};

use crate::failure::Failure;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// A status line without a body.
    Done,
    /// A status line with the number of connections that were closed: `killed=N`.
    Killed,
    /// A status line with a new password: `password=WORD created=yes|no`.
    Generated,
    /// A status line with what has changed in the users file: `accounts=N added=N deleted=N changed=N`.
    Reloaded,
    /// How many accounts of a file were imported: `imported=N`, and a line for each that was refused, with its number.
    Imported,
    /// The three lines of METP/1.0: `KEY: number`.
    Metrics,
    /// Any number of `KEY: number` lines.
    Figures,
    /// `key=value` lines.
    Pairs,
    /// A list: `user role`.
    Users,
    /// A list: records of the access log.
    Records,
    /// A list: several `key=value` fields in each line.
    Rows,
}

/// An answer; of a list, its status line alone.
#[derive(Debug)]
pub struct Answer {
    /// The form of the body.
    pub kind: AnswerKind,
    /// What followed the code of the status line.
    pub text: String,
    /// The lines of its body, fit to print.
    pub lines: Vec<String>,
}

impl AnswerKind {
    /// The form of the answer to a command.
    pub fn of(command: &Command) -> Self {
        match command {
            Command::GetMetrics => AnswerKind::Metrics,
            Command::GetAllMetrics => AnswerKind::Figures,
            Command::Info | Command::Capabilities => AnswerKind::Pairs,
            Command::Users => AnswerKind::Users,
            Command::GetLogs(_) => AnswerKind::Records,
            Command::UserMetrics(_)
            | Command::Connections(_)
            | Command::ConfigGet(_)
            | Command::Trust
            | Command::Limits(_) => AnswerKind::Rows,
            Command::Kill(_) | Command::KillUser(_) => AnswerKind::Killed,
            Command::GeneratePassword(_) => AnswerKind::Generated,
            Command::Reload(_) => AnswerKind::Reloaded,
            Command::Rules(RuleCommand::List | RuleCommand::Test(_)) => AnswerKind::Rows,
            _ => AnswerKind::Done,
        }
    }

    /// Whether its body is a list of any length, which is printed line by line and not kept.
    pub fn is_list(self) -> bool {
        matches!(self, AnswerKind::Users | AnswerKind::Records | AnswerKind::Rows)
    }

    /// Whether lines follow the status line.
    pub fn has_body(self) -> bool {
        !matches!(
            self,
            AnswerKind::Done
                | AnswerKind::Killed
                | AnswerKind::Generated
                | AnswerKind::Reloaded
                | AnswerKind::Imported
        )
    }
}

impl Answer {
    /// The answer, if it holds what its kind has to.
    ///
    /// # Errors
    /// [`Failure::Broken`].
    pub fn checked(self) -> Result<Self, Failure> {
        let complete = match self.kind {
            AnswerKind::Metrics => return self.metrics().map(drop).map(|()| self),
            AnswerKind::Figures | AnswerKind::Pairs => !self.lines.is_empty(),
            AnswerKind::Killed => key::KILLED.digits(&self.text).is_some(),
            AnswerKind::Generated => key::PASSWORD.of(&self.text).is_some(),
            AnswerKind::Reloaded => key::ACCOUNTS.digits(&self.text).is_some(),
            AnswerKind::Done
            | AnswerKind::Imported
            | AnswerKind::Users
            | AnswerKind::Records
            | AnswerKind::Rows => true,
        };
        match complete {
            true => Ok(self),
            false => Err(Failure::Broken("The server's answer is incomplete".to_owned())),
        }
    }

    /// How many accounts of a file were imported.
    pub fn imported(&self) -> u64 {
        let count = self.text.strip_prefix("imported=");
        count.and_then(|count| count.parse().ok()).unwrap_or_default()
    }

    /// The figures of GET_METRICS: connections since the start, open connections, and bytes. They have the digits
    /// that the server sent, as they may be larger than any integer type.
    ///
    /// # Errors
    /// [`Failure::Broken`] if one of them is missing.
    pub fn metrics(&self) -> Result<[&str; 3], Failure> {
        match MetricsBody::KEYS.map(|key| figure(&self.lines, key)) {
            [Some(historical), Some(current), Some(bytes)] => Ok([historical, current, bytes]),
            _ => Err(incomplete()),
        }
    }

    /// A `KEY: number` line of the body as a number.
    ///
    /// # Errors
    /// [`Failure::Broken`] if it is missing, or too large.
    pub fn figure(&self, key: MetpKey) -> Result<u64, Failure> {
        let value = figure(&self.lines, key).and_then(|value| value.parse().ok());
        value.ok_or_else(incomplete)
    }
}

/// The number of the line `KEY: number`, of any size: its digits as they came. `None` if no line has the key, or
/// its value is no number.
fn figure(lines: &[String], key: MetpKey) -> Option<&str> {
    let value = lines.iter().find_map(|line| line.strip_prefix(key.name)?.strip_prefix(':'));
    value.map(str::trim).filter(|value| is_digits(value.as_bytes()))
}

fn incomplete() -> Failure {
    Failure::Broken("The server's metrics are incomplete".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_complete_and_of_any_size() {
        let metrics = |lines: &[String]| {
            let answer =
                Answer { kind: AnswerKind::Metrics, text: String::new(), lines: lines.to_vec() };
            let checked = answer.checked()?;
            checked.metrics().map(|figures| figures.map(str::to_owned))
        };
        let lines = MetricsBody { historical: 42, current: 5, bytes: 1_048_576 }.lines();
        assert_eq!(metrics(&lines).unwrap(), ["42", "5", "1048576"]);
        assert!(metrics(&lines[1..]).is_err());
        let large = "42000000000000000000000";
        let lines = lines.map(|line| line.replace("42", large));
        assert_eq!(metrics(&lines).unwrap(), [large, "5", "1048576"]);
    }
}
