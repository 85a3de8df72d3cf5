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

/// What the associations of a run do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Bursts of 16 datagrams of 1,200 bytes there and back, the next when all are back.
    Rate,
    /// Round trips of 64 bytes.
    PingPong,
    /// Nothing.
    Hold,
}

impl Exchange {
    /// The datagrams of a burst, and the bytes of payload of each.
    pub fn burst(self) -> (usize, usize) {
        match self {
            Exchange::Rate => (16, 1200),
            Exchange::PingPong | Exchange::Hold => (1, 64),
        }
    }
}

/// Tunnels or associations, and what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    Tunnels(Kind),
    Datagrams(Exchange),
}

const NAMES: [(&str, Task); 9] = [
    ("rate", Task::Tunnels(Kind::Rate)),
    ("pingpong", Task::Tunnels(Kind::PingPong)),
    ("bulk-down", Task::Tunnels(Kind::Down)),
    ("bulk-up", Task::Tunnels(Kind::Up)),
    ("hold", Task::Tunnels(Kind::Hold)),
    ("fair", Task::Tunnels(Kind::Fair)),
    ("udp-rate", Task::Datagrams(Exchange::Rate)),
    ("udp-pingpong", Task::Datagrams(Exchange::PingPong)),
    ("udp-hold", Task::Datagrams(Exchange::Hold)),
];

/// What `make bench` runs.
pub const ALL: &str = "rate-64,rate-1,pingpong-64,bulk-down-64,bulk-up-64,bulk-down-1,fair-16,hold-8000,\
                       udp-rate-1,udp-rate-64,udp-pingpong-64,udp-hold-2000";

/// A task and its number of tunnels or associations, written `rate-64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    pub task: Task,
    pub tunnels: usize,
}

impl Workload {
    /// The same with no more tunnels than this many descriptors allow: one process has both ends of each, and so has
    /// the proxy. An association has three there.
    pub fn bounded(self, descriptors: usize) -> Self {
        let each = match self.task {
            Task::Tunnels(_) => 2,
            Task::Datagrams(_) => 3,
        };
        let most = (descriptors.saturating_sub(RESERVE) / each).max(1);
        Workload { tunnels: self.tunnels.min(most), ..self }
    }

    /// The unit of the result.
    pub fn unit(self) -> &'static str {
        match self.task {
            Task::Tunnels(Kind::Rate) => "conn/s",
            Task::Tunnels(Kind::Down | Kind::Up | Kind::Fair) => "GiB/s",
            Task::Tunnels(Kind::Hold) => "KiB/tunnel",
            Task::Datagrams(Exchange::Rate) => "dgram/s",
            Task::Datagrams(Exchange::Hold) => "KiB/assoc",
            Task::Tunnels(Kind::PingPong) | Task::Datagrams(Exchange::PingPong) => "trips/s",
        }
    }

    /// The unit of the processor time.
    pub fn cpu_unit(self) -> &'static str {
        match self.task {
            Task::Tunnels(Kind::Rate) => "µs/conn",
            Task::Tunnels(Kind::Down | Kind::Up | Kind::Fair) => "s/GiB",
            Task::Datagrams(Exchange::Rate) => "µs/dgram",
            Task::Tunnels(Kind::PingPong) | Task::Datagrams(Exchange::PingPong) => "µs/trip",
            Task::Tunnels(Kind::Hold) | Task::Datagrams(Exchange::Hold) => "% idle",
        }
    }

    /// Whether more is better.
    pub fn rises(self) -> bool {
        !self.holds()
    }

    /// Whether it lets things lie.
    pub fn holds(self) -> bool {
        matches!(self.task, Task::Tunnels(Kind::Hold) | Task::Datagrams(Exchange::Hold))
    }
}

/// Descriptors of a proxy that are no tunnel: listeners, logs, pipes.
const RESERVE: usize = 600;

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.rsplit_once('-').and_then(|(name, count)| {
            let (_, task) = NAMES.iter().find(|(known, _)| *known == name)?;
            let tunnels = count.parse().ok().filter(|count| (1..=100_000).contains(count))?;
            Some(Workload { task: *task, tunnels })
        });
        parsed.ok_or_else(|| format!("no such workload: {text:?}"))
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, task)| *task == self.task).map_or("?", |(name, _)| name);
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
        let associations: Workload = "udp-hold-2000".parse().expect("a workload");
        assert_eq!(associations.bounded(3_600).tunnels, 1000);
    }
}
