//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use getopts::Options;

use crate::peers::KNOWN;
use crate::workload::{ALL, Workload};

/// What to run.
#[derive(Debug)]
pub struct Plan {
    pub workloads: Vec<Workload>,
    pub peers: Vec<String>,
    pub socks5d: PathBuf,
    pub rounds: usize,
    pub time: Duration,
    pub out: PathBuf,
    pub proxy_core: usize,
    pub load_core: usize,
}

/// Reads the arguments. `Ok(None)`: help was asked for; it is in the text.
pub fn parse(arguments: &[String]) -> Result<Option<Plan>, String> {
    let mut options = Options::new();
    options.optflag("h", "help", "show this text");
    options.optopt("w", "workloads", &format!("[{ALL}]"), "LIST");
    options.optmulti("p", "peers", &format!("[{KNOWN}]"), "LIST");
    options.optmulti(
        "",
        "peer",
        "another SOCKS5 server; its command line has {port}",
        "NAME=COMMAND",
    );
    options.optopt("b", "socks5d", "the program to measure [beside this one]", "FILE");
    options.optopt("r", "rounds", "alternating rounds [5]", "N");
    options.optopt("s", "seconds", "of each measurement [2]", "N");
    options.optopt("o", "out", "where the results go [bench/results]", "FOLDER");
    options.optopt("", "proxy-core", "[0]", "N");
    options.optopt("", "load-core", "[1]", "N");
    let given = options.parse(arguments).map_err(|error| error.to_string())?;
    if given.opt_present("help") || !given.free.is_empty() {
        print!("{}", options.usage("Usage: bench [options]"));
        return if given.free.is_empty() { Ok(None) } else { Err("surplus arguments".to_owned()) };
    }
    let workloads = given.opt_str("workloads").unwrap_or_else(|| ALL.to_owned());
    let workloads = list(&workloads).map(str::parse).collect::<Result<_, _>>()?;
    let mut peers = given.opt_strs("peers");
    if peers.is_empty() {
        peers.push(KNOWN.to_owned());
    }
    let mut peers: Vec<String> =
        peers.iter().flat_map(|names| list(names)).map(str::to_owned).collect();
    peers.extend(given.opt_strs("peer"));
    let beside = std::env::current_exe().map_err(|error| error.to_string())?;
    let seconds: f64 = number(&given, "seconds", 2.0)?;
    if !(0.05..=60.0).contains(&seconds) {
        return Err("seconds: 0.05 to 60".to_owned());
    }
    let rounds = number(&given, "rounds", 5)?;
    if !(1..=100).contains(&rounds) {
        return Err("rounds: 1 to 100".to_owned());
    }
    Ok(Some(Plan {
        workloads,
        peers,
        socks5d: given.opt_str("socks5d").map_or(beside.with_file_name("socks5d"), PathBuf::from),
        rounds,
        time: Duration::from_secs_f64(seconds),
        out: given.opt_str("out").unwrap_or_else(|| "bench/results".to_owned()).into(),
        proxy_core: number(&given, "proxy-core", 0)?,
        load_core: number(&given, "load-core", 1)?,
    }))
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn number<T: std::str::FromStr>(
    given: &getopts::Matches,
    name: &str,
    default: T,
) -> Result<T, String> {
    match given.opt_str(name) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| format!("{name}: no number: {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Option<Plan>, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn defaults_and_choices() {
        let plan = parsed("").expect("good").expect("a plan");
        assert_eq!((plan.workloads.len(), plan.peers.len(), plan.rounds), (12, 6, 5));
        let plan = parsed("-w rate-2,hold-9 -p direct -p socks5d -r 1 -s 0.5").expect("good");
        let plan = plan.expect("a plan");
        assert_eq!((plan.workloads.len(), plan.peers.len(), plan.rounds), (2, 2, 1));
        assert_eq!(plan.time, Duration::from_millis(500));
        for bad in ["-w x", "-r 0", "-s 0", "-s x", "-s NaN", "surplus", "--nonsense"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
