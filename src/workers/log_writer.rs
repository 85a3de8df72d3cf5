//! Log writers: lines go through a bounded queue to a thread that writes them, since write(2) may block.
//!
//! Lines that do not fit into the queue are dropped and counted (`Losses`): the log gets the cause when that begins, and
//! the count when it is over. Each stream has its own thread: a stuck reader of the access log must not silence the diagnostics.
//!
//! write(2) may write a part and then fail, as on a disk that fills up. The rest of the torn line is kept and
//! written first, so a record is never appended to a part of another one.
//!
//! Locks: `State` (queue and counters) is held by the loop for one copy, never across a write; `Open` (the sink) is
//! held by a writer thread for one batch.

mod losses;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::stdio::{self, retry_interrupted};
use common::thread;
use metp_protocol::text::Escaped;

use losses::{Losses, cause_of};

/// Stack of a writer thread: the queue is on the heap, formatting a report takes a few KiB.
const STACK_BYTES: usize = 256 * 1024;
/// The capacity of the queue in bytes, besides the batch that is being written.
pub const QUEUE_BYTES: usize = 1 << 20;

/// Bytes of the queue beyond that for the reports of the writer threads: the count of dropped lines must not be
/// dropped itself.
const REPORT_BYTES: usize = 4096;

/// The name of the stream that gets the reports of all streams.
pub const DIAGNOSTICS: &str = "diagnostics";

/// The cause that is reported for a line of which the file before has only the beginning.
const TORN: &str = "the file was full when it was opened again";

/// The causes that are reported for lines that did not fit into the queue: of a pipe, socket or terminal, and of a file.
const SLOW_READER: &str = "its reader is slow";
const SLOW_DISK: &str = "its disk is slow";

/// The writing end of one stream. Clones share its queue.
#[derive(Clone)]
pub struct LogWriter {
    shared: Arc<Shared>,
}

/// The file behind one or more streams. Streams into one file share a sink, so that no line is written into the
/// middle of another.
#[derive(Clone)]
pub struct Sink {
    open: Arc<Mutex<Open>>,
    /// What the log calls it: `stdout`, or a path.
    object: String,
    /// Why lines that do not fit into the queue are lost.
    slow: &'static str,
}

struct Open {
    out: Box<dyn Write + Send>,
    /// The rest of a line of which the beginning has been written.
    rest: Vec<u8>,
    /// The file, if it is one that can be opened again.
    path: Option<PathBuf>,
}

struct Shared {
    name: &'static str,
    sink: Sink,
    can_reopen: bool,
    state: Mutex<State>,
    changed: Condvar,
}

/// What is to be reported of a stream.
#[derive(Clone, Copy)]
enum News<'a> {
    /// A write has failed.
    CannotWrite(&'a str),
    /// Lines do not fit into the queue.
    Dropping(&'a str),
    /// So many lines were lost in an episode.
    Dropped(u64, &'a str),
    /// The file stays the one before.
    CannotReopen(&'a io::Error),
}

#[derive(Default)]
struct State {
    queue: Vec<u8>,
    /// The thread is writing what it took from the queue.
    writing: bool,
    /// Lines that were dropped.
    losses: Losses,
    /// A line has been written in part, and the rest could not be.
    torn: bool,
    /// The file is to be opened again.
    reopen: bool,
}

impl Sink {
    /// A sink for one stream.
    pub fn new(out: impl Write + Send + 'static) -> Self {
        Sink::with_rest(out, Vec::new(), None)
    }

    /// A file that is appended to, and made where there is none (mode 0640). It can be opened again.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn file(path: PathBuf) -> io::Result<Self> {
        let (file, rest) = open_log(&path)?;
        let is_file = file.metadata()?.is_file();
        let object = Escaped(path.as_os_str().as_encoded_bytes()).to_string();
        Ok(Sink::with_rest(file, rest, Some(path)).named(object, is_file))
    }

    /// Gives it the name that the log has for it. `is_file`: it is a regular file.
    #[must_use]
    pub fn named(self, object: impl Into<String>, is_file: bool) -> Self {
        let slow = if is_file { SLOW_DISK } else { SLOW_READER };
        Sink { object: object.into(), slow, ..self }
    }

    /// Like [`Sink::new`], for a file whose last line has no LF: one is written first.
    pub fn behind_torn_line(out: impl Write + Send + 'static) -> Self {
        Sink::with_rest(out, vec![b'\n'], None)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_rest(out: impl Write + Send + 'static, rest: Vec<u8>, path: Option<PathBuf>) -> Self {
        let open = Arc::new(Mutex::new(Open { out: Box::new(out), rest, path }));
        Sink { open, object: "a stream".to_owned(), slow: SLOW_READER }
    }
}

/// Opens a log for appending. Returns also what has to be written first: an LF, if its last line has none.
fn open_log(path: &Path) -> io::Result<(File, Vec<u8>)> {
    // Nobody may read from a FIFO: that must not keep the thread.
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    let mut options = OpenOptions::new();
    let mut file = options.append(true).create(true).mode(0o640).custom_flags(flags).open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        // Somebody reads. From now on a full pipe is waited for, as that of standard output is.
        file = options.custom_flags(libc::O_NOCTTY).open(path)?;
    }
    let found = file.metadata()?;
    for stream in [stdio::stdout(), stdio::stderr()] {
        // A stream that was redirected to this file with `>` would overwrite what is appended.
        if found.is_file() && stream.leads_to(&found) {
            stream.append()?;
        }
    }
    let torn = found.is_file() && ends_in_mid_line(path);
    Ok((file, if torn { vec![b'\n'] } else { Vec::new() }))
}

/// `false` if it cannot be read.
fn ends_in_mid_line(path: &Path) -> bool {
    let mut byte = [0];
    let last = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut byte)
    });
    last.is_ok() && byte != *b"\n"
}

