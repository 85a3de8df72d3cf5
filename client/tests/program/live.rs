//! The options of METP/1.1 against a live server, and what becomes of them where it speaks METP/1.0 only.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::Stdio;

use support::client::{Outcome, client, command, run};
use support::eventually;
use support::metp::value;
use support::origin::{Origin, closed_port};
use support::proxy::{Builder, Proxy};
use support::socks::{Client, connect_request, half_close};
use support::terminal::Terminal;
use support::{exchange, read_the_end, read_to_end};

const DONE: &str = "Operation successful\nConnection closed\n";

/// A call that does everything it was asked for; what it shows, without the last line.
fn shows(server: SocketAddr, arguments: &[&str]) -> String {
    let outcome = client(server, arguments);
    assert_eq!(outcome.code, 0, "{arguments:?}: {outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{arguments:?}: {outcome:?}");
    outcome.stdout.strip_suffix("Connection closed\n").expect("the last line").to_owned()
}

/// The line after the heading whose first word is this, as words.
fn row(table: &str, first: &str) -> Vec<String> {
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(first));
    line.unwrap_or_else(|| panic!("no {first} in {table}"))
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

#[test]
fn figures_and_facts_are_listed() {
    let proxy = Proxy::start();
    let server = proxy.metp_address();
    let info = shows(server, &["--info"]);
    assert_eq!(row(&info, "pid")[1], proxy.pid().to_string());
    assert_eq!(row(&info, "state")[1], "running");
    let start = |line: &str| {
        line.find("  ").map(|at| line[at..].len() - line[at..].trim_start().len() + at)
    };
    let columns: Vec<_> = info.lines().map(start).collect();
    assert!(columns.iter().all(|column| *column == columns[0]), "aligned: {info}");
    assert_eq!(row(&shows(server, &["--capabilities"]), "protocol")[1], "METP/1.1");
    let metrics = shows(server, &["--metrics-all"]);
    assert_eq!(row(&metrics, "METP_SESSIONS")[1], "1");
    assert_eq!(row(&metrics, "HISTORICAL_CONNECTIONS")[1], "0");
}

/// Who uses the proxy, how much; and one connection is cut, then all of a user.
#[test]
fn connections_are_shown_and_cut() {
    let (proxy, echo) = (Proxy::with(&["-u", "bob:pw"]), Origin::echo());
    let server = proxy.metp_address();
    let empty = shows(server, &["--connections"]);
    assert_eq!(
        empty,
        "ID  USER  SOURCE  DESTINATION  PEER  STATE  AGE  IDLE  UP  DOWN  BUFFERED\n"
    );
    let bob = || Client::new(proxy.socks()).logged_in("bob", "pw").connected(echo.address);
    let (mut first, mut second, mut other) = (bob(), bob(), proxy.tunnel(echo.address));
    for tunnel in [&mut first, &mut second, &mut other] {
        exchange(tunnel, 1000);
    }
    let all = shows(server, &["--connections"]);
    assert_eq!(all.lines().count(), 4, "{all}");
    let bobs = shows(server, &["--connections", "bob"]);
    assert!(bobs.lines().count() == 3 && !bobs.contains("admin"), "{bobs}");
    let source = first.local_addr().expect("connected").to_string();
    let line = bobs.lines().find(|line| line.contains(&source)).expect("it is there");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(
        words[1..6],
        ["bob", &source, &echo.address.to_string(), &echo.address.to_string(), "relay"]
    );
    assert_eq!(words[8..], ["1000", "1000", "0"]);
    let usage = row(&shows(server, &["--user-metrics", "bob"]), "bob");
    assert_eq!(usage[1..6], ["user", "2", "2", "2000", "2000"]);
    assert_eq!(shows(server, &["--user-metrics"]).lines().count(), 3);
    assert_eq!(shows(server, &["--kill", words[0]]), "Connections cut: 1\n");
    read_the_end(&mut first);
    exchange(&mut second, 10);
    assert_eq!(shows(server, &["--kill-user", "bob"]), "Connections cut: 1\n");
    read_the_end(&mut second);
    exchange(&mut other, 10);
    let gone = client(server, ["--kill", words[0]]);
    let told = format!("\nKILL {}: no such connection\n", words[0]);
    assert!(gone.code == 65 && gone.stderr.ends_with(&told), "{gone:?}");
}

