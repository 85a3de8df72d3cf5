//! Changes of accounts that several METP sessions make while none of them is on the disk yet.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use metp_protocol::Role;
use socks5d::metp::{Context, Session};
use socks5d::proto::users_file::parse;
use socks5d::reactor::Flow;
use socks5d::reactor::buffer::Pool;
use socks5d::reactor::slab::Key;
use socks5d::state::control::{Control, ControlAnswer, ControlRequest};
use socks5d::state::settings::Settings;
use socks5d::state::users::Users;
use socks5d::state::{ProcessWide, Shared};

use crate::fake::{FakeStream, Making, Peer};
use crate::verifier::FakeVerifier;

/// A server without requests of its own.
struct NoControl;

impl Control for NoControl {
    fn ask(&mut self, request: ControlRequest, _: &ProcessWide) -> Poll<ControlAnswer> {
        panic!("{request:?}")
    }

    fn has_outstanding(&self) -> bool {
        false
    }

    fn is_reloading(&self) -> bool {
        false
    }
}

/// Sessions that are logged in, over the accounts of a users file.
struct Sessions {
    shared: Shared,
    pool: Pool,
    open: HashMap<u64, (Session<FakeStream>, Rc<RefCell<Peer>>)>,
    now: Instant,
}

impl Sessions {
    fn new() -> Self {
        let mut users = Users::default();
        users.load(parse(b"alice:=pw\nbob:=pw\n").expect("good"));
        users.add(b"root", b"pw", Role::Admin).expect("new");
        let mut shared = Shared::new(Settings::default(), users);
        shared.process.has_users_file = true;
        let pool = Pool::new(65536, usize::MAX);
        Sessions { shared, pool, open: HashMap::new(), now: Instant::now() }
    }

    /// A session of this account, which sends all of this.
    fn open(&mut self, number: u64, name: &str, password: &str, lines: &str) {
        let source = "127.0.0.1:5000".parse().expect("a literal");
        let peer = Peer::new(Making::Made, source, usize::MAX);
        let session = Session::new(FakeStream::to(&peer), source, self.now);
        let text = format!("HELLO METP/1.0\nAUTH {name} {password}\n{lines}");
        peer.borrow_mut().send(text.as_bytes());
        self.open.insert(number, (session, peer));
        self.run(number);
    }

    /// A session has turns until it waits.
    fn run(&mut self, number: u64) {
        let (session, peer) = self.open.get_mut(&number).expect("open");
        if let Some(event) = peer.borrow_mut().event() {
            session.on_event(event);
        }
        let mut verifier = FakeVerifier::new(false);
        for _ in 0..1000 {
            let (key, now) = (Key::unpack(number), self.now);
            let (pool, shared) = (&mut self.pool, &mut self.shared);
            let (verifier, control) = (&mut verifier, &mut NoControl);
            let flow = session.turn(&mut Context { key, now, pool, shared, verifier, control });
            assert_ne!(flow, Flow::Close);
            if flow == Flow::Wait {
                return;
            }
        }
        panic!("turns without end");
    }

    /// The next group is on the disk, or is not stored. Returns how many changes it had.
    fn settle(&mut self, stored: bool) -> usize {
        let ProcessWide { account_changes, users, .. } = &mut self.shared.process;
        let group = account_changes.begin().len();
        let settled = match stored {
            true => account_changes.stored(Vec::new(), users),
            false => account_changes.failed("disk full", users),
        };
        let mut woken: Vec<Key> = settled.iter().map(|settled| settled.session).collect();
        woken.extend(account_changes.take_waiting());
        for change in settled {
            let (session, _) = self.open.get_mut(&change.session.pack()).expect("open");
            session.settled(change.number, change.outcome);
        }
        for key in woken {
            self.run(key.pack());
        }
        group
    }

    /// Lines that a session has been sent after its login.
    fn heard(&self, number: u64) -> Vec<String> {
        let peer = self.open[&number].1.borrow();
        let text = String::from_utf8(peer.received.clone()).expect("ASCII");
        text.lines().skip(2).map(str::to_owned).collect()
    }
}

/// Whatever users do with their own passwords, an administrator's change is in the next group.
#[test]
fn users_do_not_hold_up_administrators() {
    let mut sessions = Sessions::new();
    let change = |name: &str| format!("CHANGE-PASSWORD {name} pw\n").repeat(5);
    for number in 0..8 {
        let name = if number % 2 == 0 { "alice" } else { "bob" };
        sessions.open(number, name, "pw", &change(name));
    }
    assert_eq!(sessions.settle(true), 2, "one of each");
    sessions.open(8, "root", "pw", "LOCK-USER bob\nUNLOCK-USER bob\n");
    assert_eq!(sessions.settle(true), 4);
    assert_eq!(sessions.heard(8), ["200 OK", "200 OK"]);
    // Each of them comes in the end, in whatever order.
    for _ in 0..18 {
        assert_eq!(sessions.settle(true), 2);
    }
    assert_eq!(sessions.settle(true), 0);
    for number in 0..8 {
        assert_eq!(sessions.heard(number), ["200 OK"; 5], "{number}");
    }
}

/// An administrator need not wait for one change to make the next.
#[test]
fn administrators_have_many_changes_under_way() {
    let mut sessions = Sessions::new();
    sessions.open(0, "root", "pw", &"LOCK-USER bob\n".repeat(100));
    sessions.open(1, "root", "pw", &"LOCK-USER bob\n".repeat(10));
    assert_eq!(sessions.settle(true), 74);
    assert_eq!(sessions.settle(true), 36);
    assert_eq!((sessions.heard(0).len(), sessions.heard(1).len()), (100, 10));
}

/// Who waits for a change that could not be stored makes the next one.
#[test]
fn a_change_that_is_not_stored_ends_the_wait() {
    let mut sessions = Sessions::new();
    for number in 0..3 {
        sessions.open(number, "alice", "pw", "CHANGE-PASSWORD alice pw\n");
    }
    let mut heard = Vec::new();
    for stored in [true, false, true] {
        assert_eq!(sessions.settle(stored), 1);
    }
    for number in 0..3 {
        heard.extend(sessions.heard(number));
    }
    heard.sort();
    assert_eq!(heard, ["200 OK", "200 OK", "500 Internal Server Error [STORE] disk full"]);
    assert!(sessions.shared.process.account_changes.is_empty());
}
