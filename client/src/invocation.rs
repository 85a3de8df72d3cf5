//! What an option of the command line has sent: a command, or a line of METP as it is.

use common::usage::OptionName;
use metp_protocol::{Command, Role};

use crate::answer::AnswerKind;
use crate::render;

/// A command that is to be sent.
pub struct Invocation {
    /// The option that asks for it; `--` for a line.
    pub option: OptionName<'static>,
    /// The line without its LF, if it is sent as it is.
    pub line: Option<Vec<u8>>,
    /// The command; `None` for a line that this program cannot read. A password that is still to be asked for is
    /// empty: METP has no empty one.
    pub command: Option<Command>,
}

impl Invocation {
    /// The command of an option.
    pub fn command(option: OptionName<'static>, command: Command) -> Self {
        Invocation { option, line: None, command: Some(command) }
    }

    /// A line without its LF.
    pub fn line(line: Vec<u8>) -> Self {
        let command = Command::parse(&line, Role::Admin).ok();
        let option = OptionName { short: "", long: "--" };
        Invocation { option, line: Some(line), command }
    }

    /// The form of its answer.
    pub fn answer_kind(&self) -> AnswerKind {
        self.command.as_ref().map_or(AnswerKind::Done, AnswerKind::of)
    }

    /// The line of METP without a password: of a line that cannot be read, the first word.
    pub fn shown(&self) -> String {
        let unknown = self.line.as_deref().unwrap_or_default();
        let word = unknown.split(|byte| *byte == b' ').next().unwrap_or_default();
        self.command.as_ref().map_or_else(|| render::text(word), Command::to_string)
    }

    /// The first word of the line.
    pub fn verb(&self) -> String {
        self.shown().split(' ').next().unwrap_or_default().to_owned()
    }

    /// Whether the server has to be asked for the verb first: METP/1.0 does not have the command of the option.
    pub fn needs_1_1(&self) -> bool {
        self.line.is_none() && self.command.as_ref().is_some_and(|command| !command.is_of_1_0())
    }

    /// Whether it ends the session.
    pub fn is_quit(&self) -> bool {
        matches!(self.command, Some(Command::Quit))
    }

    /// Whether the server may end the session after it.
    pub fn is_shutdown(&self) -> bool {
        matches!(self.command, Some(Command::Shutdown(_)))
    }
}
