//! The services as a table: what is fixed for each of them is a [`Row`], what the loop keeps for it a [`ServiceState`].
//! Counts of its sessions are in [`Metrics`], where METP reads them.
//!
//! A further service takes
//! - a variant of [`Service`] and a field of [`PerService`], in `state/service.rs`;
//! - a row here, and its address in `Config::addresses`;
//! - a variant of [`AnySession`] with an implementation of `ServedSession`, in `entry.rs`, an arm in
//!   `Server::give_turn`, and one in `Server::end` if something is to be done when a session ends.
//!
//! Accepting, admission, limits, descriptors, run queues, counts and shutdown follow from the row.

use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;

use super::admission::AdmissionControl;
use super::entry::AnySession;
use crate::reactor::listener::Listener;
use crate::reactor::liveness::Liveness;
use crate::reactor::token::ListenerId;
use crate::state::metrics::{Metrics, Stage};
use crate::state::service::{PerService, Service};
use crate::state::settings::{HTTP_SESSIONS, Settings, Timeouts};
use crate::{http, metp, socks};

/// METP sessions that have not logged in, at most.
const METP_UNPROVEN: usize = 64;

/// Sessions of HTTP that have not made a request, at most.
const HTTP_UNPROVEN: usize = 24;

/// Bytes of SO_SNDBUF for HTTP; the kernel doubles them.
const HTTP_SEND_BUFFER: usize = 64 * 1024;

/// Descriptors that other services leave to METP, so that an administrator can always get in.
const METP_RESERVED: usize = 4;

/// What a tunnel takes: one descriptor for its client, and one for its target.
const SOCKS_DESCRIPTORS: usize = 2;

/// What is fixed for a service.
pub(super) struct Row {
    /// The name of its protocol.
    pub(super) name: &'static str,
    /// Descriptors that a session is promised when it is admitted.
    pub(super) descriptors: usize,
    /// Descriptors that other services leave to this one, those of its open sessions included.
    pub(super) reserved: usize,
    /// What the settings allow, with this number of descriptors for the process.
    pub(super) limits: fn(&Settings, usize) -> Limits,
    /// How its listener's connections find out that their peers are gone.
    pub(super) liveness: fn(&Timeouts) -> Liveness,
    /// Bytes that the kernel may keep for a connection until its client takes them, where that is limited.
    pub(super) send_buffer: Option<usize>,
    /// Makes a session of a connection, and counts it by stage where the service has stages.
    pub(super) open: fn(TcpStream, SocketAddr, Instant, &mut Metrics) -> AnySession,
    /// Which turns its sessions take.
    pub(super) class: Class,
    /// Whether a session that has proved itself may become evictable all the same.
    pub(super) evicts_proven: bool,
    /// Whether shutdown waits for its sessions. The others administer: they are served until then, and notified.
    pub(super) drains: bool,
}

/// What is allowed of a service.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Sessions at once.
    pub(super) sessions: usize,
    /// Of these, sessions that have not proved themselves.
    pub(super) unproven: usize,
    /// Sessions from one address at once.
    pub(super) per_source: Option<usize>,
}

/// The class of a service's sessions in the run queues.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// They carry traffic of clients, in bulk at times.
    Traffic,
    /// Once they have proved themselves they give commands, which never hold up traffic.
    Commands,
}

pub(super) const SOCKS: Row = Row {
    name: "SOCKS",
    descriptors: SOCKS_DESCRIPTORS,
    reserved: 0,
    limits: |settings, _| Limits {
        sessions: settings.max_connections,
        unproven: (settings.max_connections / 2).max(1),
        per_source: settings.max_connections_per_ip,
    },
    liveness: Timeouts::liveness,
    send_buffer: None,
    open: |stream, source, now, metrics| {
        metrics.step(None, Some(Stage::Hello));
        AnySession::Socks(socks::Session::new(stream, source, now))
    },
    class: Class::Traffic,
    evicts_proven: false,
    drains: true,
};

pub(super) const METP: Row = Row {
    name: "METP",
    descriptors: 1,
    reserved: METP_RESERVED,
    limits: |settings, descriptors| Limits {
        sessions: settings.max_metp_sessions,
        // Clients without a login take neither all descriptors, where these are few, nor all places.
        unproven: METP_UNPROVEN.min(descriptors / 16).min(settings.max_metp_sessions / 2).max(1),
        per_source: None,
    },
    liveness: Timeouts::metp_liveness,
    send_buffer: None,
    open: |stream, source, now, _| {
        AnySession::Metp(Some(Box::new(metp::Session::new(stream, source, now))))
    },
    class: Class::Commands,
    evicts_proven: true,
    drains: false,
};

pub(super) const HTTP: Row = Row {
    name: "HTTP",
    descriptors: 1,
    reserved: 0,
    limits: |_, _| Limits { sessions: HTTP_SESSIONS, unproven: HTTP_UNPROVEN, per_source: None },
    liveness: Timeouts::metp_liveness,
    send_buffer: Some(HTTP_SEND_BUFFER),
    open: |stream, source, now, _| {
        AnySession::Http(Some(Box::new(http::Session::new(stream, source, now))))
    },
    class: Class::Commands,
    evicts_proven: true,
    drains: false,
};

const ROWS: &PerService<Row> = &PerService { socks: SOCKS, metp: METP, http: HTTP };

/// The order in which connections are accepted: administrators first.
pub(super) const ACCEPT_ORDER: [Service; 3] = [Service::Metp, Service::Http, Service::Socks];

/// What is fixed for a service.
pub(super) fn row(service: Service) -> &'static Row {
    ROWS.of(service)
}

/// What the loop keeps for a service.
pub(super) struct ServiceState {
    /// It is there while connections are accepted.
    pub(super) listener: Option<Listener>,
    pub(super) admission: AdmissionControl,
}

impl ServiceState {
    /// `None`: there is no such service here.
    pub(super) fn new(listener: Option<Listener>) -> Self {
        ServiceState { listener, admission: AdmissionControl::default() }
    }
}

/// The number of a service's listener in its token.
pub(super) fn listener_id(service: Service) -> ListenerId {
    ListenerId(service as u16)
}

/// The service of a listener.
pub(super) fn of_listener(ListenerId(number): ListenerId) -> Option<Service> {
    Service::ALL.get(usize::from(number)).copied()
}

/// The services that shutdown waits for.
pub(super) fn drained() -> impl Iterator<Item = Service> {
    Service::ALL.into_iter().filter(|service| row(*service).drains)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_found_by_their_numbers() {
        for service in Service::ALL {
            assert_eq!(of_listener(listener_id(service)), Some(service));
        }
        assert_eq!(of_listener(ListenerId(u16::MAX)), None);
    }

    #[test]
    fn every_service_is_accepted_once() {
        for service in Service::ALL {
            let times = ACCEPT_ORDER.iter().filter(|other| **other == service).count();
            assert_eq!(times, 1, "{service}");
        }
    }
}
