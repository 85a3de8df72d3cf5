//! Lines of multi-line replies.

use std::fmt;
use std::net::IpAddr;

use super::command::Role;
use crate::quantity::decimal;
use crate::text::{Escaped, shortened};
use crate::timestamp::Timestamp;

/// The body of `GET_METRICS` (§5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsBody {
    /// SOCKS connections accepted since the start.
    pub historical: u64,
    /// SOCKS connections open now.
    pub current: u64,
    /// Payload bytes relayed, both directions.
    pub bytes: u64,
}

impl MetricsBody {
    /// The three lines.
    pub fn lines(&self) -> [String; 3] {
        [
            format!("HISTORICAL_CONNECTIONS: {}", self.historical),
            format!("CURRENT_CONNECTIONS:    {}", self.current),
            format!("BYTES_TRANSFERRED:      {}", self.bytes),
        ]
    }

    /// Reads a body. Unknown keys are skipped; `None` if one of the three is missing or no number.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let (mut historical, mut current, mut bytes) = (None, None, None);
        for line in lines {
            let Some((key, value)) = std::str::from_utf8(line).ok().and_then(|l| l.split_once(':'))
            else {
                continue;
            };
            let value = decimal(value.trim().as_bytes());
            match key {
                "HISTORICAL_CONNECTIONS" => historical = value,
                "CURRENT_CONNECTIONS" => current = value,
                "BYTES_TRANSFERRED" => bytes = value,
                _ => {}
            }
        }
        Some(MetricsBody { historical: historical?, current: current?, bytes: bytes? })
    }
}

/// One line of `USERS` (§5.4). A leading dot is escaped too, so that no body line can look like the end.
pub fn user_line(name: &[u8], role: Role) -> String {
    let escaped = Escaped(name).to_string();
    let name = match escaped.strip_prefix('.') {
        Some(rest) => format!("\\x2e{rest}"),
        None => escaped,
    };
    format!("{name} {role}")
}

/// One line of `GET_LOGS` (§5.3): `[time] user source destination:port bytes`.
pub fn log_line(
    time: Timestamp,
    user: &[u8],
    source: IpAddr,
    target: impl fmt::Display,
    bytes: u64,
) -> String {
    format!("[{time}] {} {source} {target} {bytes}", Escaped(user))
}

/// How much is shown of a value in a `key=value` field, in octets (§3.4): so a whole line fits.
const LONGEST_FIELD: usize = 256;

/// A value as it stands in a `key=value` field: cut if it is long, and `-` if it is empty, as a name may be that
/// somebody tries to log in with. What comes from outside has to be escaped already.
pub fn field(value: impl fmt::Display) -> String {
    let shown = value.to_string();
    if shown.is_empty() { "-".to_owned() } else { shortened(shown, LONGEST_FIELD) }
}
