//! Batches of access-log lines and of events: each hand-over wakes a thread or a session, so they wait for others.

use std::time::{Duration, Instant};

use super::Server;

/// The longest time that a line of the access log waits for others.
const GATHER_LINES: Duration = Duration::from_millis(20);
/// The longest time that an event waits for others.
const GATHER_EVENTS: Duration = Duration::from_millis(20);
/// Bytes of lines from which on they do not wait.
const GATHERED_BYTES: usize = 64 * 1024;

impl Server {
    /// Hands lines of the access log to their writer when they have waited or are many.
    pub(super) fn gather_lines(&mut self, now: Instant) {
        match (self.services.shared.access_log.gathered(), self.lines_due) {
            (0, _) => {}
            (few, None) if few < GATHERED_BYTES => self.lines_due = now.checked_add(GATHER_LINES),
            (few, Some(due)) if few < GATHERED_BYTES && now < due => {}
            _ => self.hand_over_lines(),
        }
    }

    /// Queues the subscribers when events have waited.
    pub(super) fn gather_events(&mut self, now: Instant) {
        self.services.shared.events.trim();
        let end = self.services.shared.events.end();
        if self.events_seen == end {
            return;
        }
        let due = *self.events_due.get_or_insert(now + GATHER_EVENTS);
        if now < due {
            return;
        }
        (self.events_seen, self.events_due) = (end, None);
        for key in std::mem::take(&mut self.subscribers) {
            if let Some(entry) = self.sessions.get_mut(key)
                && entry.session.subscribes()
            {
                self.queues.put(key, entry);
                self.subscribers.push(key);
            }
        }
    }

    pub(super) fn hand_over_lines(&mut self) {
        self.lines_due = None;
        let lines = self.services.shared.access_log.take_lines();
        if let Some(access_log) = &self.access_log
            && !lines.is_empty()
        {
            access_log.try_write(lines.as_bytes());
        }
    }
}
