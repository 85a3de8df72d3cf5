//! The file with the number of the process (`--pid-file`).
//!
//! It is written beside its name and renamed: a reader sees a whole number, what was left by a server before is
//! replaced, and a symbolic link in its place is replaced and not followed.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use common::directory::guards_files_of;

/// Everybody may read it.
const MODE: u32 = 0o644;

/// The file of this process. It is removed when this is dropped, unless it is another server's by then.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    text: String,
}

impl PidFile {
    /// Writes the number of this process.
    ///
    /// # Errors
    /// If the file cannot be made, or everybody can replace files in its directory.
    pub fn write(path: &Path) -> io::Result<Self> {
        guards_files_of(path)?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let number = std::process::id();
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(format!(".{number}"));
        let beside = path.with_file_name(beside);
        let text = format!("{number}\n");
        let written = write_new(&beside, &text).and_then(|()| fs::rename(&beside, path));
        if written.is_err() {
            // It may not be there.
            let _ = fs::remove_file(&beside);
        }
        written.map(|()| PidFile { path: path.to_owned(), text })
    }

    fn is_ours(&self) -> bool {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&self.path);
        let mut found = String::new();
        let most = self.text.len() as u64 + 1;
        file.and_then(|file| file.take(most).read_to_string(&mut found)).is_ok()
            && found == self.text
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if self.is_ours()
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("--pid-file: cannot remove it: {error}");
        }
    }
}

/// Writes a file that is not there yet. One of this name was left by a process of this number that has ended.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(MODE).custom_flags(libc::O_NOFOLLOW);
    let mut file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)?
        }
        opened => opened?,
    };
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn number() -> String {
        format!("{}\n", std::process::id())
    }

    #[test]
    fn it_has_the_number_until_it_is_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socks5d.pid");
        // What a server before has left.
        fs::write(&path, "1\n").expect("written");
        let file = PidFile::write(&path).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), number());
        drop(file);
        assert_eq!(fs::read_dir(&folder).expect("there").count(), 0);
    }

    #[test]
    fn the_file_of_another_server_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socks5d.pid");
        let file = PidFile::write(&path).expect("written");
        fs::write(&path, format!("{}1\n", std::process::id())).expect("written");
        drop(file);
        assert!(path.exists());
    }

    #[test]
    fn links_are_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let [path, other] = ["socks5d.pid", "other"].map(|name| folder.path().join(name));
        fs::write(&other, number()).expect("written");
        symlink(&other, &path).expect("linked");
        let beside = folder.path().join(format!(".socks5d.pid.{}", std::process::id()));
        symlink(&other, &beside).expect("linked");
        let file = PidFile::write(&path).expect("written");
        assert!(path.symlink_metadata().expect("there").is_file());
        fs::remove_file(&path).expect("removed");
        symlink(&other, &path).expect("linked");
        drop(file);
        assert!(path.is_symlink() && other.exists());
    }

    #[test]
    fn where_everybody_can_replace_it_it_is_not_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socks5d.pid");
        let allow = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode));
        allow(0o777).expect("ours");
        let error = PidFile::write(&path).expect_err("not there").to_string();
        assert_eq!(error, "everybody can replace files in its directory");
        allow(0o1777).expect("ours");
        PidFile::write(&path).expect("each has its own");
        assert!(PidFile::write(folder.path()).is_err() && PidFile::write(Path::new("/")).is_err());
    }
}
