//! Attempts to connect beside each other (Happy Eyeballs, RFC 8305 §5): an address that does not answer costs a quarter
//! of a second and not the whole timeout of a connection.
//!
//! Three attempts are under way at most, each on a side of its own. The next one starts when none is under way, when one
//! has failed, or [`ATTEMPT_DELAY`] after the last start. An attempt is not given up for that: a slow one may still win.
//! Only when all places are taken does the oldest make room, after [`ATTEMPT_LIFETIME`]. With a single address nothing
//! of this costs a call or an alarm.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::reactor::endpoint::{Endpoint, Stream};
use crate::reactor::readiness::Readiness;
use crate::reactor::reserve::{Promise, Reserve};
use crate::reactor::token::Side;

/// The Connection Attempt Delay of RFC 8305 §5, its recommended value.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The age from which on the oldest attempt makes room for another address: the maximum of the Connection Attempt Delay
/// (RFC 8305 §8).
const ATTEMPT_LIFETIME: Duration = Duration::from_secs(2);
/// The places for attempts.
const SIDES: [Side; 3] = [Side::First, Side::Second, Side::Third];

/// The attempts of one request.
pub struct Race<S: Stream> {
    /// By the order of [`SIDES`].
    attempts: [Option<Attempt<S>>; SIDES.len()],
    /// When another may start beside those that are under way.
    next: Instant,
    /// Whether there have been several at once.
    is_one: bool,
}

/// An attempt to connect.
pub struct Attempt<S: Stream> {
    /// The connection that is being made.
    pub endpoint: Endpoint<S>,
    /// Where it leads.
    pub address: SocketAddr,
    /// When it started.
    pub began: Instant,
    /// Its own end, if the target has the number of one of the server's ports.
    pub near: Option<SocketAddr>,
    /// Its place, and the promise of its descriptor.
    pub place: Place,
}

/// A place for an attempt.
pub struct Place {
    /// The side on which it is registered.
    pub side: Side,
    /// The promise of its descriptor. One attempt has none: admission has promised a descriptor for the target.
    promise: Option<Promise>,
}

impl<S: Stream> Attempt<S> {
    /// Whether the connection has been made.
    fn has_succeeded(&self) -> bool {
        self.endpoint.writable() && !self.endpoint.broken()
    }

    /// Gives it up, with a reset: it may have succeeded meanwhile, and must not look like an empty tunnel. Nothing was
    /// sent on it.
    pub fn give_up(mut self) {
        self.endpoint.reset_on_close();
    }
}

impl<S: Stream> Race<S> {
    /// No attempt yet.
    pub fn new(now: Instant) -> Self {
        Race { attempts: [const { None }; SIDES.len()], next: now, is_one: false }
    }

    /// Attempts that are under way.
    pub fn len(&self) -> usize {
        self.attempts.iter().flatten().count()
    }

    /// Whether no attempt is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An event has come for the attempt on `side`.
    pub fn on_event(&mut self, side: Side, readiness: Readiness) {
        let of_side = |attempt: &&mut Attempt<S>| attempt.place.side == side;
        if let Some(attempt) = self.attempts.iter_mut().flatten().find(of_side) {
            attempt.endpoint.on_event(readiness);
        }
    }

    /// A place for the next attempt, if it may start now. Without a promise for its descriptor it waits for
    /// [`ATTEMPT_DELAY`] once more, or until the others have ended.
    pub fn place(&mut self, reserve: &Reserve, now: Instant) -> Option<Place> {
        if !self.is_empty() && now < self.next {
            return None;
        }
        let is_free =
            |side: &Side| !self.attempts.iter().flatten().any(|other| other.place.side == *side);
        let side = SIDES.into_iter().find(is_free)?;
        let is_promised = |attempt: &Attempt<S>| attempt.place.promise.is_some();
        let promise = match self.attempts.iter().flatten().all(is_promised) {
            true => None,
            false => match reserve.take(1) {
                Some(promise) => Some(promise),
                None => {
                    self.next = now + ATTEMPT_DELAY;
                    return None;
                }
            },
        };
        Some(Place { side, promise })
    }

