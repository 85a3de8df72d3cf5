//! What came out: medians, ratios, one table, one JSON document.

use serde_json::{Map, Value, json};

use crate::machine::Machine;
use crate::run::Sample;
use crate::stats::{median, ratio};
use crate::workload::Workload;

/// The share of stolen time above which a series is not to be trusted.
pub const STEAL_LIMIT: f64 = 0.02;

/// Everything that was measured.
pub struct Report {
    pub machine: Machine,
    pub rounds: usize,
    pub seconds: f64,
    pub series: Vec<Series>,
}

/// All rounds of one workload.
pub struct Series {
    pub workload: Workload,
    pub steal: f64,
    pub rows: Vec<Row>,
}

/// All rounds of one peer in a series.
pub struct Row {
    pub peer: String,
    pub samples: Vec<Sample>,
    /// Runs that yielded nothing.
    pub failures: usize,
}

impl Row {
    pub fn new(peer: &str) -> Self {
        Row { peer: peer.to_owned(), samples: Vec::new(), failures: 0 }
    }

    /// The median of a figure over the rounds that have it.
    pub fn median(&self, name: &str) -> Option<f64> {
        let values: Vec<f64> =
            self.samples.iter().filter_map(|sample| sample.get(name).copied()).collect();
        median(&values)
    }
}

impl Series {
    /// What ratios refer to: haproxy, else the first peer that is a proxy, else the first.
    pub fn reference(&self) -> Option<&Row> {
        let named = |name: &str| self.rows.iter().find(|row| row.peer == name);
        let proxy = || self.rows.iter().find(|row| row.peer != "direct");
        named("haproxy").or_else(proxy).or_else(|| self.rows.first())
    }

    /// A figure of a row, and how many times the reference's it is.
    pub fn figure(&self, row: &Row, name: &str) -> (Option<f64>, Option<f64>) {
        let value = row.median(name);
        (value, ratio(value, self.reference().and_then(|reference| reference.median(name))))
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let mut medians = Map::new();
            let names: Vec<&str> = row.samples.iter().flat_map(|s| s.keys().copied()).collect();
            for name in names {
                medians.insert(name.to_owned(), json!(row.median(name)));
            }
            json!({
                "peer": row.peer,
                "medians": medians,
                "ratios": {
                    "value": self.figure(row, "value").1,
                    "cpu": self.figure(row, "cpu").1,
                },
                "rounds": row.samples,
                "failures": row.failures,
            })
        });
        json!({
            "workload": self.workload.to_string(),
            "unit": self.workload.unit(),
            "cpu_unit": self.workload.cpu_unit(),
            "reference": self.reference().map(|row| row.peer.as_str()),
            "steal": self.steal,
            "peers": rows.collect::<Vec<_>>(),
        })
    }

    fn rows(&self) -> impl Iterator<Item = String> {
        self.rows.iter().map(|row| {
            let (value, times) = self.figure(row, "value");
            let (cpu, cpu_times) = self.figure(row, "cpu");
            let workload = self.workload;
            format!(
                "| {workload} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
                row.peer,
                with_unit(value, workload.unit()),
                shown(times),
                with_unit(cpu, workload.cpu_unit()),
                shown(cpu_times),
                row.median("p50").map_or("–".to_owned(), |micros| format!("{micros:.0}")),
                row.median("p99").map_or("–".to_owned(), |micros| format!("{micros:.0}")),
                shown(row.median("cores")),
                self.remarks(row),
            )
        })
    }

    fn remarks(&self, row: &Row) -> String {
        let mut remarks = Vec::new();
        if let Some(failed) = row.median("failed").filter(|failed| *failed > 0.0) {
            remarks.push(format!("{failed:.0} failed"));
        }
        if self.workload.holds()
            && let (Some(opened), Some(alive)) = (row.median("opened"), row.median("alive"))
        {
            remarks.push(format!("{opened:.0} opened, {alive:.0} alive at the end"));
        }
        if let (Some(half), Some(most)) = (row.median("turn_p50"), row.median("turn_p99")) {
            remarks.push(format!("turns of its loop: p50 {half:.0} µs, p99 {most:.0} µs"));
        }
        if row.failures > 0 {
            remarks.push(format!("{} runs without a result", row.failures));
        }
        remarks.join(", ")
    }
}

impl Report {
    /// The table, with what has to be known beside it.
    pub fn markdown(&self) -> String {
        let reference =
            self.series.first().and_then(Series::reference).map_or("nothing", |row| &row.peer);
        let mut text = format!(
            "{}\n\nMedians of {} rounds of {} s. × is the ratio to {reference}; p50 and p99 in µs.\n\n\
             | workload | peer | result | × | CPU | × | p50 | p99 | cores | remarks |\n\
             |---|---|---:|---:|---:|---:|---:|---:|---:|---|\n",
            self.machine.line(),
            self.rounds,
            self.seconds,
        );
        text.extend(self.series.iter().flat_map(Series::rows));
        let steal = self.series.iter().map(|series| {
            let warning = if series.steal > STEAL_LIMIT { " (**not to be trusted**)" } else { "" };
            format!("{} {:.1} %{warning}", series.workload, series.steal * 100.0)
        });
        text.push_str("\nTime stolen by the host: ");
        text.push_str(&steal.collect::<Vec<_>>().join(", "));
        text.push_str(".\n");
        text
    }

