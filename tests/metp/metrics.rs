//! METP/1.1: GET_METRICS ALL (`protocol_metp.txt` §5.2). Every key, what raises it, and that nothing else does.

use std::collections::BTreeMap;
use std::io::Write;

use support::metp::Metp;
use support::origin::{Origin, closed_port, deaf};
use support::proxy::Proxy;
use support::socks::{
    CHOSEN, Client, DENIED, HELLO, connect_request, credentials, name_request, reset,
};
use support::{eventually, exchange, read_to_end};

use crate::inprocess::{Builder, Inprocess};

const KEYS: [&str; 65] = [
    "HISTORICAL_CONNECTIONS",
    "CURRENT_CONNECTIONS",
    "BYTES_TRANSFERRED",
    "BYTES_UP",
    "BYTES_DOWN",
    "ACCEPTED",
    "REFUSED_LIMIT",
    "REFUSED_AUTH",
    "REFUSED_RULES",
    "REPLY_0",
    "REPLY_1",
    "REPLY_2",
    "REPLY_3",
    "REPLY_4",
    "REPLY_5",
    "REPLY_6",
    "REPLY_7",
    "REPLY_8",
    "HANDSHAKE_FAILED",
    "DNS_QUERIES",
    "DNS_FAILURES",
    "DNS_CACHE_HITS",
    "CONNECT_TIME_LE_1MS",
    "CONNECT_TIME_LE_4MS",
    "CONNECT_TIME_LE_16MS",
    "CONNECT_TIME_LE_64MS",
    "CONNECT_TIME_LE_256MS",
    "CONNECT_TIME_LE_1S",
    "CONNECT_TIME_LE_4S",
    "CONNECT_TIME_LE_INF",
    "METP_SESSIONS_TOTAL",
    "METP_SESSIONS",
    "METP_AUTH_FAILED",
    "EVENTS_LOST",
    "LOG_LINES_DROPPED",
    "PANICS",
    "CONNECTIONS_KILLED",
    "UDP_ASSOCIATIONS",
    "UDP_ASSOCIATIONS_OPEN",
    "UDP_DATAGRAMS_UP",
    "UDP_DATAGRAMS_DOWN",
    "UDP_DROPPED_STRANGER",
    "UDP_DROPPED_FRAGMENT",
    "UDP_DROPPED_MALFORMED",
    "UDP_DROPPED_RULES",
    "UDP_DROPPED_FILTERED",
    "UDP_DROPPED_NAME",
    "UDP_DROPPED_SIZE",
    "UDP_DROPPED_BUSY",
    "UDP_DROPPED_ERROR",
    "UDP_KERNEL_DROPS",
    "CONNECT_ATTEMPTS",
    "CONNECT_RACES",
    "CONNECT_LOST",
    "BINDS",
    "BIND_STRANGERS",
    "LOGINS_SHED",
    "STORE_ERRORS",
    "COUNTED_SINCE",
    "LOGINS_OK",
    "LOGINS_FAILED",
    "LOGINS_QUEUED",
    "STORE_OK",
    "RELOAD_OK",
    "RELOADED",
];

type Figures = BTreeMap<String, u64>;

fn figures(admin: &mut Metp) -> Figures {
    let figure = |line: &String| {
        let (key, value) = line.split_once(':').expect("a key");
        (key.to_owned(), value.trim().parse().expect("a number"))
    };
    admin.ask("GET_METRICS ALL").iter().map(figure).collect()
}

