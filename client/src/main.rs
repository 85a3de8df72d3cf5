//! The command line of METP: opens a session, gives the commands, shows what the server says.
//!
//! `args` knows the command line, `order` and `call` what it asks for, `session` the protocol, `answer` what comes back;
//! `render` and `table` show it to people, `json` and `document` to programs, `refusal` says why it was not done, and
//! `output` is where. `follow` and `watch` show what is going on as it happens, and `retry` waits for servers.
//! `password` and `terminal` ask for passwords.

#![deny(unsafe_code)]
#![warn(missing_docs, clippy::unwrap_used, clippy::expect_used)]
#![warn(clippy::panic, clippy::todo, clippy::unimplemented, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]
#![cfg_attr(test, allow(clippy::panic))]

mod answer;
mod args;
mod connection;
mod document;
mod failure;
mod fields;
mod follow;
mod invocation;
mod json;
mod locale;
mod output;
mod password;
mod refusal;
mod render;
mod retry;
mod run;
mod session;
mod table;
mod terminal;
mod units;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use args::{CommandLine, Environment};
use common::process;
use failure::Failure;
use output::{Output, print};

fn main() -> ExitCode {
    process::ignore_file_size_signal();
    process::share_heaps();
    // Before there is any other thread: see there.
    let login = process::take_from_environment(args::LOGIN_VARIABLE);
    let [host, port] = [args::HOST_VARIABLE, args::PORT_VARIABLE].map(std::env::var_os);
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // If the system does not tell where they stand, they stay; nothing depends on it.
    let _ = process::erase_arguments(&args::passwords(&arguments));
    if let Err(error) = process::harden() {
        Output::default().eprint_line(&format_args!("client: {error}"));
    }
    let done = match args::parse(arguments, &Environment { login, host, port }) {
        Ok(CommandLine::Show(text)) => print(text.as_bytes()),
        Ok(CommandLine::Run(args)) => run::run(args),
        Err(usage) => Err(Failure::Usage(usage.to_string())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            Output::default().report(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}
