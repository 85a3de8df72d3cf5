//! Layer 2: what sessions of all services share: accounts, settings, metrics, access log, events, and how an
//! administrator's session sees and changes the server ([`control`]). Plain data that owns no socket and does no I/O.
//!
//! It parses no protocol, but it names what it counts and shows: reply codes and targets of SOCKS
//! ([`proto::socks5`](crate::proto::socks5)), keys and escapes of METP (`metp_protocol`).

pub mod access_log;
pub mod audit;
pub mod changes;
pub mod client_network;
pub mod configuration;
pub mod connection;
pub mod control;
pub mod diagnostics;
pub mod digest;
pub mod events;
pub mod failed_logins;
pub mod file_health;
pub mod histogram;
pub mod history;
pub mod json;
pub mod knobs;
pub mod login_queue;
pub mod metrics;
pub mod protected;
pub mod rates;
pub mod report;
pub mod samples;
pub mod service;
pub mod settings;
pub mod shaper;
pub mod shortages;
pub mod users;
pub mod verifier;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use access_log::{AccessLog, FinishedRequest, RecordId};
use changes::Changes;
use configuration::Configuration;
use diagnostics::{Diagnostics, not_let_in};
use events::Events;
use failed_logins::FailedLogins;
use file_health::FileHealth;
use history::History;
use metrics::Metrics;
use rates::{Grant, Rates};
use settings::Settings;
use shortages::Shortages;
use users::{SessionGuard, Users, unix_time};

use crate::proto::rules::RuleSet;
use crate::reactor::slab::Key;
use crate::state::service::Service;
use metp_protocol::text::Escaped;
use metp_protocol::{AuthEvent, Event, Field, Topic};

/// How often the clock is read.
const TICK: Duration = Duration::from_secs(1);
/// The same while nothing else happens.
const LONGEST_TICK: Duration = Duration::from_secs(60);

/// Everything that sessions of all services look at and change: what is process-wide, and beside it what is the loop's
/// own. There is one loop. With several, each has a `Shared`: counters of its own are added up when they are read, and
/// what is process-wide is the same in all.
pub struct Shared {
    /// What every loop of the process has to agree on.
    pub process: ProcessWide,
    /// The counters of this loop; they add up.
    pub metrics: Metrics,
    /// Requests of this loop's sessions.
    pub access_log: AccessLog,
    /// Events for the subscribers of this loop.
    pub events: Events,
    /// The newest failed logins.
    pub failed_logins: FailedLogins,
    /// What has happened in this loop.
    pub history: History,
    /// The rate limits of log messages about refused clients.
    pub diagnostics: Diagnostics,
    /// What this machine lacks for requests, once in an episode.
    pub shortages: Shortages,
    /// Tunnels of this loop that wait until their account may read again.
    pub rates: Rates,
    /// Seconds of UNIX time, up to a second late: see [`Shared::tick`].
    pub time: u64,
    /// When it is read again.
    next_tick: Option<Instant>,
}

/// What every loop of the process has to agree on. Accounts and settings are replaced as a whole or by message, so that
/// a loop reads its copy without a lock; `to_own_ports` is changed by each connection of that kind, which are few.
pub struct ProcessWide {
    /// The accounts. The counters of an account (`Usage`) are the loop's own.
    pub users: Users,
    /// Changes of accounts that are not in the users file yet.
    pub account_changes: Changes,
    /// Changes that sessions have asked for, for the diagnostics.
    pub requested: audit::Requested,
    /// Whether there is a users file, in which new accounts live.
    pub has_users_file: bool,
    /// Whether the users file is changed by others alone.
    pub users_fixed: bool,
    /// The settings.
    pub settings: Settings,
    /// Where they come from.
    pub configuration: Configuration,
    /// The rules for destinations, if there are any.
    pub rules: Option<RuleSet>,
    /// Which rules these are: counted up with each change.
    pub rules_number: u64,
    /// Whether the file of rules is changed by others alone.
    pub rules_fixed: bool,
    /// Whether files can be written and read again.
    pub file_health: FileHealth,
    /// The number of changes of settings and roles so far.
    pub changes: u64,
    /// The near ends of connections to targets with the number of one of the server's own ports, and their sessions. A
    /// client with such an address is the server itself: the system has redirected the connection, which
    /// any loop may accept.
    pub to_own_ports: HashMap<SocketAddr, Key>,
}

/// A direction of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the client to the target.
    Up,
    /// From the target to the client.
    Down,
}

/// Payload that has just been delivered.
#[derive(Clone, Copy, Debug)]
pub struct Transferred {
    /// The direction.
    pub direction: Direction,
    /// The number of bytes.
    pub bytes: u64,
    /// The time.
    pub now: Instant,
}

/// The payload of one tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes delivered to the target.
    pub up: u64,
    /// Bytes delivered to the client.
    pub down: u64,
    /// The tunnel's record in the access log.
    pub record: Option<RecordId>,
}

impl Traffic {
    /// Whether any byte has been delivered.
    pub fn moved(&self) -> bool {
        self.up > 0 || self.down > 0
    }
}

