//! METP/1.0: commands and their answers, and the figures and records that they show.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::SystemTime;

use metp_protocol::timestamp::Timestamp;
use support::metp::Metp;
use support::origin::{Origin, closed_port, listen};
use support::proxy::{Builder, Proxy};
use support::socks::{Client, connect_request, credentials, half_close, name_request};
use support::{eventually, noise, read_exactly, read_to_end};

const OK: &str = "200 OK";
const SYNTAX: &str = "400 Bad Request [SYNTAX] wrong arguments";
const UNKNOWN: &str = "400 Bad Request [SYNTAX] unknown verb";
const EXISTS: &str = "400 Bad Request [EXISTS] user exists";
const NO_USER: &str = "400 Bad Request [NOUSER] no such user";
const RANGE: &str = "400 Bad Request [RANGE] number out of range";
const BAD_NAME: &str = "400 Bad Request [BADNAME] name or password not acceptable";
const BAD_ROLE: &str = "400 Bad Request [BADROLE] role must be user or admin";
const OWN: &str = "400 Bad Request [SELF] not on your own account";
const FORBIDDEN: &str = "403 Forbidden";

fn expect(session: &mut Metp, exchanges: &[(&str, &str)]) {
    for (command, answer) in exchanges {
        assert_eq!(session.command(command), *answer, "{command:?}");
    }
}

#[test]
fn verbs_are_case_sensitive_and_surplus_words_are_400() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    for command in [
        "get_metrics",
        "Get_Metrics",
        "users",
        "quit",
        "add-user a b",
        "GET_METRICSX",
        "GET-METRICS",
        "USERS\t",
    ] {
        assert_eq!(admin.command(command), UNKNOWN, "{command:?}");
    }
    for command in [
        "GET_METRICS all",
        "GET_LOGS 5",
        "USERS all",
        "QUIT now",
        "CHANGE-BUFFER",
        "CHANGE-BUFFER 1 2",
        "DELETE-USER",
        "DELETE-USER a b",
        "SET-ROLE",
        "SET-ROLE a",
        "SET-ROLE a user now",
        "ADD-USER",
        "ADD-USER a",
        "ADD-USER a ",
    ] {
        assert_eq!(admin.command(command), SYNTAX, "{command:?}");
    }
    assert_eq!(admin.ask("USERS"), ["admin admin"]);
}

#[test]
fn a_user_may_read_the_metrics_and_quit() {
    let proxy = Proxy::with(&["-u", "alice:pw"]);
    let mut alice = proxy.metp().logged_in("alice", "pw");
    assert_eq!(alice.metrics(), [0, 0, 0]);
    // The role is checked before the arguments: whoever may not, does not learn what is there.
    for command in [
        "GET_LOGS",
        "GET_LOGS 5",
        "USERS",
        "CHANGE-BUFFER 1",
        "CHANGE-BUFFER abc",
        "CHANGE-BUFFER",
        "ADD-USER bob pw",
        "ADD-USER alice pw",
        "ADD-USER",
        "DELETE-USER nobody",
        "DELETE-USER admin",
        "DELETE-USER alice",
        "DELETE-USER",
        "SET-ROLE alice admin",
        "SET-ROLE alice king",
        "SET-ROLE",
    ] {
        assert_eq!(alice.command(command), FORBIDDEN, "{command:?}");
    }
    assert_eq!(alice.command("HELP"), UNKNOWN);
    alice.say("QUIT\n").hears("200 Goodbye\n").hears_eof();
    assert_eq!(proxy.admin().ask("USERS"), ["admin admin", "alice user"]);
}

