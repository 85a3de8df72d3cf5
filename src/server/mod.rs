//! Layer 4: listeners, sessions, and the loop that gives each of them its turn.
//!
//! One turn of the loop: *select* waits for events; *on_event* raises the flags that they name; *expire* asks
//! sessions whose deadline may have passed; *accept* admits new ones; *end* closes those that are to be
//! closed; *run* gives some of the queued sessions a turn. `selector-notes.md` describes it in full.

mod accept;
mod admission;
mod config;
mod control;
mod descriptors;
mod entry;
mod events;
mod files;
mod gather;
#[cfg(debug_assertions)]
mod invariants;
mod listen;
mod lists;
mod logins;
mod notify;
mod reload;
mod rules;
mod run_queue;
mod service;
mod shutdown;
mod stores;
pub mod takeover;
mod turns;
mod unproven;

use std::io;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::unix::pipe::Receiver;

use crate::reactor::abortive_close::AbortiveCloses;
use crate::reactor::buffer::Pool;
use crate::reactor::listener::Listener;
use crate::reactor::reserve::Reserve;
use crate::reactor::selector::Selector;
use crate::reactor::slab::{Key, Slab};
use crate::reactor::token::Source;
use crate::reactor::wheel::Wheel;
use crate::socks::CloseReason;
use crate::state::Shared;
use crate::state::diagnostics::not_let_in;
use crate::state::service::{PerService, Service};
use crate::state::verifier::Verifier;
use crate::workers::dns_cache::DnsCache;
use crate::workers::log_writer::LogWriter;
use crate::workers::resolver::{Resolver, lookup_limits};
use common::process::cannot;
pub use config::{Addresses, Config, Descriptors, MakeVerifier};
use control::PendingActions;
use descriptors::DescriptorSum;
use entry::{AnySession, SessionEntry};
use files::FileStore;
pub use listen::bind_ports;
use logins::QueuedLogins;
pub use notify::Notifier;
use run_queue::RunQueues;
use service::ServiceState;
use shutdown::{Shutdown, Terminal};
use takeover::Takeover;

/// How long the process waits at its end for peers to acknowledge what was sent, before their connections are reset.
const LAST_CLOSES_TIMEOUT: Duration = Duration::from_secs(1);

/// A server that is bound to its ports.
pub struct Server {
    sessions: Slab<SessionEntry>,
    /// Sessions that are to get a turn.
    queues: RunQueues,
    /// When the last wait for events ended.
    woken: Option<Instant>,
    wheel: Wheel<Key>,
    /// What is kept for each service.
    table: PerService<ServiceState>,
    /// Descriptors that the process may have.
    descriptors_limit: usize,
    /// The same number without the descriptors that it has inherited.
    descriptors: usize,
    /// Bytes of address space that it may have, if that is limited.
    address_space: Option<usize>,
    services: Services,
    access_log: Option<LogWriter>,
    diagnostics: Option<LogWriter>,
    /// When the gathered lines of the access log go to their writer.
    lines_due: Option<Instant>,
    /// METP sessions that have subscribed to events.
    subscribers: Vec<Key>,
    /// The number of events when subscribers were last woken.
    events_seen: u64,
    /// When subscribers are to be woken for newer events.
    events_due: Option<Instant>,
    /// What administrators have requested.
    pending: PendingActions,
    /// Changes of settings that have been passed on.
    applied: u64,
    /// The value of the setting that open tunnels have now.
    ack_timeout: Option<Duration>,
    began: Instant,
    signals: Option<Receiver>,
    /// Whether signals may wait in their pipe.
    signalled: bool,
    terminal: Terminal,
    shutdown: Shutdown,
    notifier: Option<Notifier>,
    takeover: Takeover,
}

/// What all sessions use.
struct Services {
    selector: Selector,
    dns: DnsCache,
    verifier: Box<dyn Verifier>,
    files: FileStore,
    pool: Pool,
    closes: AbortiveCloses<TcpStream>,
    /// Descriptors beyond those that admission has promised.
    reserve: Reserve,
    shared: Shared,
}

