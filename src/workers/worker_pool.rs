//! Jobs that block, in worker threads behind a bounded queue: the loop must not wait for them.
//!
//! Workers start when there is work and end when there has been none for a while. The queue is served newest
//! first: under overload the newest job is the one whose client still waits. When the queue is full, the job
//! that has waited longest is answered with [`Failure::Overflow`].
//!
//! A job may hold its worker for many seconds, and nothing can interrupt it. Therefore one that has taken
//! longer than [`SLOW`] no longer counts against [`Limits::threads`]: others may start beside it, up to
//! [`Limits::threads_in_all`]. So hundreds of dead names delay a good one by a second at most. Jobs that
//! use the processor all the time get equal limits, so that slow ones do count.
//!
//! Answers go into a list, a flag is raised, and the loop is woken once for all answers that it has not taken.
//! The call that wakes may fail: a worker then repeats it, and the loop looks at the flag ([`Workers::ready`])
//! in each turn and comes by itself after [`Workers::check`].
//!
//! A worker that cannot be started, or a job that panics, is a failed answer and nothing else. Workers allocate nothing
//! whose failure would abort the process; what a job allocates is the job's responsibility.
//!
//! Locks: `State` (queue, answers, counters) is held by loop and workers for a push, a swap or a count, never
//! across a job or a wake.
//!
//! ```
//! use std::{io, sync::mpsc, time::{Duration, Instant}};
//! use socks5d::reactor::waker::Wake;
//! use socks5d::workers::worker_pool::{Kind, Limits, Workers};
//!
//! /// Stands for the loop's `Waker`.
//! struct Channel(mpsc::Sender<()>);
//!
//! impl Wake for Channel {
//!     fn wake(&self) -> io::Result<()> {
//!         self.0.send(()).map_err(io::Error::other)
//!     }
//! }
//!
//! let (wakes, woken) = mpsc::channel();
//! let kind = Kind { thread: c"squares", jobs: "squares", stack_bytes: 64 * 1024, nice: 0 };
//! let limits = Limits { threads: 2, threads_in_all: 2, queue: 100 };
//! let mut workers = Workers::new(kind, limits, Channel(wakes), |job: &u64| job * job);
//!
//! workers.submit(12);
//! let deadline = Instant::now() + Duration::from_secs(20);
//! while !workers.ready() && Instant::now() < deadline {
//!     let next = workers.check(Instant::now());
//!     let _ = woken.recv_timeout(next.saturating_duration_since(Instant::now()));
//! }
//! let answers = workers.answers();
//! assert_eq!((answers[0].job, &answers[0].outcome), (12, &Ok(144)));
//! ```

use std::collections::VecDeque;
use std::ffi::CStr;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::episode::Outage;
use common::thread;

use crate::reactor::waker::Wake;

/// From this age on a job does not count against [`Limits::threads`].
pub const SLOW: Duration = Duration::from_secs(1);

/// A worker without work ends after this time.
const IDLE: Duration = Duration::from_secs(10);
/// The interval at which the loop checks for slow jobs while others wait, and for answers when it could not be woken.
const CHECK: Duration = Duration::from_millis(100);
/// The longest sleep of the loop while there are jobs, in case that the call that wakes it fails.
const SLEEP: Duration = Duration::from_secs(1);
/// The interval at which a worker repeats a failed wake-up.
const RETRY: Duration = Duration::from_millis(10);
/// Stacks of ended workers that the C library keeps for the next, in bytes: 40 MiB with glibc, of which this
/// is less.
const KEPT_STACK_BYTES: usize = 32 << 20;

/// The kind of jobs of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The name of the threads, as ps(1) shows it: 15 bytes at most.
    pub thread: &'static CStr,
    /// The name of the jobs in log messages.
    pub jobs: &'static str,
    /// The stack of a worker in bytes.
    pub stack_bytes: usize,
    /// The priority of the threads, as of nice(1): 0 is that of the process.
    pub nice: i32,
}

/// The limits of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Jobs at once, slow ones not counted; at least one.
    pub threads: usize,
    /// Workers in all, slow ones too.
    pub threads_in_all: usize,
    /// Jobs that may wait for a worker.
    pub queue: usize,
}

/// A finished job.
#[derive(Debug)]
pub struct Done<Job, Answer> {
    /// The job as it was submitted.
    pub job: Job,
    /// Its answer.
    pub outcome: Result<Answer, Failure>,
}

/// Why a job has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It panicked.
    Panicked,
    /// It was not begun: no worker can be had.
    NoWorker,
    /// It was not begun: too many jobs wait.
    Overflow,
}

/// The loop's side of the workers.
pub struct Workers<Job, Answer> {
    shared: Arc<Shared<Job, Answer>>,
    kind: Kind,
    /// Workers that could not be started, by errno.
    starts: Outage<Option<i32>>,
    /// Calls of the waker that have failed, by errno.
    wakes: Outage<Option<i32>>,
}

