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
use std::time::{Duration, Instant};

/// Read and write for the owner, nothing for others.
const PRIVATE: u32 = 0o600;
/// The permissions that a file has besides its kind.
const PERMISSIONS: u32 = 0o777;
/// In a directory with this bit, files are their owners' to rename.
const STICKY: u32 = 0o1000;
/// The mark of temporary files: `.NAME.socks5d-new`. There is one for each file. It is locked by the process that writes
/// it, until it has got its name: without that, a second server that starts with the same file could remove it and make
/// an empty one in its place, just before it is renamed. One that was left by a process that has been killed is not
/// locked, and is removed by the next.
const MARK: &str = ".socks5d-new";
/// How long another process may take to write it.
const MOST_WAIT: Duration = Duration::from_secs(5);
/// The time between two looks whether it has.
const PAUSE: Duration = Duration::from_millis(5);

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
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
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
        keep(&target, previous)?;
    }
    let directory = parent(&target);
    let renamed = temporary.rename(&target)?;
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
        let mine = temporary.file.metadata().map_err(cannot("look at the new file"))?;
        if sticks(&directory, &file, mine.uid()) {
            let text = "it is another user's, in a directory with the sticky bit";
            let error = io::Error::new(io::ErrorKind::PermissionDenied, text);
            return Err(cannot("replace it")(error));
        }
        temporary.take_after(&file)?;
    }
    Ok(())
}

/// Whether this user may make files in the directory, but not rename one over the file (inode(7), sticky bit).
fn sticks(directory: &Metadata, file: &Metadata, user: u32) -> bool {
    directory.mode() & STICKY != 0 && ![0, file.uid(), directory.uid()].contains(&user)
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
    temporary.take_after(&old.metadata().map_err(cannot("look at the file"))?)?;
    io::copy(&mut &old, &mut &temporary.file).map_err(cannot("copy the old file"))?;
    temporary.file.sync_all().map_err(cannot("sync the copy of the old file"))?;
    temporary.rename(previous).map(drop)
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

/// Locks a file until it is closed; false if another process, or another thread, has it. Where files cannot be locked,
/// nobody has.
fn lock(file: &File) -> bool {
    common::process::lock(file).map_err(|error| error.kind()) != Err(io::ErrorKind::WouldBlock)
}

/// Whether the path leads to the open file.
fn is_same(file: &File, path: &Path) -> bool {
    let identity = |found: Metadata| (found.dev(), found.ino());
    let found = file.metadata().and_then(|file| Ok((file, fs::symlink_metadata(path)?)));
    found.is_ok_and(|(file, there)| identity(file) == identity(there))
}

/// Removes what a process that was killed has left. False if a process that lives is writing it.
fn remove_left(path: &Path) -> io::Result<bool> {
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
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let left = match options.open(path) {
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
struct Temporary {
    file: File,
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    /// Makes the file and locks it, so that no other process takes it for one that was left.
    fn create(target: &Path) -> Result<Self, StoreError> {
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

    /// Gives it the name. Returns what it is then: what has the name a moment later may be another's.
    fn rename(mut self, target: &Path) -> Result<Metadata, StoreError> {
        if !self.is_there() {
            // Where files cannot be locked, another process may have removed it and made its own.
            let error = io::Error::new(io::ErrorKind::NotFound, "another process has removed it");
            return Err(cannot("rename the new file")(error));
        }
        fs::rename(&self.path, target).map_err(cannot("rename the new file"))?;
        self.renamed = true;
        self.file.metadata().map_err(cannot("look at the new file"))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed && self.is_there() {
            // If that fails, the next one removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests;