impl Server {
    /// Binds the ports.
    ///
    /// # Errors
    /// If a port cannot be bound, naming it; or if the system is out of descriptors or memory.
    pub fn bind(mut config: Config) -> io::Result<Self> {
        let mut selector = Selector::new().map_err(cannot("create the poll"))?;
        let outgoing = selector.set_outgoing(config.settings.bind_out);
        outgoing.map_err(cannot("use the address of --bind-out"))?;
        let table = PerService {
            socks: listen::listen(Service::Socks, &mut config, &selector)?,
            metp: listen::listen(Service::Metp, &mut config, &selector)?,
            http: listen::listen(Service::Http, &mut config, &selector)?,
        };
        let mut signals = config.signals;
        if let Some(signals) = &mut signals {
            let registered = selector.register_readable(signals, Source::Signal);
            registered.map_err(cannot("watch the pipe for signals"))?;
        }
        let mut settings = config.settings;
        let ack_timeout = settings.timeouts.ack;
        let listeners = table.values().filter_map(|state| state.listener.as_ref());
        settings.own_ports = listeners.map(|listener| listener.address().port()).collect();
        let http = table.http.listener.as_ref().map(|listener| listener.address().ip());
        settings.http.login |= http.is_some_and(|address| !address.to_canonical().is_loopback());
        let descriptors = config.descriptors.usable();
        let (threads, queue) = (settings.dns_threads, settings.dns_queue);
        let limits = lookup_limits(threads, queue, descriptors, config.address_space);
        let waker = selector.waker().map_err(cannot("create the waker for threads"))?;
        let resolver = Resolver::new(limits, waker.clone(), config.lookup);
        let dns = DnsCache::new(resolver, settings.names, settings.prefer);
        let verifier: Box<dyn Verifier> = match config.verifier {
            None => {
                let delays = config.files.users.is_some();
                Box::new(QueuedLogins::new(settings.auth_threads, delays, waker.clone()))
            }
            Some(make) => make(waker.clone()),
        };
        let files = FileStore::new(config.files, waker);
        let mut shared = Shared::new(settings, config.users);
        shared.process.has_users_file = files.has_users_file();
        if let Some(figures) = &config.figures {
            shared.metrics.restore(figures);
        }
        shared.metrics.store_errors = config.store_errors;
        shared.process.configuration = config.configuration;
        shared.process.users_fixed = config.users_fixed;
        shared.access_log.shows_rules = config.rules.is_some();
        shared.access_log.keeps_finished = table.http.listener.is_some();
        shared.access_log.format = config.access_log.as_ref().map(|_| config.access_log_format);
        shared.process.rules = config.rules;
        shared.process.rules_fixed = config.rules_fixed;
        let began = Instant::now();
        let pool =
            Pool::new(shared.process.settings.buffer_size, shared.process.settings.buffer_memory);
        let mut server = Server {
            sessions: Slab::default(),
            queues: RunQueues::default(),
            woken: None,
            wheel: Wheel::new(began),
            table,
            descriptors_limit: config.descriptors.limit(),
            descriptors,
            address_space: config.address_space,
            services: Services {
                selector,
                dns,
                verifier,
                files,
                pool,
                closes: AbortiveCloses::default(),
                reserve: Reserve::default(),
                shared,
            },
            access_log: config.access_log,
            diagnostics: config.diagnostics,
            lines_due: None,
            subscribers: Vec::new(),
            events_seen: 0,
            events_due: None,
            pending: PendingActions::default(),
            applied: 0,
            ack_timeout,
            began,
            signals,
            signalled: false,
            terminal: Terminal { is_watched: config.on_terminal, check: None },
            shutdown: Shutdown::Running,
            notifier: config.notifier,
            takeover: Takeover::new(config.takeover),
        };
        server.register_takeover().map_err(cannot("watch the socket of --takeover"))?;
        Ok(server)
    }

    /// The address of a service, as long as it accepts connections.
    pub fn address(&self, service: Service) -> Option<std::net::SocketAddr> {
        self.table.of(service).listener.as_ref().map(Listener::address)
    }

