//! The state directory: what a server writes for the next one.
//!
//! One server at a time has it, by a lock on the file `lock`. The figures are in `usage`, and those before them in
//! `usage.1`. A file that is damaged, or of another version, is not read and not thrown away: it keeps its name until
//! there is something better, and is `usage.bad` then. The good one before it stays. `settings` are what METP has saved.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::durable::{self, Expected, StoreError};
use crate::proto::usage_file::{Figures, MOST_BYTES};

/// For its owner alone.
const PRIVATE_DIRECTORY: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
/// The most bytes of saved settings.
const MOST_SETTINGS_BYTES: u64 = 64 * 1024;

/// A directory that this process has locked.
#[derive(Debug)]
pub struct StateDirectory {
    directory: PathBuf,
    /// Whether `usage` may take the place of `usage.1`.
    is_good: bool,
    /// Held as long as the process lives.
    _lock: File,
}

/// What is wrong with the path of a state directory, as far as that is seen without making it: a sentence.
pub fn fault_of_path(directory: &Path) -> Option<String> {
    let error = match fs::metadata(directory) {
        Ok(found) => return (!found.is_dir()).then(|| "it is no directory".to_owned()),
        Err(error) => error,
    };
    if error.kind() != io::ErrorKind::NotFound {
        return Some(error.to_string());
    }
    // Without slashes at its end, a path that leads nowhere is the link itself.
    let path: PathBuf = directory.components().collect();
    if fs::symlink_metadata(&path).is_ok() {
        return Some("it is a link that leads nowhere".to_owned());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty())?;
    fs::metadata(parent).err().map(|error| format!("cannot make it: {error}"))
}

impl StateDirectory {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Opens the directory, or makes it, and locks it.
    ///
    /// # Errors
    /// If it cannot be made, written or locked; [`io::ErrorKind::WouldBlock`] if another server has it.
    pub fn open(directory: &Path) -> io::Result<Self> {
        match fs::DirBuilder::new().mode(PRIVATE_DIRECTORY).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(PRIVATE_FILE);
        let lock = options
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(directory.join("lock"))?;
        common::process::lock(&lock)?;
        let state = StateDirectory { directory: directory.to_owned(), is_good: true, _lock: lock };
        durable::check_replaceable(&state.usage())
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(state)
    }

    /// Leaves the directory to another server. Returns its path.
    pub fn release(self) -> PathBuf {
        self.directory
    }

    fn usage(&self) -> PathBuf {
        self.directory.join("usage")
    }

    fn previous(&self) -> PathBuf {
        self.directory.join("usage.1")
    }

    fn bad(&self) -> PathBuf {
        self.directory.join("usage.bad")
    }

    /// Reads the figures: those of `usage`, or else of `usage.1`. Returns what is to be told of it, too.
    pub fn read(&mut self) -> (Option<Figures>, Vec<String>) {
        let mut faults = Vec::new();
        for path in [self.usage(), self.previous()] {
            let read = durable::read(&path, MOST_BYTES);
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match read.map(|(content, _)| Figures::parse(&content)) {
                Ok(Ok(figures)) => {
                    if !faults.is_empty() {
                        faults.push(format!("the figures are those of {name}"));
                    }
                    return (Some(figures), faults);
                }
                Ok(Err(fault)) => faults.push(format!("{name}: {fault}")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Both are missing at the first start.
                    if path == self.usage() && self.previous().exists() {
                        faults.push(format!("{name}: it is not there"));
                    }
                    continue;
                }
                Err(error) => faults.push(format!("{name}: cannot read it: {error}")),
            }
            self.is_good = false;
        }
        if !faults.is_empty() {
            faults.push("the figures begin at zero".to_owned());
        }
        (None, faults)
    }

    fn settings(&self) -> PathBuf {
        self.directory.join("settings")
    }

    fn bad_settings(&self) -> PathBuf {
        self.directory.join("settings.bad")
    }

    /// Reads the settings that METP has saved: keys and values. Returns what is to be told of it, too. Of a damaged file
    /// the lines that can be read are used.
    pub fn read_settings(&self) -> (Vec<(String, String)>, Vec<String>) {
        let content = match durable::read(&self.settings(), MOST_SETTINGS_BYTES) {
            Ok((content, _)) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Default::default(),
            Err(error) => {
                return (Vec::new(), vec![format!("settings: cannot read it: {error}")]);
            }
        };
        let text = String::from_utf8_lossy(&content);
        let pair = |line: &str| {
            let (key, value) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            (key.to_owned(), value.trim().to_owned())
        };
        let settings = text.lines().filter(|line| key_of(line).is_some()).map(pair).collect();
        let fault = (!is_text(&content)).then(|| "settings: it is damaged".to_owned());
        (settings, fault.into_iter().collect())
    }

