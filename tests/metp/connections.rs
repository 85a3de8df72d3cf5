//! METP/1.1: CONNECTIONS and KILL (`protocol_metp.txt` §5.15, §5.16) in each state a connection can have.

use std::net::{Ipv4Addr, TcpStream};

use support::metp::{Metp, value};
use support::origin::{Origin, deaf, echo, listen};
use support::proxy::Proxy;
use support::socks::{Client, connect_request, credentials, name_request};
use support::{eventually, exchange, read_the_end};

use crate::inprocess::{Builder, Inprocess};

const OK: &str = "200 OK";
const KILLED: &str = "200 OK killed=1";
const GONE: &str = "404 Not Found [NOCONN] no such connection";
const RANGE: &str = "400 Bad Request [RANGE] number out of range";
const SYNTAX: &str = "400 Bad Request [SYNTAX] wrong arguments";

fn alice(proxy: &Proxy) -> Client {
    Client::new(proxy.socks()).logged_in("alice", "pw")
}

/// What is shown of the connection that comes from there, once it is in this state.
fn shown(admin: &mut Metp, source: &TcpStream, state: &str) -> String {
    let mut line = None;
    eventually(state, || {
        line = admin.connection_from(source);
        line.as_ref().is_some_and(|line| value(line, "state") == state)
    });
    line.expect("it was seen")
}

fn id(line: &str) -> String {
    value(line, "id").to_owned()
}

/// One client in each state, by the name of the state.
fn in_each_state(
    server: &Inprocess,
    deaf: std::net::SocketAddr,
    echo: std::net::SocketAddr,
) -> Vec<(&'static str, Client)> {
    let hello = server.stranger();
    let mut auth = server.stranger();
    auth.say(&[5, 1, 2]).hears(&[5, 2]);
    let request = server.client();
    let [mut resolve, mut connect, mut linger] = std::array::from_fn(|_| server.client());
    resolve.say(&name_request(b"Slow.Test", 4321));
    connect.say(&connect_request(deaf));
    linger.say(b"\x05\x09\x00\x01\x7f\0\0\x01\0\x50");
    assert_eq!(linger.reply().0, 7);
    let relay = Client::new(server.client().connected(echo));
    vec![
        ("hello", hello),
        ("auth", auth),
        ("request", request),
        ("resolve", resolve),
        ("connect", connect),
        ("linger", linger),
        ("relay", relay),
    ]
}

/// §5.15: user from the login on, destination from the request on, peer when it is connected.
#[test]
fn each_state_shows_what_is_known_by_then() {
    let server = Inprocess::start();
    let (_hanging, (_guard, deaf), echo) =
        (server.names().hang("slow.test"), deaf(), Origin::echo());
    let clients = in_each_state(&server, deaf, echo.address);
    let mut admin = server.admin();
    let (dialled, target) = (deaf.to_string(), echo.address.to_string());
    for ((state, client), (user, destination, peer)) in clients.iter().zip([
        ("-", "-", "-"),
        ("-", "-", "-"),
        ("admin", "-", "-"),
        ("admin", "Slow.Test:4321", "-"),
        ("admin", &dialled, "-"),
        ("admin", "127.0.0.1:80", "-"),
        ("admin", &target, &target),
    ]) {
        let line = shown(&mut admin, &client.stream, state);
        assert_eq!(value(&line, "user"), user, "{line}");
        assert_eq!(value(&line, "destination"), destination, "{line}");
        assert_eq!(value(&line, "peer"), peer, "{line}");
        for key in ["up", "down", "buffered"] {
            assert_eq!(value(&line, key), "0", "{line}");
        }
        for key in ["age", "idle"] {
            let seconds = value(&line, key);
            assert!(seconds.parse::<f64>().is_ok_and(|time| time < 20.0), "{line}");
            assert_eq!(seconds.split_once('.').map(|(_, digits)| digits.len()), Some(3), "{line}");
        }
    }
    assert_eq!(admin.ask("CONNECTIONS").len(), 7);
    assert_eq!(admin.ask("CONNECTIONS USER admin").len(), 5);
    assert_eq!(admin.ask("CONNECTIONS USER \\x61dmin").len(), 5);
}

