//! Pipes for splice(2): bytes move from socket to socket without passing through this process.
//!
//! A pipe is to a streaming lane what storage is to a buffer: it is lent for the transfer and kept only
//! while it holds bytes. The number of pipes is bounded; idle ones are closed after a while.

#![allow(unsafe_code)] // Each block tells why it is sound.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How much a pipe is asked to hold, in bytes.
const CAPACITY: usize = 256 * 1024;
/// A pipe that holds less is not worth its calls: the system has no more memory for pipes to give.
const SMALLEST: u32 = 64 * 1024;
/// A pipe that nobody has needed for this long is closed.
const IDLE: Duration = Duration::from_secs(5);
/// Pipes at once, at most: 32 MiB of kernel memory.
const PIPES: usize = 128;

/// A pipe, and how many bytes are in it.
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    capacity: u32,
    held: u32,
    /// How many pipes are open; hears of this one's end, even in a panic.
    meter: Rc<Cell<usize>>,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.meter.set(self.meter.get().saturating_sub(1));
    }
}

impl Pipe {
    fn open(meter: &Rc<Cell<usize>>) -> io::Result<Self> {
        let mut ends = [-1; 2];
        // SAFETY: `ends` has room for the two descriptors that the call stores there.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both descriptors have just been opened and belong to nobody else.
        let [reader, writer] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
        // SAFETY: this command takes a number and gives one. It fails when the user has no more pipe memory
        // (pipe-user-pages-soft); then the pipe has the size that it has.
        let size = unsafe {
            libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, CAPACITY as libc::c_int);
            libc::fcntl(writer.as_raw_fd(), libc::F_GETPIPE_SZ)
        };
        let capacity = u32::try_from(size).map_err(|_| io::Error::last_os_error())?;
        meter.set(meter.get() + 1);
        Ok(Pipe { reader, writer, capacity, held: 0, meter: Rc::clone(meter) })
    }

    /// How many bytes are in it.
    pub fn held(&self) -> usize {
        self.held as usize
    }

    /// Moves bytes from a socket into the pipe, which must be empty. Zero is EOF.
    ///
    /// # Errors
    /// Those of splice(2). `WouldBlock` says that the socket has nothing.
    pub fn fill(&mut self, from: BorrowedFd<'_>) -> io::Result<usize> {
        let count = splice(from.as_raw_fd(), self.writer.as_raw_fd(), self.capacity)?;
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
}

fn splice(from: i32, to: i32, count: u32) -> io::Result<u32> {
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
    /// Empty pipes with the time since when nobody has needed them, longest first.
    free: VecDeque<(Instant, Box<Pipe>)>,
    /// Free ones and lent ones.
    open: Rc<Cell<usize>>,
    /// Pipes at once for now: descriptors may be short.
    allowed: usize,
    now: Option<Instant>,
}

impl Pipes {
    /// Begins a turn of the loop: so many pipes may be open from now on, and those that have been idle for
    /// too long are closed.
    pub fn sweep(&mut self, now: Instant, allowed: usize) {
        self.now = Some(now);
        self.allowed = allowed.min(PIPES);
        while self.free.front().is_some_and(|(since, _)| *since + IDLE <= now || self.crowded()) {
            self.free.pop_front();
        }
    }

    /// When the next idle pipe is to be closed.
    pub fn next_sweep(&self) -> Option<Instant> {
        self.free.front().and_then(|(since, _)| since.checked_add(IDLE))
    }

    /// Pipes that are open. Each has two descriptors.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// Lends an empty pipe, if one can be had.
    pub fn lend(&mut self) -> Option<Box<Pipe>> {
        match self.free.pop_back() {
            Some((_, pipe)) => Some(pipe),
            None if self.open() >= self.allowed => None,
            None => {
                let pipe = Pipe::open(&self.open).ok()?;
                (pipe.capacity >= SMALLEST).then(|| Box::new(pipe))
            }
        }
    }

    /// Takes a pipe back. One that holds bytes is closed, and they are lost.
    pub fn give_back(&mut self, pipe: Box<Pipe>) {
        if let Some(now) = self.now
            && pipe.held == 0
            && !self.crowded()
        {
            self.free.push_back((now, pipe));
        }
    }

    fn crowded(&self) -> bool {
        self.open() > self.allowed
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
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
            pipe.fill(from.as_fd()).expect_err("nothing there").kind(),
            ErrorKind::WouldBlock
        );
        source.write_all(b"hello").expect("room");
        assert_eq!(pipe.fill(from.as_fd()).expect("bytes"), 5);
        assert_eq!((pipe.drain(to.as_fd()).expect("room"), pipe.held()), (5, 0));
        let mut got = [0; 5];
        sink.read_exact(&mut got).expect("bytes");
        assert_eq!(&got, b"hello");
        drop(source);
        assert_eq!(pipe.fill(from.as_fd()).expect("EOF"), 0);
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
        assert_eq!((pipes.open(), pipes.next_sweep()), (2, Some(now + IDLE)));
        pipes.sweep(now + IDLE / 2, 2);
        let again = pipes.lend().expect("one is free");
        pipes.give_back(again);
        pipes.sweep(now + IDLE, 2);
        assert_eq!(pipes.open(), 1, "the one that was used again stays");
        pipes.sweep(now + IDLE, 0);
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
        pipe.fill(from.as_fd()).expect("bytes");
        pipes.give_back(pipe);
        assert_eq!(pipes.open(), 0);
    }
}
