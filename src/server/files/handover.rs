//! The state directory is left to another server that takes over, and taken back if that fails.

use std::time::Instant;

use super::{FileStore, Job, Server, figures};
use crate::proto::usage_file::Figures;
use crate::state::Shared;
use crate::state::file_health::{WriteOutcome, WrittenFile};

/// Where the state directory is, for a takeover.
#[derive(Default)]
pub(super) enum Handover {
    /// It is this server's, if there is one.
    #[default]
    Own,
    /// It is to be left to another server.
    Wanted,
    /// The thread has been given that.
    Asked,
    /// It was left, or could not be.
    Released(Result<(), String>),
    /// It is to be taken back.
    Returning,
}

impl FileStore {
    /// The state directory is to be left to another server, once all changes are on the disk.
    pub(in crate::server) fn release_state(&mut self) {
        self.handover = if self.has_state { Handover::Wanted } else { Handover::Released(Ok(())) };
        (self.has_state, self.figures_due) = (false, None);
    }

    /// Whether it has been left and nothing is being changed; an error if that cannot be. `None`: not yet.
    pub(in crate::server) fn is_released(&self, shared: &Shared) -> Option<Result<(), String>> {
        let Handover::Released(outcome) = &self.handover else { return None };
        let is_quiet = !self.busy && self.is_quiet(shared);
        (is_quiet || outcome.is_err()).then(|| outcome.clone())
    }

    /// Whether no change waits.
    fn is_quiet(&self, shared: &Shared) -> bool {
        let waits = !self.saves.is_empty() || !self.rule_changes.is_empty() || self.adopt.is_some();
        !waits && shared.process.account_changes.is_empty()
    }

    /// Whether it is not this server's alone, so that nothing that it counts may be set back.
    pub(in crate::server) fn is_handing_over(&self) -> bool {
        !matches!(self.handover, Handover::Own)
    }

    /// What has been counted since it was left.
    pub(in crate::server) fn beyond_released(&self, shared: &Shared) -> Figures {
        figures(shared).beyond(&self.released)
    }

    /// It is to be taken back.
    pub(in crate::server) fn reopen_state(&mut self) {
        match self.handover {
            // The thread has not begun with it, or could not.
            Handover::Wanted | Handover::Released(Err(_)) => {
                (self.handover, self.has_state) = (Handover::Own, true);
            }
            Handover::Released(Ok(())) => self.handover = Handover::Returning,
            // The thread answers first.
            Handover::Asked | Handover::Own | Handover::Returning => {}
        }
    }

    /// What the thread has to do with the state directory when it has nothing else.
    pub(super) fn next_handover(&mut self, shared: &Shared) -> Option<Job> {
        match self.handover {
            Handover::Wanted if self.is_quiet(shared) => {
                self.handover = Handover::Asked;
                // With accounts that nobody has used: the new server then knows since when they are.
                self.released = self.take_figures(shared);
                self.released.accounts = shared.process.users.all_figures();
                Some(Job::Release(self.released.clone()))
            }
            Handover::Returning => Some(Job::Reopen),
            _ => None,
        }
    }
}

impl Server {
    /// The state directory has been left, or not.
    pub(super) fn state_released(&mut self, outcome: Result<(), String>, now: Instant) {
        self.services.files.handover = Handover::Released(outcome.clone());
        self.figures_written(outcome, now);
    }

    /// The state directory is this server's again; otherwise it is tried again later.
    pub(super) fn state_reopened(&mut self, is_own: bool, now: Instant) {
        if is_own {
            self.takeover.returned();
            self.stored(WrittenFile::Figures, now);
        } else {
            let cause = "another server has the state directory".to_owned();
            self.not_stored(WrittenFile::Figures, WriteOutcome::Failed, cause, now);
        }
        let files = &mut self.services.files;
        if is_own {
            (files.handover, files.has_state, files.write_figures) = (Handover::Own, true, true);
        } else {
            files.handover = Handover::Released(Ok(()));
        }
    }
}
