//! A subscriber: the session's position in the events, and its totals.

use std::fmt::Display;
use std::time::{Duration, Instant};

use super::report;
use crate::reactor::buffer::Buffer;
use crate::state::Shared;
use crate::state::events::{NextEvent, Subscription};
use metp_protocol::{Event, Status, Topic, ended};

/// Events that are written before the next command is read.
const EVENTS_PER_STEP: usize = 8;

/// A subscription, and when its totals are due.
pub struct Subscriber {
    subscription: Subscription,
    every: Duration,
    totals_due: Option<Instant>,
}

impl Subscriber {
    /// Totals, if the topic is among `topics`, come at once and then at the interval `every`.
    pub fn new(subscription: Subscription, every: Duration, now: Instant) -> Self {
        let totals_due = subscription.topics().has(Topic::Metrics).then_some(now);
        Subscriber { subscription, every, totals_due }
    }

    /// The number of events that have not been written yet.
    pub fn waiting(&self, shared: &Shared) -> u64 {
        shared.events.waiting(&self.subscription)
    }

    /// When the next totals are due.
    pub fn totals_due(&self) -> Option<Instant> {
        self.totals_due
    }

    /// Skips totals that are due while others still wait: the next ones include them.
    pub fn skip_totals(&mut self, now: Instant) {
        if self.totals_due.is_some_and(|due| due <= now) {
            self.totals_due = now.checked_add(self.every);
        }
    }

    /// Writes some of the events that wait. Returns whether there were any.
    pub fn write_events(&mut self, now: Instant, shared: &mut Shared, output: &mut Buffer) -> bool {
        let mut told = 0;
        if self.totals_due.is_some_and(|due| due <= now) {
            self.totals_due = now.checked_add(self.every);
            say(output, &report::totals(shared));
            told += 1;
        }
        while told < EVENTS_PER_STEP {
            match shared.events.next(&mut self.subscription) {
                Some(NextEvent::Event(_, event)) => say(output, &event),
                Some(NextEvent::Lost(count)) => say(output, &Event::Lost(count)),
                None => break,
            }
            told += 1;
        }
        told > 0
    }
}

fn say(output: &mut Buffer, event: &dyn Display) {
    output.append(ended(format!("{} {event}", Status::EVENT)).as_bytes());
}
