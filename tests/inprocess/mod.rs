//! The server in a thread of the test, with names, accounts and times of its own.
//!
//! For what the program cannot be told from outside: look-ups that never leave the test, and accounts
//! that no command line can hold.

mod verifier;

use std::collections::HashMap;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use metp_protocol::Role;
use mio::unix::pipe::{self, Sender};
use socks5d::process::raise_descriptor_limit;
use socks5d::proto::rules::RuleSet;

use socks5d::server::{Config, MakeVerifier, Server};
use socks5d::state::service::Service;
use socks5d::state::settings::{Settings, Timeouts};
use socks5d::state::users::Users;
use socks5d::workers::families::Family;
use socks5d::workers::log_writer::{LogWriter, Sink};
use socks5d::workers::resolver::Lookup;
use support::PATIENCE;
use support::metp::Metp;
use support::proxy::connect;
use support::socks::Client;
use verifier::SlowVerifier;

/// A server in a thread of its own. It ends when this is dropped.
pub struct Inprocess {
    socks: SocketAddr,
    metp: SocketAddr,
    names: DnsCache,
    stop: Sender,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// How to start it.
pub struct Builder {
    accounts: Vec<(Vec<u8>, Vec<u8>)>,
    listen: Option<IpAddr>,
    settings: Settings,
    address_space: Option<usize>,
    access_log: Option<Written>,
    /// Permits for verdicts, if logins are verified by a worker.
    verdicts: Option<Receiver<()>>,
    rules: Option<RuleSet>,
}

/// What has been written to a log so far.
#[derive(Clone, Default)]
pub struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().map_err(|_| ErrorKind::Other)?.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[allow(dead_code, reason = "no test needs all of it")]
impl Written {
    /// Its whole lines.
    pub fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().expect("nobody panics with it").clone();
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |lf| lf + 1);
        String::from_utf8(bytes[..whole].to_vec())
            .expect("text")
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

/// The names there are, and which have been asked for.
#[derive(Clone, Default)]
pub struct DnsCache(Arc<Mutex<Directory>>);

type Gate = Arc<Mutex<Receiver<()>>>;

#[derive(Default)]
struct Directory {
    addresses: HashMap<String, Vec<IpAddrs>>,
    /// The names of addresses. What is kept by name below is kept by the text of an address too.
    names: HashMap<IpAddr, String>,
    asked: Vec<String>,
    /// Look-ups of these names, or of one family of them, wait for the channel.
    hanging: HashMap<String, (Option<Family>, Gate)>,
    /// The next look-up of these names fails.
    failing: HashMap<String, io::Error>,
}

/// An address with a port of its own, or with the one that was asked for.
#[derive(Clone, Copy)]
enum IpAddrs {
    At(SocketAddr),
    Asked(IpAddr),
}

impl Default for Builder {
    fn default() -> Self {
        let accounts = vec![(b"admin".to_vec(), b"1234".to_vec())];
        let timeouts =
            Timeouts { handshake: None, resolve: None, linger: None, ..Timeouts::default() };
        let settings = Settings { timeouts, grace: Duration::ZERO, ..Settings::default() };
        let listen = Some(Ipv4Addr::LOCALHOST.into());
        Builder {
            accounts,
            listen,
            settings,
            address_space: None,
            access_log: None,
            rules: None,
            verdicts: None,
        }
    }
}

#[allow(dead_code, reason = "no test needs all of it")]
impl Builder {
    /// Adds an account of role user. The administrator is `admin` with the password `1234`.
    pub fn account(mut self, name: &[u8], password: &[u8]) -> Self {
        self.accounts.push((name.to_vec(), password.to_vec()));
        self
    }

    /// Writes the access log there.
    pub fn access_log(mut self, log: &Written) -> Self {
        self.access_log = Some(log.clone());
        self
    }

    /// Listens for SOCKS on this address, or on all. Otherwise on 127.0.0.1.
    pub fn listen(mut self, address: Option<IpAddr>) -> Self {
        self.listen = address;
        self
    }

