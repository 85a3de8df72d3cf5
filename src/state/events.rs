//! Events for subscribers: a ring of the newest events, which each subscriber reads at its own pace.
//!
//! An event is kept once, however many subscribers there are, and is not made if its topic has none. A subscriber that
//! reads too slowly loses the oldest events and gets their number instead.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use metp_protocol::{Topic, Topics};

/// Events that are kept at most.
pub const RING_EVENTS: usize = 4096;
/// Sessions that may subscribe at once.
pub const SUBSCRIBERS: usize = 64;

/// The newest events.
#[derive(Default)]
pub struct Events {
    ring: VecDeque<(Topic, String)>,
    /// The number of the oldest event that is kept.
    first: u64,
    /// Events that came before the oldest that is kept.
    gone: Counts,
    /// All events so far.
    all: Counts,
    subscriber_counts: Rc<SubscriberCounts>,
    /// Events that subscribers have lost.
    lost: u64,
}

/// Subscribers by topic.
#[derive(Default)]
struct SubscriberCounts {
    subscribers: Cell<usize>,
    by_topic: [Cell<usize>; Topic::ALL.len()],
}

/// The number of events of each topic.
type Counts = [u64; Topic::ALL.len()];

/// A subscriber's position in the ring. Dropping it ends the subscription.
pub struct Subscription {
    topics: Topics,
    next: u64,
    /// Events before its position.
    passed: Counts,
    /// Events that it has lost and whose number it has not got yet.
    missed: u64,
    subscriber_counts: Rc<SubscriberCounts>,
}

/// The next thing for a subscriber.
#[derive(Debug, PartialEq, Eq)]
pub enum NextEvent<'a> {
    /// This event.
    Event(Topic, &'a str),
    /// This number of events that it wanted are lost.
    Lost(u64),
}

impl Events {
    /// Keeps an event for the subscribers of its topic. `event` is called only if there are any, and displays as
    /// what follows the `650`.
    pub fn publish<E: fmt::Display>(&mut self, topic: Topic, event: impl FnOnce() -> E) {
        let wanted =
            self.subscriber_counts.by_topic.get(topic as usize).is_some_and(|n| n.get() > 0);
        if wanted {
            self.ring.push_back((topic, event().to_string()));
            count(&mut self.all, topic);
            if self.ring.len() > RING_EVENTS
                && let Some((topic, _)) = self.ring.pop_front()
            {
                self.first += 1;
                count(&mut self.gone, topic);
            }
        }
    }

    /// The number that the next event will have.
    pub fn end(&self) -> u64 {
        self.first + self.ring.len() as u64
    }

    /// Events that subscribers have lost.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Sessions that have subscribed.
    pub fn subscribers(&self) -> usize {
        self.subscriber_counts.subscribers.get()
    }

    /// A position after the newest event. `None`: there are too many subscribers. `waiting` is the number of events
    /// that a subscription given up for this one still had.
    pub fn subscribe(&mut self, topics: Topics, missed: u64) -> Option<Subscription> {
        let subscriber_counts = Rc::clone(&self.subscriber_counts);
        if subscriber_counts.subscribers.get() >= SUBSCRIBERS {
            return None;
        }
        subscriber_counts.subscribers.set(subscriber_counts.subscribers.get() + 1);
        let (next, passed) = (self.end(), self.all);
        let subscription = Subscription { topics, next, passed, missed, subscriber_counts };
        subscription.count(|count| count + 1);
        Some(subscription)
    }

    /// The next event, or the number of lost ones, for this subscriber.
    pub fn next(&mut self, subscription: &mut Subscription) -> Option<NextEvent<'_>> {
        if subscription.next < self.first {
            subscription.missed += subscription.between(&self.gone);
            (subscription.next, subscription.passed) = (self.first, self.gone);
        }
        let missed = std::mem::take(&mut subscription.missed);
        if missed > 0 {
            self.count_lost(missed);
            return Some(NextEvent::Lost(missed));
        }
        let read = usize::try_from(subscription.next - self.first).unwrap_or(usize::MAX);
        for (topic, line) in self.ring.iter().skip(read) {
            subscription.next += 1;
            count(&mut subscription.passed, *topic);
            if subscription.topics.has(*topic) {
                return Some(NextEvent::Event(*topic, line));
            }
        }
        None
    }

    /// The number of events that this subscriber wants and has not got.
    pub fn waiting(&self, subscription: &Subscription) -> u64 {
        subscription.missed + subscription.between(&self.all)
    }

    /// Counts events that a subscriber will not get.
    pub fn count_lost(&mut self, count: u64) {
        self.lost += count;
    }

    /// Drops the events if there is no subscriber.
    pub fn trim(&mut self) {
        if self.subscribers() == 0 && !self.ring.is_empty() {
            (self.first, self.gone) = (self.end(), self.all);
            self.ring = VecDeque::new();
        }
    }
}

impl Subscription {
    /// What is wanted.
    pub fn topics(&self) -> Topics {
        self.topics
    }