    /// Saves settings: the text of the file. Lines of other settings stay, as a newer version may have saved them. A file
    /// that is damaged, or cannot be read, is kept as `settings.bad`.
    ///
    /// # Errors
    /// [`StoreError`]; the file is as it was.
    pub fn save(&mut self, text: &str) -> Result<(), StoreError> {
        let (before, is_bad) = match durable::read(&self.settings(), MOST_SETTINGS_BYTES) {
            Ok((content, _)) if is_text(&content) => {
                (String::from_utf8(content).unwrap_or_default(), false)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), false),
            Ok(_) | Err(_) => (String::new(), true),
        };
        let text = with_lines(text, &before);
        if text.len() as u64 > MOST_SETTINGS_BYTES {
            let cause = format!("it would have more than {MOST_SETTINGS_BYTES} bytes");
            let error = io::Error::new(io::ErrorKind::FileTooLarge, cause);
            return Err(StoreError::Failed { step: "save the settings", error });
        }
        let bad = is_bad.then(|| self.bad_settings());
        let (settings, expected) = (self.settings(), Expected::Anything);
        durable::replace(&settings, text.as_bytes(), &expected, bad.as_deref())?;
        if is_bad {
            log::warn!("settings: the file that could not be read is settings.bad now");
        }
        Ok(())
    }

    /// Writes the figures; those that are there now are kept as `usage.1` if they are good, else as `usage.bad`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn write(&mut self, figures: &Figures) -> Result<(), StoreError> {
        let previous = if self.is_good { self.previous() } else { self.bad() };
        let text = figures.text();
        if text.len() as u64 > MOST_BYTES {
            let cause = format!("they would have more than {MOST_BYTES} bytes");
            let error = io::Error::new(io::ErrorKind::FileTooLarge, cause);
            return Err(StoreError::Failed { step: "write the figures", error });
        }
        durable::replace(&self.usage(), &text, &Expected::Anything, Some(&previous))?;
        self.is_good = true;
        Ok(())
    }
}

/// The key of a line of settings; `None` if it is blank or a comment.
fn key_of(line: &str) -> Option<&str> {
    let line = line.trim();
    let key = line.split(' ').next().unwrap_or_default();
    (!key.is_empty() && !key.starts_with('#')).then_some(key)
}

/// Whether a file of settings is text, and not what a disk has made of it.
fn is_text(content: &[u8]) -> bool {
    let text = std::str::from_utf8(content);
    text.is_ok_and(|text| !text.contains(|c: char| c.is_control() && !"\r\n\t".contains(c)))
}

