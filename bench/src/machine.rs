//! What the figures were taken on, and how much of it the host gave to others meanwhile.

use std::fs;
use std::time::SystemTime;

use metp_protocol::timestamp::Timestamp;
use serde_json::{Value, json};

/// The machine, and when it was looked at.
#[derive(Clone, Debug)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    /// How TCP finds its speed. It decides much: bbr sets a timer for every piece that is sent.
    pub congestion: String,
    pub date: String,
}

impl Machine {
    /// Looks at this machine. To be asked before the process is pinned: that hides the other cores.
    pub fn look() -> Self {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == "model name").then(|| value.trim().to_owned())
        });
        let setting = |path: &str| {
            let text = fs::read_to_string(format!("/proc/sys/{path}")).unwrap_or_default();
            text.trim().to_owned()
        };
        Machine {
            cpu: model.unwrap_or_else(|| "unknown CPU".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: setting("kernel/osrelease"),
            congestion: setting("net/ipv4/tcp_congestion_control"),
            date: Timestamp::from(SystemTime::now()).to_string(),
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let Machine { date, cores, cpu, kernel, congestion } = self;
        format!("{date}, {cores} cores, {cpu}, Linux {kernel}, TCP {congestion}")
    }

    pub fn json(&self) -> Value {
        let Machine { cpu, cores, kernel, congestion, .. } = self;
        json!({ "cpu": cpu, "cores": cores, "kernel": kernel, "congestion": congestion })
    }
}

/// Clock ticks of all cores since the machine started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    stolen: u64,
    all: u64,
}

impl Ticks {
    pub fn now() -> Self {
        Ticks::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// Reads the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal. What
    /// follows (guest times) is contained in user and nice.
    fn parse(text: &str) -> Self {
        let line = text.lines().next().unwrap_or_default();
        let fields: Vec<u64> =
            line.split_whitespace().skip(1).take(8).filter_map(|word| word.parse().ok()).collect();
        Ticks { stolen: fields.get(7).copied().unwrap_or(0), all: fields.iter().sum() }
    }

    /// The share of time, from `earlier` to here, in which a core was ready to work and the host ran
    /// somebody else.
    pub fn steal_since(self, earlier: Ticks) -> f64 {
        let all = self.all.saturating_sub(earlier.all).max(1);
        self.stolen.saturating_sub(earlier.stolen) as f64 / all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_the_eighth_figure() {
        let before = Ticks::parse("cpu  10 0 10 60 5 0 5 10 99 99\ncpu0 1 2 3\n");
        assert_eq!(before, Ticks { stolen: 10, all: 100 });
        let after = Ticks::parse("cpu  60 0 60 110 5 0 45 20 99 99\n");
        assert_eq!(after.steal_since(before), 0.05);
        assert_eq!(before.steal_since(before), 0.0);
        assert_eq!(Ticks::parse(""), Ticks { stolen: 0, all: 0 });
    }
}
