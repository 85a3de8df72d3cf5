//! Shutdown by signals and by METP: drain, notify administrators, end.
//!
//! While the server drains it accepts no SOCKS connections; open ones may continue until the deadline, and METP works
//! as always. Then METP sessions get a notice, and the server ends.

use std::io::{self, ErrorKind, Read};
use std::time::{Duration, Instant};

use super::entry::SessionEntry;
use super::service::{drained, row};
use super::{Server, Services};
use crate::reactor::signal::{self, Signal};
use crate::reactor::slab::Key;
use crate::socks::CloseReason;
use crate::state::service::Service;

/// How long METP sessions have to read the notice.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(2);

/// When the terminal is checked again after SIGHUP: it may still be there for a moment.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The phase of the shutdown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shutdown {
    Running,
    /// SOCKS connections may continue until `until`, and are accepted until `accepts`, if that is given, which is
    /// `drain-wait` after `began`. From then on they have the time `grace`. `signalled`: SIGTERM has come.
    Draining {
        began: Instant,
        grace: Duration,
        until: Instant,
        accepts: Option<Instant>,
        signalled: bool,
    },
    /// METP sessions get their notice; the server ends at this time at the latest.
    NotifyingAdmins(Instant),
    Immediate,
}

/// Reads of the pipe of signals in one turn of the loop, of 64 signals each.
const SIGNAL_READS: usize = 16;

/// The terminal that the process was started on.
pub(super) struct Terminal {
    /// Whether the process was started on a terminal, and ends with it.
    pub(super) is_watched: bool,
    /// When to check again whether the terminal is gone.
    pub(super) check: Option<Instant>,
}

impl Server {
    /// Reads some signals, and remembers whether there may be more: the pipe is edge-triggered.
    pub(super) fn take_signals(&mut self, now: Instant) {
        let mut bytes = [0; 64];
        for _ in 0..SIGNAL_READS {
            let read = self.signals.as_mut().map(|signals| signals.read(&mut bytes));
            let count = match read {
                Some(Ok(count)) if count > 0 => count,
                Some(Err(error)) if error.kind() == ErrorKind::Interrupted => continue,
                _ => {
                    self.signalled = false;
                    return;
                }
            };
            for signal in bytes.iter().take(count).filter_map(|byte| Signal::from_byte(*byte)) {
                self.handle_signal(signal, now);
            }
        }
    }

    fn handle_signal(&mut self, signal: Signal, now: Instant) {
        match (signal, self.shutdown) {
            (Signal::User1, _) if self.reopen_access_log() => {
                log::info!("SIGUSR1: opening the access log again");
            }
            (Signal::User1 | Signal::User2, _) => log::info!("{signal}: nothing to do"),
            (Signal::HangUp, _) if self.has_lost_its_terminal() => self.close_without_terminal(now),
            (Signal::HangUp, _) => {
                self.notify_reloading(now);
                let reopens = self.reopen_access_log();
                let reloads = self.services.files.can_reload();
                if reloads {
                    self.services.files.request_reload([]);
                    self.store_changes();
                }
                self.notify_reloaded(now);
                log::info!(
                    "SIGHUP: {}",
                    match (reloads, reopens) {
                        (true, false) => "reading the files again",
                        (true, true) => "reading the files again, and opening the access log again",
                        (false, true) => "opening the access log again",
                        (false, false) => "nothing to do",
                    }
                );
                // When a shell ends, SIGHUP comes before its terminal is gone.
                self.terminal.check =
                    if self.terminal.is_watched { now.checked_add(LOOK_AGAIN) } else { None };
            }
            // It shortens the time that SHUTDOWN has given.
            (
                Signal::Terminate,
                Shutdown::Running | Shutdown::Draining { signalled: false, .. },
            ) => {
                log::info!("SIGTERM");
                let most = match self.shutdown {
                    Shutdown::Draining { until, .. } => until.saturating_duration_since(now),
                    _ => Duration::MAX,
                };
                self.begin_drain(self.services.shared.process.settings.grace.min(most), now);
                if let Shutdown::Draining { signalled, .. } = &mut self.shutdown {
                    *signalled = true;
                }
            }
            (Signal::Terminate | Signal::Interrupt | Signal::Quit, _) => {
                log::info!("{signal}: closing down at once");
                self.shutdown = Shutdown::Immediate;
                for service in Service::ALL {
                    self.close_listener(service);
                }
            }
        }
    }

    /// Has the file of the access log opened again, behind all lines so far. `false`: it goes nowhere, or to standard
    /// output.
    fn reopen_access_log(&mut self) -> bool {
        self.hand_over_lines();
        let access_log = self.access_log.as_ref().filter(|log| log.can_reopen());
        access_log.inspect(|log| log.reopen()).is_some()
    }

    fn has_lost_its_terminal(&self) -> bool {
        self.terminal.is_watched && signal::has_lost_terminal()
    }

    /// Checks a second time whether the terminal is gone, if that is due.
    pub(super) fn check_terminal(&mut self, now: Instant) {
        if self.terminal.check.is_some_and(|due| due <= now) {
            self.terminal.check = None;
            if self.has_lost_its_terminal() {
                self.close_without_terminal(now);
            }
        }
    }

    /// The terminal is gone, so the server drains as with SIGTERM.
    fn close_without_terminal(&mut self, now: Instant) {
        self.terminal.check = None;
        if self.shutdown == Shutdown::Running {
            log::info!("SIGHUP: the terminal is gone");
            self.begin_drain(self.services.shared.process.settings.grace, now);
        }
    }

