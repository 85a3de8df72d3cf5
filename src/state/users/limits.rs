//! The limits of accounts, and what they allow.
//!
//! What an account may do is decided when it asks: its [`Usage`] knows what is in force and what it has used, so that no
//! look-up is needed. Addresses and requests are counted by a [`RequestGuard`], whose drop counts them off, whatever has
//! ended the request. Of a quota the bytes are counted that were delivered since its period began; the flag
//! [`Usage::is_over`] stops every tunnel of the account at its next turn.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{SessionGuard, Usage, UserId, Users};
use crate::proto::limits::{InForce, Limits};
use crate::state::Direction;
use crate::state::client_network::ClientNetwork;
use crate::state::shaper::Shaper;
use metp_protocol::{Period, Quota};

/// How long an address counts after its last request has ended.
const SOURCE_LIFETIME: Duration = Duration::from_secs(60);

const SECONDS_IN_A_DAY: u64 = 86_400;

/// The limit that does not allow something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitReached {
    /// `conns`
    Connections,
    /// `sources`
    Sources,
    /// `quota`
    Quota,
    /// `expires`
    Expired,
}

impl LimitReached {
    /// All, in the order of figures.
    pub const ALL: [LimitReached; 4] = [
        LimitReached::Connections,
        LimitReached::Sources,
        LimitReached::Quota,
        LimitReached::Expired,
    ];

    /// The word of the access log.
    pub fn word(self) -> &'static str {
        match self {
            LimitReached::Connections => "limit-connections",
            LimitReached::Sources => "limit-sources",
            LimitReached::Quota => "limit-quota",
            LimitReached::Expired => "expired",
        }
    }
}

/// What an account has used of what its limits allow.
#[derive(Debug, Default)]
pub struct Used {
    /// What is in force. `None`: no limit.
    in_force: RefCell<Option<Rc<InForce>>>,
    /// Requests that are being served.
    requests: Cell<u32>,
    /// The sum of [`Usage::up`] and [`Usage::down`] when the period of the quota began.
    base: Cell<u64>,
    /// When the period of the quota began, in seconds of UNIX time. `None`: no quota has been counted yet.
    period: Cell<Option<u64>>,
    /// Whether nothing is served any more: the quota is used up, or the account has expired.
    over: Cell<Option<LimitReached>>,
    /// The day of which the period is known, since 1970.
    day: Cell<u64>,
    /// Nothing is reached as long as the counters add up to less than this, and this time of UNIX has not come.
    unreached: Cell<(u64, u64)>,
    /// Addresses of clients. Kept only under the limit `sources`.
    sources: RefCell<Option<Rc<RefCell<Sources>>>>,
}

/// Addresses of clients: requests that are open, and when the last one began or ended.
type Sources = HashMap<ClientNetwork, (u32, Instant)>;

/// A request that is being served; dropping it counts it off.
#[derive(Debug)]
pub struct RequestGuard {
    usage: Rc<Usage>,
    /// The address that it counts for, and where: under a limit that was lifted and set again others are counted.
    source: Option<(Rc<RefCell<Sources>>, ClientNetwork)>,
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let used = &self.usage.used;
        used.requests.set(used.requests.get().saturating_sub(1));
        if let Some((sources, source)) = &self.source
            && let Some((open, last)) = sources.borrow_mut().get_mut(source)
        {
            *open = open.saturating_sub(1);
            *last = Instant::now();
        }
    }
}

impl SessionGuard {
    /// Begins to serve a request of a client at `source`. `time`: seconds of UNIX time.
    ///
    /// # Errors
    /// The limit that does not allow it.
    pub fn open_request(
        &self,
        source: IpAddr,
        now: Instant,
        time: u64,
    ) -> Result<RequestGuard, LimitReached> {
        let usage = &self.usage;
        let used = &usage.used;
        let mut counted = None;
        if let Some(limits) = &*used.in_force.borrow() {
            if let Some(reached) = usage.judge(limits, time) {
                return Err(reached);
            }
            if limits.connections.is_some_and(|most| used.requests.get() >= most) {
                return Err(LimitReached::Connections);
            }
            if let Some(most) = limits.sources {
                let source = source.to_canonical().into();
                let sources = used.admit(source, most, now).ok_or(LimitReached::Sources)?;
                counted = Some((sources, source));
            }
        }
        used.requests.set(used.requests.get().saturating_add(1));
        Ok(RequestGuard { usage: Rc::clone(usage), source: counted })
    }
}

