//! Replies to changes of accounts that are not on the disk yet (§5.1).
//!
//! A session goes on with further changes meanwhile, so that many of them are written together; anything else waits
//! until all replies are sent. Replies come in the order of their commands.

use std::collections::VecDeque;

use super::{Context, Session, Stage};
use crate::reactor::endpoint::Stream;
use crate::state::changes::ChangeNumber;
use metp_protocol::{Command, Response, Role};

/// Changes of one session that may be on their way to the disk.
const MOST: usize = 64;

/// Replies that wait, in their order.
#[derive(Default)]
pub(super) struct HeldReplies(VecDeque<Held>);

/// A reply that waits for its change, or for those before it.
struct Held {
    /// The change; `None`: it is done.
    number: Option<ChangeNumber>,
    response: Response,
}

impl HeldReplies {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps a reply until its change is on the disk; without a number, until those before it are sent.
    pub(super) fn push(&mut self, number: Option<ChangeNumber>, response: Response) {
        self.0.push_back(Held { number, response });
    }

    /// The next reply that need not wait any more.
    pub(super) fn take(&mut self) -> Option<Response> {
        self.0.front().filter(|held| held.number.is_none())?;
        self.0.pop_front().map(|held| held.response)
    }

    /// A change is on the disk, or has been undone.
    fn settle(&mut self, number: ChangeNumber, outcome: Result<(), String>) {
        if let Some(held) = self.0.iter_mut().find(|held| held.number == Some(number)) {
            held.number = None;
            if let Err(cause) = outcome {
                held.response = Response::NotStored(cause);
            }
        }
    }
}

impl<S: Stream> Session<S> {
    /// A change that this session has made is on the disk, or has been undone for this cause.
    pub fn settled(&mut self, number: ChangeNumber, outcome: Result<(), String>) {
        self.held.settle(number, outcome);
    }

    /// Sends the replies that need not wait any more. `false`: there are none.
    pub(super) fn release(&mut self) -> bool {
        let mut released = false;
        while let Some(response) = self.held.take() {
            self.reply(&response);
            released = true;
        }
        released
    }

    /// Whether this line has to wait: for replies that are held, or, if it changes accounts, while the users file is
    /// being read again, or for a change that the same user has under way in another session.
    pub(super) fn has_to_wait(&self, line: &[u8], cx: &mut Context<'_>) -> bool {
        let Stage::Open(user) = self.stage else { return false };
        let reloading = cx.control.is_reloading();
        let process = &mut cx.shared.process;
        if self.held.is_empty() && !reloading && process.account_changes.is_empty() {
            return false;
        }
        let Some(account) = process.users.get(user) else { return !self.held.is_empty() };
        let role = account.role;
        match Command::parse(line, role) {
            Ok(command) if command.is_of_accounts() => {
                let waits = reloading || self.held.0.len() >= MOST;
                let own = role == Role::User;
                waits || own && process.account_changes.has_to_wait(user, cx.key)
            }
            _ => !self.held.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::users_file::{Change as FileChange, Edit};
    use crate::reactor::slab::Key;
    use crate::state::changes::{Changes, Undo};
    use crate::state::users::UserId;
    use crate::workers::users_file::Store;

    #[test]
    fn replies_come_in_the_order_of_their_commands() {
        let mut changes = Changes::default();
        let mut number = || {
            let edit = Edit { name: b"alice".as_slice().into(), change: FileChange::Lock(true) };
            let store = Store { edit, password: None };
            changes.push(Key::unpack(1), store, Undo::Lock(UserId::TRUSTED, false), None)
        };
        let (first, second) = (number(), number());
        let mut held = HeldReplies::default();
        held.push(Some(first), Response::Done);
        held.push(None, Response::Fixed);
        held.push(Some(second), Response::Done);
        assert!(held.take().is_none());
        held.settle(second, Err("disk full".to_owned()));
        assert!(held.take().is_none());
        held.settle(first, Ok(()));
        let mut replies = Vec::new();
        while let Some(response) = held.take() {
            replies.push(response.to_string());
        }
        assert_eq!(
            replies,
            [
                "200 OK",
                "409 Conflict [FIXED] the users file is not changed here",
                "500 Internal Server Error [STORE] disk full",
            ]
        );
        assert!(held.is_empty());
    }
}