/// Settings as text, in which lines of the file before that are about other settings stand as they were.
fn with_lines(text: &str, before: &str) -> String {
    let keys: HashSet<&str> = text.lines().filter_map(key_of).collect();
    let mut all = text.to_owned();
    for line in before.lines() {
        if key_of(line).is_some_and(|key| !keys.contains(key)) {
            all.push_str(line);
            all.push('\n');
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(up: u64) -> Figures {
        Figures { up, ..Figures::default() }
    }

    #[test]
    fn figures_outlive_their_server() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("state");
        for up in 0..4 {
            let mut state = StateDirectory::open(&path).expect("ours");
            let (found, faults) = state.read();
            assert_eq!((found.map(|found| found.up), faults.len()), ((up > 0).then_some(up), 0));
            state.write(&figures(up + 1)).expect("written");
        }
    }

    #[test]
    fn saved_settings_are_lines() {
        let place = tempfile::tempdir().expect("a directory");
        let mut state = StateDirectory::open(place.path()).expect("ours");
        assert_eq!(state.read_settings(), (Vec::new(), Vec::new()));
        state.save("# c\ngrace 5\n\n udp  off \nodd\n").expect("saved");
        let (settings, faults) = state.read_settings();
        let pairs = [("grace", "5"), ("udp", "off"), ("odd", "")];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!((settings, faults), (pairs.to_vec(), Vec::new()));
    }

    /// They may be those of a newer version, which is installed again.
    #[test]
    fn lines_that_say_nothing_here_stay() {
        let place = tempfile::tempdir().expect("a directory");
        let settings = place.path().join("settings");
        let mut state = StateDirectory::open(place.path()).expect("ours");
        let before = "# old\ngrace 5\nnewer  \u{e4} 7 \r\n\n odd\ngrace 6\nudp-log 3";
        fs::write(&settings, before).expect("written");
        for _ in 0..2 {
            state.save("# c\ngrace 7\nudp-log 4\n").expect("saved");
            let text = fs::read_to_string(&settings).expect("UTF-8");
            assert_eq!(text, "# c\ngrace 7\nudp-log 4\nnewer  \u{e4} 7 \n odd\n");
        }
        let (found, faults) = state.read_settings();
        assert_eq!(
            (found.len(), faults.len(), place.path().join("settings.bad").exists()),
            (4, 0, false)
        );
        // What could not be read again is not written.
        let odd = format!("odd {}\n", "x".repeat(65_500));
        fs::write(&settings, &odd).expect("written");
        let refused = state.save("grace 7\nudp-log 4\ngrace 8 and more\n").expect_err("too long");
        assert_eq!(
            refused.to_string(),
            "cannot save the settings: it would have more than 65536 bytes"
        );
        assert_eq!(fs::read_to_string(&settings).expect("UTF-8"), odd);
    }

    #[test]
    fn settings_that_cannot_be_read_are_kept() {
        let place = tempfile::tempdir().expect("a directory");
        let [settings, bad] = ["settings", "settings.bad"].map(|name| place.path().join(name));
        let mut state = StateDirectory::open(place.path()).expect("ours");
        for (damaged, known) in [
            (&b"grace 5\nudp\xff-log 3\n"[..], 2),
            (b"grace 5\n\0\0\0\0", 2),
            (&b"x".repeat(70_000), 0),
        ] {
            fs::write(&settings, damaged).expect("written");
            let (found, faults) = state.read_settings();
            assert_eq!((found.len(), faults.len()), (known, 1), "{faults:?}");
            for _ in 0..2 {
                state.save("grace 6\n").expect("saved");
                assert_eq!(fs::read(&settings).expect("read"), b"grace 6\n");
                assert!(fs::read(&bad).expect("kept") == damaged, "it is what could not be read");
            }
            assert_eq!(state.read_settings().1, [""; 0]);
        }
        // What can be neither read nor kept is not replaced.
        fs::remove_file(&settings).expect("removed");
        fs::create_dir(&settings).expect("made");
        assert!(state.save("grace 6\n").is_err() && settings.is_dir());
    }

    #[test]
    fn a_path_that_leads_to_no_directory_is_found_out() {
        let place = tempfile::tempdir().expect("a directory");
        let path = |name: &str| place.path().join(name);
        fs::write(path("file"), "").expect("written");
        for (to, link) in [("nothing", "dangling"), ("loop", "loop"), (".", "good")] {
            std::os::unix::fs::symlink(to, path(link)).expect("linked");
        }
        for (name, fault) in [
            ("file", "it is no directory"),
            ("file/", "Not a directory"),
            ("file/x", "Not a directory"),
            ("dangling", "it is a link that leads nowhere"),
            ("dangling/", "it is a link that leads nowhere"),
            ("loop", "Too many levels"),
            ("no/such", "cannot make it: No such file"),
        ] {
            let told = fault_of_path(&path(name)).expect(name);
            assert!(told.starts_with(fault), "{name}: {told}");
            assert!(StateDirectory::open(&path(name)).is_err(), "{name}");
        }
        for name in ["good", "good/", "new", "new/", "."] {
            assert_eq!(fault_of_path(&path(name)), None, "{name}");
        }
        assert_eq!(fault_of_path(Path::new("new")), None);
    }

    #[test]
    fn one_server_has_it() {
        let place = tempfile::tempdir().expect("a directory");
        let first = StateDirectory::open(place.path()).expect("ours");
        let second = StateDirectory::open(place.path()).expect_err("taken");
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        drop(first);
        assert!(StateDirectory::open(place.path()).is_ok());
        fs::remove_file(place.path().join("lock")).expect("removed");
        let fifo = std::process::Command::new("mkfifo").arg(place.path().join("lock")).status();
        assert!(fifo.expect("mkfifo").success() && StateDirectory::open(place.path()).is_err());
        for path in ["/proc/self/nothing", "/dev/null"] {
            assert!(StateDirectory::open(Path::new(path)).is_err());
        }
    }

    /// Whatever a file is, the start succeeds, the last good figures are used, and they stay until there are newer ones.
    #[test]
    fn a_damaged_file_is_no_end_and_no_silent_zero() {
        let whole = figures(2).text();
        let newer = String::from_utf8(whole.clone()).expect("ASCII").replace("usage 1", "usage 2");
        for bad in [&whole[..whole.len() / 2], b"", newer.as_bytes()] {
            let place = tempfile::tempdir().expect("a directory");
            let [usage, previous] = ["usage", "usage.1"].map(|name| place.path().join(name));
            let mut state = StateDirectory::open(place.path()).expect("ours");
            for up in [1, 2] {
                state.write(&figures(up)).expect("written");
            }
            fs::write(&usage, bad).expect("written");
            let (found, faults) = state.read();
            assert_eq!(found, Some(figures(1)));
            assert!(faults.len() == 2 && faults[0].starts_with("usage: it is "), "{faults:?}");
            // The good one before it is not lost to the damaged one.
            state.write(&figures(3)).expect("written");
            let read = |path| Figures::parse(&fs::read(path).expect("read")).expect("good").up;
            assert_eq!((read(&usage), read(&previous)), (3, 1));
            // Nor is the damaged one: its version may be one that is installed again.
            let kept = fs::read(place.path().join("usage.bad")).expect("read");
            assert_eq!(kept, bad);
            state.write(&figures(4)).expect("written");
            assert_eq!((read(&usage), read(&previous)), (4, 3));
            for path in [&usage, &previous] {
                fs::write(path, bad).expect("written");
            }
            let (found, faults) = state.read();
            assert_eq!((found, faults.len()), (None, 3));
            assert_eq!(faults[2], "the figures begin at zero");
        }
    }
}
