//! The names of addresses: who is answered, what is looked up, and what that may hold.

use super::*;
use crate::workers::resolver::NameDone;

/// A session's answer.
type Named = (u64, Result<Box<str>, ResolveError>);

const NONE: Result<Box<str>, ResolveError> = Err(ResolveError::NotFound);

fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn named(answers: Vec<NameAnswer>) -> Vec<Named> {
    answers.into_iter().map(|answer| (answer.key.pack(), answer.name)).collect()
}

impl Fixture {
    /// A look-up has ended.
    fn answer_name(&mut self, address: IpAddr, outcome: Outcome<String>) -> Vec<Named> {
        named(self.names.take_names(vec![NameDone { address, outcome }]))
    }

    /// Ends a look-up and waits for what sessions are told of it.
    fn settle_name(&mut self) -> Vec<Named> {
        self.permits.send(()).expect("the worker lives");
        self.next_names()
    }

    fn next_names(&mut self) -> Vec<Named> {
        let names = &mut self.names;
        let answers = self.waits.wait(Duration::from_secs(10), |now| {
            let answers = names.names();
            (answers, names.check(now).unwrap_or(now))
        });
        assert!(!answers.is_empty(), "no name came");
        named(answers)
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&DnsCache) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_so(&self.names) {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::yield_now();
        }
    }
}

#[test]
fn equal_addresses_are_looked_up_once() {
    let mut fixture = fixture();
    fixture.names.ask_name(key(1), address(1));
    fixture.begun(1);
    fixture.names.ask_name(key(2), address(1));
    fixture.names.ask_name(key(3), address(2));
    let stats = fixture.names.stats();
    assert_eq!((stats.queries, stats.running, stats.queued), (2, 1, 1));
    let name = || Ok("a.example".into());
    let answers = fixture.answer_name(address(1), Outcome::Found("a.example".to_owned()));
    assert_eq!(answers, [(1, name()), (2, name())]);
    assert_eq!(fixture.names.stats().failures, 0);
}

/// Nothing is cached: neither a name nor that there is none.
#[test]
fn the_next_question_is_a_look_up_again() {
    let mut fixture = fixture();
    for (number, outcome) in
        [Outcome::Found("a.example".to_owned()), Outcome::NotFound].into_iter().enumerate()
    {
        fixture.names.ask_name(key(1), address(1));
        assert_eq!(fixture.names.stats().queries, 1 + number as u64);
        assert_eq!(fixture.answer_name(address(1), outcome).len(), 1);
    }
    assert_eq!((fixture.names.stats().cached, fixture.names.stats().hits), (0, 0));
}

#[test]
fn a_session_is_told_why_there_is_no_name() {
    let mut fixture = fixture();
    let outcomes = [
        (Outcome::NotFound, ResolveError::NotFound),
        (Outcome::Unanswered, ResolveError::NotFound),
        (Outcome::Overflow, ResolveError::NotFound),
        (Outcome::Failed(io::ErrorKind::Other.into()), ResolveError::Failed),
        (Outcome::NoWorker, ResolveError::Failed),
    ];
    for (number, (outcome, error)) in outcomes.into_iter().enumerate() {
        fixture.names.ask_name(key(1), address(1));
        assert_eq!(fixture.answer_name(address(1), outcome), [(1, Err(error))]);
        assert_eq!(fixture.names.stats().failures, 1 + number as u64);
    }
}

#[test]
fn who_has_left_gets_no_name_and_an_address_nobody_asks_for_is_dropped() {
    let mut fixture = fixture();
    fixture.names.ask_name(key(1), address(1));
    fixture.begun(1);
    fixture.names.ask_name(key(2), address(2));
    fixture.names.ask_name(key(3), address(2));
    fixture.names.cancel_name(key(2), address(2));
    fixture.names.cancel_name(key(9), address(2));
    assert_eq!(fixture.names.stats().queued, 1, "one session still waits");
    fixture.names.cancel_name(key(3), address(2));
    assert_eq!((fixture.names.stats().queued, fixture.names.orphans()), (0, 0));
    fixture.names.cancel_name(key(3), address(2));
    // Its worker goes on; the answer is nobody's.
    fixture.names.ask_name(key(4), address(1));
    fixture.names.cancel_name(key(1), address(1));
    assert_eq!(fixture.settle_name(), [(4, NONE)]);
    assert_eq!(fixture.names.check(Instant::now()), None);
    fixture.names.cancel_name(key(4), address(1));
    assert_eq!(fixture.names.orphans(), 0);
}

