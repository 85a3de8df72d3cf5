//! The settings by name: what each is called, what it takes, when a change applies, and how it is read and
//! changed. Command line and METP (`CONFIG`) both go through this table, so they cannot disagree.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use log::LevelFilter;

use super::settings::{LocalFor, Settings, UdpFilter};
use crate::workers::families::Prefer;
use metp_protocol::BUFFER_SIZES;
use metp_protocol::quantity;
use metp_protocol::text::Seconds;

/// The longest time a setting takes, in seconds: a year.
pub const LONGEST_SECONDS: u32 = 31_536_000;
const MAX_COUNT: usize = 1_000_000_000;

/// A setting that has a name.
pub struct Knob {
    /// Its name: that of the long option.
    pub key: &'static str,
    /// What its number counts.
    pub unit: &'static str,
    /// What it does, in words that stand alone and name the unit of its value.
    pub what: &'static str,
    /// When a change applies.
    pub applies: Applies,
    access: Access,
}

/// When a change applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// At once, on what is open too.
    Now,
    /// On connections that come from then on.
    New,
}

impl fmt::Display for Applies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Applies::Now => "now",
            Applies::New => "new",
        })
    }
}

/// A place in the settings, found in one to read it and in one to change it.
struct Place<T>(fn(&Settings) -> &T, fn(&mut Settings) -> &mut T);

/// One of a list of words: the list, how it is read, and how it is changed.
struct Words {
    list: fn() -> String,
    get: fn(&Settings) -> &'static str,
    set: fn(&mut Settings, &str) -> Option<()>,
}

/// What kind of value a setting has.
enum Access {
    Number(RangeInclusive<usize>, Place<usize>),
    /// Zero is no limit.
    Limit(RangeInclusive<usize>, Place<Option<usize>>),
    /// Zero is for ever, or never.
    Timeout(Place<Option<Duration>>),
    Time(Place<Duration>),
    /// How it is read, and how it is changed: one that is another name for the value of another setting has
    /// no place of its own.
    Switch(fn(&Settings) -> bool, fn(&mut Settings, bool)),
    Level(Place<LevelFilter>),
    Word(Words),
}

/// A value outside the range of its setting; displays as what is in range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfRange(String);

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! place {
    ($($path:ident).+) => {
        Place(|settings| &settings.$($path).+, |settings| &mut settings.$($path).+)
    };
}

/// A place whose type lists its values in `ALL` and has a `word` for each.
macro_rules! words {
    ($type:ident, $($path:ident).+) => {
        Words {
            list: || $type::ALL.map($type::word).join(", "),
            get: |settings| settings.$($path).+.word(),
            set: |settings, word| {
                let choice = $type::ALL.into_iter().find(|choice| choice.word() == word)?;
                settings.$($path).+ = choice;
                Some(())
            },
        }
    };
}

const fn knob(
    key: &'static str,
    access: Access,
    unit: &'static str,
    applies: Applies,
    what: &'static str,
) -> Knob {
    Knob { key, unit, what, applies, access }
}

const fn timeout(key: &'static str, place: Place<Option<Duration>>, what: &'static str) -> Knob {
    knob(key, Access::Timeout(place), "seconds", Applies::Now, what)
}

