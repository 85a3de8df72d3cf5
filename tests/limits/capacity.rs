//! Many, full and fast: back-pressure, fairness, nothing left behind.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use socket2::SockRef;
use support::descriptors::Descriptors;
use support::origin::{Origin, closed_port, listen};
use support::proxy::Proxy;
use support::socks::{Client, HELLO, connect_request, credentials, half_close, reset};
use support::{eventually, noise, read_exactly, read_to_end};

use super::clients::tunnel_to;

const MIB: usize = 1 << 20;

/// 50 stopped readers behind fast senders: the senders stall, the proxy holds one buffer for each, and
/// when the readers go on everything is there.
#[test]
fn stopped_readers_stall_their_senders_and_cost_one_buffer_each() {
    const READERS: usize = 50;
    const EACH: usize = 8 * MIB;
    let proxy = Proxy::start();
    let payload = Arc::new(noise(EACH, 11));
    let sent = Arc::new(AtomicUsize::new(0));
    let (source, counter) = (Arc::clone(&payload), Arc::clone(&sent));
    let origin = Origin::new(move |mut stream| {
        SockRef::from(&stream).set_send_buffer_size(64 * 1024).expect("a socket");
        for chunk in source.chunks(65536) {
            if stream.write_all(chunk).is_err() {
                return;
            }
            counter.fetch_add(chunk.len(), Ordering::Relaxed);
        }
    });
    let before = proxy.status_kib("VmRSS");
    let readers: Vec<TcpStream> = (0..READERS).map(|_| proxy.tunnel(origin.address)).collect();
    let mut last = usize::MAX;
    eventually("the senders stall", || {
        let now = proxy.metrics()[2] as usize;
        let stalled = now > 0 && now == last;
        last = now;
        thread::sleep(Duration::from_millis(50));
        stalled
    });
    assert!(sent.load(Ordering::Relaxed) < READERS * EACH, "nothing held the senders back");
    let grown = proxy.status_kib("VmRSS").saturating_sub(before);
    // 50 buffers of 64 KiB are 3200 KiB; the rest is sessions and the allocator.
    assert!(grown < 3200 + 4096, "{grown} KiB for {READERS} stopped readers");
    let reading: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            let payload = Arc::clone(&payload);
            thread::spawn(move || assert!(read_to_end(&mut reader) == *payload, "intact"))
        })
        .collect();
    for reader in reading {
        reader.join().expect("intact");
    }
    proxy.wait_until_idle();
    assert_eq!(proxy.metrics(), [READERS as u64, 0, (READERS * EACH) as u64]);
}

/// While eight tunnels are as busy as they can be, a ninth gets its echo, and none of them is left out. With
/// small buffers the proxy is the slowest of all, so that no lane ever has to wait for its peers.
#[test]
fn busy_tunnels_leave_time_to_others() {
    let proxy = Proxy::with(&["--buffer-size", "512"]);
    let (echo, running) = (Origin::echo(), Arc::new(AtomicBool::new(true)));
    let flag = Arc::clone(&running);
    let endless = Origin::new(move |mut stream| {
        let bytes = vec![b'x'; 256 * 1024];
        while flag.load(Ordering::Relaxed) && stream.write_all(&bytes).is_ok() {}
    });
    let bulk: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = proxy.tunnel(endless.address);
            let read = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&read);
            let drain = move || {
                let mut bytes = vec![0; 256 * 1024];
                while let Ok(more @ 1..) = stream.read(&mut bytes) {
                    count.fetch_add(more, Ordering::Relaxed);
                }
            };
            (read, thread::spawn(drain))
        })
        .collect();
    let progress = || bulk.iter().map(|(read, _)| read.load(Ordering::Relaxed)).collect::<Vec<_>>();
    eventually("all are busy", || progress().iter().all(|read| *read > 65536));
    let before = progress();
    let mut tunnel = proxy.tunnel(echo.address);
    for number in 0..50_u64 {
        tunnel.write_all(&number.to_be_bytes()).expect("taken");
        assert_eq!(read_exactly(&mut tunnel, 8), number.to_be_bytes());
    }
    eventually("every one of them goes on", || {
        progress().iter().zip(&before).all(|(now, before)| now > before)
    });
    running.store(false, Ordering::Relaxed);
    for (_, drain) in bulk {
        drain.join().expect("ended");
    }
}

/// METP section CHANGE-BUFFER: acts on open tunnels without losing or reordering a byte, 1 included.
#[test]
fn the_buffer_size_changes_under_open_tunnels() {
    const PHASES: [(usize, usize); 9] = [
        (65536, 200_000),
        (1, 3_000),
        (17, 100_000),
        (4096, MIB),
        (65536, MIB),
        (1_048_576, 2 * MIB),
        (1, 3_000),
        (17, 50_000),
        (1_048_576, MIB),
    ];
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let total: usize = PHASES.iter().map(|phase| phase.1).sum();
    let payload = Arc::new(noise(total, 12));
    let mut tunnel = proxy.tunnel(echo.address);
    let mut writer = tunnel.try_clone().expect("a descriptor");
    let source = Arc::clone(&payload);
    let (more, amounts) = mpsc::channel::<usize>();
    let sender = thread::spawn(move || {
        let mut rest = &source[..];
        for amount in amounts {
            let (head, tail) = rest.split_at(amount);
            writer.write_all(head).expect("taken");
            rest = tail;
        }
        half_close(&writer);
    });
    let received = Arc::new(AtomicUsize::new(0));
    let (expected, count) = (Arc::clone(&payload), Arc::clone(&received));
    let reader = thread::spawn(move || {
        let mut bytes = vec![0; 65536];
        let mut position = 0;
        while let Ok(read @ 1..) = tunnel.read(&mut bytes) {
            assert!(bytes[..read] == expected[position..position + read], "at {position}");
            position += read;
            count.store(position, Ordering::Relaxed);
        }
        assert_eq!(position, expected.len());
    });
    let mut admin = proxy.admin();
    let mut given = 0;
    for (size, amount) in PHASES {
        assert_eq!(admin.command(&format!("CHANGE-BUFFER {size}")), "200 OK");
        more.send(amount).expect("the sender lives");
        // The next change comes while half of this is still on its way.
        let half = given + amount / 2;
        eventually("half of it has arrived", || received.load(Ordering::Relaxed) >= half);
        given += amount;
    }
    drop(more);
    sender.join().expect("sent");
    reader.join().expect("intact");
    proxy.wait_until_idle();
    assert_eq!(admin.metrics()[2], 2 * total as u64);
}