/// §5.16: whatever state a connection is in, it ends at once, and no other does.
#[test]
fn kill_ends_a_connection_in_each_state() {
    let server = Inprocess::start();
    let (_hanging, (_guard, deaf), echo) =
        (server.names().hang("slow.test"), deaf(), Origin::echo());
    let mut clients = in_each_state(&server, deaf, echo.address);
    let mut admin = server.admin();
    let killed = admin.figure("CONNECTIONS_KILLED");
    for left in (0..clients.len()).rev() {
        let (state, mut client) = clients.remove(left / 2);
        let id = id(&shown(&mut admin, &client.stream, state));
        assert_eq!(admin.command(&format!("KILL {id}")), KILLED, "{state}");
        read_the_end(&mut client.stream);
        assert_eq!(admin.ask("CONNECTIONS").len(), left, "{state}");
        assert_eq!(admin.command(&format!("KILL {id}")), GONE, "{state}");
    }
    assert_eq!(admin.figure("CONNECTIONS_KILLED") - killed, 7);
    assert_eq!(admin.metrics()[1], 0);
    assert!(admin.ask("INFO")[9..16].iter().all(|line| line.ends_with("=0")), "no state holds any");
}

/// §5.16: the access log tells of each request that was killed, with the bytes it had moved.
#[test]
fn the_access_log_says_killed() {
    let (proxy, echo) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let (_guard, deaf) = deaf();
    let alice = || Client::new(proxy.socks()).logged_in("alice", "pw");
    let mut tunnel = alice().connected(echo.address);
    exchange(&mut tunnel, 1234);
    let mut dialling = alice();
    dialling.say(&connect_request(deaf));
    let unasked = alice();
    let mut admin = proxy.admin();
    shown(&mut admin, &dialling.stream, "connect");
    shown(&mut admin, &unasked.stream, "request");
    assert_eq!(admin.command("KILL USER alice"), "200 OK killed=3");
    let ends = |text: &str| {
        proxy.stdout.wait_for(|line| line.contains(text) && line.ends_with("\tkilled"))
    };
    ends(&format!("\t{}\t0\t1234\t1234\t", echo.address.port()));
    // No reply was sent to this one.
    ends(&format!("\t{}\t", deaf.port()));
    assert_eq!(proxy.stdout.all().len(), 2, "{:?}", proxy.stdout.all());
    let record = admin.ask("GET_LOGS");
    assert!(record.len() == 1 && record[0].ends_with(" 2468"), "{record:?}");
}

/// Both directions are full, the target reads nothing, the client neither: it ends all the same, and what
/// waited is given back.
#[test]
fn kill_ends_a_tunnel_that_is_stuck() {
    let (proxy, listener) = (Proxy::start(), listen(Ipv4Addr::LOCALHOST.into()).expect("loopback"));
    let mut client = proxy.tunnel(listener.local_addr().expect("bound"));
    let (mut server, _) = listener.accept().expect("the tunnel leads here");
    let mut admin = proxy.admin();
    let mut line = shown(&mut admin, &client, "relay");
    eventually("bytes wait in the proxy", || {
        use std::io::Write;
        for stream in [&mut client, &mut server] {
            stream.set_nonblocking(true).expect("a socket");
            while stream.write(&[b'x'; 65536]).is_ok() {}
            stream.set_nonblocking(false).expect("a socket");
        }
        line = shown(&mut admin, &client, "relay");
        value(&line, "buffered") != "0"
    });
    assert_eq!(admin.command(&format!("KILL {}", id(&line))), KILLED);
    assert_eq!((admin.ask("CONNECTIONS"), admin.info("buffers")), (vec![], "0".to_owned()));
    proxy.stdout.wait_for(|line| line.ends_with("\tkilled"));
    // Each of them hears of it: what else they say is refused with a reset, sooner or later.
    for mut stream in [client, server] {
        use std::io::Read;
        let mut rest = vec![0; 65536];
        eventually("the end comes", || !matches!(stream.read(&mut rest), Ok(1..)));
    }
}

/// Whoever waits for a place gets that of the one that was killed.
#[test]
fn kill_makes_room() {
    let (proxy, echo) = (Proxy::with(&["--max-connections", "1"]), Origin::echo());
    let mut first = proxy.tunnel(echo.address);
    let mut waiting = Client::new(proxy.socks());
    waiting.say(&[5, 1, 2]);
    let mut admin = proxy.admin();
    let line = shown(&mut admin, &first, "relay");
    assert_eq!(admin.command(&format!("KILL {}", id(&line))), KILLED);
    read_the_end(&mut first);
    waiting.hears(&[5, 2]).say(&credentials(b"admin", b"1234")).hears(&[1, 0]);
    exchange(&mut waiting.connected(echo.address), 10);
}

