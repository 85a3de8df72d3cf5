//! The program under test: `socks5d` in a process of its own, on free ports.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::metp::Metp;
use crate::seccomp::{self, Refusal};
use crate::socks::Client;
pub use crate::system::send_signal;
use crate::system::{close_others, hand_over, raise_descriptor_limit};
use crate::{PATIENCE, binary, eventually, usage};

/// How to start the program.
pub struct Builder {
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
    sockets: Vec<OwnedFd>,
    superuser: Option<OsString>,
    listen: Option<&'static str>,
    limits: Option<&'static str>,
    user: Option<(u32, &'static str)>,
    refusals: Vec<Refusal>,
}

/// The running program. It is killed when this is dropped.
pub struct Proxy {
    child: Child,
    socks: SocketAddr,
    metp: SocketAddr,
    /// The access log.
    pub stdout: Lines,
    /// Diagnostics.
    pub stderr: Lines,
}

/// The lines of a stream so far.
#[derive(Clone, Default)]
pub struct Lines(Arc<Gathered>);

#[derive(Default)]
struct Gathered {
    lines: Mutex<Vec<String>>,
    /// The stream has ended.
    ended: AtomicBool,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            arguments: Vec::new(),
            variables: Vec::new(),
            sockets: Vec::new(),
            superuser: Some("admin:1234".into()),
            listen: Some("127.0.0.1"),
            limits: None,
            user: None,
            refusals: Vec::new(),
        }
    }
}

impl Builder {
    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets PROXY_CTRL_SUPERUSER, or takes it away. Otherwise it is `admin:1234`.
    pub fn superuser(mut self, login: Option<&str>) -> Self {
        self.superuser = login.map(OsString::from);
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// Hands over descriptors of these names, as a service manager does.
    pub fn sockets(mut self, names: &str, sockets: Vec<OwnedFd>) -> Self {
        self = self.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names);
        self.sockets = sockets;
        self
    }

    /// Listens for SOCKS on this address, or on all interfaces. Otherwise on 127.0.0.1.
    pub fn listen(mut self, address: Option<&'static str>) -> Self {
        self.listen = address;
        self
    }

    /// Sets limits with the shell's `ulimit` first, for instance `-Sn 256`.
    pub fn limits(mut self, limits: &'static str) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Runs as this user and its group, in these other groups (setpriv(1)).
    pub fn user(mut self, user: u32, groups: &'static str) -> Self {
        self.user = Some((user, groups));
        self
    }

    /// Has the kernel refuse these calls, if it can ([`seccomp::available`]).
    pub fn refuses(mut self, refusals: &[Refusal]) -> Self {
        self.refusals.extend(refusals);
        self
    }

    /// Starts the program and waits until it listens.
    pub fn start(self) -> Proxy {
        raise_descriptor_limit();
        let mut command = match (self.limits, self.user) {
            (None, None) if !self.sockets.is_empty() => in_shell("LISTEN_PID=$$"),
            (None, None) => Command::new(binary("socks5d")),
            (_, Some((user, groups))) => {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={user}"), format!("--regid={user}")]);
                command.arg(format!("--groups={groups}")).arg(binary("socks5d"));
                command
            }
            (Some(limits), None) => in_shell(&format!("ulimit {limits} &&")),
        };
        command.args(["-p", "0", "-P", "0"]).args(&self.arguments);
        if let Some(address) = self.listen {
            command.args(["-l", address]);
        }
        command.env_remove("PROXY_CTRL_SUPERUSER").env_remove("RUST_LOG");
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
        if let Some(superuser) = &self.superuser {
            command.env("PROXY_CTRL_SUPERUSER", superuser);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        close_others(&mut command);
        hand_over(&mut command, self.sockets);
        if !self.refusals.is_empty() {
            seccomp::refuse(&mut command, &self.refusals);
        }
        let mut child = command.spawn().expect("socks5d starts");
        let stdout = Lines::gather(child.stdout.take().expect("piped"));
        let stderr = Lines::gather(child.stderr.take().expect("piped"));
        let address = |service: &str| {
            let marker = format!("listening: service={service} address=");
            let line = stderr.wait_for(|line| line.contains(&marker));
            let address = line.split("address=").nth(1).expect("the marker ends so");
            // It may be part of a JSON object.
            address.trim_end_matches("\"}").parse::<SocketAddr>().expect("an address")
        };
        let (socks, metp) = (address("socks"), address("metp"));
        Proxy { child, socks, metp, stdout, stderr }
    }
}

/// The program, started by a shell that does this first.
pub fn in_shell(first: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{first} exec \"$0\" \"$@\"")]).arg(binary("socks5d"));
    shell
}

impl Proxy {
    /// A proxy on 127.0.0.1 whose administrator is `admin` with the password `1234`.
    pub fn start() -> Self {
        Builder::default().start()
    }