#[test]
fn settings_are_shown_and_changed() {
    let proxy = Proxy::start();
    let server = proxy.metp_address();
    let all = shows(server, &["--config"]);
    assert_eq!(
        all.lines().next().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")),
        Some("KEY VALUE UNIT MIN MAX APPLIES SOURCE".to_owned())
    );
    assert_eq!(
        row(&all, "idle-timeout")[1..],
        ["3600", "seconds", "0", "31536000", "now", "default"]
    );
    assert_eq!(client(server, ["--set", "idle-timeout=90"]).stdout, DONE);
    assert_eq!(row(&shows(server, &["--config", "idle-timeout"]), "idle-timeout")[1], "90");
    let refused = client(server, ["--set", "buffer-size=0", "--set", "grace=7"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (65, DONE), "{refused:?}");
    assert!(
        refused.stderr.ends_with(
            "\nCONFIG SET buffer-size 0: buffer-size takes 1 to 1048576 bytes (units: k, M, G, T)\n"
        ),
        "{refused:?}"
    );
    assert_eq!(proxy.admin().setting("grace"), "7");
}

#[test]
fn a_line_is_sent_as_it_is() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let server = proxy.metp_address();
    let mut tunnel = proxy.tunnel(echo.address);
    exchange(&mut tunnel, 5);
    assert_eq!(shows(server, &["-l", "--", "PING", "hello"]), "admin admin\n200 PONG hello\n");
    let logs = shows(server, &["--", "GET_LOGS LAST 1"]);
    assert!(
        logs.starts_with("200 OK\n[") && logs.ends_with(&format!(" {} 10\n", echo.address)),
        "{logs}"
    );
    assert_eq!(shows(server, &["--", "QUIT"]), "200 Goodbye\n");
    let wrong = client(server, ["--", "NO-SUCH-VERB"]);
    assert!(wrong.code == 65 && wrong.stderr.contains("\nNO-SUCH-VERB: "), "{wrong:?}");
}