#[test]
fn change_buffer_takes_1_to_8_digits_from_1_to_1048576() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    for (sizes, answer) in [
        (&["1", "17", "4096", "4097", "65536", "1048576", "00000001", "01048576"][..], OK),
        (&["0", "00000000", "1048577", "99999999", "000000001", "18446744073709551617"], RANGE),
        (&["", "abc", "4096abc", "-1", "+1", "1.5", "0x10", "1e3", "1,000", "\u{661}"], SYNTAX),
    ] {
        for size in sizes {
            assert_eq!(admin.command(&format!("CHANGE-BUFFER {size}")), answer, "{size:?}");
        }
    }
}

/// Two calls for each byte, or a few for all of them: the work tells which size is in force.
#[test]
fn change_buffer_acts_on_an_open_tunnel_and_on_new_ones() {
    const BYTES: usize = 128 * 1024;
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    let listener = listen(Ipv4Addr::LOCALHOST.into()).expect("loopback");
    let open = || {
        let near = proxy.tunnel(listener.local_addr().expect("bound"));
        (near, listener.accept().expect("the proxy connects").0)
    };
    let costs = |(near, far): &mut (TcpStream, TcpStream)| {
        let before = proxy.cpu_time();
        near.write_all(&noise(BYTES, 9)).expect("taken");
        assert!(read_exactly(far, BYTES) == noise(BYTES, 9));
        proxy.cpu_time() - before
    };
    let mut old = open();
    let (mut few, mut many) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        for (size, work) in [(65536, &mut few), (1, &mut many)] {
            assert_eq!(admin.command(&format!("CHANGE-BUFFER {size}")), OK);
            work.extend([costs(&mut old), costs(&mut open())]);
        }
    }
    let (most, least) = (few.iter().max().expect("four"), many.iter().min().expect("four"));
    assert!(*least > 4 * *most, "{few:?} for {BYTES} bytes in large pieces, {many:?} byte by byte");
}

#[test]
fn add_user_takes_any_name_and_any_password_that_fits_in_a_line() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    let (longest, longer) = ("n".repeat(255), "n".repeat(256));
    let good = ["a", "0", "Alice", "alice", "al.ice", "a-b_c@example.com+x", "_", "@", "+", "--"];
    let odd = [".", ".a", "-a", "a:b", "a/b", "DOMAIN\\user", "a\\x20b", "a\tb", "\u{fc}", "a\0b"];
    for name in good.into_iter().chain(odd).chain([longest.as_str()]) {
        assert_eq!(admin.command(&format!("ADD-USER {name} pw")), OK, "{name:?}");
    }
    for name in [&longer, "-", "\\x2d"] {
        assert_eq!(admin.command(&format!("ADD-USER {name} pw")), BAD_NAME, "{name:?}");
    }
    let (fits, too_long) = ("p".repeat(255), "p".repeat(256));
    for (name, password) in
        [("p1", " "), ("p2", "  two  words  "), ("p3", "a:b\\x20\t\u{fc}"), ("p4", &fits)]
    {
        assert_eq!(admin.command(&format!("ADD-USER {name} {password}")), OK, "{password:?}");
        // The same octets log in, over METP and over SOCKS.
        proxy.metp().logged_in(name, password);
        Client::new(proxy.socks()).logged_in(name, password);
    }
    for password in [&too_long, "a\0b", "a\rb"] {
        assert_eq!(admin.command(&format!("ADD-USER p5 {password}")), BAD_NAME, "{password:?}");
    }
    assert_eq!(admin.command("ADD-USER   spaced pw"), OK);
    assert_eq!(admin.ask("USERS").len(), 1 + good.len() + odd.len() + 1 + 4 + 1);
}

