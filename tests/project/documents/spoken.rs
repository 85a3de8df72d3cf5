//! What a running server says is what the grammar of `protocol_metp.txt` describes: each body, each kind of
//! events.

use std::ffi::OsStr;
use std::net::{Ipv6Addr, SocketAddrV6, TcpStream};
use std::os::unix::ffi::OsStrExt;

use support::metp::{Metp, value};
use support::origin::{Origin, closed_port, deaf, echo};
use support::proxy::{Builder, Proxy};
use support::socks::{Client, connect_request, credentials, half_close, name_request, reset};
use support::{eventually, exchange, has_ipv6, read_to_end};

use super::abnf::Grammar;
use super::{PROTOCOL, read};

/// The rule of each body: of the whole of it, or of each of its lines without the LF.
const BODIES: [(&str, &str); 11] = [
    ("GET_METRICS", "metrics-body"),
    ("GET_METRICS ALL", "all-metrics"),
    ("GET_LOGS", "log-line"),
    ("USERS", "user-line"),
    ("CAPA", "capa-body"),
    ("INFO", "info-body"),
    ("USER-METRICS", "usage-line"),
    ("LIMITS", "limits-line"),
    ("CONNECTIONS", "connection-line"),
    ("CONFIG GET", "setting-line"),
    ("TRUST", "trust-line"),
];

/// The rule of each event.
const EVENTS: [&str; 6] =
    ["open-event", "close-event", "log-event", "metrics-event", "auth-event", "lost-event"];

fn grammar() -> Grammar {
    Grammar::read(&read(PROTOCOL))
}

/// Compares all bodies with their rules, but for lines that were cut.
fn check_bodies(session: &mut Metp, grammar: &Grammar) {
    for (command, rule) in BODIES {
        let lines = session.ask(command);
        let whole: String = lines.iter().map(|line| format!("{line}\n")).collect();
        if rule.ends_with("-line") {
            for line in lines.iter().filter(|line| !line.ends_with("...")) {
                assert!(grammar.matches(rule, line.as_bytes()), "{rule}: {line}");
                let pairs = command != "USERS" && command != "GET_LOGS";
                assert_eq!(grammar.matches("fields", line.as_bytes()), pairs, "{line}");
            }
        } else {
            assert!(grammar.matches(rule, whole.as_bytes()), "{rule}: {whole}");
        }
        let reply = format!("200 OK\n{whole}.\n");
        assert!(grammar.matches("reply", reply.as_bytes()), "{reply}");
    }
}

/// Names that are long, odd, or look like something else.
const NAMES: [&[u8]; 6] =
    [&[0xff; 255], &[b'n'; 255], b"two words", b".dot", b"--", b"back\\slash"];

/// §9: from a server that has just started, over one with connections in all states, to one that has been set
/// in every way.
#[test]
fn the_grammar_describes_each_body_of_a_running_server() {
    let v6 = has_ipv6("a destination with an IPv6 address");
    let echo_v6 = if v6 { Origin::v6(echo) } else { Origin::echo() };
    let (grammar, (_guard, deaf)) = (grammar(), deaf());
    // Nothing ends by itself.
    let never = ["handshake", "connect", "connect-total", "linger"];
    let options = never.map(|name| format!("--{name}-timeout=0"));
    let mut builder = Builder::default().listen(None).args(["--log-level", "debug"]).args(options);
    for name in NAMES {
        builder = builder.args([OsStr::new("-u"), OsStr::from_bytes(&[name, b":pw"].concat())]);
    }
    let proxy = builder.start();
    let mut admin = proxy.admin();
    check_bodies(&mut admin, &grammar);

    let logged_in = |name| {
        let mut client = Client::new(proxy.socks());
        client.say(&[5, 1, 2]).hears(&[5, 2]).say(&credentials(name, b"pw")).hears(&[1, 0]);
        client
    };
    let mut connections: Vec<Client> = vec![Client::new(proxy.socks())];
    let mut auth = Client::new(proxy.socks());
    auth.say(&[5, 1, 2]).hears(&[5, 2]);
    connections.push(auth);
    let mut tunnels: Vec<TcpStream> = Vec::new();
    for name in NAMES {
        connections.push(logged_in(name));
        tunnels.push(logged_in(name).connected(echo_v6.address));
        let mut dialling = logged_in(name);
        dialling.say(&connect_request(deaf));
        let mut refused = logged_in(name);
        refused.say(&name_request(&[1; 255], 65535));
        assert_eq!(refused.reply().0, 4);
        connections.extend([dialling, refused]);
    }
    tunnels.iter_mut().for_each(|tunnel| exchange(tunnel, 100));
    let counted = 2 + 4 * NAMES.len();
    eventually("all are there", || admin.metrics()[1] == counted as u64);
    for state in ["hello", "auth", "request", "connect", "relay", "linger"] {
        eventually(state, || admin.info(&format!("connections-{state}")) != "0");
    }
    assert_eq!(admin.ask("CONNECTIONS").len(), counted);
    check_bodies(&mut admin, &grammar);

    for key in admin.ask("CONFIG GET").iter().map(|line| value(line, "key").to_owned()) {
        for to in ["on", "error", "trace", "30.001", "90.25", "31536000", "1000000", "17"] {
            // What is no value of this setting is refused.
            let told = admin.command(&format!("CONFIG SET {key} {to}"));
            assert!(grammar.matches("status", told.as_bytes()), "{told}");
            let line = admin.ask(&format!("CONFIG GET {key}")).remove(0);
            assert!(grammar.matches("setting-line", line.as_bytes()), "{line}");
        }
    }
    check_bodies(&mut admin, &grammar);
}

