use metp_protocol::Role;

use super::*;
use crate::proto::users_file;

/// A hash that is never computed here.
const HASH: &str = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

/// The queue with the accounts `u0`, `u1` and so on, of which no password has been seen, and the tickets of all that
/// wait.
struct Fixture {
    queue: LoginQueue,
    users: Users,
    tickets: Vec<(u64, Ticket)>,
    now: Instant,
}

impl Fixture {
    fn new(accounts: usize) -> Self {
        let lines: String = (0..accounts).map(|number| format!("u{number}:{HASH}\n")).collect();
        let mut users = Users::default();
        users.load(users_file::parse(lines.as_bytes()).expect("good"));
        Fixture { queue: LoginQueue::new(true), users, tickets: Vec::new(), now: Instant::now() }
    }

    fn ask_as(&mut self, key: u64, service: Service, source: &str, name: &str, password: &str) {
        let question = Question {
            key: Key::unpack(key),
            service,
            source: source.parse().expect("an address"),
            name: name.as_bytes(),
            password: password.as_bytes(),
            any_will_do: false,
            now: self.now,
        };
        match self.queue.ask(&question, &mut self.users) {
            Asked::Pending(ticket) => self.tickets.push((key, ticket)),
            Asked::Done(verdict) => self.queue.verdicts.push((question.key, verdict)),
        }
    }

    /// A SOCKS client with an address of its own.
    fn ask(&mut self, key: u64, name: &str, password: &str) {
        let source = format!("192.0.{}.{}", key / 250, key % 250);
        self.ask_as(key, Service::Socks, &source, name, password);
    }

    /// The session ends.
    fn leave(&mut self, key: u64) {
        self.tickets.retain(|(found, _)| *found != key);
    }

    /// Begins the next hash. `None`: nothing waits.
    fn start(&mut self) -> Option<u64> {
        self.queue.start().map(|job| job.number)
    }

    fn done(&mut self, number: u64, outcome: Outcome) {
        self.queue.done(number, outcome, &mut self.users, self.now);
    }

    /// The verdicts that come within `wait`, by key.
    fn verdicts(&mut self, wait: Duration) -> Vec<(u64, Verdict)> {
        let verdicts = self.queue.take(self.now + wait).into_iter();
        let mut verdicts: Vec<_> = verdicts.map(|(key, verdict)| (key.pack(), verdict)).collect();
        verdicts.sort_by_key(|(key, _)| *key);
        verdicts
    }

    fn user(&self, name: &str) -> UserId {
        self.users.find(name.as_bytes()).expect("there")
    }
}

#[test]
fn the_first_login_is_hashed_and_the_next_compared() {
    let mut fixture = Fixture::new(1);
    fixture.ask(1, "u0", "right");
    assert!(fixture.verdicts(FAILURE_DELAY).is_empty());
    let job = fixture.queue.start().expect("a hash");
    assert_eq!((job.hash.as_deref(), job.password.bytes()), (Some(HASH), &b"right"[..]));
    fixture.done(job.number, Outcome::Right);
    let accepted = Verdict::Accepted(fixture.user("u0"));
    assert_eq!(fixture.verdicts(Duration::ZERO), [(1, accepted)]);
    fixture.ask(2, "u0", "right");
    fixture.ask(3, "u0", "wrong");
    assert_eq!(fixture.start(), None);
    assert_eq!(fixture.verdicts(Duration::ZERO), [(2, accepted)]);
    assert_eq!(fixture.verdicts(FAILURE_DELAY), [(3, Verdict::Refused)]);
}

