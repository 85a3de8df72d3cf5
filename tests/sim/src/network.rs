//! The surroundings of one SOCKS session: the network, the accounts and the names.
//!
//! The network also checks each dial against what the client has sent: whether it has logged in, and asked for it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use socks5d::reactor::datagram::{DatagramConfig, Datagrams};
use socks5d::reactor::network::Network;
use socks5d::reactor::peer_listener::PeerListener;
use socks5d::reactor::slab::Key;
use socks5d::reactor::token::Side;
use socks5d::reactor::waker::Waker;
use socks5d::workers::dns_cache::{DnsCache, Ttls};
use socks5d::workers::families::{Family, Prefer};
use socks5d::workers::resolver::Resolver;
use socks5d::workers::worker_pool::Limits;

use crate::fake::{FakeStream, Making, Peer};
use crate::reference::{Asked, Heard, Policy, Stage, Who, hear};

pub const NAME: &[u8] = b"alice";
pub const PASSWORD: &[u8] = b"pw";
/// The server's own port.
pub const OWN_PORT: u16 = 1080;
/// The name that needs no look-up, and its address.
pub const CACHED: (&str, [u8; 4]) = ("remembered.example", [192, 0, 2, 7]);

/// A near end that looks like a client on this machine.
const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 4000);

/// Errors of connect(2).
pub const ERRORS: [i32; 8] = [111, 101, 113, 110, 13, 24, 99, 104];

/// Which account is there, and which one has logged in. Each has a number of its own.
#[derive(Default)]
pub struct Accounts {
    pub present: Cell<Option<u32>>,
    /// Whose name and password had come, once they had.
    pub asked: Cell<Option<Option<u32>>>,
    /// Whether the verdict on them comes later, and the session does not have it yet.
    pub undecided: Cell<bool>,
    /// What came of the login: the account, if it was still there.
    pub login: Cell<Option<Option<u32>>>,
    /// Whether the account was still there when the request was whole.
    pub valid: Cell<Option<bool>>,
}

/// The network: opens connections as the scenario says.
pub struct FakeNetwork {
    /// Whom the server lets in besides accounts.
    pub policy: Policy,
    pub client: Rc<RefCell<Peer>>,
    pub accounts: Accounts,
    /// What becomes of the next attempts.
    pub plan: VecDeque<u8>,
    pub targets: Vec<Rc<RefCell<Peer>>>,
    /// The side of each target.
    pub sides: Vec<Side>,
    /// Which of several attempts the scenario acts on.
    pub picked: usize,
    /// The time.
    pub now: Instant,
    /// When the last attempt started, and how many there were then.
    started: (Instant, usize),
    /// Whether an attempt has failed at once since then.
    failed: bool,
    /// Addresses that were given for the name.
    pub offered: Vec<SocketAddr>,
    /// Whether local addresses are open to this client.
    pub open: bool,
    /// What a target takes at first, in bytes.
    pub room: usize,
    /// The near end of each connection.
    pub near: SocketAddr,
}

impl FakeNetwork {
    /// What the client has said that the session has read.
    pub fn heard(&self) -> Heard {
        let client = self.client.borrow();
        let heard = hear(&client.sent[..client.read], self.policy, |name, password| {
            let good = name == NAME && password == PASSWORD;
            let known = self.accounts.present.get().filter(|_| good);
            let asked = self.accounts.asked.get().unwrap_or(known);
            self.accounts.asked.set(Some(asked));
            if self.accounts.undecided.get() {
                return None;
            }
            let there = asked.filter(|account| self.accounts.present.get() == Some(*account));
            let login = self.accounts.login.get().unwrap_or(there);
            self.accounts.login.set(Some(login));
            Some(login.is_some())
        });
        if matches!(heard.stage, Stage::Asked(_)) && self.accounts.valid.get().is_none() {
            let valid = self.accounts.login.get() == Some(self.accounts.present.get());
            self.accounts.valid.set(Some(valid || heard.who == Some(Who::Trusted)));
        }
        heard
    }

