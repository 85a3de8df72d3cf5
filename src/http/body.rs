//! Bodies of responses, made in pieces.

use std::task::Poll;

use super::Context;
use super::exposition::{self, USER_METRICS};
use crate::state::Shared;
use crate::state::control::{ControlAnswer, ControlRequest};
use crate::state::samples::{SampleSources, samples};
use crate::state::users::UserId;

/// The size from which on a piece is complete, in bytes.
const PIECE_BYTES: usize = 8 * 1024;
/// Accounts that are looked at for a piece, at most, since not each of them has a line.
const ACCOUNTS_PER_PIECE: usize = 1024;

/// A body that is being sent.
pub enum Body {
    /// What is ready; `None` once it has been sent.
    Text(Option<String>),
    /// The figures of accounts: the metric, and the account listed last. Those of a metric stand together.
    Users(usize, Option<UserId>),
}

impl Body {
    /// All samples of the server.
    pub fn metrics(cx: &mut Context<'_>) -> Self {
        let answer = cx.control.ask(ControlRequest::Usage, &cx.shared.process);
        let Poll::Ready(ControlAnswer::Usage(status, usage)) = answer else {
            return Body::Text(None);
        };
        let sources = SampleSources {
            shared: cx.shared,
            pool: cx.pool,
            status: &status,
            process_usage: Some(usage),
            now: cx.now,
        };
        Body::Text(Some(exposition::text(&samples(&sources))))
    }

    /// What browsers ask about each URL: everything goes through the proxy but what is on their own machine.
    pub fn pac(proxy: &str) -> Self {
        Body::Text(Some(format!(
            "function FindProxyForURL(url, host) {{\n\
             \x20   if (isPlainHostName(host) || shExpMatch(host, \"127.*\") || host == \"[::1]\") {{\n\
             \x20       return \"DIRECT\";\n\
             \x20   }}\n\
             \x20   return \"SOCKS5 {proxy}; SOCKS {proxy}\";\n\
             }}\n"
        )))
    }

    /// The figures of accounts.
    pub fn users() -> Self {
        Body::Users(0, None)
    }

    /// The next piece. `None`: there is no other.
    pub fn piece(&mut self, shared: &Shared) -> Option<String> {
        let (place, last) = match self {
            Body::Text(text) => return text.take(),
            Body::Users(place, last) => (place, last),
        };
        let mut text = String::new();
        for _ in 0..ACCOUNTS_PER_PIECE {
            let Some(metric) = USER_METRICS.get(*place) else { break };
            if last.is_none() {
                exposition::header(&metric.metric, &mut text);
            }
            match shared.process.users.after_any(*last) {
                Some((id, account)) => {
                    *last = Some(id);
                    (metric.write)(account, &mut text);
                }
                None => (*place, *last) = (*place + 1, None),
            }
            if text.len() >= PIECE_BYTES {
                break;
            }
        }
        let over = *place >= USER_METRICS.len();
        (!over || !text.is_empty()).then_some(text)
    }
}
