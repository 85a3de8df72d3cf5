//! Accepting connections: a few for each turn of the loop, as long as there is room.
//!
//! A session is promised its descriptors when it is admitted, with SOCKS its client's and its target's. While there
//! is no room the listener pauses and holds at most one accepted connection.

use std::time::Instant;

use mio::net::TcpStream;

use super::Server;
use super::admission::{ACCEPTS_PER_TURN, Allowance, Decision};
use super::entry::SessionEntry;
use super::service::{ACCEPT_ORDER, Limits, ServiceState, row};
use super::unproven::ClientNetwork;
use crate::reactor::endpoint::Stream;
use crate::reactor::listener::Accepted;
use crate::reactor::slab::Key;
use crate::socks::CloseReason;
use crate::state::Shared;
use crate::state::diagnostics::not_let_in;
use crate::state::service::Service;

impl Server {
    pub(super) fn accept(&mut self, now: Instant) {
        let mut has_accepted = false;
        for service in ACCEPT_ORDER {
            let Some(listener) = &mut self.table.of_mut(service).listener else { continue };
            listener.resume(now);
            if !listener.ready() {
                continue;
            }
            for _ in 0..ACCEPTS_PER_TURN {
                if !self.accept_one(service, now) {
                    break;
                }
                has_accepted = true;
            }
        }
        if has_accepted {
            self.refresh_reserve();
        }
    }

    /// Closes the listener of a service. Where another process has the socket too, it goes on listening there.
    pub(super) fn close_listener(&mut self, service: Service) {
        if let Some(mut listener) = self.table.of_mut(service).listener.take() {
            self.services.selector.deregister(listener.socket());
        }
    }

    /// Accepts a connection and decides about it. Returns whether another accept is worth a try.
    fn accept_one(&mut self, service: Service, now: Instant) -> bool {
        let Some(listener) = &mut self.table.of_mut(service).listener else { return false };
        let (mut stream, source) = match listener.accept(now) {
            Accepted::Connection(stream, source) => (stream, source),
            Accepted::Nothing => return false,
            Accepted::Exhausted(error) => {
                if let Some(error) = error {
                    log::warn!("{service}: cannot accept connections for now: {error}");
                }
                return false;
            }
        };
        if self.services.shared.process.to_own_ports.contains_key(&source) {
            // The peer is this server itself: the system has redirected the connection.
            not_let_in(service, source, "own-port");
            // If SO_LINGER is refused, the connection ends with FIN.
            let _ = stream.reset_on_close();
            return true;
        }
        let allowance = self.allowance(service);
        let (sessions, users) = (&self.sessions, &self.services.shared.process.users);
        let evictable = |key| sessions.get(key).and_then(|entry| entry.evictable(users, now));
        let network = ClientNetwork::from(source.ip());
        match self.table.of_mut(service).admission.decide(network, allowance, now, evictable) {
            Decision::Admit => self.admit(service, stream, source, now),
            Decision::Replace(key) => {
                self.end(key, CloseReason::Evicted, now);
                self.admit(service, stream, source, now);
            }
            Decision::TooMany => {
                let Shared { metrics, diagnostics, .. } = &mut self.services.shared;
                metrics.sessions.of_mut(service).refused_limit += 1;
                diagnostics.address_is_full(service, source.ip(), now);
                not_let_in(service, source, "too-many-connections");
            }
            Decision::Wait(until) => {
                if let Some(listener) = &mut self.table.of_mut(service).listener
                    && listener.hold(stream, source, now, until)
                {
                    let of = if allowance.room { " without a login or request" } else { "" };
                    log::warn!("{service}: the limit of connections{of} is reached, others wait");
                }
                return false;
            }
        }
        true
    }

    /// The limits of a service at this moment.
    fn allowance(&self, service: Service) -> Allowance {
        let Limits { sessions, unproven, per_source } = self.limits(service);
        let has_place = self.services.shared.metrics.sessions.of(service).open < sessions;
        Allowance {
            room: has_place && self.descriptor_sum().has_room(service),
            unproven,
            per_source,
        }
    }

    fn limits(&self, service: Service) -> Limits {
        (row(service).limits)(&self.services.shared.process.settings, self.descriptors)
    }

    /// Whether 1/32 of the limit is free. Accepting begins again only then, so that a full server does not toggle its
    /// listener for every connection.
    pub(super) fn has_headroom(&self, service: Service) -> bool {
        let limit = self.limits(service).sessions;
        self.services.shared.metrics.sessions.of(service).open < limit - limit / 32
    }

    /// Passes the progress of a session's turn on to admission.
    pub(super) fn record_progress(&mut self, key: Key, now: Instant) {
        let Some(entry) = self.sessions.get_mut(key) else { return };
        let Some(place) = entry.place.filter(|place| !place.is_proven()) else { return };
        let service = entry.session.service();
        let ServiceState { listener, admission } = self.table.of_mut(service);
        if let Some(progress) = entry.session.progress() {
            admission.advance(place, progress, now);
            return;
        }
        entry.place = admission.prove(place, row(service).evicts_proven.then_some(key));
        if let Some(listener) = listener {
            listener.resume_if_held();
        }
    }

    pub(super) fn admit(
        &mut self,
        service: Service,
        stream: TcpStream,
        source: std::net::SocketAddr,
        now: Instant,
    ) {
        let metrics = &mut self.services.shared.metrics;
        let entry = SessionEntry::new((row(service).open)(stream, source, now, metrics));
        let Some(key) = self.sessions.insert(entry) else { return };
        let counts = metrics.sessions.of_mut(service);
        counts.accepted += 1;
        counts.open += 1;
        let place = self.table.of_mut(service).admission.enter(key, source.ip().into(), now);
        let registered = match self.sessions.get_mut(key) {
            Some(entry) => {
                entry.place = place;
                entry.register(key, &self.services.selector)
            }
            None => Ok(()),
        };
        match registered {
            Ok(()) => {
                self.services.shared.shortages.can_watch(now);
                self.arm(key);
            }
            Err(error) => {
                self.services.shared.shortages.cannot_watch(service, &error, now);
                self.end(key, CloseReason::Evicted, now);
            }
        }
    }
}
