//! Sizes and times as people write them: `64k`, `20MiB`, `500ms`, `1.5h`. One parser for both command lines and
//! for `CONFIG SET` (METP §5.17).
//!
//! The units are those of HAProxy's configuration. A size is a number of bytes, or of powers of 1024: `k`, `m`,
//! `g`, `t` in either case, with or without `iB`. `kB` and `MB` are refused, since elsewhere they are powers of
//! 1000. A time is a number of seconds, or of the unit behind it: `ms`, `s`, `m`, `h`, `d`, in lower case. A count
//! has no unit, as with HAProxy's `maxconn`: `1k` could mean 1000 or 1024.
//!
//! No sign, no exponent, no blank anywhere. What does not fit the type of the value is refused, never wrapped.

use std::time::Duration;

/// What stands behind the number of a size, in lower case, and how many powers of 1024 that is.
const SIZES: [(&str, u32); 10] = [
    ("", 0),
    ("b", 0),
    ("k", 1),
    ("kib", 1),
    ("m", 2),
    ("mib", 2),
    ("g", 3),
    ("gib", 3),
    ("t", 4),
    ("tib", 4),
];

/// The units of a size as they are named to users.
pub const SIZE_UNITS: &str = "units: k, M, G, T";
/// The units of a time as they are named to users.
pub const TIME_UNITS: &str = "units: ms, s, m, h, d";

const SECOND: u128 = 1_000_000_000;
/// What stands behind the number of a time, and how many nanoseconds that is.
const TIMES: [(&str, u128); 6] = [
    ("", SECOND),
    ("ms", SECOND / 1000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
    ("d", 86_400 * SECOND),
];
/// Digits behind the point that count: those beyond are less than a nanosecond, whatever the unit is.
const FRACTION: usize = 18;

/// Whether `text` is a number without a sign: one digit or more, and nothing else.
///
/// ```
/// use metp_protocol::quantity::is_digits;
///
/// assert!(is_digits(b"007") && !is_digits(b"+7") && !is_digits(b""));
/// ```
pub fn is_digits(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// Reads a number without a unit: digits alone, unlike `str::parse`, which takes a sign.
///
/// ```
/// use metp_protocol::quantity::count;
///
/// assert_eq!((count("64"), count("64k"), count("-1")), (Some(64), None, None));
/// ```
pub fn count(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| is_digits(text.as_bytes()))
}

/// Reads what [`count`] reads from bytes.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    count(std::str::from_utf8(digits).ok()?)
}

/// Reads a size, in bytes.
///
/// ```
/// use metp_protocol::quantity::size;
///
/// assert_eq!((size("64k"), size("64KiB"), size("64kB")), (Some(65_536), Some(65_536), None));
/// ```
pub fn size(text: &str) -> Option<u64> {
    let (digits, unit) = split(text);
    let (_, power) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    count(digits)?.checked_mul(1024_u64.checked_pow(*power)?)
}

/// Reads a time. A fraction is allowed; what is less than a nanosecond is cut off.
///
/// ```
/// use std::time::Duration;
/// use metp_protocol::quantity::time;
///
/// assert_eq!((time("1.5m"), time("1.5x")), (Some(Duration::from_secs(90)), None));
/// ```
pub fn time(text: &str) -> Option<Duration> {
    let (number, unit) = split(text);
    let (_, nanos) = TIMES.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { count(whole)? };
    let fraction = fraction.get(..FRACTION).unwrap_or(fraction);
    let digits = u32::try_from(fraction.len()).ok()?;
    let parts = if fraction.is_empty() { 0 } else { count(fraction)? };
    let part = u128::from(parts).checked_mul(*nanos)?.checked_div(10_u128.checked_pow(digits)?)?;
    let total = u128::from(whole).checked_mul(*nanos)?.checked_add(part)?;
    let seconds = u64::try_from(total.checked_div(SECOND)?).ok()?;
    let rest = u32::try_from(total.checked_rem(SECOND)?).ok()?;
    Some(Duration::new(seconds, rest))
}

