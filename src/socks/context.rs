//! What a session is given for its turn.

use std::time::Instant;

use crate::reactor::abortive_close::AbortiveCloses;
use crate::reactor::buffer::Pool;
use crate::reactor::endpoint::{Endpoint, Stream};
use crate::reactor::network::Network;
use crate::reactor::reserve::Reserve;
use crate::reactor::slab::Key;
use crate::state::Shared;
use crate::state::verifier::Verifier;
use crate::workers::dns_cache::DnsCache;

/// What a session may use during its turn.
pub struct Context<'a, S: Stream> {
    /// The key of this session, for registering descriptors and asking for names.
    pub key: Key,
    /// The time of this turn.
    pub now: Instant,
    /// Opens connections to targets.
    pub network: &'a mut dyn Network<S>,
    /// Looks names up.
    pub dns: &'a mut DnsCache,
    /// Verifies logins.
    pub verifier: &'a mut dyn Verifier,
    /// Where buffers get their storage.
    pub pool: &'a mut Pool,
    /// Closes connections with a reset.
    pub closes: &'a mut AbortiveCloses<S>,
    /// Promises descriptors beyond the client's and the target's; to be asked before they are opened.
    pub reserve: &'a Reserve,
    /// Users, metrics, access log, settings.
    pub shared: &'a mut Shared,
}

impl<S: Stream> Context<'_, S> {
    /// Closes a connection with a reset once its peer has what was sent.
    pub(super) fn abort(&mut self, endpoint: Endpoint<S>) {
        self.closes.add(endpoint, self.now, self.shared.process.settings.timeouts.linger);
    }
}
