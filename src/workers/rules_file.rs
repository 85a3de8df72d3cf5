//! The file of rules on the disk: read as a whole, and changed line by line.
//!
//! Unlike accounts, rules change in memory when they have changed on the disk: a change is checked with all the rest of the
//! file, which nothing in the loop waits for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::durable::{self, Expected, Stamp, StoreError};
use crate::proto::rules::{BadEdit, Carried, Compiled, Edit, LineError, MOST_BYTES, RuleSet, edit};

/// The file of rules, as it was read.
#[derive(Debug)]
pub struct RulesFile {
    /// Where it is.
    pub path: PathBuf,
    /// What is in force: what the file was when it was last read or written, and its rules.
    pub state: RulesState,
    /// The rules that were in force before, until the loop has dropped its own.
    pub replaced: Option<Arc<Compiled>>,
}

/// What a file was, and the rules that were in it.
#[derive(Clone, Debug)]
pub struct RulesState {
    /// What the file was.
    pub file: Expected,
    /// The rules.
    pub rules: Arc<Compiled>,
}

/// Rules that come into force.
#[derive(Debug)]
pub struct LoadedRules {
    /// The rules.
    pub rules: RuleSet,
    /// Which of them were in force before.
    pub carried: Carried,
    /// What the file was.
    pub state: RulesState,
}

/// Why a change was not made. Displays as one line.
#[derive(Debug)]
pub enum EditError {
    /// It does not fit the file.
    Misfit(BadEdit),
    /// The file would not be a good one.
    Invalid(LineError),
    /// The file would have more than [`MOST_BYTES`].
    TooLong,
    /// It could not be stored.
    Store(StoreError),
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EditError::Misfit(misfit) => misfit.fmt(f),
            EditError::Invalid(error) => error.fmt(f),
            EditError::TooLong => write!(f, "the file would have more than {MOST_BYTES} bytes"),
            EditError::Store(error) => error.fmt(f),
        }
    }
}

