//! Quotas: so many bytes, both directions together, in a period that begins at midnight UTC.

use std::fmt;

use crate::quantity::count;
use crate::timestamp::Timestamp;

/// Bytes in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of both directions.
    pub bytes: u64,
    /// In which time.
    pub period: Period,
}

/// The time for which a quota is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// A day.
    Day,
    /// A week; it begins on Monday.
    Week,
    /// A month; it begins on this day, 1 to 31. A month that has no such day begins on its last.
    Month(u8),
    /// For ever.
    Total,
}

const DAY: u64 = 86_400;
const WEEK: u64 = 7 * DAY;
/// 1970-01-01 was a Thursday.
const SINCE_MONDAY: u64 = 3 * DAY;

/// The units, and how many bytes they are, those that are used for writing first, the largest at their front.
const UNITS: [(&str, u64); 10] = [
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
    ("KB", 1000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];
/// The units that a quota is written with.
const WRITTEN: usize = 5;
/// The most bytes: sums stay below 2^63.
const MOST: u64 = 1 << 60;

/// A number with or without a point, times `factor`. `None` if it is no number, not whole then, or too large.
pub(super) fn decimal(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if number.contains('.') && fraction.is_empty() {
        return None;
    }
    let mut total = u128::from(count(whole)?).checked_mul(factor.into())?;
    if !fraction.is_empty() {
        let digits = u32::try_from(fraction.len()).ok()?;
        let (parts, scale) = (count(fraction)?, 10_u128.checked_pow(digits)?);
        let part = u128::from(parts).checked_mul(factor.into())?;
        if !part.is_multiple_of(scale) {
            return None;
        }
        total = total.checked_add(part.checked_div(scale)?)?;
    }
    total.try_into().ok()
}

impl Quota {
    /// Reads a quota. Zero needs no unit.
    ///
    /// ```
    /// use metp_protocol::{Period, Quota};
    ///
    /// let quota = Quota::parse("1.5GB/month@15").expect("a quota");
    /// assert_eq!((quota.bytes, quota.period), (1_500_000_000, Period::Month(15)));
    /// assert_eq!(quota.to_string(), "1500MB/month@15");
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        let (size, period) = text.split_once('/')?;
        let period = Period::parse(period)?;
        let at = size.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(size.len());
        let (number, unit) = size.split_at(at);
        let bytes = match UNITS.iter().find(|(name, _)| *name == unit) {
            Some((_, factor)) => decimal(number, *factor)?,
            None if unit.is_empty() && count(number) == Some(0) => 0,
            None => return None,
        };
        (bytes <= MOST).then_some(Quota { bytes, period })
    }
}

/// With the largest unit of which it is a whole number.
impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut units = UNITS.iter().take(WRITTEN);
        let fits = |(_, factor): &&(&str, u64)| self.bytes.is_multiple_of(*factor);
        match units.find(fits) {
            Some((unit, factor)) if self.bytes > 0 => write!(f, "{}{unit}", self.bytes / factor)?,
            _ => f.write_str("0")?,
        }
        match self.period {
            Period::Day => f.write_str("/day"),
            Period::Week => f.write_str("/week"),
            Period::Month(1) => f.write_str("/month"),
            Period::Month(day) => write!(f, "/month@{day}"),
            Period::Total => f.write_str("/total"),
        }
    }
}

impl Period {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "day" => Some(Period::Day),
            "week" => Some(Period::Week),
            "month" => Some(Period::Month(1)),
            "total" => Some(Period::Total),
            _ => {
                let day = count(text.strip_prefix("month@")?)?;
                (1..=31).contains(&day).then_some(Period::Month(u8::try_from(day).ok()?))
            }
        }
    }

    /// When the period that this time belongs to began, in seconds of UNIX time; [`Period::Total`] in 1970.
    pub fn beginning(self, time: u64) -> u64 {
        let today = time - time % DAY;
        match self {
            Period::Total => 0,
            Period::Day => today,
            Period::Week => ((today + SINCE_MONDAY) / WEEK * WEEK).saturating_sub(SINCE_MONDAY),
            Period::Month(day) => {
                let this = month_day(today, day);
                if this <= today {
                    return this;
                }
                // The last day of the month before.
                let before = month_day(today, 1).saturating_sub(DAY);
                month_day(before, day)
            }
        }
    }
}

/// The day of this number in the month of `time`, or the last one of the month if it has no such day.
fn month_day(time: u64, day: u8) -> u64 {
    let text = Timestamp::from_seconds(time).to_string();
    let month = text.get(..8).unwrap_or_default();
    let of = |day: u8| Timestamp::parse(&format!("{month}{day:02}T00:00:00Z"));
    let last = (1..=day).rev().find_map(of);
    last.map_or(0, Timestamp::seconds)
}
