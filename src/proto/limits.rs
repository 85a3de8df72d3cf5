//! Limits of accounts, as the users file and METP write them: `conns=20 sources=2 rate=10Mbit quota=50GB/month
//! expires=2027-01-31 from=192.0.2.0/24`.
//!
//! The value `none` says that there is no limit, whatever the line of `*` says. Rates and quotas have powers of 1000, as
//! everywhere where traffic is sold, and always a unit: a bare number means bits to some and bytes to others.

use std::fmt;
use std::sync::Arc;

use metp_protocol::network::Network;
use metp_protocol::quantity::count;
use metp_protocol::timestamp::Timestamp;
use metp_protocol::{Quota, Rate};

/// Networks that an account can name, at most: a line of METP has room for them.
const MOST_NETWORKS: usize = 16;

/// What a line says of one limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Said<T> {
    /// Nothing: what the line of `*` says holds.
    #[default]
    Nothing,
    /// There is no limit.
    Unlimited,
    /// This limit.
    Limit(T),
}

/// The limits that a line gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests that are served at once.
    pub connections: Said<u32>,
    /// Addresses of clients (an IPv6 /64 is one) within a minute.
    pub sources: Said<u32>,
    /// In each direction.
    pub rate: Said<Rate>,
    /// Bytes of both directions in a period.
    pub quota: Said<Quota>,
    /// From when on nothing is served, in seconds of UNIX time.
    pub expires: Said<u64>,
    /// Networks from which clients can log in.
    pub from: Said<Arc<[Network]>>,
}

/// A limit, by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKey {
    /// `conns`
    Connections,
    /// `sources`
    Sources,
    /// `rate`
    Rate,
    /// `quota`
    Quota,
    /// `expires`
    Expires,
    /// `from`
    From,
}

/// The value of a limit cannot be used. Displays as what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLimit(pub LimitKey);

impl fmt::Display for BadLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BadLimit(key) = self;
        write!(f, "{} takes none or ", key.word())?;
        match key {
            LimitKey::Connections | LimitKey::Sources => write!(f, "0 to {}", u32::MAX),
            LimitKey::Rate => f.write_str(
                "1kbit to 1000Gbit with its unit: bit, kbit, Mbit, Gbit, kB/s, MB/s or GB/s",
            ),
            LimitKey::Quota => f.write_str(
                "a size with its unit (B, kB, MB, GB, TB) and a period: /day, /week, /month, /month@DAY or /total",
            ),
            LimitKey::Expires => f.write_str("a time in UTC: YYYY-MM-DD or YYYY-MM-DDTHH:MMZ"),
            LimitKey::From => {
                write!(
                f,
                "1 to {MOST_NETWORKS} networks with commas between them, such as 192.0.2.0/24,2001:db8::/32"
            )
            }
        }
    }
}

impl LimitKey {
    /// All, in the order in which they are written.
    pub const ALL: [LimitKey; 6] = [
        LimitKey::Connections,
        LimitKey::Sources,
        LimitKey::Rate,
        LimitKey::Quota,
        LimitKey::Expires,
        LimitKey::From,
    ];

    /// The key of this word.
    pub fn find(word: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.word().as_bytes() == word)
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            LimitKey::Connections => "conns",
            LimitKey::Sources => "sources",
            LimitKey::Rate => "rate",
            LimitKey::Quota => "quota",
            LimitKey::Expires => "expires",
            LimitKey::From => "from",
        }
    }
}

impl<T> Said<T> {
    /// The limit that holds: this one, or else that of `defaults`.
    fn or<'a>(&'a self, defaults: &'a Said<T>) -> Option<&'a T> {
        match (self, defaults) {
            (Said::Limit(limit), _) | (Said::Nothing, Said::Limit(limit)) => Some(limit),
            (Said::Unlimited, _) | (Said::Nothing, _) => None,
        }
    }

    fn is_said(&self) -> bool {
        !matches!(self, Said::Nothing)
    }

    /// As it is written. `None`: nothing is.
    fn written(&self, write: impl FnOnce(&T) -> String) -> Option<String> {
        match self {
            Said::Nothing => None,
            Said::Unlimited => Some("none".to_owned()),
            Said::Limit(limit) => Some(write(limit)),
        }
    }
}

/// The limits that hold for an account: its own, and where its line says nothing, those of the line of `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// As [`Limits::connections`].
    pub connections: Option<u32>,
    /// As [`Limits::sources`].
    pub sources: Option<u32>,
    /// As [`Limits::rate`].
    pub rate: Option<Rate>,
    /// As [`Limits::quota`].
    pub quota: Option<Quota>,
    /// As [`Limits::expires`].
    pub expires: Option<u64>,
    /// As [`Limits::from`].
    pub from: Option<Arc<[Network]>>,
}