/// The size is not only stored: what moves a byte at a time costs the process more.
#[test]
fn a_new_buffer_size_acts_on_an_open_tunnel() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let (mut tunnel, mut admin) = (proxy.tunnel(echo.address), proxy.admin());
    let sent = noise(50_000, 13);
    let mut cost_with = |size: usize| {
        assert_eq!(admin.command(&format!("CHANGE-BUFFER {size}")), "200 OK");
        let before = proxy.cpu_time();
        tunnel.write_all(&sent).expect("taken");
        assert!(read_exactly(&mut tunnel, sent.len()) == sent);
        proxy.cpu_time() - before
    };
    let [large, tiny, large_again] = [65536, 1, 65536].map(&mut cost_with);
    assert!(tiny > 2 * (large + large_again), "{large:?}, {tiny:?}, {large_again:?}");
}

/// Every way to end, a hundred times each, and nothing is left: no descriptor, no connection, no memory.
#[test]
fn nothing_is_left_after_any_ending() {
    let proxy = Proxy::start();
    let listener = listen([127, 0, 0, 1].into()).expect("loopback");
    let (_held, closed) = closed_port();
    let start = proxy.descriptors();
    let timeouts = |seconds: f64| {
        let mut admin = proxy.admin();
        for name in ["handshake-timeout", "linger-timeout"] {
            admin.set(name, seconds);
        }
    };
    let round = || {
        timeouts(60.0);
        let mut late = Vec::new();
        for number in 0..100 {
            let (mut client, mut server) = tunnel_to(&proxy, &listener);
            client.write_all(b"some payload").expect("taken");
            match number % 5 {
                0 => {
                    half_close(&client);
                    assert_eq!(read_to_end(&mut server), b"some payload");
                }
                1 => reset(client),
                2 => reset(server),
                3 => drop(server),
                _ => drop(client),
            }
            proxy.client().say(&connect_request(closed)).refused(5);
            proxy.client().say(b"\x05\x09\x00\x01\x7f\x00\x00\x01\x00\x50").refused(7);
            let mut wrong = Client::new(proxy.socks());
            wrong.say(HELLO).hears(b"\x05\x02");
            wrong.say(&credentials(b"admin", b"wrong")).hears(b"\x01\x01");
            reset(Client::new(proxy.socks()).logged_in("admin", "1234").stream);
            // They stay: one says nothing, one half a greeting, one does not close after its refusal.
            late.push(proxy.socks());
            let mut dripping = Client::new(proxy.socks());
            dripping.say(b"\x05");
            late.push(dripping.stream);
            let mut staying = proxy.client();
            staying.say(&connect_request(closed)).reply();
            late.push(staying.stream);
        }
        timeouts(0.2);
        eventually("all is closed", || proxy.descriptors() == start);
        proxy.wait_until_idle();
    };
    round();
    let memory = proxy.status_kib("VmRSS");
    round();
    let grown = proxy.status_kib("VmRSS").saturating_sub(memory);
    assert!(grown < 512, "{grown} KiB more after the same again");
}

/// Thousands at once, each of which works: no select() limit, on neither side of the tunnel.
#[test]
fn thousands_of_tunnels_at_once() {
    let limit = socks5d::process::raise_descriptor_limit().expect("a limit");
    let count = usize::try_from(limit.saturating_sub(600) / 2).map_or(3000, |most| most.min(3000));
    let both_ends = (2 * count as u64 + 600).max(1800);
    let Some(_descriptors) = Descriptors::keep(both_ends, "thousands of tunnels at once") else {
        return;
    };
    let proxy = Proxy::start();
    let listener = listen([127, 0, 0, 1].into()).expect("loopback");
    let before = proxy.descriptors();
    let mut ends: Vec<_> = (0..count).map(|_| tunnel_to(&proxy, &listener)).collect();
    assert_eq!(proxy.metrics()[1], count as u64);
    assert!(proxy.descriptors() >= before + 2 * count);
    for (number, (client, _)) in ends.iter_mut().enumerate() {
        client.write_all(&number.to_be_bytes()).expect("taken");
    }
    for (_, server) in &mut ends {
        let bytes = read_exactly(server, 8);
        server.write_all(&bytes).expect("taken");
    }
    for (number, (client, _)) in ends.iter_mut().enumerate() {
        assert_eq!(read_exactly(client, 8), number.to_be_bytes());
    }
    drop(ends);
    proxy.wait_until_idle();
    assert_eq!(proxy.metrics(), [count as u64, 0, 16 * count as u64]);
}
