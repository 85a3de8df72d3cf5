//! Pipes for splice(2): bytes move from socket to socket without passing through this process.
//!
//! A pipe is to a streaming lane what storage is to a buffer: it is lent for the transfer and kept only
//! while it holds bytes. The number of pipes is bounded; idle ones are closed after a while.
//!
//! splice(2) is an optimisation, and may be refused while both sockets are well. What is in a pipe can
//! always be read out of it, and [`Pipes`] lends none where the call would only be refused again.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::errno;

/// The capacity that is requested for a pipe, in bytes (F_SETPIPE_SZ).
const PIPE_BYTES: usize = 256 * 1024;
/// A pipe that holds less is not worth its calls: the system has no more memory for pipes to give.
const MIN_PIPE_BYTES: u32 = 64 * 1024;
/// A pipe that has been idle for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Where memory or descriptors were short, the next attempt comes after this time.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// Pipes that are open at once, at most: 32 MiB of kernel memory.
const MAX_PIPES: usize = 128;

/// A pipe, and how many bytes are in it.
pub struct Pipe {
    reader: File,
    writer: OwnedFd,
    capacity: u32,
    held: u32,
    /// The number of open pipes. Dropping this one counts it off, in a panic too.
    meter: Rc<Cell<usize>>,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.meter.set(self.meter.get().saturating_sub(1));
    }
}

impl Pipe {
    fn open(meter: &Rc<Cell<usize>>) -> io::Result<Self> {
        #[cfg(test)]
        faults::next(faults::Call::Pipe)?;
        let mut ends = [-1; 2];
        // SAFETY: `ends` has room for the two descriptors that the call stores there.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both descriptors have just been opened and have no other owner.
        let [reader, writer] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
        // SAFETY: this command takes a number and gives one. It fails when the user has no more pipe memory
        // (pipe-user-pages-soft); then the pipe has the size that it has.
        let size = unsafe {
            libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES as libc::c_int);
            libc::fcntl(writer.as_raw_fd(), libc::F_GETPIPE_SZ)
        };
        let capacity = u32::try_from(size).map_err(|_| io::Error::last_os_error())?;
        meter.set(meter.get() + 1);
        Ok(Pipe { reader: reader.into(), writer, capacity, held: 0, meter: Rc::clone(meter) })
    }

    /// How many bytes are in it.
    pub fn held(&self) -> usize {
        self.held as usize
    }

    /// Moves `most` bytes at most from a socket into the pipe, which must be empty. Zero is EOF.
    ///
    /// # Errors
    /// Those of splice(2). `WouldBlock` says that the socket has nothing.
    pub fn fill(&mut self, from: BorrowedFd<'_>, most: u64) -> io::Result<usize> {
        let most = u32::try_from(most).unwrap_or(u32::MAX).min(self.capacity);
        let count = splice(from.as_raw_fd(), self.writer.as_raw_fd(), most)?;
        self.held = self.held.saturating_add(count);
        Ok(count as usize)
    }

    /// Moves bytes from the pipe into a socket.
    ///
    /// # Errors
    /// Those of splice(2). `WouldBlock` says that the socket takes nothing.
    pub fn drain(&mut self, to: BorrowedFd<'_>) -> io::Result<usize> {
        let count = splice(self.reader.as_raw_fd(), to.as_raw_fd(), self.held)?;
        self.held = self.held.saturating_sub(count);
        Ok(count as usize)
    }

    /// Copies bytes out of the pipe, oldest first: the way back where [`Pipe::drain`] is refused.
    ///
    /// # Errors
    /// Those of read(2). `UnexpectedEof` says that bytes are missing, which would be a fault of the kernel.
    pub fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        #[cfg(test)]
        faults::next(faults::Call::Read)?;
        let count = self.reader.read(space)?;
        self.held = self.held.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
    }
}

