use super::*;
use crate::proto::limits::LimitKey;
use metp_protocol::Role;
use metp_protocol::timestamp::Timestamp;

/// Seconds of UNIX time.
fn at(text: &str) -> u64 {
    Timestamp::parse(text).expect("a time").seconds()
}

fn limits(text: &str) -> Limits {
    let mut limits = Limits::default();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let (key, value) = word.split_once('=').expect("a pair");
        let key = LimitKey::find(key.as_bytes()).expect("a key");
        limits.set(key, value.as_bytes()).expect("a limit");
    }
    limits
}

struct TestAccount {
    users: Users,
    alice: UserId,
    now: Instant,
    time: u64,
}

impl TestAccount {
    /// An account with these limits, on 2026-11-26 at noon.
    fn new(text: &str) -> Self {
        let mut users = Users::default();
        let alice = users.add(b"alice", b"pw", Role::User).expect("free");
        let mut account =
            TestAccount { users, alice, now: Instant::now(), time: at("2026-11-26T12:00:00Z") };
        account.set(text);
        account
    }

    fn set(&mut self, text: &str) {
        let limits = Box::new(limits(text));
        self.users.set_limits(self.alice, Some(limits), self.time);
    }

    fn session(&mut self) -> SessionGuard {
        self.users.open_session(self.alice, self.now).expect("there")
    }

    fn usage(&self) -> Rc<Usage> {
        Rc::clone(&self.users.get(self.alice).expect("there").usage)
    }

    fn open(&mut self, source: &str) -> Result<RequestGuard, LimitReached> {
        let source = source.parse().expect("an address");
        self.session().open_request(source, self.now, self.time)
    }

    /// Moves so many bytes, half of them in each direction.
    fn moves(&mut self, bytes: u64) -> Option<LimitReached> {
        let usage = self.usage();
        usage.up.set(usage.up.get() + bytes / 2);
        usage.down.set(usage.down.get() + bytes - bytes / 2);
        usage.count_against_quota(self.time)
    }
}

#[test]
fn requests_at_once() {
    let mut account = TestAccount::new("conns=2");
    let first = account.open("192.0.2.1").expect("one");
    let second = account.open("192.0.2.2").expect("two");
    assert_eq!(account.open("192.0.2.1").err(), Some(LimitReached::Connections));
    // Nobody is cut by a lower limit, and nobody is let in before enough have gone.
    account.set("conns=1");
    assert!(!account.users.has_cut());
    drop(first);
    assert!(account.open("192.0.2.1").is_err());
    // Trap 18: whatever ends a request counts it off, a panic too.
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _second = second;
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(caught.is_err());
    assert!(account.open("192.0.2.1").is_ok());
    account.set("conns=0");
    assert_eq!(account.open("192.0.2.1").err(), Some(LimitReached::Connections));
    account.set("");
    assert!(account.open("192.0.2.1").is_ok());
}

/// Trap 17: an IPv6 /64 is one address; one of IPv4 is another.
#[test]
fn addresses_within_a_minute() {
    let mut account = TestAccount::new("sources=2");
    let phone = account.open("2001:db8::1").expect("one");
    drop(account.open("2001:db8::2:3").expect("the same network"));
    let home = account.open("::ffff:192.0.2.1").expect("two");
    drop(account.open("192.0.2.1").expect("the same address"));
    assert_eq!(account.open("192.0.2.2").err(), Some(LimitReached::Sources));
    assert_eq!(account.usage().sources(account.now), Some(2));
    drop(phone);
    account.now = Instant::now();
    assert_eq!(account.open("192.0.2.2").err(), Some(LimitReached::Sources), "a second ago");
    account.now += SOURCE_LIFETIME;
    let other = account.open("192.0.2.2").expect("the phone is forgotten");
    assert_eq!(account.usage().sources(account.now), Some(2), "an open request counts for ever");
    // Guards of a limit that is gone do no harm.
    account.set("");
    assert_eq!(account.usage().sources(account.now), None);
    drop((home, other));
    account.set("sources=1");
    drop(account.open("192.0.2.9").expect("the first"));
    assert!(account.open("192.0.2.8").is_err());
    // A request that was counted under the limit before is none of those that count now.
    account.set("sources=2");
    let before = account.open("192.0.2.1").expect("the first");
    account.set("");
    account.set("sources=1");
    let again = account.open("192.0.2.1").expect("the first");
    drop(before);
    account.now += SOURCE_LIFETIME * 2;
    assert_eq!(account.usage().sources(account.now), Some(1), "it is open");
    assert_eq!(account.open("192.0.2.2").map(drop), Err(LimitReached::Sources));
    drop(again);
    account.set("sources=0");
    assert!(account.open("192.0.2.9").is_err());
}

