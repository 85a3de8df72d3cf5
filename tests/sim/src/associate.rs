//! A whole association: the datagrams of a scenario, compared with an independent reading of RFC 1928 §7.
//!
//! Each payload has a number, so that each datagram that comes out is one that went in. In the end all sockets are
//! closed, all promises given back, and the counted bytes are those that were sent.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use socks5d::reactor::Flow;
use socks5d::reactor::abortive_close::AbortiveCloses;
use socks5d::reactor::buffer::Pool;
use socks5d::reactor::reserve::Reserve;
use socks5d::reactor::slab::Key;
use socks5d::reactor::token::Side;
use socks5d::socks::{CloseReason, Context, Session};
use socks5d::state::Shared;
use socks5d::state::settings::{Settings, UdpFilter};
use socks5d::state::users::Users;
use socks5d::state::verifier::InPlace;

use metp_protocol::Role;

use crate::fake::{End, FakeStream, Making, Peer};
use crate::network::{Fixture, NAME, OWN_PORT, PASSWORD, local};
use crate::reference::{Sending, read_datagram};
use crate::udp_network::{UdpNetwork, from_loopback};

/// Turns that a session may need until it waits.
const PATIENCE: usize = 10_000;
/// Where a name leads that is known without a look-up.
const KNOWN_NAME: &[u8] = b"localhost";

/// Who sends to the client's side: the client from its port and from another one, and strangers.
const SENDERS: [&str; 4] =
    ["127.0.0.1:5000", "127.0.0.1:5001", "203.0.113.9:5000", "127.0.0.9:5000"];
/// Targets, some of which are closed to some clients.
const TARGETS: [&str; 11] = [
    "192.0.2.1:53",
    "192.0.2.1:54",
    "192.0.2.2:53",
    "[2001:db8::1]:53",
    "[::ffff:192.0.2.1]:53",
    "127.0.0.1:53",
    "127.0.0.1:1080",
    "224.0.0.1:53",
    "0.0.0.0:53",
    "192.0.2.3:0",
    "[2001:db8:5::9]:53",
];
const LENGTHS: [usize; 6] = [8, 8, 100, 9, 1200, 9000];
const ERRORS: [i32; 6] = [101, 1, 90, 11, 105, 111];

/// A datagram that went in, with a number of its own in its payload.
struct Offered {
    payload: Vec<u8>,
    /// Who has sent it.
    from: SocketAddr,
    /// What the independent reading makes of it; nothing for a datagram of a target.
    sending: Option<Sending>,
    /// Whether it has come out.
    came_out: bool,
}

struct Play<'a> {
    fixture: &'a mut Fixture,
    session: Option<Session<FakeStream>>,
    client: Rc<RefCell<Peer>>,
    network: UdpNetwork,
    verifier: InPlace,
    pool: Pool,
    closes: AbortiveCloses<FakeStream>,
    reserve: Reserve,
    shared: Shared,
    now: Instant,
    open: bool,
    /// The session ends by a panic.
    panics: bool,
    up: Vec<Offered>,
    down: Vec<Offered>,
    /// Datagrams of each socket that have been looked at.
    seen: [usize; 4],
    number: u32,
}

/// A scenario: two bytes choose the surroundings, the others, in pairs, say what happens.
pub fn associate(bytes: &[u8]) {
    let [kind, size, steps @ ..] = bytes else { return };
    thread_local! {
        static FIXTURE: RefCell<Fixture> = RefCell::new(Fixture::new());
    }
    FIXTURE.with_borrow_mut(|fixture| {
        let mut play = Play::new(fixture, *kind, *size);
        play.begins();
        for step in steps.chunks_exact(2).take(200) {
            play.step(step[0], step[1]);
        }
        play.ends();
    });
}

