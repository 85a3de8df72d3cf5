//! What clients do while calls fail: logins, requests, transfers in both directions, half-closes, resets, an
//! administrator, signals. Each step ends with what its client has seen.

mod metp;
mod more;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use support::socks::{HELLO, connect_request, credentials, name_request, reset};

use crate::origin::{End, Origin, Received};
use crate::server::Server;
use crate::signal;
pub use metp::open_connections;
use metp::session as metp;

/// The longest wait of a client for a byte or an end: then it counts as stalled.
pub const PATIENCE: Duration = Duration::from_secs(4);
/// The longest wait of an origin: longer, so that the client gives up first.
pub const ORIGIN_PATIENCE: Duration = Duration::from_secs(8);
/// Bytes of a bulk transfer.
const BULK: u64 = 3 << 20;

/// What a client has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All that it was to receive.
    Whole,
    /// A refusal, or a reset.
    BadEnd(String),
    /// A FIN before the transfer was complete.
    WrongEnd(String),
    /// Bytes that were not sent.
    WrongBytes(String),
    /// Nothing at all, not even an end.
    Stalled(String),
}

use Outcome::{BadEnd, Stalled, Whole, WrongBytes, WrongEnd};

/// Where the steps find what they need.
pub struct Stage<'a> {
    pub socks: SocketAddr,
    pub metp: SocketAddr,
    pub pid: i32,
    pub origin: &'a Origin,
    /// A name of this machine that needs a look-up.
    pub name: &'a str,
}

type Step = fn(&Stage<'_>) -> Outcome;

/// All steps, in their order.
pub const STEPS: [(&str, Step); 13] = [
    ("bad login", bad_login),
    ("request by name", by_name),
    ("request by address", by_address),
    ("download", download),
    ("upload, half-close, answer", upload),
    ("server half-closes first", late),
    ("client resets", client_resets),
    ("server resets", server_resets),
    ("metp session", metp),
    ("dead name", dead_name),
    ("datagrams", more::datagrams),
    ("bind", more::bind),
    ("signal", hang_up),
];

/// A client that has to be served once nothing fails any more.
pub fn healthy(stage: &Stage<'_>) -> Outcome {
    let outcomes = [
        by_address(stage),
        download(stage),
        more::datagrams(stage),
        more::bind(stage),
        metp(stage),
    ];
    match outcomes.into_iter().find(|o| *o != Whole) {
        Some(outcome) => outcome,
        None => Whole,
    }
}

impl<'a> Stage<'a> {
    pub fn of(server: &Server, origin: &'a Origin, name: &'a str) -> Self {
        Stage { socks: server.socks, metp: server.metp, pid: server.pid, origin, name }
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.origin.port).into()
    }

    /// A client that is logged in.
    fn login(&self) -> Result<TcpStream, Outcome> {
        let mut stream = connect(self.socks)?;
        greet(&mut stream, b"secret")?;
        Ok(stream)
    }

    /// A tunnel to the origin, which has been told what to do.
    fn tunnel(&self, request: &[u8], what: &str, id: u64, size: u64) -> Result<TcpStream, Outcome> {
        let mut stream = self.login()?;
        say(&mut stream, request)?;
        reply(&mut stream)?;
        say(&mut stream, format!("{what} {id} {size}\n").as_bytes())?;
        Ok(stream)
    }
}

static NEXT: AtomicU64 = AtomicU64::new(1);

fn next_id() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A name that this machine knows for itself, and that has to be looked up.
pub fn local_name() -> String {
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let is_local = |address: SocketAddr| matches!(address.ip(), IpAddr::V4(ip) if ip.is_loopback());
    let known = |name: &str| {
        (name, 80).to_socket_addrs().is_ok_and(|mut all| all.next().is_some_and(is_local))
    };
    let name = [own.trim(), "localhost.localdomain"].into_iter().find(|name| known(name));
    // An old spelling that only getaddrinfo reads.
    name.unwrap_or("127.1").to_owned()
}

