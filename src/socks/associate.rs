//! UDP ASSOCIATE (RFC 1928 §4, §7): datagrams between a client and any number of targets.
//!
//! ```text
//!            control connection (TCP)
//!  client ========================== socks5d           one target socket for each family: every
//!    |                                  |              target sees the same port (RFC 4787 REQ-1)
//!    +-- header, payload --> [client socket] -> rules -> [target socket IPv4] -- payload --> targets
//!    <-- header, payload --- [client socket] <- filter <- [target socket IPv6] <-- payload ---
//! ```
//!
//! The client socket is bound to the address that the control connection reached. A datagram from another address than
//! the control connection's peer is dropped, and so is one from another port than [`ClientAddress`] has learned. Every
//! datagram passes the rules of a CONNECT. What cannot be relayed is dropped and counted; no datagram ends an
//! association. The control connection does, or the idle timeout.

mod client_address;
mod known_targets;
mod name_book;
mod relay;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use super::close_reason::CloseReason;
use super::connect::reply_code;
use super::rate::RateShare;
use super::request::{ActiveRequest, refuse};
use super::{Context, Next, State, rules};
use crate::proto::socks5::{Host, Reply, ReplyCode, Target};
use crate::reactor::buffer::Buffer;
use crate::reactor::datagram::{DatagramConfig, Datagrams, OpenPort};
use crate::reactor::endpoint::{Endpoint, FlushError, Stream, Transfer};
use crate::reactor::family::PerFamily;
use crate::reactor::listener::canonical;
use crate::reactor::readiness::Readiness;
use crate::reactor::reserve::Promise;
use crate::reactor::token::Side;
use crate::state::Direction;
use crate::state::access_log::{FinishedRequest, Kind};
use crate::state::connection::{self, id_of};
use crate::state::metrics::DropCause;
use crate::state::rates::Grant;
use crate::state::settings::Timeouts;
use crate::state::shortages::no_descriptors;
use crate::state::users::AssociationGuard;
use crate::workers::dns_cache::Resolution;
use client_address::ClientAddress;
use known_targets::KnownTargets;
use name_book::NameBook;

/// Descriptors beyond those that admission has promised: the target sockets.
const MORE_DESCRIPTORS: usize = 2;
/// Bytes of the control connection that are read and thrown away in one turn.
const CONTROL_BUDGET: usize = 4096;
/// Messages that are asked for at once.
const LARGEST_BATCH: u8 = 32;

/// An open association.
pub struct Association {
    request: Box<ActiveRequest>,
    client: ClientAddress,
    /// Towards the client.
    client_socket: OpenSocket,
    /// Towards targets, each opened with the first datagram of its family.
    target_sockets: PerFamily<Option<OpenSocket>>,
    known: KnownTargets,
    /// Made for the first name.
    names: Option<Box<NameBook>>,
    /// The target of the last datagram.
    latest: Option<SocketAddr>,
    /// Targets that have a line of the access log.
    logged: Vec<Rc<Target>>,
    /// When a datagram was last relayed.
    last: Instant,
    relayed: u64,
    dropped: u64,
    /// Messages of the client that are asked for at once: few after a batch with many targets.
    batch: u8,
    /// What judging its datagrams has cost in this turn.
    judged: u32,
    /// Addresses that datagrams do not go to from loopback, for clients that may not use that.
    checked: Option<Box<KnownTargets>>,
    /// Which family's targets are served first in the next turn.
    v6_first: bool,
    /// What it may read for its account.
    rate: RateShare,
    /// The number of the rules by which those were judged that may answer.
    rules_number: u64,
    _promise: Promise,
    _guard: AssociationGuard,
}

/// A socket for datagrams, whose port never counts as a client's.
struct OpenSocket {
    datagrams: Box<dyn Datagrams>,
    _port: OpenPort,
}

/// What logs and METP show as the destination of an association, which has none: `udp:0`.
pub fn destination() -> Target {
    Target { host: Host::Name((*b"udp").into()), port: 0 }
}

