//! METP/1.1: USER-METRICS (`protocol_metp.txt` §5.13). What accounts have used, to the byte.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, SystemTime};

use metp_protocol::timestamp::Timestamp;
use support::metp::{Metp, value};
use support::origin::{Origin, closed_port};
use support::proxy::Proxy;
use support::socks::{Client, connect_request, half_close};
use support::{eventually, exchange, noise, read_to_end};

fn login(proxy: &Proxy, name: &str) -> Client {
    Client::new(proxy.socks()).logged_in(name, "pw")
}

/// The figures of one account: connections, total, up, down.
fn usage(session: &mut Metp, name: &str) -> [u64; 4] {
    let lines = session.ask(&format!("USER-METRICS {name}"));
    let [line] = &lines[..] else { panic!("one line: {lines:?}") };
    ["connections", "total", "up", "down"].map(|key| value(line, key).parse().expect("a number"))
}

fn seen(session: &mut Metp, name: &str) -> String {
    value(&session.ask(&format!("USER-METRICS {name}"))[0], "last-seen").to_owned()
}

/// §5.13: the keys in order, accounts in the order in which they were made.
#[test]
fn all_accounts_from_the_first_moment_on() {
    let proxy = Proxy::with(&["-u", "two words:pw", "-u", ".dot:pw"]);
    let mut admin = proxy.admin();
    assert_eq!(admin.command("ADD-USER late pw"), "200 OK");
    assert_eq!(admin.command("SET-ROLE late admin"), "200 OK");
    admin.say("USER-METRICS\n").hears(
        "200 OK\n\
         user=admin role=admin connections=0 total=0 up=0 down=0 last-seen=- locked=no origin=memory quota=- quota-used=- expires=- sources=- rate=-\n\
         user=two\\x20words role=user connections=0 total=0 up=0 down=0 last-seen=- locked=no origin=memory quota=- quota-used=- expires=- sources=- rate=-\n\
         user=.dot role=user connections=0 total=0 up=0 down=0 last-seen=- locked=no origin=memory quota=- quota-used=- expires=- sources=- rate=-\n\
         user=late role=admin connections=0 total=0 up=0 down=0 last-seen=- locked=no origin=memory quota=- quota-used=- expires=- sources=- rate=-\n\
         .\n",
    );
    assert_eq!(usage(&mut admin, "two\\x20words"), [0; 4]);
}

/// Connections count from the login on, in whatever state; METP sessions never do.
#[test]
fn connections_count_while_they_are_open_and_for_good() {
    let (proxy, echo) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let (mut admin, _alice) = (proxy.admin(), proxy.metp().logged_in("alice", "pw"));
    let (_guard, closed) = closed_port();
    let waiting = login(&proxy, "alice");
    assert_eq!(usage(&mut admin, "alice"), [1, 1, 0, 0]);
    let tunnel = login(&proxy, "alice").connected(echo.address);
    assert_eq!(usage(&mut admin, "alice"), [2, 2, 0, 0]);
    let mut refused = login(&proxy, "alice");
    refused.say(&connect_request(closed)).refused(5);
    drop(refused);
    eventually("it is gone", || usage(&mut admin, "alice") == [2, 3, 0, 0]);
    drop((waiting, tunnel));
    eventually("all are gone", || usage(&mut admin, "alice") == [0, 3, 0, 0]);
    assert_eq!(usage(&mut admin, "admin"), [0; 4]);
}

