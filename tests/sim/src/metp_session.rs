//! A whole METP session: the same bytes get the same answers, however they are cut and however slowly the
//! answers are taken.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use metp_protocol::{ConnectionId, Notice, REPLY_LIMIT, Role};
use socks5d::metp::{Context, Session};
use socks5d::proto::socks5::{Host, Target};
use socks5d::reactor::Flow;
use socks5d::reactor::buffer::Pool;
use socks5d::reactor::slab::Key;
use socks5d::state::access_log::Record;
use socks5d::state::connection::Connection;
use socks5d::state::control::{
    Control, ControlAnswer, ControlRequest, Page, ProcessUsage, RuleChange, RulesVerdict,
    ServerInfo,
};
use socks5d::state::metrics::Stage;
use socks5d::state::settings::Settings;
use socks5d::state::users::{UserId, Users};
use socks5d::state::verifier::Verifier;
use socks5d::state::{ProcessWide, Shared};

use crate::fake::{End, FakeStream, Making, Peer};
use crate::verifier::FakeVerifier;

/// Octets that one turn may read, in whatever stage.
const MOST_PER_TURN: usize = 68 * 1024;

/// The session's key.
fn key() -> Key {
    Key::unpack(0)
}

/// Events that a session may need to come to its end.
const PATIENCE: usize = 20_000;

/// Two bytes say how the rest is cut and taken, and which runs wait for the verdict on a login; the highest bits of
/// the first log in before.
pub fn metp_session(data: &[u8]) {
    let Some((&[cuts, takes], rest)) = data.split_first_chunk::<2>() else { return };
    let login: &[u8] = match cuts >> 6 {
        0 => b"",
        1 => b"HELLO METP/1.0\nAUTH alice pw\n",
        _ => b"HELLO METP/1.0\r\nAUTH root pw\n",
    };
    let bytes = [login, &unpacked(rest)].concat();
    let now = Instant::now();
    let whole = run(&[&bytes], usize::MAX, false, false, now);
    let mut cut = usize::from(cuts & 0x3f) + 1;
    let mut segments = Vec::new();
    let mut left = &bytes[..];
    while !left.is_empty() {
        let (segment, others) = left.split_at(cut.min(left.len()));
        segments.push(segment);
        left = others;
        // Lengths from one octet to a few hundred.
        cut = cut * 7 % 311 + 1;
    }
    let takes = if takes == 0 { usize::MAX } else { usize::from(takes) * 256 };
    for answers_later in [false, true] {
        let pieces = run(&segments, takes, false, answers_later, now);
        assert!(replies(&whole) == replies(&pieces), "another answer to the same bytes in pieces");
        well_formed(&pieces);
    }
    let pieces = if cuts & 8 == 0 { &[&bytes[..]] } else { &segments[..] };
    let later = run(pieces, takes, true, false, now);
    assert!(replies(&whole) == replies(&later), "another answer after a later verdict");
    well_formed(&whole);
    outlast(&bytes, cuts & 3 == 3, cuts & 4 != 0, now);
}

/// What must not depend on how the bytes are cut: all but the place of events between the replies, what `INFO` says of
/// buffers in use, the times at which the server has begun to count and has read its files, and passwords that it has made.
fn replies(output: &[u8]) -> Vec<&[u8]> {
    let moves = |line: &&[u8]| {
        let times: [&[u8]; 2] = [b"COUNTED_SINCE: ", b"RELOADED: "];
        let kinds: [&[u8]; 3] = [b"650 ", b"buffers=", b"200 OK password="];
        kinds.iter().chain(&times).any(|kind| line.starts_with(kind))
    };
    output.split(|byte| *byte == b'\n').filter(|line| !moves(line)).collect()
}

/// Lines beyond the limit from a short input: an octet FF is a thousand of them, up to a dozen times.
fn unpacked(packed: &[u8]) -> Vec<u8> {
    let mut many = 12;
    let unpack = |byte: &u8| {
        let unpacks = *byte == 0xff && many > 0;
        many -= i32::from(unpacks);
        vec![*byte; if unpacks { 1000 } else { 1 }]
    };
    packed.iter().flat_map(unpack).collect()
}

