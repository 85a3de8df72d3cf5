//! When to ask whether the peers of a tunnel still answer, and when they count as gone.
//!
//! Keepalive does not probe while bytes are under way, and the kernel repeats those for a quarter of an hour. Its
//! own user timeout (TCP_USER_TIMEOUT) is no help for tunnels: it also ends the connection of a peer that is
//! there and does not read. So a tunnel asks now and then, as long as bytes move or are not acknowledged.

use std::time::Duration;

use crate::reactor::tcp_state::Acknowledgement;

/// Times are whole seconds from the beginning of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallCheck {
    /// When to ask next.
    next: u32,
    /// When a peer was first found not to answer.
    since: u32,
}

const NEVER: u32 = u32::MAX;

impl StallCheck {
    /// Asks for the first time after `interval`.
    pub fn new() -> Self {
        StallCheck { next: NEVER, since: NEVER }
    }

    /// A byte has moved at `now`: asks after `interval` at the latest.
    pub fn moved(&mut self, now: Duration, interval: Option<Duration>) {
        if self.next == NEVER
            && let Some(interval) = interval
        {
            self.next = seconds(now.saturating_add(interval));
        }
    }

    /// When to ask next, if anything has moved since it was last asked.
    pub fn due(&self) -> Option<Duration> {
        (self.next != NEVER).then(|| Duration::from_secs(self.next.into()))
    }

    /// What was found at `now`. Returns whether the peer counts as gone: it has acknowledged nothing for
    /// `limit` although something was sent to it.
    pub fn found(&mut self, now: Duration, found: Acknowledgement, limit: Duration) -> bool {
        let (pending, silent) = match found {
            Acknowledgement::Complete => (false, None),
            Acknowledgement::Pending => (true, None),
            Acknowledgement::Unanswered(silent) => (true, Some(silent)),
        };
        let interval = if silent.is_some() { limit / 4 } else { limit };
        self.next = if pending { seconds(now.saturating_add(interval)) } else { NEVER };
        let Some(silent) = silent else {
            self.since = NEVER;
            return false;
        };
        if self.since == NEVER {
            self.since = seconds(now);
        }
        let stalled = now.saturating_sub(Duration::from_secs(self.since.into()));
        stalled >= limit && silent >= limit
    }
}

/// Rounded up, so that nothing is early.
fn seconds(time: Duration) -> u32 {
    let whole = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    u32::try_from(whole).unwrap_or(NEVER - 1).min(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Acknowledgement::{Complete, Pending, Unanswered};

    const MINUTE: Duration = Duration::from_secs(60);
    const LIMIT: Duration = Duration::from_secs(120);

    #[test]
    fn a_tunnel_in_which_nothing_moves_is_asked_about_once() {
        let mut check = StallCheck::new();
        assert_eq!(check.due(), None);
        check.moved(Duration::from_millis(1500), Some(MINUTE));
        assert_eq!(check.due(), Some(Duration::from_secs(62)), "rounded up");
        check.moved(MINUTE, Some(MINUTE));
        assert_eq!(check.due(), Some(Duration::from_secs(62)), "bytes do not put it off");
        assert!(!check.found(MINUTE, Complete, LIMIT));
        assert_eq!(check.due(), None);
        check.moved(LIMIT, Some(MINUTE));
        assert_eq!(check.due(), Some(LIMIT + MINUTE));
        let mut off = StallCheck::new();
        off.moved(MINUTE, None);
        assert_eq!(off.due(), None);
    }

    #[test]
    fn a_peer_that_does_not_read_stays() {
        let mut check = StallCheck::new();
        let mut now = MINUTE;
        for _ in 0..100 {
            assert!(!check.found(now, Pending, LIMIT));
            // A single probe may be on its way for long: their interval grows to two minutes.
            assert_eq!(check.due(), Some(now + LIMIT));
            now += LIMIT;
        }
    }

    /// The last answer may be long ago when something is sent for the first time in hours.
    #[test]
    fn a_peer_that_has_just_gone_has_its_time() {
        let mut check = StallCheck::new();
        let (start, hour) = (Duration::from_secs(3600), Duration::from_secs(3600));
        assert!(!check.found(start, Unanswered(hour), LIMIT));
        let mut now = start;
        while now < start + LIMIT {
            assert!(!check.found(now, Unanswered(hour), LIMIT), "{now:?}");
            now = check.due().expect("it waits for an answer");
        }
        assert!(now <= start + LIMIT * 5 / 4);
        assert!(check.found(now, Unanswered(hour), LIMIT));
    }

    #[test]
    fn an_answer_begins_it_anew() {
        let mut check = StallCheck::new();
        assert!(!check.found(MINUTE, Unanswered(LIMIT), LIMIT));
        assert!(!check.found(MINUTE * 3, Unanswered(MINUTE), LIMIT), "answered in between");
        assert!(!check.found(MINUTE * 4, Pending, LIMIT));
        assert!(!check.found(MINUTE * 5, Unanswered(LIMIT), LIMIT));
        assert!(check.found(MINUTE * 7, Unanswered(LIMIT), LIMIT));
    }

    #[test]
    fn times_without_end_do_not_overflow() {
        let mut check = StallCheck::new();
        check.moved(Duration::MAX, Some(Duration::MAX));
        assert!(check.due().is_some());
        assert!(!check.found(Duration::MAX, Unanswered(Duration::MAX), Duration::MAX));
    }
}
