//! METP/1.1: SUBSCRIBE and events (`protocol_metp.txt` §5.18). What is told, in which order, to whom, and what
//! becomes of those who do not read.

use std::collections::HashMap;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use socks5d::state::knobs::KNOBS;
use support::metp::{Metp, value};
use support::origin::{Origin, closed_port};
use support::proxy::{Builder, Proxy, connect};
use support::socks::{Client, connect_request, credentials, half_close, name_request, reset};
use support::{eventually, exchange, read_the_end, read_to_end};

const OK: &str = "200 OK";
const SYNTAX: &str = "400 Bad Request [SYNTAX] wrong arguments";
const RANGE: &str = "400 Bad Request [RANGE] number out of range";

fn subscriber(proxy: &Proxy, topics: &str) -> Metp {
    let mut session = proxy.admin();
    assert_eq!(session.command(&format!("SUBSCRIBE {topics}")), OK);
    session
}

/// The fields behind a date, which is checked to be one.
fn after_time(line: &str) -> &str {
    let (time, rest) = line.split_once("time=").expect("a date").1.split_once(' ').expect("more");
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(shape, "9999-99-99T99:99:99Z", "{line}");
    rest
}

/// A busy server: each tunnel opens once and closes once, later; each request is in `logs` exactly as in the
/// access log on stdout; every subscriber hears the same in the same order.
#[test]
fn events_tell_what_the_access_log_tells() {
    const EACH: usize = 25;
    let proxy = Proxy::with(&["-u", "alice:pw", "-u", "bob:pw"]);
    let (echo, (_held, closed)) = (Origin::echo(), closed_port());
    let mut first = subscriber(&proxy, "connections logs");
    let mut second = subscriber(&proxy, "logs connections");
    let work = |name: &'static str| {
        for round in 0..EACH {
            let login = || Client::new(proxy.socks()).logged_in(name, "pw");
            let mut tunnel = login().connected(echo.address);
            exchange(&mut tunnel, 10 * round);
            half_close(&tunnel);
            assert_eq!(read_to_end(&mut tunnel), b"");
            login().say(&connect_request(closed)).refused(5);
            login().say(&name_request(b"*", 80)).refused(4);
        }
    };
    thread::scope(|scope| {
        let work = &work;
        for name in ["alice", "bob"] {
            scope.spawn(move || work(name));
        }
    });
    let requests = 2 * 3 * EACH;
    eventually("all are logged", || proxy.stdout.all().len() == requests);
    let events: Vec<String> = (0..requests + 4 * EACH).map(|_| first.line()).collect();
    for event in &events {
        assert_eq!(second.line(), *event);
    }
    let mut open = HashMap::new();
    for event in events.iter().filter(|event| event.starts_with("650 connections ")) {
        let (id, source) = (value(event, "id").to_owned(), value(event, "source").to_owned());
        match value(event, "event") {
            "open" => assert_eq!(open.insert(id, source), None, "open already: {event}"),
            _ => assert_eq!(open.remove(&id), Some(source), "not open: {event}"),
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    let mut told: Vec<String> = Vec::new();
    for event in events.iter().filter(|event| event.starts_with("650 logs ")) {
        after_time(event);
        let of = |key| value(event, key).to_owned();
        told.push(
            ["user", "source", "destination", "reply", "up", "down", "reason"].map(of).join(" "),
        );
    }
    let logged = |line: String| {
        let f: Vec<&str> = line.split('\t').collect();
        format!("{} {}:{} {}:{} {} {} {} {}", f[1], f[3], f[4], f[5], f[6], f[7], f[8], f[9], f[11])
    };
    let mut logged: Vec<String> = proxy.stdout.all().into_iter().map(logged).collect();
    told.sort();
    logged.sort();
    assert_eq!(told, logged);
}

/// Endings that administrators cause have their reasons.
#[test]
fn the_reason_of_an_ending_is_told() {
    let (proxy, echo) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let mut events = subscriber(&proxy, "connections");
    let mut admin = proxy.admin();
    for (command, reason) in [
        ("KILL USER alice", "killed"),
        ("CONFIG SET idle-timeout 0.05", "idle-timeout"),
        ("DELETE-USER alice", "user-deleted"),
    ] {
        let mut tunnel =
            Client::new(proxy.socks()).logged_in("alice", "pw").connected(echo.address);
        assert!(events.line().starts_with("650 connections event=open "));
        assert!(admin.command(command).starts_with("200 OK"));
        read_the_end(&mut tunnel);
        let end = events.line();
        assert!(end.ends_with(&format!(" reason={reason} rule=-")), "{end}");
        assert_eq!(admin.command("CONFIG SET idle-timeout 0"), OK);
    }
}

/// §5.18: at least one topic, EVERY last and once, in whole seconds from 1 to 3600.
#[test]
fn what_can_be_subscribed_to() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    for good in [
        "auth",
        "auth auth",
        "logs connections auth",
        "logs EVERY 1",
        "auth EVERY 3600",
        "auth EVERY 01",
        "  auth  EVERY  5  ",
    ] {
        assert_eq!(admin.command(&format!("SUBSCRIBE {good}")), OK, "{good}");
    }
    for bad in [
        "",
        "EVERY 5",
        "EVERY",
        "Auth",
        "all",
        "auth,logs",
        "auth nothing",
        "EVERY 5 auth",
        "auth EVERY",
        "auth EVERY 1.5",
        "auth EVERY -1",
        "auth EVERY 1 EVERY 2",
        "auth EVERY 1 2",
        "650",
    ] {
        assert_eq!(admin.command(&format!("SUBSCRIBE {bad}")), SYNTAX, "{bad}");
    }
    for beyond in ["0", "3601", "4294967297", "000000005"] {
        assert_eq!(admin.command(&format!("SUBSCRIBE auth EVERY {beyond}")), RANGE, "{beyond}");
    }
    // What was refused has not taken the place of what was there.
    let _other = proxy.admin();
    assert!(admin.line().starts_with("650 auth service=metp user=admin "));
    assert_eq!(admin.command("UNSUBSCRIBE now"), SYNTAX);
    // Nobody subscribes before the login.
    proxy.metp().say("SUBSCRIBE auth\n").hears("400 Bad Request\n").hears_eof();
    proxy.metp().say("HELLO METP/1.0\nSUBSCRIBE auth\n").hears("200 Welcome to METP/1.0\n400 ");
}

