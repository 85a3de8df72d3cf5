//! A name that is being looked up: what is known of its two families, and who waits for what.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Addresses, MAX_ADDRESSES, Resolution, ResolveError, with_port};
use crate::reactor::slab::Key;
use crate::workers::families::{Family, Prefer, Rank, first_family, interleave};
use crate::workers::resolver::Outcome;

/// How long the addresses of one family wait for those of the other (RFC 8305 §3, Resolution Delay).
pub(super) const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// A session that waits.
pub(super) struct Waiter {
    pub(super) key: Key,
    /// The name as the session has asked for it.
    pub(super) name: Box<str>,
    pub(super) port: u16,
    /// The family that it has already.
    pub(super) served: Option<Family>,
    /// Whether it has been promised a descriptor that it does not use before it has an address.
    pub(super) spares: bool,
}

/// What is known of one family.
#[derive(Debug, Default)]
pub(super) enum Half {
    /// It is not being looked up.
    #[default]
    Idle,
    /// It is being looked up, or waits for that.
    Asked,
    Found(Vec<SocketAddr>, Rank),
    Missing(Missing),
}

/// Why a family has no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// There are none.
    NotFound,
    /// Nobody has answered.
    Unanswered,
    /// This machine could not ask.
    Failed,
}

/// What may go out now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing.
    Nothing,
    /// The addresses of this family, to be completed by those of the other one.
    Partial(Family),
    /// Nothing before this time; then the addresses of the family that is known.
    Delayed(Instant),
    /// All.
    Complete,
}

#[derive(Default)]
pub(super) struct Pending {
    v4: Half,
    v6: Half,
    pub(super) waiters: Vec<Waiter>,
    /// When the known family goes out alone.
    pub(super) due: Option<Instant>,
    /// The family that is not waited for any more; the other one has gone out alone.
    late: Option<Family>,
    /// When the first of the addresses were found.
    pub(super) since: Option<Instant>,
}

impl Pending {
    /// Marks the families that are to be looked up now: those that are not being looked up and are not known, or whose
    /// addresses have gone out and could not be cached for long enough.
    pub(super) fn begin(&mut self) -> Vec<Family> {
        let late = self.late;
        // IPv4 last: the newest is looked up first, and its servers are less often dead.
        let mut families = vec![Family::V6, Family::V4];
        families.retain(|family| match self.half(*family) {
            Half::Idle | Half::Missing(Missing::Failed) => true,
            Half::Found(..) => late == Some(family.other()),
            Half::Asked | Half::Missing(_) => false,
        });
        for family in &families {
            *self.half_mut(*family) = Half::Asked;
            self.since = None;
        }
        families
    }

    /// A look-up has ended.
    pub(super) fn answered(&mut self, family: Family, outcome: Outcome, now: Instant) {
        *self.half_mut(family) = match outcome {
            Outcome::Found((mut addresses, rank)) => {
                addresses.truncate(MAX_ADDRESSES);
                addresses.shrink_to_fit();
                self.since.get_or_insert(now);
                Half::Found(addresses, rank)
            }
            Outcome::NotFound => Half::Missing(Missing::NotFound),
            Outcome::Unanswered | Outcome::Overflow => Half::Missing(Missing::Unanswered),
            Outcome::Failed(_) | Outcome::NoWorker => Half::Missing(Missing::Failed),
        };
    }

    /// What may go out now. To be called when one of the two has become known, or the delay is over.
    pub(super) fn stage(&mut self, prefer: Prefer, now: Instant) -> Stage {
        let Some(awaited) = self.awaited() else {
            return if self.is_asked() { Stage::Nothing } else { Stage::Complete };
        };
        let known = awaited.other();
        let Half::Found(_, rank) = self.half(known) else { return Stage::Nothing };
        let at_once = self.late == Some(awaited) || rank.goes_at_once(known, prefer);
        if at_once || self.due.is_some_and(|due| due <= now) {
            (self.late, self.due) = (Some(awaited), None);
            return Stage::Partial(known);
        }
        let due = now.checked_add(RESOLUTION_DELAY).unwrap_or(now);
        Stage::Delayed(*self.due.get_or_insert(due))
    }

    /// The one family that is being looked up, if the other one is not.
    pub(super) fn awaited(&self) -> Option<Family> {
        match (&self.v4, &self.v6) {
            (Half::Asked, Half::Asked) => None,
            (Half::Asked, _) => Some(Family::V4),
            (_, Half::Asked) => Some(Family::V6),
            _ => None,
        }
    }

