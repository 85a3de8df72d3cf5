//! Hello, Auth, Verify, Request: from buffers to a decision. No sockets here.
//!
//! The first byte of a client decides which protocol it speaks: 05 is SOCKS5, 04 SOCKS4, a capital letter HTTP. There
//! is no state for that: the bytes stay in the input until a message is whole, and are parsed from their start each time.
//! A reply is appended to the output and sent when the next message of the client is incomplete, so that a client which
//! sends everything at once is answered at once.
//!
//! Who needs no login is decided where it matters, and there alone: a client of SOCKS5 that offers a login, and gives a
//! good one, is never compared with the trusted networks.

mod http;
mod socks4;

use std::net::SocketAddr;
use std::rc::Rc;

use super::associate;
use super::close_reason::CloseReason;
use super::dialect::Dialect;
use super::request::{ActiveRequest, refuse, refuse_beyond};
use super::resolve::{self, Purpose};
use super::{Context, Next, State};
use crate::proto::foreign::protocol;
use crate::proto::rules::Commands;
use crate::proto::socks4::VERSION as SOCKS4;
use crate::proto::socks5::{
    Command, Credentials, Error, Hello, METHOD_NO_ACCEPTABLE, METHOD_NO_AUTHENTICATION,
    METHOD_PASSWORD, Reply, ReplyCode, Request, Target, auth_status, method_choice,
};
use crate::reactor::buffer::Buffer;
use crate::reactor::endpoint::{Endpoint, Stream};
use crate::state::diagnostics::not_let_in;
use crate::state::service::Service;
use crate::state::users::{SessionGuard, UserId};
use crate::state::verifier::{Asked, PendingLogin, Question, Verdict};

/// The first message of a client, in any of the protocols.
pub fn hello<S: Stream>(
    source: SocketAddr,
    client: &Endpoint<S>,
    input: &mut Buffer,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    match input.bytes().first() {
        Some(&SOCKS4) => socks4::request(source, client, input, output, cx),
        Some(b'A'..=b'Z') => http::head(source, client, input, output, cx),
        _ => methods(source, input, output, cx),
    }
}

/// RFC 1928 §3. The choice is the server's: user/password if that is offered, so that the account is known; else no
/// login, for clients that need none.
fn methods<S: Stream>(
    source: SocketAddr,
    input: &mut Buffer,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    let (with_password, without, taken) = match Hello::parse(input.bytes()) {
        Ok(Some((Hello { methods }, taken))) => {
            let offers = |method| methods.contains(&method);
            (offers(METHOD_PASSWORD), offers(METHOD_NO_AUTHENTICATION), taken)
        }
        Ok(None) => return Next::Wait(State::Hello),
        Err(_) => return silence(source, input, cx),
    };
    input.consume(cx.pool, taken);
    if with_password {
        output.append(&method_choice(METHOD_PASSWORD));
        return Next::Go(State::Auth);
    }
    if without
        && is_trusted(source, cx)
        && let Some(guard) = open_session(UserId::TRUSTED, cx)
    {
        output.append(&method_choice(METHOD_NO_AUTHENTICATION));
        return Next::Go(State::Request(guard));
    }
    output.append(&method_choice(METHOD_NO_ACCEPTABLE));
    not_let_in(Service::Socks, source, "no-acceptable-method");
    Next::linger(cx.now, None, CloseReason::Unauthorized)
}

/// A protocol that is not served: the client would not understand a reply.
fn silence<S: Stream>(source: SocketAddr, input: &Buffer, cx: &mut Context<'_, S>) -> Next<S> {
    let spoken = protocol(input.bytes()).unwrap_or("other-protocol");
    not_let_in(Service::Socks, source, spoken);
    Next::linger(cx.now, None, CloseReason::Protocol)
}

/// RFC 1929. An unknown name and a wrong password get the same answer after the same work.
pub fn auth<S: Stream>(
    source: SocketAddr,
    input: &mut Buffer,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    let (asked, taken) = match Credentials::parse(input.bytes()) {
        Ok(Some((Credentials { name, password }, taken))) => {
            let asked = match ask(source, name, password, cx) {
                Asked::Done(verdict) => Ok(decide(source, name, verdict, cx)),
                Asked::Pending(ticket) => Err(PendingLogin::new(name, ticket)),
            };
            (asked, taken)
        }
        Ok(None) => return Next::Wait(State::Auth),
        Err(_) => {
            not_let_in(Service::Socks, source, "bad-login");
            output.append(&auth_status(false));
            return Next::linger(cx.now, None, CloseReason::Protocol);
        }
    };
    input.consume(cx.pool, taken);
    match asked {
        Ok(Some(guard)) => status(guard, output, cx),
        Ok(None) => overloaded(),
        Err(login) => {
            let verification = Verification { login, target: None };
            Next::Go(State::Verify(Box::new(verification)))
        }
    }
}

/// A login whose verdict is outstanding, and what it is for.
pub struct Verification {
    login: PendingLogin,
    /// That of a CONNECT of HTTP, which came together with the login; `None` for SOCKS5.
    target: Option<Target>,
}

impl Verification {
    /// The verdict has come.
    pub fn verified(&mut self, verdict: Verdict) {
        self.login.verified(verdict);
    }
}

