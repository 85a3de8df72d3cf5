//! Everything that the server counts and measures, as data: a list of samples, each with its name, kind, help,
//! labels and value. `GET_METRICS ALL` is one rendering of the list; a format for monitoring is another. Neither
//! looks at counters itself, so a new metric is added here and nowhere else.
//!
//! Names and units are those of Prometheus: the base unit ends the name, and counters end in `_total`.

use std::time::{Duration, Instant};

use super::Shared;
use super::control::{ProcessUsage, ServerInfo};
use super::histogram::Histogram;
use super::metrics::{DropCause, LoginCounts, Stage};
use super::service::Service;
use super::settings::HTTP_SESSIONS;
use crate::reactor::buffer::Pool;

/// What can be done with the values of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Grows from the start of the server on.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations, counted by their magnitude, with their sum.
    Histogram,
}

/// A metric: what all its samples have in common.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name, without labels.
    pub name: &'static str,
    /// What its values are.
    pub kind: MetricKind,
    /// What it says, in one sentence.
    pub help: &'static str,
}

/// Name and value of what tells the samples of one metric apart. Neither comes from outside.
pub type Label = (&'static str, &'static str);

/// The value of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleValue {
    /// A number of things, or of bytes.
    Number(u64),
    /// A duration.
    Seconds(Duration),
    /// Durations.
    Histogram(Histogram),
}

/// One value of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricSample {
    /// The metric.
    pub metric: &'static Metric,
    /// Its labels, in the order in which they are shown.
    pub labels: Vec<Label>,
    /// Its value.
    pub value: SampleValue,
}

impl MetricSample {
    /// Whether the sample is one of `metric`, and has all of `labels`.
    pub fn is_of(&self, metric: &Metric, labels: &[Label]) -> bool {
        self.metric == metric && labels.iter().all(|label| self.labels.contains(label))
    }
}

macro_rules! metrics {
    ($($const:ident = $kind:ident $name:literal $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $const: Metric = Metric { name: $name, kind: MetricKind::$kind, help: $help };
        )+
        /// All metrics, in the order of their samples.
        pub const METRICS: [&Metric; [$($name),+].len()] = [$(&$const),+];
    };
}