/// METP §3.2: whole lines of printable ASCII and blanks, ended by LF alone, of 999 octets at most.
fn well_formed(output: &[u8]) {
    assert!(output.is_empty() || output.ends_with(b"\n"), "half a line");
    for line in output.split_inclusive(|byte| *byte == b'\n') {
        assert!(line.len() <= REPLY_LIMIT, "a line of {} octets", line.len());
        let (text, _) = line.split_at(line.len() - 1);
        assert!(text.iter().all(|byte| (b' '..=b'~').contains(byte)), "{text:?}");
    }
}

/// The client does not close: the session does, when its deadline has passed. `rude`: the client goes on sending, which
/// extends the deadline only after the login.
fn outlast(bytes: &[u8], rude: bool, defers: bool, start: Instant) {
    let source: SocketAddr = "127.0.0.1:5000".parse().expect("a literal");
    let peer = Peer::new(Making::Made, source, usize::MAX);
    let mut session = Session::new(FakeStream::to(&peer), source, start);
    let mut sim = Sim::new(defers);
    peer.borrow_mut().send(bytes);
    let mut now = start;
    for _ in 0..4 {
        if !turns(&mut session, &peer, now, &mut sim) {
            drop(session);
            return assert!(!sim.verifier.is_awaited(), "a login left behind");
        }
        let deadline = session.deadline(&sim.shared.process.settings.timeouts);
        // Subscribers wait as long as they like, and an administrator can turn deadlines off.
        let endless = session.subscribes() || sim.shared.process.changes > 0;
        let Some(deadline) = deadline.filter(|_| !endless) else {
            return assert!(endless, "a session that waits for ever");
        };
        assert!(deadline > now, "overdue, and not asked to be closed");
        now = deadline;
        if rude && !session.logged_in() {
            let mut peer = peer.borrow_mut();
            peer.babble = b"HELLO METP/1.0\n".repeat(256);
            peer.repeat();
        }
    }
    panic!("time does not end the session");
}

/// Holds a whole conversation and returns all that the server said. `defers`: the verdict on the login comes after
/// the next segment, or the end. `answers_later`: so does what the rest of the server says, as with other loops.
fn run(
    segments: &[&[u8]],
    takes: usize,
    defers: bool,
    answers_later: bool,
    now: Instant,
) -> Vec<u8> {
    let source: SocketAddr = "127.0.0.1:5000".parse().expect("a literal");
    let peer = Peer::new(Making::Made, source, takes);
    let mut session = Session::new(FakeStream::to(&peer), source, now);
    let mut sim = Sim::new(defers);
    sim.server.answers_later = answers_later;
    let mut segments = segments.iter();
    let mut open = turns(&mut session, &peer, now, &mut sim);
    for _ in 0..PATIENCE {
        if !open {
            break;
        }
        match segments.next() {
            Some(segment) => peer.borrow_mut().send(segment),
            None => peer.borrow_mut().ends(End::Eof),
        }
        peer.borrow_mut().open(takes);
        if sim.verifier.is_awaited() {
            // Nothing is done before the verdict.
            let (said, read) = (peer.borrow().received.len(), peer.borrow().read);
            open = turns(&mut session, &peer, now, &mut sim);
            assert!(open && peer.borrow().read == read, "read on before the verdict");
            assert_eq!(peer.borrow().received.len(), said, "answered before the verdict");
            for (asker, verdict) in sim.verifier.verdicts(&mut sim.shared.process.users, now) {
                assert_eq!(asker, key(), "asked for another session");
                session.verified(verdict);
            }
        }
        open = turns(&mut session, &peer, now, &mut sim);
    }
    assert!(!open, "EOF does not end the session");
    drop(session);
    let peer = peer.borrow();
    assert_eq!(sim.pool.leased(), 0, "buffers left behind");
    assert!(peer.dropped && peer.finished, "closed without a half-close");
    peer.received.clone()
}

