//! What an event says about a descriptor, as plain data: sessions take it instead of an event of the poll, which only
//! the poll can make.

use mio::event::Event;

/// The facts that one event reports about one descriptor. `true` is news; `false` is no statement, since epoll reports
/// changes (edges) only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Reading may succeed (EPOLLIN).
    pub readable: bool,
    /// Writing may succeed (EPOLLOUT).
    pub writable: bool,
    /// The peer has shut its writing direction: EOF follows its bytes (EPOLLRDHUP, EPOLLHUP).
    pub read_closed: bool,
    /// The writing direction is closed (EPOLLHUP, EPOLLERR).
    pub write_closed: bool,
    /// The connection has failed (EPOLLERR).
    pub error: bool,
    /// Urgent data has arrived (EPOLLPRI; RFC 9293 §3.8.5).
    pub priority: bool,
}

impl From<&Event> for Readiness {
    fn from(event: &Event) -> Self {
        Readiness {
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_closed: event.is_read_closed(),
            write_closed: event.is_write_closed(),
            error: event.is_error(),
            priority: event.is_priority(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use mio::unix::pipe;
    use mio::{Events, Interest, Poll, Token, event::Source};

    use super::*;

    fn readiness_of(source: &mut impl Source, interest: Interest) -> Readiness {
        let mut poll = Poll::new().expect("a poll");
        poll.registry().register(source, Token(0), interest).expect("registered");
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::from_secs(10))).expect("polled");
        poll.registry().deregister(source).expect("it was registered");
        events.iter().next().map(Readiness::from).expect("an event")
    }

    /// The kernel's events are the ones that the fakes of the tests make up.
    #[test]
    fn events_of_the_kernel_are_translated() {
        let both = Interest::READABLE | Interest::WRITABLE;
        let (mut near, mut far) = mio::net::UnixStream::pair().expect("a pair");
        let nothing = Readiness::default();
        let writable = Readiness { writable: true, ..nothing };
        assert_eq!(readiness_of(&mut near, both), writable);
        far.write_all(b"x").expect("there is room");
        let moved = Readiness { readable: true, ..writable };
        assert_eq!(readiness_of(&mut near, both), moved);
        far.shutdown(std::net::Shutdown::Write).expect("open");
        let ended = Readiness { read_closed: true, ..moved };
        assert_eq!(readiness_of(&mut near, both), ended);

        let (mut sender, receiver) = pipe::new().expect("a pipe");
        drop(receiver);
        let failed = readiness_of(&mut sender, Interest::WRITABLE);
        assert!(failed.error && failed.write_closed, "{failed:?}");
    }
}
