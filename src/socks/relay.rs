//! The open tunnel: two lanes between client and target.
//!
//! Half-close passes on in both directions. When a side is gone, the lane towards it is given up, and the other
//! one goes on until everything that the side has sent before is delivered (a server that answers and resets
//! while the client is still sending). Then the tunnel ends with a reset of the other side, which must not take what it
//! received for a complete transfer. An error of this machine ends the tunnel at once with resets.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::close_reason::CloseReason;
use super::rate::{Allowance, RateShare};
use super::request::ActiveRequest;
use super::stall::StallCheck;
use super::{Context, Next, State};
use crate::reactor::buffer::Buffer;
use crate::reactor::endpoint::{Endpoint, FlushError, Stream};
use crate::reactor::errno::is_of_the_peer;
use crate::reactor::lane::{Budget, End, Lane, Phase};
use crate::reactor::readiness::Readiness;
use crate::reactor::tcp_state::Acknowledgement::Complete;
use crate::reactor::token::Side;
use crate::state::rates::Grant;
use crate::state::settings::Timeouts;
use crate::state::{Direction, Transferred};

/// The budget of each lane in one turn.
const LANE_BUDGET: Budget = Budget { bytes: 256 * 1024, reads: 16, allowance: u64::MAX };

/// How long what a side has sent may wait for the rate of the account once that side is gone, at least: the time that
/// 64 KiB take at the lowest rate. A client must not leave tunnels behind that last for days.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// An open tunnel. The client's endpoint stays with the session.
pub struct Relay<S: Stream> {
    request: Box<ActiveRequest>,
    target: Endpoint<S>,
    /// The side of the target's descriptor.
    side: Side,
    up: Lane,
    down: Lane,
    /// What it may read for its account.
    rate: RateShare,
    /// Bytes that the client has sent with its request. They wait for the rate like all others.
    early: usize,
    /// Nanoseconds from the request to the last byte.
    last_byte: u64,
    /// The same to the end of the last wait for the rate.
    resumed: u64,
    check: StallCheck,
    /// Whether keepalive probes are set for the target.
    probing: bool,
    /// Why the tunnel ends once everything is delivered: one side is gone.
    failure: Option<CloseReason>,
    /// Nanoseconds from the request to that.
    failed: u64,
    /// Whether an EOF of the side that is gone may be its reset: a write has taken the error (SO_ERROR).
    eof_doubtful: bool,
}

impl<S: Stream> Relay<S> {
    /// A tunnel to `target`, registered on `side`; `received` is payload that the client has sent already.
    pub fn new(
        request: Box<ActiveRequest>,
        (side, mut target): (Side, Endpoint<S>),
        received: Buffer,
        now: Instant,
        timeouts: &Timeouts,
    ) -> Self {
        target.reset_unless_orderly();
        let early = received.bytes().len();
        let (up, down) = (Lane::new(received), Lane::new(Buffer::default()));
        let mut relay = Relay {
            request,
            target,
            side,
            up,
            down,
            rate: RateShare::default(),
            early,
            last_byte: 0,
            resumed: 0,
            check: StallCheck::new(),
            probing: false,
            failure: None,
            failed: 0,
            eof_doubtful: false,
        };
        relay.touch(now);
        // The reply is unacknowledged.
        relay.check.moved(relay.age(now), timeouts.ack);
        relay
    }

    /// An event has come for the descriptor on `side`. One that is not the target's may be left over from an attempt
    /// to connect that was given up.
    pub fn on_event(&mut self, side: Side, readiness: Readiness) {
        if side == self.side {
            self.target.on_event(readiness);
        }
    }

    /// It may read so many bytes for its account, or has to ask. It has waited, and its peers are to be waited for from
    /// now on.
    pub fn granted(&mut self, grant: Grant, now: Instant) {
        self.rate.grant(grant);
        self.resumed = nanos(self.age(now));
    }

    pub fn request(&self) -> &ActiveRequest {
        &self.request
    }

    pub fn request_mut(&mut self) -> &mut ActiveRequest {
        &mut self.request
    }

    /// Whether one of the lanes streams.
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

    /// Bytes that have been read and not delivered.
    pub fn waiting(&self) -> usize {
        self.up.waiting() + self.down.waiting()
    }

