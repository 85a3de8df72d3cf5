//! Resolve and Connect: from a target to an open connection, or to the reply with the reason of the failure.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;
use std::vec;

use super::relay::Relay;
use super::request::{ActiveRequest, refuse};
use super::rules::{is_itself, is_own_port, may_come_from, permitted};
use super::{Context, Next, State};
use crate::proto::socks5::{Host, Reply, ReplyCode};
use crate::reactor::buffer::Buffer;
use crate::reactor::endpoint::{Endpoint, Stream};
use crate::reactor::listener::canonical;
use crate::reactor::readiness::Readiness;
use crate::reactor::token::Side;
use crate::state::settings::Timeouts;
use crate::workers::dns_cache::{Resolution, ResolveError};
use crate::workers::families::interleave;
use metp_protocol::text::ip_literal;

/// A request whose name is being looked up.
pub struct Resolve {
    request: Box<ActiveRequest>,
    answer: Option<Resolution>,
}

/// A request whose addresses are being tried, in order, one after the other.
pub struct Connect<S: Stream> {
    request: Box<ActiveRequest>,
    candidates: vec::IntoIter<SocketAddr>,
    attempt: Option<Endpoint<S>>,
    /// The address of the attempt; the unspecified address before the first.
    candidate: SocketAddr,
    attempt_began: Instant,
    began: Instant,
    /// The most telling failure so far.
    failure: Option<ReplyCode>,
    /// Whether the addresses of the other family may still come.
    more: bool,
}

/// Starts a CONNECT: connects to an address at once, looks a name up first.
pub fn begin<S: Stream>(
    request: Box<ActiveRequest>,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    let port = request.target.port;
    let name = match &request.target.host {
        Host::Ip(address) => Ok(*address),
        Host::Name(name) => match hostname(name) {
            Some(name) => ip_literal(name).ok_or(name),
            None => return refuse(request, ReplyCode::HostUnreachable, output, cx),
        },
    };
    match name {
        Ok(address) => {
            let candidates = vec![SocketAddr::new(address, port)];
            Next::Go(State::Connect(Connect::new(request, candidates, false, cx.now)))
        }
        Err(name) => {
            let answer = cx.dns.ask(cx.key, name, port, cx.now);
            Next::Go(State::Resolve(Resolve { request, answer }))
        }
    }
}

/// A name that may be looked up. Names are bytes from the wire: an empty one, a `*`, and those with
/// blanks, control characters or broken UTF-8 exist nowhere.
pub fn hostname(name: &[u8]) -> Option<&str> {
    let bad = name.is_empty() || name == b"*" || name.iter().any(|b| *b <= 0x20 || *b == 0x7f);
    if bad { None } else { std::str::from_utf8(name).ok() }
}

/// The session waits for the name of this request no longer.
fn withdraw<S: Stream>(request: &ActiveRequest, cx: &mut Context<'_, S>) {
    if let Host::Name(name) = &request.target.host
        && let Some(name) = hostname(name)
    {
        cx.dns.cancel(cx.key, name);
    }
}

impl Resolve {
    /// When the request was complete.
    pub fn began(&self) -> Instant {
        self.request.began()
    }

    /// The addresses have come, or the reason why there are none. The other family may come before the next turn.
    pub fn answer(&mut self, later: Resolution) {
        match &mut self.answer {
            Some(answer) => {
                answer.more = later.more;
                if let (Ok(addresses), Ok(others)) = (&mut answer.addresses, later.addresses) {
                    *addresses = interleave(addresses, &others);
                }
            }
            None => self.answer = Some(later),
        }
    }

    pub fn request(&self) -> &ActiveRequest {
        &self.request
    }

    /// Withdraws the question and returns the request.
    pub fn into_request<S: Stream>(self, cx: &mut Context<'_, S>) -> Box<ActiveRequest> {
        withdraw(&self.request, cx);
        self.request
    }

    pub fn step<S: Stream>(mut self, output: &mut Buffer, cx: &mut Context<'_, S>) -> Next<S> {
        let Some(Resolution { addresses, more, .. }) = self.answer.take() else {
            return Next::Wait(State::Resolve(self));
        };
        match addresses {
            Ok(candidates) => {
                let connect = Connect::new(self.request, candidates, more, cx.now);
                Next::Go(State::Connect(connect))
            }
            Err(error) => {
                let code = match error {
                    ResolveError::NotFound => ReplyCode::HostUnreachable,
                    ResolveError::Failed => ReplyCode::GeneralFailure,
                };
                refuse(self.request, code, output, cx)
            }
        }
    }