    /// Whether the attempt that starts now is the first beside another one.
    pub fn becomes_one(&mut self) -> bool {
        !self.is_empty() && !std::mem::replace(&mut self.is_one, true)
    }

    /// An attempt has started.
    pub fn start(&mut self, attempt: Attempt<S>) {
        self.next = attempt.began + ATTEMPT_DELAY;
        if let Some(place) = self.attempts.iter_mut().find(|place| place.is_none()) {
            *place = Some(attempt);
        }
    }

    /// An attempt has failed: the next may start at once.
    pub fn hurry(&mut self, now: Instant) {
        self.next = now;
    }

    /// Takes an attempt that has succeeded, the one that started first; or else one that has failed.
    pub fn take_done(&mut self) -> Option<Attempt<S>> {
        let won = self.take_oldest(Attempt::has_succeeded);
        won.or_else(|| self.take_oldest(|attempt| attempt.endpoint.broken()))
    }

    /// Takes an attempt that has taken longer than `timeout`; `None`: any time.
    pub fn take_late(&mut self, now: Instant, timeout: Option<Duration>) -> Option<Attempt<S>> {
        let timeout = timeout?;
        self.take_oldest(|attempt| now.saturating_duration_since(attempt.began) >= timeout)
    }

    /// Takes the oldest attempt if it has to make room for another address.
    pub fn take_superseded(&mut self, now: Instant) -> Option<Attempt<S>> {
        let due = self.is_full() && now >= self.next;
        if due { self.take_late(now, Some(ATTEMPT_LIFETIME)) } else { None }
    }

    /// Takes any attempt.
    pub fn take(&mut self) -> Option<Attempt<S>> {
        self.take_oldest(|_| true)
    }

    /// When the oldest attempt started.
    pub fn oldest(&self) -> Option<Instant> {
        self.attempts.iter().flatten().map(|attempt| attempt.began).min()
    }

    /// When another attempt may start, provided that there is an address for it.
    pub fn due(&self) -> Option<Instant> {
        let oldest = self.oldest()?;
        Some(if self.is_full() { self.next.max(oldest + ATTEMPT_LIFETIME) } else { self.next })
    }

    fn is_full(&self) -> bool {
        self.attempts.iter().all(Option::is_some)
    }

