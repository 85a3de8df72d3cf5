//! Replacing a file so that a machine that is switched off has the old one or the new one, whole.
//!
//! The new content goes to a temporary file in the same directory, to the disk (fsync), and then takes the name
//! (rename); the directory goes to the disk last. Nothing is written into a file that has a name. Whether somebody else
//! has changed the file meanwhile is found by its [`Stamp`].
//!
//! All of this blocks: it is for threads, and for the start of the program.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Read and write for the owner, nothing for others.
const PRIVATE: u32 = 0o600;
/// The permissions that a file has besides its kind.
const PERMISSIONS: u32 = 0o777;
/// The mark of temporary files: `.NAME.socks5d-new`. There is one for each file, as one thread writes it; a file that was
/// left by a process that has been killed is written over by the next.
const MARK: &str = ".socks5d-new";

/// What tells two states of a file apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(file: &Metadata) -> Self {
        Stamp {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
        }
    }
}

/// What a file is expected to be before it is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Anything, or nothing.
    Anything,
    /// Nothing: there is no file.
    Missing,
    /// The file with this stamp.
    Stamp(Stamp),
}

/// Why a file was not replaced. It is as it was.
#[derive(Debug)]
pub enum StoreError {
    /// It is not what was expected.
    ChangedOnDisk,
    /// A step failed.
    Failed {
        /// What was to be done.
        step: &'static str,
        /// Why it could not be.
        error: io::Error,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::ChangedOnDisk => f.write_str("changed on disk, RELOAD first"),
            StoreError::Failed { step, error } => write!(f, "cannot {step}: {error}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Makes a [`StoreError`] of what a step returned.
fn cannot(step: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |error| StoreError::Failed { step, error }
}

/// Reads a file of up to `most` bytes, with the stamp of what was read.
///
/// # Errors
/// If it cannot be read, is no regular file, or is longer. A FIFO is not waited for.
pub fn read(path: &Path, most: u64) -> io::Result<(Vec<u8>, Metadata)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut content = Vec::new();
    let expected = usize::try_from(found.len().min(most)).unwrap_or_default();
    content.try_reserve_exact(expected.saturating_add(1))?;
    file.take(most.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        let text = format!("it has more than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok((content, found))
}

/// Replaces the content of a file, or makes the file. Where `path` is a symbolic link, the file that it leads to is
/// replaced. The new file has owner and permissions of the old one, and never wider ones; one that is new belongs to its
/// owner alone. `previous`: a second name for the old file, which is kept.
///
/// # Errors
/// [`StoreError`]; the file is as it was, on the disk and before the eyes of others. Only if the last step fails, the
/// directory's fsync, has it the new content, and may have the old one again after a power cut.
pub fn replace(
    path: &Path,
    content: &[u8],
    expected: &Expected,
    previous: Option<&Path>,
) -> Result<Stamp, StoreError> {
    let target = resolve(path).map_err(cannot("follow the link"))?;
    let temporary = Temporary::create(&target)?;
    let old = match fs::symlink_metadata(&target) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(cannot("look at the file")(error)),
    };
    if let Some(old) = &old {
        temporary.take_after(old)?;
    }
    (&temporary.file).write_all(content).map_err(cannot("write the new file"))?;
    temporary.file.sync_all().map_err(cannot("sync the new file"))?;
    if !is_expected(&target, expected) {
        return Err(StoreError::ChangedOnDisk);
    }
    if let (Some(_), Some(previous)) = (&old, previous) {
        keep(&target, previous).map_err(cannot("keep the old file"))?;
    }
    let directory = parent(&target);
    temporary.rename(&target)?;
    let renamed = fs::metadata(&target).map_err(cannot("look at the new file"))?;
    sync(directory).map_err(cannot("sync the directory"))?;
    Ok(Stamp::from(&renamed))
}

/// Whether a file can be replaced, tried without changing it: a temporary file is made beside it and removed.
///
/// # Errors
/// If the directory cannot be written, or the file is a mount point of its own, over which nothing can be renamed.
pub fn check_replaceable(path: &Path) -> Result<(), StoreError> {
    let target = resolve(path).map_err(cannot("follow the link"))?;
    let temporary = Temporary::create(&target)?;
    let directory = fs::metadata(parent(&target)).map_err(cannot("look at the directory"))?;
    if let Ok(file) = fs::symlink_metadata(&target) {
        if !file.is_file() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
            return Err(cannot("replace it")(error));
        }
        if file.dev() != directory.dev() || is_mount_point(&target) {
            let error = io::Error::new(io::ErrorKind::ResourceBusy, "it is a mount point");
            return Err(cannot("replace it")(error));
        }
        temporary.take_after(&file)?;
    }
    Ok(())
}

/// Where a path leads in the end, also if there is no file yet.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    /// As many as Linux follows.
    const MOST_LINKS: usize = 40;
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&target) {
            Ok(next) => target = parent(&target).join(next),
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            // It is no link.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
            Err(error) => return Err(error),
        }
    }
    if fs::symlink_metadata(&target).is_ok_and(|found| found.is_symlink()) {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    // A directory of the path may be a link, too.
    let name = target.file_name().map(OsStr::to_owned).unwrap_or_default();
    Ok(fs::canonicalize(parent(&target))?.join(name))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn is_expected(target: &Path, expected: &Expected) -> bool {
    match (expected, fs::symlink_metadata(target)) {
        (Expected::Anything, _) => true,
        (Expected::Missing, found) => {
            found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        }
        (Expected::Stamp(stamp), found) => found.is_ok_and(|found| Stamp::from(&found) == *stamp),
    }
}

/// Gives a file a second name, in place of the file that has it now.
fn keep(target: &Path, previous: &Path) -> io::Result<()> {
    let temporary = temporary_name(previous);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::hard_link(target, &temporary)?;
    fs::rename(&temporary, previous)?;
    // A rename of one link over another of the same file does nothing, and leaves both.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Whether the file is mounted on its own, such as a single file in a container.
fn is_mount_point(target: &Path) -> bool {
    let Ok(mounts) = fs::read("/proc/self/mountinfo") else { return false };
    mounts.split(|byte| *byte == b'\n').any(|line| {
        let mounted = line.split(|byte| *byte == b' ').nth(4);
        mounted.is_some_and(|mounted| unescaped(mounted) == target.as_os_str())
    })
}

/// A path as proc(5) has it, with blanks, tabs, line feeds and backslashes in octal.
fn unescaped(text: &[u8]) -> OsString {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        let (byte, skip) = octal.map_or((first, 0), |byte| (byte, 3));
        path.push(byte);
        rest = after.get(skip..).unwrap_or_default();
    }
    OsString::from_vec(path)
}

fn temporary_name(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().as_bytes();
    let name = [b".", name, MARK.as_bytes()].concat();
    target.with_file_name(OsStr::from_bytes(&name))
}

/// A file that has no name that counts yet. Removed when it is dropped.
struct Temporary {
    file: File,
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    fn create(target: &Path) -> Result<Self, StoreError> {
        let path = temporary_name(target);
        // What a process that was killed has left.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(cannot("remove an old temporary file")(error));
            }
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(PRIVATE).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path).map_err(cannot("create a file in the directory"))?;
        Ok(Temporary { file, path, renamed: false })
    }

    /// Takes over owner, group and permissions of a file. Without the right to do so it stays this user's, and no one
    /// else's.
    fn take_after(&self, old: &Metadata) -> Result<(), StoreError> {
        let mine = self.file.metadata().map_err(cannot("look at the new file"))?;
        let mut mode = old.mode() & PERMISSIONS;
        if (mine.uid(), mine.gid()) != (old.uid(), old.gid())
            && let Err(error) = fchown(&self.file, Some(old.uid()), Some(old.gid()))
        {
            if error.kind() != io::ErrorKind::PermissionDenied {
                return Err(cannot("give the new file its owner")(error));
            }
            mode &= PRIVATE;
        }
        let mode = Permissions::from_mode(mode);
        self.file.set_permissions(mode).map_err(cannot("give the new file its permissions"))
    }

    fn rename(mut self, target: &Path) -> Result<(), StoreError> {
        fs::rename(&self.path, target).map_err(cannot("rename the new file"))?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // If that fails, the next one removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests;
