//! Connect: from the addresses of a target to an open connection, or to the reply with the reason of the failure.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::name::{hostname, withdraw};
use super::race::{Attempt, Place, Race};
use super::relay::Relay;
use super::request::{ActiveRequest, refuse};
use super::{Context, Next, State, rules};
use crate::proto::socks5::{Host, ReplyCode};
use crate::reactor::buffer::Buffer;
use crate::reactor::endpoint::{Endpoint, Stream};
use crate::reactor::listener::canonical;
use crate::reactor::readiness::Readiness;
use crate::reactor::token::Side;
use crate::state::protected::{is_itself, is_own_port, may_come_from, permitted};
use crate::state::settings::Timeouts;
use crate::workers::dns_cache::Resolution;
use crate::workers::families::interleave;

/// Addresses of one request that are tried at most. Each family of a name has 32 at most.
const MAX_CANDIDATES: usize = 32;

/// A request whose addresses are being tried.
pub struct Connect<S: Stream> {
    request: Box<ActiveRequest>,
    candidates: VecDeque<SocketAddr>,
    race: Race<S>,
    began: Instant,
    /// Addresses that were tried, or refused by a rule.
    tried: usize,
    /// The most telling failure so far.
    failure: Option<ReplyCode>,
    /// Whether the addresses of the other family may still come.
    more: bool,
}

impl<S: Stream> Connect<S> {
    /// Tries these addresses in their order. `more`: those of the other family may follow.
    pub fn new(
        request: Box<ActiveRequest>,
        candidates: Vec<SocketAddr>,
        more: bool,
        now: Instant,
    ) -> Box<Self> {
        let (candidates, race) = (candidates.into(), Race::new(now));
        Box::new(Connect { request, candidates, race, began: now, tried: 0, failure: None, more })
    }

    /// The other family has come: its addresses take turns with those that are left. One of them is next if an address
    /// of the first family has been tried. Ignored unless it may still come.
    pub fn add(&mut self, later: Resolution) {
        if !self.more {
            return;
        }
        self.more = later.more;
        if let Ok(others) = later.addresses {
            let left = self.candidates.make_contiguous();
            let mut candidates =
                if self.tried > 0 { interleave(&others, left) } else { interleave(left, &others) };
            candidates.truncate(MAX_CANDIDATES.saturating_sub(self.tried));
            self.candidates = candidates.into();
        }
    }

    /// An event has come for an attempt.
    pub fn on_event(&mut self, side: Side, readiness: Readiness) {
        self.race.on_event(side, readiness);
    }

    pub fn request(&self) -> &ActiveRequest {
        &self.request
    }

    pub fn request_mut(&mut self) -> &mut ActiveRequest {
        &mut self.request
    }

    /// Returns the request. The attempts are reset.
    pub fn into_request(mut self, cx: &mut Context<'_, S>) -> Box<ActiveRequest> {
        self.abandon(cx);
        self.request
    }

