//! RESOLVE_PTR (Tor's socks-extensions): from an address to its name.

use std::net::IpAddr;
use std::time::Instant;

use super::request::{ActiveRequest, answer, refuse};
use super::{Context, Next, State};
use crate::proto::socks5::{ReplyCode, name_reply};
use crate::reactor::buffer::Buffer;
use crate::reactor::endpoint::Stream;
use crate::workers::dns_cache::ResolveError;

/// A request whose address is being looked up.
pub struct Reverse {
    request: Box<ActiveRequest>,
    address: IpAddr,
    name: Option<Result<Box<str>, ResolveError>>,
}

/// Asks for the name of an address.
pub fn begin<S: Stream>(
    request: Box<ActiveRequest>,
    address: IpAddr,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    let address = address.to_canonical();
    cx.dns.ask_name(cx.key, address);
    Next::Go(State::Reverse(Box::new(Reverse { request, address, name: None })))
}

impl Reverse {
    /// When the request was complete.
    pub fn began(&self) -> Instant {
        self.request.began()
    }

    /// The name has come, or the reason why there is none.
    pub fn named(&mut self, name: Result<Box<str>, ResolveError>) {
        self.name = Some(name);
    }

    pub fn request(&self) -> &ActiveRequest {
        &self.request
    }

    pub fn request_mut(&mut self) -> &mut ActiveRequest {
        &mut self.request
    }

    /// Withdraws the question and returns the request.
    pub fn into_request<S: Stream>(self, cx: &mut Context<'_, S>) -> Box<ActiveRequest> {
        cx.dns.cancel_name(cx.key, self.address);
        self.request
    }

    pub fn step<S: Stream>(
        mut self: Box<Self>,
        output: &mut Buffer,
        cx: &mut Context<'_, S>,
    ) -> Next<S> {
        match self.name.take() {
            None => Next::Wait(State::Reverse(self)),
            Some(Ok(name)) => answer(self.request, &name_reply(name.as_bytes()), output, cx),
            Some(Err(ResolveError::NotFound)) => {
                refuse(self.request, ReplyCode::HostUnreachable, output, cx)
            }
            Some(Err(ResolveError::Failed)) => {
                refuse(self.request, ReplyCode::GeneralFailure, output, cx)
            }
        }
    }

    /// The name was not found in time.
    pub fn expire<S: Stream>(self, output: &mut Buffer, cx: &mut Context<'_, S>) -> Next<S> {
        refuse(self.into_request(cx), ReplyCode::HostUnreachable, output, cx)
    }
}
