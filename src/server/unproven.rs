//! Sessions that have not proved themselves yet, by address and by progress: which of them is evicted first.
//!
//! It is one of those who have most: of an address with many unproven sessions, and of a progress that is common. An
//! address weighs as many as its unproven sessions exceed its proven ones (but among those that have completed
//! nothing, no more than it has of these), a progress as many as stand at it.
//! Those sessions give way whose two weights have the greatest product; among them the one that has made no
//! progress for the longest time.
//!
//! So attackers with few addresses take no place from others, however fast they connect; attackers with many
//! addresses that say too little none from those who say more; and with an address that honest clients share, neither do those
//! who say nothing push out those who speak, nor the other way round. Each change takes constant time, or the
//! logarithm of the number of different weights; a choice goes through the weights, up to a limit.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::time::Instant;

use super::lists::{Arena, List};
use crate::reactor::slab::Key;
pub use crate::state::network::Network;

/// How far an unproven session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has been refused, and its client has not left yet.
    Refused,
    /// It has not completed its first message.
    Nothing,
    /// The server has answered its first message.
    Greeted,
    /// It has logged in; SOCKS: its request is not complete.
    LoggedIn,
}

impl Progress {
    const ALL: [Progress; 4] =
        [Progress::Refused, Progress::Nothing, Progress::Greeted, Progress::LoggedIn];
}

/// Where an unproven session is kept. It is void when the session has proved itself or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(NonZeroU32);

impl Place {
    fn new(at: u32) -> Option<Self> {
        NonZeroU32::new(at.checked_add(1)?).map(Place)
    }

    fn at(self) -> u32 {
        self.0.get() - 1
    }
}

/// One that may be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub key: Key,
    pub progress: Progress,
    /// When it came to this progress.
    pub since: Instant,
    /// Whether it has had a turn: before, what it says may not have been heard.
    pub heard: bool,
    /// Whether it is of those that weigh most. Others are candidates only while they are many.
    pub heaviest: bool,
}

/// Which part of all unproven sessions are many: a quarter.
const MANY: usize = 4;

/// The unproven sessions of one service, and the number of the others.
#[derive(Default)]
pub struct Unproven {
    networks: HashMap<Network, Open>,
    groups: Arena<Group>,
    cells: Arena<Cell>,
    sessions: Arena<Session>,
    levels: ByProgress<Level>,
    len: usize,
}

/// What a network has open.
#[derive(Default)]
struct Open {
    proven: u32,
    /// Its unproven sessions, if it has any.
    group: Option<u32>,
}

/// The unproven sessions of one network.
struct Group {
    network: Network,
    proven: usize,
    len: usize,
    cells: ByProgress<Option<u32>>,
}

/// Those of them that stand at one progress.
#[derive(Default)]
struct Cell {
    sessions: List,
    ranked: Ranked,
}

/// By what a cell is ranked.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Ranked {
    /// The weight of its group; of those that have completed nothing, no more than their number.
    weight: usize,
    /// The number of its own sessions.
    len: usize,
}

struct Session {
    key: Key,
    group: u32,
    progress: Progress,
    since: Instant,
    heard: bool,
}

/// All sessions that stand at one progress.
#[derive(Default)]
struct Level {
    len: usize,
    /// Its cells by weight.
    ranks: BTreeMap<usize, Rank>,
}

/// Cells that weigh the same.
#[derive(Default)]
struct Rank {
    cells: List,
    /// How many sessions they have.
    len: usize,
}

#[derive(Default)]
struct ByProgress<T> {
    refused: T,
    nothing: T,
    greeted: T,
    logged_in: T,
}

impl<T> ByProgress<T> {
    fn at(&mut self, progress: Progress) -> &mut T {
        match progress {
            Progress::Refused => &mut self.refused,
            Progress::Nothing => &mut self.nothing,
            Progress::Greeted => &mut self.greeted,
            Progress::LoggedIn => &mut self.logged_in,
        }
    }
}

impl Level {
    /// What those of its sessions weigh that weigh most. Of levels that weigh the same, the larger one counts more.
    fn weight(&self) -> (usize, usize) {
        let heaviest = self.ranks.last_key_value().map_or(0, |(weight, _)| *weight);
        (heaviest.saturating_mul(self.len), self.len)
    }
}

impl Group {
    fn weight(&self) -> usize {
        self.len.saturating_sub(self.proven)
    }
}

impl Unproven {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many sessions are open from a network, proven ones too.
    pub fn open_from(&self, network: Network) -> usize {
        let Some(open) = self.networks.get(&network) else { return 0 };
        let unproven =
            open.group.and_then(|group| self.groups.get(group)).map_or(0, |group| group.len);
        unproven.saturating_add(open.proven as usize)
    }

    /// A session has been let in. `None` if there are too many to count.
    pub fn enter(&mut self, key: Key, network: Network, now: Instant) -> Option<Place> {
        let open = self.networks.entry(network).or_default();
        let group = match open.group {
            Some(group) => group,
            None => {
                let (proven, cells) = (open.proven as usize, ByProgress::default());
                let group = self.groups.insert(Group { network, proven, len: 0, cells })?;
                *open.group.insert(group)
            }
        };
        let (progress, heard) = (Progress::Nothing, false);
        let at = self.sessions.insert(Session { key, group, progress, since: now, heard })?;
        if let Some(group) = self.groups.get_mut(group) {
            group.len = group.len.saturating_add(1);
        }
        self.len = self.len.saturating_add(1);
        self.put(at, group, progress);
        self.rank(group);
        Place::new(at)
    }

