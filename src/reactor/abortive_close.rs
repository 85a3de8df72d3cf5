//! Abortive closes: connections that end with a reset (RFC 9293 §3.10.5), so that a peer does not take a broken
//! transfer for a complete one.
//!
//! SO_LINGER with a timeout of 0 makes close(2) send RST, and drops what the peer's kernel has not
//! acknowledged. So a connection is closed once everything is acknowledged, or the peer has acknowledged nothing for
//! too long. The kernel makes no event of it, so the send queue is polled at growing intervals.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::endpoint::{Endpoint, Stream};

/// The time between the first two looks at a send queue. The interval doubles from look to look.
const FIRST_INTERVAL: Duration = Duration::from_millis(5);
/// The longest interval between two looks.
const LONGEST_INTERVAL: Duration = Duration::from_millis(320);
/// The longest a connection waits for its peer to take anything, whatever the settings say.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest a connection waits for its peer to take everything.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Connections that wait at once, at most.
const MAX_WAITING: usize = 1024;

/// Connections that will be closed with a reset once their peers have what was sent to them.
pub struct AbortiveCloses<S: Stream> {
    /// Oldest first.
    waiting: VecDeque<Waiting<S>>,
    /// The earliest `next_look`.
    next: Option<Instant>,
}

struct Waiting<S: Stream> {
    /// Dropping it sends RST.
    endpoint: Endpoint<S>,
    /// Bytes that the peer had not acknowledged at the last look.
    left: usize,
    /// How long the peer may acknowledge nothing.
    timeout: Duration,
    deadline: Instant,
    /// Beyond this time the deadline is not put off.
    end: Instant,
    next_look: Instant,
    interval: Duration,
}

impl<S: Stream> Default for AbortiveCloses<S> {
    fn default() -> Self {
        AbortiveCloses { waiting: VecDeque::new(), next: None }
    }
}

