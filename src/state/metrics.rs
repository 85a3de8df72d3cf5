//! Counters. They only grow, except those that say what is open now.

use std::time::{Duration, Instant};

use super::histogram::Histogram;
use super::users::LimitReached;
use crate::proto::socks5::ReplyCode;
use crate::proto::usage_file::Figures;
use crate::state::service::PerService;
use metp_protocol::MetricsBody;
pub use metp_protocol::Stage;

/// The sessions of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// Sessions admitted since the start.
    pub accepted: u64,
    /// Sessions open now, in any state.
    pub open: usize,
    /// Connections closed by a limit, and sessions evicted.
    pub refused_limit: u64,
    /// Sessions without an acceptable method, or with a login that failed.
    pub refused_auth: u64,
}

/// Logins to one service that were looked at, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoginCounts {
    /// Logins with the name and the password of an account.
    pub good: u64,
    /// The others.
    pub failed: u64,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// The sessions of each service.
    pub sessions: PerService<SessionCounts>,
    /// The logins to each service.
    pub logins: PerService<LoginCounts>,
    /// SOCKS connections open now by stage, in the order of [`Stage::ALL`].
    pub stages: [usize; Stage::ALL.len()],
    /// Payload bytes delivered to targets.
    pub up: u64,
    /// Payload bytes delivered to clients.
    pub down: u64,
    /// SOCKS connections that ended before their request was complete, for another reason.
    pub unfinished: u64,
    /// Sessions closed because too many logins wait.
    pub logins_shed: u64,
    /// Requests that limits of accounts did not allow, and tunnels that they have ended.
    pub limits: LimitCounts,
    /// Replies sent, by code (RFC 1928 §6).
    pub replies: [u64; 9],
    /// Connections closed by administrators.
    pub killed: u64,
    /// The durations of successful connects to targets.
    pub connects: Histogram,
    /// Attempts to connect to targets.
    pub attempts: AttemptCounts,
    /// Requests to accept a connection.
    pub binds: BindCounts,
    /// Datagrams of associations.
    pub datagrams: DatagramCounts,
    /// What the server began with: connections, and bytes up and down, of those that came before it.
    pub before: [u64; 3],
    /// Since when connections and bytes are counted, in seconds of UNIX time.
    pub counted_since: u64,
    /// Times that a file could not be written, or was damaged.
    pub store_errors: u64,
    /// Turns of sessions that ended in a panic.
    pub panics: u64,
    /// The durations of turns of the loop, from the end of one wait to the beginning of the next.
    pub turns: Histogram,
    /// The longest turn of the last second.
    pub lag: Lag,
}

/// Attempts to connect to targets since the start (RFC 8305 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptCounts {
    /// Attempts that were started.
    pub started: u64,
    /// Requests of which a second attempt was started beside the first.
    pub races: u64,
    /// Attempts that were given up because another one had succeeded.
    pub lost: u64,
}

/// Requests that were refused and tunnels that were ended, by the limit of their account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitCounts([u64; LimitReached::ALL.len()]);

impl LimitCounts {
    /// A request is refused, or a tunnel ended.
    pub fn count(&mut self, reached: LimitReached) {
        if let Some(count) = self.0.get_mut(reached as usize) {
            *count += 1;
        }
    }

    /// Each limit with its count.
    pub fn iter(&self) -> impl Iterator<Item = (LimitReached, u64)> {
        LimitReached::ALL.into_iter().zip(self.0)
    }
}

/// BIND since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BindCounts {
    /// Listeners that were opened.
    pub started: u64,
    /// Connections to them from other addresses than the request names.
    pub strangers: u64,
}

/// Datagrams of associations since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramCounts {
    /// Associations that were opened.
    pub associations: u64,
    /// Datagrams sent to targets.
    pub up: u64,
    /// Datagrams sent to clients.
    pub down: u64,
    /// Datagrams dropped, by cause, in the order of [`DropCause::ALL`].
    pub dropped: [u64; DropCause::ALL.len()],
    /// Datagrams that the kernel dropped because a socket's buffer was full; counted when the association ends.
    pub dropped_by_kernel: u64,
}

impl DatagramCounts {
    /// Datagrams are dropped.
    pub fn drop(&mut self, cause: DropCause, count: u64) {
        if let Some(dropped) = self.dropped.get_mut(cause as usize) {
            *dropped += count;
        }
    }
}

/// Why a datagram is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropCause {
    /// It came to the client's side, and not from the client.
    Stranger,
    /// It is a fragment (FRAG is not 0).
    Fragment,
    /// It has no complete header.
    Malformed,
    /// A rule of this server forbids its target.
    Rules,
    /// It came from where the client has sent nothing.
    Filtered,
    /// Its name has no address, or too many datagrams wait for look-ups.
    Name,
    /// It is longer than a datagram can be, or than the way allows.
    Size,
    /// A buffer of the kernel is full.
    Busy,
    /// Another error of the kernel: no route, a firewall.
    Error,
}

impl DropCause {
    /// All causes, in the order of figures.
    pub const ALL: [DropCause; 9] = [
        DropCause::Stranger,
        DropCause::Fragment,
        DropCause::Malformed,
        DropCause::Rules,
        DropCause::Filtered,
        DropCause::Name,
        DropCause::Size,
        DropCause::Busy,
        DropCause::Error,
    ];

