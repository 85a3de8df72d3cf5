//! What has happened: figures of each second of the last ten minutes and of each minute of the last day, for the page of
//! `--http`. A page that is opened now shows what was before.
//!
//! Nothing wakes the loop for it. When the loop turns in a later second than before, the second in which it went to sleep
//! gets what was counted since, and the seconds that it has slept get nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Seconds that are kept.
pub const SECONDS: usize = 600;
/// Minutes that are kept.
pub const MINUTES: usize = 1440;

const SECOND: Duration = Duration::from_secs(1);
const SECONDS_IN_A_MINUTE: u64 = 60;
/// A sleep that is longer than all that is kept counts as one of this length.
const LONGEST_SLEEP: u64 = (MINUTES as u64 + 1) * SECONDS_IN_A_MINUTE;

/// The names of the figures, in the order of [`Figures`].
pub const COLUMNS: [&str; 9] = [
    "up",
    "down",
    "connections",
    "accepted",
    "logins_ok",
    "logins_failed",
    "dns_queries",
    "dns_failures",
    "loop_lag_us",
];
/// Figures that say what is now, not what was counted: of a minute the highest is kept.
const IS_LEVEL: [bool; COLUMNS.len()] =
    [false, false, true, false, false, false, false, false, true];
const CONNECTIONS: usize = 2;
const LAG: usize = 8;

/// The figures of a second or a minute: what was counted in it, the connections open at its end (of a minute: at most), and
/// the longest turn of the loop in microseconds.
pub type Figures = [u64; COLUMNS.len()];

/// The rings. They take 147 KB.
#[derive(Debug)]
pub struct History {
    seconds: Ring,
    minutes: Ring,
    /// What was counted from the start to the last whole second.
    counted: Figures,
    /// The minute that runs.
    minute: Figures,
    /// The longest turn of the loop since the last whole second.
    longest_turn: Duration,
    /// The end of the second that runs. `None`: nothing has been counted yet.
    next: Option<Instant>,
}

/// The newest figures, oldest first.
#[derive(Debug)]
pub struct Ring {
    rows: VecDeque<Figures>,
    length: usize,
    /// Rows since the start.
    count: u64,
}

impl Default for History {
    fn default() -> Self {
        History {
            seconds: Ring::new(SECONDS),
            minutes: Ring::new(MINUTES),
            counted: Figures::default(),
            minute: Figures::default(),
            longest_turn: Duration::ZERO,
            next: None,
        }
    }
}

impl History {
    /// A turn of the loop has taken this long.
    pub fn turn_took(&mut self, took: Duration) {
        self.longest_turn = self.longest_turn.max(took);
    }

    /// Whether a second is over.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// Ends all seconds that are over. `totals`: the counters since the start, and the connections that are open now; its
    /// last figure is not looked at.
    pub fn advance(&mut self, now: Instant, totals: &Figures) {
        let Some(next) = self.next else {
            (self.counted, self.next) = (*totals, now.checked_add(SECOND));
            return;
        };
        if now < next {
            return;
        }
        let mut figures = Figures::default();
        let before = self.counted.iter().zip(IS_LEVEL);
        for ((figure, total), (before, is_level)) in figures.iter_mut().zip(totals).zip(before) {
            *figure = if is_level { *total } else { total.saturating_sub(*before) };
        }
        let lag = self.longest_turn.as_micros();
        if let Some(figure) = figures.get_mut(LAG) {
            *figure = u64::try_from(lag).unwrap_or(u64::MAX);
        }
        (self.counted, self.longest_turn) = (*totals, Duration::ZERO);
        self.end_second(figures);
        let slept = now.saturating_duration_since(next).as_secs();
        self.sleep(slept, totals.get(CONNECTIONS).copied().unwrap_or_default());
        self.next =
            next.checked_add(Duration::from_secs(slept)).and_then(|at| at.checked_add(SECOND));
    }

    /// Seconds in which nothing has happened.
    fn sleep(&mut self, seconds: u64, connections: u64) {
        let mut nothing = Figures::default();
        if let Some(figure) = nothing.get_mut(CONNECTIONS) {
            *figure = connections;
        }
        // Whole minutes, so that those that follow begin where they would have begun.
        let minutes = seconds.saturating_sub(LONGEST_SLEEP) / SECONDS_IN_A_MINUTE;
        self.minutes.count = self.minutes.count.saturating_add(minutes);
        let skipped = minutes.saturating_mul(SECONDS_IN_A_MINUTE);
        self.seconds.count = self.seconds.count.saturating_add(skipped);
        for _ in skipped..seconds {
            self.end_second(nothing);
        }
    }

