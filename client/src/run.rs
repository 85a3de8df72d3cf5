//! A call: a session with each server, in which the commands are sent in command-line order and the answers
//! printed.

use std::io::LineWriter;

use common::stdio::{self, Inherited};

use crate::answer::{Answer, AnswerKind};
use crate::args::{Args, Live, PasswordSource};
use crate::document::Document;
use crate::failure::Failure;
use crate::invocation::Invocation;
use crate::output::Output;
use crate::session::{Server, Session};
use crate::table::Table;
use crate::{account_import, follow, password, refusal, render, table, watch};

/// Runs a call. After a command that is refused, the others are still sent; after a server that fails, the next
/// one is tried. The first failure decides the exit code.
///
/// # Errors
/// [`Failure::Reported`] with the exit code of the first failure; or why no password could be read.
pub fn run(args: Args) -> Result<(), Failure> {
    let Args { servers, wait, login, json, quiet, invocations, live } = args;
    let name = login.name;
    let password = match login.password {
        PasswordSource::Given(password) => password,
        PasswordSource::File(path) => password::from_file(&path)?,
        PasswordSource::Prompt => password::ask(&name)?,
    };
    let invocations = invocations.into_iter().map(password::complete);
    let invocations = invocations.collect::<Result<Vec<Invocation>, Failure>>()?;
    let is_only = servers.len() == 1;
    let mut first = None;
    let mut reached = Vec::new();
    for server in servers {
        let output = Output::new(&server, is_only, quiet);
        let (name, password) = (name.clone(), password.clone());
        let server = Server { host: server.host, port: server.port, name, password, wait, output };
        server.output.eprint_unlabelled(&render::connecting(
            &server.host,
            server.port,
            &server.name,
        ));
        match run_on(&server, &invocations, json) {
            Ok(refused) => {
                first = first.or(refused);
                reached.push(server);
            }
            Err(failure) => {
                server.output.report(&failure);
                first.get_or_insert(failure.exit_code());
                if matches!(failure, Failure::Output(_)) {
                    reached.clear();
                    break;
                }
            }
        }
    }
    let shown = match (live, reached.as_slice()) {
        (None, _) | (_, []) => Ok(()),
        (Some(Live::Follow(last)), servers) => follow::follow_all(servers, json, last),
        (Some(Live::Watch(every)), [server, ..]) => {
            let mut lines = LineWriter::new(stdio::stdout());
            let shown = match (json, watch::has_screen()) {
                (true, _) => watch::json(server, every, &mut lines),
                (false, true) => watch::screen(server, every),
                (false, false) => watch::lines(server, every, &mut lines),
            };
            shown.inspect_err(|failure| {
                server.output.report_as(failure, &refusal::shown_live("-w", failure));
            })
        }
    };
    match first.or(shown.err().map(|failure| failure.exit_code())) {
        None => Ok(()),
        Some(code) => Err(Failure::Reported(code)),
    }
}

/// Sends all commands to one server. Returns the exit code of the first that was refused, if any.
fn run_on(server: &Server, invocations: &[Invocation], json: bool) -> Result<Option<u8>, Failure> {
    if invocations.is_empty() {
        return Ok(None);
    }
    let document =
        json.then(|| Document::new(LineWriter::new(stdio::stdout()), server)).transpose()?;
    let mut call = Call { document, output: &server.output };
    let done = call.send_all(invocations, server);
    if let Some(document) = call.document {
        document.end(done.as_ref().err())?;
    }
    done
}

struct Call<'a> {
    /// The document for the answers, with `--json`.
    document: Option<Document<LineWriter<Inherited>>>,
    /// Where answers are printed without `--json`.
    output: &'a Output,
}

impl Call<'_> {
    /// Sends the commands in one session. Returns the exit code of the first that was refused, if any.
    fn send_all(
        &mut self,
        invocations: &[Invocation],
        server: &Server,
    ) -> Result<Option<u8>, Failure> {
        let mut session = server.log_in()?;
        let mut first = None;
        let mut has_quit = false;
        for invocation in invocations {
            let answer = self.send(invocation, &mut session);
            if let Some(document) = &mut self.document {
                document.add(invocation, &answer)?;
            }
            match answer {
                Ok(answer) => {
                    has_quit |= invocation.is_quit();
                    // Each account that was refused has been reported.
                    if answer.kind == AnswerKind::Imported && !answer.lines.is_empty() {
                        first.get_or_insert(Failure::Refused(String::new()).exit_code());
                    }
                }
                Err(failure) if failure.ends_session() => return Err(failure),
                Err(failure) => {
                    self.output.eprint_line(&refusal::shown(invocation, &failure));
                    first.get_or_insert(failure.exit_code());
                }
            }
            if has_quit {
                break;
            }
        }
        // A server that drains may close the session (421) before it reads QUIT.
        let closing = invocations.iter().any(Invocation::is_shutdown);
        match if has_quit { Ok(()) } else { session.quit() } {
            Err(failure) if !closing => return Err(failure),
            _ => {}
        }
        if self.document.is_none() {
            self.output.print_unless_quiet(render::CLOSED.as_bytes())?;
        }
        Ok(first)
    }

    /// Sends one command and prints its answer. With `--json`, only a list is written here; the caller adds the
    /// rest.
    fn send(&mut self, invocation: &Invocation, session: &mut Session) -> Result<Answer, Failure> {
        if let Some(file) = &invocation.import {
            session.require(invocation.option.shown(), &[&invocation.verb()])?;
            let answer = account_import::send(file, session, self.output)?;
            if self.document.is_none() {
                self.output.print(table::text(&answer)?.as_bytes())?;
            }
            return Ok(answer);
        }
        let text = match (&invocation.line, &invocation.command) {
            (Some(line), _) => session.raw_command(line)?,
            (None, Some(command)) => {
                if invocation.needs_1_1() {
                    session.require(invocation.option.shown(), &[&invocation.verb()])?;
                }
                session.command(command)?
            }
            (None, None) => String::new(),
        };
        let kind = invocation.answer_kind();
        if kind.is_list() {
            self.print_list(invocation, &text, session)?;
            return Ok(Answer { kind, text, lines: Vec::new() });
        }
        let answer = session.read_answer(kind, text)?;
        if self.document.is_none() {
            let is_raw = invocation.line.is_some();
            let shown = if is_raw { raw(&answer) } else { table::text(&answer)? };
            self.output.print(shown.as_bytes())?;
        }
        Ok(answer)
    }

    /// Prints a list line by line as it comes: it may have any length.
    fn print_list(
        &mut self,
        invocation: &Invocation,
        text: &str,
        session: &mut Session,
    ) -> Result<(), Failure> {
        let kind = invocation.answer_kind();
        if let Some(document) = &mut self.document {
            document.begin_list(invocation, text)?;
            return session.read_body(|line| document.row(invocation, kind, &render::text(line)));
        }
        if invocation.line.is_some() {
            self.output.print(render::status(text).as_bytes())?;
        } else if kind == AnswerKind::Rows {
            let mut table = Table::new(invocation.command.as_ref(), self.output.style());
            let all = session
                .read_body(|line| self.output.print(table.add(render::text(line)).as_bytes()));
            // Lines that came before the list broke off are printed, too.
            return self.output.print(table.end().as_bytes()).and(all);
        }
        session.read_body(|line| self.output.print(render::line(line).as_bytes()))
    }
}

/// Formats the answer to a line that was sent as it is: status line and body, unchanged.
fn raw(answer: &Answer) -> String {
    let lines = answer.lines.iter().map(|line| format!("{line}\n"));
    render::status(&answer.text) + &lines.collect::<String>()
}
