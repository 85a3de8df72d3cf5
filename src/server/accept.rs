//! Accepting connections: a few for each turn of the loop, as long as there is room.
//!
//! A SOCKS session is promised two descriptors when it is admitted: its client's and its target's. While
//! there is no room the listener pauses, with at most one accepted connection that waits in its hands.

use std::time::Instant;

use mio::net::TcpStream;

use super::Server;
use super::admission::{Allowance, BASE_DESCRIPTORS, Verdict};
use super::entry::{AnySession, SessionEntry};
use super::unproven::Network;
use crate::reactor::endpoint::Stream;
use crate::reactor::listener::Accepted;
use crate::reactor::slab::Key;
use crate::reactor::token::Service;
use crate::socks::CloseReason;
use crate::state::Shared;
use crate::state::diagnostics::not_let_in;
use crate::state::metrics::Stage;
use crate::{metp, socks};

/// Connections accepted in one turn of the loop, so that a burst does not hold up the tunnels.
const ACCEPTS: usize = 16;

/// METP sessions that have not logged in, at most.
const METP_UNPROVEN: usize = 64;

/// Descriptors that SOCKS leaves to METP, so that an administrator can always get in.
const METP_RESERVED: usize = 4;

/// What a tunnel takes: one descriptor for its client, and one for its target.
const SOCKS_DESCRIPTORS: usize = 2;

/// With fewer descriptors there is no tunnel.
pub(super) const FEWEST_DESCRIPTORS: usize = BASE_DESCRIPTORS + METP_RESERVED + SOCKS_DESCRIPTORS;

impl Server {
    pub(super) fn accept(&mut self, now: Instant) {
        for service in [Service::Metp, Service::Socks] {
            if let Some(listener) = self.listeners.of(service) {
                listener.resume(now);
            }
            for _ in 0..ACCEPTS {
                if !self.accept_one(service, now) {
                    break;
                }
            }
        }
    }

