//! Snapshots and events in any order.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A model and its clock. Connections are written as id, up, down; the user is the id up to its dot.
struct Fixture {
    model: Model,
    now: Instant,
}

fn connection(id: &str, up: u64, down: u64) -> ConnectionInfo {
    let user = id.split('.').next().unwrap_or_default();
    let line = format!("id={id} user={user} source=a:1 destination=b:2 up={up} down={down}");
    ConnectionInfo::parse(&line)
}

impl Fixture {
    fn new() -> Self {
        Fixture { model: Model::default(), now: Instant::now() }
    }

    fn snapshot(&mut self, list: &[(&str, u64, u64)], up: u64, down: u64) -> &mut Self {
        self.model.apply_snapshot(Snapshot {
            at: self.now,
            connections: list.len() as u64,
            bytes: Bytes { up, down },
            status: ServerStatus::default(),
            list: list.iter().map(|(id, up, down)| connection(id, *up, *down)).collect(),
            limits: HashMap::new(),
        });
        self
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    fn opened(&mut self, id: &str) -> &mut Self {
        self.model.apply_event(WatchEvent::Opened(connection(id, 0, 0)), self.now);
        self
    }

    fn closed(&mut self, id: &str, up: u64, down: u64, duration: Duration) -> &mut Self {
        self.model.apply_event(WatchEvent::Closed(connection(id, up, down), duration), self.now);
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
    let mut fixture = Fixture::new();
    assert!(fixture.model.status().is_none());
    fixture.snapshot(&[("amy.1", 100, 0)], 1000, 5000);
    assert_eq!((fixture.model.history().current(), fixture.users()), (None, vec![("amy", 0, 0)]));
    assert_eq!(fixture.model.history().peak().connections, 1);
    fixture.after(SECOND / 2).snapshot(&[("amy.1", 150, 10)], 1050, 5100);
    let figures = Figures { up: 100, down: 200, connections: 1 };
    assert_eq!(fixture.model.history().current(), Some(figures));
    assert_eq!(fixture.users(), [("amy", 100, 20)]);
    assert_eq!(fixture.model.rows().next().map(|row| row.speed.rate.up), Some(100));
    fixture.after(SECOND * 2).snapshot(&[("amy.1", 150, 10)], 1050, 5100);
    assert_eq!(fixture.users(), [("amy", 0, 0)]);
    assert_eq!(fixture.model.history().peak(), figures);
}

#[test]
fn the_busiest_come_first_then_the_largest_then_the_oldest() {
    let mut fixture = Fixture::new();
    let before = [("a.1", 0, 0), ("b.1", 500, 0), ("c.1", 9, 0), ("d.1", 9, 0)];
    fixture.snapshot(&before, 0, 0).after(SECOND);
    fixture.snapshot(&[("d.1", 9, 0), ("c.1", 9, 0), ("b.1", 500, 0), ("a.1", 3, 0)], 0, 0);
    assert_eq!(fixture.ids(), ["a.1", "b.1", "c.1", "d.1"]);
    assert_eq!(fixture.users()[0], ("a", 3, 0));
}

#[test]
fn those_that_deliver_in_bursts_keep_their_place() {
    let mut fixture = Fixture::new();
    for second in 0..12_u64 {
        let (steady, bursts) = (second * 1000, second / 2 * 3000);
        fixture.snapshot(&[("steady.1", steady, 0), ("bursts.1", bursts, 0)], 0, 0).after(SECOND);
        if second > 3 {
            assert_eq!(fixture.ids(), ["bursts.1", "steady.1"], "{second}");
        }
    }
}

#[test]
fn a_young_connection_shows_its_average_since_its_start() {
    let mut model = Model::default();
    let start = Instant::now();
    let mut snapshot = |second: u32, list: &[&str]| {
        let list = list.iter().map(|line| ConnectionInfo::parse(line)).collect();
        let (connections, bytes) = (0, Bytes::default());
        let status = ServerStatus::default();
        let at = start + SECOND * second;
        model.apply_snapshot(Snapshot {
            at,
            connections,
            bytes,
            status,
            list,
            limits: HashMap::new(),
        });
        model.rows().map(|row| row.speed.rate.up).collect::<Vec<_>>()
    };
    assert_eq!(snapshot(0, &["id=1.1 up=500 age=5.000"]), [100]);
    assert_eq!(snapshot(2, &["id=1.1 up=500 age=7.000", "id=2.1 up=500 age=0.500"]), [1000, 0]);
    assert_eq!(snapshot(4, &["id=1.1 up=900 age=9.000", "id=2.1 up=500 age=2.500"]), [200, 0]);
}

#[test]
fn a_connection_between_two_snapshots_counts() {
    let mut fixture = Fixture::new();
    fixture.snapshot(&[], 0, 0).after(SECOND / 2).opened("amy.1");
    assert_eq!(fixture.ids(), ["amy.1"]);
    assert!(fixture.model.find("amy.1").is_some());
    fixture.closed("amy.1", 70, 30, SECOND / 4);
    assert!(fixture.ids().is_empty() && fixture.model.find("amy.1").is_none());
    fixture.after(SECOND / 2).snapshot(&[], 70, 30);
    assert_eq!(fixture.users(), [("amy", 70, 30)]);
    fixture.after(SECOND).snapshot(&[], 70, 30);
    assert_eq!(fixture.users(), []);
}

#[test]
fn the_close_event_adds_what_the_last_snapshot_lacks() {
    let mut fixture = Fixture::new();
    fixture.snapshot(&[("amy.1", 100, 0)], 0, 0).after(SECOND).closed("amy.1", 150, 0, SECOND * 9);
    fixture.snapshot(&[], 0, 0);
    assert_eq!(fixture.users(), [("amy", 50, 0)]);
}

#[test]
fn a_close_event_before_the_snapshot_that_lists_it_counts_once() {
    let mut fixture = Fixture::new();
    fixture.snapshot(&[("amy.1", 100, 0)], 0, 0).after(SECOND).closed("amy.1", 150, 0, SECOND * 9);
    fixture.snapshot(&[("amy.1", 140, 0)], 0, 0);
    assert_eq!(fixture.users(), [("amy", 50, 0)]);
    assert!(fixture.ids().is_empty());
    fixture.after(SECOND).snapshot(&[], 0, 0);
    assert_eq!(fixture.users(), []);
}

#[test]
fn a_close_event_after_the_snapshot_without_it_counts_once() {
    let mut fixture = Fixture::new();
    fixture.snapshot(&[("amy.1", 100, 0)], 0, 0).after(SECOND).snapshot(&[], 0, 0);
    fixture.closed("amy.1", 150, 0, SECOND * 9).after(SECOND).snapshot(&[], 0, 0);
    assert_eq!(fixture.users(), [("amy", 50, 0)]);
}

#[test]
fn what_was_before_the_watch_is_no_rate() {
    let mut fixture = Fixture::new();
    fixture.closed("amy.1", 500, 0, SECOND).snapshot(&[("bob.1", 500, 0)], 500, 0);
    fixture.closed("carl.1", 500, 0, SECOND * 60).after(SECOND).snapshot(
        &[("bob.1", 500, 0)],
        500,
        0,
    );
    assert_eq!(fixture.users(), [("bob", 0, 0)]);
    assert_eq!(fixture.model.history().peak().up, 0);
}

#[test]
fn an_older_list_does_not_lose_a_new_connection() {
    let mut fixture = Fixture::new();
    fixture.snapshot(&[], 0, 0).after(SECOND).opened("amy.1").snapshot(&[], 0, 0).after(SECOND);
    fixture.snapshot(&[("amy.1", 60, 0)], 0, 0);
    assert_eq!((fixture.ids(), fixture.users()), (vec!["amy.1"], vec![("amy", 60, 0)]));
    fixture.opened("amy.1").after(SECOND).snapshot(&[("amy.1", 70, 0)], 0, 0);
    assert_eq!(fixture.users(), [("amy", 10, 0)]);
}

#[test]
fn connections_that_never_end_are_bounded() {
    let mut fixture = Fixture::new();
    fixture.snapshot(&[], 0, 0);
    for index in 0..MAX_UNLISTED + 10 {
        fixture.opened(&format!("amy.{index}"));
    }
    assert_eq!(fixture.model.row_count(), MAX_UNLISTED);
    fixture.closed("amy.7", 1, 0, SECOND).opened("bob.1");
    assert!(fixture.model.find("bob.1").is_some(), "there is room again");
    fixture.snapshot(&[], 0, 0).opened("carl.1");
    assert_eq!(fixture.ids(), ["carl.1"]);
}

#[test]
fn nothing_grows_between_snapshots() {
    let mut fixture = Fixture::new();
    fixture.snapshot(&[], 0, 0);
    for index in 0..5000 {
        let id = format!("amy.{index}");
        fixture.opened(&id).closed(&id, 1, 0, SECOND / 10);
        fixture.model.add_log_line(LogLine { time: id, ..LogLine::default() });
    }
    assert!(fixture.model.order.len() <= MAX_ROWS + 2);
    assert_eq!(fixture.model.log().count(), MAX_ROWS);
    assert_eq!(fixture.model.log().next_back().map(|line| line.time.as_str()), Some("amy.4999"));
}

#[test]
fn the_screen_is_frozen_during_a_pause_or_a_hold() {
    let mut freeze = Freeze::default();
    let grow = |freeze: &mut Freeze| {
        freeze.live.add_log_line(LogLine::default());
        freeze.shown().log().count()
    };
    assert_eq!(grow(&mut freeze), 1);
    freeze.hold(true);
    assert_eq!(grow(&mut freeze), 1);
    freeze.hold(false);
    assert_eq!(grow(&mut freeze), 3);
    freeze.toggle_pause();
    assert_eq!(grow(&mut freeze), 3);
    freeze.hold(true);
    assert_eq!(grow(&mut freeze), 3);
    freeze.hold(false);
    assert_eq!((grow(&mut freeze), freeze.is_paused()), (3, true));
    freeze.hold(true);
    freeze.toggle_pause();
    assert_eq!(grow(&mut freeze), 3);
    freeze.hold(false);
    assert_eq!((grow(&mut freeze), freeze.is_paused()), (8, false));
}