    fn end_second(&mut self, figures: Figures) {
        self.seconds.push(figures);
        for ((figure, of_second), is_level) in self.minute.iter_mut().zip(figures).zip(IS_LEVEL) {
            let sum = figure.saturating_add(of_second);
            *figure = if is_level { of_second.max(*figure) } else { sum };
        }
        if self.seconds.count.is_multiple_of(SECONDS_IN_A_MINUTE) {
            self.minutes.push(std::mem::take(&mut self.minute));
        }
    }

    /// The seconds.
    pub fn seconds(&self) -> &Ring {
        &self.seconds
    }

    /// The minutes.
    pub fn minutes(&self) -> &Ring {
        &self.minutes
    }
}

impl Ring {
    fn new(length: usize) -> Self {
        Ring { rows: VecDeque::new(), length, count: 0 }
    }

    fn push(&mut self, figures: Figures) {
        if self.rows.len() >= self.length {
            self.rows.pop_front();
        }
        self.rows.push_back(figures);
        self.count = self.count.saturating_add(1);
    }

    /// Rows since the start, among them those that are not kept: the number of the newest one, from 1 on.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The newest rows, at most `most`, oldest first.
    pub fn newest(&self, most: usize) -> impl Iterator<Item = &Figures> {
        self.rows.iter().skip(self.rows.len().saturating_sub(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Totals of which all but the connections grow alike.
    fn totals(counted: u64, connections: u64) -> Figures {
        let mut totals = [counted; COLUMNS.len()];
        totals[CONNECTIONS] = connections;
        totals
    }

    fn row(counted: u64, connections: u64, lag: u64) -> Figures {
        let mut row = totals(counted, connections);
        row[LAG] = lag;
        row
    }

    fn all(ring: &Ring) -> Vec<Figures> {
        ring.newest(usize::MAX).copied().collect()
    }

    #[test]
    fn a_second_has_what_was_counted_in_it() {
        let (mut history, start) = (History::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!(history.is_due(start));
        history.advance(start, &totals(100, 7));
        assert!(!history.is_due(at(999)) && history.is_due(at(1000)));
        history.turn_took(Duration::from_micros(30));
        history.turn_took(Duration::from_micros(20));
        history.advance(at(999), &totals(103, 8));
        assert!(all(history.seconds()).is_empty());
        history.advance(at(1200), &totals(105, 9));
        history.advance(at(2000), &totals(105, 2));
        assert_eq!(all(history.seconds()), [row(5, 9, 30), row(0, 2, 0)]);
        assert_eq!((history.seconds().count(), history.minutes().count()), (2, 0));
    }

    /// The second in which the loop went to sleep has all; the others have the connections that stayed open.
    #[test]
    fn a_loop_that_sleeps_counts_nothing() {
        let (mut history, start) = (History::default(), Instant::now());
        history.advance(start, &totals(0, 1));
        history.turn_took(Duration::from_micros(5));
        history.advance(start + Duration::from_millis(4300), &totals(9, 3));
        assert_eq!(
            all(history.seconds()),
            [row(9, 3, 5), row(0, 3, 0), row(0, 3, 0), row(0, 3, 0)]
        );
        assert!(!history.is_due(start + Duration::from_millis(4999)));
        assert!(history.is_due(start + Duration::from_millis(5000)));
    }

    #[test]
    fn a_minute_adds_up_its_seconds_and_keeps_the_highest_level() {
        let (mut history, start) = (History::default(), Instant::now());
        history.advance(start, &totals(0, 0));
        for second in 1..=SECONDS as u64 + 30 {
            history.turn_took(Duration::from_micros(second));
            history.advance(start + Duration::from_secs(second), &totals(second * 2, second % 50));
        }
        let minutes = all(history.minutes());
        assert_eq!(minutes.len(), 10);
        assert_eq!(minutes[0], row(120, 49, 60));
        assert_eq!(minutes[9], row(120, 49, 600));
        assert_eq!(all(history.seconds()).len(), SECONDS);
        assert_eq!(history.seconds().count(), SECONDS as u64 + 30);
        let newest: Vec<u64> = history.seconds().newest(2).map(|row| row[LAG]).collect();
        assert_eq!(newest, [629, 630]);
    }

    /// However long the loop has slept, that takes no time, and seconds and minutes keep their numbers.
    #[test]
    fn a_sleep_of_years_is_one_of_a_day() {
        let (mut history, start) = (History::default(), Instant::now());
        history.advance(start, &totals(0, 0));
        let years = 3 * 365 * 86_400 + 30;
        history.advance(start + Duration::from_secs(years), &totals(4, 1));
        assert_eq!(history.seconds().count(), years);
        assert_eq!(history.minutes().count(), years / 60);
        assert_eq!(all(history.minutes()).len(), MINUTES);
        assert_eq!(all(history.seconds()), [row(0, 1, 0); SECONDS]);
    }

    #[test]
    fn the_rings_take_at_most_200_kilobytes() {
        const { assert!((SECONDS + MINUTES) * size_of::<Figures>() <= 200_000) };
    }
}
