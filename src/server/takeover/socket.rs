//! The socket at which a server can be asked for its listeners, and its name in the file system.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::directory::guards_files_of;
use mio::net::UnixListener;
use socket2::{Domain, SockAddr, Socket, Type};

/// Only the user of the server may connect, and root.
const MODE: u32 = 0o600;
/// A name in the file system has 107 bytes at most (unix(7)); the one beside it has a number more.
const LONGEST_PATH: usize = 95;
/// New servers that wait.
pub(super) const BACKLOG: i32 = 8;

/// The socket at which new servers ask for the listeners of this one.
#[derive(Debug)]
pub struct TakeoverSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Its name until it gets that of the server before.
    beside: Option<PathBuf>,
    /// The file that it is: device and number.
    identity: (u64, u64),
    /// Whether the name is left to another server.
    is_left: bool,
}

impl TakeoverSocket {
    /// Listens under another name in the directory of `path`.
    ///
    /// # Errors
    /// If the socket cannot be made, or there is something else under that name.
    pub fn open(path: &Path) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "there is something else"));
        }
        let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(format!(".{}", std::process::id()));
        let beside = path.with_file_name(beside);
        guards_files_of(path)?;
        if path.as_os_str().len() > LONGEST_PATH {
            let text = format!("the path has more than {LONGEST_PATH} bytes");
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        // Left by a process of this number that has ended.
        let _ = fs::remove_file(&beside);
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        socket.bind(&SockAddr::unix(&beside)?)?;
        let ready = fs::set_permissions(&beside, fs::Permissions::from_mode(MODE))
            .and_then(|()| socket.listen(BACKLOG))
            .and_then(|()| fs::symlink_metadata(&beside));
        if ready.is_err() {
            let _ = fs::remove_file(&beside);
        }
        let found = ready?;
        Ok(TakeoverSocket {
            listener: UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into()),
            path: path.to_owned(),
            beside: Some(beside),
            identity: (found.dev(), found.ino()),
            is_left: false,
        })
    }

    /// The name is about to be a new server's: between a look and a removal it could become so.
    pub(super) fn leave_name(&mut self) {
        self.is_left = true;
    }

    /// Takes its name, in place of the socket of the server before.
    pub(super) fn publish(&mut self) -> io::Result<()> {
        if let Some(beside) = self.beside.take() {
            fs::rename(&beside, &self.path).inspect_err(|_| {
                let _ = fs::remove_file(&beside);
            })?;
        }
        Ok(())
    }
}

/// Removes the socket, unless another server has its name by now.
impl Drop for TakeoverSocket {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        let path = self.beside.as_ref().unwrap_or(&self.path);
        let found = fs::symlink_metadata(path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.identity) {
            let _ = fs::remove_file(path);
        }
    }
}
