//! Names to addresses, in worker threads: getaddrinfo(3) blocks, the loop must not.
//!
//! Workers start when there is work and end when there has been none for a while. The queue is bounded
//! and served newest first: under overload the newest query is the one whose client still waits. When
//! the queue is full, the one that has waited longest is answered with a failure.
//!
//! A name whose servers never answer holds its worker for many seconds, and nothing can interrupt it.
//! Therefore a look-up that has taken longer than [`SLOW`] no longer counts against the number of
//! workers: others may start beside it, up to [`Limits::threads_in_all`]. So hundreds of dead
//! names delay a good one by a second at most.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mio::Waker;

/// From this age on a look-up does not count against the number of workers.
pub const SLOW: Duration = Duration::from_secs(1);

/// A worker without work ends after this time.
const IDLE: Duration = Duration::from_secs(10);
/// How often the loop looks whether running look-ups have become slow while others wait.
const CHECK: Duration = Duration::from_millis(100);
/// getaddrinfo and the modules it loads put buffers of 64 KiB and more on the stack.
const STACK_BYTES: usize = 512 * 1024;

/// What a worker calls: all addresses of a name, with a port put in.
pub type Lookup = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// How much may be asked at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Look-ups at once, slow ones not counted; at least one.
    pub threads: usize,
    /// Workers in all, slow ones too. Each may hold a descriptor.
    pub threads_in_all: usize,
    /// Names that may wait for a worker.
    pub queue: usize,
}

impl Limits {
    /// With so many look-ups at once, in a process that may have so many descriptors. Those of dead names
    /// may be sixteen times as many, and hold a third of the descriptors.
    pub fn new(threads: usize, queue: usize, descriptors: usize) -> Self {
        let threads_in_all = threads.saturating_mul(16).min((descriptors / 3).max(4));
        Limits { threads, threads_in_all, queue }
    }
}

/// What became of a question.
pub struct Answer {
    /// The name that was asked for.
    pub name: String,
    /// What was found.
    pub outcome: Outcome,
}

/// How a question ended.
#[derive(Debug)]
pub enum Outcome {
    /// The look-up found these addresses, in order of preference.
    Found(Vec<SocketAddr>),
    /// The look-up failed.
    Failed(io::Error),
    /// No look-up was made: too many names wait, or no worker can be had.
    Displaced,
}

/// The loop's side of the workers.
pub struct Resolver {
    office: Arc<Office>,
}

/// What loop and workers share.
struct Office {
    state: Mutex<State>,
    work: Condvar,
    waker: Waker,
    lookup: Box<Lookup>,
}

#[derive(Default)]
struct State {
    limits: Limits,
    queue: VecDeque<String>,
    answers: Vec<Answer>,
    /// When each running look-up began, by worker.
    running: Vec<(usize, Instant)>,
    threads: usize,
    idle: usize,
    /// Numbers the workers.
    started: usize,
    closing: bool,
}

impl Resolver {
    /// A resolver that calls the waker when there are answers.
    pub fn new(limits: Limits, waker: Waker, lookup: Box<Lookup>) -> Self {
        let state = Mutex::new(State { limits, ..State::default() });
        Resolver { office: Arc::new(Office { state, work: Condvar::new(), waker, lookup }) }
    }

    /// Changes the limits. Queries that wait already may be more than the new ones allow.
    pub fn limit(&mut self, limits: Limits) {
        let mut state = self.office.lock();
        state.limits = limits;
        self.staff(state);
    }

    /// How many names wait for a worker, and how many are being looked up.
    pub fn load(&self) -> (usize, usize) {
        let state = self.office.lock();
        (state.queue.len(), state.running.len())
    }

    /// Asks for a name. Its answer comes with [`Resolver::answers`], unless it is cancelled.
    pub fn submit(&mut self, name: String) {
        let mut state = self.office.lock();
        state.queue.push_back(name);
        if state.queue.len() > state.limits.queue
            && let Some(name) = state.queue.pop_front()
        {
            self.office.answer(&mut state, Answer { name, outcome: Outcome::Displaced });
        }
        self.staff(state);
    }