    /// The word of the label.
    pub const fn word(self) -> &'static str {
        match self {
            DropCause::Stranger => "stranger",
            DropCause::Fragment => "fragment",
            DropCause::Malformed => "malformed",
            DropCause::Rules => "rules",
            DropCause::Filtered => "filtered",
            DropCause::Name => "name",
            DropCause::Size => "size",
            DropCause::Busy => "busy",
            DropCause::Error => "error",
        }
    }
}

impl Metrics {
    /// Payload bytes delivered, both directions.
    pub fn bytes(&self) -> u64 {
        self.up + self.down
    }

    /// Goes on from the figures of the server before.
    pub fn restore(&mut self, figures: &Figures) {
        let Figures { since, connections, up, down, .. } = *figures;
        self.sessions.socks.accepted = self.sessions.socks.accepted.saturating_add(connections);
        self.up = self.up.saturating_add(up);
        self.down = self.down.saturating_add(down);
        self.before = [connections, up, down];
        self.counted_since = since;
    }

    /// Adds what another server has counted, from which this one has taken over.
    pub fn add(&mut self, figures: &Figures) {
        let Figures { connections, up, down, .. } = *figures;
        self.sessions.socks.accepted = self.sessions.socks.accepted.saturating_add(connections);
        self.up = self.up.saturating_add(up);
        self.down = self.down.saturating_add(down);
        for (before, more) in self.before.iter_mut().zip([connections, up, down]) {
            *before = before.saturating_add(more);
        }
    }

    /// What outlives the server, without accounts.
    pub fn figures(&self) -> Figures {
        Figures {
            since: self.counted_since,
            connections: self.sessions.socks.accepted,
            up: self.up,
            down: self.down,
            accounts: Vec::new(),
        }
    }

    /// A reply is sent.
    pub fn count_reply(&mut self, code: ReplyCode) {
        if let Some(count) = self.replies.get_mut(code as usize) {
            *count += 1;
        }
    }

    /// A connection enters a stage, leaves one, or both.
    pub fn step(&mut self, from: Option<Stage>, to: Option<Stage>) {
        if let Some(count) = to.and_then(|stage| self.stages.get_mut(stage as usize)) {
            *count += 1;
        }
        if let Some(count) = from.and_then(|stage| self.stages.get_mut(stage as usize)) {
            *count = count.saturating_sub(1);
        }
    }

    /// A turn of the loop has ended.
    pub fn count_turn(&mut self, took: Duration, now: Instant) {
        self.turns.record(took);
        self.lag.record(took, now);
    }

    /// The figures that METP/1.0 shows.
    pub fn body(&self) -> MetricsBody {
        let SessionCounts { accepted, open, .. } = self.sessions.socks;
        MetricsBody { historical: accepted, current: open as u64, bytes: self.bytes() }
    }
}

/// The longest duration in the second that runs, and in the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    began: Option<Instant>,
    running: Duration,
    whole: Duration,
}

const SECOND: Duration = Duration::from_secs(1);

impl Lag {
    /// Counts a duration that has just ended.
    pub fn record(&mut self, took: Duration, now: Instant) {
        self.whole = self.longest(now);
        let age = self.began.map(|began| now.saturating_duration_since(began));
        if age.is_none_or(|age| age >= SECOND) {
            (self.began, self.running) = (Some(now), Duration::ZERO);
        }
        self.running = self.running.max(took);
    }

    /// The longest duration of the last whole second.
    pub fn longest(&self, now: Instant) -> Duration {
        let age = self.began.map_or(Duration::MAX, |began| now.saturating_duration_since(began));
        match age {
            age if age < SECOND => self.whole,
            age if age < SECOND * 2 => self.running,
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_turn_of_the_last_second() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        let ms = Duration::from_millis;
        assert_eq!(lag.longest(start), Duration::ZERO);
        lag.record(ms(5), start);
        lag.record(ms(3), start + ms(500));
        assert_eq!(lag.longest(start + ms(999)), Duration::ZERO);
        assert_eq!(lag.longest(start + ms(1000)), ms(5));
        lag.record(ms(1), start + ms(1100));
        assert_eq!(lag.longest(start + ms(1200)), ms(5));
        assert_eq!(lag.longest(start + ms(2100)), ms(1));
        assert_eq!(lag.longest(start + ms(4000)), Duration::ZERO);
        lag.record(ms(7), start + ms(9000));
        assert_eq!(lag.longest(start + ms(9000)), Duration::ZERO);
    }

    #[test]
    fn stages_and_replies() {
        let mut metrics = Metrics::default();
        metrics.step(None, Some(Stage::Hello));
        metrics.step(Some(Stage::Hello), Some(Stage::Relay));
        assert_eq!(metrics.stages, [0, 0, 0, 0, 0, 1, 0, 0, 0]);
        metrics.step(Some(Stage::Relay), None);
        assert_eq!(metrics.stages, [0; 9]);
        metrics.count_reply(ReplyCode::ConnectionRefused);
        assert_eq!(metrics.replies, [0, 0, 0, 0, 0, 1, 0, 0, 0]);
    }
}
