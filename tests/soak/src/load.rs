//! The load: threads that each play one kind of client until they are told to rest or to stop.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::Socket;
use support::noise;
use support::origin::{Origin, closed_port};
use support::proxy::Proxy;
use support::socks::{
    Client, HELLO, connect_request, credentials, half_close, name_request, reset,
};
use support::udp::{associate_request, header, parse};

/// What one large transfer carries, in bytes.
const LARGE: u64 = 256 << 20;
/// The noise that large transfers repeat; no divisor of any buffer size.
const PERIOD: usize = 1_000_003;

/// What all clients share.
pub struct Shared {
    pub corrupt: AtomicU64,
    pub tunnels: AtomicU64,
    pub verified: AtomicU64,
    large: AtomicU64,
    rude: AtomicU64,
    datagrams: AtomicU64,
    accepted: AtomicU64,
    changes: AtomicU64,
    stop: AtomicBool,
    pause: Mutex<Pause>,
    changed: Condvar,
}

#[derive(Default)]
struct Pause {
    wanted: bool,
    resting: usize,
}

/// The running load.
pub struct Load {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    workers: usize,
}

impl std::ops::Deref for Load {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

type Round = fn(&Proxy, &Shared, &Targets, u64) -> io::Result<()>;

/// Where the clients go.
struct Targets {
    echo: Origin,
    /// A server that sends datagrams back.
    datagram_echo: SocketAddr,
    /// A port without a listener. The socket keeps it from being taken.
    closed: (Socket, SocketAddr),
    noise: Vec<u8>,
}

impl Load {
    /// Starts all clients.
    pub fn start(proxy: &Arc<Proxy>) -> Self {
        let shared = Arc::new(Shared {
            corrupt: AtomicU64::new(0),
            tunnels: AtomicU64::new(0),
            verified: AtomicU64::new(0),
            large: AtomicU64::new(0),
            rude: AtomicU64::new(0),
            datagrams: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            pause: Mutex::default(),
            changed: Condvar::new(),
        });
        let targets = Arc::new(Targets {
            echo: Origin::echo(),
            datagram_echo: datagram_echo(),
            closed: closed_port(),
            noise: noise(PERIOD, 99),
        });
        let kinds: [(Round, usize); 7] = [
            (good, 8),
            (slow, 4),
            (rude, 6),
            (large, 2),
            (datagrams, 4),
            (accepting, 2),
            (admin, 1),
        ];
        let mut threads = Vec::new();
        for (number, round) in
            kinds.iter().flat_map(|(round, count)| vec![*round; *count]).enumerate()
        {
            let (proxy, shared, targets) =
                (Arc::clone(proxy), Arc::clone(&shared), Arc::clone(&targets));
            threads.push(thread::spawn(move || {
                let mut step = number as u64 * 1_000_003;
                while shared.may_go_on() {
                    step += 1;
                    // A connection that breaks is expected; corrupt bytes are counted where they are seen.
                    if round(&proxy, &shared, &targets, step).is_err() {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            }));
        }
        let workers = threads.len();
        Load { shared, threads: Mutex::new(threads), workers }
    }

    /// Returns when all clients have finished what they were at.
    pub fn rest(&self) {
        let mut pause = self.pause.lock().expect("nobody panics with it");
        pause.wanted = true;
        while pause.resting < self.workers {
            pause = self.changed.wait(pause).expect("nobody panics with it");
        }
    }

    /// Ends a rest.
    pub fn go_on(&self) {
        self.pause.lock().expect("nobody panics with it").wanted = false;
        self.changed.notify_all();
    }

    /// Ends the load.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.go_on();
        for thread in self.threads.lock().expect("nobody panics with it").drain(..) {
            thread.join().expect("no client panicked");
        }
    }

    /// What has been done.
    pub fn figures(&self) -> [(&'static str, u64); 7] {
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        [
            ("tunnels", read(&self.tunnels)),
            ("MiB verified", read(&self.verified) >> 20),
            ("transfers of 256 MiB", read(&self.large)),
            ("rude clients", read(&self.rude)),
            ("datagrams there and back", read(&self.datagrams)),
            ("accepted connections", read(&self.accepted)),
            ("changes by METP", read(&self.changes)),
        ]
    }
}

impl Shared {
    /// Rests while that is wanted. `false` once the load is to stop.
    fn may_go_on(&self) -> bool {
        let mut pause = self.pause.lock().expect("nobody panics with it");
        pause.resting += 1;
        self.changed.notify_all();
        while pause.wanted {
            pause = self.changed.wait(pause).expect("nobody panics with it");
        }
        pause.resting -= 1;
        !self.stop.load(Ordering::SeqCst)
    }

    fn check(&self, same: bool, bytes: usize) {
        match same {
            true => self.verified.fetch_add(bytes as u64, Ordering::Relaxed),
            false => self.corrupt.fetch_add(1, Ordering::SeqCst),
        };
    }
}

/// Sends datagrams back, for as long as the process lives.
fn datagram_echo() -> SocketAddr {
    let socket = support::udp::socket();
    let address = socket.local_addr().expect("bound");
    thread::spawn(move || {
        let mut space = vec![0; 65_536];
        loop {
            if let Ok((count, from)) = socket.recv_from(&mut space) {
                let _ = socket.send_to(&space[..count], from);
            }
        }
    });
    address
}

/// An association: datagrams there and back, one at a time. One may be lost; what comes is what was sent.
fn datagrams(proxy: &Proxy, shared: &Shared, targets: &Targets, step: u64) -> io::Result<()> {
    let mut client = proxy.client();
    let request = associate_request(SocketAddr::from(([0, 0, 0, 0], 0)));
    let (code, relay) = client.say(&request).reply();
    if code != 0 {
        return Err(io::ErrorKind::Other.into());
    }
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut space = vec![0; 65_536];
    for number in 0..step % 100 {
        let sent = noise((step * 31 + number * 977) as usize % 9000, step + number);
        let malformed = number % 7 == 6;
        let to = header(targets.datagram_echo);
        socket.send_to(&[if malformed { &to[..5] } else { &to[..] }, &sent].concat(), relay)?;
        // Only the next one shows that a malformed one was dropped.
        if !malformed {
            // What comes from elsewhere was for an earlier client with this port, or is a malformed datagram of another
            // client whose first bytes were taken for the address of this association.
            let count = loop {
                match socket.recv_from(&mut space) {
                    Ok((count, from))
                        if from == relay && parse(&space[..count]).0 == targets.datagram_echo =>
                    {
                        break count;
                    }
                    Ok(_) => {}
                    Err(_) => return Ok(()),
                }
            };
            shared.check(parse(&space[..count]).1 == sent, sent.len());
            shared.datagrams.fetch_add(1, Ordering::Relaxed);
        }
    }
    if step.is_multiple_of(3) {
        reset(client.stream);
    }
    Ok(())
}

/// Has the proxy accept a connection, and sends through it.
fn accepting(proxy: &Proxy, shared: &Shared, _: &Targets, step: u64) -> io::Result<()> {
    let mut client = proxy.client();
    let mut request = connect_request(SocketAddr::from(([127, 0, 0, 1], 0)));
    request[1] = 2;
    let (code, listener) = client.say(&request).reply();
    if code != 0 || step.is_multiple_of(5) {
        return Ok(());
    }
    let mut peer = TcpStream::connect(listener)?;
    if client.reply().0 != 0 {
        return Err(io::ErrorKind::Other.into());
    }
    let sent = noise(1 + (step * 7919 % 50_000) as usize, step);
    peer.write_all(&sent)?;
    peer.shutdown(Shutdown::Write)?;
    let mut got = Vec::new();
    client.stream.read_to_end(&mut got)?;
    shared.check(got == sent, sent.len());
    shared.accepted.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Sends some, gets it back, and closes in one of several ways.
fn good(proxy: &Proxy, shared: &Shared, targets: &Targets, step: u64) -> io::Result<()> {
    let mut tunnel = proxy.tunnel(targets.echo.address);
    shared.tunnels.fetch_add(1, Ordering::Relaxed);
    let sent = noise(1 + (step * 7919 % 200_000) as usize, step);
    let mut writer = tunnel.try_clone()?;
    thread::scope(|scope| {
        scope.spawn(|| {
            let written = writer.write_all(&sent);
            half_close(&writer);
            shared.check(written.is_ok(), 0);
        });
        let mut got = Vec::new();
        let read = tunnel.read_to_end(&mut got);
        shared.check(read.is_ok() && got == sent, sent.len());
    });
    Ok(())
}

/// Reads in small pieces, so that the proxy has to wait for it.
fn slow(proxy: &Proxy, shared: &Shared, targets: &Targets, step: u64) -> io::Result<()> {
    let mut tunnel = proxy.tunnel(targets.echo.address);
    shared.tunnels.fetch_add(1, Ordering::Relaxed);
    let sent = noise(400_000, step);
    let mut writer = tunnel.try_clone()?;
    thread::scope(|scope| {
        scope.spawn(|| {
            let written = writer.write_all(&sent);
            half_close(&writer);
            shared.check(written.is_ok(), 0);
        });
        let (mut got, mut sip) = (Vec::<u8>::new(), vec![0; 8000]);
        loop {
            match tunnel.read(&mut sip) {
                Ok(0) => break,
                Ok(count) => got.extend(&sip[..count]),
                Err(_) => return shared.check(false, 0),
            }
            thread::sleep(Duration::from_millis(5));
        }
        shared.check(got == sent, sent.len());
    });
    Ok(())
}

/// 256 MiB there and back, each byte compared.
fn large(proxy: &Proxy, shared: &Shared, targets: &Targets, _: u64) -> io::Result<()> {
    let mut tunnel = proxy.tunnel(targets.echo.address);
    shared.tunnels.fetch_add(1, Ordering::Relaxed);
    let mut writer = tunnel.try_clone()?;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut left = LARGE;
            while left > 0 {
                let piece = &targets.noise[..left.min(PERIOD as u64) as usize];
                if writer.write_all(piece).is_err() {
                    return shared.check(false, 0);
                }
                left -= piece.len() as u64;
            }
            half_close(&writer);
        });
        let (mut position, mut bytes) = (0u64, vec![0; 256 * 1024]);
        loop {
            let offset = (position % PERIOD as u64) as usize;
            let room = bytes.len().min(PERIOD - offset);
            match tunnel.read(&mut bytes[..room]) {
                Ok(0) => break,
                Ok(count) => {
                    shared.check(bytes[..count] == targets.noise[offset..offset + count], count);
                    position += count as u64;
                }
                Err(_) => return shared.check(false, 0),
            }
        }
        shared.check(position == LARGE, 0);
        shared.large.fetch_add(1, Ordering::SeqCst);
    });
    Ok(())
}

