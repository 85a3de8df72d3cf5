//! The far end of each tunnel. The first line that it gets tells what it does, and it remembers what came.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that transfers are made of. The length is odd, so that a piece that is lost or doubled shows.
const PATTERN: usize = (1 << 20) + 7;

/// How a stream came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With FIN.
    Eof,
    /// With an error: a reset above all.
    Error,
    /// It did not: no byte came in time.
    Never,
}

/// What an origin has received on a connection.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    pub bytes: u64,
    /// Whether they are a prefix of what was sent.
    pub right: bool,
    pub end: End,
}

/// Origins on one port, and what they have received by the number of the transfer.
pub struct Origin {
    pub port: u16,
    pub pattern: Pattern,
    received: Arc<(Mutex<HashMap<u64, Received>>, Condvar)>,
}

/// What transfers are made of: each begins at a place of its own.
#[derive(Clone)]
pub struct Pattern(Arc<Vec<u8>>);

impl Pattern {
    /// The bytes of transfer `id` from this position on, some at least.
    pub fn at(&self, id: u64, position: u64) -> &[u8] {
        let length = self.0.len() as u64;
        let start = (id.wrapping_mul(4099).wrapping_add(position) % length) as usize;
        self.0.get(start..).unwrap_or_default()
    }

    /// Sends `size` bytes of transfer `id`.
    pub fn send(&self, to: &mut TcpStream, id: u64, size: u64) -> io::Result<()> {
        let mut sent = 0;
        while sent < size {
            let piece = self.at(id, sent);
            let count = piece.len().min(usize::try_from(size - sent).unwrap_or(usize::MAX));
            to.write_all(piece.get(..count).unwrap_or_default())?;
            sent += count as u64;
        }
        Ok(())
    }

    /// Receives transfer `id` until `size` bytes are there, or to its end.
    pub fn receive(&self, from: &mut TcpStream, id: u64, size: u64) -> Received {
        let mut space = vec![0; 65536];
        let mut received = Received { bytes: 0, right: true, end: End::Eof };
        while received.bytes < size {
            let wanted = usize::try_from(size - received.bytes).unwrap_or(usize::MAX);
            let wanted = wanted.min(space.len());
            match from.read(space.get_mut(..wanted).unwrap_or_default()) {
                Ok(0) => return received,
                Ok(count) => {
                    let mut got = space.get(..count).unwrap_or_default();
                    while !got.is_empty() {
                        let expected = self.at(id, received.bytes);
                        let length = expected.len().min(got.len());
                        received.right &= expected.get(..length) == got.get(..length);
                        received.bytes += length as u64;
                        got = got.get(length..).unwrap_or_default();
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let late = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                    received.end = if late { End::Never } else { End::Error };
                    return received;
                }
            }
        }
        received
    }
}

impl Origin {
    /// Listens on all local addresses of IPv4. Nothing takes longer than `patience`.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn start(patience: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let port = listener.local_addr()?.port();
        let pattern = Pattern(Arc::new(support::noise(PATTERN, 77)));
        let received: Arc<(Mutex<HashMap<u64, Received>>, Condvar)> = Arc::default();
        let (served, noted) = (pattern.clone(), Arc::clone(&received));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (pattern, noted) = (served.clone(), Arc::clone(&noted));
                thread::spawn(move || serve(stream, &pattern, patience, &noted));
            }
        });
        Ok(Origin { port, pattern, received })
    }

    /// What was received of transfer `id`, once it has ended; `None` if that is not in time.
    pub fn received(&self, id: u64, patience: Duration) -> Option<Received> {
        let (table, changed) = &*self.received;
        let deadline = Instant::now() + patience;
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(received) = table.get(&id) {
                return Some(*received);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            table = changed
                .wait_timeout(table, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(table, _)| table);
        }
    }
}

type Noted = (Mutex<HashMap<u64, Received>>, Condvar);

/// The first line is `WHAT ID SIZE`. An origin that gives up resets its connection, and ends with FIN only a complete
/// transfer: a client that sees FIN before has it from the server.
fn serve(mut stream: TcpStream, pattern: &Pattern, patience: Duration, noted: &Noted) {
    let _ = stream.set_read_timeout(Some(patience));
    let _ = stream.set_write_timeout(Some(patience));
    let Some((what, id, size)) = first_line(&mut stream) else { return };
    let note = |received| {
        noted.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, received);
        noted.1.notify_all();
    };
    match what.as_str() {
        "echo" => echo(stream),
        // All of it, then EOF.
        "down" => match pattern.send(&mut stream, id, size) {
            Ok(()) => {
                let _ = stream.shutdown(Shutdown::Write);
                // A kernel that is short of memory resets what is closed and not yet acknowledged.
                let _ = stream.read(&mut [0]);
            }
            Err(_) => support::socks::reset(stream),
        },
        // Half of it, then a reset.
        "cut" => {
            let _ = pattern.send(&mut stream, id, size / 2);
            support::socks::reset(stream);
        }
        // Says that it is there, takes all of it and EOF, then answers.
        "up" => {
            let _ = stream.write_all(b"go");
            let received = pattern.receive(&mut stream, id, u64::MAX);
            note(received);
            match (received.end, received.bytes == size) {
                (End::Eof, true) => drop(stream.write_all(b"taken")),
                _ => support::socks::reset(stream),
            }
        }
        // Ends its own direction first, then takes what comes.
        "late" => {
            if pattern.send(&mut stream, id, size).is_err() {
                note(Received { bytes: 0, right: true, end: End::Never });
                return support::socks::reset(stream);
            }
            let _ = stream.shutdown(Shutdown::Write);
            let received = pattern.receive(&mut stream, id, u64::MAX);
            note(received);
            if received.end != End::Eof {
                support::socks::reset(stream);
            }
        }
        _ => {}
    }
}

/// Sends back what comes until EOF.
fn echo(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) if stream.write_all(bytes.get(..count).unwrap_or_default()).is_ok() => {}
            _ => return support::socks::reset(stream),
        }
    }
}

fn first_line(stream: &mut TcpStream) -> Option<(String, u64, u64)> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < 100 {
        stream.read_exact(&mut byte).ok()?;
        if byte == *b"\n" {
            break;
        }
        line.extend(byte);
    }
    let line = String::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    let what = words.next()?.to_owned();
    Some((what, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}
