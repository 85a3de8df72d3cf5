//! A whole SOCKS session, from the first byte to the access log, in surroundings that a scenario describes.
//!
//! After each turn all that was sent is compared with the RFCs and memos as `reference.rs` reads them, and with what
//! the peers have sent. In the end either the peers let the session finish, or they do not and its deadline passes.

mod turns;
mod verdict;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use metp_protocol::Role;
use metp_protocol::network::Network;
use socks5d::reactor::abortive_close::AbortiveCloses;
use socks5d::reactor::buffer::Pool;
use socks5d::reactor::reserve::Reserve;
use socks5d::reactor::slab::Key;
use socks5d::socks::{CloseReason, Session};
use socks5d::state::Shared;
use socks5d::state::settings::{BindSettings, LocalFor, Settings, TrustSettings, UdpSettings};
use socks5d::state::users::{UserId, Users};
use socks5d::state::verifier::Verifier;
use socks5d::workers::dns_cache::{Resolution, ResolveError};

use crate::fake::{End, FakeStream, Making, Peer};
use crate::network::{ERRORS, FakeNetwork, Fixture, NAME, OWN_PORT, PASSWORD, literal};
use crate::reference::{Asked, Heard, Policy, Stage};
use crate::script::{ANSWERS, HEADS, REQUESTS, SOCKS4, Step, steps};
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

/// The name that an address has.
const HOST: &str = "host.example";

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
        let policy = Policy {
            trusted: size & 0x20 != 0,
            http: size & 0x40 != 0,
            any_login: size & 0x80 != 0,
        };
        let buffer_size = [65536, 1, 7, 4096][usize::from(size) & 3];
        let settings = Settings {
            buffer_size,
            local_for: if kind & 2 != 0 { LocalFor::All } else { LocalFor::Loopback },
            own_ports: vec![OWN_PORT],
            // Associations have a simulation of their own, and listeners real sockets (tests/socks/bind.rs).
            bind: BindSettings { enabled: false, ..BindSettings::default() },
            udp: UdpSettings { enabled: false, ..UdpSettings::default() },
            trust: trust(policy, source),
            http_connect: policy.http,
            ..Settings::default()
        };
        let limit = if size & 4 == 0 { usize::MAX } else { 6000 };
        let open = settings.local_for == LocalFor::All || source.ip().is_loopback();
        let mut network = FakeNetwork::new(&client, near, room(0x20), open, fixture.start);
        network.policy = policy;
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
            Step::Socks4(which) => self.says(SOCKS4[usize::from(which) % SOCKS4.len()]),
            Step::Head(which) => self.says(HEADS[usize::from(which) % HEADS.len()].as_bytes()),
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
        let Heard { stage: Stage::Asked(asked), .. } = self.network.heard() else { return };
        if asked.command == 0xf1 {
            return self.named(&asked, which);
        }
        let Asked { host: Err(name), port, .. } = asked else { return };
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

    /// The look-up of the name of an address has come to its end.
    fn named(&mut self, asked: &Asked, which: u8) {
        let (Some(address), Some(session)) = (literal(asked), &mut self.session) else { return };
        self.fixture.dns.cancel_name(Key::unpack(0), address);
        session.named(match which % 3 {
            0 => Ok(HOST.into()),
            1 => Err(ResolveError::NotFound),
            _ => Err(ResolveError::Failed),
        });
    }

    /// The verdict on the login has come, if the session waits for it.
    fn verified(&mut self) {
        if !self.verifier.is_awaited() {
            return;
        }
        for (key, verdict) in self.verifier.verdicts(&mut self.shared.process.users, self.now) {
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
}

/// The networks that are trusted: that of the client, if it is to be, and another one.
fn trust(policy: Policy, source: SocketAddr) -> TrustSettings {
    let mut trust = TrustSettings::default();
    trust.any_login = policy.any_login;
    let other = "198.51.100.0/24".to_owned();
    for network in
        [Some(other), policy.trusted.then(|| source.ip().to_string())].into_iter().flatten()
    {
        trust.add(Network::parse(&network).expect("a network")).expect("two are not too many");
    }
    trust
}
