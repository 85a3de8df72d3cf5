//! What has come since the last turn: events of descriptors, answers of workers, alarms. Sessions that it concerns are
//! queued.

use std::time::Instant;

use super::entry::SessionEntry;
use super::service::of_listener;
use super::{Server, Services};
use crate::reactor::slab::Key;
use crate::reactor::token::Source;
use crate::state::control::ControlAnswer;
use crate::state::rates::Grant;
use crate::workers::dns_cache::NameAnswer;

impl Server {
    /// Raises the flags that events name and queues the sessions they belong to.
    pub(super) fn on_event(&mut self, now: Instant) {
        let mut woken = false;
        for (source, readiness) in self.services.selector.events() {
            match source {
                Source::Session(key, side) => {
                    if let Some(entry) = self.sessions.get_mut(key) {
                        entry.on_event(side, readiness);
                        self.queues.put(key, entry);
                    }
                }
                Source::Listener(id) => {
                    if let Some(service) = of_listener(id)
                        && let Some(listener) = &mut self.table.of_mut(service).listener
                    {
                        listener.on_event();
                    }
                }
                Source::Wake => woken = true,
                Source::Signal => self.signalled = true,
                Source::Takeover => self.takeover.on_event(),
            }
        }
        // The call that wakes the loop may have failed.
        if woken || self.services.dns.ready(now) || self.services.verifier.ready(now) {
            self.take_answers(now);
        }
        if self.services.files.ready() {
            self.take_stored(now);
        }
        if self.signalled {
            self.take_signals(now);
        }
    }

    /// Sessions whose account may read again have a turn.
    pub(super) fn wake_starved(&mut self, now: Instant) {
        let sessions = &self.sessions;
        let is_open = |key| sessions.get(key).is_some();
        for grant in self.services.shared.take_grants(now, is_open) {
            let Grant { key, .. } = grant;
            if let Some(entry) = self.sessions.get_mut(key)
                && let Some(session) = entry.session.as_socks_mut()
            {
                session.granted(grant, now);
                self.queues.put(key, entry);
            }
        }
    }

    fn take_answers(&mut self, now: Instant) {
        for reply in self.services.dns.resolutions(now) {
            self.answer(reply.key, |entry| entry.resolved(reply, now));
        }
        for NameAnswer { key, name } in self.services.dns.names() {
            self.answer(key, |entry| entry.named(name));
        }
        let Services { verifier, shared, .. } = &mut self.services;
        for (key, verdict) in verifier.verdicts(&mut shared.process.users, now) {
            self.answer(key, |entry| entry.verified(verdict));
        }
    }

    /// Gives a session what it has waited for, and queues it.
    pub(super) fn answer(&mut self, key: Key, give: impl FnOnce(&mut SessionEntry)) {
        if let Some(entry) = self.sessions.get_mut(key) {
            give(entry);
            self.queues.put(key, entry);
        }
    }

    /// Gives a session the answer to what it has asked for. A change that has been made is logged, whether the session is
    /// still there or not.
    pub(super) fn answer_request(&mut self, session: Key, answer: ControlAnswer) {
        self.services.shared.process.requested.settle(session, answer.is_change_made());
        self.answer(session, |entry| entry.answered(answer));
    }

    /// Queues the sessions whose alarm is due; each checks in its turn whether its deadline has really passed.
    pub(super) fn expire(&mut self, now: Instant) {
        let mut due = Vec::new();
        self.wheel.expire(now, &mut due);
        for (tick, key) in due {
            if let Some(entry) = self.sessions.get_mut(key)
                && entry.armed == Some(tick)
            {
                entry.armed = None;
                self.queues.put(key, entry);
            }
        }
    }
}
