//! METP/1.1: CONFIG (`protocol_metp.txt` §5.17). Each setting is an option, has the range it tells, and acts
//! when it says so: on what is open, or on what comes.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use socks5d::state::knobs::KNOBS;
use support::metp::{Metp, value};
use support::origin::{Origin, deaf};
use support::proxy::{Proxy, connect};
use support::socks::{Client, HELLO, connect_request, credentials, half_close, name_request};
use support::{binary, eventually, exchange, read_the_end, read_to_end, read_to_reset};

const OK: &str = "200 OK";
const SYNTAX: &str = "400 Bad Request [SYNTAX] wrong arguments";

/// Options that are no settings: they act at the start, or not on the server.
const NO_SETTINGS: &str = "help version listen port metp-listen metp-port http http-host http-pac user users \
     users-fixed state takeover pid-file run-as access-log access-log-format log-format hash-password config check-config print-config trust \
     bind-out bind-ports bind-advertise udp-ports udp-advertise rules";

/// The long options of `socks5d -h`.
fn options() -> Vec<String> {
    let help = Command::new(binary("socks5d")).arg("-h").output().expect("it runs").stdout;
    let help = String::from_utf8(help).expect("text");
    let option = |line: &str| {
        let (_, option) = line.split_once("--").filter(|(before, _)| before.len() == 8)?;
        Some(option.split(' ').next()?.to_owned())
    };
    help.lines().filter_map(option).collect()
}

#[test]
fn the_settings_are_the_options_in_their_order() {
    let proxy = Proxy::start();
    let mut options = options();
    options.retain(|option| !NO_SETTINGS.split(' ').any(|name| name == option));
    let settings = proxy.admin().ask("CONFIG GET");
    let keys: Vec<&str> = settings.iter().map(|line| value(line, "key")).collect();
    assert_eq!(keys.len(), KNOBS.len());
    let sorted = |mut keys: Vec<String>| {
        keys.sort();
        keys
    };
    assert_eq!(sorted(keys.iter().map(ToString::to_string).collect()), sorted(options));
    for line in &settings {
        let names: Vec<&str> =
            line.split(' ').filter_map(|pair| Some(pair.split_once('=')?.0)).collect();
        assert_eq!(names, ["key", "value", "unit", "min", "max", "applies", "source"], "{line}");
        let new = [
            "max-connections",
            "max-connections-per-ip",
            "max-metp-sessions",
            "allow-local",
            "local-for",
            "keepalive",
            "dns-cache",
            "dns-negative-cache",
            "prefer",
            "trust-any-login",
            "http-connect",
            "allow-resolve",
            "allow-bind",
            "udp",
            "max-associations",
        ];
        let applies = if new.contains(&value(line, "key")) { "new" } else { "now" };
        assert_eq!(value(line, "applies"), applies, "{line}");
    }
}

/// What the command line says is what CONFIG shows, and takes.
#[test]
fn values_are_those_of_the_command_line() {
    let given = [
        ("buffer-size", "4096"),
        ("buffer-memory", "1000000"),
        ("max-connections", "17"),
        ("max-connections-per-ip", "9"),
        ("max-metp-sessions", "5"),
        ("dns-threads", "3"),
        ("dns-queue", "7"),
        ("log-entries", "0"),
        ("log-level", "warn"),
        ("grace", "0.25"),
        ("handshake-timeout", "0.125"),
        ("resolve-timeout", "1.5"),
        ("idle-timeout", "0"),
        ("keepalive", "31536000"),
        ("subscriber-timeout", "0.001"),
        ("dns-cache", "2"),
        ("dns-negative-cache", "0"),
        ("prefer", "ipv4"),
    ];
    let arguments: Vec<String> =
        given.iter().map(|(key, value)| format!("--{key}={value}")).collect();
    let arguments: Vec<&str> =
        arguments.iter().map(String::as_str).chain(["--allow-local"]).collect();
    // A quiet one says not where it listens; so the level is set later.
    let arguments: Vec<&str> =
        arguments.into_iter().filter(|text| !text.contains("level")).collect();
    let proxy = Proxy::with(&arguments);
    let mut admin = proxy.admin();
    admin.set("log-level", "warn");
    for (key, value) in given.into_iter().chain([("allow-local", "on")]) {
        assert_eq!(admin.setting(key), value, "{key}");
        admin.set(key, value);
        assert_eq!(admin.setting(key), value, "{key}");
    }
}

