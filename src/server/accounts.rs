//! The users file: changes are written to it, and it is read again on request.
//!
//! One thread does both, one job at a time. A reload waits until all changes are on the disk, and no account is changed
//! while the file is being read.

use std::sync::Mutex;
use std::time::Instant;

use common::episode::Episode;

use super::{Server, Services};
use crate::reactor::slab::Key;
use crate::state::changes::Settled;
use crate::state::control::ControlAnswer;
use crate::state::service::Service;
use crate::state::users::Reloaded;
use crate::workers::users_file::{Answer, FileWorker, Job, LoadError, Loaded};
use crate::workers::worker_pool::Failure;

/// The users file of a server.
#[derive(Default)]
pub(super) struct AccountStore {
    /// `None`: there is no file.
    worker: Option<FileWorker>,
    /// Whether the thread has a job.
    busy: bool,
    /// Whether the file is to be read again.
    reload: bool,
    /// The sessions that have asked for that.
    askers: Vec<Key>,
    /// Changes that could not be stored.
    failures: Episode,
}

impl AccountStore {
    pub(super) fn new(worker: Option<FileWorker>) -> Self {
        AccountStore { worker, ..AccountStore::default() }
    }

    /// Whether there is a file.
    pub(super) fn has_file(&self) -> bool {
        self.worker.is_some()
    }

    /// Whether the file is being read again, or will be.
    pub(super) fn is_reloading(&self) -> bool {
        self.reload
    }

    /// The file is to be read again; these sessions wait for the answer.
    pub(super) fn request_reload(&mut self, askers: impl IntoIterator<Item = Key>) {
        self.reload = true;
        self.askers.extend(askers);
    }

    /// Whether the thread has answered.
    pub(super) fn ready(&self) -> bool {
        self.worker.as_ref().is_some_and(FileWorker::ready)
    }

    /// When to look for an answer if the loop is not woken before.
    pub(super) fn check(&mut self, now: Instant) -> Option<Instant> {
        let worker = self.worker.as_mut().filter(|_| self.busy)?;
        Some(worker.check(now))
    }

    fn give(&mut self, job: Job) {
        if let Some(worker) = &mut self.worker {
            worker.submit(job);
            self.busy = true;
        }
    }
}

impl Server {
    /// Gives the thread the next thing to do, if it has nothing.
    pub(super) fn store_changes(&mut self) {
        let Services { accounts, shared, .. } = &mut self.services;
        if accounts.busy {
            return;
        }
        let changes = &mut shared.process.account_changes;
        if !changes.is_empty() {
            accounts.give(Job::Commit(Mutex::new(changes.begin())));
        } else if accounts.reload {
            accounts.give(Job::Read);
        }
    }

    /// Takes what the thread has done.
    pub(super) fn take_stored(&mut self, now: Instant) {
        let Some(worker) = &mut self.services.accounts.worker else { return };
        for done in worker.answers() {
            self.services.accounts.busy = false;
            match (done.outcome, done.job) {
                (Ok(Answer::Committed(outcome)), _) => match outcome {
                    Ok(secrets) => self.changes_stored(secrets),
                    Err(error) => self.changes_failed(&error.to_string(), now),
                },
                (Ok(Answer::Read(outcome)), _) => self.reloaded(outcome),
                (Err(failure), Job::Commit(_)) => self.changes_failed(cause(failure), now),
                (Err(failure), Job::Read) => {
                    let error = LoadError::Unreadable(std::io::Error::other(cause(failure)));
                    self.reloaded(Err(error));
                }
            }
        }
        self.store_changes();
        self.run_pending_actions(now);
    }

    fn changes_stored(&mut self, secrets: Vec<Option<Box<str>>>) {
        let process = &mut self.services.shared.process;
        let settled = process.account_changes.stored(secrets, &mut process.users);
        self.settle(settled);
    }

    fn changes_failed(&mut self, cause: &str, now: Instant) {
        if self.services.accounts.failures.begins(now) {
            log::error!("users file: changes were not stored, and have been undone: {cause}");
        }
        let process = &mut self.services.shared.process;
        let settled = process.account_changes.failed(cause, &mut process.users);
        process.changes += 1;
        self.settle(settled);
    }

    /// Tells sessions what has become of their changes.
    fn settle(&mut self, settled: Vec<Settled>) {
        for Settled { session, number, outcome } in settled {
            self.answer(session, |entry| entry.settled(number, outcome));
        }
    }

    /// The file has been read again: all of it takes effect, or nothing.
    fn reloaded(&mut self, outcome: Result<Loaded, LoadError>) {
        let process = &mut self.services.shared.process;
        let outcome: Result<Reloaded, Vec<String>> = match outcome {
            Ok(loaded) => {
                if loaded.exposed {
                    log::warn!("users file: others than its owner may read it");
                }
                let done = process.users.reload(loaded.accounts);
                done.map_err(|error| vec![error.to_string()])
            }
            Err(error) => Err(error.lines()),
        };
        match &outcome {
            Ok(Reloaded { accounts, added, deleted, changed }) => {
                process.changes += 1;
                log::info!(
                    "users file: reloaded: accounts={accounts} added={added} deleted={deleted} changed={changed}"
                );
            }
            Err(faults) => {
                for fault in faults {
                    log::error!("users file: {fault}");
                }
                log::error!("users file: not reloaded: nothing has changed");
            }
        }
        self.services.accounts.reload = false;
        for key in std::mem::take(&mut self.services.accounts.askers) {
            let answer = ControlAnswer::Reloaded(outcome.clone());
            self.answer(key, |entry| entry.answered(answer));
        }
        // Others may wait with a change of an account.
        let metp: Vec<Key> = self
            .sessions
            .iter()
            .filter(|(_, entry)| entry.session.service() == Service::Metp)
            .map(|(key, _)| key)
            .collect();
        for key in metp {
            self.answer(key, |_| {});
        }
    }
}

/// Why the thread has done nothing.
fn cause(failure: Failure) -> &'static str {
    match failure {
        Failure::Panicked => "a fault of the server",
        Failure::NoWorker => "no thread can be started",
        Failure::Overflow => "too many changes wait",
    }
}
