//! The command line of METP: connects to servers, sends commands, prints the answers.
//!
//! `args` reads the command line into invocations (`invocation`), which `run` sends. `session` speaks METP over
//! a `connection`; `answer` is what comes back. `table` and `render` format answers for people and scripts,
//! `json` and `document` for programs; `refusal` words a refused command, `failure` has the exit codes,
//! `output` prints. `follow` and `watch` show events as they happen, `retry` waits for servers. `password` and
//! `terminal` ask for passwords.
//!
//! No module imports one that imports it, directly or by way of others; a test in `imports` looks.

mod account_import;
mod answer;
mod args;
mod connection;
mod document;
mod failure;
mod follow;
#[cfg(test)]
mod imports;
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
mod users_file;
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
    // The environment may be changed only while there is no other thread.
    let login = process::take_from_environment(args::LOGIN_VARIABLE);
    let [login_file, host, port] =
        [args::LOGIN_FILE_VARIABLE, args::HOST_VARIABLE, args::PORT_VARIABLE].map(std::env::var_os);
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Where the system does not say where arguments are stored, they stay readable in /proc; nothing depends on
    // it.
    let _ = process::erase_arguments(&args::passwords(&arguments));
    if let Err(error) = process::harden() {
        Output::default().eprint_line(&format_args!("client: {error}"));
    }
    let done = match args::parse(arguments, &Environment { login, login_file, host, port }) {
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
