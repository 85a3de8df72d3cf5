//! METP, the management protocol: command lines, status lines, bodies, events. `protocol_metp.txt` is its
//! contract; the section numbers below are its own.
//!
//! Server and client write and read commands, status lines, bodies and events through this crate. What a command
//! looks like, how it is printed and which role it takes stand together in `command.rs`; what it does stands in the
//! server, in
//! `metp/execute.rs`. Each key stands once in `key.rs`, each line of keys once in `record.rs`, with its writer
//! and its reader; a test compares them with the grammar of the contract.

mod arguments;
mod body;
mod command;
mod connection;
mod event;
mod field;
mod limits;
mod opening;
mod quota;
mod rate;
mod record;
mod role;
mod rules;
mod status;
mod topic;
mod verb;

pub mod key;
pub mod network;
pub mod quantity;
pub mod text;
pub mod timestamp;

pub use arguments::{
    NAME_RULE, PASSWORD_RULE, TRUSTED_NAME, acceptable_name, acceptable_password, fits_in_a_line,
};
pub use body::{LogWords, MetricsBody, figure_line, log_line, user_line};
pub use command::{Command, LogSelection};
pub use connection::{ConnectionId, Stage};
pub use event::{Event, LOST};
pub use field::{Field, seconds};
pub use limits::{LimitWord, Subject};
pub use opening::PreAuthCommand;
pub use quota::{Period, Quota};
pub use rate::Rate;
pub use record::{
    AuthEvent, Capabilities, CloseEvent, ConnectionLine, Info, LimitsLine, LogEvent, MetricsEvent,
    OpenEvent, RuleLine, SettingLine, TrustLine, UsageLine, VerdictLine,
};
pub use role::Role;
pub use rules::{RULE_TEST_RULE, RuleCommand, RuleTest};
pub use status::{Cause, Missing, NewPassword, Notice, Response, Status, split_cause};
pub use topic::{Topic, Topics};
pub use verb::verbs;

use text::shortened;

/// What a parser says of the bytes received so far.
///
/// `Ok(None)`: a good beginning, more bytes are needed. `Ok(Some((value, n)))`: a whole message, which
/// took the first `n` bytes. `Err`: no further byte can make this a message.
pub type Parsed<T, E> = Result<Option<(T, usize)>, E>;

/// The longest command line, in octets, its LF included (§3.1).
pub const LINE_LIMIT: usize = 4096;
/// The longest line from the server, in octets, its LF included (§3.2).
pub const REPLY_LIMIT: usize = 999;
/// The line that opens a session (§4.1).
pub const HELLO: &str = "HELLO METP/1.0";
/// The line that ends a multi-line reply (§3.2).
pub const END_OF_BODY: &str = ".";
/// The name and version of the protocol, as in `CAPA`.
pub const PROTOCOL: &str = "METP/1.1";
/// The buffer sizes that `CHANGE-BUFFER` and `--buffer-size` take, in bytes (§5.5).
pub const BUFFER_SIZES: std::ops::RangeInclusive<usize> = 1..=1_048_576;
/// The longest name of an account, in octets (§5.6).
pub const LONGEST_NAME: usize = 255;
/// The longest password, in octets (§5.6).
pub const LONGEST_PASSWORD: usize = 255;
/// The intervals that `SUBSCRIBE metrics` takes, in seconds.
pub const INTERVALS: std::ops::RangeInclusive<u32> = 1..=3600;
/// The longest time that `SHUTDOWN` takes, in seconds.
pub const LONGEST_GRACE: u32 = 86_400;

/// Finds the first line of `input`: the octets before its LF, one CR taken off (§3.1). Returns them with
/// the number of octets that the line took.
///
/// ```
/// assert_eq!(metp_protocol::line(b"QUIT\r\nmore"), Ok(Some((&b"QUIT"[..], 6))));
/// assert_eq!(metp_protocol::line(b"QUI"), Ok(None));
/// ```
///
/// # Errors
/// [`LineTooLong`] once [`LINE_LIMIT`] octets hold no LF.
pub fn line(input: &[u8]) -> Parsed<&[u8], LineTooLong> {
    match input.iter().take(LINE_LIMIT).position(|byte| *byte == b'\n') {
        Some(end) => {
            let (line, _) = input.split_at(end);
            Ok(Some((line.strip_suffix(b"\r").unwrap_or(line), end.saturating_add(1))))
        }
        None if input.len() >= LINE_LIMIT => Err(LineTooLong),
        None => Ok(None),
    }
}

/// A command line had more than [`LINE_LIMIT`] octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineTooLong;

/// Ends a line from the server with LF. What would exceed [`REPLY_LIMIT`] is cut and ends in `...` (§3.2).
/// Lines are ASCII by construction: all that comes from outside is escaped.
///
/// ```
/// assert_eq!(metp_protocol::ended("200 OK".to_owned()), "200 OK\n");
/// assert_eq!(metp_protocol::ended("x".repeat(2000)).len(), 999);
/// ```
pub fn ended(line: String) -> String {
    let mut line = shortened(line, REPLY_LIMIT - 1);
    line.push('\n');
    line
}

#[cfg(test)]
mod tests;
