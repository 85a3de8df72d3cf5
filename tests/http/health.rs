//! Samples of logins, of files that are written, and of reloads.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use support::eventually;
use support::proxy::{Builder, Proxy, connect};
use support::socks::{CHOSEN, Client, DENIED, HELLO, credentials};
use tempfile::TempDir;

use super::metrics::samples;
use super::{address, builder, exchange, get};

type Samples = BTreeMap<String, f64>;

fn scrape(proxy: &Proxy) -> Samples {
    samples(&get(proxy, "/metrics").body)
}

/// Those of a metric with several labels, without its name.
fn of(samples: &Samples, metric: &str) -> Vec<(String, f64)> {
    let of_metric = samples.iter().filter_map(|(series, value)| {
        let labels = series.strip_prefix(metric)?.strip_prefix('{')?.strip_suffix('}')?;
        Some((labels.replace('"', ""), *value))
    });
    of_metric.collect()
}

/// What was looked at: a method that is not acceptable, or a malformed AUTH, is no login.
#[test]
fn logins_are_counted_by_service_and_result() {
    let proxy = Builder::default().args(["--http", "0.0.0.0:0", "-u", "alice:pw"]).start();
    let wrong = [HELLO, &credentials(b"alice", b"no")].concat();
    let mut stranger = Client::new(proxy.socks());
    stranger.say(&wrong).hears(&[CHOSEN, DENIED].concat());
    Client::new(proxy.socks()).say(b"\x05\x01\x00").hears(b"\x05\xff");
    for _ in 0..3 {
        drop(Client::new(proxy.socks()).logged_in("alice", "pw"));
    }
    for (login, answer) in [("admin no", "401 Unauthorized\n"), ("", "400 Bad Request\n")] {
        let mut metp = proxy.metp();
        metp.say(format!("HELLO METP/1.0\nAUTH {login}").trim_end()).say("\n");
        metp.hears("200 Welcome to METP/1.0\n").hears(answer);
    }
    let mut admin = proxy.admin();
    let ask = |login: &str| {
        let login = format!("Authorization: Basic {login}\n");
        let request = format!("GET /metrics HTTP/1.1\nHost: localhost\n{login}\n");
        exchange(connect(address(&proxy)), &request)
    };
    // admin:wrong, admin:1234
    assert_eq!(ask("YWRtaW46d3Jvbmc=").status, 401);
    let response = ask("YWRtaW46MTIzNA==");
    assert_eq!(response.status, 200);
    let found = samples(&response.body);
    assert_eq!(
        of(&found, "socks5d_auth_total").iter().map(|(l, n)| (l.as_str(), *n)).collect::<Vec<_>>(),
        [
            ("service=http,result=failed", 1.0),
            ("service=http,result=ok", 1.0),
            ("service=metp,result=failed", 1.0),
            ("service=metp,result=ok", 1.0),
            ("service=socks,result=failed", 1.0),
            ("service=socks,result=ok", 3.0),
        ]
    );
    assert_eq!(found["socks5d_auth_queue"], 0.0);
    assert_eq!([admin.figure("LOGINS_OK"), admin.figure("LOGINS_FAILED")], [5, 3]);
    assert_eq!(admin.figure("METP_AUTH_FAILED"), 1);
    eventually("both have ended", || admin.figure("REFUSED_AUTH") == 2);
}

/// A hash that takes a second, and others that wait for it.
#[test]
fn logins_that_wait_are_shown() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let slow = "$2y$13$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    let names = ["a", "b", "c"];
    let users: String = names.iter().map(|name| format!("{name}:{slow}\n")).collect();
    fs::write(file.path(), users).expect("written");
    let users = file.path().to_str().expect("text");
    let proxy = builder().args(["--users", users, "--auth-threads", "1"]).start();
    let mut admin = proxy.admin();
    let waiting: Vec<Client> = names
        .iter()
        .map(|name| {
            let mut client = Client::new(proxy.socks());
            client.say(&[HELLO, &credentials(name.as_bytes(), b"no")].concat());
            client
        })
        .collect();
    eventually("they wait", || scrape(&proxy)["socks5d_auth_queue"] >= 2.0);
    drop(waiting);
    eventually("they do not", || admin.figure("LOGINS_QUEUED") == 0);
}

