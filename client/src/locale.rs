//! What the C library says of the user's locale and time zone: whether the terminal shows UTF-8, and the local
//! time.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::env;
use std::ffi::{CStr, OsString};
use std::time::SystemTime;

use metp_protocol::timestamp::Timestamp;

unsafe extern "C" {
    /// POSIX: reads `TZ`, which localtime_r alone need not do. The crate libc does not have it.
    fn tzset();
}

/// The variables that name the locale for characters, in the order of their precedence (POSIX, Base Definitions
/// §8.2).
const VARIABLES: [&str; 3] = ["LC_ALL", "LC_CTYPE", "LANG"];

/// Whether the locale's codeset is UTF-8, so that characters beyond ASCII can be shown.
pub fn is_utf8() -> bool {
    explicit(|variable| env::var_os(variable)).unwrap_or_else(|| is_name_of_utf8(&codeset()))
}

/// Whether the locale's name says that its codeset is UTF-8, as in `de_DE.UTF-8@euro`; `None` if it names no
/// codeset. The name counts even if the locale is not installed here: the terminal may be on another machine.
fn explicit(variable: impl Fn(&str) -> Option<OsString>) -> Option<bool> {
    let chosen = VARIABLES.iter().filter_map(|name| variable(name)).find(|value| !value.is_empty());
    let chosen = chosen?.to_string_lossy().into_owned();
    let name = chosen.split('@').next().unwrap_or_default();
    name.split_once('.').map(|(_, codeset)| is_name_of_utf8(codeset))
}

/// Whether a codeset is called `UTF-8`, `utf8` or the like.
fn is_name_of_utf8(codeset: &str) -> bool {
    let letters = codeset.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|letter| letter.to_ascii_lowercase()).eq("utf8".chars())
}

/// The codeset of the locale that the environment chooses; empty, as that of C, if it is not installed.
fn codeset() -> String {
    // SAFETY: the empty name, which is a C string, chooses the locale of the environment; the third argument may
    // be null. What comes back is checked, used while it is valid, and freed once. The string that nl_langinfo_l
    // returns ends in NUL, and is copied before the locale goes.
    unsafe {
        let locale = libc::newlocale(libc::LC_CTYPE_MASK, c"".as_ptr(), std::ptr::null_mut());
        if locale.is_null() {
            return String::new();
        }
        let name = libc::nl_langinfo_l(libc::CODESET, locale);
        let codeset = if name.is_null() {
            String::new()
        } else {
            CStr::from_ptr(name).to_string_lossy().into_owned()
        };
        libc::freelocale(locale);
        codeset
    }
}

/// A point in time in the user's time zone: that of `TZ`, or the system's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    year: i64,
    month: i32,
    day: i32,
    hour: i32,
    minute: i32,
    second: i32,
}

impl LocalTime {
    /// The local time at `time`; `None` if localtime_r(3) cannot represent it.
    pub fn at(time: Timestamp) -> Option<Self> {
        let seconds = libc::time_t::try_from(time.seconds()).ok()?;
        // SAFETY: tm is plain data for which all zeros is a valid value (a null zone among them).
        let mut broken: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: tzset only reads the environment, which nobody changes any more once the program has begun;
        // localtime_r reads `seconds`, fills in `broken` and keeps neither.
        let done = unsafe {
            tzset();
            libc::localtime_r(&raw const seconds, &raw mut broken)
        };
        (!done.is_null()).then(|| LocalTime {
            year: i64::from(broken.tm_year).saturating_add(1900),
            month: broken.tm_mon.saturating_add(1),
            day: broken.tm_mday,
            hour: broken.tm_hour,
            minute: broken.tm_min,
            second: broken.tm_sec,
        })
    }

    /// `06-28 14:32:10`
    pub fn without_year(self) -> String {
        let LocalTime { month, day, hour, minute, second, .. } = self;
        format!("{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    }
}

/// The present local time: `2025-06-28 14:32:10`. Where that is not known, the time in UTC:
/// `2025-06-28T14:32:10Z`.
pub fn now() -> String {
    let now = Timestamp::from(SystemTime::now());
    match LocalTime::at(now) {
        Some(time) => format!("{:04}-{}", time.year, time.without_year()),
        None => now.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_variable_that_is_set_decides() {
        for (all, ctype, lang, utf8) in [
            ("", "", "de_DE.UTF-8", Some(true)),
            ("", "", "C.utf8", Some(true)),
            ("", "C.utf8", "de_DE.ISO-8859-1", Some(true)),
            ("", "de_DE.ISO-8859-1", "C.UTF-8", Some(false)),
            ("ru_RU.KOI8-R", "C.UTF-8", "C.UTF-8", Some(false)),
            ("no_NO.utf-8@bokmal", "C", "C", Some(true)),
            ("de_DE.ISO-8859-15@euro", "C.UTF-8", "", Some(false)),
            ("C", "C.UTF-8", "C.UTF-8", None),
            ("POSIX", "C.UTF-8", "", None),
            ("de_DE@utf.8", "", "", None),
            ("", "", "", None),
        ] {
            let value = |name: &str| match name {
                "LC_ALL" => Some(all.into()),
                "LC_CTYPE" => Some(ctype.into()),
                _ => Some(lang.into()),
            };
            assert_eq!(explicit(value), utf8, "{all:?} {ctype:?} {lang:?}");
        }
        assert_eq!(explicit(|_| None), None);
    }

    #[test]
    fn the_local_time_is_a_day_from_utc_at_most() {
        let noon = Timestamp::parse("2025-06-28T12:00:00Z").unwrap();
        let time = LocalTime::at(noon).unwrap();
        assert_eq!((time.year, time.month), (2025, 6));
        assert!((27..=29).contains(&time.day) && (0..24).contains(&time.hour));
        assert_eq!(time.without_year().len(), "06-28 14:32:10".len());
        assert_eq!(now().len(), "2025-06-28 14:32:10".len());
    }
}
