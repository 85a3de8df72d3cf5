//! Alerts for Prometheus and the board for Grafana ask for metrics and labels that exist.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use socks5d::reactor::buffer::Pool;
use socks5d::state::Shared;
use socks5d::state::control::{ProcessUsage, ServerInfo};
use socks5d::state::samples::{SampleSources, samples};
use socks5d::state::settings::Settings;
use socks5d::state::users::Users;

use super::documents::{file, read};

const ALERTS: &str = "contrib/prometheus/alerts.yml";
const BOARD: &str = "contrib/grafana/socks5d.json";

/// The names of metrics, and their labels as `name="value"`.
fn known() -> (BTreeSet<String>, BTreeSet<String>) {
    let shared = Shared::new(Settings::default(), Users::default());
    let (pool, status) = (Pool::new(1, 1), ServerInfo::default());
    let process_usage = Some(ProcessUsage::default());
    let sources = SampleSources {
        shared: &shared,
        pool: &pool,
        status: &status,
        process_usage,
        now: Instant::now(),
    };
    let samples = samples(&sources);
    let names = samples.iter().map(|sample| sample.metric.name.to_owned()).collect();
    let labels = samples.iter().flat_map(|sample| sample.labels.iter());
    (names, labels.map(|(name, value)| format!("{name}=\"{value}\"")).collect())
}

/// The words of a text that may be names of metrics.
fn metrics(text: &str) -> BTreeSet<&str> {
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !is_letter(letter));
    words.filter(|word| word.starts_with("socks5d_") || word.starts_with("process_")).collect()
}

#[test]
fn alerts_and_board_ask_for_what_there_is() {
    let (names, labels) = known();
    for path in [ALERTS, BOARD] {
        let text = read(path).replace("\\\"", "\"");
        let asked = metrics(&text);
        assert!(asked.len() >= 8, "{path}: {asked:?}");
        for name in asked {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let known = names.contains(name) || base.is_some_and(|base| names.contains(base));
            assert!(known, "{path}: {name}");
        }
        for key in ["service", "reason", "direction", "stage", "code", "limit", "cause"] {
            for (at, _) in text.match_indices(&format!("{key}=\"")) {
                let label = text[at..].split_inclusive('"').take(2).collect::<String>();
                assert!(labels.contains(&label), "{path}: {label}");
            }
        }
    }
    let python = Command::new("python3").args(["-m", "json.tool"]).arg(file(BOARD)).output();
    assert!(python.expect("python3").status.success(), "{BOARD} is no JSON");
}

/// Where Prometheus is installed, it reads the alerts.
#[test]
fn prometheus_takes_the_alerts() {
    let Ok(output) = Command::new("promtool").args(["check", "rules"]).arg(file(ALERTS)).output()
    else {
        return support::note("promtool is not installed, the alerts were not read by it\n");
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