    /// Accepts a connection and decides what becomes of it. Says whether another may follow.
    fn accept_one(&mut self, service: Service, now: Instant) -> bool {
        let Some(listener) = self.listeners.of(service) else { return false };
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
        if self.services.shared.to_own_ports.contains_key(&source) {
            // It is this server itself, by way of another address.
            not_let_in(service, source, "own-port");
            // If it cannot be had, closing is orderly and nothing else.
            let _ = stream.reset_on_close();
            return true;
        }
        let allowance = self.allowance(service);
        let (sessions, users) = (&self.sessions, &self.services.shared.users);
        let evictable = |key| sessions.get(key).and_then(|entry| entry.evictable(users));
        let network = Network::from(source.ip());
        match self.admissions.of(service).decide(network, allowance, now, evictable) {
            Verdict::Admit => self.admit(service, stream, source, now),
            Verdict::Replace(key) => {
                self.end(key, CloseReason::Evicted, now);
                self.admit(service, stream, source, now);
            }
            Verdict::TooMany => {
                let Shared { metrics, diagnostics, .. } = &mut self.services.shared;
                metrics.refused_limit += u64::from(service == Service::Socks);
                diagnostics.address_is_full(service, source.ip(), now);
                not_let_in(service, source, "too-many-connections");
            }
            Verdict::Wait(until) => {
                if let Some(listener) = self.listeners.of(service)
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

    /// Descriptors that are open or promised, pipes not counted: two for each SOCKS session, one for each METP
    /// session, for each look-up that its session has left behind, and for each connection that waits for its
    /// reset.
    pub(super) fn reserved_descriptors(&self) -> usize {
        let metrics = &self.services.shared.metrics;
        metrics
            .open
            .saturating_mul(SOCKS_DESCRIPTORS)
            .saturating_add(metrics.metp_open)
            .saturating_add(self.services.dns.orphans())
            .saturating_add(self.services.closes.len())
            .saturating_add(BASE_DESCRIPTORS)
    }

    /// SOCKS connections for which there are descriptors now, those that are open included. Idle pipes do not
    /// count, since they give way.
    pub(super) fn affordable(&self) -> usize {
        let metrics = &self.services.shared.metrics;
        let kept = METP_RESERVED.saturating_sub(metrics.metp_open);
        let others = self.reserved_descriptors().saturating_sub(metrics.open * SOCKS_DESCRIPTORS);
        self.descriptors.saturating_sub(others).saturating_sub(kept) / SOCKS_DESCRIPTORS
    }

    /// What a service allows now.
    fn allowance(&self, service: Service) -> Allowance {
        let Shared { metrics, settings, .. } = &self.services.shared;
        let pipes = self.services.pool.pipes.open().saturating_mul(2);
        let free =
            self.descriptors.saturating_sub(self.reserved_descriptors()).saturating_sub(pipes);
        let kept = METP_RESERVED.saturating_sub(metrics.metp_open);
        match service {
            Service::Socks => Allowance {
                room: metrics.open < settings.max_connections && free >= SOCKS_DESCRIPTORS + kept,
                unproven: (settings.max_connections / 2).max(1),
                per_source: settings.max_connections_per_ip,
            },
            Service::Metp => Allowance {
                room: metrics.metp_open < settings.max_metp_sessions && free >= 1,
                // Strangers at METP take neither all descriptors, where these are few, nor all places.
                unproven: METP_UNPROVEN
                    .min(self.descriptors / 16)
                    .min(settings.max_metp_sessions / 2)
                    .max(1),
                per_source: None,
            },
        }
    }

    /// Whether 1/32 of the limit is free. Accepting begins again only then, so that a full server does not toggle its
    /// listener for every connection.
    pub(super) fn has_headroom(&self, service: Service) -> bool {
        let Shared { metrics, settings, .. } = &self.services.shared;
        let (open, limit) = match service {
            Service::Socks => (metrics.open, settings.max_connections),
            Service::Metp => (metrics.metp_open, settings.max_metp_sessions),
        };
        open < limit - limit / 32
    }

    /// A session has had a turn: admission has to know how far it has come in it.
    pub(super) fn record_progress(&mut self, key: Key, now: Instant) {
        let Some(entry) = self.sessions.get_mut(key) else { return };
        let Some(place) = entry.place.filter(|place| !place.is_proven()) else { return };
        let service = entry.session.service();
        let admission = self.admissions.of(service);
        if let Some(progress) = entry.session.progress() {
            admission.advance(place, progress, now);
            return;
        }
        entry.place = admission.prove(place, (service == Service::Metp).then_some(key));
        if let Some(listener) = self.listeners.of(service) {
            listener.resume_if_held();
        }
    }

    fn admit(
        &mut self,
        service: Service,
        stream: TcpStream,
        source: std::net::SocketAddr,
        now: Instant,
    ) {
        let session = match service {
            Service::Socks => AnySession::Socks(socks::Session::new(stream, source, now)),
            Service::Metp => {
                AnySession::Metp(Some(Box::new(metp::Session::new(stream, source, now))))
            }
        };
        let entry = SessionEntry::new(session);
        let Some(key) = self.sessions.insert(entry) else { return };
        let metrics = &mut self.services.shared.metrics;
        *metrics.accepted_mut(service) += 1;
        if service == Service::Socks {
            metrics.step(None, Some(Stage::Hello));
        }
        *metrics.open_mut(service) += 1;
        let place = self.admissions.of(service).enter(key, source.ip().into(), now);
        let registered = match self.sessions.get_mut(key) {
            Some(entry) => {
                entry.place = place;
                entry.register(key, &self.services.selector)
            }
            None => Ok(()),
        };
        match registered {
            Ok(()) => self.arm(key),
            Err(error) => {
                log::warn!("cannot watch a new connection: {error}");
                self.end(key, CloseReason::Evicted, now);
            }
        }
    }
}