#[test]
fn a_new_password_is_asked_for_twice_or_read_from_stdin() {
    let proxy = Proxy::with(&["-u", "bob:old"]);
    let port = proxy.metp_address().port().to_string();
    let mut call = command(["-p", &port, "-u", "admin:1234", "--password", "bob"]);
    let mut child = call.stdin(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(b"two words\n").expect("taken");
    assert_eq!(support::client::outcome(child).stdout, DONE);
    proxy.metp().logged_in("bob", "two words");
    let empty = run(&mut command(["-p", &port, "-u", "admin:1234", "--password", "bob"]));
    assert_eq!((empty.code, empty.stdout.as_str()), (64, ""));
    for (second, code) in [(&b"secret\r"[..], 0), (b"secrets\r", 64)] {
        let mut terminal = Terminal::default();
        let mut call = command(["-p", &port, "-u", "admin:1234", "--password", "bob"]);
        terminal.control(&mut call);
        let child = call.stdin(terminal.line()).spawn().expect("it starts");
        eventually("it asks", || terminal.screen().ends_with("New password for bob: "));
        terminal.wait_until_hidden();
        terminal.type_keys(b"secret\r");
        eventually("it asks again", || terminal.screen().ends_with("Repeat the new password: "));
        terminal.wait_until_hidden();
        terminal.type_keys(second);
        assert_eq!(support::client::outcome(child).code, code);
        assert!(!terminal.screen().contains("secret"));
    }
    proxy.metp().logged_in("bob", "secret");
}

/// A secret of a container serves server (`PROXY_CTRL_SUPERUSER_FILE`) and client.
#[test]
fn the_account_and_its_password_may_come_from_a_file() {
    let proxy = Proxy::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    let port = proxy.metp_address().port().to_string();
    let call = |arguments: &[&str], variables: &[(&str, &str)]| {
        let file = path.to_str().expect("text");
        let mut command = command([&["-p", &port, "-q"], arguments].concat());
        run(command.env("METP_AUTH_FILE", file).envs(variables.iter().copied()))
    };
    let missing = call(&["-l"], &[]);
    assert_eq!((missing.code, missing.stderr.lines().count()), (64, 1), "{missing:?}");
    assert!(missing.stderr.starts_with("client: METP_AUTH_FILE /"), "{missing:?}");
    for (text, code) in [
        ("admin:1234\n".to_owned(), 0),
        ("admin:1234".to_owned(), 0),
        ("admin:123\n".to_owned(), 77),
        ("admin:1234\nmore\n".to_owned(), 64),
        ("\n".to_owned(), 64),
        (format!("admin:{}", "1".repeat(5000)), 64),
    ] {
        std::fs::write(&path, &text).expect("a file");
        let outcome = call(&["--", "PING"], &[]);
        assert_eq!(outcome.code, code, "{text:?}: {outcome:?}");
    }
    // What is said more plainly wins.
    assert_eq!(call(&["-u", "admin:1234", "-l"], &[]).code, 0);
    assert_eq!(call(&["-l"], &[("METP_AUTH", "admin:1234")]).code, 0);
}

#[test]
fn the_login_may_come_from_a_file() {
    let proxy = Proxy::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    std::fs::write(&path, "1234\nmore\n").expect("a file");
    let port = proxy.metp_address().port().to_string();
    let path = path.to_str().expect("text");
    let outcome = run(&mut command(["-p", &port, "-u", "admin", "--password-file", path, "-l"]));
    assert_eq!(outcome.stdout, "admin admin\nConnection closed\n");
    let variable =
        run(command(["-p", &port, "--password-file", path, "-l"]).env("METP_AUTH", "admin:no"));
    assert_eq!(variable.code, 0, "{variable:?}");
    let absent =
        run(&mut command(["-p", &port, "-u", "admin", "--password-file", "/no/such", "-l"]));
    assert_eq!((absent.code, absent.stdout.as_str(), absent.stderr.lines().count()), (64, "", 1));
    // CRLF ends the line; a CR alone ends none, and no password holds one.
    for (text, code) in [("1234\r\nmore\r\n", 0), ("1234\r", 64), ("1234\r\r\n", 64)] {
        std::fs::write(path, text).expect("a file");
        let told = run(&mut command(["-p", &port, "-u", "admin", "--password-file", path, "-l"]));
        assert_eq!(told.code, code, "{text:?}: {told:?}");
        let wrong =
            format!("client: --password-file {path}: the password holds a control character\n");
        assert_eq!(told.stderr.ends_with(&wrong), code == 64, "{told:?}");
    }
    for byte in [0, 9, 0x1b, 0x7f] {
        std::fs::write(path, [b"12", &[byte][..], b"34\nmore\n"].concat()).expect("a file");
        let controls =
            run(&mut command(["-p", &port, "-u", "admin", "--password-file", path, "-l"]));
        let stderr =
            format!("client: --password-file {path}: the password holds a control character\n");
        assert_eq!(controls, Outcome { code: 64, stdout: String::new(), stderr });
    }
}

#[test]
fn a_server_is_shut_down() {
    let mut proxy = Proxy::start();
    let outcome = client(proxy.metp_address(), ["--shutdown", "0.5"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, DONE), "{outcome:?}");
    assert_eq!(proxy.wait().code(), Some(0));
    let mut proxy = Proxy::start();
    let outcome = client(proxy.metp_address(), ["--", "SHUTDOWN", "GRACE", "0"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "200 OK\nConnection closed\n"));
    assert_eq!(proxy.wait().code(), Some(0));
}

/// `-f`: one line for each request that is over, until the server ends.
#[test]
fn the_access_log_is_followed() {
    let (mut proxy, echo, (_guard, closed)) = (Proxy::start(), Origin::echo(), closed_port());
    let port = proxy.metp_address().port().to_string();
    let mut calls = [&["-f"][..], &["--follow", "--json"]].map(|option| {
        let mut call = command(["-p", &port, "-u", "admin:1234"]);
        call.args(option).args(["--wait", "0"]).spawn().expect("it starts")
    });
    let mut admin = proxy.admin();
    eventually("both have subscribed", || admin.info("subscribers") == "2");
    let mut tunnel = proxy.tunnel(echo.address);
    exchange(&mut tunnel, 100);
    half_close(&tunnel);
    assert_eq!(read_to_end(&mut tunnel), b"");
    proxy.client().say(&connect_request(closed)).refused(5);
    let mut outputs =
        calls.each_mut().map(|call| BufReader::new(call.stdout.take().expect("piped")));
    let mut line = |which: usize| {
        let mut line = String::new();
        outputs[which].read_line(&mut line).expect("a line");
        line
    };
    let (first, second) = (line(0), line(0));
    let words: Vec<&str> = first.split_whitespace().collect();
    assert!(words[0].starts_with("[20") && words[0].ends_with("Z]"), "{first}");
    assert_eq!((words[1], words[3]), ("admin", echo.address.to_string().as_str()));
    assert_eq!((&words[4..7], words[8]), (&["succeeded", "100", "100"][..], "finished"));
    assert!(second.contains(&format!(" {closed} refused 0 0 ")), "{second}");
    let (first, second) = (line(1), line(1));
    let [first, second] = [first, second]
        .map(|line| serde_json::from_str::<serde_json::Value>(&line).expect("a JSON line"));
    assert_eq!(
        (&first["user"], &first["up"], &first["reply"]),
        (&"admin".into(), &100.into(), &0.into())
    );
    assert_eq!((&second["reply"], &second["reason"]), (&5.into(), &"refused".into()));
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
    for call in calls {
        let outcome = support::client::outcome(call);
        assert_eq!(outcome.code, 69, "{outcome:?}");
        assert!(outcome.stderr.ends_with("\nthe server is closing down\n"));
    }
}

/// Whoever follows and is nobody any more is told, also where nothing happens.
#[test]
fn a_follower_whose_account_is_deleted_is_told() {
    let proxy = Proxy::with(&["-u", "bob:pw"]);
    let port = proxy.metp_address().port().to_string();
    let mut admin = proxy.admin();
    assert_eq!(admin.command("SET-ROLE bob admin"), "200 OK");
    let follower = command(["-p", &port, "-u", "bob:pw", "-f"]).spawn().expect("it starts");
    eventually("it has subscribed", || admin.info("subscribers") == "1");
    assert_eq!(admin.command("DELETE-USER bob"), "200 OK");
    let outcome = support::client::outcome(follower);
    assert_eq!(outcome.code, 77, "{outcome:?}");
    assert!(outcome.stderr.ends_with("Authentication failed\n"), "{outcome:?}");
}

#[test]
fn answers_in_json() {
    let (proxy, echo) = (Proxy::with(&["-u", "bob:pw"]), Origin::echo());
    let server = proxy.metp_address();
    let mut tunnel = proxy.tunnel(echo.address);
    exchange(&mut tunnel, 100);
    let json = |arguments: &[&str], code: i32| {
        let outcome = client(server, [&["--json"], arguments].concat());
        assert_eq!(outcome.code, code, "{outcome:?}");
        serde_json::from_str::<serde_json::Value>(&outcome.stdout).expect("one document")
    };
    let line = [
        "-m",
        "-g",
        "-l",
        "-a",
        "x",
        "secret",
        "--info",
        "--metrics-all",
        "--user-metrics",
        "--connections",
        "--config",
        "--capabilities",
        "--",
        "PING",
        "7",
    ];
    let document = json(&line, 0);
    assert_eq!(document["server"], server.to_string());
    assert_eq!(document["user"], "admin");
    let results = document["results"].as_array().expect("a list");
    assert_eq!(results.len(), 11);
    assert!(results.iter().all(|result| result["ok"] == true));
    let of = |option: &str| {
        &results.iter().find(|result| result["option"] == option).expect("it is there")["result"]
    };
    assert_eq!(of("--metrics")["bytes_transferred"], 200);
    let record = &of("--logs")[0];
    assert_eq!((&record["user"], &record["bytes"]), (&"admin".into(), &200.into()));
    assert_eq!(record["destination"], echo.address.to_string());
    assert!(record["time"].as_str().is_some_and(|time| time.len() == 20 && time.ends_with('Z')));
    assert_eq!(of("--users")[1], serde_json::json!({"user": "bob", "role": "user"}));
    assert!(of("--add-user").is_null());
    assert_eq!(of("--info")["pid"], proxy.pid());
    assert_eq!(of("--metrics-all")["bytes_up"], 100);
    assert_eq!(of("--user-metrics")[0]["up"], 100);
    assert_eq!(of("--user-metrics")[1].get("last_seen"), Some(&().into()));
    assert_eq!(of("--info").get("closing_in"), Some(&().into()));
    let keys = |value: &serde_json::Value| -> Vec<String> {
        let objects = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        let objects = objects.iter().filter_map(serde_json::Value::as_object);
        objects.flat_map(|object| object.keys().cloned()).collect()
    };
    for result in results {
        let keys = keys(&result["result"]);
        assert!(keys.iter().all(|key| !key.contains(['-', ' '])), "{}: {keys:?}", result["option"]);
    }
    let connection = &of("--connections")[0];
    assert!(connection["id"].is_string() && connection["age"].is_number(), "{connection}");
    assert_eq!(connection["down"], 100);
    let settings = of("--config").as_array().expect("a list");
    let setting = |key: &str| settings.iter().find(|one| one["key"] == key).expect("a setting");
    assert_eq!(setting("grace")["value"], 3);
    assert_eq!(
        (&setting("log-level")["value"], &setting("log-level")["min"]),
        (&"info".into(), &().into())
    );
    let verbs = of("--capabilities")["verbs"].as_array().expect("a list");
    assert!(
        ["PING", "USER-METRICS", "SET-LIMIT"].iter().all(|verb| verbs.contains(&(*verb).into()))
    );
    assert_eq!(of("--")["text"], "PONG 7");
    assert!(!document.to_string().contains("secret"));
    let refused = json(&["-a", "bob", "pw", "-l"], 65);
    assert_eq!(refused["results"][0]["ok"], false);
    assert_eq!(refused["results"][0]["error"]["cause"], "EXISTS");
    assert_eq!(refused["results"][0]["error"]["exit"], 65);
    assert_eq!(refused["results"][1]["ok"], true);
    let port = server.port().to_string();
    let outcome = run(&mut command(["-p", &port, "-u", "admin:no", "--json", "-l"]));
    let failed: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("one document");
    assert_eq!((outcome.code, &failed["error"]["exit"]), (77, &77.into()));
}

/// The table fits the terminal, its sizes are for people, and the heading stands out unless NO_COLOR is set.
#[test]
fn on_a_terminal_tables_are_for_people() {
    let (proxy, echo) = (Builder::default().start(), Origin::echo());
    let mut tunnel = proxy.tunnel(echo.address);
    exchange(&mut tunnel, 3 << 20);
    let port = proxy.metp_address().port().to_string();
    for (plain, begins) in [("", "\x1b[1mID"), ("1", "ID")] {
        let mut terminal = Terminal::default();
        let mut call = command(["-p", &port, "-u", "admin:1234", "--connections"]);
        call.env("NO_COLOR", plain).env("TERM", "xterm").stdout(terminal.line());
        let Outcome { code, .. } = run(&mut call);
        let screen = terminal.screen();
        assert!(code == 0 && screen.starts_with(begins) && screen.contains(" 3.0 MiB"), "{screen}");
    }
    assert!(value(&proxy.admin().connection_from(&tunnel).expect("open"), "up") == "3145728");
}
