//! The loop of a server whose accounts have rates: several sessions and a clock that goes as the test wants.
//!
//! Sessions have turns when something has come for them, when their account may read again, and when their deadline has
//! passed; the clock goes from one of these to the next. So hours at 1 kbit/s take no time, and nothing depends on the
//! speed of the machine.

mod associations;
mod changes;
mod network;
mod tunnels;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use metp_protocol::Role;
use socks5d::proto::limits::{LimitKey, Limits};
use socks5d::reactor::Flow;
use socks5d::reactor::abortive_close::AbortiveCloses;
use socks5d::reactor::buffer::Pool;
use socks5d::reactor::reserve::Reserve;
use socks5d::reactor::slab::Key;
use socks5d::reactor::token::Side;
use socks5d::socks::{CloseReason, Context, Session};
use socks5d::state::Shared;
use socks5d::state::metrics::Stage;
use socks5d::state::settings::Settings;
use socks5d::state::users::{UserId, Users};
use socks5d::state::verifier::InPlace;

use crate::datagrams::FakeUdp;
use crate::fake::{FakeStream, Making, Peer};
use crate::network::{Fixture, NAME, PASSWORD};
use network::SharedNetwork;

/// Turns that may follow one event, of all sessions together.
const PATIENCE: usize = 2000;
/// Bytes that one peer may receive in a test.
const MOST_RECEIVED: usize = 8_000_000;
/// What an account that has been silent may read at once, in bytes, at a low rate.
const BURST: u64 = 64 * 1024;
/// The least that a session is given at once, in bytes.
const LEAST_GRANT: u64 = 2896;
/// The client, on the control connection and as a sender of datagrams.
const CLIENT: &str = "127.0.0.1:5000";
/// The target of all sessions.
const TARGET: &str = "192.0.2.1:53";

type SharedPeer = Rc<RefCell<Peer>>;
type SharedUdp = Rc<RefCell<FakeUdp>>;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("a literal")
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A session that is open.
struct Open {
    session: Session<FakeStream>,
    client: SharedPeer,
}

/// The server: one account, and its sessions by number.
struct Server {
    fixture: Fixture,
    user: UserId,
    sessions: BTreeMap<u32, Open>,
    /// Sessions that have to have a turn.
    ready: BTreeSet<u32>,
    opened: u32,
    network: SharedNetwork,
    verifier: InPlace,
    pool: Pool,
    closes: AbortiveCloses<FakeStream>,
    reserve: Reserve,
    shared: Shared,
    now: Instant,
}

/// The two ends of a tunnel.
struct Tunnel {
    number: u32,
    client: SharedPeer,
    target: SharedPeer,
}

impl Tunnel {
    /// Both ends send as much as is read.
    fn babble(&self) {
        for peer in [&self.client, &self.target] {
            peer.borrow_mut().babble = vec![7; 64 * 1024];
            peer.borrow_mut().repeat();
        }
    }

    /// Neither of the ends sends any more.
    fn hush(&self) {
        for peer in [&self.client, &self.target] {
            peer.borrow_mut().babble.clear();
        }
    }

    /// Payload bytes that have reached target and client.
    fn passed(&self) -> [u64; 2] {
        let client = self.client.borrow().received.len().saturating_sub(REPLY.len());
        [self.target.borrow().received.len() as u64, client as u64]
    }
}

/// An association, and its socket towards the client.
struct Association {
    number: u32,
    near: SharedUdp,
}

/// Method, status of the login, and the reply.
const REPLY: [u8; 14] = [5, 2, 1, 0, 5, 0, 0, 1, 192, 0, 2, 200, 0x0f, 0xa0];

impl Server {
    /// An account with this rate.
    fn new(rate: &str) -> Self {
        Server::with(rate, Settings::default())
    }

    fn with(rate: &str, settings: Settings) -> Self {
        let fixture = Fixture::new();
        let mut users = Users::default();
        let user = users.add(NAME, PASSWORD, Role::User).expect("new");
        let (now, pool) = (fixture.start, Pool::new(settings.buffer_size, usize::MAX));
        let mut server = Server {
            fixture,
            user,
            sessions: BTreeMap::new(),
            ready: BTreeSet::new(),
            opened: 0,
            network: SharedNetwork::default(),
            verifier: InPlace,
            pool,
            closes: AbortiveCloses::default(),
            reserve: Reserve::default(),
            shared: Shared::new(settings, users),
            now,
        };
        server.set_rate(rate);
        server
    }

    fn set_rate(&mut self, rate: &str) {
        let mut limits = Limits::default();
        limits.set(LimitKey::Rate, rate.as_bytes()).expect("a rate");
        self.shared.process.users.set_limits(self.user, Some(Box::new(limits)), 0);
    }

    /// A client that logs in and sends a request, with `payload` in the same segment.
    fn request(&mut self, command: u8, payload: &[u8]) -> (u32, SharedPeer) {
        let client = Peer::new(Making::Made, address("192.0.2.200:1080"), usize::MAX);
        let length = |bytes: &[u8]| bytes.len() as u8;
        let login = [&[1, length(NAME)][..], NAME, &[length(PASSWORD)], PASSWORD].concat();
        let target = if command == 1 { [192, 0, 2, 1, 0, 53] } else { [0; 6] };
        let request = [&[5, command, 0, 1][..], &target].concat();
        client.borrow_mut().send(&[&[5, 1, 2][..], &login, &request, payload].concat());
        let session = Session::new(FakeStream::to(&client), address(CLIENT), self.now);
        self.shared.metrics.step(None, Some(Stage::Hello));
        self.opened += 1;
        self.sessions.insert(self.opened, Open { session, client: Rc::clone(&client) });
        self.ready.insert(self.opened);
        self.turns();
        (self.opened, client)
    }

