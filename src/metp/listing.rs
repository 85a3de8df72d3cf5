//! Bodies of multi-line replies, made piece by piece as the reader takes them.
//!
//! A listing holds a position, no copy: a thousand records cost nothing until they are sent, and what
//! has left the log meanwhile is left out.

use crate::ledger::Shared;
use crate::ledger::access_log::RecordId;
use crate::ledger::users::UserId;
use crate::proto::metp::{END_OF_BODY, MetricsBody, ended, user_line};

/// About how much text a piece has, in octets.
const PIECE: usize = 8 * 1024;

/// A body that is being sent.
pub enum Listing {
    /// `GET_METRICS`: the figures, until they have been listed.
    Metrics(Option<MetricsBody>),
    /// `GET_LOGS`: the next record, and the one that was opened after the command.
    Logs(RecordId, RecordId),
    /// `USERS`: the account listed last.
    Users(Option<UserId>),
}

/// Some lines of a body.
pub struct Piece {
    /// Whole lines, each with its LF.
    pub text: String,
    /// Whether these are the last.
    pub ends: bool,
}

impl Listing {
    /// The next lines. The last piece ends with the terminator.
    pub fn piece(&mut self, shared: &Shared) -> Piece {
        let mut text = String::new();
        while text.len() < PIECE {
            let Some(lines) = self.next(shared) else {
                text.push_str(&ended(END_OF_BODY.to_owned()));
                return Piece { text, ends: true };
            };
            text.push_str(&lines);
        }
        Piece { text, ends: false }
    }

    fn next(&mut self, shared: &Shared) -> Option<String> {
        match self {
            Listing::Metrics(metrics) => Some(metrics.take()?.lines().map(ended).concat()),
            Listing::Logs(next, end) => {
                let (id, record) = shared.access_log.at_or_after(*next)?;
                *next = id.next();
                (id < *end).then(|| ended(record.line()))
            }
            Listing::Users(last) => {
                let (id, account) = shared.users.after(*last)?;
                *last = Some(id);
                Some(ended(user_line(&account.name, account.role)))
            }
        }
    }
}
