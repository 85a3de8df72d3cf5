//! Files: changes of accounts go into the users file, which is read again on request; figures are written now and then.
//!
//! One thread does all of it, one job at a time. A reload waits until all changes are on the disk, and no account is
//! changed while the file is being read. Figures are written [`FIGURES_AFTER`] they have changed, and at the end.

mod handover;

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::reload::Reloads;
use super::stores::Stores;
use super::{Server, Services};
use crate::proto::rules::Edit;
use crate::proto::usage_file::Figures;
use crate::proto::users_file::Change;
use crate::reactor::slab::Key;
use crate::reactor::waker::Waker;
use crate::state::Shared;
use crate::state::changes::Settled;
use crate::state::configuration::Reading;
use crate::state::control::ControlAnswer;
use crate::state::file_health::{WriteOutcome, WrittenFile};
use crate::state::users::{Counted, UserId};
use crate::workers::durable::StoreError;
use crate::workers::store::{Adopted, Answer, FileWorker, Files, Job};
use crate::workers::worker_pool::Failure;
use handover::Handover;

/// How long figures that have changed may be lost.
const FIGURES_AFTER: Duration = Duration::from_secs(10);
/// How long the process waits at its end for its files.
const LAST_WRITE: Duration = Duration::from_secs(2);
/// How often it looks meanwhile, in case that the call that wakes it fails.
const LAST_CHECK: Duration = Duration::from_millis(50);

/// The files of a server.
#[derive(Default)]
pub(super) struct FileStore {
    /// `None`: there are no files.
    worker: Option<FileWorker<Reading>>,
    has_users: bool,
    has_state: bool,
    has_configuration: bool,
    has_rules: bool,
    /// The state directory is on its way to another server, or back.
    handover: Handover,
    /// The figures that were left there.
    released: Figures,
    /// What the thread has to take over before the next changes of accounts.
    pub(super) adopt: Option<Adopted>,
    /// Changes of the rules, for these sessions.
    rule_changes: VecDeque<(Key, Edit)>,
    /// The session whose change is being made.
    changing_rules: Option<Key>,
    /// Settings that are to be saved, for these sessions.
    saves: Vec<(Key, &'static str, String)>,
    /// Those that are being saved.
    saving: Vec<(Key, &'static str, String)>,
    /// What the figures were when they were last written, added up.
    written: u64,
    /// When figures that have changed are written.
    figures_due: Option<Instant>,
    /// Whether figures are to be written now.
    write_figures: bool,
    /// Counters that have been set back since figures were last given to the thread.
    resets: Vec<Reset>,
    /// Those that are set back in the figures that the thread is writing.
    resetting: Vec<Reset>,
    /// Whether the thread has a job.
    busy: bool,
    /// What it was given last.
    last: Work,
    /// Reading the files again.
    pub(super) reloads: Reloads,
    /// What could not be stored, by the path that the log names.
    pub(super) stores: Stores,
}

/// What the thread is given, in turn: no kind of it waits for another that comes without end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Work {
    Accounts,
    Figures,
    Settings,
    Rules,
    #[default]
    Reload,
}

impl Work {
    const ALL: [Work; 5] =
        [Work::Accounts, Work::Figures, Work::Settings, Work::Rules, Work::Reload];

    /// All kinds, from the next one on.
    fn after(self) -> impl Iterator<Item = Work> {
        let place = Work::ALL.iter().position(|other| *other == self).unwrap_or_default();
        Work::ALL.into_iter().cycle().skip(place + 1).take(Work::ALL.len())
    }
}

/// Counters that have been set back, and the session that waits until that is on the disk.
struct Reset {
    session: Key,
    user: UserId,
    before: Counted,
}

impl FileStore {
    pub(super) fn new(files: Files<Reading>, waker: Waker) -> Self {
        let (has_users, has_state) = (files.users.is_some(), files.state.is_some());
        let (has_configuration, has_rules) = (files.configuration.is_some(), files.rules.is_some());
        let stores = Stores::new(&files);
        let worker = (!files.is_empty()).then(|| files.start(waker));
        FileStore {
            worker,
            stores,
            has_users,
            has_state,
            has_configuration,
            has_rules,
            ..FileStore::default()
        }
    }

    /// Whether there is a users file.
    pub(super) fn has_users_file(&self) -> bool {
        self.has_users
    }

