//! Round trips beside a bulk load, in threads of their own: so that waiting is mostly the proxy's doing.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socks5d::proto::socks5::{Command, Host, Target};

use super::Route;
use super::client::TRIP;
use super::handshake::{self, PATIENCE};
use crate::sys;

/// Tunnels that are probed, one after the other.
const TUNNELS: usize = 4;
/// How long a probe rests: an interactive user does not keep a core busy.
const REST: Duration = Duration::from_micros(500);
/// No run takes longer.
const LONGEST_RUN: Duration = Duration::from_secs(120);

/// What the probes are told.
#[derive(Default)]
struct Orders {
    record: AtomicBool,
    stop: AtomicBool,
}

/// An origin that echoes what the probes send.
pub struct Echo {
    listener: TcpListener,
}

/// Probes under way.
pub struct Probes {
    orders: Arc<Orders>,
    prober: JoinHandle<io::Result<Vec<u32>>>,
}

impl Echo {
    pub fn new() -> io::Result<Self> {
        Ok(Echo { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))? })
    }

    pub fn port(&self) -> u16 {
        self.listener.local_addr().map_or(0, |address| address.port())
    }

    /// Opens the tunnels and starts to probe. The listener ends with this call.
    pub fn probe(self, route: Route) -> io::Result<Probes> {
        let target = self.listener.local_addr()?;
        let mut tunnels = Vec::new();
        self.listener.set_nonblocking(true)?;
        for _ in 0..TUNNELS {
            let tunnel = tunnel(route, target)?;
            let mut far = accept(&self.listener)?;
            // Ends when the tunnel does, at the latest with the proxy.
            thread::spawn(move || {
                sys::hurry();
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = far.read(&mut bytes) {
                    if far.write_all(&bytes[..count]).is_err() {
                        break;
                    }
                }
            });
            tunnels.push(tunnel);
        }
        let orders = Arc::new(Orders::default());
        let heard = Arc::clone(&orders);
        let prober = thread::spawn(move || {
            sys::hurry();
            probe(tunnels, &heard)
        });
        Ok(Probes { orders, prober })
    }
}

impl Probes {
    /// From now on round trips count.
    pub fn record(&self) {
        self.orders.record.store(true, Ordering::Relaxed);
    }

    /// Ends, and returns how long the round trips took, in µs.
    pub fn finish(self) -> io::Result<Vec<u32>> {
        self.orders.stop.store(true, Ordering::Relaxed);
        self.prober.join().map_err(|_| io::Error::other("the probes panicked"))?
    }
}

fn probe(mut tunnels: Vec<TcpStream>, orders: &Orders) -> io::Result<Vec<u32>> {
    let (mut latencies, mut bytes) = (Vec::new(), [7; TRIP]);
    let begin = Instant::now();
    loop {
        for tunnel in &mut tunnels {
            if orders.stop.load(Ordering::Relaxed) || begin.elapsed() > LONGEST_RUN {
                return Ok(latencies);
            }
            let (counts, sent) = (orders.record.load(Ordering::Relaxed), Instant::now());
            tunnel.write_all(&bytes)?;
            tunnel.read_exact(&mut bytes)?;
            if counts {
                latencies.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            thread::sleep(REST);
        }
    }
}

/// A tunnel to the target.
fn tunnel(route: Route, target: SocketAddr) -> io::Result<TcpStream> {
    match route {
        Route::Direct => handshake::connect(target),
        Route::Relay(address) => handshake::connect(address),
        Route::Socks { server, login } => {
            let mut stream = handshake::login(server, login)?;
            let target = Target { host: Host::Ip(target.ip()), port: target.port() };
            handshake::request(&mut stream, Command::Connect, target)?;
            Ok(stream)
        }
    }
}

/// Accepts one connection, within a time.
fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() > deadline {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                thread::sleep(REST);
            }
            Err(error) => return Err(error),
        }
    }
}
