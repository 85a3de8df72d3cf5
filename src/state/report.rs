//! The server as METP's bodies show it: state, metrics and accounts. METP sends them as they are, the page of `--http` as
//! JSON, so that neither can say what the other does not.

use std::time::{Duration, Instant, SystemTime};

use super::metrics::Stage;
use super::samples::{self, Label, Metric, MetricSample, SampleSources, SampleValue};
use super::settings::TrustSettings;
use super::users::{Account, Origin, UserId};
use super::{ProcessWide, Shared};
use crate::proto::limits::LimitKey;
use crate::proto::socks5::ReplyCode;
use metp_protocol::key::{MetpKey, figure};
use metp_protocol::network::Network;
use metp_protocol::timestamp::Timestamp;
use metp_protocol::{Field, Info, UsageLine, ended, figure_line};

/// The version of the server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The name of the server.
pub const NAME: &str = env!("CARGO_PKG_NAME");

/// `INFO`
///
/// What the sources do not have of the process counts as zero.
pub fn info(sources: &SampleSources<'_>) -> String {
    let SampleSources { now, pool, shared, status, process_usage } = *sources;
    let process_usage = process_usage.unwrap_or_default();
    let Shared { process, metrics, events, .. } = shared;
    let settings = &process.settings;
    let [hello, auth, request, resolve, connect, relay, linger, associate, bind] = metrics.stages;
    let admitted = settings.max_connections.min(status.connections_affordable);
    let turns = |share| metrics.turns.quantile(share).unwrap_or_default();
    let info = Info {
        implementation: Field::new(NAME),
        version: Field::new(VERSION),
        pid: u64::from(std::process::id()),
        uptime: status.uptime,
        state: Field::new(if status.closing.is_some() { "closing" } else { "running" }),
        descriptors: process_usage.descriptors as u64,
        descriptors_limit: status.descriptors_limit as u64,
        connections: metrics.sessions.socks.open as u64,
        connections_limit: admitted as u64,
        connections_hello: hello as u64,
        connections_auth: auth as u64,
        connections_request: request as u64,
        connections_resolve: resolve as u64,
        connections_connect: connect as u64,
        connections_relay: relay as u64,
        connections_linger: linger as u64,
        metp_sessions: metrics.sessions.metp.open as u64,
        metp_sessions_limit: settings.max_metp_sessions as u64,
        subscribers: events.subscribers() as u64,
        buffers: pool.leased() as u64,
        buffers_limit: settings.buffer_memory as u64,
        pipes: pool.pipes.open() as u64,
        rss: process_usage.rss,
        dns_queued: status.names.queued as u64,
        dns_running: status.names.running as u64,
        dns_cached: status.names.cached as u64,
        loop_lag: metrics.lag.longest(now),
        loop_p50: turns(0.5),
        loop_p99: turns(0.99),
        log_lines_dropped: status.lines_dropped,
        closing_in: status.closing,
        connections_associate: associate as u64,
        connections_bind: bind as u64,
        trusted_networks: settings.trust.networks().len() as u64,
        trusted_everywhere: everywhere(&settings.trust),
    };
    info.lines()
}

/// The trusted networks that hold every address of a family.
fn everywhere(trust: &TrustSettings) -> Field<'static> {
    let networks: Vec<String> = trust.everything().map(Network::to_string).collect();
    if networks.is_empty() {
        return Field::NONE;
    }
    Field::list(networks.iter().map(String::as_str))
}

/// `GET_METRICS`
pub fn metrics(shared: &Shared) -> String {
    shared.metrics.body().lines().map(ended).concat()
}

