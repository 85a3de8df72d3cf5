//! One run: a fresh proxy, one workload, and what came of it.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use crate::load::datagrams::Datagrams;
use crate::load::probe::Echo;
use crate::load::{Load, Route, Runs, Tally};
use crate::peers::Peer;
use crate::process::Proxy;
use crate::stats::quantile;
use crate::workload::{Exchange, Kind, Task, Workload};

/// Figures of a run by name. `value` is the result in the workload's unit, `cpu` the processor time in its
/// own; the rest says by itself what it is.
pub type Sample = BTreeMap<&'static str, f64>;

/// Before figures are taken the load runs so long, or as long as a measurement if that is shorter.
const WARM_UP: Duration = Duration::from_millis(300);
/// To open all tunnels, and to see which are alive.
const OPENING: Duration = Duration::from_secs(20);
const GIB: f64 = (1u64 << 30) as f64;

/// Runs a workload against a peer.
pub fn run(
    workload: Workload,
    peer: &Peer,
    time: Duration,
    core: Option<usize>,
) -> io::Result<Sample> {
    match workload.task {
        Task::Tunnels(kind) => tunnels(kind, workload.tunnels, peer, time, core),
        Task::Datagrams(exchange) => datagrams(exchange, workload.tunnels, peer, time, core),
    }
}

fn tunnels(
    kind: Kind,
    count: usize,
    peer: &Peer,
    time: Duration,
    core: Option<usize>,
) -> io::Result<Sample> {
    let echo = Echo::new()?;
    let mut load = Load::new(kind)?;
    let running = peer.start(load.port(), echo.port(), core)?;
    let proxy = running.proxy.as_ref();
    let mut sample = match kind {
        Kind::Hold => hold(&mut load, count, running.route, proxy, time),
        Kind::Fair => {
            open(&mut load, count, running.route)?;
            let probes = echo.probe(running.probes)?;
            load.run(WARM_UP.min(time))?;
            probes.record();
            let mut sample = measure(&mut load, counted(kind), proxy, time)?;
            latencies(&mut sample, &mut probes.finish()?);
            Ok(sample)
        }
        _ => {
            open(&mut load, count, running.route)?;
            load.run(WARM_UP.min(time))?;
            measure(&mut load, counted(kind), proxy, time)
        }
    };
    // First the tunnels: a proxy may give open ones a time of grace.
    drop(load);
    if let (Ok(sample), Some(proxy)) = (&mut sample, running.proxy) {
        sample.extend(proxy.end());
    }
    sample
}

fn datagrams(
    exchange: Exchange,
    count: usize,
    peer: &Peer,
    time: Duration,
    core: Option<usize>,
) -> io::Result<Sample> {
    let mut load = Datagrams::new(exchange)?;
    // Its origin has no TCP.
    let running = peer.start(0, 0, core)?;
    let proxy = running.proxy.as_ref();
    let mut sample = if exchange == Exchange::Hold {
        hold(&mut load, count, running.route, proxy, time)
    } else {
        open(&mut load, count, running.route)?;
        load.run(WARM_UP.min(time))?;
        measure(&mut load, Counted::Completions, proxy, time)
    };
    drop(load);
    if let (Ok(sample), Some(proxy)) = (&mut sample, running.proxy) {
        sample.extend(proxy.end());
    }
    sample
}

/// What is counted.
#[derive(Clone, Copy)]
enum Counted {
    /// Connections, round trips, datagrams; the unit of processor time is µs.
    Completions,
    /// GiB; the unit of processor time is s.
    Volume,
}

fn counted(kind: Kind) -> Counted {
    match kind {
        Kind::Rate | Kind::PingPong => Counted::Completions,
        Kind::Down | Kind::Up | Kind::Fair | Kind::Hold => Counted::Volume,
    }
}

fn open(load: &mut impl Runs, count: usize, route: Route) -> io::Result<()> {
    let opened = load.open(route, count, Instant::now() + OPENING)?;
    match opened == count {
        true => Ok(()),
        false => Err(io::Error::other(format!("{opened} of {count}"))),
    }
}

fn cpu(proxy: Option<&Proxy>) -> io::Result<Option<Duration>> {
    proxy.map(Proxy::cpu_time).transpose()
}

/// Lets the load run for a while and says what it and the proxy did meanwhile.
fn measure(
    load: &mut impl Runs,
    counted: Counted,
    proxy: Option<&Proxy>,
    time: Duration,
) -> io::Result<Sample> {
    *load.tally() = Tally::default();
    let (before, began) = (cpu(proxy)?, Instant::now());
    load.run(time)?;
    let (after, seconds) = (cpu(proxy)?, began.elapsed().as_secs_f64());
    let tally = load.tally();
    let (count, cpu_unit) = match counted {
        Counted::Completions => (tally.done as f64, 1e-6),
        Counted::Volume => (tally.bytes as f64 / GIB, 1.0),
    };
    if count == 0.0 {
        return Err(io::Error::other("nothing came through"));
    }
    let mut sample = Sample::from([("value", count / seconds), ("failed", tally.failed as f64)]);
    if let (Some(before), Some(after)) = (before, after) {
        let used = after.saturating_sub(before).as_secs_f64();
        sample.insert("cpu", used / cpu_unit / count);
        sample.insert("cores", used / seconds);
    }
    latencies(&mut sample, &mut tally.latencies);
    Ok(sample)
}

fn latencies(sample: &mut Sample, latencies: &mut [u32]) {
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        if let Some(micros) = quantile(latencies, share) {
            sample.insert(name, micros.into());
        }
    }
}

/// Opens tunnels, lets them lie, and sees how many still work.
fn hold(
    load: &mut impl Runs,
    tunnels: usize,
    route: Route,
    proxy: Option<&Proxy>,
    time: Duration,
) -> io::Result<Sample> {
    let memory = |proxy: Option<&Proxy>| proxy.map_or(0, Proxy::rss_kib) as f64;
    let empty = memory(proxy);
    let opened = load.open(route, tunnels, Instant::now() + OPENING)?;
    load.run(WARM_UP.min(time))?;
    let full = memory(proxy);
    let (before, began) = (cpu(proxy)?, Instant::now());
    load.run(time)?;
    let (after, seconds) = (cpu(proxy)?, began.elapsed().as_secs_f64());
    let alive = load.probe_all(Instant::now() + OPENING)?;
    let mut sample = Sample::from([("opened", opened as f64), ("alive", alive as f64)]);
    if let (Some(before), Some(after)) = (before, after) {
        sample.insert("value", (full - empty).max(0.0) / opened.max(1) as f64);
        sample.insert("cpu", after.saturating_sub(before).as_secs_f64() / seconds * 100.0);
    }
    Ok(sample)
}
