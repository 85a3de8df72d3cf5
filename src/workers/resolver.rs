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
//!
//! What fails here fails alone: a worker that cannot be started is a failed look-up, workers allocate
//! nothing that could not be had, and a loop that cannot be woken comes by itself.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::thread;

use crate::reactor::waker::Wake;

use super::getaddrinfo;

/// From this age on a look-up does not count against the number of workers.
pub const SLOW: Duration = Duration::from_secs(1);

/// A worker without work ends after this time.
const IDLE: Duration = Duration::from_secs(10);
/// How often the loop looks whether running look-ups have become slow while others wait, and whether there
/// are answers when it could not be woken.
const CHECK: Duration = Duration::from_millis(100);
/// How long the loop sleeps at most while names are looked up, whatever becomes of the call that wakes it.
const SLEEP: Duration = Duration::from_secs(1);
/// How soon a worker tries again to wake the loop.
const RETRY: Duration = Duration::from_millis(10);
/// A failure that comes this long after the last one is logged again.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// getaddrinfo and the modules it loads put buffers of 64 KiB and more on the stack. It is all that a worker
/// takes of the address space, which may be limited: what the system's look-up allocates is a few KiB.
const STACK_BYTES: usize = 256 * 1024;
/// Stacks of ended workers that the C library keeps for the next: 40 MiB with glibc, of which this is less.
const KEPT_STACKS: usize = 128;
/// What a worker takes of the address space: its stack, and a page or two for a name that is dead.
const WORKER_BYTES: usize = STACK_BYTES + 8192;

/// What a worker calls: all addresses of a name, with a port put in. An error of the kind `NotFound` is the
/// answer that there is none, `TimedOut` means that nobody has answered; all others are failures of this
/// machine and tell nothing about the name.
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

    /// The same in a process with so many bytes of address space, if that is limited: the stacks of all
    /// workers take half of it at most.
    pub fn within(self, address_space: Option<usize>) -> Self {
        let fitting = address_space.map_or(usize::MAX, |bytes| bytes / 2 / WORKER_BYTES);
        Limits { threads_in_all: self.threads_in_all.min(fitting.max(1)), ..self }
    }
}

/// What became of a question.
pub struct LookupDone {
    /// The name that was asked for.
    pub name: String,
    /// What was found.
    pub outcome: Outcome,
}

/// How a question ended.
#[derive(Debug)]
pub enum Outcome {
    /// The look-up found these addresses, in order of preference; at least one.
    Found(Vec<SocketAddr>),
    /// There is no such name, or it has no address.
    NotFound,
    /// No name server has answered the question.
    Unanswered,
    /// This machine could not ask, for want of descriptors or memory for instance.
    Failed(io::Error),
    /// No look-up was made: no worker can be had.
    NoWorker,
    /// No look-up was made: too many names wait.
    Overflow,
}

/// The loop's side of the workers.
pub struct Resolver {
    shared: Arc<Shared>,
    /// Workers that could not be started.
    starts: Episode,
    /// Calls of the waker that have failed.
    wakes: Episode,
    /// Look-ups for which this machine lacked something.
    failures: Episode,
}

/// What loop and workers share.
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    /// Answers have been taken.
    taken: Condvar,
    /// Whether there are answers: raised under the lock, looked at without.
    ready: AtomicBool,
    waker: Box<dyn Wake>,
    lookup: Box<Lookup>,
}

#[derive(Default)]
struct State {
    limits: Limits,
    queue: VecDeque<String>,
    answers: Vec<LookupDone>,
    /// Whether a worker has woken the loop for them, or is doing so.
    woken: bool,
    /// Why the waker failed, until that has been logged.
    wake_error: Option<io::Error>,
    /// Whether the waker failed when it was last called.
    wake_failed: bool,
    /// When each running look-up began, by worker. There is room for all of them.
    running: Vec<(usize, Instant)>,
    threads: usize,
    idle: usize,
    /// The most workers that there have been at once.
    peak: usize,
    /// Numbers the workers.
    started: usize,
    closing: bool,
}

