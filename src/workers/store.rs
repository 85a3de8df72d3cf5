//! The thread that reads and writes files: the users file and the figures.
//!
//! There is one, and it has one job at a time, so that what it does has an order.

use std::io;
use std::sync::{Mutex, PoisonError};

use super::durable::StoreError;
use super::passwords::NICE;
use super::state_directory::StateDirectory;
use super::users_file::{LoadError, Loaded, Store, UsersFile};
use super::worker_pool::{Kind, Limits, Workers};
use crate::proto::usage_file::Figures;
use crate::reactor::waker::Wake;

/// The stack of the thread, in bytes.
const STACK_BYTES: usize = 256 * 1024;
/// Jobs that may wait: one is given at a time.
const QUEUE: usize = 2;

/// The files.
#[derive(Default)]
pub struct Files {
    /// The users file, if there is one.
    pub users: Option<UsersFile>,
    /// Where figures are kept, if they are.
    pub state: Option<StateDirectory>,
}

/// What the thread is to do.
#[derive(Debug)]
pub enum Job {
    /// Carry out these changes of the users file, all or none. Where an account is deleted, figures without it are written
    /// as well: one that is added again begins at zero, whatever happens meanwhile.
    Commit(Mutex<Vec<Store>>, Option<Figures>),
    /// Read the users file.
    Read,
    /// Write the figures.
    Write(Figures),
}

/// What the thread has done.
#[derive(Debug)]
pub enum Answer {
    /// The changes are on the disk. For each of them the secret that was made. Why figures that came with them were not
    /// written, if they were not.
    Committed(Result<Vec<Option<Box<str>>>, StoreError>, Option<StoreError>),
    /// The users file was read.
    Read(Result<Loaded, LoadError>),
    /// The figures were written, or not.
    Written(Result<(), StoreError>),
}

/// The thread.
pub type FileWorker = Workers<Job, Answer>;

impl Files {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.users.is_none() && self.state.is_none()
    }

    /// Starts the thread.
    pub fn start(self, waker: impl Wake + 'static) -> FileWorker {
        let kind = Kind { thread: c"files", jobs: "files", stack_bytes: STACK_BYTES, nice: NICE };
        let limits = Limits { threads: 1, threads_in_all: 1, queue: QUEUE };
        let files = Mutex::new(self);
        Workers::new(kind, limits, waker, move |job: &Job| {
            files.lock().unwrap_or_else(PoisonError::into_inner).run(job)
        })
    }

    fn run(&mut self, job: &Job) -> Answer {
        match job {
            Job::Commit(stores, figures) => {
                let mut stores = stores.lock().unwrap_or_else(PoisonError::into_inner);
                let committed = match &mut self.users {
                    Some(users) => users.commit(&mut stores),
                    None => Err(StoreError::Failed { step: "change it", error: missing() }),
                };
                let figures = figures.as_ref().filter(|_| committed.is_ok());
                let written = figures.and_then(|figures| self.write(figures).err());
                Answer::Committed(committed, written)
            }
            Job::Read => Answer::Read(match &mut self.users {
                Some(users) => users.read_again(),
                None => Err(LoadError::Unreadable(missing())),
            }),
            Job::Write(figures) => Answer::Written(self.write(figures)),
        }
    }

    fn write(&mut self, figures: &Figures) -> Result<(), StoreError> {
        match &mut self.state {
            Some(state) => state.write(figures),
            None => Ok(()),
        }
    }
}

fn missing() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "there is no users file")
}

#[cfg(test)]
mod tests;
