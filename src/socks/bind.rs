//! BIND (RFC 1928 §4, §6): a listener for one connection, which comes from the address that the request names.
//!
//! ```text
//!  client -- BIND DST --> listen ----- reply 1: where the listener is
//!                           |
//!              stranger --> reset, waiting goes on
//!                  peer --> accept --- reply 2: who has connected, then the tunnel
//! ```
//!
//! DST says who may connect: an address, or all addresses of a name; 0.0.0.0 and :: are anybody, unless a name stands for
//! them. Its port is that of another connection of the peer and is not compared: FTP servers connect from port 20, or
//! any.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::connect::reply_code;
use super::dialect::Dialect;
use super::name::{hostname, withdraw};
use super::relay::Relay;
use super::request::{ActiveRequest, refuse};
use super::{Context, Next, State, rules};
use crate::proto::socks5::{Host, ReplyCode, Target};
use crate::reactor::buffer::Buffer;
use crate::reactor::endpoint::{Endpoint, Stream};
use crate::reactor::listener::canonical;
use crate::reactor::peer_listener::PeerListener;
use crate::reactor::reserve::Promise;
use crate::reactor::token::Side;
use crate::state::Shared;
use crate::state::protected::{may_come_from, permitted};
use crate::state::settings::Timeouts;
use crate::state::shortages::no_descriptors;
use metp_protocol::text::ip_literal;

/// Strangers that are turned away in one turn.
const STRANGERS_PER_TURN: usize = 16;

/// A request that waits for its peer.
pub struct Bind<S> {
    request: Box<ActiveRequest>,
    listener: Box<dyn PeerListener<S>>,
    /// Who may connect, canonical; `None`: anybody.
    allowed: Option<Vec<IpAddr>>,
    began: Instant,
    /// While client, listener and peer are open together.
    _promise: Promise,
}

/// Whether DST is an unspecified address, which a name that is looked up is not: blocking name servers answer 0.0.0.0,
/// and whoever owns a name could have the listener open to all.
fn is_anybody(target: &Target) -> bool {
    match &target.host {
        Host::Ip(address) => address.to_canonical().is_unspecified(),
        Host::Name(name) => {
            let literal = hostname(name).and_then(ip_literal);
            literal.is_some_and(|address| address.to_canonical().is_unspecified())
        }
    }
}

