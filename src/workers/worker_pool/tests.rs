use std::collections::HashSet;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;

use super::*;
use crate::reactor::waker::Waker;
use crate::workers::fixture::{Loop, gate};

const KIND: Kind = Kind { thread: c"test", jobs: "tests", stack_bytes: 128 * 1024, nice: 0 };
const QUEUE: usize = 8;

struct Fixture {
    waits: Loop,
    workers: Workers<String, usize>,
    /// Dropping it ends all jobs that hang.
    _release: mpsc::Sender<()>,
}

/// Workers that measure names. `hang…` never answers, and `panic` panics.
fn fixture(threads: usize, threads_in_all: usize) -> Fixture {
    let (waits, waker) = Loop::new();
    let (release, pass) = gate();
    let run = move |name: &String| {
        if name.starts_with("hang") {
            pass();
        }
        assert_ne!(name, "panic");
        name.len()
    };
    let queue = if threads_in_all > 100 { 1024 } else { QUEUE };
    let limits = Limits { threads, threads_in_all, queue };
    Fixture { waits, workers: Workers::new(KIND, limits, waker, run), _release: release }
}

impl Fixture {
    fn ask(&mut self, name: &str) {
        self.workers.submit(name.to_owned());
    }

    /// Waits for answers as the loop does.
    fn wait(&mut self, within: Duration) -> Vec<Done<String, usize>> {
        let workers = &mut self.workers;
        self.waits.wait(within, |now| (workers.answers(), workers.check(now)))
    }

    fn threads(&self) -> usize {
        self.workers.shared.lock().threads
    }

    /// Waits until a worker has taken a name.
    fn wait_for_worker(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.workers.shared.lock().running.is_empty() {
            assert!(Instant::now() < deadline, "no worker came");
            std::thread::yield_now();
        }
    }
}

fn names(answers: &[Done<String, usize>]) -> Vec<&str> {
    answers.iter().map(|answer| answer.job.as_str()).collect()
}

#[test]
fn jobs_are_answered() {
    let mut fixture = fixture(2, 2);
    fixture.ask("example.com");
    let answers = fixture.wait(Duration::from_secs(10));
    assert_eq!(names(&answers), ["example.com"]);
    assert_eq!(answers[0].outcome, Ok(11));
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
    assert!(answers.iter().all(|answer| answer.outcome == Err(Failure::Overflow)));
    assert_eq!(names(&answers), ["hang0", "hang1", "hang2"]);
}

#[test]
fn cancelled_jobs_are_never_begun() {
    let mut fixture = fixture(1, 1);
    fixture.ask("hang");
    fixture.wait_for_worker();
    fixture.ask("cancelled.example");
    fixture.ask("example.com");
    let mut cancel = |name| fixture.workers.cancel(|job| job == name);
    assert_eq!(cancel("cancelled.example").as_deref(), Some("cancelled.example"));
    assert_eq!(cancel("hang"), None, "a worker has it");
    assert_eq!(fixture.workers.shared.lock().queue, ["example.com"]);
}

#[test]
fn a_panic_is_an_answer() {
    let mut fixture = fixture(1, 1);
    fixture.ask("panic");
    let answers = fixture.wait(Duration::from_secs(10));
    assert_eq!(answers[0].outcome, Err(Failure::Panicked));
    fixture.ask("example.com");
    let answers = fixture.wait(Duration::from_secs(10));
    assert_eq!(answers[0].outcome, Ok(11));
}

#[test]
fn every_job_is_answered_once() {
    let mut fixture = fixture(4, 400);
    for number in 0..200 {
        fixture.ask(&number.to_string());
    }
    let mut seen = HashSet::new();
    while seen.len() < 200 {
        let answers = fixture.wait(Duration::from_secs(10));
        assert!(!answers.is_empty(), "only {} answers", seen.len());
        assert!(answers.into_iter().all(|answer| seen.insert(answer.job)));
    }
}

/// Fails this number of times.
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

/// Workers whose waker fails this number of times.
fn hard_to_wake(failures: usize) -> (Loop, Workers<String, usize>, Arc<AtomicUsize>) {
    let (waits, waker) = Loop::new();
    let failures = Arc::new(AtomicUsize::new(failures));
    let waker = Stubborn { waker, failures: Arc::clone(&failures) };
    let limits = Limits { threads: 4, threads_in_all: 4, queue: QUEUE };
    (waits, Workers::new(KIND, limits, waker, String::len), failures)
}

