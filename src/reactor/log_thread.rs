//! Lines on their way to a reader who may be slow, stuck or gone.
//!
//! Writing to a full pipe blocks, so nobody writes but a thread of the outlet's own; the others put whole
//! lines into a bounded queue. What does not fit is dropped and counted, and the count is reported when
//! the reader is back. Each stream has its own thread: a reader who is stuck on the access log must not
//! silence the diagnostics.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::pthread;

/// What the thread writes lies on the heap; formatting a report takes a few KiB.
const STACK_BYTES: usize = 256 * 1024;
/// Bytes that may wait for the reader, besides as many that are being written.
pub const QUEUE_BYTES: usize = 1 << 20;

/// Where lines are put. Clones lead to the same reader.
#[derive(Clone)]
pub struct Outlet {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: Vec<u8>,
    /// The thread is writing what it took from the queue.
    writing: bool,
    /// Lines that did not fit and have not been reported yet.
    dropped: u64,
    lost: u64,
    /// The last write has failed.
    failing: bool,
}

impl Outlet {
    /// Starts the thread. `name` is what reports call the stream.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(name: &'static str, sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (state, changed) = (Mutex::new(State::default()), Condvar::new());
        let outlet = Outlet { shared: Arc::new(Shared { name, state, changed }) };
        let shared = Arc::clone(&outlet.shared);
        pthread::start(c"log", STACK_BYTES, move || shared.drain(sink))?;
        Ok(outlet)
    }

    /// Puts lines, each ended by LF, into the queue: as many as fit. Never blocks.
    pub fn offer(&self, lines: &[u8]) {
        let mut state = self.shared.lock();
        let room = QUEUE_BYTES.saturating_sub(state.queue.len());
        let (fitting, dropped) = whole_lines(lines, room);
        state.drop_lines(dropped);
        if !fitting.is_empty() {
            state.queue.extend_from_slice(fitting);
            self.shared.changed.notify_all();
        }
    }

    /// Lines dropped since the start.
    pub fn lost(&self) -> u64 {
        self.shared.lock().lost
    }

    /// Waits until all lines have been written, or until the deadline. Says which.
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
}

/// Each write is taken as whole lines, which is how `env_logger` writes to a pipe.
impl Write for Outlet {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.offer(lines);
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
    /// There are lines to write, or lost ones to report to a reader who is there.
    fn has_work(&self) -> bool {
        !self.queue.is_empty() || (self.dropped > 0 && !self.failing)
    }

    fn drop_lines(&mut self, lines: &[u8]) {
        let count = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.dropped += count;
        self.lost += count;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's life: it ends with the process.
    fn drain(&self, mut sink: impl Write) {
        let mut lines = Vec::new();
        loop {
            let dropped = self.take(&mut lines);
            if dropped > 0 {
                // The queue has just been emptied, so that there is room even if this goes into it.
                log::warn!("{dropped} lines of the {} were dropped: its reader is slow", self.name);
            }
            let written = sink.write_all(&lines).and_then(|()| sink.flush());
            let mut state = self.lock();
            state.writing = false;
            let failing = std::mem::replace(&mut state.failing, written.is_err());
            if state.failing {
                // The reader is gone or the disk is full: nothing that waiting could mend.
                state.drop_lines(&lines);
            }
            drop(state);
            if let Err(error) = written
                && !failing
            {
                log::warn!("the {} cannot be written: {error}", self.name);
            }
            self.changed.notify_all();
            lines.clear();
        }
    }

    /// Waits for work. Swaps the lines with the empty `lines`, and returns how many are to be reported.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        let mut state = self.lock();
        while !state.has_work() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut state.queue, lines);
        state.writing = true;
        if state.failing { 0 } else { std::mem::take(&mut state.dropped) }
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

    fn gate() -> (Outlet, Sender<io::Result<()>>, Receiver<Vec<u8>>) {
        let ((permit, permits), (written, output)) = (mpsc::channel(), mpsc::channel());
        let outlet = Outlet::start("test", Gate { permits, written }).expect("a thread");
        (outlet, permit, output)
    }

    const SOON: Duration = Duration::from_millis(50);
    const LATE: Duration = Duration::from_secs(10);

    #[test]
    fn lines_arrive_in_order() {
        let (outlet, permit, output) = gate();
        outlet.offer(b"one\n");
        permit.send(Ok(())).expect("the thread lives");
        assert_eq!(output.recv_timeout(LATE).expect("written"), b"one\n");
        assert!(outlet.flush(Instant::now() + LATE));
        outlet.offer(b"two\nthree\n");
        permit.send(Ok(())).expect("the thread lives");
        assert_eq!(output.recv_timeout(LATE).expect("written"), b"two\nthree\n");
        assert_eq!(outlet.lost(), 0);
    }

    #[test]
    fn a_stuck_reader_blocks_nobody_and_costs_whole_lines() {
        let (outlet, permit, output) = gate();
        outlet.offer(b"stuck\n");
        assert!(!outlet.flush(Instant::now() + SOON));
        while !outlet.shared.lock().queue.is_empty() {
            std::thread::yield_now();
        }
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        let lines = line.repeat(QUEUE_BYTES / 100 + 7);
        outlet.offer(&lines);
        outlet.offer(&line);
        assert_eq!(outlet.lost(), 8);
        permit.send(Ok(())).expect("the thread lives");
        permit.send(Ok(())).expect("the thread lives");
        assert_eq!(output.recv_timeout(LATE).expect("written"), b"stuck\n");
        assert_eq!(output.recv_timeout(LATE).expect("written"), line.repeat(QUEUE_BYTES / 100));
        assert!(outlet.flush(Instant::now() + LATE));
    }

    #[test]
    fn a_reader_who_is_gone_costs_lines_and_nothing_else() {
        let (outlet, permit, output) = gate();
        outlet.offer(b"lost\n");
        permit.send(Err(io::ErrorKind::BrokenPipe.into())).expect("the thread lives");
        assert!(outlet.flush(Instant::now() + LATE));
        assert_eq!(outlet.lost(), 1);
        outlet.offer(b"again\n");
        permit.send(Ok(())).expect("the thread lives");
        assert_eq!(output.recv_timeout(LATE).expect("written"), b"again\n");
    }
}
