//! The command line of METP: opens a session, gives the commands, shows what the server says.
//!
//! `args` knows the command line, `conversation` the protocol, `render` what users read, `terminal` how to
//! ask for a password.

#![deny(unsafe_code)]
#![warn(missing_docs, clippy::unwrap_used, clippy::expect_used)]
#![warn(clippy::panic, clippy::todo, clippy::unimplemented, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]
#![cfg_attr(test, allow(clippy::panic))]

mod args;
mod conversation;
mod render;
mod terminal;

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use args::{Args, Invocation};
use conversation::{Conversation, Failure};
use socks5d::proto::metp::Command;

/// Lines of metrics that are taken from a server; three are shown, later versions may have more.
const MOST_METRICS: usize = 256;

fn main() -> ExitCode {
    let environment = std::env::var_os(args::LOGIN_VARIABLE);
    let done = match args::parse(std::env::args_os().skip(1), environment.as_deref()) {
        Ok(Invocation::Show(text)) => show(text.as_bytes()),
        Ok(Invocation::Talk(args)) => talk(&args),
        Err(usage) => Err(Failure::Usage(format!("client: {usage}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// One line on stderr. If nobody reads it, the exit code still tells.
fn complain(what: &dyn Display) {
    let _ = writeln!(io::stderr(), "{what}");
}

/// A failure, unless it has been reported or needs no word.
fn report(failure: &Failure) {
    match failure {
        Failure::Reported(_) => {}
        // Whoever read the output has seen enough.
        Failure::Output(error) if error.kind() == ErrorKind::BrokenPipe => {}
        _ => complain(failure),
    }
}

/// Gives all commands in order. A command that is refused does not keep the others from being given; the
/// first failure decides the exit code.
fn talk(args: &Args) -> Result<(), Failure> {
    let password = match &args.login.password {
        Some(password) => password.clone(),
        None => terminal::ask_password(&args.login.name)
            .map_err(|error| Failure::Usage(format!("cannot ask for the password: {error}")))?,
    };
    complain(&render::connecting(&args.host, args.port, &args.login.name));
    let mut conversation = Conversation::open(&args.host, args.port)?;
    conversation.log_in(&args.login.name, &password)?;
    let mut refused = None;
    for command in &args.commands {
        match give(command, &mut conversation) {
            Ok(()) => {}
            Err(failure) if failure.ends_session() => return Err(failure),
            Err(failure) => {
                report(&failure);
                refused.get_or_insert(failure.exit_code());
            }
        }
    }
    conversation.quit()?;
    show(render::CLOSED.as_bytes())?;
    refused.map_or(Ok(()), |code| Err(Failure::Reported(code)))
}

/// Gives one command and shows the answer.
fn give(command: &Command, conversation: &mut Conversation) -> Result<(), Failure> {
    conversation.command(command)?;
    match command {
        Command::GetMetrics => {
            let mut lines = Vec::new();
            conversation.body(|line| {
                if lines.len() >= MOST_METRICS {
                    return Err(Failure::Broken("The server's metrics are too long".to_owned()));
                }
                lines.push(line.to_vec());
                Ok(())
            })?;
            show(render::metrics(&lines)?.as_bytes())
        }
        Command::GetLogs(_) | Command::Users => {
            conversation.body(|line| show(render::line(line).as_bytes()))
        }
        _ => show(render::DONE.as_bytes()),
    }
}

fn show(text: &[u8]) -> Result<(), Failure> {
    io::stdout().write_all(text).map_err(Failure::Output)
}
