//! A whole SOCKS session, from the first byte to the access log, in surroundings that a scenario describes.
//!
//! After each turn all that was sent is compared with RFC 1928 and RFC 1929, and with what the peers have
//! sent. In the end either the peers let the session finish, or they do not and its deadline passes.

mod verdict;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use metp_protocol::Role;
use socks5d::reactor::Flow;
use socks5d::reactor::abortive_close::AbortiveCloses;
use socks5d::reactor::buffer::Pool;
use socks5d::reactor::readiness::Readiness;
use socks5d::reactor::reserve::Reserve;
use socks5d::reactor::slab::Key;
use socks5d::reactor::token::Side;
use socks5d::socks::{CloseReason, Context, Session};
use socks5d::state::Shared;
use socks5d::state::settings::{BindSettings, LocalFor, Settings, UdpSettings};
use socks5d::state::users::{UserId, Users};
use socks5d::state::verifier::Verifier;
use socks5d::workers::dns_cache::{Resolution, ResolveError};

use crate::fake::{End, FakeStream, Making, Peer};
use crate::network::{ERRORS, FakeNetwork, Fixture, NAME, OWN_PORT, PASSWORD};
use crate::reference::{Asked, Heard, Stage};
use crate::script::{ANSWERS, REQUESTS, Step, steps};
use crate::verifier::FakeVerifier;

/// In the argument of an answer: the other family may follow.
const MORE: u8 = 0x80;
/// Turns and alarms that a session may need to come to its end: each may deliver a single byte of 64 KiB.
const PATIENCE: usize = 100_000;

thread_local! {
    static FIXTURE: RefCell<Fixture> = RefCell::new(Fixture::new());
}

/// A request for a name with several addresses, and what becomes of the attempts to connect to them: each byte is an
/// answer, an end of an attempt, the plan for the next one, or time that passes.
pub fn race(bytes: &[u8]) {
    let [surroundings, answer, rest @ ..] = bytes else { return };
    // Greeting, login, a name that is looked up, and its addresses.
    let mut scenario = vec![surroundings & 0x0b, 0, 1, 0, 2, 0, 0x83, 2, 0x80 | 22, *answer];
    for byte in rest {
        let (what, argument) = (byte & 7, byte >> 3);
        scenario.extend(match what {
            0 | 1 => [0x80 | 23, argument],
            2 => [0x80 | 23, 25],
            3 => [0x80 | 19, argument],
            4 => [0x80 | 20, argument * 8 + 1],
            5 => [21, argument * 8 + 3],
            6 => [0x80 | 22, argument],
            _ => [19, argument],
        });
    }
    socks_session(&scenario);
}

/// A scenario: two bytes choose the surroundings, the others say what happens in them.
pub fn socks_session(data: &[u8]) {
    let Some((&[kind, size], scenario)) = data.split_first_chunk::<2>() else { return };
    FIXTURE.with_borrow_mut(|fixture| {
        let mut sim = Sim::new(fixture, kind, size);
        if kind & 0x80 != 0 {
            sim.says(b"\x05\x01\x02\x01\x05alice\x02pw");
        }
        for (step, turn) in steps(scenario) {
            sim.step(&step);
            if turn {
                sim.turn();
            }
        }
        if kind & 4 == 0 { sim.drain() } else { sim.outlast(kind & 8 != 0) }
    });
}

/// Descriptors that a session may be promised in one turn, beyond its client's and its target's.
const SPARE_DESCRIPTORS: usize = 2;

struct Sim<'a> {
    fixture: &'a mut Fixture,
    session: Option<Session<FakeStream>>,
    client: Rc<RefCell<Peer>>,
    network: FakeNetwork,
    verifier: FakeVerifier,
    /// The session has been given the verdict, and has its next turn with it.
    verified: bool,
    pool: Pool,
    closes: AbortiveCloses<FakeStream>,
    reserve: Reserve,
    shared: Shared,
    now: Instant,
    account: Option<UserId>,
    accounts_made: u32,
    /// The largest buffer there has been.
    largest: usize,
    /// Something has cut the exchange short.
    disturbed: bool,
    payload: u8,
}