    /// The deadline of the oldest attempt, or the time when another may start, or the deadline of the look-up while
    /// there is no attempt, or that of all attempts: whichever is first.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        let look_up = timeouts.resolve.filter(|_| self.waits_for_more());
        let look_up = look_up.and_then(|timeout| self.request.began().checked_add(timeout));
        let oldest = self.race.oldest();
        let attempt = oldest.and_then(|began| began.checked_add(timeouts.connect?));
        let next = self.race.due().filter(|_| !self.candidates.is_empty());
        let total = timeouts.connect_total.and_then(|timeout| self.began.checked_add(timeout));
        [look_up, attempt, next, total].into_iter().flatten().min()
    }

    /// Whether all addresses have been tried, and those of the other family may still come.
    fn waits_for_more(&self) -> bool {
        self.more && self.race.is_empty() && self.candidates.is_empty()
    }

    /// Withdraws the question for the other family if it has not been answered.
    fn want_no_more(&mut self, cx: &mut Context<'_, S>) {
        if std::mem::take(&mut self.more) {
            withdraw(&self.request, cx);
        }
    }

    /// Gives up all attempts, and the addresses not yet tried.
    fn abandon(&mut self, cx: &mut Context<'_, S>) {
        self.want_no_more(cx);
        self.candidates.clear();
        while let Some(attempt) = self.race.take() {
            self.give_up(attempt, cx);
        }
    }

    /// A deadline has passed: gives up the attempts that are late, and all if no time is left.
    pub fn expire(mut self: Box<Self>, cx: &mut Context<'_, S>) -> Box<Self> {
        let timeouts = cx.shared.process.settings.timeouts;
        if self.waits_for_more() {
            self.want_no_more(cx);
            return self;
        }
        while let Some(attempt) = self.race.take_late(cx.now, timeouts.connect) {
            self.give_up(attempt, cx);
            self.failed(ReplyCode::TimedOut);
            self.race.hurry(cx.now);
        }
        let age = cx.now.saturating_duration_since(self.began);
        if timeouts.connect_total.is_some_and(|timeout| age >= timeout) {
            self.abandon(cx);
            self.failed(ReplyCode::TimedOut);
        }
        self
    }

    /// Tries the addresses. Payload that the client has sent already goes into the tunnel.
    pub fn step(
        mut self: Box<Self>,
        source: SocketAddr,
        input: &mut Buffer,
        output: &mut Buffer,
        cx: &mut Context<'_, S>,
    ) -> Next<S> {
        loop {
            match self.race.take_done() {
                Some(attempt) if attempt.endpoint.broken() => self.attempt_failed(attempt, cx),
                Some(attempt) => return self.connected(attempt, source, input, output, cx),
                None if self.candidates.is_empty() => {
                    if self.race.is_empty() && !self.more {
                        let code = self.failure.unwrap_or(ReplyCode::HostUnreachable);
                        return refuse(self.request, code, output, cx);
                    }
                    return Next::Wait(State::Connect(self));
                }
                None => {
                    if let Some(attempt) = self.race.take_superseded(cx.now) {
                        self.give_up(attempt, cx);
                        self.failed(ReplyCode::TimedOut);
                    }
                    let Some(place) = self.race.place(cx.reserve, cx.now) else {
                        return Next::Wait(State::Connect(self));
                    };
                    if let Some(candidate) = self.candidates.pop_front() {
                        self.try_candidate(candidate, place, source, cx);
                    }
                }
            }
        }
    }

    /// An attempt has come to nothing, by an error of the network or the target.
    fn attempt_failed(&mut self, attempt: Attempt<S>, cx: &mut Context<'_, S>) {
        let error = attempt.endpoint.stream().failure();
        if let Some(error) = &error {
            log::debug!("cannot connect to {}: {error}", attempt.address);
        }
        self.failed(error.as_ref().map_or(ReplyCode::GeneralFailure, reply_code));
        self.race.hurry(cx.now);
        self.give_up(attempt, cx);
    }

    /// Closes an attempt.
    fn give_up(&mut self, attempt: Attempt<S>, cx: &mut Context<'_, S>) {
        if let Some(near) = attempt.near {
            cx.shared.process.to_own_ports.remove(&near);
        }
        attempt.give_up();
    }

    fn try_candidate(
        &mut self,
        candidate: SocketAddr,
        place: Place,
        source: SocketAddr,
        cx: &mut Context<'_, S>,
    ) {
        self.tried += 1;
        let address = canonical(candidate);
        let (network, settings) = (&mut *cx.network, &cx.shared.process.settings);
        let is_local_delivery = |address| network.is_local_delivery(address);
        if !permitted(source.ip(), address, settings, is_local_delivery) {
            return self.failed(ReplyCode::NotAllowed);
        }
        let decision = rules::decide(&mut self.request, source.ip(), address, cx.shared);
        rules::act_on(&mut self.request, decision, cx.shared);
        if !decision.allow {
            return self.failed(ReplyCode::NotAllowed);
        }
        let attempts = &mut cx.shared.metrics.attempts;
        attempts.started += 1;
        attempts.races += u64::from(self.race.becomes_one());
        match cx.network.dial(address, cx.key, place.side) {
            Ok(stream) => {
                cx.shared.shortages.can_connect(cx.now);
                let is_own = is_own_port(address, settings);
                let near = is_own.then(|| stream.local_address().ok()).flatten().map(canonical);
                if let Some(near) = near {
                    cx.shared.process.to_own_ports.insert(near, cx.key);
                }
                let endpoint = Endpoint::with_lazy_nodelay(stream);
                self.race.start(Attempt { endpoint, address, began: cx.now, near, place });
            }
            Err(error) => {
                log::debug!("cannot connect to {address}: {error}");
                let is_last = self.candidates.is_empty() && self.race.is_empty() && !self.more;
                let ends = (address, *settings.bind_out.of(address.ip()));
                cx.shared.shortages.cannot_connect(ends, is_last, &error, cx.now);
                self.failed(reply_code(&error));
            }
        }
    }

    fn connected(
        mut self: Box<Self>,
        attempt: Attempt<S>,
        source: SocketAddr,
        input: &mut Buffer,
        output: &mut Buffer,
        cx: &mut Context<'_, S>,
    ) -> Next<S> {
        let settings = &cx.shared.process.settings;
        let bound = attempt.endpoint.stream().local_address().map(canonical);
        let unusable = match &bound {
            Err(error) => Some(reply_code(error)),
            Ok(bound) if is_itself(attempt.address, *bound) => Some(ReplyCode::ConnectionRefused),
            Ok(bound) => {
                // The rules may have changed since the attempt began, and another address was judged last.
                let usable = may_come_from(source.ip(), *bound, settings);
                let request = &mut self.request;
                let decision = rules::decide(request, source.ip(), attempt.address, cx.shared);
                if usable {
                    rules::confirm(request, decision, cx.shared);
                }
                (!usable || !decision.allow).then_some(ReplyCode::NotAllowed)
            }
        };
        let bound = match (unusable, bound) {
            (None, Ok(bound)) => bound,
            (code, _) => {
                // It is reset, so that its port is free at once: a connection of a socket to itself would otherwise
                // hold the port of a service in TIME-WAIT.
                self.give_up(attempt, cx);
                self.failed(code.unwrap_or(ReplyCode::GeneralFailure));
                self.race.hurry(cx.now);
                return Next::Go(State::Connect(self));
            }
        };
        let took = cx.now.saturating_duration_since(attempt.began);
        cx.shared.metrics.connects.record(took);
        cx.shared.metrics.attempts.lost += self.race.len() as u64;
        cx.shared.metrics.count_reply(ReplyCode::Succeeded);
        if self.tried > 1
            && let Host::Name(name) = &self.request.target.host
            && let Some(name) = hostname(name)
        {
            cx.dns.prefer_first(name, attempt.address);
        }
        self.abandon(cx);
        self.request.open(cx.key, source, cx.shared);
        output.append(&self.request.dialect.success(bound));
        let timeouts = &cx.shared.process.settings.timeouts;
        let received = std::mem::take(input);
        let target = (attempt.place.side, attempt.endpoint);
        let relay = Relay::new(self.request, target, received, cx.now, timeouts);
        Next::Go(State::Relay(Box::new(relay)))
    }

    /// Keeps a failure unless an earlier one says more about the target. A refusal proves that the machine is
    /// there; a timeout, that packets leave; an unreachable host comes from a router near it, an unreachable
    /// network perhaps from this machine; a rule of this server says nothing about the target.
    fn failed(&mut self, code: ReplyCode) {
        let rank = |code| match code {
            ReplyCode::ConnectionRefused => 5,
            ReplyCode::TimedOut => 4,
            ReplyCode::HostUnreachable => 3,
            ReplyCode::NetworkUnreachable => 2,
            ReplyCode::NotAllowed => 1,
            _ => 0,
        };
        if self.failure.is_none_or(|known| rank(known) < rank(code)) {
            self.failure = Some(code);
        }
    }
}

