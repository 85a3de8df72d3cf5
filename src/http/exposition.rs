//! The text format of Prometheus, version 0.0.4: samples with their names, help and types.

use std::fmt::Write;
use std::time::Duration;

use metp_protocol::text::Escaped;

use crate::state::histogram::Histogram;
use crate::state::samples::{DOWN, Label, Metric, MetricKind, MetricSample, SampleValue, UP};
use crate::state::users::Account;

/// Samples as text. Those of one metric stand together.
pub fn text(samples: &[MetricSample]) -> String {
    let mut text = String::new();
    let mut of: Option<&Metric> = None;
    for MetricSample { metric, labels, value } in samples {
        if of.replace(metric) != Some(metric) {
            header(metric, &mut text);
        }
        let labels = labels_text(labels);
        match value {
            SampleValue::Number(number) => line(metric.name, &labels, number, &mut text),
            SampleValue::Seconds(time) => line(metric.name, &labels, &seconds(*time), &mut text),
            SampleValue::Histogram(times) => histogram(metric.name, times, &mut text),
        }
    }
    text
}

/// The lines that say what a metric is.
pub fn header(metric: &Metric, text: &mut String) {
    let kind = match metric.kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    };
    let Metric { name, help, .. } = metric;
    let written = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    debug_assert!(written.is_ok(), "a String takes everything");
}

fn line(name: &str, labels: &str, value: &dyn std::fmt::Display, text: &mut String) {
    let written = match labels {
        "" => writeln!(text, "{name} {value}"),
        labels => writeln!(text, "{name}{{{labels}}} {value}"),
    };
    debug_assert!(written.is_ok(), "a String takes everything");
}

/// Buckets are cumulative, and the last one has all.
fn histogram(name: &str, times: &Histogram, text: &mut String) {
    let bucket = format!("{name}_bucket");
    let (count, mut within) = (times.count(), 0);
    let bounds = times.counts().count();
    // The last bucket has no bound: it counts all that is longer.
    for (bound, times) in times.counts().take(bounds.saturating_sub(1)) {
        within += times;
        line(&bucket, &format!("le=\"{}\"", seconds(bound)), &within, text);
    }
    line(&bucket, "le=\"+Inf\"", &count, text);
    line(&format!("{name}_sum"), "", &seconds(times.sum()), text);
    line(&format!("{name}_count"), "", &count, text);
}

