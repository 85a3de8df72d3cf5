//! The slab entry of a session: the session itself and what the loop has to know about it.

use std::cell::Cell;
use std::io;
use std::time::Instant;

use mio::net::TcpStream;

use super::admission::Evictable;
use super::unproven::{Place, Progress};
use crate::reactor::Load;
use crate::reactor::readiness::Readiness;
use crate::reactor::selector::Selector;
use crate::reactor::slab::Key;
use crate::reactor::token::{Side, Source};
use crate::reactor::wheel::Tick;
use crate::state::changes::ChangeNumber;
use crate::state::control::ControlAnswer;
use crate::state::metrics::Stage;
use crate::state::service::Service;
use crate::state::settings::Timeouts;
use crate::state::users::{UserId, Users};
use crate::state::verifier::Verdict;
use crate::workers::dns_cache::{Resolution, ResolveError};
use crate::{http, metp, socks};
use metp_protocol::Notice;

/// A session and its flags for scheduling and admission.
pub(super) struct SessionEntry {
    pub(super) session: AnySession,
    /// Whether it waits for a turn.
    pub(super) queued: bool,
    /// Whether it is queued in `pending_closes`. A `Cell`, since METP sessions see the slab without mutable access.
    pub(super) close_pending: Cell<bool>,
    /// Where admission counts it: with the address that it had when it was admitted, whatever its source is later.
    pub(super) place: Option<Place>,
    /// The tick of the earliest armed alarm; alarms of other ticks are void.
    pub(super) armed: Option<Tick>,
}

/// SOCKS sessions by value, since there are thousands of them; the few of METP and HTTP behind a pointer, so that
/// they do not make the others larger. `Metp(None)`, `Http(None)`: the session has its turn.
pub(super) enum AnySession {
    Socks(socks::Session<TcpStream>),
    Metp(Option<Box<metp::Session<TcpStream>>>),
    Http(Option<Box<http::Session<TcpStream>>>),
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

    pub(super) fn evictable(&self, users: &Users, now: Instant) -> Option<Evictable> {
        self.session.served()?.evictable(users, now)
    }

    pub(super) fn on_event(&mut self, side: Side, readiness: Readiness) {
        if let Some(session) = self.session.served_mut() {
            session.on_event(side, readiness);
        }
    }

    /// Addresses of a name have come.
    pub(super) fn resolved(&mut self, reply: Resolution, now: Instant) {
        if let AnySession::Socks(session) = &mut self.session {
            session.resolved(reply, now);
        }
    }

    /// The name of an address has come, or the reason why there is none.
    pub(super) fn named(&mut self, name: Result<Box<str>, ResolveError>) {
        if let AnySession::Socks(session) = &mut self.session {
            session.named(name);
        }
    }

    /// The verdict on its login has come.
    pub(super) fn verified(&mut self, verdict: Verdict) {
        match &mut self.session {
            AnySession::Socks(session) => session.verified(verdict),
            AnySession::Metp(Some(session)) => session.verified(verdict),
            AnySession::Http(Some(session)) => session.verified(verdict),
            AnySession::Metp(None) | AnySession::Http(None) => {}
        }
    }

    /// A change of an account that it has made is on the disk, or has been undone.
    pub(super) fn settled(&mut self, number: ChangeNumber, outcome: Result<(), String>) {
        if let AnySession::Metp(Some(session)) = &mut self.session {
            session.settled(number, outcome);
        }
    }

    /// The answer to its request has come.
    pub(super) fn answered(&mut self, answer: ControlAnswer) {
        if let AnySession::Metp(Some(session)) = &mut self.session {
            session.answered(answer);
        }
    }

    pub(super) fn register(&mut self, key: Key, selector: &Selector) -> io::Result<()> {
        let Some(session) = self.session.served_mut() else { return Ok(()) };
        selector.register(session.stream(), Source::Session(key, Side::Client))
    }
}

/// What the loop needs of a session, whatever its protocol is.
pub(super) trait ServedSession {
    /// An event has come for the descriptor on `side`.
    fn on_event(&mut self, side: Side, readiness: Readiness);

    /// The client's socket, for registering it.
    fn stream(&mut self) -> &mut TcpStream;

    /// When it is to have a turn because of its deadline.
    fn deadline(&self, timeouts: &Timeouts) -> Option<Instant>;

    /// How far it has come. `None`: it has proved itself, by a complete request or, with METP, a login.
    fn progress(&self) -> Option<Progress>;

    /// Why it may be evicted although it has proved itself. Administrators must not be locked out.
    fn evictable(&self, _users: &Users, _now: Instant) -> Option<Evictable> {
        None
    }

    /// The kind of work that it makes at the moment.
    fn load(&self) -> Load {
        Load::Talk
    }

    /// Whether it has subscribed to events.
    fn subscribes(&self) -> bool {
        false
    }

    /// The account whose deletion closes it.
    fn user(&self) -> Option<UserId> {
        None
    }
}