/// What a worker does with a job.
type Run<Job, Answer> = dyn Fn(&Job) -> Answer + Send + Sync;

/// What loop and workers share.
struct Shared<Job, Answer> {
    state: Mutex<State<Job, Answer>>,
    work: Condvar,
    /// Answers have been taken.
    taken: Condvar,
    /// Whether there are answers: raised under the lock, looked at without.
    ready: AtomicBool,
    waker: Box<dyn Wake>,
    run: Box<Run<Job, Answer>>,
}

struct State<Job, Answer> {
    limits: Limits,
    queue: VecDeque<Job>,
    answers: Vec<Done<Job, Answer>>,
    /// Whether a worker has woken the loop for them, or is doing so.
    woken: bool,
    /// Why the waker failed, until that has been logged.
    wake_error: Option<io::Error>,
    /// Whether the waker failed when it was last called.
    wake_failed: bool,
    /// When each running job began, by worker. There is room for all of them.
    running: Vec<(usize, Instant)>,
    threads: usize,
    idle: usize,
    /// The most workers that there have been at once.
    peak: usize,
    /// Numbers the workers.
    started: usize,
    closing: bool,
}

impl<Job: Send + 'static, Answer: Send + 'static> Workers<Job, Answer> {
    /// Workers that call `run` for each job, and the waker when there are answers.
    pub fn new(
        kind: Kind,
        limits: Limits,
        waker: impl Wake + 'static,
        run: impl Fn(&Job) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared {
            state: Mutex::new(State::new(limits)),
            work: Condvar::new(),
            taken: Condvar::new(),
            ready: AtomicBool::new(false),
            waker: Box::new(waker),
            run: Box::new(run),
        };
        let (starts, wakes) = Default::default();
        Workers { shared: Arc::new(shared), kind, starts, wakes }
    }

    /// Changes the limits. Jobs that wait already may be more than the new ones allow.
    pub fn limit(&mut self, limits: Limits) {
        self.shared.lock().limits = limits;
        self.spawn_workers();
    }

    /// How many jobs wait for a worker, and how many are being done.
    pub fn load(&self) -> (usize, usize) {
        let state = self.shared.lock();
        (state.queue.len(), state.running.len())
    }

    /// Puts a job into the queue. Its answer comes with [`Workers::answers`], unless it is cancelled.
    pub fn submit(&mut self, job: Job) {
        self.submit_all([job]);
    }

    /// Puts several jobs into the queue before a worker takes one of them, which is then the last.
    pub fn submit_all(&mut self, jobs: impl IntoIterator<Item = Job>) {
        let mut state = self.shared.lock();
        state.queue.extend(jobs);
        while state.queue.len() > state.limits.queue
            && let Some(job) = state.queue.pop_front()
        {
            self.shared.answer(&mut state, Done { job, outcome: Err(Failure::Overflow) });
        }
        drop(state);
        self.spawn_workers();
    }

    /// Takes the first job that `wanted` picks out of the queue. `None`: there is none, since a worker has
    /// taken it; its answer still comes.
    pub fn cancel(&mut self, wanted: impl FnMut(&Job) -> bool) -> Option<Job> {
        let mut state = self.shared.lock();
        let position = state.queue.iter().position(wanted)?;
        state.queue.remove(position)
    }

    /// Whether answers have come. It reads a flag: cheap enough for each turn of the loop.
    pub fn ready(&self) -> bool {
        self.shared.ready.load(Ordering::Acquire)
    }

    /// Takes the answers that have come.
    pub fn answers(&mut self) -> Vec<Done<Job, Answer>> {
        if !self.ready() {
            return Vec::new();
        }
        let mut state = self.shared.lock();
        self.shared.ready.store(false, Ordering::Release);
        state.woken = false;
        let answers = std::mem::take(&mut state.answers);
        let (wake_error, wake_failed) = (state.wake_error.take(), state.wake_failed);
        drop(state);
        if let Some(error) = wake_error {
            self.shared.taken.notify_all();
            if self.wakes.fails(error.raw_os_error(), Instant::now()) {
                let jobs = self.kind.jobs;
                log::error!("cannot wake the loop: {error}: answers to {jobs} are late");
            }
        } else if !wake_failed && self.wakes.succeeds(Instant::now()) {
            log::info!("the loop can be woken again");
        }
        answers
    }

    /// Starts queued jobs whose slots are held by slow ones. Returns when to call again, and to look for answers,
    /// since the call that wakes the loop may fail. To be called before each sleep of the loop while an answer is
    /// outstanding.
    pub fn check(&mut self, now: Instant) -> Instant {
        let (waiting, wake_failed) = {
            let state = self.shared.lock();
            (!state.queue.is_empty(), state.wake_failed)
        };
        if waiting {
            self.spawn_workers();
        }
        let pause = if waiting || wake_failed { CHECK } else { SLEEP };
        if self.ready() { now } else { now.checked_add(pause).unwrap_or(now) }
    }

