//! The run queues: sessions that wait for a turn.
//!
//! Four queues, so that one kind of work does not wait for the others: interactive tunnels and handshakes, datagrams,
//! bulk transfers, and commands (METP). Each gets a bounded number of turns in a turn of the loop.

use std::collections::VecDeque;

use super::entry::SessionEntry;
use super::service::{Class, row};
use crate::reactor::Load;
use crate::reactor::slab::Key;

/// Turns for interactive sessions in one turn of the loop: enough to amortise epoll_wait(2), few enough that a new
/// event does not wait for thousands of them.
const TALK_TURNS: usize = 64;
/// Turns for associations in one turn of the loop. They come before bulk transfers: a blocked TCP sender waits, while a
/// full UDP buffer loses datagrams.
const DATAGRAM_TURNS: usize = 8;
/// Turns for bulk transfers in one turn of the loop: they share what the others leave.
const BULK_TURNS: usize = 2;
/// Turns for sessions that give commands in one turn of the loop: they never hold up tunnels, however many there are.
const COMMAND_TURNS: usize = 2;

/// The run queues. A session is in one of them at most.
#[derive(Default)]
pub(super) struct RunQueues {
    talk: VecDeque<Key>,
    datagrams: VecDeque<Key>,
    bulk: VecDeque<Key>,
    commands: VecDeque<Key>,
}

impl RunQueues {
    /// Queues a session that has something to do. One that is queued keeps its place.
    pub(super) fn put(&mut self, key: Key, entry: &mut SessionEntry) {
        let load = entry.session.load();
        self.add(key, entry, load);
    }

    /// Queues a session that has spent its budget and has more to do: with the bulk transfers, unless it relays
    /// datagrams.
    pub(super) fn put_back(&mut self, key: Key, entry: &mut SessionEntry) {
        let load = match entry.session.load() {
            Load::Datagrams => Load::Datagrams,
            Load::Talk | Load::Bulk => Load::Bulk,
        };
        self.add(key, entry, load);
    }

    fn add(&mut self, key: Key, entry: &mut SessionEntry, load: Load) {
        if std::mem::replace(&mut entry.queued, true) {
            return;
        }
        let queue = match (row(entry.session.service()).class, load) {
            // Before its login it costs no more than a handshake, and must not wait longer.
            (Class::Commands, _) if entry.is_proven() => &mut self.commands,
            (Class::Traffic, Load::Bulk) => &mut self.bulk,
            (Class::Traffic, Load::Datagrams) => &mut self.datagrams,
            (Class::Commands | Class::Traffic, _) => &mut self.talk,
        };
        queue.push_back(key);
    }

    pub(super) fn is_empty(&self) -> bool {
        [&self.talk, &self.datagrams, &self.bulk, &self.commands]
            .iter()
            .all(|queue| queue.is_empty())
    }

    /// Begins a round: the turns for this turn of the loop.
    pub(super) fn round(&self) -> Round {
        Round {
            talk: self.talk.len().min(TALK_TURNS),
            datagrams: self.datagrams.len().min(DATAGRAM_TURNS),
            bulk: self.bulk.len().min(BULK_TURNS),
            commands: self.commands.len().min(COMMAND_TURNS),
        }
    }

    /// The next session of this round; `None` at its end.
    pub(super) fn take(&mut self, round: &mut Round) -> Option<Key> {
        for (left, queue) in [
            (&mut round.talk, &mut self.talk),
            (&mut round.datagrams, &mut self.datagrams),
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
    datagrams: usize,
    bulk: usize,
    commands: usize,
}
