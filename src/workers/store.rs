//! The thread that reads and writes files: the users file, the rules, the figures, the configuration.
//!
//! There is one, and it has one job at a time, so that what it does has an order.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::durable::{Expected, StoreError};
use super::rules_file::{EditError, LoadedRules, RulesFile, RulesState};
use super::state_directory::StateDirectory;
use super::users_file::{Loaded, Store, UsersFile};
use super::worker_pool::{Kind, Limits, Workers};
use crate::proto::rules::Edit;
use crate::proto::usage_file::Figures;
use crate::reactor::waker::Wake;

/// The stack of the thread, in bytes.
const STACK_BYTES: usize = 256 * 1024;
/// The priority of the thread, as of nice(1).
const NICE: i32 = 10;
/// Jobs that may wait: one is given at a time.
const QUEUE: usize = 2;

/// Reads the configuration again: what it says, or all that is wrong with it.
pub type ReadConfiguration<C> = dyn Fn() -> Result<C, Vec<String>> + Send;

/// The files. `C` is what a configuration says.
pub struct Files<C> {
    /// The users file, if there is one.
    pub users: Option<UsersFile>,
    /// The rules, if there are any.
    pub rules: Option<RulesFile>,
    /// Where figures and settings are kept, if they are.
    pub state: Option<StateDirectory>,
    /// The state directory that was left to another server.
    pub released: Option<PathBuf>,
    /// Reads the configuration file again, if there is one.
    pub configuration: Option<Box<ReadConfiguration<C>>>,
}

impl<C> Default for Files<C> {
    fn default() -> Self {
        Files { users: None, rules: None, state: None, released: None, configuration: None }
    }
}

/// What was read again, all of it good.
#[derive(Debug)]
pub struct ReadAgain<C> {
    /// The users file.
    pub users: Option<Loaded>,
    /// The rules.
    pub rules: Option<LoadedRules>,
    /// The configuration.
    pub configuration: Option<C>,
}

/// What the thread is to do.
#[derive(Debug)]
pub enum Job {
    /// Carry out these changes of the users file, all or none. Where an account is deleted, figures without it are written
    /// as well: one that is added again begins at zero, whatever happens meanwhile.
    Commit(Mutex<Vec<Store>>, Option<Figures>),
    /// Read the users file, the rules and the configuration.
    Read,
    /// What was read last of the users file and the rules is what is in force: the next changes build on it.
    Adopt(Adopted),
    /// Change a line of the rules.
    ChangeRules(Edit),
    /// Write the figures.
    Write(Figures),
    /// Save settings: the text of the file.
    Save(String),
    /// Write the figures, and leave the state directory to another server.
    Release(Figures),
    /// Take the state directory back.
    Reopen,
}

/// What files were when what is in force was read from them. `None`: that has not changed.
#[derive(Clone, Debug, Default)]
pub struct Adopted {
    /// The users file.
    pub users: Option<Expected>,
    /// The rules.
    pub rules: Option<RulesState>,
}

/// What the thread has done.
#[derive(Debug)]
pub enum Answer<C> {
    /// The changes are on the disk. For each of them the secret that was made. Why figures that came with them were not
    /// written, if they were not.
    Committed(Result<Vec<Option<Box<str>>>, StoreError>, Option<StoreError>),
    /// The files were read; or all that is wrong with them.
    Read(Result<ReadAgain<C>, Vec<String>>),
    /// Nothing but what was asked for.
    Adopted,
    /// The rules afterwards, or why they are as before.
    RulesChanged(Result<LoadedRules, EditError>),
    /// The figures were written, or not.
    Written(Result<(), StoreError>),
    /// The settings were saved, or not.
    Saved(Result<(), StoreError>),
    /// The state directory is free; or the figures were not written, and it is not.
    Released(Result<(), StoreError>),
    /// The state directory is this server's again, or not.
    Reopened(bool),
}

/// The thread.
pub type FileWorker<C> = Workers<Job, Answer<C>>;

