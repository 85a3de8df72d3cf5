//! Closing down: what signals ask for, and when it is over.

use std::io::{ErrorKind, Read};
use std::time::Instant;

use super::Server;
use super::resident::Resident;
use crate::process::Signal;
use crate::reactor::selector::Service;
use crate::reactor::slab::Key;
use crate::socks::Reason;

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
                let seconds = self.grace.as_secs_f64();
                log::info!("SIGTERM: closing down, {seconds} s for open tunnels");
                self.stop = now.checked_add(self.grace).map_or(Stop::Now, Stop::Graceful);
                self.listeners = None;
                let metp = |(key, resident): (Key, &Resident)| {
                    (resident.conversation.service() == Service::Metp).then_some(key)
                };
                let keys: Vec<Key> = self.sessions.iter().filter_map(metp).collect();
                for key in keys {
                    self.end(key, Reason::Shutdown, now);
                }
            }
            (Signal::Terminate | Signal::Interrupt, _) => {
                log::info!("{signal}: closing down at once");
                self.stop = Stop::Now;
                self.listeners = None;
            }
        }
    }

    pub(super) fn over(&self) -> bool {
        match self.stop {
            Stop::No => false,
            Stop::Graceful(until) => self.sessions.is_empty() || until <= Instant::now(),
            Stop::Now => true,
        }
    }
}
