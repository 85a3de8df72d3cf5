//! Floods in virtual time: a server of 448 places, attackers from some addresses, and honest clients with a
//! round trip of 200 ms. No sockets, no clock, no randomness.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::Ipv4Addr;

use super::*;

/// Unproven sessions that a server of 448 places has at most, and one of METP.
const SOCKS_UNPROVEN: usize = 224;
const METP_UNPROVEN: usize = 64;

/// As many addresses as attackers may have for the promise to hold: fewer than a quarter of the places.
const ADDRESSES: u32 = 55;

/// One turn of the loop.
const TURN: Duration = Duration::from_micros(200);

/// The listener's queue in the kernel, and when a client tries again that found it full.
const BACKLOG: usize = 4096;
const SYN_AGAIN: Duration = Duration::from_secs(1);

const ROUND_TRIP: Duration = Duration::from_millis(200);
const SOON: Duration = Duration::from_secs(2);
/// Honest clients, and how far apart they come.
const HONEST: u64 = 100;
const SPACING: Duration = Duration::from_millis(20);

/// What an attacker sends before it stays silent.
#[derive(Clone, Copy, Debug)]
enum Attack {
    /// Nothing, or the beginning of a message.
    Nothing,
    /// A whole first message.
    Greets,
    /// A wrong password.
    IsRefused,
    /// One after the other.
    Mixed,
}

impl Attack {
    fn progress(self, number: u64) -> Progress {
        match self {
            Attack::Nothing => Progress::Nothing,
            Attack::Greets => Progress::Greeted,
            Attack::IsRefused => Progress::Refused,
            Attack::Mixed => match number % 3 {
                0 => Progress::Nothing,
                1 => Progress::Greeted,
                _ => Progress::Refused,
            },
        }
    }
}

/// A client of this server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    Attacker(u64),
    Honest(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A connection is complete.
    Connected(Peer),
    /// The next message of a client has come.
    Message(u64),
}

struct Flooding {
    unproven: usize,
    attack: Attack,
    /// Connections a second.
    rate: u32,
    /// How many addresses they come from.
    addresses: u32,
    /// The address of an honest client.
    honest: fn(u64) -> Ipv4Addr,
    /// Of an honest client: until its connection is complete; until its first message comes, which needs no
    /// answer; and from each answer to the next message.
    between: [Duration; 3],
}

struct Open {
    peer: Peer,
    place: Option<Place>,
}

/// The outcome for an honest client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    In(Duration),
    Evicted,
}

struct Simulation {
    setup: Flooding,
    admission: AdmissionControl,
    now: Instant,
    start: Instant,
    events: BinaryHeap<Reverse<(Instant, Event)>>,
    backlog: VecDeque<(Peer, Instant)>,
    paused: Option<Instant>,
    open: HashMap<u64, Open>,
    /// Sessions that wait for their turn, and the progress that they make in it.
    unheard: Vec<(u64, Progress)>,
    keys: u64,
    /// The key of each honest client that is in, and how many of its messages have come.
    honest: HashMap<u64, (Option<u64>, usize)>,
    began: HashMap<u64, Instant>,
    fates: HashMap<u64, Fate>,
}

impl Simulation {
    /// Honest clients come one after the other, from the first moment of the flood on.
    fn run(setup: Flooding) -> HashMap<u64, Fate> {
        let start = Instant::now();
        let mut simulation = Simulation {
            setup,
            admission: AdmissionControl::default(),
            now: start,
            start,
            events: BinaryHeap::new(),
            backlog: VecDeque::new(),
            paused: None,
            open: HashMap::new(),
            unheard: Vec::new(),
            keys: 0,
            honest: HashMap::new(),
            began: HashMap::new(),
            fates: HashMap::new(),
        };
        for number in 0..HONEST {
            let at = start + SPACING * number as u32;
            simulation.began.insert(number, at);
            let connected = at + simulation.setup.between[0];
            simulation.at(connected, Event::Connected(Peer::Honest(number)));
        }
        simulation.at(start, Event::Connected(Peer::Attacker(0)));
        while simulation.fates.len() < HONEST as usize
            && simulation.now < start + Duration::from_secs(10)
        {
            simulation.now += TURN;
            simulation.turn();
        }
        simulation.fates
    }