/// Seconds without zeros at the end: `0.000001`, `8.388608`, `3`.
fn seconds(time: Duration) -> String {
    let text = format!("{}.{:06}", time.as_secs(), time.subsec_micros());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Labels of the server: they need no escapes.
fn labels_text(labels: &[Label]) -> String {
    let pairs: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    pairs.join(",")
}

/// A metric of accounts.
pub struct UserMetric {
    /// The metric.
    pub metric: Metric,
    /// Appends the lines of an account, if it has any. The number is the time, in seconds of UNIX time.
    pub write: fn(&Account, u64, &mut String),
}

/// The metrics of accounts that have moved a byte.
pub const USER_METRICS: [UserMetric; 4] = [
    UserMetric {
        metric: Metric {
            name: "socks5d_user_payload_bytes_total",
            kind: MetricKind::Counter,
            help: "Payload delivered for an account, up to targets and down to clients.",
        },
        write: |account, _, text| {
            let usage = &account.usage;
            for ((_, direction), bytes) in [(UP, usage.up.get()), (DOWN, usage.down.get())] {
                of_user(account, "socks5d_user_payload_bytes_total", Some(direction), bytes, text);
            }
        },
    },
    UserMetric {
        metric: Metric {
            name: "socks5d_user_connections",
            kind: MetricKind::Gauge,
            help: "SOCKS connections of an account that are open now.",
        },
        write: |account, _, text| {
            let open = account.usage.open.get();
            of_user(account, "socks5d_user_connections", None, open, text);
        },
    },
    UserMetric {
        metric: Metric {
            name: "socks5d_user_quota_bytes",
            kind: MetricKind::Gauge,
            help: "Payload that an account with a quota may move in a period.",
        },
        write: |account, _, text| {
            let limits = account.usage.in_force();
            if let Some(quota) = limits.as_ref().and_then(|limits| limits.quota.as_ref()) {
                of_user(account, "socks5d_user_quota_bytes", None, quota.bytes, text);
            }
        },
    },
    UserMetric {
        metric: Metric {
            name: "socks5d_user_quota_used_bytes",
            kind: MetricKind::Gauge,
            help: "Payload that an account with a quota has moved in this period.",
        },
        write: |account, time, text| {
            if let Some(used) = account.usage.quota_used(time) {
                of_user(account, "socks5d_user_quota_used_bytes", None, used, text);
            }
        },
    },
];

fn of_user(account: &Account, name: &str, direction: Option<&str>, value: u64, text: &mut String) {
    if account.usage.up.get() == 0 && account.usage.down.get() == 0 {
        return;
    }
    // Odd bytes are escaped as in METP, and what is escaped so is again as labels have it.
    let user = Escaped(&account.name).to_string().replace('\\', "\\\\").replace('"', "\\\"");
    let direction = direction.map_or(String::new(), |word| format!(",direction=\"{word}\""));
    line(name, &format!("user=\"{user}\"{direction}"), &value, text);
}

#[cfg(test)]
mod tests {
    use metp_protocol::Role;

    use super::*;
    use crate::state::samples::{ACCEPTED, PAYLOAD, SOCKS, TURN_TIME, UPTIME};
    use crate::state::users::Users;

    #[test]
    fn samples_are_lines() {
        let mut times = Histogram::default();
        for micros in [1, 3, 1500, 3_000_000_000] {
            times.record(Duration::from_micros(micros));
        }
        let sample = |metric, labels: &[Label], value| MetricSample {
            metric,
            labels: labels.to_vec(),
            value,
        };
        let text = text(&[
            sample(&UPTIME, &[], SampleValue::Seconds(Duration::from_millis(1500))),
            sample(&ACCEPTED, &[SOCKS], SampleValue::Number(7)),
            sample(&PAYLOAD, &[UP], SampleValue::Number(u64::MAX)),
            sample(&PAYLOAD, &[DOWN], SampleValue::Number(0)),
            sample(&TURN_TIME, &[], SampleValue::Histogram(times)),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..9],
            [
                "# HELP socks5d_uptime_seconds Time since the start of the server.",
                "# TYPE socks5d_uptime_seconds gauge",
                "socks5d_uptime_seconds 1.5",
                "# HELP socks5d_accepted_total Sessions accepted, by service.",
                "# TYPE socks5d_accepted_total counter",
                "socks5d_accepted_total{service=\"socks\"} 7",
                "# HELP socks5d_payload_bytes_total Payload delivered by tunnels, up to targets and down to clients.",
                "# TYPE socks5d_payload_bytes_total counter",
                "socks5d_payload_bytes_total{direction=\"up\"} 18446744073709551615",
            ]
        );
        let of_turns: Vec<&str> =
            lines.iter().copied().filter(|line| line.starts_with("socks5d_turn_seconds")).collect();
        assert_eq!(of_turns[0], "socks5d_turn_seconds_bucket{le=\"0.000001\"} 1");
        assert_eq!(of_turns[2], "socks5d_turn_seconds_bucket{le=\"0.000004\"} 2");
        assert_eq!(of_turns[11], "socks5d_turn_seconds_bucket{le=\"0.002048\"} 3");
        assert_eq!(of_turns[22], "socks5d_turn_seconds_bucket{le=\"4.194304\"} 3");
        assert_eq!(
            of_turns[23..],
            [
                "socks5d_turn_seconds_bucket{le=\"+Inf\"} 4",
                "socks5d_turn_seconds_sum 3000.001504",
                "socks5d_turn_seconds_count 4",
            ]
        );
    }

    #[test]
    fn accounts_that_have_moved_nothing_have_no_line() {
        let mut users = Users::default();
        let idle = users.add(b"idle", b"pw", Role::User).expect("new");
        let odd = users.add(b"a\"b\\ \n", b"pw", Role::User).expect("new");
        let account = users.get(odd).expect("there");
        account.usage.up.set(5);
        let mut text = String::new();
        for metric in &USER_METRICS {
            (metric.write)(users.get(idle).expect("there"), 0, &mut text);
            (metric.write)(account, 0, &mut text);
        }
        let user = r#"user="a\"b\\x5c\\x20\\x0a""#;
        assert_eq!(
            text,
            format!(
                "socks5d_user_payload_bytes_total{{{user},direction=\"up\"}} 5\n\
                 socks5d_user_payload_bytes_total{{{user},direction=\"down\"}} 0\n\
                 socks5d_user_connections{{{user}}} 0\n"
            )
        );
    }
}