impl Open {
    /// Opens the file again. What belongs to the one before is finished there, as far as that takes it. Returns the number
    /// of lines that are lost: one that stays torn.
    fn reopen(&mut self) -> io::Result<u64> {
        let Some(path) = &self.path else { return Ok(0) };
        let (file, rest) = open_log(path)?;
        let _ = self.write_lines(&[]);
        // The line end alone belongs to a line that was torn before this server.
        let lost = u64::from(self.rest.len() > 1);
        (self.out, self.rest) = (Box::new(file), rest);
        Ok(lost)
    }

    /// Writes the rest of a torn line, then `lines`. An error comes with the number of lines that are lost: those
    /// that were written do not count, nor does the one that was torn.
    fn write_lines(&mut self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        while !self.rest.is_empty() {
            let written = write_some(&mut self.out, &self.rest);
            let count = written.map_err(|error| (count_lines(lines), error))?;
            self.rest.drain(..count.min(self.rest.len()));
        }
        let mut left = lines;
        while !left.is_empty() {
            match write_some(&mut self.out, left) {
                Ok(count) => left = left.get(count..).unwrap_or_default(),
                Err(error) => {
                    let written = lines.len().saturating_sub(left.len());
                    let whole = lines.get(..written).is_none_or(|done| done.ends_with(b"\n"));
                    let torn = match left.iter().position(|byte| *byte == b'\n') {
                        Some(lf) if written > 0 && !whole => lf.saturating_add(1),
                        _ => 0,
                    };
                    let (rest, lost) = left.split_at_checked(torn).unwrap_or((left, &[]));
                    self.rest.extend_from_slice(rest);
                    return Err((count_lines(lost), error));
                }
            }
        }
        self.out.flush().map_err(|error| (0, error))
    }
}