impl<'a> Play<'a> {
    fn new(fixture: &'a mut Fixture, kind: u8, size: u8) -> Self {
        let source: SocketAddr =
            if kind & 1 == 0 { SENDERS[0] } else { SENDERS[2] }.parse().expect("a literal");
        let near: SocketAddr = "192.0.2.200:1080".parse().expect("a literal");
        let client = Peer::new(Making::Made, near, usize::MAX);
        let mut users = Users::default();
        users.add(NAME, PASSWORD, Role::User).expect("new");
        let mut settings = Settings { own_ports: vec![OWN_PORT], ..Settings::default() };
        settings.udp.filter = UdpFilter::ALL[usize::from(kind >> 1) % 3];
        settings.udp.log = usize::from(size >> 4);
        let mut shared = Shared::new(settings, users);
        shared.metrics.step(None, Some(socks5d::state::metrics::Stage::Hello));
        let network = UdpNetwork {
            near,
            sockets: Default::default(),
            batch: usize::from(size & 3) + 1,
            joins: size & 4 != 0,
            has_ipv6: size & 8 == 0,
        };
        let now = fixture.start;
        Play {
            fixture,
            session: Some(Session::new(FakeStream::to(&client), source, now)),
            client,
            network,
            verifier: InPlace,
            pool: Pool::new(65536, usize::MAX),
            closes: AbortiveCloses::default(),
            reserve: Reserve::default(),
            shared,
            now,
            open: source.ip().is_loopback(),
            panics: kind & 0x80 != 0,
            up: Vec::new(),
            down: Vec::new(),
            seen: [0; 4],
            number: 0,
        }
    }

