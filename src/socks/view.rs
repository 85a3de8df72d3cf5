//! What the loop and administrators see of a session, without changing it.

use std::time::Instant;

use super::request::ActiveRequest;
use super::{Session, State};
use crate::proto::socks5::Target;
use crate::reactor::Load;
use crate::reactor::endpoint::Stream;
use crate::reactor::slab::Key;
use crate::state::connection::{Connection, id_of};
use crate::state::metrics::Stage;
use crate::state::settings::Timeouts;
use crate::state::users::{UserId, Users};

impl<S: Stream> Session<S> {
    /// Whether the client has logged in and made a complete request.
    pub fn has_request(&self) -> bool {
        self.state.request().is_some()
    }

    /// The kind of work that it makes at the moment.
    pub fn load(&self) -> Load {
        match &self.state {
            State::Relay(relay) if relay.streaming() => Load::Bulk,
            State::Associate(_) => Load::Datagrams,
            _ => Load::Talk,
        }
    }

    /// The account, once there is one.
    pub fn user(&self) -> Option<UserId> {
        match &self.state {
            State::Hello | State::Auth | State::Verify(_) => None,
            State::Request(guard) => Some(guard.user),
            state => state.request().map(|request| request.guard.user),
        }
    }

    /// When the session is to have a turn because of a deadline; `None`: never.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        let (since, timeout) = match &self.state {
            State::Hello | State::Auth | State::Verify(_) | State::Request(_) => {
                (self.began, timeouts.handshake)
            }
            State::Resolve(resolve) => (resolve.began(), timeouts.resolve),
            State::Reverse(reverse) => (reverse.began(), timeouts.resolve),
            State::Connect(connect) => return connect.deadline(timeouts),
            State::Bind(bind) => return bind.deadline(timeouts),
            State::Relay(relay) => return relay.deadline(timeouts),
            State::Associate(association) => return association.deadline(timeouts),
            State::Linger(linger, ..) => (linger.began(), timeouts.linger),
            State::Ended(..) => return None,
        };
        since.checked_add(timeout?)
    }

    /// The connection as administrators see it.
    pub fn describe(&self, key: Key, now: Instant, users: &Users) -> Connection {
        let request = self.state.request();
        let since = |earlier| now.saturating_duration_since(earlier);
        let (last, peer, waiting) = match &self.state {
            State::Relay(relay) => (relay.last_byte(), relay.peer(), relay.waiting()),
            State::Associate(association) => (association.last(), association.peer(), 0),
            _ => (self.began, None, 0),
        };
        let datagrams = match &self.state {
            State::Associate(association) => Some(association.datagrams()),
            _ => None,
        };
        let account = self.user().and_then(|user| users.get(user));
        Connection {
            id: id_of(key),
            user: request
                .map(ActiveRequest::name)
                .or(account.map(|account| &account.name))
                .map(|name| Box::from(&**name)),
            source: self.source,
            target: request.map(|request| Target::clone(&request.target)),
            peer,
            stage: self.stage(),
            age: since(self.began),
            idle: since(last),
            up: request.map_or(0, |request| request.traffic.up),
            down: request.map_or(0, |request| request.traffic.down),
            buffered: waiting + self.input.bytes().len() + self.output.bytes().len(),
            datagrams,
            rule: request.and_then(|request| request.rule),
        }
    }

    /// The stage that metrics and METP show.
    pub fn stage(&self) -> Stage {
        match self.state {
            State::Hello => Stage::Hello,
            State::Auth | State::Verify(_) => Stage::Auth,
            State::Request(_) => Stage::Request,
            State::Resolve(_) | State::Reverse(_) => Stage::Resolve,
            State::Connect(_) => Stage::Connect,
            State::Bind(_) => Stage::Bind,
            State::Relay(_) => Stage::Relay,
            State::Associate(_) => Stage::Associate,
            State::Linger(..) | State::Ended(..) => Stage::Linger,
        }
    }
}