/// The refusals to the letter: which setting, what it takes, of what.
#[test]
fn refusals_name_the_range() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    let no_key = "404 Not Found [NOKEY] no such setting";
    let syntax = "400 Bad Request [SYNTAX] wrong arguments";
    for (arguments, answer) in [
        (
            "SET buffer-size 0",
            "400 Bad Request [RANGE] buffer-size takes 1 to 1048576 bytes (units: k, M, G, T)",
        ),
        (
            "SET buffer-size 1048577",
            "400 Bad Request [RANGE] buffer-size takes 1 to 1048576 bytes (units: k, M, G, T)",
        ),
        (
            "SET buffer-size 4kB",
            "400 Bad Request [RANGE] buffer-size takes 1 to 1048576 bytes (units: k, M, G, T)",
        ),
        (
            "SET buffer-size +1",
            "400 Bad Request [RANGE] buffer-size takes 1 to 1048576 bytes (units: k, M, G, T)",
        ),
        (
            "SET log-level loud",
            "400 Bad Request [RANGE] log-level takes off, error, warn, info, debug, trace",
        ),
        (
            "SET log-level INFO",
            "400 Bad Request [RANGE] log-level takes off, error, warn, info, debug, trace",
        ),
        ("SET local-for me", "400 Bad Request [RANGE] local-for takes loopback, nobody, all"),
        ("SET prefer IPv4", "400 Bad Request [RANGE] prefer takes ipv4, ipv6, system"),
        ("SET allow-local yes", "400 Bad Request [RANGE] allow-local takes on, off"),
        ("SET allow-local 1", "400 Bad Request [RANGE] allow-local takes on, off"),
        (
            "SET grace 31536001",
            "400 Bad Request [RANGE] grace takes 0 or 0.001 to 31536000 seconds (units: ms, s, m, h, d)",
        ),
        (
            "SET idle-timeout -1",
            "400 Bad Request [RANGE] idle-timeout takes 0 or 0.001 to 31536000 seconds (units: ms, s, m, h, d)",
        ),
        (
            "SET idle-timeout 1e3",
            "400 Bad Request [RANGE] idle-timeout takes 0 or 0.001 to 31536000 seconds (units: ms, s, m, h, d)",
        ),
        (
            "SET idle-timeout 0.0004",
            "400 Bad Request [RANGE] idle-timeout takes 0 or 0.001 to 31536000 seconds (units: ms, s, m, h, d)",
        ),
        (
            "SET dns-cache 0.00000000000000000001",
            "400 Bad Request [RANGE] dns-cache takes 0 or 0.001 to 31536000 seconds (units: ms, s, m, h, d)",
        ),
        (
            "SET idle-timeout .",
            "400 Bad Request [RANGE] idle-timeout takes 0 or 0.001 to 31536000 seconds (units: ms, s, m, h, d)",
        ),
        (
            "SET idle-timeout inf",
            "400 Bad Request [RANGE] idle-timeout takes 0 or 0.001 to 31536000 seconds (units: ms, s, m, h, d)",
        ),
        ("GET nothing", no_key),
        ("SET nothing 1", no_key),
        ("SET Grace 1", no_key),
        ("SET --grace 1", no_key),
        ("GET user", no_key),
        ("SET port 1", no_key),
        ("SET grace", syntax),
        ("SET", syntax),
        ("", syntax),
        ("SET grace 1 s", syntax),
        ("GET grace idle-timeout", syntax),
        ("UNSET grace", syntax),
    ] {
        assert_eq!(admin.command(&format!("CONFIG {arguments}")), answer, "{arguments}");
    }
    for digits in ["00001", "0.001", "1.", ".5"] {
        let told = admin.command(&format!("CONFIG SET grace {digits}"));
        assert!(told == OK || told.contains("[RANGE]"), "{digits}: {told}");
    }
}

