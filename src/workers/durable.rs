//! Replacing a file so that a machine that is switched off has the old one or the new one, whole.
//!
//! The new content goes to a temporary file in the same directory, to the disk (fsync), and then takes the name
//! (rename); the directory goes to the disk last. Nothing is written into a file that has a name. Whether somebody else
//! has changed the file meanwhile is found by its [`Stamp`], of the file that has lost its name to the new one as well.
//!
//! All of this blocks: it is for threads, and for the start of the program.

mod calls;
mod permissions;
mod temporary;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use permissions::take_after;
use temporary::{Temporary, temporary_name};

pub use permissions::Kept;

/// Read and write for the owner, nothing for others.
const PRIVATE: u32 = 0o600;
/// In a directory with this bit, files are their owners' to rename.
const STICKY: u32 = 0o1000;

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
    check_is_of_file(path)?;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path).map_err(|error| match resolve(path) {
        // It is a link that leads to such a path.
        Err(found) if found.kind() == io::ErrorKind::InvalidInput => found,
        _ => error,
    })?;
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
        take_after(&temporary.file, &target, old)?;
    }
    (&temporary.file).write_all(content).map_err(cannot("write the new file"))?;
    temporary.file.sync_all().map_err(cannot("sync the new file"))?;
    if !is_expected(&target, expected) {
        return Err(StoreError::ChangedOnDisk);
    }
    if let (Some(_), Some(previous)) = (&old, previous) {
        keep(&target, previous)?;
    }
    let directory = parent(&target);
    let renamed = temporary.rename(&target, expected)?;
    sync(directory).map_err(cannot("sync the directory"))?;
    Ok(Stamp::from(&renamed))
}

/// Whether a file can be replaced, tried without changing it: a temporary file is made beside it and removed. Returns what
/// the new file would have of the old one.
///
/// # Errors
/// If the directory cannot be written, or the file is a mount point of its own, over which nothing can be renamed.
pub fn check_replaceable(path: &Path) -> Result<Kept, StoreError> {
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
        let mine = temporary.file.metadata().map_err(cannot("look at the new file"))?;
        if sticks(&directory, &file, mine.uid()) {
            let text = "it is another user's, in a directory with the sticky bit";
            let error = io::Error::new(io::ErrorKind::PermissionDenied, text);
            return Err(cannot("replace it")(error));
        }
        return take_after(&temporary.file, &target, &file);
    }
    Ok(Kept::Everything)
}

/// Whether this user may make files in the directory, but not rename one over the file (inode(7), sticky bit).
fn sticks(directory: &Metadata, file: &Metadata, user: u32) -> bool {
    directory.mode() & STICKY != 0 && ![0, file.uid(), directory.uid()].contains(&user)
}

/// Whether a path can be that of a file. One that ends in `/`, `.` or `..` cannot; but its last name, without that, is the
/// name of a file that could be made.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`].
fn check_is_of_file(path: &Path) -> io::Result<()> {
    let name = path.as_os_str().as_bytes().rsplit(|byte| *byte == b'/').next();
    if matches!(name.unwrap_or_default(), b"" | b"." | b"..") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is the path of a directory"));
    }
    Ok(())
}

/// Where a path leads in the end, also if there is no file yet.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    /// As many as Linux follows.
    const MOST_LINKS: usize = 40;
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        check_is_of_file(&target)?;
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

/// Gives a file a second name, in place of the file that has it now. Where a file has one name only, as on FAT and on
/// many network file systems, the second file is a copy.
fn keep(target: &Path, previous: &Path) -> Result<(), StoreError> {
    let temporary = temporary_name(previous);
    let unless_missing = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(cannot("keep the old file")(error)),
    };
    fs::remove_file(&temporary).or_else(unless_missing)?;
    if let Err(error) = fs::hard_link(target, &temporary) {
        return match has_no_links(&error) {
            true => copy(target, previous),
            false => Err(cannot("keep the old file")(error)),
        };
    }
    fs::rename(&temporary, previous).map_err(cannot("keep the old file"))?;
    // A rename of one link over another of the same file does nothing, and leaves both.
    fs::remove_file(&temporary).or_else(unless_missing)
}

/// Whether link(2) has failed since the file system has no links, or the file has as many as it can.
fn has_no_links(error: &io::Error) -> bool {
    use libc::{EMLINK, ENOSYS, ENOTSUP, EOPNOTSUPP, EPERM};
    let codes = [EPERM, EMLINK, ENOSYS, ENOTSUP, EOPNOTSUPP];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// Copies a file, with owner and permissions.
fn copy(target: &Path, previous: &Path) -> Result<(), StoreError> {
    let temporary = Temporary::create(previous)?;
    let old = File::open(target).map_err(cannot("read the old file"))?;
    let found = old.metadata().map_err(cannot("look at the file"))?;
    take_after(&temporary.file, target, &found)?;
    io::copy(&mut &old, &mut &temporary.file).map_err(cannot("copy the old file"))?;
    temporary.file.sync_all().map_err(cannot("sync the copy of the old file"))?;
    temporary.rename(previous, &Expected::Anything).map(drop)
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

#[cfg(test)]
mod tests;
