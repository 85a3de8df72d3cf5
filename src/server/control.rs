//! The server as its administration sees it: what METP reads and changes of it, and what follows from that.

use std::collections::{HashMap, HashSet, VecDeque};
use std::task::Poll;
use std::time::{Duration, Instant};

use super::Server;
use super::entry::{AnySession, SessionEntry};
use super::service::row;
use super::shutdown::Shutdown;
use crate::proto::rules::Edit;
use crate::reactor::process_usage;
use crate::reactor::selector::Selector;
use crate::reactor::slab::{Key, Slab};
use crate::socks::CloseReason;
use crate::state::ProcessWide;
use crate::state::connection::{Connection, key_of};
use crate::state::control::{
    Control, ControlAnswer, ControlRequest, Page, ProcessUsage, ServerInfo,
};
use crate::state::metrics::Stage;
use crate::state::service::Service;
use crate::state::users::{LimitReached, UserId, Users};
use crate::workers::log_writer::LogWriter;
use crate::workers::resolver::lookup_limits;
use metp_protocol::ConnectionId;

/// Connections that are closed in one turn of the loop: closing costs system calls, and an administrator may close
/// thousands at once.
const CLOSES_PER_TURN: usize = 64;

/// Connections on a page of their list.
const ROWS_PER_PAGE: usize = 24;
/// Slots that are looked at for a page, since not each of them holds a connection that is wanted.
const SLOTS_PER_PAGE: u32 = 1024;

/// Actions requested by METP sessions. They run after the turn of the session, because during it the slab is borrowed.
#[derive(Default)]
pub(super) struct PendingActions {
    /// Connections to be closed, and why.
    pending_closes: VecDeque<(Key, CloseReason)>,
    /// Connections that may still be closed in this turn of the loop.
    left: usize,
    /// A drain, with this time for open tunnels.
    drain: Option<Duration>,
    /// Sessions that have asked for the files to be read again, and whether tunnels are to be cut then.
    reloads: Vec<(Key, bool)>,
    /// Changes of the rules, and the sessions that have asked for them.
    rule_changes: Vec<(Key, Edit)>,
    /// Accounts whose counters are to be set back, and the sessions that have asked for that.
    resets: Vec<(Key, UserId)>,
    /// Settings that are to be saved, and the sessions that have asked for that.
    saves: Vec<(Key, &'static str, String)>,
}

impl PendingActions {
    /// A turn of the loop begins: [`CLOSES_PER_TURN`] connections may be closed.
    pub(super) fn begin_turn(&mut self) {
        self.left = CLOSES_PER_TURN;
    }

    /// Whether there is nothing left to do.
    pub(super) fn are_done(&self) -> bool {
        let nothing_to_read = self.reloads.is_empty() && self.saves.is_empty();
        let nothing_to_write =
            self.resets.is_empty() && self.rule_changes.is_empty() && nothing_to_read;
        self.pending_closes.is_empty() && self.drain.is_none() && nothing_to_write
    }

    /// Queues a connection to be closed. Returns `false` if it is queued already.
    pub(super) fn end(&mut self, key: Key, entry: &SessionEntry, reason: CloseReason) -> bool {
        let is_connection = row(entry.session.service()).drains;
        let news = is_connection && !entry.close_pending.replace(true);
        if news {
            self.pending_closes.push_back((key, reason));
        }
        news
    }
}

/// What a METP session sees during its turn.
pub(super) struct ServerControl<'a> {
    pub(super) now: Instant,
    pub(super) sessions: &'a Slab<SessionEntry>,
    pub(super) pending: &'a mut PendingActions,
    /// The time for open tunnels if the request gives none.
    pub(super) grace: Duration,
    pub(super) status: ServerInfo,
    /// Whether there is a file that can be read again.
    pub(super) can_reload: bool,
    /// Whether there is a state directory.
    pub(super) has_state: bool,
    /// Whether it is being read again.
    pub(super) reloading: bool,
    /// For the routes.
    pub(super) network: &'a mut Selector,
}

