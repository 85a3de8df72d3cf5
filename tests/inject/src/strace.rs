//! strace(1): which calls are made, and errors in their place.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::server::Lines;
use crate::signal;

/// A fault: this call fails with this error, at this position (strace's `when=`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub call: String,
    pub errno: &'static str,
    pub when: &'static str,
}

impl Fault {
    /// The options of strace.
    pub fn expression(&self) -> String {
        format!("inject={}:error={}:when={}", self.call, self.errno, self.when)
    }
}

/// Options for one fault, written to `log`.
pub fn options(fault: &Fault, log: &str) -> Vec<String> {
    let trace = format!("trace={}", fault.call);
    let inject = fault.expression();
    // -I2: signals that end it are not blocked, also where it starts the program itself.
    ["strace", "-I2", "-f", "-o", log, "-e", "signal=none", "-e", &trace, "-e", &inject]
        .map(str::to_owned)
        .into()
}

/// A strace that is attached to a process.
pub struct Attached {
    child: Child,
    stderr: Lines,
}

/// Attaches, and waits until it is done.
///
/// # Errors
/// If strace cannot be started, or may not attach: what it says.
pub fn attach(pid: i32, options: &[String], patience: Duration) -> io::Result<Attached> {
    let (program, arguments) = options.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments).arg("-p").arg(pid.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    signal::die_with_parent(&mut command, libc::SIGKILL);
    let mut child = command.spawn()?;
    let stderr = child.stderr.take().map(Lines::gather).unwrap_or_default();
    let mut attached = Attached { child, stderr };
    let deadline = Instant::now() + patience;
    while attached.stderr.find(|line| line.contains(" attached").then_some(())).is_none() {
        if attached.child.try_wait()?.is_some() || Instant::now() > deadline {
            thread::sleep(Duration::from_millis(20));
            return Err(io::Error::other(attached.stderr.last()));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(attached)
}

impl Attached {
    /// Detaches from the process.
    pub fn detach(mut self) {
        let pid = i32::try_from(self.child.id()).unwrap_or_default();
        signal::send(pid, libc::SIGINT);
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.child.try_wait().is_ok_and(|status| status.is_none()) {
            if Instant::now() > deadline {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file of strace's, removed in the end.
pub struct Log(PathBuf);

impl Log {
    pub fn new(name: &str) -> Self {
        let name = format!("socks5d-inject-{}-{name}", std::process::id());
        Log(std::env::temp_dir().join(name))
    }

    pub fn path(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }

    /// How many calls were answered with an error in place of being made.
    pub fn injected(&self) -> usize {
        let text = fs::read(&self.0).unwrap_or_default();
        text.split(|byte| *byte == b'\n').filter(|line| line.ends_with(b"(INJECTED)")).count()
    }

    /// The names of the calls in a table of `strace -c`.
    pub fn calls(&self) -> Vec<String> {
        let table = fs::read_to_string(&self.0).unwrap_or_default();
        let rows = table.lines().skip_while(|line| !line.starts_with('-')).skip(1);
        let rows = rows.take_while(|line| !line.starts_with('-'));
        rows.filter_map(|row| row.split_whitespace().last()).map(str::to_owned).collect()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
