use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use support::system::{acl_for, set_attribute};
use tempfile::TempDir;

use super::temporary::{Temporary, remove_left};
use super::*;

/// A directory with the file `users`.
fn directory(content: &[u8]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("users");
    fs::write(&path, content).expect("written");
    (directory, path)
}

fn stamp(path: &Path) -> Expected {
    Expected::Stamp(Stamp::from(&fs::metadata(path).expect("there")))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").mode() & 0o7777
}

/// The names in the directory.
fn names(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).expect("read");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("read").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_and_keeps_its_permissions() {
    for permissions in [0o600, 0o640, 0o644, 0o400] {
        let (directory, path) = directory(b"old");
        fs::set_permissions(&path, Permissions::from_mode(permissions)).expect("set");
        let news = replace(&path, b"new", &stamp(&path), None).expect("replaced");
        assert_eq!(Expected::Stamp(news), stamp(&path));
        assert_eq!(fs::read(&path).expect("read"), b"new");
        assert_eq!(mode(&path), permissions);
        assert_eq!(names(&directory), ["users"]);
    }
}

/// The mask of the list is where the mode has the bits of the group, which may have none.
#[test]
fn an_access_control_list_stays() {
    let read = acl_for(1234);
    let (directory, path) = directory(b"old");
    if let Err(error) = set_attribute(&path, c"system.posix_acl_access", &read) {
        println!("no access control lists here: {error}");
        return assert_eq!(calls::acl(&path).expect("none"), None);
    }
    assert_eq!(mode(&path), 0o640);
    assert_eq!(check_replaceable(&path).expect("replaceable"), Kept::Everything);
    let previous = directory.path().join("users.1");
    for content in [b"1", b"2"] {
        replace(&path, content, &stamp(&path), None).expect("replaced");
        assert_eq!((mode(&path), calls::acl(&path).expect("read")), (0o640, Some(read.clone())));
    }
    copy(&path, &previous).expect("copied");
    assert_eq!(calls::acl(&previous).expect("read"), Some(read.clone()));
    // One that cannot be given to the new file: its bits are not those of the group then, nor those of the others.
    let unusable = File::open(&path).expect("there");
    let found = unusable.metadata().expect("there");
    let temporary = Temporary::create(&path).expect("made");
    let kept = permissions::take_after(&temporary.file, Path::new("/proc/self/nothing"), &found);
    assert_eq!(kept.expect("made private"), Kept::Private);
    assert_eq!(temporary.file.metadata().expect("there").mode() & 0o777, 0o600);
    drop(temporary);
    // One that new files have of their directory is none of theirs if the old one had none.
    let plain = directory.path().join("plain");
    fs::write(&plain, "old").expect("written");
    fs::set_permissions(&plain, Permissions::from_mode(0o640)).expect("set");
    set_attribute(directory.path(), c"system.posix_acl_default", &read).expect("set");
    let fresh = directory.path().join("fresh");
    fs::write(&fresh, "").expect("written");
    assert!(calls::acl(&fresh).expect("read").is_some(), "it is inherited");
    replace(&plain, b"new", &stamp(&plain), None).expect("replaced");
    assert_eq!((mode(&plain), calls::acl(&plain).expect("read")), (0o640, None));
    let made = directory.path().join("made");
    replace(&made, b"new", &Expected::Missing, None).expect("made");
    assert_eq!(mode(&made), 0o600);
}