/// Totals come at once after each SUBSCRIBE, and count what the metrics count.
#[test]
fn the_first_totals_come_at_once() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let mut events = proxy.admin();
    let mut tunnel = proxy.tunnel(echo.address);
    for round in 1..=5_u64 {
        exchange(&mut tunnel, 100);
        assert_eq!(events.command("SUBSCRIBE metrics EVERY 3600"), OK);
        let bytes = round * 100;
        let totals = format!("accepted=1 connections=1 up={bytes} down={bytes}");
        assert_eq!(after_time(&events.line()), totals);
    }
    assert_eq!(events.command("PING"), "200 PONG", "no more for an hour");
}

/// After the 200 of UNSUBSCRIBE comes no event; before that of SUBSCRIBE neither. All in one segment, while
/// others log in without pause.
#[test]
fn events_keep_to_their_subscription() {
    let proxy = Proxy::start();
    let mut session = proxy.admin();
    let round = "PING out\nSUBSCRIBE auth\nPING in\nUSERS\nUNSUBSCRIBE\nPING out\nCAPA\n";
    let rounds = 200;
    let guess = || {
        let mut client = Client::new(proxy.socks());
        client.say(&[5, 1, 2]).hears(&[5, 2]).say(&credentials(b"x", b"y")).hears(&[1, 1]);
    };
    thread::scope(|scope| {
        scope.spawn(|| (0..300).for_each(|_| guess()));
        for _ in 0..rounds {
            session.say(round).hears("200 PONG out\n200 OK\n");
            let mut told = Vec::new();
            let mut reply = |session: &mut Metp| {
                loop {
                    let line = session.line();
                    match line.starts_with("650 auth ") {
                        true => told.push(line),
                        false => return line,
                    }
                }
            };
            assert_eq!(reply(&mut session), "200 PONG in");
            assert_eq!(reply(&mut session), OK);
            session.hears("admin admin\n.\n");
            assert_eq!(reply(&mut session), OK);
            session.hears("200 PONG out\n200 OK\n");
            assert_eq!(session.body().len(), 11);
            assert!(told.iter().all(|line| line.ends_with(" result=failed")), "{told:?}");
        }
    });
}

