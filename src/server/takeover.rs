//! Takeover: a new server gets the listening sockets of this one, which then drains.
//!
//! ```text
//! new server                          this one
//!   | -- socks5d-takeover 1 ----------> |   its user is checked
//!   |                                   |   changes end, figures are written, the state directory is free
//!   | <- sockets socks metp http ------ |   with the sockets
//!   |    reads its files, binds         |   goes on accepting
//!   | -- ready -----------------------> |
//!   | <- yours ------------------------ |   goes on accepting
//!   |    takes the name of the socket   |
//!   | -- accepts ---------------------> |   closes its copies of the sockets, and drains
//!   | <- the rest of its figures ------ |   at its end
//! ```
//!
//! Both have the sockets open all the time, so that what connects waits in a queue that one of them serves. If the new
//! one ends or is silent before it accepts, this one goes on as before.

mod socket;

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use mio::net::UnixStream;

use super::shutdown::Shutdown;
use super::{Server, Services};
use crate::proto::usage_file::Figures;
use crate::reactor::handover;
use crate::reactor::token::Source;
use crate::state::service::Service;
use socket::BACKLOG;
pub use socket::TakeoverSocket;

/// What the new server says first.
pub const HELLO: &str = "socks5d-takeover 1\n";
/// What it says when it has all that it needs to accept.
pub const READY: &str = "ready\n";
/// What it is answered then.
pub const YOURS: &str = "yours\n";
/// What it says when nothing can hinder it any more.
pub const ACCEPTS: &str = "accepts\n";
/// How long the new server may take until it is ready.
const MOST_TIME: Duration = Duration::from_secs(30);
/// How often the state directory is tried again that another process has.
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// When connections are accepted again after a shortage of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);
/// How long the last figures may take to be sent.
const LAST_SEND: Duration = Duration::from_secs(2);
/// The most bytes of them that are read.
const MOST_FIGURES: usize = 64 << 20;
/// Reads of 4 KiB of them in a turn of the loop.
const READS_PER_TURN: usize = 32;

/// The sockets are offered at this place.
#[derive(Default)]
pub(super) struct Takeover {
    socket: Option<TakeoverSocket>,
    /// Whether an event has come.
    woken: bool,
    conversation: Option<Conversation>,
    /// What changes were allowed before they were refused for a takeover.
    frozen: Option<Allowed>,
    /// The server that has taken over, and keeps the figures.
    successor: Option<UnixStream>,
    /// The server before, and what it has sent of its last figures.
    predecessor: Option<(UnixStream, Vec<u8>)>,
    /// When the state directory is tried again.
    retry: Option<Instant>,
    /// When connections are accepted again, for which there was no descriptor.
    accept_again: Option<Instant>,
    /// Whether another server has taken over.
    pub(super) is_done: bool,
}

struct Conversation {
    stream: UnixStream,
    input: Vec<u8>,
    stage: Stage,
    deadline: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has not said what it wants.
    Hello,
    /// Changes end, and figures are written.
    Freezing,
    /// It has the sockets.
    Offered,
    /// It may have them for itself.
    Promised,
}

/// What changes are allowed.
struct Allowed {
    users_fixed: bool,
    rules_fixed: bool,
    has_state: bool,
}

impl Takeover {
    pub(super) fn new(socket: Option<TakeoverSocket>) -> Self {
        Takeover { socket, ..Takeover::default() }
    }

    /// An event of the socket, or of a conversation.
    pub(super) fn on_event(&mut self) {
        self.woken = true;
    }

    /// Whether this server, which another one has taken over, has to pass on the figures of the one before it.
    pub(super) fn awaits_figures(&self) -> bool {
        self.is_done && self.predecessor.is_some()
    }

    /// The state directory is this server's again.
    pub(super) fn returned(&mut self) {
        (self.frozen, self.retry) = (None, None);
    }