impl<'a> Sim<'a> {
    fn new(fixture: &'a mut Fixture, kind: u8, size: u8) -> Self {
        let room = |bit: u8| if kind & bit == 0 { usize::MAX } else { 0 };
        let source = if kind & 1 == 0 { "127.0.0.1:5000" } else { "203.0.113.9:5000" };
        let source: SocketAddr = source.parse().expect("a literal");
        let near = if size & 8 == 0 { "192.0.2.200:4000" } else { "[2001:db8::200]:4000" };
        let near = near.parse().expect("a literal");
        let client = Peer::new(Making::Made, near, room(0x10));
        let mut users = Users::default();
        let account = users.add(NAME, PASSWORD, Role::User).expect("new");
        let buffer_size = [65536, 1, 7, 4096][usize::from(size) & 3];
        let settings = Settings {
            buffer_size,
            local_for: if kind & 2 != 0 { LocalFor::All } else { LocalFor::Loopback },
            own_ports: vec![OWN_PORT],
            // Associations have a simulation of their own, and listeners real sockets (tests/socks/bind.rs).
            bind: BindSettings { enabled: false, ..BindSettings::default() },
            udp: UdpSettings { enabled: false, ..UdpSettings::default() },
            ..Settings::default()
        };
        let limit = if size & 4 == 0 { usize::MAX } else { 6000 };
        let open = settings.local_for == LocalFor::All || source.ip().is_loopback();
        let network = FakeNetwork::new(&client, near, room(0x20), open, fixture.start);
        network.accounts.present.set(Some(0));
        let verifier = FakeVerifier::new(kind & 0x40 != 0);
        network.accounts.undecided.set(kind & 0x40 != 0);
        let records = if size & 16 == 0 { 4 } else { 0 };
        let settings = Settings { log_entries: records, ..settings };
        let mut shared = Shared::new(settings, users);
        shared.metrics.step(None, Some(socks5d::state::metrics::Stage::Hello));
        Sim {
            session: Some(Session::new(FakeStream::to(&client), source, fixture.start)),
            client,
            network,
            verifier,
            verified: false,
            pool: Pool::new(buffer_size, limit),
            closes: AbortiveCloses::default(),
            reserve: Reserve::default(),
            shared,
            now: fixture.start,
            account: Some(account),
            accounts_made: 1,
            largest: buffer_size,
            disturbed: false,
            payload: 0,
            fixture,
        }
    }

    fn says(&mut self, bytes: &[u8]) {
        self.client.borrow_mut().send(bytes);
    }

    /// Bytes that show when one is lost, doubled, or out of order.
    fn payload(&mut self, count: usize) -> Vec<u8> {
        let mut next = || {
            self.payload = self.payload.wrapping_mul(5).wrapping_add(13);
            self.payload
        };
        (0..count).map(|_| next()).collect()
    }