/// The loop sleeps, and nothing else would wake it.
#[test]
fn a_worker_that_fails_to_wake_the_loop_tries_again() {
    let (mut waits, mut workers, failures) = hard_to_wake(0);
    for often in [1, 3, 0, 1] {
        failures.store(often, Ordering::SeqCst);
        workers.submit("example.com".to_owned());
        let woken = waits.sleep(Duration::from_secs(10));
        assert!(woken, "the loop was not woken after {often} failures");
        assert_eq!(names(&workers.answers()), ["example.com"]);
    }
}

/// The loop is never woken, and looks for answers when `check` says so.
#[test]
fn a_loop_that_is_never_woken_comes_by() {
    let (_waits, mut workers, _) = hard_to_wake(usize::MAX);
    for round in 0..3 {
        for number in 0..QUEUE {
            workers.submit(number.to_string());
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut answered = 0;
        while answered < QUEUE {
            let now = Instant::now();
            assert!(now < deadline, "{answered} answers in round {round}");
            let next = workers.check(now);
            let most = if round == 0 { SLEEP } else { CHECK };
            assert!(next <= now + most, "it would sleep for {:?}", next - now);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            answered += workers.answers().len();
        }
    }
    assert!(!workers.ready(), "all have been taken");
}

/// An answer that the loop makes itself needs no wake-up: it does not sleep before it takes it.
#[test]
fn an_answer_of_the_loop_itself_is_there_at_once() {
    let mut fixture = fixture(1, 1);
    fixture.ask("hang");
    fixture.wait_for_worker();
    for number in 0..=QUEUE {
        assert!(!fixture.workers.ready());
        fixture.ask(&format!("hang{number}"));
    }
    assert!(fixture.workers.ready());
    let now = Instant::now();
    assert_eq!(fixture.workers.check(now), now);
    assert_eq!(names(&fixture.workers.answers()), ["hang0"]);
    assert!(!fixture.workers.ready());
}

/// Workers never allocate for the list of running jobs.
#[test]
fn there_is_room_for_all_that_workers_begin() {
    let mut fixture = fixture(4, 400);
    for number in 0..200 {
        fixture.ask(&number.to_string());
        let state = fixture.workers.shared.lock();
        assert!(state.running.capacity() >= state.threads);
    }
    let mut answered = 0;
    while answered < 200 {
        answered += fixture.wait(Duration::from_secs(10)).len();
        let state = fixture.workers.shared.lock();
        assert!(state.running.capacity() >= state.threads);
    }
}

/// Where there is no room for a stack, jobs are answered, and nothing waits for a worker that never comes.
#[test]
fn a_worker_that_cannot_be_started_is_a_failed_answer() {
    let (_waits, waker) = Loop::new();
    let kind = Kind { stack_bytes: 1 << 50, ..KIND };
    let limits = Limits { threads: 4, threads_in_all: 4, queue: QUEUE };
    let mut workers = Workers::new(kind, limits, waker, String::len);
    for name in ["one", "two"] {
        workers.submit(name.to_owned());
        assert!(workers.ready());
        let answers = workers.answers();
        assert_eq!(names(&answers), [name]);
        assert_eq!(answers[0].outcome, Err(Failure::NoWorker));
    }
    assert_eq!(workers.load(), (0, 0));
}

/// The line names the pool, the errno, and what becomes of requests.
#[test]
fn the_line_of_a_shortage_says_what_it_means() {
    let error = io::Error::from_raw_os_error(libc::EAGAIN);
    let cause = "Resource temporarily unavailable (os error 11)";
    assert_eq!(
        shortage("logins", &error, 0),
        format!(
            "no thread for logins can be started: {cause}: there is none, and what needs one fails"
        )
    );
    assert_eq!(
        shortage("look-ups", &error, 3),
        format!(
            "no thread for look-ups can be started: {cause}: there are 3, and what needs one waits for them"
        )
    );
}

/// Jobs of another kind.
#[test]
fn jobs_and_answers_may_be_of_any_type() {
    let (mut waits, waker) = Loop::new();
    let limits = Limits { threads: 2, threads_in_all: 2, queue: 100 };
    let mut workers = Workers::new(KIND, limits, waker, |job: &u64| job * job);
    (0..100).for_each(|job| workers.submit(job));
    let mut squares = Vec::new();
    while squares.len() < 100 {
        let done = waits.wait(SLOW * 20, |now| (workers.answers(), workers.check(now)));
        assert!(!done.is_empty(), "only {} answers", squares.len());
        squares.extend(done.into_iter().map(|Done { job, outcome }| (job, outcome)));
    }
    squares.sort_unstable_by_key(|(job, _)| *job);
    assert!(squares.into_iter().eq((0..100).map(|job| (job, Ok(job * job)))));
}
