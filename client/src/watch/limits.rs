//! What the limits of accounts leave: how much of its rate and of its quota an account uses.

use metp_protocol::{Quota, Rate, UsageLine};

/// The columns of a bar.
pub const BAR_WIDTH: usize = 5;

/// The limits of an account of which something is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserLimits {
    /// The rate, in octets per second of each direction.
    rate: Option<u64>,
    /// Octets of the quota, and how many of them are used.
    quota: Option<(u64, u64)>,
}

impl UserLimits {
    /// Reads a line of USER-METRICS. What is malformed counts as no limit.
    pub fn parse(line: &str) -> Self {
        let line = UsageLine::parse(line);
        let rate = line.rate.value().and_then(Rate::parse).map(|rate| rate.bytes().get());
        let quota = line.quota.value().and_then(Quota::parse).map(|quota| quota.bytes);
        let used = line.quota_used.value().and_then(|used| used.parse().ok());
        UserLimits { rate, quota: quota.zip(used) }
    }

    /// A bar for the rate, of which the direction counts that is faster now, and one for the quota; blanks where there
    /// is no limit.
    pub fn bars(self, faster: u64) -> [String; 2] {
        let of_rate = self.rate.map(|rate| bar(faster, rate));
        let of_quota = self.quota.map(|(quota, used)| bar(used, quota));
        [of_rate, of_quota].map(Option::unwrap_or_default)
    }
}

/// A bar of [`BAR_WIDTH`]. It has one block as soon as something is used, and all of them when nothing is left.
fn bar(used: u64, of: u64) -> String {
    const WIDTH: u128 = BAR_WIDTH as u128;
    let filled = match (used, of) {
        (0, _) => 0,
        (_, 0) => WIDTH,
        (used, of) => (u128::from(used) * WIDTH / u128::from(of)).clamp(1, WIDTH),
    };
    let filled = usize::try_from(filled).unwrap_or(BAR_WIDTH);
    "█".repeat(filled) + &"░".repeat(BAR_WIDTH.saturating_sub(filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_show_what_is_used() {
        for (used, of, expected) in [
            (0, 100, "░░░░░"),
            (1, 100, "█░░░░"),
            (59, 100, "██░░░"),
            (99, 100, "████░"),
            (100, 100, "█████"),
            (u64::MAX, 1, "█████"),
            (0, 0, "░░░░░"),
            (7, 0, "█████"),
        ] {
            assert_eq!(bar(used, of), expected, "{used} of {of}");
        }
    }

    #[test]
    fn limits_are_read_from_a_line_of_usage() {
        let line = "user=a quota=50GB/month quota-used=25000000000 expires=- sources=- rate=8Mbit";
        let limits = UserLimits::parse(line);
        assert_eq!(
            limits,
            UserLimits { rate: Some(1_000_000), quota: Some((50_000_000_000, 25_000_000_000)) }
        );
        assert_eq!(limits.bars(500_000), ["██░░░", "██░░░"]);
        let none = UserLimits::parse("user=a quota=- quota-used=- rate=-");
        assert_eq!((none, none.bars(7)), (UserLimits::default(), ["", ""].map(str::to_owned)));
        // A server that has no limits.
        assert_eq!(UserLimits::parse("user=a up=7"), UserLimits::default());
        assert_eq!(UserLimits::parse("rate=fast quota=1GB quota-used=x"), UserLimits::default());
    }
}
