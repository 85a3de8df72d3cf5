//! The house: listeners, sessions, and the loop that gives each of them its turn.
//!
//! One turn of the loop: *select* waits for events; *note* raises the flags that they name; *expire* asks
//! sessions whose deadline may have passed; *accept* lets new ones in; *end* closes those that are to be
//! closed; *run* gives some of the queued sessions a turn. `selector-notes.md` tells the whole story.

mod admission;
mod closing;
mod config;
mod gate;
mod gather;
mod house;
mod lists;
mod queues;
mod resident;
mod unproven;

use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::unix::pipe::Receiver;

use crate::metp;
use crate::reactor::Flow;
use crate::reactor::abortive_close::AbortiveCloses;
use crate::reactor::buffer::Pool;
use crate::reactor::listener::Listener;
use crate::reactor::log_thread::Outlet;
use crate::reactor::names::Names;
use crate::reactor::resolver::{Limits, Resolver};
use crate::reactor::selector::{Selector, Service, Source};
use crate::reactor::slab::{Key, Slab};
use crate::reactor::wheel::Wheel;
use crate::socks::{Context, Reason};
use crate::state::Shared;
use crate::state::diagnostics::not_let_in;
use closing::{Stop, Terminal};
use common::process::cannot;
pub use config::{Config, Descriptors};
use gate::Gate;
use house::{House, Orders};
use queues::Queues;
use resident::{Conversation, Resident};

/// How long peers have to take what was sent to them before the process ends with a reset of their connections.
const FINAL_CLOSES: Duration = Duration::from_secs(1);

/// A server that is bound to its ports.
pub struct Server {
    sessions: Slab<Resident>,
    /// Sessions that are to get a turn.
    queues: Queues,
    /// When the last wait for events ended.
    woken: Option<Instant>,
    wheel: Wheel<Key>,
    listeners: Listeners,
    gates: Gates,
    /// Descriptors that the process may have.
    descriptors_limit: usize,
    /// The same without what it has inherited.
    descriptors: usize,
    /// Bytes of address space that it may have, if that is limited.
    address_space: Option<usize>,
    world: World,
    outlet: Option<Outlet>,
    diagnostics: Option<Outlet>,
    /// When the gathered lines of the access log are to be handed over.
    lines_due: Option<Instant>,
    /// METP sessions that have subscribed to events.
    subscribers: Vec<Key>,
    /// Events so far, when subscribers were last told that there are any.
    told: u64,
    /// When they are to be told of newer ones.
    events_due: Option<Instant>,
    /// What administrators have asked for.
    orders: Orders,
    /// Changes of settings that have been passed on.
    applied: u64,
    /// The setting of which open tunnels were last told.
    ack_timeout: Option<Duration>,
    began: Instant,
    signals: Option<Receiver>,
    /// Whether signals may wait in their pipe.
    signalled: bool,
    terminal: Terminal,
    stop: Stop,
}

/// Those that still accept connections.
#[derive(Default)]
struct Listeners {
    socks: Option<Listener>,
    metp: Option<Listener>,
}

#[derive(Default)]
struct Gates {
    socks: Gate,
    metp: Gate,
}

/// What all sessions use.
struct World {
    selector: Selector,
    names: Names,
    pool: Pool,
    closes: AbortiveCloses<TcpStream>,
    shared: Shared,
}

