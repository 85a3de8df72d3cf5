//! A METP conversation: lines in, responses out. `protocol_metp.txt` is the contract.
//!
//! ```text
//! Start --HELLO--> Greeted --AUTH--> Open --QUIT--> Goodbye
//!    \                \                \               ^
//!     +----------------+----------------+--------------+   what cannot be answered otherwise
//! ```
//!
//! Commands may be pipelined and split anywhere; answers come in order. While much of an answer is unsent
//! no further command is read, and long answers are written piece by piece as the reader takes them.

mod execute;
mod listing;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::event::Event;

use crate::ledger::Shared;
use crate::ledger::settings::Timeouts;
use crate::ledger::users::{UserId, Users};
use crate::proto::metp::{
    self, Cause, Command, LINE_LIMIT, LineTooLong, Opening, Response, Role, ended,
};
use crate::proto::text::Escaped;
use crate::reactor::Flow;
use crate::reactor::buffer::{Buffer, Pool};
use crate::reactor::endpoint::{Endpoint, Stop, Stream, Transfer};
use crate::reactor::farewell::Farewell;
use execute::execute;
use listing::Listing;

/// Unsent octets from which on no further answer is made.
const MUCH: usize = 64 * 1024;

/// Lines, pieces of answers and reads that one turn may take.
const BUDGET: u32 = 64;

/// An administrator's connection.
pub struct Session<S> {
    client: Endpoint<S>,
    source: SocketAddr,
    stage: Stage,
    /// Since when the stage's patience counts: the connection, then the last octet either way.
    since: Instant,
    input: Buffer,
    output: Buffer,
    /// The body that is being sent.
    listing: Option<Listing>,
    /// In the middle of a line that was too long.
    skipping: bool,
}

/// How far the conversation has come.
enum Stage {
    /// Expects HELLO.
    Start,
    /// Expects AUTH.
    Greeted,
    /// This account gives commands.
    Open(UserId),
    /// No more commands are taken.
    Goodbye(Farewell),
}

/// What a session does next.
enum Step {
    /// Something was done; there may be more.
    Go,
    Wait,
    Close,
}

impl<S: Stream> Session<S> {
    /// A client that has just been accepted; `source` is its canonical address.
    pub fn new(stream: S, source: SocketAddr, now: Instant) -> Self {
        Session {
            client: Endpoint::new(stream),
            source,
            stage: Stage::Start,
            since: now,
            input: Buffer::default(),
            output: Buffer::default(),
            listing: None,
            skipping: false,
        }
    }

    /// Where the client is.
    pub fn source(&self) -> SocketAddr {
        self.source
    }

    /// The client's socket, to be registered.
    pub fn stream(&mut self) -> &mut S {
        self.client.stream_mut()
    }

    /// Notes an event.
    pub fn note(&mut self, event: &Event) {
        self.client.note(event);
    }