/// Somebody puts another file there between the last look and the rename.
#[test]
fn what_has_changed_at_the_last_moment_is_put_back() {
    let (directory, path) = directory(b"old");
    let Expected::Stamp(expected) = stamp(&path) else { panic!("it is there") };
    let edited = directory.path().join("edited");
    let left = directory.path().join(".users.socks5d-new");
    let rename = |temporary: Temporary| temporary.rename(&path, &Expected::Stamp(expected));
    // Another file, the same one with more in it, none, and one that is a link.
    let by_rename = || {
        fs::write(&edited, b"by hand").expect("written");
        fs::rename(&edited, &path).expect("renamed");
    };
    let in_place = || fs::write(&path, b"in place").expect("written");
    for (edit, content) in [(&by_rename as &dyn Fn(), &b"by hand"[..]), (&in_place, b"in place")] {
        let temporary = Temporary::create(&path).expect("made");
        (&temporary.file).write_all(b"new").expect("written");
        edit();
        let refused = rename(temporary);
        assert!(matches!(refused, Err(StoreError::ChangedOnDisk)), "{refused:?}");
        assert_eq!(
            (fs::read(&path).expect("read"), names(&directory)),
            (content.to_vec(), vec!["users".to_owned()])
        );
    }
    let temporary = Temporary::create(&path).expect("made");
    fs::remove_file(&path).expect("removed");
    assert!(matches!(rename(temporary), Err(StoreError::ChangedOnDisk)));
    assert!(names(&directory).is_empty());
    let temporary = Temporary::create(&path).expect("made");
    symlink("elsewhere", &path).expect("linked");
    assert!(matches!(rename(temporary), Err(StoreError::ChangedOnDisk)));
    assert_eq!(fs::read_link(&path).expect("a link"), Path::new("elsewhere"));
    // There was none, and there is one now.
    let temporary = Temporary::create(&path).expect("made");
    let refused = temporary.rename(&path, &Expected::Missing);
    assert!(matches!(refused, Err(StoreError::ChangedOnDisk)), "{refused:?}");
    assert!(!left.exists());
    // A process that is killed before it has removed the old file leaves it under the name of temporary files.
    fs::write(&edited, b"old").expect("written");
    fs::rename(&edited, &left).expect("renamed");
    fs::remove_file(&path).expect("removed");
    fs::write(&path, b"new").expect("written");
    check_replaceable(&path).expect("replaceable");
    assert_eq!(
        (fs::read(&path).expect("read"), names(&directory)),
        (b"new".to_vec(), vec!["users".to_owned()])
    );
}

#[test]
fn a_new_file_is_its_owners_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("users");
    replace(&path, b"new", &Expected::Missing, None).expect("made");
    assert_eq!((fs::read(&path).expect("read"), mode(&path)), (b"new".to_vec(), 0o600));
}

#[test]
fn what_has_changed_meanwhile_is_not_overwritten() {
    let (directory, path) = directory(b"old");
    let expected = stamp(&path);
    fs::write(&path, b"by hand").expect("written");
    let other = directory.path().join("other");
    fs::write(&other, b"old").expect("written");
    for (path, expected) in [(&path, expected), (&path, Expected::Missing), (&other, expected)] {
        let before = fs::read(path).expect("read");
        let refused = replace(path, b"new", &expected, None);
        assert!(matches!(refused, Err(StoreError::ChangedOnDisk)), "{refused:?}");
        assert_eq!(fs::read(path).expect("read"), before);
    }
    fs::remove_file(&path).expect("removed");
    assert!(matches!(replace(&path, b"new", &expected, None), Err(StoreError::ChangedOnDisk)));
    assert_eq!(names(&directory), ["other"]);
    assert!(replace(&path, b"new", &Expected::Anything, None).is_ok());
}

/// As the volumes of Kubernetes are, and many files below /etc.
#[test]
fn a_link_stays_a_link() {
    let (directory, path) = directory(b"old");
    let elsewhere = tempfile::tempdir().expect("a directory");
    for (name, to) in
        [("link", path.clone()), ("second", "link".into()), ("dir", directory.path().into())]
    {
        symlink(to, elsewhere.path().join(name)).expect("linked");
    }
    for (number, link) in ["link", "second", "dir/users"].into_iter().enumerate() {
        let link = elsewhere.path().join(link);
        let content = number.to_string();
        replace(&link, content.as_bytes(), &stamp(&link), None).expect("replaced");
        assert_eq!(fs::read(&path).expect("read"), content.as_bytes());
        check_replaceable(&link).expect("replaceable");
    }
    assert!(fs::symlink_metadata(elsewhere.path().join("second")).expect("there").is_symlink());
    assert_eq!(names(&elsewhere), ["dir", "link", "second"]);
    // One that leads nowhere yet, and one that leads to itself.
    let dangling = elsewhere.path().join("dangling");
    symlink(directory.path().join("news"), &dangling).expect("linked");
    replace(&dangling, b"new", &Expected::Missing, None).expect("made");
    assert_eq!(names(&directory), ["news", "users"]);
    let round = elsewhere.path().join("round");
    symlink("round", &round).expect("linked");
    assert!(replace(&round, b"new", &Expected::Anything, None).is_err());
}