    /// Whether there is a file that can be read again.
    pub(super) fn can_reload(&self) -> bool {
        self.has_users || self.has_configuration || self.has_rules
    }

    /// Whether there is a state directory.
    pub(super) fn has_state_directory(&self) -> bool {
        self.has_state
    }

    /// Settings are to be saved; the sessions wait for the answer.
    pub(super) fn request_saves(&mut self, saves: Vec<(Key, &'static str, String)>) {
        self.saves.extend(saves);
    }

    /// Whether the users file is being read again, or will be.
    pub(super) fn is_reloading(&self) -> bool {
        self.reloads.are_under_way()
    }

    /// The file is to be read again; these sessions wait for the answer.
    pub(super) fn request_reload(&mut self, askers: impl IntoIterator<Item = (Key, bool)>) {
        self.reloads.request(askers);
    }

    /// Rules are to be changed; the sessions wait for the answer.
    pub(super) fn request_rule_changes(&mut self, changes: Vec<(Key, Edit)>) {
        self.rule_changes.extend(changes);
    }

    /// Takes the session whose change of the rules has been made, or not.
    pub(super) fn changing_rules(&mut self) -> Option<Key> {
        self.changing_rules.take()
    }

    /// Whether the thread has answered.
    pub(super) fn ready(&self) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.ready())
    }

    /// When to look for an answer if the loop is not woken before.
    pub(super) fn check(&mut self, now: Instant) -> Option<Instant> {
        let worker = self.worker.as_mut().filter(|_| self.busy);
        worker.map(|worker| worker.check(now)).into_iter().chain(self.figures_due).min()
    }

    /// Figures that have changed since they were written are written after a while. `sum`: all that count, added up.
    pub(super) fn note_figures(&mut self, sum: u64, now: Instant) {
        let waits = self.figures_due.is_some() || self.write_figures;
        if self.has_state && sum != self.written && !waits {
            self.figures_due = now.checked_add(FIGURES_AFTER);
        }
    }

    /// Figures are written as soon as the thread can.
    pub(super) fn write_figures_now(&mut self) {
        self.write_figures |= self.has_state;
    }

    /// The figures, to be written now.
    fn take_figures(&mut self, shared: &Shared) -> Figures {
        self.write_figures = false;
        self.resetting.append(&mut self.resets);
        self.written = sum(shared);
        figures(shared)
    }

    /// The next job of this kind, if there is one.
    fn next_job(&mut self, work: Work, shared: &mut Shared) -> Option<Job> {
        let process = &mut shared.process;
        match work {
            Work::Accounts => {
                let group = process.account_changes.begin();
                if group.is_empty() {
                    return None;
                }
                // The next account of that name begins at zero, also if the server is killed in the meantime.
                let deletes = group.iter().any(|store| store.edit.change == Change::Delete);
                let writes = self.has_state && (deletes || self.write_figures);
                let figures = writes.then(|| self.take_figures(shared));
                Some(Job::Commit(Mutex::new(group), figures))
            }
            Work::Figures => self.write_figures.then(|| Job::Write(self.take_figures(shared))),
            Work::Settings if self.saves.is_empty() => None,
            Work::Settings => {
                self.saving = std::mem::take(&mut self.saves);
                let saved = process.configuration.with(&saved(&self.saving));
                let lines = saved.iter().map(|(key, value)| format!("{key} {value}\n"));
                let head = "# Saved by METP (CONFIG SAVE).\n".to_owned();
                Some(Job::Save(head + &lines.collect::<String>()))
            }
            Work::Rules => {
                let (session, edit) = self.rule_changes.pop_front()?;
                self.changing_rules = Some(session);
                Some(Job::ChangeRules(edit))
            }
            // It sees all changes that were answered; others wait for it.
            Work::Reload if !process.account_changes.is_empty() => None,
            Work::Reload => self.reloads.begin().then_some(Job::Read),
        }
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
        let Services { files, shared, .. } = &mut self.services;
        if files.busy {
            return;
        }
        if let Some(state) = files.adopt.take() {
            return files.give(Job::Adopt(state));
        }
        let next = files.last.after().find_map(|work| Some((work, files.next_job(work, shared)?)));
        if let Some((work, job)) = next {
            files.last = work;
            files.give(job);
        } else if let Some(job) = files.next_handover(shared) {
            files.give(job);
        }
    }

