//! The settings by name: what each is called, what it takes, when a change applies, and how it is read and
//! changed. Command line and METP (`CONFIG`) both go through this table, so they cannot disagree.

mod table;

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use log::LevelFilter;

use super::settings::Settings;
use metp_protocol::quantity;
use metp_protocol::text::Seconds;
pub use table::KNOBS;

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

/// Where the value of a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody has given one.
    Default,
    /// The configuration file.
    File,
    /// The command line.
    Option,
    /// METP, since the start.
    Runtime,
    /// METP, which has saved it.
    Saved,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Default => "default",
            Source::File => "file",
            Source::Option => "option",
            Source::Runtime => "runtime",
            Source::Saved => "saved",
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

fn level(word: &str) -> Option<LevelFilter> {
    LevelFilter::iter().find(|level| level.as_str().to_ascii_lowercase() == word)
}

#[cfg(test)]
mod tests;
