//! Log writers: lines go through a bounded queue to a thread that writes them, since write(2) may block.
//!
//! Lines that do not fit into the queue are dropped and counted; when the reader is back, the count is logged with
//! its cause. Each stream has its own thread: a stuck reader of the access log must not silence the diagnostics.
//!
//! write(2) may write a part and then fail, as on a disk that fills up. The rest of the torn line is kept and
//! written first, so a record is never appended to a part of another one.
//!
//! Locks: `State` (queue and counters) is held by the loop for one copy, never across a write; `Open` (the sink) is
//! held by a writer thread for one batch.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::stdio::retry_interrupted;
use common::thread;

/// Stack of a writer thread: the queue is on the heap, formatting a report takes a few KiB.
const STACK_BYTES: usize = 256 * 1024;
/// The capacity of the queue in bytes, besides the batch that is being written.
pub const QUEUE_BYTES: usize = 1 << 20;

/// Bytes of the queue beyond that for the reports of the writer threads: the count of dropped lines must not be
/// dropped itself.
const REPORT_BYTES: usize = 4096;

/// The name of the stream that gets the reports of all streams.
pub const DIAGNOSTICS: &str = "diagnostics";

/// The cause that is reported for lines that did not fit into the queue.
const SLOW_READER: &str = "its reader is slow";

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
}

struct Open {
    out: Box<dyn Write + Send>,
    /// The rest of a line of which the beginning has been written.
    rest: Vec<u8>,
}

struct Shared {
    name: &'static str,
    sink: Sink,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: Vec<u8>,
    /// The thread is writing what it took from the queue.
    writing: bool,
    /// Lines that were dropped and have not been reported yet, by cause.
    dropped: Vec<(String, u64)>,
    /// Lines that were dropped since the start.
    dropped_total: u64,
    /// Why the last write has failed, if it has.
    failing: Option<String>,
    /// A line has been written in part, and the rest could not be.
    torn: bool,
}

impl Sink {
    /// A sink for one stream.
    pub fn new(out: impl Write + Send + 'static) -> Self {
        Sink::with_rest(out, Vec::new())
    }

    /// Like [`Sink::new`], for a file whose last line has no LF: one is written first.
    pub fn behind_torn_line(out: impl Write + Send + 'static) -> Self {
        Sink::with_rest(out, vec![b'\n'])
    }

    fn with_rest(out: impl Write + Send + 'static, rest: Vec<u8>) -> Self {
        Sink { open: Arc::new(Mutex::new(Open { out: Box::new(out), rest })) }
    }
}

