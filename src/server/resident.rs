//! A session and its place in the house.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::time::Instant;

use mio::event::Event;
use mio::net::TcpStream;

use super::gate::Standing;
use crate::ledger::settings::Timeouts;
use crate::ledger::users::{UserId, Users};
use crate::reactor::selector::{Selector, Service, Side, Source};
use crate::reactor::slab::Key;
use crate::reactor::wheel::Tick;
use crate::{metp, socks};

/// A session and its place in the house.
pub(super) struct Resident {
    pub(super) conversation: Conversation,
    /// Whether it waits for a turn.
    pub(super) queued: bool,
    /// Whether it is going to be closed on somebody's order.
    pub(super) doomed: Cell<bool>,
    /// What it has shown of itself so far.
    pub(super) standing: Standing,
    /// The earliest alarm that the wheel has promised; later ones are void.
    pub(super) armed: Option<Tick>,
}

/// SOCKS sessions by value, since there are thousands of them; the few of METP behind a pointer, so that
/// they do not make the others larger. A METP session is not in its place while it has its turn.
pub(super) enum Conversation {
    Socks(socks::Session<TcpStream>),
    Metp(Option<Box<metp::Session<TcpStream>>>),
}

impl Resident {
    pub(super) fn new(conversation: Conversation) -> Self {
        Resident {
            conversation,
            queued: false,
            doomed: Cell::new(false),
            standing: Standing::New,
            armed: None,
        }
    }

    /// What it has shown of itself. A METP session of somebody who is no administrator is a guest's, and so is
    /// one that only waits for its client to leave: nobody must be able to lock administrators out.
    pub(super) fn standing(&self, users: &Users) -> Standing {
        match &self.conversation {
            Conversation::Metp(Some(session)) if self.proven() && session.is_guests(users) => {
                Standing::Guest
            }
            Conversation::Metp(_) if self.proven() => Standing::Host,
            _ => self.standing,
        }
    }

    /// Whether it has proved itself.
    pub(super) fn proven(&self) -> bool {
        self.standing == Standing::Settled
    }

    /// It has had a turn. Says whether it has proved itself in it.
    pub(super) fn has_had_a_turn(&mut self) -> bool {
        let before = self.standing;
        if before != Standing::Settled {
            self.standing = self.conversation.standing();
        }
        before != self.standing && self.proven()
    }

    pub(super) fn note(&mut self, side: Side, event: &Event) {
        match &mut self.conversation {
            Conversation::Socks(session) => session.note(side, event),
            Conversation::Metp(Some(session)) => session.note(event),
            Conversation::Metp(None) => {}
        }
    }

    pub(super) fn register(&mut self, key: Key, selector: &Selector) -> io::Result<()> {
        let stream = match &mut self.conversation {
            Conversation::Socks(session) => session.stream(),
            Conversation::Metp(Some(session)) => session.stream(),
            Conversation::Metp(None) => return Ok(()),
        };
        selector.register(stream, Source::Session(key, Side::Client))
    }
}

impl Conversation {
    pub(super) fn service(&self) -> Service {
        match self {
            Conversation::Socks(_) => Service::Socks,
            Conversation::Metp(_) => Service::Metp,
        }
    }

    /// Where its client is.
    pub(super) fn source(&self) -> Option<IpAddr> {
        match self {
            Conversation::Socks(session) => Some(session.source().ip()),
            Conversation::Metp(session) => session.as_ref().map(|session| session.source().ip()),
        }
    }

    /// Whether it wants to be told of events.
    pub(super) fn subscribes(&self) -> bool {
        matches!(self, Conversation::Metp(Some(session)) if session.subscribes())
    }

    pub(super) fn is_bulk(&self) -> bool {
        match self {
            Conversation::Socks(session) => session.is_bulk(),
            Conversation::Metp(_) => false,
        }
    }

    pub(super) fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        match self {
            Conversation::Socks(session) => session.deadline(timeouts),
            Conversation::Metp(session) => session.as_ref()?.deadline(timeouts),
        }
    }

    /// What the client has shown: nothing, something, or a complete request or login, which settles it.
    fn standing(&self) -> Standing {
        let (settled, silent) = match self {
            Conversation::Socks(session) => (session.has_request(), session.is_silent()),
            Conversation::Metp(Some(session)) => (session.logged_in(), session.is_silent()),
            Conversation::Metp(None) => (false, false),
        };
        match (settled, silent) {
            (true, _) => Standing::Settled,
            (false, true) => Standing::Silent,
            (false, false) => Standing::Speaking,
        }
    }

    /// The account of a SOCKS session. METP sessions are told at their next command.
    pub(super) fn socks_user(&self) -> Option<UserId> {
        match self {
            Conversation::Socks(session) => session.user(),
            Conversation::Metp(_) => None,
        }
    }
}
