//! Several servers in one call, servers that are waited for, and what a call needs not to be told: variables in
//! place of options, `-q`, `-n`, and passwords that are asked for.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::client::{Outcome, client, command, outcome, run};
use support::origin::{Origin, closed_port, deaf};
use support::proxy::{Lines, Proxy, send_signal};
use support::socks::{connect_request, half_close};
use support::terminal::Terminal;
use support::{binary, eventually, exchange, read_to_end};

const DONE: &str = "Operation successful\nConnection closed\n";

/// A call as admin to servers that are named as `-H` names them.
fn call(servers: &str) -> Command {
    command(["-H", servers, "-u", "admin:1234"])
}

fn names(servers: &[SocketAddr]) -> String {
    servers.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
}

/// A tunnel that has come and gone.
fn finished_tunnel(proxy: &Proxy, echo: &Origin) {
    let mut tunnel = proxy.tunnel(echo.address);
    exchange(&mut tunnel, 100);
    half_close(&tunnel);
    assert_eq!(read_to_end(&mut tunnel), b"");
    proxy.wait_until_idle();
}

#[test]
fn each_line_begins_with_its_server() {
    let proxies = [Proxy::start(), Proxy::with(&["-u", "bob:pw"])];
    let [first, second] = proxies.each_ref().map(Proxy::metp_address);
    let connecting = |server| format!("Connecting to {server} with user 'admin'\n");
    let stderr = connecting(first) + &connecting(second);
    let stdout = format!(
        "{first}: Operation successful\n{first}: admin admin\n{first}: amy user\n{first}: Connection closed\n\
         {second}: Operation successful\n{second}: admin admin\n{second}: bob user\n{second}: amy user\n\
         {second}: Connection closed\n"
    );
    let servers = names(&[first, second]);
    let expected = Outcome { code: 0, stdout, stderr };
    assert_eq!(run(call(&servers).args(["-a", "amy", "pw", "-l"])), expected);
    // The option may be repeated, and each server may have its own port or that of -p.
    let port = second.port().to_string();
    let mut repeated = command(["-H", &first.to_string(), "-p", &port, "-H", "127.0.0.1"]);
    let outcome = run(repeated.args(["-u", "admin:1234", "-q", "-d", "amy", "--info"]));
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{outcome:?}");
    let lines = |server: SocketAddr| {
        let label = format!("{server}: ");
        outcome.stdout.lines().filter(|line| line.starts_with(&label)).count()
    };
    assert!(lines(first) > 10 && lines(second) > 10, "{outcome:?}");
    assert_eq!(lines(first) + lines(second), outcome.stdout.lines().count());
}

#[test]
fn a_server_that_fails_does_not_stop_the_others() {
    let (proxy, (_guard, closed)) = (Proxy::with(&["-u", "bob:pw"]), closed_port());
    let alive = proxy.metp_address();
    let dead_first = run(call(&names(&[closed, alive])).arg("-l"));
    assert_eq!(dead_first.code, 69, "{dead_first:?}");
    let shown = format!("{alive}: admin admin\n{alive}: bob user\n{alive}: Connection closed\n");
    assert_eq!(dead_first.stdout, shown);
    let complaint = format!("\n{closed}: Cannot connect: Connection refused");
    assert!(dead_first.stderr.contains(&complaint), "{dead_first:?}");
    let waited = run(call(&names(&[closed, alive])).args(["--wait", "2", "-l"]));
    let first = waited.stderr.lines().nth(1).expect("it complains");
    let (why, again) = (format!("{closed}: Cannot connect: "), "; trying again");
    assert!(first.starts_with(&why) && first.ends_with(again), "{waited:?}");
    // The first failure decides.
    let refused = run(call(&names(&[alive, closed])).args(["-a", "bob", "pw"]));
    assert_eq!(refused.code, 65, "{refused:?}");
    assert!(refused.stderr.contains(&format!("\n{alive}: ADD-USER bob: user exists\n")));
    // So it is with a login that one of them does not take.
    let other = Proxy::with(&["-u", "amy:pw"]);
    let servers = names(&[other.metp_address(), alive]);
    let outcome = run(&mut command(["-H", &servers, "-u", "bob:pw", "-m"]));
    assert_eq!((outcome.code, outcome.stdout.lines().count()), (77, 4), "{outcome:?}");
    assert!(outcome.stderr.contains(&format!("{}: Authentication failed\n", other.metp_address())));
}

