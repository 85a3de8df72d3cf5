//! Names to addresses, in worker threads: getaddrinfo(3) blocks, the loop must not.
//!
//! Workers start when there is work and end when there has been none for a while. The queue is bounded
//! and served newest first: under overload the newest query is the one whose client still waits. When
//! the queue is full, the one that has waited longest is answered with a failure.
//!
//! A name whose servers never answer holds its worker for many seconds, and nothing can interrupt it.
//! Therefore a look-up that has taken longer than [`SLOW`] no longer counts against the number of
//! workers: others may start beside it, up to [`STUCK_FACTOR`] times that number. So hundreds of dead
//! names delay a good one by a second at most.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mio::Waker;

use super::slab::Key;

/// From this age on a look-up does not count against the number of workers.
pub const SLOW: Duration = Duration::from_secs(1);
/// How many times the number of workers may be busy or stuck at once.
pub const STUCK_FACTOR: usize = 16;
/// Queries that may wait for a worker.
pub const QUEUE: usize = 1024;

/// A worker without work ends after this time.
const IDLE: Duration = Duration::from_secs(10);
/// How often the loop looks whether running look-ups have become slow while others wait.
const CHECK: Duration = Duration::from_millis(100);
/// getaddrinfo and the modules it loads put buffers of 64 KiB and more on the stack.
const STACK_BYTES: usize = 512 * 1024;

/// What a worker calls: all addresses of a name, with the port put in.
pub type Lookup = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// A question, and whose it is.
pub struct Query {
    /// The session that waits.
    pub key: Key,
    /// The name to look up.
    pub name: String,
    /// The port of the resulting addresses.
    pub port: u16,
}

/// What became of a question.
pub struct Answer {
    /// The session that asked.
    pub key: Key,
    /// The addresses in order of preference, or why there are none.
    pub result: io::Result<Vec<SocketAddr>>,
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
    /// Look-ups at once, slow ones not counted.
    limit: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Query>,
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
    /// A resolver that runs up to `limit` look-ups at once, and calls the waker when there are answers.
    pub fn new(limit: usize, waker: Waker, lookup: Box<Lookup>) -> Self {
        let state = Mutex::new(State::default());
        let limit = limit.max(1);
        Resolver { office: Arc::new(Office { state, work: Condvar::new(), waker, lookup, limit }) }
    }

    /// Asks a question. Its answer comes with [`Resolver::answers`], unless it is cancelled.
    pub fn submit(&mut self, query: Query) {
        let mut state = self.office.lock();
        state.queue.push_back(query);
        if state.queue.len() > QUEUE
            && let Some(oldest) = state.queue.pop_front()
        {
            let result = Err(io::Error::new(ErrorKind::TimedOut, "too many names wait"));
            self.office.answer(&mut state, Answer { key: oldest.key, result });
        }
        self.staff(state);
    }

    /// Nobody waits for this answer any more. A query that no worker has taken yet is dropped.
    pub fn cancel(&mut self, key: Key) {
        self.office.lock().queue.retain(|query| query.key != key);
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
        let room = office.limit.saturating_sub(young);
        let wanted = state.queue.len().min(room);
        for _ in 0..wanted.min(state.idle) {
            office.work.notify_one();
        }
        // A worker that has been started and has not come to work yet takes one of the queries.
        let coming = state.threads - state.running.len() - state.idle;
        let most = office.limit.saturating_mul(STUCK_FACTOR).saturating_sub(state.threads);
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
            for query in std::mem::take(&mut state.queue) {
                let result = Err(io::Error::other("no DNS worker"));
                office.answer(&mut state, Answer { key: query.key, result });
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
        while let Some(query) = self.next_query(worker) {
            // A panic of a look-up must not take its answer and its worker along.
            let result = catch_unwind(AssertUnwindSafe(|| (self.lookup)(&query.name, query.port)))
                .unwrap_or_else(|_| Err(io::Error::other("the look-up panicked")));
            let mut state = self.lock();
            state.running.retain(|(number, _)| *number != worker);
            self.answer(&mut state, Answer { key: query.key, result });
        }
    }

    /// Waits for work. `None`: there was none for a while, and the worker has been struck off.
    fn next_query(&self, worker: usize) -> Option<Query> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.young(now) < self.limit
                && let Some(query) = state.queue.pop_back()
            {
                state.running.push((worker, now));
                return Some(query);
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

    /// A resolver for which `hang…` never answers, `panic` panics and all other names are 192.0.2.1.
    fn bench(limit: usize) -> Bench {
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
        Bench { poll, resolver: Resolver::new(limit, waker, Box::new(lookup)), _release: release }
    }

    fn key(number: u64) -> Key {
        Key::unpack(number)
    }

    impl Bench {
        fn ask(&mut self, number: u64, name: &str) {
            self.resolver.submit(Query { key: key(number), name: name.to_owned(), port: 7 });
        }

        /// Waits for an answer as the loop does.
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
    }

    #[test]
    fn names_are_answered_with_their_port() {
        let mut bench = bench(2);
        bench.ask(1, "example.com");
        let answers = bench.wait(Duration::from_secs(10));
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].key, key(1));
        let addresses = answers[0].result.as_ref().expect("found");
        assert_eq!(addresses, &[SocketAddr::from(([192, 0, 2, 1], 7))]);
    }