/// METP §5.17: sizes and times take units, and are shown without; counts, and CHANGE-BUFFER of METP/1.0, take none.
#[test]
fn values_take_units() {
    let proxy = Proxy::with(&["--buffer-memory", "64M", "--connect-timeout", "1500ms"]);
    let mut admin = proxy.admin();
    assert_eq!(admin.setting("buffer-memory"), "67108864");
    assert_eq!(admin.setting("connect-timeout"), "1.5");
    for (key, value, shown) in [
        ("buffer-size", "64k", "65536"),
        ("buffer-size", "1MiB", "1048576"),
        ("buffer-memory", "1G", "1073741824"),
        ("idle-timeout", "5m", "300"),
        ("grace", "250ms", "0.25"),
        ("dns-cache", "1d", "86400"),
    ] {
        admin.set(key, value);
        assert_eq!(admin.setting(key), shown, "{key} {value}");
    }
    for line in [
        "CONFIG SET buffer-size 2M",
        "CONFIG SET buffer-size 5s",
        "CONFIG SET buffer-memory 18014398509481985k",
        "CONFIG SET idle-timeout 5M",
        "CONFIG SET idle-timeout 213503982334602d",
        "CONFIG SET max-connections 1k",
        "CONFIG SET log-entries 1k",
    ] {
        assert!(admin.command(line).starts_with("400 Bad Request [RANGE] "), "{line}");
    }
    let syntax = "400 Bad Request [SYNTAX] wrong arguments";
    assert_eq!(admin.command("CHANGE-BUFFER 64k"), syntax);
    assert_eq!(admin.setting("buffer-size"), "1048576");
}

/// CHANGE-BUFFER is CONFIG SET buffer-size, both ways.
#[test]
fn change_buffer_and_buffer_size_are_one() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    assert_eq!(admin.command("CHANGE-BUFFER 4096"), OK);
    assert_eq!(admin.setting("buffer-size"), "4096");
    let (mut tunnel, before) = (proxy.tunnel(Origin::echo().address), proxy.cpu_time());
    admin.set("buffer-size", 1);
    exchange(&mut tunnel, 100_000);
    let tiny = proxy.cpu_time() - before;
    admin.set("buffer-size", 65536);
    let before = proxy.cpu_time();
    exchange(&mut tunnel, 100_000);
    let large = proxy.cpu_time() - before;
    assert!(tiny > 2 * large, "{tiny:?} byte by byte, {large:?} in large pieces");
}

/// Deadlines of what is open move with the setting: each of these would have lasted for minutes.
#[test]
fn shorter_times_end_what_is_open() {
    let long = ["handshake", "idle", "half-close", "connect", "linger", "metp-login"];
    let arguments = long.map(|name| format!("--{name}-timeout=200"));
    let proxy = Proxy::with(&arguments.each_ref().map(String::as_str));
    let (echo, (_guard, deaf)) = (Origin::echo(), deaf());
    let silent =
        Origin::new(|mut stream| drop(stream.read(&mut [0; 8]).map(|_| std::thread::park())));
    let mut admin = proxy.admin();

    let mut handshake = proxy.socks();
    handshake.write_all(HELLO).expect("taken");
    let mut login = proxy.metp();
    login.say("HELLO METP/1.0\n").hears("200 Welcome to METP/1.0\n");
    let mut idle = proxy.tunnel(echo.address);
    exchange(&mut idle, 1);
    let mut half = proxy.tunnel(silent.address);
    half_close(&half);
    let mut dialling = proxy.client();
    dialling.say(&connect_request(deaf));
    let mut refused = proxy.client();
    refused.say(b"\x05\x09\x00\x01\0\0\0\0\0\0");
    assert_eq!(refused.reply().0, 7);
    eventually("all are there", || admin.metrics()[1] == 5);

    admin.set("handshake-timeout", "0.1");
    assert_eq!(read_to_end(&mut handshake), [5, 2]);
    admin.set("half-close-timeout", "0.1");
    read_the_end(&mut half);
    assert_eq!(
        admin.connection_from(&idle).map(|line| value(&line, "state").to_owned()),
        Some("relay".into())
    );
    admin.set("idle-timeout", "0.1");
    read_the_end(&mut idle);
    admin.set("connect-timeout", "0.1");
    assert_eq!(dialling.reply().0, 6);
    admin.set("linger-timeout", "0.1");
    eventually("whoever was refused is gone", || admin.metrics()[1] == 0);
    admin.set("metp-login-timeout", "0.1");
    login.hears_eof();
    for reason in ["half-close-timeout", "idle-timeout"] {
        proxy.stdout.wait_for(|line| line.ends_with(&format!("\t{reason}")));
    }
}

