//! Rates: a number and its unit, `10Mbit` or `1.5MB/s`.

use std::fmt;
use std::num::NonZeroU64;

use crate::quota::decimal;

/// Bits in a second, each direction by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    bits: NonZeroU64,
}

/// The units, and how many bits they are, those that are used for writing first, the largest at their front.
const UNITS: [(&str, u64); 10] = [
    ("Gbit", 1_000_000_000),
    ("Mbit", 1_000_000),
    ("kbit", 1000),
    ("bit", 1),
    ("Kbit", 1000),
    ("GB/s", 8_000_000_000),
    ("MB/s", 8_000_000),
    ("kB/s", 8000),
    ("KB/s", 8000),
    ("B/s", 8),
];
/// The units that a rate is written with.
const WRITTEN: usize = 4;
/// The bits of the least and the largest rate.
const RANGE: std::ops::RangeInclusive<u64> = 1000..=1_000_000_000_000;

impl Rate {
    /// Reads a rate: 1 kbit to 1000 Gbit. `None` if it is none, or out of range.
    ///
    /// ```
    /// use metp_protocol::Rate;
    ///
    /// let rate = Rate::parse("1.5MB/s").expect("a rate");
    /// assert_eq!((rate.bytes().get(), rate.to_string()), (1_500_000, "12Mbit".to_owned()));
    /// assert_eq!(Rate::parse("10"), None);
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix("bit/s").map_or(text, |_| {
            // `Mbit/s` is `Mbit`.
            text.strip_suffix("/s").unwrap_or(text)
        });
        let at = text.find(|letter: char| letter.is_ascii_alphabetic())?;
        let (number, unit) = text.split_at(at);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let bits = decimal(number, *factor)?;
        if !RANGE.contains(&bits) {
            return None;
        }
        Some(Rate { bits: NonZeroU64::new(bits)? })
    }

    /// In bytes per second, rounded down: 125 at least.
    pub fn bytes(self) -> NonZeroU64 {
        NonZeroU64::new(self.bits.get() / 8).unwrap_or(NonZeroU64::MIN)
    }
}

/// With the largest unit of which it is a whole number.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.bits.get();
        let mut units = UNITS.iter().take(WRITTEN);
        let (unit, factor) =
            units.find(|(_, factor)| bits.is_multiple_of(*factor)).unwrap_or(&("bit", 1));
        write!(f, "{}{unit}", bits / factor)
    }
}