    /// Greeting, login and request in one segment; the reply is there, to the byte.
    fn begins(&mut self) {
        let length = |bytes: &[u8]| bytes.len() as u8;
        let login = [&[1, length(NAME)][..], NAME, &[length(PASSWORD)], PASSWORD].concat();
        let says = [&[5, 1, 2][..], &login, &[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
        self.client.borrow_mut().send(&says);
        self.turn();
        let reply = [5, 2, 1, 0, 5, 0, 0, 1, 192, 0, 2, 200, 0x9c, 0x41];
        assert_eq!(self.client.borrow().received, reply, "40001 is the port of the first side");
    }

    fn step(&mut self, step: u8, argument: u8) {
        let choice = usize::from(argument);
        match step % 11 {
            0 | 1 => self.client_sends(SENDERS[choice % SENDERS.len()], choice),
            2 | 3 => self.client_sends(if self.open { SENDERS[0] } else { SENDERS[2] }, choice),
            4 | 5 => self.target_sends(TARGETS[choice % 6], choice),
            6 => self.now += Duration::from_secs(argument.into()),
            7 => self.client.borrow_mut().send(&vec![argument; choice * 40]),
            8 => {
                if let Some(socket) = &self.network.sockets[1 + choice % 3] {
                    socket.borrow_mut().refused.push_back(ERRORS[choice / 3 % ERRORS.len()]);
                }
            }
            9 => {
                if let Some(socket) = &self.network.sockets[1 + choice % 3] {
                    socket.borrow_mut().fails(ERRORS[choice / 3 % ERRORS.len()]);
                }
            }
            _ => {
                let filters = UdpFilter::ALL;
                self.shared.process.settings.udp.filter = filters[choice % filters.len()];
            }
        }
        if step & 0x80 == 0 {
            self.turn();
        }
    }

    /// A payload of this length, 8 at least, that begins with a number of its own.
    fn payload(&mut self, length: usize) -> Vec<u8> {
        self.number += 1;
        let mut payload = vec![0xa5; length];
        payload[..4].copy_from_slice(&self.number.to_be_bytes());
        payload
    }

    fn client_sends(&mut self, from: &str, choice: usize) {
        let from: SocketAddr = from.parse().expect("a literal");
        let payload = self.payload(LENGTHS[choice / 7 % LENGTHS.len()]);
        let target: SocketAddr = TARGETS[choice % TARGETS.len()].parse().expect("a literal");
        let mut bytes = vec![0, 0, 0];
        match (choice % 5, target.ip()) {
            (4, _) if choice.is_multiple_of(2) => {
                bytes.extend([3, KNOWN_NAME.len() as u8]);
                bytes.extend(KNOWN_NAME);
            }
            (_, IpAddr::V4(v4)) => {
                bytes.push(1);
                bytes.extend(v4.octets());
            }
            (_, IpAddr::V6(v6)) => {
                bytes.push(4);
                bytes.extend(v6.octets());
            }
        }
        bytes.extend(target.port().to_be_bytes());
        bytes.extend(&payload);
        match choice {
            250 => bytes[2] = 1,
            251 => bytes[3] = 2,
            252 => bytes.truncate(7),
            253 => bytes[0] = 0xff,
            _ => {}
        }
        let sending = read_datagram(&bytes);
        self.up.push(Offered { payload, from, sending, came_out: false });
        if let Some(socket) = &self.network.sockets[Side::First as usize] {
            socket.borrow_mut().arrives(bytes, from);
        }
    }

    fn target_sends(&mut self, from: &str, choice: usize) {
        let from: SocketAddr = from.parse().expect("a literal");
        let side = if from.is_ipv4() { Side::Second } else { Side::Third };
        let Some(socket) = self.network.sockets[side as usize].clone() else { return };
        let payload = self.payload(LENGTHS[choice / 7 % LENGTHS.len()]);
        socket.borrow_mut().arrives(payload.clone(), from);
        self.down.push(Offered { payload, from, sending: None, came_out: false });
    }

    /// The events that are there, then turns until the session waits or closes.
    fn turn(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        if let Some(event) = self.client.borrow_mut().event() {
            session.on_event(Side::Client, event);
        }
        for side in [Side::First, Side::Second, Side::Third] {
            let socket = self.network.sockets[side as usize].as_ref();
            if let Some(event) = socket.and_then(|socket| socket.borrow_mut().event()) {
                session.on_event(side, event);
            }
        }
        for _ in 0..PATIENCE {
            self.reserve.allow(8);
            let before = self.calls();
            let flow = session.turn(&mut self.context());
            // However much waits there: others have their turns between two batches.
            let once = self.calls().into_iter().zip(before).all(|(now, before)| now <= before + 1);
            assert!(once, "more than a batch of a socket in one turn");
            self.check();
            match flow {
                Flow::Again => {}
                Flow::Wait => {
                    let deadline = session.deadline(&self.shared.process.settings.timeouts);
                    assert!(deadline.is_some_and(|deadline| deadline > self.now), "waits for ever");
                    self.session = Some(session);
                    return;
                }
                Flow::Close => {
                    session.close(CloseReason::Finished, &mut self.context());
                    return;
                }
            }
        }
        panic!("turns without end");
    }

    /// Calls that receive, of each socket.
    fn calls(&self) -> [u32; 4] {
        self.network
            .sockets
            .each_ref()
            .map(|socket| socket.as_ref().map_or(0, |socket| socket.borrow().calls))
    }

    fn context(&mut self) -> Context<'_, FakeStream> {
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

    /// What has come out since the last look is what went in.
    fn check(&mut self) {
        for side in [Side::Second, Side::Third] {
            let Some(socket) = self.network.sockets[side as usize].clone() else { continue };
            for (payload, to) in &socket.borrow().sent[self.seen[side as usize]..] {
                self.check_up(payload, *to);
            }
            self.seen[side as usize] = socket.borrow().sent.len();
        }
        let Some(socket) = self.network.sockets[Side::First as usize].clone() else { return };
        for (datagram, to) in &socket.borrow().sent[self.seen[Side::First as usize]..] {
            self.check_down(datagram, *to);
        }
        self.seen[Side::First as usize] = socket.borrow().sent.len();
    }

    fn check_up(&mut self, payload: &[u8], to: SocketAddr) {
        let found = self.up.iter_mut().find(|offered| offered.payload == payload);
        let offered = found.expect("a datagram that nobody has sent, or that was cut");
        assert!(!std::mem::replace(&mut offered.came_out, true), "sent twice");
        let client = if self.open { SENDERS[0] } else { SENDERS[2] };
        let client: SocketAddr = client.parse().expect("a literal");
        assert_eq!(offered.from.ip(), client.ip(), "a stranger's");
        let sending = offered.sending.as_ref().expect("no datagram by RFC 1928");
        match &sending.host {
            Ok(ip) => assert_eq!(to.ip(), ip.to_canonical(), "to another address"),
            Err(name) => assert!(name == KNOWN_NAME && to.ip().is_loopback(), "to another name"),
        }
        assert_eq!(to.port(), sending.port);
        assert!(self.open || !local(to.ip()), "{to} is closed to this client");
        assert!(self.open || to.ip() != from_loopback(), "it leaves from loopback");
        let impossible = to.port() == 0 || to.ip().is_multicast() || to.ip().is_unspecified();
        assert!(!impossible, "{to} is the address of no machine");
        assert!(to.port() != OWN_PORT || !to.ip().is_loopback(), "the server's own port");
    }

    fn check_down(&mut self, datagram: &[u8], to: SocketAddr) {
        let sending = read_datagram(datagram).expect("a header by RFC 1928");
        let payload = &datagram[datagram.len() - sending.payload..];
        let found = self.down.iter_mut().find(|offered| offered.payload == payload);
        let offered = found.expect("a datagram that nobody has sent, or that was cut");
        assert!(!std::mem::replace(&mut offered.came_out, true), "sent twice");
        assert_eq!(
            (sending.host, sending.port),
            (Ok(offered.from.ip().to_canonical()), offered.from.port())
        );
        assert!(self.up.iter().any(|up| up.from == to), "{to} is nobody's address");
        let asked = self.up.iter().any(|up| {
            let sending = up.sending.as_ref();
            sending.is_some_and(|sending| match &sending.host {
                Ok(ip) => ip.to_canonical() == offered.from.ip().to_canonical(),
                Err(_) => offered.from.ip().is_loopback(),
            })
        });
        let filters = self.shared.process.settings.udp.filter != UdpFilter::Any;
        assert!(asked || !filters, "an answer from where nothing was sent");
    }

    /// The control connection ends, and with it everything. Or a turn panics: the session is dropped as it is.
    fn ends(&mut self) {
        if self.panics {
            self.session = None;
            return self.nothing_is_left();
        }
        self.client.borrow_mut().ends(End::Eof);
        for _ in 0..4 {
            self.turn();
        }
        assert!(self.session.is_none(), "open without a control connection");
        self.nothing_is_left();
        assert_eq!(self.pool.leased(), 0);
        let out = |offered: &[Offered]| {
            let out = offered.iter().filter(|offered| offered.came_out);
            out.map(|offered| offered.payload.len() as u64).sum::<u64>()
        };
        let metrics = &self.shared.metrics;
        assert_eq!((metrics.up, metrics.down), (out(&self.up), out(&self.down)), "miscounted");
        let count = |offered: &[Offered]| offered.iter().filter(|offered| offered.came_out).count();
        let counts = (metrics.datagrams.up, metrics.datagrams.down);
        assert_eq!(counts, (count(&self.up) as u64, count(&self.down) as u64));
        let lines = self.shared.access_log.take_lines();
        let targets = lines.lines().filter(|line| line.contains("\tU\t"));
        let logged: HashSet<String> =
            targets.clone().map(|line| line.split('\t').skip(5).take(2).collect()).collect();
        assert_eq!(logged.len(), targets.count(), "a target is logged twice");
        assert!(logged.len() <= self.shared.process.settings.udp.log);
        assert_eq!(lines.lines().filter(|line| line.contains("\tA\t")).count(), 1);
        assert!(self.fixture.dns.orphans() == 0);
    }

    /// All descriptors are closed, and the promise of them is given back.
    fn nothing_is_left(&self) {
        let mut sockets = self.network.sockets.iter().flatten();
        assert!(sockets.all(|socket| socket.borrow().dropped), "a socket is left");
        assert!(self.client.borrow().dropped && self.pool.ports.is_empty());
        assert_eq!(self.reserve.promised(), 0);
    }
}

#[cfg(test)]
mod tests {
    use socks5d::state::metrics::DropCause;

    use super::*;

    /// 2,000 datagrams in 32 runs, to 251 targets in turn: a turn takes a part of them and drops the
    /// rest, the next ones ask for less, and none is lost then.
    #[test]
    fn a_turn_has_a_budget() {
        let mut fixture = Fixture::new();
        let mut play = Play::new(&mut fixture, 0, 4);
        play.network.batch = 32;
        play.begins();
        let client: SocketAddr = SENDERS[0].parse().expect("a literal");
        let arrive = |play: &mut Play<'_>, count: u16| {
            let socket = play.network.sockets[Side::First as usize].clone().expect("open");
            for number in 0..count {
                let target = [192, 0, 2, 1 + (number % 251) as u8];
                let bytes = [&[0, 0, 0, 1][..], &target, &[0, 53], &[7; 1000]].concat();
                socket.borrow_mut().arrives(bytes, client);
            }
            socket
        };
        let count = |play: &Play<'_>| {
            let [_, _, up, _] = play.network.sockets.each_ref();
            up.as_ref().map_or(0, |socket| socket.borrow().sent.len())
        };
        let socket = arrive(&mut play, 2000);
        let mut session = play.session.take().expect("open");
        let mut most = 0;
        while let Some(event) = socket.borrow_mut().event() {
            session.on_event(Side::First, event);
        }
        loop {
            play.reserve.allow(8);
            let before = count(&play);
            let flow = session.turn(&mut play.context());
            most = most.max(count(&play) - before);
            if let Flow::Wait = flow {
                break;
            }
        }
        // A few go where the last one went that was judged, which costs nothing.
        assert!((1..=256 + 8).contains(&most), "{most} in one turn");
        let dropped = play.shared.metrics.datagrams.dropped[DropCause::Busy as usize];
        assert_eq!(count(&play) as u64 + dropped, 2000);
        // One message at a time from then on.
        assert!(dropped < 2000 - 256, "{dropped} dropped");
        play.session = Some(session);
    }
}