/// Up is what targets were given, down what clients were; reading the counters changes nothing.
#[test]
fn each_direction_is_counted_exactly() {
    let proxy = Proxy::with(&["-u", "alice:pw", "-u", "bob:pw"]);
    let origin = Origin::new(|mut stream| {
        use std::io::Write;
        let asked = read_to_end(&mut stream);
        // The test sees it if it fails.
        let _ = stream.write_all(&noise(3 * asked.len() + 1, 5));
    });
    let mut admin = proxy.admin();
    let mut expected = [[0; 4]; 2];
    for size in [0, 1, 511, 65536, 1 << 20] {
        for (index, name) in ["alice", "bob"].into_iter().enumerate() {
            let size = size * (index + 1);
            let mut tunnel = login(&proxy, name).connected(origin.address);
            let mut writer = tunnel.try_clone().expect("a descriptor");
            let sending = thread::spawn(move || {
                use std::io::Write;
                writer.write_all(&noise(size, 4)).expect("taken");
                half_close(&writer);
            });
            assert_eq!(read_to_end(&mut tunnel).len(), 3 * size + 1);
            sending.join().expect("sent");
            let [_, total, up, down] = &mut expected[index];
            *total += 1;
            *up += size as u64;
            *down += 3 * size as u64 + 1;
        }
    }
    proxy.wait_until_idle();
    for _ in 0..3 {
        assert_eq!(usage(&mut admin, "alice"), expected[0]);
        assert_eq!(usage(&mut admin, "bob"), expected[1]);
    }
    let sum = |at: usize| expected[0][at] + expected[1][at];
    assert_eq!([admin.figure("BYTES_UP"), admin.figure("BYTES_DOWN")], [sum(2), sum(3)]);
    assert_eq!(admin.metrics(), [10, 0, sum(2) + sum(3)]);
}

/// The account counts, not its name: who is added anew begins at nothing, and what the old account's
/// tunnels had moved is not the new one's.
#[test]
fn a_name_that_is_added_again_begins_at_nothing() {
    let (proxy, echo) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let mut admin = proxy.admin();
    let mut tunnel = login(&proxy, "alice").connected(echo.address);
    exchange(&mut tunnel, 100);
    admin.say("DELETE-USER alice\nADD-USER alice pw\nUSER-METRICS alice\n");
    admin.hears("200 OK\n200 OK\n200 OK\n");
    admin.hears("user=alice role=user connections=0 total=0 up=0 down=0 last-seen=- locked=no origin=memory quota=- quota-used=- expires=- sources=- rate=-\n.\n");
    proxy.wait_until_idle();
    assert_eq!(usage(&mut admin, "alice"), [0; 4]);
    exchange(&mut login(&proxy, "alice").connected(echo.address), 7);
    eventually("it is over", || usage(&mut admin, "alice") == [0, 1, 7, 7]);
    assert_eq!(admin.figure("BYTES_UP"), 107, "the server's totals know both");
}

/// A new password or role is no new account.
#[test]
fn password_and_role_change_no_figure() {
    let (proxy, echo) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let mut admin = proxy.admin();
    let mut tunnel = login(&proxy, "alice").connected(echo.address);
    exchange(&mut tunnel, 100);
    for command in ["CHANGE-PASSWORD alice new", "SET-ROLE alice admin", "SET-ROLE alice user"] {
        assert_eq!(admin.command(command), "200 OK");
        assert_eq!(usage(&mut admin, "alice"), [1, 1, 100, 100]);
    }
    exchange(&mut tunnel, 10);
    assert_eq!(usage(&mut admin, "alice"), [1, 1, 110, 110]);
}

/// `last-seen`: a date in UTC, to the second; `-` before there was anything.
#[test]
fn last_seen_is_a_time_between_before_and_after() {
    let (proxy, echo) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let mut admin = proxy.admin();
    assert_eq!(seen(&mut admin, "alice"), "-");
    let start = SystemTime::now();
    let mut tunnel = login(&proxy, "alice").connected(echo.address);
    exchange(&mut tunnel, 10);
    let told = seen(&mut admin, "alice");
    // It is counted back from now, so it may be a moment off.
    let before = Timestamp::from(start - Duration::from_secs(1)).to_string();
    let after = Timestamp::from(SystemTime::now()).to_string();
    assert!(before <= told && told <= after, "{before} {told} {after}");
    assert_eq!(seen(&mut admin, "admin"), "-", "METP is not what is counted");
    drop(tunnel);
    proxy.wait_until_idle();
    assert!(seen(&mut admin, "alice") >= before, "it is not forgotten");
}