metrics! {
    BUILD_INFO = Gauge "socks5d_build_info" "The version of the server; the value is always 1.";
    UPTIME = Gauge "socks5d_uptime_seconds" "Time since the start of the server.";
    CLOSING = Gauge "socks5d_closing"
        "Whether the server closes down (1) or not (0).";
    CLOSING_LEFT = Gauge "socks5d_closing_left_seconds"
        "Time that open connections still have when the server closes down, else 0.";
    ACCEPTED = Counter "socks5d_accepted_total" "Sessions accepted, by service.";
    SESSIONS = Gauge "socks5d_sessions" "Sessions open now, by service.";
    SESSIONS_LIMIT = Gauge "socks5d_connections_limit"
        "Sessions that may be open at once by settings and descriptors, by service.";
    CONNECTIONS = Gauge "socks5d_connections" "SOCKS connections open now, by stage.";
    TRUSTED = Gauge "socks5d_trusted_networks" "Networks whose clients need no login.";
    TRUSTED_EVERYWHERE = Gauge "socks5d_trusted_everywhere"
        "Networks whose clients need no login and that hold every address of a family.";
    REFUSED = Counter "socks5d_refused_total"
        "Sessions that ended before they could make a request, by service and reason.";
    LOGINS = Counter "socks5d_auth_total"
        "Logins with a name and a password, by service and result.";
    LOGINS_QUEUED = Gauge "socks5d_auth_queue"
        "Logins whose password hash is waited for or being computed.";
    LOGINS_SHED = Counter "socks5d_logins_shed_total"
        "Sessions closed because too many logins wait for a verdict.";
    LIMITED = Counter "socks5d_limited_total"
        "Requests refused and tunnels ended by limits of accounts, by limit.";
    REPLIES = Counter "socks5d_replies_total" "Replies to SOCKS requests, by code of RFC 1928.";
    KILLED = Counter "socks5d_killed_total" "Connections closed by administrators.";
    PAYLOAD = Counter "socks5d_payload_bytes_total"
        "Payload delivered by tunnels, up to targets and down to clients.";
    CONNECT_ATTEMPTS = Counter "socks5d_connect_attempts_total"
        "Attempts to connect to addresses of targets.";
    CONNECT_RACES = Counter "socks5d_connect_races_total"
        "Requests with several attempts to connect at once.";
    CONNECT_LOST = Counter "socks5d_connect_lost_total"
        "Attempts to connect given up because another one had succeeded.";
    BINDS = Counter "socks5d_binds_total" "Listeners opened for the targets of clients.";
    BIND_STRANGERS = Counter "socks5d_bind_strangers_total"
        "Connections to such listeners from another address than the client has named.";
    ASSOCIATIONS = Counter "socks5d_associations_total" "Associations for datagrams opened.";
    DATAGRAMS = Counter "socks5d_datagrams_total"
        "Datagrams sent by associations, up to targets and down to clients.";
    DATAGRAMS_DROPPED = Counter "socks5d_datagrams_dropped_total"
        "Datagrams dropped by associations, by cause.";
    DATAGRAMS_DROPPED_BY_KERNEL = Counter "socks5d_datagrams_dropped_by_kernel_total"
        "Datagrams that full socket buffers of ended associations dropped.";
    CONNECT_TIME = Histogram "socks5d_connect_seconds"
        "Time that successful connects to targets took.";
    DNS_QUERIES = Counter "socks5d_dns_queries_total" "Names and addresses that had to be looked up.";
    DNS_FAILURES = Counter "socks5d_dns_failures_total" "Names and addresses that were not found.";
    DNS_CACHE_HITS = Counter "socks5d_dns_cache_hits_total" "Names answered from the cache.";
    DNS_QUEUED = Gauge "socks5d_dns_queued" "Look-ups that wait, of which a name takes two.";
    DNS_RUNNING = Gauge "socks5d_dns_running" "Look-ups that are being made.";
    DNS_CACHED = Gauge "socks5d_dns_cached" "Names in the cache.";
    TURN_TIME = Histogram "socks5d_turn_seconds" "Time that turns of the event loop took.";
    LOOP_LAG = Gauge "socks5d_loop_lag_seconds"
        "Longest turn of the event loop in the last whole second.";
    BUFFERS = Gauge "socks5d_buffer_bytes" "Memory of the buffers in use.";
    BUFFERS_LIMIT = Gauge "socks5d_buffer_limit_bytes"
        "Memory of buffers from which on new ones are small.";
    PIPES = Gauge "socks5d_pipes" "Pipes open for bulk transfers.";
    SUBSCRIBERS = Gauge "socks5d_subscribers" "METP sessions with a subscription.";
    EVENTS_LOST = Counter "socks5d_events_lost_total" "Events that subscribers were too slow for.";
    LOG_LINES_DROPPED = Counter "socks5d_log_lines_dropped_total"
        "Lines that the readers of the logs were too slow for.";
    STORE_ERRORS = Counter "socks5d_store_errors_total"
        "Times that the users file or the figures could not be stored, or were damaged.";
    STORE_OK = Gauge "socks5d_store_ok"
        "Whether the last write of a file succeeded (1) or not (0), by file.";
    RELOAD_OK = Gauge "socks5d_config_last_reload_successful"
        "Whether the last reload of users file, rules and configuration succeeded (1) or not (0).";
    RELOADED = Gauge "socks5d_config_last_reload_success_timestamp_seconds"
        "When the files were last read again with success, or at the start, as UNIX time.";
    COUNTED_SINCE = Gauge "socks5d_counted_since_timestamp_seconds"
        "Since when connections and payload are counted, as UNIX time.";
    PANICS = Counter "socks5d_panics_total" "Sessions ended by a fault of the server.";
    START = Gauge "process_start_time_seconds" "When the server started, as UNIX time.";
    DESCRIPTORS_LIMIT = Gauge "process_max_fds" "Descriptors that the process may have open.";
    DESCRIPTORS = Gauge "process_open_fds" "Descriptors that the process has open.";
    RSS = Gauge "process_resident_memory_bytes" "Memory of the process in RAM.";
    CPU = Counter "process_cpu_seconds_total" "Time that the process has had on processors.";
}