/// One loop owns all connections, so each request is answered in place, but for the one that needs a file.
impl Control for ServerControl<'_> {
    fn ask(&mut self, request: ControlRequest, process: &ProcessWide) -> Poll<ControlAnswer> {
        let users = &process.users;
        Poll::Ready(match request {
            ControlRequest::Reload { .. } if !self.can_reload => ControlAnswer::NoFile,
            ControlRequest::Reload { session, cut } => {
                self.pending.reloads.push((session, cut));
                return Poll::Pending;
            }
            ControlRequest::ChangeRules { session, edit } => {
                self.pending.rule_changes.push((session, edit));
                return Poll::Pending;
            }
            ControlRequest::TestRules(tested) => {
                ControlAnswer::RulesTested(self.test_rules(&tested, process))
            }
            ControlRequest::Save { .. } if !self.has_state => ControlAnswer::NoState,
            ControlRequest::Save { session, key, value } => {
                self.pending.saves.push((session, key, value));
                return Poll::Pending;
            }
            ControlRequest::ResetUsage { session, user } => {
                self.pending.resets.push((session, user));
                return Poll::Pending;
            }
            ControlRequest::Connections { page, of } => {
                let (rows, next) = self.connections(page, of, users);
                ControlAnswer::Connections { rows, next }
            }
            ControlRequest::Kill(id) => ControlAnswer::Killed(self.kill(id)),
            ControlRequest::KillUser(user) => ControlAnswer::UserKilled(self.kill_user(user)),
            ControlRequest::Drain(grace) => ControlAnswer::Draining(self.begin_drain(grace)),
            ControlRequest::Status => ControlAnswer::Status(Box::new(self.status)),
            ControlRequest::Usage => {
                let usage = ProcessUsage {
                    descriptors: process_usage::open_descriptors(),
                    rss: process_usage::rss_bytes(),
                    cpu: process_usage::cpu_time(),
                };
                ControlAnswer::Usage(Box::new(self.status), usage)
            }
        })
    }

    fn has_outstanding(&self) -> bool {
        !self.pending.are_done()
    }

    fn is_reloading(&self) -> bool {
        self.reloading || !self.pending.reloads.is_empty()
    }
}

impl ServerControl<'_> {
    /// A page of connections, and where the next page begins.
    fn connections(
        &self,
        page: Option<Page>,
        of: Option<UserId>,
        users: &Users,
    ) -> (Vec<Connection>, Option<Page>) {
        let Page { next, end } = page.unwrap_or(Page { next: 0, end: self.sessions.slots() });
        let (mut rows, mut slot) = (Vec::new(), next);
        let last = end.min(next.saturating_add(SLOTS_PER_PAGE));
        while slot < last && rows.len() < ROWS_PER_PAGE {
            rows.extend(self.connection(slot, of, users));
            slot += 1;
        }
        (rows, (slot < end).then_some(Page { next: slot, end }))
    }

    /// The connection in this slot, unless there is none, or it is not `of` this account.
    fn connection(&self, slot: u32, of: Option<UserId>, users: &Users) -> Option<Connection> {
        let (key, entry) =
            self.sessions.at(slot).filter(|(_, found)| !found.close_pending.get())?;
        let session = entry.session.as_socks()?;
        let wanted = of.is_none() || session.user() == of;
        wanted.then(|| session.describe(key, self.now, users))
    }

    fn kill(&mut self, id: ConnectionId) -> bool {
        let key = key_of(id);
        let entry = self.sessions.get(key);
        entry.is_some_and(|entry| self.pending.end(key, entry, CloseReason::Killed))
    }

    fn kill_user(&mut self, user: UserId) -> usize {
        let of_user = |(_, entry): &(Key, &SessionEntry)| entry.session.user() == Some(user);
        let theirs = self.sessions.iter().filter(of_user);
        theirs.filter(|(key, entry)| self.pending.end(*key, entry, CloseReason::Killed)).count()
    }

    fn begin_drain(&mut self, grace: Option<Duration>) -> bool {
        let news = self.status.closing.is_none() && self.pending.drain.is_none();
        if news {
            self.pending.drain = Some(grace.unwrap_or(self.grace));
        }
        news
    }
}

impl Server {
    /// The state of the server.
    pub(super) fn status(&self, now: Instant) -> ServerInfo {
        ServerInfo {
            uptime: now.saturating_duration_since(self.began),
            closing: match self.shutdown {
                Shutdown::Running => None,
                Shutdown::Draining { until, .. } => Some(until.saturating_duration_since(now)),
                Shutdown::NotifyingAdmins(_) | Shutdown::Immediate => Some(Duration::ZERO),
            },
            descriptors_limit: self.descriptors_limit,
            connections_affordable: self.descriptor_sum().affordable(Service::Socks),
            names: self.services.dns.stats(),
            lines_dropped: self
                .access_log
                .iter()
                .chain(&self.diagnostics)
                .map(LogWriter::dropped)
                .sum(),
            logins_queued: self.services.verifier.queued(),
        }
    }

    /// Ends the second of the history, if it is over.
    pub(super) fn keep_history(&mut self, now: Instant) {
        if !self.services.shared.history.is_due(now) {
            return;
        }
        let (names, shared) = (self.services.dns.stats(), &mut self.services.shared);
        let metrics = &shared.metrics;
        let logins = metrics.logins.values();
        let (good, failed) = logins.fold((0_u64, 0_u64), |(good, failed), logins| {
            (good.saturating_add(logins.good), failed.saturating_add(logins.failed))
        });
        let socks = &metrics.sessions.socks;
        let totals = [
            metrics.up,
            metrics.down,
            socks.open as u64,
            socks.accepted,
            good,
            failed,
            names.queries,
            names.failures,
            0,
        ];
        shared.history.advance(now, &totals);
    }

