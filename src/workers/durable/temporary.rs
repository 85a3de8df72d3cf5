//! A new file on its way to its name.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::calls::{self, Existing};
use super::{Expected, PRIVATE, Stamp, StoreError, cannot};

/// The mark of temporary files: `.NAME.socks5d-new`. There is one for each file. It is locked by the process that writes
/// it, until it has got its name: without that, a second server that starts with the same file could remove it and make
/// an empty one in its place, just before it is renamed. One that was left by a process that has been killed is not
/// locked, and is removed by the next.
const MARK: &str = ".socks5d-new";
/// How long another process may take to write it.
const MOST_WAIT: Duration = Duration::from_secs(5);
/// The time between two looks whether it has.
const PAUSE: Duration = Duration::from_millis(5);

pub(super) fn temporary_name(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().as_bytes();
    let name = [b".", name, MARK.as_bytes()].concat();
    target.with_file_name(OsStr::from_bytes(&name))
}

/// Locks a file until it is closed; false if another process, or another thread, has it. Where files cannot be locked,
/// nobody has.
pub(super) fn lock(file: &File) -> bool {
    common::process::lock(file).map_err(|error| error.kind()) != Err(io::ErrorKind::WouldBlock)
}

/// Whether the path leads to the open file.
fn is_same(file: &File, path: &Path) -> bool {
    let identity = |found: Metadata| (found.dev(), found.ino());
    let found = file.metadata().and_then(|file| Ok((file, fs::symlink_metadata(path)?)));
    found.is_ok_and(|(file, there)| identity(file) == identity(there))
}

/// Removes what a process that was killed has left. False if a process that lives is writing it.
pub(super) fn remove_left(path: &Path) -> io::Result<bool> {
    let gone = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(true),
        _ => Err(error),
    };
    match fs::symlink_metadata(path) {
        Err(error) => return gone(error),
        // Something that no server has made.
        Ok(found) if !found.is_file() => {
            return fs::remove_file(path).map(|()| true).or_else(gone);
        }
        Ok(_) => {}
    }
    let left = match open(path) {
        Ok(left) => left,
        Err(error) => return gone(error),
    };
    if !lock(&left) {
        return Ok(false);
    }
    match is_same(&left, path) {
        true => fs::remove_file(path).map(|()| true).or_else(gone),
        // It has got its name meanwhile.
        false => Ok(true),
    }
}

/// Waits a moment for another process.
///
/// # Errors
/// If it has taken too long.
fn continue_until(deadline: Instant) -> io::Result<()> {
    if Instant::now() >= deadline {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process is writing it"));
    }
    std::thread::sleep(PAUSE);
    Ok(())
}

/// A file that has no name that counts yet. Removed when it is dropped.
pub(super) struct Temporary {
    pub(super) file: File,
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    /// Makes the file and locks it, so that no other process takes it for one that was left.
    pub(super) fn create(target: &Path) -> Result<Self, StoreError> {
        let path = temporary_name(target);
        let deadline = Instant::now() + MOST_WAIT;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(PRIVATE).custom_flags(libc::O_NOFOLLOW);
        loop {
            let failed = match options.open(&path) {
                Ok(file) => {
                    let created = Temporary { file, path: path.clone(), renamed: false };
                    if lock(&created.file) && created.is_there() {
                        return Ok(created);
                    }
                    // Another process has taken it for one that was left, and removes it.
                    created.leave();
                    continue_until(deadline)
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    match remove_left(&path).map_err(cannot("remove an old temporary file"))? {
                        true => Ok(()),
                        false => continue_until(deadline),
                    }
                }
                Err(error) => Err(error),
            };
            failed.map_err(cannot("create a file in the directory"))?;
        }
    }

    /// Whether its name still leads to it.
    fn is_there(&self) -> bool {
        is_same(&self.file, &self.path)
    }

    /// Does not remove it, as its name may be another's now.
    fn leave(mut self) {
        self.renamed = true;
    }

    /// Gives it the name, if what has the name is what is expected. Returns what it is then: what has the name a moment
    /// later may be another's.
    ///
    /// # Errors
    /// [`StoreError`]; what had the name has it.
    pub(super) fn rename(
        mut self,
        target: &Path,
        expected: &Expected,
    ) -> Result<Metadata, StoreError> {
        if !self.is_there() {
            // Where files cannot be locked, another process may have removed it and made its own.
            let error = io::Error::new(io::ErrorKind::NotFound, "another process has removed it");
            return Err(cannot("rename the new file")(error));
        }
        let conditional = match expected {
            Expected::Anything => Err(io::ErrorKind::Unsupported.into()),
            Expected::Missing => calls::rename(&self.path, target, Existing::Keep),
            Expected::Stamp(stamp) => self.exchange(target, stamp),
        };
        match conditional {
            Ok(()) => {}
            // Another file has got the name, or there is none any more.
            Err(error)
                if [io::ErrorKind::AlreadyExists, io::ErrorKind::NotFound]
                    .contains(&error.kind()) =>
            {
                return Err(StoreError::ChangedOnDisk);
            }
            Err(error) if is_unsupported(&error) => {
                fs::rename(&self.path, target).map_err(cannot("rename the new file"))?;
            }
            Err(error) => return Err(cannot("rename the new file")(error)),
        }
        self.renamed = true;
        self.file.metadata().map_err(cannot("look at the new file"))
    }

    /// Gives it the name, and looks at what had the name before that is removed: a file that somebody has just put there
    /// gets the name back. Whenever the process is killed, the one or the other has it.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] for another file; and those of renameat2(2).
    fn exchange(&self, target: &Path, expected: &Stamp) -> io::Result<()> {
        // Another process could take the old file for one that was left.
        let old = open(target).ok();
        let _ = old.as_ref().is_some_and(lock);
        calls::rename(&self.path, target, Existing::Exchange)?;
        if fs::symlink_metadata(&self.path).is_ok_and(|found| Stamp::from(&found) == *expected) {
            // If that fails, the next one removes it.
            let _ = fs::remove_file(&self.path);
            return Ok(());
        }
        let is_old = old.is_some_and(|old| is_same(&old, &self.path));
        let other = open(&self.path).ok();
        // If it is locked, it is one that another process has made meanwhile.
        let is_new = !is_old && other.as_ref().is_some_and(|other| !lock(other));
        if !is_new && is_same(&self.file, target) {
            calls::rename(&self.path, target, Existing::Exchange).map_err(io::Error::other)?;
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// Opens a file to lock it.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// Whether a rename with a condition has failed since the kernel, a filter of calls, or the file system has none.
fn is_unsupported(error: &io::Error) -> bool {
    let codes = [libc::EINVAL, libc::ENOSYS, libc::EPERM, libc::ENOTSUP];
    error.kind() == io::ErrorKind::Unsupported
        || error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed && self.is_there() {
            // If that fails, the next one removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}
