//! METP/1.1: CAPA, PING and INFO (`protocol_metp.txt` §5.10 to §5.12): what they say, and that it is true.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};

use support::eventually;
use support::metp::value;
use support::origin::{Origin, listen};
use support::proxy::Proxy;
use support::socks::{Client, connect_request, name_request};

const SYNTAX: &str = "400 Bad Request [SYNTAX] wrong arguments";
const UNKNOWN: &str = "400 Bad Request [SYNTAX] unknown verb";
const LONG: &str = "400 Bad Request [SYNTAX] line too long";

const CAPABILITIES: &str = "\
    implementation=socks5d\n\
    version=VERSION\n\
    protocol=METP/1.1\n\
    verbs=GET_METRICS,GET_LOGS,USERS,CHANGE-BUFFER,ADD-USER,DELETE-USER,SET-ROLE,QUIT,CAPA,PING,INFO,\
USER-METRICS,CHANGE-PASSWORD,CONNECTIONS,KILL,CONFIG,SUBSCRIBE,UNSUBSCRIBE,SHUTDOWN,TRUST,LOCK-USER,\
UNLOCK-USER,GENERATE-PASSWORD,IMPORT,RELOAD,LIMITS,SET-LIMIT,RESET-USAGE,RULES,RULE\n\
    topics=connections,logs,metrics,auth\n\
    command-octets=4096\n\
    reply-octets=999\n\
    name-octets=255\n\
    password-octets=255\n\
    unsent-octets=65536\n\
    subscribers=64\n";

/// §5.10, to the letter, for both roles.
#[test]
fn capa_tells_verbs_topics_and_limits() {
    let proxy = Proxy::with(&["-u", "alice:pw"]);
    let expected = CAPABILITIES.replace("VERSION", env!("CARGO_PKG_VERSION"));
    for mut session in [proxy.admin(), proxy.metp().logged_in("alice", "pw")] {
        session.say("CAPA\n").hears("200 OK\n").hears(&expected).hears(".\n");
        assert_eq!(session.command("CAPA all"), SYNTAX);
    }
}

/// The limits that CAPA names are the ones that hold.
#[test]
fn the_limits_of_capa_hold() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    let capabilities = admin.ask("CAPA");
    let limit = |key: &str| -> usize {
        let found = capabilities.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.and_then(|value| value.parse().ok()).expect("a number")
    };
    let (longest, name) = (limit("command-octets"), limit("name-octets"));
    let padded = |octets: usize| format!("{:<width$}", "PING", width = octets - 1);
    assert_eq!(admin.command(&padded(longest)), "200 PONG");
    assert_eq!(admin.command(&padded(longest + 1)), LONG);
    let bad = "400 Bad Request [BADNAME] name or password not acceptable";
    let password = limit("password-octets");
    for (name, password, answer) in
        [(name, password, "200 OK"), (name + 1, 1, bad), (1, password + 1, bad)]
    {
        let command = format!("ADD-USER {} {}", "n".repeat(name), "p".repeat(password));
        assert_eq!(admin.command(&command), answer);
    }
    let mut subscribers: Vec<_> = (0..limit("subscribers")).map(|_| proxy.admin()).collect();
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.command("SUBSCRIBE logs"), "200 OK");
    }
    assert_eq!(
        admin.command("SUBSCRIBE logs"),
        "429 Too Many [BUSY] too many subscribers, try later"
    );
    // Whoever has a place may change its topics.
    assert_eq!(subscribers[0].command("SUBSCRIBE auth"), "200 OK");
    assert_eq!(admin.info("subscribers"), "64");
}

