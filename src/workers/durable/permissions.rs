//! A new file gets owner, group and permissions of the one whose place it takes, and never wider ones.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use super::{PRIVATE, StoreError, calls, cannot};

/// The permissions that a file has besides its kind.
const PERMISSIONS: u32 = 0o777;
/// What others than the owner may do.
const OTHERS: u32 = 0o077;

/// What a new file has of the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Owner, group and permissions.
    Everything,
    /// Group and permissions; it belongs to this user.
    AllButOwner,
    /// Nothing that others than its owner could use.
    Private,
}

impl Kept {
    /// What is to be told at the start: what becomes of the file with its first change.
    pub fn warning(self) -> Option<&'static str> {
        match self {
            Kept::Everything => None,
            Kept::AllButOwner => {
                Some("its owner cannot be kept: with the first change it becomes this user's")
            }
            Kept::Private => Some(
                "its group or permissions cannot be kept: with the first change it becomes readable by its owner alone",
            ),
        }
    }
}

/// Whether chown(2) has failed since this user may not do so, or since the user or group has no number here.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput)
}

/// Gives a file this owner and group, or at least the group. Returns whether it has the owner, and whether the group.
fn change_owner(new: &File, mine: &Metadata, old: &Metadata) -> io::Result<(bool, bool)> {
    let (owner, group) = (mine.uid() == old.uid(), mine.gid() == old.gid());
    if owner && group {
        return Ok((true, true));
    }
    match fchown(new, Some(old.uid()), Some(old.gid())) {
        Ok(()) => return Ok((true, true)),
        Err(error) if !is_refused(&error) => return Err(error),
        Err(_) if owner || group => return Ok((owner, group)),
        Err(_) => {}
    }
    // A member of the group may do that.
    match fchown(new, None, Some(old.gid())) {
        Ok(()) => Ok((false, true)),
        Err(error) if is_refused(&error) => Ok((false, false)),
        Err(error) => Err(error),
    }
}

/// Takes over owner, group and permissions of the file at `path`, `old`. What cannot be taken over, others cannot do:
/// until the last step, and if the group or the access control list is another, the file is its owner's alone.
pub(super) fn take_after(new: &File, path: &Path, old: &Metadata) -> Result<Kept, StoreError> {
    let mine = new.metadata().map_err(cannot("look at the new file"))?;
    let owned = change_owner(new, &mine, old).map_err(cannot("give the new file its owner"))?;
    // With a list, the bits of the group are its mask: without it they would be the group's. A list that the new file has
    // of its directory goes, too.
    let list = calls::acl(path);
    let copied = match &list {
        Ok(list) if owned.1 => calls::set_acl(new, list.as_deref()).is_ok(),
        _ => false,
    };
    // The list has all of the mode in it.
    if !(copied && matches!(&list, Ok(Some(_)))) {
        let mode = if copied { PERMISSIONS } else { PRIVATE };
        let mode = Permissions::from_mode(old.mode() & mode);
        new.set_permissions(mode).map_err(cannot("give the new file its permissions"))?;
    }
    let was_private = old.mode() & OTHERS == 0 && matches!(list, Ok(None));
    Ok(match owned {
        (true, _) if copied || was_private => Kept::Everything,
        (false, true) if copied => Kept::AllButOwner,
        _ => Kept::Private,
    })
}
