//! The house: listeners, sessions, and the loop that gives each of them its turn.
//!
//! One turn of the loop: *select* waits for events; *note* raises the flags that they name; *expire* asks
//! sessions whose deadline may have passed; *accept* lets new ones in; *run* gives one turn to each
//! session that was queued before. `selector-notes.md` tells the whole story.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::unix::pipe::Receiver;

use crate::ledger::Shared;
use crate::ledger::access_log::AccessLog;
use crate::ledger::metrics::Metrics;
use crate::ledger::settings::{Settings, Timeouts};
use crate::ledger::users::{UserId, Users};
use crate::process::Signal;
use crate::reactor::Flow;
use crate::reactor::buffer::Pool;
use crate::reactor::listener::{Accepted, Listener};
use crate::reactor::log_thread::Outlet;
use crate::reactor::resolver::{Lookup, Resolver};
use crate::reactor::selector::{Selector, Service, Side, Source};
use crate::reactor::slab::{Key, Slab};
use crate::reactor::wheel::{Tick, Wheel};
use crate::socks::{Context, Reason};
use crate::{metp, socks};

/// Connections accepted in one turn of the loop, so that a burst does not hold up the tunnels.
const ACCEPTS: usize = 16;

/// What a server is made of.
pub struct Config {
    /// Address of the SOCKS service; `None` is all interfaces.
    pub listen: Option<IpAddr>,
    /// Its port; 0 lets the system choose.
    pub port: u16,
    /// Address of the METP service.
    pub metp_listen: IpAddr,
    /// Its port; 0 lets the system choose.
    pub metp_port: u16,
    /// Who may log in at first.
    pub users: Users,
    /// The settings at first. The server adds its own ports.
    pub settings: Settings,
    /// Records that METP's access log keeps.
    pub log_entries: usize,
    /// Names looked up at once.
    pub dns_threads: usize,
    /// How names are looked up.
    pub lookup: Box<Lookup>,
    /// How long open tunnels may go on after SIGTERM.
    pub grace: Duration,
    /// Where the lines of the access log go.
    pub access_log: Option<Outlet>,
    /// Where signals come from.
    pub signals: Option<Receiver>,
}

/// A server that is bound to its ports.
pub struct Server {
    sessions: Slab<Resident>,
    /// Sessions that are to get a turn.
    queue: VecDeque<Key>,
    wheel: Wheel<Key>,
    /// `None` once no more connections are accepted.
    listeners: Option<Listeners>,
    world: World,
    outlet: Option<Outlet>,
    signals: Option<Receiver>,
    grace: Duration,
    stop: Stop,
}

struct Listeners {
    socks: Listener,
    metp: Listener,
}

/// What all sessions use.
struct World {
    selector: Selector,
    resolver: Resolver,
    pool: Pool,
    shared: Shared,
}

/// How far closing down has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    /// Tunnels may go on until then.
    Graceful(Instant),
    Now,
}

/// A session and its place in the house.
struct Resident {
    conversation: Conversation,
    queued: bool,
    /// The earliest alarm that the wheel has promised; later ones are void.
    armed: Option<Tick>,
}

/// SOCKS sessions by value, since there are thousands of them; the few of METP behind a pointer, so that
/// they do not make the others larger.
#[expect(clippy::large_enum_variant, reason = "the large variant is the common one")]
enum Conversation {
    Socks(socks::Session<TcpStream>),
    Metp(Box<metp::Session<TcpStream>>),
}