/// All settings, in the order in which they are listed.
pub const KNOBS: [Knob; 37] = {
    use Access::{Level, Limit, Number, Switch, Time, Timeout, Word};
    [
        knob(
            "buffer-size",
            Number(BUFFER_SIZES, place!(buffer_size)),
            "bytes",
            Applies::Now,
            "set the size of the buffer of each direction of a tunnel, in bytes",
        ),
        knob(
            "buffer-memory",
            Number(0..=1 << 40, place!(buffer_memory)),
            "bytes",
            Applies::Now,
            "read in pieces of 4 KiB while all buffers together exceed this many bytes",
        ),
        knob(
            "max-connections",
            Number(1..=MAX_COUNT, place!(max_connections)),
            "connections",
            Applies::New,
            "serve at most this many SOCKS connections at once",
        ),
        knob(
            "max-connections-per-ip",
            Limit(0..=MAX_COUNT, place!(max_connections_per_ip)),
            "connections",
            Applies::New,
            "serve at most this many SOCKS connections at once from one address",
        ),
        knob(
            "max-metp-sessions",
            Number(1..=MAX_COUNT, place!(max_metp_sessions)),
            "sessions",
            Applies::New,
            "serve at most this many METP sessions at once",
        ),
        knob(
            "dns-threads",
            Number(1..=1024, place!(dns_threads)),
            "threads",
            Applies::Now,
            "run at most this many look-ups at once, of which a name takes two",
        ),
        knob(
            "dns-queue",
            Number(1..=1_000_000, place!(dns_queue)),
            "names",
            Applies::Now,
            "queue at most this many names for look-up",
        ),
        knob(
            "allow-local",
            Switch(allows_local, allow_local),
            "switch",
            Applies::New,
            "let clients from any address connect to loopback and link-local addresses",
        ),
        knob(
            "local-for",
            Word(words!(LocalFor, local_for)),
            "clients",
            Applies::New,
            "let these clients connect to loopback and link-local addresses: loopback, nobody, all",
        ),
        knob(
            "log-entries",
            Number(0..=MAX_COUNT, place!(log_entries)),
            "records",
            Applies::Now,
            "keep this many records in the access log of METP",
        ),
        knob(
            "log-level",
            Level(place!(log_level)),
            "level",
            Applies::Now,
            "log to stderr at this level: off, error, warn, info, debug, trace",
        ),
        knob(
            "grace",
            Time(place!(grace)),
            "seconds",
            Applies::Now,
            "give open connections this many seconds to finish when the server shuts down",
        ),
        timeout(
            "handshake-timeout",
            place!(timeouts.handshake),
            "close a client whose request is not complete after this many seconds",
        ),
        timeout(
            "resolve-timeout",
            place!(timeouts.resolve),
            "give up looking up a name after this many seconds",
        ),
        timeout(
            "connect-timeout",
            place!(timeouts.connect),
            "give up connecting to one address after this many seconds",
        ),
        timeout(
            "connect-total-timeout",
            place!(timeouts.connect_total),
            "give up connecting to all addresses of a name after this many seconds",
        ),
        timeout(
            "idle-timeout",
            place!(timeouts.idle),
            "close a tunnel after this many seconds without a byte",
        ),
        timeout(
            "half-close-timeout",
            place!(timeouts.half_close),
            "close a tunnel of which one side has closed after this many seconds without a byte",
        ),
        // Open connections keep the value that was set on their sockets.
        knob(
            "keepalive",
            Timeout(place!(timeouts.keepalive)),
            "seconds",
            Applies::New,
            "probe a peer that has been silent for this many seconds",
        ),
        timeout(
            "ack-timeout",
            place!(timeouts.ack),
            "close a connection whose peer acknowledges nothing for this many seconds",
        ),
        timeout(
            "linger-timeout",
            place!(timeouts.linger),
            "wait at most this many seconds for a peer to receive what was sent last",
        ),
        timeout(
            "metp-login-timeout",
            place!(timeouts.metp_login),
            "close a METP session that has not logged in after this many seconds",
        ),
        timeout(
            "metp-idle-timeout",
            place!(timeouts.metp_idle),
            "close a METP session after this many seconds without a byte",
        ),
        timeout(
            "subscriber-timeout",
            place!(timeouts.subscriber),
            "close a METP subscriber that has not read its events for this many seconds",
        ),
        knob(
            "dns-cache",
            Timeout(place!(names.found)),
            "seconds",
            Applies::New,
            "cache the addresses of a name for this many seconds",
        ),
        knob(
            "dns-negative-cache",
            Timeout(place!(names.failed)),
            "seconds",
            Applies::New,
            "cache for this many seconds that a name has no address",
        ),
        knob(
            "prefer",
            Word(words!(Prefer, prefer)),
            "family",
            Applies::New,
            "try the addresses of this family first: ipv4, ipv6, system (as RFC 6724 orders them)",
        ),
        knob(
            "trust-any-login",
            Switch(
                |settings| settings.trust.any_login,
                |settings, on| settings.trust.any_login = on,
            ),
            "switch",
            Applies::New,
            "let clients of trusted networks in with a wrong login too, as the account -",
        ),
        knob(
            "http-connect",
            Switch(|settings| settings.http_connect, |settings, on| settings.http_connect = on),
            "switch",
            Applies::New,
            "serve HTTP CONNECT on the port of SOCKS",
        ),
        knob(
            "allow-resolve",
            Switch(|settings| settings.resolve, |settings, on| settings.resolve = on),
            "switch",
            Applies::New,
            "let clients look up names and addresses (RESOLVE): on, off",
        ),
        knob(
            "allow-bind",
            Switch(|settings| settings.bind.enabled, |settings, on| settings.bind.enabled = on),
            "switch",
            Applies::New,
            "let clients accept connections from their targets (BIND): on, off",
        ),
        timeout(
            "bind-timeout",
            place!(timeouts.bind),
            "give up waiting for the connection of a target (BIND) after this many seconds",
        ),
        knob(
            "udp",
            Switch(|settings| settings.udp.enabled, |settings, on| settings.udp.enabled = on),
            "switch",
            Applies::New,
            "relay datagrams for clients (UDP ASSOCIATE): on, off",
        ),
        knob(
            "udp-filter",
            Word(words!(UdpFilter, udp.filter)),
            "senders",
            Applies::Now,
            "pass datagrams on to a client from these senders: any, address, port",
        ),
        timeout(
            "udp-idle-timeout",
            place!(timeouts.udp_idle),
            "close an association after this many seconds without a datagram",
        ),
        knob(
            "udp-log",
            Number(0..=1000, place!(udp.log)),
            "targets",
            Applies::Now,
            "write a line of the access log for this many targets of an association",
        ),
        knob(
            "max-associations",
            Limit(0..=MAX_COUNT, place!(udp.max_associations)),
            "associations",
            Applies::New,
            "serve at most this many associations of one account at once",
        ),
    ]
};