impl<S: Stream> AbortiveCloses<S> {
    /// Closes a connection with a reset: at once if its peer has all that was sent, otherwise when it has, or has
    /// taken nothing for `timeout` (`None`: 60 s), or 10 minutes are over.
    pub fn add(&mut self, mut endpoint: Endpoint<S>, now: Instant, timeout: Option<Duration>) {
        endpoint.reset_on_close();
        let timeout = timeout.unwrap_or(LONGEST_TIMEOUT).min(LONGEST_TIMEOUT);
        let left = endpoint.unacknowledged();
        if left == 0 || timeout.is_zero() {
            return;
        }
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.pop_front();
        }
        let next_look = now + FIRST_INTERVAL.min(timeout);
        self.next = self.next.into_iter().chain([next_look]).min();
        self.waiting.push_back(Waiting {
            endpoint,
            left,
            timeout,
            deadline: now + timeout,
            end: now + LONGEST_WAIT,
            next_look,
            interval: FIRST_INTERVAL,
        });
    }

    /// Closes the connections whose peers have acknowledged everything or have passed their deadline, and the
    /// oldest ones beyond the number `allowed`.
    pub fn sweep(&mut self, now: Instant, allowed: usize) {
        let excess = self.waiting.len().saturating_sub(allowed);
        self.waiting.drain(..excess);
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        self.waiting.retain_mut(|waiting| {
            if waiting.next_look > now {
                return true;
            }
            let left = waiting.endpoint.unacknowledged();
            if left < waiting.left {
                waiting.left = left;
                waiting.deadline = waiting.end.min(now + waiting.timeout);
            }
            if left == 0 || waiting.deadline <= now {
                return false;
            }
            waiting.interval = (waiting.interval * 2).min(LONGEST_INTERVAL);
            waiting.next_look = waiting.deadline.min(now + waiting.interval);
            true
        });
        self.next = self.waiting.iter().map(|waiting| waiting.next_look).min();
    }

    /// When [`AbortiveCloses::sweep`] is to be called next; `None` if nothing waits.
    pub fn next_sweep(&self) -> Option<Instant> {
        self.next.filter(|_| !self.is_empty())
    }

    /// The number of connections that wait, each with one descriptor.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no connection waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream as Std};

    use mio::net::TcpStream;
    use socket2::SockRef;

    use super::*;
    use crate::reactor::endpoint::Transfer;

    fn pair() -> (Endpoint<TcpStream>, Std) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let far = Std::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (near, _) = listener.accept().expect("connected");
        near.set_nonblocking(true).expect("a socket");
        let mut endpoint = Endpoint::new(TcpStream::from_std(near));
        endpoint.raise(true, true);
        (endpoint, far)
    }

    /// A connection with as many bytes under way as it takes, more than the far side's window, which is small.
    fn backlog() -> (Endpoint<TcpStream>, Std, usize) {
        let (mut near, far) = pair();
        let _ = SockRef::from(near.stream()).set_send_buffer_size(256 * 1024);
        let _ = SockRef::from(&far).set_recv_buffer_size(16 * 1024);
        let (chunk, mut sent) = (vec![b'x'; 65536], 0);
        while let Transfer::Moved(count) = near.write(&chunk) {
            sent += count;
        }
        (near, far, sent)
    }

    #[test]
    fn a_connection_without_a_backlog_is_reset_at_once() {
        let (near, mut far) = pair();
        let mut closes = AbortiveCloses::default();
        closes.add(near, Instant::now(), None);
        assert!(closes.is_empty());
        let end = far.read(&mut [0]).expect_err("a reset");
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    }

    /// Whatever ends the connection: a panic drops its endpoint, too.
    #[test]
    fn an_endpoint_that_is_dropped_without_an_orderly_end_is_a_reset() {
        let (mut near, mut far) = pair();
        near.reset_unless_orderly();
        let panicking = std::panic::AssertUnwindSafe(move || {
            let _dropped = near;
            std::panic::resume_unwind(Box::new("a panic"));
        });
        std::panic::catch_unwind(panicking).expect_err("it panics");
        let end = far.read(&mut [0]).expect_err("a reset");
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
        let (mut near, mut far) = pair();
        near.reset_unless_orderly();
        near.close_orderly();
        assert_eq!(far.read(&mut [0]).expect("EOF"), 0);
    }

    /// The peer does not read until much later: the reset comes behind all that was sent.
    #[test]
    fn the_reset_comes_behind_the_bytes() {
        let (near, mut far, sent) = backlog();
        let (mut closes, now) = (AbortiveCloses::default(), Instant::now());
        closes.add(near, now, None);
        assert_eq!(closes.len(), 1, "{sent} bytes are more than a receive window");
        assert_eq!(closes.next_sweep(), Some(now + FIRST_INTERVAL));
        let mut received = 0;
        let end = loop {
            match far.read(&mut [0; 65536]) {
                Ok(count) => received += count,
                Err(error) => break error.kind(),
            }
            closes.sweep(closes.next_sweep().unwrap_or(now), 1);
            assert!(received <= sent, "more than was sent");
        };
        assert_eq!((received, end), (sent, ErrorKind::ConnectionReset));
    }

    /// A slow peer gets all, however long it takes in comparison with the timeout.
    #[test]
    fn a_peer_that_takes_something_has_its_time_anew() {
        let (near, mut far, sent) = backlog();
        let (mut closes, mut now) = (AbortiveCloses::default(), Instant::now());
        let timeout = Duration::from_secs(5);
        closes.add(near, now, Some(timeout));
        let (start, mut received, mut left) = (now, 0, usize::MAX);
        while let Ok(count) = far.read(&mut [0; 4096]) {
            received += count;
            // As time goes by only when something was taken, it is the peer that is slow, not this test.
            let queued =
                closes.waiting.front().map_or(0, |waiting| waiting.endpoint.unacknowledged());
            if queued < left {
                left = queued;
                now += timeout / 4;
            }
            closes.sweep(now, 1);
        }
        assert_eq!(received, sent);
        assert!(now > start + timeout * 2, "{:?}", now - start);
    }

    #[test]
    fn a_peer_that_takes_nothing_is_reset_at_the_deadline() {
        for short_of_descriptors in [false, true] {
            let (mut near, mut far) = pair();
            let chunk = vec![b'x'; 65536];
            while let Transfer::Moved(_) = near.write(&chunk) {}
            let (mut closes, now) = (AbortiveCloses::default(), Instant::now());
            let timeout = Duration::from_secs(5);
            closes.add(near, now, Some(timeout));
            closes.sweep(now + timeout / 2, 1);
            assert_eq!(closes.len(), 1);
            match short_of_descriptors {
                true => closes.sweep(now + timeout / 2, 0),
                false => closes.sweep(now + timeout, 1),
            }
            assert!(closes.is_empty());
            far.write_all(b"x").expect_err("a reset");
        }
    }
}
