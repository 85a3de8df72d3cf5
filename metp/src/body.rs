//! Bodies and lines that are not made of pairs: `GET_METRICS`, `USERS` and `GET_LOGS` of METP/1.0.

use std::fmt;
use std::net::IpAddr;

use super::key::{MetpKey, figure};
use super::role::Role;
use crate::quantity::decimal;
use crate::text::Escaped;
use crate::timestamp::Timestamp;

/// The body of `GET_METRICS` (§5.2).
///
/// ```
/// use metp_protocol::MetricsBody;
///
/// let body = MetricsBody { historical: 42, current: 5, bytes: 1024 };
/// assert_eq!(body.lines()[1], "CURRENT_CONNECTIONS:    5");
/// assert_eq!(MetricsBody::parse(body.lines().iter().map(String::as_bytes)), Some(body));
/// ```
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
    /// The keys, in their order.
    pub const KEYS: [MetpKey; 3] =
        [figure::HISTORICAL_CONNECTIONS, figure::CURRENT_CONNECTIONS, figure::BYTES_TRANSFERRED];

    /// The three lines.
    pub fn lines(&self) -> [String; 3] {
        // METP/1.0 has its numbers below one another.
        let aligned = |key: MetpKey, value| format!("{:<23} {value}", format!("{key}:"));
        let [historical, current, bytes] = Self::KEYS;
        [
            aligned(historical, self.historical),
            aligned(current, self.current),
            aligned(bytes, self.bytes),
        ]
    }

    /// Reads a body. Unknown keys are skipped; `None` if one of the three is missing or no number.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut values = [None; Self::KEYS.len()];
        for line in lines {
            let pair = std::str::from_utf8(line).ok().and_then(|line| line.split_once(':'));
            let Some((name, value)) = pair else { continue };
            if let Some((_, place)) =
                Self::KEYS.iter().zip(&mut values).find(|(key, _)| key.name == name)
            {
                *place = decimal(value.trim().as_bytes());
            }
        }
        let [historical, current, bytes] = values;
        Some(MetricsBody { historical: historical?, current: current?, bytes: bytes? })
    }
}

/// A `KEY: number` line of `GET_METRICS ALL`, without its LF. [`MetricsBody::lines`] has the first three.
///
/// ```
/// use metp_protocol::{figure_line, key::figure};
///
/// assert_eq!(figure_line(figure::BYTES_UP, 512), "BYTES_UP: 512");
/// ```
pub fn figure_line(key: MetpKey, value: u64) -> String {
    format!("{key}: {value}")
}

/// One line of `USERS` (§5.4). A leading dot is escaped too, so that no body line can look like the end.
///
/// ```
/// use metp_protocol::{Role, user_line};
///
/// assert_eq!(user_line(b"alice", Role::Admin), "alice admin");
/// assert_eq!(user_line(b".bob", Role::User), "\\x2ebob user");
/// ```
pub fn user_line(name: &[u8], role: Role) -> String {
    let escaped = Escaped(name).to_string();
    let name = match escaped.strip_prefix('.') {
        Some(rest) => format!("\\x2e{rest}"),
        None => escaped,
    };
    format!("{name} {role}")
}

/// One line of `GET_LOGS` (§5.3): `[time] user source destination:port bytes`. [`LogWords`] reads it.
///
/// ```
/// use std::time::UNIX_EPOCH;
///
/// let source = [192, 0, 2, 1].into();
/// let line = metp_protocol::log_line(UNIX_EPOCH.into(), b"alice", source, "example.com:80", 1024);
/// assert_eq!(line, "[1970-01-01T00:00:00Z] alice 192.0.2.1 example.com:80 1024");
/// ```
pub fn log_line(
    time: Timestamp,
    user: &[u8],
    source: IpAddr,
    target: impl fmt::Display,
    bytes: u64,
) -> String {
    format!("[{time}] {} {source} {target} {bytes}", Escaped(user))
}

/// The words of a line of `GET_LOGS` (§5.3).
///
/// ```
/// use metp_protocol::LogWords;
///
/// let words = LogWords::parse("[2025-06-28T14:32:10Z] alice 192.0.2.1 example.com:80 1024");
/// assert_eq!((words.time, words.user), ("2025-06-28T14:32:10Z", "alice"));
/// assert_eq!((words.destination, words.bytes), ("example.com:80", "1024"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the protocol explains them")]
pub struct LogWords<'a> {
    /// The timestamp without its brackets.
    pub time: &'a str,
    pub user: &'a str,
    pub source: &'a str,
    pub destination: &'a str,
    /// A number that may be larger than any integer type.
    pub bytes: &'a str,
}

impl<'a> LogWords<'a> {
    /// Splits a line without its LF. A word that is missing is empty.
    pub fn parse(line: &'a str) -> Self {
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap_or_default();
        LogWords {
            time: next().trim_matches(['[', ']']),
            user: next(),
            source: next(),
            destination: next(),
            bytes: next(),
        }
    }
}
