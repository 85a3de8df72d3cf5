//! The house as METP sees it: who is in it, who has to leave, and when it closes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Server;
use super::closing::Stop;
use super::resident::{Conversation, Resident};
use crate::metp::premises::{Footprint, Premises, Vitals};
use crate::reactor::log_thread::Outlet;
use crate::reactor::process_usage;
use crate::reactor::resolver::Limits;
use crate::reactor::slab::{Key, Slab};
use crate::socks::Reason;
use crate::state::connection::Connection;
use crate::state::users::{UserId, Users};
use metp_protocol::ConnectionId;

/// Connections that are closed between two looks at the events: closing costs system calls, and an
/// administrator may want thousands closed at once.
const ENDINGS: usize = 64;

/// What administrators have asked for, to be done behind the turn in which they did.
#[derive(Default)]
pub(super) struct Orders {
    /// Connections to be closed, and why.
    endings: VecDeque<(Key, Reason)>,
    /// How many more may be closed before the next look at the events.
    left: usize,
    /// Close down, with so much time for open tunnels.
    shut_down: Option<Duration>,
}

impl Orders {
    /// Some more may be closed.
    pub(super) fn begin_turn(&mut self) {
        self.left = ENDINGS;
    }

    /// Whether there is nothing left to do.
    pub(super) fn are_done(&self) -> bool {
        self.endings.is_empty() && self.shut_down.is_none()
    }

    /// A connection is to be closed. Says whether that is news.
    fn end(&mut self, key: Key, resident: &Resident, reason: Reason) -> bool {
        let socks = matches!(resident.conversation, Conversation::Socks(_));
        let news = socks && !resident.doomed.replace(true);
        if news {
            self.endings.push_back((key, reason));
        }
        news
    }
}

/// What a METP session sees during its turn.
pub(super) struct House<'a> {
    pub(super) now: Instant,
    pub(super) sessions: &'a Slab<Resident>,
    pub(super) orders: &'a mut Orders,
    /// What open tunnels get when nothing else is said.
    pub(super) grace: Duration,
    pub(super) vitals: Vitals,
}

impl Premises for House<'_> {
    fn slots(&self) -> u32 {
        self.sessions.slots()
    }

    fn connection(&self, slot: u32, of: Option<UserId>, users: &Users) -> Option<Connection> {
        let (key, resident) = self.sessions.at(slot).filter(|(_, found)| !found.doomed.get())?;
        let Conversation::Socks(session) = &resident.conversation else { return None };
        let wanted = of.is_none() || session.user() == of;
        wanted.then(|| session.describe(key, self.now, users))
    }

    fn kill(&mut self, id: ConnectionId) -> bool {
        let key = Key::from_id(id);
        let resident = self.sessions.get(key);
        resident.is_some_and(|resident| self.orders.end(key, resident, Reason::Killed))
    }

    fn kill_user(&mut self, user: UserId) -> usize {
        let of_user =
            |(_, resident): &(Key, &Resident)| resident.conversation.socks_user() == Some(user);
        let theirs = self.sessions.iter().filter(of_user);
        theirs.filter(|(key, resident)| self.orders.end(*key, resident, Reason::Killed)).count()
    }

    fn shut_down(&mut self, grace: Option<Duration>) -> bool {
        let news = self.vitals.closing.is_none() && self.orders.shut_down.is_none();
        if news {
            self.orders.shut_down = Some(grace.unwrap_or(self.grace));
        }
        news
    }

    fn settled(&self) -> bool {
        self.orders.are_done()
    }

    fn vitals(&self) -> Vitals {
        self.vitals
    }

    fn footprint(&self) -> Footprint {
        Footprint {
            descriptors: process_usage::open_descriptors(),
            resident: process_usage::resident_bytes(),
        }
    }
}

impl Server {
    /// How the server is doing.
    pub(super) fn vitals(&self, now: Instant) -> Vitals {
        Vitals {
            uptime: now.saturating_duration_since(self.began),
            closing: match self.stop {
                Stop::No => None,
                Stop::Graceful { until, .. } => Some(until.saturating_duration_since(now)),
                Stop::Farewell(_) | Stop::Now => Some(Duration::ZERO),
            },
            descriptors_limit: self.descriptors_limit,
            connections_affordable: self.affordable(),
            names: self.world.names.load(),
            lines_lost: self.outlet.iter().chain(&self.diagnostics).map(Outlet::lost).sum(),
        }
    }

    /// What follows at once from what an administrator has changed or asked for.
    pub(super) fn follow_up(&mut self, now: Instant) {
        self.evict();
        if self.applied != self.world.shared.changes {
            self.applied = self.world.shared.changes;
            self.apply(now);
        }
        if let Some(grace) = self.orders.shut_down.take() {
            self.close_down(grace, now);
        }
        self.end_some(now);
    }

    /// Closes some of the connections that are to be closed.
    pub(super) fn end_some(&mut self, now: Instant) {
        while self.orders.left > 0 {
            let Some((key, reason)) = self.orders.endings.pop_front() else { break };
            self.orders.left -= 1;
            if reason == Reason::Killed && self.sessions.get(key).is_some() {
                self.world.shared.metrics.killed += 1;
            }
            self.end(key, reason, now);
        }
    }

    /// The sessions of accounts that have been deleted are to be closed.
    fn evict(&mut self) {
        let deleted = self.world.shared.users.take_deleted();
        if deleted.is_empty() {
            return;
        }
        for (key, resident) in self.sessions.iter() {
            if resident.conversation.socks_user().is_some_and(|user| deleted.contains(&user)) {
                self.orders.end(key, resident, Reason::UserDeleted);
            }
        }
    }

    /// Passes changed settings on to those who do not look at them each time.
    fn apply(&mut self, now: Instant) {
        let settings = &self.world.shared.settings;
        log::set_max_level(settings.log_level);
        let dns = Limits::new(settings.dns_threads, settings.dns_queue, self.descriptors)
            .within(self.address_space);
        self.world.names.limit(dns);
        self.world.names.remember_for(settings.names, now);
        self.world.pool.limit(settings.buffer_memory);
        self.world.shared.access_log.resize(settings.log_entries);
        if let Some(listener) = &mut self.listeners.socks {
            listener.set_liveness(settings.timeouts.liveness());
        }
        if let Some(listener) = &mut self.listeners.metp {
            listener.set_liveness(settings.timeouts.metp_liveness());
        }
        for listener in self.listeners.all_mut() {
            listener.resume_now();
        }
        let ack = settings.timeouts.ack;
        let changed = ack.filter(|_| self.ack_timeout != ack);
        self.ack_timeout = ack;
        let keys: Vec<Key> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(limit) = changed
                && let Some(resident) = self.sessions.get_mut(key)
                && let Conversation::Socks(session) = &mut resident.conversation
            {
                session.ack_timeout_changed(limit, now);
            }
            self.arm(key);
        }
        for key in &self.subscribers {
            if let Some(resident) = self.sessions.get_mut(*key) {
                self.queues.put(*key, resident);
            }
        }
        self.accept(now);
    }
}
