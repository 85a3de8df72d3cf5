//! Standard input, output and error as they were inherited.
//!
//! The parent process may still use these descriptors, and may have made them non-blocking: that is a flag of the
//! open file, which all processes share, so it is not changed here. On `EAGAIN` the calling thread waits, so this
//! is for threads that may block, never for the loop.
//!
//! Nothing is buffered, so a failed write leaves nothing behind that would be written later.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

/// The pause when poll(2) reports a descriptor as ready and the next call returns EAGAIN: a terminal with room for
/// one octet does so for a line end, which takes two.
const DISAGREEMENT: Duration = Duration::from_millis(10);

/// One of the three descriptors that every process inherits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited(RawFd);

/// Standard input.
pub fn stdin() -> Inherited {
    Inherited(libc::STDIN_FILENO)
}

/// Standard output.
pub fn stdout() -> Inherited {
    Inherited(libc::STDOUT_FILENO)
}

/// Standard error.
pub fn stderr() -> Inherited {
    Inherited(libc::STDERR_FILENO)
}

impl Inherited {
    /// Whether both lead to the same file, pipe, socket or terminal. `false` if fstat(2) fails.
    pub fn is_same_as(self, other: Self) -> bool {
        let identity = |stream: Inherited| stream.file().metadata().map(|of| (of.dev(), of.ino()));
        matches!((identity(self), identity(other)), (Ok(one), Ok(two)) if one == two)
    }

    /// Whether it leads to the file with this metadata. `false` if fstat(2) fails.
    pub fn leads_to(self, found: &Metadata) -> bool {
        let mine = self.file().metadata();
        mine.is_ok_and(|mine| (mine.dev(), mine.ino()) == (found.dev(), found.ino()))
    }

    /// Whether it is a regular file. `false` if fstat(2) fails.
    pub fn is_file(self) -> bool {
        self.file().metadata().is_ok_and(|of| of.is_file())
    }

    /// Has everything that is written through it appended, as with `>>`. That is a flag of the open file, which the parent
    /// process may share: no write of its own is lost by that.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn append(self) -> io::Result<()> {
        // SAFETY: this command takes no argument.
        let flags = unsafe { libc::fcntl(self.0, libc::F_GETFL) };
        // SAFETY: this command takes a number.
        if flags == -1
            || unsafe { libc::fcntl(self.0, libc::F_SETFL, flags | libc::O_APPEND) } == -1
        {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Whether it is a file that is appended to, and whose last line has no end: a program was ended, or the disk
    /// was full, in the middle of it. `false` if the file cannot be read.
    pub fn ends_in_mid_line(self) -> bool {
        // SAFETY: this command takes no argument.
        let flags = unsafe { libc::fcntl(self.0, libc::F_GETFL) };
        let appends = flags != -1 && flags & libc::O_APPEND != 0;
        let is_file = self.file().metadata().is_ok_and(|of| of.is_file());
        appends && is_file && self.last_byte().is_ok_and(|byte| byte != b'\n')
    }

    /// The descriptor may be open for writing alone.
    fn last_byte(self) -> io::Result<u8> {
        let mut byte = [0];
        let mut file = File::open(format!("/proc/self/fd/{}", self.0))?;
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// The descriptor as a file that does not close it.
    fn file(self) -> ManuallyDrop<File> {
        // SAFETY: Rust's runtime has made sure that descriptors 0 to 2 are open before main, this program never
        // closes them, and the file is not dropped.
        ManuallyDrop::new(unsafe { File::from_raw_fd(self.0) })
    }

    /// Repeats a call, and waits between, until it neither would block nor was interrupted.
    fn retry_blocking(
        self,
        events: libc::c_short,
        mut call: impl FnMut(&mut File) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut has_waited = false;
        loop {
            match retry_interrupted(|| call(&mut self.file())) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if std::mem::replace(&mut has_waited, true) {
                        thread::sleep(DISAGREEMENT);
                    }
                    self.wait(events)?;
                }
                result => return result,
            }
        }
    }

    /// Waits for one of the events, or an error (poll(2)).
    fn wait(self, events: libc::c_short) -> io::Result<()> {
        let mut descriptor = libc::pollfd { fd: self.0, events, revents: 0 };
        retry_interrupted(|| {
            // SAFETY: `descriptor` is one valid pollfd, which the call fills in and does not keep.
            match unsafe { libc::poll(&raw mut descriptor, 1, -1) } {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        })
    }
}

/// Repeats a call until it is not interrupted by a signal (EINTR). For threads that may block: the loop bounds its
/// repetitions.
///
/// # Errors
/// Those of the call, but for EINTR.
pub fn retry_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl Write for Inherited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retry_blocking(libc::POLLOUT, |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Inherited {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        self.retry_blocking(libc::POLLIN, |file| file.read(space))
    }
}
