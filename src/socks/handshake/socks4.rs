//! SOCKS4 and 4A: one message, and no login. So it is for clients that need none.

use std::net::SocketAddr;

use super::{Asking, is_trusted, open_session, serve};
use crate::proto::socks4::Request;
use crate::reactor::buffer::Buffer;
use crate::reactor::endpoint::{Endpoint, Stream};
use crate::socks::close_reason::CloseReason;
use crate::socks::dialect::{Dialect, socks4_refusal};
use crate::socks::{Context, Next, State};
use crate::state::diagnostics::not_let_in;
use crate::state::service::Service;
use crate::state::users::UserId;
use metp_protocol::text::Escaped;

/// A request. Nothing of it is read before it is certain that the client may make one.
pub fn request<S: Stream>(
    source: SocketAddr,
    client: &Endpoint<S>,
    input: &mut Buffer,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    if !is_trusted(source, cx) {
        not_let_in(Service::Socks, source, "socks4");
        output.append(&socks4_refusal());
        return Next::linger(cx.now, None, CloseReason::Unauthorized);
    }
    let (command, target, taken) = match Request::parse(input.bytes()) {
        Ok(Some((Request { command, target, userid }, taken))) => {
            log::debug!("socks4: remote={source} userid=\"{}\"", Escaped(userid));
            (command, target, taken)
        }
        Ok(None) => return Next::Wait(State::Hello),
        Err(_) => {
            not_let_in(Service::Socks, source, "bad-request");
            output.append(&socks4_refusal());
            return Next::linger(cx.now, None, CloseReason::Protocol);
        }
    };
    input.consume(cx.pool, taken);
    let Some(guard) = open_session(UserId::TRUSTED, cx) else {
        return Next::end(None, CloseReason::UserDeleted);
    };
    serve(Asking { guard, dialect: Dialect::Socks4, command, target }, source, client, output, cx)
}