    /// Accepts no more SOCKS connections, unless `drain-wait` gives balancers time to find out, and then gives those that
    /// are open the time `grace`.
    pub(super) fn begin_drain(&mut self, grace: Duration, now: Instant) {
        let wait = self.services.shared.process.settings.timeouts.drain_wait;
        let (began, accepts) = match self.shutdown {
            // It waits already, or has waited.
            Shutdown::Draining { began, accepts, .. } => (began, accepts),
            _ => (now, wait.and_then(|wait| now.checked_add(wait))),
        };
        log::info!("closing down, {} s for open tunnels", grace.as_secs_f64());
        self.shutdown = match accepts.unwrap_or(now).checked_add(grace) {
            None => Shutdown::Immediate,
            Some(until) => Shutdown::Draining { began, grace, until, accepts, signalled: false },
        };
        self.stop_accepting(now);
    }

    /// Connections are accepted for another time, if they still are.
    pub(super) fn apply_drain_wait(&mut self) {
        let wait = self.services.shared.process.settings.timeouts.drain_wait.unwrap_or_default();
        if let Shutdown::Draining { began, grace, until, accepts: Some(accepts), .. } =
            &mut self.shutdown
            && let Some(end) = began.checked_add(wait)
            && let Some(last) = end.checked_add(*grace)
        {
            (*accepts, *until) = (end, last);
        }
    }

    /// Tunnels may go on for another time after a takeover.
    pub(super) fn apply_drain_limit(&mut self) {
        let limit = self.services.shared.process.settings.drain_limit;
        let is_done = self.takeover.is_done;
        if let Shutdown::Draining { began, grace, until, signalled: false, .. } = &mut self.shutdown
            && is_done
            && *grace != limit
            && let Some(end) = began.checked_add(limit)
        {
            (*grace, *until) = (limit, end);
        }
    }

    /// Closes the listeners of what is drained when it is time.
    fn stop_accepting(&mut self, now: Instant) {
        if let Shutdown::Draining { accepts, .. } = &mut self.shutdown {
            if accepts.is_some_and(|until| now < until) {
                return;
            }
            *accepts = None;
        }
        for service in drained() {
            self.close_listener(service);
        }
    }

    /// Once the SOCKS connections have ended, or their time is over, sends METP sessions their notice.
    pub(super) fn finish_drain(&mut self, now: Instant) {
        if !matches!(self.shutdown, Shutdown::Draining { .. }) {
            return;
        }
        self.stop_accepting(now);
        let Shutdown::Draining { until, accepts: None, .. } = self.shutdown else { return };
        let sessions = &self.services.shared.metrics.sessions;
        let is_open = drained().any(|service| sessions.of(service).open > 0);
        // The server before it may still send its last figures, which are to go on to the next one.
        if (is_open || self.takeover.awaits_figures()) && now < until {
            return;
        }
        self.shutdown =
            now.checked_add(NOTIFY_TIMEOUT).map_or(Shutdown::Immediate, Shutdown::NotifyingAdmins);
        for service in Service::ALL {
            self.close_listener(service);
        }
        let drains = |(_, entry): &(Key, &SessionEntry)| row(entry.session.service()).drains;
        let (drained, notified): (Vec<_>, Vec<_>) = self.sessions.iter().partition(drains);
        let [drained, notified] = [drained, notified]
            .map(|found| found.into_iter().map(|(key, _)| key).collect::<Vec<Key>>());
        for key in drained {
            self.end(key, CloseReason::Shutdown, now);
        }
        for key in notified {
            if let Some(entry) = self.sessions.get_mut(key) {
                entry.session.notify_shutdown();
                self.queues.put(key, entry);
            }
        }
    }

    /// Waits until peers have acknowledged everything, and no longer than `until`.
    pub(super) fn finish_closes(&mut self, until: Instant) -> io::Result<()> {
        let Services { selector, closes, .. } = &mut self.services;
        while let Some(next) = closes.next_sweep() {
            let now = Instant::now();
            if now >= until {
                break;
            }
            selector.select(Some(next.min(until).saturating_duration_since(now)))?;
            closes.sweep(Instant::now(), usize::MAX);
        }
        Ok(())
    }

    /// Logs what was served: the last line of the diagnostics.
    pub(super) fn log_summary(&self) {
        let metrics = &self.services.shared.metrics;
        // Not those of servers before this one.
        let [connections, up, down] = metrics.before;
        let [half, most] = [0.5, 0.99].map(|share| {
            let turn = metrics.turns.quantile(share).unwrap_or_default();
            // ASCII, as all of the logs.
            format!("{turn:?}").replace('\u{b5}', "u")
        });
        log::info!(
            "served: connections={} bytes={} panics={} turn_p50={half} turn_p99={most}",
            metrics.sessions.socks.accepted.saturating_sub(connections),
            metrics.bytes().saturating_sub(up.saturating_add(down)),
            metrics.panics,
        );
    }

    pub(super) fn is_over(&self) -> bool {
        match self.shutdown {
            Shutdown::Running | Shutdown::Draining { .. } => false,
            Shutdown::NotifyingAdmins(until) => {
                let done = self.sessions.is_empty() && self.services.closes.is_empty();
                done || until <= Instant::now()
            }
            Shutdown::Immediate => true,
        }
    }
}