impl Server {
    /// Binds both ports.
    ///
    /// # Errors
    /// If a port cannot be had, naming it; or if the system is out of descriptors or memory.
    pub fn bind(config: Config) -> io::Result<Self> {
        let selector = Selector::new().map_err(cannot("create the poll"))?;
        let timeouts = &config.settings.timeouts;
        let bind = |what: &str, address: Option<IpAddr>, port, liveness| {
            Listener::bind(address, port, liveness).map_err(|error| {
                let shown = address.map_or("*".to_owned(), |address| address.to_string());
                let message = format!("cannot listen for {what} on {shown} port {port}: {error}");
                io::Error::new(error.kind(), message)
            })
        };
        let mut socks = bind("SOCKS", config.listen, config.port, timeouts.liveness())?;
        let metp_address = Some(config.metp_listen);
        let mut metp = bind("METP", metp_address, config.metp_port, timeouts.metp_liveness())?;
        for (what, listener, service) in [
            ("watch the SOCKS listener", &mut socks, Service::Socks),
            ("watch the METP listener", &mut metp, Service::Metp),
        ] {
            let source = Source::Listener(service);
            selector.register_readable(listener.socket(), source).map_err(cannot(what))?;
        }
        let mut signals = config.signals;
        if let Some(signals) = &mut signals {
            let registered = selector.register_readable(signals, Source::Signal);
            registered.map_err(cannot("watch the pipe for signals"))?;
        }
        let mut settings = config.settings;
        let ack_timeout = settings.timeouts.ack;
        settings.own_ports = vec![socks.address().port(), metp.address().port()];
        let descriptors = config.descriptors.usable();
        let limits = Limits::new(settings.dns_threads, settings.dns_queue, descriptors)
            .within(config.address_space);
        let waker = selector.waker().map_err(cannot("create the waker for look-ups"))?;
        let resolver = Resolver::new(limits, waker, config.lookup);
        let names = Names::new(resolver, settings.names);
        let shared = Shared::new(settings, config.users);
        let began = Instant::now();
        let pool = Pool::new(shared.settings.buffer_size, shared.settings.buffer_memory);
        Ok(Server {
            sessions: Slab::default(),
            queues: Queues::default(),
            woken: None,
            wheel: Wheel::new(began),
            listeners: Listeners { socks: Some(socks), metp: Some(metp) },
            gates: Gates::default(),
            descriptors_limit: config.descriptors.limit(),
            descriptors,
            address_space: config.address_space,
            world: World { selector, names, pool, closes: AbortiveCloses::default(), shared },
            outlet: config.access_log,
            diagnostics: config.diagnostics,
            lines_due: None,
            subscribers: Vec::new(),
            told: 0,
            events_due: None,
            orders: Orders::default(),
            applied: 0,
            ack_timeout,
            began,
            signals,
            signalled: false,
            terminal: Terminal { is_watched: config.on_terminal, check: None },
            stop: Stop::No,
        })
    }

    /// The address of a service, as long as it accepts connections.
    pub fn address(&self, service: Service) -> Option<std::net::SocketAddr> {
        let listener = match service {
            Service::Socks => &self.listeners.socks,
            Service::Metp => &self.listeners.metp,
        };
        listener.as_ref().map(Listener::address)
    }

