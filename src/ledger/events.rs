//! What subscribers are told: a ring of the newest events, which all of them read at their own pace.
//!
//! An event is kept once, however many subscribers there are, and nothing is made of one that nobody
//! wants. Who reads too slowly finds the oldest gone, and is told how many.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::proto::metp::{Topic, Topics};

/// Events that are kept at most.
pub const KEPT: usize = 4096;
/// Sessions that may subscribe at once.
pub const SUBSCRIBERS: usize = 64;

/// The newest events.
#[derive(Default)]
pub struct Events {
    ring: VecDeque<(Topic, String)>,
    /// The number of the oldest event that is kept.
    first: u64,
    audience: Rc<Audience>,
    /// Events that a subscriber did not get in time.
    lost: u64,
}

/// Who wants what.
#[derive(Default)]
struct Audience {
    subscribers: Cell<usize>,
    by_topic: [Cell<usize>; Topic::ALL.len()],
}

/// A subscriber's place in the ring. Ends when it is dropped.
pub struct Subscription {
    topics: Topics,
    next: u64,
    audience: Rc<Audience>,
}

/// What a subscriber gets next.
#[derive(Debug, PartialEq, Eq)]
pub enum Told<'a> {
    /// This event.
    Event(Topic, &'a str),
    /// So many events are gone, of whatever topic.
    Lost(u64),
}

impl Events {
    /// Something has happened. Its line is made only if somebody wants it.
    pub fn publish(&mut self, topic: Topic, line: impl FnOnce() -> String) {
        let wanted = self.audience.by_topic.get(topic as usize).is_some_and(|n| n.get() > 0);
        if wanted {
            self.ring.push_back((topic, line()));
            if self.ring.len() > KEPT {
                self.ring.pop_front();
                self.first += 1;
            }
        }
    }

    /// The number that the next event will have.
    pub fn end(&self) -> u64 {
        self.first + self.ring.len() as u64
    }

    /// Events that a subscriber did not get in time.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Sessions that have subscribed.
    pub fn subscribers(&self) -> usize {
        self.audience.subscribers.get()
    }

    /// A place behind the newest event. `None`: too many have one.
    pub fn subscribe(&mut self, topics: Topics) -> Option<Subscription> {
        let audience = Rc::clone(&self.audience);
        if audience.subscribers.get() >= SUBSCRIBERS {
            return None;
        }
        audience.subscribers.set(audience.subscribers.get() + 1);
        let subscription = Subscription { topics, next: self.end(), audience };
        subscription.count(|count| count + 1);
        Some(subscription)
    }

    /// What this subscriber gets next.
    pub fn next(&mut self, subscription: &mut Subscription) -> Option<Told<'_>> {
        let gone = self.first.saturating_sub(subscription.next);
        if gone > 0 {
            subscription.next = self.first;
            self.lost += gone;
            return Some(Told::Lost(gone));
        }
        let read = usize::try_from(subscription.next - self.first).unwrap_or(usize::MAX);
        for (topic, line) in self.ring.iter().skip(read) {
            subscription.next += 1;
            if subscription.topics.has(*topic) {
                return Some(Told::Event(*topic, line));
            }
        }
        None
    }

    /// Forgets the events that nobody is there to read.
    pub fn trim(&mut self) {
        if self.subscribers() == 0 && !self.ring.is_empty() {
            self.first = self.end();
            self.ring = VecDeque::new();
        }
    }
}

impl Subscription {
    /// What is wanted.
    pub fn topics(&self) -> Topics {
        self.topics
    }

    fn count(&self, change: impl Fn(usize) -> usize) {
        for topic in self.topics.iter() {
            if let Some(count) = self.audience.by_topic.get(topic as usize) {
                count.set(change(count.get()));
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.count(|count| count.saturating_sub(1));
        self.audience.subscribers.set(self.audience.subscribers.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_of(events: &mut Events, subscription: &mut Subscription) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(told) = events.next(subscription) {
            lines.push(match told {
                Told::Event(_, line) => line.to_owned(),
                Told::Lost(count) => format!("lost {count}"),
            });
        }
        lines
    }

    #[test]
    fn subscribers_get_what_they_want_from_then_on() {
        let mut events = Events::default();
        events.publish(Topic::Auth, || panic!("nobody wants it"));
        let auth = Topics::default().with(Topic::Auth);
        let mut first = events.subscribe(auth).expect("room");
        events.publish(Topic::Auth, || "a".to_owned());
        events.publish(Topic::Logs, || panic!("nobody wants it"));
        let mut second = events.subscribe(auth.with(Topic::Logs)).expect("room");
        events.publish(Topic::Logs, || "b".to_owned());
        events.publish(Topic::Auth, || "c".to_owned());
        assert_eq!(all_of(&mut events, &mut first), ["a", "c"]);
        assert_eq!(all_of(&mut events, &mut second), ["b", "c"]);
        assert_eq!(all_of(&mut events, &mut second), [""; 0]);
        drop(second);
        events.publish(Topic::Logs, || panic!("nobody wants it any more"));
        assert_eq!(events.subscribers(), 1);
        drop(first);
        events.trim();
        assert_eq!((events.subscribers(), events.ring.len()), (0, 0));
    }

    #[test]
    fn the_oldest_are_lost_and_counted() {
        let mut events = Events::default();
        let logs = Topics::default().with(Topic::Logs);
        let mut slow = events.subscribe(logs).expect("room");
        for number in 0..KEPT + 3 {
            events.publish(Topic::Logs, || number.to_string());
        }
        assert_eq!(events.next(&mut slow), Some(Told::Lost(3)));
        assert_eq!(events.next(&mut slow), Some(Told::Event(Topic::Logs, "3")));
        assert_eq!(all_of(&mut events, &mut slow).len(), KEPT - 1);
        assert_eq!((events.lost(), events.ring.len()), (3, KEPT));
    }

    #[test]
    fn there_is_room_for_so_many_subscribers() {
        let mut events = Events::default();
        let topics = Topics::default().with(Topic::Metrics);
        let places: Vec<_> = (0..SUBSCRIBERS).map_while(|_| events.subscribe(topics)).collect();
        assert_eq!(places.len(), SUBSCRIBERS);
        assert!(events.subscribe(topics).is_none());
        drop(places);
        assert!(events.subscribe(topics).is_some());
    }
}