impl<C: Send + 'static> Files<C> {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        let has_lines = self.users.is_some() || self.rules.is_some();
        !has_lines && self.state.is_none() && self.configuration.is_none()
    }

    /// Starts the thread.
    pub fn start(self, waker: impl Wake + 'static) -> FileWorker<C> {
        let kind = Kind {
            thread: c"files",
            jobs: "reading and writing files",
            stack_bytes: STACK_BYTES,
            nice: NICE,
        };
        let limits = Limits { threads: 1, threads_in_all: 1, queue: QUEUE };
        let files = Mutex::new(self);
        Workers::new(kind, limits, waker, move |job: &Job| {
            files.lock().unwrap_or_else(PoisonError::into_inner).run(job)
        })
    }

    fn run(&mut self, job: &Job) -> Answer<C> {
        match job {
            Job::Commit(stores, figures) => {
                let mut stores = stores.lock().unwrap_or_else(PoisonError::into_inner);
                let committed = match &mut self.users {
                    Some(users) => users.commit(&mut stores),
                    None => {
                        let error = missing("there is no users file");
                        Err(StoreError::Failed { step: "change it", error })
                    }
                };
                let figures = figures.as_ref().filter(|_| committed.is_ok());
                let written = figures.and_then(|figures| self.write(figures).err());
                Answer::Committed(committed, written)
            }
            Job::Read => Answer::Read(self.read_again()),
            Job::Adopt(adopted) => {
                if let Some((users, state)) = self.users.as_mut().zip(adopted.users) {
                    users.state = state;
                }
                if let Some(rules) = &mut self.rules {
                    if let Some(state) = &adopted.rules {
                        rules.adopt(state.clone());
                    }
                    rules.drop_replaced();
                }
                Answer::Adopted
            }
            Job::ChangeRules(edit) => Answer::RulesChanged(match &mut self.rules {
                Some(rules) => rules.change(edit),
                None => {
                    let error = missing("there are no rules");
                    Err(EditError::Store(StoreError::Failed { step: "change them", error }))
                }
            }),
            Job::Save(text) => Answer::Saved(match &mut self.state {
                Some(state) => state.save(text),
                None => Ok(()),
            }),
            Job::Write(figures) => Answer::Written(self.write(figures)),
            Job::Release(figures) => Answer::Released(self.write(figures).map(|()| {
                self.released = self.state.take().map(StateDirectory::release);
            })),
            Job::Reopen => {
                if let Some(path) = &self.released
                    && let Ok(state) = StateDirectory::open(path)
                {
                    (self.state, self.released) = (Some(state), None);
                }
                Answer::Reopened(self.state.is_some())
            }
        }
    }

    /// Reads all files that can be read again.
    fn read_again(&self) -> Result<ReadAgain<C>, Vec<String>> {
        let users = self.users.as_ref().map(|users| UsersFile::read(&users.path)).transpose();
        let rules = self.rules.as_ref().map(RulesFile::read_again).transpose();
        let configuration = self.configuration.as_ref().map(|read| read()).transpose();
        match (users, rules, configuration) {
            (Ok(users), Ok(rules), Ok(configuration)) => {
                Ok(ReadAgain { users, rules, configuration })
            }
            (users, rules, configuration) => {
                let mut lines = configuration.err().unwrap_or_default();
                let of_users = users.err().map(|error| error.lines()).unwrap_or_default();
                lines.extend(of_users.into_iter().map(|line| format!("users: {line}")));
                let of_rules = rules.err().unwrap_or_default();
                lines.extend(of_rules.into_iter().map(|line| format!("rules: {line}")));
                Err(lines)
            }
        }
    }

    fn write(&mut self, figures: &Figures) -> Result<(), StoreError> {
        match &mut self.state {
            Some(state) => state.write(figures),
            None => Ok(()),
        }
    }
}

fn missing(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, what)
}

#[cfg(test)]
mod tests;