/// A server with all of its files, in a directory.
struct Files {
    directory: TempDir,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let files = Files { directory };
        for name in ["users", "rules", "state"] {
            fs::create_dir(files.path(name)).expect("made");
        }
        fs::write(files.path("users/file"), "alice:=pw\n").expect("written");
        fs::write(files.path("rules/file"), "allow\n").expect("written");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&self) -> Proxy {
        let files = [("--users", "users/file"), ("--rules", "rules/file"), ("--state", "state")];
        let arguments = files.map(|(option, name)| [option.into(), self.path(name)]).concat();
        builder().args(arguments).start()
    }

    /// Takes a directory away, and returns what brings it back.
    fn lose(&self, name: &str) -> impl Fn() + use<> {
        let (place, elsewhere) = (self.path(name), self.path("elsewhere"));
        fs::rename(&place, &elsewhere).expect("renamed");
        move || fs::rename(&elsewhere, &place).expect("renamed")
    }
}

/// The files whose last write has failed.
fn failing(proxy: &Proxy) -> Vec<String> {
    let found = of(&scrape(proxy), "socks5d_store_ok");
    assert_eq!(found.len(), 4, "{found:?}");
    found.into_iter().filter(|(_, ok)| *ok == 0.0).map(|(labels, _)| labels).collect()
}

#[test]
fn files_that_cannot_be_written_are_shown() {
    let files = Files::new();
    let proxy = files.start();
    let mut admin = proxy.admin();
    assert!(failing(&proxy).is_empty());
    for (lost, command, file) in [
        ("users", "LOCK-USER alice", "users"),
        ("rules", "RULE INSERT 1 deny port 25", "rules"),
        ("state", "CONFIG SAVE grace", "settings"),
        ("state", "RESET-USAGE alice", "figures"),
    ] {
        let back = files.lose(lost);
        let answer = admin.command(command);
        assert!(answer.starts_with("500 Internal Server Error [STORE]"), "{command}: {answer}");
        assert_eq!(failing(&proxy), [format!("file={file}")]);
        assert_eq!(admin.figure("STORE_OK"), 0, "{command}");
        back();
        assert_eq!(admin.command(command), "200 OK", "{command}");
        assert!(failing(&proxy).is_empty(), "{command}");
        assert_eq!(admin.figure("STORE_OK"), 1, "{command}");
    }
}

/// What others have changed is no failure any more once it has been read.
#[test]
fn files_that_others_have_changed_are_shown_until_a_reload() {
    let files = Files::new();
    let proxy = files.start();
    let mut admin = proxy.admin();
    fs::write(files.path("users/file"), "alice:=pw\nbob:=pw\n").expect("written");
    fs::write(files.path("rules/file"), "deny port 25\nallow\n").expect("written");
    for command in ["LOCK-USER alice", "RULE INSERT 1 deny port 26"] {
        assert!(admin.command(command).ends_with("RELOAD first"), "{command}");
    }
    assert_eq!(failing(&proxy), ["file=rules", "file=users"]);
    assert!(admin.command("RELOAD").starts_with("200 OK accounts=2 "));
    assert!(failing(&proxy).is_empty());
}

/// By METP and by SIGHUP.
#[test]
fn reloads_are_shown() {
    const GOOD: &str = "socks5d_config_last_reload_successful";
    const WHEN: &str = "socks5d_config_last_reload_success_timestamp_seconds";
    let files = Files::new();
    let proxy = files.start();
    let mut admin = proxy.admin();
    let at_first = scrape(&proxy);
    assert_eq!((at_first[GOOD], at_first[WHEN] > 1.7e9), (1.0, true));
    let a_second_later = || scrape(&proxy)["socks5d_uptime_seconds"] >= 2.0;
    eventually("the start is past", a_second_later);
    for by_signal in [false, true] {
        let reload = |admin: &mut support::metp::Metp| match by_signal {
            true => proxy.signal(libc::SIGHUP),
            false => drop(admin.command("RELOAD")),
        };
        fs::write(files.path("users/file"), "alice\n").expect("written");
        reload(&mut admin);
        eventually("it has failed", || scrape(&proxy)[GOOD] == 0.0);
        assert_eq!(admin.figure("RELOAD_OK"), 0);
        let failed = scrape(&proxy);
        assert!(by_signal || failed[WHEN] == at_first[WHEN], "nothing was read");
        fs::write(files.path("users/file"), "alice:=pw\n").expect("written");
        reload(&mut admin);
        eventually("it has succeeded", || scrape(&proxy)[GOOD] == 1.0);
        assert!(scrape(&proxy)[WHEN] > at_first[WHEN]);
        assert_eq!(admin.figure("RELOADED") as f64, scrape(&proxy)[WHEN]);
    }
}
