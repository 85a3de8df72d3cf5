//! A session's part in the rate of its account: what it may read, and whether it waits for more.

use super::Context;
use crate::reactor::endpoint::Stream;
use crate::state::Direction;
use crate::state::rates::{Grant, Place};
use crate::state::shaper::LEAST_GRANT;
use crate::state::users::SessionGuard;

/// What a session may read in both directions.
#[derive(Default)]
pub struct RateShare {
    up: Share,
    down: Share,
    /// Whether it waits in one of the directions.
    waits: bool,
}

#[derive(Clone, Copy, Default)]
enum Share {
    /// It has to ask.
    #[default]
    Asks,
    /// It is in the queue of its account.
    Waits(Place),
    /// It has been given so many bytes, which are charged already.
    Granted(u64),
}

/// What a session may read in one turn. To be settled when it is known what has been read.
#[must_use]
#[derive(Clone, Copy)]
pub struct Allowance {
    /// Bytes that may be read; `u64::MAX`: as many as there are.
    pub bytes: u64,
    /// What of them is charged already.
    charged: u64,
}

impl Allowance {
    /// Nothing may be read, or there is nothing.
    pub const NOTHING: Allowance = Allowance { bytes: 0, charged: 0 };
    /// There is no rate.
    const UNLIMITED: Allowance = Allowance { bytes: u64::MAX, charged: 0 };

    /// So many bytes have been read: the account pays for them, and for no others.
    #[inline]
    pub fn settle<S: Stream>(
        self,
        direction: Direction,
        read: u64,
        guard: &SessionGuard,
        cx: &mut Context<'_, S>,
    ) {
        if self.bytes != u64::MAX && self.charged != read {
            self.pay(direction, read, guard, cx);
        }
    }

    fn pay<S: Stream>(
        self,
        direction: Direction,
        read: u64,
        guard: &SessionGuard,
        cx: &mut Context<'_, S>,
    ) {
        if read > self.charged {
            guard.usage().charge(direction, read - self.charged, cx.now);
        } else {
            refund(direction, self.charged - read, guard, cx);
        }
    }
}

/// Gives back what was charged and has not been read. Who waits may have it.
fn refund<S: Stream>(
    direction: Direction,
    bytes: u64,
    guard: &SessionGuard,
    cx: &mut Context<'_, S>,
) {
    guard.usage().refund(direction, bytes, cx.now);
    if let Some(mut shaper) = guard.usage().shaper() {
        cx.shared.rates.refunded(guard.user, direction, &mut shaper, cx.now);
    }
}

impl RateShare {
    /// What may be read now.
    #[inline]
    pub fn allowance<S: Stream>(
        &mut self,
        direction: Direction,
        guard: &SessionGuard,
        cx: &Context<'_, S>,
    ) -> Allowance {
        if guard.usage().has_rate() {
            return self.under_rate(direction, guard, cx);
        }
        // What was given under a rate that has been lifted is not kept for another one.
        *self.share(direction) = Share::Asks;
        Allowance::UNLIMITED
    }

    fn under_rate<S: Stream>(
        &mut self,
        direction: Direction,
        guard: &SessionGuard,
        cx: &Context<'_, S>,
    ) -> Allowance {
        let share = self.share(direction);
        let Some(mut shaper) = guard.usage().shaper() else { return Allowance::UNLIMITED };
        match *share {
            Share::Granted(bytes) => {
                *share = Share::Asks;
                Allowance { bytes, charged: bytes }
            }
            Share::Waits(_) => Allowance::NOTHING,
            Share::Asks if cx.shared.rates.has_waiting(guard.user, direction) => Allowance::NOTHING,
            Share::Asks => match shaper.available(direction, cx.now) {
                ..LEAST_GRANT => Allowance::NOTHING,
                // The turn has a budget of its own.
                bytes => Allowance { bytes, charged: 0 },
            },
        }
    }

    /// There is more to read than was allowed: the session waits behind those of its account. `false`: it need not, since
    /// nobody else does and there is more.
    pub fn wait<S: Stream>(
        &mut self,
        direction: Direction,
        guard: &SessionGuard,
        cx: &mut Context<'_, S>,
    ) -> bool {
        let share = self.share(direction);
        let Some(mut shaper) = guard.usage().shaper() else { return false };
        if let Share::Waits(_) = share {
            return true;
        }
        let rates = &mut cx.shared.rates;
        let is_first = !rates.has_waiting(guard.user, direction);
        if is_first && shaper.available(direction, cx.now) >= LEAST_GRANT {
            return false;
        }
        *share = Share::Waits(rates.wait(guard.user, direction, cx.key, &mut shaper, cx.now));
        self.waits = true;
        true
    }

    /// It need not wait any more.
    pub fn grant(&mut self, grant: Grant) {
        *self.share(grant.direction) = grant.bytes.map_or(Share::Asks, Share::Granted);
        self.changed();
    }

    /// Nothing more is read in this direction: a place in the queue, and what was given, go to others.
    pub fn give_up<S: Stream>(
        &mut self,
        direction: Direction,
        guard: &SessionGuard,
        cx: &mut Context<'_, S>,
    ) {
        match std::mem::take(self.share(direction)) {
            Share::Asks => {}
            Share::Waits(place) => {
                cx.shared.rates.leave(guard.user, direction, place);
                self.changed();
            }
            Share::Granted(bytes) => refund(direction, bytes, guard, cx),
        }
    }

    /// The session ends.
    pub fn end<S: Stream>(&mut self, guard: &SessionGuard, cx: &mut Context<'_, S>) {
        for direction in [Direction::Up, Direction::Down] {
            self.give_up(direction, guard, cx);
        }
    }

    /// Whether it waits in one of the directions. Then it is not idle.
    pub fn waits(&self) -> bool {
        self.waits
    }

    fn changed(&mut self) {
        self.waits = [self.up, self.down].iter().any(|share| matches!(share, Share::Waits(_)));
    }

    fn share(&mut self, direction: Direction) -> &mut Share {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}
