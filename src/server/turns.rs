//! The turn of a session: what it may use, and what follows from how it ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use mio::net::TcpStream;

use super::control::ServerControl;
use super::entry::AnySession;
use super::{Server, Services};
use crate::reactor::Flow;
use crate::reactor::buffer::Pool;
use crate::reactor::slab::Key;
use crate::socks::{CloseReason, Context};
use crate::state::Shared;
use crate::state::verifier::Verifier;
use crate::{http, metp};

/// Of what all sessions use, what those use that administer.
struct Parts<'a> {
    pool: &'a mut Pool,
    shared: &'a mut Shared,
    verifier: &'a mut dyn Verifier,
}

impl Server {
    /// Gives a session its turn.
    pub(super) fn give_turn(&mut self, key: Key, now: Instant) {
        let Some(entry) = self.sessions.get_mut(key) else { return };
        entry.queued = false;
        if entry.close_pending.get() {
            return;
        }
        let services = &mut self.services;
        let turn = match &mut entry.session {
            AnySession::Socks(session) => {
                catch_unwind(AssertUnwindSafe(|| session.turn(&mut services.context(key, now))))
            }
            AnySession::Metp(slot) => match slot.take() {
                Some(session) => self.give_metp_turn(key, session, now),
                None => return,
            },
            AnySession::Http(slot) => match slot.take() {
                Some(session) => self.give_http_turn(key, session, now),
                None => return,
            },
        };
        self.record_progress(key, now);
        let Some(entry) = self.sessions.get_mut(key) else { return };
        match turn {
            Ok(Flow::Wait) => self.arm(key),
            Ok(Flow::Again) => self.queues.put_back(key, entry),
            Ok(Flow::Close) => self.end(key, CloseReason::Finished, now),
            Err(_) => {
                // The panic hook has logged where and why.
                self.services.shared.metrics.panics += 1;
                self.end(key, CloseReason::Panic, now);
            }
        }
    }

    /// For its turn a METP session is taken out of its entry, so that it can read all the others.
    fn give_metp_turn(
        &mut self,
        key: Key,
        mut session: Box<metp::Session<TcpStream>>,
        now: Instant,
    ) -> std::thread::Result<Flow> {
        let (services, mut control) = self.control(now);
        let Parts { pool, shared, verifier } = services;
        let control = &mut control;
        let mut cx = metp::Context { key, now, pool, shared, verifier, control };
        let turn = catch_unwind(AssertUnwindSafe(|| session.turn(&mut cx)));
        if session.subscribes() && !self.subscribers.contains(&key) {
            self.subscribers.push(key);
        }
        if let Some(entry) = self.sessions.get_mut(key) {
            entry.session = AnySession::Metp(Some(session));
        }
        self.run_pending_actions(now);
        turn
    }

    /// So it is with a session of HTTP, which reads alone.
    fn give_http_turn(
        &mut self,
        key: Key,
        mut session: Box<http::Session<TcpStream>>,
        now: Instant,
    ) -> std::thread::Result<Flow> {
        let (services, mut control) = self.control(now);
        let Parts { pool, shared, verifier } = services;
        let control = &mut control;
        let mut cx = http::Context { key, now, pool, shared, verifier, control };
        let turn = catch_unwind(AssertUnwindSafe(|| session.turn(&mut cx)));
        if let Some(entry) = self.sessions.get_mut(key) {
            entry.session = AnySession::Http(Some(session));
        }
        turn
    }

    /// What a session that administers sees of the server.
    fn control(&mut self, now: Instant) -> (Parts<'_>, ServerControl<'_>) {
        let status = self.status(now);
        let Services { selector, verifier, files, pool, shared, .. } = &mut self.services;
        let (sessions, pending) = (&self.sessions, &mut self.pending);
        let grace = shared.process.settings.grace;
        let (can_reload, has_state) = (files.can_reload(), files.has_state_directory());
        let reloading = files.is_reloading();
        let network = selector;
        let control = ServerControl {
            now,
            sessions,
            pending,
            grace,
            status,
            can_reload,
            has_state,
            reloading,
            network,
        };
        (Parts { pool, shared, verifier: &mut **verifier }, control)
    }
}

impl Services {
    /// What a session of SOCKS uses.
    pub(super) fn context(&mut self, key: Key, now: Instant) -> Context<'_, TcpStream> {
        let Services { selector, dns, verifier, pool, closes, reserve, shared, .. } = self;
        let verifier = &mut **verifier;
        Context { key, now, network: selector, dns, verifier, pool, closes, reserve, shared }
    }
}