#[test]
fn what_cannot_be_done_is_400_with_its_cause() {
    let proxy = Proxy::with(&["-u", "alice:pw"]);
    let mut admin = proxy.admin();
    expect(
        &mut admin,
        &[
            ("ADD-USER alice other", EXISTS),
            ("ADD-USER admin other", EXISTS),
            ("DELETE-USER nobody", NO_USER),
            ("DELETE-USER Alice", NO_USER),
            ("SET-ROLE nobody user", NO_USER),
            ("SET-ROLE alice root", BAD_ROLE),
            ("SET-ROLE alice Admin", BAD_ROLE),
            ("SET-ROLE nobody root", BAD_ROLE),
            ("DELETE-USER admin", OWN),
            ("SET-ROLE admin user", OWN),
            ("SET-ROLE admin admin", OWN),
        ],
    );
    assert_eq!(admin.ask("USERS"), ["admin admin", "alice user"]);
    proxy.metp().logged_in("alice", "pw");
}

#[test]
fn metrics_count_socks_connections_and_payload_alone() {
    let proxy = Proxy::start();
    let _metp_sessions: Vec<Metp> = (0..5).map(|_| proxy.admin()).collect();
    let mut admin = proxy.admin();
    assert_eq!(admin.metrics(), [0, 0, 0]);
    // A connection counts from the moment it is accepted, whatever comes of it.
    let silent = proxy.socks();
    eventually("it is accepted", || admin.metrics() == [1, 1, 0]);
    let mut failing = Client::new(proxy.socks());
    failing.say(b"\x05\x01\x02").hears(b"\x05\x02").say(&credentials(b"x", b"y"));
    failing.hears(b"\x01\x01").hears_eof();
    drop((silent, failing));
    eventually("both are gone", || admin.metrics() == [2, 0, 0]);

    let origin = Origin::new(|mut stream| {
        let asked = read_exactly(&mut stream, 1000);
        // The test sees it if it fails.
        let _ = stream.write_all(&asked[..10]);
        let _ = support::read_exactly(&mut stream, 1);
    });
    let mut tunnel = proxy.tunnel(origin.address);
    tunnel.write_all(&noise(1000, 3)).expect("taken");
    read_exactly(&mut tunnel, 10);
    eventually("1000 up and 10 down", || admin.metrics() == [3, 1, 1010]);
    tunnel.write_all(b"x").expect("taken");
    assert_eq!(read_to_end(&mut tunnel), b"");
    drop(tunnel);
    eventually("it is over", || admin.metrics() == [3, 0, 1011]);
    let body =
        "HISTORICAL_CONNECTIONS: 3\nCURRENT_CONNECTIONS:    0\nBYTES_TRANSFERRED:      1011\n.\n";
    admin.say("GET_METRICS\n").hears("200 OK\n").hears(body);
}

#[test]
fn a_record_appears_when_its_tunnel_opens_and_counts_live() {
    let (proxy, origin) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let mut admin = proxy.admin();
    let mut client = Client::new(proxy.socks()).logged_in("alice", "pw");
    assert_eq!(admin.ask("GET_LOGS"), [""; 0]);
    let before = Timestamp::from(SystemTime::now()).to_string();
    client.say(&connect_request(origin.address));
    assert_eq!(client.reply().0, 0);
    let after = Timestamp::from(SystemTime::now()).to_string();
    let [record] = &admin.ask("GET_LOGS")[..] else { panic!("one record") };
    let (time, rest) = record.split_once(' ').expect("fields");
    assert_eq!(rest, format!("alice 127.0.0.1 {} 0", origin.address));
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(shape, "[9999-99-99T99:99:99Z]");
    let time = &time[1..21];
    assert!(*before <= *time && *time <= *after, "{before} {time} {after}");

    client.say(b"0123456789").hears(b"0123456789");
    let line = format!("alice 127.0.0.1 {} 20", origin.address);
    eventually("20 bytes", || admin.ask("GET_LOGS")[0].ends_with(&line));
    half_close(&client.stream);
    client.hears_eof();
    proxy.wait_until_idle();
    let records = admin.ask("GET_LOGS");
    assert!(records.len() == 1 && records[0].ends_with(&line), "it stays: {records:?}");
}

