//! Limits of accounts: what is refused and ended (METP section 5.26).

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;

use support::metp::{Metp, value};
use support::origin::{Origin, closed_port};
use support::proxy::{Builder, Proxy, connect_from};
use support::socks::{Client, DENIED, WELCOME, connect_request, half_close, name_request, reset};
use support::udp::{Association, associate_request};
use support::{eventually, exchange, noise, read_to_reset};

use super::{UsersFile, login};

/// RFC 1928 section 6: connection not allowed by ruleset.
const NOT_ALLOWED: u8 = 2;

fn client(proxy: &Proxy, name: &str) -> Client {
    Client::new(proxy.socks()).logged_in(name, "pw")
}

/// The reason of the next request of this account that ends with this reply.
fn reason(proxy: &Proxy, name: &str, reply: u8) -> String {
    let line = proxy.stdout.wait_for(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        fields.get(1) == Some(&name) && fields.get(7) == Some(&&*reply.to_string())
    });
    line.rsplit('\t').next().expect("a field").to_owned()
}

/// Reads what is left until the connection is reset.
fn cut(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let error = stream.read_to_end(&mut rest).expect_err("no orderly end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn requests_beyond_a_limit_are_refused_with_a_reason() {
    let file = UsersFile::new(
        "*::conns=1\nalice:=pw\nbob:=pw:conns=none sources=0\ncarol:=pw:conns=none quota=0/day\n\
         dave:=pw:expires=2020-02-29\nerin:=pw:conns=0\nfay:=pw:conns=none\n",
    );
    let (proxy, echo) = (file.proxy(), Origin::echo());
    let mut open = client(&proxy, "alice").connected(echo.address);
    for (name, word) in [
        ("alice", "limit-connections"),
        ("bob", "limit-sources"),
        ("carol", "limit-quota"),
        ("dave", "expired"),
        ("erin", "limit-connections"),
    ] {
        // The login is good (RFC 1929 section 2).
        assert_eq!(login(&proxy, name, "pw"), WELCOME, "{name}");
        for request in [
            connect_request(echo.address),
            name_request(b"no-such-name.invalid", 80),
            associate_request("0.0.0.0:0".parse().expect("an address")),
        ] {
            let mut client = client(&proxy, name);
            client.say(&request);
            client.refused(NOT_ALLOWED);
            client.hears_eof();
        }
        assert_eq!(reason(&proxy, name, NOT_ALLOWED), word, "{name}");
    }
    exchange(&mut open, 1000);
    drop(client(&proxy, "fay").connected(echo.address));
    // Who is refused has not failed to log in.
    assert!(proxy.stderr.all().iter().all(|line| !line.contains("auth failed")));
    let metrics = proxy.admin().ask("GET_METRICS ALL");
    assert!(metrics.contains(&"REPLY_2: 15".to_owned()), "{metrics:?}");
    drop(open);
    eventually("its place is free", || {
        let mut again = client(&proxy, "alice");
        again.say(&connect_request(echo.address));
        again.reply().0 == 0
    });
}

#[test]
fn limits_are_set_and_lifted_while_it_runs() {
    let file = UsersFile::new("# staff\nalice:=pw:role=user\n\nbob:=pw\n");
    let (proxy, echo) = (file.proxy(), Origin::echo());
    let mut admin = proxy.admin();
    let mut first = client(&proxy, "alice").connected(echo.address);
    for (command, text) in [
        ("SET-LIMIT alice conns=1", "alice:=pw:role=user conns=1\n"),
        ("SET-LIMIT alice sources=2 conns=0", "alice:=pw:role=user conns=0 sources=2\n"),
        ("SET-LIMIT alice conns= sources=", "alice:=pw:role=user\n"),
        ("SET-LIMIT alice conns=0", "alice:=pw:role=user conns=0\n"),
    ] {
        assert_eq!(admin.command(command), "200 OK", "{command}");
        assert_eq!(file.text(), format!("# staff\n{text}\nbob:=pw\n"));
    }
    client(&proxy, "alice").say(&connect_request(echo.address)).refused(NOT_ALLOWED);
    // Nobody is cut by a lower limit.
    exchange(&mut first, 1000);
    assert_eq!(admin.command("SET-LIMIT * conns=0"), "200 OK");
    assert!(file.text().ends_with("bob:=pw\n*::conns=0\n"), "{}", file.text());
    client(&proxy, "bob").say(&connect_request(echo.address)).refused(NOT_ALLOWED);
    // Limits never lock METP, and what is no limit changes nothing.
    assert_eq!(proxy.admin().command("PING"), "200 PONG");
    let before = file.text();
    for (command, answer) in [
        ("SET-LIMIT bob conns=5 rate=7", "400 Bad Request [RANGE] rate takes none or "),
        ("SET-LIMIT bob conns=5 cons=7", "404 Not Found [NOKEY] no such limit"),
        ("SET-LIMIT nobody conns=5", "404 Not Found [NOUSER] no such user"),
        ("SET-LIMIT - conns=5", "404 Not Found [NOUSER] no such user"),
        ("SET-LIMIT bob", "400 Bad Request [SYNTAX] wrong arguments"),
    ] {
        assert!(admin.command(command).starts_with(answer), "{command}");
    }
    assert_eq!(file.text(), before);
    assert_eq!(admin.command("SET-LIMIT * conns="), "200 OK");
    assert_eq!(admin.command("SET-LIMIT alice conns="), "200 OK");
    for name in ["alice", "bob"] {
        drop(client(&proxy, name).connected(echo.address));
    }
    // Edited by hand, and read again.
    fs::write(&file.path, "alice:=pw:conns=0\n*::expires=2020-01-01\nbob:=pw\n").expect("written");
    let told = "200 OK accounts=2 added=0 deleted=0 changed=1 settings=0";
    assert_eq!(admin.command("RELOAD"), told);
    cut(&mut first);
    client(&proxy, "bob").say(&connect_request(echo.address)).refused(NOT_ALLOWED);
    fs::write(&file.path, "alice:=pw:cons=0\nbob:=pw\n").expect("written");
    assert!(
        admin
            .command("RELOAD")
            .starts_with("409 Conflict [INVALID] users: line 1: unknown key \"cons\"")
    );
}

#[test]
fn a_quota_ends_tunnels_and_associations() {
    let file = UsersFile::new("alice:=pw:quota=10kB/month\nbob:=pw\n");
    let (proxy, echo) = (file.proxy(), Origin::echo());
    let mut other = client(&proxy, "bob").connected(echo.address);
    let mut idle = client(&proxy, "alice").connected(echo.address);
    let association = Association::of(client(&proxy, "alice"));
    let mut tunnel = client(&proxy, "alice").connected(echo.address);
    exchange(&mut tunnel, 4000);
    let mut admin = proxy.admin();
    let usage = admin.ask("USER-METRICS alice")[0].clone();
    assert!(usage.contains(" quota=10kB/month quota-used=8000 "), "{usage}");
    std::io::Write::write_all(&mut tunnel, &[7; 4000]).expect("room");
    for stream in [&mut tunnel, &mut idle] {
        cut(stream);
    }
    assert_eq!(reason(&proxy, "alice", 0), "limit-quota");
    eventually("all have ended", || proxy.admin().ask("CONNECTIONS USER alice").is_empty());
    drop(association);
    client(&proxy, "alice").say(&connect_request(echo.address)).refused(NOT_ALLOWED);
    // A higher quota leaves the difference.
    assert_eq!(admin.command("SET-LIMIT alice quota=1MB/month"), "200 OK");
    let mut again = client(&proxy, "alice").connected(echo.address);
    exchange(&mut again, 1000);
    assert_eq!(admin.command("SET-LIMIT alice quota=1kB/total"), "200 OK");
    cut(&mut again);
    assert_eq!(admin.command("RESET-USAGE alice"), "200 OK");
    let usage = admin.ask("USER-METRICS alice")[0].clone();
    assert!(usage.contains(" total=0 up=0 down=0 ") && usage.contains(" quota-used=0 "), "{usage}");
    exchange(&mut client(&proxy, "alice").connected(echo.address), 100);
    exchange(&mut other, 1000);
}

/// An account may be used from these networks alone; elsewhere its password is as good as a wrong one.
#[test]
fn a_login_from_elsewhere_fails_like_a_wrong_password() {
    let file = UsersFile::new("alice:=pw:from=127.0.0.2,::1 role=admin\n");
    let proxy = file.proxy();
    let from = |source: [u8; 4], password| {
        let stream = connect_from(IpAddr::from(source), proxy.socks_address());
        let mut client = Client::new(stream);
        client.say(support::socks::HELLO).hears(b"\x05\x02");
        client.say(&support::socks::credentials(b"alice", password));
        super::status(&mut client)
    };
    assert_eq!(from([127, 0, 0, 2], b"pw"), WELCOME);
    assert_eq!(from([127, 0, 0, 1], b"pw"), DENIED);
    assert_eq!(from([127, 0, 0, 1], b"no"), DENIED);
    assert_eq!(from([127, 0, 0, 3], b"pw"), DENIED);
    proxy.stderr.wait_for(|line| line.contains("auth failed: service=socks remote=127.0.0.3"));
    // METP is never locked by a limit.
    assert_eq!(proxy.metp().logged_in("alice", "pw").command("PING"), "200 PONG");
}

/// Counters that were set back and quotas that were used stay so over a restart.
#[test]
fn quotas_outlive_the_server() {
    let file = UsersFile::new("alice:=pw:quota=1MB/day\nbob:=pw:quota=1MB/total\n");
    let state = file.directory.path().join("state");
    let start = || -> Proxy {
        let arguments =
            ["--users".into(), file.path.clone(), PathBuf::from("--state"), state.clone()];
        Builder::default().args(arguments).start()
    };
    let echo = Origin::echo();
    let used = |proxy: &Proxy, name: &str| {
        let line = proxy.admin().ask(&format!("USER-METRICS {name}"))[0].clone();
        support::metp::value(&line, "quota-used").to_owned()
    };
    let mut proxy = start();
    let mut tunnels: Vec<TcpStream> = ["alice", "bob"]
        .into_iter()
        .map(|name| {
            let mut tunnel = client(&proxy, name).connected(echo.address);
            exchange(&mut tunnel, 500);
            assert_eq!(used(&proxy, name), "1000");
            tunnel
        })
        .collect();
    assert_eq!(proxy.admin().command("RESET-USAGE bob"), "200 OK");
    // It was on the disk before the answer.
    proxy.signal(libc::SIGKILL);
    proxy.wait();
    let mut proxy = start();
    assert_eq!((used(&proxy, "alice"), used(&proxy, "bob")), ("1000".to_owned(), "0".to_owned()));
    // Tunnels that are open are counted from there on, although nobody logs in any more.
    tunnels.clear();
    for name in ["alice", "bob"] {
        tunnels.push(client(&proxy, name).connected(echo.address));
        assert_eq!(proxy.admin().command(&format!("RESET-USAGE {name}")), "200 OK");
    }
    for tunnel in &mut tunnels {
        exchange(tunnel, 350);
    }
    assert_eq!((used(&proxy, "alice"), used(&proxy, "bob")), ("700".to_owned(), "700".to_owned()));
    proxy.signal(libc::SIGTERM);
    drop(tunnels);
    proxy.wait();
    let proxy = start();
    for name in ["alice", "bob"] {
        let line = proxy.admin().ask(&format!("USER-METRICS {name}"))[0].clone();
        let figures = ["total", "up", "down", "quota-used"].map(|key| value(&line, key).to_owned());
        assert_eq!(figures, ["0", "350", "350", "700"], "{line}");
    }
}

/// A rate slows down, loses nothing, and concerns nobody else; what waits goes on when it is lifted.
#[test]
fn a_rate_slows_down_and_is_lifted() {
    let file = UsersFile::new("alice:=pw:rate=2Mbit\nbob:=pw\n");
    let (proxy, echo) = (file.proxy(), Origin::echo());
    let mut slow = client(&proxy, "alice").connected(echo.address);
    // More than the burst of 64 KiB, there and back.
    exchange(&mut slow, 200_000);
    let mut admin = proxy.admin();
    assert_eq!(admin.command("SET-LIMIT alice rate=1kbit"), "200 OK");
    // 1,000,000 bytes would take hours now.
    let mut second = client(&proxy, "alice").connected(echo.address);
    let mut writers: Vec<_> = [&slow, &second]
        .into_iter()
        .map(|stream| {
            let mut stream = stream.try_clone().expect("a descriptor");
            std::thread::spawn(move || {
                let bytes: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8).collect();
                std::io::Write::write_all(&mut stream, &bytes).expect("room");
            })
        })
        .collect();
    let mut other = client(&proxy, "bob").connected(echo.address);
    for _ in 0..10 {
        exchange(&mut other, 10_000);
    }
    assert_eq!(proxy.admin().ask("CONNECTIONS USER alice").len(), 2);
    // Changed, and lifted.
    assert_eq!(admin.command("SET-LIMIT alice rate=2kbit"), "200 OK");
    assert_eq!(admin.command("SET-LIMIT alice rate="), "200 OK");
    for stream in [&mut slow, &mut second] {
        let mut back = vec![0; 1_000_000];
        stream.read_exact(&mut back).expect("all of it");
        assert!(back.iter().enumerate().all(|(at, byte)| *byte == at as u8), "other bytes");
    }
    for writer in writers.drain(..) {
        writer.join().expect("written");
    }
}

