//! One fault under the whole workload, and what is wrong afterwards.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::origin::Origin;
use crate::server::{self, Server, Started};
use crate::strace::{self, Fault, Log};
use crate::workload::{self, Outcome, PATIENCE, STEPS, Stage};

/// How long the server may take to come to rest, and to start or end.
const REST: Duration = Duration::from_secs(6);
/// How long it is watched at rest, and how much of that it may work.
const WATCH: Duration = Duration::from_millis(100);
const WORK: Duration = Duration::from_millis(25);
/// A call that fails more often in one case is made in an endless loop, also on a machine that is too busy to
/// show it as work.
const CALLS: usize = 20_000;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The process has ended, or panicked.
    Death,
    /// A client that gets neither bytes nor an end.
    Stall,
    /// A client that comes after the fault and is not served.
    NotServed,
    /// CPU time without work to do.
    Spin,
    /// Connections or descriptors that stay.
    Leak,
    /// Bytes that were not sent.
    WrongBytes,
    /// A FIN before the transfer is complete.
    WrongEnd,
}

/// Displays as in the summary.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Death => "death",
            Kind::Stall => "stall",
            Kind::NotServed => "not served",
            Kind::Spin => "spin",
            Kind::Leak => "leak",
            Kind::WrongBytes => "wrong bytes",
            Kind::WrongEnd => "wrong end",
        })
    }
}

/// Something that is wrong.
#[derive(Clone, Debug)]
pub struct Finding {
    pub kind: Kind,
    pub what: String,
}

fn finding(kind: Kind, what: impl Into<String>) -> Finding {
    Finding { kind, what: what.into() }
}

/// When calls fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// From the first instruction on, with a short client and SIGTERM.
    Start,
    /// Under load.
    Serve,
}

/// The outcome of a case.
pub struct Report {
    pub findings: Vec<Finding>,
    /// How many calls failed.
    pub injected: usize,
}

/// What the cases of one worker share.
pub struct Worker<'a> {
    pub origin: &'a Origin,
    pub name: &'a str,
    /// Makes the names of its files its own.
    pub number: usize,
    /// Steps that fail even where no call does.
    pub hopeless: &'a [&'static str],
    pub server: Option<Box<Server>>,
}

impl Worker<'_> {
    /// Tries one fault.
    ///
    /// # Errors
    /// If the server or strace cannot be started, without any fault.
    pub fn run(&mut self, phase: Phase, fault: &Fault) -> io::Result<Report> {
        match phase {
            Phase::Start => self.start(fault),
            Phase::Serve => {
                let report = self.serve(fault)?;
                if report.injected > 0 || !report.findings.is_empty() {
                    return Ok(report);
                }
                // Perhaps the call comes once only: threads that run do not start.
                self.server = None;
                self.serve(fault)
            }
        }
    }

    fn fresh(&mut self) -> io::Result<Box<Server>> {
        match self.server.take() {
            Some(server) => Ok(server),
            None => match server::start(&[], REST)? {
                Started::Up(mut server) => {
                    let look = || server.descriptors();
                    let seen = workload::open_connections(server.metp, look);
                    let (_, open) = seen.ok_or(io::ErrorKind::TimedOut)?;
                    // The session that asks has one of them.
                    server.at_rest = open.checked_sub(1);
                    Ok(server)
                }
                Started::Ended(status, said) => Err(io::Error::other(format!("{status}: {said}"))),
                Started::Hangs => Err(io::ErrorKind::TimedOut.into()),
            },
        }
    }

    fn serve(&mut self, fault: &Fault) -> io::Result<Report> {
        let mut server = self.fresh()?;
        let log = Log::new(&format!("{}.log", self.number));
        let attached = strace::attach(server.pid, &strace::options(fault, &log.path()), REST)?;
        let stage = Stage::of(&server, self.origin, self.name);
        let mut findings = run_steps(&stage, &mut server, self.hopeless);
        if server.ended().is_none() && spins(&server) {
            findings.push(finding(Kind::Spin, "while the fault lasts"));
        }
        attached.detach();
        let injected = log.injected();
        if injected > CALLS && !findings.iter().any(|found| found.kind == Kind::Spin) {
            findings.push(finding(Kind::Spin, format!("{injected} calls failed")));
        }
        let report = |findings| Report { findings, injected };
        if let Some(death) = death(&mut server) {
            findings.push(death);
            return Ok(report(findings));
        }
        let stage = Stage::of(&server, self.origin, self.name);
        match workload::healthy(&stage) {
            Outcome::Whole => {}
            outcome => findings.push(finding(Kind::NotServed, format!("afterwards: {outcome:?}"))),
        }
        findings.extend(rest(&mut server));
        // A server with a finding is not used for the next case.
        if findings.is_empty() {
            self.server = Some(server);
        }
        Ok(report(findings))
    }

    fn start(&mut self, fault: &Fault) -> io::Result<Report> {
        let log = Log::new(&format!("{}.log", self.number));
        let mut findings = Vec::new();
        match server::start(&strace::options(fault, &log.path()), REST)? {
            Started::Hangs => findings.push(finding(Kind::Stall, "neither listens nor ends")),
            Started::Ended(status, said) => {
                let panicked = said.contains("panicked");
                if status.success() || status.signal().is_some() || panicked || said.is_empty() {
                    findings.push(finding(Kind::Death, format!("at the start: {status}: {said}")));
                }
            }
            Started::Up(mut server) => {
                let stage = Stage::of(&server, self.origin, self.name);
                // A short one: the fault may last, so it need not be served.
                let (_, step) = STEPS[2];
                findings.extend(judged("request by address", step(&stage)));
                match death(&mut server) {
                    Some(death) => findings.push(death),
                    None => match server.terminate(REST) {
                        None => findings.push(finding(Kind::Stall, "does not end")),
                        Some(status) if status.signal().is_some() => {
                            findings.push(finding(Kind::Death, format!("in the end: {status}")));
                        }
                        Some(_) => {}
                    },
                }
            }
        }
        Ok(Report { findings, injected: log.injected() })
    }
}

