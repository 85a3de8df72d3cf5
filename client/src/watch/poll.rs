//! Metrics polled at regular intervals, and printed in lines where there is no screen: plain, or JSON.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use metp_protocol::Command;
use metp_protocol::key::figure;
use metp_protocol::timestamp::Timestamp;
use serde_json::json;

use super::news::{Bytes, per_second};
use crate::failure::Failure;
use crate::locale;
use crate::retry::Reconnect;
use crate::session::{Server, Session};

/// The part of GET_METRICS ALL that is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Open SOCKS connections.
    pub connections: u64,
    /// SOCKS connections since the start of the server.
    pub accepted: u64,
    /// Payload delivered since the start of the server.
    pub bytes: Bytes,
}

impl Totals {
    /// Sends GET_METRICS ALL.
    ///
    /// # Errors
    /// If the answer is missing or incomplete.
    pub fn query(session: &mut Session) -> Result<Self, Failure> {
        let answer = session.query(&Command::GetAllMetrics)?;
        let value = |key| answer.figure(key);
        Ok(Totals {
            connections: value(figure::CURRENT_CONNECTIONS)?,
            accepted: value(figure::HISTORICAL_CONNECTIONS)?,
            bytes: Bytes { up: value(figure::BYTES_UP)?, down: value(figure::BYTES_DOWN)? },
        })
    }
}

/// Writes one line for each interval, `2026-01-31 12:00:00 1234`: the local time, and octets per second. It
/// needs no more than METP/1.0 and an account of role `user`.
///
/// # Errors
/// If the session ends and cannot be renewed, or the line cannot be written.
pub fn lines(server: &Server, interval: Duration, out: &mut dyn Write) -> Result<(), Failure> {
    let ask = |session: &mut Session| {
        session.query(&Command::GetMetrics)?.figure(figure::BYTES_TRANSFERRED)
    };
    every(server, interval, Ok, ask, |before, bytes, period| {
        let rate = per_second(bytes.saturating_sub(before), period);
        let time = locale::now();
        writeln!(out, "{time} {rate}").and_then(|()| out.flush()).map_err(Failure::Output)
    })
}

/// Writes one JSON object for each interval: `time` (RFC 3339), `connections`, `accepted`, octets per second
/// `up` and `down`, and the totals `bytes_up` and `bytes_down`.
///
/// # Errors
/// If the session ends and cannot be renewed, the server speaks METP/1.0 only, or the line cannot be written.
pub fn json(server: &Server, interval: Duration, out: &mut dyn Write) -> Result<(), Failure> {
    let check = |mut session| require_1_1(&mut session).map(|()| session);
    every(server, interval, check, Totals::query, |before, totals, period| {
        let rate = totals.bytes.since(before.bytes).per_second(period);
        let object = json!({
            "time": Timestamp::from(SystemTime::now()).to_string(),
            "connections": totals.connections,
            "accepted": totals.accepted,
            "up": rate.up,
            "down": rate.down,
            "bytes_up": totals.bytes.up,
            "bytes_down": totals.bytes.down,
        });
        writeln!(out, "{object}").and_then(|()| out.flush()).map_err(Failure::Output)
    })
}

/// Calls `ask` at each interval, and `print` with its results before and now and the exact time between them.
/// After a restart of the server it begins anew. `check` makes sure that a new session has the commands that
/// are needed.
fn every<T>(
    server: &Server,
    interval: Duration,
    check: impl Fn(Session) -> Result<Session, Failure>,
    ask: impl Fn(&mut Session) -> Result<T, Failure>,
    mut print: impl FnMut(T, &T, Duration) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let begin = |session| {
        let mut session = check(session)?;
        let before = ask(&mut session)?;
        Ok((session, before, Instant::now()))
    };
    let mut begun = begin(server.log_in()?)?;
    let mut reconnect = Reconnect::new(server);
    loop {
        let (mut session, before, since) = begun;
        let ended = poll_session(&mut session, interval, (before, since), &ask, &mut print);
        let Err(ended) = ended else { return Ok(()) };
        drop(session);
        begun = reconnect.reconnect(ended, begin)?;
    }
}

/// Polls at each interval until the session ends.
fn poll_session<T>(
    session: &mut Session,
    interval: Duration,
    (mut before, mut since): (T, Instant),
    ask: impl Fn(&mut Session) -> Result<T, Failure>,
    mut print: impl FnMut(T, &T, Duration) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut pace = Pace::new(interval, since);
    loop {
        pace.next(Instant::now());
        while let Some(left) = pace.left(Instant::now()) {
            thread::sleep(left.min(KEEPALIVE));
            if left > KEEPALIVE {
                // The server closes idle sessions; METP/1.0 has no PING.
                session.query(&Command::GetMetrics)?;
            }
        }
        let now = ask(session)?;
        let until = Instant::now();
        print(before, &now, until.saturating_duration_since(since))?;
        (before, since) = (now, until);
    }
}

/// Makes sure that the server has the commands of METP/1.1 that a watch needs.
///
/// # Errors
/// [`Failure::Lacking`]; or if there is no answer.
pub fn require_1_1(session: &mut Session) -> Result<(), Failure> {
    session.require("-w", &["INFO", "CONNECTIONS", "KILL", "SUBSCRIBE"])
}

/// How long a session may be idle. The server closes idle sessions, by default after ten minutes, but
/// `metp-idle-timeout` may be one second.
pub const KEEPALIVE: Duration = Duration::from_millis(500);

/// Regular intervals, which do not drift.
pub struct Pace {
    interval: Duration,
    due: Instant,
}

impl Pace {
    /// Intervals from `now` on.
    pub fn new(interval: Duration, now: Instant) -> Self {
        Pace { interval, due: now }
    }

    /// Begins the next interval at the end of the one before, or now if that end has passed.
    pub fn next(&mut self, now: Instant) {
        self.due = self.due.checked_add(self.interval).unwrap_or(now).max(now);
    }

    /// The time left of the interval; `None` if it is over.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        self.due.checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_do_not_drift_and_do_not_pile_up() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut pace = Pace::new(second, start);
        pace.next(start + second / 10);
        assert_eq!(pace.left(start + second / 10), Some(second * 9 / 10));
        assert_eq!((pace.left(start + second), pace.left(start + second * 2)), (None, None));
        pace.next(start + second * 11 / 10);
        assert_eq!(pace.left(start + second * 11 / 10), Some(second * 9 / 10));
        pace.next(start + second * 9);
        assert_eq!(pace.left(start + second * 9), None);
    }
}