/// A subscriber may be silent for ever; without a subscription the usual time counts again.
#[test]
fn a_subscriber_does_not_time_out() {
    let proxy = Proxy::start();
    let (mut idle, mut events) = (proxy.admin(), subscriber(&proxy, "logs"));
    events.set("metp-idle-timeout", "0.2");
    idle.hears_eof();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(events.command("PING"), "200 PONG");
    assert_eq!(events.command("UNSUBSCRIBE"), OK);
    events.hears_eof();
}

/// §3.2, §3.4: an event is one line of less than 1000 octets, whatever names come.
#[test]
fn the_longest_names_fit_into_a_line() {
    let login = format!("{}:pw", "n".repeat(255));
    let (proxy, echo) = (Builder::default().args(["-u", &login]).start(), Origin::echo());
    let mut events = subscriber(&proxy, "auth logs connections");
    let mut client = Client::new(proxy.socks());
    client.say(&[5, 1, 2]).hears(&[5, 2]).say(&credentials(&[0xff; 255], b"x")).hears(&[1, 1]);
    let cut = format!(" user={}... ", "\\xff".repeat(63));
    assert!(events.line().contains(&cut));
    let login = || Client::new(proxy.socks()).logged_in(&"n".repeat(255), "pw");
    login().say(&name_request(&[1; 255], 65535)).refused(4);
    let _tunnel = login().connected(echo.address);
    let cut = format!(" user={} ", "n".repeat(255));
    for _ in 0..4 {
        let line = events.line();
        assert!(line.len() < 999 && line.contains(&cut), "{} octets: {line}", line.len());
    }
}

/// §5.18, with a patience that a test can wait for: the last that a reader hears who comes back too late is
/// why it was closed. Tunnels go on all the time.
#[test]
fn whoever_did_not_read_is_told_in_the_end() {
    let (proxy, echo) = (Proxy::with(&["--subscriber-timeout", "0.3"]), Origin::echo());
    let mut tunnel = proxy.tunnel(echo.address);
    let mut stuck = proxy.narrow_admin();
    assert_eq!(stuck.command("SUBSCRIBE auth"), OK);
    // The answers are more than any kernel keeps: 20 MiB.
    stuck.say(&"CONFIG GET\n".repeat(10_000));
    let slow = |line: &str| line.ends_with(" does not read its events");
    eventually("it is noticed", || {
        exchange(&mut tunnel, 1000);
        proxy.stderr.all().iter().any(|line| slow(line))
    });
    let mut admin = proxy.admin();
    assert_eq!(admin.info("subscribers"), "0", "it takes no place any more");
    let rest = stuck.rest();
    assert!(
        rest.ends_with("\n421 Closing [SLOW] events were not read\n"),
        "{:?}",
        rest.get(rest.len().saturating_sub(200)..)
    );
    // With time off nobody is closed for it; and the time of those that are open moves too.
    admin.set("subscriber-timeout", 0);
    assert_eq!(admin.setting("subscriber-timeout"), "0");
}

