//! When to check whether the peers of a tunnel acknowledge (TCP_INFO), and when a peer counts as gone.
//!
//! Keepalive does not probe while bytes are unacknowledged, and the kernel retransmits those for a quarter of an hour.
//! TCP_USER_TIMEOUT is no help for tunnels: it also ends the connection of a peer that exists and does not read. So a
//! tunnel checks at intervals while bytes move or are unacknowledged.

use std::time::Duration;

use crate::reactor::tcp_state::Acknowledgement;
use crate::state::Direction;

/// Checks within the timeout: a peer is found gone an eighth of the timeout late, at most.
const CHECKS_PER_TIMEOUT: u32 = 8;

/// The state of the check. Times are whole seconds from the beginning of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallCheck {
    /// When to check next.
    next: u32,
    /// When a peer was first found not to acknowledge, and which peer: see [`since`].
    since: u32,
}

const NEVER: u32 = u32::MAX;

impl StallCheck {
    /// No byte has moved, and no check is due.
    pub fn new() -> Self {
        StallCheck { next: NEVER, since: NEVER }
    }

    /// A byte has moved at `now`. `limit` is `ack-timeout`.
    pub fn moved(&mut self, now: Duration, limit: Option<Duration>) {
        if self.next == NEVER
            && let Some(limit) = limit
        {
            self.next = seconds(now.saturating_add(limit / CHECKS_PER_TIMEOUT));
        }
    }

    /// `limit` has changed at `now`: the next check is not later than an eighth of it.
    pub fn limit_changed(&mut self, now: Duration, limit: Duration) {
        self.next = self.next.min(seconds(now.saturating_add(limit / CHECKS_PER_TIMEOUT)));
    }

    /// When to check next; `None` if no byte has moved since everything was acknowledged.
    pub fn due(&self) -> Option<Duration> {
        (self.next != NEVER).then(|| Duration::from_secs(self.next.into()))
    }

    /// What was found at `now` of the client and of the target. Returns the direction whose receiver counts as
    /// gone: it has acknowledged nothing for `limit` although something was sent to it.
    pub fn found(
        &mut self,
        now: Duration,
        client: Acknowledgement,
        target: Acknowledgement,
        limit: Duration,
    ) -> Option<Direction> {
        let complete = [client, target] == [Acknowledgement::Complete; 2];
        let interval = limit / CHECKS_PER_TIMEOUT;
        self.next = if complete { NEVER } else { seconds(now.saturating_add(interval)) };
        let silence = |found| match found {
            Acknowledgement::Unanswered(silence) => Some(silence),
            Acknowledgement::Complete | Acknowledgement::Pending => None,
        };
        // The peer that has been silent for longer.
        let (silence, direction) = match (silence(client), silence(target)) {
            (None, None) => {
                self.since = NEVER;
                return None;
            }
            (down, up) if down >= up => (down?, Direction::Down),
            (_, up) => (up?, Direction::Up),
        };
        let begins = since(seconds(now), direction);
        if self.since == NEVER || self.since & 1 != begins & 1 {
            self.since = begins;
        }
        let end = Duration::from_secs((self.since >> 1).into()).saturating_add(limit);
        if now >= end && silence >= limit {
            return Some(direction);
        }
        // No later than the end of its time, if it is silent for as long as that.
        if now < end {
            self.next = self.next.min(seconds(end));
        }
        None
    }
}

/// A time and a direction in one number, to save memory in each tunnel.
fn since(seconds: u32, direction: Direction) -> u32 {
    seconds.min(NEVER >> 2) << 1 | u32::from(direction == Direction::Up)
}

