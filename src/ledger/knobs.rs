//! The settings by name: what each is called, what it takes, when a change acts, and how it is read and
//! changed. Command line and METP (`CONFIG`) both go through this table, so they cannot disagree.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use log::LevelFilter;

use super::settings::{LocalFor, Settings};
use crate::proto::metp::BUFFER_SIZES;
use crate::proto::quantity;
use crate::proto::text::Seconds;

/// The longest time a setting takes, in seconds: a year.
pub const LONGEST_SECONDS: u32 = 31_536_000;
const MANY: usize = 1_000_000_000;

/// A setting that has a name.
pub struct Knob {
    /// Its name: that of the long option.
    pub key: &'static str,
    /// What its number counts.
    pub unit: &'static str,
    /// What it does, in words that stand alone and name the unit of its value.
    pub what: &'static str,
    /// When a change acts.
    pub acts: Acts,
    access: Access,
}

/// When a change acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acts {
    /// At once, on what is open too.
    Now,
    /// On connections that come from then on.
    New,
}

impl fmt::Display for Acts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Acts::Now => "now",
            Acts::New => "new",
        })
    }
}

/// A place in the settings, found in one to read it and in one to change it.
struct Place<T>(fn(&Settings) -> &T, fn(&mut Settings) -> &mut T);

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
    Local(Place<LocalFor>),
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

const fn knob(
    key: &'static str,
    access: Access,
    unit: &'static str,
    acts: Acts,
    what: &'static str,
) -> Knob {
    Knob { key, unit, what, acts, access }
}

const fn timeout(key: &'static str, place: Place<Option<Duration>>, what: &'static str) -> Knob {
    knob(key, Access::Timeout(place), "seconds", Acts::Now, what)
}