#[test]
fn each_document_names_its_server() {
    let (proxies, (_guard, closed)) = ([Proxy::start(), Proxy::start()], closed_port());
    let [first, second] = proxies.each_ref().map(Proxy::metp_address);
    let outcome = run(call(&names(&[first, closed, second])).args(["--json", "-l"]));
    assert_eq!(outcome.code, 69, "{outcome:?}");
    let documents = serde_json::Deserializer::from_str(&outcome.stdout).into_iter();
    let documents: Vec<serde_json::Value> = documents.map(|one| one.expect("JSON")).collect();
    let servers: Vec<&str> = documents.iter().filter_map(|one| one["server"].as_str()).collect();
    assert_eq!(servers, [first, closed, second].map(|server| server.to_string()));
    assert_eq!(documents[1]["error"]["exit"], 69);
    assert!([0, 2].iter().all(|index| documents[*index]["results"][0]["ok"] == true));
}

#[test]
fn one_server_is_shown_live_and_several_are_followed() {
    let (proxies, echo) = ([Proxy::start(), Proxy::start()], Origin::echo());
    let [first, second] = proxies.each_ref().map(Proxy::metp_address);
    let servers = names(&[first, second]);
    let refused = run(call(&servers).args(["-w", "1"]));
    let stderr = "client: -w: one server expected, not 2\n".to_owned();
    assert_eq!(refused, Outcome { code: 64, stdout: String::new(), stderr });
    for json in [false, true] {
        let mut call = call(&servers);
        call.args(["-f", "--wait", "0"]).args(json.then_some("--json"));
        let mut follower = call.spawn().expect("it starts");
        let mut lines = BufReader::new(follower.stdout.take().expect("piped"));
        for (proxy, server) in proxies.iter().zip([first, second]) {
            let mut admin = proxy.admin();
            eventually("it has subscribed", || admin.info("subscribers") == "1");
            finished_tunnel(proxy, &echo);
            let mut line = String::new();
            lines.read_line(&mut line).expect("a line");
            if json {
                let object: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                assert_eq!(object["server"], server.to_string());
                assert_eq!(object["up"], 100);
            } else {
                assert!(line.starts_with(&format!("{server}: [20")), "{line}");
            }
        }
        send_signal(&follower, libc::SIGTERM);
        follower.wait().expect("a child");
        for proxy in &proxies {
            let mut admin = proxy.admin();
            eventually("it is gone", || admin.info("subscribers") == "0");
        }
    }
}

/// Servers that there is no memory to follow have failed, each by its name; all others are followed.
#[test]
fn a_server_that_cannot_be_followed_does_not_stop_the_others() {
    const SERVERS: usize = 150;
    let proxy = Proxy::with(&["-L", "0.0.0.0", "--max-metp-sessions", "1000"]);
    let (echo, port) = (Origin::echo(), proxy.metp_address().port());
    // One server under many addresses.
    let servers: Vec<String> =
        (1..=SERVERS).map(|number| format!("127.0.1.{number}:{port}")).collect();
    // Of address space, in KiB: enough for about 35 of the threads, and there may be 64 subscribers.
    let script = "ulimit -v 40000 && exec \"$0\" \"$@\"";
    let mut limited = Command::new("sh");
    limited.args(["-c", script]).arg(binary("client")).env("LANG", "C.UTF-8");
    limited.args(["-H", &servers.join(","), "-u", "admin:1234", "-f", "--wait", "0"]);
    limited.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut follower = limited.spawn().expect("it starts");
    let stdout = Lines::gather(follower.stdout.take().expect("piped"));
    let stderr = Lines::gather(follower.stderr.take().expect("piped"));

    let failed = || {
        let is_named = |line: &String| {
            let mut told = line.splitn(2, ": ");
            let server = told.next().is_some_and(|name| servers.iter().any(|one| one == name));
            server && told.next().is_some_and(|why| why.starts_with("Cannot start a thread: "))
        };
        stderr.all().iter().filter(|line| is_named(line)).count()
    };
    let mut admin = proxy.admin();
    let mut followed = 0;
    eventually("each is followed or has failed", || {
        assert_eq!(follower.try_wait().expect("a child"), None, "{:#?}", stderr.all());
        followed = admin.info("subscribers").parse().expect("a number");
        followed + failed() == SERVERS
    });
    assert!((1..SERVERS).contains(&followed), "{followed}");
    finished_tunnel(&proxy, &echo);
    eventually("each shows its request", || stdout.all().len() == followed);
    send_signal(&follower, libc::SIGTERM);
    follower.wait().expect("a child");
}