    pub fn json(&self) -> Value {
        json!({
            "date": self.machine.date,
            "machine": self.machine.json(),
            "rounds": self.rounds,
            "seconds": self.seconds,
            "series": self.series.iter().map(Series::json).collect::<Vec<_>>(),
        })
    }
}

fn shown(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.2}"))
}

fn with_unit(value: Option<f64>, unit: &str) -> String {
    value.map_or("–".to_owned(), |value| format!("{} {unit}", digits(value)))
}

/// Three digits that say something, or the whole number.
pub fn digits(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        medium if medium >= 10.0 => format!("{value:.1}"),
        small if small >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Two workloads, three peers, one of which never came up.
    pub fn example() -> Report {
        let row = |peer: &str, values: &[(f64, f64)]| {
            let sample = |(value, cpu): &(f64, f64)| {
                let mut sample = Sample::from([("value", *value), ("failed", 0.0)]);
                if *cpu > 0.0 {
                    sample.insert("cpu", *cpu);
                }
                sample
            };
            let samples: Vec<Sample> = values.iter().map(sample).collect();
            Row { failures: 3 - samples.len(), peer: peer.to_owned(), samples }
        };
        let series = |name: &str, steal: f64| Series {
            workload: name.parse().expect("a workload"),
            steal,
            rows: vec![
                row("direct", &[(30.0, 0.0), (29.0, 0.0), (31.0, 0.0)]),
                row("haproxy", &[(20.0, 40.0), (10.0, 80.0), (21.0, 42.0)]),
                row("a<b>&\"c\"", &[(15.0, 50.0), (16.0, 63.0), (2.0, 90.0)]),
                row("absent", &[]),
            ],
        };
        Report {
            machine: Machine {
                cpu: "A CPU <&>".to_owned(),
                cores: 2,
                kernel: "6.18".to_owned(),
                congestion: "cubic".to_owned(),
                date: "2026-11-22T15:00:00Z".to_owned(),
            },
            rounds: 3,
            seconds: 2.0,
            series: vec![series("rate-64", 0.001), series("hold-8", 0.05)],
        }
    }

    #[test]
    fn ratios_refer_to_haproxy() {
        let report = example();
        let series = &report.series[0];
        let figures = |row: usize, name: &str| series.figure(&series.rows[row], name);
        assert_eq!(figures(0, "value"), (Some(30.0), Some(1.5)));
        assert_eq!(figures(0, "cpu"), (None, None));
        assert_eq!(figures(1, "value"), (Some(20.0), Some(1.0)));
        assert_eq!(figures(2, "value"), (Some(15.0), Some(0.75)));
        assert_eq!(figures(2, "cpu"), (Some(63.0), Some(1.5)));
        assert_eq!(figures(3, "value"), (None, None));
    }

    #[test]
    fn without_haproxy_the_first_proxy_is_the_reference() {
        let mut series = example().series.remove(0);
        series.rows.remove(1);
        assert_eq!(series.reference().map(|row| row.peer.as_str()), Some("a<b>&\"c\""));
        series.rows.truncate(1);
        assert_eq!(series.reference().map(|row| row.peer.as_str()), Some("direct"));
    }

    #[test]
    fn the_table_has_a_row_for_each_peer() {
        let text = example().markdown();
        assert_eq!(text.lines().filter(|line| line.starts_with("| rate-64 |")).count(), 4);
        assert!(text.contains("| rate-64 | haproxy | 20.0 conn/s | 1.00 | 42.0 µs/conn | 1.00 |"));
        assert!(text.contains("| rate-64 | absent | – | – | – | – | – | – | – | 3 runs without"));
        assert!(text.contains("rate-64 0.1 %, hold-8 5.0 % (**not to be trusted**)"));
        assert!(text.contains("2026-11-22T15:00:00Z, 2 cores, A CPU <&>, Linux 6.18"));
        let columns: Vec<usize> = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.matches('|').count())
            .collect();
        assert!(columns.iter().all(|count| *count == 11), "{columns:?}");
    }

    #[test]
    fn the_json_has_rounds_medians_and_ratios() {
        let json = example().json();
        assert_eq!(json["machine"]["cores"], 2);
        assert_eq!(json["date"], "2026-11-22T15:00:00Z");
        let series = &json["series"][0];
        assert_eq!(series["workload"], "rate-64");
        assert_eq!(series["reference"], "haproxy");
        assert_eq!(series["steal"], 0.001);
        let peer = &series["peers"][2];
        assert_eq!(peer["rounds"].as_array().map(Vec::len), Some(3));
        assert_eq!(peer["rounds"][0]["value"], 15.0);
        assert_eq!(peer["medians"]["value"], 15.0);
        assert_eq!(peer["ratios"]["value"], 0.75);
        assert!(series["peers"][3]["ratios"]["value"].is_null());
        let again: Value = serde_json::from_str(&json.to_string()).expect("JSON");
        assert_eq!(again, json);
    }
}
