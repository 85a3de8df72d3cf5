use super::*;

const ROOMY: Allowance = Allowance { room: true, unproven: 2, per_source: None };
const FULL: Allowance = Allowance { room: false, ..ROOMY };

fn key(number: u64) -> Key {
    Key::unpack(number)
}

fn network(number: u8) -> ClientNetwork {
    std::net::IpAddr::from([192, 0, 2, number]).into()
}

fn none(_: Key) -> Option<Evictable> {
    None
}

/// An admission control and the places of its sessions.
#[derive(Default)]
struct Fixture {
    admission: AdmissionControl,
    places: HashMap<u64, Place>,
}

impl Fixture {
    fn enter(&mut self, number: u64, from: u8, now: Instant) -> &mut Self {
        let place = self.admission.enter(key(number), network(from), now).expect("room");
        self.places.insert(number, place);
        self
    }

    /// It has had its turn.
    fn comes_to(&mut self, number: u64, progress: Progress, now: Instant) -> &mut Self {
        self.admission.advance(self.places[&number], progress, now);
        self
    }

    fn is_silent(&mut self, number: u64, now: Instant) -> &mut Self {
        self.comes_to(number, Progress::Nothing, now)
    }

    fn logs_in_with_metp(&mut self, number: u64) -> &mut Self {
        self.prove(number, Some(key(number)))
    }

    fn prove(&mut self, number: u64, evictable: Option<Key>) -> &mut Self {
        let place = self.places.get_mut(&number).expect("it is in");
        *place = self.admission.prove(*place, evictable).expect("it is in");
        self
    }

    fn leave(&mut self, number: u64) -> &mut Self {
        let place = self.places.remove(&number).expect("it is in");
        self.admission.leave(key(number), place);
        self
    }

    fn decide(&mut self, from: u8, allowance: Allowance, now: Instant) -> Decision {
        self.admission.decide(network(from), allowance, now, none)
    }
}

#[test]
fn among_equals_the_oldest_gives_way_when_its_time_is_over() {
    let (mut fixture, then) = (Fixture::default(), Instant::now());
    for (number, progress, after) in [
        (1, Progress::Nothing, EVICT_SILENT_AFTER),
        (2, Progress::Refused, EVICT_SILENT_AFTER),
        (3, Progress::Greeted, EVICT_AFTER),
        (4, Progress::LoggedIn, EVICT_AFTER),
    ] {
        let one = Allowance { unproven: 1, ..ROOMY };
        for allowance in [one, FULL] {
            fixture.enter(number, 1, then).comes_to(number, progress, then);
            let (almost, due) = (then + after - Duration::from_nanos(1), then + after);
            assert_eq!(fixture.decide(2, allowance, almost), Decision::Wait(Some(due)));
            assert_eq!(fixture.decide(2, allowance, due), Decision::Replace(key(number)));
            fixture.leave(number);
            fixture.admission.flood = Flood::default();
        }
    }
    fixture.enter(5, 1, then).is_silent(5, then).enter(6, 2, then).is_silent(6, then);
    let late = then + EVICT_AFTER;
    assert_eq!(fixture.decide(3, ROOMY, late), Decision::Replace(key(5)));
}

/// A step forward counts anew, what is not yet a step does not.
#[test]
fn the_time_counts_from_the_last_progress() {
    let (mut fixture, then) = (Fixture::default(), Instant::now());
    let one = Allowance { unproven: 1, ..ROOMY };
    fixture.enter(1, 1, then).is_silent(1, then);
    let (half, whole) = (EVICT_SILENT_AFTER / 2, EVICT_SILENT_AFTER);
    fixture.is_silent(1, then + half);
    assert_eq!(fixture.decide(1, one, then + half), Decision::Wait(Some(then + whole)));
    let now = then + half;
    fixture.comes_to(1, Progress::Greeted, now);
    assert_eq!(fixture.decide(1, one, now + whole), Decision::Wait(Some(now + EVICT_AFTER)));
}

/// What it has sent is not read yet: it is judged again after its next turn.
#[test]
fn who_has_not_had_a_turn_is_not_evicted() {
    let (mut fixture, now) = (Fixture::default(), Instant::now());
    fixture.enter(1, 1, now);
    let later = now + EVICT_AFTER * 10;
    assert_eq!(fixture.decide(1, FULL, later), Decision::Wait(Some(later)));
}