    /// When something is to be done.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let deadline = self.conversation.as_ref().map(|conversation| conversation.deadline);
        let now = self.woken.then_some(now);
        [deadline, self.retry, self.accept_again, now].into_iter().flatten().min()
    }
}

impl Server {
    /// Gives the socket for takeovers its name.
    ///
    /// # Errors
    /// Those of rename(2).
    pub fn publish_takeover(&mut self) -> io::Result<()> {
        self.takeover.socket.as_mut().map_or(Ok(()), TakeoverSocket::publish)
    }

    pub(super) fn register_takeover(&mut self) -> io::Result<()> {
        match &mut self.takeover.socket {
            None => Ok(()),
            Some(socket) => {
                self.services.selector.register_readable(&mut socket.listener, Source::Takeover)
            }
        }
    }

    /// Goes on with a takeover.
    pub(super) fn take_over_step(&mut self, now: Instant) {
        let is_late = |conversation: &Conversation| conversation.deadline <= now;
        if self.takeover.conversation.as_ref().is_some_and(is_late) {
            // Whatever it may have said since: it has given up itself.
            self.abort_takeover("it was not ready in time", now);
        }
        if self.takeover.accept_again.is_some_and(|due| due <= now) {
            (self.takeover.accept_again, self.takeover.woken) = (None, true);
        }
        if std::mem::take(&mut self.takeover.woken) {
            self.accept_successors(now);
            self.read_successor(now);
            self.read_predecessor();
        }
        let Some(conversation) = &self.takeover.conversation else {
            return self.reopen_state(now);
        };
        if self.shutdown != Shutdown::Running {
            return self.abort_takeover("this server closes down", now);
        }
        if conversation.stage == Stage::Freezing {
            self.offer_sockets(now);
        }
    }