/// Opens an association for the client at `source`, whose control connection is `client`. `announced` is DST: the
/// address from which the client is going to send, if it knows.
pub fn begin<S: Stream>(
    request: Box<ActiveRequest>,
    announced: &Target,
    source: SocketAddr,
    client: &Endpoint<S>,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    match Association::open(request, announced, source, client, output, cx) {
        Ok(association) => Next::Go(State::Associate(Box::new(association))),
        Err((request, code)) => refuse(request, code, output, cx),
    }
}

impl Association {
    fn open<S: Stream>(
        mut request: Box<ActiveRequest>,
        announced: &Target,
        source: SocketAddr,
        client: &Endpoint<S>,
        output: &mut Buffer,
        cx: &mut Context<'_, S>,
    ) -> Result<Self, (Box<ActiveRequest>, ReplyCode)> {
        let settings = &cx.shared.process.settings.udp;
        if !settings.enabled {
            return Err((request, ReplyCode::CommandNotSupported));
        }
        if !rules::may_allow(&mut request, source.ip(), cx.shared) {
            return Err((request, ReplyCode::NotAllowed));
        }
        let Some(guard) = request.guard.open_association(settings.max_associations) else {
            return Err((request, ReplyCode::NotAllowed));
        };
        let near = client.stream().local_address().map(canonical);
        let address = near.as_ref().map_or(Ipv4Addr::UNSPECIFIED.into(), SocketAddr::ip);
        let Some(promise) = cx.reserve.take(MORE_DESCRIPTORS) else {
            let shortages = &mut cx.shared.shortages;
            shortages.cannot_open_datagrams(address, None, &no_descriptors(), cx.now);
            return Err((request, ReplyCode::GeneralFailure));
        };
        let opened = near.and_then(|mut bind| {
            bind.set_port(0);
            let socket =
                DatagramConfig { bind, ports: settings.ports.clone(), only_from: Some(source) };
            let datagrams = cx.network.open_datagrams(&socket, cx.key, Side::First)?;
            let bound = datagrams.local_address()?;
            Ok((OpenSocket { _port: cx.pool.ports.open(bound), datagrams }, bound))
        });
        let (client_socket, bound) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let ports = settings.ports.as_ref();
                cx.shared.shortages.cannot_open_datagrams(address, ports, &error, cx.now);
                return Err((request, reply_code(&error)));
            }
        };
        cx.shared.shortages.can_open_datagrams(cx.now);
        let advertised = settings.advertise.of(bound.ip()).unwrap_or(bound.ip());
        let reply =
            Reply { code: ReplyCode::Succeeded, bound: SocketAddr::new(advertised, bound.port()) };
        cx.shared.metrics.count_reply(reply.code);
        cx.shared.metrics.datagrams.associations += 1;
        output.append(&reply.encode());
        request.open(cx.key, source, cx.shared);
        let announced = match announced.host {
            Host::Ip(address) => Some((address, announced.port)),
            Host::Name(_) => None,
        };
        Ok(Association {
            request,
            client: ClientAddress::new(source, announced, cx.now),
            client_socket,
            target_sockets: PerFamily::default(),
            known: KnownTargets::new(cx.now),
            names: None,
            latest: None,
            logged: Vec::new(),
            last: cx.now,
            relayed: 0,
            dropped: 0,
            batch: LARGEST_BATCH,
            judged: 0,
            checked: None,
            v6_first: false,
            rate: RateShare::default(),
            rules_number: cx.shared.process.rules_number,
            _promise: promise,
            _guard: guard,
        })
    }

    /// An event has come for a socket of the association.
    pub fn on_event(&mut self, side: Side, readiness: Readiness) {
        let socket = match side {
            Side::Client => None,
            Side::First => Some(&mut self.client_socket),
            Side::Second => self.target_sockets.v4.as_mut(),
            Side::Third => self.target_sockets.v6.as_mut(),
        };
        if let Some(socket) = socket {
            socket.datagrams.on_event(readiness);
        }
    }

    /// The addresses of a name have come, or the reason why there are none.
    pub fn resolved(&mut self, resolution: Resolution, now: Instant) {
        if let Some(names) = &mut self.names {
            names.answer(&resolution.name, resolution.addresses, resolution.more, now);
        }
    }

    pub fn request(&self) -> &ActiveRequest {
        &self.request
    }

    pub fn request_mut(&mut self) -> &mut ActiveRequest {
        &mut self.request
    }

    /// When a datagram was last relayed.
    pub fn last(&self) -> Instant {
        self.last
    }

    /// The target of the last datagram.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.latest
    }

    /// The counts that METP shows.
    pub fn datagrams(&self) -> connection::Datagrams {
        connection::Datagrams {
            targets: self.known.len(),
            relayed: self.relayed,
            dropped: self.dropped,
        }
    }

    /// When the association ends if no datagram is relayed before.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        // One that waits for its account is not idle.
        if self.rate.waits() {
            return None;
        }
        self.last.checked_add(timeouts.udp_idle?)
    }

    /// Closes the sockets.
    pub fn into_request<S: Stream>(mut self, cx: &mut Context<'_, S>) -> Box<ActiveRequest> {
        self.rate.end(&self.request.guard, cx);
        if let Some(names) = &mut self.names {
            let lost = names.cancel(cx.key, cx.dns);
            self.drop_datagrams(DropCause::Name, lost, cx);
        }
        let PerFamily { v4, v6 } = &self.target_sockets;
        let sockets = [Some(&self.client_socket), v4.as_ref(), v6.as_ref()];
        let dropped = sockets.into_iter().flatten().map(|socket| socket.datagrams.kernel_drops());
        cx.shared.metrics.datagrams.dropped_by_kernel += dropped.sum::<u64>();
        self.request
    }

    /// Relays what has come, within the budgets of a turn.
    pub fn step<S: Stream>(
        mut self: Box<Self>,
        client: &mut Endpoint<S>,
        reply: &mut Buffer,
        cx: &mut Context<'_, S>,
    ) -> Next<S> {
        if let Err(FlushError::Failed(error)) = client.flush(reply, cx.pool, &mut 0) {
            return self.end(CloseReason::of(&error, CloseReason::ClientReset), cx);
        }
        let control = match read_control(client) {
            Ok(spent) => spent,
            Err(reason) => return self.end(reason, cx),
        };
        if let Some(reached) = self.request.guard.usage().is_over() {
            cx.shared.metrics.limits.count(reached);
            return self.end(CloseReason::LimitEnded(reached), cx);
        }
        let up = self.has_work(Direction::Up) && self.relay(Direction::Up, cx);
        let down = self.has_work(Direction::Down) && self.relay(Direction::Down, cx);
        if control || up || down {
            Next::Again(State::Associate(self))
        } else {
            Next::Wait(State::Associate(self))
        }
    }

    /// Whether there may be datagrams of this direction.
    fn has_work(&self, direction: Direction) -> bool {
        match direction {
            Direction::Up => {
                let names = self.names.as_ref();
                self.client_socket.datagrams.readable()
                    || names.is_some_and(|names| names.has_ready())
            }
            Direction::Down => {
                let PerFamily { v4, v6 } = &self.target_sockets;
                let sockets = [v4, v6].into_iter().flatten();
                sockets.into_iter().any(|socket| socket.datagrams.readable())
            }
        }
    }

    /// Relays datagrams of this direction, as far as the account's rate allows it. The account pays for those that have
    /// been sent. Returns whether there may be more.
    fn relay<S: Stream>(&mut self, direction: Direction, cx: &mut Context<'_, S>) -> bool {
        let allowance = self.rate.allowance(direction, &self.request.guard, cx);
        if allowance.bytes == 0 {
            return !self.rate.wait(direction, &self.request.guard, cx);
        }
        let before = self.sent(direction);
        match direction {
            Direction::Up => {
                self.send_waiting(allowance.bytes, cx);
                let sent = self.sent(direction).saturating_sub(before);
                self.relay_up(allowance.bytes.saturating_sub(sent), cx);
            }
            Direction::Down => self.relay_down(allowance.bytes, cx),
        }
        let sent = self.sent(direction).saturating_sub(before);
        allowance.settle(direction, sent, &self.request.guard, cx);
        self.has_work(direction)
    }

    /// Payload bytes that have been sent in this direction.
    fn sent(&self, direction: Direction) -> u64 {
        match direction {
            Direction::Up => self.request.traffic.up,
            Direction::Down => self.request.traffic.down,
        }
    }

    /// It may read for its account, or has to ask.
    pub fn granted(&mut self, grant: Grant) {
        self.rate.grant(grant);
    }

    fn end<S: Stream>(self: Box<Self>, reason: CloseReason, cx: &mut Context<'_, S>) -> Next<S> {
        Next::end(Some(self.into_request(cx)), reason)
    }

    /// Counts datagrams that are dropped.
    fn drop_datagrams<S: Stream>(&mut self, cause: DropCause, count: u64, cx: &mut Context<'_, S>) {
        self.dropped += count;
        cx.shared.metrics.datagrams.drop(cause, count);
    }

    /// Writes a line of the access log for a target that is used, or refused, for the first time, up to `udp-log`
    /// of them.
    fn log_target<S: Stream>(
        &mut self,
        target: Target,
        (code, rule): (ReplyCode, Option<u32>),
        cx: &mut Context<'_, S>,
    ) {
        let most = cx.shared.process.settings.udp.log;
        if self.logged.len() >= most || self.logged.iter().any(|logged| **logged == target) {
            return;
        }
        let target = Rc::new(target);
        let Some(source) = self.client.get() else { return };
        let line = FinishedRequest {
            id: id_of(cx.key),
            time: SystemTime::now().into(),
            user: Rc::clone(self.request.name()),
            source,
            target: Rc::clone(&target),
            status: code,
            traffic: crate::state::Traffic::default(),
            duration: cx.now.saturating_duration_since(self.request.began()),
            reason: if code == ReplyCode::Succeeded { "datagram" } else { "refused" },
            kind: Kind::DatagramTarget,
            rule,
        };
        cx.shared.access_log.close(&line);
        self.logged.push(target);
    }

    /// The socket for targets of this family, opened if it is not. `None`: this machine cannot send there.
    fn target_socket<S: Stream>(
        &mut self,
        family: IpAddr,
        cx: &mut Context<'_, S>,
    ) -> Option<&mut OpenSocket> {
        let place = self.target_sockets.of_mut(family);
        if place.is_none() {
            let (unspecified, side) = match family {
                IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Side::Second),
                IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), Side::Third),
            };
            let source = cx.shared.process.settings.bind_out.of(family).unwrap_or(unspecified);
            let bind = SocketAddr::new(source, 0);
            let socket = DatagramConfig { bind, ports: None, only_from: None };
            let opened = cx.network.open_datagrams(&socket, cx.key, side);
            let opened = opened.and_then(|opened| Ok((opened.local_address()?, opened)));
            let (bound, datagrams) = opened
                .inspect_err(|error| {
                    cx.shared.shortages.cannot_send_datagrams(source, error, cx.now);
                })
                .ok()?;
            *place = Some(OpenSocket { datagrams, _port: cx.pool.ports.open(bound) });
        }
        place.as_mut()
    }
}

/// Reads and throws away what the client sends on the control connection: it has no meaning there. Returns whether
/// there may be more.
///
/// # Errors
/// The reason if the connection has ended, and with it the association (RFC 1928 §7).
fn read_control<S: Stream>(client: &mut Endpoint<S>) -> Result<bool, CloseReason> {
    if !client.readable() {
        return Ok(false);
    }
    let mut space = [0; CONTROL_BUDGET];
    match client.read(&mut space) {
        Transfer::Moved(_) => Ok(client.readable()),
        Transfer::Blocked => Ok(false),
        Transfer::Ended => Err(CloseReason::Finished),
        Transfer::Failed(error) => Err(CloseReason::of(&error, CloseReason::ClientReset)),
    }
}