/// The source of a figure.
enum Figure {
    /// The sum of the samples of a metric that have these labels.
    Sum(&'static Metric, &'static [Label]),
    /// The least of all samples of a metric.
    Least(&'static Metric),
    /// The durations of a histogram that are at most 2 to the power of this, in µs: 1 ms is 1024 µs.
    Within(&'static Metric, u32),
    /// All durations of a histogram.
    Count(&'static Metric),
}

impl Figure {
    /// The value; `None` if there is no such sample.
    fn of(&self, samples: &[MetricSample]) -> Option<u64> {
        let (Figure::Sum(metric, _)
        | Figure::Least(metric)
        | Figure::Within(metric, _)
        | Figure::Count(metric)) = *self;
        let labels = if let Figure::Sum(_, labels) = *self { labels } else { &[] };
        let values = samples.iter().filter(|sample| sample.is_of(metric, labels)).map(|sample| {
            match (self, sample.value) {
                (Figure::Sum(..) | Figure::Least(_), SampleValue::Number(number)) => Some(number),
                (Figure::Sum(..), SampleValue::Seconds(time)) => Some(time.as_secs()),
                (Figure::Within(_, power), SampleValue::Histogram(times)) => {
                    Some(times.within(Duration::from_micros(1_u64 << power)))
                }
                (Figure::Count(_), SampleValue::Histogram(times)) => Some(times.count()),
                _ => None,
            }
        });
        let joined = values.reduce(|one, other| match self {
            Figure::Least(_) => Some(one?.min(other?)),
            _ => Some(one? + other?),
        });
        joined.flatten()
    }
}

/// The figures of `GET_METRICS ALL` behind those of `GET_METRICS`, in their order (METP §5.2).
const FIGURES: [(MetpKey, Figure); 62] = {
    use Figure::{Count, Least, Sum, Within};
    const { assert!(ReplyCode::NotAllowed as usize == 2) };
    use samples::{AUTH, DOWN, HANDSHAKE, LIMIT, LOGIN_FAILED, LOGIN_OK, METP, SOCKS, UP};
    [
        (figure::BYTES_UP, Sum(&samples::PAYLOAD, &[UP])),
        (figure::BYTES_DOWN, Sum(&samples::PAYLOAD, &[DOWN])),
        (figure::ACCEPTED, Sum(&samples::ACCEPTED, &[SOCKS])),
        (figure::REFUSED_LIMIT, Sum(&samples::REFUSED, &[SOCKS, LIMIT])),
        (figure::REFUSED_AUTH, Sum(&samples::REFUSED, &[SOCKS, AUTH])),
        (figure::REFUSED_RULES, Sum(&samples::REPLIES, &[("code", "2")])),
        (figure::REPLY_0, Sum(&samples::REPLIES, &[("code", "0")])),
        (figure::REPLY_1, Sum(&samples::REPLIES, &[("code", "1")])),
        (figure::REPLY_2, Sum(&samples::REPLIES, &[("code", "2")])),
        (figure::REPLY_3, Sum(&samples::REPLIES, &[("code", "3")])),
        (figure::REPLY_4, Sum(&samples::REPLIES, &[("code", "4")])),
        (figure::REPLY_5, Sum(&samples::REPLIES, &[("code", "5")])),
        (figure::REPLY_6, Sum(&samples::REPLIES, &[("code", "6")])),
        (figure::REPLY_7, Sum(&samples::REPLIES, &[("code", "7")])),
        (figure::REPLY_8, Sum(&samples::REPLIES, &[("code", "8")])),
        (figure::HANDSHAKE_FAILED, Sum(&samples::REFUSED, &[SOCKS, HANDSHAKE])),
        (figure::DNS_QUERIES, Sum(&samples::DNS_QUERIES, &[])),
        (figure::DNS_FAILURES, Sum(&samples::DNS_FAILURES, &[])),
        (figure::DNS_CACHE_HITS, Sum(&samples::DNS_CACHE_HITS, &[])),
        (figure::CONNECT_TIME_LE_1MS, Within(&samples::CONNECT_TIME, 10)),
        (figure::CONNECT_TIME_LE_4MS, Within(&samples::CONNECT_TIME, 12)),
        (figure::CONNECT_TIME_LE_16MS, Within(&samples::CONNECT_TIME, 14)),
        (figure::CONNECT_TIME_LE_64MS, Within(&samples::CONNECT_TIME, 16)),
        (figure::CONNECT_TIME_LE_256MS, Within(&samples::CONNECT_TIME, 18)),
        (figure::CONNECT_TIME_LE_1S, Within(&samples::CONNECT_TIME, 20)),
        (figure::CONNECT_TIME_LE_4S, Within(&samples::CONNECT_TIME, 22)),
        (figure::CONNECT_TIME_LE_INF, Count(&samples::CONNECT_TIME)),
        (figure::METP_SESSIONS_TOTAL, Sum(&samples::ACCEPTED, &[METP])),
        (figure::METP_SESSIONS, Sum(&samples::SESSIONS, &[METP])),
        (figure::METP_AUTH_FAILED, Sum(&samples::REFUSED, &[METP, AUTH])),
        (figure::EVENTS_LOST, Sum(&samples::EVENTS_LOST, &[])),
        (figure::LOG_LINES_DROPPED, Sum(&samples::LOG_LINES_DROPPED, &[])),
        (figure::PANICS, Sum(&samples::PANICS, &[])),
        (figure::CONNECTIONS_KILLED, Sum(&samples::KILLED, &[])),
        (figure::UDP_ASSOCIATIONS, Sum(&samples::ASSOCIATIONS, &[])),
        (
            figure::UDP_ASSOCIATIONS_OPEN,
            Sum(&samples::CONNECTIONS, &[("stage", Stage::Associate.word())]),
        ),
        (figure::UDP_DATAGRAMS_UP, Sum(&samples::DATAGRAMS, &[UP])),
        (figure::UDP_DATAGRAMS_DOWN, Sum(&samples::DATAGRAMS, &[DOWN])),
        (figure::UDP_DROPPED_STRANGER, Sum(&samples::DATAGRAMS_DROPPED, &[("cause", "stranger")])),
        (figure::UDP_DROPPED_FRAGMENT, Sum(&samples::DATAGRAMS_DROPPED, &[("cause", "fragment")])),
        (
            figure::UDP_DROPPED_MALFORMED,
            Sum(&samples::DATAGRAMS_DROPPED, &[("cause", "malformed")]),
        ),
        (figure::UDP_DROPPED_RULES, Sum(&samples::DATAGRAMS_DROPPED, &[("cause", "rules")])),
        (figure::UDP_DROPPED_FILTERED, Sum(&samples::DATAGRAMS_DROPPED, &[("cause", "filtered")])),
        (figure::UDP_DROPPED_NAME, Sum(&samples::DATAGRAMS_DROPPED, &[("cause", "name")])),
        (figure::UDP_DROPPED_SIZE, Sum(&samples::DATAGRAMS_DROPPED, &[("cause", "size")])),
        (figure::UDP_DROPPED_BUSY, Sum(&samples::DATAGRAMS_DROPPED, &[("cause", "busy")])),
        (figure::UDP_DROPPED_ERROR, Sum(&samples::DATAGRAMS_DROPPED, &[("cause", "error")])),
        (figure::UDP_KERNEL_DROPS, Sum(&samples::DATAGRAMS_DROPPED_BY_KERNEL, &[])),
        (figure::CONNECT_ATTEMPTS, Sum(&samples::CONNECT_ATTEMPTS, &[])),
        (figure::CONNECT_RACES, Sum(&samples::CONNECT_RACES, &[])),
        (figure::CONNECT_LOST, Sum(&samples::CONNECT_LOST, &[])),
        (figure::BINDS, Sum(&samples::BINDS, &[])),
        (figure::BIND_STRANGERS, Sum(&samples::BIND_STRANGERS, &[])),
        (figure::LOGINS_SHED, Sum(&samples::LOGINS_SHED, &[])),
        (figure::STORE_ERRORS, Sum(&samples::STORE_ERRORS, &[])),
        (figure::COUNTED_SINCE, Sum(&samples::COUNTED_SINCE, &[])),
        (figure::LOGINS_OK, Sum(&samples::LOGINS, &[LOGIN_OK])),
        (figure::LOGINS_FAILED, Sum(&samples::LOGINS, &[LOGIN_FAILED])),
        (figure::LOGINS_QUEUED, Sum(&samples::LOGINS_QUEUED, &[])),
        (figure::STORE_OK, Least(&samples::STORE_OK)),
        (figure::RELOAD_OK, Sum(&samples::RELOAD_OK, &[])),
        (figure::RELOADED, Sum(&samples::RELOADED, &[])),
    ]
};

/// `GET_METRICS ALL`
///
/// No figure is about the process.
pub fn all_metrics(sources: &SampleSources<'_>) -> String {
    metrics(sources.shared) + &figures(&samples::samples(sources))
}

fn figures(samples: &[MetricSample]) -> String {
    let mut lines = String::new();
    for (key, figure) in &FIGURES {
        let value = figure.of(samples).unwrap_or(0);
        lines.push_str(&ended(figure_line(*key, value)));
    }
    lines
}

/// Whether an account is shown in `USER-METRICS`: that of trusted clients where it can be, or has been, of use.
pub fn shows_usage(process: &ProcessWide, id: UserId) -> bool {
    let used = || process.users.get(id).is_some_and(|account| account.usage.total.get() > 0);
    id != UserId::TRUSTED || !process.settings.trust.networks().is_empty() || used()
}

/// A line of `USER-METRICS`.
///
/// `time`: seconds of UNIX time.
pub fn usage(account: &Account, locked: bool, now: Instant, time: u64) -> String {
    let usage = &account.usage;
    let in_force = usage.in_force();
    let limit = |key| {
        let text = in_force.as_ref().map(|limits| limits.written(key));
        Field::new(text.unwrap_or_else(|| "-".to_owned()))
    };
    let seen = usage.seen.get().map(|seen| {
        let ago = now.saturating_duration_since(seen);
        Timestamp::from(SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH))
    });
    let line = UsageLine {
        user: Field::name(&account.name),
        role: Field::new(account.role),
        connections: usage.open.get(),
        total: usage.total.get(),
        up: usage.up.get(),
        down: usage.down.get(),
        last_seen: Field::optional(seen),
        locked: Field::new(if locked { "yes" } else { "no" }),
        origin: Field::new(match account.origin {
            Origin::Memory => "memory",
            Origin::File => "file",
        }),
        quota: limit(LimitKey::Quota),
        quota_used: Field::optional(usage.quota_used(time)),
        expires: limit(LimitKey::Expires),
        sources: Field::optional(usage.sources(now)),
        rate: limit(LimitKey::Rate),
    };
    ended(line.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::buffer::Pool;
    use crate::state::control::ServerInfo;
    use crate::state::file_health::{FileHealth, WriteOutcome, WrittenFile};
    use crate::state::settings::Settings;
    use crate::state::users::Users;
    use metp_protocol::MetricsBody;

    fn samples_of(shared: &Shared, status: &ServerInfo) -> Vec<MetricSample> {
        let (pool, now) = (&Pool::new(1, 1), Instant::now());
        samples::samples(&SampleSources { shared, pool, status, process_usage: None, now })
    }

    /// Each figure of the protocol is there, in its order, and comes from a sample.
    #[test]
    fn every_figure_has_its_sample() {
        let keys: Vec<MetpKey> =
            MetricsBody::KEYS.into_iter().chain(FIGURES.iter().map(|(key, _)| *key)).collect();
        assert_eq!(keys, figure::ALL);
        let mut shared = Shared::new(Settings::default(), Users::default());
        shared.metrics.counted_since = 0;
        let health = &mut shared.process.file_health;
        *health = FileHealth::new(0);
        health.reload(false, 0);
        health.written(WrittenFile::Figures, WriteOutcome::Failed);
        let samples = samples_of(&shared, &ServerInfo::default());
        for (key, figure) in &FIGURES {
            assert_eq!(figure.of(&samples), Some(0), "{key}");
        }
    }

    #[test]
    fn figures_are_sums_and_counts_of_samples() {
        let mut shared = Shared::new(Settings::default(), Users::default());
        shared.metrics.replies = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        for micros in [1, 1024, 1025, 100_000_000] {
            shared.metrics.connects.record(Duration::from_micros(micros));
        }
        let status = ServerInfo { lines_dropped: 7, ..ServerInfo::default() };
        let text = figures(&samples_of(&shared, &status));
        for line in [
            "REFUSED_RULES: 3",
            "REPLY_0: 1",
            "REPLY_8: 9",
            "CONNECT_TIME_LE_1MS: 2",
            "CONNECT_TIME_LE_4MS: 3",
            "CONNECT_TIME_LE_4S: 3",
            "CONNECT_TIME_LE_INF: 4",
            "LOG_LINES_DROPPED: 7",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
        }
    }
}
