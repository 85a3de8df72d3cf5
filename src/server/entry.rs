//! The slab entry of a session: the session itself and what the loop has to know about it.

use std::cell::Cell;
use std::io;
use std::time::Instant;

use mio::net::TcpStream;

use super::admission::Evictable;
use super::unproven::{Place, Progress};
use crate::reactor::readiness::Readiness;
use crate::reactor::selector::Selector;
use crate::reactor::slab::Key;
use crate::reactor::token::{Service, Side, Source};
use crate::reactor::wheel::Tick;
use crate::state::metrics::Stage;
use crate::state::settings::Timeouts;
use crate::state::users::{UserId, Users};
use crate::{metp, socks};

/// A session and its flags for scheduling and admission.
pub(super) struct SessionEntry {
    pub(super) session: AnySession,
    /// Whether it waits for a turn.
    pub(super) queued: bool,
    /// Whether it is going to be closed on somebody's order.
    pub(super) close_pending: Cell<bool>,
    /// Where admission counts it: with the address that it had when it was let in, whatever its source is later.
    pub(super) place: Option<Place>,
    /// The earliest alarm that the wheel has promised; later ones are void.
    pub(super) armed: Option<Tick>,
}

/// SOCKS sessions by value, since there are thousands of them; the few of METP behind a pointer, so that
/// they do not make the others larger. A METP session is not in its place while it has its turn.
pub(super) enum AnySession {
    Socks(socks::Session<TcpStream>),
    Metp(Option<Box<metp::Session<TcpStream>>>),
}

impl SessionEntry {
    pub(super) fn new(session: AnySession) -> Self {
        SessionEntry {
            session,
            queued: false,
            close_pending: Cell::new(false),
            place: None,
            armed: None,
        }
    }

    /// Whether it has made a complete request, or logged in with METP.
    pub(super) fn is_proven(&self) -> bool {
        self.place.is_none_or(Place::is_proven)
    }

    /// Why it may be evicted although it has proved itself: a METP session of somebody who is no administrator,
    /// and one that only waits for its client to leave. Nobody must be able to lock administrators out.
    pub(super) fn evictable(&self, users: &Users) -> Option<Evictable> {
        match &self.session {
            AnySession::Metp(Some(session)) if session.is_leaving() => Some(Evictable::Done),
            AnySession::Metp(Some(session)) => {
                session.evictable_user(users).map(Evictable::OfAccount)
            }
            AnySession::Metp(None) | AnySession::Socks(_) => None,
        }
    }

    pub(super) fn on_event(&mut self, side: Side, readiness: Readiness) {
        match &mut self.session {
            AnySession::Socks(session) => session.on_event(side, readiness),
            AnySession::Metp(Some(session)) if side == Side::Client => session.on_event(readiness),
            AnySession::Metp(_) => {}
        }
    }

    pub(super) fn register(&mut self, key: Key, selector: &Selector) -> io::Result<()> {
        let stream = match &mut self.session {
            AnySession::Socks(session) => session.stream(),
            AnySession::Metp(Some(session)) => session.stream(),
            AnySession::Metp(None) => return Ok(()),
        };
        selector.register(stream, Source::Session(key, Side::Client))
    }
}

impl AnySession {
    pub(super) fn service(&self) -> Service {
        match self {
            AnySession::Socks(_) => Service::Socks,
            AnySession::Metp(_) => Service::Metp,
        }
    }

    /// Whether it wants to be told of events.
    pub(super) fn subscribes(&self) -> bool {
        matches!(self, AnySession::Metp(Some(session)) if session.subscribes())
    }

    pub(super) fn is_bulk(&self) -> bool {
        match self {
            AnySession::Socks(session) => session.is_bulk(),
            AnySession::Metp(_) => false,
        }
    }

    pub(super) fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        match self {
            AnySession::Socks(session) => session.deadline(timeouts),
            AnySession::Metp(session) => session.as_ref()?.deadline(timeouts),
        }
    }

    /// How far it has come. `None`: it has made a complete request, or logged in with METP.
    pub(super) fn progress(&self) -> Option<Progress> {
        match self {
            AnySession::Socks(session) if session.has_request() => None,
            AnySession::Socks(session) => Some(match session.stage() {
                Stage::Hello => Progress::Nothing,
                Stage::Auth => Progress::Greeted,
                Stage::Request | Stage::Resolve | Stage::Connect | Stage::Relay => {
                    Progress::LoggedIn
                }
                Stage::Linger => Progress::Refused,
            }),
            AnySession::Metp(Some(session)) if session.logged_in() => None,
            AnySession::Metp(Some(session)) if session.is_leaving() => Some(Progress::Refused),
            AnySession::Metp(Some(session)) if session.has_greeted() => Some(Progress::Greeted),
            AnySession::Metp(_) => Some(Progress::Nothing),
        }
    }

    /// The account of a SOCKS session. METP sessions are told at their next command.
    pub(super) fn socks_user(&self) -> Option<UserId> {
        match self {
            AnySession::Socks(session) => session.user(),
            AnySession::Metp(_) => None,
        }
    }
}