    fn at(&mut self, time: Instant, event: Event) {
        self.events.push(Reverse((time, event)));
    }

    fn turn(&mut self) {
        while let Some(Reverse((time, event))) = self.events.peek().copied()
            && time <= self.now
        {
            self.events.pop();
            match event {
                Event::Connected(peer) => self.connected(peer, time),
                Event::Message(number) => self.message(number),
            }
        }
        for (key, progress) in std::mem::take(&mut self.unheard) {
            if let Some(Open { place: Some(place), peer }) = self.open.get(&key) {
                let progress = match peer {
                    Peer::Honest(number)
                        if self.honest.get(number).is_some_and(|(_, said)| *said > 0) =>
                    {
                        Progress::Greeted
                    }
                    _ => progress,
                };
                self.admission.advance(*place, progress, self.now);
            }
        }
        if self.paused.is_some_and(|until| until <= self.now) {
            self.paused = None;
        }
        for _ in 0..ACCEPTS_PER_TURN {
            if self.paused.is_some() || !self.accept() {
                break;
            }
        }
    }

    fn connected(&mut self, peer: Peer, time: Instant) {
        if let Peer::Attacker(number) = peer {
            let next = self.start + Duration::from_secs(number + 1) / self.setup.rate;
            self.at(next, Event::Connected(Peer::Attacker(number + 1)));
        }
        match (self.backlog.len() < BACKLOG, peer) {
            (true, _) => self.backlog.push_back((peer, time)),
            (false, Peer::Honest(_)) => self.at(time + SYN_AGAIN, Event::Connected(peer)),
            (false, Peer::Attacker(_)) => {}
        }
    }

    /// The first in the queue is let in, or waits, and all others behind it.
    fn accept(&mut self) -> bool {
        let Some((peer, connected)) = self.backlog.front().copied() else { return false };
        let network = self.network(peer);
        let allowance = Allowance { room: true, unproven: self.setup.unproven, per_source: None };
        match self.admission.decide(network, allowance, self.now, |_| None) {
            Decision::Admit => {}
            Decision::Replace(key) => self.evict(key.pack()),
            Decision::Wait(until) => {
                self.paused = Some(until.unwrap_or(self.now + Duration::from_secs(1)));
                return false;
            }
            Decision::TooMany => panic!("there is no such limit"),
        }
        self.backlog.pop_front();
        self.keys += 1;
        let key = self.keys;
        let place = self.admission.enter(Key::unpack(key), network, self.now);
        self.open.insert(key, Open { peer, place });
        match peer {
            Peer::Attacker(number) => self.unheard.push((key, self.setup.attack.progress(number))),
            Peer::Honest(number) => {
                self.honest.insert(number, (Some(key), 0));
                self.unheard.push((key, Progress::Nothing));
                let first = connected + self.setup.between[1];
                self.at(first.max(self.now), Event::Message(number));
            }
        }
        true
    }

    fn evict(&mut self, key: u64) {
        let Open { peer, place } = self.open.remove(&key).expect("it is open");
        self.admission.leave(Key::unpack(key), place.expect("room"));
        if let Peer::Honest(number) = peer {
            self.fates.insert(number, Fate::Evicted);
            self.honest.insert(number, (None, 0));
        }
    }

    /// A message of an honest client: greeting, login, request.
    fn message(&mut self, number: u64) {
        let Some((Some(key), count)) = self.honest.get_mut(&number) else { return };
        *count += 1;
        let (key, count) = (*key, *count);
        let place = self.open.get(&key).and_then(|open| open.place).expect("it is in");
        match count {
            1 => self.admission.advance(place, Progress::Greeted, self.now),
            2 => self.admission.advance(place, Progress::LoggedIn, self.now),
            _ => {
                let place = self.admission.prove(place, None).expect("it is there");
                self.open.remove(&key);
                // Its tunnel is short.
                self.admission.leave(Key::unpack(key), place);
                let took = self.now - self.began.get(&number).copied().expect("it began");
                self.fates.insert(number, Fate::In(took));
                return;
            }
        }
        self.at(self.now + self.setup.between[2], Event::Message(number));
    }