/// The answer to the credentials, once the verdict has come. What the client sends meanwhile is read afterwards.
pub fn verify<S: Stream>(
    source: SocketAddr,
    verification: Box<Verification>,
    client: &Endpoint<S>,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    let Some(verdict) = verification.login.verdict(&cx.shared.process.users) else {
        return Next::Wait(State::Verify(verification));
    };
    let Verification { login, target } = *verification;
    let Some(guard) = decide(source, login.name(), verdict, cx) else { return overloaded() };
    match target {
        None => status(guard, output, cx),
        Some(target) => http::connect(source, guard, target, client, output, cx),
    }
}

/// Whether clients with this address need no login.
fn is_trusted<S: Stream>(source: SocketAddr, cx: &Context<'_, S>) -> bool {
    cx.shared.process.settings.trust.includes(source.ip())
}

/// Asks whose name and password these are. An empty password is no login at all for a client that needs none: those of
/// Java send the name of their user and an empty password unless they are told a login. No account has one.
fn ask<S: Stream>(
    source: SocketAddr,
    name: &[u8],
    password: &[u8],
    cx: &mut Context<'_, S>,
) -> Asked {
    let trusted = is_trusted(source, cx);
    if password.is_empty() && trusted {
        return Asked::Done(Verdict::Accepted(UserId::TRUSTED));
    }
    let process = &mut cx.shared.process;
    let (key, service, source, now) = (cx.key, Service::Socks, source.ip(), cx.now);
    let any_will_do = trusted && process.settings.trust.any_login;
    let question = Question { key, service, source, name, password, any_will_do, now };
    cx.verifier.ask(&question, &mut process.users)
}

/// Lets the client in, or not. `trust-any-login` lets in who needs no login and has given a wrong one. `None`: nobody has
/// looked at the login.
fn decide<S: Stream>(
    source: SocketAddr,
    name: &[u8],
    verdict: Verdict,
    cx: &mut Context<'_, S>,
) -> Option<Option<SessionGuard>> {
    let any_login = cx.shared.process.settings.trust.any_login;
    let user = match verdict {
        Verdict::Accepted(user) => Some(user),
        Verdict::Refused | Verdict::Shed if any_login && is_trusted(source, cx) => {
            Some(UserId::TRUSTED)
        }
        Verdict::Refused => None,
        Verdict::Shed => {
            cx.shared.login_shed(Service::Socks, source);
            return None;
        }
    };
    // Who needs no login has not failed with one.
    if user != Some(UserId::TRUSTED) {
        cx.shared.record_login(Service::Socks, source, name, user.is_some(), cx.now);
    }
    Some(user.and_then(|user| open_session(user, cx)))
}

/// Too many logins wait: the end, without a status that would say that this one is wrong.
fn overloaded<S: Stream>() -> Next<S> {
    Next::end(None, CloseReason::Overloaded)
}

/// Counts a session of an account. `None` if it has just been deleted.
fn open_session<S: Stream>(user: UserId, cx: &mut Context<'_, S>) -> Option<SessionGuard> {
    cx.shared.process.users.open_session(user, cx.now)
}

/// RFC 1929: the status, and either the request or the end.
fn status<S: Stream>(
    guard: Option<SessionGuard>,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    output.append(&auth_status(guard.is_some()));
    match guard {
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
    let asked = Asking { guard, dialect: Dialect::Socks5, command, target };
    serve(asked, source, client, output, cx)
}

/// What a client that is let in asks for.
struct Asking {
    guard: SessionGuard,
    dialect: Dialect,
    command: Command,
    target: Target,
}

/// Serves a request, whatever protocol it came in.
fn serve<S: Stream>(
    asking: Asking,
    source: SocketAddr,
    client: &Endpoint<S>,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    let Asking { guard, dialect, command, target } = asking;
    let Some(account) = cx.shared.process.users.get(guard.user) else {
        return Next::end(None, CloseReason::UserDeleted);
    };
    let (name, settings) = (Rc::clone(&account.name), &cx.shared.process.settings);
    let served = match guard.open_request(source.ip(), cx.now, cx.shared.time) {
        Ok(served) => Some(served),
        Err(reached) => {
            let target = match command {
                Command::UdpAssociate => associate::destination(),
                _ => target,
            };
            let asked = (commands(command), target);
            let request = Box::new(ActiveRequest::new(guard, name, dialect, asked, cx.now));
            return refuse_beyond(reached, request, output, cx);
        }
    };
    let request = |target| {
        let asked = (commands(command), target);
        let mut request = ActiveRequest::new(guard, name, dialect, asked, cx.now);
        request.served = served;
        Box::new(request)
    };
    let purpose = match command {
        Command::Connect => Purpose::Connect,
        Command::Bind if settings.bind.enabled => Purpose::Bind,
        Command::Resolve if settings.resolve => Purpose::Resolve,
        Command::ResolvePtr if settings.resolve => Purpose::ResolvePtr,
        Command::UdpAssociate => {
            let request = request(associate::destination());
            return associate::begin(request, &target, source, client, output, cx);
        }
        Command::Bind | Command::Resolve | Command::ResolvePtr | Command::Unknown(_) => {
            return refuse(request(target), ReplyCode::CommandNotSupported, output, cx);
        }
    };
    resolve::begin(request(target), purpose, source, client, output, cx)
}

/// What the rules call a command.
fn commands(command: Command) -> Commands {
    match command {
        Command::Connect | Command::Unknown(_) => Commands::CONNECT,
        Command::Bind => Commands::BIND,
        Command::UdpAssociate => Commands::UDP,
        Command::Resolve | Command::ResolvePtr => Commands::RESOLVE,
    }
}