fn splice(from: i32, to: i32, count: u32) -> io::Result<u32> {
    #[cfg(test)]
    faults::next(faults::Call::Splice)?;
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    let nowhere = std::ptr::null_mut();
    // SAFETY: both descriptors are open for the duration of the call; null offsets are allowed for pipes and
    // sockets.
    let moved = unsafe { libc::splice(from, nowhere, to, nowhere, count as usize, flags) };
    u32::try_from(moved).map_err(|_| io::Error::last_os_error())
}

/// The pipes of the loop.
#[derive(Default)]
pub struct Pipes {
    /// Empty pipes and since when each is idle, the longest first.
    free: VecDeque<(Instant, Box<Pipe>)>,
    /// Free ones and lent ones.
    open: Rc<Cell<usize>>,
    /// Pipes at once for now: descriptors may be short.
    allowed: usize,
    now: Option<Instant>,
    /// Whether opening one more is worth an attempt.
    opening: Permit,
    /// Whether splice(2) is.
    splicing: Permit,
}

/// What is known of a call that may be refused.
#[derive(Clone, Copy, Default)]
enum Permit {
    #[default]
    Granted,
    /// It has failed, and may succeed from this time on.
    From(Instant),
    /// It will always fail.
    Refused,
}

impl Permit {
    fn is_granted(self, now: Option<Instant>) -> bool {
        match self {
            Permit::Granted => true,
            Permit::From(then) => now.is_some_and(|now| now >= then),
            Permit::Refused => false,
        }
    }

    /// What is known after this error.
    fn after(error: &io::Error, now: Option<Instant>) -> Self {
        match now.and_then(|now| now.checked_add(RETRY_INTERVAL)) {
            Some(then) if !errno::is_for_good(error) => Permit::From(then),
            _ => Permit::Refused,
        }
    }
}

impl Pipes {
    /// Begins a turn of the loop: so many pipes may be open from now on, and those that have been idle for
    /// too long are closed.
    pub fn sweep(&mut self, now: Instant, allowed: usize) {
        self.now = Some(now);
        self.allowed = allowed.min(MAX_PIPES);
        while self
            .free
            .front()
            .is_some_and(|(since, _)| *since + IDLE_TIMEOUT <= now || self.is_over_limit())
        {
            self.free.pop_front();
        }
    }

    /// When the next idle pipe is to be closed.
    pub fn next_sweep(&self) -> Option<Instant> {
        self.free.front().and_then(|(since, _)| since.checked_add(IDLE_TIMEOUT))
    }

    /// Pipes that are open. Each has two descriptors.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// Pipes that may be open before the next [`Pipes::sweep`].
    pub fn most(&self) -> usize {
        self.open().max(self.allowed)
    }

    /// Lends an empty pipe, if one can be had and splice(2) is not known to be refused.
    pub fn lend(&mut self) -> Option<Box<Pipe>> {
        if !self.splicing.is_granted(self.now) {
            return None;
        }
        if let Some((_, pipe)) = self.free.pop_back() {
            return Some(pipe);
        }
        if self.open() >= self.allowed || !self.opening.is_granted(self.now) {
            return None;
        }
        match Pipe::open(&self.open) {
            Ok(pipe) if pipe.capacity >= MIN_PIPE_BYTES => Some(Box::new(pipe)),
            Ok(_) => {
                self.opening = Permit::after(&io::ErrorKind::OutOfMemory.into(), self.now);
                None
            }
            Err(error) => {
                self.opening = Permit::after(&error, self.now);
                None
            }
        }
    }

    /// splice(2) has failed with an error that may not be the sockets': no pipe is lent for a while, or
    /// never again where the answer will not change. Errors of a peer change nothing.
    pub fn refused(&mut self, error: &io::Error) {
        if errno::is_of_the_peer(error) || matches!(self.splicing, Permit::Refused) {
            return;
        }
        self.splicing = Permit::after(error, self.now);
        match self.splicing {
            Permit::Refused => log::info!("splice refused, bulk transfers are copied: {error}"),
            _ => log::debug!(
                "splice failed, bulk transfers are copied for {RETRY_INTERVAL:?}: {error}"
            ),
        }
    }

