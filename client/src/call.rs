//! A call: opens a session, gives the commands in their order, shows the answers.

use std::io::{self, IsTerminal};

use socks5d::proto::metp::{Command, Role, verbs};
use socks5d::proto::text::{Escaped, widen};

use crate::answer::{Answer, Kind};
use crate::args::{Act, Args, Live, Password, Task};
use crate::conversation::{Conversation, Failure, Server};
use crate::json::Document;
use crate::{complain, follow, password, render, report, show, table, watch};

/// Verbs of METP/1.0, which every server knows.
const FIRST_VERBS: usize = 8;

/// Does all that a command line asks for. A command that is refused does not keep the others from being given;
/// the first failure decides the exit code.
///
/// # Errors
/// The first failure, which may have been reported already.
pub fn talk(args: Args) -> Result<(), Failure> {
    let Args { host, port, login, json, tasks, live } = args;
    let name = login.name;
    let secret = match login.password {
        Password::Given(password) => password,
        Password::In(path) => password::from_file(&path)?,
        Password::Asked => password::ask(&name)?,
    };
    let tasks = tasks.into_iter().map(with_password).collect::<Result<Vec<Task>, Failure>>()?;
    let server = Server { host, port, name, password: secret };
    complain(&render::connecting(&server.host, server.port, &server.name));
    let mut first = None;
    if !tasks.is_empty() || live.is_none() {
        let mut call = Call { document: json.then(|| Document::new(&server)), verbs: None };
        let done = call.give_all(&tasks, &server);
        if let Some(document) = call.document {
            show(document.text(done.as_ref().err()).as_bytes())?;
        }
        first = done?;
    }
    match live {
        None => {}
        Some(Live::Follow) => follow::follow(&server, json)?,
        Some(Live::Watch(every)) if json => watch::json(&server, every, &mut io::stdout())?,
        Some(Live::Watch(every)) if io::stdout().is_terminal() => watch::screen(&server, every)?,
        Some(Live::Watch(every)) => watch::lines(&server, every, &mut io::stdout())?,
    }
    first.map_or(Ok(()), |code| Err(Failure::Reported(code)))
}

/// A new password is asked for before anything is sent.
fn with_password(task: Task) -> Result<Task, Failure> {
    let Act::NewPassword(name) = task.act else { return Ok(task) };
    let password = password::new(&name)?;
    let command = Command::ChangePassword { name, password };
    if command.encode().is_none() {
        return Err(Failure::Usage(format!("{}: the password holds a line end", task.option)));
    }
    Ok(Task { act: Act::Give(command), ..task })
}

struct Call {
    /// The answers so far, if they are to be JSON.
    document: Option<Document>,
    /// What the server knows beyond METP/1.0, once it has been asked.
    verbs: Option<Vec<String>>,
}

impl Call {
    /// Returns the exit code of the first command that was refused.
    fn give_all(&mut self, tasks: &[Task], server: &Server) -> Result<Option<u8>, Failure> {
        let mut conversation = server.log_in()?;
        let mut first = None;
        let mut left = false;
        for task in tasks {
            let answer = self.give(task, &mut conversation);
            if let Some(document) = &mut self.document {
                document.add(task, &answer);
            }
            match answer {
                Ok(_) => left |= task.leaves(),
                Err(failure) if failure.ends_session() => return Err(failure),
                Err(failure) => {
                    match &failure {
                        // What older options say is what it always was.
                        Failure::Refused(text) if !task.is_old() => {
                            complain(&format_args!("{}: {text}", task.option));
                        }
                        _ => report(&failure),
                    }
                    first.get_or_insert(failure.exit_code());
                }
            }
            if left {
                break;
            }
        }
        // A server that is closing down may say so before it hears QUIT.
        let closing = tasks.iter().any(|task| matches!(task.act, Act::Give(Command::Shutdown(_))));
        match if left { Ok(()) } else { conversation.quit() } {
            Err(failure) if !closing => return Err(failure),
            _ => {}
        }
        if self.document.is_none() {
            show(render::CLOSED.as_bytes())?;
        }
        Ok(first)
    }

    /// Gives one command and shows the answer, unless all are to be shown together.
    fn give(&mut self, task: &Task, conversation: &mut Conversation) -> Result<Answer, Failure> {
        let quiet = self.document.is_some();
        let (command, text) = match &task.act {
            Act::Give(command) => {
                self.check(task, command, conversation)?;
                (Some(command.clone()), conversation.command(command)?)
            }
            Act::Say(line) => {
                (Command::parse(line, Role::Admin).ok(), conversation.say_line(line)?)
            }
            Act::NewPassword(_) => {
                return Err(Failure::Usage(format!("{}: no password", task.option)));
            }
        };
        let kind = command.as_ref().map_or(Kind::Done, Kind::of);
        let raw = matches!(task.act, Act::Say(_));
        if !quiet && !raw && matches!(kind, Kind::Users | Kind::Records) {
            // As they come: there may be many.
            conversation.body(|line| show(render::line(line).as_bytes()))?;
            return Ok(Answer { kind, text, lines: Vec::new() });
        }
        let answer = Answer::read(kind, text, conversation)?;
        if !quiet {
            let shown =
                if raw { render::raw(&answer) } else { table::text(&answer, command.as_ref())? };
            show(shown.as_bytes())?;
        }
        Ok(answer)
    }

    /// Whether the server knows the command: it is asked when the first of a later version is to be given.
    fn check(
        &mut self,
        task: &Task,
        command: &Command,
        conversation: &mut Conversation,
    ) -> Result<(), Failure> {
        if task.is_old() {
            return Ok(());
        }
        let line = command.to_string();
        let verb = line.split(' ').next().unwrap_or_default();
        let known = match &mut self.verbs {
            Some(known) => known,
            unknown => unknown.insert(conversation.verbs()?),
        };
        if known.iter().any(|known| known == verb) {
            return Ok(());
        }
        let version = if known.is_empty() { " of METP/1.0" } else { "" };
        Err(Failure::Lacking(format!("{}: this server{version} does not have it", task.option)))
    }
}

impl Task {
    /// The line of METP, without a password.
    pub fn line(&self) -> String {
        match &self.act {
            Act::Give(command) => command.to_string(),
            Act::NewPassword(name) => format!("CHANGE-PASSWORD {}", Escaped(name)),
            Act::Say(line) => match Command::parse(line, Role::Admin) {
                Ok(command) => command.to_string(),
                Err(_) => {
                    render::text(widen(line).split(' ').next().unwrap_or_default().as_bytes())
                }
            },
        }
    }

    /// Whether METP/1.0 has it.
    fn is_old(&self) -> bool {
        let line = self.line();
        let verb = line.split(' ').next().unwrap_or_default();
        let known = verbs().take(FIRST_VERBS).any(|known| known == verb);
        known && !matches!(&self.act, Act::Give(Command::GetAllMetrics) | Act::Say(_))
    }

    /// Whether the session is over behind it.
    fn leaves(&self) -> bool {
        matches!(&self.act, Act::Say(line) if Command::parse(line, Role::Admin) == Ok(Command::Quit))
    }
}
