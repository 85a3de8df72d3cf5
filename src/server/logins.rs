//! Logins of accounts of the users file: the queue, and the threads that compute hashes.

use std::time::Instant;

use common::episode::Outage;

use crate::reactor::slab::Key;
use crate::reactor::waker::Waker;
use crate::state::login_queue::{LoginQueue, Outcome};
use crate::state::users::Users;
use crate::state::verifier::{Asked, Question, Verdict, Verifier};
use crate::workers::passwords::{self, Verifications};

/// Computes hashes in threads, and everything else in place.
pub struct QueuedLogins {
    queue: LoginQueue,
    workers: Verifications,
    threads: usize,
    /// Hashes for which there was no memory.
    memory: Outage<()>,
}

impl QueuedLogins {
    /// Up to `threads` hashes are computed at once. `delays`: failures take their time even if there is no hash.
    pub fn new(threads: usize, delays: bool, waker: Waker) -> Self {
        let workers = passwords::verifications(threads, waker);
        let (queue, memory) = (LoginQueue::new(delays), Outage::default());
        QueuedLogins { queue, workers, threads: threads.max(1), memory }
    }

    /// Gives threads that are free something to do. No more than they can do at once: the queue decides what is next as
    /// late as it can.
    fn start(&mut self) {
        while self.queue.running() < self.threads
            && let Some(job) = self.queue.start()
        {
            self.workers.submit(job);
        }
    }
}

impl Verifier for QueuedLogins {
    fn ask(&mut self, question: &Question<'_>, users: &mut Users) -> Asked {
        let asked = self.queue.ask(question, users);
        self.start();
        asked
    }

    fn ready(&self, now: Instant) -> bool {
        self.workers.ready() || self.queue.is_ready(now)
    }

    fn verdicts(&mut self, users: &mut Users, now: Instant) -> Vec<(Key, Verdict)> {
        for done in self.workers.answers() {
            let outcome = match done.outcome {
                Ok(Ok(right)) => {
                    if self.memory.succeeds(now) {
                        log::info!("passwords can be checked again");
                    }
                    if right { Outcome::Right } else { Outcome::Wrong }
                }
                Ok(Err(error)) => {
                    if self.memory.fails((), now) {
                        log::warn!(
                            "passwords cannot be checked: {error}: logins end without an answer"
                        );
                    }
                    Outcome::Failed
                }
                Err(_) => Outcome::Failed,
            };
            self.queue.done(done.job.number, outcome, users, now);
        }
        self.start();
        self.queue.take(now)
    }

    fn check(&mut self, now: Instant) -> Option<Instant> {
        if self.queue.is_ready(now) {
            return Some(now);
        }
        let answers = (self.queue.running() > 0).then(|| self.workers.check(now));
        answers.into_iter().chain(self.queue.next_failure()).min()
    }

    fn limit(&mut self, threads: usize) {
        self.threads = threads.max(1);
        self.workers.limit(passwords::limits(self.threads));
        self.start();
    }

    fn queued(&self) -> usize {
        self.queue.waiting() + self.queue.running()
    }
}
