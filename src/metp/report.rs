//! Bodies that fit into one piece: what the server is, how it is doing, what it has counted, how it is set.

use std::fmt::Display;
use std::time::{Duration, Instant, SystemTime};

use super::UNSENT_LIMIT;
use crate::proto::socks5::ReplyCode;
use crate::reactor::buffer::Pool;
use crate::state::Shared;
use crate::state::control::{Control, ServerInfo};
use crate::state::events::SUBSCRIBERS;
use crate::state::histogram::Histogram;
use crate::state::knobs::Knob;
use crate::state::metrics::Stage;
use crate::state::settings::Settings;
use crate::state::users::Account;
use metp_protocol::text::Escaped;
use metp_protocol::timestamp::Timestamp;
use metp_protocol::{
    LINE_LIMIT, LONGEST_NAME, LONGEST_PASSWORD, PROTOCOL, REPLY_LIMIT, Topic, ended, field, verbs,
};

const NAME: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Lines that are being gathered.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn put(&mut self, key: impl Display, between: &str, value: impl Display) {
        self.0.push_str(&ended(format!("{key}{between}{value}")));
    }

    fn field(&mut self, key: impl Display, value: impl Display) {
        self.put(key, "=", value);
    }

    fn figure(&mut self, key: impl Display, value: impl Display) {
        self.put(key, ": ", value);
    }
}

/// `CAPA`
pub fn capabilities() -> String {
    let mut lines = Lines::default();
    lines.field("implementation", NAME);
    lines.field("version", VERSION);
    lines.field("protocol", PROTOCOL);
    lines.field("verbs", verbs().collect::<Vec<_>>().join(","));
    lines.field("topics", Topic::ALL.map(Topic::word).join(","));
    for (limit, octets) in [
        ("command-octets", LINE_LIMIT),
        ("reply-octets", REPLY_LIMIT),
        ("name-octets", LONGEST_NAME),
        ("password-octets", LONGEST_PASSWORD),
        ("unsent-octets", UNSENT_LIMIT),
        ("subscribers", SUBSCRIBERS),
    ] {
        lines.field(limit, octets);
    }
    lines.0
}

/// `INFO`
pub fn info(shared: &Shared, pool: &Pool, control: &dyn Control, now: Instant) -> String {
    let (status, process_usage) = (control.status(), control.process_usage());
    let Shared { metrics, settings, events, .. } = shared;
    let seconds = |time: Duration, digits: usize| format!("{:.digits$}", time.as_secs_f64());
    let turns = |share| seconds(metrics.turns.quantile(share).unwrap_or_default(), 6);
    let mut lines = Lines::default();
    lines.field("implementation", NAME);
    lines.field("version", VERSION);
    lines.field("pid", std::process::id());
    lines.field("uptime", seconds(status.uptime, 3));
    lines.field("state", if status.closing.is_some() { "closing" } else { "running" });
    lines.field("descriptors", process_usage.descriptors);
    lines.field("descriptors-limit", status.descriptors_limit);
    lines.field("connections", metrics.open);
    let admitted = settings.max_connections.min(status.connections_affordable);
    lines.field("connections-limit", admitted);
    for (stage, count) in Stage::ALL.into_iter().zip(metrics.stages) {
        lines.field(format_args!("connections-{}", stage.word()), count);
    }
    lines.field("metp-sessions", metrics.metp_open);
    lines.field("metp-sessions-limit", settings.max_metp_sessions);
    lines.field("subscribers", events.subscribers());
    lines.field("buffers", pool.leased());
    lines.field("buffers-limit", settings.buffer_memory);
    lines.field("pipes", pool.pipes.open());
    lines.field("rss", process_usage.rss);
    lines.field("dns-queued", status.names.queued);
    lines.field("dns-running", status.names.running);
    lines.field("dns-cached", status.names.cached);
    lines.field("loop-lag", seconds(metrics.lag.longest(now), 6));
    lines.field("loop-p50", turns(0.5));
    lines.field("loop-p99", turns(0.99));
    lines.field("log-lines-dropped", status.lines_lost);
    let left = status.closing.map_or_else(|| "-".to_owned(), |left| seconds(left, 3));
    lines.field("closing-in", left);
    lines.0
}