impl Used {
    /// Counts a request from an address, if it is one of `most`. Returns where it is counted.
    fn admit(
        &self,
        source: ClientNetwork,
        most: u32,
        now: Instant,
    ) -> Option<Rc<RefCell<Sources>>> {
        let of = Rc::clone(self.sources.borrow_mut().get_or_insert_default());
        let mut sources = of.borrow_mut();
        if most == 0 || !sources.contains_key(&source) {
            sources.retain(|_, (open, last)| counts(*open, *last, now));
            if sources.len() >= most as usize {
                return None;
            }
        }
        let (open, last) = sources.entry(source).or_insert((0, now));
        *open = open.saturating_add(1);
        *last = now;
        drop(sources);
        Some(of)
    }
}

/// Whether an address counts: requests are open, or one was a short time ago.
fn counts(open: u32, last: Instant, now: Instant) -> bool {
    open > 0 || now.saturating_duration_since(last) < SOURCE_LIFETIME
}

impl Usage {
    /// What the account has read under its rate. `None`: there is no such limit.
    pub fn shaper(&self) -> Option<RefMut<'_, Shaper>> {
        RefMut::filter_map(self.shaper.borrow_mut(), Option::as_deref_mut).ok()
    }

    /// Whether the account has a rate.
    pub fn has_rate(&self) -> bool {
        self.shaper.borrow().is_some()
    }

    /// Bytes have been read for the account.
    pub fn charge(&self, direction: Direction, bytes: u64, now: Instant) {
        if bytes > 0
            && let Some(mut shaper) = self.shaper()
        {
            shaper.charge(direction, bytes, now);
        }
    }

    /// Bytes that were charged have not been read.
    pub fn refund(&self, direction: Direction, bytes: u64, now: Instant) {
        if bytes > 0
            && let Some(mut shaper) = self.shaper()
        {
            shaper.refund(direction, bytes, now);
        }
    }

    /// The limits that are in force. `None`: none is.
    pub fn in_force(&self) -> Option<Rc<InForce>> {
        self.used.in_force.borrow().clone()
    }

    /// Addresses of clients that count now. `None`: nobody counts them.
    pub fn sources(&self, now: Instant) -> Option<usize> {
        self.used.in_force.borrow().as_ref()?.sources?;
        let sources = self.used.sources.borrow();
        let Some(sources) = &*sources else { return Some(0) };
        Some(sources.borrow().values().filter(|(open, last)| counts(*open, *last, now)).count())
    }

    /// Payload bytes of both directions.
    fn bytes(&self) -> u64 {
        self.up.get().saturating_add(self.down.get())
    }

    /// Bytes that count for the quota at this time. `None`: there is none.
    pub fn quota_used(&self, time: u64) -> Option<u64> {
        self.begin_period(self.used.in_force.borrow().as_ref()?.quota.as_ref()?, time);
        Some(self.bytes().saturating_sub(self.used.base.get()))
    }

    /// Why nothing more is delivered for this account, found when bytes were counted or time went by.
    pub fn is_over(&self) -> Option<LimitReached> {
        self.used.over.get()
    }

    /// Bytes have been counted. Returns the limit if this has reached it.
    #[inline]
    pub fn count_against_quota(&self, time: u64) -> Option<LimitReached> {
        let (bytes, until) = self.used.unreached.get();
        if self.bytes() < bytes && time < until {
            return None;
        }
        self.judge_count(time)
    }

    fn judge_count(&self, time: u64) -> Option<LimitReached> {
        let limits = self.used.in_force.borrow();
        let limits = limits.as_ref()?;
        limits.quota?;
        let before = self.used.over.get();
        self.judge(limits, time).filter(|_| before.is_none())
    }

    /// Finds out whether the account has expired, or its quota is used up.
    fn judge(&self, limits: &InForce, time: u64) -> Option<LimitReached> {
        let reached = if limits.expires.is_some_and(|expires| time >= expires) {
            Some(LimitReached::Expired)
        } else if let Some(quota) = &limits.quota {
            self.begin_period(quota, time);
            let used = self.bytes().saturating_sub(self.used.base.get());
            (used >= quota.bytes).then_some(LimitReached::Quota)
        } else {
            None
        };
        self.used.over.set(reached);
        self.used.unreached.set(match (reached, &limits.quota) {
            (None, Some(quota)) => {
                let midnight = (time / SECONDS_IN_A_DAY + 1).saturating_mul(SECONDS_IN_A_DAY);
                let until = limits.expires.map_or(midnight, |expires| expires.min(midnight));
                (self.used.base.get().saturating_add(quota.bytes), until)
            }
            _ => (0, 0),
        });
        reached
    }

    /// Begins the period that the time belongs to, unless it has begun. One that has begun before the one that was counted
    /// goes on with what has been used: the clock was set back, which gives nobody a quota, or the period is another one
    /// by now.
    fn begin_period(&self, quota: &Quota, time: u64) {
        let used = &self.used;
        // Periods begin at midnight.
        let day = time / SECONDS_IN_A_DAY;
        if used.day.replace(day) == day && used.period.get().is_some() {
            return;
        }
        let beginning = quota.period.beginning(time);
        let begun = used.period.replace(Some(beginning));
        if quota.period == Period::Total {
            // All that has ever been used counts.
            used.base.set(0);
        } else if begun.is_none_or(|begun| begun < beginning) {
            used.base.set(self.bytes());
        }
    }

    /// Sets the counters back to zero. What was counted can be put back by [`Usage::put_back`].
    pub fn reset(&self, time: u64) -> Counted {
        let before = Counted {
            since: self.since.get(),
            total: self.total.get(),
            up: self.up.get(),
            down: self.down.get(),
            base: self.used.base.get(),
        };
        self.since.set(time);
        for cell in [&self.total, &self.up, &self.down, &self.used.base] {
            cell.set(0);
        }
        self.judge_again(time);
        before
    }

    /// Undoes [`Usage::reset`].
    pub fn put_back(&self, before: Counted, time: u64) {
        let Counted { since, total, up, down, base } = before;
        self.since.set(since);
        for (cell, number) in
            [(&self.total, total), (&self.up, up), (&self.down, down), (&self.used.base, base)]
        {
            cell.set(cell.get().saturating_add(number));
        }
        self.judge_again(time);
    }

    /// What the file of figures has of the quota: the sum at the beginning of the period, and when that was.
    pub(super) fn quota_figures(&self) -> (u64, Option<u64>) {
        (self.used.base.get(), self.used.period.get())
    }

    /// What was used has changed in another way than by counting.
    pub(super) fn judge_again(&self, time: u64) {
        self.used.day.set(u64::MAX);
        self.used.unreached.set((0, 0));
        if let Some(limits) = &*self.used.in_force.borrow() {
            self.judge(limits, time);
        }
    }

    /// Where the quota was not counted before, that is what a new one begins with.
    pub(super) fn restore_quota_figures(&self, base: u64, period: Option<u64>) {
        self.used.base.set(base);
        self.used.period.set(period);
        self.used.unreached.set((0, 0));
    }

    fn enforce(&self, limits: Option<Rc<InForce>>, time: u64) {
        if limits.as_ref().is_none_or(|limits| limits.sources.is_none()) {
            self.used.sources.take();
        }
        self.used.over.set(None);
        // The period may be another one.
        self.used.day.set(u64::MAX);
        self.used.unreached.set((0, 0));
        if let Some(limits) = &limits {
            self.judge(limits, time);
        }
        *self.used.in_force.borrow_mut() = limits;
    }
}

