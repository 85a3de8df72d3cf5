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

use super::documents::{between, file, read};

const ALERTS: &str = "contrib/prometheus/alerts.yml";
const ALERTS_TEST: &str = "tests/peers/alerts_test.yml";
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
    let source = read("src/http/exposition.rs");
    let of_users = between(&source, "            name: \"", "\"").into_iter().map(str::to_owned);
    let names = samples.iter().map(|sample| sample.metric.name.to_owned()).chain(of_users);
    let names: BTreeSet<String> = names.collect();
    assert!(names.contains("socks5d_user_connections"));
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
        for key in
            ["service", "reason", "direction", "stage", "code", "limit", "cause", "result", "file"]
        {
            for (at, _) in text.match_indices(&format!("{key}=\"")) {
                let label = text[at..].split_inclusive('"').take(2).collect::<String>();
                assert!(labels.contains(&label), "{path}: {label}");
            }
        }
    }
    let python = Command::new("python3").args(["-m", "json.tool"]).arg(file(BOARD)).output();
    assert!(python.expect("python3").status.success(), "{BOARD} is no JSON");
}

/// Where Prometheus is installed, it reads the alerts, and each of them fires when it has to, and only then.
#[test]
fn prometheus_takes_the_alerts() {
    let (rules, tests) = (read(ALERTS), read(ALERTS_TEST));
    for name in between(&rules, "- alert: ", "\n") {
        let silent = format!("alertname: {name}, eval_time: 20m, exp_alerts: [] }}");
        assert!(tests.contains(&silent), "{ALERTS_TEST}: {name} does not fire");
        assert!(tests.contains(&format!("- alertname: {name}\n")), "{ALERTS_TEST}: {name} fires");
    }
    for (command, path) in [("check", ALERTS), ("test", ALERTS_TEST)] {
        let output = Command::new("promtool").args([command, "rules"]).arg(file(path)).output();
        let Ok(output) = output else {
            return support::note("promtool is not installed, the alerts were not read by it\n");
        };
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&said));
    }
}
