//! A call: opens a session with each server, gives the commands in their order, shows the answers.

use std::io::LineWriter;

use common::stdio::{self, Inherited};

use crate::answer::{Answer, AnswerKind};
use crate::args::{Args, Live, PasswordSource, shown_option};
use crate::conversation::{Failure, Server, Session};
use crate::document::Document;
use crate::order::Order;
use crate::output::Output;
use crate::table::Table;
use crate::{follow, password, refusal, render, table, watch};

/// Does all that a command line asks for. A command that is refused does not keep the others from being given,
/// nor a server that fails those behind it; the first failure decides the exit code.
///
/// # Errors
/// The first failure, which has been reported already.
pub fn talk(args: Args) -> Result<(), Failure> {
    let Args { servers, wait, login, json, quiet, tasks, live } = args;
    let name = login.name;
    let password = match login.password {
        PasswordSource::Given(password) => password,
        PasswordSource::File(path) => password::from_file(&path)?,
        PasswordSource::Prompt => password::ask(&name)?,
    };
    let orders = tasks.into_iter().map(Order::new).collect::<Result<Vec<Order>, Failure>>()?;
    let is_only = servers.len() == 1;
    let mut first = None;
    let mut there = Vec::new();
    for server in servers {
        let output = Output::new(&server, is_only, quiet);
        let (name, password) = (name.clone(), password.clone());
        let server = Server { host: server.host, port: server.port, name, password, wait, output };
        server.output.eprint_unlabelled(&render::connecting(
            &server.host,
            server.port,
            &server.name,
        ));
        match all_orders(&orders, &server, json) {
            Ok(refused) => {
                first = first.or(refused);
                there.push(server);
            }
            Err(failure) => {
                server.output.report(&failure);
                first.get_or_insert(failure.exit_code());
                if matches!(failure, Failure::Output(_)) {
                    there.clear();
                    break;
                }
            }
        }
    }
    let shown = match (live, there.as_slice()) {
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

/// Gives all orders to one server. Returns the exit code of the first that was refused.
fn all_orders(orders: &[Order], server: &Server, json: bool) -> Result<Option<u8>, Failure> {
    if orders.is_empty() {
        return Ok(None);
    }
    // It names its server itself.
    let document =
        json.then(|| Document::new(LineWriter::new(stdio::stdout()), server)).transpose()?;
    let mut call = Call { document, output: &server.output };
    let done = call.give_all(orders, server);
    if let Some(document) = call.document {
        document.end(done.as_ref().err())?;
    }
    done
}

struct Call<'a> {
    /// Where the answers go, if they are to be JSON.
    document: Option<Document<LineWriter<Inherited>>>,
    /// Where they are shown, if not.
    output: &'a Output,
}

impl Call<'_> {
    /// Returns the exit code of the first command that was refused.
    fn give_all(&mut self, orders: &[Order], server: &Server) -> Result<Option<u8>, Failure> {
        let mut session = server.log_in()?;
        let mut first = None;
        let mut left = false;
        for order in orders {
            let answer = self.give(order, &mut session);
            if let Some(document) = &mut self.document {
                document.add(order, &answer)?;
            }
            match answer {
                Ok(_) => left |= order.leaves(),
                Err(failure) if failure.ends_session() => return Err(failure),
                Err(failure) => {
                    self.output.eprint_line(&refusal::shown(order, &failure));
                    first.get_or_insert(failure.exit_code());
                }
            }
            if left {
                break;
            }
        }
        // A server that is closing down may say so before it hears QUIT.
        let closing = orders.iter().any(Order::closes_down);
        match if left { Ok(()) } else { session.quit() } {
            Err(failure) if !closing => return Err(failure),
            _ => {}
        }
        if self.document.is_none() {
            self.output.print_unless_quiet(render::CLOSED.as_bytes())?;
        }
        Ok(first)
    }

    /// Gives one command and shows the answer, of a document only if it is a list.
    fn give(&mut self, order: &Order, session: &mut Session) -> Result<Answer, Failure> {
        let text = match (&order.line, &order.command) {
            (Some(line), _) => session.say_line(line)?,
            (None, Some(command)) => {
                if let Some(verb) = order.new_verb() {
                    session.require(shown_option(order.option), &[&verb])?;
                }
                session.command(command)?
            }
            (None, None) => String::new(),
        };
        let kind = order.kind();
        if kind.is_list() {
            self.show_list(order, &text, session)?;
            return Ok(Answer { kind, text, lines: Vec::new() });
        }
        let answer = Answer::read(kind, text, session)?;
        if self.document.is_none() {
            let raw = order.line.is_some();
            let shown = if raw { render::raw(&answer) } else { table::text(&answer)? };
            self.output.print(shown.as_bytes())?;
        }
        Ok(answer)
    }

    /// Shows the lines of a list as they come: there may be any number of them.
    fn show_list(
        &mut self,
        order: &Order,
        text: &str,
        session: &mut Session,
    ) -> Result<(), Failure> {
        let kind = order.kind();
        if let Some(document) = &mut self.document {
            document.begin_list(order, text)?;
            return session.body(|line| document.row(order, kind, &render::text(line)));
        }
        if order.line.is_some() {
            self.output.print(render::status(text).as_bytes())?;
        } else if kind == AnswerKind::Rows {
            let mut table = Table::new(order.command.as_ref(), self.output.style());
            let all =
                session.body(|line| self.output.print(table.add(render::text(line)).as_bytes()));
            // What came before it broke off is shown, too.
            return self.output.print(table.end().as_bytes()).and(all);
        }
        session.body(|line| self.output.print(render::line(line).as_bytes()))
    }
}