impl Resolver {
    /// A resolver that calls the waker when there are answers.
    pub fn new(limits: Limits, waker: impl Wake + 'static, lookup: Box<Lookup>) -> Self {
        let shared = Shared {
            state: Mutex::new(State { limits, ..State::default() }),
            work: Condvar::new(),
            taken: Condvar::new(),
            ready: AtomicBool::new(false),
            waker: Box::new(waker),
            lookup,
        };
        let (starts, wakes, failures) = Default::default();
        Resolver { shared: Arc::new(shared), starts, wakes, failures }
    }

    /// Changes the limits. Queries that wait already may be more than the new ones allow.
    pub fn limit(&mut self, limits: Limits) {
        self.shared.lock().limits = limits;
        self.spawn_workers();
    }

    /// How many names wait for a worker, and how many are being looked up.
    pub fn load(&self) -> (usize, usize) {
        let state = self.shared.lock();
        (state.queue.len(), state.running.len())
    }

    /// Asks for a name. Its answer comes with [`Resolver::answers`], unless it is cancelled.
    pub fn submit(&mut self, name: String) {
        let mut state = self.shared.lock();
        state.queue.push_back(name);
        if state.queue.len() > state.limits.queue
            && let Some(name) = state.queue.pop_front()
        {
            self.shared.answer(&mut state, LookupDone { name, outcome: Outcome::Overflow });
        }
        drop(state);
        self.spawn_workers();
    }

    /// Nobody waits for this name any more. Says whether it could be dropped because no worker had taken
    /// it yet; otherwise its answer still comes.
    pub fn cancel(&mut self, name: &str) -> bool {
        let mut state = self.shared.lock();
        let position = state.queue.iter().position(|waiting| waiting == name);
        position.is_some_and(|position| state.queue.remove(position).is_some())
    }

    /// Whether answers have come. A look at a flag: cheap enough for each turn of the loop.
    pub fn ready(&self) -> bool {
        self.shared.ready.load(Ordering::Acquire)
    }

    /// Takes the answers that have come.
    pub fn answers(&mut self) -> Vec<LookupDone> {
        if !self.ready() {
            return Vec::new();
        }
        let mut state = self.shared.lock();
        self.shared.ready.store(false, Ordering::Release);
        state.woken = false;
        let answers = std::mem::take(&mut state.answers);
        let wake_error = state.wake_error.take();
        drop(state);
        let now = Instant::now();
        if let Some(error) = wake_error {
            self.shared.taken.notify_all();
            if self.wakes.begins(now) {
                log::error!("cannot wake the loop: {error}");
            }
        }
        for answer in &answers {
            if let Outcome::Failed(error) = &answer.outcome
                && self.failures.begins(now)
            {
                log::info!("names cannot be looked up: {error}");
            }
        }
        answers
    }

    /// Gives waiting queries to further workers if running ones have become slow. Returns when to do so
    /// again, and to look for answers, since the call that wakes the loop may fail.
    pub fn check(&mut self, now: Instant) -> Option<Instant> {
        let (waiting, wake_failed) = {
            let state = self.shared.lock();
            (!state.queue.is_empty(), state.wake_failed)
        };
        if waiting {
            self.spawn_workers();
        }
        let pause = if waiting || wake_failed { CHECK } else { SLEEP };
        if self.ready() { Some(now) } else { now.checked_add(pause) }
    }

