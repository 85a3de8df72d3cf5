//! Layer 3: a SOCKS session, from the first byte to the access log.
//!
//! ```text
//! Hello -> Auth -> Verify -> Request -> Resolve -> Connect -> Relay -> Ended
//!    \       \        \       |  \          \          \         \
//!    |       |        |       |   |          |          |         |
//!    |       |        |       +-> Associate -----------------------> Ended
//!     \       \        \          \          \          \         \
//!      +-------+--------+---------+----------+----------+---------+-> Linger -> Ended
//! ```
//!
//! A transition consumes the state it leaves, so that nothing stale can be read: `Hello` cannot hold a
//! socket to a target, `Relay` cannot lack one, and an account is there from `Request` on, so that a
//! request without a login cannot be expressed. Handshake states see buffers, never sockets.

mod associate;
mod bind;
mod close_reason;
mod connect;
mod context;
mod dialect;
mod handshake;
pub mod name;
mod race;
mod rate;
mod relay;
mod request;
mod resolve;
mod reverse;
mod rules;
mod stall;
mod view;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::proto::socks5::LONGEST_MESSAGE;
use crate::reactor::Flow;
use crate::reactor::buffer::Buffer;
use crate::reactor::endpoint::{Endpoint, FlushError, Stream, Transfer};
use crate::reactor::lingering_close::LingeringClose;
use crate::reactor::readiness::Readiness;
use crate::reactor::token::Side;
use crate::state::diagnostics::not_let_in;
use crate::state::metrics::Stage;
use crate::state::rates::Grant;
use crate::state::service::Service;
use crate::state::users::SessionGuard;
use crate::state::verifier::Verdict;
use crate::workers::dns_cache::{Resolution, ResolveError};
use associate::Association;
use bind::Bind;
pub use close_reason::CloseReason;
use connect::Connect;
pub use context::Context;
use handshake::Verification;
use relay::Relay;
use request::ActiveRequest;
use resolve::Resolve;
use reverse::Reverse;

/// Capacity of a client's input until its tunnel opens, in bytes: room for the longest message and some
/// payload behind it, whatever the buffer size of tunnels is.
const HANDSHAKE_BUFFER: usize = 1024;
const _: () = assert!(HANDSHAKE_BUFFER >= LONGEST_MESSAGE);

/// A SOCKS session: the client's connection and the state.
pub struct Session<S: Stream> {
    client: Endpoint<S>,
    source: SocketAddr,
    began: Instant,
    state: State<S>,
    /// Received and not yet parsed.
    input: Buffer,
    /// Replies not yet sent.
    output: Buffer,
    /// The stage under which `Metrics::stages` counts this session.
    counted: Stage,
}

/// The state of a session. Each state owns exactly what it needs.
enum State<S: Stream> {
    /// Expects the first message: the methods of SOCKS5, or a whole request of another protocol.
    Hello,
    /// Expects name and password.
    Auth,
    /// Waits for the verdict on name and password; skipped if the verifier answers in place.
    Verify(Box<Verification>),
    /// This account is logged in; expects its request.
    Request(SessionGuard),
    /// Waits for the addresses of a name.
    Resolve(Box<Resolve>),
    /// Waits for the name of an address.
    Reverse(Box<Reverse>),
    /// Connects to one address after the other.
    Connect(Box<Connect<S>>),
    /// Waits for a peer to connect.
    Bind(Box<Bind<S>>),
    /// The tunnel is open.
    Relay(Box<Relay<S>>),
    /// The association is open.
    Associate(Box<Association>),
    /// Sends the final reply and waits for the client to close.
    Linger(LingeringClose, Option<Box<ActiveRequest>>, CloseReason),
    /// Nothing is left to do.
    Ended(Option<Box<ActiveRequest>>, CloseReason),
}

/// The result of a step.
enum Next<S: Stream> {
    /// This state is next, and may go on at once.
    Go(State<S>),
    /// This state needs an event, an answer or an alarm.
    Wait(State<S>),
    /// This state has more to do and has spent its budget.
    Again(State<S>),
}

