//! Resolve: from the target of a request to its addresses, and what is done with them.

use std::net::SocketAddr;
use std::time::Instant;

use super::connect::Connect;
use super::dialect::Dialect;
use super::name::{hostname, withdraw};
use super::request::{ActiveRequest, answer, refuse};
use super::{Context, Next, State, bind, reverse, rules};
use crate::proto::socks5::{Host, ReplyCode};
use crate::reactor::buffer::Buffer;
use crate::reactor::endpoint::{Endpoint, Stream};
use crate::reactor::listener::canonical;
use crate::workers::dns_cache::{Resolution, ResolveError};
use crate::workers::families::interleave;
use metp_protocol::text::ip_literal;

/// What the addresses are for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// To connect to one of them.
    Connect,
    /// To accept a connection from one of them.
    Bind,
    /// To tell the client one of them (Tor's RESOLVE).
    Resolve,
    /// None: the target is an address, whose name the client wants to know (Tor's RESOLVE_PTR).
    ResolvePtr,
}

impl Purpose {
    /// The next state: the addresses are known, and whether more may come.
    fn go_on<S: Stream>(
        self,
        request: Box<ActiveRequest>,
        (addresses, more): (Vec<SocketAddr>, bool),
        source: SocketAddr,
        client: &Endpoint<S>,
        output: &mut Buffer,
        cx: &mut Context<'_, S>,
    ) -> Next<S> {
        let next = match self {
            Purpose::Connect => {
                return Next::Go(State::Connect(Connect::new(request, addresses, more, cx.now)));
            }
            Purpose::Bind => bind::begin(request, (addresses, more), source, client, output, cx),
            Purpose::Resolve => tell(request, (addresses, more), source, output, cx),
            Purpose::ResolvePtr => Err((request, ReplyCode::AddressTypeNotSupported)),
        };
        match next {
            Ok(next) => next,
            Err((request, code)) if more => {
                let waiting = Resolve { request, purpose: self, answer: None, code };
                Next::Go(State::Resolve(Box::new(waiting)))
            }
            Err((request, code)) => refuse(request, code, output, cx),
        }
    }
}

/// Tells the client one of the addresses: of IPv4 if there is one, as Tor does it, since programs that ask so have often
/// no use for another; and SOCKS4 has no room for those of IPv6.
///
/// # Errors
/// The request and its reply code, if there is none.
fn tell<S: Stream>(
    mut request: Box<ActiveRequest>,
    (mut addresses, more): (Vec<SocketAddr>, bool),
    source: SocketAddr,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Result<Next<S>, (Box<ActiveRequest>, ReplyCode)> {
    let found = addresses.len();
    let mut denied = None;
    addresses.retain(|address| {
        let decision = rules::decide(&mut request, source.ip(), canonical(*address), cx.shared);
        if !decision.allow {
            denied.get_or_insert(decision);
        }
        decision.allow
    });
    if addresses.is_empty() && found > 0 {
        if let Some(decision) = denied {
            rules::act_on(&mut request, decision, cx.shared);
        }
        return Err((request, ReplyCode::NotAllowed));
    }
    let is_v4 = |address: &&SocketAddr| address.ip().to_canonical().is_ipv4();
    let other = addresses.first().filter(|_| request.dialect != Dialect::Socks4);
    let Some(address) = addresses.iter().find(is_v4).or(other) else {
        return Err((request, ReplyCode::HostUnreachable));
    };
    if more {
        withdraw(&request, cx);
    }
    let decision = rules::decide(&mut request, source.ip(), canonical(*address), cx.shared);
    rules::act_on(&mut request, decision, cx.shared);
    let reply = request.dialect.success(SocketAddr::new(address.ip().to_canonical(), 0));
    Ok(answer(request, &reply, output, cx))
}

/// A request whose name is being looked up.
pub struct Resolve {
    request: Box<ActiveRequest>,
    purpose: Purpose,
    answer: Option<Resolution>,
    /// What the request is refused with if nothing else comes: a BIND may have tried one family in vain.
    code: ReplyCode,
}

/// Starts a request: a name is looked up first.
pub fn begin<S: Stream>(
    mut request: Box<ActiveRequest>,
    purpose: Purpose,
    source: SocketAddr,
    client: &Endpoint<S>,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    if !rules::may_allow(&mut request, source.ip(), cx.shared) {
        return refuse(request, ReplyCode::NotAllowed, output, cx);
    }
    let port = request.target.port;
    let name = match &request.target.host {
        Host::Ip(address) => Ok(*address),
        Host::Name(name) => match hostname(name) {
            Some(name) => ip_literal(name).ok_or(name),
            None => return refuse(request, ReplyCode::HostUnreachable, output, cx),
        },
    };
    match name {
        Ok(address) if matches!(purpose, Purpose::ResolvePtr) => {
            let asked = SocketAddr::new(address.to_canonical(), port);
            let decision = rules::decide(&mut request, source.ip(), asked, cx.shared);
            rules::act_on(&mut request, decision, cx.shared);
            match decision.allow {
                true => reverse::begin(request, address, cx),
                false => refuse(request, ReplyCode::NotAllowed, output, cx),
            }
        }
        Err(_) if matches!(purpose, Purpose::ResolvePtr) => {
            refuse(request, ReplyCode::AddressTypeNotSupported, output, cx)
        }
        Ok(address) => {
            let addresses = (vec![SocketAddr::new(address, port)], false);
            purpose.go_on(request, addresses, source, client, output, cx)
        }
        Err(name) => {
            let answer = cx.dns.ask(cx.key, name, port, cx.now);
            let code = ReplyCode::HostUnreachable;
            Next::Go(State::Resolve(Box::new(Resolve { request, purpose, answer, code })))
        }
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

    pub fn request_mut(&mut self) -> &mut ActiveRequest {
        &mut self.request
    }

    /// Withdraws the question and returns the request.
    pub fn into_request<S: Stream>(self, cx: &mut Context<'_, S>) -> Box<ActiveRequest> {
        withdraw(&self.request, cx);
        self.request
    }

    pub fn step<S: Stream>(
        mut self: Box<Self>,
        source: SocketAddr,
        client: &Endpoint<S>,
        output: &mut Buffer,
        cx: &mut Context<'_, S>,
    ) -> Next<S> {
        let Some(Resolution { addresses, more, .. }) = self.answer.take() else {
            return Next::Wait(State::Resolve(self));
        };
        match addresses {
            Ok(addresses) => {
                let Resolve { request, purpose, .. } = *self;
                purpose.go_on(request, (addresses, more), source, client, output, cx)
            }
            Err(error) => {
                let code = match error {
                    ResolveError::NotFound => self.code,
                    ResolveError::Failed => ReplyCode::GeneralFailure,
                };
                refuse(self.request, code, output, cx)
            }
        }
    }

    /// The name was not found in time.
    pub fn expire<S: Stream>(self, output: &mut Buffer, cx: &mut Context<'_, S>) -> Next<S> {
        let code = self.code;
        refuse(self.into_request(cx), code, output, cx)
    }
}
