//! `/metrics` and `/metrics/users`: the text format of Prometheus, version 0.0.4.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use socks5d::proto::usage_file::{AccountFigures, Figures};
use support::origin::Origin;
use support::socks::Client;
use support::{eventually, exchange as echoes};

use super::cuts::narrow;
use super::{Response, address, builder, get};

/// The samples of a body, each with its name and labels; what the format asks for is checked.
pub fn samples(body: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let (mut named, mut of): (BTreeSet<&str>, (&str, &str)) = (BTreeSet::new(), ("", ""));
    let mut helped = "";
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help");
            assert!(help.ends_with('.') && help.len() > 10, "{line}");
            assert!(named.insert(name), "a metric in two places: {name}");
            helped = name;
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            of = rest.split_once(' ').expect("a type");
            assert_eq!(of.0, helped);
            assert!(["counter", "gauge", "histogram"].contains(&of.1), "{line}");
            assert_eq!(of.1 == "counter", of.0.ends_with("_total"), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let name = series.split('{').next().expect("a name");
        let base = match of.1 {
            "histogram" => {
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end))
            }
            _ => Some(name),
        };
        assert_eq!(base, Some(of.0), "{line}");
        assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        );
        let value: f64 = value.parse().expect("a number");
        assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {series}");
    }
    samples
}

