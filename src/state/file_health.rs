//! How the last writes of the files and the last reload have ended, for monitoring.

/// A file that the server writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenFile {
    /// The users file.
    Users,
    /// The rules.
    Rules,
    /// The figures in the state directory.
    Figures,
    /// The saved settings in the state directory.
    Settings,
}

impl WrittenFile {
    /// All of them, in the order of samples.
    pub const ALL: [WrittenFile; 4] =
        [WrittenFile::Users, WrittenFile::Rules, WrittenFile::Figures, WrittenFile::Settings];

    /// The word of the label.
    pub const fn word(self) -> &'static str {
        match self {
            WrittenFile::Users => "users",
            WrittenFile::Rules => "rules",
            WrittenFile::Figures => "figures",
            WrittenFile::Settings => "settings",
        }
    }
}

/// How the last write of a file has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is on the disk, or there has been none.
    #[default]
    Stored,
    /// The file was changed by others: it can be written once it has been read again.
    Outdated,
    /// It is not on the disk.
    Failed,
}

/// The last write of each file, and the last reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHealth {
    writes: [WriteOutcome; WrittenFile::ALL.len()],
    /// Whether the last reload has succeeded, or there has been none.
    pub reloaded: bool,
    /// When the last one that succeeded was, or the start, in seconds of UNIX time.
    pub reloaded_at: u64,
}

impl FileHealth {
    /// Nothing has failed. `now`: the start, in seconds of UNIX time.
    pub fn new(now: u64) -> Self {
        FileHealth { writes: Default::default(), reloaded: true, reloaded_at: now }
    }

    /// A write has ended.
    pub fn written(&mut self, file: WrittenFile, outcome: WriteOutcome) {
        if let Some(last) = self.writes.get_mut(file as usize) {
            *last = outcome;
        }
    }

    /// Each file, and whether its last write has succeeded.
    pub fn writes(&self) -> impl Iterator<Item = (WrittenFile, bool)> {
        let stored = self.writes.into_iter().map(|outcome| outcome == WriteOutcome::Stored);
        WrittenFile::ALL.into_iter().zip(stored)
    }

    /// A reload has ended at this time, in seconds of UNIX time. It changes nothing if it has failed.
    pub fn reload(&mut self, succeeded: bool, now: u64) {
        self.reloaded = succeeded;
        if !succeeded {
            return;
        }
        self.reloaded_at = now;
        for outcome in &mut self.writes {
            if *outcome == WriteOutcome::Outdated {
                *outcome = WriteOutcome::Stored;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(health: &FileHealth) -> Vec<&'static str> {
        health.writes().filter(|(_, stored)| !stored).map(|(file, _)| file.word()).collect()
    }

    #[test]
    fn each_file_has_an_outcome_of_its_own() {
        let mut health = FileHealth::new(100);
        assert!(failing(&health).is_empty());
        for (number, file) in WrittenFile::ALL.into_iter().enumerate() {
            assert_eq!(file as usize, number);
            health.written(file, WriteOutcome::Failed);
            assert_eq!(failing(&health), [file.word()]);
            health.written(file, WriteOutcome::Stored);
        }
    }

    /// A reload takes over what others have written, and mends no disk.
    #[test]
    fn a_reload_that_succeeds_makes_outdated_files_current() {
        let mut health = FileHealth::new(100);
        health.written(WrittenFile::Users, WriteOutcome::Outdated);
        health.written(WrittenFile::Figures, WriteOutcome::Failed);
        health.reload(false, 200);
        assert_eq!(failing(&health), ["users", "figures"]);
        assert_eq!((health.reloaded, health.reloaded_at), (false, 100));
        health.reload(true, 300);
        assert_eq!(failing(&health), ["figures"]);
        assert_eq!((health.reloaded, health.reloaded_at), (true, 300));
    }
}
