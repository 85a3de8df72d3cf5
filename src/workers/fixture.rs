//! What tests of workers share: a loop that waits for answers, and a gate that holds jobs back.

use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::reactor::waker::Waker;

/// The loop, without sessions.
pub struct Loop {
    poll: Poll,
}

impl Loop {
    /// A loop, and what wakes it.
    pub fn new() -> (Self, Waker) {
        let poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
        (Loop { poll }, waker)
    }

    /// Waits for the waker, for `timeout` at most. Returns whether it was called.
    pub fn sleep(&mut self, timeout: Duration) -> bool {
        let mut events = Events::with_capacity(8);
        self.poll.poll(&mut events, Some(timeout)).expect("polled");
        !events.is_empty()
    }

    /// Waits until `take` returns answers, or for the time `within`. It also says when it is to be called again
    /// if the loop is not woken before.
    pub fn wait<T>(
        &mut self,
        within: Duration,
        mut take: impl FnMut(Instant) -> (Vec<T>, Instant),
    ) -> Vec<T> {
        let deadline = Instant::now() + within;
        loop {
            let now = Instant::now();
            let (answers, check) = take(now);
            if !answers.is_empty() || now >= deadline {
                return answers;
            }
            self.sleep(check.min(deadline) - now);
        }
    }
}

/// A gate: the function returns once for each message that was sent, and always when the sender has been dropped.
pub fn gate() -> (mpsc::Sender<()>, impl Fn() + Send + Sync) {
    let (permits, wait) = mpsc::channel();
    let wait = Mutex::new(wait);
    let pass = move || drop(wait.lock().map(|wait| wait.recv()));
    (permits, pass)
}
