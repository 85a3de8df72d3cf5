//! Sizes, rates and times formatted for people.

use std::time::Duration;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Formats octets in at most eight characters: `512 B`, `12.3 MiB`, `1023 KiB`.
pub fn size(octets: u64) -> String {
    if octets < 1024 {
        return format!("{octets} B");
    }
    let octets = u128::from(octets);
    let mut unit = 1_u128;
    let shown = UNITS.iter().find_map(|name| {
        unit = unit.saturating_mul(1024);
        let rounded = |parts: u128| (octets * parts + unit / 2) / unit;
        match (rounded(10), rounded(1)) {
            (tenths @ ..1000, _) => Some(format!("{}.{} {name}", tenths / 10, tenths % 10)),
            (_, whole @ ..1024) => Some(format!("{whole} {name}")),
            // What rounds to 1024 is 1.0 of the next unit.
            _ => None,
        }
    });
    shown.unwrap_or_default()
}

/// Like [`size`], without the fraction if it is zero: `20 MiB`.
pub fn round_size(octets: u64) -> String {
    size(octets).replace(".0 ", " ")
}

/// Formats octets per second: `12.3 MiB/s`.
pub fn rate(octets: u64) -> String {
    size(octets) + "/s"
}

/// Formats a duration, in at most six characters below 100 days: `0.3s`, `12s`, `3m05s`, `2h13m`, `4d07h`.
pub fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds < 10 => format!("{seconds}.{}s", time.subsec_millis() / 100),
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// Formats the time left, rounded up to whole seconds, so that `0s` means none.
pub fn left(time: Duration) -> String {
    let seconds = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    if seconds < 10 { format!("{seconds}s") } else { age(Duration::from_secs(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (octets, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (102_348, "99.9 KiB"),
            (102_400, "100 KiB"),
            (1_047_552, "1023 KiB"),
            (1_048_575, "1.0 MiB"),
            (12_897_485, "12.3 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(octets), text);
        }
        assert_eq!(rate(12_897_485), "12.3 MiB/s");
        assert_eq!((round_size(20 << 20), round_size(1536)), ("20 MiB".into(), "1.5 KiB".into()));
    }

    #[test]
    fn ages() {
        for (seconds, text) in [
            (0, "0.0s"),
            (10, "10s"),
            (59, "59s"),
            (60, "1m00s"),
            (3599, "59m59s"),
            (7980, "2h13m"),
            (86_399, "23h59m"),
            (370_800, "4d07h"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
        assert_eq!(age(Duration::from_millis(9_999)), "9.9s");
        let left = |millis| left(Duration::from_millis(millis));
        assert_eq!((left(0), left(3001), left(9001)), ("0s".into(), "4s".into(), "10s".into()));
    }
}