/// Tunnels that wait for their account end like others.
#[test]
fn tunnels_that_wait_can_be_ended() {
    let file = UsersFile::new("alice:=pw:rate=1kbit\n");
    let (proxy, echo) = (file.proxy(), Origin::echo());
    let mut tunnels: Vec<TcpStream> = (0..10)
        .map(|_| {
            let mut tunnel = client(&proxy, "alice").connected(echo.address);
            std::io::Write::write_all(&mut tunnel, &[7; 100_000]).expect("room");
            tunnel
        })
        .collect();
    let mut admin = proxy.admin();
    // What this one has sent is still on its way.
    support::socks::reset(tunnels.pop().expect("ten"));
    assert_eq!(admin.command("KILL USER alice"), "200 OK killed=10");
    for tunnel in &mut tunnels {
        cut(tunnel);
    }
    assert_eq!(admin.command("DELETE-USER alice"), "200 OK");
    proxy.wait_until_idle();
}

/// Datagrams count for the rate of both directions.
#[test]
fn a_rate_holds_for_datagrams() {
    let file = UsersFile::new("alice:=pw:rate=1kbit\n");
    let proxy = file.proxy();
    let association = Association::of(client(&proxy, "alice"));
    let target = support::udp::socket();
    let address = target.local_addr().expect("bound");
    // The burst of 64 KiB, and one batch at most, which is paid for afterwards.
    association.reaches(&target, &[0; 1000]);
    for _ in 0..200 {
        association.send(address, &[1; 1000]);
    }
    let mut admin = proxy.admin();
    assert_eq!(admin.command("SET-LIMIT alice rate="), "200 OK");
    loop {
        // The kernel's buffer may be full.
        association.send(address, b"last");
        let (payload, _) = support::udp::received(&target);
        if payload == b"last" {
            break;
        }
        assert!(payload == [1; 1000]);
    }
}