/// A METP session's own time, and no longer once it is off again.
#[test]
fn metp_idle_timeout_acts_on_open_sessions() {
    let proxy = Proxy::start();
    let (mut admin, mut other, mut watcher) = (proxy.admin(), proxy.admin(), proxy.admin());
    assert_eq!(watcher.command("SUBSCRIBE logs"), OK);
    admin.set("metp-idle-timeout", "0.2");
    other.hears_eof();
    admin.hears_eof();
    // One that has subscribed has all the time it needs to turn it off.
    watcher.set("metp-idle-timeout", 0);
    let mut again = proxy.admin();
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(again.command("PING"), "200 PONG");
}

/// The limits of METP itself: who waits is let in, and who is in stays.
#[test]
fn max_metp_sessions_acts_on_who_waits() {
    let proxy = Proxy::with(&["--max-metp-sessions", "2"]);
    let (mut admin, mut other) = (proxy.admin(), proxy.admin());
    let mut waiting = connect(proxy.metp_address());
    waiting.write_all(b"HELLO METP/1.0\n").expect("the kernel takes it");
    admin.metrics();
    waiting.set_nonblocking(true).expect("a socket");
    let nothing = waiting.read(&mut [0]).expect_err("no answer and no end");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    waiting.set_nonblocking(false).expect("a socket");
    admin.set("max-metp-sessions", 3);
    Metp::new(waiting).hears("200 Welcome to METP/1.0\n");
    admin.set("max-metp-sessions", 1);
    assert_eq!(other.command("PING"), "200 PONG");
    assert_eq!(admin.info("metp-sessions-limit"), "1");
}

/// While dns-cache is off nothing is remembered, and what was remembered before is forgotten.
#[test]
fn dns_cache_acts_on_the_next_connection() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let mut admin = proxy.admin();
    let ask = |admin: &mut Metp| {
        let mut client = proxy.client();
        // No address for Rust, and 127.0.0.1 for getaddrinfo(3), without asking anybody.
        assert_eq!(client.say(&name_request(b"127.1", echo.address.port())).reply().0, 0);
        [admin.figure("DNS_QUERIES"), admin.figure("DNS_CACHE_HITS")]
    };
    admin.set("dns-cache", 0);
    assert_eq!(ask(&mut admin), [1, 0]);
    assert_eq!(ask(&mut admin), [2, 0]);
    assert_eq!(admin.info("dns-cached"), "0");
    admin.set("dns-cache", 30);
    assert_eq!(ask(&mut admin), [3, 0]);
    assert_eq!(ask(&mut admin), [3, 1]);
    assert_eq!(admin.info("dns-cached"), "1");
    admin.set("dns-cache", 0);
    assert_eq!(admin.info("dns-cached"), "0");
    assert_eq!(ask(&mut admin), [4, 1]);
}

/// Levels in both directions: up to debug, down to silence.
#[test]
fn log_level_goes_up_and_down() {
    let proxy = Proxy::with(&["--max-connections-per-ip", "1"]);
    let mut admin = proxy.admin();
    let _held: Client = proxy.client();
    let turned_away = || drop(read_to_end(&mut proxy.socks()));
    let told = || {
        let lines = proxy.stderr.all();
        lines.iter().filter(|line| line.contains("cause=too-many-connections")).count()
    };
    turned_away();
    admin.set("log-level", "debug");
    turned_away();
    let cause = "cause=too-many-connections";
    proxy.stderr.wait_for(|line| line.contains(" DEBUG ") && line.ends_with(cause));
    admin.set("log-level", "off");
    turned_away();
    admin.set("log-level", "info");
    assert_eq!(admin.command("ADD-USER last pw"), OK);
    proxy.stderr.wait_for(|line| line.ends_with("command=\"ADD-USER last\""));
    assert_eq!(told(), 1);
}

/// The grace that SIGTERM and SHUTDOWN give.
#[test]
fn grace_is_what_sigterm_gives() {
    let (mut proxy, echo) = (Proxy::with(&["--grace", "600"]), Origin::echo());
    let mut tunnel: TcpStream = proxy.tunnel(echo.address);
    proxy.admin().set("grace", "0.1");
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
    read_the_end(&mut tunnel);
}