    #[test]
    fn three_hundred_dead_names_do_not_delay_a_good_one() {
        let mut bench = bench(32);
        for number in 0..300 {
            bench.ask(number, "hang");
        }
        bench.ask(300, "example.com");
        let answers = bench.wait(SLOW * 5);
        assert_eq!(answers.iter().map(|answer| answer.key).collect::<Vec<_>>(), [key(300)]);
    }

    #[test]
    fn threads_are_bounded() {
        let mut bench = bench(1);
        for number in 0..40 {
            bench.ask(number, "hang");
        }
        assert!(bench.resolver.office.lock().threads <= 1);
        let deadline = Instant::now() + SLOW * 3;
        while Instant::now() < deadline {
            assert!(bench.wait(CHECK).is_empty());
            assert!(bench.resolver.office.lock().threads <= STUCK_FACTOR);
        }
        assert!(bench.resolver.office.lock().threads >= 2, "slow look-ups must not count");
    }

    #[test]
    fn a_full_queue_answers_the_oldest() {
        let mut bench = bench(1);
        bench.ask(u64::from(u32::MAX), "hang");
        let deadline = Instant::now() + Duration::from_secs(10);
        while bench.resolver.office.lock().running.is_empty() {
            assert!(Instant::now() < deadline, "no worker came");
            thread::yield_now();
        }
        for number in 0..QUEUE as u64 + 3 {
            bench.ask(number, "hang");
        }
        let answers = bench.wait(Duration::from_secs(10));
        let failed: Vec<Key> =
            answers.iter().filter(|a| a.result.is_err()).map(|a| a.key).collect();
        assert_eq!(failed, [key(0), key(1), key(2)]);
    }

    #[test]
    fn cancelled_queries_are_never_looked_up() {
        let mut bench = bench(1);
        bench.ask(0, "hang");
        let deadline = Instant::now() + Duration::from_secs(10);
        while bench.resolver.office.lock().running.is_empty() {
            assert!(Instant::now() < deadline, "no worker came");
            thread::yield_now();
        }
        bench.ask(1, "cancelled.example");
        bench.ask(2, "example.com");
        bench.resolver.cancel(key(1));
        let queue = &bench.resolver.office.lock().queue;
        assert_eq!(queue.iter().map(|query| query.key).collect::<Vec<_>>(), [key(2)]);
    }

    #[test]
    fn a_panic_is_an_answer() {
        let mut bench = bench(1);
        bench.ask(1, "panic");
        let answers = bench.wait(Duration::from_secs(10));
        assert!(answers[0].result.is_err());
        bench.ask(2, "example.com");
        assert!(bench.wait(Duration::from_secs(10))[0].result.is_ok());
    }

    #[test]
    fn every_query_is_answered_once() {
        let mut bench = bench(4);
        for number in 0..200 {
            bench.ask(number, "example.com");
        }
        let mut seen = HashSet::new();
        while seen.len() < 200 {
            let answers = bench.wait(Duration::from_secs(10));
            assert!(!answers.is_empty(), "only {} answers", seen.len());
            assert!(answers.iter().all(|answer| seen.insert(answer.key.pack())));
        }
    }
}