    fn step(&mut self, step: &Step<'_>) {
        match *step {
            Step::Raw(bytes) => self.says(bytes),
            Step::Hello => self.says(b"\x05\x02\x00\x02"),
            Step::Auth => self.says(b"\x01\x05alice\x02pw"),
            Step::Request(which) => self.says(REQUESTS[usize::from(which) % REQUESTS.len()]),
            Step::ClientSends(count) => {
                let bytes = self.payload(count);
                self.says(&bytes);
            }
            Step::TargetSends(count) => {
                let bytes = self.payload(count);
                self.at_target(|target| target.send(&bytes));
            }
            Step::ClientJoins => self.client.borrow_mut().join = true,
            Step::TargetJoins => self.at_target(|target| target.join = true),
            Step::ClientEof => self.client.borrow_mut().ends(End::Eof),
            Step::TargetEof => self.at_target(|target| target.ends(End::Eof)),
            Step::ClientResets => {
                self.disturbed = true;
                self.client.borrow_mut().ends(End::Reset);
            }
            Step::TargetResets => {
                self.disturbed = true;
                self.at_target(|target| target.ends(End::Reset));
            }
            Step::ClientTakes(count) => self.client.borrow_mut().open(count),
            Step::TargetTakes(count) => self.at_target(|target| target.open(count)),
            Step::ClientCuts(count) => self.client.borrow_mut().cut = count,
            Step::TargetCuts(count) => self.at_target(|target| target.cut = count),
            Step::ClientDeaf => {
                self.disturbed = true;
                self.client.borrow_mut().deaf = true;
            }
            Step::TargetDeaf => {
                self.disturbed = true;
                self.at_target(|target| target.deaf = true);
            }
            Step::ClientStarvesWrites => {
                self.disturbed = true;
                self.client.borrow_mut().starves_writes = true;
            }
            Step::TargetStarvesWrites => {
                self.disturbed = true;
                self.at_target(|target| target.starves_writes = true);
            }
            Step::Interruptions(count) => {
                self.client.borrow_mut().interruptions = count;
                self.at_target(|target| target.interruptions = count);
            }
            Step::Connects(which) => {
                self.network.picked = usize::from(which);
                self.at_target(|target| target.complete(Making::Made));
            }
            Step::Refuses(which) => {
                let errno = ERRORS[usize::from(which) % ERRORS.len()];
                self.network.picked = usize::from(which) / ERRORS.len();
                self.at_target(|target| target.complete(Making::Failed(errno)));
            }
            Step::NextDial(plan) => self.network.plan.push_back(plan),
            Step::Resolved(which) => self.resolved(which),
            Step::Verified => self.verified(),
            Step::Kill => {
                self.disturbed = true;
                self.close(CloseReason::Killed);
            }
            Step::Time(milliseconds) => {
                self.now += Duration::from_millis(milliseconds);
                // The shortest timeout is that of a lingering close.
                self.disturbed |= self.now >= self.fixture.start + Duration::from_secs(5);
            }
            Step::BufferSize(size) => {
                self.largest = self.largest.max(size);
                self.shared.process.settings.buffer_size = size;
            }
            Step::Delete(late) => self.delete(late),
            Step::AddAgain => {
                if self.account.is_none() {
                    self.account = self.shared.process.users.add(NAME, PASSWORD, Role::User).ok();
                    self.network.accounts.present.set(Some(self.accounts_made));
                    self.accounts_made += 1;
                }
            }
            Step::Repeat => {
                self.client.borrow_mut().repeat();
                self.at_target(Peer::repeat);
            }
            Step::Turn => self.turn(),
        }
    }

    fn at_target(&mut self, act: impl FnOnce(&mut Peer)) {
        if let Some(target) = self.network.target().filter(|target| !target.borrow().dropped) {
            act(&mut target.borrow_mut());
        }
    }

    /// The look-up of the name has come to its end.
    fn resolved(&mut self, which: u8) {
        let Heard { stage: Stage::Asked(Asked { host: Err(name), port, .. }), .. } =
            self.network.heard()
        else {
            return;
        };
        let hosts = ANSWERS[usize::from(which) % ANSWERS.len()];
        let addresses: Vec<SocketAddr> = hosts
            .iter()
            .map(|host| SocketAddr::new(host.parse().expect("a literal"), port))
            .collect();
        self.network.offered.extend(&addresses);
        let answer = if addresses.is_empty() { Err(ResolveError::NotFound) } else { Ok(addresses) };
        let more = which & MORE != 0 && answer.is_ok();
        if let Some(session) = &mut self.session {
            let (key, name) = (Key::unpack(0), String::from_utf8_lossy(&name));
            if !more {
                // Nothing is pending any more once there is an answer.
                self.fixture.dns.cancel(key, &name);
            }
            let name = (*name).into();
            let resolution = Resolution { key, name, port, addresses: answer, more };
            session.resolved(resolution, self.now);
        }
    }

    /// The verdict on the login has come, if the session waits for it.
    fn verified(&mut self) {
        if !self.verifier.is_awaited() {
            return;
        }
        for (key, verdict) in self.verifier.verdicts() {
            assert_eq!(key, Key::unpack(0), "asked for another session");
            if let Some(session) = &mut self.session {
                session.verified(verdict);
                self.verified = true;
            }
        }
    }