/// Counters that have been set back.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    since: u64,
    total: u64,
    up: u64,
    down: u64,
    base: u64,
}

impl Users {
    /// What the line of an account says of limits.
    pub fn limits(&self, id: UserId) -> Option<&Limits> {
        self.accounts.get(&id)?.limits.as_deref()
    }

    /// What the line of `*` says of limits.
    pub fn defaults(&self) -> &Limits {
        &self.defaults
    }

    /// Whether clients at this address may log in to the account.
    pub fn admits(&self, id: UserId, source: IpAddr) -> bool {
        let Some(account) = self.accounts.get(&id) else { return true };
        let in_force = account.usage.used.in_force.borrow();
        let from = in_force.as_ref().and_then(|limits| limits.from.as_deref());
        from.is_none_or(|networks| networks.iter().any(|network| network.contains(source)))
    }

    /// Gives an account other limits, if it is there. Returns those that it had.
    pub fn set_limits(
        &mut self,
        id: UserId,
        limits: Option<Box<Limits>>,
        time: u64,
    ) -> Option<Box<Limits>> {
        let limits = limits.filter(|limits| !limits.is_empty());
        let account = self.accounts.get_mut(&id)?;
        let before = std::mem::replace(&mut account.limits, limits);
        self.enforce(id, time);
        before
    }

