//! What the screen shows: made of looks and events, whatever order they come in. It knows neither the server
//! nor the terminal, and time is told to it.
//! What is seen of what is known: it stands still while somebody has asked for that, or looks for a connection in
//! it. What is known goes on.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::mem;
use std::time::{Duration, Instant};

use super::history::{Figures, History, Sample, Tombstones};
use super::news::{Bytes, ConnectionInfo, LogLine, ServerStatus, Snapshot, WatchEvent, per_second};
use super::rates::{Speed, TopEntry, TopList};

/// Connections that are kept: more than a server has descriptors for.
pub const MAX_CONNECTIONS: usize = 1 << 18;
/// How many more than the last look listed: a server that tells of many is to list them.
const MAX_UNLISTED: usize = 1 << 16;
/// More than the rows of any screen.
const MAX_ROWS: usize = 256;
/// How much later than it happened something may be told.
const EVENT_DELAY: Duration = Duration::from_secs(1);

/// A connection, and how fast it is.
#[derive(Clone, Debug)]
pub struct Row {
    /// The connection at the last snapshot.
    pub connection: ConnectionInfo,
    /// Since the look before; since its start if there was none.
    pub speed: Speed,
}

/// All that is known.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// When the last look was, and what had been delivered then.
    last: Option<(Instant, Bytes)>,
    connections: u64,
    status: ServerStatus,
    history: History,
    open: HashMap<String, Row>,
    /// How many the last look listed.
    listed: usize,
    /// Their ids, the busiest first; some may not be open any more.
    order: Vec<String>,
    tombstones: Tombstones,
    users: Vec<TopEntry>,
    destinations: Vec<TopEntry>,
    /// What connections moved that have ended since the last snapshot.
    ended_by_user: TopList,
    ended_by_destination: TopList,
    log: VecDeque<LogLine>,
}

impl Model {
    /// How the server was doing at the last look; `None` before the first.
    pub fn status(&self) -> Option<&ServerStatus> {
        self.last.map(|_| &self.status)
    }

    /// How many SOCKS connections were open at the last snapshot.
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// Rates and connections over time.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Users, the fastest first.
    pub fn users(&self) -> &[TopEntry] {
        &self.users
    }

    /// Destinations, the fastest first.
    pub fn destinations(&self) -> &[TopEntry] {
        &self.destinations
    }

    /// Connections, the busiest of the last few seconds first; those that are as busy by what they have delivered, then by age.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.order.iter().filter_map(|id| self.open.get(id))
    }

    /// How many of them there are.
    pub fn row_count(&self) -> usize {
        self.open.len()
    }

    /// The open connection with this id.
    pub fn find(&self, id: &str) -> Option<&ConnectionInfo> {
        self.open.get(id).map(|row| &row.connection)
    }

    /// The newest lines of the access log, the newest last.
    pub fn log(&self) -> impl DoubleEndedIterator<Item = &LogLine> {
        self.log.iter()
    }

    /// Adds a line of the access log.
    pub fn add_log_line(&mut self, line: LogLine) {
        if self.log.len() >= MAX_ROWS {
            self.log.pop_front();
        }
        self.log.push_back(line);
    }

    /// Takes an event that was heard of `now`.
    pub fn apply_event(&mut self, event: WatchEvent, now: Instant) {
        match event {
            WatchEvent::Opened(connection) => self.opened(connection),
            WatchEvent::Closed(connection, duration) => self.closed(connection, duration, now),
            WatchEvent::Logged(line) => self.add_log_line(line),
        }
    }

    /// A connection that a look has listed already stays as it is.
    fn opened(&mut self, connection: ConnectionInfo) {
        let full = self.open.len() >= self.listed.saturating_add(MAX_UNLISTED);
        if full || self.open.contains_key(&connection.id) {
            return;
        }
        // Between two looks far apart, many may have come and gone.
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
        // Of one that is older than the last look, but was not in it, nobody knows when it moved its bytes.
        if let Some(counted) = counted.or_else(|| is_new.then(Bytes::default)) {
            let moved = bytes.since(counted);
            self.ended_by_user.add_closed(&user, moved);
            self.ended_by_destination.add_closed(&destination, moved);
        }
        self.tombstones.remember(id, bytes, true, now);
    }

    /// Takes a look at the server.
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
    }

    /// Takes the list of connections. Before there is a period, nobody knows how fast they are.
    fn apply_list(&mut self, list: Vec<ConnectionInfo>, period: Option<Duration>, now: Instant) {
        let mut users = mem::take(&mut self.ended_by_user);
        let mut destinations = mem::take(&mut self.ended_by_destination);
        let mut before = mem::take(&mut self.open);
        for connection in list {
            // The list is older than the event that told of the end.
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
                // Nothing but its average is known of one that is younger than the last snapshot.
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

/// What is known, and what is seen of it.
#[derive(Debug, Default)]
pub struct Freeze {
    /// What is known.
    pub live: Model,
    /// What is seen while it stands still.
    still: Option<Box<Model>>,
    paused: bool,
    held: bool,
}

impl Freeze {
    /// Forgets what is known, but for these lines of the log: the server is another one, or has just been reached.
    pub fn reset(&mut self, log: Vec<LogLine>) {
        self.live = Model::default();
        log.into_iter().for_each(|line| self.live.add_log_line(line));
    }

    /// What is seen.
    pub fn shown(&self) -> &Model {
        self.still.as_deref().unwrap_or(&self.live)
    }

    /// Whether somebody has asked for a pause.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Begins a pause, or ends it.
    pub fn toggle_pause(&mut self) {
        self.paused = !self.paused;
        self.update();
    }

    /// Has it stand still, or not any more, whether there is a pause or not.
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