#[test]
fn the_file_before_is_kept_under_another_name() {
    let (directory, path) = directory(b"1");
    let previous = directory.path().join("users.1");
    for content in [b"2", b"3", b"4"] {
        let before = fs::read(&path).expect("read");
        replace(&path, content, &stamp(&path), Some(&previous)).expect("replaced");
        assert_eq!(fs::read(&path).expect("read"), content);
        assert_eq!(fs::read(&previous).expect("read"), before);
        assert_eq!(names(&directory), ["users", "users.1"]);
    }
    // A process was killed between the two renames: both are one file.
    fs::remove_file(&previous).expect("removed");
    fs::hard_link(&path, &previous).expect("linked");
    replace(&path, b"5", &Expected::Anything, Some(&previous)).expect("replaced");
    assert_eq!(
        (fs::read(&path).expect("read"), fs::read(&previous).expect("read")),
        (b"5".to_vec(), b"4".to_vec())
    );
    assert_eq!(names(&directory), ["users", "users.1"]);
}

#[test]
fn without_links_the_file_before_is_copied() {
    let (directory, path) = directory(b"old");
    fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("set");
    let previous = directory.path().join("users.1");
    for before in [None, Some("older")] {
        if let Some(content) = before {
            fs::remove_file(&previous).expect("removed");
            fs::write(&previous, content).expect("written");
        }
        copy(&path, &previous).expect("copied");
        assert_eq!((fs::read(&previous).expect("read"), mode(&previous)), (b"old".to_vec(), 0o640));
        let [file, kept] = [&path, &previous].map(|path| fs::metadata(path).expect("there").ino());
        assert_ne!(file, kept);
        assert_eq!(names(&directory), ["users", "users.1"]);
    }
    for (code, expected) in [
        (libc::EPERM, true),
        (libc::EMLINK, true),
        (libc::EOPNOTSUPP, true),
        (libc::ENOSPC, false),
        (libc::EROFS, false),
    ] {
        assert_eq!(has_no_links(&io::Error::from_raw_os_error(code)), expected, "{code}");
    }
}

#[test]
fn what_a_killed_process_has_left_is_no_hindrance() {
    let (directory, path) = directory(b"old");
    let left = directory.path().join(".users.socks5d-new");
    fs::write(&left, b"half a fi").expect("written");
    check_replaceable(&path).expect("replaceable");
    // A link that somebody has laid there is not followed.
    symlink("/dev/full", &left).expect("linked");
    replace(&path, b"new", &stamp(&path), None).expect("replaced");
    assert_eq!(names(&directory), ["users"]);
    assert_eq!(fs::read(&path).expect("read"), b"new");
}

/// As when a second server is started with a file that the first one is writing.
#[test]
fn a_file_that_is_being_written_is_not_taken_for_one_that_was_left() {
    let (directory, path) = directory(b"old");
    let temporary = Temporary::create(&path).expect("made");
    (&temporary.file).write_all(b"new").expect("written");
    let left = directory.path().join(".users.socks5d-new");
    assert!(!remove_left(&left).expect("looked at"));
    temporary.rename(&path, &Expected::Anything).expect("renamed");
    assert_eq!((fs::read(&path).expect("read"), names(&directory).len()), (b"new".to_vec(), 1));
    // Where files cannot be locked, at least nothing of another process gets the name.
    let temporary = Temporary::create(&path).expect("made");
    fs::remove_file(&left).expect("removed");
    fs::write(&left, b"half").expect("written");
    let error = temporary.rename(&path, &Expected::Anything).expect_err("another's");
    assert_eq!(error.to_string(), "cannot rename the new file: another process has removed it");
    assert_eq!(fs::read(&path).expect("read"), b"new");
    assert_eq!(fs::read(&left).expect("another's"), b"half");
}

