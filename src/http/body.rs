//! Bodies of responses, made in pieces.

use std::borrow::Cow;
use std::task::Poll;

use super::Context;
use super::exposition::{self, USER_METRICS};
use super::list::List;
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
    Text(Option<Cow<'static, str>>),
    /// The figures of accounts.
    Users(UserFigures),
    /// A list as JSON.
    List(List),
}

/// How far the figures of accounts have been made. Those of a metric stand together.
pub struct UserFigures {
    /// The number of the metric.
    metric: usize,
    /// The account listed last.
    last: Option<UserId>,
    /// The first account that is not listed: a name that is deleted and added again meanwhile would come twice.
    end: UserId,
}

impl Body {
    /// All samples of the server.
    pub fn metrics(cx: &mut Context<'_>) -> Self {
        let text = of_samples(cx, |sources| exposition::text(&samples(sources)));
        Body::Text(text.map(Cow::Owned))
    }

    /// What browsers ask about each URL: everything goes through the proxy but what is on their own machine.
    pub fn pac(proxy: &str) -> Self {
        format!(
            "function FindProxyForURL(url, host) {{\n\
             \x20   if (isPlainHostName(host) || shExpMatch(host, \"127.*\") || host == \"[::1]\") {{\n\
             \x20       return \"DIRECT\";\n\
             \x20   }}\n\
             \x20   return \"SOCKS5 {proxy}; SOCKS {proxy}\";\n\
             }}\n"
        )
        .into()
    }

    /// The figures of accounts.
    pub fn users(shared: &Shared) -> Self {
        Body::Users(UserFigures::new(shared))
    }

    /// The next piece. `None`: there is no other.
    pub fn piece(&mut self, cx: &mut Context<'_>) -> Option<Cow<'static, str>> {
        match self {
            Body::Text(text) => text.take(),
            Body::Users(figures) => figures.piece(cx.shared).map(Cow::Owned),
            Body::List(list) => list.piece(cx).map(Cow::Owned),
        }
    }

    /// The number of its bytes, if that is known.
    pub fn length(&self) -> Option<usize> {
        match self {
            Body::Text(text) => text.as_ref().map(|text| text.len()),
            Body::Users(_) | Body::List(_) => None,
        }
    }
}

/// What can be made of the sources of samples now. `None`: the server has no answer in place.
pub fn of_samples<T>(
    cx: &mut Context<'_>,
    make: impl FnOnce(&SampleSources<'_>) -> T,
) -> Option<T> {
    let answer = cx.control.ask(ControlRequest::Usage, &cx.shared.process);
    let Poll::Ready(ControlAnswer::Usage(status, usage)) = answer else { return None };
    Some(make(&SampleSources {
        shared: cx.shared,
        pool: cx.pool,
        status: &status,
        process_usage: Some(usage),
        now: cx.now,
    }))
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Body::Text(Some(text.into()))
    }
}

impl UserFigures {
    fn new(shared: &Shared) -> Self {
        UserFigures { metric: 0, last: None, end: shared.process.users.next_id() }
    }

    /// The next piece. `None`: there is no other.
    fn piece(&mut self, shared: &Shared) -> Option<String> {
        let mut text = String::new();
        for _ in 0..ACCOUNTS_PER_PIECE {
            let Some(metric) = USER_METRICS.get(self.metric) else { break };
            if self.last.is_none() {
                exposition::header(&metric.metric, &mut text);
            }
            match shared.process.users.after_any_before(self.last, self.end) {
                Some((id, account)) => {
                    self.last = Some(id);
                    (metric.write)(account, shared.time, &mut text);
                }
                None => (self.metric, self.last) = (self.metric + 1, None),
            }
            if text.len() >= PIECE_BYTES {
                break;
            }
        }
        let over = self.metric >= USER_METRICS.len();
        (!over || !text.is_empty()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use metp_protocol::Role;

    use super::*;
    use crate::state::settings::Settings;
    use crate::state::users::Users;

    fn add(shared: &mut Shared, name: &str) {
        let users = &mut shared.process.users;
        let user = users.add(name.as_bytes(), b"pw", Role::User).expect("free");
        users.get(user).expect("there").usage.up.set(1);
    }

    fn rest(figures: &mut UserFigures, shared: &Shared) -> String {
        std::iter::from_fn(|| figures.piece(shared)).collect()
    }

    /// Between two pieces accounts come and go.
    #[test]
    fn accounts_that_come_meanwhile_are_not_listed() {
        let mut shared = Shared::new(Settings::default(), Users::default());
        for number in 0..3000 {
            add(&mut shared, &format!("u{number}"));
        }
        let mut figures = UserFigures::new(&shared);
        let mut text = figures.piece(&shared).expect("a piece");
        for name in ["u0", "u2999"] {
            let users = &mut shared.process.users;
            users.delete(users.find(name.as_bytes()).expect("there"));
            add(&mut shared, name);
        }
        shared.process.users.get(UserId::TRUSTED).expect("there").usage.up.set(1);
        text += &rest(&mut figures, &shared);
        let open: Vec<&str> =
            text.lines().filter(|line| line.starts_with("socks5d_user_connections{")).collect();
        assert_eq!(open.len(), 2999, "2998 that have stayed, and the trusted ones");
        assert_eq!(open.last(), Some(&r#"socks5d_user_connections{user="-"} 0"#));
        let up = r#"socks5d_user_payload_bytes_total{user="u0",direction="up"}"#;
        assert_eq!(text.matches(up).count(), 1);
        let again = rest(&mut UserFigures::new(&shared), &shared);
        assert!(again.contains(r#"connections{user="u0"}"#), "the next one has it");
    }
}
