//! Memory is bounded, whatever the peers do, and goes back when they have gone.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};
use support::origin::{Origin, listen};
use support::proxy::Proxy;
use support::socks::{Client, HELLO, connect_request, credentials, reset};
use support::{PATIENCE, eventually, noise, read_exactly, read_to_end};

/// A socket that takes little before it is read. The segments are small because the kernel gives a sender
/// buffers by their size: megabytes on loopback, where the proxy would never be held up.
fn narrow() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(8192).expect("a socket");
    socket.set_tcp_mss(1400).expect("a socket");
    socket
}

/// A client that takes little before it is read, and its tunnel.
fn narrow_tunnel(proxy: &Proxy, target: SocketAddr) -> TcpStream {
    let socket = narrow();
    socket.connect(&proxy.socks_address().into()).expect("it listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    Client::new(stream).logged_in("admin", "1234").connected(target)
}

/// Reads to the end, faster from now on.
fn drain(mut stream: TcpStream) -> Vec<u8> {
    SockRef::from(&stream).set_recv_buffer_size(1 << 20).expect("a socket");
    read_to_end(&mut stream)
}

/// An origin that sends `payload` as fast as it can.
fn fast(payload: &Arc<Vec<u8>>) -> Origin {
    let payload = Arc::clone(payload);
    Origin::new(move |mut stream| {
        SockRef::from(&stream).set_send_buffer_size(65536).expect("a socket");
        // The reader may be gone.
        let _ = stream.write_all(&payload);
    })
}

/// Waits until no byte moves any more.
fn wait_until_stalled(proxy: &Proxy) {
    let mut admin = proxy.admin();
    let mut last = u64::MAX;
    eventually("nothing moves", || {
        let now = admin.metrics()[2];
        let stalled = now > 0 && now == last;
        last = now;
        thread::sleep(Duration::from_millis(100));
        stalled
    });
}

/// 50 slow readers behind a fast origin: at no time does the proxy hold more than a buffer for each.
#[test]
fn slow_readers_do_not_grow_it() {
    const READERS: usize = 50;
    let proxy = Proxy::start();
    let payload = Arc::new(noise(4 << 20, 41));
    let origin = fast(&payload);
    let before = proxy.status_kib("VmHWM");
    let mut readers: Vec<TcpStream> =
        (0..READERS).map(|_| narrow_tunnel(&proxy, origin.address)).collect();
    let began = Instant::now();
    let mut position = 0;
    while began.elapsed() < Duration::from_secs(1) {
        for reader in &mut readers {
            assert!(read_exactly(reader, 1000) == payload[position..position + 1000], "intact");
        }
        position += 1000;
    }
    let grown = proxy.status_kib("VmHWM").saturating_sub(before);
    // 50 buffers of 64 KiB are 3200 KiB; the rest is sessions and the allocator.
    assert!(grown < 3200 + 2048, "{grown} KiB for {READERS} slow readers");
    readers.into_iter().for_each(reset);
    proxy.wait_until_idle();
}

/// Past `--buffer-memory` every tunnel has 4 KiB and still moves. 150 stopped readers would take 9600 KiB
/// without it, and each of 50 more stopped writers as much again.
#[test]
fn buffer_memory_caps_it_and_everything_arrives() {
    const READERS: usize = 150;
    const WRITERS: usize = 50;
    let proxy = Proxy::with(&["--buffer-memory", "1048576"]);
    let payload = Arc::new(noise(800_000, 42));
    let origin = fast(&payload);
    let socket = narrow();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("loopback");
    socket.listen(4096).expect("bound");
    let stopped = TcpListener::from(socket);
    let before = proxy.status_kib("VmHWM");
    let readers: Vec<TcpStream> =
        (0..READERS).map(|_| narrow_tunnel(&proxy, origin.address)).collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let mut client = proxy.tunnel(stopped.local_addr().expect("bound"));
            let (far, _) = stopped.accept().expect("the tunnel leads here");
            far.set_read_timeout(Some(PATIENCE)).expect("a socket");
            let payload = Arc::clone(&payload);
            (thread::spawn(move || client.write_all(&payload).expect("taken")), far)
        })
        .collect();
    wait_until_stalled(&proxy);
    let grown = proxy.status_kib("VmHWM").saturating_sub(before);
    // 1024 KiB, 200 small pieces are 800 KiB; the rest is sessions and the allocator.
    assert!(grown < 1024 + 800 + 2048, "{grown} KiB for {READERS} readers and {WRITERS} writers");
    thread::scope(|scope| {
        for reader in readers {
            let payload = &payload;
            scope.spawn(move || assert!(drain(reader) == **payload, "intact"));
        }
        for (writer, far) in writers {
            let payload = &payload;
            scope.spawn(move || {
                assert!(drain(far) == **payload, "intact");
                writer.join().expect("sent");
            });
        }
    });
    proxy.wait_until_idle();
    assert_eq!(proxy.metrics()[2], ((READERS + WRITERS) * payload.len()) as u64);
}

/// Thousands upon thousands of short connections leave descriptors and memory where they were.
#[test]
fn short_connections_leave_nothing_behind() {
    // The alarm clock remembers a session for as long as its handshake might have taken.
    let proxy = Proxy::with(&["--handshake-timeout", "0.5"]);
    let origins: Vec<TcpListener> =
        (0..4).map(|_| listen([127, 0, 0, 1].into()).expect("loopback")).collect();
    let targets: Vec<SocketAddr> =
        origins.iter().map(|origin| origin.local_addr().expect("bound")).collect();
    // Who resets leaves no port waiting, on neither side.
    for origin in origins {
        thread::spawn(move || {
            for mut stream in origin.incoming().flatten() {
                // The proxy may have closed already.
                let _ = stream.write_all(b"x");
                reset(stream);
            }
        });
    }
    let address = proxy.socks_address();
    let round = |connections: usize| {
        let clients = |target: SocketAddr| {
            let login = [HELLO, &credentials(b"admin", b"1234")].concat();
            let whole = [&login[..], &connect_request(target)].concat();
            let wrong = [HELLO, &credentials(b"admin", b"wrong")].concat();
            let sayings: [&[u8]; 6] = [&whole, &wrong, &login, b"\x05", b"", b"GET / HTTP/1.0\r\n"];
            for count in 0..connections / targets.len() {
                let mut stream = TcpStream::connect(address).expect("it listens");
                let said = sayings[count % sayings.len()];
                stream.write_all(said).expect("taken");
                // Those that have said too little for an answer leave at once, and some of the others.
                if said.len() > 1 && count % 4 != 3 {
                    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket");
                    // Whatever comes, an end or nothing.
                    let _ = stream.read(&mut [0; 32]);
                }
                reset(stream);
            }
        };
        thread::scope(|scope| {
            for target in &targets {
                scope.spawn(|| clients(*target));
            }
        });
        proxy.wait_until_idle();
    };
    round(4000);
    let (descriptors, memory) = (proxy.descriptors(), proxy.status_kib("VmRSS"));
    round(8000);
    eventually("descriptors are where they were", || proxy.descriptors() <= descriptors);
    // The last alarms have to pass for it.
    eventually("less than 512 KiB more are left", || {
        proxy.status_kib("VmRSS").saturating_sub(memory) < 512
    });
}
