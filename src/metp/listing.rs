//! Bodies of multi-line replies, made in chunks as the client reads them.
//!
//! A listing holds a position, not a copy: thousands of records or connections cost no memory until they are sent, and
//! those that have ended meanwhile are left out.

use super::{View, report};
use crate::state::access_log::RecordId;
use crate::state::control::Page;
use crate::state::users::UserId;
use crate::state::{self, Shared};
use metp_protocol::{END_OF_BODY, LogSelection, ended, user_line};

/// The size from which on a chunk is complete, in octets.
const CHUNK_BYTES: usize = 8 * 1024;
/// Rows that are looked at for a chunk, at most, since not every row becomes a line.
const ROWS_PER_CHUNK: usize = 1024;

/// A body that is being sent.
pub enum Listing {
    /// Lines that are ready; `None` once they have been sent.
    Text(Option<String>),
    /// `GET_LOGS`
    Logs(Records),
    /// `USERS`: the account listed last.
    Users(Option<UserId>),
    /// `USER-METRICS`: the account listed last.
    Usage(Option<UserId>),
    /// `LIMITS`: whether the line of all accounts has been listed, and the account listed last.
    Limits(Option<Option<UserId>>),
    /// `RULES`: the place of the rule that is next. If they are changed meanwhile, the list goes on in the new ones.
    Rules(usize),
    /// `CONNECTIONS`: where the next page begins, and whose connections. The server is asked for its lines.
    Connections(Option<Page>, Option<UserId>),
}

/// The position within the records that are wanted.
pub struct Records {
    next: RecordId,
    /// Exclusive end: the first record that was not there when the command came.
    end: RecordId,
    user: Option<Vec<u8>>,
    /// Records still to be found, from the end backwards, before the first is listed.
    seek: Option<u64>,
}

/// A chunk of a body.
pub struct Piece {
    /// Whole lines, each with its LF.
    pub text: String,
    /// Whether it is the last chunk.
    pub ends: bool,
}

/// The result of one row.
enum Step {
    Line(String),
    /// No line for this row; there are more rows.
    Nothing,
    End,
}

impl Listing {
    /// The records that are wanted, of those that are there now.
    pub fn logs(selection: LogSelection, shared: &Shared) -> Self {
        let (oldest, end) = (shared.access_log.oldest(), shared.access_log.end());
        let LogSelection { last, user } = selection;
        let next = if last.is_some() { end } else { oldest };
        Listing::Logs(Records { next, end, user, seek: last })
    }

    /// The next chunk. The last one ends with the terminator.
    pub fn piece(&mut self, view: &View<'_>) -> Piece {
        let mut text = String::new();
        for _ in 0..ROWS_PER_CHUNK {
            match self.step(view) {
                Step::Line(lines) => text.push_str(&lines),
                Step::Nothing => {}
                Step::End => {
                    text.push_str(&ended(END_OF_BODY.to_owned()));
                    return Piece { text, ends: true };
                }
            }
            if text.len() >= CHUNK_BYTES {
                break;
            }
        }
        Piece { text, ends: false }
    }

    fn step(&mut self, view: &View<'_>) -> Step {
        let users = &view.shared.process.users;
        match self {
            Listing::Text(lines) => lines.take().map_or(Step::End, Step::Line),
            Listing::Logs(records) => records.step(view.shared),
            Listing::Users(last) => match users.after(*last) {
                Some((id, account)) => {
                    *last = Some(id);
                    Step::Line(ended(user_line(&account.name, account.role)))
                }
                None => Step::End,
            },
            Listing::Usage(last) => match users.after_any(*last) {
                Some((id, account)) => {
                    *last = Some(id);
                    if state::report::shows_usage(&view.shared.process, id) {
                        Step::Line(state::report::usage(
                            account,
                            users.is_locked(id),
                            view.now,
                            view.shared.time,
                        ))
                    } else {
                        Step::End
                    }
                }
                None => Step::End,
            },
            Listing::Limits(last) => {
                let Some(before) = *last else {
                    *last = Some(None);
                    return Step::Line(report::limits_of_all(users));
                };
                match users.after(before) {
                    Some((id, _)) => {
                        *last = Some(Some(id));
                        Step::Line(report::limits(users, id).unwrap_or_default())
                    }
                    None => Step::End,
                }
            }
            Listing::Rules(place) => {
                let mut rules = view.shared.process.rules.iter().flat_map(|it| it.from(*place));
                match rules.next() {
                    Some(row) => {
                        *place += 1;
                        Step::Line(report::rule(row))
                    }
                    None => Step::End,
                }
            }
            Listing::Connections(..) => Step::Nothing,
        }
    }
}

impl Records {
    fn step(&mut self, shared: &Shared) -> Step {
        let log = &shared.access_log;
        if let Some(left) = self.seek {
            let before = self.next.before().filter(|id| left > 0 && *id >= log.oldest());
            match before {
                Some(id) => {
                    self.next = id;
                    let found =
                        log.at_or_after(id).is_some_and(|(_, record)| self.wants(&record.user));
                    self.seek = Some(left - u64::from(found));
                }
                None => self.seek = None,
            }
            return Step::Nothing;
        }
        match log.at_or_after(self.next) {
            Some((id, record)) if id < self.end => {
                self.next = id.next();
                if self.wants(&record.user) {
                    Step::Line(ended(record.line()))
                } else {
                    Step::Nothing
                }
            }
            _ => Step::End,
        }
    }

    fn wants(&self, user: &[u8]) -> bool {
        self.user.as_ref().is_none_or(|wanted| wanted == user)
    }
}
