//! Where a call shows what one server says: standard output and standard error. Where several servers are asked,
//! each line begins with its server, as in `proxy.example:8080: admin admin`.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use common::stdio;

use crate::args::Endpoint;
use crate::conversation::Failure;
use crate::render;
use crate::table::Style;

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
    pub fn new(server: &Endpoint, is_only: bool, quiet: bool) -> Self {
        let label = format!("{}: ", render::endpoint(&server.host, server.port));
        Output { label: if is_only { String::new() } else { label }, quiet }
    }

    /// The server, if lines have to say which it is.
    pub fn server(&self) -> Option<&str> {
        self.label.strip_suffix(": ")
    }

    /// How tables are to look in the room that the label leaves.
    pub fn style(&self) -> Style {
        let style = Style::of_stdout();
        let width = style.width.map(|width| width.saturating_sub(self.label.len()));
        Style { width, ..style }
    }

    /// Writes whole lines to standard output, at once.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn show(&self, lines: &[u8]) -> Result<(), Failure> {
        if self.label.is_empty() {
            return show(lines);
        }
        let mut labelled = Vec::with_capacity(lines.len().saturating_add(self.label.len()));
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            labelled.extend(self.label.as_bytes());
            labelled.extend(line);
        }
        show(&labelled)
    }

    /// [`show`](Output::show)s what a quiet call leaves out.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn mention(&self, lines: &[u8]) -> Result<(), Failure> {
        if self.quiet { Ok(()) } else { self.show(lines) }
    }

    /// Writes a line to standard error that names its server itself, unless the call is quiet.
    pub fn announce(&self, line: &dyn Display) {
        if !self.quiet {
            complain(line);
        }
    }

    /// Writes a line to standard error that is no failure, unless the call is quiet.
    pub fn remark(&self, line: &dyn Display) {
        if !self.quiet {
            self.complain(line);
        }
    }

    /// Writes a line to standard error. The server that each line begins with is not named again where it cannot
    /// be reached.
    pub fn complain(&self, line: &dyn Display) {
        let line = line.to_string();
        let named = self.server().map(|server| format!("{} to {server}", render::NO_CONNECTION));
        match named.and_then(|named| line.strip_prefix(&named)) {
            Some(why) => complain(&format_args!("{}{}{why}", self.label, render::NO_CONNECTION)),
            None => complain(&format_args!("{}{line}", self.label)),
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
            _ => self.complain(words),
        }
    }
}

/// Writes to standard output.
///
/// # Errors
/// [`Failure::Output`].
pub fn show(text: &[u8]) -> Result<(), Failure> {
    // Servers are followed at the same time.
    let _lines_stay_whole = io::stdout().lock();
    stdio::stdout().write_all(text).map_err(Failure::Output)
}

/// One line on stderr. If nobody reads it, the exit code still tells.
fn complain(line: &dyn Display) {
    let _lines_stay_whole = io::stderr().lock();
    let _ = stdio::stderr().write_all(format!("{line}\n").as_bytes());
}
