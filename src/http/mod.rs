//! Layer 3: a session of HTTP (`--http`), for monitoring: one request, one response, read-only.
//!
//! ```text
//! Head --GET--> (Verify) --> Send --> Linger
//!   \                \                   ^
//!    +----------------+------------------+   what is refused
//! ```
//!
//! Where the port is on loopback nobody has to log in; elsewhere an administrator has to, but for `/healthz` and
//! `/readyz`, which tell no more than that the port is open. Long bodies are made in pieces, as the client reads them.

mod body;
mod exposition;
mod list;
mod page;
mod status;

use std::net::SocketAddr;
use std::task::Poll;
use std::time::{Duration, Instant};

use metp_protocol::Role;

use crate::proto::http::get::{Get, GetError, GetStatus, LAST_CHUNK, Length, chunk, response_head};
use crate::proto::http::{LONGEST_HEAD, Login};
use crate::reactor::Flow;
use crate::reactor::buffer::{Buffer, Pool};
use crate::reactor::endpoint::{Endpoint, FlushError, Stream, Transfer};
use crate::reactor::lingering_close::LingeringClose;
use crate::reactor::readiness::Readiness;
use crate::reactor::slab::Key;
use crate::state::Shared;
use crate::state::control::{Control, ControlAnswer, ControlRequest};
use crate::state::diagnostics::not_let_in;
use crate::state::service::Service;
use crate::state::settings::Timeouts;
use crate::state::verifier::{Asked, PendingLogin, Question, Verdict, Verifier};
use body::Body;
use list::List;

/// Bytes of a head that are read at once.
const READ_BYTES: usize = 4096;
/// Unsent bytes from which on no further piece of a body is made.
const UNSENT_LIMIT: usize = 32 * 1024;
/// The longest time that an answer may take. A client that takes it in drops keeps a place from others.
const LONGEST_ANSWER: Duration = Duration::from_secs(60);
/// Steps of one turn, each of them a piece of a body and a write, or a read. Eight pieces would hold up tunnels for half a
/// millisecond.
const STEPS_PER_TURN: u32 = 2;

/// A client that has taken nothing for this time makes room for another one, if all places are taken.
const STALLED_AFTER: Duration = Duration::from_secs(1);

const TEXT: &str = "text/plain; charset=utf-8";
/// The content type of a file for browsers.
const PAC: &str = "application/x-ns-proxy-autoconfig";
const JSON: &str = "application/json";
/// The content type of the text format of Prometheus.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A client's connection.
pub struct Session<S: Stream> {
    client: Endpoint<S>,
    source: SocketAddr,
    stage: Stage,
    began: Instant,
    /// The connection, then the last byte that the client has taken.
    since: Instant,
    input: Buffer,
    output: Buffer,
}

/// What a session may use during its turn.
pub struct Context<'a> {
    /// The key of this session, for asking the verifier.
    pub key: Key,
    /// The time of this turn.
    pub now: Instant,
    /// Where buffers get their storage.
    pub pool: &'a mut Pool,
    /// Users, metrics, settings.
    pub shared: &'a mut Shared,
    /// Verifies logins.
    pub verifier: &'a mut dyn Verifier,
    /// The rest of the server.
    pub control: &'a mut dyn Control,
}

enum Stage {
    /// Reads the head of the request.
    Head,
    /// Waits for the verdict on the login.
    Verify(Box<PendingLogin>, Box<Get>),
    /// Sends the body; it has the form of chunks or not.
    Send(Body, bool),
    /// Sends what is left, and waits until the client has closed.
    Linger(LingeringClose),
}

