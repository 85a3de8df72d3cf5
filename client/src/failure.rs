//! Why a call failed, and the exit code that says so.

use std::fmt;
use std::io;

/// Why a command, a session or the whole call failed. Displays as the line for standard error.
#[derive(Debug)]
pub enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// The server refused a command with 400, 404, 409 or 429: what follows the code.
    Refused(String),
    /// The server could not carry out a command (500 with a cause), and goes on: what follows the code.
    NotDone(String),
    /// The server does not have the command of an option.
    Lacking(String),
    /// No connection could be made, or the server has ended the session and said why (421).
    Unreachable(String),
    /// The connection broke, or the server did not answer in time.
    Lost(String),
    /// The server failed, or does not speak METP.
    Broken(String),
    /// The server answered 401.
    Unauthenticated,
    /// The server answered 403.
    Forbidden,
    /// Standard output could not be written.
    Output(io::Error),
    /// A failure that has been reported already; its exit code.
    Reported(u8),
}

impl Failure {
    /// The exit code, one of sysexits(3).
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 64,
            Failure::Refused(_) => 65,
            Failure::Unreachable(_) | Failure::Lacking(_) => 69,
            Failure::Lost(_) | Failure::Broken(_) | Failure::NotDone(_) => 70,
            Failure::Output(_) => 74,
            Failure::Reported(code) => *code,
            Failure::Unauthenticated | Failure::Forbidden => 77,
        }
    }

    /// Whether the server cannot be reached, or not any more, so that another attempt may succeed.
    pub fn is_absence(&self) -> bool {
        matches!(self, Failure::Unreachable(_) | Failure::Lost(_))
    }

    /// Whether the session cannot take further commands.
    pub fn ends_session(&self) -> bool {
        !matches!(
            self,
            Failure::Refused(_) | Failure::NotDone(_) | Failure::Lacking(_) | Failure::Forbidden
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) => write!(f, "client: {text}"),
            Failure::Refused(text)
            | Failure::NotDone(text)
            | Failure::Lacking(text)
            | Failure::Unreachable(text)
            | Failure::Lost(text)
            | Failure::Broken(text) => f.write_str(text),
            Failure::Unauthenticated => f.write_str("Authentication failed"),
            Failure::Forbidden => f.write_str("Not authorized to execute command"),
            Failure::Output(error) => write!(f, "Cannot write the output: {error}"),
            Failure::Reported(code) => write!(f, "exit code {code}"),
        }
    }
}