#[test]
fn each_setting_takes_its_whole_range_and_nothing_else() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    let all = admin.ask("CONFIG GET");
    assert_eq!(all.len(), KNOBS.len());
    for line in &all {
        let (key, before) = (value(line, "key"), value(line, "value"));
        assert_eq!(&admin.ask(&format!("CONFIG GET {key}")), std::slice::from_ref(line));
        let beyond = match (value(line, "min"), value(line, "max"), value(line, "unit")) {
            ("-", "-", "switch") => vec!["yes".to_owned(), "1".to_owned()],
            ("-", "-", "level") => vec!["loud".to_owned(), "INFO".to_owned()],
            ("-", "-", "family") => vec!["v4".to_owned(), "IPv4".to_owned()],
            ("-", "-", "clients" | "senders") => vec!["me".to_owned(), "All".to_owned()],
            (least, most, unit) => {
                for end in [least, most] {
                    // Nobody is to be shut out by what this test sets.
                    if unit != "seconds" || end != least {
                        assert_eq!(admin.command(&format!("CONFIG SET {key} {end}")), OK);
                        assert_eq!(
                            value(&admin.ask(&format!("CONFIG GET {key}"))[0], "value"),
                            end
                        );
                    }
                }
                let most: u64 = most.parse().expect("a number");
                vec![(most + 1).to_string(), "-1".to_owned(), "1x".to_owned()]
            }
        };
        for bad in beyond {
            let answer = admin.command(&format!("CONFIG SET {key} {bad}"));
            let says = format!("400 Bad Request [RANGE] {key} takes ");
            assert!(answer.starts_with(&says), "{key} {bad}: {answer}");
        }
        assert_eq!(admin.command(&format!("CONFIG SET {key} {before}")), OK);
    }
    assert_eq!(admin.ask("CONFIG GET").join("\n"), all.join("\n").replace("=default", "=runtime"));
    for line in ["", " LIST", " GET a b", " SET", " SET grace", " SET grace 1 2", " get grace"] {
        assert_eq!(admin.command(&format!("CONFIG{line}")), SYNTAX, "{line}");
    }
}

#[test]
fn a_shorter_idle_timeout_ends_a_tunnel_that_is_open() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let mut tunnel = proxy.tunnel(echo.address);
    exchange(&mut tunnel, 1);
    assert_eq!(proxy.admin().command("CONFIG SET idle-timeout 0.1"), OK);
    assert_eq!(read_to_reset(&mut tunnel), b"");
    proxy.stdout.wait_for(|line| line.ends_with("\tidle-timeout"));
}

#[test]
fn limits_act_on_who_comes_next() {
    let proxy = Proxy::with(&["--max-connections", "2"]);
    let mut admin = proxy.admin();
    let echo = Origin::echo();
    let mut tunnels = [proxy.tunnel(echo.address), proxy.tunnel(echo.address)];
    let mut waiting = Client::new(proxy.socks());
    waiting.say(&[5, 1, 2]);
    eventually("both are open", || admin.metrics()[1] == 2);
    assert_eq!(admin.command("CONFIG SET max-connections 3"), OK);
    waiting.hears(&[5, 2]);
    tunnels.iter_mut().for_each(|tunnel| exchange(tunnel, 10));
    assert_eq!(admin.command("CONFIG SET max-connections 10"), OK);
    assert_eq!(admin.command("CONFIG SET max-connections-per-ip 3"), OK);
    assert_eq!(read_to_end(&mut proxy.socks()), b"");
    assert_eq!(admin.command("CONFIG SET max-connections-per-ip 0"), OK);
    Client::new(proxy.socks()).say(&[5, 1, 2]).hears(&[5, 2]);
}

#[test]
fn the_level_of_the_diagnostics_changes_at_once() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    assert_eq!(admin.command("CONFIG SET log-level off"), OK);
    let wrong = |name: &[u8]| {
        let mut client = Client::new(proxy.socks());
        client.say(&[5, 1, 2]).hears(&[5, 2]);
        client.say(&credentials(name, b"no")).hears(&[1, 1]);
    };
    wrong(b"unheard");
    assert_eq!(admin.command("CONFIG SET log-level warn"), OK);
    wrong(b"heard");
    proxy.stderr.wait_for(|line| line.ends_with("user=\"heard\""));
    let said = proxy.stderr.all();
    assert!(!said.iter().any(|line| line.contains("unheard")), "{said:?}");
    // Changes are told whatever the level is: nobody can act unseen.
    assert_eq!(said.iter().filter(|line| line.contains("audit: ")).count(), 2, "{said:?}");
}
