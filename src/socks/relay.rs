//! The open tunnel: two lanes between client and target.
//!
//! Half-close passes on in both directions. When a side is gone, the lane towards it is given up, and the other
//! one goes on until everything that the side has sent before is delivered (a server that answers and resets
//! while the client is still sending). Then the tunnel ends with a reset of the other side, which must not take
//! what it got for the whole. A call that fails for a reason of this machine ends the tunnel at once, and badly.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::close_reason::CloseReason;
use super::request::ActiveRequest;
use super::stall::StallCheck;
use super::{Context, Next, State};
use crate::reactor::buffer::Buffer;
use crate::reactor::endpoint::{Endpoint, FlushError, Stream};
use crate::reactor::errno::is_of_the_peer;
use crate::reactor::lane::{Budget, End, Lane, Phase};
use crate::reactor::readiness::Readiness;
use crate::reactor::tcp_state::Acknowledgement::Complete;
use crate::state::settings::Timeouts;
use crate::state::{Direction, Transferred};

/// What each lane may spend in one turn.
const LANE_BUDGET: Budget = Budget { bytes: 256 * 1024, reads: 16 };

/// An open tunnel. The client's endpoint stays with the session.
pub struct Relay<S: Stream> {
    request: Box<ActiveRequest>,
    target: Endpoint<S>,
    up: Lane,
    down: Lane,
    /// Nanoseconds from the request to the last byte.
    last_byte: u64,
    check: StallCheck,
    /// Whether the kernel finds out if the target still exists.
    probing: bool,
    /// Which side is gone, if one is.
    failure: Option<CloseReason>,
    /// What looks like EOF of the side that is gone may be its reset: a write has taken the error that told so.
    eof_doubtful: bool,
}

impl<S: Stream> Relay<S> {
    /// A tunnel to `target`, whose first payload has already been received.
    pub fn new(
        request: Box<ActiveRequest>,
        mut target: Endpoint<S>,
        received: Buffer,
        now: Instant,
        timeouts: &Timeouts,
    ) -> Self {
        target.reset_unless_orderly();
        let (up, down) = (Lane::new(received), Lane::new(Buffer::default()));
        let mut relay = Relay {
            request,
            target,
            up,
            down,
            last_byte: 0,
            check: StallCheck::new(),
            probing: false,
            failure: None,
            eof_doubtful: false,
        };
        relay.touch(now);
        // The reply is under way.
        relay.check.moved(relay.age(now), timeouts.ack);
        relay
    }

    /// Notes an event of the target.
    pub fn on_event(&mut self, readiness: Readiness) {
        self.target.on_event(readiness);
    }

    pub fn request(&self) -> &ActiveRequest {
        &self.request
    }

    /// Whether large pieces pass, in whatever direction.
    pub fn streaming(&self) -> bool {
        self.up.streaming() || self.down.streaming()
    }

