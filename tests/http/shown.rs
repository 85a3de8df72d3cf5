//! What METP shows of the server is in `/metrics` as well.

use std::collections::BTreeMap;

use support::origin::Origin;
use support::proxy::Proxy;
use support::{eventually, exchange};

use super::metrics::samples;
use super::{builder, get};

/// Where a figure of METP is in `/metrics`.
enum Shown {
    /// As a series with this value, give or take what changes by being asked for.
    As(&'static str),
    /// As a series, in another form.
    By(&'static str),
    /// It is no measure: this says why.
    Nowhere(&'static str),
}

use Shown::{As, By, Nowhere};

/// The keys of INFO (METP section 5.12).
const INFO: [(&str, Shown); 35] = [
    ("implementation", Nowhere("the names of the metrics begin with it")),
    ("version", By("socks5d_build_info{version=\"VERSION\"}")),
    ("pid", Nowhere("a name of the process, another one after each start")),
    ("uptime", By("socks5d_uptime_seconds")),
    ("state", By("socks5d_closing")),
    ("descriptors", By("process_open_fds")),
    ("descriptors-limit", As("process_max_fds")),
    ("connections", As("socks5d_sessions{service=\"socks\"}")),
    ("connections-limit", As("socks5d_connections_limit{service=\"socks\"}")),
    ("connections-hello", As("socks5d_connections{stage=\"hello\"}")),
    ("connections-auth", As("socks5d_connections{stage=\"auth\"}")),
    ("connections-request", As("socks5d_connections{stage=\"request\"}")),
    ("connections-resolve", As("socks5d_connections{stage=\"resolve\"}")),
    ("connections-connect", As("socks5d_connections{stage=\"connect\"}")),
    ("connections-relay", As("socks5d_connections{stage=\"relay\"}")),
    ("connections-linger", As("socks5d_connections{stage=\"linger\"}")),
    ("metp-sessions", As("socks5d_sessions{service=\"metp\"}")),
    ("metp-sessions-limit", As("socks5d_connections_limit{service=\"metp\"}")),
    ("subscribers", As("socks5d_subscribers")),
    ("buffers", By("socks5d_buffer_bytes")),
    ("buffers-limit", As("socks5d_buffer_limit_bytes")),
    ("pipes", As("socks5d_pipes")),
    ("rss", By("process_resident_memory_bytes")),
    ("dns-queued", As("socks5d_dns_queued")),
    ("dns-running", As("socks5d_dns_running")),
    ("dns-cached", As("socks5d_dns_cached")),
    ("loop-lag", By("socks5d_loop_lag_seconds")),
    ("loop-p50", By("socks5d_turn_seconds_count")),
    ("loop-p99", By("socks5d_turn_seconds_count")),
    ("log-lines-dropped", As("socks5d_log_lines_dropped_total")),
    ("closing-in", By("socks5d_closing_left_seconds")),
    ("connections-associate", As("socks5d_connections{stage=\"associate\"}")),
    ("connections-bind", As("socks5d_connections{stage=\"bind\"}")),
    ("trusted-networks", As("socks5d_trusted_networks")),
    ("trusted-everywhere", By("socks5d_trusted_everywhere")),
];

/// The keys of GET_METRICS ALL (METP section 5.2).
const FIGURES: [(&str, Shown); 65] = [
    ("HISTORICAL_CONNECTIONS", As("socks5d_accepted_total{service=\"socks\"}")),
    ("CURRENT_CONNECTIONS", As("socks5d_sessions{service=\"socks\"}")),
    ("BYTES_TRANSFERRED", By("socks5d_payload_bytes_total{direction=\"up\"}")),
    ("BYTES_UP", As("socks5d_payload_bytes_total{direction=\"up\"}")),
    ("BYTES_DOWN", As("socks5d_payload_bytes_total{direction=\"down\"}")),
    ("ACCEPTED", As("socks5d_accepted_total{service=\"socks\"}")),
    ("REFUSED_LIMIT", As("socks5d_refused_total{service=\"socks\",reason=\"limit\"}")),
    ("REFUSED_AUTH", As("socks5d_refused_total{service=\"socks\",reason=\"auth\"}")),
    ("REFUSED_RULES", As("socks5d_replies_total{code=\"2\"}")),
    ("REPLY_0", As("socks5d_replies_total{code=\"0\"}")),
    ("REPLY_1", As("socks5d_replies_total{code=\"1\"}")),
    ("REPLY_2", As("socks5d_replies_total{code=\"2\"}")),
    ("REPLY_3", As("socks5d_replies_total{code=\"3\"}")),
    ("REPLY_4", As("socks5d_replies_total{code=\"4\"}")),
    ("REPLY_5", As("socks5d_replies_total{code=\"5\"}")),
    ("REPLY_6", As("socks5d_replies_total{code=\"6\"}")),
    ("REPLY_7", As("socks5d_replies_total{code=\"7\"}")),
    ("REPLY_8", As("socks5d_replies_total{code=\"8\"}")),
    ("HANDSHAKE_FAILED", As("socks5d_refused_total{service=\"socks\",reason=\"handshake\"}")),
    ("DNS_QUERIES", As("socks5d_dns_queries_total")),
    ("DNS_FAILURES", As("socks5d_dns_failures_total")),
    ("DNS_CACHE_HITS", As("socks5d_dns_cache_hits_total")),
    ("CONNECT_TIME_LE_1MS", As("socks5d_connect_seconds_bucket{le=\"0.001024\"}")),
    ("CONNECT_TIME_LE_4MS", As("socks5d_connect_seconds_bucket{le=\"0.004096\"}")),
    ("CONNECT_TIME_LE_16MS", As("socks5d_connect_seconds_bucket{le=\"0.016384\"}")),
    ("CONNECT_TIME_LE_64MS", As("socks5d_connect_seconds_bucket{le=\"0.065536\"}")),
    ("CONNECT_TIME_LE_256MS", As("socks5d_connect_seconds_bucket{le=\"0.262144\"}")),
    ("CONNECT_TIME_LE_1S", As("socks5d_connect_seconds_bucket{le=\"1.048576\"}")),
    ("CONNECT_TIME_LE_4S", As("socks5d_connect_seconds_bucket{le=\"4.194304\"}")),
    ("CONNECT_TIME_LE_INF", As("socks5d_connect_seconds_bucket{le=\"+Inf\"}")),
    ("METP_SESSIONS_TOTAL", As("socks5d_accepted_total{service=\"metp\"}")),
    ("METP_SESSIONS", As("socks5d_sessions{service=\"metp\"}")),
    ("METP_AUTH_FAILED", As("socks5d_refused_total{service=\"metp\",reason=\"auth\"}")),
    ("EVENTS_LOST", As("socks5d_events_lost_total")),
    ("LOG_LINES_DROPPED", As("socks5d_log_lines_dropped_total")),
    ("PANICS", As("socks5d_panics_total")),
    ("CONNECTIONS_KILLED", As("socks5d_killed_total")),
    ("UDP_ASSOCIATIONS", As("socks5d_associations_total")),
    ("UDP_ASSOCIATIONS_OPEN", As("socks5d_connections{stage=\"associate\"}")),
    ("UDP_DATAGRAMS_UP", As("socks5d_datagrams_total{direction=\"up\"}")),
    ("UDP_DATAGRAMS_DOWN", As("socks5d_datagrams_total{direction=\"down\"}")),
    ("UDP_DROPPED_STRANGER", As("socks5d_datagrams_dropped_total{cause=\"stranger\"}")),
    ("UDP_DROPPED_FRAGMENT", As("socks5d_datagrams_dropped_total{cause=\"fragment\"}")),
    ("UDP_DROPPED_MALFORMED", As("socks5d_datagrams_dropped_total{cause=\"malformed\"}")),
    ("UDP_DROPPED_RULES", As("socks5d_datagrams_dropped_total{cause=\"rules\"}")),
    ("UDP_DROPPED_FILTERED", As("socks5d_datagrams_dropped_total{cause=\"filtered\"}")),
    ("UDP_DROPPED_NAME", As("socks5d_datagrams_dropped_total{cause=\"name\"}")),
    ("UDP_DROPPED_SIZE", As("socks5d_datagrams_dropped_total{cause=\"size\"}")),
    ("UDP_DROPPED_BUSY", As("socks5d_datagrams_dropped_total{cause=\"busy\"}")),
    ("UDP_DROPPED_ERROR", As("socks5d_datagrams_dropped_total{cause=\"error\"}")),
    ("UDP_KERNEL_DROPS", As("socks5d_datagrams_dropped_by_kernel_total")),
    ("CONNECT_ATTEMPTS", As("socks5d_connect_attempts_total")),
    ("CONNECT_RACES", As("socks5d_connect_races_total")),
    ("CONNECT_LOST", As("socks5d_connect_lost_total")),
    ("BINDS", As("socks5d_binds_total")),
    ("BIND_STRANGERS", As("socks5d_bind_strangers_total")),
    ("LOGINS_SHED", As("socks5d_logins_shed_total")),
    ("STORE_ERRORS", As("socks5d_store_errors_total")),
    ("COUNTED_SINCE", As("socks5d_counted_since_timestamp_seconds")),
    ("LOGINS_OK", By("socks5d_auth_total{service=\"socks\",result=\"ok\"}")),
    ("LOGINS_FAILED", By("socks5d_auth_total{service=\"socks\",result=\"failed\"}")),
    ("LOGINS_QUEUED", As("socks5d_auth_queue")),
    ("STORE_OK", By("socks5d_store_ok{file=\"users\"}")),
    ("RELOAD_OK", As("socks5d_config_last_reload_successful")),
    ("RELOADED", As("socks5d_config_last_reload_success_timestamp_seconds")),
];

/// Finds the series of each line of a body, and compares those that have its value.
fn compare(lines: &[String], separator: &str, table: &[(&str, Shown)], proxy: &Proxy) {
    let found = samples(&get(proxy, "/metrics").body);
    let rows: BTreeMap<&str, &Shown> = table.iter().map(|(key, shown)| (*key, shown)).collect();
    for line in lines {
        let (key, value) = line.split_once(separator).expect("a key");
        let shown = rows.get(key).unwrap_or_else(|| panic!("no row of the table for {key}"));
        let series = match shown {
            As(series) | By(series) => series.replace("VERSION", value),
            Nowhere(why) => {
                assert!(!why.is_empty());
                continue;
            }
        };
        let sample = found.get(&series).unwrap_or_else(|| panic!("{key}: there is no {series}"));
        if let As(_) = shown {
            assert_eq!(Ok(*sample), value.trim().parse(), "{key}: {series}");
        }
    }
    assert_eq!(lines.len(), table.len(), "a row of the table for nothing");
}

#[test]
fn what_metp_shows_is_in_the_metrics() {
    let (proxy, echo) = (builder().args(["--trust", "192.0.2.0/24"]).start(), Origin::echo());
    let mut tunnel = proxy.tunnel(echo.address);
    exchange(&mut tunnel, 1000);
    let mut admin = proxy.admin();
    let info = admin.ask("INFO");
    compare(&info, "=", &INFO, &proxy);
    let figures = admin.ask("GET_METRICS ALL");
    compare(&figures, ":", &FIGURES, &proxy);
}

/// What INFO says while the server closes down.
#[test]
fn the_end_is_in_the_metrics() {
    let (proxy, echo) = (builder().args(["--grace", "60"]).start(), Origin::echo());
    let _tunnel = proxy.tunnel(echo.address);
    let found = samples(&get(&proxy, "/metrics").body);
    assert_eq!([found["socks5d_closing"], found["socks5d_closing_left_seconds"]], [0.0; 2]);
    proxy.signal(libc::SIGTERM);
    eventually("it closes down", || {
        let found = samples(&get(&proxy, "/metrics").body);
        let left = found["socks5d_closing_left_seconds"];
        found["socks5d_closing"] == 1.0 && left > 0.0 && left <= 60.0
    });
}