/// The event that is there, then turns until the session waits. Says whether it is still open.
fn turns(
    session: &mut Session<FakeStream>,
    peer: &Rc<RefCell<Peer>>,
    now: Instant,
    sim: &mut Sim,
) -> bool {
    if let Some(event) = peer.borrow_mut().event() {
        session.on_event(event);
    }
    let endless = !peer.borrow().babble.is_empty();
    for _ in 0..if endless { 1 } else { PATIENCE } {
        let before = peer.borrow().babbled;
        let flow = sim.turn(session, now);
        let read = peer.borrow().babbled - before;
        assert!(read <= MOST_PER_TURN, "{read} octets in one turn");
        match flow {
            Flow::Again => {}
            Flow::Close => return false,
            Flow::Wait => {
                if sim.answer(session) {
                    continue;
                }
                let said = peer.borrow().received.len();
                let flow = sim.turn(session, now);
                assert_eq!(flow, Flow::Wait, "waited with work left");
                assert_eq!(said, peer.borrow().received.len(), "waited with words left");
                return true;
            }
        }
    }
    assert!(endless, "turns without end");
    true
}

fn shared() -> Shared {
    let mut users = Users::default();
    users.add(b"root", b"pw", Role::Admin).expect("new");
    users.add(b"alice", b"pw", Role::User).expect("new");
    users.add(b". odd\n\xff", b"pw", Role::User).expect("new");
    let settings = Settings { log_entries: 4, ..Settings::default() };
    let mut shared = Shared::new(settings, users);
    for (host, bytes) in [(&b"example.com"[..], 1024), (b"a b\r\n.\xff", u64::MAX), (&[7; 255], 0)]
    {
        shared.access_log.open(Record {
            time: SystemTime::UNIX_EPOCH.into(),
            user: (*b"alice").into(),
            source: [192, 0, 2, 1].into(),
            target: Target { host: Host::Name(host.into()), port: 80 }.into(),
            bytes,
        });
    }
    shared
}

/// What a session is carried out on.
struct Sim {
    verifier: FakeVerifier,
    pool: Pool,
    shared: Shared,
    server: FakeServer,
}

impl Sim {
    fn new(defers: bool) -> Self {
        let (verifier, server) = (FakeVerifier::new(defers), FakeServer::default());
        Sim { verifier, pool: Pool::new(65536, usize::MAX), shared: shared(), server }
    }

    /// Gives the session the answer that it waits for, if it waits for one.
    fn answer(&mut self, session: &mut Session<FakeStream>) -> bool {
        let Some(request) = self.server.asked.take() else { return false };
        session.answered(self.server.answer(&request, &self.shared.process.users));
        true
    }

    /// A session's turn. What it has asked for is done after it, and a server that closes down dismisses its
    /// sessions.
    fn turn(&mut self, session: &mut Session<FakeStream>, now: Instant) -> Flow {
        let Sim { verifier, pool, shared, server } = self;
        let mut cx = Context { key: key(), now, pool, shared, verifier, control: server };
        let flow = session.turn(&mut cx);
        for (gone, close_pending) in server.gone.iter_mut().zip(&mut server.close_pending) {
            *gone |= std::mem::take(close_pending);
        }
        if server.closing && !std::mem::replace(&mut server.told, true) && flow != Flow::Close {
            session.close_with(Notice::Shutdown);
            return Flow::Again;
        }
        flow
    }
}

/// A server with a few connections, of which those with an even number are Alice's. It stays as it is but for
/// what it is told.
#[derive(Default)]
struct FakeServer {
    /// Whether requests are answered after the turn in which they are put.
    answers_later: bool,
    /// The request that is to be answered.
    asked: Option<ControlRequest>,
    gone: [bool; 5],
    /// To be closed: until then a session that did not wait for it would still find them.
    close_pending: [bool; 5],
    closing: bool,
    /// The session knows it.
    told: bool,
}