    /// Starts or wakes workers for the jobs that wait, within the limits.
    fn spawn_workers(&mut self) {
        let shared = &self.shared;
        let mut state = shared.lock();
        let now = Instant::now();
        let room = state.limits.threads.max(1).saturating_sub(state.fast_jobs(now));
        let wanted = state.queue.len().min(room);
        for _ in 0..wanted.min(state.idle) {
            shared.work.notify_one();
        }
        // A worker that has been started and does not run yet takes one of the jobs.
        let coming = state.threads - state.running.len() - state.idle;
        let most = state.limits.threads_in_all.max(1).saturating_sub(state.threads);
        let Kind { thread, jobs, stack_bytes, nice } = self.kind;
        let kept = KEPT_STACK_BYTES / stack_bytes.max(1);
        for _ in 0..wanted.saturating_sub(state.idle + coming).min(most) {
            let worker = state.started;
            let shared = Arc::clone(shared);
            let life = move || {
                if nice > 0 {
                    thread::lower_priority(nice);
                }
                shared.work(worker);
            };
            let started = match state.threads < state.peak.min(kept) {
                true => thread::start_in_place(thread, stack_bytes, life),
                false => thread::start(thread, stack_bytes, life),
            };
            if let Err(error) = started {
                if self.starts.fails(error.raw_os_error(), now) {
                    log::warn!("{}", shortage(jobs, &error, state.threads));
                }
                break;
            }
            if self.starts.succeeds(now) {
                log::info!("threads for {jobs} can be started again");
            }
            state.started += 1;
            state.threads += 1;
            state.peak = state.peak.max(state.threads);
        }
        if state.threads == 0 {
            for job in std::mem::take(&mut state.queue) {
                shared.answer(&mut state, Done { job, outcome: Err(Failure::NoWorker) });
            }
        }
        // Reserved here, since a failed allocation in a worker would abort the process.
        let state = &mut *state;
        state.running.reserve(state.threads.saturating_sub(state.running.len()));
    }
}

/// What the log gets when a worker cannot be started beside `threads` others.
fn shortage(jobs: &str, error: &io::Error, threads: usize) -> String {
    let means = match threads {
        0 => "there is none, and what needs one fails".to_owned(),
        _ => format!("there are {threads}, and what needs one waits for them"),
    };
    format!("no thread for {jobs} can be started: {error}: {means}")
}

impl<Job, Answer> Drop for Workers<Job, Answer> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closing = true;
        state.queue.clear();
        self.shared.work.notify_all();
    }
}

impl<Job, Answer> State<Job, Answer> {
    fn new(limits: Limits) -> Self {
        State {
            limits,
            queue: VecDeque::new(),
            answers: Vec::new(),
            woken: false,
            wake_error: None,
            wake_failed: false,
            running: Vec::new(),
            threads: 0,
            idle: 0,
            peak: 0,
            started: 0,
            closing: false,
        }
    }

    /// Running jobs that are not slow yet.
    fn fast_jobs(&self, now: Instant) -> usize {
        self.running
            .iter()
            .filter(|(_, since)| now.saturating_duration_since(*since) < SLOW)
            .count()
    }
}

impl<Job, Answer> Shared<Job, Answer> {
    /// Ignores poisoning: no critical section leaves `State` half-updated.
    fn lock(&self) -> MutexGuard<'_, State<Job, Answer>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, state: &mut State<Job, Answer>, done: Done<Job, Answer>) {
        state.answers.push(done);
        self.ready.store(true, Ordering::Release);
    }

    /// Wakes the loop, once for all answers that it has not taken. A failed wake-up is repeated until it succeeds
    /// or the loop has taken the answers. The lock is not held meanwhile, so that the loop never waits for a call.
    fn wake<'a>(&'a self, mut state: MutexGuard<'a, State<Job, Answer>>) {
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

    /// Main loop of a worker thread.
    fn work(&self, worker: usize) {
        while let Some(job) = self.next_job(worker) {
            // A panic of a job must not lose its answer, nor end the worker.
            let outcome = catch_unwind(AssertUnwindSafe(|| (self.run)(&job)));
            let done = Done { job, outcome: outcome.map_err(|_| Failure::Panicked) };
            let mut state = self.lock();
            while state.answers.try_reserve(1).is_err() {
                let waited = self.taken.wait_timeout(state, RETRY);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            state.running.retain(|(number, _)| *number != worker);
            self.answer(&mut state, done);
            self.wake(state);
        }
    }

    /// Waits for work. `None`: idle for [`IDLE`]; already counted off.
    fn next_job(&self, worker: usize) -> Option<Job> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.fast_jobs(now) < state.limits.threads.max(1)
                && let Some(job) = state.queue.pop_back()
            {
                state.running.push((worker, now));
                return Some(job);
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

#[cfg(test)]
mod tests;
