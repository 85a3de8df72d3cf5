//! The users file on the disk: read as a whole, and changed line by line.
//!
//! Nothing of the file stays in memory between two changes. Each one reads the file again, changes the lines of the
//! accounts that it is about, and replaces the file; if somebody else has written it meanwhile, nothing is changed. The
//! hashes of new passwords are made here, too, so that the loop does not wait for them.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::secrets::wipe;

use super::durable::{self, Expected, Stamp, StoreError};
use super::passwords::{Hasher, Password};
use crate::proto::users_file::{
    BadEdit, Change, Edit, FileAccounts, LineError, MOST_BYTES, parse, rewrite,
};

/// The users file, as it was read.
#[derive(Debug)]
pub struct UsersFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it was when it was last read or written.
    pub state: Expected,
}

/// A file that was read.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub content: FileAccounts,
    /// What it was.
    pub state: Expected,
    /// Whether others than its owner may read it.
    pub exposed: bool,
}

/// Why a file was not read. Displays as one line, without the path.
#[derive(Debug)]
pub enum LoadError {
    /// It cannot be read.
    Unreadable(io::Error),
    /// These lines are wrong.
    Lines(Vec<LineError>),
}

/// A change of the file, and the password whose hash is its secret.
#[derive(Debug)]
pub struct Store {
    /// The change. Its secret is put in by the thread if there is a password.
    pub edit: Edit,
    /// The password that the secret is to be made of.
    pub password: Option<Password>,
}

impl UsersFile {
    /// Reads the file. One that does not exist has no accounts; it is made with the first.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn read(path: &Path) -> Result<Loaded, LoadError> {
        let (mut content, found) = match durable::read(path, MOST_BYTES) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let state = Expected::Missing;
                let content = FileAccounts::default();
                return Ok(Loaded { content, state, exposed: false });
            }
            Err(error) => return Err(LoadError::Unreadable(error)),
        };
        let parsed = parse(&content);
        // It may hold passwords in clear.
        wipe(&mut content);
        let parsed = parsed.map_err(LoadError::Lines)?;
        let state = Expected::Stamp(Stamp::from(&found));
        Ok(Loaded { content: parsed, state, exposed: found.mode() & 0o077 != 0 })
    }

    /// Carries out changes, all or none. Returns, for each of them, the secret that was made.
    ///
    /// # Errors
    /// [`StoreError`]; the file is as it was.
    pub fn commit(&mut self, stores: &mut [Store]) -> Result<Vec<Option<Box<str>>>, StoreError> {
        let cannot = |step| move |error| StoreError::Failed { step, error };
        let mut made = Vec::with_capacity(stores.len());
        let mut hasher = Hasher::default();
        for Store { edit, password } in &mut *stores {
            let secret = password.take().map(|password| hasher.hash(password.bytes()));
            let secret = secret.transpose().map_err(cannot("hash the password"))?;
            if let (Some(secret), Change::Add { secret: place, .. } | Change::Secret(place)) =
                (&secret, &mut edit.change)
            {
                *place = secret.clone();
            }
            made.push(secret);
        }
        drop(hasher);
        let mut content = match durable::read(&self.path, MOST_BYTES) {
            Ok((content, found)) if Expected::Stamp(Stamp::from(&found)) == self.state => content,
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && self.state == Expected::Missing =>
            {
                Vec::new()
            }
            Ok(_) => return Err(StoreError::ChangedOnDisk),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::ChangedOnDisk);
            }
            Err(error) => return Err(cannot("read the users file")(error)),
        };
        let edits: Vec<Edit> = stores.iter().map(|store| store.edit.clone()).collect();
        let rewritten = rewrite(&content, &edits);
        wipe(&mut content);
        let mut rewritten = rewritten.map_err(|error| match error {
            BadEdit::Misfit => StoreError::ChangedOnDisk,
            BadEdit::LongLine(_) | BadEdit::LongFile(_) => {
                let error = io::Error::new(io::ErrorKind::InvalidInput, error.to_string());
                cannot("change the users file")(error)
            }
        })?;
        let replaced = durable::replace(&self.path, &rewritten, &self.state, None);
        wipe(&mut rewritten);
        self.state = Expected::Stamp(replaced?);
        Ok(made)
    }
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LoadError::Unreadable(error) => write!(f, "cannot read it: {error}"),
            LoadError::Lines(errors) => {
                let lines: Vec<String> = errors.iter().map(LineError::to_string).collect();
                f.write_str(&lines.join("; "))
            }
        }
    }
}

impl LoadError {
    /// Each thing that is wrong, in a line of its own.
    pub fn lines(&self) -> Vec<String> {
        match self {
            LoadError::Unreadable(_) => vec![self.to_string()],
            LoadError::Lines(errors) => errors.iter().map(LineError::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