/// All steps, until two have stalled or the server is gone.
pub fn run_steps(stage: &Stage<'_>, server: &mut Server, hopeless: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut stalls = 0;
    for (name, step) in STEPS {
        if hopeless.contains(&name) {
            continue;
        }
        let found = judged(name, step(stage));
        stalls += usize::from(found.as_ref().is_some_and(|found| found.kind == Kind::Stall));
        findings.extend(found);
        if stalls == 2 || server.ended().is_some() {
            break;
        }
    }
    findings
}

fn judged(step: &str, outcome: Outcome) -> Option<Finding> {
    let (kind, what) = match outcome {
        Outcome::Whole | Outcome::BadEnd(_) => return None,
        Outcome::WrongEnd(what) => (Kind::WrongEnd, what),
        Outcome::WrongBytes(what) => (Kind::WrongBytes, what),
        Outcome::Stalled(what) => (Kind::Stall, what),
    };
    Some(finding(kind, format!("{step}: {what}")))
}

fn death(server: &mut Server) -> Option<Finding> {
    // What has killed it may not have been waited for yet.
    thread::sleep(Duration::from_millis(5));
    if let Some(status) = server.ended() {
        return Some(finding(Kind::Death, format!("{status}: {}", server.stderr.last_words())));
    }
    let panic = server.stderr.find(|line| line.contains("panicked").then(|| line.to_owned()))?;
    Some(finding(Kind::Death, panic))
}

/// Uses CPU time without work to do. Measured twice: it may have been about to come to rest.
fn spins(server: &Server) -> bool {
    (0..2).all(|_| {
        let before = server.cpu();
        thread::sleep(WATCH);
        server.cpu().saturating_sub(before) > WORK
    })
}

/// Comes to rest with nothing left behind.
fn rest(server: &mut Server) -> Vec<Finding> {
    let mut findings = Vec::new();
    let deadline = Instant::now() + REST;
    loop {
        let open = workload::open_connections(server.metp, || ()).map(|(open, ())| open);
        let (now, at_rest) = (server.descriptors(), server.at_rest.unwrap_or_default());
        if open == Some(0) && now <= at_rest {
            break;
        }
        if Instant::now() > deadline {
            let what = format!(
                "{open:?} connections, {now} descriptors, {at_rest} at rest: {:?}",
                server.links()
            );
            findings.push(finding(Kind::Leak, what));
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    if server.pipe_ends() > 300 {
        findings.push(finding(Kind::Leak, format!("{} ends of pipes", server.pipe_ends())));
    }
    if spins(server) {
        findings.push(finding(Kind::Spin, "afterwards"));
    }
    findings.extend(death(server));
    findings
}

/// The steps that fail where no call does, with what is wrong.
///
/// # Errors
/// If the server cannot be started.
pub fn without_faults(origin: &Origin, name: &str) -> io::Result<Vec<(&'static str, Finding)>> {
    let Started::Up(server) = server::start(&[], REST)? else {
        return Err(io::Error::other("the server does not start"));
    };
    let stage = Stage::of(&server, origin, name);
    let run = |(name, step): (&'static str, fn(&Stage<'_>) -> Outcome)| match step(&stage) {
        Outcome::Whole => None,
        Outcome::BadEnd(what) => Some((name, finding(Kind::WrongEnd, format!("refused: {what}")))),
        outcome => judged(name, outcome).map(|found| (name, found)),
    };
    Ok(STEPS.into_iter().filter_map(run).collect())
}

/// The calls that a server makes from its start to its end, and those under load.
///
/// # Errors
/// If the server or strace cannot be started.
pub fn calls(origin: &Origin, name: &str) -> io::Result<(Vec<String>, Vec<String>)> {
    let count = |log: &Log| ["strace", "-I2", "-f", "-c", "-o", &log.path()].map(str::to_owned);
    let log = Log::new("start.calls");
    let Started::Up(server) = server::start(&count(&log), REST)? else {
        return Err(io::Error::other("the server does not start under strace"));
    };
    let stage = Stage::of(&server, origin, name);
    let (_, step) = STEPS[2];
    step(&stage);
    server.terminate(REST).ok_or(io::ErrorKind::TimedOut)?;
    let start = log.calls();

    let log = Log::new("serve.calls");
    let Started::Up(mut server) = server::start(&[], REST)? else {
        return Err(io::Error::other("the server does not start"));
    };
    let attached = strace::attach(server.pid, &count(&log), PATIENCE)?;
    let stage = Stage::of(&server, origin, name);
    run_steps(&stage, &mut server, &[]);
    attached.detach();
    Ok((start, log.calls()))
}
