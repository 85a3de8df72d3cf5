//! METP/1.1: settings and events (`protocol_metp.txt` §5.17 to §5.19).

use std::net::TcpStream;
use std::time::{Duration, Instant};

use socks5d::state::knobs::KNOBS;
use support::metp::Metp;
use support::origin::{Origin, closed_port};
use support::proxy::{Proxy, connect};
use support::socks::{Client, connect_request, credentials, half_close, reset};
use support::{eventually, exchange, read_to_end, read_to_reset};

const OK: &str = "200 OK";
const SYNTAX: &str = "400 Bad Request [SYNTAX] wrong arguments";

/// The value of a field in a line of `key=value`.
fn value<'a>(line: &'a str, key: &str) -> &'a str {
    let pair = line.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    pair.unwrap_or_else(|| panic!("no {key} in {line}"))
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
            ("-", "-", "clients") => vec!["me".to_owned(), "All".to_owned()],
            (least, most, unit) => {
                for end in [least, most] {
                    // Nobody is to be shut out by what this test sets.
                    if unit != "seconds" || end != least {
                        assert_eq!(admin.tell(&format!("CONFIG SET {key} {end}")), OK);
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
            let answer = admin.tell(&format!("CONFIG SET {key} {bad}"));
            let says = format!("400 Bad Request [RANGE] {key} takes ");
            assert!(answer.starts_with(&says), "{key} {bad}: {answer}");
        }
        assert_eq!(admin.tell(&format!("CONFIG SET {key} {before}")), OK);
    }
    assert_eq!(admin.ask("CONFIG GET"), all);
    for line in ["", " LIST", " GET a b", " SET", " SET grace", " SET grace 1 2", " get grace"] {
        assert_eq!(admin.tell(&format!("CONFIG{line}")), SYNTAX, "{line}");
    }
}

#[test]
fn a_shorter_idle_timeout_ends_a_tunnel_that_is_open() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let mut tunnel = proxy.tunnel(echo.address);
    exchange(&mut tunnel, 1);
    assert_eq!(proxy.admin().tell("CONFIG SET idle-timeout 0.1"), OK);
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
    assert_eq!(admin.tell("CONFIG SET max-connections 3"), OK);
    waiting.hears(&[5, 2]);
    tunnels.iter_mut().for_each(|tunnel| exchange(tunnel, 10));
    assert_eq!(admin.tell("CONFIG SET max-connections 10"), OK);
    assert_eq!(admin.tell("CONFIG SET max-connections-per-ip 3"), OK);
    assert_eq!(read_to_end(&mut proxy.socks()), b"");
    assert_eq!(admin.tell("CONFIG SET max-connections-per-ip 0"), OK);
    Client::new(proxy.socks()).say(&[5, 1, 2]).hears(&[5, 2]);
}

#[test]
fn the_level_of_the_diagnostics_changes_at_once() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    assert_eq!(admin.tell("CONFIG SET log-level off"), OK);
    let wrong = |name: &[u8]| {
        let mut client = Client::new(proxy.socks());
        client.say(&[5, 1, 2]).hears(&[5, 2]);
        client.say(&credentials(name, b"no")).hears(&[1, 1]);
    };
    wrong(b"unheard");
    assert_eq!(admin.tell("CONFIG SET log-level warn"), OK);
    wrong(b"heard");
    proxy.stderr.wait_for(|line| line.ends_with("user=\"heard\""));
    let said = proxy.stderr.all();
    assert!(!said.iter().any(|line| line.contains("unheard")), "{said:?}");
    // Changes are told whatever the level is: nobody can act unseen.
    assert_eq!(said.iter().filter(|line| line.contains("audit: ")).count(), 2, "{said:?}");
}

#[test]
fn events_of_each_topic() {
    let (proxy, echo) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let mut admin = proxy.admin();
    assert_eq!(admin.tell("SUBSCRIBE auth logs connections"), OK);
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
    assert_eq!(open, format!("650 connections event=open id={} {who}", value(&open, "id")));
    let log = admin.line();
    let (time, took) = (value(&log, "time"), value(&log, "duration"));
    let sum = format!("up=10 down=10 duration={took} reason=finished");
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
    assert_eq!(admin.tell("SUBSCRIBE auth"), OK);
    let mut guess = proxy.metp();
    guess.say("HELLO METP/1.0\nAUTH a\\x20b no\n").hears("200 Welcome to METP/1.0\n401 Unauth");
    let line = admin.line();
    assert!(line.starts_with("650 auth service=metp user=a\\x20b source=127.0.0.1:"), "{line}");
    assert!(line.ends_with(" result=failed"), "{line}");
    assert_eq!(admin.tell("UNSUBSCRIBE"), OK);
    let _unseen = proxy.admin();
    assert_eq!(admin.tell("UNSUBSCRIBE"), OK);
    assert_eq!(admin.tell("PING"), "200 PONG");
    for line in ["", " nothing", " EVERY 1", " logs EVERY", " logs EVERY x", " logs logs every 1"] {
        assert_eq!(admin.tell(&format!("SUBSCRIBE{line}")), SYNTAX, "{line}");
    }
    for every in ["0", "3601", "99999999"] {
        let answer = admin.tell(&format!("SUBSCRIBE metrics EVERY {every}"));
        assert_eq!(answer, "400 Bad Request [RANGE] number out of range");
    }
}

#[test]
fn totals_come_at_once_and_then_in_their_interval() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let mut admin = proxy.admin();
    let began = Instant::now();
    assert_eq!(admin.tell("SUBSCRIBE metrics EVERY 1"), OK);
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
    assert_eq!(admin.tell("SUBSCRIBE connections"), OK);
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
    assert_eq!(stuck.tell("SUBSCRIBE auth"), OK);
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
    assert_eq!(stuck.tell("SUBSCRIBE auth"), OK);
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
        assert_eq!(session.tell("SUBSCRIBE logs connections auth metrics EVERY 3600"), OK);
        session.half_close();
        assert!(session.line().starts_with("650 metrics "));
        session.hears_eof();
    }
    eventually("they are gone", || admin.ask("INFO").iter().any(|line| line == "subscribers=0"));
    let sessions: Vec<Metp> = (0..64)
        .map(|_| {
            let mut session = Metp::new(connect(proxy.metp_address())).logged_in("admin", "1234");
            assert_eq!(session.tell("SUBSCRIBE logs"), OK);
            session
        })
        .collect();
    let busy = "429 Too Many [BUSY] too many subscribers, try later";
    assert_eq!(admin.tell("SUBSCRIBE logs"), busy);
    drop(sessions);
    eventually("there is room again", || admin.tell("SUBSCRIBE logs") == OK);
}