    fn accept_successors(&mut self, now: Instant) {
        // No more than the backlog: others may wait.
        for _ in 0..BACKLOG {
            let Some(socket) = &self.takeover.socket else { return };
            let mut stream = match socket.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock {
                        log::warn!("takeover: cannot accept: {error}");
                        self.takeover.accept_again = now.checked_add(ACCEPT_AGAIN);
                    }
                    return;
                }
            };
            let own = handover::own_user();
            let refusal = match handover::peer_user(&stream) {
                Ok(user) if user == own || user == 0 => None,
                Ok(user) => {
                    log::warn!("takeover: refused to a process of user {user}");
                    Some("no: another user\n")
                }
                Err(_) => Some("no: unknown user\n"),
            };
            let refusal = refusal.or_else(|| {
                let is_busy =
                    self.takeover.conversation.is_some() || self.takeover.frozen.is_some();
                match (self.shutdown, is_busy) {
                    (Shutdown::Running, false) => None,
                    (Shutdown::Running, true) => Some("no: another server is taking over\n"),
                    _ => Some("no: it closes down\n"),
                }
            });
            if let Some(refusal) = refusal {
                // A new socket has room for a line.
                let _ = stream.write(refusal.as_bytes());
                continue;
            }
            let selector = &self.services.selector;
            if let Err(error) = selector.register_readable(&mut stream, Source::Takeover) {
                log::warn!("takeover: cannot watch the new server: {error}");
                return;
            }
            let Some(deadline) = now.checked_add(MOST_TIME) else { return };
            let (input, stage) = (Vec::new(), Stage::Hello);
            self.takeover.conversation = Some(Conversation { stream, input, stage, deadline });
        }
        self.takeover.woken = true;
    }

    fn read_successor(&mut self, now: Instant) {
        let Some(conversation) = &mut self.takeover.conversation else { return };
        let mut bytes = [0; 64];
        let mut ended = false;
        // All lines are shorter than this; what says more is no server of this kind.
        while conversation.input.len() < bytes.len() {
            match conversation.stream.read(&mut bytes) {
                Ok(0) => {
                    ended = true;
                    break;
                }
                Ok(count) => {
                    conversation.input.extend_from_slice(bytes.get(..count).unwrap_or(&[]))
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    ended = true;
                    break;
                }
            }
        }
        let expected = match conversation.stage {
            Stage::Hello => HELLO,
            Stage::Freezing | Stage::Offered => READY,
            Stage::Promised => ACCEPTS,
        };
        let (input, stage) = (&mut conversation.input, conversation.stage);
        // What it has said before does not count: it does not serve.
        if ended {
            self.abort_takeover("it has ended", now);
        } else if *input == expected.as_bytes() && stage != Stage::Freezing {
            input.clear();
            match stage {
                Stage::Hello => self.freeze(),
                Stage::Promised => self.hand_over(now),
                Stage::Freezing | Stage::Offered => self.promise(now),
            }
        } else if !expected.as_bytes().starts_with(input)
            || stage == Stage::Freezing && !input.is_empty()
        {
            self.abort_takeover("it says what is not expected", now);
        }
    }

    /// From now on nothing is changed that the new server reads.
    fn freeze(&mut self) {
        log::info!("takeover: a new server asks for the sockets");
        let Services { files, shared, .. } = &mut self.services;
        let process = &mut shared.process;
        self.takeover.frozen = Some(Allowed {
            users_fixed: std::mem::replace(&mut process.users_fixed, true),
            rules_fixed: std::mem::replace(&mut process.rules_fixed, true),
            has_state: files.has_state_directory(),
        });
        files.release_state();
        if let Some(conversation) = &mut self.takeover.conversation {
            conversation.stage = Stage::Freezing;
        }
        self.store_changes();
    }

    /// Once all changes are on the disk and the state directory is free: passes the sockets on.
    fn offer_sockets(&mut self, now: Instant) {
        match self.services.files.is_released(&self.services.shared) {
            None => return,
            Some(Err(cause)) => return self.abort_takeover(&cause, now),
            Some(Ok(())) => {}
        }
        let mut line = "sockets".to_owned();
        let mut sockets: Vec<BorrowedFd<'_>> = Vec::new();
        for service in Service::ALL {
            if let Some(listener) = &self.table.of(service).listener {
                line.push_str(&format!(" {service}"));
                sockets.push(listener.as_fd());
            }
        }
        line.push('\n');
        let Some(conversation) = &mut self.takeover.conversation else { return };
        let sent = handover::send(&conversation.stream, line.as_bytes(), &sockets);
        conversation.stage = Stage::Offered;
        if !sent.is_ok_and(|count| count == line.len()) {
            self.abort_takeover("the sockets could not be passed on", now);
        }
    }

    /// The new server is ready: it may have the sockets for itself.
    fn promise(&mut self, now: Instant) {
        let Some(conversation) = &mut self.takeover.conversation else { return };
        let written = conversation.stream.write(YOURS.as_bytes());
        conversation.stage = Stage::Promised;
        if !written.is_ok_and(|count| count == YOURS.len()) {
            self.abort_takeover("it has ended", now);
        }
    }

    /// The new server accepts: this one drains.
    fn hand_over(&mut self, now: Instant) {
        for service in Service::ALL {
            let listener = self.table.of_mut(service).listener.as_mut();
            // A connection that was accepted and waits is this server's.
            let held = listener.and_then(|listener| listener.take_held());
            self.close_listener(service);
            if let Some((stream, source)) = held {
                self.admit(service, stream, source, now);
            }
        }
        if let Some(conversation) = self.takeover.conversation.take() {
            let has_state = self.takeover.frozen.as_ref().is_some_and(|allowed| allowed.has_state);
            self.takeover.successor = has_state.then_some(conversation.stream);
        }
        if let Some(mut socket) = self.takeover.socket.take() {
            self.services.selector.deregister(&mut socket.listener);
            socket.leave_name();
        }
        self.takeover.is_done = true;
        let limit = self.services.shared.process.settings.drain_limit;
        log::info!("takeover: a new server accepts, {} s for open tunnels", limit.as_secs_f64());
        self.shutdown = match now.checked_add(limit) {
            None => Shutdown::Immediate,
            Some(until) => Shutdown::Draining {
                began: now,
                grace: limit,
                until,
                accepts: None,
                signalled: false,
            },
        };
    }

    /// There is no new server: this one goes on.
    fn abort_takeover(&mut self, cause: &str, now: Instant) {
        if let Some(mut conversation) = self.takeover.conversation.take()
            && matches!(conversation.stage, Stage::Hello | Stage::Freezing)
        {
            // It waits for the sockets. If it has ended, nobody reads this.
            let _ = conversation.stream.write(format!("no: {cause}\n").as_bytes());
        }
        log::warn!("takeover: the new server does not take over: {cause}");
        if let Some(Allowed { users_fixed, rules_fixed, .. }) = &self.takeover.frozen {
            let process = &mut self.services.shared.process;
            (process.users_fixed, process.rules_fixed) = (*users_fixed, *rules_fixed);
            self.takeover.retry = Some(now);
            self.reopen_state(now);
        }
    }

    /// Takes the state directory back, as soon as the new server has left it.
    fn reopen_state(&mut self, now: Instant) {
        if self.takeover.retry.is_none_or(|due| now < due) {
            return;
        }
        let has_state = self.takeover.frozen.as_ref().is_some_and(|allowed| allowed.has_state);
        if !has_state || self.services.files.has_state_directory() {
            (self.takeover.frozen, self.takeover.retry) = (None, None);
            return;
        }
        self.takeover.retry = now.checked_add(TRY_AGAIN);
        self.services.files.reopen_state();
        self.store_changes();
    }

    /// The server before sends what it counts from now on at its end.
    ///
    /// # Errors
    /// If the stream cannot be watched.
    pub fn await_figures(&mut self, stream: std::os::unix::net::UnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let mut stream = UnixStream::from_std(stream);
        self.services.selector.register_readable(&mut stream, Source::Takeover)?;
        self.takeover.predecessor = Some((stream, Vec::new()));
        Ok(())
    }

    /// Reads what the server before sends, and adds it when it is complete.
    fn read_predecessor(&mut self) {
        let Some((stream, content)) = &mut self.takeover.predecessor else { return };
        let mut bytes = [0; 4096];
        for _ in 0..READS_PER_TURN {
            match stream.read(&mut bytes) {
                Ok(count) if count > 0 && content.len() < MOST_FIGURES => {
                    content.extend_from_slice(bytes.get(..count).unwrap_or_default());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Its end; or more than figures can be, which are not read as any.
                Ok(_) | Err(_) => return self.add_last_figures(),
            }
        }
        self.takeover.woken = true;
    }

    fn add_last_figures(&mut self) {
        let Some((_, content)) = self.takeover.predecessor.take() else { return };
        let shared = &mut self.services.shared;
        match Figures::parse(&content) {
            Ok(rest) => {
                shared.metrics.add(&rest);
                shared.process.users.add_figures(&rest.accounts);
                log::info!("takeover: the server before has ended");
            }
            Err(fault) => {
                log::warn!(
                    "takeover: the server before has ended, its last figures are lost: {fault}"
                );
            }
        }
    }

    /// At the end: sends the server that has taken over what was counted since then.
    pub(super) fn send_last_figures(&mut self) {
        let Some(stream) = self.takeover.successor.take() else { return };
        let rest = self.services.files.beyond_released(&self.services.shared);
        let sent = stream.as_fd().try_clone_to_owned().and_then(|stream| {
            let mut stream = std::os::unix::net::UnixStream::from(stream);
            stream.set_nonblocking(false)?;
            stream.set_write_timeout(Some(LAST_SEND))?;
            stream.write_all(&rest.text())
        });
        if let Err(error) = sent {
            log::warn!("takeover: the last figures did not reach the new server: {error}");
        }
    }
}