#[test]
fn the_address_with_most_unproven_sessions_gives_way() {
    let (mut fixture, then) = (Fixture::default(), Instant::now());
    // The session with most progress stays, although its address has most sessions.
    for (number, from) in [(1, 1), (2, 2), (3, 1), (4, 3), (8, 1)] {
        fixture.enter(number, from, then).is_silent(number, then);
    }
    fixture.comes_to(1, Progress::LoggedIn, then);
    let (now, allowance) = (then + EVICT_AFTER, Allowance { unproven: 5, ..ROOMY });
    assert_eq!(fixture.decide(9, allowance, now), Decision::Replace(key(3)));
    fixture.leave(3).enter(5, 3, now).is_silent(5, now);
    let now = now + EVICT_AFTER;
    assert_eq!(fixture.decide(9, allowance, now), Decision::Replace(key(4)));
    // During a flood no connection has to wait for a time, and addresses with few sessions keep theirs.
    fixture.admission.flood.step = FLOOD_STEPS;
    fixture.admission.flood.last = Some(now);
    fixture.leave(4).leave(2).enter(6, 3, now).is_silent(6, now);
    fixture.enter(7, 4, now).is_silent(7, now);
    let soon = now + Duration::from_millis(1);
    assert_eq!(fixture.decide(9, allowance, soon), Decision::Replace(key(5)));
}

/// An address with open tunnels may have as many handshakes before they count.
#[test]
fn proven_sessions_are_set_off_against_unproven_ones() {
    let (mut fixture, then) = (Fixture::default(), Instant::now());
    for number in 1..=5 {
        fixture.enter(number, 1, then).is_silent(number, then);
    }
    for number in 1..=3 {
        fixture.prove(number, None);
    }
    fixture.enter(6, 2, then).is_silent(6, then);
    let now = then + EVICT_AFTER;
    let allowance = Allowance { unproven: 3, ..ROOMY };
    assert_eq!(fixture.decide(9, allowance, now), Decision::Replace(key(6)));
    for number in 1..=3 {
        fixture.leave(number);
    }
    assert_eq!(fixture.decide(9, allowance, now), Decision::Replace(key(4)));
}

/// With an address for all of them, the progress at which most of them stand gives way.
#[test]
fn within_an_address_neither_silence_nor_speech_pushes_out_the_other() {
    for (many, few) in
        [(Progress::Nothing, Progress::Greeted), (Progress::Greeted, Progress::Nothing)]
    {
        let (mut fixture, then) = (Fixture::default(), Instant::now());
        fixture.enter(0, 1, then).comes_to(0, few, then);
        for number in 1..10 {
            fixture.enter(number, 1, then).comes_to(number, many, then);
        }
        let allowance = Allowance { unproven: 10, ..ROOMY };
        let mut now = then + EVICT_AFTER;
        for number in 1..1000 {
            assert_eq!(fixture.decide(1, allowance, now), Decision::Replace(key(number)));
            fixture.leave(number).enter(number + 9, 1, now).comes_to(number + 9, many, now);
            now += EVICT_AFTER / 5;
        }
    }
}

/// However many there are, the next connection waits 4/3 of the first time, and a little.
#[test]
fn a_flood_is_gone_through_in_bounded_time() {
    for (progress, after) in
        [(Progress::Nothing, EVICT_SILENT_AFTER), (Progress::Greeted, EVICT_AFTER)]
    {
        let (mut fixture, start) = (Fixture::default(), Instant::now());
        let allowance = Allowance { unproven: 20, ..ROOMY };
        let mut now = start;
        for number in 0..5000 {
            loop {
                match fixture.decide(1, allowance, now) {
                    Decision::Admit => break,
                    Decision::Replace(victim) => {
                        fixture.leave(victim.pack());
                        break;
                    }
                    Decision::Wait(until) => now = until.expect("it knows"),
                    Decision::TooMany => panic!("there is no such limit"),
                }
            }
            fixture.enter(number, 1, now).comes_to(number, progress, now);
        }
        let took = now - start;
        assert!(took >= after && took < after * 2, "{took:?} for {progress:?}");
        assert_eq!(fixture.admission.flood.step, FLOOD_STEPS);
        // After a pause the times are back at their beginning.
        let quiet = now + FLOOD_QUIET + EVICT_AFTER;
        for number in 4980..5000 {
            fixture.leave(number);
        }
        for number in 5000..5020 {
            fixture.enter(number, 1, quiet).comes_to(number, progress, quiet);
        }
        let judged = fixture.decide(1, allowance, quiet);
        assert_eq!(judged, Decision::Wait(Some(quiet + after)));
    }
}

/// As soon as no connection has to wait, the times grow again, although evictions go on.
#[test]
fn a_flood_that_becomes_slow_is_none() {
    let (mut flood, mut now) = (Flood::default(), Instant::now());
    for _ in 0..FLOOD_STEPS * 10 {
        flood.waited = true;
        flood.evicted(10, now);
    }
    assert_eq!(flood.divisor(now), 1024);
    for _ in 0..FLOOD_STEPS * 10 {
        now += EVICT_AFTER;
        flood.evicted(10, now);
    }
    assert_eq!(flood.divisor(now), 1, "ten live for five seconds");
}

