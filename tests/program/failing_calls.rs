//! Calls that fail again and again, whatever the error says: the loop goes on, or ends, but never stays with them.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use mio::unix::pipe;
use socks5d::server::{Config, Server};
use support::proxy::{connect, send_signal, wait_for_exit};
use support::socks::{CHOSEN, Client, HELLO};
use support::{PATIENCE, binary, read_the_end};

/// socks5d with calls that fail, by strace(1); its own process is the child. `None` where there is no strace that
/// can do this.
struct Injected {
    child: Child,
    socks: SocketAddr,
    lines: mpsc::Receiver<String>,
}

impl Injected {
    fn start(inject: &str) -> Option<Self> {
        let with = |program: &std::path::Path| {
            let mut command = Command::new("strace");
            command.args(["-D", "-q", "-o", "/dev/null", "-e", "signal=none"]);
            command.args(["-e", &format!("inject={inject}")]).arg(program);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        if !with("true".as_ref()).status().is_ok_and(|status| status.success()) {
            println!("skipped: no strace here that injects {inject}");
            return None;
        }
        let mut command = with(&binary("socks5d"));
        command.args(["-l", "127.0.0.1", "-p", "0", "-P", "0", "-u", "alice:secret"]);
        command.env_remove("RUST_LOG").stderr(Stdio::piped());
        let mut child = command.spawn().expect("it has been tried");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        let mut server = Injected { child, socks: ([0; 4], 0).into(), lines };
        let line = server.wait_for("service=socks address=");
        let (_, address) = line.split_once("address=").expect("it was found by that");
        server.socks = address.parse().expect("an address");
        Some(server)
    }

    fn wait_for(&self, part: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("no line with {part:?}: {error}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    fn ends_by_sigterm(mut self) {
        send_signal(&self.child, libc::SIGTERM);
        let status = wait_for_exit(&mut self.child, PATIENCE);
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// accept(2): "the next connection has nothing to do with it", unless it is the same each time.
#[test]
fn accept_that_always_fails_makes_nothing_deaf() {
    for error in ["ECONNABORTED", "EPROTO", "EPERM", "ENETDOWN", "EINTR", "EMFILE", "EBADF"] {
        let Some(server) = Injected::start(&format!("accept4:error={error}")) else { return };
        let _client = connect(server.socks);
        server.wait_for("cannot accept connections for now");
        server.ends_by_sigterm();
    }
}

#[test]
fn a_client_behind_many_lost_connections_gets_in() {
    let Some(server) = Injected::start("accept4:error=ECONNABORTED:when=1..600") else { return };
    Client::new(connect(server.socks)).say(HELLO).hears(CHOSEN);
    server.ends_by_sigterm();
}

/// signal(7): a call on a socket that does not block is never interrupted, so one that always is has failed.
#[test]
fn calls_that_are_always_interrupted_end_the_session() {
    for call in ["recvfrom", "sendto"] {
        let Some(server) = Injected::start(&format!("{call}:error=EINTR")) else { return };
        let mut client = Client::new(connect(server.socks));
        client.say(HELLO);
        read_the_end(&mut client.stream);
        server.ends_by_sigterm();
    }
}

#[test]
fn a_wait_that_is_always_interrupted_ends_the_process() {
    let inject = "?epoll_wait,?epoll_pwait:error=EINTR";
    let Some(mut server) = Injected::start(inject) else { return };
    server.wait_for("the event loop failed");
    assert_eq!(wait_for_exit(&mut server.child, PATIENCE).code(), Some(1));
}

/// More signals than are taken in one turn, and the one that counts behind them.
#[test]
fn a_signal_behind_very_many_is_heard() {
    let (mut sender, receiver) = pipe::new().expect("a pipe");
    let byte = |signal: i32| u8::try_from(signal).expect("signals are small");
    sender.write_all(&[byte(libc::SIGHUP); 60_000]).expect("a pipe holds 65536 bytes");
    sender.write_all(&[byte(libc::SIGINT)]).expect("a pipe holds 65536 bytes");
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let config = Config { signals: Some(receiver), ..Config::default() };
        tell.send(Server::bind(config).and_then(Server::run).is_ok())
    });
    assert_eq!(told.recv_timeout(PATIENCE), Ok(true));
}