fn connect(address: SocketAddr) -> Result<TcpStream, Outcome> {
    let stream =
        TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| ended("connect", &error))?;
    let set = || {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)
    };
    set().map_err(|error| ended("options", &error))?;
    Ok(stream)
}

fn ended(what: &str, error: &std::io::Error) -> Outcome {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Stalled(what.to_owned()),
        _ => BadEnd(format!("{what}: {error}")),
    }
}

fn say(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), Outcome> {
    stream.write_all(bytes).map_err(|error| ended("writing", &error))
}

/// Reads some bytes of a handshake: an end before them shows that it was not complete.
fn hear<const N: usize>(stream: &mut TcpStream, what: &str) -> Result<[u8; N], Outcome> {
    let mut bytes = [0; N];
    match stream.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(ended(what, &error)),
    }
}

fn greet(stream: &mut TcpStream, password: &[u8]) -> Result<(), Outcome> {
    say(stream, HELLO)?;
    let chosen = hear::<2>(stream, "a method")?;
    if chosen == *b"\x05\xff" {
        return Err(BadEnd("no method".to_owned()));
    }
    if chosen != *b"\x05\x02" {
        return Err(WrongBytes(format!("method {chosen:02x?}")));
    }
    say(stream, &credentials(b"alice", password))?;
    match hear::<2>(stream, "the answer to a login")? {
        [1, 0] => Ok(()),
        [1, _] => Err(BadEnd("login refused".to_owned())),
        other => Err(WrongBytes(format!("login {other:02x?}"))),
    }
}

/// A reply: BND if it is a success.
fn reply(stream: &mut TcpStream) -> Result<SocketAddr, Outcome> {
    let head = hear::<4>(stream, "a reply")?;
    if head[0] != 5 || head[2] != 0 || !matches!(head[3], 1 | 4) {
        return Err(WrongBytes(format!("a reply that begins {head:02x?}")));
    }
    let ip: IpAddr = match head[3] {
        1 => hear::<4>(stream, "a reply")?.into(),
        _ => hear::<16>(stream, "a reply")?.into(),
    };
    let port = u16::from_be_bytes(hear(stream, "a reply")?);
    if head[1] != 0 {
        return Err(BadEnd(format!("reply {:02x}", head[1])));
    }
    Ok((ip, port).into())
}

/// The whole of a function that ends early.
fn whole(step: impl FnOnce() -> Result<Outcome, Outcome>) -> Outcome {
    step().unwrap_or_else(|outcome| outcome)
}

/// What is left, up to the end, has to be nothing.
fn nothing_more(stream: &mut TcpStream) -> Outcome {
    match stream.read(&mut [0; 64]) {
        Ok(0) => Whole,
        Ok(count) => WrongBytes(format!("{count} bytes behind the end")),
        Err(error) => ended("the end", &error),
    }
}

fn judge(what: &str, received: Received, size: u64) -> Outcome {
    let Received { bytes, right, end } = received;
    let seen = format!("{what}: {bytes} of {size} bytes");
    match end {
        _ if !right || bytes > size => WrongBytes(seen),
        End::Never => Stalled(seen),
        End::Error => BadEnd(seen),
        End::Eof if bytes < size => WrongEnd(seen),
        End::Eof => Whole,
    }
}

fn bad_login(stage: &Stage<'_>) -> Outcome {
    whole(|| {
        let mut stream = connect(stage.socks)?;
        match greet(&mut stream, b"wrong") {
            Ok(()) => Err(WrongBytes("a wrong password was taken".to_owned())),
            Err(BadEnd(_)) => Ok(match nothing_more(&mut stream) {
                BadEnd(_) => Whole,
                outcome => outcome,
            }),
            Err(outcome) => Err(outcome),
        }
    })
}

