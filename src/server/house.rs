//! The house as METP sees it: who is in it, who has to leave, and when it closes.

use std::time::{Duration, Instant};

use super::Server;
use super::closing::Stop;
use super::resident::{Conversation, Resident};
use crate::ledger::connection::Connection;
use crate::ledger::users::{UserId, Users};
use crate::metp::premises::{Premises, Vitals};
use crate::process;
use crate::proto::metp::ConnectionId;
use crate::reactor::log_thread::Outlet;
use crate::reactor::resolver::Limits;
use crate::reactor::slab::{Key, Slab};
use crate::socks::Reason;

/// What administrators have asked for during a turn, to be done after it.
#[derive(Default)]
pub(super) struct Orders {
    /// Connections to be closed.
    kill: Vec<Key>,
    /// Close down, with so much time for open tunnels.
    shut_down: Option<Duration>,
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

impl House<'_> {
    fn killable(&self, key: Key) -> bool {
        let socks = |resident: &Resident| matches!(resident.conversation, Conversation::Socks(_));
        self.sessions.get(key).is_some_and(socks) && !self.orders.kill.contains(&key)
    }
}

impl Premises for House<'_> {
    fn slots(&self) -> u32 {
        self.sessions.slots()
    }

    fn connection(&self, slot: u32, of: Option<UserId>, users: &Users) -> Option<Connection> {
        let (key, resident) = self.sessions.at(slot)?;
        let Conversation::Socks(session) = &resident.conversation else { return None };
        let wanted = of.is_none() || session.user() == of;
        wanted.then(|| session.describe(key, self.now, users))
    }

    fn kill(&mut self, id: ConnectionId) -> bool {
        let key = Key::from_id(id);
        let there = self.killable(key);
        if there {
            self.orders.kill.push(key);
        }
        there
    }

    fn kill_user(&mut self, user: UserId) -> usize {
        let of_user = |(key, resident): (Key, &Resident)| {
            (resident.conversation.socks_user() == Some(user)).then_some(key)
        };
        let keys: Vec<Key> = self.sessions.iter().filter_map(of_user).collect();
        let before = self.orders.kill.len();
        let keys = keys.into_iter().filter(|key| self.killable(*key)).collect::<Vec<Key>>();
        self.orders.kill.extend(keys);
        self.orders.kill.len() - before
    }

    fn shut_down(&mut self, grace: Option<Duration>) -> bool {
        let news = !self.vitals.closing && self.orders.shut_down.is_none();
        if news {
            self.orders.shut_down = Some(grace.unwrap_or(self.grace));
        }
        news
    }

    fn vitals(&self) -> Vitals {
        Vitals {
            descriptors: process::open_descriptors(),
            resident: process::resident_bytes(),
            ..self.vitals
        }
    }
}

impl Server {
    /// What is known of the process without asking the kernel.
    pub(super) fn vitals(&self, now: Instant) -> Vitals {
        Vitals {
            uptime: now.saturating_duration_since(self.began),
            closing: self.stop != Stop::No,
            descriptors_limit: self.descriptors,
            names: self.world.names.load(),
            lines_lost: self.outlet.iter().chain(&self.diagnostics).map(Outlet::lost).sum(),
            ..Vitals::default()
        }
    }

    /// Does what administrators have asked for, and what follows from what they have changed.
    pub(super) fn carry_out(&mut self, now: Instant) {
        let Orders { kill, shut_down } = std::mem::take(&mut self.orders);
        for key in kill {
            self.world.shared.metrics.killed += 1;
            self.end(key, Reason::Killed, now);
        }
        if self.applied != self.world.shared.changes {
            self.applied = self.world.shared.changes;
            self.apply(now);
        }
        if let Some(grace) = shut_down {
            self.close_down(grace, now);
        }
    }

    /// Passes changed settings on to those who do not look at them each time.
    fn apply(&mut self, now: Instant) {
        let settings = &self.world.shared.settings;
        log::set_max_level(settings.log_level);
        let dns = Limits::new(settings.dns_threads, settings.dns_queue, self.descriptors);
        self.world.names.limit(dns);
        self.world.names.remember_for(settings.names, now);
        self.world.pool.limit(settings.buffer_memory);
        self.world.shared.access_log.resize(settings.log_entries);
        if let Some(listeners) = &mut self.listeners {
            listeners.socks.probe_after(settings.timeouts.keepalive);
            listeners.metp.probe_after(settings.timeouts.keepalive);
            listeners.socks.resume_now();
            listeners.metp.resume_now();
        }
        let keys: Vec<Key> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.arm(key);
        }
        for key in &self.subscribers {
            if let Some(resident) = self.sessions.get_mut(*key) {
                resident.queue(*key, &mut self.queue);
            }
        }
        self.accept(now);
    }
}