impl Server {
    /// Binds both ports.
    ///
    /// # Errors
    /// If a port cannot be had, naming it; or if the system is out of descriptors or memory.
    pub fn bind(config: Config) -> io::Result<Self> {
        let selector = Selector::new()?;
        let bind = |what: &str, address: Option<IpAddr>, port| {
            Listener::bind(address, port).map_err(|error| {
                let shown = address.map_or("*".to_owned(), |address| address.to_string());
                let message = format!("cannot listen for {what} on {shown} port {port}: {error}");
                io::Error::new(error.kind(), message)
            })
        };
        let mut socks = bind("SOCKS", config.listen, config.port)?;
        let mut metp = bind("METP", Some(config.metp_listen), config.metp_port)?;
        selector.register_readable(socks.socket(), Source::Listener(Service::Socks))?;
        selector.register_readable(metp.socket(), Source::Listener(Service::Metp))?;
        let mut signals = config.signals;
        if let Some(signals) = &mut signals {
            selector.register_readable(signals, Source::Signal)?;
        }
        let mut settings = config.settings;
        settings.own_ports = vec![socks.address().port(), metp.address().port()];
        let resolver = Resolver::new(config.dns_threads, selector.waker()?, config.lookup);
        let shared = Shared {
            users: config.users,
            metrics: Metrics::default(),
            access_log: AccessLog::new(config.log_entries),
            settings,
        };
        let pool = Pool::new(shared.settings.buffer_size);
        Ok(Server {
            sessions: Slab::default(),
            queue: VecDeque::new(),
            wheel: Wheel::new(Instant::now()),
            listeners: Some(Listeners { socks, metp }),
            world: World { selector, resolver, pool, shared },
            outlet: config.access_log,
            signals,
            grace: config.grace,
            stop: Stop::No,
        })
    }

    /// The address of a service, as long as it accepts connections.
    pub fn address(&self, service: Service) -> Option<std::net::SocketAddr> {
        self.listeners.as_ref().map(|listeners| match service {
            Service::Socks => listeners.socks.address(),
            Service::Metp => listeners.metp.address(),
        })
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
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        let timeout = self.patience(Instant::now());
        self.world.selector.select(timeout)?;
        let now = Instant::now();
        self.note(now);
        self.expire(now);
        self.accept(now);
        self.run_queue(now);
        self.evict(now);
        self.hand_over_lines();
        Ok(())
    }

