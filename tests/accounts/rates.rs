//! Rates of accounts: that no more passes than they allow. What passes is compared with the time that has really gone by,
//! so that a slow machine makes no difference.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::Instant;

use socks5d::reactor::tcp_state::unacknowledged;
use support::metp::{Metp, value};
use support::origin::{Origin, listen};
use support::proxy::Proxy;
use support::socks::{Client, connect_request, half_close};
use support::udp::Association;
use support::{PATIENCE, eventually, exchange, noise, read_exactly, read_to_reset};

use super::UsersFile;

/// 1 kbit/s, in bytes per second.
const RATE: u64 = 125;
/// What an account that has been silent may read at once, in bytes.
const BURST: u64 = 64 * 1024;
/// The least that a tunnel is given at once.
const LEAST_GRANT: u64 = 2896;

fn client(proxy: &Proxy, name: &str) -> Client {
    Client::new(proxy.socks()).logged_in(name, "pw")
}

/// Payload of an account in both directions.
fn relayed(admin: &mut Metp, name: &str) -> [u64; 2] {
    let line = admin.ask(&format!("USER-METRICS {name}")).concat();
    ["up", "down"].map(|key| value(&line, key).parse().expect("a number"))
}

/// No more has been relayed than the rate allows since then, and so many bytes beyond it.
fn check(admin: &mut Metp, since: Instant, extra: u64) {
    let relayed = relayed(admin, "alice");
    let earned = RATE * (since.elapsed().as_secs() + 1);
    for bytes in relayed {
        assert!(bytes <= earned + extra, "{bytes} bytes, {earned} + {extra} are allowed");
    }
}

#[test]
fn no_more_passes_than_the_burst_at_first() {
    let file = UsersFile::new("alice:=pw:rate=1kbit\nbob:=pw\n");
    let (proxy, echo) = (file.proxy(), Origin::echo());
    let (mut admin, since) = (proxy.admin(), Instant::now());
    let mut tunnels: Vec<_> =
        (0..2).map(|_| client(&proxy, "alice").connected(echo.address)).collect();
    let writers: Vec<_> = tunnels
        .iter()
        .map(|tunnel| {
            let mut tunnel = tunnel.try_clone().expect("a descriptor");
            // Until it is cut.
            std::thread::spawn(move || while tunnel.write_all(&[7; 10_000]).is_ok() {})
        })
        .collect();
    let all = BURST - LEAST_GRANT;
    eventually("the burst has passed", || relayed(&mut admin, "alice").iter().all(|of| *of > all));
    // What is sent with a request does not pass either.
    let early = [connect_request(echo.address), vec![7; 900]].concat();
    for _ in 0..30 {
        let mut client = client(&proxy, "alice");
        assert_eq!(client.say(&early).reply().0, 0);
        tunnels.push(client.stream);
    }
    // Everybody has had turns meanwhile.
    let mut other = client(&proxy, "bob").connected(echo.address);
    for _ in 0..20 {
        exchange(&mut other, 50_000);
    }
    check(&mut admin, since, BURST + LEAST_GRANT);
    // An end takes no time, and what could be delivered at once is: that of the requests.
    assert_eq!(admin.command("KILL USER alice"), "200 OK killed=32");
    for writer in writers {
        writer.join().expect("it ends");
    }
    check(&mut admin, since, BURST + LEAST_GRANT + 30 * 900);
}

#[test]
fn no_more_datagrams_pass_than_the_burst_at_first() {
    let file = UsersFile::new("alice:=pw:rate=1kbit\n");
    let proxy = file.proxy();
    let (mut admin, since) = (proxy.admin(), Instant::now());
    let association = Association::of(client(&proxy, "alice"));
    let target = support::udp::socket();
    let mapped = association.exchanges(&target, b"first");
    for _ in 0..50 {
        for _ in 0..20 {
            association.send(target.local_addr().expect("bound"), &[7; 1000]);
            target.send_to(&[7; 1000], mapped).expect("sent");
        }
        // The server has had a turn.
        assert_eq!(admin.command("PING"), "200 PONG");
    }
    let all = BURST - LEAST_GRANT;
    eventually("the burst has passed", || relayed(&mut admin, "alice").iter().all(|of| *of > all));
    // One message may be longer than what is left: 64 KiB.
    check(&mut admin, since, 2 * BURST);
}

/// The target has reset its connection, and the time that its peers have is over, while its bytes wait for the rate.
#[test]
fn what_waits_for_the_rate_outlives_the_timeouts() {
    let file = UsersFile::new("alice:=pw:rate=1kbit\nbob:=pw\n");
    let timeouts = ["--linger-timeout", "0.2", "--half-close-timeout", "0.2"];
    let proxy = file.builder().args(timeouts).start();
    let body = noise(100_000, 16);
    let (sent, (closed, is_closed)) = (body.clone(), mpsc::channel());
    let origin = Origin::new(move |mut stream| {
        stream.write_all(&sent).expect("room");
        eventually("all is at the proxy", || matches!(unacknowledged(stream.as_fd()), Ok(0)));
        // The client's bytes are there and unread: closing resets.
        assert!(stream.peek(&mut [0; 1]).is_ok_and(|count| count == 1));
        drop(stream);
        closed.send(()).expect("the test waits");
    });
    let mut tunnel = client(&proxy, "alice").connected(origin.address);
    tunnel.write_all(b"unread").expect("room");
    let begins = read_exactly(&mut tunnel, (BURST - LEAST_GRANT) as usize);
    is_closed.recv_timeout(PATIENCE).expect("closed");
    // One of which nothing is left but its time.
    let silent = listen(Ipv4Addr::LOCALHOST.into()).expect("loopback");
    let mut over = client(&proxy, "bob").connected(silent.local_addr().expect("bound"));
    half_close(&over);
    read_to_reset(&mut over);
    let mut admin = proxy.admin();
    assert_eq!(admin.ask("CONNECTIONS USER alice").len(), 1);
    assert_eq!(admin.command("SET-LIMIT alice rate=none"), "200 OK");
    assert!([begins, read_to_reset(&mut tunnel)].concat() == body);
}