    /// Nobody waits for this name any more. Says whether it could be dropped because no worker had taken
    /// it yet; otherwise its answer still comes.
    pub fn cancel(&mut self, name: &str) -> bool {
        let mut state = self.office.lock();
        let position = state.queue.iter().position(|waiting| waiting == name);
        position.is_some_and(|position| state.queue.remove(position).is_some())
    }

    /// Takes the answers that have come.
    pub fn answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.office.lock().answers)
    }

    /// Gives waiting queries to further workers if running ones have become slow. Returns when to do so
    /// again, if need be.
    pub fn check(&mut self, now: Instant) -> Option<Instant> {
        let state = self.office.lock();
        if state.queue.is_empty() {
            return None;
        }
        self.staff(state);
        now.checked_add(CHECK)
    }

    /// Sees to it that the queries that wait have workers, within the limits.
    fn staff(&self, mut state: MutexGuard<'_, State>) {
        let office = &self.office;
        let now = Instant::now();
        let young = state.young(now);
        let room = state.limits.threads.max(1).saturating_sub(young);
        let wanted = state.queue.len().min(room);
        for _ in 0..wanted.min(state.idle) {
            office.work.notify_one();
        }
        // A worker that has been started and has not come to work yet takes one of the queries.
        let coming = state.threads - state.running.len() - state.idle;
        let most = state.limits.threads_in_all.max(1).saturating_sub(state.threads);
        for _ in 0..wanted.saturating_sub(state.idle + coming).min(most) {
            let worker = state.started;
            let builder = thread::Builder::new().name("dns".to_owned()).stack_size(STACK_BYTES);
            let shared = Arc::clone(office);
            if let Err(error) = builder.spawn(move || shared.work(worker)) {
                log::warn!("cannot start a DNS worker: {error}");
                break;
            }
            state.started += 1;
            state.threads += 1;
        }
        if state.threads == 0 {
            for name in std::mem::take(&mut state.queue) {
                office.answer(&mut state, Answer { name, outcome: Outcome::Displaced });
            }
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let mut state = self.office.lock();
        state.closing = true;
        state.queue.clear();
        self.office.work.notify_all();
    }
}

impl State {
    /// Running look-ups that are not slow yet.
    fn young(&self, now: Instant) -> usize {
        self.running
            .iter()
            .filter(|(_, since)| now.saturating_duration_since(*since) < SLOW)
            .count()
    }
}

impl Office {
    /// No code that holds the lock can panic; if it does, the state is whole all the same.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, state: &mut State, answer: Answer) {
        state.answers.push(answer);
        if state.answers.len() == 1
            && let Err(error) = self.waker.wake()
        {
            log::error!("cannot wake the loop: {error}");
        }
    }

    /// A worker's life.
    fn work(&self, worker: usize) {
        while let Some(name) = self.next_name(worker) {
            // A panic of a look-up must not take its answer and its worker along.
            let outcome = match catch_unwind(AssertUnwindSafe(|| (self.lookup)(&name, 0))) {
                Ok(Ok(addresses)) => Outcome::Found(addresses),
                Ok(Err(error)) => Outcome::Failed(error),
                Err(_) => Outcome::Failed(io::Error::other("the look-up panicked")),
            };
            let mut state = self.lock();
            state.running.retain(|(number, _)| *number != worker);
            self.answer(&mut state, Answer { name, outcome });
        }
    }

    /// Waits for work. `None`: there was none for a while, and the worker has been struck off.
    fn next_name(&self, worker: usize) -> Option<String> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.young(now) < state.limits.threads.max(1)
                && let Some(name) = state.queue.pop_back()
            {
                state.running.push((worker, now));
                return Some(name);
            }
            state.idle += 1;
            let waited = self.work.wait_timeout(state, IDLE);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if state.closing || (timeout.timed_out() && state.queue.is_empty()) {
                state.threads -= 1;
                return None;
            }
        }
    }
}