    /// The account is deleted; its sessions are closed in the same turn of the loop, before or after their own.
    fn delete(&mut self, late: bool) {
        let Some(account) = self.account.take() else { return };
        self.disturbed = true;
        self.shared.process.users.delete(account);
        self.network.accounts.present.set(None);
        if late {
            self.turn();
        }
        if self.session.as_ref().is_some_and(|session| session.user() == Some(account)) {
            self.close(CloseReason::UserDeleted);
        }
    }

    /// The events that are there, then turns until the session waits or closes.
    fn turn(&mut self) {
        let Some(session) = &mut self.session else { return };
        if let Some(event) = self.client.borrow_mut().event() {
            session.on_event(Side::Client, event);
        }
        let failed = Readiness { error: true, read_closed: true, ..Readiness::default() };
        for side in [Side::First, Side::Second, Side::Third] {
            let targets = self.network.targets.iter().zip(&self.network.sides);
            let mut live = targets.filter(|(target, of)| **of == side && !target.borrow().dropped);
            match live.next() {
                Some((target, _)) => {
                    if let Some(event) = target.borrow_mut().event() {
                        session.on_event(side, event);
                    }
                }
                // What comes for a descriptor that the state does not have changes nothing.
                None => session.on_event(side, failed),
            }
        }
        for _ in 0..PATIENCE {
            let before = self.progress();
            match self.once() {
                Flow::Again => assert_ne!(before, self.progress(), "turns without end"),
                Flow::Close => return self.close(CloseReason::Finished),
                Flow::Wait => return self.waits(),
            }
        }
        panic!("turns without end");
    }

    /// One turn, and what must be so after each.
    fn once(&mut self) -> Flow {
        let Some(mut session) = self.session.take() else { return Flow::Close };
        self.pool.resize(self.shared.process.settings.buffer_size);
        if self.verified {
            self.network.accounts.undecided.set(false);
        }
        self.reserve.allow(SPARE_DESCRIPTORS);
        let flow = session.turn(&mut self.context());
        if session.user().is_some() {
            self.network.heard();
            assert!(matches!(self.network.accounts.login.get(), Some(Some(_))), "a user, no login");
        }
        self.session = Some(session);
        self.check();
        self.check_accounting();
        flow
    }

    /// What is counted step by step is what there is: stages, descriptors, buffers, the account's connections.
    fn check_accounting(&self) {
        let open = usize::from(self.session.is_some());
        let stages = &self.shared.metrics.stages;
        assert_eq!(
            stages.iter().sum::<usize>(),
            open,
            "{stages:?}: stages do not sum to what is open"
        );
        let targets = self.network.targets.iter().filter(|target| !target.borrow().dropped).count();
        let promised = open + self.reserve.promised() + self.closes.len();
        assert!(targets <= promised, "{targets} targets, {promised} descriptors");
        let users = &self.shared.process.users;
        let used = self.account.and_then(|account| users.get(account));
        let logged_in = self.session.as_ref().and_then(Session::user);
        if let (Some(account), Some(used)) = (self.account, used) {
            assert_eq!(used.usage.open.get(), u64::from(logged_in == Some(account)));
        }
        let Some(session) = &self.session else { return };
        assert_eq!(stages.get(session.stage() as usize), Some(&1), "counted at another stage");
        let shown = session.describe(Key::unpack(0), self.now, users);
        assert!(shown.buffered > 0 || self.pool.leased() == 0, "memory for no byte");
    }

    /// A session that waits has nothing left to do, and has a deadline.
    fn waits(&mut self) {
        let before = self.progress();
        let flow = self.once();
        assert_eq!((flow, self.progress()), (Flow::Wait, before), "waited with work left");
        assert!(self.deadline() > self.now, "overdue, and not asked to be closed");
        let starved = |peer: &Rc<RefCell<Peer>>| peer.borrow().write_starved;
        let any = starved(&self.client) || self.network.target().is_some_and(starved);
        assert!(!any, "a write failed on this machine, and the session goes on");
    }

    fn deadline(&self) -> Instant {
        let timeouts = &self.shared.process.settings.timeouts;
        let deadline = self.session.as_ref().and_then(|session| session.deadline(timeouts));
        deadline.expect("a session that waits for ever")
    }

