//! Repeated attempts to connect: at the start until `--wait` is over, and after the server has ended a session.

use std::thread;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::session::{Server, Session};

/// The first pause between two attempts. Each is twice as long as the one before, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// How long a session has to last for the pauses to start short: a server that accepts sessions and closes them
/// at once must not be asked without a pause.
const STEADY_SESSION: Duration = Duration::from_secs(10);

/// The least time that an attempt gets: with less, the last one before the deadline could not succeed.
const MIN_ATTEMPT: Duration = Duration::from_secs(1);

/// The pauses between attempts, each twice as long as the one before.
#[derive(Debug)]
pub struct Backoff {
    pause: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { pause: FIRST_PAUSE }
    }
}

impl Backoff {
    /// The pause before the next attempt.
    pub fn pause(&mut self) -> Duration {
        let longer = self.pause.saturating_mul(2).min(MAX_PAUSE);
        std::mem::replace(&mut self.pause, longer)
    }

    /// Makes the pauses short again if the session that has ended was [`STEADY_SESSION`] long or longer.
    pub fn ended_after(&mut self, lasted: Duration) {
        if lasted >= STEADY_SESSION {
            *self = Backoff::default();
        }
    }
}

/// Attempts to connect, until one succeeds or the deadline has passed.
pub struct Attempts {
    backoff: Backoff,
    deadline: Option<Instant>,
}

impl Attempts {
    /// Attempts from now until `limit` has passed; without an end if it is `None`.
    pub fn new(backoff: Backoff, limit: Option<Duration>) -> Self {
        Attempts { backoff, deadline: limit.and_then(|limit| Instant::now().checked_add(limit)) }
    }

    /// Attempts after a session of the length `lasted` has ended with `ended`. `None` if another attempt cannot
    /// help (a wrong password, for instance), or `--wait 0` forbids it.
    pub fn after(
        server: &Server,
        ended: &Failure,
        mut backoff: Backoff,
        lasted: Duration,
    ) -> Option<Self> {
        if !ended.is_absence() || server.wait.is_some_and(|wait| wait.is_zero()) {
            return None;
        }
        backoff.ended_after(lasted);
        Some(Attempts::new(backoff, server.wait))
    }

    /// The pause before the next attempt; `None` if the deadline has passed.
    fn next(&mut self) -> Option<Duration> {
        let pause = self.backoff.pause();
        let Some(deadline) = self.deadline else { return Some(pause) };
        let left = deadline.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| pause.min(left))
    }

    /// Pauses and calls `attempt` with its time limit, until it succeeds or fails for another reason than
    /// absence. `last` is the failure before; `on_retry` is called with it once, if there is time for another
    /// attempt.
    ///
    /// # Errors
    /// The failure of the last attempt.
    pub fn run<T>(
        &mut self,
        mut last: Failure,
        on_retry: impl FnOnce(&Failure),
        mut attempt: impl FnMut(Duration) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut on_retry = Some(on_retry);
        while let Some(pause) = self.next() {
            if let Some(on_retry) = on_retry.take() {
                on_retry(&last);
            }
            thread::sleep(pause);
            match attempt(self.attempt_timeout()) {
                Err(failure) if failure.is_absence() => last = failure,
                done => return done,
            }
        }
        Err(last)
    }

    /// The time limit of the next attempt.
    fn attempt_timeout(&self) -> Duration {
        self.deadline.map_or(Duration::MAX, |deadline| {
            deadline.saturating_duration_since(Instant::now()).max(MIN_ATTEMPT)
        })
    }

    /// The pauses, for the end of the next session.
    pub fn into_backoff(self) -> Backoff {
        self.backoff
    }
}

impl Server {
    /// Connects and logs in. Repeats the attempt until `--wait` is over if the server cannot be reached.
    ///
    /// # Errors
    /// Those of [`Server::log_in_once`], of the last attempt.
    pub fn log_in(&self) -> Result<Session, Failure> {
        let Some(wait) = self.wait.filter(|wait| !wait.is_zero()) else {
            return self.log_in_once(Duration::MAX);
        };
        let mut attempts = Attempts::new(Backoff::default(), Some(wait));
        match self.log_in_once(attempts.attempt_timeout()) {
            Err(failure) if failure.is_absence() => {
                let on_retry = |failure: &Failure| {
                    self.output.eprint_unless_quiet(&format_args!("{failure}; trying again"));
                };
                attempts.run(failure, on_retry, |time| self.log_in_once(time))
            }
            done => done,
        }
    }
}

/// Begins a new session with a server each time that one ends because the server has gone away.
pub struct Reconnect<'a> {
    server: &'a Server,
    backoff: Backoff,
    since: Instant,
}

impl<'a> Reconnect<'a> {
    /// For a session that begins now.
    pub fn new(server: &'a Server) -> Self {
        Reconnect { server, backoff: Backoff::default(), since: Instant::now() }
    }

    /// After a session has ended with `ended`, waits for the server to come back and begins the next session
    /// with `begin`.
    ///
    /// # Errors
    /// `ended` if another attempt cannot help, or the failure of the last attempt.
    pub fn reconnect<T>(
        &mut self,
        ended: Failure,
        mut begin: impl FnMut(Session) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let backoff = std::mem::take(&mut self.backoff);
        let lasted = self.since.elapsed();
        let Some(mut attempts) = Attempts::after(self.server, &ended, backoff, lasted) else {
            return Err(ended);
        };
        let output = &self.server.output;
        let on_retry =
            |ended: &Failure| output.eprint_line(&format_args!("{ended}; connecting again"));
        let begin = |time| self.server.log_in_once(time).and_then(&mut begin);
        let begun = attempts.run(ended, on_retry, begin)?;
        self.backoff = attempts.into_backoff();
        self.since = Instant::now();
        output.eprint_unless_quiet(&"Connected again");
        Ok(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_and_are_short_again_after_a_steady_session() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..8).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
        backoff.ended_after(STEADY_SESSION - Duration::from_millis(1));
        assert_eq!(backoff.pause(), MAX_PAUSE);
        backoff.ended_after(STEADY_SESSION);
        assert_eq!(backoff.pause(), FIRST_PAUSE);
    }

    #[test]
    fn no_pause_is_longer_than_the_time_that_is_left() {
        assert_eq!(Attempts::new(Backoff::default(), Some(Duration::ZERO)).next(), None);
        let mut attempts = Attempts::new(Backoff::default(), Some(Duration::from_millis(50)));
        assert!(attempts.next().is_none_or(|pause| pause <= Duration::from_millis(50)));
        let mut endless = Attempts::new(Backoff::default(), None);
        assert!((0..100).all(|_| endless.next().is_some_and(|pause| pause <= MAX_PAUSE)));
    }
}