    /// The name was not found in time.
    pub fn expire<S: Stream>(self, output: &mut Buffer, cx: &mut Context<'_, S>) -> Next<S> {
        refuse(self.into_request(cx), ReplyCode::HostUnreachable, output, cx)
    }
}

impl<S: Stream> Connect<S> {
    fn new(
        request: Box<ActiveRequest>,
        candidates: Vec<SocketAddr>,
        more: bool,
        now: Instant,
    ) -> Box<Self> {
        let candidates = candidates.into_iter();
        Box::new(Connect {
            request,
            candidates,
            attempt: None,
            candidate: SocketAddr::from(([0, 0, 0, 0], 0)),
            attempt_began: now,
            began: now,
            failure: None,
            more,
        })
    }

    /// The other family has come: its addresses take turns with those that are left. One of them is next if an address
    /// of the first family has been tried. Ignored unless it may still come.
    pub fn add(&mut self, later: Resolution) {
        if !self.more {
            return;
        }
        self.more = later.more;
        if let Ok(others) = later.addresses {
            let tried = self.attempt.is_some() || self.failure.is_some();
            let left = self.candidates.as_slice();
            let candidates =
                if tried { interleave(&others, left) } else { interleave(left, &others) };
            self.candidates = candidates.into_iter();
        }
    }

    /// An event has come for the connection that is being made.
    pub fn on_event(&mut self, readiness: Readiness) {
        if let Some(attempt) = &mut self.attempt {
            attempt.on_event(readiness);
        }
    }

    pub fn request(&self) -> &ActiveRequest {
        &self.request
    }

    /// Returns the request. The attempt is reset: it may have succeeded meanwhile, and must not look like an empty
    /// tunnel.
    pub fn into_request(mut self, cx: &mut Context<'_, S>) -> Box<ActiveRequest> {
        self.want_no_more(cx);
        if let Some(attempt) = self.attempt {
            cx.abort(attempt);
        }
        self.request
    }

