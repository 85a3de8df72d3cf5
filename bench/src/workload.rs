//! What is measured: the workloads and their units.

use std::fmt;
use std::str::FromStr;

/// What the tunnels of a run do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Short connections, one after the other on each of N slots.
    Rate,
    /// Round trips of 64 bytes on N open tunnels.
    PingPong,
    /// N downloads.
    Down,
    /// N uploads.
    Up,
    /// N tunnels that do nothing.
    Hold,
    /// Round trips beside N downloads.
    Fair,
}

const NAMES: [(&str, Kind); 6] = [
    ("rate", Kind::Rate),
    ("pingpong", Kind::PingPong),
    ("bulk-down", Kind::Down),
    ("bulk-up", Kind::Up),
    ("hold", Kind::Hold),
    ("fair", Kind::Fair),
];

/// What `make bench` runs.
pub const ALL: &str =
    "rate-64,rate-1,pingpong-64,bulk-down-64,bulk-up-64,bulk-down-1,fair-16,hold-8000";

/// A kind and its number of tunnels, written `rate-64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    pub kind: Kind,
    pub tunnels: usize,
}

impl Workload {
    /// The same with no more tunnels than this many descriptors allow: one process has both ends of
    /// each, and so has the proxy.
    pub fn bounded(self, descriptors: usize) -> Self {
        let most = (descriptors.saturating_sub(RESERVE) / 2).max(1);
        Workload { tunnels: self.tunnels.min(most), ..self }
    }

    /// The unit of the result.
    pub fn unit(self) -> &'static str {
        match self.kind {
            Kind::Rate => "conn/s",
            Kind::PingPong => "trips/s",
            Kind::Down | Kind::Up | Kind::Fair => "GiB/s",
            Kind::Hold => "KiB/tunnel",
        }
    }

    /// The unit of the processor time.
    pub fn cpu_unit(self) -> &'static str {
        match self.kind {
            Kind::Rate => "µs/conn",
            Kind::PingPong => "µs/trip",
            Kind::Down | Kind::Up | Kind::Fair => "s/GiB",
            Kind::Hold => "% idle",
        }
    }

    /// Whether more is better.
    pub fn rises(self) -> bool {
        self.kind != Kind::Hold
    }
}

/// Descriptors of a proxy that are no tunnel: listeners, logs, pipes.
const RESERVE: usize = 600;

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.rsplit_once('-').and_then(|(name, count)| {
            let (_, kind) = NAMES.iter().find(|(known, _)| *known == name)?;
            let tunnels = count.parse().ok().filter(|count| (1..=100_000).contains(count))?;
            Some(Workload { kind: *kind, tunnels })
        });
        parsed.ok_or_else(|| format!("no such workload: {text:?}"))
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, kind)| *kind == self.kind).map_or("?", |(name, _)| name);
        write!(f, "{name}-{}", self.tunnels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for name in ALL.split(',') {
            let workload: Workload = name.parse().expect("a workload");
            assert_eq!(workload.to_string(), name);
        }
        for bad in ["", "rate", "rate-", "rate-0", "rate--1", "bulk-64", "rate-x", "hold-999999"] {
            assert!(bad.parse::<Workload>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn descriptors_bound_the_tunnels() {
        let hold: Workload = "hold-8000".parse().expect("a workload");
        assert_eq!(hold.bounded(20_000).tunnels, 8000);
        assert_eq!(hold.bounded(4_600).tunnels, 2000);
        assert_eq!(hold.bounded(100).tunnels, 1);
    }
}