/// A line there and back, then the end, in both directions.
fn round_trip(stage: &Stage<'_>, request: &[u8]) -> Outcome {
    whole(|| {
        let mut stream = stage.tunnel(request, "echo", next_id(), 0)?;
        for text in [&b"one line\n"[..], b"and one more\n"] {
            say(&mut stream, text)?;
            let mut back = vec![0; text.len()];
            stream.read_exact(&mut back).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => WrongEnd("EOF in place of an echo".to_owned()),
                _ => ended("an echo", &error),
            })?;
            if back != text {
                return Err(WrongBytes("an echo".to_owned()));
            }
        }
        stream.shutdown(Shutdown::Write).map_err(|error| ended("shutdown", &error))?;
        Ok(nothing_more(&mut stream))
    })
}

fn by_name(stage: &Stage<'_>) -> Outcome {
    round_trip(stage, &name_request(stage.name.as_bytes(), stage.origin.port))
}

fn by_address(stage: &Stage<'_>) -> Outcome {
    round_trip(stage, &connect_request(stage.address()))
}

fn download(stage: &Stage<'_>) -> Outcome {
    whole(|| {
        let id = next_id();
        let mut stream = stage.tunnel(&connect_request(stage.address()), "down", id, BULK)?;
        let received = stage.origin.pattern.receive(&mut stream, id, BULK);
        if received.end != End::Eof || received.bytes < BULK || !received.right {
            return Ok(judge("download", received, BULK));
        }
        Ok(nothing_more(&mut stream))
    })
}

/// What the far end of an upload has seen, if it was reached at all.
fn at_the_origin(stage: &Stage<'_>, id: u64, size: u64, seen: Outcome) -> Outcome {
    let received = stage.origin.received(id, ORIGIN_PATIENCE + PATIENCE);
    both(seen, received.map(|received| judge("at the origin", received, size)))
}

/// The outcomes at both ends. The end that gives up resets its connection, so a FIN before the transfer is complete
/// comes from the server.
fn both(client: Outcome, origin: Option<Outcome>) -> Outcome {
    match (client, origin.unwrap_or_else(|| Stalled("no end at the origin".to_owned()))) {
        (_, origin @ (WrongEnd(_) | WrongBytes(_))) => origin,
        (client @ (WrongEnd(_) | WrongBytes(_) | Stalled(_)), _) => client,
        (_, origin @ Stalled(_)) => origin,
        // An origin with a bad end has not answered.
        (client, _) => client,
    }
}

/// Makes a step on a tunnel. A client that has not seen the whole gives up, and resets its connection.
fn on_tunnel(
    mut stream: TcpStream,
    step: impl FnOnce(&mut TcpStream) -> Result<Outcome, Outcome>,
) -> Outcome {
    let seen = whole(|| step(&mut stream));
    if seen != Whole {
        reset(stream);
    }
    seen
}

/// The origin is there, and has been told what to do.
fn go(stream: &mut TcpStream) -> Result<(), Outcome> {
    let mut word = [0; 2];
    match stream.read_exact(&mut word) {
        Ok(()) if word == *b"go" => Ok(()),
        Ok(()) => Err(WrongBytes("a word".to_owned())),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Err(WrongEnd("EOF in place of a word".to_owned()))
        }
        Err(error) => Err(ended("a word", &error)),
    }
}

fn upload(stage: &Stage<'_>) -> Outcome {
    let id = next_id();
    let mut reached = false;
    let seen = whole(|| {
        let stream = stage.tunnel(&connect_request(stage.address()), "up", id, BULK)?;
        Ok(on_tunnel(stream, |stream| {
            go(stream)?;
            reached = true;
            // If it breaks off, the read below fails too.
            let sent = stage.origin.pattern.send(stream, id, BULK);
            if sent.is_ok() {
                stream.shutdown(Shutdown::Write).map_err(|error| ended("shutdown", &error))?;
            }
            let mut answer = Vec::new();
            match stream.read_to_end(&mut answer) {
                Ok(_) if answer == b"taken" => Ok(Whole),
                Ok(_) if b"taken".starts_with(&answer) => match sent {
                    // It cannot take this for success: its own writes have failed.
                    Err(error) => Err(ended("upload", &error)),
                    Ok(()) => Err(WrongEnd("EOF in place of an answer".to_owned())),
                },
                Ok(_) => Err(WrongBytes("an answer".to_owned())),
                Err(error) => Err(ended("an answer", &error)),
            }
        }))
    });
    if reached { at_the_origin(stage, id, BULK, seen) } else { seen }
}