#[test]
fn a_quota_ends_and_begins_again() {
    let mut account = TestAccount::new("quota=100B/day");
    let request = account.open("192.0.2.1").expect("unused");
    assert_eq!((account.moves(99), account.usage().quota_used(account.time)), (None, Some(99)));
    assert_eq!(account.moves(1), Some(LimitReached::Quota));
    assert_eq!(account.usage().is_over(), Some(LimitReached::Quota));
    assert_eq!(account.moves(1), None, "told once");
    assert_eq!(account.open("192.0.2.1").err(), Some(LimitReached::Quota));
    // Trap 8: raising it resets nothing.
    account.set("quota=200B/day");
    assert_eq!(
        (account.usage().is_over(), account.usage().quota_used(account.time)),
        (None, Some(101))
    );
    assert!(account.open("192.0.2.1").is_ok());
    account.set("quota=50B/day");
    assert_eq!(account.usage().is_over(), Some(LimitReached::Quota));
    assert_eq!(account.users.take_cut(), [(account.alice, LimitReached::Quota)]);
    account.time = at("2026-11-27T00:00:00Z");
    assert!(account.open("192.0.2.1").is_ok(), "another day");
    assert_eq!(
        (account.usage().is_over(), account.usage().quota_used(account.time)),
        (None, Some(0))
    );
    // Trap 39.
    account.set("quota=0/day");
    assert_eq!(account.open("192.0.2.1").err(), Some(LimitReached::Quota));
    account.set("quota=none");
    assert!(account.open("192.0.2.1").is_ok());
    drop(request);
}

#[test]
fn a_quota_for_ever_counts_what_was_before() {
    let mut account = TestAccount::new("");
    account.moves(70);
    account.set("quota=100B/total");
    assert_eq!(account.usage().quota_used(account.time), Some(70));
    account.time = at("2036-11-26T12:00:00Z");
    assert_eq!(account.moves(30), Some(LimitReached::Quota));
    let before = account.usage().reset(account.time);
    assert_eq!(
        (account.usage().is_over(), account.usage().quota_used(account.time)),
        (None, Some(0))
    );
    account.usage().put_back(before, account.time);
    assert_eq!(account.usage().is_over(), Some(LimitReached::Quota));
    assert_eq!(account.usage().quota_used(account.time), Some(100));
    // One that has a period begins with nothing, unless a period runs.
    let mut account = TestAccount::new("");
    account.moves(70);
    account.set("quota=100B/month");
    assert_eq!(account.usage().quota_used(account.time), Some(0));
}

/// A period that has begun earlier goes on with what was counted; one that has begun later counts from the change.
#[test]
fn a_quota_with_another_period() {
    // A Thursday.
    let mut account = TestAccount::new("quota=1kB/month");
    account.moves(10);
    let used = |account: &TestAccount| account.usage().quota_used(account.time).expect("a quota");
    for (limit, counted) in [
        ("quota=1MB/month", 10),
        ("quota=1kB/month", 20),
        // From the change on.
        ("quota=1kB/day", 0),
        ("quota=2kB/day", 10),
        ("quota=1kB/week", 20),
        ("quota=1kB/month@20", 30),
        ("quota=1kB/month@26", 0),
        ("quota=1kB/month", 10),
        // All that the account has moved.
        ("quota=1kB/total", 90),
        ("quota=1kB/month", 0),
        // Lifted for a while.
        ("quota=none", 10),
        ("quota=1kB/month", 20),
        ("quota=1kB/total", 130),
    ] {
        account.set(limit);
        if limit != "quota=none" {
            assert_eq!(used(&account), counted, "{limit}");
        }
        account.moves(10);
    }
    account.usage().reset(account.time);
    assert_eq!(used(&account), 0);
    account.moves(10);
    account.set("quota=1kB/week");
    account.moves(10);
    // The Monday.
    for (time, counted) in [("2026-11-29T23:59:59Z", 10), ("2026-11-30T00:00:00Z", 0)] {
        account.time = at(time);
        assert_eq!(used(&account), counted);
    }
    // A lower amount of what was used already.
    account.moves(500);
    account.set("quota=400B/month");
    assert_eq!(account.users.take_cut(), [(account.alice, LimitReached::Quota)]);
}

