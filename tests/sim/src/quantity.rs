//! Numbers with units (METP §5.17), compared with arithmetic on decimal digits.

use std::time::Duration;

use metp_protocol::quantity::{count, size, time};

/// Whatever the text is, count, size and time agree with arithmetic that cannot overflow.
pub fn quantity(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let whole = digits(number).and_then(|number| u64::try_from(number).ok());
    assert_eq!(count(text), whole.filter(|_| unit.is_empty()), "{text:?}");
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kib" => Some(1_u128 << 10),
        "m" | "mib" => Some(1 << 20),
        "g" | "gib" => Some(1 << 30),
        "t" | "tib" => Some(1 << 40),
        _ => None,
    };
    let bytes = whole.zip(factor).map(|(whole, factor)| u128::from(whole) * factor);
    assert_eq!(size(text), bytes.and_then(|bytes| u64::try_from(bytes).ok()), "{text:?}");
    let nanos = match unit {
        "" | "s" => Some(1_000_000_000_u128),
        "ms" => Some(1_000_000),
        "m" => Some(60_000_000_000),
        "h" => Some(3_600_000_000_000),
        "d" => Some(86_400_000_000_000),
        _ => None,
    };
    match (time(text), nanos) {
        (Some(_), None) => panic!("{text:?} has no unit of time"),
        (told, Some(nanos)) => assert_eq!(told, exact(number, nanos), "{text:?}"),
        (None, None) => {}
    }
}

/// `12.5` of a unit of `nanoseconds`, cut off below a nanosecond.
fn exact(number: &str, nanos: u128) -> Option<Duration> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { u64::try_from(digits(whole)?).ok()? };
    // 18 digits behind the point: those beyond are less than a nanosecond of a day.
    let scaled =
        fraction.bytes().take(18).fold(0_u128, |sum, digit| sum * 10 + u128::from(digit - b'0'));
    let power = 10_u128.pow(fraction.len().min(18) as u32);
    let total = u128::from(whole) * nanos + scaled * nanos / power;
    let seconds = u64::try_from(total / 1_000_000_000).ok()?;
    Some(Duration::new(seconds, (total % 1_000_000_000) as u32))
}

/// Digits as a number that is too large for anything where there are too many.
fn digits(text: &str) -> Option<u128> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| {
        text.bytes().fold(0_u128, |sum, digit| {
            sum.saturating_mul(10).saturating_add(u128::from(digit - b'0'))
        })
    })
}