#[test]
fn a_file_is_whole_however_many_replace_it() {
    const LENGTH: usize = 20_000;
    let (directory, path) = directory(&[b'0'; LENGTH]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let checks = scope.spawn(|| {
            let mut checks = 0;
            while !over.load(Ordering::Relaxed) {
                check_replaceable(&path).expect("replaceable");
                checks += 1;
            }
            checks
        });
        let writers = [b'a', b'b'].map(|content| {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..100 {
                    let content = [content; LENGTH];
                    replace(path, &content, &Expected::Anything, None).expect("replaced");
                    let found = fs::read(path).expect("read");
                    assert_eq!(found.len(), LENGTH);
                    assert!(found.iter().all(|byte| *byte == found[0]));
                }
            })
        });
        let ended = writers.map(std::thread::ScopedJoinHandle::join);
        over.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|ended| ended.expect("no panic"));
        assert!(checks.join().expect("no panic") > 0);
    });
    assert_eq!(names(&directory), ["users"]);
}

#[test]
fn a_file_of_another_user_sticks_in_a_shared_directory() {
    let (directory, path) = directory(b"old");
    let [shared, file] = [directory.path(), &path].map(|path| fs::metadata(path).expect("there"));
    let mine = file.uid();
    assert!(!sticks(&shared, &file, mine.wrapping_add(1)));
    fs::set_permissions(directory.path(), Permissions::from_mode(0o1777)).expect("set");
    let shared = fs::metadata(directory.path()).expect("there");
    assert!(sticks(&shared, &file, mine.wrapping_add(1)));
    assert!(!sticks(&shared, &file, mine) && !sticks(&shared, &file, 0));
    check_replaceable(&path).expect("mine");
}

#[test]
fn what_cannot_be_replaced_is_found_out_and_nothing_is_left() {
    let (directory, path) = directory(b"old");
    let nowhere = directory.path().join("no/users");
    for path in [directory.path(), &nowhere, &path.join("x")] {
        assert!(check_replaceable(path).is_err(), "{}", path.display());
        assert!(replace(path, b"new", &Expected::Anything, None).is_err(), "{}", path.display());
    }
    assert_eq!(
        (names(&directory), fs::read(&path).expect("read")),
        (vec!["users".to_owned()], b"old".to_vec())
    );
    let error = replace(&nowhere, b"new", &Expected::Anything, None).expect_err("no directory");
    assert!(error.to_string().starts_with("cannot follow the link: "), "{error}");
}

#[test]
fn only_regular_files_of_a_size_are_read() {
    let (directory, path) = directory(b"12345");
    let content = |most| read(&path, most).map(|(content, _)| content);
    assert_eq!(content(5).expect("read"), b"12345");
    assert_eq!(content(4).expect_err("too long").to_string(), "it has more than 4 bytes");
    let (_, found) = read(&path, 5).expect("read");
    assert_eq!(Expected::Stamp(Stamp::from(&found)), stamp(&path));
    let socket = directory.path().join("socket");
    let _listener = UnixListener::bind(&socket).expect("bound");
    let fifo = directory.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
    assert!(made.success());
    for path in [&fifo, &socket, directory.path(), Path::new("/dev/zero")] {
        assert!(read(path, 5).is_err(), "{}", path.display());
    }
}

#[test]
fn a_path_of_a_directory_is_none_of_a_file() {
    let (directory, path) = directory(b"old");
    let path_of = |name: &str| directory.path().join(name);
    symlink("new/", path_of("link")).expect("linked");
    symlink("link", path_of("second")).expect("linked");
    let paths = ["users/", "new/", "new/.", "new/..", "new//", "link", "second"].map(path_of);
    for path in paths.iter().map(PathBuf::as_path).chain([Path::new(""), Path::new("/")]) {
        let error = read(path, 5).expect_err("a directory");
        assert_eq!(error.to_string(), "it is the path of a directory", "{}", path.display());
        assert!(check_replaceable(path).is_err(), "{}", path.display());
        let refused = replace(path, b"new", &Expected::Anything, None);
        assert!(refused.is_err(), "{}", path.display());
    }
    assert_eq!(
        (names(&directory), fs::read(path).expect("read")),
        (["link", "second", "users"].map(str::to_owned).to_vec(), b"old".to_vec())
    );
}

#[test]
fn mount_points_are_read_as_proc_writes_them() {
    assert!(is_mount_point(Path::new("/proc")) && !is_mount_point(Path::new("/proc/self")));
    assert_eq!(unescaped(b"/a\\040b\\134\\011"), "/a b\\\t");
    assert_eq!(unescaped(b"/a\\04"), "/a\\04");
}
