//! Lines that a stream has lost, and when that is logged: once when an episode begins, and once, with the count, when it
//! is over. A disk that is full for a moment again and again must not fill the diagnostics.

use std::io;
use std::time::Instant;

use common::episode::QUIET;

/// The losses of a stream.
#[derive(Default)]
pub(super) struct Losses {
    /// By cause, since the episode began. There are no more causes than errors of write(2).
    by_cause: Vec<(String, u64)>,
    /// Since the start of the process.
    total: u64,
    /// Why the last write has failed, if it has.
    failing: Option<String>,
    /// When lines were last lost, or a write has last failed.
    last: Option<Instant>,
}

/// The cause that the log names for an error of write(2).
pub(super) fn cause_of(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::BrokenPipe => format!("its reader is gone: {error}"),
        _ => error.to_string(),
    }
}

impl Losses {
    /// So many lines are lost at `now`, for this cause. Returns whether it is a new one in the episode.
    pub(super) fn add(&mut self, count: u64, cause: &str, now: Instant) -> bool {
        self.total = self.total.saturating_add(count);
        self.last = Some(now);
        match self.by_cause.iter_mut().find(|(known, _)| known == cause) {
            Some((_, lost)) => {
                *lost = lost.saturating_add(count);
                false
            }
            None => {
                self.by_cause.push((cause.to_owned(), count));
                true
            }
        }
    }

    /// A write has failed, with which so many lines are lost. Returns whether this cause is a new one in the episode.
    pub(super) fn write_failed(&mut self, count: u64, cause: String, now: Instant) -> bool {
        let begins = self.add(count, &cause, now);
        self.failing = Some(cause);
        begins
    }

    /// A write has succeeded, or another file is to be written: whether it takes lines will be seen.
    pub(super) fn write_succeeded(&mut self) {
        self.failing = None;
    }

    /// Why the last write has failed, if it has.
    pub(super) fn failing(&self) -> Option<&str> {
        self.failing.as_deref()
    }

    /// Lines lost since the start.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// When the episode is over, unless more is lost. `None`: there is none, or writing fails.
    pub(super) fn over(&self) -> Option<Instant> {
        let last = self.last.filter(|_| self.failing.is_none())?;
        last.checked_add(QUIET)
    }

    /// Whether the episode is over at `now`: what it has cost is to be logged.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.over().is_some_and(|over| over <= now)
    }

    /// Takes the counts of the episode, by cause. What is lost later is another one.
    pub(super) fn take(&mut self) -> Vec<(String, u64)> {
        self.last = None;
        std::mem::take(&mut self.by_cause)
    }

    #[cfg(test)]
    pub(super) fn by_cause(&self) -> &[(String, u64)] {
        &self.by_cause
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const FULL: &str = "No space left on device (os error 28)";

    /// A disk on which others make room now and then.
    #[test]
    fn a_disk_that_is_full_again_and_again_is_one_episode() {
        let (mut losses, mut now) = (Losses::default(), Instant::now());
        assert!(losses.over().is_none() && !losses.is_over(now));
        for round in 0..1000 {
            assert_eq!(losses.write_failed(2, FULL.to_owned(), now), round == 0);
            assert!(losses.over().is_none() && !losses.is_over(now + QUIET * 2), "it fails");
            losses.write_succeeded();
            assert_eq!(losses.over(), Some(now + QUIET));
            now += QUIET - MS;
            assert!(!losses.is_over(now));
        }
        now += MS;
        assert!(losses.is_over(now));
        assert_eq!((losses.take(), losses.total()), (vec![(FULL.to_owned(), 2000)], 2000));
        assert!(!losses.is_over(now + QUIET) && losses.over().is_none(), "it is logged once");
        assert!(losses.write_failed(1, FULL.to_owned(), now), "another episode");
        assert_eq!((losses.take(), losses.total()), (vec![(FULL.to_owned(), 1)], 2001));
    }

    /// A reader that is slow all the time.
    #[test]
    fn a_slow_reader_is_one_episode() {
        let (mut losses, start) = (Losses::default(), Instant::now());
        let lines = (0..600).filter(|second| losses.add(1, "slow", start + MS * 1000 * *second));
        assert_eq!(lines.count(), 1);
        let last = start + MS * 1000 * 599;
        assert_eq!(losses.over(), Some(last + QUIET));
    }

    /// A write that fails without the loss of a whole line begins an episode, too.
    #[test]
    fn causes_are_counted_apart() {
        let (mut losses, now) = (Losses::default(), Instant::now());
        assert!(losses.write_failed(0, FULL.to_owned(), now));
        assert!(losses.add(3, "slow", now));
        assert!(!losses.write_failed(5, FULL.to_owned(), now));
        assert_eq!(losses.failing(), Some(FULL));
        assert_eq!(losses.take(), [(FULL.to_owned(), 5), ("slow".to_owned(), 3)]);
    }

    #[test]
    fn a_reader_that_is_gone_is_called_so() {
        let cause = |code| cause_of(&io::Error::from_raw_os_error(code));
        assert_eq!(cause(libc::EPIPE), "its reader is gone: Broken pipe (os error 32)");
        assert_eq!(cause(libc::ENOSPC), FULL);
        assert_eq!(cause(libc::EDQUOT), "Disk quota exceeded (os error 122)");
        assert_eq!(cause(libc::EIO), "Input/output error (os error 5)");
    }
}