/// The label of SOCKS.
pub const SOCKS: Label = ("service", "socks");
/// The label of METP.
pub const METP: Label = ("service", "metp");
/// The label of HTTP.
pub const HTTP: Label = ("service", "http");
/// The label of payload to targets.
pub const UP: Label = ("direction", "up");
/// The label of payload to clients.
pub const DOWN: Label = ("direction", "down");
/// The label of sessions that are too many.
pub const LIMIT: Label = ("reason", "limit");
/// The label of sessions without an acceptable method, or with a login that failed.
pub const AUTH: Label = ("reason", "auth");
/// The label of sessions that ended before their request was complete, for another reason.
pub const HANDSHAKE: Label = ("reason", "handshake");
/// The label of logins that let a client in.
pub const LOGIN_OK: Label = ("result", "ok");
/// The label of logins that do not.
pub const LOGIN_FAILED: Label = ("result", "failed");
/// The labels of replies, by their code.
pub const CODES: [Label; 9] = [
    ("code", "0"),
    ("code", "1"),
    ("code", "2"),
    ("code", "3"),
    ("code", "4"),
    ("code", "5"),
    ("code", "6"),
    ("code", "7"),
    ("code", "8"),
];

/// What samples are taken of.
pub struct SampleSources<'a> {
    /// The counters and settings.
    pub shared: &'a Shared,
    /// The buffers and pipes.
    pub pool: &'a Pool,
    /// What the server knows of itself.
    pub status: &'a ServerInfo,
    /// What the kernel says of the process, where it was asked. Without it, the samples of it are left out.
    pub process_usage: Option<ProcessUsage>,
    /// The time of the samples.
    pub now: Instant,
}

/// Samples that are being gathered.
#[derive(Default)]
struct Samples(Vec<MetricSample>);

impl Samples {
    fn put(&mut self, metric: &'static Metric, labels: &[Label], value: SampleValue) {
        self.0.push(MetricSample { metric, labels: labels.to_vec(), value });
    }

    fn number(&mut self, metric: &'static Metric, labels: &[Label], value: u64) {
        self.put(metric, labels, SampleValue::Number(value));
    }
}

/// All samples at this moment. Those of one metric stand together, in the order of [`METRICS`].
pub fn samples(sources: &SampleSources<'_>) -> Vec<MetricSample> {
    let SampleSources { shared, pool, status, process_usage, now } = *sources;
    let mut samples = Samples::default();
    samples.number(&BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))], 1);
    samples.put(&UPTIME, &[], SampleValue::Seconds(status.uptime));
    samples.number(&CLOSING, &[], u64::from(status.closing.is_some()));
    samples.put(&CLOSING_LEFT, &[], SampleValue::Seconds(status.closing.unwrap_or_default()));
    sessions(&mut samples, shared, status);
    requests(&mut samples, shared, status);
    let metrics = &shared.metrics;
    samples.put(&TURN_TIME, &[], SampleValue::Histogram(metrics.turns));
    samples.put(&LOOP_LAG, &[], SampleValue::Seconds(metrics.lag.longest(now)));
    samples.number(&BUFFERS, &[], pool.leased() as u64);
    samples.number(&BUFFERS_LIMIT, &[], shared.process.settings.buffer_memory as u64);
    samples.number(&PIPES, &[], pool.pipes.open() as u64);
    samples.number(&SUBSCRIBERS, &[], shared.events.subscribers() as u64);
    samples.number(&EVENTS_LOST, &[], shared.events.lost());
    samples.number(&LOG_LINES_DROPPED, &[], status.lines_dropped);
    samples.number(&STORE_ERRORS, &[], metrics.store_errors);
    let health = &shared.process.file_health;
    for (file, stored) in health.writes() {
        samples.number(&STORE_OK, &[("file", file.word())], u64::from(stored));
    }
    samples.number(&RELOAD_OK, &[], u64::from(health.reloaded));
    let reloaded = Duration::from_secs(health.reloaded_at);
    samples.put(&RELOADED, &[], SampleValue::Seconds(reloaded));
    let since = Duration::from_secs(metrics.counted_since);
    samples.put(&COUNTED_SINCE, &[], SampleValue::Seconds(since));
    samples.number(&PANICS, &[], metrics.panics);
    let started = Duration::from_secs(shared.time).saturating_sub(status.uptime);
    samples.put(&START, &[], SampleValue::Seconds(Duration::from_secs(started.as_secs())));
    samples.number(&DESCRIPTORS_LIMIT, &[], status.descriptors_limit as u64);
    if let Some(usage) = process_usage {
        samples.number(&DESCRIPTORS, &[], usage.descriptors as u64);
        samples.number(&RSS, &[], usage.rss);
        samples.put(&CPU, &[], SampleValue::Seconds(usage.cpu));
    }
    samples.0
}