/// One that ends leaves the others followed; the exit code tells.
#[test]
fn followers_of_several_end_one_by_one() {
    let (mut proxies, echo) = ([Proxy::start(), Proxy::start()], Origin::echo());
    let [first, second] = proxies.each_ref().map(Proxy::metp_address);
    let mut call = call(&names(&[first, second]));
    let mut follower = call.args(["-f", "--wait", "0"]).spawn().expect("it starts");
    let mut lines = BufReader::new(follower.stdout.take().expect("piped"));
    let [leaving, staying] = &mut proxies;
    for proxy in [&*leaving, &*staying] {
        let mut admin = proxy.admin();
        eventually("it has subscribed", || admin.info("subscribers") == "1");
    }
    leaving.signal(libc::SIGTERM);
    leaving.wait();
    finished_tunnel(staying, &echo);
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    assert!(line.starts_with(&format!("{second}: [20")), "{line}");
    staying.signal(libc::SIGTERM);
    staying.wait();
    let outcome = outcome(follower);
    assert_eq!(outcome.code, 69, "{outcome:?}");
    for server in [first, second] {
        let says = format!("{server}: the server is closing down\n");
        assert!(outcome.stderr.contains(&says), "{outcome:?}");
    }
}

#[test]
fn variables_stand_in_for_the_server() {
    let (proxy, (_guard, closed)) = (Proxy::start(), closed_port());
    let (server, port) = (proxy.metp_address(), proxy.metp_address().port().to_string());
    let with = |host: &str, port: &str, arguments: &[&str]| {
        let mut call = command(["-u", "admin:1234", "-l"]);
        let outcome = run(call.args(arguments).env("METP_HOST", host).env("METP_PORT", port));
        outcome.code
    };
    assert_eq!(with("127.0.0.1", &port, &[]), 0);
    assert_eq!(with("", &port, &[]), 0);
    assert_eq!(with(&server.to_string(), "1", &[]), 0);
    assert_eq!(with(&format!("{server}\r\n"), "1", &[]), 0);
    // Options win.
    assert_eq!(with(&closed.to_string(), "1", &["-H", &server.to_string()]), 0);
    assert_eq!(with(&closed.to_string(), "1", &["-p", &port]), 0);
    assert_eq!(with(&closed.to_string(), "1", &[]), 69);
    assert_eq!(with("a:b:c", &port, &[]), 64);
    assert_eq!(with("127.0.0.1", "http", &[]), 64);
    let mut several = command(["-u", "admin:1234", "-w"]);
    assert_eq!(run(several.env("METP_HOST", format!("{server},{closed}"))).code, 64);
}

#[test]
fn quiet_calls_say_what_was_asked_for_and_what_fails() {
    let proxy = Proxy::start();
    let quiet = |arguments: &[&str]| client(proxy.metp_address(), [&["-q"], arguments].concat());
    let silent = |stdout: &str| Outcome { code: 0, stdout: stdout.into(), stderr: String::new() };
    assert_eq!(quiet(&["-l"]), silent("admin admin\n"));
    assert_eq!(quiet(&["-g"]), silent(""));
    let refused = quiet(&["-d", "nobody"]);
    let stderr = "DELETE-USER nobody: no such user\n".to_owned();
    assert_eq!(refused, Outcome { code: 65, stdout: String::new(), stderr });
    let (_guard, closed) = closed_port();
    let outcome = client(closed, ["--quiet", "--wait", "0.2", "-l"]);
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (69, 1), "{outcome:?}");
}