    /// The address of the target.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.target.stream().peer_address().ok()
    }

    /// When the last byte moved.
    pub fn last_byte(&self) -> Instant {
        self.request.began() + Duration::from_nanos(self.last_byte)
    }

    fn touch(&mut self, now: Instant) {
        self.last_byte = nanos(self.age(now));
    }

    /// Time since the request.
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.request.began())
    }

    /// Bytes that wait to be delivered.
    pub fn waiting(&self) -> usize {
        self.up.waiting() + self.down.waiting()
    }

    /// Ends the tunnel from outside: delivers what can be delivered at once, and resets the target. `reply` is
    /// what the client gets first.
    pub fn cut(
        mut self: Box<Self>,
        client: &mut Endpoint<S>,
        reply: &mut Buffer,
        cx: &mut Context<'_, S>,
    ) -> Box<ActiveRequest> {
        let mut delivered = 0;
        // Whatever the outcome, the tunnel ends: what is not taken now is lost.
        let _ = self.up.flush(&mut self.target, cx.pool, &mut delivered);
        self.count(Direction::Up, delivered, cx);
        let mut delivered = 0;
        if client.flush(reply, cx.pool, &mut 0).is_ok() {
            let _ = self.down.flush(client, cx.pool, &mut delivered);
        }
        self.count(Direction::Down, delivered, cx);
        self.abort(cx)
    }

    /// Gives the buffers back, and closes the target with a reset.
    #[expect(clippy::boxed_local, reason = "it comes in its box")]
    pub fn abort(mut self: Box<Self>, cx: &mut Context<'_, S>) -> Box<ActiveRequest> {
        self.up.abandon(cx.pool);
        self.down.abandon(cx.pool);
        cx.abort(self.target);
        self.request
    }

    /// The time has changed in which peers have to answer.
    pub fn ack_timeout_changed(&mut self, limit: Duration, now: Instant) {
        self.check.limit_changed(self.age(now), limit);
    }

    /// When the peers are to be looked after, or the tunnel has been silent for too long.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        let silent = self.timeout(timeouts).map(|time| self.last_byte.saturating_add(nanos(time)));
        let probe = timeouts.keepalive.filter(|_| !self.probing).map(nanos);
        let check = self.check.due().filter(|_| timeouts.ack.is_some()).map(nanos);
        let next = silent.into_iter().chain(probe).chain(check).min()?;
        self.request.began().checked_add(Duration::from_nanos(next))
    }

    /// How long no byte may move.
    fn timeout(&self, timeouts: &Timeouts) -> Option<Duration> {
        let Timeouts { linger, half_close, idle, .. } = *timeouts;
        match self.failure {
            // It waits for one side to take what the other, which is gone, has sent.
            Some(_) => linger.or(half_close),
            None if self.half_closed() => half_close,
            None => idle,
        }
    }

    /// The tunnel has been silent for too long; or it has lasted long enough to be worth the calls that let the
    /// kernel probe the target, as it does the client since it was accepted; or it is time to ask whether both
    /// still answer.
    pub fn expire(
        mut self: Box<Self>,
        client: &mut Endpoint<S>,
        reply: &mut Buffer,
        cx: &mut Context<'_, S>,
    ) -> Next<S> {
        let timeouts = cx.shared.process.settings.timeouts;
        let silence = cx.now.saturating_duration_since(self.last_byte());
        if self.timeout(&timeouts).is_some_and(|timeout| silence >= timeout) {
            let reason = match self.failure {
                Some(reason) => reason,
                None if self.half_closed() => CloseReason::HalfCloseTimeout,
                None => CloseReason::IdleTimeout,
            };
            return Next::end(Some(self.cut(client, reply, cx)), reason);
        }
        let age = self.age(cx.now);
        if !self.probing && timeouts.keepalive.is_some_and(|keepalive| age >= keepalive) {
            self.probing = true;
            // Without it a dead peer is found out by the idle timeout.
            let _ = self.target.stream_mut().set_liveness(timeouts.liveness());
        }
        match timeouts.ack {
            Some(limit) if self.check.due().is_some_and(|due| age >= due) => {
                self.check_peers(client, limit, cx)
            }
            _ => Next::Wait(State::Relay(self)),
        }
    }

    /// Ends the tunnel if one of its peers has vanished with bytes under way to it.
    fn check_peers(
        mut self: Box<Self>,
        client: &Endpoint<S>,
        limit: Duration,
        cx: &mut Context<'_, S>,
    ) -> Next<S> {
        // One that cannot be asked, where the kernel refuses that, is left to the kernel's own timeout.
        let of = |peer: &Endpoint<S>| peer.stream().acknowledgement().unwrap_or(Complete);
        let (client, target) = (of(client), of(&self.target));
        let reason = match self.check.found(self.age(cx.now), client, target, limit) {
            None => return Next::Wait(State::Relay(self)),
            Some(Direction::Down) => CloseReason::ClientTimeout,
            Some(Direction::Up) => CloseReason::TargetTimeout,
        };
        Next::end(Some(self.abort(cx)), reason)
    }

    fn half_closed(&self) -> bool {
        self.up.phase() == Phase::Shut || self.down.phase() == Phase::Shut
    }

    /// Moves what can be moved. `reply` is what the client gets before anything from the target.
    pub fn step(
        mut self: Box<Self>,
        client: &mut Endpoint<S>,
        reply: &mut Buffer,
        cx: &mut Context<'_, S>,
    ) -> Next<S> {
        match client.flush(reply, cx.pool, &mut 0) {
            Ok(()) => {}
            Err(FlushError::Blocked) => return Next::Wait(State::Relay(self)),
            Err(FlushError::Failed(error)) => {
                reply.release(cx.pool);
                if let Some(reason) = self.sink_failed(Direction::Down, &error, cx) {
                    return Next::end(Some(self.abort(cx)), reason);
                }
            }
        }
        // What it has sent may still be read, but it takes nothing more, even if the other side neither sends
        // nor reads.
        if self.target.broken() {
            self.gone(Direction::Up, cx);
        }
        if client.broken() {
            self.gone(Direction::Down, cx);
        }
        let mut spent = false;
        for direction in [Direction::Up, Direction::Down] {
            // Where the end is a reset, EOF has to be passed on before it.
            let last = self.half_closed() && (self.failure.is_none() || self.eof_doubtful);
            let (lane, from, to) = match direction {
                Direction::Up => (&mut self.up, &mut *client, &mut self.target),
                Direction::Down => (&mut self.down, &mut self.target, &mut *client),
            };
            let before = lane.phase();
            let pumped = lane.pump(from, to, cx.pool, LANE_BUDGET, last);
            let shut = before != Phase::Shut && lane.phase() == Phase::Shut;
            self.count(direction, pumped.bytes, cx);
            if shut {
                // EOF is under way.
                self.check.moved(self.age(cx.now), cx.shared.process.settings.timeouts.ack);
            }
            match pumped.end {
                End::Blocked | End::Shut => {}
                End::Spent => spent = true,
                End::SinkFailed(error) => {
                    if let Some(reason) = self.sink_failed(direction, &error, cx) {
                        return Next::end(Some(self.abort(cx)), reason);
                    }
                }
                End::SourceFailed(error) => {
                    let peers = match direction {
                        Direction::Up => CloseReason::ClientReset,
                        Direction::Down => CloseReason::TargetReset,
                    };
                    let reason = CloseReason::of(&error, peers);
                    return Next::end(Some(self.abort(cx)), reason);
                }
            }
        }
        match (self.up.phase(), self.down.phase(), self.failure) {
            (Phase::Shut, Phase::Shut, None) => {
                self.target.close_orderly();
                Next::end(Some(self.request), CloseReason::Finished)
            }
            (Phase::Shut, Phase::Shut, Some(reason)) => Next::end(Some(self.abort(cx)), reason),
            _ if spent => Next::Again(State::Relay(self)),
            _ => Next::Wait(State::Relay(self)),
        }
    }

    /// Counts bytes that have been delivered.
    fn count(&mut self, direction: Direction, bytes: u64, cx: &mut Context<'_, S>) {
        if bytes > 0 {
            self.touch(cx.now);
            if self.check.due().is_none() {
                let limit = cx.shared.process.settings.timeouts.ack;
                self.check.moved(Duration::from_nanos(self.last_byte), limit);
            }
            let ActiveRequest { traffic, guard, .. } = &mut *self.request;
            cx.shared.count(traffic, guard.usage(), Transferred { direction, bytes, now: cx.now });
        }
    }

    /// Writing has failed in this direction. Returns why the tunnel ends at once, if it does.
    fn sink_failed(
        &mut self,
        direction: Direction,
        error: &io::Error,
        cx: &mut Context<'_, S>,
    ) -> Option<CloseReason> {
        if !is_of_the_peer(error) {
            return Some(CloseReason::LocalError);
        }
        // A connection that is reset behind its FIN fails with EPIPE, any other with ECONNRESET.
        self.eof_doubtful |= error.kind() != ErrorKind::BrokenPipe;
        self.gone(direction, cx);
        None
    }

    /// The receiver of this direction is gone: its lane is given up.
    fn gone(&mut self, direction: Direction, cx: &mut Context<'_, S>) {
        let (lane, reason) = match direction {
            Direction::Up => (&mut self.up, CloseReason::TargetReset),
            Direction::Down => (&mut self.down, CloseReason::ClientReset),
        };
        lane.abandon(cx.pool);
        if self.failure.is_none() {
            self.failure = Some(reason);
            self.touch(cx.now);
        }
    }
}

/// In nanoseconds: 584 years at most.
fn nanos(time: Duration) -> u64 {
    let whole = time.as_secs().saturating_mul(1_000_000_000);
    whole.saturating_add(time.subsec_nanos().into())
}