    /// Serves until a signal ends it.
    ///
    /// # Errors
    /// If waiting for events fails, which nothing can mend.
    pub fn run(mut self) -> io::Result<()> {
        while !self.over() {
            self.turn()?;
        }
        let now = Instant::now();
        let keys: Vec<Key> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.end(key, Reason::Shutdown, now);
        }
        self.hand_over_lines();
        self.world.shared.tell_counted_failures(None);
        self.finish_closes(now + FINAL_CLOSES)?;
        self.tell_what_was_served();
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        let before = Instant::now();
        if let Some(woken) = self.woken {
            let took = before.saturating_duration_since(woken);
            self.world.shared.metrics.count_turn(took, before);
        }
        let timeout = self.patience(before);
        self.world.selector.select(timeout)?;
        let now = Instant::now();
        self.woken = Some(now);
        self.note(now);
        self.check_terminal(now);
        self.world.shared.tell_counted_failures(Some(now));
        self.expire(now);
        self.accept(now);
        self.orders.begin_turn();
        self.end_some(now);
        self.run_queues(now);
        self.sweep_closes(now);
        self.close_up(now);
        self.gather_lines(now);
        self.gather_events(now);
        Ok(())
    }

    /// How long the loop may wait for events.
    fn patience(&mut self, now: Instant) -> Option<Duration> {
        let idle = self.queues.is_empty() && self.orders.are_done() && !self.signalled;
        if !idle || self.listeners.all().any(|listener| listener.ready()) {
            return Some(Duration::ZERO);
        }
        let resumes = self.listeners.all().filter_map(|listener| listener.resumes()).min();
        let grace = match self.stop {
            Stop::Graceful { until, .. } | Stop::Farewell(until) => Some(until),
            Stop::No | Stop::Now => None,
        };
        let names = self.world.names.check(now);
        let sweep = self.world.pool.pipes.next_sweep();
        let gathered = self.lines_due.into_iter().chain(self.events_due).min();
        let closes = self.world.closes.next_sweep();
        let failures = self.world.shared.diagnostics.next_count();
        let (wheel, terminal) = (self.wheel.next_alarm(), self.terminal.check);
        let alarms = [wheel, names, resumes, grace, gathered, sweep, closes, failures, terminal];
        let next = alarms.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Raises the flags that events name and queues the sessions they belong to.
    fn note(&mut self, now: Instant) {
        let mut woken = false;
        for (source, event) in self.world.selector.events() {
            match source {
                Source::Session(key, side) => {
                    if let Some(resident) = self.sessions.get_mut(key) {
                        resident.note(side, event);
                        self.queues.put(key, resident);
                    }
                }
                Source::Listener(service) => {
                    if let Some(listener) = self.listeners.of(service) {
                        listener.note();
                    }
                }
                Source::Wake => woken = true,
                Source::Signal => self.signalled = true,
            }
        }
        // Whoever was to wake the loop may have failed.
        if woken || self.world.names.ready() {
            self.take_answers(now);
        }
        if self.signalled {
            self.take_signals(now);
        }
    }

    fn take_answers(&mut self, now: Instant) {
        for reply in self.world.names.replies(now) {
            if let Some(resident) = self.sessions.get_mut(reply.key)
                && let Conversation::Socks(session) = &mut resident.conversation
            {
                session.resolved(reply.addresses);
                self.queues.put(reply.key, resident);
            }
        }
    }

    /// Queues the sessions whose alarm is due; they find out themselves whether it still means anything.
    fn expire(&mut self, now: Instant) {
        let mut due = Vec::new();
        self.wheel.expire(now, &mut due);
        for (tick, key) in due {
            if let Some(resident) = self.sessions.get_mut(key)
                && resident.armed == Some(tick)
            {
                resident.armed = None;
                self.queues.put(key, resident);
            }
        }
    }

    /// Some turns for each kind of session.
    fn run_queues(&mut self, now: Instant) {
        let spare = self.descriptors.saturating_sub(self.spoken_for()) / 4;
        self.world.pool.resize(self.world.shared.settings.buffer_size);
        self.world.pool.pipes.sweep(now, spare);
        let mut round = self.queues.round();
        while let Some(key) = self.queues.take(&mut round) {
            self.give_turn(key, now);
        }
    }

    /// Connections that wait for their reset have a quarter of the free descriptors, as pipes do.
    fn sweep_closes(&mut self, now: Instant) {
        if !self.world.closes.is_empty() {
            let others = self.spoken_for() - self.world.closes.len();
            self.world.closes.sweep(now, self.descriptors.saturating_sub(others) / 4);
        }
    }

    fn give_turn(&mut self, key: Key, now: Instant) {
        let Some(resident) = self.sessions.get_mut(key) else { return };
        resident.queued = false;
        if resident.doomed.get() {
            return;
        }
        let world = &mut self.world;
        let turn = match &mut resident.conversation {
            Conversation::Socks(session) => {
                catch_unwind(AssertUnwindSafe(|| session.turn(&mut world.context(key, now))))
            }
            Conversation::Metp(slot) => match slot.take() {
                Some(session) => self.give_metp_turn(key, session, now),
                None => return,
            },
        };
        self.note_progress(key, now);
        let Some(resident) = self.sessions.get_mut(key) else { return };
        match turn {
            Ok(Flow::Wait) => self.arm(key),
            Ok(Flow::Again) => self.queues.put_back(key, resident),
            Ok(Flow::Close) => self.end(key, Reason::Finished, now),
            Err(_) => {
                // The panic hook has logged where and why.
                self.world.shared.metrics.panics += 1;
                self.end(key, Reason::Panic, now);
            }
        }
    }

    /// A METP session steps out of its place for its turn, so that it can look at all the others.
    fn give_metp_turn(
        &mut self,
        key: Key,
        mut session: Box<metp::Session<TcpStream>>,
        now: Instant,
    ) -> std::thread::Result<Flow> {
        let vitals = self.vitals(now);
        let World { pool, shared, .. } = &mut self.world;
        let (sessions, orders) = (&self.sessions, &mut self.orders);
        let grace = shared.settings.grace;
        let premises = &mut House { now, sessions, orders, grace, vitals };
        let mut cx = metp::Context { now, pool, shared, premises };
        let turn = catch_unwind(AssertUnwindSafe(|| session.turn(&mut cx)));
        if session.subscribes() && !self.subscribers.contains(&key) {
            self.subscribers.push(key);
        }
        if let Some(resident) = self.sessions.get_mut(key) {
            resident.conversation = Conversation::Metp(Some(session));
        }
        self.follow_up(now);
        turn
    }

    /// Makes sure that the wheel asks by the session's deadline.
    fn arm(&mut self, key: Key) {
        let Some(resident) = self.sessions.get_mut(key) else { return };
        let timeouts = &self.world.shared.settings.timeouts;
        if let Some(deadline) = resident.conversation.deadline(timeouts)
            && !resident.armed.is_some_and(|armed| self.wheel.covers(armed, deadline))
        {
            resident.armed = Some(self.wheel.arm(deadline, key));
        }
    }

    /// Removes a session, which closes its descriptors, and lets waiting connections in.
    fn end(&mut self, key: Key, reason: Reason, now: Instant) {
        let Some(resident) = self.sessions.remove(key) else { return };
        let service = resident.conversation.service();
        *self.world.shared.metrics.open_mut(service) -= 1;
        if service == Service::Metp {
            self.subscribers.retain(|subscriber| *subscriber != key);
        }
        let place = resident.place;
        self.gates.of(service).leave(key, resident.conversation.source(), place);
        match resident.conversation {
            Conversation::Socks(session) => {
                session.close(reason, &mut self.world.context(key, now));
            }
            // One that has logged in was let in; why one that is refused is, has been said.
            Conversation::Metp(Some(session))
                if reason == Reason::Displaced && place.is_some() && !session.is_leaving() =>
            {
                not_let_in(service, session.source(), reason);
            }
            Conversation::Metp(_) => {}
        }
        for service in [Service::Socks, Service::Metp] {
            if self.roomy(service)
                && let Some(listener) = self.listeners.of(service)
            {
                listener.resume_now();
            }
        }
    }
}

impl Listeners {
    fn of(&mut self, service: Service) -> Option<&mut Listener> {
        match service {
            Service::Socks => self.socks.as_mut(),
            Service::Metp => self.metp.as_mut(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Listener> {
        self.socks.iter().chain(&self.metp)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Listener> {
        self.socks.iter_mut().chain(&mut self.metp)
    }
}

impl Gates {
    fn of(&mut self, service: Service) -> &mut Gate {
        match service {
            Service::Socks => &mut self.socks,
            Service::Metp => &mut self.metp,
        }
    }
}

impl World {
    fn context(&mut self, key: Key, now: Instant) -> Context<'_, TcpStream> {
        let World { selector, names, pool, closes, shared } = self;
        Context { key, now, network: selector, names, pool, closes, shared }
    }
}