/// A generation ends with half as many evictions as there are unproven sessions. It goes up a step if a connection had
/// to wait, and down if it took longer than four times its fastest.
#[test]
fn a_flood_changes_its_step_at_the_end_of_a_generation() {
    let (mut flood, mut now) = (Flood::default(), Instant::now());
    let mut generation = |flood: &mut Flood, waited: bool, takes: Duration| {
        flood.waited = waited;
        let before = flood.step;
        for _ in 1..4 {
            flood.evicted(8, now);
            assert_eq!(flood.step, before, "half of the unproven have not been evicted");
        }
        now += takes;
        flood.evicted(8, now);
        (flood.step, flood.divisor(now))
    };
    let moment = Duration::from_nanos(1);
    assert_eq!(generation(&mut flood, false, Duration::ZERO), (0, 1));
    assert_eq!(generation(&mut flood, true, Duration::ZERO), (1, 4));
    assert_eq!(generation(&mut flood, false, EVICT_AFTER), (1, 4));
    assert_eq!(generation(&mut flood, true, EVICT_AFTER + moment), (2, 16));
    assert_eq!(generation(&mut flood, false, EVICT_AFTER / 4), (2, 16));
    assert_eq!(generation(&mut flood, false, EVICT_AFTER / 4 + moment), (1, 4));
    assert_eq!(flood.divisor(now + FLOOD_QUIET), 4);
    assert_eq!(flood.divisor(now + FLOOD_QUIET + moment), 1);
}

#[test]
fn who_has_proved_itself_is_never_evicted() {
    let (mut fixture, now) = (Fixture::default(), Instant::now());
    fixture.enter(1, 1, now);
    let place = fixture.places[&1];
    fixture.prove(1, None);
    let later = now + EVICT_AFTER * 1000;
    assert_eq!(fixture.decide(1, FULL, later), Decision::Wait(None));
    // Its old place is invalid, even when it is used again.
    fixture.admission.advance(place, Progress::Nothing, later);
    fixture.leave(1);
    assert_eq!(fixture.admission.unproven.open_from(network(1)), 0);
}

/// METP: sessions of role user are evicted first, beginning with the account that has most, and unproven sessions
/// do not take all places.
#[test]
fn onlookers_make_room_where_there_is_none() {
    let mut users = crate::state::users::Users::default();
    let mut add = |name: &[u8]| users.add(name, b"pw", metp_protocol::Role::User).expect("new");
    let (first, second) = (add(b"first"), add(b"second"));
    let (mut fixture, then) = (Fixture::default(), Instant::now());
    for number in 0..6 {
        fixture.enter(number, 1, then).logs_in_with_metp(number);
    }
    let now = then + EVICT_AFTER;
    // 0 is an administrator's.
    let account = |other: Key| match other.pack() {
        0 => None,
        1 | 2 => Some(Evictable::OfAccount(first)),
        _ => Some(Evictable::OfAccount(second)),
    };
    let decide = |fixture: &mut Fixture, allowance| {
        fixture.admission.decide(network(1), allowance, now, account)
    };
    assert_eq!(decide(&mut fixture, ROOMY), Decision::Admit);
    assert_eq!(decide(&mut fixture, FULL), Decision::Replace(key(3)));
    fixture.leave(3).leave(4);
    assert_eq!(decide(&mut fixture, FULL), Decision::Replace(key(1)));
    let leaving = |other: Key| match other.pack() {
        0 => None,
        5 => Some(Evictable::Done),
        _ => Some(Evictable::OfAccount(first)),
    };
    let judged = fixture.admission.decide(network(1), FULL, now, leaving);
    assert_eq!(judged, Decision::Replace(key(5)));
    // As many strangers as there may be: it is one of them.
    for number in [10, 11] {
        fixture.enter(number, 1, then).is_silent(number, then);
    }
    assert_eq!(decide(&mut fixture, FULL), Decision::Replace(key(10)));
    let administrators = fixture.admission.decide(network(1), FULL, then, none);
    assert_eq!(administrators, Decision::Wait(Some(then + EVICT_SILENT_AFTER)));
}

#[test]
fn one_address_may_have_so_many() {
    let (mut fixture, now) = (Fixture::default(), Instant::now());
    let allowance = Allowance { per_source: Some(1), ..ROOMY };
    fixture.enter(1, 1, now);
    assert_eq!(fixture.decide(1, allowance, now), Decision::TooMany);
    assert_eq!(fixture.decide(2, allowance, now), Decision::Admit);
    fixture.prove(1, None);
    assert_eq!(fixture.decide(1, allowance, now), Decision::TooMany, "proven ones count");
    fixture.leave(1);
    assert_eq!(fixture.decide(1, allowance, now), Decision::Admit);
}

/// An IPv6 network of 64 bits counts as one address: a client has all of its addresses.
#[test]
fn a_network_of_ipv6_counts_as_one_address() {
    let network =
        |text: &str| ClientNetwork::from(text.parse::<std::net::IpAddr>().expect("a literal"));
    assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff:ffff:ffff:ffff"));
    assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    assert_ne!(network("::"), network("0.0.0.0"));
}