    /// A session has had a turn, and has come so far.
    pub fn advance(&mut self, place: Place, progress: Progress, now: Instant) {
        let Some(session) = self.sessions.get_mut(place.at()) else { return };
        session.heard = true;
        let before = std::mem::replace(&mut session.progress, progress);
        if before == progress {
            return;
        }
        session.since = now;
        let group = session.group;
        self.take(place.at(), group, before);
        self.put(place.at(), group, progress);
        self.rank(group);
    }

    /// A session has proved itself.
    pub fn prove(&mut self, place: Place) {
        let Some(at) = self.sessions.get(place.at()).map(|session| session.group) else { return };
        if let Some(group) = self.groups.get(at)
            && let Some(open) = self.networks.get_mut(&group.network)
        {
            open.proven = open.proven.saturating_add(1);
        }
        self.remove(place, 1);
    }

    /// An unproven session has ended.
    pub fn leave(&mut self, place: Place) {
        self.remove(place, 0);
    }

    /// A proven session of this network has ended.
    pub fn leave_proven(&mut self, network: Network) {
        let Some(open) = self.networks.get_mut(&network) else { return };
        open.proven = open.proven.saturating_sub(1);
        match open.group {
            Some(at) => {
                if let Some(group) = self.groups.get_mut(at) {
                    group.proven = group.proven.saturating_sub(1);
                }
                self.rank(at);
            }
            None if open.proven == 0 => drop(self.networks.remove(&network)),
            None => {}
        }
    }

    /// Sessions that may be evicted, the first to give way first; of those that weigh the same, that of the cell
    /// which has weighed so for the longest time. At most `limit` weights are looked at, also those of which
    /// nobody is a candidate; one that is found at two progresses counts twice.
    pub fn candidates(&self, limit: usize) -> impl Iterator<Item = Candidate> {
        let ByProgress { refused, nothing, greeted, logged_in } = &self.levels;
        let mut levels = [refused, nothing, greeted, logged_in];
        // Stable: of levels that weigh the same, the least progress comes first.
        levels.sort_by_key(|level| std::cmp::Reverse(level.weight()));
        let few = self.len / MANY;
        let ranks = levels.into_iter().flat_map(|level| level.ranks.values().rev());
        ranks.enumerate().take(limit).filter_map(move |(nth, rank)| {
            let heaviest = nth == 0;
            if !heaviest && rank.len <= few {
                return None;
            }
            let cell = self.cells.get(rank.cells.first()?)?;
            let session = self.sessions.get(cell.sessions.first()?)?;
            let Session { key, progress, since, heard, .. } = *session;
            Some(Candidate { key, progress, since, heard, heaviest })
        })
    }

    /// Takes a session out, which leaves its group with so many more that are proven.
    fn remove(&mut self, place: Place, proven: usize) {
        let Some(session) = self.sessions.get(place.at()) else { return };
        let (at, progress) = (session.group, session.progress);
        self.take(place.at(), at, progress);
        self.sessions.remove(place.at());
        self.len = self.len.saturating_sub(1);
        if let Some(group) = self.groups.get_mut(at) {
            group.len = group.len.saturating_sub(1);
            group.proven = group.proven.saturating_add(proven);
        }
        self.rank(at);
        if let Some(group) = self.groups.get(at)
            && group.len == 0
            && let Some(group) = self.groups.remove(at)
            && let Some(open) = self.networks.get_mut(&group.network)
        {
            open.group = None;
            if open.proven == 0 {
                self.networks.remove(&group.network);
            }
        }
    }

    /// Puts a session, which is nowhere, into its cell.
    fn put(&mut self, at: u32, group: u32, progress: Progress) {
        let Some(found) = self.groups.get_mut(group) else { return };
        let place = found.cells.at(progress);
        if place.is_none() {
            *place = self.cells.insert(Cell::default());
        }
        if let Some(cell) = place.and_then(|cell| self.cells.get_mut(cell)) {
            self.sessions.append(&mut cell.sessions, at);
        }
    }

    /// Takes a session out of its cell.
    fn take(&mut self, at: u32, group: u32, progress: Progress) {
        let Some(found) = self.groups.get_mut(group) else { return };
        if let Some(cell) = found.cells.at(progress).and_then(|cell| self.cells.get_mut(cell)) {
            self.sessions.detach(&mut cell.sessions, at);
        }
    }

    /// Ranks the cells of a group anew where it has changed.
    fn rank(&mut self, at: u32) {
        let Some(group) = self.groups.get_mut(at) else { return };
        let weight = group.weight();
        for progress in Progress::ALL {
            let place = group.cells.at(progress);
            let Some(number) = *place else { continue };
            let Some(cell) = self.cells.get_mut(number) else { continue };
            let len = cell.sessions.len();
            let weight = if progress == Progress::Nothing { weight.min(len) } else { weight };
            let rank = Ranked { weight, len };
            let before = std::mem::replace(&mut cell.ranked, rank);
            if before == rank {
                continue;
            }
            let level = self.levels.at(progress);
            level.len = level.len.saturating_sub(before.len).saturating_add(len);
            if before.len > 0
                && let Some(found) = level.ranks.get_mut(&before.weight)
            {
                self.cells.detach(&mut found.cells, number);
                found.len = found.len.saturating_sub(before.len);
                if found.len == 0 {
                    level.ranks.remove(&before.weight);
                }
            }
            if len > 0 {
                let found = level.ranks.entry(rank.weight).or_default();
                self.cells.append(&mut found.cells, number);
                found.len = found.len.saturating_add(len);
            } else {
                self.cells.remove(number);
                *place = None;
            }
        }
    }
}

#[cfg(test)]
mod tests;