impl FakeServer {
    fn owner(slot: u32, users: &Users) -> Option<UserId> {
        slot.is_multiple_of(2).then(|| users.find(b"alice")).flatten()
    }

    fn kill(&mut self, slot: u32) -> bool {
        let there = self.gone.get(slot as usize).is_some_and(|gone| !gone);
        if there {
            self.close_pending[slot as usize] = true;
        }
        there
    }
}

impl FakeServer {
    fn connection(&self, slot: u32, of: Option<UserId>, users: &Users) -> Option<Connection> {
        let owner = FakeServer::owner(slot, users);
        let wanted = !self.gone[slot as usize] && (of.is_none() || of == owner);
        let host = Host::Name([b'.', 0xff, slot as u8].repeat(60).into());
        wanted.then(|| Connection {
            id: ConnectionId { slot, generation: 1 },
            user: owner.map(|_| (*b"alice").into()),
            source: "[2001:db8::1]:5000".parse().expect("a literal"),
            target: (slot > 1).then_some(Target { host, port: 443 }),
            peer: (slot > 2).then(|| "192.0.2.1:443".parse().expect("a literal")),
            stage: Stage::ALL[slot as usize],
            age: Duration::from_millis(1500),
            idle: Duration::ZERO,
            up: u64::MAX,
            down: 0,
            buffered: usize::MAX,
            datagrams: None,
            rule: None,
        })
    }

    fn answer(&mut self, request: &ControlRequest, users: &Users) -> ControlAnswer {
        let end = self.gone.len() as u32;
        let closing = self.closing.then_some(Duration::ZERO);
        let info = Box::new(ServerInfo { closing, ..ServerInfo::default() });
        match *request {
            ControlRequest::Connections { page, of } => {
                // Two slots each time, of which none may be wanted.
                let Page { next, end } = page.unwrap_or(Page { next: 0, end });
                let last = end.min(next + 2);
                let rows = (next..last).filter_map(|slot| self.connection(slot, of, users));
                let next = (last < end).then_some(Page { next: last, end });
                ControlAnswer::Connections { rows: rows.collect(), next }
            }
            ControlRequest::Kill(id) => {
                ControlAnswer::Killed(id.generation == 1 && self.kill(id.slot))
            }
            ControlRequest::KillUser(_) => {
                let even = (0..end).filter(|slot| slot.is_multiple_of(2));
                ControlAnswer::UserKilled(even.filter(|slot| self.kill(*slot)).count())
            }
            ControlRequest::Drain(_) => {
                ControlAnswer::Draining(!std::mem::replace(&mut self.closing, true))
            }
            ControlRequest::Reload { .. } => ControlAnswer::NoFile,
            ControlRequest::ChangeRules { .. } => ControlAnswer::RulesChanged(RuleChange::NoRule),
            ControlRequest::TestRules(_) => ControlAnswer::RulesTested(RulesVerdict {
                allow: None,
                by: "rule",
                rule: Some((7, "deny port 25".to_owned())),
            }),
            ControlRequest::Save { .. } => ControlAnswer::NoState,
            ControlRequest::ResetUsage { .. } => ControlAnswer::Reset(Ok(())),
            ControlRequest::Status => ControlAnswer::Status(info),
            ControlRequest::Usage => ControlAnswer::Usage(info, ProcessUsage::default()),
        }
    }
}

impl Control for FakeServer {
    fn ask(&mut self, request: ControlRequest, process: &ProcessWide) -> Poll<ControlAnswer> {
        assert!(self.asked.is_none(), "a second request before the answer to the first");
        if self.answers_later {
            self.asked = Some(request);
            return Poll::Pending;
        }
        Poll::Ready(self.answer(&request, &process.users))
    }

    fn has_outstanding(&self) -> bool {
        assert!(self.asked.is_none(), "a command before the answer to the one before it");
        self.close_pending.contains(&true)
    }

    fn is_reloading(&self) -> bool {
        false
    }
}
