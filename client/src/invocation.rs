//! What is to be sent for a task: a command of an option, or a line as it is.

use metp_protocol::text::Escaped;
use metp_protocol::{Command, LogSelection, Role, acceptable_password, verbs};

use crate::answer::AnswerKind;
use crate::args::{Act, PASSWORD_RULE, Task, shown_option};
use crate::conversation::Failure;
use crate::{password, render};

/// Verbs of METP/1.0, which every server knows.
const FIRST_VERBS: usize = 8;

/// Something that is ready to be sent.
pub struct Order {
    /// The option that asks for it.
    pub option: &'static str,
    /// The line, if it is to be sent as it is.
    pub line: Option<Vec<u8>>,
    /// The command; `None` if the line is none that this program knows.
    pub command: Option<Command>,
}

impl Order {
    /// What a task comes to. Passwords of new accounts, and new ones, are asked for.
    ///
    /// # Errors
    /// If there is no new password, or none that can be sent.
    pub fn new(task: Task) -> Result<Self, Failure> {
        let Task { option, act } = task;
        let command = match act {
            Act::Give(command) => command,
            Act::Say(line) => {
                let command = Command::parse(&line, Role::Admin).ok();
                return Ok(Order { option, line: Some(line), command });
            }
            Act::NewUser(name) => {
                let password = new_password(option, &name)?;
                Command::AddUser { name, password }
            }
            Act::NewPassword(name) => {
                let password = new_password(option, &name)?;
                Command::ChangePassword { name, password }
            }
        };
        Ok(Order { option, line: None, command: Some(command) })
    }

    /// What kind of answer it gets.
    pub fn kind(&self) -> AnswerKind {
        self.command.as_ref().map_or(AnswerKind::Done, AnswerKind::of)
    }

    /// The line of METP, without a password: of one that is not known, the first word.
    pub fn shown(&self) -> String {
        let unknown = self.line.as_deref().unwrap_or_default();
        let word = unknown.split(|byte| *byte == b' ').next().unwrap_or_default();
        self.command.as_ref().map_or_else(|| render::text(word), Command::to_string)
    }

    /// The verb that a server has to have for it, unless every server has it, or nobody knows.
    pub fn new_verb(&self) -> Option<String> {
        let verb = self.shown().split(' ').next().unwrap_or_default().to_owned();
        let old = verbs().take(FIRST_VERBS).any(|known| known == verb);
        // Arguments that METP/1.0 does not have.
        let new_arguments = match &self.command {
            Some(Command::GetAllMetrics) => true,
            Some(Command::GetLogs(selection)) => *selection != LogSelection::default(),
            _ => false,
        };
        (self.line.is_none() && (new_arguments || !old)).then_some(verb)
    }

    /// Whether the session is over behind it.
    pub fn leaves(&self) -> bool {
        matches!(self.command, Some(Command::Quit))
    }

    /// Whether the server may end the session behind it.
    pub fn closes_down(&self) -> bool {
        matches!(self.command, Some(Command::Shutdown(_)))
    }
}

/// A password that an account may have.
fn new_password(option: &'static str, name: &[u8]) -> Result<Vec<u8>, Failure> {
    let password = password::new(name)?;
    if !acceptable_password(&password) {
        let option = shown_option(option);
        return Err(Failure::Usage(format!("{option} {}: {PASSWORD_RULE}", Escaped(name))));
    }
    Ok(password)
}