/// The first line on stderr that has this in it.
fn says(call: &mut Child, what: &str) -> String {
    let mut lines = BufReader::new(call.stderr.as_mut().expect("piped")).lines();
    let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(what)));
    line.unwrap_or_else(|| panic!("never said: {what}")).expect("text")
}

/// Nobody listens on the port until the client has found that out.
#[test]
fn a_server_is_waited_for() {
    let (socket, address) = closed_port();
    let mut waiting = call(&address.to_string());
    let mut waiting = waiting.args(["--wait", "20", "-d", "bob"]).spawn().expect("it starts");
    let line = says(&mut waiting, "trying again");
    assert!(line.starts_with(&format!("Cannot connect to {address}: ")), "{line}");
    socket.listen(8).expect("bound");
    let listener = std::net::TcpListener::from(socket);
    let (stream, _) = listener.accept().expect("it tries again");
    // It is not there yet: it ends the session before the login.
    drop(stream);
    let (stream, _) = listener.accept().expect("it tries once more");
    let mut stream = BufReader::new(stream);
    for _ in 0..4 {
        stream.read_line(&mut String::new()).expect("a command");
        stream.get_mut().write_all(b"200 OK\n").expect("taken");
    }
    drop(stream);
    let outcome = outcome(waiting);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, DONE), "{outcome:?}");
}

#[test]
fn waiting_ends_and_a_wrong_password_is_not_waited_for() {
    let (_guard, closed) = closed_port();
    let outcome = client(closed, ["--wait", "0.3", "-m"]);
    let last = outcome.stderr.lines().next_back().expect("it complains");
    assert!(outcome.code == 69 && last.starts_with("Cannot connect to "), "{outcome:?}");
    // Also where nobody refuses.
    let (_guards, deaf) = deaf();
    let began = Instant::now();
    let outcome = client(deaf, ["--wait", "0.5", "-m"]);
    assert!(outcome.code == 69 && began.elapsed() < Duration::from_secs(9), "{outcome:?}");
    let once = client(closed, ["--wait", "0", "-m"]);
    assert_eq!((once.code, once.stderr.lines().count()), (69, 2), "{once:?}");
    let proxy = Proxy::start();
    let server = proxy.metp_address().to_string();
    let wrong = run(&mut command(["-H", &server, "-u", "admin:no", "--wait", "86400", "-m"]));
    assert_eq!(wrong.code, 77, "{wrong:?}");
    let other = Origin::new(|mut stream| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n");
        read_to_end(&mut stream);
    });
    let other = client(other.address, ["--wait", "86400", "-m"]);
    assert_eq!(other.code, 70, "{other:?}");
}

#[test]
fn the_newest_tunnels_alone_or_first() {
    let (proxy, echo, (_guard, closed)) = (Proxy::start(), Origin::echo(), closed_port());
    let server = proxy.metp_address();
    for _ in 0..3 {
        finished_tunnel(&proxy, &echo);
    }
    proxy.client().say(&connect_request(closed)).refused(5);
    let records = proxy.admin().ask("GET_LOGS");
    assert_eq!(records.len(), 3);
    let newest = format!("{}\n", records[1..].join("\n"));
    let shown = client(server, ["-q", "-g", "-n", "2"]);
    assert_eq!(shown, Outcome { code: 0, stdout: newest.clone(), stderr: String::new() });
    assert_eq!(client(server, ["-q", "-g", "-n", "0"]).stdout, "");
    let json: serde_json::Value =
        serde_json::from_str(&client(server, ["--json", "-g", "--last=2"]).stdout).expect("JSON");
    assert_eq!(json["results"][0]["result"].as_array().map(Vec::len), Some(2));
    for json in [false, true] {
        let mut call = call(&server.to_string());
        call.args(["-f", "-n", "2", "--wait", "0"]).args(json.then_some("--json"));
        let mut follower = call.spawn().expect("it starts");
        let mut lines = BufReader::new(follower.stdout.take().expect("piped"));
        let mut line = || {
            let mut line = String::new();
            lines.read_line(&mut line).expect("a line");
            line
        };
        let first = line() + &line();
        if json {
            let objects = serde_json::Deserializer::from_str(&first).into_iter();
            let objects: Vec<serde_json::Value> = objects.map(|one| one.expect("JSON")).collect();
            assert!(objects.iter().all(|one| one["bytes"] == 200 && one["user"] == "admin"));
        } else {
            assert_eq!(first, newest);
        }
        // Then what is over, refused requests too.
        proxy.client().say(&connect_request(closed)).refused(5);
        let refused = line();
        let reply = if json { "\"reply\":5" } else { " refused 0 0 " };
        assert!(refused.contains(reply), "{refused}");
        send_signal(&follower, libc::SIGTERM);
        follower.wait().expect("a child");
    }
}