impl RulesFile {
    /// The file whose rules are in force.
    pub fn new(path: PathBuf, state: RulesState) -> Self {
        RulesFile { path, state, replaced: None }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// All that is wrong with it, without its path. One that is not there is an error: whoever has rules wants them obeyed.
    pub fn read(path: &Path) -> Result<LoadedRules, Vec<String>> {
        let (content, found) = durable::read(path, MOST_BYTES)
            .map_err(|error| vec![format!("cannot read it: {error}")])?;
        let rules = RuleSet::parse(&content)
            .map_err(|errors| errors.iter().map(LineError::to_string).collect::<Vec<_>>())?;
        let file = Expected::Stamp(Stamp::from(&found));
        let state = RulesState { file, rules: Arc::clone(rules.compiled()) };
        Ok(LoadedRules { rules, carried: Carried::default(), state })
    }

    /// Reads the file again. What was read is in force once [`RulesFile::adopt`] says so.
    ///
    /// # Errors
    /// Those of [`RulesFile::read`].
    pub fn read_again(&self) -> Result<LoadedRules, Vec<String>> {
        let mut loaded = RulesFile::read(&self.path)?;
        loaded.carried = loaded.state.rules.carried(&self.state.rules);
        Ok(loaded)
    }

    /// These rules are in force. What was so before is kept until [`RulesFile::drop_replaced`].
    pub fn adopt(&mut self, state: RulesState) {
        let before = std::mem::replace(&mut self.state, state);
        self.replaced = Some(before.rules);
    }

    /// The loop has other rules by now: those before are dropped here, where nobody waits.
    pub fn drop_replaced(&mut self) {
        self.replaced = None;
    }

    /// Changes a line. Returns the rules afterwards, which are in force.
    ///
    /// # Errors
    /// [`EditError`]; the file is as it was.
    pub fn change(&mut self, change: &Edit) -> Result<LoadedRules, EditError> {
        let cannot = |step| move |error| EditError::Store(StoreError::Failed { step, error });
        let (content, found) =
            durable::read(&self.path, MOST_BYTES).map_err(cannot("read the rules"))?;
        if Expected::Stamp(Stamp::from(&found)) != self.state.file {
            return Err(EditError::Store(StoreError::ChangedOnDisk));
        }
        let content = edit(&content, change).map_err(EditError::Misfit)?;
        if content.len() as u64 > MOST_BYTES {
            return Err(EditError::TooLong);
        }
        let rules = RuleSet::parse(&content).map_err(|errors| {
            let first = errors.into_iter().next();
            first.map_or(EditError::Store(StoreError::ChangedOnDisk), EditError::Invalid)
        })?;
        let written = durable::replace(&self.path, &content, &self.state.file, None);
        let file = Expected::Stamp(written.map_err(EditError::Store)?);
        let state = RulesState { file, rules: Arc::clone(rules.compiled()) };
        let carried = state.rules.carried(&self.state.rules);
        self.adopt(state.clone());
        Ok(LoadedRules { rules, carried, state })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::proto::rules::{MOST_RULES, Rule};

    fn rule(text: &str) -> Rule {
        Rule::parse(text.as_bytes()).expect("good").expect("a rule")
    }

    #[test]
    fn a_change_is_on_the_disk_before_it_takes_effect() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("rules");
        let told = RulesFile::read(&path).expect_err("missing");
        assert!(told[0].starts_with("cannot read it: "), "{told:?}");
        fs::write(&path, "# head\nallow\n").expect("written");
        let LoadedRules { rules, state, .. } = RulesFile::read(&path).expect("good");
        assert_eq!(rules.len(), 1);
        let mut file = RulesFile::new(path.clone(), state);
        let changed = file.change(&Edit::Insert(2, rule("deny port 25"))).expect("fits");
        assert_eq!(changed.rules.at_line(2), Some(&rule("deny port 25")));
        let text = || fs::read_to_string(&path).expect("read");
        assert_eq!(text(), "# head\ndeny port 25\nallow\n");
        // What would leave a file that is no good is refused.
        let refused = file.change(&Edit::Delete(3, rule("allow"))).expect_err("the last");
        assert!(refused.to_string().starts_with("line 2: the last rule has to be"), "{refused}");
        let refused = file.change(&Edit::Delete(2, rule("deny port 26"))).expect_err("another");
        assert_eq!(refused.to_string(), "line 2 is: deny port 25");
        assert_eq!(text(), "# head\ndeny port 25\nallow\n");
        fs::write(&path, "deny\n").expect("written");
        let refused = file.change(&Edit::Delete(2, rule("deny port 25"))).expect_err("edited");
        assert_eq!(refused.to_string(), "changed on disk, RELOAD first");
        assert_eq!(text(), "deny\n");
    }

    /// What could not be read at the next start is not written.
    #[test]
    fn a_file_does_not_become_too_long() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("rules");
        let comments = format!("#{}\n", "x".repeat(1022)).repeat(1 << 14);
        let long = format!("{}\nallow\n", &comments[..comments.len() - "\nallow\n".len()]);
        let many = "deny port 1\n".repeat(MOST_RULES - 1) + "allow\n";
        for (text, told) in [
            (long, format!("the file would have more than {MOST_BYTES} bytes")),
            (many, format!("line {}: more than {MOST_RULES} rules", MOST_RULES + 1)),
        ] {
            fs::write(&path, &text).expect("written");
            let state = RulesFile::read(&path).expect("good").state;
            let mut file = RulesFile::new(path.clone(), state.clone());
            let refused =
                file.change(&Edit::Insert(1, rule("deny port 25"))).expect_err("too long");
            assert_eq!(refused.to_string(), told);
            assert!(fs::read_to_string(&path).expect("read") == text, "{told}");
            assert_eq!(RulesFile::read(&path).expect("good").state.file, state.file);
        }
        // In the file a byte of a name may take four.
        fs::write(&path, "allow\n").expect("written");
        let state = RulesFile::read(&path).expect("good").state;
        let text = [&b"deny user a"[..], &b",\xff".repeat(1000), b"*"].concat();
        let long = Rule::parse(&text).expect("good").expect("a rule");
        let refused = RulesFile::new(path.clone(), state).change(&Edit::Insert(1, long));
        let refused = refused.expect_err("too long");
        assert_eq!(refused.to_string(), "line 1: more than 4096 bytes");
        assert_eq!(fs::read_to_string(&path).expect("read"), "allow\n");
    }
}
