//! `--watch` where there is no screen: plain lines, and JSON.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout};
use std::time::{SystemTime, UNIX_EPOCH};

use metp_protocol::timestamp::Timestamp;

use support::client::{command, outcome};
use support::eventually;
use support::exchange;
use support::origin::Origin;
use support::proxy::{Proxy, wait_for_exit};
use support::{PATIENCE, client};

/// A watch whose output goes through a pipe.
struct Watch {
    client: Child,
    lines: BufReader<ChildStdout>,
}

impl Watch {
    fn start(port: u16, user: &str, arguments: &[&str]) -> Self {
        let mut command = command(["-p", &port.to_string(), "-u", user]);
        let mut client = command.args(arguments).spawn().expect("it starts");
        let lines = BufReader::new(client.stdout.take().expect("piped"));
        Watch { client, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("text");
        line.strip_suffix('\n').expect("a whole line").to_owned()
    }

    /// The octets per second of the next line, whose time has the form `2026-01-31 12:00:00`.
    fn rate(&mut self) -> u64 {
        let line = self.line();
        let shape: String =
            line.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
        let (time, rate) = line.split_at(20);
        assert!(shape.starts_with("0000-00-00 00:00:00 "), "{line}");
        assert!(("2025-01-01 00:00:00"..).contains(&time), "{line}");
        rate.parse().expect("a number")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

#[test]
fn a_line_for_each_interval_tells_the_octets_per_second() {
    let proxy = Proxy::with(&["-u", "alice:secret"]);
    for user in ["admin:1234", "alice:secret"] {
        let mut watch = Watch::start(proxy.metp_address().port(), user, &["-w", "1"]);
        assert_eq!(watch.rate(), 0);
        let mut tunnel = proxy.tunnel(Origin::echo().address);
        exchange(&mut tunnel, 1_000_000);
        // Both directions count, and may be told in several lines. A look that is late makes its interval
        // longer and the next one shorter.
        let mut sum = 0;
        eventually("they are told", || {
            sum += watch.rate();
            sum > 500_000
        });
        assert!(sum < 20_000_000, "{sum}");
    }
}

#[test]
fn the_default_is_a_second_and_fractions_are_allowed() {
    let proxy = Proxy::start();
    let port = proxy.metp_address().port();
    let mut watch = Watch::start(port, "admin:1234", &["--watch"]);
    assert_eq!(watch.rate(), 0);
    let mut hasty = Watch::start(port, "admin:1234", &["--watch", "0.1"]);
    let mut slow = Watch::start(port, "admin:1234", &["--watch=3600"]);
    for _ in 0..10 {
        assert_eq!(hasty.rate(), 0);
    }
    assert_eq!(watch.rate(), 0);
    slow.client.kill().expect("it runs");
    assert_eq!(
        slow.lines.fill_buf().expect("EOF"),
        b"",
        "no line before the first interval is over"
    );
    for wrong in ["0", "0.05", "3601", "1x"] {
        let refused = client::client(proxy.metp_address(), ["-w", wrong]);
        assert_eq!(refused.code, 64, "{wrong}: {refused:?}");
    }
}

/// The time is that of the C library, for whatever `TZ` may say.
#[test]
fn lines_are_in_local_time() {
    let proxy = Proxy::start();
    let port = proxy.metp_address().port().to_string();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_secs();
    // Behind UTC, ahead, by quarters of an hour, with summer all year long, by a whole day.
    for (zone, ahead) in [
        ("UTC0", 0),
        ("XYZ-5:45", 20_700),
        ("<-0330>3:30", -12_600),
        ("ABC4DEF,0/0,J365/25", -10_800),
        ("LONGNAME-24", 86_400),
        (":no/such/zone", 0),
    ] {
        let mut command = command(["-p", &port, "-u", "admin:1234", "-w", "0.1"]);
        let before = now();
        let mut client = command.env("TZ", zone).spawn().expect("it starts");
        let mut lines = BufReader::new(client.stdout.take().expect("piped"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("text");
        let after = now();
        let _ = client.kill();
        let _ = client.wait();
        let shown = Timestamp::parse(&format!("{}Z", line[..19].replacen(' ', "T", 1)));
        let utc = shown.expect("a time").seconds().checked_add_signed(-ahead).expect("after 1970");
        assert!((before..=after).contains(&utc), "{zone}: {line}");
    }
}

#[test]
fn it_ends_in_silence_when_nobody_reads() {
    let proxy = Proxy::start();
    let mut watch = Watch::start(proxy.metp_address().port(), "admin:1234", &["-w", "0.1"]);
    watch.line();
    let mut stderr = BufReader::new(watch.client.stderr.take().expect("piped"));
    watch.lines = BufReader::new(nothing());
    wait_for_exit(&mut watch.client, PATIENCE);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stderr, &mut text).expect("text");
    let connecting = format!("Connecting to {} with user 'admin'\n", proxy.metp_address());
    assert_eq!(text, connecting);
}

/// The output of a program that has none.
fn nothing() -> ChildStdout {
    let mut command = std::process::Command::new("true");
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    child.wait().expect("it ends");
    child.stdout.take().expect("piped")
}

#[test]
fn json_has_an_object_for_each_interval() {
    let proxy = Proxy::with(&["-u", "alice:secret"]);
    let port = proxy.metp_address().port();
    let mut watch = Watch::start(port, "alice:secret", &["--json", "-w", "0.2"]);
    let mut next = || serde_json::from_str::<serde_json::Value>(&watch.line()).expect("JSON");
    let first = next();
    let keys: Vec<&str> =
        first.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["time", "connections", "accepted", "up", "down", "bytes_up", "bytes_down"]);
    assert_eq!((first["up"].as_u64(), first["bytes_up"].as_u64()), (Some(0), Some(0)));
    let time = first["time"].as_str().expect("a text");
    assert!(time.len() == 20 && time.ends_with('Z') && time.contains('T'), "{time}");
    let mut tunnel = proxy.tunnel(Origin::echo().address);
    exchange(&mut tunnel, 500_000);
    let mut moved = [false; 2];
    eventually("it tells of the bytes", || {
        let object = next();
        // An object may come between the two directions.
        for (moved, key) in moved.iter_mut().zip(["up", "down"]) {
            *moved |= object[key].as_u64() > Some(0);
        }
        let [up, down] = ["bytes_up", "bytes_down"].map(|key| object[key].as_u64());
        let counts = (object["connections"].as_u64(), object["accepted"].as_u64());
        (up, down, counts) == (Some(500_000), Some(500_000), (Some(1), Some(1)))
    });
    assert_eq!(moved, [true; 2]);
}

/// A server of METP/1.0 that delivers 5000 octets between two questions.
fn old_server() -> Origin {
    Origin::new(|stream| {
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        let mut bytes = 0;
        while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
            let reply = match line.trim_end() {
                "HELLO METP/1.0" => "200 Welcome to METP/1.0\n".to_owned(),
                "GET_METRICS" => {
                    bytes += 5000;
                    format!(
                        "200 OK\nHISTORICAL_CONNECTIONS: 1\nCURRENT_CONNECTIONS:    1\n\
                         BYTES_TRANSFERRED:      {bytes}\n.\n"
                    )
                }
                auth if auth.starts_with("AUTH ") => "200 OK\n".to_owned(),
                _ => "400 Bad Request [SYNTAX] unknown verb or wrong arguments\n".to_owned(),
            };
            if lines.get_mut().write_all(reply.as_bytes()).is_err() {
                return;
            }
            line.clear();
        }
    })
}

#[test]
fn lines_are_there_for_a_server_of_metp_1_0_too() {
    let port = old_server().address.port();
    let mut watch = Watch::start(port, "admin:1234", &["-w", "0.5"]);
    for _ in 0..2 {
        assert!(watch.rate() > 0);
    }
    let mut command = command(["-p", &port.to_string(), "-u", "admin:1234", "-w", "--json"]);
    let refused = outcome(command.spawn().expect("it starts"));
    assert_eq!((refused.code, refused.stdout.as_str()), (69, ""));
    assert!(
        refused.stderr.ends_with("-w: this server of METP/1.0 does not have it\n"),
        "{refused:?}"
    );
}

#[test]
fn the_end_of_the_server_is_told() {
    let proxy = Proxy::start();
    let port = proxy.metp_address().port();
    let mut watch = Watch::start(port, "admin:1234", &["-w", "0.2", "--wait", "0"]);
    watch.line();
    proxy.signal(libc::SIGTERM);
    assert_eq!(wait_for_exit(&mut watch.client, PATIENCE).code(), Some(69));
}
