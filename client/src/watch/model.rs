//! The data that the screen shows, built from snapshots and events in whatever order they come; and the frozen
//! copy that is shown during a pause. It depends neither on the server nor on the terminal, and the time is
//! passed in.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::mem;
use std::time::{Duration, Instant};

use super::history::{Figures, History, Sample, Tombstones};
use super::news::{Bytes, ConnectionInfo, LogLine, ServerStatus, Snapshot, WatchEvent, per_second};
use super::rates::{Speed, TopEntry, TopList};

/// Connections that are kept: more than a server has descriptors for.
pub const MAX_CONNECTIONS: usize = 1 << 18;
/// Connections that are kept from events alone, until the next snapshot lists them.
const MAX_UNLISTED: usize = 1 << 16;
/// Entries of the tables and the log that are kept: more than a screen has rows.
const MAX_ROWS: usize = 256;
/// How late an event may come.
const EVENT_DELAY: Duration = Duration::from_secs(1);

/// A connection with its rate.
#[derive(Clone, Debug)]
pub struct Row {
    /// The connection at the last snapshot, or as its open event described it.
    pub connection: ConnectionInfo,
    /// The rate since the snapshot before; since the start of the connection if that listed none.
    pub speed: Speed,
}

/// Everything that is known of the server.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The time of the last snapshot, and the bytes delivered until then.
    last: Option<(Instant, Bytes)>,
    connections: u64,
    status: ServerStatus,
    history: History,
    open: HashMap<String, Row>,
    /// The number of connections in the last snapshot.
    listed: usize,
    /// Connection ids, the busiest first; some may have closed since the last snapshot.
    order: Vec<String>,
    tombstones: Tombstones,
    users: Vec<TopEntry>,
    destinations: Vec<TopEntry>,
    /// The bytes of connections that have closed since the last snapshot.
    ended_by_user: TopList,
    ended_by_destination: TopList,
    log: VecDeque<LogLine>,
}

impl Model {
    /// The status of the server at the last snapshot; `None` before the first.
    pub fn status(&self) -> Option<&ServerStatus> {
        self.last.map(|_| &self.status)
    }

    /// The number of open SOCKS connections at the last snapshot.
    pub fn connections(&self) -> u64 {
        self.connections
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    /// The users by their rates, the fastest first.
    pub fn users(&self) -> &[TopEntry] {
        &self.users
    }

    /// The destinations by their rates, the fastest first.
    pub fn destinations(&self) -> &[TopEntry] {
        &self.destinations
    }

    /// The open connections, sorted by their rate over a few seconds, then by their bytes, then by their age,
    /// the largest first.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.order.iter().filter_map(|id| self.open.get(id))
    }

    /// The number of open connections.
    pub fn row_count(&self) -> usize {
        self.open.len()
    }

    /// The open connection with this id.
    pub fn find(&self, id: &str) -> Option<&ConnectionInfo> {
        self.open.get(id).map(|row| &row.connection)
    }

    /// The newest lines of the access log, in the order in which they came.
    pub fn log(&self) -> impl DoubleEndedIterator<Item = &LogLine> {
        self.log.iter()
    }

    pub fn add_log_line(&mut self, line: LogLine) {
        if self.log.len() >= MAX_ROWS {
            self.log.pop_front();
        }
        self.log.push_back(line);
    }

    /// Applies an event that came at `now`.
    pub fn apply_event(&mut self, event: WatchEvent, now: Instant) {
        match event {
            WatchEvent::Opened(connection) => self.opened(connection),
            WatchEvent::Closed(connection, duration) => self.closed(connection, duration, now),
            WatchEvent::Logged(line) => self.add_log_line(line),
        }
    }

    /// Adds a connection, unless a snapshot has listed it already.
    fn opened(&mut self, connection: ConnectionInfo) {
        let full = self.open.len() >= self.listed.saturating_add(MAX_UNLISTED);
        if full || self.open.contains_key(&connection.id) {
            return;
        }
        // Many connections may have come and gone since the last snapshot.
        if self.order.len() > self.open.len().saturating_mul(2).saturating_add(MAX_ROWS) {
            self.order.retain(|id| self.open.contains_key(id));
        }
        self.order.push(connection.id.clone());
        let id = connection.id.clone();
        self.open.insert(id, Row { connection, speed: Speed::default() });
    }