/// All settings, in the order in which they are listed.
pub const KNOBS: [Knob; 26] = {
    use Access::{Level, Limit, Local, Number, Switch, Time, Timeout};
    [
        knob(
            "buffer-size",
            Number(BUFFER_SIZES, place!(buffer_size)),
            "bytes",
            Acts::Now,
            "set the size of the buffer of each direction of a tunnel, in bytes",
        ),
        knob(
            "buffer-memory",
            Number(0..=1 << 40, place!(buffer_memory)),
            "bytes",
            Acts::Now,
            "let tunnels read in pieces of 4 KiB once all buffers together have this many bytes",
        ),
        knob(
            "max-connections",
            Number(1..=MANY, place!(max_connections)),
            "connections",
            Acts::New,
            "serve at most this many SOCKS connections at once",
        ),
        knob(
            "max-connections-per-ip",
            Limit(0..=MANY, place!(max_connections_per_ip)),
            "connections",
            Acts::New,
            "serve at most this many SOCKS connections at once from one address",
        ),
        knob(
            "max-metp-sessions",
            Number(1..=MANY, place!(max_metp_sessions)),
            "sessions",
            Acts::New,
            "serve at most this many METP sessions at once",
        ),
        knob(
            "dns-threads",
            Number(1..=1024, place!(dns_threads)),
            "threads",
            Acts::Now,
            "look up at most this many names at once",
        ),
        knob(
            "dns-queue",
            Number(1..=1_000_000, place!(dns_queue)),
            "names",
            Acts::Now,
            "let at most this many names wait to be looked up",
        ),
        knob(
            "allow-local",
            Switch(allows_local, allow_local),
            "switch",
            Acts::New,
            "let clients from elsewhere connect to loopback and link-local addresses",
        ),
        knob(
            "local-for",
            Local(place!(local_for)),
            "clients",
            Acts::New,
            "let these clients connect to loopback and link-local addresses: loopback, nobody, all",
        ),
        knob(
            "log-entries",
            Number(0..=MANY, place!(log_entries)),
            "records",
            Acts::Now,
            "keep this many records in the access log of METP",
        ),
        knob(
            "log-level",
            Level(place!(log_level)),
            "level",
            Acts::Now,
            "log to stderr at this level: off, error, warn, info, debug, trace",
        ),
        knob(
            "grace",
            Time(place!(grace)),
            "seconds",
            Acts::Now,
            "give open connections this many seconds to finish when the server closes down",
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
        // What is open keeps what its socket was told.
        knob(
            "keepalive",
            Timeout(place!(timeouts.keepalive)),
            "seconds",
            Acts::New,
            "probe a peer that has been silent for this many seconds",
        ),
        timeout(
            "ack-timeout",
            place!(timeouts.ack),
            "close a connection whose peer acknowledges nothing for this many seconds",
        ),
        timeout(
            "goodbye-timeout",
            place!(timeouts.goodbye),
            "wait at most this many seconds until a peer has what was sent to it last",
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
            Acts::New,
            "remember the addresses of a name for this many seconds",
        ),
        knob(
            "dns-negative-cache",
            Timeout(place!(names.failed)),
            "seconds",
            Acts::New,
            "remember for this many seconds that a name has no address",
        ),
    ]
};

impl Knob {
    /// The setting of this name.
    pub fn find(key: &[u8]) -> Option<&'static Knob> {
        const ALL: &[Knob] = &KNOBS;
        ALL.iter().find(|knob| knob.key.as_bytes() == key)
    }

    /// Whether it is on or off.
    pub fn is_switch(&self) -> bool {
        matches!(self.access, Access::Switch(..))
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
            Access::Switch(..) | Access::Level(_) | Access::Local(_) => None,
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
            Access::Local(Place(get, _)) => get(settings).word().to_owned(),
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
            Access::Local(Place(_, place)) => *place(settings) = local_for(value)?,
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
        let unit = if counted { format!(" {}", self.unit) } else { String::new() };
        format!("{} takes {range}{unit}", self.key)
    }

    /// What it takes.
    fn takes(&self) -> String {
        match (&self.access, self.range()) {
            (Access::Timeout(_) | Access::Time(_), Some((least, most))) => {
                format!("{least} or 0.001 to {most} seconds")
            }
            (_, Some((least, most))) => format!("{least} to {most}"),
            (Access::Level(_), None) => "off, error, warn, info, debug, trace".to_owned(),
            (Access::Local(_), None) => LocalFor::ALL.map(LocalFor::word).join(", "),
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

fn local_for(word: &str) -> Option<LocalFor> {
    LocalFor::ALL.into_iter().find(|choice| choice.word() == word)
}

fn level(word: &str) -> Option<LevelFilter> {
    LevelFilter::iter().find(|level| level.as_str().to_ascii_lowercase() == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_takes_what_it_shows_and_nothing_beyond_its_range() {
        for knob in &KNOBS {
            let mut settings = Settings::default();
            let shown = knob.get(&settings);
            assert_eq!(knob.set(&mut settings, &shown), Ok(()), "{}", knob.key);
            assert_eq!(settings, Settings::default(), "{}", knob.key);
            for bad in ["", "-1", "+1", "1e3", "x", " 1", "99999999999999999999999"] {
                assert!(knob.set(&mut settings, bad).is_err(), "{} {bad:?}", knob.key);
            }
            assert_eq!(settings, Settings::default(), "{}", knob.key);
            let Some((least, most)) = knob.range() else { continue };
            for end in [least, most] {
                knob.set(&mut settings, &end.to_string()).expect("the ends are in range");
                assert_eq!(knob.get(&settings), end.to_string());
            }
            assert!(knob.set(&mut settings, &(most + 1).to_string()).is_err(), "{}", knob.key);
        }
    }

    /// Shown to the millisecond, a shorter time would look as if it were off, and one of less than half a
    /// nanosecond would be.
    #[test]
    fn a_time_that_is_not_zero_has_a_millisecond_at_least() {
        for knob in KNOBS.iter().filter(|knob| knob.unit == "seconds") {
            let mut settings = Settings::default();
            let never = format!("0.{}1", "0".repeat(400));
            for short in ["0.0004", "0.000999999", "0.00000000000001", ".0001", &never] {
                assert!(knob.set(&mut settings, short).is_err(), "{} {short}", knob.key);
            }
            assert_eq!(settings, Settings::default(), "{}", knob.key);
            for (good, shown) in [("0.001", "0.001"), ("0.0015", "0.001"), ("0.000", "0")] {
                assert_eq!(knob.set(&mut settings, good), Ok(()), "{} {good}", knob.key);
                assert_eq!(knob.get(&settings), shown, "{}", knob.key);
            }
        }
    }

    /// METP §5.17: sizes and times take units, counts take none.
    #[test]
    fn units_are_taken_and_never_shown() {
        for (key, value, shown) in [
            ("buffer-size", "64k", Some("65536")),
            ("buffer-size", "1MiB", Some("1048576")),
            ("buffer-size", "1M", Some("1048576")),
            ("buffer-size", "1025k", None),
            ("buffer-size", "0k", None),
            ("buffer-size", "64s", None),
            ("buffer-size", "18446744073709551615k", None),
            ("buffer-memory", "1g", Some("1073741824")),
            ("buffer-memory", "1T", Some("1099511627776")),
            ("buffer-memory", "2T", None),
            ("idle-timeout", "5m", Some("300")),
            ("idle-timeout", "250ms", Some("0.25")),
            ("idle-timeout", "0ms", Some("0")),
            ("idle-timeout", "0.5ms", None),
            ("idle-timeout", "365d", Some("31536000")),
            ("idle-timeout", "366d", None),
            ("idle-timeout", "5k", None),
            ("grace", "1.5h", Some("5400")),
            ("max-connections", "1k", None),
            ("max-connections-per-ip", "1k", None),
            ("log-entries", "1k", None),
            ("dns-threads", "32s", None),
        ] {
            let mut settings = Settings::default();
            let knob = Knob::find(key.as_bytes()).expect("a setting");
            let set = knob.set(&mut settings, value).map(|()| knob.get(&settings));
            assert_eq!(set.ok().as_deref(), shown, "{key} {value}");
        }
    }

    #[test]
    fn what_is_in_range_is_told() {
        let says = |key: &str, value| {
            let knob = Knob::find(key.as_bytes()).expect("a setting");
            knob.set(&mut Settings::default(), value).expect_err("out of range").to_string()
        };
        assert_eq!(says("buffer-size", "0"), "1 to 1048576");
        assert_eq!(says("idle-timeout", "1e3"), "0 or 0.001 to 31536000 seconds");
        assert_eq!(says("allow-local", "yes"), "on, off");
        assert_eq!(says("local-for", "Nobody"), "loopback, nobody, all");
        assert_eq!(says("log-level", "loud"), "off, error, warn, info, debug, trace");
        assert!(Knob::find(b"no-such-setting").is_none());
    }

    /// METP §5.17.
    #[test]
    fn allow_local_is_another_name_of_local_for_all() {
        let [allow, choice] =
            [&b"allow-local"[..], b"local-for"].map(|key| Knob::find(key).expect("a setting"));
        let mut settings = Settings::default();
        let mut step = |knob: &Knob, value| {
            knob.set(&mut settings, value).expect("it takes that");
            (allow.get(&settings), choice.get(&settings))
        };
        let shown = |on: &str, word: &str| (on.to_owned(), word.to_owned());
        assert_eq!(step(allow, "off"), shown("off", "loopback"));
        assert_eq!(step(allow, "on"), shown("on", "all"));
        assert_eq!(step(allow, "off"), shown("off", "loopback"));
        assert_eq!(step(choice, "nobody"), shown("off", "nobody"));
        assert_eq!(step(allow, "off"), shown("off", "nobody"));
        assert_eq!(step(choice, "all"), shown("on", "all"));
        assert_eq!(step(choice, "loopback"), shown("off", "loopback"));
    }

    /// METP §5.17.
    #[test]
    fn zero_turns_off_what_the_protocol_says() {
        for knob in &KNOBS {
            let off = match knob.key {
                "max-connections-per-ip" => true,
                key => knob.unit == "seconds" && key != "grace",
            };
            assert_eq!(knob.has_off(), off, "{}", knob.key);
            let number = matches!(knob.key, "grace" | "buffer-memory" | "log-entries");
            let from_zero = knob.range().is_some_and(|(least, _)| least == 0);
            assert_eq!(off || number, from_zero, "{}", knob.key);
        }
    }

    /// Each text stands alone, in any order: it says what the setting does, and names the unit of its value.
    #[test]
    fn each_setting_says_by_itself_what_it_does() {
        let no_verbs =
            ["a", "an", "the", "for", "of", "until", "without", "with", "what", "how", "when"];
        for (index, knob) in KNOBS.iter().enumerate() {
            let (key, what) = (knob.key, knob.what);
            let first = what.split(' ').next().unwrap_or_default();
            let is_verb = first.bytes().all(|byte| byte.is_ascii_lowercase());
            assert!(is_verb && !no_verbs.contains(&first) && first != knob.unit, "{key}: {what}");
            assert!(what.len() > 20 && !what.contains("the same"), "{key}: {what}");
            let counts = ["bytes", "seconds"].contains(&knob.unit);
            assert!(!counts || what.contains(knob.unit), "{key}: {what}");
            assert!(KNOBS.iter().skip(index + 1).all(|other| other.what != what), "{key}");
        }
    }

    #[test]
    fn each_setting_has_a_name_of_its_own() {
        for (index, knob) in KNOBS.iter().enumerate() {
            assert_eq!(Knob::find(knob.key.as_bytes()).map(|found| found.key), Some(knob.key));
            assert!(KNOBS.iter().skip(index + 1).all(|other| other.key != knob.key));
        }
    }
}