#[test]
fn failures_take_their_time_however_they_were_found() {
    let mut fixture = Fixture::new(2);
    fixture.ask(1, "u0", "right");
    let number = fixture.start().expect("a hash");
    fixture.done(number, Outcome::Right);
    fixture.verdicts(Duration::ZERO);
    fixture.ask(2, "u0", "wrong");
    fixture.ask(3, "u1", "wrong");
    fixture.ask(4, "nobody", "wrong");
    fixture.ask(5, "", "");
    for _ in 0..3 {
        let number = fixture.start().expect("unverified and unknown names cost a hash");
        fixture.done(number, Outcome::Wrong);
    }
    assert_eq!(fixture.start(), None);
    let nearly = FAILURE_DELAY - Duration::from_nanos(1);
    assert!(fixture.verdicts(nearly).is_empty());
    assert_eq!(fixture.queue.next_failure(), Some(fixture.now + FAILURE_DELAY));
    let refused: Vec<_> = (2..=5).map(|key| (key, Verdict::Refused)).collect();
    assert_eq!(fixture.verdicts(FAILURE_DELAY), refused);
    // A hash that takes longer is not waited for twice.
    fixture.ask(6, "nobody", "wrong");
    let number = fixture.start().expect("a hash");
    fixture.now += Duration::from_secs(3);
    fixture.done(number, Outcome::Wrong);
    assert_eq!(fixture.verdicts(Duration::ZERO), [(6, Verdict::Refused)]);
}

#[test]
fn those_who_wait_for_one_login_share_its_hash() {
    let mut fixture = Fixture::new(1);
    for key in 0..30 {
        fixture.ask_as(key, Service::Socks, "192.0.2.1", "u0", "right");
    }
    let number = fixture.start().expect("a hash");
    fixture.ask(30, "u0", "right");
    fixture.ask(31, "u0", "wrong");
    let other = fixture.start().expect("that of another password");
    assert_eq!(fixture.start(), None);
    fixture.done(number, Outcome::Right);
    let accepted = Verdict::Accepted(fixture.user("u0"));
    let all: Vec<_> = (0..31).map(|key| (key, accepted)).collect();
    assert_eq!(fixture.verdicts(Duration::ZERO), all);
    fixture.done(other, Outcome::Wrong);
    assert_eq!(fixture.verdicts(FAILURE_DELAY), [(31, Verdict::Refused)]);
}

/// A burst of equal logins comes to the same, whether the account is there, has no password, or is nobody's.
#[test]
fn equal_logins_share_a_hash_whoever_they_are_of() {
    for name in ["u0", "nobody"] {
        let mut fixture = Fixture::new(1);
        for key in 0..12 {
            fixture.ask_as(key, Service::Socks, "192.0.2.1", name, "wrong");
        }
        assert!(fixture.verdicts(Duration::ZERO).is_empty(), "{name}: none is shed");
        let number = fixture.start().expect("a hash");
        assert_eq!(fixture.start(), None, "{name}");
        fixture.ask_as(12, Service::Socks, "192.0.2.1", name, "wrong");
        fixture.done(number, Outcome::Wrong);
        assert_eq!(fixture.verdicts(FAILURE_DELAY).len(), 13, "{name}");
        // The next one computes it again: failures are not remembered.
        fixture.ask_as(13, Service::Socks, "192.0.2.1", name, "wrong");
        assert!(fixture.start().is_some(), "{name}");
    }
}

#[test]
fn metp_comes_first_and_then_the_newest() {
    let mut fixture = Fixture::new(9);
    for key in 0..4 {
        fixture.ask(key, &format!("u{key}"), "right");
    }
    fixture.ask_as(8, Service::Metp, "192.0.2.1", "u8", "right");
    fixture.ask(5, "u5", "right");
    // One that waits as a client of SOCKS, and then as an administrator.
    fixture.ask_as(6, Service::Metp, "192.0.2.1", "u0", "right");
    let mut order = Vec::new();
    while let Some(number) = fixture.start() {
        fixture.done(number, Outcome::Right);
        order.extend(fixture.verdicts(Duration::ZERO).into_iter().map(|(key, _)| key));
    }
    assert_eq!(order, [8, 0, 6, 5, 3, 2, 1]);
}

/// Wrong logins over HTTP, of however many addresses, neither delay those of SOCKS nor push them out.
#[test]
fn logins_over_http_come_last_and_are_few() {
    let mut fixture = Fixture::new(1);
    fixture.ask(0, "u0", "right");
    for key in 1..2000 {
        let source = format!("10.1.{}.{}", key / 250, key % 250);
        fixture.ask_as(key, Service::Http, &source, &format!("n{key}"), "x");
    }
    assert_eq!(fixture.queue.waiting(), 1 + HTTP_SESSIONS);
    let shed = fixture.verdicts(Duration::ZERO);
    assert!(shed.iter().all(|(key, verdict)| *key > 0 && *verdict == Verdict::Shed));
    let number = fixture.start().expect("that of SOCKS");
    fixture.done(number, Outcome::Right);
    assert_eq!(fixture.verdicts(Duration::ZERO).len(), 1);
}