    /// Gives all accounts that do not say otherwise other limits. Returns those that they had.
    pub fn set_defaults(&mut self, limits: Limits, time: u64) -> Limits {
        if limits == self.defaults {
            return limits;
        }
        self.defaults_in_force =
            (!limits.is_empty()).then(|| Rc::new(limits.in_force(&Limits::default())));
        let before = std::mem::replace(&mut self.defaults, limits);
        let ids: Vec<UserId> = self.accounts.keys().copied().collect();
        for id in ids {
            self.enforce(id, time);
        }
        before
    }

    /// Has the limits of an account take effect.
    pub(super) fn enforce(&mut self, id: UserId, time: u64) {
        let Some(account) = self.accounts.get(&id) else { return };
        let in_force = match &account.limits {
            Some(own) => Some(Rc::new(own.in_force(&self.defaults))),
            None => self.defaults_in_force.clone(),
        };
        let usage = Rc::clone(&account.usage);
        let before = usage.in_force();
        if before == in_force {
            return;
        }
        let expires =
            |limits: &Option<Rc<InForce>>| limits.as_ref().and_then(|limits| limits.expires);
        if let Some(expires) = expires(&before) {
            self.expiries.remove(&(expires, id));
        }
        if let Some(expires) = expires(&in_force) {
            self.expiries.insert((expires, id));
        }
        let rate = in_force.as_ref().and_then(|limits| limits.rate).map(|rate| rate.bytes());
        usage.enforce(in_force, time);
        self.set_rate(id, rate);
        if let Some(reached) = usage.is_over() {
            self.cut(id, reached);
        }
    }

    /// Limits the rate of an account, in bytes per second of each direction.
    fn set_rate(&mut self, id: UserId, rate: Option<NonZeroU64>) {
        let Some(account) = self.accounts.get(&id) else { return };
        let mut shaper = account.usage.shaper.borrow_mut();
        if shaper.as_ref().map(|shaper| shaper.rate()) == rate {
            return;
        }
        match (&mut *shaper, rate) {
            (Some(shaper), Some(rate)) => shaper.set_rate(rate),
            (shaper, rate) => *shaper = rate.map(|rate| Box::new(Shaper::new(rate))),
        }
        self.rate_changes.push(id);
    }

    /// The accounts whose rate is another one, since the last call.
    pub fn take_rate_changes(&mut self) -> Vec<UserId> {
        std::mem::take(&mut self.rate_changes)
    }

    /// The tunnels of an account are to be ended, since it has reached a limit.
    pub fn cut(&mut self, id: UserId, reached: LimitReached) {
        self.cut.push((id, reached));
    }

    /// Whether tunnels of an account are to be ended.
    pub fn has_cut(&self) -> bool {
        !self.cut.is_empty()
    }

    /// The accounts whose tunnels are to be ended, since the last call.
    pub fn take_cut(&mut self) -> Vec<(UserId, LimitReached)> {
        std::mem::take(&mut self.cut)
    }

    /// When the next account expires, in seconds of UNIX time.
    pub fn next_expiry(&self) -> Option<u64> {
        let next = self.expiries.range((self.expired_until.saturating_add(1), UserId(0))..);
        next.map(|(time, _)| *time).next()
    }

    /// Accounts that have expired by this time: their tunnels are to be ended.
    pub fn expire(&mut self, time: u64) {
        // Where the clock has been set back, they expire once more.
        let begin = (self.expired_until.saturating_add(1), UserId(0));
        self.expired_until = time;
        let expired: Vec<UserId> = match begin.0 <= time {
            true => {
                let end = (time, UserId::TRUSTED);
                self.expiries.range(begin..=end).map(|(_, id)| *id).collect()
            }
            false => Vec::new(),
        };
        for id in expired {
            if let Some(account) = self.accounts.get(&id) {
                account.usage.used.over.set(Some(LimitReached::Expired));
                self.cut(id, LimitReached::Expired);
            }
        }
    }
}

#[cfg(test)]
mod tests;
