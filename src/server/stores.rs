//! What cannot be stored, for the log: one line for an episode, however often it is tried, with cause and path, and one
//! when it can be stored again.

use std::path::Path;
use std::time::Instant;

use common::episode::Outage;
use metp_protocol::text::Escaped;

use super::Server;
use crate::state::file_health::{WriteOutcome, WrittenFile};
use crate::workers::store::Files;

impl Server {
    /// A file is on the disk.
    pub(super) fn stored(&mut self, file: WrittenFile, now: Instant) {
        self.services.shared.process.file_health.written(file, WriteOutcome::Stored);
        self.services.files.stores.succeeded(file, now);
    }

    /// It is not.
    pub(super) fn not_stored(
        &mut self,
        file: WrittenFile,
        outcome: WriteOutcome,
        cause: String,
        now: Instant,
    ) {
        let shared = &mut self.services.shared;
        shared.process.file_health.written(file, outcome);
        shared.metrics.store_errors += 1;
        self.services.files.stores.failed(file, cause, now);
    }
}

/// The episodes of all that is stored.
#[derive(Default)]
pub(super) struct Stores {
    users: String,
    state: String,
    rules: String,
    /// By the order of [`WrittenFile::ALL`]: by the texts of the causes.
    outages: [Outage<String>; WrittenFile::ALL.len()],
}

impl Stores {
    /// None has failed yet.
    pub(super) fn new<C>(files: &Files<C>) -> Self {
        let shown = |path: Option<&Path>| {
            let path = path.map(|path| Escaped(path.as_os_str().as_encoded_bytes()).to_string());
            path.unwrap_or_default()
        };
        Stores {
            users: shown(files.users.as_ref().map(|users| users.path.as_path())),
            state: shown(files.state.as_ref().map(|state| state.path())),
            rules: shown(files.rules.as_ref().map(|rules| rules.path.as_path())),
            outages: Default::default(),
        }
    }

    /// It was not stored at `now`.
    pub(super) fn failed(&mut self, file: WrittenFile, cause: String, now: Instant) {
        if let Some(line) = self.failure(file, cause, now) {
            log::error!("{line}");
        }
    }

    /// It was.
    pub(super) fn succeeded(&mut self, file: WrittenFile, now: Instant) {
        if let Some(line) = self.success(file, now) {
            log::info!("{line}");
        }
    }

    fn failure(&mut self, file: WrittenFile, cause: String, now: Instant) -> Option<String> {
        if !self.outage(file).fails(cause.clone(), now) {
            return None;
        }
        let what = match file {
            WrittenFile::Users => "users file: changes were not stored, and have been undone",
            WrittenFile::Figures => "figures: not written",
            WrittenFile::Settings => "settings: not saved",
            WrittenFile::Rules => "rules: not changed",
        };
        Some(format!("{what}: {cause}: {}", self.path(file)))
    }

    fn success(&mut self, file: WrittenFile, now: Instant) -> Option<String> {
        if !self.outage(file).succeeds(now) {
            return None;
        }
        let what = match file {
            WrittenFile::Users => "users file: changes are stored again",
            WrittenFile::Figures => "figures: written again",
            WrittenFile::Settings => "settings: saved again",
            WrittenFile::Rules => "rules: changed again",
        };
        Some(format!("{what}: {}", self.path(file)))
    }

    fn path(&self, file: WrittenFile) -> &str {
        match file {
            WrittenFile::Users => &self.users,
            WrittenFile::Figures | WrittenFile::Settings => &self.state,
            WrittenFile::Rules => &self.rules,
        }
    }

    fn outage(&mut self, file: WrittenFile) -> &mut Outage<String> {
        let [users, rules, figures, settings] = &mut self.outages;
        match file {
            WrittenFile::Users => users,
            WrittenFile::Rules => rules,
            WrittenFile::Figures => figures,
            WrittenFile::Settings => settings,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use common::episode::QUIET;

    use super::*;

    const FULL: &str = "cannot write the new file: No space left on device (os error 28)";

    fn stores() -> Stores {
        let [users, state, rules] = ["/u", "/s", "/r"].map(str::to_owned);
        Stores { users, state, rules, ..Stores::default() }
    }

    #[test]
    fn each_store_names_cause_and_path() {
        let (mut stores, start) = (stores(), Instant::now());
        let all =
            [WrittenFile::Users, WrittenFile::Figures, WrittenFile::Settings, WrittenFile::Rules];
        for (file, fails, succeeds) in [
            (
                all[0],
                "users file: changes were not stored, and have been undone: ",
                "users file: changes are stored again: /u",
            ),
            (all[1], "figures: not written: ", "figures: written again: /s"),
            (all[2], "settings: not saved: ", "settings: saved again: /s"),
            (all[3], "rules: not changed: ", "rules: changed again: /r"),
        ] {
            let path = &succeeds[succeeds.len() - 2..];
            let line = stores.failure(file, FULL.to_owned(), start);
            assert_eq!(line, Some(format!("{fails}{FULL}: {path}")));
            assert_eq!(stores.success(file, start + QUIET).as_deref(), Some(succeeds));
        }
    }

    /// Figures are tried every ten seconds.
    #[test]
    fn a_disk_that_stays_full_has_one_line() {
        let (mut stores, start) = (stores(), Instant::now());
        let at = |attempt| start + Duration::from_secs(10) * attempt;
        let lines = (0..360)
            .filter_map(|attempt| stores.failure(WrittenFile::Figures, FULL.into(), at(attempt)));
        assert_eq!(lines.count(), 1);
        assert!(stores.failure(WrittenFile::Figures, "cannot sync it".into(), at(360)).is_some());
        assert!(stores.success(WrittenFile::Figures, at(361)).is_some());
        assert!(stores.success(WrittenFile::Figures, at(362)).is_none());
        assert!(stores.failure(WrittenFile::Figures, FULL.into(), at(363)).is_some());
    }
}