    /// A proxy with options of its own.
    pub fn with(arguments: &[&str]) -> Self {
        Builder::default().args(arguments).start()
    }

    /// Where it takes SOCKS; a wildcard is shown as loopback.
    pub fn socks_address(&self) -> SocketAddr {
        reachable(self.socks)
    }

    /// Where it takes METP.
    pub fn metp_address(&self) -> SocketAddr {
        reachable(self.metp)
    }

    /// A connection to the SOCKS port.
    pub fn socks(&self) -> TcpStream {
        connect(self.socks_address())
    }

    /// A connection to the METP port.
    pub fn metp(&self) -> Metp {
        Metp::new(connect(self.metp_address()))
    }

    /// A SOCKS client that is logged in as the administrator.
    pub fn client(&self) -> Client {
        Client::new(self.socks()).logged_in("admin", "1234")
    }

    /// A tunnel to `target` that the administrator has opened.
    pub fn tunnel(&self, target: SocketAddr) -> TcpStream {
        self.client().connected(target)
    }

    /// A METP session that the administrator has opened.
    pub fn admin(&self) -> Metp {
        self.metp().logged_in("admin", "1234")
    }

    /// A METP session of the administrator with a receive buffer of 4 KiB.
    pub fn narrow_admin(&self) -> Metp {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a socket");
        socket.connect(&self.metp_address().into()).expect("it listens");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Metp::new(stream).logged_in("admin", "1234")
    }

    /// The figures of GET_METRICS: historical, current, bytes.
    pub fn metrics(&self) -> [u64; 3] {
        self.admin().metrics()
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.pid());
        std::fs::read_dir(folder).expect("it runs").count()
    }

    /// How many of them are sockets; pipes stay open for a while after a bulk transfer.
    pub fn sockets(&self) -> usize {
        self.descriptors_of_kind("socket:")
    }

    /// How many of them are ends of pipes: the standard streams, the one for signals, and those through
    /// which bytes are spliced.
    pub fn pipe_ends(&self) -> usize {
        self.descriptors_of_kind("pipe:")
    }

    fn descriptors_of_kind(&self, kind: &str) -> usize {
        let folder = format!("/proc/{}/fd", self.pid());
        let links = std::fs::read_dir(folder).expect("it runs").flatten();
        let targets = links.filter_map(|link| std::fs::read_link(link.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with(kind)).count()
    }

    /// A value of /proc/PID/status in KiB, such as VmRSS.
    pub fn status_kib(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("it runs");
        let line = status.lines().find(|line| line.starts_with(key)).expect("the key is there");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Processor time that it has used.
    pub fn cpu_time(&self) -> Duration {
        usage::cpu_time(self.pid())
    }

    /// Waits until it takes less than a twentieth of a core.
    pub fn wait_until_at_rest(&self) {
        usage::wait_until_at_rest(self.pid());
    }

    /// Waits until no SOCKS connection is open.
    pub fn wait_until_idle(&self) {
        let mut admin = self.admin();
        eventually("no connection is open", || admin.metrics()[1] == 0);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        send_signal(&self.child, signal);
    }

    /// Waits for its end, and until all that it has written is there.
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait_for_exit(&mut self.child, PATIENCE);
        for lines in [&self.stdout, &self.stderr] {
            eventually("its output has ended", || lines.0.ended.load(Ordering::SeqCst));
        }
        status
    }

    /// Whether it is still running.
    pub fn running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a child has ended.
pub fn wait_for_exit(child: &mut Child, patience: Duration) -> ExitStatus {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be asked") {
            return status;
        }
        assert!(Instant::now() < deadline, "the process did not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Lines {
    /// The lines of a stream, from now on.
    pub fn gather(stream: impl Read + Send + 'static) -> Self {
        let lines = Lines::default();
        let gathered = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                gathered.0.lines.lock().expect("nobody panics with it").push(line);
            }
            gathered.0.ended.store(true, Ordering::SeqCst);
        });
        lines
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<String> {
        self.0.lines.lock().expect("nobody panics with it").clone()
    }

    /// Waits for a line.
    pub fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lines = self.all();
            if let Some(line) = lines.iter().find(|line| wanted(line)) {
                return line.clone();
            }
            assert!(Instant::now() < deadline, "no such line among {lines:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip([127, 0, 0, 1].into());
    }
    address
}

/// Connects from an address of this machine; all of 127.0.0.0/8 are.
pub fn connect_from(source: IpAddr, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(source, 0).into()).expect("an address of this machine");
    socket.connect_timeout(&address.into(), PATIENCE).expect("it listens");
    limited(socket.into())
}

/// Connects with a limit on every wait.
pub fn connect(address: SocketAddr) -> TcpStream {
    limited(TcpStream::connect_timeout(&address, PATIENCE).expect("it listens"))
}

fn limited(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
    stream
}
