//! Bodies that fit into one piece: what the server is, how it is doing, what it has counted, how it is set.

use std::time::{Duration, Instant, SystemTime};

use super::UNSENT_LIMIT;
use crate::proto::socks5::ReplyCode;
use crate::reactor::buffer::Pool;
use crate::state::Shared;
use crate::state::control::{Control, ServerInfo};
use crate::state::events::SUBSCRIBERS;
use crate::state::histogram::Histogram;
use crate::state::knobs::Knob;
use crate::state::settings::Settings;
use crate::state::users::Account;
use metp_protocol::key::{Key, figure};
use metp_protocol::timestamp::Timestamp;
use metp_protocol::{
    Capabilities, Event, Field, Info, LINE_LIMIT, LONGEST_NAME, LONGEST_PASSWORD, MetricsEvent,
    PROTOCOL, REPLY_LIMIT, SettingLine, Topic, UsageLine, ended, figure_line, verbs,
};

const NAME: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `CAPA`
pub fn capabilities() -> String {
    let capabilities = Capabilities {
        implementation: Field::new(NAME),
        version: Field::new(VERSION),
        protocol: Field::new(PROTOCOL),
        verbs: Field::list(verbs()),
        topics: Field::list(Topic::ALL.map(Topic::word)),
        command_octets: LINE_LIMIT as u64,
        reply_octets: REPLY_LIMIT as u64,
        name_octets: LONGEST_NAME as u64,
        password_octets: LONGEST_PASSWORD as u64,
        unsent_octets: UNSENT_LIMIT as u64,
        subscribers: SUBSCRIBERS as u64,
    };
    capabilities.lines()
}

/// `INFO`
pub fn info(shared: &Shared, pool: &Pool, control: &dyn Control, now: Instant) -> String {
    let (status, process_usage) = (control.status(), control.process_usage());
    let Shared { metrics, settings, events, .. } = shared;
    let [hello, auth, request, resolve, connect, relay, linger] = metrics.stages;
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
        log_lines_dropped: status.lines_lost,
        closing_in: status.closing,
    };
    info.lines()
}

/// `GET_METRICS`
pub fn metrics(shared: &Shared) -> String {
    shared.metrics.body().lines().map(ended).concat()
}

/// `GET_METRICS ALL`
pub fn all_metrics(shared: &Shared, status: &ServerInfo) -> String {
    let counted = &shared.metrics;
    let mut lines = metrics(shared);
    let mut put = |key: Key, value: u64| lines.push_str(&ended(figure_line(key, value)));
    put(figure::BYTES_UP, counted.up);
    put(figure::BYTES_DOWN, counted.down);
    put(figure::ACCEPTED, counted.sessions.socks.accepted);
    put(figure::REFUSED_LIMIT, counted.sessions.socks.refused_limit);
    put(figure::REFUSED_AUTH, counted.sessions.socks.refused_auth);
    let [_, _, by_rules, ..] = counted.replies;
    const { assert!(ReplyCode::NotAllowed as usize == 2) };
    put(figure::REFUSED_RULES, by_rules);
    for (key, count) in figure::REPLIES.into_iter().zip(counted.replies) {
        put(key, count);
    }
    put(figure::HANDSHAKE_FAILED, counted.unfinished);
    put(figure::DNS_QUERIES, status.names.queries);
    put(figure::DNS_FAILURES, status.names.failures);
    put(figure::DNS_CACHE_HITS, status.names.hits);
    for (key, count) in connect_times(&counted.connects) {
        put(key, count);
    }
    put(figure::METP_SESSIONS_TOTAL, counted.sessions.metp.accepted);
    put(figure::METP_SESSIONS, counted.sessions.metp.open as u64);
    put(figure::METP_AUTH_FAILED, counted.sessions.metp.refused_auth);
    put(figure::EVENTS_LOST, shared.events.lost());
    put(figure::LOG_LINES_DROPPED, status.lines_lost);
    put(figure::PANICS, counted.panics);
    put(figure::CONNECTIONS_KILLED, counted.killed);
    lines
}

/// How many connects took at most so long. The bounds are powers of two in µs: 1 ms is 1024 µs.
fn connect_times(connects: &Histogram) -> impl Iterator<Item = (Key, u64)> {
    const BOUNDS: [(Key, u32); 8] = [
        (figure::CONNECT_TIME_LE_1MS, 10),
        (figure::CONNECT_TIME_LE_4MS, 12),
        (figure::CONNECT_TIME_LE_16MS, 14),
        (figure::CONNECT_TIME_LE_64MS, 16),
        (figure::CONNECT_TIME_LE_256MS, 18),
        (figure::CONNECT_TIME_LE_1S, 20),
        (figure::CONNECT_TIME_LE_4S, 22),
        (figure::CONNECT_TIME_LE_INF, u32::MAX),
    ];
    BOUNDS.into_iter().map(|(key, power)| {
        let bound = 1_u64.checked_shl(power).map_or(Duration::MAX, Duration::from_micros);
        let within = connects.counts().filter(|(upper, _)| *upper <= bound);
        (key, within.map(|(_, count)| count).sum())
    })
}

/// A line of `USER-METRICS`.
pub fn usage(account: &Account, now: Instant) -> String {
    let usage = &account.usage;
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
    };
    ended(line.to_string())
}

/// A line of `CONFIG GET`.
pub fn setting(knob: &Knob, settings: &Settings) -> String {
    let (min, max) = knob.range().unzip();
    let line = SettingLine {
        key: Field::new(knob.key),
        value: Field::new(knob.get(settings)),
        unit: Field::new(knob.unit),
        min: Field::optional(min),
        max: Field::optional(max),
        applies: Field::new(knob.applies),
    };
    ended(line.to_string())
}

/// The event of the topic `metrics`.
pub fn totals(shared: &Shared) -> Event<'static> {
    let counted = &shared.metrics;
    Event::Metrics(MetricsEvent {
        time: Field::new(Timestamp::from(SystemTime::now())),
        accepted: counted.sessions.socks.accepted,
        connections: counted.sessions.socks.open as u64,
        up: counted.up,
        down: counted.down,
    })
}