impl ServedSession for socks::Session<TcpStream> {
    fn on_event(&mut self, side: Side, readiness: Readiness) {
        self.on_event(side, readiness);
    }

    fn stream(&mut self) -> &mut TcpStream {
        self.stream()
    }

    fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        self.deadline(timeouts)
    }

    fn progress(&self) -> Option<Progress> {
        if self.has_request() {
            return None;
        }
        Some(match self.stage() {
            Stage::Hello => Progress::Nothing,
            Stage::Auth => Progress::Greeted,
            Stage::Request
            | Stage::Resolve
            | Stage::Connect
            | Stage::Relay
            | Stage::Associate
            | Stage::Bind => Progress::LoggedIn,
            Stage::Linger => Progress::Refused,
        })
    }

    fn load(&self) -> Load {
        self.load()
    }

    fn user(&self) -> Option<UserId> {
        self.user()
    }
}

/// A session of an account that has been deleted finds out at its next command, so it has no [`ServedSession::user`].
impl ServedSession for metp::Session<TcpStream> {
    fn on_event(&mut self, _: Side, readiness: Readiness) {
        self.on_event(readiness);
    }

    fn stream(&mut self) -> &mut TcpStream {
        self.stream()
    }

    fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        self.deadline(timeouts)
    }

    fn progress(&self) -> Option<Progress> {
        match () {
            () if self.logged_in() => None,
            () if self.is_leaving() => Some(Progress::Refused),
            () if self.has_greeted() => Some(Progress::Greeted),
            () => Some(Progress::Nothing),
        }
    }

    /// It lingers, or its account is not an administrator's.
    fn evictable(&self, users: &Users, _: Instant) -> Option<Evictable> {
        if self.is_leaving() {
            return Some(Evictable::Done);
        }
        self.evictable_user(users).map(Evictable::OfAccount)
    }

    fn subscribes(&self) -> bool {
        self.subscribes()
    }
}

impl ServedSession for http::Session<TcpStream> {
    fn on_event(&mut self, _: Side, readiness: Readiness) {
        self.on_event(readiness);
    }

    fn stream(&mut self) -> &mut TcpStream {
        self.stream()
    }

    fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        self.deadline(timeouts)
    }

    fn progress(&self) -> Option<Progress> {
        match () {
            () if self.is_served() => None,
            () if self.is_leaving() => Some(Progress::Refused),
            () => Some(Progress::Nothing),
        }
    }

    /// It lingers, or its client takes nothing.
    fn evictable(&self, _: &Users, now: Instant) -> Option<Evictable> {
        (self.is_leaving() || self.is_stalled(now)).then_some(Evictable::Done)
    }
}

impl AnySession {
    pub(super) fn service(&self) -> Service {
        match self {
            AnySession::Socks(_) => Service::Socks,
            AnySession::Metp(_) => Service::Metp,
            AnySession::Http(_) => Service::Http,
        }
    }

    /// The session, unless it has its turn outside.
    fn served(&self) -> Option<&dyn ServedSession> {
        match self {
            AnySession::Socks(session) => Some(session),
            AnySession::Metp(session) => {
                session.as_deref().map(|session| session as &dyn ServedSession)
            }
            AnySession::Http(session) => {
                session.as_deref().map(|session| session as &dyn ServedSession)
            }
        }
    }

    fn served_mut(&mut self) -> Option<&mut dyn ServedSession> {
        match self {
            AnySession::Socks(session) => Some(session),
            AnySession::Metp(session) => {
                session.as_deref_mut().map(|session| session as &mut dyn ServedSession)
            }
            AnySession::Http(session) => {
                session.as_deref_mut().map(|session| session as &mut dyn ServedSession)
            }
        }
    }

    pub(super) fn as_socks(&self) -> Option<&socks::Session<TcpStream>> {
        match self {
            AnySession::Socks(session) => Some(session),
            AnySession::Metp(_) | AnySession::Http(_) => None,
        }
    }

    pub(super) fn as_socks_mut(&mut self) -> Option<&mut socks::Session<TcpStream>> {
        match self {
            AnySession::Socks(session) => Some(session),
            AnySession::Metp(_) | AnySession::Http(_) => None,
        }
    }

    pub(super) fn subscribes(&self) -> bool {
        self.served().is_some_and(ServedSession::subscribes)
    }

    pub(super) fn load(&self) -> Load {
        self.served().map_or(Load::Talk, ServedSession::load)
    }

    pub(super) fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        self.served()?.deadline(timeouts)
    }

    pub(super) fn progress(&self) -> Option<Progress> {
        self.served().map_or(Some(Progress::Nothing), ServedSession::progress)
    }

    pub(super) fn user(&self) -> Option<UserId> {
        self.served()?.user()
    }

    /// The server ends: METP sessions send a notice and close.
    pub(super) fn notify_shutdown(&mut self) {
        if let AnySession::Metp(Some(session)) = self {
            session.close_with(Notice::Shutdown);
        }
    }
}