#[test]
fn metrics_are_those_of_metp() {
    let (proxy, echo) = (builder().args(["-u", "alice:pw"]).start(), Origin::echo());
    let mut tunnel = Client::new(proxy.socks()).logged_in("alice", "pw").connected(echo.address);
    echoes(&mut tunnel, 1000);
    let mut admin = proxy.admin();
    let Response { status, head, body } = get(&proxy, "/metrics");
    assert_eq!(status, 200);
    assert!(
        head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{head}"
    );
    let samples = samples(&body);
    let of = |series: &str| *samples.get(series).unwrap_or_else(|| panic!("no {series}"));
    assert_eq!(of("socks5d_accepted_total{service=\"socks\"}"), 1.0);
    assert_eq!(of("socks5d_sessions{service=\"http\"}"), 1.0);
    assert_eq!(of("socks5d_connections{stage=\"relay\"}"), 1.0);
    assert_eq!(of("socks5d_payload_bytes_total{direction=\"up\"}"), 1000.0);
    assert_eq!(of("socks5d_replies_total{code=\"0\"}"), admin.figure("REPLY_0") as f64);
    assert_eq!(of("socks5d_connect_seconds_count"), 1.0);
    assert_eq!(of("socks5d_connect_seconds_bucket{le=\"+Inf\"}"), 1.0);
    let version = format!("socks5d_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(of(&version), 1.0);
    for series in [
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "socks5d_uptime_seconds",
    ] {
        assert!(of(series) > 0.0, "{series}");
    }
    // Buckets are cumulative.
    let mut turns: Vec<(f64, f64)> = samples
        .iter()
        .filter_map(|(series, count)| {
            let bound =
                series.strip_prefix("socks5d_turn_seconds_bucket{le=\"")?.strip_suffix("\"}")?;
            Some((bound.replace('+', "").parse().expect("a bound"), *count))
        })
        .collect();
    turns.sort_by(|one, other| one.0.total_cmp(&other.0));
    assert!(turns.len() > 10 && turns.is_sorted_by_key(|(_, count)| *count as u64), "{turns:?}");
}

/// Names as METP has them; those who have moved nothing are left out, however many they are.
#[test]
fn accounts_have_metrics_of_their_own() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let many: String = (0..10_000).map(|number| format!("u{number}:\n")).collect();
    std::fs::write(file.path(), format!("{many}alice:=pw\nb\"o\\x20b:=pw\n")).expect("written");
    let users = file.path().to_str().expect("text");
    let (proxy, echo) = (builder().args(["--users", users]).start(), Origin::echo());
    let mut tunnels = Vec::new();
    for (name, count) in [("alice", 10), ("b\"o b", 20)] {
        let client = Client::new(proxy.socks()).logged_in(name, "pw");
        let mut tunnel = client.connected(echo.address);
        echoes(&mut tunnel, count);
        tunnels.push(tunnel);
    }
    let Response { status, body, .. } = get(&proxy, "/metrics/users");
    assert_eq!(status, 200);
    let found = samples(&body);
    let expected = [
        (r#"socks5d_user_connections{user="alice"}"#, 1.0),
        (r#"socks5d_user_connections{user="b\"o\\x20b"}"#, 1.0),
        (r#"socks5d_user_payload_bytes_total{user="alice",direction="down"}"#, 10.0),
        (r#"socks5d_user_payload_bytes_total{user="alice",direction="up"}"#, 10.0),
        (r#"socks5d_user_payload_bytes_total{user="b\"o\\x20b",direction="down"}"#, 20.0),
        (r#"socks5d_user_payload_bytes_total{user="b\"o\\x20b",direction="up"}"#, 20.0),
    ];
    let expected: Vec<(String, f64)> =
        expected.iter().map(|(series, value)| ((*series).to_owned(), *value)).collect();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
}

/// RFC 9110 section 9.3.2: the head alone. RFC 9112 section 6.3: HTTP/1.0 knows no chunks.
#[test]
fn curl_understands_it() {
    let proxy = builder().start();
    let curl = |arguments: &[&str], path: &str| {
        let url = format!("http://{}{path}", address(&proxy));
        let output =
            Command::new("curl").args(["-sS", "--noproxy", "*"]).args(arguments).arg(url).output();
        let output = output.expect("curl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    for arguments in [&[][..], &["--http1.0"], &["-H", "Host: localhost:1"]] {
        assert!(samples(&curl(arguments, "/metrics")).len() > 50, "{arguments:?}");
    }
    let head = curl(&["-I"], "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(curl(&[], "/healthz"), "ok\n");
    let refused = curl(&["-H", "Host: evil.example", "-w", "%{http_code}"], "/metrics");
    assert!(refused.ends_with("403"), "{refused}");
}

/// A reader who stops keeps nobody else from being served, and is given up.
#[test]
fn a_reader_that_stops_is_left_behind() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let many: String = (0..20_000).map(|number| format!("u{number}:=pw\n")).collect();
    std::fs::write(file.path(), many).expect("written");
    let users = file.path().to_str().expect("text");
    let options = ["--users", users, "--linger-timeout", "0.2"];
    let (proxy, echo) = (builder().args(options).start(), Origin::echo());
    let mut stuck = support::proxy::connect(address(&proxy));
    std::io::Write::write_all(&mut stuck, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n")
        .expect("sent");
    let mut tunnel = Client::new(proxy.socks()).logged_in("u1", "pw").connected(echo.address);
    echoes(&mut tunnel, 10);
    assert_eq!(get(&proxy, "/healthz").body, "ok\n");
    drop(stuck);
    let mut admin = proxy.admin();
    eventually("all sessions of HTTP are over", || {
        let lines = get(&proxy, "/metrics").body;
        samples(&lines)["socks5d_sessions{service=\"http\"}"] == 1.0
    });
    assert_eq!(admin.command("PING x"), "200 PONG x");
}

/// An account that is deleted while its scrape is read, and its name added again, has no series twice.
#[test]
fn no_scrape_has_a_series_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    // Long names, for more than the kernel keeps of an answer.
    let names: Vec<String> = (0..20_000).map(|number| format!("u{number:0>200}")).collect();
    let users: String = names.iter().map(|name| format!("{name}:=pw\n")).collect();
    std::fs::write(path("users"), users).expect("written");
    let figures = Figures {
        since: 1,
        accounts: names.iter().map(|name| moved(name)).collect(),
        ..Figures::default()
    };
    std::fs::create_dir(path("state")).expect("made");
    std::fs::write(path("state/usage"), figures.text()).expect("written");
    let files = ["--users".into(), path("users"), "--state".into(), path("state")];
    let (proxy, echo) = (builder().args(files).start(), Origin::echo());
    let mut slow = narrow(address(&proxy));
    let request = b"GET /metrics/users HTTP/1.0\r\n\r\n";
    std::io::Write::write_all(&mut slow, request).expect("sent");
    let mut body = support::read_exactly(&mut slow, 1024);
    let (mut admin, name) = (proxy.admin(), &names[0]);
    for command in [format!("DELETE-USER {name}"), format!("ADD-USER {name} other")] {
        assert_eq!(admin.command(&command), "200 OK");
    }
    let mut tunnel = Client::new(proxy.socks()).logged_in(name, "other").connected(echo.address);
    echoes(&mut tunnel, 10);
    body.extend(support::read_to_end(&mut slow));
    let text = String::from_utf8(body).expect("text");
    let (_, body) = text.split_once("\r\n\r\n").expect("a body");
    let found = samples(body);
    assert!(found.len() > 3 * 19_000, "{}", found.len());
    // The next one has the new account.
    let next = samples(&get(&proxy, "/metrics/users").body);
    let up = format!("socks5d_user_payload_bytes_total{{user=\"{name}\",direction=\"up\"}}");
    assert_eq!(next[&up], 10.0);
}

/// Figures of an account that has moved bytes.
fn moved(name: &str) -> AccountFigures {
    let (since, up, down) = (1, 1000, 2000);
    AccountFigures { name: name.as_bytes().into(), since, up, down, ..AccountFigures::default() }
}

/// What is left of quotas; accounts without one, and those that have moved nothing, have no such series.
#[test]
fn quotas_have_series() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let accounts = "alice:=pw:quota=1kB/month\nbob:=pw\ncarol:=pw:quota=1kB/total\n";
    std::fs::write(file.path(), accounts).expect("written");
    let users = file.path().to_str().expect("text");
    let (proxy, echo) = (builder().args(["--users", users]).start(), Origin::echo());
    for name in ["alice", "bob"] {
        let client = Client::new(proxy.socks()).logged_in(name, "pw");
        echoes(&mut client.connected(echo.address), 450);
    }
    let found = samples(&get(&proxy, "/metrics/users").body);
    let quotas = found.into_iter().filter(|(series, _)| series.contains("quota"));
    assert_eq!(
        quotas.collect::<Vec<_>>(),
        [
            (r#"socks5d_user_quota_bytes{user="alice"}"#.to_owned(), 1000.0),
            (r#"socks5d_user_quota_used_bytes{user="alice"}"#.to_owned(), 900.0),
        ]
    );
}