#[test]
fn the_password_of_a_new_account_is_read_or_asked_for() {
    let proxy = Proxy::start();
    let server = proxy.metp_address().to_string();
    let piped = |arguments: &[&str], text: &[u8]| {
        let mut call = call(&server);
        let mut child = call.args(arguments).stdin(Stdio::piped()).spawn().expect("it starts");
        child.stdin.take().expect("piped").write_all(text).expect("taken");
        outcome(child)
    };
    assert_eq!(piped(&["-a", "bob"], b"two words \r\nrest\n").stdout, DONE);
    proxy.metp().logged_in("bob", "two words ");
    // A line for each.
    let ok = "Operation successful\n";
    let both = piped(&["-a", "amy", "-", "-a", "cid", "-l"], b"one\ntwo");
    assert!(both.stdout.starts_with(&format!("{ok}{ok}admin admin\n")), "{both:?}");
    proxy.metp().logged_in("amy", "one");
    proxy.metp().logged_in("cid", "two");
    for text in [&b""[..], b"\nx\n", b"a\tb\n", &[b'x'; 256]] {
        let wrong = piped(&["-a", "dan", "-d", "bob"], text);
        assert_eq!((wrong.code, wrong.stdout.as_str()), (64, ""), "{wrong:?}");
        assert!(
            wrong.stderr.starts_with("client: ") && !wrong.stderr.contains("a\tb"),
            "{wrong:?}"
        );
    }
    for (second, code) in [(&b"secret\r"[..], 0), (b"secrets\r", 64)] {
        let mut terminal = Terminal::default();
        let name = if code == 0 { "eve" } else { "fay" };
        let mut call = call(&server);
        terminal.control(call.args(["-a", name]));
        let child = call.stdin(terminal.line()).spawn().expect("it starts");
        let asks = format!("New password for {name}: ");
        eventually("it asks", || terminal.screen().ends_with(&asks));
        terminal.wait_until_hidden();
        terminal.type_keys(b"secret\r");
        eventually("it asks again", || terminal.screen().ends_with("Repeat the new password: "));
        terminal.wait_until_hidden();
        terminal.type_keys(second);
        let outcome = outcome(child);
        assert_eq!(outcome.code, code, "{outcome:?}");
        assert!(!terminal.screen().contains("secret"));
    }
    let users = proxy.admin().ask("USERS");
    let expected = ["admin admin", "bob user", "amy user", "cid user", "eve user"];
    assert_eq!(users, expected);
}

#[test]
fn a_line_end_behind_a_login_is_cut_off_and_other_control_characters_are_refused() {
    let proxy = Proxy::start();
    let server = proxy.metp_address().to_string();
    for login in ["admin:1234\n", "admin:1234\r\n"] {
        let option = run(&mut command(["-H", &server, "-u", login, "-l"]));
        let variable = run(command(["-H", &server, "-l"]).env("METP_AUTH", login));
        assert_eq!((option.code, variable.code), (0, 0), "{login:?}: {option:?} {variable:?}");
    }
    for login in [
        "admin:12\n34",
        "admin:1234\t",
        "admin:1234\n\n",
        "admin:1234\r",
        "admin:1234\r\r\n",
        "ad\rmin:1234",
        "admin:\u{7f}",
    ] {
        let option = run(&mut command(["-H", &server, "-u", login, "-l"]));
        let variable = run(command(["-H", &server, "-l"]).env("METP_AUTH", login));
        for outcome in [option, variable] {
            assert_eq!((outcome.code, outcome.stdout.as_str()), (64, ""), "{login:?}");
            assert!(!outcome.stderr.contains("34"), "{outcome:?}");
        }
    }
}
