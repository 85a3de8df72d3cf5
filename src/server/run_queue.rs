//! Who waits for a turn.
//!
//! Three queues, so that one kind of work does not wait for the others: tunnels and handshakes that talk,
//! bulk transfers, and commands (METP). Between two looks at the events each gets a bounded number of turns.

use std::collections::VecDeque;

use super::entry::SessionEntry;
use super::service::{Class, row};
use crate::reactor::slab::Key;

/// Turns between two looks at the events for sessions that talk: enough to make the look cheap, few enough
/// for a new event not to wait for thousands of them.
const TALK_TURNS: usize = 64;
/// The same for bulk transfers, which share what the others leave.
const BULK_TURNS: usize = 2;
/// Turns between two looks for sessions that give commands: administration never holds up tunnels, however many sessions give commands.
const COMMAND_TURNS: usize = 2;

/// The run queues. A session is in one of them at most.
#[derive(Default)]
pub(super) struct RunQueues {
    talk: VecDeque<Key>,
    bulk: VecDeque<Key>,
    commands: VecDeque<Key>,
}

impl RunQueues {
    /// A session has something to do. One that waits already keeps its place.
    pub(super) fn put(&mut self, key: Key, entry: &mut SessionEntry) {
        let bulk = entry.session.is_bulk();
        self.add(key, entry, bulk);
    }

    /// A session has spent its budget and has more to do: it comes behind those that talk.
    pub(super) fn put_back(&mut self, key: Key, entry: &mut SessionEntry) {
        self.add(key, entry, true);
    }

    fn add(&mut self, key: Key, entry: &mut SessionEntry, bulk: bool) {
        if std::mem::replace(&mut entry.queued, true) {
            return;
        }
        let queue = match row(entry.session.service()).class {
            // Before the login it costs no more than a handshake, and must not wait longer.
            Class::Commands if entry.is_proven() => &mut self.commands,
            Class::Traffic if bulk => &mut self.bulk,
            Class::Commands | Class::Traffic => &mut self.talk,
        };
        queue.push_back(key);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.talk.is_empty() && self.bulk.is_empty() && self.commands.is_empty()
    }

    /// Those that have their turn now, one after the other: `take` until it gives none.
    pub(super) fn round(&self) -> Round {
        Round {
            talk: self.talk.len().min(TALK_TURNS),
            bulk: self.bulk.len().min(BULK_TURNS),
            commands: self.commands.len().min(COMMAND_TURNS),
        }
    }

    /// The next one of this round.
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

/// How many of each queue still get a turn before the next look at the events.
pub(super) struct Round {
    talk: usize,
    bulk: usize,
    commands: usize,
}
