//! The names of addresses: one look-up for all sessions that need the same one. Nothing is cached, since few ask, and
//! hardly twice for the same address.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{DnsCache, ResolveError};
use crate::reactor::slab::Key;
use crate::workers::resolver::{NameDone, Outcome};

/// The answer to a session that has asked for the name of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAnswer {
    /// The session that asked.
    pub key: Key,
    /// The name: 1 to 255 bytes of printable ASCII without blanks. Or why there is none.
    pub name: Result<Box<str>, ResolveError>,
}

/// Addresses whose names are being looked up, and the sessions that wait; also those for which no session waits any
/// more.
#[derive(Default)]
pub(super) struct PendingNames {
    pending: HashMap<IpAddr, Vec<Key>>,
    /// Addresses for which no session waits.
    orphans: usize,
}

impl PendingNames {
    /// Whether no name is being looked up.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Look-ups whose descriptor no session has been promised: one that waits has no target, and so does not use the
    /// descriptor for it. A further one that waits for the same name adds nothing.
    pub(super) fn uncovered(&self) -> usize {
        self.orphans
    }

    /// Adds a session. Returns whether its name has to be looked up.
    fn add(&mut self, key: Key, address: IpAddr) -> bool {
        let Some(waiters) = self.pending.get_mut(&address) else {
            self.pending.insert(address, vec![key]);
            return true;
        };
        if waiters.is_empty() {
            self.orphans = self.orphans.saturating_sub(1);
        }
        waiters.push(key);
        false
    }

    /// Removes a session. Returns whether it was the last one that has waited for this name.
    fn remove(&mut self, key: Key, address: IpAddr) -> bool {
        let Some(waiters) = self.pending.get_mut(&address) else { return false };
        let before = waiters.len();
        waiters.retain(|waiter| *waiter != key);
        let is_last = waiters.is_empty() && before > 0;
        self.orphans += usize::from(is_last);
        is_last
    }

    /// The look-up has ended, or is not made. Returns the sessions that wait.
    fn take(&mut self, address: IpAddr) -> Vec<Key> {
        let Some(waiters) = self.pending.remove(&address) else { return Vec::new() };
        if waiters.is_empty() {
            self.orphans = self.orphans.saturating_sub(1);
        }
        waiters
    }
}

impl DnsCache {
    /// Asks for the name of an address, for a session that has been promised a descriptor which it does not use
    /// meanwhile. The answer comes with [`DnsCache::names`], unless [`DnsCache::cancel_name`] is called.
    pub fn ask_name(&mut self, key: Key, address: IpAddr) {
        if self.reverse.add(key, address) {
            self.stats.queries += 1;
            self.resolver.submit_address(address);
        }
    }

    /// The session `key` no longer waits for the name of this address. If no session does, and no worker has taken it
    /// yet, it is not looked up.
    pub fn cancel_name(&mut self, key: Key, address: IpAddr) {
        if self.reverse.remove(key, address) && self.resolver.cancel_address(address) {
            self.reverse.take(address);
        }
    }

    /// Takes the names that have come, one for each session that waits.
    pub fn names(&mut self) -> Vec<NameAnswer> {
        let done = self.resolver.names();
        self.take_names(done)
    }

    pub(super) fn take_names(&mut self, done: Vec<NameDone>) -> Vec<NameAnswer> {
        let mut answers = Vec::new();
        for done in done {
            let name = match done.outcome {
                Outcome::Found(name) => Ok(name.into_boxed_str()),
                Outcome::NotFound | Outcome::Unanswered | Outcome::Overflow => {
                    Err(ResolveError::NotFound)
                }
                Outcome::Failed(_) | Outcome::NoWorker => Err(ResolveError::Failed),
            };
            self.stats.failures += u64::from(name.is_err());
            let waiters = self.reverse.take(done.address);
            answers.extend(waiters.into_iter().map(|key| NameAnswer { key, name: name.clone() }));
        }
        answers
    }
}
