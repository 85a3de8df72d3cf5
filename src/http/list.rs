//! Lists as JSON: an array with one object in each line, made in pieces as the client reads them. The keys are those of
//! METP's lines, with underscores.

use std::task::Poll;
use std::time::{Duration, UNIX_EPOCH};

use metp_protocol::text::Escaped;
use metp_protocol::timestamp::Timestamp;

use super::Context;
use crate::state::access_log::FinishedRequest;
use crate::state::control::{ControlAnswer, ControlRequest, Page};
use crate::state::failed_logins::FailedLogin;
use crate::state::json;
use crate::state::report;
use crate::state::users::UserId;

/// The size from which on a piece is complete, in bytes.
const PIECE_BYTES: usize = 8 * 1024;

/// A list that is being sent.
pub struct List {
    rows: Rows,
    /// Whether the beginning has been sent, and whether a row has.
    begun: bool,
    has_rows: bool,
    ended: bool,
}

/// What is listed, and the position in it.
enum Rows {
    /// Accounts in the order of their addition: the one listed last, and the first that is not listed, since a name that
    /// is deleted and added again meanwhile would come twice.
    Users(Option<UserId>, UserId),
    /// Connections: where the next page begins.
    Connections(Option<Page>),
    /// Requests that are finished, the newest first.
    Requests(std::vec::IntoIter<FinishedRequest>),
    /// Failed logins, the newest first.
    FailedLogins(std::vec::IntoIter<FailedLogin>),
    /// No more.
    End,
}

impl List {
    fn new(rows: Rows) -> Self {
        List { rows, begun: false, has_rows: false, ended: false }
    }

    /// The accounts.
    pub fn users(cx: &Context<'_>) -> Self {
        List::new(Rows::Users(None, cx.shared.process.users.next_id()))
    }

    /// The connections.
    pub fn connections() -> Self {
        List::new(Rows::Connections(None))
    }

    /// The newest requests that are finished now.
    pub fn requests(cx: &Context<'_>) -> Self {
        let rows: Vec<_> = cx.shared.access_log.newest_finished().cloned().collect();
        List::new(Rows::Requests(rows.into_iter()))
    }

    /// The newest failed logins now.
    pub fn failed_logins(cx: &Context<'_>) -> Self {
        let rows: Vec<_> = cx.shared.failed_logins.newest_first().cloned().collect();
        List::new(Rows::FailedLogins(rows.into_iter()))
    }

    /// The next piece, which may be empty. `None`: there is no other.
    pub fn piece(&mut self, cx: &mut Context<'_>) -> Option<String> {
        if self.ended {
            return None;
        }
        let mut text = String::new();
        if !self.begun {
            (self.begun, text) = (true, "[".to_owned());
        }
        while text.len() < PIECE_BYTES {
            let Some(rows) = self.rows.next(cx) else {
                self.ended = true;
                text.push_str("\n]\n");
                break;
            };
            let looked_further = rows.is_empty();
            for row in rows {
                text.push_str(if self.has_rows { ",\n" } else { "\n" });
                text.push_str(&row);
                self.has_rows = true;
            }
            // A page of connections without a row has cost as much as one with many.
            if looked_further {
                break;
            }
        }
        Some(text)
    }
}

impl Rows {
    /// The next rows, some or none; `None` at the end.
    fn next(&mut self, cx: &mut Context<'_>) -> Option<Vec<String>> {
        let row = match self {
            Rows::Users(last, end) => {
                let users = &cx.shared.process.users;
                let (id, account) = users.after_any_before(*last, *end)?;
                *last = Some(id);
                if !report::shows_usage(&cx.shared.process, id) {
                    return Some(Vec::new());
                }
                let locked = users.is_locked(id);
                json::object(report::usage(account, locked, cx.now, cx.shared.time).trim_end())
            }
            Rows::Connections(page) => {
                let request = ControlRequest::Connections { page: *page, of: None };
                let answer = cx.control.ask(request, &cx.shared.process);
                let Poll::Ready(ControlAnswer::Connections { rows, next }) = answer else {
                    return None;
                };
                let rows: Vec<String> =
                    rows.iter().map(|row| json::object(&row.to_string())).collect();
                match next {
                    Some(next) => *page = Some(next),
                    None => *self = Rows::End,
                }
                return Some(rows);
            }
            Rows::Requests(rows) => rows.next()?.json(),
            Rows::FailedLogins(rows) => failed_login(&rows.next()?),
            Rows::End => return None,
        };
        Some(vec![row])
    }
}

/// A name may be empty, or a hyphen, which METP would show as what is not known.
fn failed_login(row: &FailedLogin) -> String {
    let FailedLogin { time, service, source, user, count } = row;
    let time = Timestamp::from(UNIX_EPOCH + Duration::from_secs(*time));
    let mut object = json::object(&format!("time={time} service={service} source={source}"));
    object.pop();
    object.push_str(",\"user\":");
    json::string(&Escaped(user).to_string(), &mut object);
    object + &format!(",\"count\":{count}}}")
}
