//! System calls that the standard library does not have: access control lists, and renames with a condition.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where the access control list of a file is kept (acl(5)).
const ACL: &CStr = c"system.posix_acl_access";
/// The most bytes of an extended attribute (XATTR_SIZE_MAX).
const MOST_ACL_BYTES: usize = 64 * 1024;

/// What a rename does with the file that has the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// It gets the other name.
    Exchange,
    /// The rename fails.
    Keep,
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Whether a call has failed since there is no such attribute, or none in this file system.
fn has_none(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODATA | libc::ENOTSUP))
}

/// The access control list of a file; `None` if it has none. A symbolic link is not followed.
///
/// # Errors
/// Those of lgetxattr(2).
pub(super) fn acl(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let path = c_path(path)?;
    let mut list = vec![0; MOST_ACL_BYTES];
    // SAFETY: both names end in NUL, and the kernel writes no more than the length of `list` there.
    let length = unsafe {
        libc::lgetxattr(path.as_ptr(), ACL.as_ptr(), list.as_mut_ptr().cast(), list.len())
    };
    match usize::try_from(length) {
        Ok(length) => {
            list.truncate(length);
            Ok(Some(list))
        }
        Err(_) => {
            let error = io::Error::last_os_error();
            if has_none(&error) { Ok(None) } else { Err(error) }
        }
    }
}

/// Gives an open file this access control list, and with it permissions; or takes away the one that it has.
///
/// # Errors
/// Those of fsetxattr(2) and fremovexattr(2).
pub(super) fn set_acl(file: &File, list: Option<&[u8]>) -> io::Result<()> {
    let file = file.as_raw_fd();
    // SAFETY: the descriptor is open, the name ends in NUL, and the kernel reads the length of `list` there.
    let done = unsafe {
        match list {
            Some(list) => libc::fsetxattr(file, ACL.as_ptr(), list.as_ptr().cast(), list.len(), 0),
            None => libc::fremovexattr(file, ACL.as_ptr()),
        }
    };
    match (done, io::Error::last_os_error()) {
        (0, _) => Ok(()),
        (_, error) if list.is_none() && has_none(&error) => Ok(()),
        (_, error) => Err(error),
    }
}

/// renameat2(2).
///
/// # Errors
/// Those of the call: EINVAL where the file system does not have it.
pub(super) fn rename(from: &Path, to: &Path, existing: Existing) -> io::Result<()> {
    let (from, to) = (c_path(from)?, c_path(to)?);
    let flags = match existing {
        Existing::Exchange => libc::RENAME_EXCHANGE,
        Existing::Keep => libc::RENAME_NOREPLACE,
    };
    let here = libc::AT_FDCWD;
    // SAFETY: both paths end in NUL and are only read; the rest are numbers.
    let done = unsafe {
        libc::syscall(libc::SYS_renameat2, here, from.as_ptr(), here, to.as_ptr(), flags)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