impl<S: Stream> Next<S> {
    /// Sends what is in the output, lingers, then ends.
    fn linger(now: Instant, request: Option<Box<ActiveRequest>>, reason: CloseReason) -> Self {
        Next::Go(State::Linger(LingeringClose::new(now), request, reason))
    }

    /// Ends at once.
    fn end(request: Option<Box<ActiveRequest>>, reason: CloseReason) -> Self {
        Next::Go(State::Ended(request, reason))
    }
}

impl<S: Stream> Session<S> {
    /// A client that has just been accepted; `source` is its canonical address.
    pub fn new(stream: S, source: SocketAddr, now: Instant) -> Self {
        Session {
            client: Endpoint::new(stream),
            source,
            began: now,
            state: State::Hello,
            input: Buffer::default(),
            output: Buffer::default(),
            counted: Stage::Hello,
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

    /// An event has come for the descriptor on `side`.
    pub fn on_event(&mut self, side: Side, readiness: Readiness) {
        match (side, &mut self.state) {
            (Side::Client, _) => self.client.on_event(readiness),
            (side, State::Connect(connect)) => connect.on_event(side, readiness),
            (side, State::Relay(relay)) => relay.on_event(side, readiness),
            (side, State::Bind(bind)) => bind.on_event(side),
            (side, State::Associate(association)) => association.on_event(side, readiness),
            // A late event for a descriptor of an earlier state, or a side that no state uses.
            (Side::First | Side::Second | Side::Third, _) => {}
        }
    }

    /// The verdict on the login has come.
    pub fn verified(&mut self, verdict: Verdict) {
        if let State::Verify(login) = &mut self.state {
            login.verified(verdict);
        }
    }

    /// The addresses of the name have come, or those of one family, or the reason why there are none.
    pub fn resolved(&mut self, resolution: Resolution, now: Instant) {
        match &mut self.state {
            State::Resolve(resolve) => resolve.answer(resolution),
            State::Connect(connect) => connect.add(resolution),
            State::Associate(association) => association.resolved(resolution, now),
            _ => {}
        }
    }

    /// The session may read again for its account.
    pub fn granted(&mut self, grant: Grant, now: Instant) {
        match &mut self.state {
            State::Relay(relay) => relay.granted(grant, now),
            State::Associate(association) => association.granted(grant),
            _ => {}
        }
    }

    /// The name of the address has come, or the reason why there is none.
    pub fn named(&mut self, name: Result<Box<str>, ResolveError>) {
        if let State::Reverse(reverse) = &mut self.state {
            reverse.named(name);
        }
    }

    /// The setting `ack-timeout` has changed to `limit`.
    pub fn ack_timeout_changed(&mut self, limit: Duration, now: Instant) {
        if let State::Relay(relay) = &mut self.state {
            relay.ack_timeout_changed(limit, now);
        }
    }

    /// The session's turn: goes on as far as it can.
    pub fn turn(&mut self, cx: &mut Context<'_, S>) -> Flow {
        loop {
            let state = std::mem::replace(&mut self.state, State::Ended(None, CloseReason::Panic));
            let (state, flow) = match self.step(state, cx) {
                Next::Go(state @ State::Ended(..)) => (state, Some(Flow::Close)),
                Next::Go(state) => (state, None),
                Next::Again(state) => (state, Some(Flow::Again)),
                Next::Wait(state) => (state, Some(Flow::Wait)),
            };
            self.state = state;
            match flow {
                None => {}
                // Also with work left: a client that floods a lingering close would never be closed.
                Some(Flow::Wait | Flow::Again) if self.overdue(cx) => self.expire(cx),
                Some(flow) => {
                    self.count_stage(cx);
                    return flow;
                }
            }
        }
    }

    /// Ends the session and writes its line of the access log. `reason` applies unless the session has a reason of its
    /// own. An end that is not orderly is passed on as a reset.
    pub fn close(mut self, reason: CloseReason, cx: &mut Context<'_, S>) {
        self.input.release(cx.pool);
        let reason = match &self.state {
            State::Linger(_, _, own) | State::Ended(_, own) => *own,
            _ => reason,
        };
        cx.shared.metrics.step(Some(self.counted), None);
        let request = match self.state {
            State::Relay(relay) => Some(relay.cut(&mut self.client, &mut self.output, cx)),
            state => state.into_request(cx),
        };
        self.output.release(cx.pool);
        let own = |request: &ActiveRequest| {
            cx.shared.process.settings.own_ports.contains(&request.target.port)
        };
        // A panic has dropped the request.
        if request.as_deref().map_or(reason == CloseReason::Panic, own) {
            cx.shared.process.to_own_ports.retain(|_, key| *key != cx.key);
        }
        match request {
            Some(request) => request.finish(cx.key, self.source, reason, cx.now, cx.shared),
            None => {
                reason.count_unfinished(&mut cx.shared.metrics);
                if !reason.is_logged() {
                    not_let_in(Service::Socks, self.source, reason);
                }
            }
        }
        if !reason.is_orderly() {
            cx.abort(self.client);
        }
    }

    fn count_stage(&mut self, cx: &mut Context<'_, S>) {
        let stage = self.stage();
        if stage != self.counted {
            cx.shared.metrics.step(Some(self.counted), Some(stage));
            self.counted = stage;
        }
    }

    fn step(&mut self, state: State<S>, cx: &mut Context<'_, S>) -> Next<S> {
        if self.client.broken() {
            return match state {
                // What the client sent before it failed still goes to the target.
                State::Relay(relay) => relay.step(&mut self.client, &mut self.output, cx),
                State::Linger(_, request, reason) => Next::end(request, reason),
                state => Next::end(state.into_request(cx), CloseReason::ClientReset),
            };
        }
        let (input, output) = (&mut self.input, &mut self.output);
        match state {
            State::Hello => {
                let next = handshake::hello(self.source, &self.client, input, output, cx);
                self.read_more(next, cx)
            }
            State::Auth => {
                let next = handshake::auth(self.source, input, output, cx);
                self.read_more(next, cx)
            }
            State::Verify(login) => {
                let next = handshake::verify(self.source, login, &self.client, output, cx);
                self.flush_replies(next, cx)
            }
            State::Request(guard) => {
                let (source, client) = (self.source, &self.client);
                let next = handshake::request(source, guard, client, input, output, cx);
                self.read_more(next, cx)
            }
            State::Resolve(resolve) => {
                let next = resolve.step(self.source, &self.client, output, cx);
                self.flush_replies(next, cx)
            }
            State::Reverse(reverse) => {
                let next = reverse.step(output, cx);
                self.flush_replies(next, cx)
            }
            State::Connect(connect) => {
                let next = connect.step(self.source, input, output, cx);
                self.flush_replies(next, cx)
            }
            State::Bind(bind) => {
                let next = bind.step(self.source, input, output, cx);
                self.watch_client(next, cx)
            }
            State::Relay(relay) => relay.step(&mut self.client, output, cx),
            State::Associate(association) => {
                // What the client has sent behind its request has no meaning.
                input.release(cx.pool);
                association.step(&mut self.client, output, cx)
            }
            State::Linger(mut linger, request, reason) => {
                match linger.turn(&mut self.client, output, cx.pool) {
                    Flow::Wait => Next::Wait(State::Linger(linger, request, reason)),
                    Flow::Again => Next::Again(State::Linger(linger, request, reason)),
                    Flow::Close => Next::end(request, reason),
                }
            }
            State::Ended(request, reason) => Next::end(request, reason),
        }
    }

    /// Sends the replies of the handshake before a wait, so that the client sees the result of its login.
    fn flush_replies(&mut self, next: Next<S>, cx: &mut Context<'_, S>) -> Next<S> {
        let Next::Wait(state) = next else { return next };
        match self.client.flush(&mut self.output, cx.pool, &mut 0) {
            Ok(()) | Err(FlushError::Blocked) => Next::Wait(state),
            Err(FlushError::Failed(error)) => {
                Next::end(state.into_request(cx), CloseReason::of(&error, CloseReason::ClientReset))
            }
        }
    }

    /// Sends the replies of a handshake state that waits, and reads on.
    fn read_more(&mut self, next: Next<S>, cx: &mut Context<'_, S>) -> Next<S> {
        let state = match self.flush_replies(next, cx) {
            Next::Wait(state) => state,
            other => return other,
        };
        match self.client.fill(&mut self.input, cx.pool, HANDSHAKE_BUFFER) {
            Transfer::Moved(_) => Next::Go(state),
            Transfer::Blocked => Next::Wait(state),
            // The rest of an incomplete message can no longer come.
            Transfer::Ended => Next::end(None, CloseReason::Left),
            Transfer::Failed(error) => {
                Next::end(None, CloseReason::of(&error, CloseReason::ClientReset))
            }
        }
    }

    /// Sends the first reply of a BIND, and reads on: what comes goes into the tunnel. A client that leaves must not
    /// leave its listener behind, so EOF ends the session, unlike while it waits for its own connection.
    fn watch_client(&mut self, next: Next<S>, cx: &mut Context<'_, S>) -> Next<S> {
        let state = match self.flush_replies(next, cx) {
            Next::Wait(state) => state,
            other => return other,
        };
        loop {
            let reason = match self.client.fill(&mut self.input, cx.pool, HANDSHAKE_BUFFER) {
                Transfer::Moved(_) => continue,
                // More is there than is held until there is a tunnel, and the end behind it.
                Transfer::Blocked if self.client.broken() => CloseReason::ClientReset,
                Transfer::Blocked if self.client.ending() => CloseReason::Left,
                Transfer::Blocked => return Next::Wait(state),
                Transfer::Ended => CloseReason::Left,
                Transfer::Failed(error) => CloseReason::of(&error, CloseReason::ClientReset),
            };
            return Next::end(state.into_request(cx), reason);
        }
    }

    fn overdue(&self, cx: &Context<'_, S>) -> bool {
        let deadline = self.deadline(&cx.shared.process.settings.timeouts);
        deadline.is_some_and(|deadline| deadline <= cx.now)
    }

    /// The deadline has passed.
    fn expire(&mut self, cx: &mut Context<'_, S>) {
        let state = std::mem::replace(&mut self.state, State::Ended(None, CloseReason::Panic));
        let next = match state {
            State::Hello | State::Auth | State::Verify(_) | State::Request(_) => {
                Next::end(None, CloseReason::HandshakeTimeout)
            }
            State::Resolve(resolve) => resolve.expire(&mut self.output, cx),
            State::Reverse(reverse) => reverse.expire(&mut self.output, cx),
            State::Connect(connect) => Next::Go(State::Connect(connect.expire(cx))),
            State::Bind(bind) => bind.expire(&mut self.output, cx),
            State::Relay(relay) => relay.expire(&mut self.client, &mut self.output, cx),
            State::Associate(association) => {
                Next::end(Some(association.into_request(cx)), CloseReason::IdleTimeout)
            }
            State::Linger(_, request, reason) | State::Ended(request, reason) => {
                Next::end(request, reason)
            }
        };
        let (Next::Go(state) | Next::Wait(state) | Next::Again(state)) = next;
        self.state = state;
    }
}

impl<S: Stream> State<S> {
    fn request(&self) -> Option<&ActiveRequest> {
        match self {
            State::Hello | State::Auth | State::Verify(_) | State::Request(_) => None,
            State::Resolve(resolve) => Some(resolve.request()),
            State::Reverse(reverse) => Some(reverse.request()),
            State::Connect(connect) => Some(connect.request()),
            State::Bind(bind) => Some(bind.request()),
            State::Relay(relay) => Some(relay.request()),
            State::Associate(association) => Some(association.request()),
            State::Linger(_, request, _) | State::Ended(request, _) => request.as_deref(),
        }
    }

    fn into_request(self, cx: &mut Context<'_, S>) -> Option<Box<ActiveRequest>> {
        match self {
            State::Hello | State::Auth | State::Verify(_) | State::Request(_) => None,
            State::Resolve(resolve) => Some(resolve.into_request(cx)),
            State::Reverse(reverse) => Some(reverse.into_request(cx)),
            State::Connect(connect) => Some(connect.into_request(cx)),
            State::Bind(bind) => Some(bind.into_request()),
            State::Relay(relay) => Some(relay.abort(cx)),
            State::Associate(association) => Some(association.into_request(cx)),
            State::Linger(_, request, _) | State::Ended(request, _) => request,
        }
    }
}
