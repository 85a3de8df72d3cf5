//! Hello, Auth, Verify, Request: from buffers to a decision. No sockets here.
//!
//! Each step parses what has been received from its start. A reply is appended to the output and sent when the next
//! message of the client is incomplete, so that a client which sends everything at once is answered at once.

use std::net::SocketAddr;
use std::rc::Rc;

use super::associate;
use super::close_reason::CloseReason;
use super::request::{ActiveRequest, refuse};
use super::resolve::{self, Purpose};
use super::{Context, Next, State};
use crate::proto::foreign::protocol;
use crate::proto::socks5::{
    Command, Credentials, Error, Hello, METHOD_NO_ACCEPTABLE, METHOD_PASSWORD, Reply, ReplyCode,
    Request, auth_status, method_choice,
};
use crate::reactor::buffer::Buffer;
use crate::reactor::endpoint::{Endpoint, Stream};
use crate::state::diagnostics::not_let_in;
use crate::state::service::Service;
use crate::state::users::SessionGuard;
use crate::state::verifier::{Asked, PendingLogin, Verdict};

/// RFC 1928 §3. The choice is the server's: user/password, or nothing.
pub fn hello<S: Stream>(
    source: SocketAddr,
    input: &mut Buffer,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    let (offered, taken) = match Hello::parse(input.bytes()) {
        Ok(Some((hello, taken))) => (hello.methods.contains(&METHOD_PASSWORD), taken),
        Ok(None) => return Next::Wait(State::Hello),
        // Not SOCKS5: the client would not understand a reply.
        Err(_) => {
            let spoken = protocol(input.bytes()).unwrap_or("other-protocol");
            not_let_in(Service::Socks, source, spoken);
            return Next::linger(cx.now, None, CloseReason::Protocol);
        }
    };
    input.consume(cx.pool, taken);
    output.append(&method_choice(if offered { METHOD_PASSWORD } else { METHOD_NO_ACCEPTABLE }));
    if offered {
        return Next::Go(State::Auth);
    }
    not_let_in(Service::Socks, source, "no-acceptable-method");
    Next::linger(cx.now, None, CloseReason::Unauthorized)
}

/// RFC 1929. An unknown name and a wrong password get the same answer after the same work.
pub fn auth<S: Stream>(
    source: SocketAddr,
    input: &mut Buffer,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    let (next, taken) = match Credentials::parse(input.bytes()) {
        Ok(Some((Credentials { name, password }, taken))) => {
            let next = match cx.verifier.ask(cx.key, name, password, &cx.shared.process.users) {
                Asked::Done(verdict) => decided(source, name, verdict, output, cx),
                Asked::Pending(ticket) => {
                    Next::Go(State::Verify(Box::new(PendingLogin::new(name, ticket))))
                }
            };
            (next, taken)
        }
        Ok(None) => return Next::Wait(State::Auth),
        Err(_) => {
            not_let_in(Service::Socks, source, "bad-login");
            output.append(&auth_status(false));
            return Next::linger(cx.now, None, CloseReason::Protocol);
        }
    };
    input.consume(cx.pool, taken);
    next
}

/// The answer to the credentials, once the verdict has come. What the client sends meanwhile is read afterwards.
pub fn verify<S: Stream>(
    source: SocketAddr,
    login: Box<PendingLogin>,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    match login.verdict(&cx.shared.process.users) {
        None => Next::Wait(State::Verify(login)),
        Some(verdict) => decided(source, login.name(), verdict, output, cx),
    }
}

/// RFC 1929: the status, and either the request or the end.
fn decided<S: Stream>(
    source: SocketAddr,
    name: &[u8],
    user: Verdict,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    cx.shared.record_login(Service::Socks, source, name, user.is_some(), cx.now);
    output.append(&auth_status(user.is_some()));
    match user.and_then(|user| cx.shared.process.users.open_session(user, cx.now)) {
        Some(guard) => Next::Go(State::Request(guard)),
        None => Next::linger(cx.now, None, CloseReason::Unauthorized),
    }
}

/// RFC 1928 §4.
pub fn request<S: Stream>(
    source: SocketAddr,
    guard: SessionGuard,
    client: &Endpoint<S>,
    input: &mut Buffer,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    let (Request { command, target }, taken) = match Request::parse(input.bytes()) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Next::Wait(State::Request(guard)),
        Err(error) => {
            let code = match error {
                Error::AddressType(_) => ReplyCode::AddressTypeNotSupported,
                Error::Version(_) => ReplyCode::GeneralFailure,
            };
            not_let_in(Service::Socks, source, "bad-request");
            cx.shared.metrics.count_reply(code);
            output.append(&Reply::refusal(code).encode());
            return Next::linger(cx.now, None, CloseReason::Protocol);
        }
    };
    input.consume(cx.pool, taken);
    let Some(account) = cx.shared.process.users.get(guard.user) else {
        return Next::end(None, CloseReason::UserDeleted);
    };
    let name = Rc::clone(&account.name);
    if command == Command::UdpAssociate {
        let request = ActiveRequest::new(guard, name, associate::destination(), cx.now);
        return associate::begin(Box::new(request), &target, source, client, output, cx);
    }
    let request = Box::new(ActiveRequest::new(guard, name, target, cx.now));
    let purpose = match command {
        Command::Connect => Purpose::Connect,
        Command::Bind if cx.shared.process.settings.bind.enabled => Purpose::Bind,
        Command::UdpAssociate | Command::Bind | Command::Unknown(_) => {
            return refuse(request, ReplyCode::CommandNotSupported, output, cx);
        }
    };
    resolve::begin(request, purpose, source, client, output, cx)
}
