//! The environment variables that stand in for options.

use std::ffi::OsString;

use metp_protocol::text::without_line_end;

/// The variable that stands in for `-u`.
pub const LOGIN_VARIABLE: &str = "METP_AUTH";
/// The variable that stands in for `-H`.
pub const HOST_VARIABLE: &str = "METP_HOST";
/// The variable that stands in for `-p`.
pub const PORT_VARIABLE: &str = "METP_PORT";

/// The values of the variables; `None` if they are not set.
#[derive(Debug, Default)]
pub struct Environment {
    /// [`LOGIN_VARIABLE`].
    pub login: Option<OsString>,
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
