//! Closing down: what signals ask for, and when it is over.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use super::Server;
use super::resident::{Conversation, Resident};
use crate::process::Signal;
use crate::proto::metp::Notice;
use crate::reactor::selector::Service;
use crate::reactor::slab::Key;

/// How far closing down has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    No,
    /// Tunnels may go on until then.
    Graceful(Instant),
    Now,
}

impl Server {
    pub(super) fn take_signals(&mut self, now: Instant) {
        let mut bytes = [0; 64];
        loop {
            let read = self.signals.as_mut().map(|signals| signals.read(&mut bytes));
            let count = match read {
                Some(Ok(count)) if count > 0 => count,
                Some(Err(error)) if error.kind() == ErrorKind::Interrupted => continue,
                _ => return,
            };
            for signal in bytes.iter().take(count).filter_map(|byte| Signal::from_byte(*byte)) {
                self.obey(signal, now);
            }
        }
    }

    fn obey(&mut self, signal: Signal, now: Instant) {
        match (signal, self.stop) {
            (Signal::HangUp, _) => log::info!("SIGHUP: nothing to do"),
            (Signal::Terminate, Stop::No) => {
                log::info!("SIGTERM");
                self.close_down(self.world.shared.settings.grace, now);
            }
            (Signal::Terminate | Signal::Interrupt, _) => {
                log::info!("{signal}: closing down at once");
                self.stop = Stop::Now;
                self.listeners = None;
            }
        }
    }

    /// Accepts nothing any more, tells METP sessions, and gives open tunnels so much time.
    pub(super) fn close_down(&mut self, grace: Duration, now: Instant) {
        log::info!("closing down, {} s for open tunnels", grace.as_secs_f64());
        self.stop = now.checked_add(grace).map_or(Stop::Now, Stop::Graceful);
        self.listeners = None;
        let metp = |(key, resident): (Key, &Resident)| {
            (resident.conversation.service() == Service::Metp).then_some(key)
        };
        let keys: Vec<Key> = self.sessions.iter().filter_map(metp).collect();
        for key in keys {
            if let Some(resident) = self.sessions.get_mut(key)
                && let Conversation::Metp(Some(session)) = &mut resident.conversation
            {
                session.dismiss(Notice::Shutdown);
                resident.queue(key, &mut self.queue);
            }
        }
    }

    pub(super) fn over(&self) -> bool {
        match self.stop {
            Stop::No => false,
            Stop::Graceful(until) => {
                self.sessions.is_empty() || (until <= Instant::now() && self.queue.is_empty())
            }
            Stop::Now => true,
        }
    }
}
