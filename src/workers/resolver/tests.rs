use std::collections::HashSet;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;

use mio::{Events, Poll, Token};

use super::*;
use crate::reactor::waker::Waker;

struct Fixture {
    poll: Poll,
    resolver: Resolver,
    /// Dropping it lets all names that hang go on.
    _release: mpsc::Sender<()>,
}

const QUEUE: usize = 8;

/// A resolver for which `hang…` never answers, `panic` panics and all other names are 192.0.2.1.
fn fixture(threads: usize, threads_in_all: usize) -> Fixture {
    let poll = Poll::new().expect("a poll");
    let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
    let (release, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let lookup = move |name: &str, port| {
        if name.starts_with("hang") {
            let _ = wait.lock().map(|wait| wait.recv());
        }
        assert_ne!(name, "panic");
        Ok(vec![SocketAddr::from(([192, 0, 2, 1], port))])
    };
    let queue = if threads_in_all > 100 { 1024 } else { QUEUE };
    let limits = Limits { threads, threads_in_all, queue };
    Fixture { poll, resolver: Resolver::new(limits, waker, Box::new(lookup)), _release: release }
}

impl Fixture {
    fn ask(&mut self, name: &str) {
        self.resolver.submit(name.to_owned());
    }

    /// Waits for answers as the loop does.
    fn wait(&mut self, within: Duration) -> Vec<LookupDone> {
        let mut events = Events::with_capacity(8);
        let deadline = Instant::now() + within;
        loop {
            let answers = self.resolver.answers();
            let now = Instant::now();
            if !answers.is_empty() || now >= deadline {
                return answers;
            }
            let until = self.resolver.check(now).map_or(deadline, |check| check.min(deadline));
            self.poll.poll(&mut events, Some(until - now)).expect("polled");
        }
    }

    fn threads(&self) -> usize {
        self.resolver.shared.lock().threads
    }

    /// Waits until a worker has taken a name.
    fn wait_for_worker(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.resolver.shared.lock().running.is_empty() {
            assert!(Instant::now() < deadline, "no worker came");
            std::thread::yield_now();
        }
    }
}

fn names(answers: &[LookupDone]) -> Vec<&str> {
    answers.iter().map(|answer| answer.name.as_str()).collect()
}

#[test]
fn names_are_answered() {
    let mut fixture = fixture(2, 2);
    fixture.ask("example.com");
    let answers = fixture.wait(Duration::from_secs(10));
    assert_eq!(names(&answers), ["example.com"]);
    let Outcome::Found(addresses) = &answers[0].outcome else { panic!("not found") };
    assert_eq!(addresses, &[SocketAddr::from(([192, 0, 2, 1], 0))]);
}

#[test]
fn three_hundred_dead_names_do_not_delay_a_good_one() {
    let mut fixture = fixture(32, 512);
    for number in 0..300 {
        fixture.ask(&format!("hang{number}"));
    }
    fixture.ask("example.com");
    assert_eq!(names(&fixture.wait(SLOW * 20)), ["example.com"]);
}

#[test]
fn threads_are_bounded() {
    let mut fixture = fixture(1, 3);
    for number in 0..QUEUE {
        fixture.ask(&format!("hang{number}"));
    }
    assert!(fixture.threads() <= 1);
    let deadline = Instant::now() + SLOW * 20;
    while fixture.threads() < 3 {
        assert!(fixture.wait(CHECK).is_empty());
        assert!(Instant::now() < deadline, "slow look-ups must not count");
    }
    assert!(fixture.wait(SLOW * 2).is_empty());
    assert_eq!(fixture.threads(), 3);
}

#[test]
fn a_full_queue_answers_the_oldest() {
    let mut fixture = fixture(1, 1);
    fixture.ask("hang");
    fixture.wait_for_worker();
    for number in 0..QUEUE + 3 {
        fixture.ask(&format!("hang{number}"));
    }
    let answers = fixture.wait(Duration::from_secs(10));
    assert!(answers.iter().all(|answer| matches!(answer.outcome, Outcome::Overflow)));
    assert_eq!(names(&answers), ["hang0", "hang1", "hang2"]);
}

#[test]
fn cancelled_names_are_never_looked_up() {
    let mut fixture = fixture(1, 1);
    fixture.ask("hang");
    fixture.wait_for_worker();
    fixture.ask("cancelled.example");
    fixture.ask("example.com");
    assert!(fixture.resolver.cancel("cancelled.example"));
    assert!(!fixture.resolver.cancel("hang"), "a worker has it");
    assert_eq!(fixture.resolver.shared.lock().queue, ["example.com"]);
}

#[test]
fn a_panic_is_an_answer() {
    let mut fixture = fixture(1, 1);
    fixture.ask("panic");
    let answers = fixture.wait(Duration::from_secs(10));
    assert!(matches!(answers[0].outcome, Outcome::Failed(_)));
    fixture.ask("example.com");
    let answers = fixture.wait(Duration::from_secs(10));
    assert!(matches!(answers[0].outcome, Outcome::Found(_)));
}

#[test]
fn every_name_is_answered_once() {
    let mut fixture = fixture(4, 400);
    for number in 0..200 {
        fixture.ask(&number.to_string());
    }
    let mut seen = HashSet::new();
    while seen.len() < 200 {
        let answers = fixture.wait(Duration::from_secs(10));
        assert!(!answers.is_empty(), "only {} answers", seen.len());
        assert!(answers.into_iter().all(|answer| seen.insert(answer.name)));
    }
}

/// Fails as often as it is told to.
struct Stubborn {
    waker: Waker,
    failures: Arc<AtomicUsize>,
}

impl Wake for Stubborn {
    fn wake(&self) -> io::Result<()> {
        let left = self.failures.load(Ordering::SeqCst);
        if left == 0 {
            return self.waker.wake();
        }
        self.failures.store(left.saturating_sub(1), Ordering::SeqCst);
        Err(io::Error::from_raw_os_error(libc::ENOMEM))
    }
}

/// A resolver for which every name is 192.0.2.1, and whose waker fails so often.
fn hard_to_wake(failures: usize) -> (Poll, Resolver, Arc<AtomicUsize>) {
    let poll = Poll::new().expect("a poll");
    let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
    let failures = Arc::new(AtomicUsize::new(failures));
    let waker = Stubborn { waker, failures: Arc::clone(&failures) };
    let lookup = |_: &str, port| Ok(vec![SocketAddr::from(([192, 0, 2, 1], port))]);
    let limits = Limits { threads: 4, threads_in_all: 4, queue: QUEUE };
    (poll, Resolver::new(limits, waker, Box::new(lookup)), failures)
}

/// The loop sleeps, and nothing else would wake it.
#[test]
fn a_worker_that_fails_to_wake_the_loop_tries_again() {
    let (mut poll, mut resolver, failures) = hard_to_wake(0);
    let mut events = Events::with_capacity(8);
    for often in [1, 3, 0, 1] {
        failures.store(often, Ordering::SeqCst);
        resolver.submit("example.com".to_owned());
        poll.poll(&mut events, Some(Duration::from_secs(10))).expect("polled");
        assert!(!events.is_empty(), "the loop was not woken after {often} failures");
        assert_eq!(names(&resolver.answers()), ["example.com"]);
    }
}

/// The loop never hears of an answer, and asks for them as often as it is told to.
#[test]
fn a_loop_that_is_never_woken_comes_by() {
    let (_poll, mut resolver, _) = hard_to_wake(usize::MAX);
    for round in 0..3 {
        for number in 0..QUEUE {
            resolver.submit(number.to_string());
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut answered = 0;
        while answered < QUEUE {
            let now = Instant::now();
            assert!(now < deadline, "{answered} answers in round {round}");
            let next = resolver.check(now).expect("names are being looked up");
            let most = if round == 0 { SLEEP } else { CHECK };
            assert!(next <= now + most, "it would sleep for {:?}", next - now);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            answered += resolver.answers().len();
        }
    }
    assert!(!resolver.ready(), "all have been taken");
}

/// What the loop has done itself needs no call to wake it: it does not sleep over an answer.
#[test]
fn an_answer_of_the_loop_itself_is_there_at_once() {
    let mut fixture = fixture(1, 1);
    fixture.ask("hang");
    fixture.wait_for_worker();
    for number in 0..=QUEUE {
        assert!(!fixture.resolver.ready());
        fixture.ask(&format!("hang{number}"));
    }
    assert!(fixture.resolver.ready());
    let now = Instant::now();
    assert_eq!(fixture.resolver.check(now), Some(now));
    assert_eq!(names(&fixture.resolver.answers()), ["hang0"]);
    assert!(!fixture.resolver.ready());
}

#[test]
fn errors_are_told_apart() {
    let outcome = |result: io::Result<Vec<SocketAddr>>| Outcome::from(result);
    assert!(matches!(outcome(Ok(Vec::new())), Outcome::NotFound));
    assert!(matches!(outcome(Err(io::ErrorKind::NotFound.into())), Outcome::NotFound));
    assert!(matches!(outcome(Err(io::ErrorKind::TimedOut.into())), Outcome::Unanswered));
    for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EAGAIN, libc::EIO]
    {
        let error = io::Error::from_raw_os_error(errno);
        assert!(matches!(outcome(Err(error)), Outcome::Failed(_)), "{errno}");
    }
    for kind in [io::ErrorKind::OutOfMemory, io::ErrorKind::Other] {
        assert!(matches!(outcome(Err(kind.into())), Outcome::Failed(_)), "{kind}");
    }
}

/// Workers never have to make room for what they begin.
#[test]
fn there_is_room_for_all_that_workers_begin() {
    let mut fixture = fixture(4, 400);
    for number in 0..200 {
        fixture.ask(&number.to_string());
        let state = fixture.resolver.shared.lock();
        assert!(state.running.capacity() >= state.threads);
    }
    let mut answered = 0;
    while answered < 200 {
        answered += fixture.wait(Duration::from_secs(10)).len();
        let state = fixture.resolver.shared.lock();
        assert!(state.running.capacity() >= state.threads);
    }
}

#[test]
fn an_episode_is_told_once() {
    let (mut episode, now) = (Episode::default(), Instant::now());
    let at = |seconds| now + Duration::from_secs(seconds);
    let told = [0, 0, 1, 9, 18, 28, 29, 40].map(|seconds| episode.begins(at(seconds)));
    assert_eq!(told, [true, false, false, false, false, true, false, true]);
}

#[test]
fn workers_leave_half_of_a_limited_address_space() {
    let limits = Limits::new(32, 1024, 1024);
    assert_eq!(limits.threads_in_all, 341);
    assert_eq!(limits.within(None), limits);
    assert_eq!(limits.within(Some(200 << 20)), limits);
    let small = limits.within(Some(64 << 20));
    assert_eq!(small, Limits { threads_in_all: 124, ..limits });
    assert!(small.threads_in_all * WORKER_BYTES <= 32 << 20);
    assert_eq!(limits.within(Some(0)).threads_in_all, 1);
}