fn sessions(samples: &mut Samples, shared: &Shared, status: &ServerInfo) {
    let (metrics, settings) = (&shared.metrics, &shared.process.settings);
    let counts = |service| metrics.sessions.of(service);
    for service in Service::ALL {
        samples.number(&ACCEPTED, &[label(service)], counts(service).accepted);
    }
    for service in Service::ALL {
        samples.number(&SESSIONS, &[label(service)], counts(service).open as u64);
    }
    for service in Service::ALL {
        let limit = match service {
            Service::Socks => settings.max_connections.min(status.connections_affordable),
            Service::Metp => settings.max_metp_sessions,
            Service::Http => HTTP_SESSIONS,
        };
        samples.number(&SESSIONS_LIMIT, &[label(service)], limit as u64);
    }
    for (stage, count) in Stage::ALL.into_iter().zip(metrics.stages) {
        samples.number(&CONNECTIONS, &[("stage", stage.word())], count as u64);
    }
    samples.number(&TRUSTED, &[], settings.trust.networks().len() as u64);
    samples.number(&TRUSTED_EVERYWHERE, &[], settings.trust.everything().count() as u64);
    for service in Service::ALL {
        samples.number(&REFUSED, &[label(service), LIMIT], counts(service).refused_limit);
        samples.number(&REFUSED, &[label(service), AUTH], counts(service).refused_auth);
    }
    samples.number(&REFUSED, &[SOCKS, HANDSHAKE], metrics.unfinished);
    for service in Service::ALL {
        let LoginCounts { good, failed } = *metrics.logins.of(service);
        samples.number(&LOGINS, &[label(service), LOGIN_OK], good);
        samples.number(&LOGINS, &[label(service), LOGIN_FAILED], failed);
    }
    samples.number(&LOGINS_QUEUED, &[], status.logins_queued as u64);
    samples.number(&LOGINS_SHED, &[], metrics.logins_shed);
    for (reached, count) in metrics.limits.iter() {
        samples.number(&LIMITED, &[("limit", reached.word())], count);
    }
}

/// The label of a service.
fn label(service: Service) -> Label {
    match service {
        Service::Socks => SOCKS,
        Service::Metp => METP,
        Service::Http => HTTP,
    }
}