impl Knob {
    /// The setting of this name.
    pub fn find(key: &[u8]) -> Option<&'static Knob> {
        const ALL: &[Knob] = &KNOBS;
        ALL.iter().find(|knob| knob.key.as_bytes() == key)
    }

    /// Whether it is off unless it is named: its option takes no value.
    pub fn is_flag(&self) -> bool {
        matches!(self.access, Access::Switch(get, _) if !get(&Settings::default()))
    }

    /// Whether zero turns it off.
    pub fn has_off(&self) -> bool {
        matches!(self.access, Access::Limit(..) | Access::Timeout(_))
    }

    /// The least and the greatest number it takes, if it is a number.
    pub fn range(&self) -> Option<(usize, usize)> {
        match &self.access {
            Access::Number(range, _) | Access::Limit(range, _) => {
                Some((*range.start(), *range.end()))
            }
            Access::Timeout(_) | Access::Time(_) => Some((0, LONGEST_SECONDS as usize)),
            Access::Switch(..) | Access::Level(_) | Access::Word(_) => None,
        }
    }

    /// Its value in these settings.
    pub fn get(&self, settings: &Settings) -> String {
        match &self.access {
            Access::Number(_, Place(get, _)) => get(settings).to_string(),
            Access::Limit(_, Place(get, _)) => get(settings).unwrap_or(0).to_string(),
            Access::Timeout(Place(get, _)) => {
                Seconds(get(settings).unwrap_or_default()).to_string()
            }
            Access::Time(Place(get, _)) => Seconds(*get(settings)).to_string(),
            Access::Switch(get, _) => if get(settings) { "on" } else { "off" }.to_owned(),
            Access::Level(Place(get, _)) => get(settings).as_str().to_ascii_lowercase(),
            Access::Word(words) => (words.get)(settings).to_owned(),
        }
    }

    /// Changes it in these settings.
    ///
    /// # Errors
    /// [`OutOfRange`], and the settings are as before.
    pub fn set(&self, settings: &mut Settings, value: &str) -> Result<(), OutOfRange> {
        self.try_set(settings, value).ok_or_else(|| OutOfRange(self.takes()))
    }

    fn try_set(&self, settings: &mut Settings, value: &str) -> Option<()> {
        match &self.access {
            Access::Number(range, Place(_, place)) => {
                *place(settings) = self.number(value, range)?
            }
            Access::Limit(range, Place(_, place)) => {
                *place(settings) = Some(self.number(value, range)?).filter(|limit| *limit > 0);
            }
            Access::Timeout(Place(_, place)) => {
                *place(settings) = Some(time(value)?).filter(|time| !time.is_zero());
            }
            Access::Time(Place(_, place)) => *place(settings) = time(value)?,
            Access::Switch(_, set) => match value {
                "on" => set(settings, true),
                "off" => set(settings, false),
                _ => return None,
            },
            Access::Level(Place(_, place)) => *place(settings) = level(value)?,
            Access::Word(words) => (words.set)(settings, value)?,
        }
        Some(())
    }

    /// A number in range: one of bytes may have a unit.
    fn number(&self, text: &str, range: &RangeInclusive<usize>) -> Option<usize> {
        let read = if self.unit == "bytes" { quantity::size } else { quantity::count };
        let number = usize::try_from(read(text)?).ok()?;
        range.contains(&number).then_some(number)
    }

    /// What is said of a value that it does not take.
    pub fn refusal(&self, range: &OutOfRange) -> String {
        let counted = matches!(self.access, Access::Number(..) | Access::Limit(..));
        let counted = counted && self.unit != "bytes";
        let unit = if counted { format!(" {}", self.unit) } else { String::new() };
        format!("{} takes {range}{unit}", self.key)
    }

    /// What it takes, with the unit where values may have one.
    fn takes(&self) -> String {
        match (&self.access, self.range()) {
            (Access::Timeout(_) | Access::Time(_), Some((least, most))) => {
                format!("{least} or 0.001 to {most} seconds ({})", quantity::TIME_UNITS)
            }
            (_, Some((least, most))) if self.unit == "bytes" => {
                format!("{least} to {most} bytes ({})", quantity::SIZE_UNITS)
            }
            (_, Some((least, most))) => format!("{least} to {most}"),
            (Access::Level(_), None) => "off, error, warn, info, debug, trace".to_owned(),
            (Access::Word(words), None) => (words.list)(),
            (_, None) => "on, off".to_owned(),
        }
    }
}

/// Zero, or a time that can be shown: one below a millisecond would be shown, and rounded, to what means off.
fn time(text: &str) -> Option<Duration> {
    const SHORTEST: Duration = Duration::from_millis(1);
    let longest = Duration::from_secs(LONGEST_SECONDS.into());
    let zero = !text.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
    quantity::time(text).filter(|time| zero || (SHORTEST..=longest).contains(time))
}

/// `allow-local` is the older name of `local-for all`, so the two never disagree. Switching it off leaves a
/// stricter choice as it is.
fn allow_local(settings: &mut Settings, on: bool) {
    match (on, settings.local_for) {
        (true, _) => settings.local_for = LocalFor::All,
        (false, LocalFor::All) => settings.local_for = LocalFor::Loopback,
        (false, LocalFor::Loopback | LocalFor::Nobody) => {}
    }
}

fn allows_local(settings: &Settings) -> bool {
    settings.local_for == LocalFor::All
}

fn level(word: &str) -> Option<LevelFilter> {
    LevelFilter::iter().find(|level| level.as_str().to_ascii_lowercase() == word)
}

#[cfg(test)]
mod tests;