    /// Runs what a METP session has changed or requested in its turn.
    pub(super) fn run_pending_actions(&mut self, now: Instant) {
        self.evict();
        if self.applied != self.services.shared.process.changes {
            self.applied = self.services.shared.process.changes;
            self.apply_settings(now);
        }
        let reloads = std::mem::take(&mut self.pending.reloads);
        if !reloads.is_empty() {
            self.notify_reloading(now);
            self.services.files.request_reload(reloads);
        }
        let changes = std::mem::take(&mut self.pending.rule_changes);
        self.services.files.request_rule_changes(changes);
        let saves = std::mem::take(&mut self.pending.saves);
        self.services.files.request_saves(saves);
        for (session, user) in std::mem::take(&mut self.pending.resets) {
            self.reset_usage(session, user);
        }
        self.store_changes();
        if let Some(grace) = self.pending.drain.take() {
            self.begin_drain(grace, now);
        }
        self.end_some(now);
    }

    /// Closes some of the connections that are to be closed.
    pub(super) fn end_some(&mut self, now: Instant) {
        while self.pending.left > 0 {
            let Some((key, reason)) = self.pending.pending_closes.pop_front() else { break };
            self.pending.left -= 1;
            let metrics = &mut self.services.shared.metrics;
            match reason {
                _ if self.sessions.get(key).is_none() => {}
                CloseReason::Killed | CloseReason::Denied => metrics.killed += 1,
                CloseReason::LimitEnded(reached) => metrics.limits.count(reached),
                _ => {}
            }
            self.end(key, reason, now);
        }
    }

    /// Queues the sessions of deleted accounts to be closed.
    fn evict(&mut self) {
        let deleted: HashSet<UserId> =
            self.services.shared.process.users.take_deleted().into_iter().collect();
        if deleted.is_empty() {
            return;
        }
        // What is known of them must not come back.
        self.services.files.write_figures_now();
        for (key, entry) in self.sessions.iter() {
            if entry.session.user().is_some_and(|user| deleted.contains(&user)) {
                self.pending.end(key, entry, CloseReason::UserDeleted);
            }
        }
    }

    /// Queues the requests of accounts that have reached a limit to be ended.
    pub(super) fn end_limited(&mut self) {
        let users = &mut self.services.shared.process.users;
        if !users.has_cut() {
            return;
        }
        let cut: HashMap<UserId, LimitReached> = users.take_cut().into_iter().collect();
        for (key, entry) in self.sessions.iter() {
            let AnySession::Socks(session) = &entry.session else { continue };
            if session.stage() != Stage::Linger
                && session.has_request()
                && let Some(reached) = session.user().and_then(|user| cut.get(&user))
            {
                self.pending.end(key, entry, CloseReason::LimitEnded(*reached));
            }
        }
    }

    /// Passes changed settings on to what holds a copy of them.
    fn apply_settings(&mut self, now: Instant) {
        let settings = &self.services.shared.process.settings;
        log::set_max_level(settings.log_level);
        let (threads, queue) = (settings.dns_threads, settings.dns_queue);
        let dns = lookup_limits(threads, queue, self.descriptors, self.address_space);
        self.services.dns.limit(dns);
        self.services.dns.set_ttls(settings.names, now);
        self.services.dns.set_prefer(settings.prefer);
        self.services.verifier.limit(settings.auth_threads);
        self.services.pool.limit(settings.buffer_memory);
        self.services.shared.access_log.resize(settings.log_entries);
        for service in Service::ALL {
            if let Some(listener) = &mut self.table.of_mut(service).listener {
                listener.set_liveness((row(service).liveness)(&settings.timeouts));
                listener.resume_now();
            }
        }
        let ack = settings.timeouts.ack;
        let changed = ack.filter(|_| self.ack_timeout != ack);
        self.ack_timeout = ack;
        let keys: Vec<Key> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(limit) = changed
                && let Some(entry) = self.sessions.get_mut(key)
                && let Some(session) = entry.session.as_socks_mut()
            {
                session.ack_timeout_changed(limit, now);
            }
            self.arm(key);
        }
        for key in &self.subscribers {
            if let Some(entry) = self.sessions.get_mut(*key) {
                self.queues.put(*key, entry);
            }
        }
        self.apply_drain_wait();
        self.apply_drain_limit();
        self.accept(now);
    }
}
