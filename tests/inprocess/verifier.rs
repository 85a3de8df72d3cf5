//! Logins that a worker thread verifies, when the test lets it.

use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use socks5d::reactor::slab::Key;
use socks5d::reactor::waker::Waker;
use socks5d::state::users::Users;
use socks5d::state::verifier::{Asked, Question, Ticket, Verdict, Verifier};
use socks5d::workers::worker_pool::{Kind, Limits, Workers};

/// Names that begin so are verified by the worker, all others in place.
const SLOW: &[u8] = b"slow";

/// A verifier that blocks for each slow name.
pub struct SlowVerifier {
    workers: Workers<(Key, Verdict), ()>,
    outstanding: usize,
}

impl SlowVerifier {
    /// Each verdict takes one of the permits, also if its session has ended.
    pub fn new(permits: Receiver<()>, waker: Waker) -> Self {
        let permits = Mutex::new(permits);
        let kind = Kind { thread: c"logins", jobs: "logins", stack_bytes: 128 * 1024, nice: 0 };
        let limits = Limits { threads: 1, threads_in_all: 1, queue: 64 };
        let workers = Workers::new(kind, limits, waker, move |_: &(Key, Verdict)| {
            drop(permits.lock().map(|permits| permits.recv()));
        });
        SlowVerifier { workers, outstanding: 0 }
    }
}

impl Verifier for SlowVerifier {
    fn ask(&mut self, question: &Question<'_>, users: &mut Users) -> Asked {
        let Question { key, name, password, .. } = *question;
        let verdict = users.authenticate(name, password).into();
        if !name.starts_with(SLOW) {
            return Asked::Done(verdict);
        }
        self.outstanding += 1;
        self.workers.submit((key, verdict));
        let (ticket, _counterfoil) = Ticket::new();
        Asked::Pending(ticket)
    }

    fn ready(&self, _: Instant) -> bool {
        self.workers.ready()
    }

    fn verdicts(&mut self, _: &mut Users, _: Instant) -> Vec<(Key, Verdict)> {
        let done = self.workers.answers();
        self.outstanding -= done.len();
        done.into_iter().map(|done| done.job).collect()
    }

    fn check(&mut self, now: Instant) -> Option<Instant> {
        (self.outstanding > 0).then(|| self.workers.check(now))
    }

    fn limit(&mut self, _: usize) {}
}