/// §5.11: the token comes back as one printable word, whatever it was.
#[test]
fn ping_sends_its_token_back() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    for (command, answer) in [
        ("PING", "200 PONG".to_owned()),
        ("PING   ", "200 PONG".to_owned()),
        ("PING 1", "200 PONG 1".to_owned()),
        ("PING  token  ", "200 PONG token".to_owned()),
        ("PING .", "200 PONG .".to_owned()),
        ("PING 650", "200 PONG 650".to_owned()),
        ("PING a\\x20b", "200 PONG a\\x20b".to_owned()),
        ("PING \\", "200 PONG \\x5c".to_owned()),
        ("PING \u{1b}[2J\t", "200 PONG \\x1b[2J\\x09".to_owned()),
        ("PING \u{fc}", "200 PONG \\xc3\\xbc".to_owned()),
        ("PING one two", SYNTAX.to_owned()),
        ("ping", UNKNOWN.to_owned()),
    ] {
        assert_eq!(admin.command(command), answer, "{command:?}");
    }
    let (fits, cut) = ("t".repeat(256), format!("{}...", "t".repeat(253)));
    assert_eq!(admin.command(&format!("PING {fits}")), format!("200 PONG {fits}"));
    assert_eq!(admin.command(&format!("PING {fits}t")), format!("200 PONG {cut}"));
    // Four octets are shown for each of these.
    let (shown, cut) = ("\\x01".repeat(64), format!("{}...", "\\x01".repeat(63)));
    assert_eq!(admin.command(&format!("PING {}", "\u{1}".repeat(64))), format!("200 PONG {shown}"));
    assert_eq!(admin.command(&format!("PING {}", "\u{1}".repeat(65))), format!("200 PONG {cut}"));
}

const INFO: [&str; 29] = [
    "implementation",
    "version",
    "pid",
    "uptime",
    "state",
    "descriptors",
    "descriptors-limit",
    "connections",
    "connections-limit",
    "connections-hello",
    "connections-auth",
    "connections-request",
    "connections-resolve",
    "connections-connect",
    "connections-relay",
    "connections-linger",
    "metp-sessions",
    "metp-sessions-limit",
    "subscribers",
    "buffers",
    "buffers-limit",
    "pipes",
    "rss",
    "dns-queued",
    "dns-running",
    "dns-cached",
    "loop-lag",
    "loop-p50",
    "loop-p99",
];