enum Step {
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
            stage: Stage::Head,
            began: now,
            since: now,
            input: Buffer::default(),
            output: Buffer::default(),
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
        if let Stage::Verify(login, _) = &mut self.stage {
            login.verified(verdict);
        }
    }

    /// Whether a request is being served.
    pub fn is_served(&self) -> bool {
        matches!(self.stage, Stage::Send(..))
    }

    /// Whether the client has taken nothing for a second.
    pub fn is_stalled(&self, now: Instant) -> bool {
        self.is_served() && now.saturating_duration_since(self.since) >= STALLED_AFTER
    }

    /// Whether the session lingers.
    pub fn is_leaving(&self) -> bool {
        matches!(self.stage, Stage::Linger(_))
    }

    /// When the session is to have a turn because of a deadline; `None`: never.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        let (since, timeout) = match &self.stage {
            Stage::Head | Stage::Verify(..) => (self.since, timeouts.handshake),
            Stage::Send(..) => (self.since, timeouts.linger),
            Stage::Linger(linger) => (linger.began(), timeouts.linger),
        };
        since.checked_add(timeout?)
    }

    /// The session's turn: goes on as far as it can.
    pub fn turn(&mut self, cx: &mut Context<'_>) -> Flow {
        let deadline = self.deadline(&cx.shared.process.settings.timeouts);
        let age = cx.now.saturating_duration_since(self.began);
        if self.is_served() && age >= LONGEST_ANSWER {
            return Flow::Close;
        }
        if self.client.broken() || deadline.is_some_and(|deadline| deadline <= cx.now) {
            if matches!(self.stage, Stage::Head | Stage::Verify(..)) && !self.client.broken() {
                not_let_in(Service::Http, self.source, "login-timeout");
            }
            return Flow::Close;
        }
        for _ in 0..STEPS_PER_TURN {
            match self.step(cx) {
                Step::Go => {}
                Step::Wait => return Flow::Wait,
                Step::Close => return Flow::Close,
            }
        }
        Flow::Again
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Step {
        match &mut self.stage {
            Stage::Head => self.read_head(cx),
            Stage::Verify(login, _) => match login.verdict(&cx.shared.process.users) {
                None => Step::Wait,
                Some(verdict) => self.decided(verdict, cx),
            },
            Stage::Send(..) => self.send(cx),
            Stage::Linger(linger) => {
                let flow = linger.turn(&mut self.client, &mut self.output, cx.pool);
                if self.output.bytes().is_empty() {
                    self.client.end_orderly();
                }
                match flow {
                    Flow::Again => Step::Go,
                    Flow::Wait => Step::Wait,
                    Flow::Close => Step::Close,
                }
            }
        }
    }

    fn read_head(&mut self, cx: &mut Context<'_>) -> Step {
        match Get::parse(self.input.bytes()) {
            Ok(Some((get, taken))) => {
                self.input.consume(cx.pool, taken);
                self.begin(get, cx);
                Step::Go
            }
            Ok(None) => match self.client.fill(&mut self.input, cx.pool, READ_BYTES) {
                Transfer::Moved(_) => {
                    self.input.make_room(LONGEST_HEAD);
                    Step::Go
                }
                Transfer::Blocked => Step::Wait,
                Transfer::Ended | Transfer::Failed(_) => Step::Close,
            },
            Err(error) => {
                let (status, text) = match error {
                    GetError::Method => (GetStatus::MethodNotAllowed, "GET and HEAD alone.\n"),
                    GetError::Malformed => (GetStatus::BadRequest, "The request is malformed.\n"),
                    GetError::TooLong => {
                        (GetStatus::TooLarge, "The head of the request is longer than 8 KiB.\n")
                    }
                };
                not_let_in(Service::Http, self.source, "bad-request");
                self.answer(status, text, false, cx);
                Step::Go
            }
        }
    }

    /// The request is whole.
    fn begin(&mut self, get: Get, cx: &mut Context<'_>) {
        let settings = &cx.shared.process.settings.http;
        if !get.is_for(settings.host.as_deref()) {
            not_let_in(Service::Http, self.source, "other-host");
            let text = "The request names another host. --http-host allows a name.\n";
            return self.answer(GetStatus::Forbidden, text, get.head_alone, cx);
        }
        if !settings.login || matches!(&*get.path, "/healthz" | "/readyz" | "/proxy.pac") {
            return self.serve(&get, cx);
        }
        let Login::Basic(credentials) = &get.login else {
            return self.ask_for_login(get.head_alone, cx);
        };
        let (key, service, now) = (cx.key, Service::Http, cx.now);
        let (name, password) = (&credentials.name[..], &credentials.password[..]);
        let (source, any_will_do) = (self.source.ip(), false);
        let question = Question { key, service, source, name, password, any_will_do, now };
        let asked = cx.verifier.ask(&question, &mut cx.shared.process.users);
        let name = credentials.name.clone();
        match asked {
            Asked::Pending(ticket) => {
                let login = PendingLogin::new(&name, ticket);
                self.stage = Stage::Verify(Box::new(login), Box::new(get));
            }
            Asked::Done(verdict) => self.let_in(&name, verdict, &get, cx),
        }
    }

    fn decided(&mut self, verdict: Verdict, cx: &mut Context<'_>) -> Step {
        let stage = std::mem::replace(&mut self.stage, Stage::Head);
        let Stage::Verify(login, get) = stage else { return Step::Close };
        if verdict == Verdict::Shed {
            cx.shared.login_shed(Service::Http, self.source);
            let text = "Too many logins wait. Try again.\n";
            self.answer(GetStatus::Unavailable, text, get.head_alone, cx);
            return Step::Go;
        }
        self.let_in(login.name(), verdict, &get, cx);
        Step::Go
    }

    fn let_in(&mut self, name: &[u8], verdict: Verdict, get: &Get, cx: &mut Context<'_>) {
        let user = match verdict {
            Verdict::Accepted(user) => Some(user),
            Verdict::Refused | Verdict::Shed => None,
        };
        cx.shared.record_login(Service::Http, self.source, name, user.is_some(), cx.now);
        let Some(user) = user else {
            cx.shared.metrics.sessions.http.refused_auth += 1;
            return self.ask_for_login(get.head_alone, cx);
        };
        let role = cx.shared.process.users.get(user).map(|account| account.role);
        match role {
            Some(Role::Admin) => self.serve(get, cx),
            _ => {
                let text = "This is for administrators.\n";
                self.answer(GetStatus::Forbidden, text, get.head_alone, cx);
            }
        }
    }

    fn ask_for_login(&mut self, head_alone: bool, cx: &mut Context<'_>) {
        let text = "An administrator's name and password are needed.\n";
        self.answer(GetStatus::Unauthorized, text, head_alone, cx);
    }

    fn serve(&mut self, get: &Get, cx: &mut Context<'_>) {
        let (body, content_type) = match &*get.path {
            "/healthz" => return self.answer(GetStatus::Ok, "ok\n", get.head_alone, cx),
            "/readyz" => {
                let (status, text) = match is_closing(cx) {
                    false => (GetStatus::Ok, "ready\n"),
                    true => (GetStatus::Unavailable, "closing\n"),
                };
                return self.answer(status, text, get.head_alone, cx);
            }
            "/proxy.pac" if let Some(proxy) = &cx.shared.process.settings.http.pac => {
                (Body::pac(proxy), PAC)
            }
            "/metrics" => (Body::metrics(cx), EXPOSITION),
            "/metrics/users" => (Body::users(cx.shared), EXPOSITION),
            "/status.json" => (status::status(cx).into(), JSON),
            "/history.json" => (status::history(cx).into(), JSON),
            "/users.json" => (Body::List(List::users(cx)), JSON),
            "/connections.json" => (Body::List(List::connections()), JSON),
            "/requests.json" => (Body::List(List::requests(cx)), JSON),
            "/failed-logins.json" => (Body::List(List::failed_logins(cx)), JSON),
            path => match page::FILES.iter().find(|file| file.path == path) {
                Some(file) => (Body::Text(Some(file.text.into())), file.content_type),
                None => {
                    let text = "The page is /. For programs there are /status.json, /metrics, /healthz and more.\n";
                    return self.answer(GetStatus::NotFound, text, get.head_alone, cx);
                }
            },
        };
        let length = match body.length() {
            Some(bytes) => Length::Bytes(bytes),
            None if get.takes_chunks => Length::Chunked,
            None => Length::UntilClose,
        };
        let head = response_head(GetStatus::Ok, content_type, length);
        self.output.append(head.as_bytes());
        self.since = cx.now;
        // A body that is cut has no end by which it could be told, unless it has a length or chunks.
        self.client.reset_unless_orderly();
        self.stage = match get.head_alone {
            true => Stage::Linger(LingeringClose::new(cx.now)),
            false => Stage::Send(body, length == Length::Chunked),
        };
    }

    /// A response whose body is a sentence, and the end.
    fn answer(&mut self, status: GetStatus, text: &str, head_alone: bool, cx: &mut Context<'_>) {
        let head = response_head(status, TEXT, Length::Bytes(text.len()));
        self.output.append(head.as_bytes());
        if !head_alone {
            self.output.append(text.as_bytes());
        }
        self.input.release(cx.pool);
        self.stage = Stage::Linger(LingeringClose::new(cx.now));
    }

    /// Makes the next piece of the body, and sends what there is.
    fn send(&mut self, cx: &mut Context<'_>) -> Step {
        let Stage::Send(body, chunked) = &mut self.stage else { return Step::Close };
        let mut ends = false;
        if self.output.bytes().len() < UNSENT_LIMIT {
            let piece = body.piece(cx);
            ends = piece.is_none();
            let text = piece.unwrap_or_default();
            match *chunked {
                true if ends => self.output.append(LAST_CHUNK.as_bytes()),
                true => self.output.append(chunk(&text).as_bytes()),
                false => self.output.append(text.as_bytes()),
            }
        }
        if ends {
            self.stage = Stage::Linger(LingeringClose::new(cx.now));
            return Step::Go;
        }
        let mut sent = 0;
        let flushed = self.client.flush(&mut self.output, cx.pool, &mut sent);
        if sent > 0 {
            self.since = cx.now;
        }
        match flushed {
            Err(FlushError::Failed(_)) => Step::Close,
            Err(FlushError::Blocked) if self.output.bytes().len() >= UNSENT_LIMIT => Step::Wait,
            Err(FlushError::Blocked) | Ok(()) => Step::Go,
        }
    }
}

/// Whether the server closes down.
fn is_closing(cx: &mut Context<'_>) -> bool {
    match cx.control.ask(ControlRequest::Status, &cx.shared.process) {
        Poll::Ready(ControlAnswer::Status(status)) => status.closing.is_some(),
        _ => false,
    }
}