impl InForce {
    /// The limit of this key, as it is written; `-` if there is none.
    pub fn written(&self, key: LimitKey) -> String {
        let text = match key {
            LimitKey::Connections => self.connections.map(|number| number.to_string()),
            LimitKey::Sources => self.sources.map(|number| number.to_string()),
            LimitKey::Rate => self.rate.map(|rate| rate.to_string()),
            LimitKey::Quota => self.quota.map(|quota| quota.to_string()),
            LimitKey::Expires => self.expires.map(time_text),
            LimitKey::From => self.from.as_deref().map(networks_text),
        };
        text.unwrap_or_else(|| "-".to_owned())
    }
}

impl Limits {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        !LimitKey::ALL.into_iter().any(|key| self.has(key))
    }

    /// Whether something is said of this limit.
    pub fn has(&self, key: LimitKey) -> bool {
        match key {
            LimitKey::Connections => self.connections.is_said(),
            LimitKey::Sources => self.sources.is_said(),
            LimitKey::Rate => self.rate.is_said(),
            LimitKey::Quota => self.quota.is_said(),
            LimitKey::Expires => self.expires.is_said(),
            LimitKey::From => self.from.is_said(),
        }
    }

    /// Says of a limit what is written, or nothing (an empty value).
    ///
    /// # Errors
    /// [`BadLimit`].
    ///
    /// ```
    /// use socks5d::proto::limits::{LimitKey, Limits};
    ///
    /// let mut limits = Limits::default();
    /// limits.set(LimitKey::Rate, b"10Mbit").expect("a rate");
    /// assert_eq!(limits.written(LimitKey::Rate).as_deref(), Some("10Mbit"));
    /// assert!(limits.set(LimitKey::Rate, b"10").is_err());
    /// ```
    pub fn set(&mut self, key: LimitKey, value: &[u8]) -> Result<(), BadLimit> {
        let text = std::str::from_utf8(value).map_err(|_| BadLimit(key))?;
        match key {
            LimitKey::Connections => self.connections = said(text, number),
            LimitKey::Sources => self.sources = said(text, number),
            LimitKey::Rate => self.rate = said(text, Rate::parse),
            LimitKey::Quota => self.quota = said(text, Quota::parse),
            LimitKey::Expires => self.expires = said(text, time),
            LimitKey::From => self.from = said(text, networks),
        }
        // What is not empty has to say something.
        if text.is_empty() || self.has(key) { Ok(()) } else { Err(BadLimit(key)) }
    }

    /// What is said of a limit, as it is written. `None`: nothing.
    pub fn written(&self, key: LimitKey) -> Option<String> {
        match key {
            LimitKey::Connections => self.connections.written(u32::to_string),
            LimitKey::Sources => self.sources.written(u32::to_string),
            LimitKey::Rate => self.rate.written(Rate::to_string),
            LimitKey::Quota => self.quota.written(Quota::to_string),
            LimitKey::Expires => self.expires.written(|time| time_text(*time)),
            LimitKey::From => self.from.written(|networks| networks_text(networks)),
        }
    }

    /// What holds where these are the limits of an account, and those of `*` are `defaults`.
    pub fn in_force(&self, defaults: &Limits) -> InForce {
        InForce {
            connections: self.connections.or(&defaults.connections).copied(),
            sources: self.sources.or(&defaults.sources).copied(),
            rate: self.rate.or(&defaults.rate).copied(),
            quota: self.quota.or(&defaults.quota).copied(),
            expires: self.expires.or(&defaults.expires).copied(),
            from: self.from.or(&defaults.from).cloned(),
        }
    }
}

fn said<T>(text: &str, parse: impl FnOnce(&str) -> Option<T>) -> Said<T> {
    match text {
        "none" => Said::Unlimited,
        text => parse(text).map_or(Said::Nothing, Said::Limit),
    }
}

fn number(text: &str) -> Option<u32> {
    count(text)?.try_into().ok()
}

/// A time in UTC, to the minute; a date alone is its first second.
fn time(text: &str) -> Option<u64> {
    let full = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        17 => format!("{}:00Z", text.strip_suffix('Z')?),
        _ => return None,
    };
    Some(Timestamp::parse(&full)?.seconds())
}

fn time_text(seconds: u64) -> String {
    let text = Timestamp::from_seconds(seconds).to_string();
    let text = text.strip_suffix(":00Z").unwrap_or(&text);
    match text.strip_suffix("T00:00") {
        Some(date) => date.to_owned(),
        None => format!("{text}Z"),
    }
}

fn networks(text: &str) -> Option<Arc<[Network]>> {
    let networks: Arc<[Network]> =
        text.split(',').map(|network| Network::parse(network).ok()).collect::<Option<_>>()?;
    (networks.len() <= MOST_NETWORKS).then_some(networks)
}

fn networks_text(networks: &[Network]) -> String {
    let texts: Vec<String> = networks.iter().map(Network::to_string).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests;
