//! A proxy under measurement: started on its core, metered with its descendants, ended by its id.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::sys;

/// How long a proxy may take until it accepts connections.
const READY: Duration = Duration::from_secs(8);
/// How long it may take to end before it is killed.
const END: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// A running proxy. It ends when this is dropped.
pub struct Proxy {
    child: Child,
    /// The file with what it says on stderr.
    said: PathBuf,
}

impl Proxy {
    /// Starts a command line and waits until the address accepts connections. What it says on stderr goes
    /// to a file in `folder` and is shown if it does not start.
    pub fn start(
        words: &[String],
        address: SocketAddr,
        core: Option<usize>,
        folder: &Path,
    ) -> io::Result<Self> {
        let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let said = folder.join("stderr");
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&said)?);
        sys::confine(&mut command, core);
        let mut proxy = Proxy { child: command.spawn()?, said };
        let deadline = Instant::now() + READY;
        while TcpStream::connect(address).is_err() {
            if proxy.child.try_wait()?.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(&proxy.said).unwrap_or_default();
                return Err(io::Error::other(format!("does not start: {}", said.trim())));
            }
            thread::sleep(POLL);
        }
        Ok(proxy)
    }

    /// Processor time so far: of the process, its descendants, and those of them that have ended.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let root = self.child.id();
        let stat = fs::read_to_string(format!("/proc/{root}/stat"))?;
        let ended = sys::tick() * reaped_ticks(&stat).unwrap_or(0);
        let mut sum = sys::cpu_time(root)? + ended;
        for pid in descendants(root) {
            // One that has just ended is counted with the reaped ones.
            sum += sys::cpu_time(pid).unwrap_or_default();
        }
        Ok(sum)
    }

    /// Ends it. What it said of the turns of its event loop, if it did.
    pub fn end(self) -> Vec<(&'static str, f64)> {
        let said = self.said.clone();
        drop(self);
        turns(&fs::read_to_string(said).unwrap_or_default())
    }

    /// Memory in RAM (RSS) of all its processes, in KiB. What processes share is counted for each.
    pub fn rss_kib(&self) -> u64 {
        let root = self.child.id();
        std::iter::once(root)
            .chain(descendants(root))
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok())
            .filter_map(|status| rss(&status))
            .sum()
    }
}

/// What socks5d says of the turns of its loop when it ends: upper bounds in µs for half of them, and for 99 of
/// 100. Others say nothing of the kind.
fn turns(said: &str) -> Vec<(&'static str, f64)> {
    let value = |name: &str| {
        let text = said.split_whitespace().rev().find_map(|word| word.strip_prefix(name))?;
        let units = [("ns", 1e-3), ("us", 1.0), ("µs", 1.0), ("ms", 1e3), ("s", 1e6)];
        units.iter().find_map(|(unit, micros)| {
            text.strip_suffix(unit)?.parse::<f64>().ok().map(|number| number * micros)
        })
    };
    let names = [("turn_p50", "turn_p50="), ("turn_p99", "turn_p99=")];
    names.iter().filter_map(|(name, before)| value(before).map(|micros| (*name, micros))).collect()
}

impl Drop for Proxy {
    fn drop(&mut self) {
        sys::signal(self.child.id(), libc::SIGTERM);
        let deadline = Instant::now() + END;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What it has left behind are children of this process now, and there are no others.
        for orphan in descendants(std::process::id()) {
            sys::see_off(orphan);
        }
    }
}

/// The processes that a process has started, and those that they have started.
fn descendants(root: u32) -> Vec<u32> {
    let mut family = vec![root];
    let mut next = 0;
    while let Some(pid) = family.get(next).copied() {
        next += 1;
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
        }
    }
    family.split_off(1)
}

/// Ticks of children that have ended and been waited for: fields 16 and 17 of /proc/PID/stat. Fields are
/// counted behind the last parenthesis, for a name may hold anything.
fn reaped_ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(13);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_read_from_the_last_words() {
        let said =
            "x INFO  served: connections=1 bytes=2 panics=0 turn_p50=16µs turn_p99=1.024ms\n";
        assert_eq!(turns(said), [("turn_p50", 16.0), ("turn_p99", 1024.0)]);
        assert_eq!(turns("turn_p50=16us turn_p99=1.024ms"), turns(said));
        assert_eq!(turns("turn_p50=1s turn_p99=512ns"), [("turn_p50", 1e6), ("turn_p99", 0.512)]);
        assert_eq!(turns("turn_p50=0ns turn_p99=soon\n"), [("turn_p50", 0.0)]);
        assert_eq!(turns("closing down"), []);
    }

    #[test]
    fn proc_files_are_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 50 60 70 80 20 0 1 0 99";
        assert_eq!(reaped_ticks(stat), Some(150));
        assert_eq!(reaped_ticks("nonsense"), None);
        assert_eq!(rss("VmHWM:\t    9 kB\nVmRSS:\t    1234 kB\n"), Some(1234));
        assert_eq!(rss("VmHWM:\t    9 kB\n"), None);
    }
}
