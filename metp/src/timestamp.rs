//! Points in time as RFC 3339 text in UTC, to the second: `2025-06-28T14:32:10Z`.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::quantity::is_digits;

/// Seconds since 1970-01-01T00:00:00Z, leap seconds not counted. Displays as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp(u64);

/// A time before 1970 counts as 1970.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Timestamp(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }
}

impl Timestamp {
    /// Reads what [`Timestamp`] displays: RFC 3339 in UTC, to the second, from 1970 to 9999. `None` if it is
    /// anything else, or a day that no calendar has.
    ///
    /// ```
    /// use metp_protocol::timestamp::Timestamp;
    ///
    /// let time = Timestamp::parse("1970-01-02T00:00:00Z");
    /// assert_eq!(time.map(Timestamp::seconds), Some(86_400));
    /// assert_eq!(Timestamp::parse("1970-02-30T00:00:00Z"), None);
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        let number = |from: usize, to: usize| {
            let digits = text.get(from..to)?;
            digits.parse::<u64>().ok().filter(|_| is_digits(digits.as_bytes()))
        };
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if year < 1970 || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        // Years begin in March, as below.
        let (march, shift) = if month < 3 { (month + 9, 1) } else { (month - 3, 0) };
        let years = year - shift;
        let leap_days = years / 4 + years / 400 - years / 100;
        let days = 365 * years + leap_days + (153 * march + 2) / 5 + day.checked_sub(1)?;
        let days = days.checked_sub(DAYS_BEFORE_1970)?;
        let time = Timestamp(days * DAY + hour * 3600 + minute * 60 + second);
        // Points, letters and the length of the month are right if it comes out as it went in.
        (time.to_string() == text).then_some(time)
    }

    /// So many seconds after 1970-01-01T00:00:00Z.
    pub fn from_seconds(seconds: u64) -> Self {
        Timestamp(seconds)
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub fn seconds(self) -> u64 {
        self.0
    }
}

const DAY: u64 = 86_400;
const DAYS_IN_400_YEARS: u64 = 146_097;
const DAYS_IN_100_YEARS: u64 = 36_524;
const DAYS_IN_4_YEARS: u64 = 1_461;
/// From 0000-03-01 to 1970-01-01: years here begin in March, so that the leap day is the last of its year.
const DAYS_BEFORE_1970: u64 = 719_468;

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0 / DAY + DAYS_BEFORE_1970, self.0 % DAY);
        let (era, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
        let leap_days = day / (DAYS_IN_4_YEARS - 1) + day / (DAYS_IN_400_YEARS - 1);
        let year = (day + day / DAYS_IN_100_YEARS - leap_days) / 365;
        let day = day + year / 100 - (365 * year + year / 4);
        // Months from March on repeat the lengths 31 30 31 30 31 each 153 days.
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = era * 400 + year + next;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shown(seconds: u64) -> String {
        Timestamp::from(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
    }

    #[test]
    fn known_moments() {
        // `date -u -d @N +%FT%TZ` of GNU coreutils says the same.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_751_121_130, "2025-06-28T14:32:10Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(shown(seconds), text);
            assert_eq!(Timestamp::parse(text), Some(Timestamp(seconds)));
        }
    }

    #[test]
    fn days_follow_one_another() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..200 * 366 {
            let noon = shown(days * DAY + DAY / 2);
            assert_eq!(Timestamp::parse(&noon).map(Timestamp::seconds), Some(days * DAY + DAY / 2));
            assert_eq!(&noon[..10], format!("{year:04}-{month:02}-{day:02}"));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            (day, month) = if day == length { (1, month + 1) } else { (day + 1, month) };
            (month, year) = if month == 13 { (1, year + 1) } else { (month, year) };
        }
    }

    #[test]
    fn nothing_else_is_a_timestamp() {
        for text in [
            "",
            "-",
            "2025-06-28",
            "2025-06-28 14:32:10Z",
            "2025-06-28T14:32:10",
            "2025-06-28T14:32:10z",
            "2025-06-28T14:32:10+02:00",
            "2025-06-28T14:32:10.5Z",
            "2025-06-28T14:32:60Z",
            "2025-06-28T24:00:00Z",
            "2025-02-29T00:00:00Z",
            "2025-06-31T00:00:00Z",
            "2025-00-01T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-01-00T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "0000-00-00T00:00:00Z",
            "+025-06-28T14:32:10Z",
            "2025-06-28T14:32:1\u{e9}",
            "10000-01-01T00:00:00Z",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn before_the_epoch_is_the_epoch() {
        let before = UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(Timestamp::from(before).to_string(), "1970-01-01T00:00:00Z");
    }
}