/// The number, with its point, and what stands behind it.
fn split(text: &str) -> (&str, &str) {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    text.split_at(end.unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65_536),
            ("007", 7),
            ("1b", 1),
            ("1B", 1),
            ("64k", 65_536),
            ("64K", 65_536),
            ("64KiB", 65_536),
            ("64kib", 65_536),
            ("5m", 5 << 20),
            ("5M", 5 << 20),
            ("5MiB", 5 << 20),
            ("2g", 2 << 30),
            ("2GiB", 2 << 30),
            ("1T", 1 << 40),
            ("1TiB", 1 << 40),
            ("16777215T", 16_777_215 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "k",
            "-1",
            "+1",
            " 1",
            "1 ",
            "1 k",
            "1.5k",
            ".5k",
            "1.",
            "1e3",
            "0x10",
            "1kB",
            "1KB",
            "1MB",
            "1kk",
            "1ki",
            "1mi",
            "1s",
            "1p",
            "1\u{212a}",
            "1\u{fd}",
            "\u{661}",
            "16777216T",
            "18446744073709551616",
            "99999999999999999999k",
            "1k\n",
            "1k\0",
        ] {
            assert_eq!(size(text), None, "{text:?}");
        }
    }

    #[test]
    fn times() {
        let millis = Duration::from_millis;
        for (text, time_) in [
            ("0", millis(0)),
            ("90", millis(90_000)),
            ("90.5", millis(90_500)),
            (".5", millis(500)),
            ("5.", millis(5000)),
            ("500ms", millis(500)),
            ("0.5ms", Duration::from_micros(500)),
            ("90s", millis(90_000)),
            ("5m", millis(300_000)),
            ("1.5h", millis(5_400_000)),
            ("365d", millis(31_536_000_000)),
            ("0.000000001", Duration::from_nanos(1)),
            ("0.0000000019", Duration::from_nanos(1)),
            ("0.000000000000011575d", Duration::from_nanos(1)),
            ("18446744073709551615", Duration::from_secs(u64::MAX)),
        ] {
            assert_eq!(time(text), Some(time_), "{text}");
        }
        for text in [
            "",
            ".",
            "s",
            ".s",
            "-1",
            "+1",
            " 1",
            "1 s",
            "1S",
            "1M",
            "1H",
            "1D",
            "1MS",
            "1us",
            "1ns",
            "1w",
            "1min",
            "1sec",
            "1m30s",
            "1..5",
            "1.5.5",
            "1.5.",
            "1e3",
            "inf",
            "nan",
            "1e999",
            "1k",
            "18446744073709551616",
            "18446744073709551615m",
            "99999999999999999999d",
            "1s\n",
        ] {
            assert_eq!(time(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_units_that_are_named_are_taken() {
        let units = |named: &'static str| named.strip_prefix("units: ").unwrap().split(", ");
        assert!(units(SIZE_UNITS).all(|unit| size(&format!("1{unit}")).is_some()));
        assert!(units(TIME_UNITS).all(|unit| time(&format!("1{unit}")).is_some()));
        // None is left out, but for the longer names of sizes.
        assert_eq!(
            units(SIZE_UNITS).count(),
            SIZES.iter().filter(|(name, _)| name.len() == 3).count()
        );
        assert_eq!(units(TIME_UNITS).count() + 1, TIMES.len());
    }

    #[test]
    fn counts() {
        assert_eq!((count("0"), count("18446744073709551615")), (Some(0), Some(u64::MAX)));
        for text in ["", "+1", "-1", "1k", "1K", "1M", "1.0", " 1", "18446744073709551616"] {
            assert_eq!(count(text), None, "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(support::property::config(1000))]

        #[test]
        fn a_size_is_its_number_times_its_unit(number in any::<u64>(), unit in 0..SIZES.len()) {
            let (name, power) = SIZES[unit];
            let exact = u128::from(number) * 1024_u128.pow(power);
            for name in [name.to_owned(), name.to_uppercase()] {
                prop_assert_eq!(size(&format!("{number}{name}")).map(u128::from),
                    Some(exact).filter(|exact| *exact <= u128::from(u64::MAX)));
            }
        }

        #[test]
        fn a_time_is_its_number_times_its_unit(
            number in any::<u64>(), fraction in "[0-9]{0,12}", unit in 0..TIMES.len(),
        ) {
            let (name, nanos) = TIMES[unit];
            let digits: u128 = format!("0{fraction}").parse().unwrap();
            let part = digits * nanos / 10_u128.pow(fraction.len() as u32);
            let exact = u128::from(number) * nanos + part;
            let fits = exact / SECOND <= u128::from(u64::MAX);
            prop_assert_eq!(time(&format!("{number}.{fraction}{name}")).map(|time| time.as_nanos()),
                Some(exact).filter(|_| fits));
        }

        #[test]
        fn anything_gets_an_answer(text in "\\PC{0,20}", bytes in "[0-9.kKmMgGtTibBsdh+-]{0,12}") {
            for text in [text, bytes] {
                let _ = (count(&text), size(&text), time(&text));
            }
        }
    }
}