/// Whole seconds, rounded up, so that no check is early.
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
        check.moved(Duration::from_millis(1500), Some(LIMIT));
        assert_eq!(check.due(), Some(Duration::from_secs(17)), "rounded up");
        check.moved(Duration::from_secs(10), Some(LIMIT));
        assert_eq!(check.due(), Some(Duration::from_secs(17)), "bytes do not put it off");
        assert_eq!(check.found(Duration::from_secs(17), Complete, Complete, LIMIT), None);
        assert_eq!(check.due(), None);
        check.moved(LIMIT, Some(LIMIT));
        assert_eq!(check.due(), Some(LIMIT * 9 / 8));
        let mut off = StallCheck::new();
        off.moved(MINUTE, None);
        assert_eq!(off.due(), None);
    }

    #[test]
    fn a_new_limit_acts_on_what_is_under_way() {
        let (mut check, hour) = (StallCheck::new(), Duration::from_secs(3600));
        check.limit_changed(MINUTE, Duration::from_secs(8));
        assert_eq!(check.due(), Some(MINUTE + Duration::from_secs(1)), "it was off");
        let mut check = StallCheck::new();
        check.moved(MINUTE, Some(hour));
        check.limit_changed(MINUTE, Duration::from_secs(8));
        assert_eq!(check.due(), Some(MINUTE + Duration::from_secs(1)));
        check.limit_changed(MINUTE, hour);
        assert_eq!(check.due(), Some(MINUTE + Duration::from_secs(1)), "never later");
    }

    #[test]
    fn a_peer_that_does_not_read_stays() {
        let mut check = StallCheck::new();
        let mut now = MINUTE;
        for _ in 0..1000 {
            assert_eq!(check.found(now, Pending, Complete, LIMIT), None);
            now = check.due().expect("it waits for an answer");
        }
    }

    /// Whatever was found before, it has its time from the first look that finds it silent, and hardly more from
    /// the moment that it went.
    #[test]
    fn a_peer_that_goes_is_found_an_eighth_late_at_most() {
        for (limit, before) in [(120, Complete), (120, Pending), (10, Pending), (8, Pending)] {
            let limit = Duration::from_secs(limit);
            let mut check = StallCheck::new();
            check.moved(Duration::ZERO, Some(limit));
            let first = check.due().expect("it moved");
            assert_eq!(check.found(first, before, Complete, limit), None);
            // It goes right behind that look. Its last answer may be long ago: nothing was sent for hours.
            let gone = first;
            check.moved(gone, Some(limit));
            let mut silence = Duration::from_secs(7200);
            loop {
                let now = check.due().expect("it waits for an answer");
                silence += limit;
                match check.found(now, Unanswered(silence), Complete, limit) {
                    None => assert!(now < gone + limit * 9 / 8 + Duration::from_secs(2), "{now:?}"),
                    Some(direction) => {
                        assert_eq!(direction, Direction::Down);
                        assert!(now >= gone + limit, "{now:?}");
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn an_answer_begins_it_anew() {
        let mut check = StallCheck::new();
        let mut found = |minutes, found| check.found(MINUTE * minutes, Complete, found, LIMIT);
        assert_eq!(found(1, Unanswered(LIMIT)), None);
        assert_eq!(found(3, Unanswered(MINUTE)), None, "answered in between");
        assert_eq!(found(4, Pending), None);
        assert_eq!(found(5, Unanswered(LIMIT)), None);
        assert_eq!(found(7, Unanswered(LIMIT)), Some(Direction::Up));
    }

    /// Each of the two has a time of its own.
    #[test]
    fn one_peer_does_not_inherit_the_time_of_the_other() {
        let mut check = StallCheck::new();
        assert_eq!(check.found(MINUTE, Unanswered(MINUTE), Complete, LIMIT), None);
        assert_eq!(check.found(MINUTE * 3, Pending, Unanswered(LIMIT * 9), LIMIT), None);
        assert_eq!(check.found(MINUTE * 4, Pending, Unanswered(LIMIT * 9), LIMIT), None);
        let both = check.found(MINUTE * 5, Unanswered(MINUTE), Unanswered(LIMIT * 9), LIMIT);
        assert_eq!(both, Some(Direction::Up), "the one that has been silent for longer");
    }

    #[test]
    fn times_without_end_do_not_overflow() {
        let (mut check, end) = (StallCheck::new(), Duration::MAX);
        check.moved(end, Some(end));
        assert!(check.due().is_some());
        let found = check.found(end, Unanswered(Duration::ZERO), Unanswered(end), end);
        assert_eq!(found, Some(Direction::Up));
    }
}
