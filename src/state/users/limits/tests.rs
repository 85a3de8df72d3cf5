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

struct Scene {
    users: Users,
    alice: UserId,
    now: Instant,
    time: u64,
}

impl Scene {
    /// An account with these limits, on 2026-11-26 at noon.
    fn new(text: &str) -> Self {
        let mut users = Users::default();
        let alice = users.add(b"alice", b"pw", Role::User).expect("free");
        let mut scene =
            Scene { users, alice, now: Instant::now(), time: at("2026-11-26T12:00:00Z") };
        scene.set(text);
        scene
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
    let mut scene = Scene::new("conns=2");
    let first = scene.open("192.0.2.1").expect("one");
    let second = scene.open("192.0.2.2").expect("two");
    assert_eq!(scene.open("192.0.2.1").err(), Some(LimitReached::Connections));
    // Nobody is cut by a lower limit, and nobody is let in before enough have gone.
    scene.set("conns=1");
    assert!(!scene.users.has_cut());
    drop(first);
    assert!(scene.open("192.0.2.1").is_err());
    // Trap 18: whatever ends a request counts it off, a panic too.
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _second = second;
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(caught.is_err());
    assert!(scene.open("192.0.2.1").is_ok());
    scene.set("conns=0");
    assert_eq!(scene.open("192.0.2.1").err(), Some(LimitReached::Connections));
    scene.set("");
    assert!(scene.open("192.0.2.1").is_ok());
}

/// Trap 17: an IPv6 /64 is one address; one of IPv4 is another.
#[test]
fn addresses_within_a_minute() {
    let mut scene = Scene::new("sources=2");
    let phone = scene.open("2001:db8::1").expect("one");
    drop(scene.open("2001:db8::2:3").expect("the same network"));
    let home = scene.open("::ffff:192.0.2.1").expect("two");
    drop(scene.open("192.0.2.1").expect("the same address"));
    assert_eq!(scene.open("192.0.2.2").err(), Some(LimitReached::Sources));
    assert_eq!(scene.usage().sources(scene.now), Some(2));
    drop(phone);
    scene.now = Instant::now();
    assert_eq!(scene.open("192.0.2.2").err(), Some(LimitReached::Sources), "a second ago");
    scene.now += SOURCE_LIFETIME;
    let other = scene.open("192.0.2.2").expect("the phone is forgotten");
    assert_eq!(scene.usage().sources(scene.now), Some(2), "an open request counts for ever");
    // Guards of a limit that is gone do no harm.
    scene.set("");
    assert_eq!(scene.usage().sources(scene.now), None);
    drop((home, other));
    scene.set("sources=1");
    drop(scene.open("192.0.2.9").expect("the first"));
    assert!(scene.open("192.0.2.8").is_err());
    scene.set("sources=0");
    assert!(scene.open("192.0.2.9").is_err());
}

#[test]
fn a_quota_ends_and_begins_again() {
    let mut scene = Scene::new("quota=100B/day");
    let request = scene.open("192.0.2.1").expect("unused");
    assert_eq!((scene.moves(99), scene.usage().quota_used(scene.time)), (None, Some(99)));
    assert_eq!(scene.moves(1), Some(LimitReached::Quota));
    assert_eq!(scene.usage().is_over(), Some(LimitReached::Quota));
    assert_eq!(scene.moves(1), None, "told once");
    assert_eq!(scene.open("192.0.2.1").err(), Some(LimitReached::Quota));
    // Trap 8: raising it resets nothing.
    scene.set("quota=200B/day");
    assert_eq!((scene.usage().is_over(), scene.usage().quota_used(scene.time)), (None, Some(101)));
    assert!(scene.open("192.0.2.1").is_ok());
    scene.set("quota=50B/day");
    assert_eq!(scene.usage().is_over(), Some(LimitReached::Quota));
    assert_eq!(scene.users.take_cut(), [(scene.alice, LimitReached::Quota)]);
    scene.time = at("2026-11-27T00:00:00Z");
    assert!(scene.open("192.0.2.1").is_ok(), "another day");
    assert_eq!((scene.usage().is_over(), scene.usage().quota_used(scene.time)), (None, Some(0)));
    // Trap 39.
    scene.set("quota=0/day");
    assert_eq!(scene.open("192.0.2.1").err(), Some(LimitReached::Quota));
    scene.set("quota=none");
    assert!(scene.open("192.0.2.1").is_ok());
    drop(request);
}

#[test]
fn a_quota_for_ever_counts_what_was_before() {
    let mut scene = Scene::new("");
    scene.moves(70);
    scene.set("quota=100B/total");
    assert_eq!(scene.usage().quota_used(scene.time), Some(70));
    scene.time = at("2036-11-26T12:00:00Z");
    assert_eq!(scene.moves(30), Some(LimitReached::Quota));
    let before = scene.usage().reset(scene.time);
    assert_eq!((scene.usage().is_over(), scene.usage().quota_used(scene.time)), (None, Some(0)));
    scene.usage().put_back(before, scene.time);
    assert_eq!(scene.usage().is_over(), Some(LimitReached::Quota));
    assert_eq!(scene.usage().quota_used(scene.time), Some(100));
    // One that has a period begins with nothing, unless a period runs.
    let mut scene = Scene::new("");
    scene.moves(70);
    scene.set("quota=100B/month");
    assert_eq!(scene.usage().quota_used(scene.time), Some(0));
}

/// Trap 19: a clock that is set gives nobody a quota twice, and takes nobody a period.
#[test]
fn the_clock_is_set_back_and_forward() {
    let mut scene = Scene::new("quota=100B/day");
    scene.moves(60);
    scene.time = at("2026-11-27T12:00:00Z");
    assert_eq!(scene.usage().quota_used(scene.time), Some(0));
    scene.moves(50);
    scene.time = at("2026-11-26T12:00:00Z");
    assert_eq!(scene.usage().quota_used(scene.time), Some(50), "it goes on");
    assert_eq!(scene.moves(50), Some(LimitReached::Quota));
    scene.time = at("2026-11-27T00:00:00Z");
    assert_eq!(
        scene.usage().quota_used(scene.time),
        Some(0),
        "the next day of the clock as it is now"
    );
}

/// Trap 39: from the day on, not after it.
#[test]
fn an_account_expires() {
    let mut scene = Scene::new("expires=2026-11-27");
    assert_eq!(scene.users.next_expiry(), Some(at("2026-11-27T00:00:00Z")));
    let _request = scene.open("192.0.2.1").expect("the day before");
    scene.time = at("2026-11-26T23:59:59Z");
    scene.users.expire(scene.time);
    assert!(!scene.users.has_cut() && scene.open("192.0.2.1").is_ok());
    scene.time += 1;
    scene.users.expire(scene.time);
    assert_eq!(scene.users.take_cut(), [(scene.alice, LimitReached::Expired)]);
    assert_eq!(scene.usage().is_over(), Some(LimitReached::Expired));
    assert_eq!(scene.open("192.0.2.1").err(), Some(LimitReached::Expired));
    assert_eq!(scene.users.next_expiry(), None);
    // The clock is set back by a day, and comes again.
    scene.time -= 86_400;
    scene.users.expire(scene.time);
    assert!(scene.open("192.0.2.1").is_ok() && !scene.users.has_cut());
    scene.time += 86_400;
    scene.users.expire(scene.time);
    assert_eq!(scene.users.take_cut().len(), 1);
    // Longer, lifted, today.
    scene.set("expires=2027-01-01");
    assert!(scene.open("192.0.2.1").is_ok());
    scene.set("expires=none");
    assert_eq!(scene.users.next_expiry(), None);
    scene.set("expires=2026-11-27");
    assert_eq!(scene.users.take_cut(), [(scene.alice, LimitReached::Expired)]);
}

#[test]
fn the_limits_of_all_accounts_change_with_their_line() {
    let mut scene = Scene::new("");
    scene.users.set_defaults(limits("conns=0"), scene.time);
    assert_eq!(scene.open("192.0.2.1").err(), Some(LimitReached::Connections));
    scene.set("conns=1");
    assert!(scene.open("192.0.2.1").is_ok());
    let before = scene.users.set_defaults(Limits::default(), scene.time);
    assert_eq!(before, limits("conns=0"));
    scene.set("");
    assert!(scene.open("192.0.2.1").is_ok() && scene.usage().in_force().is_none());
    // New accounts have them, too; who needs no login has none.
    scene.users.set_defaults(limits("conns=0"), scene.time);
    let bob = scene.users.add(b"bob", b"pw", Role::User).expect("free");
    let source = IpAddr::from([192, 0, 2, 1]);
    for (user, allowed) in [(bob, false), (UserId::TRUSTED, true)] {
        let session = scene.users.open_session(user, scene.now).expect("there");
        assert_eq!(session.open_request(source, scene.now, scene.time).is_ok(), allowed);
    }
}

#[test]
fn addresses_that_may_log_in() {
    let mut scene = Scene::new("from=192.0.2.0/24,2001:db8::/32");
    for (source, admitted) in [
        ("192.0.2.255", true),
        ("::ffff:192.0.2.1", true),
        ("192.0.3.1", false),
        ("2001:db8::1", true),
        ("2001:db9::1", false),
    ] {
        let address = source.parse().expect("an address");
        assert_eq!(scene.users.admits(scene.alice, address), admitted, "{source}");
    }
    scene.set("");
    assert!(scene.users.admits(scene.alice, [198, 51, 100, 1].into()));
}

#[test]
fn accounts_that_go_and_come_back_expire_once() {
    let mut scene = Scene::new("expires=2026-11-27");
    let removed = scene.users.remove(scene.alice).expect("there");
    assert_eq!(scene.users.next_expiry(), None);
    scene.users.restore(removed);
    assert_eq!(scene.users.next_expiry(), Some(at("2026-11-27T00:00:00Z")));
}
