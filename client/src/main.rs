//! The command line of METP: opens a session, gives the commands, shows what the server says.
//!
//! `args` knows the command line, `order` and `call` what it asks for, `conversation` the protocol, `answer` what comes back;
//! `render` and `table` show it to people, `json` and `document` to programs. `follow` and `watch` show what is going on as it
//! happens. `password` and `terminal` ask for passwords.

#![deny(unsafe_code)]
#![warn(missing_docs, clippy::unwrap_used, clippy::expect_used)]
#![warn(clippy::panic, clippy::todo, clippy::unimplemented, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]
#![cfg_attr(test, allow(clippy::panic))]

mod answer;
mod args;
mod call;
mod conversation;
mod document;
mod fields;
mod follow;
mod json;
mod locale;
mod order;
mod password;
mod render;
mod table;
mod terminal;
mod units;
mod watch;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use args::Invocation;
use conversation::Failure;
use socks5d::process;

fn main() -> ExitCode {
    // Before there is any other thread: see there.
    let environment = process::take_from_environment(args::LOGIN_VARIABLE);
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // If the system does not tell where they stand, they stay; nothing depends on it.
    let _ = process::erase_arguments(&args::passwords(&arguments));
    if let Err(error) = process::harden() {
        complain(&format_args!("client: cannot give up core dumps and privileges: {error}"));
    }
    let done = match args::parse(arguments, environment.as_deref()) {
        Ok(Invocation::Show(text)) => show(text.as_bytes()),
        Ok(Invocation::Talk(args)) => call::talk(args),
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

fn show(text: &[u8]) -> Result<(), Failure> {
    io::stdout().write_all(text).map_err(Failure::Output)
}
