//! A tunnel's part in the rate of its account: what it may read, and whether it waits for more.

use std::time::Instant;

use super::Context;
use crate::reactor::endpoint::Stream;
use crate::state::Direction;
use crate::state::rates::Grant;
use crate::state::shaper::LEAST_GRANT;
use crate::state::users::SessionGuard;

/// What a tunnel may read in both directions.
#[derive(Default)]
pub struct RateShare {
    up: Share,
    down: Share,
}

#[derive(Default)]
struct Share {
    /// Whether it is in the queue of its account.
    waits: bool,
    /// What it has been given, and has not used. `None`: it has to ask.
    granted: Option<u64>,
    /// What of its last allowance is charged already.
    charged: u64,
}

impl RateShare {
    /// Bytes that may be read now.
    pub fn allowance<S: Stream>(
        &mut self,
        direction: Direction,
        guard: &SessionGuard,
        cx: &Context<'_, S>,
    ) -> u64 {
        let Some(mut shaper) = guard.usage().shaper() else { return u64::MAX };
        let share = self.share(direction);
        let granted = share.granted.take();
        share.charged = granted.unwrap_or(0);
        match granted {
            Some(bytes) => bytes,
            None if share.waits || cx.shared.rates.has_waiting(guard.user, direction) => 0,
            None => match shaper.available(direction, cx.now) {
                ..LEAST_GRANT => 0,
                // The turn has a budget of its own.
                bytes => bytes,
            },
        }
    }

    /// So many bytes of the allowance have been read.
    pub fn used(&mut self, direction: Direction, bytes: u64, guard: &SessionGuard, now: Instant) {
        let charged = std::mem::take(&mut self.share(direction).charged);
        if bytes > charged {
            guard.usage().charge(direction, bytes - charged, now);
        } else if bytes < charged {
            guard.usage().refund(direction, charged - bytes, now);
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
        if share.waits {
            return true;
        }
        let rates = &mut cx.shared.rates;
        let is_first = !rates.has_waiting(guard.user, direction);
        if is_first && shaper.available(direction, cx.now) >= LEAST_GRANT {
            return false;
        }
        share.waits = true;
        rates.wait(guard.user, direction, cx.key, &mut shaper, cx.now);
        true
    }

    /// It need not wait any more, and may read so many bytes; `None`: it has to ask.
    pub fn grant(&mut self, grant: Grant) {
        let Grant { direction, bytes, .. } = grant;
        *self.share(direction) = Share { waits: false, granted: bytes, charged: 0 };
    }

    /// Whether it waits in one of the directions. Then it is not idle.
    pub fn waits(&self) -> bool {
        self.up.waits || self.down.waits
    }

    fn share(&mut self, direction: Direction) -> &mut Share {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}
