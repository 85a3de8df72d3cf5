//! Sessions that have not proved themselves yet, by address and by progress: the order in which they are evicted.
//!
//! The weight of an address is the number by which its unproven sessions exceed its proven ones (for sessions that have
//! completed nothing, at most the number of these); the weight of a progress is the number of sessions at it. Sessions
//! with the greatest product of the two weights are evicted first; among them, the one without progress for the longest
//! time.
//!
//! So attackers with few addresses take no places from others, however fast they connect. Attackers with many addresses
//! that complete little take none from clients that complete more. Behind one address that honest clients share, silent
//! sessions do not evict those that have greeted, nor the other way round. Each change takes constant time, or the
//! logarithm of the number of different weights; a choice goes through the weights, up to a limit.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::time::Instant;

use super::lists::{Arena, List};
use crate::reactor::slab::Key;
pub use crate::state::client_network::ClientNetwork;

/// The progress of an unproven session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has been refused and lingers.
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

/// Where a session is counted: an unproven one by a record of its own, a proven one by its network's record. It is
/// void when the session has proved itself, which gives it another one, or ended.
///
/// The session's entry keeps it, so that a session is counted off where it was counted, whatever address it has by
/// then. Bit 31 says that it is proven; the others are the record's number plus 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(NonZeroU32);

impl Place {
    const PROVEN: u32 = 1 << 31;

    fn unproven(at: u32) -> Option<Self> {
        let number = at.checked_add(1).filter(|number| number & Place::PROVEN == 0)?;
        NonZeroU32::new(number).map(Place)
    }

    fn proven(at: u32) -> Option<Self> {
        Place::unproven(at).map(|place| Place(place.0 | Place::PROVEN))
    }

    /// Whether the session has proved itself.
    pub fn is_proven(self) -> bool {
        self.0.get() & Place::PROVEN != 0
    }

    fn at(self) -> u32 {
        (self.0.get() & !Place::PROVEN).saturating_sub(1)
    }
}

/// A session that may be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub key: Key,
    pub progress: Progress,
    /// The time of its last progress.
    pub since: Instant,
    /// Whether it has had a turn; before, its input may not have been read.
    pub heard: bool,
    /// Whether its weight is the greatest. Others are candidates only while they are many.
    pub heaviest: bool,
}

/// The divisor of all unproven sessions from which on a weight has many: a quarter.
const MANY_SHARE: usize = 4;

/// The unproven sessions of one service, and the number of the others.
#[derive(Default)]
pub struct Unproven {
    /// Where in `open` each network is.
    networks: HashMap<ClientNetwork, u32>,
    open: Arena<Open>,
    groups: Arena<Group>,
    cells: Arena<Cell>,
    sessions: Arena<Session>,
    levels: ByProgress<Level>,
    len: usize,
}

/// What a network has open.
struct Open {
    network: ClientNetwork,
    proven: u32,
    /// Its unproven sessions, if it has any.
    group: Option<u32>,
}

/// The unproven sessions of one network.
struct Group {
    /// Its network, as a number in `open`.
    open: u32,
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
    /// The number of unproven sessions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The number of open sessions from a network, proven ones included.
    pub fn open_from(&self, network: ClientNetwork) -> usize {
        let Some(open) = self.networks.get(&network).and_then(|at| self.open.get(*at)) else {
            return 0;
        };
        let unproven =
            open.group.and_then(|group| self.groups.get(group)).map_or(0, |group| group.len);
        unproven.saturating_add(open.proven as usize)
    }

    /// Counts a session that is admitted. `None` if there are too many to count.
    pub fn enter(&mut self, key: Key, network: ClientNetwork, now: Instant) -> Option<Place> {
        let at = match self.networks.get(&network) {
            Some(at) => *at,
            None => {
                let at = self.open.insert(Open { network, proven: 0, group: None })?;
                self.networks.insert(network, at);
                at
            }
        };
        let open = self.open.get_mut(at)?;
        let group = match open.group {
            Some(group) => group,
            None => {
                let (proven, cells) = (open.proven as usize, ByProgress::default());
                let group = self.groups.insert(Group { open: at, proven, len: 0, cells })?;
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
        Place::unproven(at)
    }

    /// Records the progress of a session after its turn.
    pub fn advance(&mut self, place: Place, progress: Progress, now: Instant) {
        if place.is_proven() {
            return;
        }
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

    /// A session has proved itself: from now on it has the place that is returned.
    pub fn prove(&mut self, place: Place) -> Option<Place> {
        if place.is_proven() {
            return Some(place);
        }
        let group = self.sessions.get(place.at()).map(|session| session.group)?;
        let at = self.groups.get(group)?.open;
        if let Some(open) = self.open.get_mut(at) {
            open.proven = open.proven.saturating_add(1);
        }
        self.remove(place, 1);
        Place::proven(at)
    }

    /// A session has ended.
    pub fn leave(&mut self, place: Place) {
        if place.is_proven() {
            self.leave_proven(place.at());
        } else {
            self.remove(place, 0);
        }
    }

    fn leave_proven(&mut self, at: u32) {
        let Some(open) = self.open.get_mut(at) else { return };
        open.proven = open.proven.saturating_sub(1);
        let Some(group) = open.group else { return self.forget_if_empty(at) };
        if let Some(group) = self.groups.get_mut(group) {
            group.proven = group.proven.saturating_sub(1);
        }
        self.rank(group);
    }

    /// Forgets a network from which nothing is open.
    fn forget_if_empty(&mut self, at: u32) {
        if let Some(Open { network, proven: 0, group: None }) = self.open.get(at) {
            self.networks.remove(network);
            self.open.remove(at);
        }
    }

    /// Sessions that may be evicted, in order; of equal weights, the one of the cell that has had its weight for
    /// the longest time comes first. At most `limit` weights are looked at, those without a candidate included; a
    /// weight that occurs at two progresses counts twice.
    pub fn candidates(&self, limit: usize) -> impl Iterator<Item = Candidate> {
        let ByProgress { refused, nothing, greeted, logged_in } = &self.levels;
        let mut levels = [refused, nothing, greeted, logged_in];
        // Stable: of levels that weigh the same, the least progress comes first.
        levels.sort_by_key(|level| std::cmp::Reverse(level.weight()));
        let few = self.len / MANY_SHARE;
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

    /// Takes a session out; `proven` is added to the proven sessions of its group.
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
            && let Some(open) = self.open.get_mut(group.open)
        {
            open.group = None;
            self.forget_if_empty(group.open);
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