/// Writes once, at least a byte.
fn write_some(out: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    match retry_interrupted(|| out.write(bytes))? {
        0 => Err(ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}

fn count_lines(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

thread_local! {
    /// Whether this thread is reporting what became of a stream.
    static REPORTING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Logs a report about a stream; it may use [`REPORT_BYTES`] of the queue.
fn report(what: std::fmt::Arguments<'_>) {
    REPORTING.set(true);
    log::warn!("{what}");
    REPORTING.set(false);
}

impl LogWriter {
    /// Starts the thread. `name` is the stream's name in reports.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(name: &'static str, sink: Sink) -> io::Result<Self> {
        let (state, changed) = (Mutex::new(State::default()), Condvar::new());
        let can_reopen = sink.lock().path.is_some();
        let writer =
            LogWriter { shared: Arc::new(Shared { name, sink, can_reopen, state, changed }) };
        let shared = Arc::clone(&writer.shared);
        thread::start(c"log", STACK_BYTES, move || shared.drain())?;
        Ok(writer)
    }

    /// Puts lines, each ended by LF, into the queue: as many as fit. Never blocks.
    pub fn try_write(&self, lines: &[u8]) {
        let shared = &*self.shared;
        let mut state = shared.lock();
        let limit = if REPORTING.get() { QUEUE_BYTES + REPORT_BYTES } else { QUEUE_BYTES };
        let room = limit.saturating_sub(state.queue.len());
        let (fitting, dropped) = whole_lines(lines, room);
        let begins = if dropped.is_empty() {
            None
        } else {
            // A stream that fails is not slow.
            let cause = state.losses.failing().unwrap_or(shared.sink.slow).to_owned();
            let begins = state.losses.add(count_lines(dropped), &cause, Instant::now());
            begins.then_some(cause)
        };
        if !fitting.is_empty() {
            state.queue.extend_from_slice(fitting);
            shared.changed.notify_all();
        }
        drop(state);
        // The thread may wait for the reader, so it is reported here. A report about the diagnostics would come from within
        // the logger, and not get through.
        if let Some(cause) = begins.filter(|_| shared.name != DIAGNOSTICS) {
            shared.report(News::Dropping(&cause));
        }
    }

    /// Whether it writes a file that can be opened again.
    pub fn can_reopen(&self) -> bool {
        self.shared.can_reopen
    }

    /// The file is opened again: it has been renamed, so that a new one begins. All lines so far go into the one before.
    pub fn reopen(&self) {
        self.shared.lock().reopen = true;
        self.shared.changed.notify_all();
    }

    /// Lines dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.shared.lock().losses.total()
    }

    /// Waits until all lines have been written, or until the deadline. Returns whether all were written.
    pub fn flush(&self, deadline: Instant) -> bool {
        let mut state = self.shared.lock();
        while state.writing || state.has_work(Instant::now()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// To be called at the end: reports the lines dropped since the last report, and a line that has stayed torn.
    pub fn report_losses(&self) {
        // A thread that is still writing has torn nothing yet.
        let torn = self.shared.sink.open.try_lock().is_ok_and(|open| !open.rest.is_empty());
        let mut state = self.shared.lock();
        if std::mem::take(&mut state.torn)
            && torn
            && let Some(cause) = state.losses.failing().map(str::to_owned)
        {
            state.losses.add(1, &cause, Instant::now());
        }
        let dropped = state.losses.take();
        drop(state);
        self.shared.report_dropped(&dropped);
    }
}

/// Each write is taken as whole lines, which is how `env_logger` writes to a pipe.
impl Write for LogWriter {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.try_write(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Splits where the last line ends that fits into `room` bytes.
fn whole_lines(lines: &[u8], room: usize) -> (&[u8], &[u8]) {
    let Some((head, _)) = lines.split_at_checked(room) else { return (lines, &[]) };
    let end = head.iter().rposition(|byte| *byte == b'\n').map_or(0, |lf| lf + 1);
    lines.split_at(end)
}

impl State {
    /// Whether there are lines to write, or dropped ones to report since the episode of their loss is over.
    fn has_work(&self, now: Instant) -> bool {
        !self.queue.is_empty() || self.reopen || self.losses.is_over(now)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, news: News<'_>) {
        let (name, object) = (self.name, &self.sink.object);
        match news {
            News::CannotWrite(cause) => {
                report(format_args!("the {name} cannot be written: {cause}: {object}"));
            }
            News::Dropping(cause) => {
                report(format_args!("lines of the {name} are being dropped: {cause}: {object}"));
            }
            News::Dropped(count, cause) => {
                report(format_args!("{count} lines of the {name} were dropped: {cause}: {object}"));
            }
            News::CannotReopen(error) => {
                report(format_args!("the {name} cannot be opened again: {error}: {object}"));
            }
        }
    }

    fn report_dropped(&self, dropped: &[(String, u64)]) {
        for (cause, count) in dropped {
            self.report(News::Dropped(*count, cause));
        }
    }

    /// Main loop of the writer thread; it ends with the process.
    fn drain(&self) {
        let mut lines = Vec::new();
        loop {
            let (dropped, reopen) = self.take(&mut lines);
            self.report_dropped(&dropped);
            let mut open = self.sink.lock();
            let written = open.write_lines(&lines);
            let reopened = if reopen { open.reopen() } else { Ok(0) };
            let torn = !open.rest.is_empty();
            drop(open);
            if let Err(error) = &reopened {
                self.report(News::CannotReopen(error));
            }
            let now = Instant::now();
            let mut state = self.lock();
            state.writing = false;
            state.torn = torn;
            let fault = match written {
                Ok(()) => {
                    state.losses.write_succeeded();
                    None
                }
                // The reader is gone or the disk is full: repeating would not help.
                Err((lost, error)) => {
                    let cause = cause_of(&error);
                    state.losses.write_failed(lost, cause.clone(), now).then_some(cause)
                }
            };
            if let (true, Ok(lost)) = (reopen, reopened) {
                if lost > 0 {
                    state.losses.add(lost, TORN, now);
                }
                state.losses.write_succeeded();
            }
            drop(state);
            // A stream that cannot be written to cannot carry its own report.
            if let Some(cause) = fault.filter(|_| self.name != DIAGNOSTICS) {
                self.report(News::CannotWrite(&cause));
            }
            self.changed.notify_all();
            lines.clear();
        }
    }

    /// Waits for work. Swaps the lines with the empty `lines`, and returns what is to be reported, and whether the file is
    /// to be opened again.
    fn take(&self, lines: &mut Vec<u8>) -> (Vec<(String, u64)>, bool) {
        let mut state = self.lock();
        let mut now = Instant::now();
        while !state.has_work(now) {
            state = match state.losses.over() {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(over) => {
                    let left = over.saturating_duration_since(now);
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            now = Instant::now();
        }
        std::mem::swap(&mut state.queue, lines);
        state.writing = true;
        let reopen = std::mem::take(&mut state.reopen);
        let is_over = state.losses.is_over(now);
        (if is_over { state.losses.take() } else { Vec::new() }, reopen)
    }
}

#[cfg(test)]
mod tests;
