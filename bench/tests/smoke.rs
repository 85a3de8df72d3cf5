//! One tiny round against the real programs: what `make bench` does, in two seconds.

#![cfg(test)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Each kind of workload yields figures of socks5d, and all three files are written.
#[test]
fn a_tiny_round_yields_figures() {
    let program = Path::new(env!("CARGO_BIN_EXE_bench"));
    let folder = tempfile::tempdir().expect("a folder");
    // As in every test of a program: `cargo build --workspace --bins` has built it.
    let socks5d = program.with_file_name("socks5d");
    let workloads = "rate-4,bulk-down-2,hold-20,fair-2,udp-rate-2,udp-pingpong-2,udp-hold-20";
    let round = |seconds| {
        Command::new(program)
            .args(["-w", workloads, "-p", "socks5d", "-r", "1", "-s", seconds, "-b"])
            .arg(&socks5d)
            .arg("-o")
            .arg(folder.path())
            .output()
            .expect("the program runs")
    };
    // In so short a round nothing may come through on a machine that is busy.
    let is_too_short =
        |output: &Output| String::from_utf8_lossy(&output.stderr).contains("nothing came through");
    let mut outputs = ["0.2", "1", "5"].into_iter().map(round);
    let output = outputs.find(|output| !is_too_short(output)).expect("in 5 s");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect(name);
    let json: Value = serde_json::from_str(&read("results.json")).expect("JSON");
    for (index, workload) in workloads.split(',').enumerate() {
        let series = &json["series"][index];
        assert_eq!(series["workload"], workload);
        let figures = &series["peers"][0]["medians"];
        let cpu = figures["cpu"].as_f64();
        match workload {
            "hold-20" | "udp-hold-20" => assert_eq!(figures["alive"], 20.0, "{said}"),
            _ => assert!(figures["value"].as_f64() > Some(0.0) && cpu > Some(0.0), "{said}"),
        }
        if ["rate", "fair", "udp-rate", "udp-ping"].iter().any(|kind| workload.starts_with(kind)) {
            assert!(figures["p99"].as_f64() >= figures["p50"].as_f64(), "{said}");
            assert!(figures["p50"].as_f64() > Some(0.0) && figures["failed"] == 0.0, "{said}");
        }
    }
    assert!(read("results.md").contains("| rate-4 | socks5d |"));
    assert!(read("chart.svg").ends_with("</svg>\n"));
}
