//! Where a call shows what one server says: standard output and standard error. Where several servers are asked,
//! each line begins with its server, as in `proxy.example:8080: admin admin`.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use common::stdio;

use crate::args::ServerAddress;
use crate::failure::Failure;
use crate::render;
use crate::table::TableStyle;

/// Shows lines of one server.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// What each line begins with, or nothing.
    label: String,
    /// Whether connecting and closing are not mentioned.
    quiet: bool,
}

impl Output {
    /// For one server of a call, or the only one.
    pub fn new(server: &ServerAddress, is_only: bool, quiet: bool) -> Self {
        let label = format!("{}: ", render::endpoint(&server.host, server.port));
        Output { label: if is_only { String::new() } else { label }, quiet }
    }

    /// The server, if lines have to say which it is.
    pub fn server(&self) -> Option<&str> {
        self.label.strip_suffix(": ")
    }

    /// How tables are to look in the room that the label leaves.
    pub fn style(&self) -> TableStyle {
        let style = TableStyle::of_stdout();
        let width = style.width.map(|width| width.saturating_sub(self.label.len()));
        TableStyle { width, ..style }
    }

    /// Writes whole lines to standard output, at once.
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

    /// [`print`](Output::print)s what a quiet call leaves out.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn print_unless_quiet(&self, lines: &[u8]) -> Result<(), Failure> {
        if self.quiet { Ok(()) } else { self.print(lines) }
    }

    /// Writes a line to standard error that names its server itself, unless the call is quiet.
    pub fn eprint_unlabelled(&self, line: &dyn Display) {
        if !self.quiet {
            eprint_line(line);
        }
    }

    /// Writes a line to standard error that is no failure, unless the call is quiet.
    pub fn eprint_unless_quiet(&self, line: &dyn Display) {
        if !self.quiet {
            self.eprint_line(line);
        }
    }

    /// Writes a line to standard error. The server that each line begins with is not named again where it cannot
    /// be reached.
    pub fn eprint_line(&self, line: &dyn Display) {
        let line = line.to_string();
        let named = self.server().map(|server| format!("{} to {server}", render::NO_CONNECTION));
        match named.and_then(|named| line.strip_prefix(&named)) {
            Some(why) => eprint_line(&format_args!("{}{}{why}", self.label, render::NO_CONNECTION)),
            None => eprint_line(&format_args!("{}{line}", self.label)),
        }
    }

    /// Writes a failure to standard error, unless it has been reported or needs no word.
    pub fn report(&self, failure: &Failure) {
        self.report_as(failure, failure);
    }

    /// [`report`](Output::report)s a failure in other words.
    pub fn report_as(&self, failure: &Failure, words: &dyn Display) {
        match failure {
            Failure::Reported(_) => {}
            // Whoever read the output has seen enough.
            Failure::Output(error) if error.kind() == ErrorKind::BrokenPipe => {}
            _ => self.eprint_line(words),
        }
    }
}

/// Writes to standard output.
///
/// # Errors
/// [`Failure::Output`].
pub fn print(text: &[u8]) -> Result<(), Failure> {
    // Servers are followed at the same time.
    let _lines_stay_whole = io::stdout().lock();
    stdio::stdout().write_all(text).map_err(Failure::Output)
}

/// One line on stderr. If nobody reads it, the exit code still tells.
fn eprint_line(line: &dyn Display) {
    let _lines_stay_whole = io::stderr().lock();
    let _ = stdio::stderr().write_all(format!("{line}\n").as_bytes());
}