#[test]
fn what_never_became_a_tunnel_has_no_record() {
    let (proxy, (_guard, closed)) = (Proxy::start(), closed_port());
    let mut client = proxy.client();
    client.say(&connect_request(closed)).refused(5);
    let mut client = proxy.client();
    client.say(&name_request(b"*", 80)).refused(4);
    assert_eq!(proxy.admin().ask("GET_LOGS"), [""; 0]);
}

/// Destinations of the records, in order.
fn destinations(admin: &mut Metp) -> Vec<String> {
    let destination = |record: &String| record.split(' ').nth(3).expect("a field").to_owned();
    admin.ask("GET_LOGS").iter().map(destination).collect()
}

#[test]
fn the_newest_records_are_kept_oldest_first() {
    let proxy = Proxy::with(&["--log-entries", "3"]);
    let origins: Vec<Origin> = (0..5).map(|_| Origin::echo()).collect();
    let mut admin = proxy.admin();
    let mut tunnels = Vec::new();
    for (count, origin) in origins.iter().enumerate() {
        tunnels.push(proxy.tunnel(origin.address));
        let kept = &origins[(count + 1).saturating_sub(3)..=count];
        let expected: Vec<String> = kept.iter().map(|o| o.address.to_string()).collect();
        assert_eq!(destinations(&mut admin), expected);
    }
    // The first tunnel has lost its record; its bytes are counted nowhere else.
    for tunnel in [0, 4] {
        tunnels[tunnel].write_all(b"abc").expect("taken");
        read_exactly(&mut tunnels[tunnel], 3);
    }
    eventually("all bytes are counted", || admin.metrics()[2] == 12);
    let bytes = |record: &String| record.rsplit(' ').next().expect("a field").to_owned();
    let counted: Vec<String> = admin.ask("GET_LOGS").iter().map(bytes).collect();
    assert_eq!(counted, ["0", "0", "6"]);
}

#[test]
fn a_log_of_no_entries_stays_empty() {
    let (proxy, origin) = (Proxy::with(&["--log-entries", "0"]), Origin::echo());
    let mut tunnel = proxy.tunnel(origin.address);
    tunnel.write_all(b"abc").expect("taken");
    read_exactly(&mut tunnel, 3);
    assert_eq!(proxy.admin().ask("GET_LOGS"), [""; 0]);
}

#[test]
fn destinations_are_shown_as_asked_for_and_ipv6_in_brackets() {
    if !support::has_ipv6("a record of an IPv6 destination") {
        return;
    }
    let (proxy, v4, v6) = (Proxy::start(), Origin::echo(), Origin::v6(support::origin::echo));
    let (port4, port6) = (v4.address.port(), v6.address.port());
    let mapped: IpAddr = Ipv4Addr::LOCALHOST.to_ipv6_mapped().into();
    let mut tunnels = vec![
        proxy.tunnel(v4.address),
        proxy.tunnel(v6.address),
        proxy.tunnel(SocketAddr::new(mapped, port4)),
    ];
    for name in [&b"localhost"[..], b"127.0.0.1"] {
        let mut client = proxy.client();
        assert_eq!(client.say(&name_request(name, port4)).reply().0, 0);
        tunnels.push(client.stream);
    }
    let expected = [
        format!("127.0.0.1:{port4}"),
        format!("[::1]:{port6}"),
        format!("127.0.0.1:{port4}"),
        format!("localhost:{port4}"),
        format!("127.0.0.1:{port4}"),
    ];
    assert_eq!(destinations(&mut proxy.admin()), expected);
}

#[test]
fn a_record_of_a_client_on_ipv6_shows_its_address() {
    if !support::has_ipv6("a record of an IPv6 client") {
        return;
    }
    let (proxy, origin) = (Builder::default().listen(Some("::1")).start(), Origin::echo());
    let _tunnel = proxy.tunnel(origin.address);
    let records = proxy.admin().ask("GET_LOGS");
    assert!(records[0].contains("] admin ::1 127.0.0.1:"), "{records:?}");
}