    /// The listeners of the services that still accept connections.
    fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.table.values().filter_map(|state| state.listener.as_ref())
    }

    /// Serves until a signal ends it.
    ///
    /// # Errors
    /// If epoll_wait(2) keeps failing.
    pub fn run(mut self) -> io::Result<()> {
        self.notify_ready(Instant::now());
        while !self.is_over() {
            self.turn()?;
        }
        let now = Instant::now();
        let keys: Vec<Key> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.end(key, CloseReason::Shutdown, now);
        }
        self.hand_over_lines();
        self.services.shared.log_counted_failures(None);
        self.send_last_figures();
        self.write_last_figures()?;
        self.finish_closes(now + LAST_CLOSES_TIMEOUT)?;
        self.log_summary();
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        let before = Instant::now();
        if let Some(woken) = self.woken {
            let took = before.saturating_duration_since(woken);
            self.services.shared.metrics.count_turn(took, before);
            self.services.shared.history.turn_took(took);
        }
        let timeout = self.poll_timeout(before);
        self.services.selector.select(timeout)?;
        let now = Instant::now();
        self.woken = Some(now);
        self.services.shared.tick(now);
        self.keep_history(now);
        self.on_event(now);
        self.check_terminal(now);
        self.services.shared.log_counted_failures(Some(now));
        self.expire(now);
        self.wake_starved(now);
        self.take_over_step(now);
        self.accept(now);
        self.pending.begin_turn();
        self.end_some(now);
        self.run_queues(now);
        self.end_limited();
        self.sweep_closes(now);
        self.finish_drain(now);
        self.gather_lines(now);
        self.gather_events(now);
        self.keep_figures(now);
        self.notify(now);
        #[cfg(debug_assertions)]
        self.check_invariants();
        Ok(())
    }

    /// How long the loop may wait for events.
    fn poll_timeout(&mut self, now: Instant) -> Option<Duration> {
        let idle = self.queues.is_empty() && self.pending.are_done() && !self.signalled;
        if !idle || self.listeners().any(|listener| listener.ready()) {
            return Some(Duration::ZERO);
        }
        let resumes = self.listeners().filter_map(|listener| listener.resumes()).min();
        let grace = match self.shutdown {
            Shutdown::Draining { until, accepts, .. } => accepts.or(Some(until)),
            Shutdown::NotifyingAdmins(until) => Some(until),
            Shutdown::Running | Shutdown::Immediate => None,
        };
        let dns = self.services.dns.check(now);
        let logins = self.services.verifier.check(now);
        let files = self.services.files.check(now);
        let sweep = self.services.pool.pipes.next_sweep();
        let gathered = self.lines_due.into_iter().chain(self.events_due).min();
        let closes = self.services.closes.next_sweep();
        let expiry = self.services.shared.next_expiry(now);
        let rates = self.services.shared.rates.next_due();
        let failures = self.services.shared.diagnostics.next_count();
        let (wheel, terminal) = (self.wheel.next_alarm(), self.terminal.check);
        let (notice, takeover) = (self.next_notice(), self.takeover.next_due(now));
        let alarms = [
            wheel, dns, logins, files, resumes, grace, gathered, sweep, closes, failures, terminal,
            expiry, rates, notice, takeover,
        ];
        let next = alarms.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Gives some sessions of each run queue a turn.
    fn run_queues(&mut self, now: Instant) {
        let mut sum = self.descriptor_sum();
        let Services { pool, reserve, shared, .. } = &mut self.services;
        pool.resize(shared.process.settings.buffer_size);
        pool.pipes.sweep(now, sum.for_pipes());
        sum.most_pipes = pool.pipes.most();
        reserve.allow(sum.for_promises());
        let mut round = self.queues.round();
        while let Some(key) = self.queues.take(&mut round) {
            self.give_turn(key, now);
        }
    }

    /// The terms of the sum of descriptors now.
    fn descriptor_sum(&self) -> DescriptorSum {
        let Services { dns, pool, closes, reserve, shared, .. } = &self.services;
        let sessions = &shared.metrics.sessions;
        DescriptorSum {
            usable: self.descriptors,
            sessions: PerService::from_fn(|service| sessions.of(service).open),
            orphans: dns.orphans(),
            closes: closes.len(),
            promised: reserve.promised(),
            pipes: pool.pipes.open(),
            most_pipes: pool.pipes.most(),
        }
    }

    /// Computes anew how many descriptors may be promised. To be called after descriptors were taken and before the
    /// next session has its turn.
    fn refresh_reserve(&mut self) {
        let descriptors = self.descriptor_sum().for_promises();
        self.services.reserve.allow(descriptors);
    }

    /// Connections that wait for their reset may hold a quarter of the free descriptors, as pipes may.
    fn sweep_closes(&mut self, now: Instant) {
        if !self.services.closes.is_empty() {
            let allowed = self.descriptor_sum().for_closes();
            self.services.closes.sweep(now, allowed);
        }
    }

    /// Arms an alarm for the session's deadline unless an earlier one is armed.
    fn arm(&mut self, key: Key) {
        let Some(entry) = self.sessions.get_mut(key) else { return };
        let timeouts = &self.services.shared.process.settings.timeouts;
        if let Some(deadline) = entry.session.deadline(timeouts)
            && !entry.armed.is_some_and(|armed| self.wheel.covers(armed, deadline))
        {
            entry.armed = Some(self.wheel.arm(deadline, key));
        }
    }

    /// Removes a session, which closes its descriptors, and resumes listeners that wait for room.
    fn end(&mut self, key: Key, reason: CloseReason, now: Instant) {
        let Some(entry) = self.sessions.remove(key) else { return };
        let service = entry.session.service();
        let counts = self.services.shared.metrics.sessions.of_mut(service);
        counts.open = counts.open.saturating_sub(1);
        if service == Service::Metp {
            self.subscribers.retain(|subscriber| *subscriber != key);
        }
        let proven = entry.is_proven();
        if let Some(place) = entry.place {
            self.table.of_mut(service).admission.leave(key, place);
        }
        match entry.session {
            AnySession::Socks(session) => {
                session.close(reason, &mut self.services.context(key, now));
            }
            // Only for a session without a login: the reason of a refusal has been logged before.
            AnySession::Metp(Some(session))
                if reason == CloseReason::Evicted && !proven && !session.is_leaving() =>
            {
                self.services.shared.metrics.sessions.metp.refused_limit += 1;
                not_let_in(service, session.source(), reason);
            }
            AnySession::Http(Some(session))
                if reason == CloseReason::Evicted && !session.is_leaving() =>
            {
                self.services.shared.metrics.sessions.http.refused_limit += 1;
                not_let_in(service, session.source(), reason);
            }
            AnySession::Metp(_) | AnySession::Http(_) => {}
        }
        for service in Service::ALL {
            if self.has_headroom(service)
                && let Some(listener) = &mut self.table.of_mut(service).listener
            {
                listener.resume_now();
            }
        }
    }
}