    /// Changes the times. At first they are the usual ones, but nothing ends a handshake, a look-up or a
    /// lingering close.
    pub fn timeouts(mut self, change: impl FnOnce(&mut Timeouts)) -> Self {
        change(&mut self.settings.timeouts);
        self
    }

    /// Changes the settings.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Lets it believe that it has no more bytes of address space. With 0 it has one thread for look-ups, however
    /// slow they are.
    pub fn address_space(mut self, bytes: usize) -> Self {
        self.address_space = Some(bytes);
        self
    }

    /// Names that begin with `slow` are verified by a worker thread: each verdict waits for a message, and all come
    /// when the sender is dropped.
    pub fn slow_logins(mut self) -> (Self, mpsc::Sender<()>) {
        let (permit, verdicts) = mpsc::channel();
        self.verdicts = Some(verdicts);
        (self, permit)
    }

    /// Judges requests by these rules.
    pub fn rules(mut self, rules: RuleSet) -> Self {
        self.rules = Some(rules);
        self
    }

    /// Starts it and waits until it listens.
    pub fn start(self) -> Inprocess {
        raise_descriptor_limit().expect("Linux");
        let names = DnsCache::default();
        let (stop, signals) = pipe::new().expect("a pipe");
        let (tell, told) = mpsc::channel();
        let directory = names.clone();
        // The server cannot be sent to another thread, so it is made where it lives.
        let serve = move || {
            let mut users = Users::default();
            for (number, (name, password)) in self.accounts.iter().enumerate() {
                let role = if number == 0 { Role::Admin } else { Role::User };
                users.add(name, password, role).expect("no name twice");
            }
            let access_log = match self.access_log {
                Some(log) => Some(LogWriter::start("access log", Sink::new(log))?),
                None => None,
            };
            let verifier = self.verdicts.map(|verdicts| -> Box<MakeVerifier> {
                Box::new(|waker| Box::new(SlowVerifier::new(verdicts, waker)))
            });
            let server = Server::bind(Config {
                verifier,
                access_log,
                listen: self.listen,
                users,
                settings: self.settings,
                rules: self.rules,
                address_space: self.address_space,
                lookup: Box::new(directory),
                signals: Some(signals),
                ..Config::default()
            })?;
            let address = |service| server.address(service).expect("it listens");
            tell.send((address(Service::Socks), address(Service::Metp))).expect("the test waits");
            server.run()
        };
        let thread = Some(thread::spawn(serve));
        let (mut socks, metp) = told.recv_timeout(PATIENCE).expect("it starts");
        if socks.ip().is_unspecified() {
            socks.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        Inprocess { socks, metp, names, stop, thread }
    }
}

#[allow(dead_code, reason = "no test needs all of it")]
impl Inprocess {
    /// A server as it is at first.
    pub fn start() -> Self {
        Builder::default().start()
    }

    /// Where it takes SOCKS.
    pub fn socks_address(&self) -> SocketAddr {
        self.socks
    }

    /// Where it takes METP.
    pub fn metp_address(&self) -> SocketAddr {
        self.metp
    }

    /// A SOCKS client that has said nothing yet.
    pub fn stranger(&self) -> Client {
        Client::new(connect(self.socks))
    }

    /// A SOCKS client that is logged in.
    pub fn client(&self) -> Client {
        self.stranger().logged_in("admin", "1234")
    }

    /// A METP session that is logged in.
    pub fn admin(&self) -> Metp {
        Metp::new(connect(self.metp)).logged_in("admin", "1234")
    }

    /// The names there are.
    pub fn names(&self) -> &DnsCache {
        &self.names
    }
}

impl Drop for Inprocess {
    fn drop(&mut self) {
        let interrupt = u8::try_from(libc::SIGINT).expect("signals are small");
        // If it has ended already, nobody reads the pipe.
        let _ = self.stop.write(&[interrupt]);
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.expect("it was started").expect("it did not panic").expect("it ran");
        }
    }
}

#[allow(dead_code, reason = "no test needs all of it")]
impl DnsCache {
    /// A name with addresses and ports, whatever port is asked for.
    pub fn add(&self, name: &str, addresses: &[SocketAddr]) {
        let addresses = addresses.iter().copied().map(IpAddrs::At).collect();
        self.lock(|directory| directory.addresses.insert(name.to_owned(), addresses));
    }