    /// How long the loop may wait for events.
    fn patience(&mut self, now: Instant) -> Option<Duration> {
        let work = !self.queue.is_empty() || self.listeners().any(|listener| listener.ready());
        if work {
            return Some(Duration::ZERO);
        }
        let resumes = self.listeners().filter_map(|listener| listener.resumes()).min();
        let grace = match self.stop {
            Stop::Graceful(until) => Some(until),
            Stop::No | Stop::Now => None,
        };
        let alarms = [self.wheel.next_alarm(), self.world.resolver.check(now), resumes, grace];
        let next = alarms.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Raises the flags that events name and queues the sessions they belong to.
    fn note(&mut self, now: Instant) {
        let mut signalled = false;
        let mut woken = false;
        for (source, event) in self.world.selector.events() {
            match source {
                Source::Session(key, side) => {
                    if let Some(resident) = self.sessions.get_mut(key) {
                        resident.note(side, event);
                        resident.queue(key, &mut self.queue);
                    }
                }
                Source::Listener(service) => {
                    if let Some(listeners) = &mut self.listeners {
                        listeners.of(service).note();
                    }
                }
                Source::Wake => woken = true,
                Source::Signal => signalled = true,
            }
        }
        if woken {
            self.take_answers();
        }
        if signalled {
            self.take_signals(now);
        }
    }

    fn take_answers(&mut self) {
        for answer in self.world.resolver.answers() {
            if let Some(resident) = self.sessions.get_mut(answer.key)
                && let Conversation::Socks(session) = &mut resident.conversation
            {
                session.resolved(answer.result);
                resident.queue(answer.key, &mut self.queue);
            }
        }
    }

    fn take_signals(&mut self, now: Instant) {
        let mut bytes = [0; 64];
        loop {
            let read = self.signals.as_mut().map(|signals| signals.read(&mut bytes));
            let count = match read {
                Some(Ok(count)) if count > 0 => count,
                Some(Err(error)) if error.kind() == ErrorKind::Interrupted => continue,
                _ => return,
            };
            for signal in bytes.iter().take(count).filter_map(|byte| Signal::from_byte(*byte)) {
                self.obey(signal, now);
            }
        }
    }

    fn obey(&mut self, signal: Signal, now: Instant) {
        match (signal, self.stop) {
            (Signal::HangUp, _) => log::info!("SIGHUP: nothing to do"),
            (Signal::Terminate, Stop::No) => {
                log::info!("SIGTERM: closing down, {:?} for open tunnels", self.grace);
                self.stop = now.checked_add(self.grace).map_or(Stop::Now, Stop::Graceful);
                self.listeners = None;
                let metp = |(key, resident): (Key, &Resident)| match resident.conversation {
                    Conversation::Metp(_) => Some(key),
                    Conversation::Socks(_) => None,
                };
                let keys: Vec<Key> = self.sessions.iter().filter_map(metp).collect();
                for key in keys {
                    self.end(key, Reason::Shutdown, now);
                }
            }
            (Signal::Terminate | Signal::Interrupt, _) => {
                log::info!("{signal:?}: closing down at once");
                self.stop = Stop::Now;
                self.listeners = None;
            }
        }
    }

    fn over(&self) -> bool {
        match self.stop {
            Stop::No => false,
            Stop::Graceful(until) => self.sessions.is_empty() || until <= Instant::now(),
            Stop::Now => true,
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
                resident.queue(key, &mut self.queue);
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        for service in [Service::Metp, Service::Socks] {
            for _ in 0..ACCEPTS {
                let full = self.full(service);
                let Some(listeners) = &mut self.listeners else { return };
                let listener = listeners.of(service);
                listener.resume(now, false);
                if full && listener.ready() {
                    if listener.pause(now) {
                        log::warn!("{service:?}: the limit of connections is reached, others wait");
                    }
                    break;
                }
                match listener.accept(now) {
                    Accepted::Nothing => break,
                    Accepted::Connection(stream, source) => match service {
                        Service::Socks => {
                            self.world.shared.metrics.accepted += 1;
                            let session = socks::Session::new(stream, source, now);
                            self.admit(Conversation::Socks(session), now);
                        }
                        Service::Metp => {
                            let session = metp::Session::new(stream, source, now);
                            self.admit(Conversation::Metp(Box::new(session)), now);
                        }
                    },
                    Accepted::Exhausted(error) => {
                        if let Some(error) = error {
                            log::warn!("{service:?}: cannot accept connections for now: {error}");
                        }
                        break;
                    }
                }
            }
        }
    }

    fn full(&self, service: Service) -> bool {
        let Shared { metrics, settings, .. } = &self.world.shared;
        match service {
            Service::Socks => metrics.open >= settings.max_connections,
            Service::Metp => metrics.metp_open >= settings.max_metp_sessions,
        }
    }

    fn admit(&mut self, conversation: Conversation, now: Instant) {
        *self.world.shared.metrics.open_mut(&conversation) += 1;
        let inserted =
            self.sessions.insert_with(|_| Resident { conversation, queued: false, armed: None });
        let Some(key) = inserted else { return };
        let registered = match self.sessions.get_mut(key) {
            Some(resident) => resident.register(key, &self.world.selector),
            None => Ok(()),
        };
        match registered {
            Ok(()) => self.arm(key),
            Err(error) => {
                log::warn!("cannot watch a new connection: {error}");
                self.end(key, Reason::Shutdown, now);
            }
        }
    }

    /// One turn for each session that was queued before. What it queues again waits for the next events.
    fn run_queue(&mut self, now: Instant) {
        self.world.pool.resize(self.world.shared.settings.buffer_size);
        for _ in 0..self.queue.len() {
            let Some(key) = self.queue.pop_front() else { return };
            let Some(resident) = self.sessions.get_mut(key) else { continue };
            resident.queued = false;
            let conversation = &mut resident.conversation;
            let world = &mut self.world;
            let turn = catch_unwind(AssertUnwindSafe(|| conversation.turn(key, now, world)));
            match turn {
                Ok(Flow::Wait) => self.arm(key),
                Ok(Flow::Again) => resident.queue(key, &mut self.queue),
                Ok(Flow::Close) => self.end(key, Reason::Finished, now),
                Err(_) => {
                    // The panic hook has logged where and why.
                    self.world.shared.metrics.panics += 1;
                    self.end(key, Reason::Panic, now);
                }
            }
        }
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

    /// Closes the sessions of accounts that have been deleted.
    fn evict(&mut self, now: Instant) {
        let deleted = self.world.shared.users.take_deleted();
        if deleted.is_empty() {
            return;
        }
        let of_deleted = |(key, resident): (Key, &Resident)| {
            resident.conversation.socks_user().filter(|user| deleted.contains(user)).map(|_| key)
        };
        let keys: Vec<Key> = self.sessions.iter().filter_map(of_deleted).collect();
        for key in keys {
            self.end(key, Reason::UserDeleted, now);
        }
    }

    /// Removes a session, which closes its descriptors, and lets waiting connections in.
    fn end(&mut self, key: Key, reason: Reason, now: Instant) {
        let Some(resident) = self.sessions.remove(key) else { return };
        *self.world.shared.metrics.open_mut(&resident.conversation) -= 1;
        if let Conversation::Socks(session) = resident.conversation {
            session.close(reason, &mut self.world.context(key, now));
        }
        if let Some(listeners) = &mut self.listeners {
            listeners.socks.resume(now, true);
            listeners.metp.resume(now, true);
        }
    }

    fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().flat_map(|listeners| [&listeners.socks, &listeners.metp])
    }

    fn hand_over_lines(&mut self) {
        let lines = self.world.shared.access_log.take_lines();
        if let Some(outlet) = &self.outlet
            && !lines.is_empty()
        {
            outlet.offer(lines.as_bytes());
        }
    }
}

impl Listeners {
    fn of(&mut self, service: Service) -> &mut Listener {
        match service {
            Service::Socks => &mut self.socks,
            Service::Metp => &mut self.metp,
        }
    }
}

impl Metrics {
    fn open_mut(&mut self, conversation: &Conversation) -> &mut usize {
        match conversation {
            Conversation::Socks(_) => &mut self.open,
            Conversation::Metp(_) => &mut self.metp_open,
        }
    }
}

impl World {
    fn context(&mut self, key: Key, now: Instant) -> Context<'_, TcpStream> {
        let World { selector, resolver, pool, shared } = self;
        Context { key, now, network: selector, resolver, pool, shared }
    }
}

impl Resident {
    fn queue(&mut self, key: Key, queue: &mut VecDeque<Key>) {
        if !std::mem::replace(&mut self.queued, true) {
            queue.push_back(key);
        }
    }

    fn note(&mut self, side: Side, event: &Event) {
        match &mut self.conversation {
            Conversation::Socks(session) => session.note(side, event),
            Conversation::Metp(session) => session.note(event),
        }
    }

    fn register(&mut self, key: Key, selector: &Selector) -> io::Result<()> {
        let stream: &mut TcpStream = match &mut self.conversation {
            Conversation::Socks(session) => session.stream(),
            Conversation::Metp(session) => session.stream(),
        };
        selector.register(stream, Source::Session(key, Side::Client))
    }
}

impl Conversation {
    fn turn(&mut self, key: Key, now: Instant, world: &mut World) -> Flow {
        match self {
            Conversation::Socks(session) => session.turn(&mut world.context(key, now)),
            Conversation::Metp(session) => session.turn(now, &mut world.pool, &mut world.shared),
        }
    }

    fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        match self {
            Conversation::Socks(session) => session.deadline(timeouts),
            Conversation::Metp(session) => session.deadline(timeouts),
        }
    }

    /// The account of a SOCKS session. METP sessions are told at their next command.
    fn socks_user(&self) -> Option<UserId> {
        match self {
            Conversation::Socks(session) => session.user(),
            Conversation::Metp(_) => None,
        }
    }
}