    /// Ends the tunnel from outside: delivers what can be delivered at once, and resets the target. `reply` is sent to
    /// the client first.
    pub fn cut(
        mut self: Box<Self>,
        client: &mut Endpoint<S>,
        reply: &mut Buffer,
        cx: &mut Context<'_, S>,
    ) -> Box<ActiveRequest> {
        let mut delivered = 0;
        let early = std::mem::take(&mut self.early) as u64;
        self.request.guard.usage().charge(Direction::Up, early, cx.now);
        // The result does not matter: what is not delivered now is lost.
        let _ = self.up.flush(&mut self.target, cx.pool, &mut delivered);
        self.count(Direction::Up, delivered, cx);
        let mut delivered = 0;
        if client.flush(reply, cx.pool, &mut 0).is_ok() {
            let _ = self.down.flush(client, cx.pool, &mut delivered);
        }
        self.count(Direction::Down, delivered, cx);
        self.abort(cx)
    }

    /// Frees the buffers, and closes the target with a reset.
    #[expect(clippy::boxed_local, reason = "it comes in its box")]
    pub fn abort(mut self: Box<Self>, cx: &mut Context<'_, S>) -> Box<ActiveRequest> {
        self.up.abandon(cx.pool);
        self.down.abandon(cx.pool);
        self.rate.end(&self.request.guard, cx);
        cx.abort(self.target);
        self.request
    }

    /// The setting `ack-timeout` has changed to `limit`.
    pub fn ack_timeout_changed(&mut self, limit: Duration, now: Instant) {
        self.check.limit_changed(self.age(now), limit);
    }