    fn take_oldest(&mut self, is_wanted: impl Fn(&Attempt<S>) -> bool) -> Option<Attempt<S>> {
        let wanted =
            self.attempts.iter_mut().filter(|place| place.as_ref().is_some_and(&is_wanted));
        wanted.min_by_key(|place| place.as_ref().map(|attempt| attempt.began))?.take()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use mio::net::TcpStream;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const EVENT: Readiness = Readiness {
        readable: false,
        writable: true,
        read_closed: false,
        write_closed: false,
        error: false,
        priority: false,
    };

    struct Fixture {
        race: Race<TcpStream>,
        reserve: Reserve,
        listener: TcpListener,
        now: Instant,
    }

    impl Fixture {
        /// A race with so many descriptors in reserve.
        fn new(descriptors: usize) -> Self {
            let (now, mut reserve) = (Instant::now(), Reserve::default());
            reserve.allow(descriptors);
            let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
            Fixture { race: Race::new(now), reserve, listener, now }
        }

        /// Starts an attempt if one may start. Returns its side.
        fn start(&mut self) -> Option<Side> {
            let place = self.race.place(&self.reserve, self.now)?;
            let (side, address) = (place.side, self.listener.local_addr().expect("bound"));
            let endpoint = Endpoint::new(TcpStream::connect(address).expect("loopback"));
            self.race.start(Attempt { endpoint, address, began: self.now, near: None, place });
            Some(side)
        }

        fn done(&mut self) -> Option<Side> {
            self.race.take_done().map(|attempt| attempt.place.side)
        }
    }

    /// RFC 8305 §5: 250 ms apart, three at once.
    #[test]
    fn attempts_start_one_after_the_other() {
        let mut fixture = Fixture::new(8);
        assert_eq!((fixture.race.due(), fixture.start()), (None, Some(Side::First)));
        for (before, side) in [(1, Side::Second), (2, Side::Third)] {
            assert_eq!(fixture.race.due(), Some(fixture.now + ATTEMPT_DELAY));
            assert_eq!(fixture.start(), None);
            fixture.now += ATTEMPT_DELAY - MS;
            assert_eq!((fixture.start(), fixture.race.len()), (None, before));
            fixture.now += MS;
            assert_eq!(fixture.start(), Some(side));
        }
        assert_eq!(fixture.reserve.promised(), 2);
        // All places are taken: the oldest makes room when it is two seconds old.
        let oldest = fixture.race.oldest().expect("three of them");
        fixture.now += ATTEMPT_DELAY;
        assert_eq!((fixture.start(), fixture.race.due()), (None, Some(oldest + ATTEMPT_LIFETIME)));
        assert!(fixture.race.take_superseded(oldest + ATTEMPT_LIFETIME - MS).is_none());
        fixture.now = oldest + ATTEMPT_LIFETIME;
        let oldest = fixture.race.take_superseded(fixture.now).expect("two seconds old");
        assert_eq!(oldest.place.side, Side::First);
        drop(oldest);
        // Its descriptor is the one that admission has promised.
        assert_eq!((fixture.start(), fixture.reserve.promised()), (Some(Side::First), 2));
        while let Some(attempt) = fixture.race.take() {
            attempt.give_up();
        }
        assert_eq!(fixture.reserve.promised(), 0);
    }

    #[test]
    fn after_a_failure_the_next_starts_at_once() {
        let mut fixture = Fixture::new(8);
        fixture.start();
        fixture.now += MS;
        fixture.race.hurry(fixture.now);
        assert_eq!(fixture.start(), Some(Side::Second));
        assert_eq!(fixture.start(), None, "one for each failure");
    }

    /// Without a descriptor to spare the addresses are tried one after the other, and the loop does not spin.
    #[test]
    fn without_a_promise_the_next_waits_for_the_one_before() {
        let mut fixture = Fixture::new(0);
        assert_eq!(fixture.start(), Some(Side::First));
        fixture.now += ATTEMPT_DELAY;
        assert_eq!(fixture.start(), None);
        assert_eq!(fixture.race.due(), Some(fixture.now + ATTEMPT_DELAY));
        drop(fixture.race.take());
        assert_eq!(fixture.start(), Some(Side::First));
    }

    /// Of several that are done at once the one that started first wins; a failed one does not come before it.
    #[test]
    fn the_first_that_succeeds_wins() {
        let mut fixture = Fixture::new(8);
        for _ in 0..3 {
            fixture.start();
            fixture.now += ATTEMPT_DELAY;
        }
        fixture.race.on_event(Side::Third, EVENT);
        fixture.race.on_event(Side::Second, EVENT);
        fixture.race.on_event(Side::First, Readiness { error: true, ..EVENT });
        assert_eq!(fixture.done(), Some(Side::Second));
        assert_eq!(fixture.done(), Some(Side::Third));
        assert_eq!(fixture.done(), Some(Side::First));
        assert_eq!(fixture.done(), None);
    }

    #[test]
    fn late_attempts_are_given_up_and_events_of_free_sides_ignored() {
        let mut fixture = Fixture::new(8);
        fixture.start();
        fixture.race.on_event(Side::Second, EVENT);
        assert_eq!(fixture.done(), None);
        assert!(fixture.race.take_late(fixture.now + 9 * MS, Some(10 * MS)).is_none());
        assert!(fixture.race.take_late(fixture.now + 10 * MS, None).is_none());
        assert!(fixture.race.take_late(fixture.now + 10 * MS, Some(10 * MS)).is_some());
        assert!(fixture.race.is_empty());
    }

    #[test]
    fn a_race_is_counted_once() {
        let mut fixture = Fixture::new(8);
        assert!(!fixture.race.becomes_one());
        fixture.start();
        assert!(fixture.race.becomes_one() && !fixture.race.becomes_one());
    }
}