/// Does something, waits until no connection is open, and tells what has grown by how much. What connections
/// and their times raise in any case is left out.
fn raised(server: &Inprocess, what: impl FnOnce()) -> String {
    let mut admin = server.admin();
    let before = figures(&mut admin);
    what();
    eventually("no connection is open", || admin.metrics()[1] == 0);
    let after = figures(&mut admin);
    let usual = [
        "HISTORICAL",
        "ACCEPTED",
        "BYTES",
        "CONNECT_TIME",
        "CONNECT_ATTEMPTS",
        "METP_SESSIONS",
        "LOGINS_OK",
    ];
    let grown = KEYS.iter().filter(|key| !usual.iter().any(|usual| key.starts_with(usual)));
    let grown = grown.map(|key| (*key, after[*key] - before[*key])).filter(|(_, by)| *by > 0);
    grown.map(|(key, by)| format!("{key}+{by}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_key_in_order_and_the_first_three_as_in_metp_1_0() {
    let proxy = Proxy::with(&["-u", "alice:pw"]);
    for mut session in [proxy.admin(), proxy.metp().logged_in("alice", "pw")] {
        let (plain, all) = (session.ask("GET_METRICS"), session.ask("GET_METRICS ALL"));
        assert_eq!(plain, all[..3]);
        let keys: Vec<&str> =
            all.iter().map(|line| line.split_once(':').expect("a key").0).collect();
        assert_eq!(keys, KEYS);
        for line in &all[3..] {
            let digits = line.split_once(": ").expect("one blank").1;
            assert!(digits.bytes().all(|byte| byte.is_ascii_digit()), "{line}");
        }
        let syntax = "400 Bad Request [SYNTAX] wrong arguments";
        for odd in ["all", "ALL ALL", "ALL x", "NONE"] {
            assert_eq!(session.command(&format!("GET_METRICS {odd}")), syntax, "{odd}");
        }
    }
}

/// Each reply that can be had here raises its counter, once, and the one of its cause.
#[test]
fn replies_are_counted_by_code() {
    let server = Builder::default()
        .timeouts(|t| t.connect = Some(std::time::Duration::from_millis(200)))
        .start();
    let (echo, (_held, closed), (_deaf, silent)) = (Origin::echo(), closed_port(), deaf());
    server.names().add("found.test", &[echo.address]);
    let own = server.metp_address();
    let ask = |request: &[u8], code: u8| {
        raised(&server, || {
            let mut client = server.client();
            assert_eq!(client.say(request).reply().0, code);
        })
    };
    assert_eq!(ask(&connect_request(echo.address), 0), "REPLY_0+1");
    assert_eq!(ask(&connect_request(own), 2), "REFUSED_RULES+1 REPLY_2+1");
    assert_eq!(ask(&connect_request(server.socks_address()), 2), "REFUSED_RULES+1 REPLY_2+1");
    assert_eq!(ask(&name_request(b"*", 80), 4), "REPLY_4+1");
    assert_eq!(ask(&connect_request(closed), 5), "REPLY_5+1");
    assert_eq!(ask(&connect_request(silent), 6), "REPLY_6+1");
    assert_eq!(ask(b"\x05\x09\x00\x01\x7f\0\0\x01\0\x50", 7), "REPLY_7+1");
    let associated = ask(b"\x05\x03\x00\x01\x7f\0\0\x01\0\x50", 0);
    assert!(associated.starts_with("REPLY_0+1 UDP_ASSOCIATIONS+1"), "{associated}");
    assert_eq!(ask(&name_request(b"found.test", 1), 0), "REPLY_0+1 DNS_QUERIES+1");
    assert_eq!(ask(&name_request(b"found.test", 1), 0), "REPLY_0+1 DNS_CACHE_HITS+1");
    assert_eq!(ask(&name_request(b"127.0.0.1", echo.address.port()), 0), "REPLY_0+1");
    assert_eq!(ask(&name_request(b"lost.test", 1), 4), "REPLY_4+1 DNS_QUERIES+1 DNS_FAILURES+1");
    assert_eq!(ask(&name_request(b"lost.test", 1), 4), "REPLY_4+1 DNS_CACHE_HITS+1");
    let mut admin = server.admin();
    let all = figures(&mut admin);
    assert_eq!(
        all["CONNECT_TIME_LE_INF"] + all["UDP_ASSOCIATIONS"],
        all["REPLY_0"],
        "each connect that succeeded has a time"
    );
    let times: Vec<u64> = KEYS[22..30].iter().map(|key| all[*key]).collect();
    assert!(times.is_sorted(), "{times:?}");
}

/// A whole request of an unknown address type is answered 8, and is no handshake that was complete.
#[test]
fn what_ends_before_its_request_is_counted_by_cause() {
    let (server, hurried) = (Inprocess::start(), Builder::default());
    let hurried =
        hurried.timeouts(|t| t.handshake = Some(std::time::Duration::from_millis(300))).start();
    let handshake_at = |server: &Inprocess, said: &[u8], heard: &[u8]| {
        raised(server, || {
            let mut client = server.stranger();
            client.say(said).hears(heard).hears_eof();
        })
    };
    let handshake = |said: &[u8], heard: &[u8]| handshake_at(&server, said, heard);
    let wrong = [HELLO, &credentials(b"admin", b"no")].concat();
    let nobody = [HELLO, &credentials(b"nobody", b"1234")].concat();
    for login in [&wrong, &nobody] {
        let raised = handshake(login, &[CHOSEN, DENIED].concat());
        assert_eq!(raised, "REFUSED_AUTH+1 LOGINS_FAILED+1");
    }
    assert_eq!(handshake(b"\x05\x01\x00", b"\x05\xff"), "REFUSED_AUTH+1");
    assert_eq!(handshake(b"\x05\x00", b"\x05\xff"), "REFUSED_AUTH+1");
    let socks4 = b"\x04\x01\x00\x50\x7f\0\0\x01\0";
    assert_eq!(handshake(socks4, b"\x00\x5b\0\0\0\0\0\0"), "REFUSED_AUTH+1");
    assert_eq!(handshake(b"GET / HTTP/1.1\r\n", b""), "HANDSHAKE_FAILED+1");
    assert_eq!(handshake_at(&hurried, b"", b""), "HANDSHAKE_FAILED+1", "it took too long");
    assert_eq!(handshake_at(&hurried, HELLO, CHOSEN), "HANDSHAKE_FAILED+1");
    let leaves = |said: &[u8]| {
        raised(&server, || {
            server.stranger().say(said);
        })
    };
    assert_eq!(leaves(HELLO), "HANDSHAKE_FAILED+1");
    assert_eq!(raised(&server, || reset(server.client().stream)), "HANDSHAKE_FAILED+1");
    let unknown = raised(&server, || {
        let mut client = server.client();
        assert_eq!(client.say(b"\x05\x01\x00\x09").reply().0, 8);
    });
    assert_eq!(unknown, "REPLY_8+1 HANDSHAKE_FAILED+1");
}

/// Turned away by the limit, and evicted by a newcomer.
#[test]
fn limits_are_counted() {
    let server = Builder::default().settings(|s| s.max_connections_per_ip = Some(2)).start();
    let _held = [server.client(), server.client()];
    let mut admin = server.admin();
    for number in 1..=3 {
        assert_eq!(read_to_end(&mut server.stranger().stream), b"");
        assert_eq!(admin.figure("REFUSED_LIMIT"), number);
    }
    let all = figures(&mut admin);
    assert_eq!(
        (all["ACCEPTED"], all["HISTORICAL_CONNECTIONS"], all["CURRENT_CONNECTIONS"]),
        (2, 2, 2)
    );
}

/// Sessions, logins and kills of METP itself.
#[test]
fn metp_counts_its_own_sessions() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    let others: Vec<Metp> = (0..3).map(|_| proxy.admin()).collect();
    assert_eq!([admin.figure("METP_SESSIONS"), admin.figure("METP_SESSIONS_TOTAL")], [4, 4]);
    drop(others);
    eventually("they are gone", || admin.figure("METP_SESSIONS") == 1);
    assert_eq!(admin.figure("METP_SESSIONS_TOTAL"), 4);
    for login in ["admin no", "nobody 1234", "admin 1234 "] {
        let mut guess = proxy.metp();
        guess.say(&format!("HELLO METP/1.0\nAUTH {login}\n"));
        guess.hears("200 Welcome to METP/1.0\n401 Unauthorized\n").hears_eof();
    }
    // What is no login is none that failed.
    proxy.metp().say("HELLO METP/1.0\nAUTH\n").hears("200 Welcome to METP/1.0\n400 Bad Request\n");
    assert_eq!(admin.figure("METP_AUTH_FAILED"), 3);
    assert_eq!(admin.figure("REFUSED_AUTH"), 0, "that one is of SOCKS");
}

/// Over a mixed load: no counter ever falls, and those that belong together agree at each look.
#[test]
fn counters_only_grow_and_agree() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let (_held, closed) = closed_port();
    let mut admin = proxy.admin();
    let mut last = figures(&mut admin);
    for round in 0..30 {
        let mut tunnel = proxy.tunnel(echo.address);
        exchange(&mut tunnel, 100 * round);
        proxy.client().say(&connect_request(closed)).refused(5);
        let mut half = proxy.socks();
        half.write_all(HELLO).expect("taken");
        Client::new(proxy.socks()).say(b"\x05\x01\x00").hears(b"\x05\xff");
        let now = figures(&mut admin);
        for (key, value) in &now {
            let level = ["CURRENT_CONNECTIONS", "METP_SESSIONS"].contains(&key.as_str());
            assert!(level || *value >= last[key], "{key} fell from {} to {value}", last[key]);
        }
        assert_eq!(now["BYTES_UP"] + now["BYTES_DOWN"], now["BYTES_TRANSFERRED"]);
        assert_eq!(now["ACCEPTED"], now["HISTORICAL_CONNECTIONS"]);
        assert_eq!(now["REPLY_2"], now["REFUSED_RULES"]);
        last = now;
    }
    proxy.wait_until_idle();
    let all = figures(&mut admin);
    // Each connection has come to one end.
    let ends = all["REPLY_0"] + all["REPLY_5"] + all["HANDSHAKE_FAILED"] + all["REFUSED_AUTH"];
    assert_eq!((all["ACCEPTED"], ends), (120, 120));
    assert_eq!([all["PANICS"], all["EVENTS_LOST"], all["LOG_LINES_DROPPED"]], [0; 3]);
}
