//! The environment variables that stand in for options.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use metp_protocol::text::without_line_end;

/// The variable that stands in for `-u`.
pub const LOGIN_VARIABLE: &str = "METP_AUTH";
/// The variable that names a file with the value of [`LOGIN_VARIABLE`], such as a secret of a container.
pub const LOGIN_FILE_VARIABLE: &str = "METP_AUTH_FILE";
/// The variable that stands in for `-H`.
pub const HOST_VARIABLE: &str = "METP_HOST";
/// The variable that stands in for `-p`.
pub const PORT_VARIABLE: &str = "METP_PORT";

/// The values of the variables; `None` if they are not set.
#[derive(Debug, Default)]
pub struct Environment {
    /// [`LOGIN_VARIABLE`].
    pub login: Option<OsString>,
    /// [`LOGIN_FILE_VARIABLE`].
    pub login_file: Option<OsString>,
    /// [`HOST_VARIABLE`].
    pub host: Option<OsString>,
    /// [`PORT_VARIABLE`].
    pub port: Option<OsString>,
}

/// The bytes of a variable without the line end that a file or `echo` has left. An empty variable counts as one
/// that is not set, as in most programs.
pub fn variable(value: &Option<OsString>) -> Option<&[u8]> {
    let text = value.as_ref().map(|value| without_line_end(value.as_encoded_bytes()));
    text.filter(|text| !text.is_empty())
}

/// The content of the file that [`LOGIN_FILE_VARIABLE`] names, without its line end.
///
/// # Errors
/// If it cannot be read, is empty, or is longer than a name and a password can be.
pub fn login_of_file(path: &Path) -> io::Result<Vec<u8>> {
    /// A name of 255 bytes in `\xHH`, a colon, and a password of 255 bytes with its line end are shorter.
    const MOST_BYTES: u64 = 4096;
    let mut content = Vec::new();
    File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut content)?;
    content.truncate(without_line_end(&content).len());
    match content.len() as u64 {
        0 => Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty")),
        1..=MOST_BYTES => Ok(content),
        _ => {
            let text = format!("it has more than {MOST_BYTES} bytes");
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
    }
}