    /// Notes whether figures have changed, and has them written when it is time.
    pub(super) fn keep_figures(&mut self, now: Instant) {
        let Services { files, shared, .. } = &mut self.services;
        files.note_figures(sum(shared), now);
        if files.figures_due.is_some_and(|due| due <= now) {
            (files.write_figures, files.figures_due) = (true, None);
            self.store_changes();
        }
    }

    /// Writes the figures for the last time, once the thread has done what it has to do.
    pub(super) fn write_last_figures(&mut self) -> io::Result<()> {
        // It may have been left to a server that has not taken over.
        let is_lent = self.services.files.is_handing_over() && !self.takeover.is_done;
        if !self.services.files.has_state && !is_lent {
            return Ok(());
        }
        let deadline = Instant::now().checked_add(LAST_WRITE);
        let is_over = |now| deadline.is_none_or(|deadline| deadline <= now);
        let mut given = false;
        loop {
            let now = Instant::now();
            self.take_stored(now);
            if !self.services.files.busy {
                if given {
                    return Ok(());
                }
                let files = &mut self.services.files;
                given = files.has_state;
                files.write_figures = files.has_state;
                if !files.has_state {
                    files.reopen_state();
                }
                self.store_changes();
            }
            if is_over(now) {
                log::error!("figures: not written in time at the end");
                return Ok(());
            }
            self.services.selector.select(Some(LAST_CHECK))?;
        }
    }

    /// Takes what the thread has done.
    pub(super) fn take_stored(&mut self, now: Instant) {
        let Some(worker) = &mut self.services.files.worker else { return };
        for done in worker.answers() {
            self.services.files.busy = false;
            match (done.outcome, done.job) {
                (Ok(Answer::Committed(outcome, figures_error)), Job::Commit(_, figures)) => {
                    let committed = outcome.is_ok();
                    match outcome {
                        Ok(secrets) => self.changes_stored(secrets, now),
                        Err(error) => {
                            self.changes_failed(&error.to_string(), outcome_of(&error), now);
                            self.write_figures_again(figures.is_some());
                        }
                    }
                    if figures.is_some() && committed {
                        let outcome = figures_error.map_or(Ok(()), |error| Err(error.to_string()));
                        self.figures_written(outcome, now);
                    }
                }
                (Ok(Answer::Read(outcome)), _) => self.reloaded(outcome),
                (Ok(Answer::Released(outcome)), _) => {
                    let outcome = outcome.map_err(|error| format!("figures: {error}"));
                    self.state_released(outcome, now);
                }
                (Err(failure), Job::Release(_)) => {
                    self.state_released(Err(cause(failure).to_owned()), now);
                }
                (Ok(Answer::Reopened(outcome)), _) => self.state_reopened(outcome, now),
                (Err(_), Job::Reopen) => self.state_reopened(false, now),
                (Ok(Answer::Adopted), _) | (Err(_), Job::Adopt(_)) => {}
                (Ok(Answer::RulesChanged(outcome)), _) => self.rules_changed(outcome, now),
                (Err(failure), Job::ChangeRules(_)) => {
                    self.rules_failed(WriteOutcome::Failed, cause(failure).to_owned(), now);
                }
                (Ok(Answer::Saved(outcome)), _) => {
                    self.settings_saved(outcome.map_err(|error| error.to_string()), now);
                }
                (Err(failure), Job::Save(_)) => {
                    self.settings_saved(Err(cause(failure).to_owned()), now);
                }
                (Ok(Answer::Written(outcome)), _) => {
                    self.figures_written(outcome.map_err(|error| error.to_string()), now);
                }
                (Err(failure), Job::Commit(_, figures)) => {
                    self.changes_failed(cause(failure), WriteOutcome::Failed, now);
                    self.write_figures_again(figures.is_some());
                }
                (Ok(Answer::Committed(..)), _) => {}
                (Err(failure), Job::Write(_)) => {
                    self.figures_written(Err(cause(failure).to_owned()), now);
                }
                (Err(failure), Job::Read) => {
                    self.reloaded(Err(vec![format!("not read: {}", cause(failure))]));
                }
            }
        }
        self.store_changes();
        self.run_pending_actions(now);
        self.notify_reloaded(now);
    }