    /// A network without a connection yet.
    pub fn new(
        client: &Rc<RefCell<Peer>>,
        near: SocketAddr,
        room: usize,
        open: bool,
        now: Instant,
    ) -> Self {
        FakeNetwork {
            policy: Policy::default(),
            client: Rc::clone(client),
            accounts: Accounts::default(),
            plan: VecDeque::new(),
            targets: Vec::new(),
            sides: Vec::new(),
            picked: 0,
            now,
            started: (now, 0),
            failed: false,
            offered: vec![SocketAddr::from((CACHED.1, 0))],
            open,
            room,
            near,
        }
    }

    /// The target at the other end of the tunnel, or one of those that are being dialled.
    pub fn target(&self) -> Option<&Rc<RefCell<Peer>>> {
        let is_used = |target: &&Rc<RefCell<Peer>>| target.borrow().calls > 0;
        let is_won = |target: &&Rc<RefCell<Peer>>| {
            let target = target.borrow();
            target.making == Making::Made && target.dropped && !target.aborted
        };
        let live: Vec<_> = self.live().collect();
        let picked = live.get(self.picked % live.len().max(1)).copied();
        let all = || self.targets.iter();
        all().find(is_used).or(all().find(is_won)).or(picked).or(self.targets.last())
    }

    /// The targets whose connections are open, or being made.
    pub fn live(&self) -> impl Iterator<Item = &Rc<RefCell<Peer>>> {
        self.targets.iter().filter(|target| !target.borrow().dropped)
    }

    /// RFC 8305 §5: three attempts at most, the next one after 250 ms or a failure.
    fn guard_race(&self) {
        let (live, (last, before)) = (self.live().count(), self.started);
        assert!(live < 3, "{live} attempts at once");
        let waited = self.now.saturating_duration_since(last) >= Duration::from_millis(250);
        let due = live == 0 || live < before || waited || self.failed;
        assert!(due, "an attempt beside another one, too early");
    }

    fn guard(&self, address: SocketAddr) {
        let Heard { stage: Stage::Asked(asked), .. } = self.heard() else {
            panic!("dialled before a whole request");
        };
        assert_eq!(self.accounts.valid.get(), Some(true), "dialled without an account");
        assert_eq!((asked.command, asked.port), (1, address.port()));
        match literal(&asked) {
            Some(ip) => assert_eq!(ip, address.ip(), "another address than was asked for"),
            None => {
                let known =
                    self.offered.iter().any(|offer| offer.ip().to_canonical() == address.ip());
                assert!(known, "{address} is no address of this name");
            }
        }
        assert!(self.open || !local(address.ip()), "{address} is closed to this client");
        let own = address.port() == OWN_PORT && address.ip().is_loopback() && address.is_ipv4();
        assert!(!own, "the server's own port");
        self.guard_race();
    }
}

impl Network<FakeStream> for FakeNetwork {
    fn dial(&mut self, address: SocketAddr, _: Key, side: Side) -> io::Result<FakeStream> {
        self.guard(address);
        let plan = self.plan.pop_front().unwrap_or(0);
        self.failed = plan >= 0x80;
        if plan >= 0x80 {
            return Err(io::Error::from_raw_os_error(ERRORS[usize::from(plan) % ERRORS.len()]));
        }
        let taken = self
            .targets
            .iter()
            .zip(&self.sides)
            .any(|(target, other)| *other == side && !target.borrow().dropped);
        assert!(!taken, "two attempts on {side:?}");
        let mut near = self.near;
        near.set_port(near.port() + self.targets.len() as u16);
        let peer = Peer::new(Making::Pending, near, self.room);
        peer.borrow_mut().stubborn = plan & 1 == 1;
        peer.borrow_mut().far = address;
        // The system chooses the near end: the port may be the one that was dialled, and the address may be a
        // loopback one wherever the route leads.
        match plan & 0x0c {
            4 => peer.borrow_mut().near = address,
            8 => peer.borrow_mut().near = SocketAddr::from(LOOPBACK),
            _ => {}
        }
        if plan & 2 == 2 {
            peer.borrow_mut().complete(Making::Made);
        }
        self.targets.push(Rc::clone(&peer));
        self.sides.push(side);
        self.started = (self.now, self.live().count());
        Ok(FakeStream::to(&peer))
    }

