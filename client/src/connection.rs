//! A TCP connection that carries lines. It blocks, and every wait has a deadline.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::thread;

use crate::failure::Failure;
use crate::render;

/// The longest wait for a connection, for an answer, and for a line to be sent.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// What is left of a deadline that passed while the program was stopped.
const RESUME_TIMEOUT: Duration = Duration::from_millis(1);

/// The longest line that is read from a server, in octets; METP's own limit is far below.
const LINE_LIMIT_BYTES: u64 = 4096;

/// The stack of a thread that looks up a name, in bytes: getaddrinfo(3) puts buffers of 64 KiB and more on it.
const LOOKUP_STACK_BYTES: usize = 256 * 1024;

/// When an answer has to be complete.
#[derive(Clone, Copy)]
pub struct Deadline {
    at: Instant,
    /// The time from the start to the deadline, for the message.
    timeout: Duration,
}

impl Deadline {
    /// A deadline `timeout` from now. `timeout` is at most [`REPLY_TIMEOUT`].
    pub fn after(timeout: Duration) -> Self {
        Deadline { at: Instant::now() + timeout, timeout }
    }

    /// The time left.
    fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// The failure of a read that was to end by this deadline.
    fn lost(&self, error: io::Error) -> Failure {
        Failure::Lost(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                let seconds = format!("{:.1}", self.timeout.as_secs_f64());
                let seconds = seconds.strip_suffix(".0").unwrap_or(&seconds);
                format!("The server did not answer within {seconds} s")
            }
            _ => format!("The connection was lost: {error}"),
        })
    }
}

/// The failure of a connection that is open.
fn lost(error: io::Error) -> Failure {
    Deadline::after(REPLY_TIMEOUT).lost(error)
}

/// The failure of a server that did not answer within [`REPLY_TIMEOUT`].
pub fn timed_out() -> Failure {
    lost(io::ErrorKind::TimedOut.into())
}

/// Shuts a connection down from another thread than the one that reads from it.
pub struct Closer(TcpStream);

impl Closer {
    /// Shuts the connection down in both directions; the reader sees its end.
    pub fn close(&self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A connection, and the line that was read last.
pub struct LineStream {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
}

impl LineStream {
    /// Connects to the first address of `host` that accepts, within `timeout`.
    ///
    /// # Errors
    /// [`Failure::Unreachable`].
    pub fn connect(host: &str, port: u16, timeout: Duration) -> Result<Self, Failure> {
        let unreachable = |error: io::Error| {
            let server = render::endpoint(host, port);
            Failure::Unreachable(format!("{} to {server}: {error}", render::NO_CONNECTION))
        };
        let stream = connect(host, port, timeout).map_err(unreachable)?;
        let options =
            stream.set_write_timeout(Some(REPLY_TIMEOUT)).and_then(|()| stream.set_nodelay(true));
        options.map_err(unreachable)?;
        Ok(LineStream { stream: BufReader::new(stream), line: Vec::new() })
    }

    /// A handle that shuts this connection down from another thread.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn closer(&self) -> Result<Closer, Failure> {
        self.stream.get_ref().try_clone().map(Closer).map_err(lost)
    }

    /// Writes `bytes`.
    ///
    /// # Errors
    /// [`Failure::Lost`].
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.get_mut().write_all(bytes).map_err(lost)
    }

    /// Waits up to `timeout` for something to read, or for the end of the connection. `false`: nothing has come.
    ///
    /// # Errors
    /// [`Failure::Lost`].
    pub fn wait_readable(&mut self, timeout: Duration) -> Result<bool, Failure> {
        self.stream.get_ref().set_read_timeout(Some(timeout)).map_err(lost)?;
        loop {
            return match self.stream.fill_buf() {
                Ok(_) => Ok(true),
                // As after SIGSTOP and SIGCONT.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                Err(error) => Err(lost(error)),
            };
        }
    }

    /// The line that [`read_line`](LineStream::read_line) read last, without its line end.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Reads a line that ends in LF or CRLF. All of it has to come by the deadline, so that a server that sends an
    /// octet now and then cannot hold the caller up.
    ///
    /// # Errors
    /// [`Failure::Lost`] if it does not come; [`Failure::Broken`] if it has more than [`LINE_LIMIT_BYTES`].
    pub fn read_line(&mut self, deadline: Deadline) -> Result<(), Failure> {
        self.line.clear();
        let mut interrupted = false;
        while self.line.last() != Some(&b'\n') {
            if self.stream.buffer().is_empty() {
                let mut left = deadline.left();
                if interrupted {
                    // If the program was stopped, the answer has come meanwhile.
                    left = left.max(RESUME_TIMEOUT);
                }
                if left.is_zero() {
                    return Err(deadline.lost(io::ErrorKind::TimedOut.into()));
                }
                self.stream.get_ref().set_read_timeout(Some(left)).map_err(lost)?;
                match self.stream.fill_buf() {
                    Ok([]) => break,
                    Ok(_) => interrupted = false,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                        interrupted = true;
                        continue;
                    }
                    Err(error) => return Err(deadline.lost(error)),
                }
            }
            let room = LINE_LIMIT_BYTES.saturating_sub(self.line.len() as u64);
            if room == 0 {
                break;
            }
            let ready = self.stream.buffer().len() as u64;
            let mut limited = Read::by_ref(&mut self.stream).take(room.min(ready));
            limited.read_until(b'\n', &mut self.line).map_err(lost)?;
        }
        match self.line.pop() {
            Some(b'\n') => {}
            Some(_) if self.line.len() as u64 + 1 >= LINE_LIMIT_BYTES => {
                return Err(Failure::Broken("The server's line is too long".to_owned()));
            }
            _ => return Err(Failure::Lost("The server closed the connection".to_owned())),
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(())
    }
}

/// Tries the addresses of `host` one after the other; the look-up and all attempts share `timeout`.
fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let deadline = Instant::now() + timeout;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    for address in look_up(host, port, timeout)? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The addresses of `host`, which may be one. getaddrinfo(3) cannot be interrupted: it runs in a thread of its own,
/// which is left behind when it takes longer than `timeout`.
fn look_up(host: &str, port: u16, timeout: Duration) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (sender, receiver) = mpsc::channel();
    let host = host.to_owned();
    thread::start(c"dns", LOOKUP_STACK_BYTES, move || {
        let addresses = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // The receiver may have given up.
        let _ = sender.send(addresses);
    })?;
    receiver.recv_timeout(timeout).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