/// §5.12: the keys in order; each value is what the kernel says, or what was done.
#[test]
fn info_tells_the_truth() {
    let proxy = Proxy::with(&["--max-connections", "77", "--max-metp-sessions", "8"]);
    let origin = Origin::echo();
    let mut admin = proxy.admin();
    let lines = admin.ask("INFO");
    let keys: Vec<&str> =
        lines.iter().map(|line| line.split_once('=').expect("a pair").0).collect();
    assert_eq!(keys[..29], INFO);
    assert_eq!(
        keys[29..],
        [
            "log-lines-dropped",
            "closing-in",
            "connections-associate",
            "connections-bind",
            "trusted-networks",
            "trusted-everywhere"
        ]
    );
    for (key, value) in [
        ("implementation", "socks5d"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("pid", &proxy.pid().to_string()),
        ("state", "running"),
        ("connections", "0"),
        ("connections-limit", "77"),
        ("metp-sessions", "1"),
        ("metp-sessions-limit", "8"),
        ("subscribers", "0"),
        ("buffers-limit", "268435456"),
        ("pipes", "0"),
        ("dns-cached", "0"),
        ("log-lines-dropped", "0"),
        ("closing-in", "-"),
    ] {
        assert_eq!(admin.info(key), value, "{key}");
    }
    assert_eq!(admin.info("descriptors"), proxy.descriptors().to_string());
    let told: u64 = admin.info("rss").parse().expect("a number");
    let kernel = proxy.status_kib("VmRSS") * 1024;
    assert!(told.abs_diff(kernel) < 1 << 20, "{told} told, {kernel} by the kernel");
    let mut uptime = || admin.info("uptime").parse::<f64>().expect("seconds");
    let (first, second) = (uptime(), uptime());
    assert!(0.0 < first && first <= second && second < 20.0, "{first} {second}");
    let decimals = |key: &str, admin: &mut support::metp::Metp| {
        admin.info(key).split_once('.').expect("a fraction").1.len()
    };
    assert_eq!(decimals("uptime", &mut admin), 3);
    for key in ["loop-lag", "loop-p50", "loop-p99"] {
        assert_eq!(decimals(key, &mut admin), 6);
        assert!(admin.info(key).parse::<f64>().expect("seconds") < 20.0);
    }
    let mut client = proxy.client();
    assert_eq!(client.say(&name_request(b"127.1", origin.address.port())).reply().0, 0);
    assert_eq!(
        (admin.info("dns-cached"), admin.info("connections-relay")),
        ("1".into(), "1".into())
    );
    let (_more, _subscriber) = (proxy.admin(), {
        let mut session = proxy.admin();
        assert_eq!(session.command("SUBSCRIBE metrics EVERY 3600"), "200 OK");
        session
    });
    assert_eq!((admin.info("metp-sessions"), admin.info("subscribers")), ("3".into(), "1".into()));
}

/// Each connection is counted in one state, the one it is in.
#[test]
fn info_counts_connections_by_state() {
    let (proxy, origin) = (Proxy::with(&["--linger-timeout", "0"]), Origin::echo());
    let mut admin = proxy.admin();
    let _hello: Vec<TcpStream> = (0..3).map(|_| proxy.socks()).collect();
    let mut auth = Client::new(proxy.socks());
    auth.say(&[5, 1, 2]).hears(&[5, 2]);
    let _request = proxy.client();
    let (_guard, deaf) = support::origin::deaf();
    let mut connect = proxy.client();
    connect.say(&connect_request(deaf));
    let mut linger = proxy.client();
    linger.say(b"\x05\x09\x00\x01\0\0\0\0\0\0");
    assert_eq!(linger.reply().0, 7);
    let relays = [proxy.tunnel(origin.address), proxy.tunnel(origin.address)];
    let expected = [("hello", 3), ("auth", 1), ("request", 1), ("resolve", 0), ("connect", 1)];
    let counts = expected.into_iter().chain([("relay", 2), ("linger", 1)]);
    let expected: Vec<String> = counts.map(|(key, n)| format!("connections-{key}={n}")).collect();
    let mut seen = Vec::new();
    eventually("each is in its state", || {
        seen = admin.ask("INFO").split_off(9);
        seen[..7] == expected
    });
    assert_eq!(admin.info("connections"), "9");
    drop(relays);
    eventually("tunnels end", || admin.info("connections-relay") == "0");
    assert_eq!(admin.info("connections"), "7");
}

/// What a stopped reader leaves waiting is shown, in a buffer or in a pipe, and is given back when it has left.
#[test]
fn info_counts_what_waits() {
    let (proxy, listener) = (Proxy::start(), listen(Ipv4Addr::LOCALHOST.into()).expect("loopback"));
    let mut admin = proxy.admin();
    let mut client = proxy.tunnel(listener.local_addr().expect("bound"));
    let (stopped, _) = listener.accept().expect("the tunnel leads here");
    client.set_nonblocking(true).expect("a socket");
    let (chunk, mut sent) = (vec![b'x'; 1 << 20], 0);
    let number = |text: &str| text.parse::<usize>().expect("a number");
    let mut line = String::new();
    eventually("bytes wait", || {
        sent += client.write(&chunk).unwrap_or(0);
        line = admin.connection_from(&client).expect("it is open");
        value(&line, "buffered") != "0"
    });
    let used = number(&admin.info("buffers")) + number(&admin.info("pipes"));
    assert!(used > 0, "no place for {line}");
    let there = number(value(&line, "up")) + number(value(&line, "buffered"));
    assert!(there <= sent, "{sent} sent, {line}");
    drop((client, stopped));
    proxy.wait_until_idle();
    assert_eq!(admin.info("buffers"), "0");
}
