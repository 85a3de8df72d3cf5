//! `make bench`: socks5d, its peers, and no proxy at all, in alternating rounds over loopback.
//!
//! This process is both ends of the load: the clients before the proxy and the origin behind it, on one
//! core; the proxy has another. Each run gets a freshly started proxy. See `bench/README.md`.

#![allow(clippy::indexing_slicing, reason = "a panic ends a tool that serves nobody")]

mod chart;
mod load;
mod machine;
mod options;
mod peers;
mod process;
mod report;
mod run;
mod stats;
mod sys;
mod workload;

use std::fs;
use std::io;
use std::process::ExitCode;

use machine::{Machine, Ticks};
use options::Plan;
use peers::Peer;
use report::{Report, Row, STEAL_LIMIT, Series};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match options::parse(&arguments) {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(plan)) => carry_out(&plan),
        Err(usage) => Err(usage),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(plan: &Plan) -> Result<(), String> {
    let machine = Machine::look();
    let descriptors = socks5d::process::raise_descriptor_limit().map_err(said)?;
    sys::adopt_orphans().map_err(said)?;
    let mut peers = Vec::new();
    for name in &plan.peers {
        match Peer::find(name, &plan.socks5d)? {
            Some(peer) => peers.push(peer),
            None => eprintln!("{name} is not installed: left out"),
        }
    }
    // A new thread or process inherits the core of the one that starts it; proxies get their own.
    let pinned = plan.proxy_core.max(plan.load_core) < machine.cores;
    if pinned {
        sys::pin(plan.load_core).map_err(said)?;
    } else {
        eprintln!("warning: too few cores: proxy and load are not kept apart");
    }
    let core = pinned.then_some(plan.proxy_core);
    let mut report = Report {
        machine,
        rounds: plan.rounds,
        seconds: plan.time.as_secs_f64(),
        series: Vec::new(),
    };
    for workload in &plan.workloads {
        let bounded = workload.bounded(usize::try_from(descriptors).unwrap_or(usize::MAX));
        if bounded != *workload {
            eprintln!("{workload}: {descriptors} descriptors allow only {bounded}");
        }
        report.series.push(series(bounded, &peers, plan, core));
    }
    let table = report.markdown();
    println!("\n{table}");
    fs::create_dir_all(&plan.out).map_err(said)?;
    let json = format!("{:#}\n", report.json());
    for (name, text) in
        [("results.md", table), ("results.json", json), ("chart.svg", chart::svg(&report))]
    {
        fs::write(plan.out.join(name), text).map_err(said)?;
    }
    eprintln!("written: results.md, results.json and chart.svg in {}", plan.out.display());
    Ok(())
}

fn said(error: io::Error) -> String {
    error.to_string()
}

/// All rounds of a workload. The peers take turns, so that whatever else the machine does meets all.
fn series(
    workload: workload::Workload,
    peers: &[Peer],
    plan: &Plan,
    core: Option<usize>,
) -> Series {
    let before = Ticks::now();
    let peers: Vec<&Peer> = peers.iter().filter(|peer| peer.can(workload)).collect();
    let mut rows: Vec<Row> = peers.iter().map(|peer| Row::new(&peer.name)).collect();
    for round in 1..=plan.rounds {
        for (peer, row) in peers.iter().zip(&mut rows) {
            eprint!("\r{workload}: round {round} of {}: {:<16}", plan.rounds, peer.name);
            match run::run(workload, peer, plan.time, core) {
                Ok(sample) => row.samples.push(sample),
                Err(error) => {
                    eprintln!("\n{workload}: {}: {error}", peer.name);
                    row.failures += 1;
                }
            }
        }
    }
    let steal = Ticks::now().steal_since(before);
    eprintln!("\r{workload}: done, {:.1} % of the time stolen by the host{:20}", steal * 100.0, "");
    if steal > STEAL_LIMIT {
        eprintln!("warning: {workload}: more than 2 % stolen: do not trust this series");
    }
    Series { workload, steal, rows }
}
