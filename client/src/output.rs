//! Standard output and standard error of a call, for one server. With several servers, each line begins with
//! the name of the server, as in `proxy.example:8080: admin admin`.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use common::stdio;

use crate::args::ServerAddress;
use crate::failure::Failure;
use crate::render;
use crate::table::TableStyle;

/// Prints lines that belong to one server.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The beginning of each line, as `proxy.example:8080: `; empty with one server.
    label: String,
    /// `-q`: connecting and closing are not mentioned.
    quiet: bool,
}

impl Output {
    /// The output of `server`, which may be the only one of the call.
    pub fn new(server: &ServerAddress, is_only: bool, quiet: bool) -> Self {
        let label = format!("{}: ", render::endpoint(&server.host, server.port));
        Output { label: if is_only { String::new() } else { label }, quiet }
    }

    /// The server's name, if lines begin with it.
    pub fn server(&self) -> Option<&str> {
        self.label.strip_suffix(": ")
    }

    /// The style of tables for standard output, with the width that the label leaves.
    pub fn style(&self) -> TableStyle {
        let style = TableStyle::of_stdout();
        let width = style.width.map(|width| width.saturating_sub(self.label.len()));
        TableStyle { width, ..style }
    }

    /// Writes whole lines to standard output, without a buffer.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn print(&self, lines: &[u8]) -> Result<(), Failure> {
        if self.label.is_empty() {
            return print(lines);
        }
        let mut labelled = Vec::with_capacity(lines.len().saturating_add(self.label.len()));
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            labelled.extend(self.label.as_bytes());
            labelled.extend(line);
        }
        print(&labelled)
    }

    /// Writes whole lines to standard output, except with `-q`.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn print_unless_quiet(&self, lines: &[u8]) -> Result<(), Failure> {
        if self.quiet { Ok(()) } else { self.print(lines) }
    }

    /// Writes a line that names the server itself to standard error, without the label, except with `-q`.
    pub fn eprint_unlabelled(&self, line: &dyn Display) {
        if !self.quiet {
            eprint_line(line);
        }
    }

    /// Writes a line to standard error, except with `-q`.
    pub fn eprint_unless_quiet(&self, line: &dyn Display) {
        if !self.quiet {
            self.eprint_line(line);
        }
    }

    /// Writes a line to standard error. `Cannot connect to SERVER: REASON` loses the server if the label names
    /// it.
    pub fn eprint_line(&self, line: &dyn Display) {
        let line = line.to_string();
        let named = self.server().map(|server| format!("{} to {server}", render::NO_CONNECTION));
        match named.and_then(|named| line.strip_prefix(&named)) {
            Some(why) => eprint_line(&format_args!("{}{}{why}", self.label, render::NO_CONNECTION)),
            None => eprint_line(&format_args!("{}{line}", self.label)),
        }
    }

    /// Writes a failure to standard error, unless it has been reported, or the reader of standard output has
    /// gone away, as `head` does.
    pub fn report(&self, failure: &Failure) {
        self.report_as(failure, failure);
    }

    /// Like [`report`](Output::report), with the message `words`.
    pub fn report_as(&self, failure: &Failure, words: &dyn Display) {
        match failure {
            Failure::Reported(_) => {}
            Failure::Output(error) if error.kind() == ErrorKind::BrokenPipe => {}
            _ => self.eprint_line(words),
        }
    }
}

/// Writes whole lines to standard output, without a buffer.
///
/// # Errors
/// [`Failure::Output`].
pub fn print(text: &[u8]) -> Result<(), Failure> {
    // Threads that follow several servers print at once; their lines must not be mixed.
    let _lines_stay_whole = io::stdout().lock();
    stdio::stdout().write_all(text).map_err(Failure::Output)
}

/// Writes a line to standard error. A failure is ignored: the exit code still says what happened.
fn eprint_line(line: &dyn Display) {
    let _lines_stay_whole = io::stderr().lock();
    let _ = stdio::stderr().write_all(format!("{line}\n").as_bytes());
}