/// Listens for a peer with one of these addresses, in the family of the first that can be had. `more`: whether those of
/// the other family may come.
///
/// # Errors
/// The request and its reply code, if there is no listener.
pub fn begin<S: Stream>(
    mut request: Box<ActiveRequest>,
    (addresses, more): (Vec<SocketAddr>, bool),
    source: SocketAddr,
    client: &Endpoint<S>,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Result<Next<S>, (Box<ActiveRequest>, ReplyCode)> {
    let anybody = is_anybody(&request.target);
    match listen(&mut request, &addresses, source, client, cx) {
        Ok((listener, promise)) => {
            if more {
                // A peer of the other family could not connect here.
                withdraw(&request, cx);
            }
            let bound = canonical(listener.address());
            let advertise = &cx.shared.process.settings.bind.advertise;
            let ip = advertise.of(bound.ip()).unwrap_or(bound.ip());
            let bound = SocketAddr::new(ip, bound.port());
            output.append(&request.dialect.success(bound));
            cx.shared.metrics.binds.started += 1;
            let ips = addresses.iter().map(|address| address.ip().to_canonical());
            let allowed = (!anybody).then(|| ips.collect());
            let bind = Bind { request, listener, allowed, began: cx.now, _promise: promise };
            Ok(Next::Go(State::Bind(Box::new(bind))))
        }
        Err(code) => Err((request, code)),
    }
}

/// Opens the listener, on the address from which a connection to DST would leave.
fn listen<S: Stream>(
    request: &mut ActiveRequest,
    addresses: &[SocketAddr],
    source: SocketAddr,
    client: &Endpoint<S>,
    cx: &mut Context<'_, S>,
) -> Result<(Box<dyn PeerListener<S>>, Promise), ReplyCode> {
    let Some(promise) = cx.reserve.take(1) else {
        let peer = addresses.first().map_or(source.ip(), SocketAddr::ip);
        cx.shared.shortages.cannot_listen(peer, None, &no_descriptors(), cx.now);
        return Err(ReplyCode::GeneralFailure);
    };
    let anybody = is_anybody(&request.target);
    // Its replies have no room for other addresses.
    let v4_only = request.dialect == Dialect::Socks4;
    let settings = &cx.shared.process.settings;
    let (mut failure, mut shortage) = (ReplyCode::HostUnreachable, None);
    for address in addresses {
        let address = canonical(*address);
        if address.ip().is_unspecified() && !anybody {
            failure = ReplyCode::NotAllowed;
            continue;
        }
        let near = if anybody {
            // Where the client has connected.
            client.stream().local_address().map(canonical)
        } else {
            let network = &mut *cx.network;
            if !permitted(source.ip(), address, settings, |at| network.is_local_delivery(at))
                || !rules::may_allow_peer(request, source.ip(), address.ip(), cx.shared)
            {
                failure = ReplyCode::NotAllowed;
                continue;
            }
            cx.network.source_for(address)
        };
        let opened = near.and_then(|mut near| {
            if v4_only && near.is_ipv6() {
                return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
            }
            near.set_port(0);
            cx.network.listen(near, settings.bind.ports.as_ref(), cx.key, Side::First)
        });
        match opened {
            // With DST unspecified, the peer's address is what decides.
            Ok(listener)
                if anybody
                    || may_come_from(source.ip(), canonical(listener.address()), settings) =>
            {
                cx.shared.shortages.can_listen(cx.now);
                return Ok((listener, promise));
            }
            Ok(_) => failure = ReplyCode::NotAllowed,
            Err(error) => {
                log::debug!("cannot listen for a connection from {address}: {error}");
                failure = reply_code(&error);
                shortage = Some((address.ip(), error));
            }
        }
    }
    // Where another address is good, nothing is short.
    if let Some((peer, error)) = shortage {
        let ports = settings.bind.ports.as_ref();
        cx.shared.shortages.cannot_listen(peer, ports, &error, cx.now);
    }
    Err(failure)
}

impl<S: Stream> Bind<S> {
    /// An event has come for the listener.
    pub fn on_event(&mut self, side: Side) {
        if side == Side::First {
            self.listener.on_event();
        }
    }

    pub fn request(&self) -> &ActiveRequest {
        &self.request
    }

    /// Whether the rules as they are now allow none of the peers that may connect. If so, the rule is noted.
    pub fn is_denied(&mut self, source: IpAddr, shared: &Shared) -> bool {
        let Bind { request, allowed, .. } = self;
        let Some(peers) = allowed else { return !rules::may_allow(request, source, shared) };
        let mut peers = peers.iter();
        !peers.any(|peer| rules::may_allow_peer(request, source, *peer, shared))
    }

    /// When it is given up.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        self.began.checked_add(timeouts.bind?)
    }

    /// Closes the listener.
    pub fn into_request(self) -> Box<ActiveRequest> {
        self.request
    }

    /// No peer has come in time.
    #[expect(clippy::boxed_local, reason = "it comes in its box")]
    pub fn expire(self: Box<Self>, output: &mut Buffer, cx: &mut Context<'_, S>) -> Next<S> {
        refuse(self.into_request(), ReplyCode::TimedOut, output, cx)
    }

    /// Accepts the peer. What the client has sent already goes into the tunnel.
    pub fn step(
        mut self: Box<Self>,
        source: SocketAddr,
        input: &mut Buffer,
        output: &mut Buffer,
        cx: &mut Context<'_, S>,
    ) -> Next<S> {
        for _ in 0..STRANGERS_PER_TURN {
            match self.listener.accept() {
                Ok(None) if self.listener.ready() => continue,
                Ok(None) => return Next::Wait(State::Bind(self)),
                Ok(Some((stream, peer))) => {
                    let mut peer_end = Endpoint::new(stream);
                    let peer = canonical(peer);
                    if !self.is_allowed(peer, source, cx) {
                        cx.shared.metrics.binds.strangers += 1;
                        peer_end.reset_on_close();
                        continue;
                    }
                    return match cx.network.adopt(peer_end.stream_mut(), cx.key, Side::Second) {
                        Ok(()) => self.connected(peer_end, peer, source, input, output, cx),
                        Err(error) => {
                            peer_end.reset_on_close();
                            let listener = self.listener.address();
                            cx.shared.shortages.cannot_accept_peer(listener, &error, cx.now);
                            refuse(self.into_request(), reply_code(&error), output, cx)
                        }
                    };
                }
                Err(error) => {
                    log::debug!("cannot accept a connection for a client: {error}");
                    let listener = self.listener.address();
                    cx.shared.shortages.cannot_accept_peer(listener, &error, cx.now);
                    return refuse(self.into_request(), ReplyCode::GeneralFailure, output, cx);
                }
            }
        }
        Next::Again(State::Bind(self))
    }

    /// Whether this peer may connect: it is named by DST, and the client might connect to it.
    fn is_allowed(
        &mut self,
        peer: SocketAddr,
        source: SocketAddr,
        cx: &mut Context<'_, S>,
    ) -> bool {
        let named = self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&peer.ip()));
        let (network, settings) = (&mut *cx.network, &cx.shared.process.settings);
        let may =
            named && permitted(source.ip(), peer, settings, |at| network.is_local_delivery(at));
        if !may {
            return false;
        }
        let decision = rules::decide(&mut self.request, source.ip(), peer, cx.shared);
        rules::act_on(&mut self.request, decision, cx.shared);
        decision.allow
    }

    #[expect(clippy::boxed_local, reason = "it comes in its box")]
    fn connected(
        mut self: Box<Self>,
        peer_end: Endpoint<S>,
        peer: SocketAddr,
        source: SocketAddr,
        input: &mut Buffer,
        output: &mut Buffer,
        cx: &mut Context<'_, S>,
    ) -> Next<S> {
        self.request.open(cx.key, source, cx.shared);
        cx.shared.metrics.count_reply(ReplyCode::Succeeded);
        output.append(&self.request.dialect.success(peer));
        let (timeouts, received) = (cx.shared.process.settings.timeouts, std::mem::take(input));
        // The listener is closed here: nobody else can be taken for the peer.
        let request = self.into_request();
        let target = (Side::Second, peer_end);
        let relay = Relay::new(request, target, received, cx.now, &timeouts);
        Next::Go(State::Relay(Box::new(relay)))
    }
}