    /// Sets the counters of an account back. The session is answered when that is on the disk.
    pub(super) fn reset_usage(&mut self, session: Key, user: UserId) {
        let Services { files, shared, .. } = &mut self.services;
        let Some(account) = shared.process.users.get(user) else {
            let gone = ControlAnswer::Reset(Err("the account is gone".to_owned()));
            return self.answer_request(session, gone);
        };
        if files.is_handing_over() {
            let busy = "another server is taking over".to_owned();
            return self.answer_request(session, ControlAnswer::Reset(Err(busy)));
        }
        let before = account.usage.reset(shared.time);
        if files.has_state {
            files.resets.push(Reset { session, user, before });
            files.write_figures = true;
        } else {
            self.answer_request(session, ControlAnswer::Reset(Ok(())));
        }
    }

    /// The figures have been written, or not: what was set back stays so, or is put back.
    fn figures_written(&mut self, outcome: Result<(), String>, now: Instant) {
        for Reset { session, user, before } in std::mem::take(&mut self.services.files.resetting) {
            let shared = &self.services.shared;
            if outcome.is_err()
                && let Some(account) = shared.process.users.get(user)
            {
                account.usage.put_back(before, shared.time);
            }
            let answer = ControlAnswer::Reset(outcome.clone());
            self.answer_request(session, answer);
        }
        match outcome {
            Ok(()) => self.stored(WrittenFile::Figures, now),
            Err(cause) => self.figures_failed(cause, now),
        }
    }

    fn changes_stored(&mut self, secrets: Vec<Option<Box<str>>>, now: Instant) {
        self.stored(WrittenFile::Users, now);
        let process = &mut self.services.shared.process;
        let settled = process.account_changes.stored(secrets, &mut process.users);
        self.settle(settled);
    }

    fn changes_failed(&mut self, cause: &str, outcome: WriteOutcome, now: Instant) {
        self.not_stored(WrittenFile::Users, outcome, cause.to_owned(), now);
        let process = &mut self.services.shared.process;
        let settled = process.account_changes.failed(cause, &mut process.users);
        process.changes += 1;
        self.settle(settled);
    }

    /// Figures that went along with changes that were not stored have not been written.
    fn write_figures_again(&mut self, went_along: bool) {
        let files = &mut self.services.files;
        files.write_figures |= went_along;
        let FileStore { resets, resetting, .. } = files;
        resets.append(resetting);
    }

    /// The figures were not written: they are tried again after a while.
    fn figures_failed(&mut self, cause: String, now: Instant) {
        self.not_stored(WrittenFile::Figures, WriteOutcome::Failed, cause, now);
        self.services.files.figures_due = now.checked_add(FIGURES_AFTER);
    }

    /// Tells sessions what has become of their changes.
    fn settle(&mut self, settled: Vec<Settled>) {
        for Settled { session, number, outcome } in settled {
            self.answer(session, |entry| entry.settled(number, outcome));
        }
        for session in self.services.shared.process.account_changes.take_waiting() {
            self.answer(session, |_| {});
        }
    }

    /// Settings have been saved, or not.
    fn settings_saved(&mut self, outcome: Result<(), String>, now: Instant) {
        let saving = std::mem::take(&mut self.services.files.saving);
        match &outcome {
            Ok(()) => {
                self.stored(WrittenFile::Settings, now);
                self.services.shared.process.configuration.saved(saved(&saving));
            }
            Err(cause) => {
                let (file, outcome) = (WrittenFile::Settings, WriteOutcome::Failed);
                self.not_stored(file, outcome, cause.clone(), now);
            }
        }
        for (session, ..) in saving {
            let answer = ControlAnswer::Saved(outcome.clone());
            self.answer_request(session, answer);
        }
    }
}

/// Keys and values of settings that are being saved.
fn saved(saving: &[(Key, &'static str, String)]) -> Vec<(&'static str, String)> {
    saving.iter().map(|(_, key, value)| (*key, value.clone())).collect()
}

/// All figures that outlive the server.
pub(super) fn figures(shared: &Shared) -> Figures {
    Figures { accounts: shared.process.users.figures(), ..shared.metrics.figures() }
}

/// The figures added up: another number if one of them is another.
fn sum(shared: &Shared) -> u64 {
    let metrics = &shared.metrics;
    metrics.sessions.socks.accepted.wrapping_add(metrics.up).wrapping_add(metrics.down)
}

/// How a write has ended that was not made.
pub(super) fn outcome_of(error: &StoreError) -> WriteOutcome {
    match error {
        StoreError::ChangedOnDisk => WriteOutcome::Outdated,
        StoreError::Failed { .. } => WriteOutcome::Failed,
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

#[cfg(test)]
mod tests;
