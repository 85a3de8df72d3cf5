//! METP/1.1: many connections, many administrators, and none of them reads. Answers and events are made as
//! they are taken (`protocol_metp.txt` §3.2, §5.18): what is not taken costs little, and no tunnel waits for it.

use std::net::TcpStream;
use std::time::Duration;

use support::descriptors::Descriptors;
use support::metp::{Metp, value};
use support::origin::Origin;
use support::proxy::{Builder, Proxy};
use support::socks::{Client, credentials, reset};
use support::{eventually, exchange};

const OK: &str = "200 OK";
const CONNECTIONS: usize = 400;
const READERS: usize = 24;
const SECOND: Duration = Duration::from_secs(1);

/// A proxy with an account of a long name, and [`CONNECTIONS`] connections of it.
fn crowded() -> (Proxy, Vec<Client>) {
    let name = "n".repeat(255);
    let login = format!("{name}:pw");
    let proxy = Builder::default().args(["-u", &login, "--handshake-timeout", "0"]).start();
    let client = || Client::new(proxy.socks()).logged_in(&name, "pw");
    let clients = (0..CONNECTIONS).map(|_| client()).collect();
    (proxy, clients)
}

/// Sends bytes to and fro. How long the proxy worked, not the rest of the machine, at the slowest of these
/// exchanges.
fn slowest(proxy: &Proxy, tunnel: &mut TcpStream, rounds: usize) -> Duration {
    let once = |_| {
        let before = proxy.cpu_time();
        exchange(tunnel, 100);
        proxy.cpu_time() - before
    };
    (0..rounds).map(once).max().unwrap_or_default()
}

/// The lists that are asked for are more than 100 MB together.
#[test]
fn lists_that_nobody_reads_are_not_made() {
    const LISTS: usize = 40;
    let Some(_descriptors) = Descriptors::keep(4096, "a list of 400 connections") else { return };
    let (proxy, clients) = crowded();
    let mut tunnel = proxy.tunnel(Origin::echo().address);
    let mut witness = proxy.admin();
    assert_eq!(witness.ask("CONNECTIONS").len(), CONNECTIONS + 1);
    let mut readers: Vec<Metp> = (0..READERS).map(|_| proxy.admin()).collect();
    let before = proxy.status_kib("VmRSS");
    for reader in &mut readers {
        reader.say(&"CONNECTIONS\n".repeat(LISTS));
    }
    let slowest = slowest(&proxy, &mut tunnel, 200);
    assert!(slowest < SECOND, "a tunnel waited for {slowest:?}");
    // The whole list comes to one who reads while the others wait.
    assert_eq!(witness.ask("CONNECTIONS").len(), CONNECTIONS + 1);
    let grown = proxy.status_kib("VmRSS").saturating_sub(before);
    // 64 KiB and a piece may be unsent of each, in a place that doubles.
    let most = READERS as u64 * 160 + 1024;
    let whole = (CONNECTIONS * 360 * LISTS * READERS / 1024) as u64;
    assert!(grown < most && most < whole / 10, "{grown} KiB more; all of it is {whole}");
    // Half of the connections leave while the lists are made.
    drop(clients.into_iter().take(CONNECTIONS / 2).collect::<Vec<_>>());
    for reader in &mut readers {
        for _ in 0..LISTS {
            assert_eq!(reader.line(), "200 OK");
            let body = reader.body();
            assert!(body.len() <= CONNECTIONS + 1);
            let mut ids: Vec<&str> = body.iter().map(|line| value(line, "id")).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), body.len(), "one is listed twice");
        }
    }
    // All of the lists has gone through the server. How much of its heap the allocator gives back to the system is not
    // the server's affair, but it is no more than was needed at once.
    let grown = proxy.status_kib("VmRSS").saturating_sub(before);
    assert!(grown < most, "{grown} KiB are kept");
}

/// An event is kept once for all subscribers, and of what they do not read each costs what may be unsent.
#[test]
fn events_are_kept_once_for_all() {
    const EVENTS: usize = 6000;
    let proxy = Proxy::start();
    let mut tunnel = proxy.tunnel(Origin::echo().address);
    let guess = [&[5, 1, 2][..], &credentials(&[1; 255], b"no")].concat();
    let subscribe = |_| {
        let mut reader = proxy.admin();
        assert_eq!(reader.command("SUBSCRIBE auth"), "200 OK");
        reader
    };
    let mut readers: Vec<Metp> = (0..READERS).map(subscribe).collect();
    // Each is told of those who logged in after it.
    for (index, reader) in readers.iter_mut().enumerate() {
        (index + 1..READERS).for_each(|_| drop(reader.line()));
    }
    let before = proxy.status_kib("VmRSS");
    let mut slow = Duration::ZERO;
    for _ in 0..EVENTS / 100 {
        for _ in 0..100 {
            let mut client = Client::new(proxy.socks());
            client.say(&guess).hears(&[5, 2, 1, 1]);
            reset(client.stream);
        }
        slow = slow.max(slowest(&proxy, &mut tunnel, 2));
    }
    assert!(slow < SECOND, "a tunnel waited for {slow:?}");
    let grown = proxy.status_kib("VmRSS").saturating_sub(before);
    // 4096 events of some 320 octets, and what may be unsent of each.
    assert!(grown < 4096 + READERS as u64 * 160, "{grown} KiB more");
    for reader in &mut readers {
        let (mut told, mut lost) = (0, 0);
        while told + lost < EVENTS {
            let line = reader.line();
            match line.strip_prefix("650 lost count=") {
                Some(count) => lost += count.parse::<usize>().expect("a number"),
                None => {
                    assert!(line.starts_with("650 auth ") && line.ends_with(" result=failed"));
                    told += 1;
                }
            }
        }
        assert_eq!(told + lost, EVENTS);
    }
    readers.truncate(1);
    let mut admin = proxy.admin();
    eventually("one is left", || admin.info("subscribers") == "1");
}

/// What is long is made as it is read: a reader who does not read costs one piece.
#[test]
fn a_long_list_waits_for_its_reader_and_nobody_for_it() {
    let Some(_descriptors) = Descriptors::keep(2048, "a list of 300 connections") else { return };
    let (proxy, echo) = (Proxy::with(&["--handshake-timeout", "0"]), Origin::echo());
    let mut tunnel = proxy.tunnel(echo.address);
    let many: Vec<TcpStream> = (0..300).map(|_| proxy.socks()).collect();
    let mut admin = proxy.admin();
    eventually("they are admitted", || admin.metrics()[1] == 301);
    let before = proxy.status_kib("VmRSS");
    let mut stuck = proxy.admin();
    // 200 lists of 300 lines: some 8 MiB, which nobody reads yet.
    stuck.say(&"CONNECTIONS\n".repeat(200));
    for _ in 0..50 {
        exchange(&mut tunnel, 100);
    }
    assert_eq!(admin.command("PING"), "200 PONG");
    let grown = proxy.status_kib("VmRSS").saturating_sub(before);
    assert!(grown < 1024, "{grown} KiB for answers that nobody reads");
    for _ in 0..200 {
        assert_eq!(stuck.line(), OK);
        assert_eq!(stuck.body().len(), 301);
    }
    drop(many);
}
