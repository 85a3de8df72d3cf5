//! What the screen shows: made of looks and events, whatever order they come in. It knows neither the server
//! nor the terminal, and time is told to it.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::mem;
use std::time::{Duration, Instant};

use super::gone::Tombstones;
use super::history::{Figures, History, Sample};
use super::news::{Bytes, ConnectionInfo, LogLine, ServerStatus, Snapshot, WatchEvent, per_second};
use super::parties::{TopEntry, TopList};
use super::speed::Speed;

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
    /// The connection at the last look.
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
    gone: Tombstones,
    users: Vec<TopEntry>,
    destinations: Vec<TopEntry>,
    /// What connections moved that have ended since the last look.
    ended_by_user: TopList,
    ended_by_destination: TopList,
    log: VecDeque<LogLine>,
}

impl Model {
    /// How the server was doing at the last look; `None` before the first.
    pub fn status(&self) -> Option<&ServerStatus> {
        self.last.map(|_| &self.status)
    }

    /// How many SOCKS connections were open at the last look.
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
    pub fn log_line(&mut self, line: LogLine) {
        if self.log.len() >= MAX_ROWS {
            self.log.pop_front();
        }
        self.log.push_back(line);
    }

    /// Takes an event that was heard of `now`.
    pub fn event(&mut self, event: WatchEvent, now: Instant) {
        match event {
            WatchEvent::Opened(connection) => self.opened(connection),
            WatchEvent::Closed(connection, duration) => self.closed(connection, duration, now),
            WatchEvent::Logged(line) => self.log_line(line),
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
        let counted = row.map(|row| row.connection.bytes).or_else(|| self.gone.counted(&id));
        let is_new = self.last.is_some_and(|(at, _)| {
            duration <= now.saturating_duration_since(at).saturating_add(EVENT_DELAY)
        });
        // Of one that is older than the last look, but was not in it, nobody knows when it moved its bytes.
        if let Some(counted) = counted.or_else(|| is_new.then(Bytes::default)) {
            let moved = bytes.since(counted);
            self.ended_by_user.add_closed(&user, moved);
            self.ended_by_destination.add_closed(&destination, moved);
        }
        self.gone.remember(id, bytes, true, now);
    }

    /// Takes a look at the server.
    pub fn look(&mut self, look: Snapshot) {
        let before = self.last.replace((look.at, look.bytes));
        let period = before.map(|(at, _)| look.at.saturating_duration_since(at));
        self.connections = look.connections;
        self.status = look.status;
        if let (Some((since, bytes)), Some(period)) = (before, period) {
            let moved = look.bytes.since(bytes);
            let figures = Figures {
                up: per_second(moved.up, period),
                down: per_second(moved.down, period),
                connections: look.connections,
            };
            self.history.push(Sample { since, until: look.at, figures });
        } else {
            let connections = look.connections;
            self.history.raise_peak(Figures { connections, ..Figures::default() });
        }
        self.list(look.list, period, look.at);
    }

    /// Takes the list of connections. Before there is a period, nobody knows how fast they are.
    fn list(&mut self, list: Vec<ConnectionInfo>, period: Option<Duration>, now: Instant) {
        let mut users = mem::take(&mut self.ended_by_user);
        let mut destinations = mem::take(&mut self.ended_by_destination);
        let mut before = mem::take(&mut self.open);
        for connection in list {
            // The list is older than the event that told of the end.
            if self.gone.has_closed(&connection.id) {
                continue;
            }
            let bytes = connection.bytes;
            let row = before.remove(&connection.id);
            let speed = row.as_ref().map(|row| row.speed).unwrap_or_default();
            let counted = row
                .map(|row| row.connection.bytes)
                .or_else(|| self.gone.counted(&connection.id))
                .unwrap_or_default();
            let moved = if period.is_some() { bytes.since(counted) } else { Bytes::default() };
            users.add_open(&connection.user, moved, bytes.total());
            destinations.add_open(&connection.destination, moved, bytes.total());
            let speed = match period {
                Some(period) if connection.age.is_zero() || connection.age >= period => {
                    speed.after(moved, period)
                }
                // Nothing but its average is known of one that is younger than the last look.
                _ => speed.after(bytes, connection.age),
            };
            self.open.insert(connection.id.clone(), Row { connection, speed });
        }
        self.listed = self.open.len();
        for (id, row) in before {
            self.gone.remember(id, row.connection.bytes, false, now);
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A server whose connections are told in short: id, up, down. Users are called by the id up to its dot.
    struct Story {
        model: Model,
        now: Instant,
    }

    fn connection(id: &str, up: u64, down: u64) -> ConnectionInfo {
        let user = id.split('.').next().unwrap_or_default();
        let line = format!("id={id} user={user} source=a:1 destination=b:2 up={up} down={down}");
        ConnectionInfo::parse(&line)
    }

    impl Story {
        fn new() -> Self {
            Story { model: Model::default(), now: Instant::now() }
        }

        fn look(&mut self, list: &[(&str, u64, u64)], up: u64, down: u64) -> &mut Self {
            self.model.look(Snapshot {
                at: self.now,
                connections: list.len() as u64,
                bytes: Bytes { up, down },
                status: ServerStatus::default(),
                list: list.iter().map(|(id, up, down)| connection(id, *up, *down)).collect(),
            });
            self
        }

        fn after(&mut self, time: Duration) -> &mut Self {
            self.now += time;
            self
        }

        fn opened(&mut self, id: &str) -> &mut Self {
            self.model.event(WatchEvent::Opened(connection(id, 0, 0)), self.now);
            self
        }

        fn closed(&mut self, id: &str, up: u64, down: u64, duration: Duration) -> &mut Self {
            self.model.event(WatchEvent::Closed(connection(id, up, down), duration), self.now);
            self
        }

        fn users(&self) -> Vec<(&str, u64, u64)> {
            let users = self.model.users().iter();
            users.map(|user| (user.name.as_str(), user.rate.up, user.rate.down)).collect()
        }

        fn ids(&self) -> Vec<&str> {
            self.model.rows().map(|row| row.connection.id.as_str()).collect()
        }
    }

    #[test]
    fn rates_are_differences_by_the_true_time() {
        let mut story = Story::new();
        assert!(story.model.status().is_none());
        story.look(&[("amy.1", 100, 0)], 1000, 5000);
        assert_eq!((story.model.history().current(), story.users()), (None, vec![("amy", 0, 0)]));
        assert_eq!(story.model.history().peak().connections, 1);
        story.after(SECOND / 2).look(&[("amy.1", 150, 10)], 1050, 5100);
        let figures = Figures { up: 100, down: 200, connections: 1 };
        assert_eq!(story.model.history().current(), Some(figures));
        assert_eq!(story.users(), [("amy", 100, 20)]);
        assert_eq!(story.model.rows().next().map(|row| row.speed.rate.up), Some(100));
        story.after(SECOND * 2).look(&[("amy.1", 150, 10)], 1050, 5100);
        assert_eq!(story.users(), [("amy", 0, 0)]);
        assert_eq!(story.model.history().peak(), figures);
    }

    #[test]
    fn the_busiest_come_first_then_the_largest_then_the_oldest() {
        let mut story = Story::new();
        let before = [("a.1", 0, 0), ("b.1", 500, 0), ("c.1", 9, 0), ("d.1", 9, 0)];
        story.look(&before, 0, 0).after(SECOND);
        story.look(&[("d.1", 9, 0), ("c.1", 9, 0), ("b.1", 500, 0), ("a.1", 3, 0)], 0, 0);
        assert_eq!(story.ids(), ["a.1", "b.1", "c.1", "d.1"]);
        assert_eq!(story.users()[0], ("a", 3, 0));
    }

    #[test]
    fn those_that_deliver_in_bursts_keep_their_place() {
        let mut story = Story::new();
        for second in 0..12_u64 {
            let (steady, bursts) = (second * 1000, second / 2 * 3000);
            story.look(&[("steady.1", steady, 0), ("bursts.1", bursts, 0)], 0, 0).after(SECOND);
            if second > 3 {
                assert_eq!(story.ids(), ["bursts.1", "steady.1"], "{second}");
            }
        }
    }

    #[test]
    fn a_young_connection_shows_its_average_since_its_start() {
        let mut model = Model::default();
        let start = Instant::now();
        let mut look = |second: u32, list: &[&str]| {
            let list = list.iter().map(|line| ConnectionInfo::parse(line)).collect();
            let (connections, bytes) = (0, Bytes::default());
            let status = ServerStatus::default();
            let at = start + SECOND * second;
            model.look(Snapshot { at, connections, bytes, status, list });
            model.rows().map(|row| row.speed.rate.up).collect::<Vec<_>>()
        };
        assert_eq!(look(0, &["id=1.1 up=500 age=5.000"]), [100]);
        assert_eq!(look(2, &["id=1.1 up=500 age=7.000", "id=2.1 up=500 age=0.500"]), [1000, 0]);
        assert_eq!(look(4, &["id=1.1 up=900 age=9.000", "id=2.1 up=500 age=2.500"]), [200, 0]);
    }

    #[test]
    fn a_connection_between_two_looks_counts() {
        let mut story = Story::new();
        story.look(&[], 0, 0).after(SECOND / 2).opened("amy.1");
        assert_eq!(story.ids(), ["amy.1"]);
        assert!(story.model.find("amy.1").is_some());
        story.closed("amy.1", 70, 30, SECOND / 4);
        assert!(story.ids().is_empty() && story.model.find("amy.1").is_none());
        story.after(SECOND / 2).look(&[], 70, 30);
        assert_eq!(story.users(), [("amy", 70, 30)]);
        story.after(SECOND).look(&[], 70, 30);
        assert_eq!(story.users(), []);
    }

    #[test]
    fn the_end_tells_what_the_last_look_did_not() {
        let mut story = Story::new();
        story.look(&[("amy.1", 100, 0)], 0, 0).after(SECOND).closed("amy.1", 150, 0, SECOND * 9);
        story.look(&[], 0, 0);
        assert_eq!(story.users(), [("amy", 50, 0)]);
    }

    #[test]
    fn an_end_before_the_look_that_still_lists_it_counts_once() {
        let mut story = Story::new();
        story.look(&[("amy.1", 100, 0)], 0, 0).after(SECOND).closed("amy.1", 150, 0, SECOND * 9);
        story.look(&[("amy.1", 140, 0)], 0, 0);
        assert_eq!(story.users(), [("amy", 50, 0)]);
        assert!(story.ids().is_empty());
        story.after(SECOND).look(&[], 0, 0);
        assert_eq!(story.users(), []);
    }

    #[test]
    fn an_end_after_the_look_without_it_counts_once() {
        let mut story = Story::new();
        story.look(&[("amy.1", 100, 0)], 0, 0).after(SECOND).look(&[], 0, 0);
        story.closed("amy.1", 150, 0, SECOND * 9).after(SECOND).look(&[], 0, 0);
        assert_eq!(story.users(), [("amy", 50, 0)]);
    }

    #[test]
    fn what_was_before_the_watch_is_no_rate() {
        let mut story = Story::new();
        story.closed("amy.1", 500, 0, SECOND).look(&[("bob.1", 500, 0)], 500, 0);
        story.closed("carl.1", 500, 0, SECOND * 60).after(SECOND).look(
            &[("bob.1", 500, 0)],
            500,
            0,
        );
        assert_eq!(story.users(), [("bob", 0, 0)]);
        assert_eq!(story.model.history().peak().up, 0);
    }

    #[test]
    fn an_older_list_does_not_lose_a_new_connection() {
        let mut story = Story::new();
        story.look(&[], 0, 0).after(SECOND).opened("amy.1").look(&[], 0, 0).after(SECOND);
        story.look(&[("amy.1", 60, 0)], 0, 0);
        assert_eq!((story.ids(), story.users()), (vec!["amy.1"], vec![("amy", 60, 0)]));
        story.opened("amy.1").after(SECOND).look(&[("amy.1", 70, 0)], 0, 0);
        assert_eq!(story.users(), [("amy", 10, 0)]);
    }

    #[test]
    fn connections_that_never_end_are_bounded() {
        let mut story = Story::new();
        story.look(&[], 0, 0);
        for index in 0..MAX_UNLISTED + 10 {
            story.opened(&format!("amy.{index}"));
        }
        assert_eq!(story.model.row_count(), MAX_UNLISTED);
        story.closed("amy.7", 1, 0, SECOND).opened("bob.1");
        assert!(story.model.find("bob.1").is_some(), "there is room again");
        story.look(&[], 0, 0).opened("carl.1");
        assert_eq!(story.ids(), ["carl.1"]);
    }

    #[test]
    fn nothing_grows_between_looks() {
        let mut story = Story::new();
        story.look(&[], 0, 0);
        for index in 0..5000 {
            let id = format!("amy.{index}");
            story.opened(&id).closed(&id, 1, 0, SECOND / 10);
            story.model.log_line(LogLine { time: id, ..LogLine::default() });
        }
        assert!(story.model.order.len() <= MAX_ROWS + 2);
        assert_eq!(story.model.log().count(), MAX_ROWS);
        assert_eq!(story.model.log().next_back().map(|line| line.time.as_str()), Some("amy.4999"));
    }
}