impl Shared {
    /// The initial state.
    pub fn new(settings: Settings, users: Users) -> Self {
        let access_log = AccessLog::new(settings.log_entries);
        let process = ProcessWide {
            users,
            account_changes: Changes::default(),
            requested: audit::Requested::default(),
            has_users_file: false,
            users_fixed: false,
            settings,
            configuration: Configuration::default(),
            rules: None,
            rules_number: 0,
            rules_fixed: false,
            file_health: FileHealth::new(unix_time()),
            changes: 0,
            to_own_ports: HashMap::new(),
        };
        Shared {
            process,
            metrics: Metrics { counted_since: unix_time(), ..Metrics::default() },
            access_log,
            events: Events::default(),
            failed_logins: FailedLogins::default(),
            history: History::default(),
            diagnostics: Diagnostics::default(),
            shortages: Shortages::default(),
            rates: Rates::default(),
            time: unix_time(),
            next_tick: None,
        }
    }

    /// Reads the clock if that was a second ago. Tunnels of accounts that have expired are to be ended.
    pub fn tick(&mut self, now: Instant) {
        if self.next_tick.is_some_and(|next| now < next) {
            return;
        }
        self.next_tick = now.checked_add(TICK);
        self.time = unix_time();
        self.process.users.expire(self.time);
    }

    /// When the clock is to be read for the next account that expires.
    pub fn next_expiry(&self, now: Instant) -> Option<Instant> {
        let expires = self.process.users.next_expiry()?;
        // The clock may be set meanwhile.
        let wait = Duration::from_secs(expires.saturating_sub(self.time)).clamp(TICK, LONGEST_TICK);
        now.checked_add(wait)
    }

    /// Sessions that may read again for their accounts, since these have something to give or have other rates. `is_open`:
    /// whether a session is still there.
    pub fn take_grants(&mut self, now: Instant, is_open: impl Fn(Key) -> bool) -> Vec<Grant> {
        let users = &mut self.process.users;
        let changed = users.take_rate_changes();
        if changed.is_empty() && self.rates.next_due().is_none_or(|due| now < due) {
            return Vec::new();
        }
        let mut grants = Vec::new();
        for user in changed {
            grants.extend(self.rates.release(user));
        }
        let shaper = |user| users.get(user).and_then(|account| account.usage.shaper());
        grants.extend(self.rates.take_due(now, shaper, is_open));
        grants
    }

    /// Counts a login, logs one that has failed, and publishes the event of the topic `auth`.
    pub fn record_login(
        &mut self,
        service: Service,
        source: SocketAddr,
        name: &[u8],
        good: bool,
        now: Instant,
    ) {
        let logins = self.metrics.logins.of_mut(service);
        *if good { &mut logins.good } else { &mut logins.failed } += 1;
        let name = Escaped(name);
        if !good {
            self.log_counted_failures(Some(now));
            if self.diagnostics.logs_failure(source.ip(), now) {
                // The format is fixed: fail2ban matches it.
                log::warn!("auth failed: service={service} remote={} user=\"{name}\"", source.ip());
            }
            self.failed_logins.record(self.time, service, source.ip(), name.0);
            not_let_in(service, source, "auth-failed");
        }
        self.events.publish(Topic::Auth, || {
            Event::Auth(AuthEvent {
                service: Field::new(service),
                user: Field::new(name),
                source: Field::new(source),
                result: Field::new(if good { "ok" } else { "failed" }),
            })
        });
    }

    /// Nobody has looked at a login, since too many wait: it has not failed.
    pub fn login_shed(&mut self, service: Service, source: SocketAddr) {
        self.metrics.logins_shed += 1;
        not_let_in(service, source, "overloaded");
    }

    /// Logs the counts of failed logins that are due at `now`; `None`: all counts.
    pub fn log_counted_failures(&mut self, now: Option<Instant>) {
        while let Some((source, count)) = self.diagnostics.counted(now) {
            // This format is fixed, too.
            log::warn!("auth failed {count} more times: remote={source}");
        }
    }

    /// A request is finished: writes it to the access log and publishes its events.
    pub fn close(&mut self, outcome: &FinishedRequest) {
        self.access_log.close(outcome);
        self.events.publish(Topic::Logs, || outcome.log_event());
        if outcome.traffic.record.is_some() {
            self.events.publish(Topic::Connections, || outcome.close_event());
        }
    }

    /// Counts payload that has been delivered. Bytes are counted here only, so that metrics, records and access log
    /// agree.
    pub fn count(&mut self, traffic: &mut Traffic, guard: &SessionGuard, moved: Transferred) {
        let usage = guard.usage();
        let Transferred { direction, bytes, now } = moved;
        let (delivered, total, used) = match direction {
            Direction::Up => (&mut traffic.up, &mut self.metrics.up, &usage.up),
            Direction::Down => (&mut traffic.down, &mut self.metrics.down, &usage.down),
        };
        *delivered += bytes;
        *total += bytes;
        used.set(used.get() + bytes);
        usage.seen.set(Some(now));
        if let Some(record) = traffic.record {
            self.access_log.add_bytes(record, bytes);
        }
        if let Some(reached) = usage.count_against_quota(self.time) {
            self.process.users.cut(guard.user, reached);
        }
    }
}