    fn context(&mut self) -> Context<'_, FakeStream> {
        self.network.now = self.now;
        Context {
            key: Key::unpack(0),
            now: self.now,
            network: &mut self.network,
            dns: &mut self.fixture.dns,
            verifier: &mut self.verifier,
            pool: &mut self.pool,
            closes: &mut self.closes,
            reserve: &self.reserve,
            shared: &mut self.shared,
        }
    }

    /// What shows that something was done.
    fn progress(&self) -> (usize, [Moved; 2]) {
        let target = self.network.target().map(|target| Moved::of(&target.borrow()));
        let client = Moved::of(&self.client.borrow());
        (self.network.targets.len(), [client, target.unwrap_or_default()])
    }

    /// What a session leaves behind: nothing but one line.
    fn close(&mut self, reason: CloseReason) {
        let Some(session) = self.session.take() else { return };
        session.close(reason, &mut self.context());
        self.check();
        self.check_accounting();
        assert_eq!(self.pool.leased(), 0, "buffers left behind");
        assert_eq!(self.reserve.promised(), 0, "promises left behind");
        assert!(self.client.borrow().dropped, "the client's connection left open");
        assert!(self.network.targets.iter().all(|target| target.borrow().dropped), "a target's");
        assert!(self.shared.process.to_own_ports.is_empty(), "a near end left behind");
        let waiting = self.fixture.dns.stats().queued > 0;
        assert!(!waiting && self.fixture.dns.orphans() == 0, "a question left behind");
        assert!(!self.verifier.is_awaited(), "a login left behind");
        let lines = self.shared.access_log.take_lines();
        let asked = matches!(self.network.heard().stage, Stage::Asked(_));
        let known = self.network.accounts.valid.get() == Some(true);
        assert_eq!(lines.lines().count(), usize::from(asked && known), "{lines:?}");
        if let Some(line) = lines.lines().next() {
            let fields: Vec<&str> = line.split('\t').collect();
            assert_eq!(fields.len(), 12, "{line:?}");
            let count = |at: usize| fields[at].parse::<u64>().expect("a number");
            let target = self.network.target().map_or(0, |target| target.borrow().received.len());
            assert_eq!(count(8), target as u64, "{line:?}");
            assert_eq!(count(8) + count(9), self.shared.metrics.bytes(), "{line:?}");
            self.check_end(fields[11]);
        }
        let log = &self.shared.access_log;
        if let Some((_, record)) = log.at_or_after(log.oldest()) {
            assert_eq!(record.bytes, self.shared.metrics.bytes(), "the record differs");
        }
    }

    /// The peers send their last bytes and read all there is: the session ends, and nothing is lost.
    fn drain(mut self) {
        for _ in 0..PATIENCE {
            let last = |peer: &mut Peer| {
                peer.open(usize::MAX);
                peer.complete(Making::Made);
                peer.ends(End::Eof);
            };
            last(&mut self.client.borrow_mut());
            self.network.picked = 0;
            self.at_target(last);
            self.turn();
            if self.session.is_none() {
                return self.check_all();
            }
            self.resolved(1);
            self.verified();
        }
        panic!("a session that does not end");
    }

    /// Nothing happens any more: the session asks to be closed. `rude`: except that a client to which nothing
    /// more is sent goes on sending.
    fn outlast(mut self, rude: bool) {
        self.turn();
        for _ in 0..PATIENCE {
            if self.session.is_none() {
                return;
            }
            self.now = self.now.max(self.deadline());
            if rude && self.refused() {
                let mut client = self.client.borrow_mut();
                client.babble = vec![b'x'; 4096];
                client.repeat();
            }
            self.turn();
        }
        panic!("time does not end the session");
    }

    fn refused(&self) -> bool {
        let heard = self.network.heard();
        let client = self.client.borrow();
        let reply = client.received.get(heard.answers.len() + 1);
        matches!(heard.stage, Stage::Over) || reply.is_some_and(|code| *code != 0)
    }
}

/// How far one side has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Moved {
    read: usize,
    received: usize,
    finished: bool,
}

impl Moved {
    fn of(peer: &Peer) -> Self {
        let (read, received) = (peer.read + peer.babbled, peer.received.len());
        Moved { read, received, finished: peer.finished }
    }
}