    /// Whether somebody has logged in.
    pub fn logged_in(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// Whether somebody has logged in who is no administrator (any more).
    pub fn is_guests(&self, users: &Users) -> bool {
        match self.stage {
            Stage::Open(user) => users.get(user).is_none_or(|account| account.role == Role::User),
            Stage::Start | Stage::Greeted | Stage::Goodbye(_) => false,
        }
    }

    /// Whether the client has said nothing yet.
    pub fn is_silent(&self) -> bool {
        matches!(self.stage, Stage::Start) && self.input.is_empty()
    }

    /// When the session is to be asked whether it has waited too long.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        let (since, patience): (Instant, Option<Duration>) = match &self.stage {
            Stage::Start | Stage::Greeted => (self.since, timeouts.metp_login),
            Stage::Open(_) => (self.since, timeouts.metp_idle),
            Stage::Goodbye(farewell) => (farewell.began(), timeouts.goodbye),
        };
        since.checked_add(patience?)
    }

    /// The session's turn: goes on as far as it can.
    pub fn turn(&mut self, now: Instant, pool: &mut Pool, shared: &mut Shared) -> Flow {
        if self.client.broken() {
            return Flow::Close;
        }
        for _ in 0..BUDGET {
            match self.step(now, pool, shared) {
                Step::Go => {}
                Step::Close => return Flow::Close,
                Step::Wait if self.overdue(now, shared) => return Flow::Close,
                Step::Wait => return Flow::Wait,
            }
        }
        // A client that never stops talking gets no more time than a silent one.
        if self.overdue(now, shared) { Flow::Close } else { Flow::Again }
    }

    fn overdue(&self, now: Instant, shared: &Shared) -> bool {
        let deadline = self.deadline(&shared.settings.timeouts);
        deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Answers what is there, then sends, then reads on.
    fn step(&mut self, now: Instant, pool: &mut Pool, shared: &mut Shared) -> Step {
        if let Stage::Goodbye(farewell) = &mut self.stage
            && self.listing.is_none()
        {
            return match farewell.turn(&mut self.client, &mut self.output, pool) {
                Flow::Again => Step::Go,
                Flow::Wait => Step::Wait,
                Flow::Close => Step::Close,
            };
        }
        let room = self.output.bytes().len() < MUCH;
        if room && self.answer(now, pool, shared) {
            return Step::Go;
        }
        let mut sent = 0;
        let flushed = self.client.flush(&mut self.output, pool, &mut sent);
        self.moved(sent, now);
        match flushed {
            Err(Stop::Failed(_)) => return Step::Close,
            Err(Stop::Blocked) if self.output.bytes().len() >= MUCH => return Step::Wait,
            Err(Stop::Blocked) | Ok(()) => {}
        }
        if !room {
            return Step::Go;
        }
        match self.client.fill(&mut self.input, pool, LINE_LIMIT) {
            Transfer::Moved(count) => {
                self.moved(count as u64, now);
                Step::Go
            }
            Transfer::Blocked => Step::Wait,
            Transfer::Ended => {
                self.say_goodbye(now);
                Step::Go
            }
            Transfer::Failed(_) => Step::Close,
        }
    }

    /// Makes the next piece of an answer. `false`: needs more input.
    fn answer(&mut self, now: Instant, pool: &mut Pool, shared: &mut Shared) -> bool {
        if let Some(listing) = &mut self.listing {
            let piece = listing.piece(shared);
            if piece.ends {
                self.listing = None;
            }
            self.output.append(piece.text.as_bytes());
            return true;
        }
        if self.skipping {
            return self.skip(pool);
        }
        match metp::line(self.input.bytes()) {
            Ok(None) => return false,
            Ok(Some((line, taken))) => {
                let line = line.to_vec();
                self.input.consume(pool, taken);
                self.line(&line, now, shared);
            }
            Err(LineTooLong) if matches!(self.stage, Stage::Open(_)) => {
                self.reply(Response::BadRequest(Some(Cause::Syntax)));
                self.skipping = true;
            }
            Err(LineTooLong) => {
                self.reply(Response::BadRequest(None));
                self.say_goodbye(now);
            }
        }
        true
    }

    /// Drops the rest of a line that was too long. `false`: its end has not come yet.
    fn skip(&mut self, pool: &mut Pool) -> bool {
        let bytes = self.input.bytes();
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let count = end.map_or(bytes.len(), |lf| lf.saturating_add(1));
        self.input.consume(pool, count);
        self.skipping = end.is_none();
        end.is_some()
    }

    /// A whole line has come.
    fn line(&mut self, line: &[u8], now: Instant, shared: &mut Shared) {
        match &self.stage {
            Stage::Start | Stage::Greeted => self.opening(line, now, shared),
            Stage::Open(user) => self.command(*user, line, now, shared),
            Stage::Goodbye(_) => {}
        }
    }

    /// §4: before the login anything unexpected ends the session, so that no browser can be made to
    /// talk to this port.
    fn opening(&mut self, line: &[u8], now: Instant, shared: &mut Shared) {
        match (Opening::parse(line), &self.stage) {
            (Some(Opening::Hello), _) => {
                self.reply(Response::Welcome);
                self.stage = Stage::Greeted;
            }
            (Some(Opening::Auth { name, password }), Stage::Greeted) => {
                if let Some(user) = shared.users.authenticate(&name, &password) {
                    self.reply(Response::Done);
                    self.stage = Stage::Open(user);
                    self.since = now;
                } else {
                    // The form is fixed: fail2ban matches it.
                    let (remote, name) = (self.source.ip(), Escaped(&name));
                    log::warn!("auth failed: service=metp remote={remote} user=\"{name}\"");
                    self.reply(Response::Unauthorized);
                    self.say_goodbye(now);
                }
            }
            _ => {
                self.reply(Response::BadRequest(None));
                self.say_goodbye(now);
            }
        }
    }

    /// §5. The account is asked for anew each time: it may have been deleted, or have another role.
    fn command(&mut self, user: UserId, line: &[u8], now: Instant, shared: &mut Shared) {
        let Some(account) = shared.users.get(user) else {
            self.reply(Response::Unauthorized);
            self.say_goodbye(now);
            return;
        };
        match Command::parse(line, account.role) {
            Ok(command) => {
                let quits = command == Command::Quit;
                let answer = execute(command, user, shared);
                self.reply(answer.response);
                self.listing = answer.body;
                if quits {
                    self.say_goodbye(now);
                }
            }
            Err(response) => self.reply(response),
        }
    }

    fn reply(&mut self, response: Response) {
        self.output.append(ended(response.to_string()).as_bytes());
    }

    fn say_goodbye(&mut self, now: Instant) {
        self.stage = Stage::Goodbye(Farewell::new(now));
    }

    /// Octets keep an open session alive; the time for the login runs on whatever comes.
    fn moved(&mut self, octets: u64, now: Instant) {
        if octets > 0 && matches!(self.stage, Stage::Open(_)) {
            self.since = now;
        }
    }
}