/// Without a users file limits live as long as the server.
#[test]
fn accounts_in_memory_have_limits_too() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let mut admin = proxy.admin();
    assert_eq!(admin.command("SET-LIMIT admin conns=0"), "200 OK");
    let mut refused = proxy.client();
    refused.say(&connect_request(echo.address));
    refused.refused(NOT_ALLOWED);
    assert_eq!(admin.command("SET-LIMIT admin conns="), "200 OK");
    assert_eq!(admin.command("SET-LIMIT * expires=2020-01-01"), "200 OK");
    let mut refused = proxy.client();
    refused.say(&connect_request(echo.address));
    refused.refused(NOT_ALLOWED);
    assert_eq!(admin.command("SET-LIMIT admin expires=none"), "200 OK");
    exchange(&mut proxy.tunnel(echo.address), 100);
}

/// Trap 15: a quota that is reached in the midst of a bulk transfer is exceeded by a budget of each lane at most (256 KiB),
/// with splice(2) and without, and bytes in a pipe are counted once.
#[test]
fn a_bulk_transfer_exceeds_its_quota_by_a_budget_at_most() {
    const QUOTA: u64 = 3_000_000;
    const BUDGET: u64 = 256 * 1024;
    let body = noise(8_000_000, 15);
    let origin = Origin::http(body.clone());
    for size in ["65536", "16384"] {
        let file = UsersFile::new(&format!("alice:=pw:quota={QUOTA}B/total\n"));
        let proxy = file.builder().args(["--buffer-size", size]).start();
        let mut tunnels: Vec<TcpStream> =
            (0..2).map(|_| client(&proxy, "alice").connected(origin.address)).collect();
        for tunnel in &mut tunnels {
            tunnel.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("taken");
        }
        let mut received = 0;
        for tunnel in &mut tunnels {
            let bytes = read_to_reset(tunnel);
            // What has come is the beginning of what was sent.
            let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
            assert!(body.starts_with(&bytes[head..]), "{size}: {} bytes", bytes.len());
            received += bytes.len() as u64;
        }
        let usage = proxy.admin().ask("USER-METRICS alice")[0].clone();
        let number = |key| value(&usage, key).parse::<u64>().expect("a number");
        assert_eq!(number("quota-used"), number("up") + number("down"));
        assert!((QUOTA..=QUOTA + 2 * BUDGET).contains(&number("quota-used")), "{size}: {usage}");
        // A reset may destroy what the client has not read.
        assert!(received <= number("down"), "{size}: {received}, {usage}");
    }
}