/// `GET_METRICS`
pub fn metrics(shared: &Shared) -> String {
    shared.metrics.body().lines().map(ended).concat()
}

/// `GET_METRICS ALL`
pub fn all_metrics(shared: &Shared, status: &ServerInfo) -> String {
    let counted = &shared.metrics;
    let mut lines = Lines(metrics(shared));
    lines.figure("BYTES_UP", counted.up);
    lines.figure("BYTES_DOWN", counted.down);
    lines.figure("ACCEPTED", counted.accepted);
    lines.figure("REFUSED_LIMIT", counted.refused_limit);
    lines.figure("REFUSED_AUTH", counted.refused_auth);
    let [_, _, by_rules, ..] = counted.replies;
    const { assert!(ReplyCode::NotAllowed as usize == 2) };
    lines.figure("REFUSED_RULES", by_rules);
    for (code, count) in counted.replies.iter().enumerate() {
        lines.figure(format_args!("REPLY_{code}"), count);
    }
    lines.figure("HANDSHAKE_FAILED", counted.unfinished);
    lines.figure("DNS_QUERIES", status.names.queries);
    lines.figure("DNS_FAILURES", status.names.failures);
    lines.figure("DNS_CACHE_HITS", status.names.hits);
    for (bound, count) in connect_times(&counted.connects) {
        lines.figure(format_args!("CONNECT_TIME_LE_{bound}"), count);
    }
    lines.figure("METP_SESSIONS_TOTAL", counted.metp_accepted);
    lines.figure("METP_SESSIONS", counted.metp_open);
    lines.figure("METP_AUTH_FAILED", counted.metp_refused);
    lines.figure("EVENTS_LOST", shared.events.lost());
    lines.figure("LOG_LINES_DROPPED", status.lines_lost);
    lines.figure("PANICS", counted.panics);
    lines.figure("CONNECTIONS_KILLED", counted.killed);
    lines.0
}

/// How many connects took at most so long. The bounds are powers of two in µs: 1 ms is 1024 µs.
fn connect_times(connects: &Histogram) -> impl Iterator<Item = (&'static str, u64)> {
    const BOUNDS: [(&str, u32); 8] = [
        ("1MS", 10),
        ("4MS", 12),
        ("16MS", 14),
        ("64MS", 16),
        ("256MS", 18),
        ("1S", 20),
        ("4S", 22),
        ("INF", u32::MAX),
    ];
    BOUNDS.into_iter().map(|(name, power)| {
        let bound = 1_u64.checked_shl(power).map_or(Duration::MAX, Duration::from_micros);
        let within = connects.counts().filter(|(upper, _)| *upper <= bound);
        (name, within.map(|(_, count)| count).sum())
    })
}

/// A line of `USER-METRICS`.
pub fn usage(account: &Account, now: Instant) -> String {
    let usage = &account.usage;
    let seen = usage.seen.get().map_or_else(
        || "-".to_owned(),
        |seen| {
            let ago = now.saturating_duration_since(seen);
            let time = SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
            Timestamp::from(time).to_string()
        },
    );
    ended(format!(
        "user={} role={} connections={} total={} up={} down={} last-seen={seen}",
        field(Escaped(&account.name)),
        account.role,
        usage.open.get(),
        usage.total.get(),
        usage.up.get(),
        usage.down.get(),
    ))
}

/// A line of `CONFIG GET`.
pub fn setting(knob: &Knob, settings: &Settings) -> String {
    let (least, most) = knob.range().map_or_else(
        || ("-".to_owned(), "-".to_owned()),
        |(least, most)| (least.to_string(), most.to_string()),
    );
    let (key, unit, applies) = (knob.key, knob.unit, knob.applies);
    let value = knob.get(settings);
    ended(format!("key={key} value={value} unit={unit} min={least} max={most} applies={applies}"))
}

/// What subscribers of `metrics` are told.
pub fn totals(shared: &Shared) -> String {
    let counted = &shared.metrics;
    format!(
        "time={} accepted={} connections={} up={} down={}",
        Timestamp::from(SystemTime::now()),
        counted.accepted,
        counted.open,
        counted.up,
        counted.down,
    )
}
