//! The user that the process becomes once its ports are bound (`--run-as`).

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::ffi::{CString, c_char};
use std::io;
use std::ptr;

use common::process::cannot;

/// The first size of the buffer for an entry, and the last, in bytes.
const BUFFER_BYTES: usize = 1 << 10;
const MOST_BUFFER_BYTES: usize = 1 << 20;

/// A user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    user: libc::uid_t,
    group: libc::gid_t,
}

/// Whether this process is root.
pub fn is_root() -> bool {
    // SAFETY: the call takes nothing, and always succeeds.
    unsafe { libc::geteuid() == 0 }
}

impl Identity {
    /// The number of the user.
    pub fn user(self) -> u32 {
        self.user
    }

    /// Looks up a user and a group, by their names or numbers. Without a group it is that of the user.
    ///
    /// # Errors
    /// What is wrong, as a sentence: there is no such user or group, or the user is root.
    pub fn find(user: &[u8], group: Option<&[u8]>) -> Result<Self, String> {
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u32>().ok();
        let entry = entry_of_user(user)?;
        let found = match (entry, number(user)) {
            (Some((user, group)), _) => Some((user, Some(group))),
            (None, Some(user)) => Some((user, None)),
            (None, None) => None,
        };
        let (user, own) = found.ok_or("there is no such user")?;
        let group = match group {
            None => own.ok_or("a number that is no user of this system needs a group")?,
            Some(name) => entry_of_group(name)?.or(number(name)).ok_or("there is no such group")?,
        };
        if user == 0 {
            return Err("this user is root".to_owned());
        }
        // -1 leaves a number as it is.
        if user == u32::MAX || group == u32::MAX {
            return Err("there is no such user".to_owned());
        }
        Ok(Identity { user, group })
    }

    /// Becomes this user in this group alone, for good, in all threads, and makes sure that there is no way back.
    ///
    /// # Errors
    /// If the system refuses, or does not keep its word.
    pub fn assume(self) -> io::Result<()> {
        let Identity { user, group } = self;
        let done = |result: libc::c_int, what: &str| match result {
            0 => Ok(()),
            _ => Err(cannot(what)(io::Error::last_os_error())),
        };
        // SAFETY: the list has one entry and lives during the call.
        done(unsafe { libc::setgroups(1, &raw const group) }, "give up the groups of root")?;
        // SAFETY: numbers in, a number out.
        done(unsafe { libc::setgid(group) }, "become the group of --run-as")?;
        // SAFETY: as above.
        done(unsafe { libc::setuid(user) }, "become the user of --run-as")?;
        if !self.is_assumed() {
            return Err(io::Error::other("cannot become the user of --run-as: root is left"));
        }
        Ok(())
    }

    /// Whether all numbers of this process are these, and those of root cannot be had back.
    fn is_assumed(self) -> bool {
        let Identity { user, group } = self;
        let (mut users, mut groups, mut others) = ([0; 3], [0; 3], [0; 2]);
        let [real, effective, saved] = &mut users;
        // SAFETY: three valid places are written, and not kept.
        let read = unsafe { libc::getresuid(real, effective, saved) } == 0;
        let [real, effective, saved] = &mut groups;
        // SAFETY: as above.
        let read = read && unsafe { libc::getresgid(real, effective, saved) } == 0;
        // SAFETY: there is room for as many as are announced; more are an error.
        let count = unsafe { libc::getgroups(2, others.as_mut_ptr()) };
        // SAFETY: numbers in, a number out. They are to fail.
        let returns = unsafe { libc::setuid(0) == 0 || group != 0 && libc::setgid(0) == 0 };
        let alone = count == 1 && others.first() == Some(&group);
        read && users == [user; 3] && (groups == [group; 3]) && alone && !returns
    }
}

/// The numbers of a user and of its group (getpwnam_r(3)); `None`: there is no such user.
fn entry_of_user(name: &[u8]) -> Result<Option<(libc::uid_t, libc::gid_t)>, String> {
    let name = CString::new(name).map_err(|_| "there is no such user")?;
    // SAFETY: passwd is plain data for which all zeros is a valid value.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let found = look_up(|buffer, bytes| {
        let mut result = ptr::null_mut();
        // SAFETY: the name ends in NUL; the entry, the buffer of that size and the result are valid places, which live
        // longer than what is read of them: numbers alone.
        let error = unsafe {
            libc::getpwnam_r(name.as_ptr(), &raw mut entry, buffer, bytes, &raw mut result)
        };
        (error, !result.is_null())
    })?;
    Ok(found.then_some((entry.pw_uid, entry.pw_gid)))
}

/// The number of a group (getgrnam_r(3)); `None`: there is no such group.
fn entry_of_group(name: &[u8]) -> Result<Option<libc::gid_t>, String> {
    let name = CString::new(name).map_err(|_| "there is no such group")?;
    // SAFETY: group is plain data for which all zeros is a valid value.
    let mut entry: libc::group = unsafe { std::mem::zeroed() };
    let found = look_up(|buffer, bytes| {
        let mut result = ptr::null_mut();
        // SAFETY: as of getpwnam_r above.
        let error = unsafe {
            libc::getgrnam_r(name.as_ptr(), &raw mut entry, buffer, bytes, &raw mut result)
        };
        (error, !result.is_null())
    })?;
    Ok(found.then_some(entry.gr_gid))
}

/// Calls a function of the C library with a buffer that is large enough. It gives an error number, and whether something
/// was found.
fn look_up(mut call: impl FnMut(*mut c_char, usize) -> (i32, bool)) -> Result<bool, String> {
    let mut bytes = BUFFER_BYTES;
    loop {
        let mut buffer = vec![0; bytes];
        match call(buffer.as_mut_ptr(), bytes) {
            (libc::EINTR, _) => {}
            (libc::ERANGE, _) if bytes < MOST_BUFFER_BYTES => bytes *= 2,
            // That is how some systems say that there is none.
            (0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM, found) => {
                return Ok(found);
            }
            (error, _) => {
                let error = io::Error::from_raw_os_error(error);
                return Err(format!("it cannot be looked up: {error}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let nobody = Identity::find(b"nobody", None).expect("every Linux has it");
        assert_eq!(Identity::find(nobody.user.to_string().as_bytes(), Some(b"0")), {
            Ok(Identity { user: nobody.user, group: 0 })
        });
        assert_eq!(Identity::find(b"54321", Some(b"54322")), {
            Ok(Identity { user: 54321, group: 54322 })
        });
        assert_eq!(Identity::find(b"nobody", Some(b"root")).map(|found| found.group), Ok(0));
    }

    #[test]
    fn what_is_no_user_is_refused() {
        for (user, group, what) in [
            (&b"no such user"[..], None, "there is no such user"),
            (b"", None, "there is no such user"),
            (b"a\0b", None, "there is no such user"),
            (b"-1", None, "there is no such user"),
            (b"nobody", Some(&b"no such group"[..]), "there is no such group"),
            (b"54321", None, "a number that is no user of this system needs a group"),
            (b"root", None, "this user is root"),
            (b"0", Some(b"nogroup"), "this user is root"),
            (b"4294967295", Some(b"1"), "there is no such user"),
        ] {
            assert_eq!(Identity::find(user, group), Err(what.to_owned()), "{user:?} {group:?}");
        }
    }
}
