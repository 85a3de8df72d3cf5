//! Turns of the session, and its end.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use socks5d::reactor::Flow;
use socks5d::reactor::readiness::Readiness;
use socks5d::reactor::slab::Key;
use socks5d::reactor::token::Side;
use socks5d::socks::{CloseReason, Context, Session};
use socks5d::state::users::UserId;

use super::{PATIENCE, SPARE_DESCRIPTORS, Sim, verdict};
use crate::fake::{End, FakeStream, Making, Peer};
use crate::reference::{Stage, Who};

impl Sim<'_> {
    /// The events that are there, then turns until the session waits or closes.
    pub(super) fn turn(&mut self) {
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
        if let Some(user) = session.user() {
            let who = self.network.heard().who;
            let trusted = user == UserId::TRUSTED;
            assert_eq!(trusted, who == Some(Who::Trusted), "let in as somebody else");
            let login = self.network.accounts.login.get();
            assert!(trusted || matches!(login, Some(Some(_))), "a user, no login");
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
        let trusted = users.get(UserId::TRUSTED).expect("always there");
        let is_open = logged_in == Some(UserId::TRUSTED);
        assert_eq!(trusted.usage.open.get(), u64::from(is_open));
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
    pub(super) fn close(&mut self, reason: CloseReason) {
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
            self.check_who(&fields);
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
    pub(super) fn drain(mut self) {
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
    pub(super) fn outlast(mut self, rude: bool) {
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

    /// Whether nothing more is sent to the client.
    fn refused(&self) -> bool {
        let heard = self.network.heard();
        let client = self.client.borrow();
        let rest = client.received.get(heard.answers.len()..).unwrap_or_default();
        match &heard.stage {
            Stage::Over | Stage::Status(_) => true,
            Stage::Unfinished => false,
            Stage::Head | Stage::Unknown => !rest.is_empty(),
            Stage::Asked(asked) => verdict::is_refusal(asked.dialect, rest),
        }
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