/// Trap 19: a clock that is set gives nobody a quota twice, and takes nobody a period.
#[test]
fn the_clock_is_set_back_and_forward() {
    let mut account = TestAccount::new("quota=100B/day");
    account.moves(60);
    account.time = at("2026-11-27T12:00:00Z");
    assert_eq!(account.usage().quota_used(account.time), Some(0));
    account.moves(50);
    account.time = at("2026-11-26T12:00:00Z");
    assert_eq!(account.usage().quota_used(account.time), Some(50), "it goes on");
    assert_eq!(account.moves(50), Some(LimitReached::Quota));
    account.time = at("2026-11-27T00:00:00Z");
    assert_eq!(
        account.usage().quota_used(account.time),
        Some(0),
        "the next day of the clock as it is now"
    );
}

/// Trap 39: from the day on, not after it.
#[test]
fn an_account_expires() {
    let mut account = TestAccount::new("expires=2026-11-27");
    assert_eq!(account.users.next_expiry(), Some(at("2026-11-27T00:00:00Z")));
    let _request = account.open("192.0.2.1").expect("the day before");
    account.time = at("2026-11-26T23:59:59Z");
    account.users.expire(account.time);
    assert!(!account.users.has_cut() && account.open("192.0.2.1").is_ok());
    account.time += 1;
    account.users.expire(account.time);
    assert_eq!(account.users.take_cut(), [(account.alice, LimitReached::Expired)]);
    assert_eq!(account.usage().is_over(), Some(LimitReached::Expired));
    assert_eq!(account.open("192.0.2.1").err(), Some(LimitReached::Expired));
    assert_eq!(account.users.next_expiry(), None);
    // The clock is set back by a day, and comes again.
    account.time -= 86_400;
    account.users.expire(account.time);
    assert!(account.open("192.0.2.1").is_ok() && !account.users.has_cut());
    account.time += 86_400;
    account.users.expire(account.time);
    assert_eq!(account.users.take_cut().len(), 1);
    // Longer, lifted, today.
    account.set("expires=2027-01-01");
    assert!(account.open("192.0.2.1").is_ok());
    account.set("expires=none");
    assert_eq!(account.users.next_expiry(), None);
    account.set("expires=2026-11-27");
    assert_eq!(account.users.take_cut(), [(account.alice, LimitReached::Expired)]);
}

#[test]
fn the_limits_of_all_accounts_change_with_their_line() {
    let mut account = TestAccount::new("");
    account.users.set_defaults(limits("conns=0"), account.time);
    assert_eq!(account.open("192.0.2.1").err(), Some(LimitReached::Connections));
    account.set("conns=1");
    assert!(account.open("192.0.2.1").is_ok());
    let before = account.users.set_defaults(Limits::default(), account.time);
    assert_eq!(before, limits("conns=0"));
    account.set("");
    assert!(account.open("192.0.2.1").is_ok() && account.usage().in_force().is_none());
    // New accounts have them, too; who needs no login has none.
    account.users.set_defaults(limits("conns=0"), account.time);
    let bob = account.users.add(b"bob", b"pw", Role::User).expect("free");
    let source = IpAddr::from([192, 0, 2, 1]);
    for (user, allowed) in [(bob, false), (UserId::TRUSTED, true)] {
        let session = account.users.open_session(user, account.now).expect("there");
        assert_eq!(session.open_request(source, account.now, account.time).is_ok(), allowed);
    }
}

#[test]
fn addresses_that_may_log_in() {
    let mut account = TestAccount::new("from=192.0.2.0/24,2001:db8::/32");
    for (source, admitted) in [
        ("192.0.2.255", true),
        ("::ffff:192.0.2.1", true),
        ("192.0.3.1", false),
        ("2001:db8::1", true),
        ("2001:db9::1", false),
    ] {
        let address = source.parse().expect("an address");
        assert_eq!(account.users.admits(account.alice, address), admitted, "{source}");
    }
    account.set("");
    assert!(account.users.admits(account.alice, [198, 51, 100, 1].into()));
}

#[test]
fn accounts_that_go_and_come_back_expire_once() {
    let mut account = TestAccount::new("expires=2026-11-27");
    let removed = account.users.remove(account.alice).expect("there");
    assert_eq!(account.users.next_expiry(), None);
    account.users.restore(removed);
    assert_eq!(account.users.next_expiry(), Some(at("2026-11-27T00:00:00Z")));
}
