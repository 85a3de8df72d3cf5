//! Snapshots and events in any order.

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
        self.model.apply_snapshot(Snapshot {
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
        model.apply_snapshot(Snapshot { at, connections, bytes, status, list });
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
    story.closed("carl.1", 500, 0, SECOND * 60).after(SECOND).look(&[("bob.1", 500, 0)], 500, 0);
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
        story.model.add_log_line(LogLine { time: id, ..LogLine::default() });
    }
    assert!(story.model.order.len() <= MAX_ROWS + 2);
    assert_eq!(story.model.log().count(), MAX_ROWS);
    assert_eq!(story.model.log().next_back().map(|line| line.time.as_str()), Some("amy.4999"));
}

#[test]
fn it_stands_still_as_long_as_anything_wants_it_to() {
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