/// The reply code of an error of connect(2) (RFC 1928 §6).
pub fn reply_code(error: &io::Error) -> ReplyCode {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => ReplyCode::ConnectionRefused,
        // EAFNOSUPPORT: the machine has no IPv6 at all. EINVAL: a link-local address without its zone.
        Some(libc::ENETUNREACH | libc::ENETDOWN | libc::EAFNOSUPPORT | libc::EINVAL) => {
            ReplyCode::NetworkUnreachable
        }
        Some(libc::EHOSTUNREACH | libc::EHOSTDOWN) => ReplyCode::HostUnreachable,
        Some(libc::ETIMEDOUT) => ReplyCode::TimedOut,
        Some(libc::EACCES | libc::EPERM) => ReplyCode::NotAllowed,
        _ => ReplyCode::GeneralFailure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_reply_codes() {
        let code = |errno| reply_code(&io::Error::from_raw_os_error(errno)) as u8;
        assert_eq!(code(libc::ECONNREFUSED), 5);
        assert_eq!(code(libc::ENETUNREACH), 3);
        assert_eq!(code(libc::EHOSTUNREACH), 4);
        assert_eq!(code(libc::ETIMEDOUT), 6);
        assert_eq!((code(libc::EAFNOSUPPORT), code(libc::EINVAL)), (3, 3));
        assert_eq!((code(libc::EMFILE), code(libc::EADDRNOTAVAIL)), (1, 1));
    }
}