/// §5.18: each kind of events, as it is told to somebody who reads, and to one who does not.
#[test]
fn the_grammar_describes_each_event_of_a_running_server() {
    const BODIES: usize = 10_000;
    // It may take a while until the kernel takes no more answers: the last 4096 count.
    const GUESSES: usize = 10_000;
    // Ten thousand guesses may take longer than a subscriber may stand still.
    let proxy = Proxy::with(&["-u", "two words:pw", "--subscriber-timeout", "600"]);
    let grammar = grammar();
    let (echo, (_held, closed)) = (Origin::echo(), closed_port());
    let (mut reader, mut stuck) = (proxy.admin(), proxy.narrow_admin());
    for session in [&mut reader, &mut stuck] {
        assert_eq!(session.command("SUBSCRIBE connections logs metrics auth EVERY 3600"), "200 OK");
    }
    let login = || Client::new(proxy.socks()).logged_in("two words", "pw");
    let mut tunnel = login().connected(echo.address);
    exchange(&mut tunnel, 10);
    half_close(&tunnel);
    assert_eq!(read_to_end(&mut tunnel), b"");
    login().say(&connect_request(closed)).refused(5);
    login().say(&name_request(&[1; 255], 65535)).refused(4);
    for name in [&[0xff; 255][..], b"", b"-"] {
        let mut guess = Client::new(proxy.socks());
        guess.say(&[5, 1, 2]).hears(&[5, 2]).say(&credentials(name, b"no")).hears(&[1, 1]);
    }
    proxy.metp().say("HELLO METP/1.0\nAUTH bob no\n").hears("200 Welcome to METP/1.0\n401 ");
    let events: Vec<String> = (0..13).map(|_| reader.line()).collect();
    // A session that was refused ends when its client closes, so the order is not fixed.
    let told = |start: &str| events.iter().any(|event| event.starts_with(start));
    assert!(told("650 auth service=metp user=bob "), "{events:#?}");

    assert_eq!(reader.command("UNSUBSCRIBE"), "200 OK");
    stuck.say(&"CONFIG GET\n".repeat(BODIES));
    let guess = [&[5, 1, 2][..], &credentials(b"guess", b"no")].concat();
    for _ in 0..GUESSES {
        let mut client = Client::new(proxy.socks());
        client.say(&guess).hears(&[5, 2, 1, 1]);
        reset(client.stream);
    }
    let (mut told, mut bodies) = (events, 0);
    while bodies < BODIES {
        match stuck.line() {
            line if line.starts_with("650 ") => told.push(line),
            _ => bodies += usize::from(!stuck.body().is_empty()),
        }
    }
    for line in &told {
        assert!(grammar.matches("event", line.as_bytes()), "{line}");
    }
    for rule in EVENTS {
        let is_one = |line: &String| grammar.matches(rule, &line.as_bytes()["650 ".len()..]);
        assert!(told.iter().any(is_one), "no {rule} has been told");
    }
}

/// The rules fix keys and their order, and let later versions append.
#[test]
fn the_rules_of_bodies_and_events_are_no_blank_cheques() {
    let grammar = grammar();
    let usage = "user=a role=user connections=0 total=0 up=0 down=0 last-seen=- locked=no \
                 origin=memory quota=- quota-used=- expires=- sources=- rate=-";
    let limits = "user=a conns=- sources=- rate=- quota=- expires=- from=- of-all=-";
    let setting = "key=grace value=0.25 unit=seconds min=0 max=31536000 applies=now \
                   source=default";
    let connection = "id=1.0 user=a source=127.0.0.1:1 destination=a:80 peer=[::1]:80 state=relay \
                      age=0.000 idle=0.000 up=0 down=0 buffered=0 targets=- datagrams=- dropped=- rule=-";
    let link_local = SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 1, 0, 3);
    let who = format!("user=a source={link_local} destination=a:80");
    let sum = "up=0 down=0 duration=0.000 reason=finished rule=-";
    let event = |text: String| ("event", format!("650 {text}"));
    for (rule, line) in [
        ("usage-line", usage.to_owned()),
        ("limits-line", limits.to_owned()),
        ("setting-line", setting.to_owned()),
        ("connection-line", connection.to_owned()),
        event(format!("connections event=open id=1.0 {who} rule=7")),
        event(format!("connections event=close id=1.0 {who} {sum}")),
        event(format!("logs time=2026-11-22T14:25:34Z {who} reply=0 {sum}")),
        event("metrics time=2026-11-22T14:25:34Z accepted=0 connections=0 up=0 down=0".to_owned()),
        event("auth service=socks user=a source=127.0.0.1:1 result=ok".to_owned()),
        event("lost count=17".to_owned()),
    ] {
        let good = |line: &str| grammar.matches(rule, line.as_bytes());
        assert!(good(&line) && good(&format!("{line} new=1")), "{rule}: {line}");
        let words: Vec<&str> = line.split(' ').collect();
        for missing in 0..words.len() {
            let mut fewer = words.clone();
            fewer.remove(missing);
            assert!(!good(&fewer.join(" ")), "{rule}: {line} without {}", words[missing]);
        }
        for (first, second) in (1..words.len()).map(|second| (second - 1, second)) {
            let mut swapped = words.clone();
            swapped.swap(first, second);
            assert!(!good(&swapped.join(" ")), "{rule}: {}", swapped.join(" "));
        }
        for (now, wrong) in [("0.000", "0.00"), ("0.25", "0."), ("Z ", "z "), ("=a", "=")] {
            if line.contains(now) {
                assert!(!good(&line.replace(now, wrong)), "{rule}: {line}: {wrong}");
            }
        }
    }
}