    /// Takes a pipe back. One that holds bytes is closed, and they are lost.
    pub fn give_back(&mut self, pipe: Box<Pipe>) {
        if let Some(now) = self.now
            && pipe.held == 0
            && !self.is_over_limit()
        {
            self.free.push_back((now, pipe));
        }
    }

    fn is_over_limit(&self) -> bool {
        self.open() > self.allowed
    }
}

/// Errors that the tests of this thread want from the calls of this file, in place of the kernel's answers.
#[cfg(test)]
pub mod faults {
    use std::cell::RefCell;
    use std::io;

    /// A call that can fail.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Call {
        /// pipe2(2).
        Pipe,
        /// splice(2), in either direction.
        Splice,
        /// read(2) out of a pipe.
        Read,
    }

    thread_local! {
        static PLAN: RefCell<Vec<(Call, u32, i32)>> = const { RefCell::new(Vec::new()) };
    }

    /// After `calls` more calls of this kind the next one fails with this errno, once.
    pub fn plan(call: Call, calls: u32, errno: i32) {
        PLAN.with_borrow_mut(|plan| plan.push((call, calls, errno)));
    }

    /// Forgets what has not happened.
    pub fn clear() {
        PLAN.with_borrow_mut(Vec::clear);
    }

    /// The answer to the next call.
    pub fn next(call: Call) -> io::Result<()> {
        PLAN.with_borrow_mut(|plan| {
            let Some(at) = plan.iter().position(|(planned, ..)| *planned == call) else {
                return Ok(());
            };
            let (_, calls, errno) = &mut plan[at];
            if *calls > 0 {
                *calls -= 1;
                return Ok(());
            }
            let errno = *errno;
            plan.remove(at);
            Err(io::Error::from_raw_os_error(errno))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn bytes_pass_from_socket_to_socket() {
        let (mut source, from) = UnixStream::pair().expect("sockets");
        let (to, mut sink) = UnixStream::pair().expect("sockets");
        from.set_nonblocking(true).expect("a socket");
        let mut pipe = Pipe::open(&Rc::default()).expect("a pipe");
        assert_eq!(
            pipe.fill(from.as_fd(), u64::MAX).expect_err("nothing there").kind(),
            ErrorKind::WouldBlock
        );
        source.write_all(b"hello").expect("room");
        assert_eq!(pipe.fill(from.as_fd(), u64::MAX).expect("bytes"), 5);
        assert_eq!((pipe.drain(to.as_fd()).expect("room"), pipe.held()), (5, 0));
        let mut got = [0; 5];
        sink.read_exact(&mut got).expect("bytes");
        assert_eq!(&got, b"hello");
        drop(source);
        assert_eq!(pipe.fill(from.as_fd(), u64::MAX).expect("EOF"), 0);
    }

    #[test]
    fn pipes_are_bounded_reused_and_closed_when_idle() {
        let (mut pipes, now) = (Pipes::default(), Instant::now());
        assert!(pipes.lend().is_none(), "none is allowed yet");
        pipes.sweep(now, 2);
        let (first, second) = (pipes.lend().expect("allowed"), pipes.lend().expect("allowed"));
        assert!(pipes.lend().is_none());
        pipes.give_back(first);
        pipes.give_back(second);
        assert_eq!((pipes.open(), pipes.next_sweep()), (2, Some(now + IDLE_TIMEOUT)));
        pipes.sweep(now + IDLE_TIMEOUT / 2, 2);
        let again = pipes.lend().expect("one is free");
        pipes.give_back(again);
        pipes.sweep(now + IDLE_TIMEOUT, 2);
        assert_eq!(pipes.open(), 1, "the one that was used again stays");
        pipes.sweep(now + IDLE_TIMEOUT, 0);
        assert_eq!(pipes.open(), 0, "descriptors are short");
    }

    #[test]
    fn a_pipe_that_is_dropped_is_not_open() {
        let (mut pipes, now) = (Pipes::default(), Instant::now());
        pipes.sweep(now, 1);
        drop(pipes.lend().expect("allowed"));
        assert_eq!(pipes.open(), 0);
        assert!(pipes.lend().is_some(), "its place is free");
    }

    #[test]
    fn a_pipe_that_holds_bytes_is_not_used_again() {
        let (mut pipes, now) = (Pipes::default(), Instant::now());
        pipes.sweep(now, 2);
        let (mut source, from) = UnixStream::pair().expect("sockets");
        source.write_all(b"secret").expect("room");
        let mut pipe = pipes.lend().expect("allowed");
        pipe.fill(from.as_fd(), u64::MAX).expect("bytes");
        pipes.give_back(pipe);
        assert_eq!(pipes.open(), 0);
    }

    #[test]
    fn a_refusal_is_for_good_and_a_shortage_for_a_while() {
        let of = io::Error::from_raw_os_error;
        for (code, later) in [
            (libc::ENOSYS, false),
            (libc::EPERM, false),
            (libc::EINVAL, false),
            (libc::ENOMEM, true),
            (libc::EIO, true),
        ] {
            let (mut pipes, now) = (Pipes::default(), Instant::now());
            pipes.sweep(now, 2);
            let pipe = pipes.lend().expect("allowed");
            pipes.give_back(pipe);
            pipes.refused(&of(code));
            assert!(pipes.lend().is_none(), "{code}: at once");
            pipes.sweep(now + RETRY_INTERVAL / 2, 2);
            assert!(pipes.lend().is_none(), "{code}: soon");
            pipes.sweep(now + RETRY_INTERVAL, 2);
            assert_eq!(pipes.lend().is_some(), later, "{code}: later");
        }
    }

    #[test]
    fn a_peer_that_breaks_off_is_no_refusal() {
        let (mut pipes, now) = (Pipes::default(), Instant::now());
        pipes.sweep(now, 1);
        for code in [libc::ECONNRESET, libc::EPIPE, libc::ETIMEDOUT, libc::EHOSTUNREACH] {
            pipes.refused(&io::Error::from_raw_os_error(code));
            let pipe = pipes.lend().expect("as before");
            pipes.give_back(pipe);
        }
    }

    #[test]
    fn a_pipe_that_cannot_be_opened_is_not_asked_for_each_time() {
        for (code, later) in [(libc::EMFILE, true), (libc::ENOMEM, true), (libc::EPERM, false)] {
            let (mut pipes, now) = (Pipes::default(), Instant::now());
            pipes.sweep(now, 2);
            let first = pipes.lend().expect("allowed");
            faults::plan(faults::Call::Pipe, 0, code);
            assert!(pipes.lend().is_none());
            assert!(pipes.lend().is_none(), "{code}: the kernel would say yes, but is not asked");
            pipes.give_back(first);
            let first = pipes.lend().expect("the one that is open is as good as before");
            pipes.sweep(now + RETRY_INTERVAL, 2);
            assert_eq!(pipes.lend().is_some(), later, "{code}");
            drop(first);
        }
    }

    #[test]
    fn what_is_in_a_pipe_can_be_read_out_of_it() {
        let (mut source, from) = UnixStream::pair().expect("sockets");
        source.write_all(b"hello").expect("room");
        let mut pipe = Pipe::open(&Rc::default()).expect("a pipe");
        assert_eq!(pipe.fill(from.as_fd(), u64::MAX).expect("bytes"), 5);
        let mut got = [0; 3];
        assert_eq!((pipe.read(&mut got).expect("bytes"), pipe.held()), (3, 2));
        assert_eq!(&got, b"hel");
        assert_eq!((pipe.read(&mut got).expect("bytes"), pipe.held()), (2, 0));
        assert_eq!(&got[..2], b"lo");
    }
}
