//! The run queues: sessions that wait for a turn.
//!
//! Three queues, so that one kind of work does not wait for the others: interactive tunnels and handshakes, bulk
//! transfers, and commands (METP). Each gets a bounded number of turns in a turn of the loop.

use std::collections::VecDeque;

use super::entry::SessionEntry;
use super::service::{Class, row};
use crate::reactor::slab::Key;

/// Turns for interactive sessions in one turn of the loop: enough to amortise epoll_wait(2), few enough that a new
/// event does not wait for thousands of them.
const TALK_TURNS: usize = 64;
/// Turns for bulk transfers in one turn of the loop: they share what the others leave.
const BULK_TURNS: usize = 2;
/// Turns for sessions that give commands in one turn of the loop: they never hold up tunnels, however many there are.
const COMMAND_TURNS: usize = 2;

/// The run queues. A session is in one of them at most.
#[derive(Default)]
pub(super) struct RunQueues {
    talk: VecDeque<Key>,
    bulk: VecDeque<Key>,
    commands: VecDeque<Key>,
}

impl RunQueues {
    /// Queues a session that has something to do. One that is queued keeps its place.
    pub(super) fn put(&mut self, key: Key, entry: &mut SessionEntry) {
        let bulk = entry.session.is_bulk();
        self.add(key, entry, bulk);
    }

    /// Queues a session that has spent its budget and has more to do, with the bulk transfers.
    pub(super) fn put_back(&mut self, key: Key, entry: &mut SessionEntry) {
        self.add(key, entry, true);
    }

    fn add(&mut self, key: Key, entry: &mut SessionEntry, bulk: bool) {
        if std::mem::replace(&mut entry.queued, true) {
            return;
        }
        let queue = match row(entry.session.service()).class {
            // Before its login it costs no more than a handshake, and must not wait longer.
            Class::Commands if entry.is_proven() => &mut self.commands,
            Class::Traffic if bulk => &mut self.bulk,
            Class::Commands | Class::Traffic => &mut self.talk,
        };
        queue.push_back(key);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.talk.is_empty() && self.bulk.is_empty() && self.commands.is_empty()
    }

    /// Begins a round: the turns for this turn of the loop.
    pub(super) fn round(&self) -> Round {
        Round {
            talk: self.talk.len().min(TALK_TURNS),
            bulk: self.bulk.len().min(BULK_TURNS),
            commands: self.commands.len().min(COMMAND_TURNS),
        }
    }

    /// The next session of this round; `None` at its end.
    pub(super) fn take(&mut self, round: &mut Round) -> Option<Key> {
        for (left, queue) in [
            (&mut round.talk, &mut self.talk),
            (&mut round.bulk, &mut self.bulk),
            (&mut round.commands, &mut self.commands),
        ] {
            if *left > 0 {
                *left -= 1;
                return queue.pop_front();
            }
        }
        None
    }
}

/// The turns of each queue that are left in a round.
pub(super) struct Round {
    talk: usize,
    bulk: usize,
    commands: usize,
}