    /// The next of these: idle timeout, keepalive, check of acknowledgements.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        let silent = self.end_of_silence(timeouts);
        let probe = timeouts.keepalive.filter(|_| !self.probing).map(nanos);
        let check = self.check.due().filter(|_| timeouts.ack.is_some()).map(nanos);
        let next = silent.into_iter().chain(probe).chain(check).min()?;
        self.request.began().checked_add(Duration::from_nanos(next))
    }

    /// Until when nothing may happen, in nanoseconds from the request.
    fn end_of_silence(&self, timeouts: &Timeouts) -> Option<u64> {
        let timeout = if self.failure.is_some() || self.rate.waits() {
            return self.end_of_delivery(timeouts);
        } else if self.half_closed() {
            timeouts.half_close?
        } else {
            timeouts.idle?
        };
        Some(self.last_byte.max(self.resumed).saturating_add(nanos(timeout)))
    }

    /// The same where one side is gone, and the other still receives what it sent, or where the account may not read. Then
    /// the tunnel has its turn when it may, and the peers have their time from then on.
    #[cold]
    fn end_of_delivery(&self, timeouts: &Timeouts) -> Option<u64> {
        self.failure?;
        let timeout = timeouts.linger.or(timeouts.half_close)?;
        let (begin, time) = match self.rate.waits() {
            true => (self.failed, timeout.max(LONGEST_WAIT)),
            false => (self.last_byte.max(self.resumed), timeout),
        };
        Some(begin.saturating_add(nanos(time)))
    }

    /// A deadline has passed: ends an idle tunnel, sets keepalive for the target (the client has it from the
    /// listener), or checks whether both peers acknowledge.
    pub fn expire(
        mut self: Box<Self>,
        client: &mut Endpoint<S>,
        reply: &mut Buffer,
        cx: &mut Context<'_, S>,
    ) -> Next<S> {
        let timeouts = cx.shared.process.settings.timeouts;
        let age = self.age(cx.now);
        if self.end_of_silence(&timeouts).is_some_and(|end| nanos(age) >= end) {
            let reason = match self.failure {
                Some(reason) => reason,
                None if self.half_closed() => CloseReason::HalfCloseTimeout,
                None => CloseReason::IdleTimeout,
            };
            return Next::end(Some(self.cut(client, reply, cx)), reason);
        }
        if !self.probing && timeouts.keepalive.is_some_and(|keepalive| age >= keepalive) {
            self.probing = true;
            // If it is refused, a dead peer is found by the idle timeout.
            let _ = self.target.stream_mut().set_liveness(timeouts.liveness());
        }
        match timeouts.ack {
            Some(limit) if self.check.due().is_some_and(|due| age >= due) => {
                self.check_peers(client, limit, cx)
            }
            _ => Next::Wait(State::Relay(self)),
        }
    }

    /// Ends the tunnel if a peer has acknowledged nothing for `limit` although bytes were sent to it.
    fn check_peers(
        mut self: Box<Self>,
        client: &Endpoint<S>,
        limit: Duration,
        cx: &mut Context<'_, S>,
    ) -> Next<S> {
        // If TCP_INFO is refused, the kernel's own timeout applies.
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

    /// Moves what can be moved. `reply` is sent to the client before any byte of the target.
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
        // What a failed side has sent may still be read, but nothing can be delivered to it any more, even if the other
        // side neither sends nor reads.
        if self.target.broken() {
            self.gone(Direction::Up, cx);
        }
        if client.broken() {
            self.gone(Direction::Down, cx);
        }
        if let Some(reached) = self.request.guard.usage().is_over() {
            cx.shared.metrics.limits.count(reached);
            return Next::end(Some(self.abort(cx)), CloseReason::LimitEnded(reached));
        }
        let mut spent = false;
        let held = self.early > 0 && !self.admit_early(cx);
        for direction in [Direction::Up, Direction::Down] {
            if held && direction == Direction::Up {
                continue;
            }
            // Before a reset, EOF has to be passed on by shutdown(2).
            let last = self.half_closed() && (self.failure.is_none() || self.eof_doubtful);
            let readable = match direction {
                Direction::Up => client.readable(),
                Direction::Down => self.target.readable(),
            };
            // Without something to read nothing has to be asked for.
            let allowance = match readable {
                true => self.rate.allowance(direction, &self.request.guard, cx),
                false => Allowance::NOTHING,
            };
            let budget = Budget { allowance: allowance.bytes, ..LANE_BUDGET };
            let (lane, from, to) = match direction {
                Direction::Up => (&mut self.up, &mut *client, &mut self.target),
                Direction::Down => (&mut self.down, &mut self.target, &mut *client),
            };
            let before = lane.phase();
            let pumped = lane.pump(from, to, cx.pool, budget, last);
            let shut = before != Phase::Shut && lane.phase() == Phase::Shut;
            allowance.settle(direction, pumped.read, &self.request.guard, cx);
            self.count(direction, pumped.bytes, cx);
            if shut {
                // The FIN is unacknowledged.
                self.check.moved(self.age(cx.now), cx.shared.process.settings.timeouts.ack);
            }
            match pumped.end {
                End::Blocked | End::Shut => {}
                End::Spent => spent = true,
                End::Starved => spent |= !self.rate.wait(direction, &self.request.guard, cx),
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
                self.rate.end(&self.request.guard, cx);
                self.target.close_orderly();
                Next::end(Some(self.request), CloseReason::Finished)
            }
            (Phase::Shut, Phase::Shut, Some(reason)) => Next::end(Some(self.abort(cx)), reason),
            _ if spent => Next::Again(State::Relay(self)),
            _ => Next::Wait(State::Relay(self)),
        }
    }

    /// Whether what the client has sent with its request may go to the target. If not, the tunnel waits until it may.
    fn admit_early(&mut self, cx: &mut Context<'_, S>) -> bool {
        let (guard, direction) = (&self.request.guard, Direction::Up);
        let allowance = self.rate.allowance(direction, guard, cx);
        if allowance.bytes == 0 && self.rate.wait(direction, guard, cx) {
            return false;
        }
        allowance.settle(direction, self.early as u64, guard, cx);
        self.early = 0;
        true
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
            cx.shared.count(traffic, guard, Transferred { direction, bytes, now: cx.now });
        }
    }

    /// Writing has failed in this direction. Returns the reason if the tunnel has to end at once.
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

    /// Gives up the lane of this direction, whose receiver is gone.
    fn gone(&mut self, direction: Direction, cx: &mut Context<'_, S>) {
        let (lane, reason) = match direction {
            Direction::Up => (&mut self.up, CloseReason::TargetReset),
            Direction::Down => (&mut self.down, CloseReason::ClientReset),
        };
        lane.abandon(cx.pool);
        self.rate.give_up(direction, &self.request.guard, cx);
        if direction == Direction::Up {
            self.early = 0;
        }
        if self.failure.is_none() {
            self.failure = Some(reason);
            self.touch(cx.now);
            self.failed = self.last_byte;
        }
    }
}

/// In nanoseconds: 584 years at most.
fn nanos(time: Duration) -> u64 {
    let whole = time.as_secs().saturating_mul(1_000_000_000);
    whole.saturating_add(time.subsec_nanos().into())
}