    /// The family that is being looked up although the other one has gone out.
    pub(super) fn late(&self) -> Option<Family> {
        self.awaited().filter(|awaited| self.late == Some(*awaited))
    }

    /// Whether a look-up is waited for.
    pub(super) fn is_asked(&self) -> bool {
        self.asked() > 0
    }

    /// Whether a family is being looked up, or waits for that.
    pub(super) fn is_asked_for(&self, family: Family) -> bool {
        matches!(self.half(family), Half::Asked)
    }

    /// A look-up has been withdrawn.
    pub(super) fn withdraw(&mut self, family: Family) {
        *self.half_mut(family) = Half::Idle;
    }

    /// Look-ups whose descriptor no session has been promised: one that waits to connect does not use the one for its
    /// target yet.
    pub(super) fn uncovered(&self) -> usize {
        let covered = self.waiters.iter().filter(|waiter| waiter.spares && waiter.served.is_none());
        let asked = self.asked();
        asked - covered.take(asked).count()
    }

    /// All addresses in order, or why there are none: `NotFound` unless this machine could not ask for one of the
    /// families.
    pub(super) fn addresses(&self, prefer: Prefer) -> Addresses {
        match (&self.v4, &self.v6) {
            (Half::Found(v4, rank4), Half::Found(v6, rank6)) => {
                let mut both = match first_family(prefer, *rank4, *rank6) {
                    Family::V4 => interleave(v4, v6),
                    Family::V6 => interleave(v6, v4),
                };
                both.truncate(MAX_ADDRESSES);
                both.shrink_to_fit();
                Ok(both)
            }
            (Half::Found(found, _), _) | (_, Half::Found(found, _)) => Ok(found.clone()),
            (Half::Missing(Missing::Failed), _) | (_, Half::Missing(Missing::Failed)) => {
                Err(ResolveError::Failed)
            }
            _ => Err(ResolveError::NotFound),
        }
    }

    /// Whether what is known of both is an answer about the name: addresses, or that there are none of either family.
    pub(super) fn is_answered(&self) -> bool {
        use Half::{Found, Idle, Missing as None};
        match (&self.v4, &self.v6) {
            (Idle, _) | (_, Idle) => false,
            (Found(..), _) | (_, Found(..)) => true,
            (None(v4), None(v6)) => [v4, v6].into_iter().all(|why| *why == Missing::NotFound),
            _ => false,
        }
    }

    /// The addresses of one family.
    fn addresses_of(&self, family: Family) -> Addresses {
        match self.half(family) {
            Half::Found(addresses, _) => Ok(addresses.clone()),
            Half::Missing(Missing::Failed) => Err(ResolveError::Failed),
            Half::Missing(_) | Half::Idle | Half::Asked => Err(ResolveError::NotFound),
        }
    }

    /// Gives what has become known of a family to those who have the other one already.
    pub(super) fn complete_served(&mut self, resolutions: &mut Vec<Resolution>) {
        for family in Family::ALL {
            let lacks = |waiter: &Waiter| waiter.served == Some(family.other());
            if !self.is_asked_for(family) && self.waiters.iter().any(lacks) {
                let addresses = self.addresses_of(family);
                for waiter in self.waiters.extract_if(.., |waiter| lacks(waiter)) {
                    resolutions.push(waiter.resolution(&addresses, false));
                }
            }
        }
    }

    /// Gives a family to those who have nothing yet. They still wait for the other one.
    pub(super) fn serve(&mut self, family: Family, resolutions: &mut Vec<Resolution>) {
        let addresses = self.addresses_of(family);
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.served.is_none()) {
            waiter.served = Some(family);
            resolutions.push(waiter.resolution(&addresses, true));
        }
    }

    fn asked(&self) -> usize {
        Family::ALL.into_iter().filter(|family| self.is_asked_for(*family)).count()
    }

    fn half(&self, family: Family) -> &Half {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn half_mut(&mut self, family: Family) -> &mut Half {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

impl Waiter {
    pub(super) fn resolution(&self, addresses: &Addresses, more: bool) -> Resolution {
        let addresses = with_port(addresses, self.port);
        Resolution { key: self.key, name: self.name.clone(), port: self.port, addresses, more }
    }
}