fn requests(samples: &mut Samples, shared: &Shared, status: &ServerInfo) {
    let (metrics, names) = (&shared.metrics, &status.names);
    for (code, count) in CODES.into_iter().zip(metrics.replies) {
        samples.number(&REPLIES, &[code], count);
    }
    samples.number(&KILLED, &[], metrics.killed);
    samples.number(&PAYLOAD, &[UP], metrics.up);
    samples.number(&PAYLOAD, &[DOWN], metrics.down);
    let attempts = &metrics.attempts;
    samples.number(&CONNECT_ATTEMPTS, &[], attempts.started);
    samples.number(&CONNECT_RACES, &[], attempts.races);
    samples.number(&CONNECT_LOST, &[], attempts.lost);
    samples.number(&BINDS, &[], metrics.binds.started);
    samples.number(&BIND_STRANGERS, &[], metrics.binds.strangers);
    let datagrams = &metrics.datagrams;
    samples.number(&ASSOCIATIONS, &[], datagrams.associations);
    samples.number(&DATAGRAMS, &[UP], datagrams.up);
    samples.number(&DATAGRAMS, &[DOWN], datagrams.down);
    for (cause, count) in DropCause::ALL.into_iter().zip(datagrams.dropped) {
        samples.number(&DATAGRAMS_DROPPED, &[("cause", cause.word())], count);
    }
    samples.number(&DATAGRAMS_DROPPED_BY_KERNEL, &[], datagrams.dropped_by_kernel);
    samples.put(&CONNECT_TIME, &[], SampleValue::Histogram(metrics.connects));
    samples.number(&DNS_QUERIES, &[], names.queries);
    samples.number(&DNS_FAILURES, &[], names.failures);
    samples.number(&DNS_CACHE_HITS, &[], names.hits);
    samples.number(&DNS_QUEUED, &[], names.queued as u64);
    samples.number(&DNS_RUNNING, &[], names.running as u64);
    samples.number(&DNS_CACHED, &[], names.cached as u64);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::state::settings::Settings;
    use crate::state::users::Users;

    fn all(process_usage: Option<ProcessUsage>) -> Vec<MetricSample> {
        let mut shared = Shared::new(Settings::default(), Users::default());
        shared.metrics.connects.record(Duration::from_millis(3));
        let (pool, status) = (Pool::new(1, 1), ServerInfo::default());
        let now = Instant::now();
        samples(&SampleSources {
            shared: &shared,
            pool: &pool,
            status: &status,
            process_usage,
            now,
        })
    }

    /// What formats for monitoring ask for: one block for each metric, no two samples of one name and labels.
    #[test]
    fn samples_of_a_metric_stand_together_and_differ_in_their_labels() {
        let samples = all(Some(ProcessUsage::default()));
        let mut blocks: Vec<&Metric> = samples.iter().map(|sample| sample.metric).collect();
        blocks.dedup();
        assert_eq!(blocks, METRICS);
        let series: HashSet<_> =
            samples.iter().map(|sample| (sample.metric.name, sample.labels.clone())).collect();
        assert_eq!(series.len(), samples.len());
        for metric in METRICS {
            let of = samples.iter().filter(|sample| sample.metric == metric);
            let names: HashSet<Vec<&str>> =
                of.map(|sample| sample.labels.iter().map(|(name, _)| *name).collect()).collect();
            assert_eq!(names.len(), 1, "{}: {names:?}", metric.name);
        }
    }

    /// <https://prometheus.io/docs/practices/naming/>
    #[test]
    fn names_end_in_their_unit_and_say_what_counts() {
        for MetricSample { metric, value, .. } in all(Some(ProcessUsage::default())) {
            let Metric { name, kind, help } = metric;
            let legal = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
            assert!(name.bytes().all(legal), "{name}");
            assert!(help.ends_with('.') && !help.contains(['\n', '\\']), "{name}: {help}");
            assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
            let unit = name.trim_end_matches("_total").rsplit('_').next();
            let timed = matches!(value, SampleValue::Seconds(_) | SampleValue::Histogram(_));
            assert_eq!(unit == Some("seconds"), timed, "{name}");
            assert_eq!(
                matches!(value, SampleValue::Histogram(_)),
                *kind == MetricKind::Histogram,
                "{name}"
            );
        }
    }

    #[test]
    fn what_the_kernel_was_not_asked_for_is_left_out() {
        let (with, without) = (all(Some(ProcessUsage::default())), all(None));
        let of_the_process = |sample: &&MetricSample| !without.contains(sample);
        let names: Vec<_> =
            with.iter().filter(of_the_process).map(|sample| sample.metric.name).collect();
        assert_eq!(names, [DESCRIPTORS.name, RSS.name, CPU.name]);
    }

    #[test]
    fn a_histogram_has_its_sum() {
        let samples = all(None);
        let found = samples.iter().find(|sample| sample.is_of(&CONNECT_TIME, &[]));
        let Some(SampleValue::Histogram(times)) = found.map(|sample| sample.value) else {
            panic!("a histogram")
        };
        assert_eq!((times.sum(), times.count()), (Duration::from_millis(3), 1));
    }
}
