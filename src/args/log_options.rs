//! Where the logs go, and in which form.

use std::path::PathBuf;

use crate::state::access_log::AccessLogFormat;

/// The logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Where the access log goes.
    pub access_log: AccessLogTo,
    /// The form of its lines.
    pub access_log_format: AccessLogFormat,
    /// The form of the diagnostics.
    pub format: LogFormat,
}

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLogTo {
    /// To standard output.
    #[default]
    Stdout,
    /// To a file, which is opened again on SIGHUP and SIGUSR1.
    File(PathBuf),
    /// Nowhere.
    Off,
}

/// The form of the diagnostics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Time, level, text.
    #[default]
    Text,
    /// One JSON object in a line: `time`, `level`, `message`.
    Json,
    /// The priority of sd-daemon(3), `<4>`, and the text: the journal has the time.
    Journal,
}
