//! Where the logs go, and in which form (`--access-log`, `--access-log-format`, `--log-format`).

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use support::eventually;
use support::origin::Origin;
use support::proxy::{Builder, Proxy};
use support::socks::Client;
use tempfile::TempDir;

/// A log in a directory of its own.
struct LogFile {
    directory: TempDir,
}

impl LogFile {
    fn new() -> Self {
        LogFile { directory: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("access.log")
    }

    fn builder(&self) -> Builder {
        Builder::default().args([&PathBuf::from("--access-log"), &self.path()])
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path()).expect("text");
        text.lines().map(str::to_owned).collect()
    }
}

/// A request that is answered and ends.
fn request(proxy: &Proxy, echo: &Origin) {
    let mut tunnel = proxy.tunnel(echo.address);
    support::exchange(&mut tunnel, 4);
}

/// As many lines as requests, however often the file is renamed and opened again meanwhile.
#[test]
fn no_line_is_lost_to_a_rotation() {
    let (log, echo) = (LogFile::new(), Origin::echo());
    let proxy = log.builder().start();
    let (stop, requests) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    request(&proxy, &echo);
                    requests.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for number in 0..100 {
            let before = requests.load(Ordering::Relaxed);
            eventually("a request", || requests.load(Ordering::Relaxed) > before);
            fs::rename(log.path(), log.directory.path().join(number.to_string())).expect("renamed");
            proxy.signal(if number % 2 == 0 { libc::SIGUSR1 } else { libc::SIGHUP });
            eventually("a new file", || log.path().exists());
        }
        stop.store(true, Ordering::Relaxed);
    });
    let requests = requests.load(Ordering::Relaxed);
    let lines = || -> Vec<String> {
        let files = fs::read_dir(log.directory.path()).expect("read");
        let text = |file: fs::DirEntry| fs::read_to_string(file.path()).expect("text");
        let texts: Vec<String> = files.map(|file| text(file.expect("read"))).collect();
        texts.iter().flat_map(|text| text.lines().map(str::to_owned)).collect()
    };
    eventually("all lines", || lines().len() as u64 >= requests);
    let lines = lines();
    assert!(lines.iter().all(|line| line.split('\t').count() == 12), "whole lines");
    // Each is that of another connection.
    let sources: BTreeSet<&str> = lines.iter().filter_map(|line| line.split('\t').nth(4)).collect();
    assert!(sources.len() > 1);
    assert_eq!(lines.len() as u64, requests);
    assert_eq!(proxy.stdout.all(), [""; 0]);
    let said = proxy.stderr.all();
    let times = |what: &str| said.iter().filter(|line| line.ends_with(what)).count();
    assert_eq!(times("SIGUSR1: opening the access log again"), 50);
    assert_eq!(times("SIGHUP: opening the access log again"), 50);
}

/// The keys and values of METP's event (METP section 5.18), and what kind of request it was.
#[test]
fn a_line_of_json_is_the_event() {
    let (log, echo) = (LogFile::new(), Origin::echo());
    let proxy = log.builder().args(["--access-log-format", "json", "-u", "a\"lice:pw"]).start();
    let client = Client::new(proxy.socks()).logged_in("a\"lice", "pw");
    let source = client.stream.local_addr().expect("connected");
    let mut tunnel = client.connected(echo.address);
    support::exchange(&mut tunnel, 4);
    drop(tunnel);
    eventually("a line", || !log.lines().is_empty());
    let line = log.lines().concat();
    let target = echo.address;
    let (head, rest) = line.split_once("\",\"user\"").expect("a user");
    assert!(head.starts_with("{\"time\":\"2") && head.ends_with('Z'), "{line}");
    let start = format!(
        ":\"a\\\"lice\",\"source\":\"{source}\",\"destination\":\"{target}\",\"reply\":0,\"up\":4,\"down\":4,\"duration\":0."
    );
    assert!(rest.starts_with(&start), "{line}");
    assert!(rest.ends_with(",\"reason\":\"finished\",\"rule\":null,\"kind\":\"A\"}"), "{line}");
}

#[test]
fn an_access_log_that_is_off_is_nowhere() {
    let echo = Origin::echo();
    let proxy = Proxy::with(&["--access-log", "off"]);
    request(&proxy, &echo);
    let mut admin = proxy.admin();
    eventually("the end of the tunnel", || admin.ask("CONNECTIONS").is_empty());
    assert_eq!(admin.figure("LOG_LINES_DROPPED"), 0);
    proxy.signal(libc::SIGUSR1);
    proxy.stderr.wait_for(|line| line.ends_with("SIGUSR1: nothing to do"));
    assert_eq!(proxy.stdout.all(), [""; 0]);
}

/// Where the log cannot be opened at the start, there is no start.
#[test]
fn a_log_that_cannot_be_opened_is_told() {
    let log = LogFile::new();
    for (path, cause) in [
        (log.directory.path().join("missing/access.log"), "No such file or directory"),
        (log.directory.path().to_owned(), "Is a directory"),
    ] {
        let mut program = Command::new(support::binary("socks5d"));
        program.args(["-l", "127.0.0.1", "-p", "0", "-P", "0", "--access-log"]).arg(&path);
        let output = program.output().expect("it starts");
        let stderr = String::from_utf8(output.stderr).expect("text");
        let told = format!("--access-log {}: {cause}", path.display());
        assert!(stderr.contains(&told) && stderr.lines().count() == 1, "{stderr}");
        assert_eq!(output.status.code(), Some(1));
    }
    for (option, value, told) in [
        (
            "--access-log",
            "",
            "--access-log \"\": the name of a file, - (standard output) or off expected",
        ),
        ("--access-log-format", "csv", "--access-log-format csv: tsv or json expected"),
        ("--log-format", "xml", "--log-format xml: text, json or journal expected"),
    ] {
        let output = Command::new(support::binary("socks5d")).args([option, value]).output();
        let output = output.expect("it starts");
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("socks5d: {told}\n"));
        assert_eq!(output.status.code(), Some(64));
    }
}

/// sd-daemon(3): a priority, and no time.
#[test]
fn diagnostics_have_three_forms() {
    for (format, line) in [
        ("text", "INFO  SIGUSR2: nothing to do"),
        ("json", "\",\"level\":\"info\",\"message\":\"SIGUSR2: nothing to do\"}"),
        ("journal", "<6>SIGUSR2: nothing to do"),
    ] {
        let proxy = Builder::default().args(["--log-format", format]).start();
        proxy.signal(libc::SIGUSR2);
        let said = proxy.stderr.wait_for(|said| said.ends_with(line));
        let starts = match format {
            "text" => said.starts_with('2'),
            "json" => said.starts_with("{\"time\":\"2"),
            _ => said == line,
        };
        assert!(starts, "{said}");
        assert_eq!(proxy.stderr.all().len(), 3, "each line has the form");
    }
}