/// Asks the system: /etc/hosts, DNS, and whatever else nsswitch.conf(5) names.
///
/// # Errors
/// If the name does not exist, has no address, or no server answered.
pub fn system_lookup(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    use std::net::ToSocketAddrs;
    Ok((name, port).to_socket_addrs()?.collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::mpsc;

    use mio::{Events, Poll, Token};

    use super::*;

    struct Bench {
        poll: Poll,
        resolver: Resolver,
        /// Dropping it lets all names that hang go on.
        _release: mpsc::Sender<()>,
    }

    const QUEUE: usize = 8;

    /// A resolver for which `hang…` never answers, `panic` panics and all other names are 192.0.2.1.
    fn bench(threads: usize, threads_in_all: usize) -> Bench {
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
        Bench { poll, resolver: Resolver::new(limits, waker, Box::new(lookup)), _release: release }
    }

    impl Bench {
        fn ask(&mut self, name: &str) {
            self.resolver.submit(name.to_owned());
        }

        /// Waits for answers as the loop does.
        fn wait(&mut self, within: Duration) -> Vec<Answer> {
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
            self.resolver.office.lock().threads
        }

        /// Waits until a worker has taken a name.
        fn wait_for_worker(&self) {
            let deadline = Instant::now() + Duration::from_secs(10);
            while self.resolver.office.lock().running.is_empty() {
                assert!(Instant::now() < deadline, "no worker came");
                thread::yield_now();
            }
        }
    }

    fn names(answers: &[Answer]) -> Vec<&str> {
        answers.iter().map(|answer| answer.name.as_str()).collect()
    }

    #[test]
    fn names_are_answered() {
        let mut bench = bench(2, 2);
        bench.ask("example.com");
        let answers = bench.wait(Duration::from_secs(10));
        assert_eq!(names(&answers), ["example.com"]);
        let Outcome::Found(addresses) = &answers[0].outcome else { panic!("not found") };
        assert_eq!(addresses, &[SocketAddr::from(([192, 0, 2, 1], 0))]);
    }

    #[test]
    fn three_hundred_dead_names_do_not_delay_a_good_one() {
        let mut bench = bench(32, 512);
        for number in 0..300 {
            bench.ask(&format!("hang{number}"));
        }
        bench.ask("example.com");
        assert_eq!(names(&bench.wait(SLOW * 5)), ["example.com"]);
    }

    #[test]
    fn threads_are_bounded() {
        let mut bench = bench(1, 3);
        for number in 0..QUEUE {
            bench.ask(&format!("hang{number}"));
        }
        assert!(bench.threads() <= 1);
        let deadline = Instant::now() + SLOW * 4;
        while Instant::now() < deadline {
            assert!(bench.wait(CHECK).is_empty());
            assert!(bench.threads() <= 3);
        }
        assert_eq!(bench.threads(), 3, "slow look-ups must not count");
    }

    #[test]
    fn a_full_queue_answers_the_oldest() {
        let mut bench = bench(1, 1);
        bench.ask("hang");
        bench.wait_for_worker();
        for number in 0..QUEUE + 3 {
            bench.ask(&format!("hang{number}"));
        }
        let answers = bench.wait(Duration::from_secs(10));
        assert!(answers.iter().all(|answer| matches!(answer.outcome, Outcome::Displaced)));
        assert_eq!(names(&answers), ["hang0", "hang1", "hang2"]);
    }

    #[test]
    fn cancelled_names_are_never_looked_up() {
        let mut bench = bench(1, 1);
        bench.ask("hang");
        bench.wait_for_worker();
        bench.ask("cancelled.example");
        bench.ask("example.com");
        assert!(bench.resolver.cancel("cancelled.example"));
        assert!(!bench.resolver.cancel("hang"), "a worker has it");
        assert_eq!(bench.resolver.office.lock().queue, ["example.com"]);
    }

    #[test]
    fn a_panic_is_an_answer() {
        let mut bench = bench(1, 1);
        bench.ask("panic");
        let answers = bench.wait(Duration::from_secs(10));
        assert!(matches!(answers[0].outcome, Outcome::Failed(_)));
        bench.ask("example.com");
        let answers = bench.wait(Duration::from_secs(10));
        assert!(matches!(answers[0].outcome, Outcome::Found(_)));
    }

    #[test]
    fn every_name_is_answered_once() {
        let mut bench = bench(4, 400);
        for number in 0..200 {
            bench.ask(&number.to_string());
        }
        let mut seen = HashSet::new();
        while seen.len() < 200 {
            let answers = bench.wait(Duration::from_secs(10));
            assert!(!answers.is_empty(), "only {} answers", seen.len());
            assert!(answers.into_iter().all(|answer| seen.insert(answer.name)));
        }
    }
}
