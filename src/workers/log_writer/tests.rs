//! Lines, and what becomes of them.

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
        String::from_utf8(self.0.lock().expect("nobody panics with it").0.clone()).expect("text")
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
    writer.shared.lock().losses.by_cause().to_vec()
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
        // The count is due when nothing more has been lost for a while, or at the end.
        assert!(writer.shared.lock().losses.over().is_some(), "{room}");
        writer.report_losses();
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
    let cause = |error| cause_of(&io::Error::from_raw_os_error(error));
    assert_eq!(dropped(&writer), [(cause(libc::EPIPE), 3), (cause(libc::ENOSPC), 1)]);
}

/// What does not fit is lost to slowness: that of a reader, or of a disk. Where writing fails it is lost to that.
#[test]
fn what_does_not_fit_has_a_cause_of_its_own() {
    for (is_file, cause) in [(false, "its reader is slow"), (true, "its disk is slow")] {
        let (permits, written) = (mpsc::channel(), mpsc::channel());
        let sink = Sink::new(Gate { permits: permits.1, written: written.0 });
        let writer = LogWriter::start("test", sink.named("there", is_file)).expect("a thread");
        let line = [b"x".repeat(QUEUE_BYTES), b"\n".to_vec()].concat();
        writer.try_write(&line);
        assert_eq!(dropped(&writer), [(cause.to_owned(), 1)]);
        writer.try_write(b"lost\n");
        permits.0.send(Err(io::Error::from_raw_os_error(libc::ENOSPC))).expect("it lives");
        assert!(writer.flush(Instant::now() + LATE));
        writer.try_write(&line);
        let full = io::Error::from_raw_os_error(libc::ENOSPC).to_string();
        assert_eq!(dropped(&writer), [(cause.to_owned(), 1), (full, 2)]);
    }
}

/// What was written before a file is opened again is in the one that was there before, all else in the new one.
#[test]
fn a_file_that_is_renamed_goes_on_as_another() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    std::fs::write(&path, "torn").expect("written");
    let sink = Sink::file(path.clone()).expect("opened");
    let writer = LogWriter::start("test", sink).expect("a thread");
    assert!(writer.can_reopen());
    let mut lines = String::new();
    for number in 0..100 {
        writer.try_write(format!("before {number}\n").as_bytes());
        let renamed = directory.path().join(number.to_string());
        assert!(writer.flush(Instant::now() + LATE));
        std::fs::rename(&path, &renamed).expect("renamed");
        writer.try_write(format!("after {number}\n").as_bytes());
        writer.reopen();
        assert!(writer.flush(Instant::now() + LATE));
        lines.push_str(&std::fs::read_to_string(&renamed).expect("text"));
    }
    let expected: String =
        (0..100).map(|number| format!("before {number}\nafter {number}\n")).collect();
    assert_eq!(lines, format!("torn\n{expected}"));
    assert_eq!(
        (writer.dropped(), std::fs::read_to_string(&path).expect("text")),
        (0, String::new())
    );
}

/// Where there is no way to the new file, lines go on into the old one.
#[test]
fn a_file_that_cannot_be_opened_again_stays_open() {
    let directory = tempfile::tempdir().expect("a directory");
    let inner = directory.path().join("inner");
    std::fs::create_dir(&inner).expect("made");
    let writer =
        LogWriter::start("test", Sink::file(inner.join("log")).expect("opened")).expect("a thread");
    says(&writer, "one\n");
    let moved = directory.path().join("moved");
    std::fs::rename(&inner, &moved).expect("renamed");
    writer.reopen();
    says(&writer, "two\n");
    assert_eq!(std::fs::read_to_string(moved.join("log")).expect("text"), "one\ntwo\n");
    std::fs::create_dir(&inner).expect("made");
    writer.reopen();
    assert!(writer.flush(Instant::now() + LATE));
    says(&writer, "three\n");
    assert_eq!(std::fs::read_to_string(inner.join("log")).expect("text"), "three\n");
    assert_eq!(writer.dropped(), 0);
}