    fn open_datagrams(
        &mut self,
        _: &DatagramConfig,
        _: Key,
        _: Side,
    ) -> io::Result<Box<dyn Datagrams>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn listen(
        &mut self,
        _: SocketAddr,
        _: Option<&RangeInclusive<u16>>,
        _: Key,
        _: Side,
    ) -> io::Result<Box<dyn PeerListener<FakeStream>>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn adopt(&mut self, _: &mut FakeStream, _: Key, _: Side) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn source_for(&mut self, _: SocketAddr) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn is_local_delivery(&mut self, address: SocketAddr) -> io::Result<bool> {
        assert_eq!(address.port(), OWN_PORT, "asked for an ordinary request");
        Ok(address.ip().is_loopback() || address.ip().is_unspecified())
    }
}

/// The address that a request names or spells out, canonical.
pub fn literal(asked: &Asked) -> Option<IpAddr> {
    let ip = match &asked.host {
        Ok(ip) => *ip,
        Err(name) => {
            let name = std::str::from_utf8(name).ok()?;
            let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
            bare.unwrap_or(name).parse().ok()?
        }
    };
    Some(ip.to_canonical())
}

/// Whether a name may exist at all.
pub fn possible(name: &[u8]) -> bool {
    let bad =
        name.is_empty() || name == b"*" || name.iter().any(|byte| *byte <= 32 || *byte == 127);
    !bad && std::str::from_utf8(name).is_ok()
}

/// The plainest local addresses. The full list has tests of its own.
pub fn local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    }
}

/// What is made once and used in every run.
pub struct Fixture {
    pub dns: DnsCache,
    pub start: Instant,
    /// Keeps the worker busy until it is dropped.
    _busy: mpsc::Sender<()>,
    _poll: Poll,
}

impl Fixture {
    /// Names of which one is cached. The one worker that may look up others never ends its job, so that
    /// answers come from the scenario alone and no name reaches the system.
    pub fn new() -> Self {
        let mut poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
        let (busy, wait) = mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let taken = Arc::new(AtomicBool::new(false));
        let is_taken = Arc::clone(&taken);
        let lookup = move |name: &str, family: Family, port| {
            match (name == CACHED.0, family) {
                (true, Family::V4) => return Ok(vec![SocketAddr::from((CACHED.1, port))]),
                // The look-up of IPv4 is the first one.
                (true, Family::V6) | (false, Family::V4) => {
                    return Err(io::ErrorKind::NotFound.into());
                }
                (false, Family::V6) => {}
            }
            is_taken.store(true, Ordering::SeqCst);
            let _ = wait.lock().map(|wait| wait.recv());
            Err(io::ErrorKind::NotFound.into())
        };
        let limits = Limits { threads: 1, threads_in_all: 1, queue: 2 };
        let ages = Ttls { found: Some(Duration::from_secs(1 << 30)), failed: None };
        let mut dns =
            DnsCache::new(Resolver::new(limits, waker, Box::new(lookup)), ages, Prefer::System);
        let (start, key) = (Instant::now(), Key::unpack(u64::MAX));
        let timeout = start + Duration::from_secs(20);
        dns.ask(key, CACHED.0, 0, start);
        while dns.resolutions(start).is_empty() {
            assert!(Instant::now() < timeout, "the worker does not answer");
            let _ = poll.poll(&mut Events::with_capacity(4), Some(Duration::from_millis(100)));
        }
        dns.ask(key, "busy", 0, start);
        while !taken.load(Ordering::SeqCst) {
            assert!(Instant::now() < timeout, "the worker does not come");
            std::thread::yield_now();
        }
        // The other half, which has been answered before.
        assert!(dns.resolutions(start).is_empty(), "busy");
        Fixture { dns, start, _busy: busy, _poll: poll }
    }
}