    /// Sees to it that the queries that wait have workers, within the limits.
    fn spawn_workers(&mut self) {
        let shared = &self.shared;
        let mut state = shared.lock();
        let now = Instant::now();
        let fast_lookups = state.fast_lookups(now);
        let room = state.limits.threads.max(1).saturating_sub(fast_lookups);
        let wanted = state.queue.len().min(room);
        for _ in 0..wanted.min(state.idle) {
            shared.work.notify_one();
        }
        // A worker that has been started and has not come to work yet takes one of the queries.
        let coming = state.threads - state.running.len() - state.idle;
        let most = state.limits.threads_in_all.max(1).saturating_sub(state.threads);
        for _ in 0..wanted.saturating_sub(state.idle + coming).min(most) {
            let worker = state.started;
            let shared = Arc::clone(shared);
            let life = move || shared.work(worker);
            let started = match state.threads < state.peak.min(KEPT_STACKS) {
                true => thread::start_in_place(c"dns", STACK_BYTES, life),
                false => thread::start(c"dns", STACK_BYTES, life),
            };
            if let Err(error) = started {
                if self.starts.begins(now) {
                    log::info!("no thread for look-ups can be started: {error}");
                }
                break;
            }
            state.started += 1;
            state.threads += 1;
            state.peak = state.peak.max(state.threads);
        }
        if state.threads == 0 {
            for name in std::mem::take(&mut state.queue) {
                shared.answer(&mut state, LookupDone { name, outcome: Outcome::NoWorker });
            }
        }
        // Workers must not have to make it: without memory that would abort the process.
        let state = &mut *state;
        state.running.reserve(state.threads.saturating_sub(state.running.len()));
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closing = true;
        state.queue.clear();
        self.shared.work.notify_all();
    }
}

impl State {
    /// Running look-ups that are not slow yet.
    fn fast_lookups(&self, now: Instant) -> usize {
        self.running
            .iter()
            .filter(|(_, since)| now.saturating_duration_since(*since) < SLOW)
            .count()
    }
}

/// A failure that may come again and again, of which the log is told once.
#[derive(Default)]
struct Episode {
    last: Option<Instant>,
}

impl Episode {
    /// Notes a failure. Says whether an episode begins with it.
    fn begins(&mut self, now: Instant) -> bool {
        let before = self.last.replace(now);
        before.is_none_or(|before| now.saturating_duration_since(before) >= LOG_INTERVAL)
    }
}

impl Shared {
    /// No code that holds the lock can panic; if it does, the state is whole all the same.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, state: &mut State, answer: LookupDone) {
        state.answers.push(answer);
        self.ready.store(true, Ordering::Release);
    }

    /// Wakes the loop, once for all answers that it has not taken. If it cannot be woken, this is tried again
    /// until it can, or has come by itself. The lock is not held meanwhile: the loop never waits for a call.
    fn wake<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        while !state.answers.is_empty() && !state.woken && !state.closing {
            state.woken = true;
            drop(state);
            let woken = self.waker.wake();
            state = self.lock();
            state.wake_failed = woken.is_err();
            if let Err(error) = woken {
                (state.woken, state.wake_error) = (false, Some(error));
                let waited = self.taken.wait_timeout(state, RETRY);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// A worker's life.
    fn work(&self, worker: usize) {
        while let Some(name) = self.next_name(worker) {
            // A panic of a look-up must not take its answer and its worker along.
            let outcome = match catch_unwind(AssertUnwindSafe(|| (self.lookup)(&name, 0))) {
                Ok(result) => result.into(),
                Err(_) => Outcome::Failed(io::ErrorKind::Other.into()),
            };
            let mut state = self.lock();
            while state.answers.try_reserve(1).is_err() {
                let waited = self.taken.wait_timeout(state, RETRY);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            state.running.retain(|(number, _)| *number != worker);
            self.answer(&mut state, LookupDone { name, outcome });
            self.wake(state);
        }
    }

    /// Waits for work. `None`: there was none for a while, and the worker has been struck off.
    fn next_name(&self, worker: usize) -> Option<String> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.fast_lookups(now) < state.limits.threads.max(1)
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

impl From<io::Result<Vec<SocketAddr>>> for Outcome {
    fn from(result: io::Result<Vec<SocketAddr>>) -> Self {
        match result {
            Ok(addresses) if addresses.is_empty() => Outcome::NotFound,
            Ok(addresses) => Outcome::Found(addresses),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound => Outcome::NotFound,
                io::ErrorKind::TimedOut => Outcome::Unanswered,
                _ => Outcome::Failed(error),
            },
        }
    }
}

/// Asks the system: /etc/hosts, DNS, and whatever else nsswitch.conf(5) names.
///
/// # Errors
/// As [`Lookup`] has them.
pub fn system_lookup(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = getaddrinfo::look_up(name)?;
    addresses.iter_mut().for_each(|address| address.set_port(port));
    Ok(addresses)
}

#[cfg(test)]
mod tests;