/// Breaks off, sends malformed messages, asks for closed ports.
fn rude(proxy: &Proxy, shared: &Shared, targets: &Targets, step: u64) -> io::Result<()> {
    shared.rude.fetch_add(1, Ordering::Relaxed);
    let mut stream = proxy.socks();
    let login = [HELLO, &credentials(b"admin", b"1234")].concat();
    match step % 10 {
        0 => stream.write_all(&noise(600, step))?,
        1 => stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?,
        2 => stream.write_all(&login[..(step % login.len() as u64) as usize])?,
        3 => {
            stream.write_all(&[HELLO, &credentials(b"admin", b"wrong")].concat())?;
            return drain(stream);
        }
        4 => {
            stream.write_all(&[&login, &connect_request(targets.closed.1)[..]].concat())?;
            return drain(stream);
        }
        5 => {
            stream.write_all(&[&login, &name_request(b"*", 80)[..]].concat())?;
            return drain(stream);
        }
        6 => {
            let mut tunnel =
                Client::new(stream).logged_in("admin", "1234").connected(targets.echo.address);
            tunnel.write_all(&noise(100_000, step))?;
            reset(tunnel);
            return Ok(());
        }
        7 => {
            let request = name_request(b"localhost", targets.echo.address.port());
            stream.write_all(&[&login, &request[..], b"hello"].concat())?;
            stream.shutdown(Shutdown::Write)?;
            return drain(stream);
        }
        8 => stream
            .write_all(&[&login, &b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"[..]].concat())?,
        // Silent for a while, beside others.
        _ => thread::sleep(Duration::from_millis(step % 500)),
    }
    if step.is_multiple_of(3) {
        reset(stream);
    }
    Ok(())
}

fn drain(mut stream: TcpStream) -> io::Result<()> {
    io::copy(&mut stream, &mut io::sink()).map(|_| ())
}

/// Changes everything that can be changed, and reads everything that can be read.
fn admin(proxy: &Proxy, shared: &Shared, targets: &Targets, step: u64) -> io::Result<()> {
    const SIZES: [(usize, u64); 6] =
        [(1, 20), (17, 50), (4096, 300), (65536, 1000), (1_048_576, 500), (65536, 1000)];
    let mut admin = proxy.admin();
    let (size, milliseconds) = SIZES[(step % SIZES.len() as u64) as usize];
    admin.command(&format!("CHANGE-BUFFER {size}"));
    let name = format!("guest{}", step % 100);
    admin.command(&format!("ADD-USER {name} secret"));
    let guest =
        Client::new(proxy.socks()).logged_in(&name, "secret").connected(targets.echo.address);
    admin.command(&format!("SET-ROLE {name} admin"));
    admin.ask("GET_LOGS");
    admin.ask("USERS");
    admin.metrics();
    admin.command(&format!("DELETE-USER {name}"));
    let closed = (&guest).read(&mut [0; 1]);
    shared.check(!matches!(closed, Ok(1)), 0);
    shared.changes.fetch_add(4, Ordering::Relaxed);
    thread::sleep(Duration::from_millis(milliseconds));
    Ok(())
}
