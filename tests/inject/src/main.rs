//! `make inject`: each system call that the server makes fails, with each error that makes sense, at several
//! positions, while clients check every byte and every end. strace(1) makes them fail.
//!
//! It looks for deaths, stalls, spins, leaks, wrong bytes and wrong ends. What is known and not the server's
//! fault is in `allowed.rs`, with the reason; anything else ends with exit code 1.

#![allow(clippy::indexing_slicing, reason = "a panic ends a tool that serves nobody")]

mod allowed;
mod case;
mod errnos;
mod origin;
mod report;
mod server;
mod signal;
mod strace;
mod workload;

use std::collections::BTreeMap;
use std::io;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use case::{Phase, Report, Worker};
use origin::Origin;
use strace::Fault;

/// How long a case takes, about, if nothing is wrong.
const CASE: Duration = Duration::from_millis(1100);

/// What is tried.
struct Options {
    /// Servers that are tried at the same time.
    workers: usize,
    /// Two errors and two positions for each call.
    quick: bool,
    /// Only these calls; empty: all.
    calls: Vec<String>,
    /// Only these errors; empty: all.
    errnos: Vec<String>,
    /// What would be tried, and nothing else.
    list: bool,
    /// Findings that are excused are shown one by one, too.
    excused: bool,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("inject: {message}");
            return ExitCode::from(64);
        }
    };
    let strace = Command::new("strace").arg("--version").stdout(Stdio::null()).status();
    if !strace.is_ok_and(|status| status.success()) {
        eprintln!("inject: strace is not installed: nothing was tried");
        return ExitCode::from(69);
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("inject: nothing can be tried: {error}");
            ExitCode::from(69)
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let (calls, errnos) = (Vec::new(), Vec::new());
    let mut options =
        Options { workers: 2, quick: false, calls, errnos, list: false, excused: false };
    let list = |value: Option<String>| -> Result<Vec<String>, String> {
        Ok(value.ok_or("a list is missing")?.split(',').map(str::to_owned).collect())
    };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--calls" => options.calls = list(arguments.next())?,
            "--errors" => options.errnos = list(arguments.next())?,
            "--jobs" => {
                let number = arguments.next().and_then(|text| text.parse().ok());
                options.workers = number.filter(|number| *number > 0).ok_or("--jobs: a number")?;
            }
            "--list" => options.list = true,
            "--excused" => options.excused = true,
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(options)
}

/// Whether nothing was found that is not excused.
fn run(options: &Options) -> io::Result<bool> {
    let origin = Origin::start(workload::ORIGIN_PATIENCE)?;
    let name = workload::local_name();
    let broken = case::without_faults(&origin, &name)?;
    for (step, finding) in &broken {
        println!("without any fault, left out below: {step}: {}: {}", finding.kind, finding.what);
    }
    let hopeless: Vec<&'static str> = broken.iter().map(|(step, _)| *step).collect();
    let (start, serve) = case::calls(&origin, &name)?;
    let cases = cases(options, &start, &serve);
    let estimate = CASE * u32::try_from(cases.len().div_ceil(options.workers)).unwrap_or(u32::MAX);
    println!(
        "{} cases: {} calls at the start, {} under load; about {} min",
        cases.len(),
        start.len(),
        serve.len(),
        estimate.as_secs().div_ceil(60),
    );
    if options.list {
        for (phase, fault) in &cases {
            println!("{phase:?} {}", fault.expression());
        }
        return Ok(true);
    }

    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let reports: Mutex<BTreeMap<usize, Report>> = Mutex::default();
    thread::scope(|scope| -> io::Result<()> {
        let work = |number| {
            let server = None;
            let mut worker =
                Worker { origin: &origin, name: &name, number, hopeless: &hopeless, server };
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((phase, fault)) = cases.get(index) else { return Ok(()) };
                let report = worker.run(*phase, fault)?;
                report::show(*phase, fault, &report, options.excused);
                reports.lock().unwrap_or_else(PoisonError::into_inner).insert(index, report);
            }
        };
        let workers: Vec<_> =
            (0..options.workers).map(|number| scope.spawn(move || work(number))).collect();
        for worker in workers {
            worker.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")))?;
        }
        Ok(())
    })?;
    let reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(report::summary(&cases, &reports, began.elapsed()))
}

/// The matrix, in the order of the calls' names.
fn cases(options: &Options, start: &[String], serve: &[String]) -> Vec<(Phase, Fault)> {
    let positions: &[&'static str] =
        if options.quick { &["1", "1+"] } else { &["1", "2", "10", "1+"] };
    let errors = if options.quick { 2 } else { usize::MAX };
    let mut cases = Vec::new();
    for (phase, calls) in [(Phase::Serve, serve), (Phase::Start, start)] {
        let mut calls: Vec<&String> = calls.iter().collect();
        calls.sort();
        calls.retain(|call| options.calls.is_empty() || options.calls.contains(call));
        for call in calls {
            let mut errnos = errnos::of(call);
            if options.quick && errnos.len() > 4 {
                // One of its own, one of any call.
                errnos = vec![errnos[0], errnos[errnos.len() - 2]];
            }
            errnos.retain(|errno| {
                options.errnos.is_empty() || options.errnos.iter().any(|wanted| wanted == errno)
            });
            for errno in errnos.into_iter().take(errors) {
                for when in positions {
                    cases.push((phase, Fault { call: call.clone(), errno, when }));
                }
            }
        }
    }
    cases
}