/// §6: a user sees the own line, live; every other name is 403, and a role change acts at once.
#[test]
fn a_user_sees_the_own_line_alone() {
    let (proxy, echo) = (Proxy::with(&["-u", "alice:pw", "-u", "bob:pw"]), Origin::echo());
    let (mut admin, mut alice) = (proxy.admin(), proxy.metp().logged_in("alice", "pw"));
    let mut tunnel = login(&proxy, "alice").connected(echo.address);
    exchange(&mut tunnel, 10);
    assert_eq!(usage(&mut alice, ""), [1, 1, 10, 10]);
    assert_eq!(usage(&mut alice, "alice"), [1, 1, 10, 10]);
    assert_eq!(alice.command("USER-METRICS bob"), "403 Forbidden");
    assert_eq!(admin.command("SET-ROLE alice admin"), "200 OK");
    assert_eq!(alice.ask("USER-METRICS").len(), 3);
    assert_eq!(admin.command("SET-ROLE alice user"), "200 OK");
    assert_eq!(alice.ask("USER-METRICS").len(), 1);
}

/// The list is made piece by piece; accounts that come and go meanwhile do not disturb it.
#[test]
fn a_long_list_is_whole_while_accounts_come_and_go() {
    const ACCOUNTS: usize = 1500;
    let proxy = Proxy::start();
    let (mut admin, mut other) = (proxy.admin(), proxy.admin());
    let add: String = (0..ACCOUNTS).map(|n| format!("ADD-USER u{n} pw\n")).collect();
    admin.say(&add).hears(&"200 OK\n".repeat(ACCOUNTS));
    let lists = 20;
    admin.say(&"USER-METRICS\n".repeat(lists));
    // These are deleted while the lists are made: whoever stays is in each.
    for number in (0..ACCOUNTS).step_by(2) {
        assert_eq!(other.command(&format!("DELETE-USER u{number}")), "200 OK");
    }
    for _ in 0..lists {
        assert_eq!(admin.line(), "200 OK");
        let names: Vec<String> =
            admin.body().iter().map(|line| value(line, "user").to_owned()).collect();
        let odd: Vec<&String> = names
            .iter()
            .filter(|name| name[1..].parse::<usize>().is_ok_and(|n| n % 2 == 1))
            .collect();
        assert_eq!((odd.len(), names[0].as_str()), (ACCOUNTS / 2, "admin"));
        let order: Vec<usize> = odd.iter().filter_map(|name| name[1..].parse().ok()).collect();
        assert!(order.is_sorted(), "in the order of their creation");
    }
    assert_eq!(admin.ask("USER-METRICS").len(), 1 + ACCOUNTS / 2);
}

/// Many at once: what the accounts have used adds up to what the server has moved.
#[test]
fn the_accounts_add_up_to_the_server() {
    let users: Vec<String> = (0..4).map(|n| format!("u{n}:pw")).collect();
    let options: Vec<&str> = users.iter().flat_map(|user| ["-u", user]).collect();
    let (proxy, echo) = (Proxy::with(&options), Origin::echo());
    let work = |index: usize| {
        for round in 0..10 {
            let mut tunnel: TcpStream = login(&proxy, &format!("u{index}")).connected(echo.address);
            exchange(&mut tunnel, 1000 * index + round);
            half_close(&tunnel);
            assert_eq!(read_to_end(&mut tunnel), b"");
        }
    };
    thread::scope(|scope| {
        for index in 0..4 {
            let work = &work;
            scope.spawn(move || work(index));
        }
    });
    proxy.wait_until_idle();
    let mut admin = proxy.admin();
    let mut sum = [0; 4];
    for index in 0..4 {
        let used = usage(&mut admin, &format!("u{index}"));
        let bytes = 10_000 * index as u64 + 45;
        assert_eq!(used, [0, 10, bytes, bytes]);
        used.iter().zip(&mut sum).for_each(|(used, sum)| *sum += used);
    }
    assert_eq!([admin.figure("BYTES_UP"), admin.figure("BYTES_DOWN")], [sum[2], sum[3]]);
    assert_eq!(admin.metrics(), [sum[1], 0, sum[2] + sum[3]]);
}