/// Trap 18: however a request ends, its place is free afterwards.
#[test]
fn no_end_keeps_a_place() {
    let file = UsersFile::new("alice:=pw:conns=1 sources=1\n");
    let proxy = file.builder().args(["--idle-timeout", "0.2", "--bind-timeout", "0.2"]).start();
    let (echo, (_held, closed)) = (Origin::echo(), closed_port());
    let mut admin = proxy.admin();
    let request = |command: u8, target: SocketAddr| {
        let mut request = connect_request(target);
        request[1] = command;
        request
    };
    let ends: [&dyn Fn(&mut Metp); 7] = [
        &|_| drop(client(&proxy, "alice").connected(echo.address)),
        &|_| reset(client(&proxy, "alice").connected(echo.address)),
        // The idle timeout.
        &|_| cut(&mut client(&proxy, "alice").connected(echo.address)),
        &|admin| {
            let mut tunnel = client(&proxy, "alice").connected(echo.address);
            assert_eq!(admin.command("KILL USER alice"), "200 OK killed=1");
            cut(&mut tunnel);
        },
        &|_| client(&proxy, "alice").say(&connect_request(closed)).refused(5),
        // BIND, for a peer that does not come.
        &|_| {
            let mut client = client(&proxy, "alice");
            assert_eq!(client.say(&request(2, echo.address)).reply().0, 0);
            client.refused(6);
        },
        &|_| drop(Association::of(client(&proxy, "alice"))),
    ];
    for (number, end) in ends.iter().enumerate() {
        end(&mut admin);
        eventually(&format!("the place is free after end {number}"), || {
            let mut again = client(&proxy, "alice");
            let code = again.say(&connect_request(echo.address)).reply().0;
            if code == 0 {
                exchange(&mut again.stream, 10);
                half_close(&again.stream);
                again.hears_eof();
            }
            code == 0
        });
        let is_idle = |admin: &mut Metp| {
            let line = admin.ask("USER-METRICS alice").concat();
            value(&line, "connections") == "0"
        };
        eventually("nobody is there", || is_idle(&mut admin));
    }
}
