//! The program under test, with or without strace.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use crate::signal;

/// Options of the server: every name is looked up each time, and timeouts are short.
const ARGUMENTS: [&str; 17] = [
    "-p",
    "0",
    "-P",
    "0",
    "-l",
    "127.0.0.1",
    "-u",
    "alice:secret",
    "--allow-local",
    "--dns-cache",
    "0",
    "--dns-negative-cache",
    "0",
    "--linger-timeout",
    "1",
    "--grace",
    "1",
];

/// A running server.
pub struct Server {
    child: Child,
    /// Of the server itself, where strace is its parent.
    pub pid: i32,
    pub socks: SocketAddr,
    pub metp: SocketAddr,
    pub stderr: Lines,
    /// How many descriptors it has open without any client, once that is known; no case may leave more.
    pub at_rest: Option<usize>,
}

/// The lines of a stream so far.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

/// The message of Rust where its allocator gets no memory.
const NO_MEMORY: &str = "memory allocation of ";

impl Lines {
    pub fn gather(stream: impl Read + Send + 'static) -> Self {
        let lines = Lines::default();
        let gathered = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                gathered.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        lines
    }

    pub fn find<T>(&self, wanted: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().find_map(|line| wanted(line))
    }

    /// The last output of the process; where its memory has run out, that.
    pub fn last_words(&self) -> String {
        // The thread that gathers them holds the other one until EOF.
        let deadline = Instant::now() + Duration::from_secs(1);
        while Arc::strong_count(&self.0) > 1 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        let aborted = |line: &str| line.starts_with(NO_MEMORY).then(|| line.to_owned());
        self.find(aborted).unwrap_or_else(|| self.last())
    }

    pub fn last(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.last().cloned().unwrap_or_default()
    }
}

/// The outcome of a start.
pub enum Started {
    Up(Box<Server>),
    /// It has ended: its status and its last output.
    Ended(ExitStatus, String),
    /// It neither listens nor has ended.
    Hangs,
}

/// Starts the server, under `wrapper` if there is one, and waits until it listens.
pub fn start(wrapper: &[String], patience: Duration) -> io::Result<Started> {
    let binary = support::binary("socks5d");
    let mut command = match wrapper.split_first() {
        None => Command::new(&binary),
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(&binary);
            command
        }
    };
    command.args(ARGUMENTS).env("PROXY_CTRL_SUPERUSER", "admin:1234").env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A strace that is killed lets its program run on; one that is asked to end has it end, too.
    signal::die_with_parent(
        &mut command,
        if wrapper.is_empty() { libc::SIGKILL } else { libc::SIGTERM },
    );
    let mut child = command.spawn()?;
    if let Some(stdout) = child.stdout.take() {
        Lines::gather(stdout);
    }
    let stderr = child.stderr.take().map(Lines::gather).unwrap_or_default();
    let deadline = Instant::now() + patience;
    loop {
        let parent = i32::try_from(child.id()).unwrap_or_default();
        let pid = if wrapper.is_empty() { Some(parent) } else { child_of(parent) };
        // Its log may be what fails, so it is not asked.
        if let Some(pid) = pid
            && let [socks, metp] = listeners(pid)[..]
        {
            return Ok(Started::Up(Box::new(Server {
                child,
                pid,
                socks,
                metp,
                stderr,
                at_rest: None,
            })));
        }
        if let Some(status) = child.try_wait()? {
            return Ok(Started::Ended(status, stderr.last_words()));
        }
        if Instant::now() > deadline {
            let parent = i32::try_from(child.id()).unwrap_or_default();
            kill_all(&mut child, child_of(parent));
            return Ok(Started::Hangs);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Where a process listens, in the order of its descriptors: SOCKS comes first.
fn listeners(pid: i32) -> Vec<SocketAddr> {
    let Ok(table) = fs::read_to_string(format!("/proc/{pid}/net/tcp")) else { return Vec::new() };
    // "SLOT: ADDRESS:PORT REMOTE STATE QUEUES TIMER RETRANSMITS UID TIMEOUT INODE ...", 0A for LISTEN.
    let port_of = |inode: &str| {
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row.get(3) == Some(&"0A") && row.get(9) == Some(&inode))?;
        u16::from_str_radix(row.get(1)?.split(':').nth(1)?, 16).ok()
    };
    let Ok(folder) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let mut descriptors: Vec<(u32, String)> = folder
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_string_lossy().parse().ok()?;
            Some((number, fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
        })
        .collect();
    descriptors.sort_unstable();
    let inodes =
        descriptors.iter().filter_map(|(_, link)| link.strip_prefix("socket:[")?.strip_suffix(']'));
    inodes.filter_map(port_of).map(|port| (Ipv4Addr::LOCALHOST, port).into()).collect()
}

/// The first child of a process.
fn child_of(parent: i32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn kill_all(child: &mut Child, inner: Option<i32>) {
    if let Some(pid) = inner {
        signal::send(pid, libc::SIGKILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

impl Server {
    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Descriptors that are open, but for pipes: those of bulk transfers stay open for a while.
    pub fn descriptors(&self) -> usize {
        self.links().into_iter().filter(|link| !is_pipe(link)).count()
    }

    /// What its descriptors lead to.
    pub fn links(&self) -> Vec<PathBuf> {
        let Ok(folder) = fs::read_dir(format!("/proc/{}/fd", self.pid)) else { return Vec::new() };
        folder.flatten().filter_map(|link| fs::read_link(link.path()).ok()).collect()
    }

    /// Ends of pipes that are open.
    pub fn pipe_ends(&self) -> usize {
        self.links().into_iter().filter(|link| is_pipe(link)).count()
    }

    /// Processor time of all its threads so far.
    pub fn cpu(&self) -> Duration {
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", self.pid)) else {
            return Duration::ZERO;
        };
        let spent = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        };
        Duration::from_nanos(tasks.flatten().filter_map(spent).sum())
    }

    /// Asks it to end, and waits.
    pub fn terminate(mut self, patience: Duration) -> Option<ExitStatus> {
        signal::send(self.pid, libc::SIGTERM);
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.ended().is_none() {
            kill_all(&mut self.child, Some(self.pid));
        }
    }
}

fn is_pipe(link: &Path) -> bool {
    link.to_string_lossy().starts_with("pipe:")
}