impl Open {
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
        let writer = LogWriter { shared: Arc::new(Shared { name, sink, state, changed }) };
        let shared = Arc::clone(&writer.shared);
        thread::start(c"log", STACK_BYTES, move || shared.drain())?;
        Ok(writer)
    }

    /// Puts lines, each ended by LF, into the queue: as many as fit. Never blocks.
    pub fn try_write(&self, lines: &[u8]) {
        let mut state = self.shared.lock();
        let limit = if REPORTING.get() { QUEUE_BYTES + REPORT_BYTES } else { QUEUE_BYTES };
        let room = limit.saturating_sub(state.queue.len());
        let (fitting, dropped) = whole_lines(lines, room);
        state.drop_lines(count_lines(dropped), SLOW_READER);
        if !fitting.is_empty() {
            state.queue.extend_from_slice(fitting);
            self.shared.changed.notify_all();
        }
    }

    /// Lines dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.shared.lock().dropped_total
    }

    /// Waits until all lines have been written, or until the deadline. Returns whether all were written.
    pub fn flush(&self, deadline: Instant) -> bool {
        let mut state = self.shared.lock();
        while state.writing || state.has_work() {
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
            && let Some(cause) = state.failing.clone()
        {
            state.drop_lines(1, &cause);
        }
        let dropped = std::mem::take(&mut state.dropped);
        drop(state);
        self.shared.report(dropped);
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
    /// Whether there are lines to write, or dropped ones to report to a reader that reads again.
    fn has_work(&self) -> bool {
        !self.queue.is_empty() || (!self.dropped.is_empty() && self.failing.is_none())
    }

    /// Counts lines that were dropped. There are no more causes than errors of write(2).
    fn drop_lines(&mut self, count: u64, cause: &str) {
        if count == 0 {
            return;
        }
        self.dropped_total += count;
        match self.dropped.iter_mut().find(|(known, _)| known == cause) {
            Some((_, dropped)) => *dropped += count,
            None => self.dropped.push((cause.to_owned(), count)),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, dropped: Vec<(String, u64)>) {
        for (cause, count) in dropped {
            report(format_args!("{count} lines of the {} were dropped: {cause}", self.name));
        }
    }

    /// Main loop of the writer thread; it ends with the process.
    fn drain(&self) {
        let mut lines = Vec::new();
        loop {
            self.report(self.take(&mut lines));
            let mut open = self.sink.open.lock().unwrap_or_else(PoisonError::into_inner);
            let written = open.write_lines(&lines);
            let torn = !open.rest.is_empty();
            drop(open);
            let mut state = self.lock();
            state.writing = false;
            state.torn = torn;
            let news = match written {
                Ok(()) => {
                    state.failing = None;
                    None
                }
                // The reader is gone or the disk is full: repeating would not help.
                Err((lost, error)) => {
                    let cause = error.to_string();
                    state.drop_lines(lost, &cause);
                    let before = state.failing.replace(cause);
                    before.is_none().then_some(error)
                }
            };
            drop(state);
            // A stream that cannot be written to cannot carry its own report.
            if let Some(error) = news.filter(|_| self.name != DIAGNOSTICS) {
                report(format_args!("the {} cannot be written: {error}", self.name));
            }
            self.changed.notify_all();
            lines.clear();
        }
    }

    /// Waits for work. Swaps the lines with the empty `lines`, and returns what is to be reported.
    fn take(&self, lines: &mut Vec<u8>) -> Vec<(String, u64)> {
        let mut state = self.lock();
        while !state.has_work() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut state.queue, lines);
        state.writing = true;
        if state.failing.is_some() { Vec::new() } else { std::mem::take(&mut state.dropped) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    /// A sink that waits for a permit before each write, and passes on what is written.
    struct Gate {
        permits: Receiver<io::Result<()>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.permits.recv().map_err(io::Error::other)??;
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gate() -> (LogWriter, Sender<io::Result<()>>, Receiver<Vec<u8>>) {
        let ((permit, permits), (written, output)) = (mpsc::channel(), mpsc::channel());
        let sink = Sink::new(Gate { permits, written });
        (LogWriter::start("test", sink).expect("a thread"), permit, output)
    }

    /// A disk: it takes as many bytes as there is room for, then returns ENOSPC.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Disk {
        /// There is room for `bytes` more.
        fn frees(&self, bytes: usize) {
            self.0.lock().expect("nobody panics with it").1 = bytes;
        }

        fn holds(&self) -> String {
            String::from_utf8(self.0.lock().expect("nobody panics with it").0.clone())
                .expect("text")
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (held, room) = &mut *self.0.lock().map_err(|_| ErrorKind::Other)?;
            let fits = bytes.len().min(*room);
            if fits == 0 {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            *room -= fits;
            held.extend_from_slice(&bytes[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn says(writer: &LogWriter, lines: &str) {
        writer.try_write(lines.as_bytes());
        assert!(writer.flush(Instant::now() + LATE));
    }

    fn dropped(writer: &LogWriter) -> Vec<(String, u64)> {
        writer.shared.lock().dropped.clone()
    }

    const SOON: Duration = Duration::from_millis(50);
    const LATE: Duration = Duration::from_secs(10);

    #[test]
    fn lines_arrive_in_order() {
        let (writer, permit, output) = gate();
        writer.try_write(b"one\n");
        permit.send(Ok(())).expect("the thread lives");
        assert_eq!(output.recv_timeout(LATE).expect("written"), b"one\n");
        assert!(writer.flush(Instant::now() + LATE));
        writer.try_write(b"two\nthree\n");
        permit.send(Ok(())).expect("the thread lives");
        assert_eq!(output.recv_timeout(LATE).expect("written"), b"two\nthree\n");
        assert_eq!(writer.dropped(), 0);
    }

    #[test]
    fn a_stuck_reader_blocks_nobody_and_costs_whole_lines() {
        let (writer, permit, output) = gate();
        writer.try_write(b"stuck\n");
        assert!(!writer.flush(Instant::now() + SOON));
        while !writer.shared.lock().queue.is_empty() {
            std::thread::yield_now();
        }
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        let lines = line.repeat(QUEUE_BYTES / 100 + 7);
        writer.try_write(&lines);
        writer.try_write(&line);
        assert_eq!(writer.dropped(), 8);
        permit.send(Ok(())).expect("the thread lives");
        permit.send(Ok(())).expect("the thread lives");
        assert_eq!(output.recv_timeout(LATE).expect("written"), b"stuck\n");
        assert_eq!(output.recv_timeout(LATE).expect("written"), line.repeat(QUEUE_BYTES / 100));
        assert!(writer.flush(Instant::now() + LATE));
    }

    #[test]
    fn a_reader_who_is_gone_costs_lines_and_nothing_else() {
        let (writer, permit, output) = gate();
        writer.try_write(b"lost\n");
        permit.send(Err(io::ErrorKind::BrokenPipe.into())).expect("the thread lives");
        assert!(writer.flush(Instant::now() + LATE));
        assert_eq!(writer.dropped(), 1);
        writer.try_write(b"again\n");
        permit.send(Ok(())).expect("the thread lives");
        assert_eq!(output.recv_timeout(LATE).expect("written"), b"again\n");
    }

    /// Wherever in three lines the disk is full: it has whole lines in the end, and the count is that of the missing
    /// ones.
    #[test]
    fn a_torn_line_is_finished_before_the_next_one() {
        let lines = "one\ntwo and more\nthree\n";
        for room in 0..=lines.len() {
            let disk = Disk::default();
            let writer = LogWriter::start("test", Sink::new(disk.clone())).expect("a thread");
            disk.frees(room);
            says(&writer, lines);
            says(&writer, "lost\n");
            let begun = lines[..room].lines().count() as u64;
            let lost = 4 - begun;
            assert_eq!(writer.dropped(), lost, "{room}");
            let cause = io::Error::from_raw_os_error(libc::ENOSPC).to_string();
            assert_eq!(dropped(&writer), [(cause, lost)], "{room}");
            disk.frees(1000);
            says(&writer, "again\n");
            let kept = usize::try_from(begun).expect("few");
            let whole: String = lines.split_inclusive('\n').take(kept).collect();
            assert_eq!(disk.holds(), whole + "again\n", "{room}");
            assert_eq!((writer.dropped(), dropped(&writer)), (lost, vec![]), "{room}");
        }
    }

    /// Two streams into one file: each finishes what the other has begun.
    #[test]
    fn streams_into_the_same_file_do_not_tear_each_others_lines() {
        let disk = Disk::default();
        let sink = Sink::new(disk.clone());
        let start = |name| LogWriter::start(name, sink.clone()).expect("a thread");
        let (one, other) = (start("one"), start("other"));
        disk.frees(5);
        says(&one, "a record\nlost\n");
        disk.frees(1000);
        says(&other, "another\n");
        assert_eq!(disk.holds(), "a record\nanother\n");
        one.report_losses();
        assert_eq!((one.dropped(), other.dropped()), (1, 0));
    }

    /// A line that was torn at the end is no line.
    #[test]
    fn what_stays_torn_at_the_end_is_lost() {
        let disk = Disk::default();
        let writer = LogWriter::start("test", Sink::new(disk.clone())).expect("a thread");
        disk.frees(6);
        says(&writer, "one\ntwo\nthree\n");
        assert_eq!(writer.dropped(), 1);
        writer.report_losses();
        writer.report_losses();
        assert_eq!((writer.dropped(), disk.holds().as_str()), (2, "one\ntw"));
    }

    /// Each cause has its count.
    #[test]
    fn lines_are_counted_by_the_cause_of_their_loss() {
        let (writer, permit, _output) = gate();
        for error in [libc::EPIPE, libc::ENOSPC, libc::EPIPE] {
            writer.try_write(b"lost\n");
            permit.send(Err(io::Error::from_raw_os_error(error))).expect("the thread lives");
            assert!(writer.flush(Instant::now() + LATE));
        }
        writer.try_write(&b"x".repeat(QUEUE_BYTES));
        writer.try_write(&[b"x".repeat(QUEUE_BYTES), b"\n".to_vec()].concat());
        let cause = |error| io::Error::from_raw_os_error(error).to_string();
        assert_eq!(
            dropped(&writer),
            [(cause(libc::EPIPE), 2), (cause(libc::ENOSPC), 1), (SLOW_READER.to_owned(), 1)]
        );
    }
}