    fn network(&self, peer: Peer) -> ClientNetwork {
        let address = match peer {
            Peer::Attacker(number) => {
                let number = number as u32 % self.setup.addresses;
                Ipv4Addr::from_bits(Ipv4Addr::new(198, 51, 0, 0).to_bits() + number)
            }
            Peer::Honest(number) => (self.setup.honest)(number),
        };
        ClientNetwork::from(std::net::IpAddr::from(address))
    }
}

fn in_time(fates: &HashMap<u64, Fate>) -> usize {
    fates.values().filter(|fate| matches!(fate, Fate::In(took) if *took <= SOON)).count()
}

/// Each honest client has an address of its own, or shares it with another one that comes when it has not finished
/// yet.
fn own_address(number: u64) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(203, 0, 0, 0).to_bits() + number as u32)
}

fn far_away() -> [Duration; 3] {
    [ROUND_TRIP, Duration::ZERO, ROUND_TRIP]
}

/// The promise: attackers from fewer addresses than a quarter of the places of unproven sessions, at any
/// rate, whatever they send, keep out no client with a round trip of 200 ms.
#[test]
fn few_addresses_keep_nobody_out_at_any_rate() {
    for attack in [Attack::Nothing, Attack::Greets, Attack::IsRefused, Attack::Mixed] {
        for rate in [100, 500, 1500, 20_000] {
            let alone: fn(u64) -> Ipv4Addr = own_address;
            let in_pairs: fn(u64) -> Ipv4Addr = |number| own_address(number / 2);
            for (addresses, honest) in [(1, alone), (ADDRESSES, alone), (ADDRESSES, in_pairs)] {
                let fates = Simulation::run(Flooding {
                    unproven: SOCKS_UNPROVEN,
                    attack,
                    rate,
                    addresses,
                    honest,
                    between: far_away(),
                });
                let count = in_time(&fates);
                let setup = format!("{attack:?}, {rate}/s from {addresses} addresses");
                assert!(count >= 95, "{count} got in: {setup}");
            }
        }
    }
}

/// Attackers from more addresses than there are places that send too little evict each other only, even if all honest
/// clients come from one address.
#[test]
fn many_addresses_that_say_too_little_keep_nobody_out() {
    let alone: fn(u64) -> Ipv4Addr = own_address;
    for (honest, many) in
        [(alone, 100_000), (|number| own_address(number / 3), 300), (|_| own_address(0), 100)]
    {
        for rate in [100, 1500, 20_000] {
            for addresses in [ADDRESSES, many] {
                let fates = Simulation::run(Flooding {
                    unproven: SOCKS_UNPROVEN,
                    attack: Attack::Nothing,
                    rate,
                    addresses,
                    honest,
                    between: far_away(),
                });
                let count = in_time(&fates);
                assert!(count >= 95, "{count} got in: {rate}/s from {addresses} addresses");
            }
        }
    }
}

/// Many addresses with slow sessions do not evict the one address that has two clients: sessions without progress for
/// long are evicted first.
#[test]
fn a_slow_crowd_of_addresses_keeps_no_pair_out() {
    for attack in [Attack::Nothing, Attack::Greets, Attack::Mixed] {
        let fates = Simulation::run(Flooding {
            unproven: SOCKS_UNPROVEN,
            attack,
            rate: 300,
            addresses: 100_000,
            // 20 ms apart, so that one address has several at once.
            honest: |number| own_address(number / 20),
            between: far_away(),
        });
        assert!(in_time(&fates) >= 95, "{} got in: {attack:?}", in_time(&fates));
    }
}

/// METP on loopback: all come from one address. The client says everything in one segment, a millisecond or
/// more behind its connection.
#[test]
fn one_address_keeps_no_client_out_that_says_all_at_once() {
    let (none, late) = (Duration::ZERO, Duration::from_millis(1));
    for attack in [Attack::Nothing, Attack::Greets, Attack::IsRefused, Attack::Mixed] {
        for rate in [100, 1500, 20_000] {
            let fates = Simulation::run(Flooding {
                unproven: METP_UNPROVEN,
                attack,
                rate,
                addresses: 1,
                honest: |_| Ipv4Addr::new(198, 51, 0, 0),
                between: [none, late, none],
            });
            assert_eq!(in_time(&fates), 100, "{attack:?} at {rate}/s: {fates:?}");
        }
    }
}
