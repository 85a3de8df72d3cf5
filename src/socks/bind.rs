//! BIND (RFC 1928 §4, §6): a listener for one connection, which comes from the address that the request names.
//!
//! ```text
//!  client -- BIND DST --> listen ----- reply 1: where the listener is
//!                           |
//!              stranger --> reset, waiting goes on
//!                  peer --> accept --- reply 2: who has connected, then the tunnel
//! ```
//!
//! DST says who may connect: an address, or all addresses of a name; 0.0.0.0 and :: are anybody. Its port is that of
//! another connection of the peer and is not compared: FTP servers connect from port 20, or any.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::connect::reply_code;
use super::name::withdraw;
use super::relay::Relay;
use super::request::{ActiveRequest, refuse};
use super::rules::{may_come_from, permitted};
use super::{Context, Next, State};
use crate::proto::socks5::{Reply, ReplyCode};
use crate::reactor::buffer::Buffer;
use crate::reactor::endpoint::{Endpoint, Stream};
use crate::reactor::listener::canonical;
use crate::reactor::peer_listener::PeerListener;
use crate::reactor::reserve::Promise;
use crate::reactor::token::Side;
use crate::state::settings::Timeouts;
use crate::workers::dns_cache::Resolution;

/// Strangers that are turned away in one turn.
const STRANGERS_PER_TURN: usize = 16;

/// A request that waits for its peer.
pub struct Bind<S> {
    request: Box<ActiveRequest>,
    listener: Box<dyn PeerListener<S>>,
    /// Who may connect, canonical; empty: anybody.
    allowed: Vec<IpAddr>,
    /// Whether further addresses of the name may come.
    more: bool,
    began: Instant,
    /// While client, listener and peer are open together.
    _promise: Promise,
}

/// Listens for a peer with one of these addresses.
pub fn begin<S: Stream>(
    request: Box<ActiveRequest>,
    (addresses, more): (Vec<SocketAddr>, bool),
    source: SocketAddr,
    client: &Endpoint<S>,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    match listen(&addresses, source, client, cx) {
        Ok((listener, promise)) => {
            let bound = canonical(listener.address());
            let advertise = &cx.shared.process.settings.bind.advertise;
            let ip = advertise.of(bound.ip()).unwrap_or(bound.ip());
            let bound = SocketAddr::new(ip, bound.port());
            output.append(&Reply { code: ReplyCode::Succeeded, bound }.encode());
            cx.shared.metrics.binds.started += 1;
            let ips = addresses.iter().map(|address| address.ip().to_canonical());
            let allowed = ips.filter(|ip| !ip.is_unspecified()).collect();
            let bind = Bind { request, listener, allowed, more, began: cx.now, _promise: promise };
            Next::Go(State::Bind(Box::new(bind)))
        }
        Err(code) => {
            if more {
                withdraw(&request, cx);
            }
            refuse(request, code, output, cx)
        }
    }
}

/// Opens the listener, on the address from which a connection to DST would leave.
fn listen<S: Stream>(
    addresses: &[SocketAddr],
    source: SocketAddr,
    client: &Endpoint<S>,
    cx: &mut Context<'_, S>,
) -> Result<(Box<dyn PeerListener<S>>, Promise), ReplyCode> {
    let promise = cx.reserve.take(1).ok_or(ReplyCode::GeneralFailure)?;
    let settings = &cx.shared.process.settings;
    let mut failure = ReplyCode::HostUnreachable;
    for address in addresses {
        let address = canonical(*address);
        let near = if address.ip().is_unspecified() {
            // Anybody may connect, where the client has connected.
            client.stream().local_address().map(canonical)
        } else {
            let network = &mut *cx.network;
            if !permitted(source.ip(), address, settings, |at| network.is_local_delivery(at)) {
                failure = ReplyCode::NotAllowed;
                continue;
            }
            cx.network.source_for(address)
        };
        let opened = near.and_then(|mut near| {
            near.set_port(0);
            cx.network.listen(near, settings.bind.ports.as_ref(), cx.key, Side::First)
        });
        match opened {
            // With DST unspecified, the peer's address is what decides.
            Ok(listener)
                if address.ip().is_unspecified()
                    || may_come_from(source.ip(), canonical(listener.address()), settings) =>
            {
                return Ok((listener, promise));
            }
            Ok(_) => failure = ReplyCode::NotAllowed,
            Err(error) => {
                log::debug!("cannot listen for a connection from {address}: {error}");
                failure = reply_code(&error);
            }
        }
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

    /// The other family of the name has come.
    pub fn add(&mut self, later: Resolution) {
        if self.more {
            self.more = later.more;
            let ips = later.addresses.unwrap_or_default().into_iter();
            self.allowed.extend(ips.map(|address| address.ip().to_canonical()));
        }
    }

    pub fn request(&self) -> &ActiveRequest {
        &self.request
    }

    /// When it is given up.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        self.began.checked_add(timeouts.bind?)
    }

    /// Closes the listener.
    pub fn into_request(self, cx: &mut Context<'_, S>) -> Box<ActiveRequest> {
        if self.more {
            withdraw(&self.request, cx);
        }
        self.request
    }

    /// No peer has come in time.
    #[expect(clippy::boxed_local, reason = "it comes in its box")]
    pub fn expire(self: Box<Self>, output: &mut Buffer, cx: &mut Context<'_, S>) -> Next<S> {
        refuse(self.into_request(cx), ReplyCode::TimedOut, output, cx)
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
                            refuse(self.into_request(cx), reply_code(&error), output, cx)
                        }
                    };
                }
                Err(error) => {
                    log::debug!("cannot accept a connection for a client: {error}");
                    return refuse(self.into_request(cx), ReplyCode::GeneralFailure, output, cx);
                }
            }
        }
        Next::Again(State::Bind(self))
    }

    /// Whether this peer may connect: it is named by DST, and the client might connect to it.
    fn is_allowed(&self, peer: SocketAddr, source: SocketAddr, cx: &mut Context<'_, S>) -> bool {
        let named = self.allowed.is_empty() || self.allowed.contains(&peer.ip());
        let (network, settings) = (&mut *cx.network, &cx.shared.process.settings);
        named && permitted(source.ip(), peer, settings, |at| network.is_local_delivery(at))
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
        output.append(&Reply { code: ReplyCode::Succeeded, bound: peer }.encode());
        let (timeouts, received) = (cx.shared.process.settings.timeouts, std::mem::take(input));
        // The listener is closed here: nobody else can be taken for the peer.
        let request = self.into_request(cx);
        let target = (Side::Second, peer_end);
        let relay = Relay::new(request, target, received, cx.now, &timeouts);
        Next::Go(State::Relay(Box::new(relay)))
    }
}