fn late(stage: &Stage<'_>) -> Outcome {
    let (id, size) = (next_id(), 100_000);
    let mut reached = false;
    let pattern = &stage.origin.pattern;
    let seen = whole(|| {
        let stream = stage.tunnel(&connect_request(stage.address()), "late", id, size)?;
        reached = true;
        Ok(on_tunnel(stream, |stream| {
            let received = pattern.receive(stream, id, size);
            if received.end != End::Eof || received.bytes < size || !received.right {
                return Ok(judge("before the half-close", received, size));
            }
            match nothing_more(stream) {
                Whole => {}
                outcome => return Err(outcome),
            }
            pattern.send(stream, id, size).map_err(|error| ended("after", &error))?;
            stream.shutdown(Shutdown::Write).map_err(|error| ended("shutdown", &error))?;
            Ok(Whole)
        }))
    });
    if reached { at_the_origin(stage, id, size, seen) } else { seen }
}

fn client_resets(stage: &Stage<'_>) -> Outcome {
    let id = next_id();
    let mut reached = false;
    let seen = whole(|| {
        let mut stream = stage.tunnel(&connect_request(stage.address()), "up", id, BULK)?;
        go(&mut stream)?;
        reached = true;
        let sent = stage.origin.pattern.send(&mut stream, id, BULK / 2);
        reset(stream);
        sent.map_err(|error| ended("upload", &error))?;
        Ok(Whole)
    });
    if !reached {
        return seen;
    }
    match stage.origin.received(id, ORIGIN_PATIENCE + PATIENCE) {
        Some(received) => match judge("at the origin, behind a reset", received, BULK) {
            BadEnd(_) => seen,
            outcome => outcome,
        },
        None => Stalled("no end at the origin, behind a reset".to_owned()),
    }
}

fn server_resets(stage: &Stage<'_>) -> Outcome {
    whole(|| {
        let id = next_id();
        let mut stream = stage.tunnel(&connect_request(stage.address()), "cut", id, BULK)?;
        let received = stage.origin.pattern.receive(&mut stream, id, BULK);
        Ok(match judge("before a reset", received, BULK) {
            BadEnd(_) => Whole,
            outcome => outcome,
        })
    })
}

/// A name that is not one: it needs no server, and cannot be found. Any refusal will do.
fn dead_name(stage: &Stage<'_>) -> Outcome {
    match whole(|| stage.tunnel(&name_request(b"no..such", 80), "echo", 0, 0).map(|_| Whole)) {
        Whole => WrongBytes("a name that cannot exist was found".to_owned()),
        BadEnd(_) => Whole,
        outcome => outcome,
    }
}

fn hang_up(stage: &Stage<'_>) -> Outcome {
    signal::send(stage.pid, libc::SIGHUP);
    Whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_wrong_at_either_side_is_found_whatever_the_other_has_seen() {
        let text = || String::from("seen");
        let wrong = || WrongEnd(text());
        for other in [Whole, BadEnd(text()), Stalled(text())] {
            assert_eq!(both(wrong(), Some(other.clone())), wrong());
            assert_eq!(both(other, Some(wrong())), wrong());
        }
        assert_eq!(both(wrong(), None), wrong());
        for client in [Whole, BadEnd(text())] {
            assert!(matches!(both(client.clone(), None), Stalled(_)));
            assert!(matches!(both(client, Some(Stalled(text()))), Stalled(_)));
        }
        assert_eq!(both(BadEnd(text()), Some(Whole)), BadEnd(text()));
        assert_eq!(both(Whole, Some(Whole)), Whole);
    }
}