    /// A tunnel; its client sends `payload` with the request.
    fn tunnel(&mut self, payload: &[u8]) -> Tunnel {
        let (number, client) = self.request(1, payload);
        assert_eq!(client.borrow().received, REPLY);
        let target = Rc::clone(&self.network.targets[&number]);
        Tunnel { number, client, target }
    }

    /// An association whose client has sent one datagram to the target.
    fn association(&mut self) -> Association {
        let (number, client) = self.request(3, b"");
        assert_eq!(client.borrow().received.get(..6), Some(&[5, 2, 1, 0, 5, 0][..]));
        let near = self.socket(number, Side::First).expect("open");
        near.borrow_mut().arrives(to_target(&[0; 8]), address(CLIENT));
        self.turns();
        Association { number, near }
    }

    fn socket(&self, number: u32, side: Side) -> Option<SharedUdp> {
        self.network.sockets.get(&(number, side as usize)).cloned()
    }

    /// The socket of an association towards its target.
    fn far(&self, association: &Association) -> SharedUdp {
        self.socket(association.number, Side::Second).expect("a datagram was sent")
    }

    /// The earliest of what has to be waited for.
    fn next(&self) -> Option<Instant> {
        let timeouts = &self.shared.process.settings.timeouts;
        let deadlines = self.sessions.values().filter_map(|open| open.session.deadline(timeouts));
        deadlines.chain(self.shared.rates.next_due()).min()
    }

    /// Lets this time pass.
    fn passes(&mut self, time: Duration) {
        let end = self.now + time;
        self.turns();
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            let timeouts = &self.shared.process.settings.timeouts;
            let overdue = |open: &Open| {
                open.session.deadline(timeouts).is_some_and(|deadline| deadline <= self.now)
            };
            let overdue = self.sessions.iter().filter(|(_, open)| overdue(open));
            self.ready.extend(overdue.map(|(number, _)| number));
            self.turns();
        }
        self.now = end;
    }

    /// Time passes until somebody may read again, who is told, and has no turn yet.
    fn grant(&mut self) {
        self.now = self.shared.rates.next_due().expect("somebody waits").max(self.now);
        self.tell_grants();
    }

    fn tell_grants(&mut self) {
        let sessions = &self.sessions;
        let is_open = |key: Key| sessions.contains_key(&number(key));
        for grant in self.shared.take_grants(self.now, is_open) {
            let open = self.sessions.get_mut(&number(grant.key)).expect("it is open");
            open.session.granted(grant, self.now);
            self.ready.insert(number(grant.key));
        }
    }

    /// Turns of all that have something to do, until all wait.
    fn turns(&mut self) {
        for _ in 0..PATIENCE {
            self.tell_grants();
            let numbers: Vec<u32> = self.sessions.keys().copied().collect();
            for number in numbers {
                self.events(number);
            }
            let Some(number) = self.ready.pop_first() else { return };
            self.turn(number);
        }
        panic!("turns without end");
    }

    /// Brings the events of a session.
    fn events(&mut self, number: u32) {
        let Some(open) = self.sessions.get_mut(&number) else { return };
        let mut events = vec![(Side::Client, open.client.borrow_mut().event())];
        if let Some(target) = self.network.targets.get(&number) {
            events.push((Side::First, target.borrow_mut().event()));
        }
        for side in [Side::First, Side::Second, Side::Third] {
            if let Some(socket) = self.network.sockets.get(&(number, side as usize)) {
                events.push((side, socket.borrow_mut().event()));
            }
        }
        for (side, event) in events {
            if let Some(event) = event {
                open.session.on_event(side, event);
                self.ready.insert(number);
            }
        }
    }

    fn turn(&mut self, number: u32) {
        let Some(mut open) = self.sessions.remove(&number) else { return };
        self.reserve.allow(8);
        let flow = open.session.turn(&mut self.context(number));
        let received = |peer: &SharedPeer| peer.borrow().received.len();
        let most =
            self.network.targets.get(&number).map_or(0, received).max(received(&open.client));
        assert!(most < MOST_RECEIVED, "nothing holds it back");
        match flow {
            Flow::Wait => {}
            Flow::Again => drop(self.ready.insert(number)),
            Flow::Close => {
                return open.session.close(CloseReason::Finished, &mut self.context(number));
            }
        }
        self.sessions.insert(number, open);
    }

    /// An administrator ends a session.
    fn kill(&mut self, number: u32) {
        let open = self.sessions.remove(&number).expect("open");
        open.session.close(CloseReason::Killed, &mut self.context(number));
    }

    fn context(&mut self, number: u32) -> Context<'_, FakeStream> {
        Context {
            key: key(number),
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

    /// Why the sessions that have ended did so, in their order.
    fn reasons(&mut self) -> Vec<String> {
        let lines = self.shared.access_log.take_lines();
        let closed = lines.lines().filter(|line| !line.contains("\tU\t"));
        closed.map(|line| line.rsplit('\t').next().unwrap_or_default().to_owned()).collect()
    }
}

fn key(number: u32) -> Key {
    Key::unpack(number.into())
}

fn number(key: Key) -> u32 {
    u32::try_from(key.pack()).expect("few")
}

/// A datagram of the client.
fn to_target(payload: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 1, 192, 0, 2, 1, 0, 53], payload].concat()
}

/// No more than the rate and the burst, and hardly less than the rate. `rate` in bytes per second; `extra`: what may
/// be read at once beyond it.
fn check_rate(passed: u64, rate: u64, time: Duration, extra: u64) {
    let earned = rate * time.as_secs();
    assert!(passed <= earned + extra, "{passed} bytes, {earned} + {extra} are allowed");
    assert!(passed * 100 >= earned * 95, "{passed} bytes, {earned} could be had");
}
