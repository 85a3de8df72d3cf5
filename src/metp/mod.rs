//! Layer 3: a METP session. Lines in, responses out; `protocol_metp.txt` is the contract.
//!
//! ```text
//! Start --HELLO--> Greeted --AUTH--> Verify ----> Open --QUIT--> Linger
//!    \                \                \            \               ^
//!     +----------------+----------------+------------+--------------+   what cannot be answered otherwise
//! ```
//!
//! Commands may be pipelined and split anywhere; replies come in order. While 64 KiB of replies are
//! unsent no further command is read, and long replies are written in chunks as the client reads them. Between two
//! replies a subscriber gets its events.

mod accounts;
mod command;
mod execute;
mod held;
mod listing;
mod login;
mod report;
mod rules;
mod subscriber;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::proto::foreign::protocol;
use crate::reactor::Flow;
use crate::reactor::buffer::{Buffer, Pool};
use crate::reactor::endpoint::{Endpoint, FlushError, Stream, Transfer};
use crate::reactor::errno::is_of_the_peer;
use crate::reactor::lingering_close::LingeringClose;
use crate::reactor::readiness::Readiness;
use crate::reactor::slab::Key;
use crate::state::Shared;
use crate::state::control::Control;
use crate::state::settings::Timeouts;
use crate::state::users::{UserId, Users};
use crate::state::verifier::{PendingLogin, Verdict, Verifier};
use command::Asked;
use held::HeldReplies;
use listing::Listing;
use metp_protocol::{self, Cause, LINE_LIMIT, LineTooLong, Notice, Response, Role, ended};
use subscriber::Subscriber;

/// Unsent octets from which on no further reply is made.
const UNSENT_LIMIT: usize = 64 * 1024;

/// Steps of one turn, each of them a line, a chunk of a reply, or a write and a read: tunnels wait no longer.
const STEPS_PER_TURN: u32 = 16;

/// An administrator's connection.
pub struct Session<S: Stream> {
    client: Endpoint<S>,
    source: SocketAddr,
    stage: Stage,
    /// The beginning of the stage's timeout: the connection, then the last octet in either direction.
    since: Instant,
    input: Buffer,
    output: Buffer,
    /// Replies to changes of accounts that are not on the disk yet.
    held: HeldReplies,
    /// Whether a command waits for them.
    waits: bool,
    /// Whether the client has sent everything.
    ended: bool,
    /// The request to the server whose answer has not come yet.
    asked: Option<Box<Asked>>,
    /// The body that is being sent.
    listing: Option<Listing>,
    /// Whether the rest of a line that was too long is being skipped.
    skipping: bool,
    /// The subscription to events.
    subscriber: Option<Subscriber>,
    /// Since when the client has read nothing although output waits.
    stuck: Option<Instant>,
    /// Why the server closes the session.
    notice: Option<Notice>,
}

/// What a session may use during its turn.
pub struct Context<'a> {
    /// The key of this session, for asking the verifier.
    pub key: Key,
    /// The time of this turn.
    pub now: Instant,
    /// Where buffers get their storage.
    pub pool: &'a mut Pool,
    /// Users, metrics, access log, settings, events.
    pub shared: &'a mut Shared,
    /// Verifies logins.
    pub verifier: &'a mut dyn Verifier,
    /// The rest of the server.
    pub control: &'a mut dyn Control,
}

/// What replies are made from.
struct View<'a> {
    now: Instant,
    pool: &'a Pool,
    shared: &'a Shared,
}

/// The stage of a session (§2).
enum Stage {
    /// Expects HELLO.
    Start,
    /// Expects AUTH.
    Greeted,
    /// Waits for the verdict on name and password; skipped if the verifier answers in place.
    Verify(Box<PendingLogin>),
    /// This account gives commands.
    Open(UserId),
    /// No more commands are taken.
    Linger(LingeringClose),
}