/// A look-up that has begun cannot be interrupted: it may hold a descriptor until its answer has come.
#[test]
fn a_look_up_without_a_session_is_an_orphan_until_it_is_answered() {
    let mut fixture = fixture();
    fixture.names.ask_name(key(1), address(1));
    assert_eq!(fixture.names.orphans(), 0, "the session's descriptor is for it");
    fixture.begun(1);
    fixture.names.cancel_name(key(1), address(1));
    assert_eq!(fixture.names.orphans(), 1);
    fixture.names.cancel_name(key(1), address(1));
    assert_eq!(fixture.names.orphans(), 1, "it has left before");
    fixture.names.ask_name(key(2), address(1));
    assert_eq!((fixture.names.orphans(), fixture.names.stats().queries), (0, 1), "it is joined");
    fixture.names.cancel_name(key(2), address(1));
    assert_eq!(fixture.names.orphans(), 1);
    assert!(fixture.names.check(Instant::now()).is_some(), "its answer is still to come");
    fixture.permits.send(()).expect("the worker lives");
    fixture.wait_until("no answer came", |names| names.ready(Instant::now()));
    assert_eq!(fixture.names.names(), []);
    assert_eq!((fixture.names.orphans(), fixture.names.check(Instant::now())), (0, None));
}

/// Look-ups of both kinds are made by the same workers, which hold one descriptor each.
#[test]
fn orphans_of_both_kinds_are_added_up() {
    let (mut fixture, now) = (fixture(), Instant::now());
    fixture.names.limit(Limits { threads: 4, threads_in_all: 4, queue: 8 });
    fixture.ask(1, "a.example", now);
    for number in 1..=2 {
        fixture.names.ask_name(key(number), address(number as u8));
    }
    fixture.begun(4);
    assert_eq!(fixture.names.orphans(), 1, "the second family");
    fixture.names.cancel_name(key(1), address(1));
    assert_eq!(fixture.names.orphans(), 2);
    fixture.names.cancel(key(1), "a.example");
    assert_eq!(fixture.names.orphans(), 3);
    fixture.names.cancel_name(key(2), address(2));
    assert_eq!(fixture.names.orphans(), 4);
    // What waits for a worker holds nothing yet, but counts until it is dropped.
    assert!(fixture.names.ask_beside(key(5), "b.example", now).is_none());
    assert_eq!(fixture.names.orphans(), 4, "as many as there may be workers");
}

/// The queue has its bound for both kinds together: whoever has waited longest is answered.
#[test]
fn of_too_many_addresses_the_oldest_is_not_looked_up() {
    let (mut fixture, now) = (fixture(), Instant::now());
    fixture.names.ask_name(key(1), address(1));
    fixture.begun(1);
    fixture.names.ask_name(key(2), address(2));
    fixture.ask(3, "a.example", now);
    for number in 4..=8 {
        fixture.names.ask_name(key(number), address(number as u8));
    }
    assert_eq!(fixture.names.stats().queued, 8);
    assert_eq!(fixture.names.names(), []);
    fixture.names.ask_name(key(9), address(9));
    assert_eq!(fixture.names.stats().queued, 8);
    assert_eq!(fixture.next_names(), [(2, NONE)]);
    assert_eq!((fixture.names.stats().queries, fixture.names.stats().failures), (9, 1));
    // The newest first.
    assert_eq!(fixture.settle_name(), [(1, NONE)]);
    assert_eq!(fixture.settle_name(), [(9, NONE)]);
    assert_eq!(fixture.settle_name(), [(8, NONE)]);
}

/// An overflown look-up is no longer in the queue, so it cannot be withdrawn: its answer comes, for nobody.
#[test]
fn who_leaves_before_the_overflow_is_known_is_not_answered() {
    let mut fixture = fixture();
    fixture.names.limit(Limits { threads: 1, threads_in_all: 1, queue: 0 });
    fixture.names.ask_name(key(1), address(1));
    fixture.names.cancel_name(key(1), address(1));
    assert_eq!(fixture.names.orphans(), 1);
    assert_eq!(fixture.names.names(), []);
    assert_eq!((fixture.names.orphans(), fixture.names.check(Instant::now())), (0, None));
}

#[test]
fn the_loop_comes_by_itself_while_an_address_is_looked_up() {
    let (mut fixture, now) = (fixture(), Instant::now());
    assert_eq!(fixture.names.check(now), None, "nothing is looked up");
    fixture.names.ask_name(key(1), address(1));
    assert!(fixture.names.check(now).is_some_and(|next| next > now));
    fixture.ask(2, "a.example", now);
    (0..3).for_each(|_| fixture.permits.send(()).expect("the worker lives"));
    let is_idle = |stats: DnsStats| (stats.queued, stats.running) == (0, 0);
    fixture.wait_until("no answers came", |names| is_idle(names.stats()));
    // What was taken together is handed out by two calls.
    assert_eq!(told(fixture.names.resolutions(now)), [(2, NOT_FOUND, false)]);
    assert!(fixture.names.ready(now));
    assert_eq!(fixture.names.check(now), Some(now), "a name waits");
    assert_eq!(named(fixture.names.names()), [(1, NONE)]);
    assert!(!fixture.names.ready(now));
    assert_eq!(fixture.names.check(now), None);
}