    /// A name with one address, at the port that is asked for.
    pub fn add_ip(&self, name: &str, address: IpAddr) {
        let addresses = vec![IpAddrs::Asked(address)];
        self.lock(|directory| directory.addresses.insert(name.to_owned(), addresses));
    }

    /// The name of an address.
    pub fn add_name(&self, address: IpAddr, name: &str) {
        self.lock(|directory| directory.names.insert(address, name.to_owned()));
    }

    /// Lets look-ups of a name hang: each ends with one message, and all when the sender is dropped.
    pub fn hang(&self, name: &str) -> mpsc::Sender<()> {
        self.hang_in(name, None)
    }

    /// Lets look-ups of a name hang in one family alone.
    pub fn hang_family(&self, name: &str, family: Family) -> mpsc::Sender<()> {
        self.hang_in(name, Some(family))
    }

    /// Lets look-ups of the name of an address hang.
    pub fn hang_name(&self, address: IpAddr) -> mpsc::Sender<()> {
        self.hang_in(&address.to_string(), None)
    }

    fn hang_in(&self, name: &str, family: Option<Family>) -> mpsc::Sender<()> {
        let (release, wait) = mpsc::channel();
        let wait = (family, Arc::new(Mutex::new(wait)));
        self.lock(|directory| directory.hanging.insert(name.to_owned(), wait));
        release
    }

    /// Lets the next look-up of a name, or of the text of an address, fail.
    pub fn fail(&self, name: &str, error: io::Error) {
        self.lock(|directory| directory.failing.insert(name.to_owned(), error));
    }

    /// What has been asked for, in order. A name counts once, when its IPv4 addresses are asked for. An address is there
    /// as text.
    pub fn asked(&self) -> Vec<String> {
        self.lock(|directory| directory.asked.clone())
    }

    /// Forgets what has been asked for so far.
    pub fn forget_asked(&self) {
        self.lock(|directory| directory.asked.clear());
    }

    /// Waits, or fails, if that was said of the name.
    fn begin(&self, name: &str, family: Family) -> io::Result<()> {
        let wait = self.lock(|directory| {
            if family == Family::V4 {
                directory.asked.push(name.to_owned());
            }
            directory.hanging.get(name).cloned()
        });
        if let Some((hanging, wait)) = wait
            && hanging.is_none_or(|hanging| hanging == family)
        {
            let _ = wait.lock().map(|wait| wait.recv());
        }
        self.lock(|directory| directory.failing.remove(name)).map_or(Ok(()), Err)
    }

    fn lock<R>(&self, look: impl FnOnce(&mut Directory) -> R) -> R {
        look(&mut self.0.lock().expect("nobody panics with it"))
    }
}

impl Lookup for DnsCache {
    fn addresses(&self, name: &str, family: Family, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.begin(name, family)?;
        let addresses = self.lock(|directory| directory.addresses.get(name).cloned());
        let unknown = || io::Error::new(ErrorKind::NotFound, "no such name");
        let at = |address: IpAddrs| match address {
            IpAddrs::At(address) => address,
            IpAddrs::Asked(ip) => SocketAddr::new(ip, port),
        };
        let addresses = addresses.ok_or_else(unknown)?.into_iter().map(at);
        Ok(addresses.filter(|address| Family::of(*address) == family).collect())
    }

    fn name(&self, address: IpAddr) -> io::Result<String> {
        // It is one look-up, as that of a name in IPv4.
        self.begin(&address.to_string(), Family::V4)?;
        let name = self.lock(|directory| directory.names.get(&address).cloned());
        name.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "no name"))
    }
}