#[test]
fn events_of_each_topic() {
    let (proxy, echo) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let mut admin = proxy.admin();
    assert_eq!(admin.command("SUBSCRIBE auth logs connections"), OK);
    let client = Client::new(proxy.socks());
    let source = client.stream.local_addr().expect("open");
    let mut tunnel = client.logged_in("alice", "pw").connected(echo.address);
    exchange(&mut tunnel, 10);
    half_close(&tunnel);
    assert_eq!(read_to_end(&mut tunnel), b"");
    let target = echo.address;
    let login = format!("650 auth service=socks user=alice source={source} result=ok");
    assert_eq!(admin.line(), login);
    let open = admin.line();
    let who = format!("user=alice source={source} destination={target}");
    let id = value(&open, "id");
    assert_eq!(open, format!("650 connections event=open id={id} {who} rule=-"));
    let log = admin.line();
    let (time, took) = (value(&log, "time"), value(&log, "duration"));
    let sum = format!("up=10 down=10 duration={took} reason=finished rule=-");
    assert_eq!(log, format!("650 logs time={time} {who} reply=0 {sum}"));
    let id = value(&open, "id");
    assert_eq!(admin.line(), format!("650 connections event=close id={id} {who} {sum}"));
    // What never became a tunnel is in the log alone.
    let (_keep, closed) = closed_port();
    let mut refused = Client::new(proxy.socks()).logged_in("alice", "pw");
    assert_eq!(refused.say(&connect_request(closed)).reply().0, 5);
    drop(refused);
    assert!(admin.line().starts_with("650 auth "));
    let log = admin.line();
    assert!(log.starts_with("650 logs ") && log.contains(" reply=5 "), "{log}");
    // Another subscription takes the place of the first.
    assert_eq!(admin.command("SUBSCRIBE auth"), OK);
    let mut guess = proxy.metp();
    guess.say("HELLO METP/1.0\nAUTH a\\x20b no\n").hears("200 Welcome to METP/1.0\n401 Unauth");
    let line = admin.line();
    assert!(line.starts_with("650 auth service=metp user=a\\x20b source=127.0.0.1:"), "{line}");
    assert!(line.ends_with(" result=failed"), "{line}");
    assert_eq!(admin.command("UNSUBSCRIBE"), OK);
    let _unseen = proxy.admin();
    assert_eq!(admin.command("UNSUBSCRIBE"), OK);
    assert_eq!(admin.command("PING"), "200 PONG");
    for line in ["", " nothing", " EVERY 1", " logs EVERY", " logs EVERY x", " logs logs every 1"] {
        assert_eq!(admin.command(&format!("SUBSCRIBE{line}")), SYNTAX, "{line}");
    }
    for every in ["0", "3601", "99999999"] {
        let answer = admin.command(&format!("SUBSCRIBE metrics EVERY {every}"));
        assert_eq!(answer, "400 Bad Request [RANGE] number out of range");
    }
}

#[test]
fn totals_come_at_once_and_then_in_their_interval() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let mut admin = proxy.admin();
    let began = Instant::now();
    assert_eq!(admin.command("SUBSCRIBE metrics EVERY 1"), OK);
    let first = admin.line();
    assert!(first.starts_with("650 metrics time="), "{first}");
    assert!(first.ends_with(" accepted=0 connections=0 up=0 down=0"), "{first}");
    let mut tunnel = proxy.tunnel(echo.address);
    exchange(&mut tunnel, 10);
    // More than a second may have passed meanwhile.
    let mut told = 0;
    eventually("the tunnel is in the totals", || {
        let totals = admin.line();
        told += 1;
        assert!(totals.starts_with("650 metrics time="), "{totals}");
        totals.ends_with(" accepted=1 connections=1 up=10 down=10")
    });
    assert!(began.elapsed() >= Duration::from_secs(told), "{told} after {:?}", began.elapsed());
}