    /// The deadline of this attempt, or that of the look-up while there is none, or of all attempts if that is earlier.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        let (since, timeout) = match self.waits_for_more() {
            true => (self.request.began(), timeouts.resolve),
            false => (self.attempt_began, timeouts.connect),
        };
        let attempt = timeout.and_then(|timeout| since.checked_add(timeout));
        let total = timeouts.connect_total.and_then(|timeout| self.began.checked_add(timeout));
        attempt.into_iter().chain(total).min()
    }

    /// Whether all addresses have been tried, and those of the other family may still come.
    fn waits_for_more(&self) -> bool {
        self.more && self.attempt.is_none() && self.candidates.as_slice().is_empty()
    }

    /// Withdraws the question for the other family if it has not been answered.
    fn want_no_more(&mut self, cx: &mut Context<'_, S>) {
        if std::mem::take(&mut self.more) {
            withdraw(&self.request, cx);
        }
    }

    /// Gives this attempt up, and the addresses not yet tried too if no time is left for them.
    pub fn expire(mut self: Box<Self>, cx: &mut Context<'_, S>) -> Box<Self> {
        if self.waits_for_more() {
            self.want_no_more(cx);
            return self;
        }
        // It may have succeeded meanwhile.
        if let Some(attempt) = self.attempt.take() {
            cx.abort(attempt);
        }
        self.failed(ReplyCode::TimedOut);
        let total = cx.shared.process.settings.timeouts.connect_total;
        if total.is_some_and(|timeout| cx.now.saturating_duration_since(self.began) >= timeout) {
            self.candidates = Vec::new().into_iter();
            self.want_no_more(cx);
        }
        self
    }

    /// Tries one address after the other. Payload that the client has sent already goes into the tunnel.
    pub fn step(
        mut self: Box<Self>,
        source: SocketAddr,
        input: &mut Buffer,
        output: &mut Buffer,
        cx: &mut Context<'_, S>,
    ) -> Next<S> {
        loop {
            match self.attempt.take() {
                Some(target) if target.broken() => {
                    let error = target.stream().failure();
                    self.failed(error.as_ref().map_or(ReplyCode::GeneralFailure, reply_code));
                }
                Some(target) if target.writable() => {
                    return self.connected(target, source, input, output, cx);
                }
                Some(target) => {
                    self.attempt = Some(target);
                    return Next::Wait(State::Connect(self));
                }
                None => match self.candidates.next() {
                    Some(candidate) => self.try_candidate(candidate, source, cx),
                    None if self.more => return Next::Wait(State::Connect(self)),
                    None => {
                        let code = self.failure.unwrap_or(ReplyCode::HostUnreachable);
                        return refuse(self.request, code, output, cx);
                    }
                },
            }
        }
    }

    fn try_candidate(
        &mut self,
        candidate: SocketAddr,
        source: SocketAddr,
        cx: &mut Context<'_, S>,
    ) {
        let candidate = canonical(candidate);
        let (network, settings) = (&mut *cx.network, &cx.shared.process.settings);
        let is_local_delivery = |address| network.is_local_delivery(address);
        if !permitted(source.ip(), candidate, settings, is_local_delivery) {
            return self.failed(ReplyCode::NotAllowed);
        }
        match cx.network.dial(candidate, cx.key, Side::First) {
            Ok(stream) => {
                if is_own_port(candidate, settings)
                    && let Ok(bound) = stream.local_address()
                {
                    if self.failure.is_some() {
                        // One near end for each session: that of the attempt before is closed.
                        cx.shared.process.to_own_ports.retain(|_, key| *key != cx.key);
                    }
                    cx.shared.process.to_own_ports.insert(canonical(bound), cx.key);
                }
                self.candidate = candidate;
                self.attempt = Some(Endpoint::with_lazy_nodelay(stream));
                self.attempt_began = cx.now;
            }
            Err(error) => {
                // A failure before the last address is usual: ::1 on a machine without IPv6.
                if self.candidates.as_slice().is_empty() && !self.more {
                    cx.shared.diagnostics.cannot_connect(candidate, &error, cx.now);
                }
                self.failed(reply_code(&error));
            }
        }
    }

    fn connected(
        mut self: Box<Self>,
        target: Endpoint<S>,
        source: SocketAddr,
        input: &mut Buffer,
        output: &mut Buffer,
        cx: &mut Context<'_, S>,
    ) -> Next<S> {
        let bound = match target.stream().local_address() {
            Ok(bound) => canonical(bound),
            Err(error) => return self.give_up(target, reply_code(&error)),
        };
        if is_itself(self.candidate, bound) {
            return self.give_up(target, ReplyCode::ConnectionRefused);
        }
        if !may_come_from(source.ip(), bound, &cx.shared.process.settings) {
            return self.give_up(target, ReplyCode::NotAllowed);
        }
        self.want_no_more(cx);
        let took = cx.now.saturating_duration_since(self.attempt_began);
        cx.shared.metrics.connects.record(took);
        cx.shared.metrics.count_reply(ReplyCode::Succeeded);
        self.request.open(cx.key, source, cx.shared);
        output.append(&Reply { code: ReplyCode::Succeeded, bound }.encode());
        let timeouts = &cx.shared.process.settings.timeouts;
        let received = std::mem::take(input);
        let relay = Relay::new(self.request, (Side::First, target), received, cx.now, timeouts);
        Next::Go(State::Relay(Box::new(relay)))
    }

    /// Gives up a connection that may not be used. It is reset, so that its port is free at once: a connection of a
    /// socket to itself would otherwise hold the port of a service in TIME-WAIT.
    fn give_up(mut self: Box<Self>, mut target: Endpoint<S>, code: ReplyCode) -> Next<S> {
        target.reset_on_close();
        self.failed(code);
        Next::Go(State::Connect(self))
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
        Some(libc::ENETUNREACH | libc::ENETDOWN) => ReplyCode::NetworkUnreachable,
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
    fn names_that_cannot_exist_are_not_looked_up() {
        for name in [&b""[..], b"*", b"a b", b"a\0b", b"a\n", b"\x7f", b"\xff\xfe", b"\t"] {
            assert_eq!(hostname(name), None, "{name:?}");
        }
        for name in ["localhost", "*.example", "xn--bcher-kva.example", "b\u{fc}cher.example"] {
            assert_eq!(hostname(name.as_bytes()), Some(name));
        }
    }

    #[test]
    fn literals_are_no_names() {
        assert_eq!(ip_literal("127.0.0.1"), Some([127, 0, 0, 1].into()));
        assert_eq!(ip_literal("::1"), "::1".parse().ok());
        assert_eq!(ip_literal("[::1]"), "::1".parse().ok());
        for name in ["localhost", "[::1", "1.2.3", "127.0.0.1.", ""] {
            assert_eq!(ip_literal(name), None, "{name}");
        }
    }

    #[test]
    fn errors_have_their_reply_codes() {
        let code = |errno| reply_code(&io::Error::from_raw_os_error(errno)) as u8;
        assert_eq!(code(libc::ECONNREFUSED), 5);
        assert_eq!(code(libc::ENETUNREACH), 3);
        assert_eq!(code(libc::EHOSTUNREACH), 4);
        assert_eq!(code(libc::ETIMEDOUT), 6);
        assert_eq!(code(libc::EMFILE), 1);
    }
}
