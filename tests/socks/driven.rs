//! A SOCKS session driven by hand: its client is a real connection on loopback, its source is whatever the
//! test says, and its network writes down what is dialled instead of dialling it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use metp_protocol::Role;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socks5d::reactor::Flow;
use socks5d::reactor::abortive_close::AbortiveCloses;
use socks5d::reactor::buffer::Pool;
use socks5d::reactor::datagram::{DatagramConfig, Datagrams};
use socks5d::reactor::network::Network;
use socks5d::reactor::peer_listener::PeerListener;
use socks5d::reactor::reserve::Reserve;
use socks5d::reactor::slab::Key;
use socks5d::reactor::token::Side;
use socks5d::reactor::waker::Waker;
use socks5d::socks::{CloseReason, Context, Session};
use socks5d::state::Shared;
use socks5d::state::settings::Settings;
use socks5d::state::users::Users;
use socks5d::state::verifier::InPlace;
use socks5d::workers::dns_cache::DnsCache;
use socks5d::workers::families::Family;
use socks5d::workers::resolver::Resolver;
use socks5d::workers::worker_pool::Limits;
use support::proxy::connect;
use support::socks::Client;

const CLIENT: Token = Token(0);
const WAKE: Token = Token(1);

/// A server's inside without listeners. Everybody in it is `admin` with the password `1234`.
pub struct Fixture {
    /// What has been dialled, in order.
    pub dialled: Vec<SocketAddr>,
    /// Addresses that the system would deliver to this machine, besides loopback and the unspecified ones.
    pub here: Vec<IpAddr>,
    pub shared: Shared,
    poll: Poll,
    dns: DnsCache,
    pool: Pool,
    sessions: u64,
}

/// Refuses every connection, after writing down where it would have gone.
struct RecordingDialer<'a>(&'a mut Vec<SocketAddr>, &'a [IpAddr]);

impl Network<TcpStream> for RecordingDialer<'_> {
    fn dial(&mut self, address: SocketAddr, _: Key, _: Side) -> io::Result<TcpStream> {
        self.0.push(address);
        Err(io::Error::from_raw_os_error(libc::ECONNREFUSED))
    }

    fn open_datagrams(
        &mut self,
        _: &DatagramConfig,
        _: Key,
        _: Side,
    ) -> io::Result<Box<dyn Datagrams>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn listen(
        &mut self,
        _: SocketAddr,
        _: Option<&RangeInclusive<u16>>,
        _: Key,
        _: Side,
    ) -> io::Result<Box<dyn PeerListener<TcpStream>>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn adopt(&mut self, _: &mut TcpStream, _: Key, _: Side) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn source_for(&mut self, _: SocketAddr) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn is_local_delivery(&mut self, address: SocketAddr) -> io::Result<bool> {
        let ip = address.ip();
        Ok(ip.is_loopback() || ip.is_unspecified() || self.1.contains(&ip))
    }
}

impl Fixture {
    /// With these settings; of names there are these alone.
    pub fn new(settings: Settings, directory: HashMap<String, Vec<SocketAddr>>) -> Self {
        let poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), WAKE).expect("a waker");
        let lookup = move |name: &str, family, _| {
            let addresses = directory.get(name).into_iter().flatten().copied();
            Ok(addresses.filter(|address| Family::of(*address) == family).collect())
        };
        let limits = Limits { threads: 1, threads_in_all: 1, queue: 8 };
        let has_route = Box::new(|_| true);
        let resolver = Resolver::with_routes(limits, waker, Box::new(lookup), has_route);
        let dns = DnsCache::new(resolver, settings.names, settings.prefer);
        let mut users = Users::default();
        users.add(b"admin", b"1234", Role::Admin).expect("new");
        let pool = Pool::new(settings.buffer_size, settings.buffer_memory);
        let shared = Shared::new(settings, users);
        Fixture { dialled: Vec::new(), here: Vec::new(), shared, poll, dns, pool, sessions: 0 }
    }

    /// What a client that comes from `source` is answered to all that it says, until its session ends.
    pub fn converse(&mut self, source: SocketAddr, says: &[u8]) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let mut client = Client::new(connect(listener.local_addr().expect("bound")));
        let (stream, _) = listener.accept().expect("it has connected");
        stream.set_nonblocking(true).expect("a socket");
        let mut stream = TcpStream::from_std(stream);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, CLIENT, both).expect("a socket");
        client.say(says);
        support::socks::half_close(&client.stream);

        let mut session = Session::new(stream, source, Instant::now());
        self.sessions += 1;
        let key = Key::unpack(self.sessions);
        let mut events = Events::with_capacity(8);
        let deadline = Instant::now() + support::PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "the session never ends");
            self.poll.poll(&mut events, Some(Duration::from_millis(100))).expect("polled");
            for event in events.iter().filter(|event| event.token() == CLIENT) {
                session.on_event(Side::Client, event.into());
            }
            let now = Instant::now();
            for reply in self.dns.resolutions(now) {
                if reply.key == key {
                    session.resolved(reply, now);
                }
            }
            let mut network = RecordingDialer(&mut self.dialled, &self.here);
            let mut cx = Context {
                key,
                now,
                network: &mut network,
                dns: &mut self.dns,
                verifier: &mut InPlace,
                pool: &mut self.pool,
                closes: &mut AbortiveCloses::default(),
                reserve: &Reserve::default(),
                shared: &mut self.shared,
            };
            if session.turn(&mut cx) == Flow::Close {
                session.close(CloseReason::Finished, &mut cx);
                return support::read_to_end(&mut client.stream);
            }
        }
    }
}