#[test]
fn a_source_has_its_limit_and_the_oldest_is_shed() {
    let mut fixture = Fixture::new(1);
    for key in 0..6 {
        fixture.ask_as(key, Service::Socks, "2001:db8::1", &format!("n{key}"), "x");
    }
    // Of the same /64, and of others.
    fixture.ask_as(6, Service::Socks, "2001:db8::2", "n6", "x");
    fixture.ask_as(7, Service::Socks, "2001:db8:0:1::1", "n7", "x");
    fixture.ask_as(8, Service::Metp, "2001:db8::1", "n8", "x");
    let shed: Vec<_> = (0..3).map(|key| (key, Verdict::Shed)).collect();
    assert_eq!(fixture.verdicts(Duration::ZERO), shed);
    assert_eq!(fixture.queue.waiting(), 6);
    // What is being computed does not count: the source may have as many again.
    let first = fixture.start().expect("METP");
    let second = fixture.start().expect("the newest");
    fixture.ask_as(9, Service::Socks, "2001:db8:0:1::1", "n9", "x");
    assert!(fixture.verdicts(Duration::ZERO).is_empty());
    for number in [first, second] {
        fixture.done(number, Outcome::Wrong);
    }
    assert_eq!(fixture.verdicts(FAILURE_DELAY), [(7, Verdict::Refused), (8, Verdict::Refused)]);
}

#[test]
fn all_together_have_a_limit_and_metp_is_shed_last() {
    let mut fixture = Fixture::new(1);
    let most = MOST as u64;
    fixture.ask_as(5000, Service::Metp, "198.51.100.1", "admin", "x");
    for key in 0..most + 10 {
        fixture.ask(key, &format!("nobody{key}"), "x");
    }
    assert_eq!(fixture.queue.waiting(), MOST);
    let shed = fixture.verdicts(Duration::ZERO);
    let oldest: Vec<_> = (0..11).map(|key| (key, Verdict::Shed)).collect();
    assert_eq!(shed, oldest);
    let number = fixture.start().expect("a hash");
    fixture.done(number, Outcome::Wrong);
    assert_eq!(fixture.verdicts(FAILURE_DELAY), [(5000, Verdict::Refused)]);
}

#[test]
fn nothing_is_computed_for_those_who_left() {
    let mut fixture = Fixture::new(2);
    fixture.ask(1, "u0", "right");
    fixture.ask(2, "u1", "right");
    fixture.ask(3, "u1", "right");
    fixture.leave(2);
    fixture.leave(1);
    assert!(fixture.start().is_some());
    assert_eq!(fixture.start(), None);
    // Neither is anything left of them.
    assert!(fixture.queue.sources.is_empty() && fixture.queue.by_digest.len() == 1);
    for key in 10..20 {
        fixture.ask_as(key, Service::Socks, "192.0.2.9", &format!("n{key}"), "x");
        fixture.leave(key);
    }
    assert!(fixture.verdicts(Duration::ZERO).is_empty());
    assert_eq!(fixture.start(), None);
    assert_eq!(fixture.queue.waiting(), 0);
}

