//! A call: opens a session, gives the commands in their order, shows the answers.

use std::io::{self, Stdout};

use crate::answer::{Answer, Kind};
use crate::args::{Args, Live, Password};
use crate::conversation::{Conversation, Failure, Server};
use crate::document::Document;
use crate::order::Order;
use crate::table::{Style, Table};
use crate::{complain, follow, password, render, report, show, table, watch};

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
    let orders = tasks.into_iter().map(Order::new).collect::<Result<Vec<Order>, Failure>>()?;
    let server = Server { host, port, name, password: secret };
    complain(&render::connecting(&server.host, server.port, &server.name));
    let mut first = None;
    if !orders.is_empty() {
        let document = json.then(|| Document::new(io::stdout(), &server)).transpose()?;
        let mut call = Call { document };
        let done = call.give_all(&orders, &server);
        if let Some(document) = call.document {
            document.end(done.as_ref().err())?;
        }
        first = done?;
    }
    let shown = match live {
        None => Ok(()),
        Some(Live::Follow) => follow::follow(&server, json),
        Some(Live::Watch(every)) if json => watch::json(&server, every, &mut io::stdout()),
        Some(Live::Watch(every)) if watch::has_screen() => watch::screen(&server, every),
        Some(Live::Watch(every)) => watch::lines(&server, every, &mut io::stdout()),
    };
    match (first, shown) {
        (None, shown) => shown,
        (Some(code), shown) => {
            if let Err(failure) = shown {
                report(&failure);
            }
            Err(Failure::Reported(code))
        }
    }
}

struct Call {
    /// Where the answers go, if they are to be JSON.
    document: Option<Document<Stdout>>,
}

impl Call {
    /// Returns the exit code of the first command that was refused.
    fn give_all(&mut self, orders: &[Order], server: &Server) -> Result<Option<u8>, Failure> {
        let mut conversation = server.log_in()?;
        let mut first = None;
        let mut left = false;
        for order in orders {
            let answer = self.give(order, &mut conversation);
            if let Some(document) = &mut self.document {
                document.add(order, &answer)?;
            }
            match answer {
                Ok(_) => left |= order.leaves(),
                Err(failure) if failure.ends_session() => return Err(failure),
                Err(failure) => {
                    match &failure {
                        // What older options say is what it always was.
                        Failure::Refused(text) if order.new_verb().is_some() => {
                            complain(&format_args!("{}: {text}", order.option));
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
        let closing = orders.iter().any(Order::closes_down);
        match if left { Ok(()) } else { conversation.quit() } {
            Err(failure) if !closing => return Err(failure),
            _ => {}
        }
        if self.document.is_none() {
            show(render::CLOSED.as_bytes())?;
        }
        Ok(first)
    }

    /// Gives one command and shows the answer, of a document only if it is a list.
    fn give(&mut self, order: &Order, conversation: &mut Conversation) -> Result<Answer, Failure> {
        let text = match (&order.line, &order.command) {
            (Some(line), _) => conversation.say_line(line)?,
            (None, Some(command)) => {
                if let Some(verb) = order.new_verb() {
                    conversation.require(order.option, &[&verb])?;
                }
                conversation.command(command)?
            }
            (None, None) => String::new(),
        };
        let kind = order.kind();
        if kind.is_list() {
            self.show_list(order, &text, conversation)?;
            return Ok(Answer { kind, text, lines: Vec::new() });
        }
        let answer = Answer::read(kind, text, conversation)?;
        if self.document.is_none() {
            let raw = order.line.is_some();
            let shown = if raw { render::raw(&answer) } else { table::text(&answer)? };
            show(shown.as_bytes())?;
        }
        Ok(answer)
    }

    /// Shows the lines of a list as they come: there may be any number of them.
    fn show_list(
        &mut self,
        order: &Order,
        text: &str,
        conversation: &mut Conversation,
    ) -> Result<(), Failure> {
        let kind = order.kind();
        if let Some(document) = &mut self.document {
            document.begin_list(order, text)?;
            return conversation.body(|line| document.row(order, kind, &render::text(line)));
        }
        if order.line.is_some() {
            show(render::status(text).as_bytes())?;
        } else if kind == Kind::Rows {
            let mut table = Table::new(order.command.as_ref(), Style::of_stdout());
            let all = conversation.body(|line| show(table.add(render::text(line)).as_bytes()));
            // What came before it broke off is shown, too.
            return show(table.end().as_bytes()).and(all);
        }
        conversation.body(|line| show(render::line(line).as_bytes()))
    }
}
