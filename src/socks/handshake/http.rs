//! HTTP CONNECT (RFC 9110 §9.3.6): login and request in one head.

use std::net::SocketAddr;

use super::{
    Asking, Verification, ask, decide, is_trusted, open_session, overloaded, serve, silence,
};
use crate::proto::foreign::protocol;
use crate::proto::http::{Credentials, Error, Head, LONGEST_HEAD, Login, Status, refusal};
use crate::proto::socks5::{Command, Target};
use crate::reactor::buffer::Buffer;
use crate::reactor::endpoint::{Endpoint, Stream};
use crate::socks::close_reason::CloseReason;
use crate::socks::dialect::Dialect;
use crate::socks::{Context, Next, State};
use crate::state::diagnostics::not_let_in;
use crate::state::service::Service;
use crate::state::users::{SessionGuard, UserId};
use crate::state::verifier::{Asked, PendingLogin};

/// Bytes from which on the first words of a client show whether it speaks HTTP.
const TELLING_BYTES: usize = 16;

/// The head of a request. It may be longer than what the input takes at first.
pub fn head<S: Stream>(
    source: SocketAddr,
    client: &Endpoint<S>,
    input: &mut Buffer,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    if !cx.shared.process.settings.http_connect {
        return not_served(source, input, output, cx);
    }
    let (Head { target, login }, taken) = match Head::parse(input.bytes()) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => {
            input.make_room(LONGEST_HEAD);
            return Next::Wait(State::Hello);
        }
        Err(Error::Method) => {
            not_let_in(Service::Socks, source, "http-method");
            output.append(&refusal(
                Status::NotImplemented,
                "This is a proxy for SOCKS and for HTTP CONNECT; it forwards no other requests.",
            ));
            return Next::linger(cx.now, None, CloseReason::Protocol);
        }
        Err(Error::Malformed(fault)) => {
            not_let_in(Service::Socks, source, "bad-request");
            output.append(&refusal(Status::BadRequest, fault));
            return Next::linger(cx.now, None, CloseReason::Protocol);
        }
    };
    input.consume(cx.pool, taken);
    let guard = match login {
        Login::Basic(Credentials { name, password }) => match ask(source, &name, &password, cx) {
            Asked::Done(verdict) => match decide(source, &name, verdict, cx) {
                Some(guard) => guard,
                None => return overloaded(),
            },
            Asked::Pending(ticket) => {
                let login = PendingLogin::new(&name, ticket);
                let verification = Verification { login, target: Some(target) };
                return Next::Go(State::Verify(Box::new(verification)));
            }
        },
        Login::Missing if is_trusted(source, cx) => open_session(UserId::TRUSTED, cx),
        Login::Missing => {
            not_let_in(Service::Socks, source, "no-login");
            None
        }
        // As a wrong login: it may have been one.
        Login::Unusable => match is_trusted(source, cx) {
            true if cx.shared.process.settings.trust.any_login => open_session(UserId::TRUSTED, cx),
            _ => {
                not_let_in(Service::Socks, source, "bad-login");
                None
            }
        },
    };
    connect(source, guard, target, client, output, cx)
}

/// The login is decided: the request is served, or a login asked for.
pub fn connect<S: Stream>(
    source: SocketAddr,
    guard: Option<SessionGuard>,
    target: Target,
    client: &Endpoint<S>,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    let Some(guard) = guard else {
        output.append(&refusal(Status::LoginRequired, "This proxy needs the login of an account."));
        return Next::linger(cx.now, None, CloseReason::Unauthorized);
    };
    let asking = Asking { guard, dialect: Dialect::Http, command: Command::Connect, target };
    serve(asking, source, client, output, cx)
}

/// HTTP is off: clients that may use this server learn why it does not work, others nothing.
fn not_served<S: Stream>(
    source: SocketAddr,
    input: &Buffer,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    if is_trusted(source, cx) {
        match protocol(input.bytes()) {
            Some("http") => {
                output.append(&refusal(
                    Status::BadRequest,
                    "This is a SOCKS proxy; HTTP CONNECT is turned off (http-connect).",
                ));
            }
            None if input.bytes().len() < TELLING_BYTES => return Next::Wait(State::Hello),
            _ => {}
        }
    }
    silence(source, input, cx)
}
