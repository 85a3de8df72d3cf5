//! Numbers as people read them.

/// A size in bytes: `512 B`, `1.5 KiB`, `20 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut shown = String::new();
    let mut amount = bytes as f64;
    for unit in UNITS {
        amount /= 1024.0;
        shown = if amount < 99.95 {
            format!("{amount:.1} {unit}")
        } else {
            format!("{amount:.0} {unit}")
        };
        if amount < 1023.5 {
            break;
        }
    }
    shown
}

/// A time in seconds: `0.2s`, `12s`, `3m05s`, `2h00m`, `4d01h`.
pub fn age(seconds: f64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..10 => format!("{:.1}s", seconds.max(0.0)),
        10..MINUTE => format!("{whole}s"),
        MINUTE..HOUR => format!("{}m{:02}s", whole / MINUTE, whole % MINUTE),
        HOUR..DAY => format!("{}h{:02}m", whole / HOUR, whole % HOUR / MINUTE),
        DAY.. => format!("{}d{:02}h", whole / DAY, whole % DAY / HOUR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (102_349, "100 KiB"),
            (1_048_575, "1.0 MiB"),
            (20 << 20, "20.0 MiB"),
            (1000 << 20, "1000 MiB"),
            (3 << 30, "3.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), shown, "{bytes}");
        }
    }

    #[test]
    fn ages() {
        for (seconds, shown) in [
            (-1.0, "0.0s"),
            (0.25, "0.2s"),
            (59.9, "59s"),
            (60.0, "1m00s"),
            (3599.0, "59m59s"),
            (7200.0, "2h00m"),
            (349_200.0, "4d01h"),
            (f64::MAX, "213503982334601d07h"),
        ] {
            assert_eq!(age(seconds), shown, "{seconds}");
        }
    }
}
