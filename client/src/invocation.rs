//! One command of the command line: that of an option, or a line of METP that is sent as it is.

use common::usage::OptionName;
use metp_protocol::{Command, Role};

use crate::answer::AnswerKind;
use crate::render;
use crate::users_file::UsersFile;

/// A command to be sent.
pub struct Invocation {
    /// The option that the command belongs to; `--` for a line.
    pub option: OptionName<'static>,
    /// The line without its LF, if it is sent as it is.
    pub line: Option<Vec<u8>>,
    /// The command; `None` for a line that this program cannot parse. A password that has to be asked for is
    /// empty here: METP has no empty password.
    pub command: Option<Command>,
    /// The file whose accounts are sent, one command each.
    pub import: Option<UsersFile>,
}

impl Invocation {
    /// A command that an option stands for.
    pub fn command(option: OptionName<'static>, command: Command) -> Self {
        Invocation { option, line: None, command: Some(command), import: None }
    }

    /// A line, without its LF, that follows `--`.
    pub fn line(line: Vec<u8>) -> Self {
        let command = Command::parse(&line, Role::Admin).ok();
        let option = OptionName { short: "", long: "--" };
        Invocation { option, line: Some(line), command, import: None }
    }

    /// The accounts of a file.
    pub fn import(option: OptionName<'static>, file: UsersFile) -> Self {
        Invocation { option, line: None, command: None, import: Some(file) }
    }

    /// The form of the answer.
    pub fn answer_kind(&self) -> AnswerKind {
        let of_command = self.command.as_ref().map_or(AnswerKind::Done, AnswerKind::of);
        if self.import.is_some() { AnswerKind::Imported } else { of_command }
    }

    /// The command line of METP, without a password. Of a line that cannot be parsed, its first word: the rest
    /// may be a password.
    pub fn shown(&self) -> String {
        if self.import.is_some() {
            return "IMPORT".to_owned();
        }
        let unknown = self.line.as_deref().unwrap_or_default();
        let word = unknown.split(|byte| *byte == b' ').next().unwrap_or_default();
        self.command.as_ref().map_or_else(|| render::text(word), Command::to_string)
    }

    /// The verb.
    pub fn verb(&self) -> String {
        self.shown().split(' ').next().unwrap_or_default().to_owned()
    }

    /// Whether CAPA has to name the verb before the command is sent: it belongs to an option, and METP/1.0 does
    /// not have it. A line is sent without a check.
    pub fn needs_1_1(&self) -> bool {
        let is_new = self.command.as_ref().is_some_and(|command| !command.is_of_1_0());
        self.import.is_some() || (self.line.is_none() && is_new)
    }

    /// Whether the session ends with its answer.
    pub fn is_quit(&self) -> bool {
        matches!(self.command, Some(Command::Quit))
    }

    /// Whether the server may close the session after its answer.
    pub fn is_shutdown(&self) -> bool {
        matches!(self.command, Some(Command::Shutdown(_)))
    }
}