/// The result of a step.
enum Step {
    /// A step was made; there may be more.
    Go,
    /// The command changed server state: the turn ends, so that the loop applies it before the next command is read
    /// (§5.1).
    Pause,
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
            held: HeldReplies::default(),
            waits: false,
            ended: false,
            asked: None,
            listing: None,
            skipping: false,
            subscriber: None,
            stuck: None,
            notice: None,
        }
    }

    /// The client's address.
    pub fn source(&self) -> SocketAddr {
        self.source
    }

    /// The client's socket, for registering it.
    pub fn stream(&mut self) -> &mut S {
        self.client.stream_mut()
    }

    /// An event has come for the client's connection.
    pub fn on_event(&mut self, readiness: Readiness) {
        self.client.on_event(readiness);
    }

    /// The verdict on the login has come.
    pub fn verified(&mut self, verdict: Verdict) {
        if let Stage::Verify(login) = &mut self.stage {
            login.verified(verdict);
        }
    }

    /// Whether an account is logged in.
    pub fn logged_in(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// The account that is logged in, unless its role is admin.
    pub fn evictable_user(&self, users: &Users) -> Option<UserId> {
        let Stage::Open(user) = self.stage else { return None };
        users.get(user).is_none_or(|account| account.role == Role::User).then_some(user)
    }

    /// Whether the session lingers.
    pub fn is_leaving(&self) -> bool {
        matches!(self.stage, Stage::Linger(_))
    }

    /// Whether the client has greeted, and not yet logged in.
    pub fn has_greeted(&self) -> bool {
        matches!(self.stage, Stage::Greeted | Stage::Verify(_))
    }

    fn is_admin(&self, users: &Users) -> bool {
        let Stage::Open(user) = self.stage else { return false };
        users.get(user).is_some_and(|account| account.role == Role::Admin)
    }

    /// Whether it has subscribed to events.
    pub fn subscribes(&self) -> bool {
        self.subscriber.is_some()
    }

    /// Closes the session with a notice once the reply that is being sent is complete.
    pub fn close_with(&mut self, notice: Notice) {
        self.notice.get_or_insert(notice);
    }

    /// When the session is to have a turn because of a deadline; `None`: never.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        let (since, timeout): (Instant, Option<Duration>) = match (&self.stage, &self.subscriber) {
            (Stage::Start | Stage::Greeted | Stage::Verify(_), _) => {
                (self.since, timeouts.metp_login)
            }
            (Stage::Open(_), None) => (self.since, timeouts.metp_idle),
            (Stage::Open(_), Some(subscriber)) => {
                let timeout = self.stuck.zip(timeouts.subscriber);
                let stuck = timeout.and_then(|(since, timeout)| since.checked_add(timeout));
                return subscriber.totals_due().into_iter().chain(stuck).min();
            }
            (Stage::Linger(linger), _) => (linger.began(), timeouts.linger),
        };
        since.checked_add(timeout?)
    }

    /// The session's turn: goes on as far as it can.
    pub fn turn(&mut self, cx: &mut Context<'_>) -> Flow {
        if self.client.broken() {
            self.log_lost("client-reset");
            return Flow::Close;
        }
        if self.subscriber.is_some() && !self.is_admin(&cx.shared.process.users) {
            // Events are for administrators only, and roles can change.
            self.subscriber = None;
            self.since = cx.now;
        }
        let mut flow = Flow::Again;
        for _ in 0..STEPS_PER_TURN {
            match self.step(cx) {
                Step::Go => {}
                Step::Pause => break,
                Step::Close => return Flow::Close,
                Step::Wait => {
                    flow = Flow::Wait;
                    break;
                }
            }
        }
        // The deadline holds for a client that keeps sending, too.
        if self.overdue(cx) { self.expire(cx) } else { flow }
    }

    fn overdue(&self, cx: &Context<'_>) -> bool {
        let deadline = self.deadline(&cx.shared.process.settings.timeouts);
        deadline.is_some_and(|deadline| deadline <= cx.now)
    }

    /// The deadline has passed. A subscriber that reads nothing gets a notice, even if it may not arrive.
    fn expire(&mut self, cx: &mut Context<'_>) -> Flow {
        self.log_lost("login-timeout");
        let Some(subscriber) =
            self.subscriber.as_mut().filter(|_| matches!(self.stage, Stage::Open(_)))
        else {
            return Flow::Close;
        };
        let timeout = self.stuck.zip(cx.shared.process.settings.timeouts.subscriber);
        if timeout.is_some_and(|(since, time)| cx.now.saturating_duration_since(since) >= time) {
            log::info!("metp: {} does not read its events", self.source);
            cx.shared.events.count_lost(subscriber.waiting(cx.shared));
            (self.listing, self.asked) = (None, None);
            self.close_with(Notice::Slow);
        } else {
            subscriber.skip_totals(cx.now);
        }
        Flow::Again
    }

    /// Replies to what has been received, then sends, then reads on.
    fn step(&mut self, cx: &mut Context<'_>) -> Step {
        if let Stage::Linger(linger) = &mut self.stage {
            return match linger.turn(&mut self.client, &mut self.output, cx.pool) {
                Flow::Again => Step::Pause,
                Flow::Wait => Step::Wait,
                Flow::Close => Step::Close,
            };
        }
        let room = self.output.bytes().len() < UNSENT_LIMIT;
        let final_output = self.notice == Some(Notice::Shutdown) && self.subscriber.is_some();
        if final_output && room && self.write_events(cx) {
            return Step::Go;
        }
        // Events that wait are sent before the notice, unless the client does not read.
        let told = !final_output || room;
        if let Some(notice) = self.notice.filter(|_| {
            self.listing.is_none() && self.asked.is_none() && self.held.is_empty() && told
        }) {
            self.reply(&Response::Closing(notice));
            self.begin_linger(cx.now);
            return Step::Go;
        }
        self.waits = false;
        if room && let Some(step) = self.answer(cx) {
            return step;
        }
        let mut sent = 0;
        let flushed = self.client.flush(&mut self.output, cx.pool, &mut sent);
        self.moved(sent, cx.now);
        match (self.output.is_empty(), sent) {
            (true, _) => self.stuck = None,
            (false, 0) => self.stuck = self.stuck.or(Some(cx.now)),
            (false, _) => self.stuck = Some(cx.now),
        }
        match flushed {
            Err(FlushError::Failed(_)) => return Step::Close,
            Err(FlushError::Blocked) if self.output.bytes().len() >= UNSENT_LIMIT => {
                return Step::Wait;
            }
            Err(FlushError::Blocked) | Ok(()) => {}
        }
        if !room {
            return Step::Go;
        }
        // What follows a login or a command is read when that is answered, and so is the end of the input.
        if self.asked.is_some() || self.waits || matches!(self.stage, Stage::Verify(_)) {
            return Step::Wait;
        }
        if self.ended {
            if !self.held.is_empty() {
                return Step::Wait;
            }
            self.begin_linger(cx.now);
            return Step::Go;
        }
        match self.client.fill(&mut self.input, cx.pool, LINE_LIMIT) {
            Transfer::Moved(count) => {
                self.moved(count as u64, cx.now);
                Step::Go
            }
            Transfer::Blocked => Step::Wait,
            // Replies that are held are sent first.
            Transfer::Ended if !self.held.is_empty() => {
                self.ended = true;
                Step::Wait
            }
            Transfer::Ended => {
                self.log_lost("left");
                self.begin_linger(cx.now);
                Step::Go
            }
            Transfer::Failed(error) => {
                let of_the_peer = is_of_the_peer(&error);
                self.log_lost(if of_the_peer { "client-reset" } else { "local-error" });
                Step::Close
            }
        }
    }

    /// Makes the next chunk of a reply, or writes some events. `None`: neither is possible now.
    fn answer(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        if matches!(self.stage, Stage::Verify(_)) {
            return self.verify(cx);
        }
        if self.asked.is_some() {
            let answered = self.take_answer(cx);
            return answered.or_else(|| self.write_events(cx).then_some(Step::Go));
        }
        if let Some(step) = self.ask_for_page(cx) {
            return Some(step);
        }
        if let Some(listing) = &mut self.listing {
            let view = View { now: cx.now, pool: cx.pool, shared: cx.shared };
            let piece = listing.piece(&view);
            if piece.ends {
                self.listing = None;
            }
            self.output.append(piece.text.as_bytes());
            return Some(Step::Go);
        }
        let told = self.write_events(cx);
        if self.release() {
            return Some(Step::Go);
        }
        if self.skipping {
            return (self.skip(cx.pool) || told).then_some(Step::Go);
        }
        match metp_protocol::line(self.input.bytes()) {
            Ok(None) => return told.then_some(Step::Go),
            // A command that was answered 200 is done (§5.1): the next one sees its effect.
            Ok(Some(_)) if cx.control.has_outstanding() => return Some(Step::Pause),
            Ok(Some((line, _))) if self.has_to_wait(line, cx) => {
                self.waits = true;
                return told.then_some(Step::Go);
            }
            Ok(Some((line, taken))) => {
                let line = line.to_vec();
                // A message of another protocol may begin with an empty line.
                let spoken = match self.stage {
                    Stage::Start => protocol(self.input.bytes()).filter(|spoken| *spoken != "metp"),
                    _ => None,
                };
                self.input.consume(cx.pool, taken);
                return Some(self.line(&line, spoken, cx));
            }
            Err(LineTooLong) if matches!(self.stage, Stage::Open(_)) => {
                self.reply(&Response::BadRequest(Some(Cause::LongLine)));
                self.skipping = true;
            }
            Err(LineTooLong) => {
                self.log_lost("bad-request");
                self.reply(&Response::BadRequest(None));
                self.begin_linger(cx.now);
            }
        }
        Some(Step::Go)
    }

    /// Writes some of the events that wait. `false`: there are none.
    fn write_events(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(subscriber) = self.subscriber.as_mut().filter(|_| self.listing.is_none()) else {
            return false;
        };
        subscriber.write_events(cx.now, cx.shared, &mut self.output)
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

    /// A whole line has come. `spoken` is the other protocol that it seems to belong to.
    fn line(&mut self, line: &[u8], spoken: Option<&str>, cx: &mut Context<'_>) -> Step {
        match &self.stage {
            Stage::Start | Stage::Greeted => self.opening(line, spoken, cx),
            Stage::Open(user) => self.command(*user, line, cx),
            Stage::Verify(_) | Stage::Linger(_) => Step::Go,
        }
    }

    fn reply(&mut self, response: &Response) {
        self.output.append(ended(response.to_string()).as_bytes());
    }

    fn begin_linger(&mut self, now: Instant) {
        // A session without further output must not count as a subscriber.
        self.subscriber = None;
        self.stage = Stage::Linger(LingeringClose::new(now));
    }

    /// Octets restart the timeout of an open session, not that of the login.
    fn moved(&mut self, octets: u64, now: Instant) {
        if octets > 0 && matches!(self.stage, Stage::Open(_)) {
            self.since = now;
        }
    }
}