#[test]
fn a_secret_that_is_changed_meanwhile_is_asked_about_again() {
    let mut fixture = Fixture::new(1);
    let alice = fixture.user("u0");
    let accepted = Verdict::Accepted(alice);
    // The old password was right, and the new one is another.
    fixture.ask(1, "u0", "old");
    let number = fixture.start().expect("a hash");
    fixture.users.set_password(alice, b"new");
    fixture.done(number, Outcome::Right);
    assert_eq!(fixture.start(), None);
    assert_eq!(fixture.verdicts(FAILURE_DELAY), [(1, Verdict::Refused)]);
    fixture.ask(2, "u0", "old");
    assert_eq!(fixture.verdicts(FAILURE_DELAY), [(2, Verdict::Refused)]);
    // The password is the new one, which came before its secret.
    let secret = users_file::parse_line(format!("u0:{HASH}").as_bytes()).expect("good").secret;
    let credential = fixture.users.credential_of(b"u0", secret.clone());
    fixture.users.set_credential(alice, credential);
    fixture.ask(3, "u0", "newest");
    let number = fixture.start().expect("a hash");
    fixture.users.set_password(alice, b"newest");
    fixture.done(number, Outcome::Wrong);
    assert_eq!(fixture.verdicts(Duration::ZERO), [(3, accepted)]);
    // Another hash takes the place of the first: it is computed, too.
    let credential = fixture.users.credential_of(b"u0", secret.clone());
    fixture.users.set_credential(alice, credential);
    fixture.ask(4, "u0", "pw");
    let number = fixture.start().expect("a hash");
    let credential = fixture.users.credential_of(b"u0", secret);
    fixture.users.set_credential(alice, credential);
    fixture.done(number, Outcome::Right);
    assert!(fixture.verdicts(FAILURE_DELAY).is_empty());
    let number = fixture.start().expect("the new hash");
    fixture.done(number, Outcome::Right);
    assert_eq!(fixture.verdicts(Duration::ZERO), [(4, accepted)]);
}

#[test]
fn an_account_that_is_deleted_meanwhile_lets_nobody_in() {
    let mut fixture = Fixture::new(1);
    for outcome in [Outcome::Right, Outcome::Wrong] {
        fixture.ask(1, "u0", "pw");
        let number = fixture.start().expect("a hash");
        let user = fixture.user("u0");
        fixture.users.delete(user);
        // The name comes back with the same password: it is another account.
        fixture.users.add(b"u0", b"pw", Role::User).expect("free");
        fixture.done(number, outcome);
        assert_eq!(fixture.verdicts(FAILURE_DELAY), [(1, Verdict::Refused)]);
        let user = fixture.user("u0");
        fixture.users.delete(user);
        let line = format!("u0:{HASH}\n");
        fixture.users.load(users_file::parse(line.as_bytes()).expect("good"));
    }
}

#[test]
fn nobody_logs_in_to_a_locked_account() {
    let mut fixture = Fixture::new(1);
    let user = fixture.user("u0");
    fixture.users.set_locked(user, true);
    fixture.ask(1, "u0", "right");
    let number = fixture.start().expect("a locked account costs the same");
    fixture.done(number, Outcome::Right);
    fixture.ask(2, "u0", "right");
    let refused = [(1, Verdict::Refused), (2, Verdict::Refused)];
    assert_eq!(fixture.verdicts(FAILURE_DELAY), refused);
    fixture.users.set_locked(user, false);
    fixture.ask(3, "u0", "right");
    assert_eq!(fixture.verdicts(Duration::ZERO), [(3, Verdict::Accepted(user))]);
}

/// As without a users file: all comparisons are alike, and there is nothing to hide.
#[test]
fn without_hashes_nobody_waits() {
    for (delays, wait) in [(false, Duration::ZERO), (true, FAILURE_DELAY)] {
        let mut fixture = Fixture::new(0);
        fixture.queue = LoginQueue::new(delays);
        fixture.users.load(users_file::parse(b"u0:=right\n").expect("good"));
        let user = fixture.user("u0");
        for (key, name, password) in [(1, "u0", "right"), (2, "u0", "wrong"), (3, "nobody", "x")] {
            fixture.ask(key, name, password);
        }
        assert_eq!(fixture.start(), None);
        let refused = |key| (key, Verdict::Refused);
        assert_eq!(fixture.verdicts(wait), [(1, Verdict::Accepted(user)), refused(2), refused(3)]);
    }
}

#[test]
fn a_hash_that_cannot_be_computed_is_no_failed_login() {
    let mut fixture = Fixture::new(1);
    fixture.ask(1, "u0", "right");
    fixture.ask(2, "u0", "right");
    let number = fixture.start().expect("a hash");
    fixture.done(number, Outcome::Failed);
    assert_eq!(fixture.verdicts(FAILURE_DELAY), [(1, Verdict::Shed), (2, Verdict::Shed)]);
    fixture.ask(3, "u0", "right");
    assert!(fixture.start().is_some());
}
