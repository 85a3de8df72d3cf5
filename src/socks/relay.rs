//! The open tunnel: two lanes between client and target.
//!
//! Half-close passes on in both directions. A failure to read from one side ends the tunnel; a failure
//! to write to a side ends only the lane towards it, because what that side has said before may still
//! be there to be read (a server that answers and closes while the client is still sending). When the
//! target is gone the client gets a farewell, so that nothing destroys the end of that answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::event::Event;

use super::errand::{Errand, Reason};
use super::{Context, Next, State};
use crate::ledger::settings::Timeouts;
use crate::ledger::{Direction, Moved};
use crate::reactor::buffer::{Buffer, Pool};
use crate::reactor::endpoint::{Endpoint, Stop, Stream};
use crate::reactor::lane::{Budget, End, Lane, Phase};

/// What each lane may spend in one turn.
const BUDGET: Budget = Budget { bytes: 256 * 1024, reads: 16 };

/// An open tunnel. The client's endpoint stays with the session.
pub struct Relay<S> {
    errand: Box<Errand>,
    target: Endpoint<S>,
    up: Lane,
    down: Lane,
    last_byte: Instant,
    /// Whether the kernel probes if the target still exists.
    probing: bool,
    /// Why a lane was given up, if one was.
    failure: Option<Reason>,
}

impl<S: Stream> Relay<S> {
    /// A tunnel to `target`, whose first payload has already been received.
    pub fn new(errand: Box<Errand>, target: Endpoint<S>, received: Buffer, now: Instant) -> Self {
        let (up, down) = (Lane::new(received), Lane::new(Buffer::default()));
        Relay { errand, target, up, down, last_byte: now, probing: false, failure: None }
    }

    /// Notes an event of the target.
    pub fn note(&mut self, event: &Event) {
        self.target.note(event);
    }

    pub fn errand(&self) -> &Errand {
        &self.errand
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
        self.last_byte
    }

    /// Bytes that wait to be delivered.
    pub fn waiting(&self) -> usize {
        self.up.waiting() + self.down.waiting()
    }

    /// Gives the buffers back.
    pub fn into_errand(mut self, pool: &mut Pool) -> Box<Errand> {
        self.up.abandon(pool);
        self.down.abandon(pool);
        self.errand
    }

    /// When the kernel is to probe the peers, or the tunnel has been silent for too long.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        let probe = timeouts.keepalive.filter(|_| !self.probing);
        let patience = self.patience(timeouts).into_iter().chain(probe).min()?;
        self.last_byte.checked_add(patience)
    }

    /// How long no byte may move.
    fn patience(&self, timeouts: &Timeouts) -> Option<Duration> {
        if self.half_closed() { timeouts.half_close } else { timeouts.idle }
    }

    /// The tunnel has been silent: for the first time, and the target is probed from now on (the client
    /// is, since it was accepted), or for too long.
    pub fn expire(mut self: Box<Self>, cx: &mut Context<'_, S>) -> Next<S> {
        let timeouts = cx.shared.settings.timeouts;
        let silence = cx.now.saturating_duration_since(self.last_byte);
        if self.patience(&timeouts).is_some_and(|patience| silence >= patience) {
            let timeout = match self.half_closed() {
                true => Reason::HalfCloseTimeout,
                false => Reason::IdleTimeout,
            };
            return self.end(timeout, cx);
        }
        self.probing = true;
        if let Some(silence) = timeouts.keepalive {
            // Without probes a dead peer is found out by the idle timeout.
            let _ = self.target.stream_mut().probe_after(silence);
        }
        Next::Wait(State::Relay(self))
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
            Err(Stop::Blocked) => return Next::Wait(State::Relay(self)),
            Err(Stop::Failed(_)) => return self.end(Reason::ClientReset, cx),
        }
        // What it has said may still be read, but it takes nothing more: the tunnel is half over, even if
        // the client neither sends nor reads.
        if self.target.broken() && self.up.phase() != Phase::Shut {
            self.up.abandon(cx.pool);
            self.failure.get_or_insert(Reason::TargetReset);
        }
        let mut spent = false;
        for direction in [Direction::Up, Direction::Down] {
            let last = self.half_closed();
            let (lane, from, to, from_reset, to_reset) = match direction {
                Direction::Up => {
                    let (from, to) = (&mut *client, &mut self.target);
                    (&mut self.up, from, to, Reason::ClientReset, Reason::TargetReset)
                }
                Direction::Down => {
                    let (from, to) = (&mut self.target, &mut *client);
                    (&mut self.down, from, to, Reason::TargetReset, Reason::ClientReset)
                }
            };
            let pumped = lane.pump(from, to, cx.pool, BUDGET, last);
            if pumped.bytes > 0 {
                self.last_byte = cx.now;
                let Errand { tally, login, .. } = &mut *self.errand;
                let moved = Moved { direction, bytes: pumped.bytes, now: cx.now };
                cx.shared.count(tally, login.usage(), moved);
            }
            match pumped.end {
                End::Blocked | End::Shut => {}
                End::Spent => spent = true,
                End::SinkFailed(_) => {
                    lane.abandon(cx.pool);
                    self.failure.get_or_insert(to_reset);
                }
                End::SourceFailed(_) => return self.end(from_reset, cx),
            }
        }
        if self.up.phase() == Phase::Shut && self.down.phase() == Phase::Shut {
            let reason = self.failure.unwrap_or(Reason::Finished);
            return self.end(reason, cx);
        }
        let state = State::Relay(self);
        if spent { Next::Again(state) } else { Next::Wait(state) }
    }

    /// If it is the target that has gone, the client may still be sending, and closing over that would
    /// send RST into what the target has said.
    #[expect(clippy::boxed_local, reason = "it comes in its box")]
    fn end(self: Box<Self>, reason: Reason, cx: &mut Context<'_, S>) -> Next<S> {
        let errand = Some(self.into_errand(cx.pool));
        match reason {
            Reason::TargetReset => Next::goodbye(cx.now, errand, reason),
            _ => Next::end(errand, reason),
        }
    }
}
