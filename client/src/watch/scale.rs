//! The axes of the plots: round maxima, and marks at round times.

use std::time::Duration;

/// Steps between units of octets, which are 1024 apart.
const SIZE_STEPS: [u64; 9] = [1, 2, 5, 10, 20, 50, 100, 200, 500];
/// The lowest maximum of octets; what is below need not fill a plot.
const MIN_SIZE: u64 = 1024;
/// The lowest maximum of a number.
const MIN_COUNT: u64 = 5;
/// Times that marks may be apart, in seconds; beyond, they are whole days.
const MARK_SECONDS: [u64; 16] =
    [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 43_200];
const DAY_SECONDS: u64 = 86_400;
/// Columns that marks are apart, at least.
const MIN_MARK_DISTANCE: u64 = 10;

/// The least round number of octets that is not below `value`: 1, 2, 5, 10 ... 500 KiB, MiB, and so on.
pub fn round_size(value: u64) -> u64 {
    least(value, MIN_SIZE, &SIZE_STEPS, 1024)
}

/// The least round number that is not below `value`: 1, 2 or 5 and zeros.
pub fn round_count(value: u64) -> u64 {
    least(value.max(MIN_COUNT), 1, &[1, 2, 5], 10)
}

fn least(value: u64, mut unit: u64, steps: &[u64], next_unit: u64) -> u64 {
    loop {
        let mut rounds = steps.iter().map(|step| unit.saturating_mul(*step));
        // The unit ends up at the largest number that there is, which no value is above.
        if let Some(round) = rounds.find(|round| *round >= value) {
            return round;
        }
        unit = unit.saturating_mul(next_unit);
    }
}

/// Marks of a time axis whose columns are one `interval` each: how many columns ago, and how long ago.
pub fn marks(interval: Duration, columns: usize) -> impl Iterator<Item = (usize, String)> {
    let interval = interval.as_millis().max(1);
    let apart = interval.saturating_mul(MIN_MARK_DISTANCE.into());
    let fits = |seconds: &u64| u128::from(*seconds).saturating_mul(1000) >= apart;
    let step = MARK_SECONDS.into_iter().find(fits).unwrap_or_else(|| {
        let days = apart.div_ceil(1000 * u128::from(DAY_SECONDS));
        u64::try_from(days).unwrap_or(1).saturating_mul(DAY_SECONDS)
    });
    (1..).map_while(move |mark: u64| {
        let seconds = step.saturating_mul(mark);
        let column = u128::from(seconds).saturating_mul(1000) / interval;
        let column = usize::try_from(column).ok().filter(|column| *column < columns)?;
        Some((column, time(seconds)))
    })
}

/// A round time: in the largest unit that divides it.
fn time(seconds: u64) -> String {
    for (unit, name) in [(DAY_SECONDS, 'd'), (3600, 'h'), (60, 'm')] {
        if seconds.is_multiple_of(unit) {
            return format!("{}{name}", seconds / unit);
        }
    }
    format!("{seconds}s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_maxima() {
        let (kib, mib) = (1 << 10, 1 << 20);
        for (value, round) in [
            (0, kib),
            (1, kib),
            (kib, kib),
            (kib + 1, 2 * kib),
            (3 * kib, 5 * kib),
            (201 * kib, 500 * kib),
            (501 * kib, mib),
            (13 * mib, 20 * mib),
            (900 * mib, 1024 * mib),
            (u64::MAX, u64::MAX),
        ] {
            assert_eq!(round_size(value), round, "{value}");
        }
        for (value, round) in
            [(0, 5), (5, 5), (6, 10), (11, 20), (21, 50), (999, 1000), (1001, 2000)]
        {
            assert_eq!(round_count(value), round);
        }
        assert_eq!(round_count(u64::MAX), u64::MAX);
    }

    #[test]
    fn marks_are_at_round_times_and_do_not_crowd() {
        let marks = |millis, columns| {
            let marks = marks(Duration::from_millis(millis), columns);
            marks.map(|(column, text)| format!("{column}:{text}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(marks(1000, 30), "10:10s 20:20s");
        assert_eq!(marks(1000, 10), "");
        assert_eq!(marks(100, 25), "10:1s 20:2s");
        assert_eq!(marks(250, 50), "20:5s 40:10s");
        assert_eq!(marks(5000, 30), "12:1m 24:2m");
        assert_eq!(marks(3_600_000, 30), "12:12h 24:1d");
        assert_eq!(marks(86_400_000 * 2, 30), "10:20d 20:40d");
    }
}
