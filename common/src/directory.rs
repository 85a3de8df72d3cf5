//! Directories of files that others must not replace.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bits of a mode: others may write; each may remove its own files alone.
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Makes sure that not everybody can replace files in the directory of `path`.
///
/// # Errors
/// If everybody can, or the directory is not there.
pub fn guards_files_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    let mode = fs::metadata(directory.unwrap_or(Path::new(".")))?.mode();
    match mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        true => Err(io::Error::other("everybody can replace files in its directory")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_that_everybody_can_write_to_has_to_be_sticky() {
        let name = format!("guards-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).expect("new");
        let path = directory.join("file");
        for (mode, guards) in [(0o700, true), (0o755, true), (0o1777, true), (0o777, false)] {
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(&directory, permissions).expect("set");
            assert_eq!(guards_files_of(&path).is_ok(), guards, "{mode:o}");
        }
        fs::remove_dir(&directory).expect("empty");
        assert!(guards_files_of(Path::new("/nowhere/file")).is_err());
        assert!(guards_files_of(Path::new("file")).is_ok());
    }
}