    fn closed(&mut self, connection: ConnectionInfo, duration: Duration, now: Instant) {
        let ConnectionInfo { id, user, destination, bytes, .. } = connection;
        let row = self.open.remove(&id);
        let counted = row.map(|row| row.connection.bytes).or_else(|| self.tombstones.counted(&id));
        let is_new = self.last.is_some_and(|(at, _)| {
            duration <= now.saturating_duration_since(at).saturating_add(EVENT_DELAY)
        });
        // If the connection is older than the last snapshot, but was not in it, the time of its bytes is not
        // known.
        if let Some(counted) = counted.or_else(|| is_new.then(Bytes::default)) {
            let moved = bytes.since(counted);
            self.ended_by_user.add_closed(&user, moved);
            self.ended_by_destination.add_closed(&destination, moved);
        }
        self.tombstones.remember(id, bytes, true, now);
    }

    /// Applies a snapshot.
    pub fn apply_snapshot(&mut self, snapshot: Snapshot) {
        let before = self.last.replace((snapshot.at, snapshot.bytes));
        let period = before.map(|(at, _)| snapshot.at.saturating_duration_since(at));
        self.connections = snapshot.connections;
        self.status = snapshot.status;
        if let (Some((since, bytes)), Some(period)) = (before, period) {
            let moved = snapshot.bytes.since(bytes);
            let figures = Figures {
                up: per_second(moved.up, period),
                down: per_second(moved.down, period),
                connections: snapshot.connections,
            };
            self.history.push(Sample { since, until: snapshot.at, figures });
        } else {
            let connections = snapshot.connections;
            self.history.raise_peak(Figures { connections, ..Figures::default() });
        }
        self.apply_list(snapshot.list, period, snapshot.at);
        for user in &mut self.users {
            user.limits = snapshot.limits.get(&user.name).copied();
        }
    }

    /// Applies the list of connections of a snapshot at `now`. `period` is the time since the snapshot before;
    /// without it there are no rates.
    fn apply_list(&mut self, list: Vec<ConnectionInfo>, period: Option<Duration>, now: Instant) {
        let mut users = mem::take(&mut self.ended_by_user);
        let mut destinations = mem::take(&mut self.ended_by_destination);
        let mut before = mem::take(&mut self.open);
        for connection in list {
            // The list is older than the close event.
            if self.tombstones.has_closed(&connection.id) {
                continue;
            }
            let bytes = connection.bytes;
            let row = before.remove(&connection.id);
            let speed = row.as_ref().map(|row| row.speed).unwrap_or_default();
            let counted = row
                .map(|row| row.connection.bytes)
                .or_else(|| self.tombstones.counted(&connection.id))
                .unwrap_or_default();
            let moved = if period.is_some() { bytes.since(counted) } else { Bytes::default() };
            users.add_open(&connection.user, moved, bytes.total());
            destinations.add_open(&connection.destination, moved, bytes.total());
            let speed = match period {
                Some(period) if connection.age.is_zero() || connection.age >= period => {
                    speed.after(moved, period)
                }
                // A connection that is younger than the last snapshot: only its average is known.
                _ => speed.after(bytes, connection.age),
            };
            self.open.insert(connection.id.clone(), Row { connection, speed });
        }
        self.listed = self.open.len();
        for (id, row) in before {
            self.tombstones.remember(id, row.connection.bytes, false, now);
        }
        self.users = users.ranking(period.unwrap_or_default(), MAX_ROWS);
        self.destinations = destinations.ranking(period.unwrap_or_default(), MAX_ROWS);
        let mut order: Vec<&Row> = self.open.values().collect();
        order.sort_unstable_by(|a, b| {
            let key = |row: &Row| {
                Reverse((row.speed.smooth(), row.connection.bytes.total(), row.connection.age))
            };
            key(a).cmp(&key(b)).then_with(|| a.connection.id.cmp(&b.connection.id))
        });
        self.order = order.into_iter().map(|row| row.connection.id.clone()).collect();
    }
}

/// The live model, and the copy that is shown while the screen is frozen: during a pause, and while a
/// connection to close is being selected.
#[derive(Debug, Default)]
pub struct Freeze {
    /// The model that updates are applied to.
    pub live: Model,
    /// The copy; `None` while the live model is shown.
    still: Option<Box<Model>>,
    paused: bool,
    held: bool,
}

impl Freeze {
    /// Starts with an empty model and these lines of the log: the server has just been connected.
    pub fn reset(&mut self, log: Vec<LogLine>) {
        self.live = Model::default();
        log.into_iter().for_each(|line| self.live.add_log_line(line));
    }

    /// The model to show.
    pub fn shown(&self) -> &Model {
        self.still.as_deref().unwrap_or(&self.live)
    }

    /// Whether the user has paused the screen.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Begins or ends a pause.
    pub fn toggle_pause(&mut self) {
        self.paused = !self.paused;
        self.update();
    }

    /// Freezes the screen while `held`, whether there is a pause or not.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
        self.update();
    }

    fn update(&mut self) {
        if !self.paused && !self.held {
            self.still = None;
        } else if self.still.is_none() {
            self.still = Some(Box::new(self.live.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