/// Only what CONNECTIONS lists can be killed: no METP session, no listener, whatever number they have.
#[test]
fn kill_ends_no_metp_session() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let mut sessions: Vec<Metp> = (0..4).map(|_| proxy.admin()).collect();
    let mut tunnel = proxy.tunnel(echo.address);
    let mut admin = proxy.admin();
    let own = id(&shown(&mut admin, &tunnel, "relay"));
    for slot in 0..16 {
        for generation in 0..4 {
            let id = format!("{slot}.{generation}");
            if id != own {
                assert_eq!(admin.command(&format!("KILL {id}")), GONE, "{id}");
            }
        }
    }
    assert_eq!(admin.command("KILL 4294967295.4294967295"), GONE);
    for beyond in ["4294967296.0", "0.4294967296", "00000000001.0"] {
        assert_eq!(admin.command(&format!("KILL {beyond}")), RANGE, "{beyond}");
    }
    for bad in
        ["", " 1,2", " 1.2.3", " -1.0", " +1.0", " 1. 0", " a.b", " 1.x", " USER", " USER a b"]
    {
        assert_eq!(admin.command(&format!("KILL{bad}")), SYNTAX, "{bad:?}");
    }
    exchange(&mut tunnel, 10);
    for session in &mut sessions {
        session.metrics();
    }
}

/// §3.4: names and destinations are escaped and cut to 256 octets; a line stays below 1000.
#[test]
fn long_and_odd_names_are_cut_and_escaped() {
    let name = [0xff; 255];
    let server = Builder::default().account(&name, b"pw").start();
    let destination = [b"\x01", &[b'd'; 254][..]].concat();
    let (_, echo) = (server.names().add("x", &[]), Origin::echo());
    let host: String = "d".repeat(255);
    server.names().add(&host, &[echo.address]);
    let _hanging = server.names().hang(&host);
    let mut client = server.stranger();
    client.say(&[5, 1, 2]).hears(&[5, 2]).say(&credentials(&name, b"pw")).hears(&[1, 0]);
    client.say(&name_request(host.as_bytes(), 65535));
    let mut admin = server.admin();
    let line = shown(&mut admin, &client.stream, "resolve");
    let (user, target) = (value(&line, "user"), value(&line, "destination"));
    assert_eq!(user, format!("{}...", "\\xff".repeat(63)));
    assert_eq!(target, format!("{}...", "d".repeat(253)));
    assert!(line.len() < 999, "{} octets", line.len());
    let wanted = format!("CONNECTIONS USER {}", "\\xff".repeat(255));
    assert_eq!(admin.ask(&wanted).len(), 1, "the whole name finds it");
    assert_eq!(admin.command(&format!("KILL USER {}", "\\xff".repeat(255))), KILLED);
    // A name that cannot be one is refused, and shown escaped until its client leaves.
    let mut odd = server.client();
    odd.say(&name_request(&destination, 1));
    assert_eq!(odd.reply().0, 4);
    let line = shown(&mut admin, &odd.stream, "linger");
    assert!(value(&line, "destination").starts_with("\\x01ddd"), "{line}");
}

#[test]
fn ipv6_is_in_brackets() {
    if !support::has_ipv6("a list of IPv6 connections") {
        return;
    }
    let proxy = support::proxy::Builder::default().listen(Some("::1")).start();
    let v6 = Origin::v6(echo);
    let tunnel = proxy.tunnel(v6.address);
    let line = shown(&mut proxy.admin(), &tunnel, "relay");
    let (source, target) = (tunnel.local_addr().expect("open").to_string(), v6.address.to_string());
    assert!(source.starts_with("[::1]:") && target.starts_with("[::1]:"));
    let shown = ["source", "destination", "peer"].map(|key| value(&line, key));
    assert_eq!(shown, [&source, &target, &target].map(String::as_str));
}

/// A connection that changes hands: its account is deleted, another gets the name.
#[test]
fn a_name_finds_the_connections_of_the_account_that_has_it_now() {
    let (proxy, echo) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let mut old = Client::new(proxy.socks()).logged_in("alice", "pw").connected(echo.address);
    let mut admin = proxy.admin();
    admin.say("DELETE-USER alice\nADD-USER alice pw\nCONNECTIONS USER alice\nKILL USER alice\n");
    admin.hears("200 OK\n200 OK\n200 OK\n.\n200 OK killed=0\n");
    read_the_end(&mut old);
    assert_eq!(admin.command("CONNECTIONS USER"), SYNTAX);
    assert_eq!(admin.command("ADD-USER USER pw"), OK);
    assert_eq!(admin.ask("CONNECTIONS USER USER"), [""; 0]);
}

/// One pipelined after the other, a session is closed once.
#[test]
fn kill_twice_in_one_segment() {
    let (proxy, echo) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let _tunnel = alice(&proxy).connected(echo.address);
    let mut admin = proxy.admin();
    let id = id(&admin.ask("CONNECTIONS")[0]);
    admin.say(&format!("KILL {id}\nKILL {id}\nKILL USER alice\nPING\n"));
    for answer in
        ["200 OK killed=1", "404 Not Found [NOCONN] no such connection", "200 OK killed=0"]
    {
        assert_eq!(admin.line(), answer);
    }
    assert_eq!(admin.line(), "200 PONG");
    assert_eq!(admin.ask("CONNECTIONS"), [""; 0]);
}
