//! Reading the files again: users, configuration and rules, all of it or nothing.

use super::Server;
use crate::reactor::slab::Key;
use crate::state::configuration::Reading;
use crate::state::control::{ControlAnswer, ReloadSummary};
use crate::state::service::Service;
use crate::state::users::{Reloaded, unix_time};
use crate::workers::store::{Adopted, ReadAgain};

/// Reloads that are asked for. One that is asked for while another reads comes after it: what was read may be older.
#[derive(Default)]
pub(super) struct Reloads {
    /// Whether the files are to be read again.
    wanted: bool,
    /// The sessions that have asked for that, and whether tunnels are to be cut then.
    askers: Vec<(Key, bool)>,
    /// Those for whom the files are being read.
    reading: Option<Vec<(Key, bool)>>,
}

impl Reloads {
    /// The files are to be read again; these sessions wait for the answer.
    pub(super) fn request(&mut self, askers: impl IntoIterator<Item = (Key, bool)>) {
        self.wanted = true;
        self.askers.extend(askers);
    }

    /// Whether the files are being read, or will be.
    pub(super) fn are_under_way(&self) -> bool {
        self.wanted || self.reading.is_some()
    }

    /// Whether the files are to be read now, for all who have asked so far.
    pub(super) fn begin(&mut self) -> bool {
        let begins = std::mem::take(&mut self.wanted);
        if begins {
            self.reading = Some(std::mem::take(&mut self.askers));
        }
        begins
    }

    /// The files have been read for these sessions.
    fn done(&mut self) -> Vec<(Key, bool)> {
        self.reading.take().unwrap_or_default()
    }
}

impl Server {
    /// Makes accounts and settings what the files say.
    fn take_over(&mut self, read: ReadAgain<Reading>) -> Result<ReloadSummary, Vec<String>> {
        let process = &mut self.services.shared.process;
        let mut summary = ReloadSummary::default();
        let mut adopted = Adopted::default();
        if let Some(loaded) = read.users {
            if loaded.exposed {
                log::warn!("users file: others than its owner may read it");
            }
            let reloaded = process.users.reload(loaded.content);
            summary.accounts = reloaded.map_err(|error| vec![error.to_string()])?;
            adopted.users = Some(loaded.state);
        }
        if let Some(reading) = read.configuration {
            for option in &reading.restart {
                log::warn!("configuration: {option} takes a restart");
            }
            let changed = process.configuration.read_again(reading, &mut process.settings);
            summary.settings = changed.len();
            for (key, value) in changed {
                log::info!("configuration: {key} is {value} now");
            }
        }
        if let Some(loaded) = read.rules {
            summary.rules = Some(loaded.rules.len());
            adopted.rules = Some(loaded.state);
            self.replace_rules(loaded.rules, &loaded.carried);
        }
        self.services.files.adopt = Some(adopted);
        Ok(summary)
    }

    /// The files have been read again: all of it takes effect, or nothing.
    pub(super) fn reloaded(&mut self, outcome: Result<ReadAgain<Reading>, Vec<String>>) {
        let outcome = outcome.and_then(|read| self.take_over(read));
        self.services.shared.process.file_health.reload(outcome.is_ok(), unix_time());
        match &outcome {
            Ok(ReloadSummary { accounts, settings, rules, .. }) => {
                self.services.shared.process.changes += 1;
                let Reloaded { accounts, added, deleted, changed } = accounts;
                let rules = rules.map_or(String::new(), |rules| format!(" rules={rules}"));
                log::info!(
                    "reloaded: accounts={accounts} added={added} deleted={deleted} changed={changed} settings={settings}{rules}"
                );
            }
            Err(faults) => {
                for fault in faults {
                    log::error!("reload: {fault}");
                }
                log::error!("not reloaded: nothing has changed");
            }
        }
        let askers = self.services.files.reloads.done();
        let wanted = outcome.is_ok() && askers.iter().any(|(_, cut)| *cut);
        let ended = wanted.then(|| self.cut_denied());
        for (key, cut) in askers {
            let cut = ended.filter(|_| cut);
            let outcome = outcome.clone().map(|summary| ReloadSummary { cut, ..summary });
            let answer = ControlAnswer::Reloaded(outcome);
            self.answer_request(key, answer);
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