/// §5.18: events stand between replies. The bodies here are longer than what is made at once.
#[test]
fn no_event_stands_inside_a_reply() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let held: Vec<TcpStream> = (0..100).map(|_| proxy.tunnel(echo.address)).collect();
    let mut admin = proxy.admin();
    assert_eq!(admin.command("SUBSCRIBE connections"), OK);
    for _ in 0..20 {
        admin.say("CONNECTIONS\n");
        drop(proxy.tunnel(echo.address));
    }
    let (mut bodies, mut events) = (0, 0);
    while bodies < 20 || events < 40 {
        match admin.line() {
            line if line.starts_with("650 connections event=") => events += 1,
            line => {
                assert_eq!(line, OK);
                let body = admin.body();
                assert!(body.len() >= 100 && body.iter().all(|line| line.starts_with("id=")));
                bodies += 1;
            }
        }
    }
    drop(held);
}

/// So many times `CONFIG GET` has answers for which no kernel has room: 23 MiB.
const QUESTIONS: usize = 10_000;

/// A subscriber that does not read loses the oldest events, is told how many, and slows nobody down.
#[test]
fn a_subscriber_that_does_not_read_loses_events() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let mut tunnel = proxy.tunnel(echo.address);
    let mut stuck = proxy.narrow_admin();
    assert_eq!(stuck.command("SUBSCRIBE auth"), OK);
    stuck.say(&"CONFIG GET\n".repeat(QUESTIONS));
    let guess = [&[5, 1, 2][..], &credentials(b"guess", b"no")].concat();
    for _ in 0..45 {
        for _ in 0..100 {
            let mut client = Client::new(proxy.socks());
            client.say(&guess).hears(&[5, 2, 1, 1]);
            reset(client.stream);
        }
        exchange(&mut tunnel, 10);
    }
    let (mut told, mut gone, mut bodies) = (0, 0, 0);
    while told + gone < 4500 || bodies < QUESTIONS {
        let line = stuck.line();
        if let Some(count) = line.strip_prefix("650 lost count=") {
            gone += count.parse::<u64>().expect("a number");
        } else if line.starts_with("650 ") {
            assert!(line.starts_with("650 auth service=socks user=guess source="), "{line}");
            told += 1;
        } else {
            assert_eq!((line.as_str(), stuck.body().len()), (OK, KNOBS.len()));
            bodies += 1;
        }
    }
    assert_eq!((told + gone, gone > 0), (4500, true), "{told} told, {gone} lost");
    let lost = format!("EVENTS_LOST: {gone}");
    assert!(proxy.admin().ask("GET_METRICS ALL").contains(&lost), "{lost}");
}

/// §5.18, with a patience that a test can wait for.
#[test]
fn a_subscriber_that_takes_nothing_is_closed() {
    let proxy = Proxy::with(&["--subscriber-timeout", "0.2"]);
    let (mut admin, mut stuck) = (proxy.admin(), proxy.narrow_admin());
    assert_eq!(stuck.command("SUBSCRIBE auth"), OK);
    stuck.say(&"CONFIG GET\n".repeat(QUESTIONS));
    eventually("it is closed", || admin.ask("INFO").iter().any(|line| line == "metp-sessions=1"));
    proxy.stderr.wait_for(|line| line.ends_with(" does not read its events"));
}

/// A client that ends its writing direction gets the reply to its last command, and no events.
#[test]
fn a_subscriber_that_leaves_is_forgotten() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    for _ in 0..3 {
        let mut session = proxy.admin();
        assert_eq!(session.command("SUBSCRIBE logs connections auth metrics EVERY 3600"), OK);
        session.half_close();
        assert!(session.line().starts_with("650 metrics "));
        session.hears_eof();
    }
    eventually("they are gone", || admin.ask("INFO").iter().any(|line| line == "subscribers=0"));
    let sessions: Vec<Metp> = (0..64)
        .map(|_| {
            let mut session = Metp::new(connect(proxy.metp_address())).logged_in("admin", "1234");
            assert_eq!(session.command("SUBSCRIBE logs"), OK);
            session
        })
        .collect();
    let busy = "429 Too Many [BUSY] too many subscribers, try later";
    assert_eq!(admin.command("SUBSCRIBE logs"), busy);
    drop(sessions);
    eventually("there is room again", || admin.command("SUBSCRIBE logs") == OK);
}
