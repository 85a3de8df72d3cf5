//! The page, and the JSON that it is made from.

use std::collections::BTreeSet;

use serde_json::Value;
use support::origin::{Origin, closed_port};
use support::proxy::{Builder, Proxy, connect};
use support::socks::{Client, name_request};
use support::{eventually, exchange as echoes};

use super::{address, builder, exchange, get};

/// The JSON at a path.
fn json(proxy: &Proxy, path: &str) -> Value {
    let response = get(proxy, path);
    assert_eq!(response.status, 200, "{path}: {}", response.body);
    assert!(response.head.contains("\r\nContent-Type: application/json\r\n"), "{}", response.head);
    serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rows of a list.
fn rows(proxy: &Proxy, path: &str) -> Vec<Value> {
    json(proxy, path).as_array().expect("an array").clone()
}

/// The keys of a body of METP as JSON has them.
fn keys(lines: &[String], separator: &str) -> BTreeSet<String> {
    let key = |line: &String| line.split(separator).next().expect("a key").to_lowercase();
    lines.iter().map(|line| key(line).replace('-', "_")).collect()
}

fn keys_of(value: &Value) -> BTreeSet<String> {
    value.as_object().expect("an object").keys().cloned().collect()
}

/// The page asks for nothing but its own files; a browser is told to allow nothing else.
#[test]
fn the_page_is_whole_without_anybody_else() {
    let proxy = builder().start();
    let page = get(&proxy, "/");
    assert_eq!(page.status, 200);
    assert!(page.head.contains("\r\nContent-Type: text/html; charset=utf-8\r\n"), "{}", page.head);
    assert!(page.body.starts_with("<!DOCTYPE html>\n"), "{}", page.body);
    let mut texts = page.body.clone();
    for (path, content_type) in [
        ("page.css", "text/css; charset=utf-8"),
        ("page.js", "text/javascript; charset=utf-8"),
        ("plots.js", "text/javascript; charset=utf-8"),
        ("tables.js", "text/javascript; charset=utf-8"),
        ("units.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ] {
        assert!(texts.contains(path), "nothing asks for {path}");
        let file = get(&proxy, &format!("/{path}"));
        assert_eq!(file.status, 200, "{path}");
        let length = format!("\r\nContent-Length: {}\r\n", file.body.len());
        for field in [format!("\r\nContent-Type: {content_type}\r\n"), length] {
            assert!(file.head.contains(&field), "{field:?}: {}", file.head);
        }
        texts.push_str(&file.body);
    }
    for field in [
        "\r\nContent-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n",
        "\r\nCross-Origin-Resource-Policy: same-origin\r\n",
        "\r\nReferrer-Policy: no-referrer\r\n",
        "\r\nX-Content-Type-Options: nosniff\r\n",
        "\r\nCache-Control: no-store\r\n",
    ] {
        assert!(page.head.contains(field), "{field:?}: {}", page.head);
    }
    // The namespace of SVG is a name, not an address.
    let own = texts.replace("http://www.w3.org/2000/svg", "");
    for outside in ["//cdn", "http://", "https://", "@import", "url(", "ws://", "wss:", "import("] {
        assert!(!own.contains(outside), "{outside}");
    }
    for risky in
        ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("]
    {
        assert!(!own.contains(risky), "{risky}");
    }
    for inline in [" style=", " onclick=", "<style", "<script>"] {
        assert!(!page.body.contains(inline), "{inline}");
    }
    let head = exchange(connect(address(&proxy)), "HEAD / HTTP/1.1\nHost: localhost\n\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

/// `/status.json` says what METP's INFO (§5.12) and GET_METRICS ALL (§5.2) say, under the same keys.
#[test]
fn the_status_is_that_of_metp() {
    let (proxy, echo) = (builder().args(["-u", "alice:pw"]).start(), Origin::echo());
    let mut tunnel = Client::new(proxy.socks()).logged_in("alice", "pw").connected(echo.address);
    echoes(&mut tunnel, 1000);
    let mut admin = proxy.admin();
    let status = json(&proxy, "/status.json");
    assert_eq!(keys_of(&status), ["history", "info", "metrics"].map(str::to_owned).into());
    assert_eq!(keys_of(&status["info"]), keys(&admin.ask("INFO"), "="));
    assert_eq!(keys_of(&status["metrics"]), keys(&admin.ask("GET_METRICS ALL"), ":"));
    let info = &status["info"];
    assert_eq!(info["pid"].as_u64(), Some(proxy.pid().into()));
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["state"], "running");
    assert_eq!(info["closing_in"], Value::Null);
    assert_eq!(info["connections_relay"].as_u64(), Some(1));
    assert!(info["uptime"].is_number() && info["loop_p99"].is_number(), "{info}");
    let metrics = &status["metrics"];
    assert_eq!(metrics["current_connections"].as_u64(), Some(1));
    assert_eq!(metrics["bytes_up"].as_u64(), Some(1000));
    assert_eq!(metrics["reply_0"].as_u64(), Some(admin.figure("REPLY_0")));
}

/// The server keeps what has happened, whoever looks: the seconds add up to the counters.
#[test]
fn what_was_before_is_there() {
    let (proxy, echo) = (builder().args(["-u", "alice:pw"]).start(), Origin::echo());
    let mut tunnel = Client::new(proxy.socks()).logged_in("alice", "pw").connected(echo.address);
    echoes(&mut tunnel, 1000);
    Client::new(proxy.socks()).say(b"\x05\x01\x02\x01\x05alice\x01x").hears(b"\x05\x02\x01\x01");
    let columns = [
        "up",
        "down",
        "connections",
        "accepted",
        "logins_ok",
        "logins_failed",
        "dns_queries",
        "dns_failures",
        "loop_lag_us",
    ];
    let sum = |history: &Value, column: &str| -> u64 {
        let place = columns.iter().position(|name| *name == column).expect("a column");
        let rows = history["seconds"].as_array().expect("rows");
        rows.iter().map(|row| row[place].as_u64().expect("a number")).sum()
    };
    eventually("the second is over", || sum(&json(&proxy, "/history.json"), "logins_failed") == 1);
    for history in [json(&proxy, "/history.json"), json(&proxy, "/status.json")["history"].clone()]
    {
        assert_eq!(history["columns"], Value::from(columns.to_vec()));
        assert_eq!((sum(&history, "up"), sum(&history, "down")), (1000, 1000));
        assert_eq!((sum(&history, "accepted"), sum(&history, "logins_ok")), (2, 1));
        assert!(sum(&history, "loop_lag_us") > 0);
        let newest = history["second"].as_u64().expect("a number");
        assert_eq!(history["seconds"].as_array().map(Vec::len), usize::try_from(newest).ok());
        assert_eq!(
            (history["minute"].as_u64(), &history["minutes"]),
            (Some(0), &Value::Array(vec![]))
        );
        assert!(history["time"].as_u64().is_some_and(|time| time > 1_700_000_000), "{history}");
    }
}

/// Lists have METP's keys and escapes, so that what comes from outside is text in any page.
#[test]
fn lists_show_names_as_text() {
    let name = "<script>alert(1)</script>";
    let (proxy, echo) = (builder().args(["-u", &format!("{name}:pw")]).start(), Origin::echo());
    let (_socket, closed) = closed_port();
    Client::new(proxy.socks())
        .logged_in(name, "pw")
        .say(&support::socks::connect_request(closed))
        .refused(5);
    eventually("the first request is over", || rows(&proxy, "/requests.json").len() == 1);
    // A bidi override (U+202E).
    let bidi = "moc.\u{202e}elpmaxe";
    Client::new(proxy.socks())
        .logged_in(name, "pw")
        .say(&name_request(bidi.as_bytes(), 80))
        .refused(4);
    let mut tunnel = Client::new(proxy.socks()).logged_in(name, "pw").connected(echo.address);
    echoes(&mut tunnel, 10);
    for _ in 0..3 {
        Client::new(proxy.socks())
            .say(b"\x05\x01\x02\x01\x04-\xe2\x80\xae\x01x")
            .hears(b"\x05\x02\x01\x01");
    }
    eventually("both refused requests are over", || rows(&proxy, "/requests.json").len() == 2);

    let users = rows(&proxy, "/users.json");
    let user = users.iter().find(|row| row["user"] == name).expect("the account");
    assert_eq!((user["role"].as_str(), user["connections"].as_u64()), (Some("user"), Some(1)));
    assert_eq!(user["up"].as_u64(), Some(10));
    let connections = rows(&proxy, "/connections.json");
    assert_eq!(connections.len(), 1, "{connections:?}");
    assert_eq!(
        (&connections[0]["user"], &connections[0]["state"]),
        (&name.into(), &"relay".into())
    );
    assert_eq!(connections[0]["destination"], echo.address.to_string());
    let listed = proxy.admin().ask("CONNECTIONS");
    let pairs = listed[0].split(' ').map(|pair| pair.split('=').next().expect("a key").to_owned());
    assert_eq!(keys_of(&connections[0]), pairs.collect());
    // The newest first.
    let requests = rows(&proxy, "/requests.json");
    assert_eq!(requests[0]["destination"], "moc.\\xe2\\x80\\xaeelpmaxe:80");
    assert_eq!((requests[0]["reply"].as_u64(), requests[1]["reply"].as_u64()), (Some(4), Some(5)));
    assert_eq!((&requests[1]["user"], &requests[1]["kind"]), (&name.into(), &"A".into()));
    let failed = rows(&proxy, "/failed-logins.json");
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0]["user"], "-\\xe2\\x80\\xae");
    assert_eq!((failed[0]["count"].as_u64(), &failed[0]["service"]), (Some(3), &"socks".into()));
    assert_eq!(failed[0]["source"], "127.0.0.1");
    Client::new(proxy.socks()).say(b"\x05\x01\x02\x01\x01-\x01x").hears(b"\x05\x02\x01\x01");
    assert_eq!(rows(&proxy, "/failed-logins.json")[0]["user"], "-");
}

/// A list of any length comes whole, and in valid JSON if it is empty.
#[test]
fn lists_are_whole() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let many: String = (0..10_000).map(|number| format!("u{number}:\n")).collect();
    std::fs::write(file.path(), many).expect("written");
    let users = file.path().to_str().expect("text");
    let proxy = builder().args(["--users", users]).start();
    let listed = rows(&proxy, "/users.json");
    let names: BTreeSet<&str> = listed.iter().filter_map(|row| row["user"].as_str()).collect();
    assert_eq!((listed.len(), names.len()), (10_001, 10_001));
    for path in ["/connections.json", "/requests.json", "/failed-logins.json"] {
        assert_eq!(rows(&proxy, path), Vec::<Value>::new(), "{path}");
    }
    // Until the end of the connection, for HTTP/1.0.
    let old = exchange(connect(address(&proxy)), "GET /users.json HTTP/1.0\n\n");
    let rows: Vec<Value> = serde_json::from_str(&old.body).expect("JSON");
    assert_eq!(rows.len(), 10_001);
}

/// All of it needs the login of an administrator beyond loopback.
#[test]
fn the_page_is_for_administrators() {
    let proxy = Builder::default().args(["--http", "0.0.0.0:0", "-u", "alice:pw"]).start();
    for path in [
        "/",
        "/page.js",
        "/status.json",
        "/history.json",
        "/users.json",
        "/connections.json",
        "/requests.json",
        "/failed-logins.json",
    ] {
        assert_eq!(get(&proxy, path).status, 401, "{path}");
        // admin:1234, alice:pw
        for (login, status) in [("YWRtaW46MTIzNA==", 200), ("YWxpY2U6cHc=", 403)] {
            let request =
                format!("GET {path} HTTP/1.1\nHost: localhost\nAuthorization: Basic {login}\n\n");
            assert_eq!(exchange(connect(address(&proxy)), &request).status, status, "{path}");
        }
    }
}
