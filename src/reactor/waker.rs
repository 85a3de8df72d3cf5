//! What other threads use to end the loop's wait: an eventfd(2).
//!
//! mio has a waker too. Its call repeats itself, in a recursion without bound, for as long as write(2) returns
//! EAGAIN; under a kernel or sandbox that always returns it the process would end.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

/// What ends the loop's wait for events.
pub trait Wake: Send + Sync {
    /// Ends the wait that is under way, or else the next one.
    ///
    /// # Errors
    /// If the system refuses; the wait goes on then.
    fn wake(&self) -> io::Result<()>;
}

/// Ends the wait of the poll that it is registered with. All copies share one descriptor.
#[derive(Clone)]
pub struct Waker {
    counter: Arc<File>,
}

impl Waker {
    /// A waker that shows as `token`.
    ///
    /// # Errors
    /// Those of eventfd(2) and epoll_ctl(2): descriptors or memory are short.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        // SAFETY: this call takes numbers and gives a descriptor.
        let counter = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if counter < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor has just been opened and has no other owner.
        let counter = unsafe { OwnedFd::from_raw_fd(counter) };
        registry.register(&mut SourceFd(&counter.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Waker { counter: Arc::new(counter.into()) })
    }

    /// Adds one to the counter. Each addition is an edge, so the counter need not be read.
    fn add(&self) -> io::Result<()> {
        (&*self.counter).write(&1u64.to_ne_bytes()).map(|_| ())
    }
}

impl Wake for Waker {
    fn wake(&self) -> io::Result<()> {
        match self.add() {
            // The counter is full, after 2^64 - 2 calls: it begins anew.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // If this fails, the write below fails too, and its error is returned.
                let _ = (&*self.counter).read(&mut [0; 8]);
                self.add()
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => self.add(),
            woken => woken,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    #[test]
    fn each_call_is_an_event_even_if_the_counter_is_full() {
        let mut poll = Poll::new().expect("epoll");
        let waker = Waker::new(poll.registry(), Token(7)).expect("an eventfd");
        let mut events = Events::with_capacity(4);
        let mut wakes = |waker: &Waker| {
            waker.wake().expect("room");
            poll.poll(&mut events, Some(Duration::from_secs(20))).expect("epoll");
            assert!(events.iter().map(|event| event.token()).eq([Token(7)]));
        };
        wakes(&waker);
        wakes(&waker);
        (&*waker.counter).read_exact(&mut [0; 8]).expect("it was written");
        (&*waker.counter).write_all(&(u64::MAX - 1).to_ne_bytes()).expect("the most that it takes");
        wakes(&waker);
        wakes(&waker);
    }
}