    /// The number of wanted events between its position and a later one.
    fn between(&self, later: &Counts) -> u64 {
        let counts = Topic::ALL.into_iter().zip(later.iter().zip(&self.passed));
        let wanted = counts.filter(|(topic, _)| self.topics.has(*topic));
        wanted.map(|(_, (later, passed))| later.saturating_sub(*passed)).sum()
    }

    fn count(&self, change: impl Fn(usize) -> usize) {
        for topic in self.topics.iter() {
            if let Some(count) = self.subscriber_counts.by_topic.get(topic as usize) {
                count.set(change(count.get()));
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.count(|count| count.saturating_sub(1));
        self.subscriber_counts
            .subscribers
            .set(self.subscriber_counts.subscribers.get().saturating_sub(1));
    }
}

fn count(counts: &mut Counts, topic: Topic) {
    if let Some(count) = counts.get_mut(topic as usize) {
        *count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_of(events: &mut Events, subscription: &mut Subscription) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(event) = events.next(subscription) {
            lines.push(match event {
                NextEvent::Event(_, line) => line.to_owned(),
                NextEvent::Lost(count) => format!("lost {count}"),
            });
        }
        lines
    }

    #[test]
    fn subscribers_get_what_they_want_from_then_on() {
        let mut events = Events::default();
        events.publish(Topic::Auth, || -> String { panic!("nobody wants it") });
        let auth = Topics::default().with(Topic::Auth);
        let mut first = events.subscribe(auth, 0).expect("room");
        events.publish(Topic::Auth, || "a".to_owned());
        events.publish(Topic::Logs, || -> String { panic!("nobody wants it") });
        let mut second = events.subscribe(auth.with(Topic::Logs), 0).expect("room");
        events.publish(Topic::Logs, || "b".to_owned());
        events.publish(Topic::Auth, || "c".to_owned());
        assert_eq!(all_of(&mut events, &mut first), ["a", "c"]);
        assert_eq!(all_of(&mut events, &mut second), ["b", "c"]);
        assert_eq!(all_of(&mut events, &mut second), [""; 0]);
        drop(second);
        events.publish(Topic::Logs, || -> String { panic!("nobody wants it any more") });
        assert_eq!(events.subscribers(), 1);
        drop(first);
        events.trim();
        assert_eq!((events.subscribers(), events.ring.len()), (0, 0));
    }

    #[test]
    fn the_oldest_are_lost_and_counted() {
        let mut events = Events::default();
        let logs = Topics::default().with(Topic::Logs);
        let mut slow = events.subscribe(logs, 0).expect("room");
        for number in 0..RING_EVENTS + 3 {
            events.publish(Topic::Logs, || number.to_string());
        }
        assert_eq!(events.next(&mut slow), Some(NextEvent::Lost(3)));
        assert_eq!(events.next(&mut slow), Some(NextEvent::Event(Topic::Logs, "3")));
        assert_eq!(all_of(&mut events, &mut slow).len(), RING_EVENTS - 1);
        assert_eq!((events.lost(), events.ring.len()), (3, RING_EVENTS));
    }

    #[test]
    fn only_wanted_events_are_missed() {
        let mut events = Events::default();
        let topic = |topic| Topics::default().with(topic);
        let mut logins = events.subscribe(topic(Topic::Auth), 0).expect("room");
        let _all = events.subscribe(topic(Topic::Auth).with(Topic::Logs), 0).expect("room");
        for _ in 0..RING_EVENTS {
            events.publish(Topic::Logs, String::new);
        }
        assert_eq!((events.waiting(&logins), events.next(&mut logins)), (0, None));
        events.publish(Topic::Auth, || "a".to_owned());
        for _ in 0..RING_EVENTS {
            events.publish(Topic::Logs, String::new);
        }
        events.publish(Topic::Auth, || "b".to_owned());
        assert_eq!(events.waiting(&logins), 2);
        assert_eq!(all_of(&mut events, &mut logins), ["lost 1", "b"]);
        assert_eq!(events.lost(), 1);
    }

    #[test]
    fn whoever_subscribes_anew_is_told_what_it_misses() {
        let mut events = Events::default();
        let topics = Topics::default().with(Topic::Auth);
        let before = events.subscribe(topics, 0).expect("room");
        events.publish(Topic::Auth, || "a".to_owned());
        let waiting = events.waiting(&before);
        drop(before);
        let mut after = events.subscribe(topics, waiting).expect("room");
        assert_eq!(events.waiting(&after), 1);
        assert_eq!(all_of(&mut events, &mut after), ["lost 1"]);
    }

    #[test]
    fn there_is_room_for_so_many_subscribers() {
        let mut events = Events::default();
        let topics = Topics::default().with(Topic::Metrics);
        let places: Vec<_> = (0..SUBSCRIBERS).map_while(|_| events.subscribe(topics, 0)).collect();
        assert_eq!(places.len(), SUBSCRIBERS);
        assert!(events.subscribe(topics, 0).is_none());
        drop(places);
        assert!(events.subscribe(topics, 0).is_some());
    }
}
