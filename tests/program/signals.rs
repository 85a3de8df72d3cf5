//! Signals that are meant for somebody else, and the terminal that goes away.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use mio::unix::pipe;
use socks5d::server::{Config, Server};
use support::origin::Origin;
use support::proxy::{Lines, Proxy, connect, send_signal, wait_for_exit};
use support::socks::{Client, half_close};
use support::terminal::Terminal;
use support::{PATIENCE, binary, eventually, read_exactly, read_to_end};

fn echoes(tunnel: &mut TcpStream) {
    tunnel.write_all(b"still here").expect("taken");
    assert_eq!(read_exactly(tunnel, 10), b"still here");
}

#[test]
fn sighup_and_sigpipe_are_survived() {
    let (mut proxy, echo) = (Proxy::start(), Origin::echo());
    let mut tunnel = proxy.tunnel(echo.address);
    for _ in 0..20 {
        proxy.signal(libc::SIGHUP);
        proxy.signal(libc::SIGPIPE);
        echoes(&mut tunnel);
    }
    proxy.stderr.wait_for(|line| line.contains("SIGHUP"));
    assert!(proxy.running());
    echoes(&mut proxy.tunnel(echo.address));
}

/// Those whose default is to end or to stop a process, and that others send by mistake: an operator who knows
/// another daemon, a timer or a descriptor that was inherited, a terminal.
#[test]
fn stray_signals_do_no_harm() {
    let (mut proxy, echo) = (Proxy::start(), Origin::echo());
    let mut tunnel = proxy.tunnel(echo.address);
    let named = [
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGIO,
        libc::SIGPWR,
        libc::SIGSTKFLT,
        libc::SIGXFSZ,
        libc::SIGPIPE,
        libc::SIGHUP,
        libc::SIGURG,
        libc::SIGWINCH,
        libc::SIGCHLD,
        libc::SIGCONT,
        libc::SIGTTIN,
        libc::SIGTTOU,
    ];
    for signal in named.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
        proxy.signal(signal);
        echoes(&mut tunnel);
        assert!(proxy.running(), "signal {signal}");
    }
    for name in ["SIGHUP", "SIGUSR1", "SIGUSR2"] {
        proxy.stderr.wait_for(|line| line.ends_with(&format!("INFO  {name}: nothing to do")));
    }
    echoes(&mut proxy.tunnel(echo.address));
}

/// From the first moment on: a signal that comes while the program starts does not end it either.
#[test]
fn stray_signals_do_no_harm_at_the_start() {
    for _ in 0..20 {
        let mut child = program(&[]).stderr(Stdio::piped()).spawn().expect("it starts");
        eventually("it has ignored the first of them, or has ended", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
            let status = status.expect("it has not been waited for");
            let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t"));
            let mask = ignored.and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
            // Real-time signals are the last ones that it ignores.
            mask >> (libc::SIGRTMAX() - 1) & 1 == 1 || status.contains("State:\tZ")
        });
        for signal in [libc::SIGUSR1, libc::SIGUSR2, libc::SIGALRM, libc::SIGRTMIN()] {
            send_signal(&child, signal);
        }
        let (_stderr, socks) = listening(&mut child);
        assert!(TcpStream::connect(socks).is_ok());
        send_signal(&child, libc::SIGTERM);
        assert_eq!(wait_for_exit(&mut child, PATIENCE).code(), Some(0));
    }
}

/// SIGQUIT is what Ctrl-\ sends: an end at once, with the lines of the access log.
#[test]
fn sigquit_is_at_once() {
    let (mut proxy, echo) = (Proxy::with(&["--grace", "1000"]), Origin::echo());
    let mut tunnel = proxy.tunnel(echo.address);
    echoes(&mut tunnel);
    proxy.signal(libc::SIGQUIT);
    assert_eq!(proxy.wait().code(), Some(0));
    proxy.stdout.wait_for(|line| line.ends_with("\tshutdown"));
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("socks5d"));
    command.args(["-l", "127.0.0.1", "-p", "0", "-P", "0"]).args(arguments);
    command.env("PROXY_CTRL_SUPERUSER", "admin:1234").env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// What a program says on stderr, and where it listens for SOCKS.
fn listening(child: &mut Child) -> (Lines, SocketAddr) {
    let stderr = Lines::gather(child.stderr.take().expect("piped"));
    stderr.wait_for(|line| line.contains("service=metp"));
    let line = stderr.wait_for(|line| line.contains("service=socks"));
    let address = line.split("address=").nth(1).and_then(|address| address.parse().ok());
    (stderr, address.expect("an address"))
}

/// The program on a terminal of its own, with what it says in a pipe.
struct OnTerminal {
    /// `None` once it is gone.
    terminal: Option<Terminal>,
    child: Child,
    stderr: Lines,
    socks: SocketAddr,
}

impl OnTerminal {
    fn start(mut command: Command) -> Self {
        let terminal = Terminal::default();
        terminal.control(&mut command);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let (stderr, socks) = listening(&mut child);
        OnTerminal { terminal: Some(terminal), child, stderr, socks }
    }

    fn tunnel(&self, echo: &Origin) -> TcpStream {
        Client::new(connect(self.socks)).logged_in("admin", "1234").connected(echo.address)
    }

    /// Closes the window.
    fn lose_terminal(&mut self) {
        self.terminal = None;
    }

    /// Waits until it has said a line that ends so, so many times.
    fn says(&self, end: &str, times: usize) {
        let said = || self.stderr.all().iter().filter(|line| line.ends_with(end)).count();
        eventually(end, || said() >= times);
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The window is closed: nobody will ever read what is said there. It ends as with SIGTERM: open tunnels have the
/// grace.
#[test]
fn without_its_terminal_it_closes_down_with_grace() {
    let echo = Origin::echo();
    let mut program = OnTerminal::start(program(&["--grace", "600"]));
    let mut tunnel = program.tunnel(&echo);
    program.lose_terminal();
    program.says("INFO  SIGHUP: the terminal is gone", 1);
    eventually("new connections are refused", || TcpStream::connect(program.socks).is_err());
    echoes(&mut tunnel);
    // Whoever else passes SIGHUP on does not cut the grace short.
    send_signal(&program.child, libc::SIGHUP);
    echoes(&mut tunnel);
    half_close(&tunnel);
    assert_eq!(read_to_end(&mut tunnel), b"");
    assert_eq!(wait_for_exit(&mut program.child, PATIENCE).code(), Some(0));
}

/// All of its streams were on the terminal, too: writing fails, and that is all.
#[test]
fn with_all_streams_on_the_terminal_it_ends() {
    let mut terminal = Terminal::default();
    let mut command = program(&["--grace", "0.1"]);
    terminal.attach(&mut command);
    let mut child = command.spawn().expect("it starts");
    drop(command);
    eventually("it listens", || terminal.screen().contains("service=metp"));
    drop(terminal);
    assert_eq!(wait_for_exit(&mut child, PATIENCE).code(), Some(0));
}

/// SIGHUP from somebody else, with a terminal that is there: noted, and nothing else, also at the second look. And
/// it is the terminal that it was started on which counts later.
#[test]
fn with_its_terminal_it_takes_sighup_for_a_note() {
    let echo = Origin::echo();
    let mut program = OnTerminal::start(program(&["--grace", "600"]));
    let mut tunnel = program.tunnel(&echo);
    for times in 1..=3 {
        send_signal(&program.child, libc::SIGHUP);
        program.says("INFO  SIGHUP: nothing to do", times);
        echoes(&mut tunnel);
        echoes(&mut program.tunnel(&echo));
    }
    program.lose_terminal();
    program.says("INFO  SIGHUP: the terminal is gone", 1);
    drop(tunnel);
    assert_eq!(wait_for_exit(&mut program.child, PATIENCE).code(), Some(0));
}

/// The shell on the terminal is what the terminal belongs to: with it goes the terminal, a moment after the signal.
#[test]
fn behind_a_shell_it_ends_with_the_terminal() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "\"$0\" \"$@\" & wait"]).arg(binary("socks5d"));
    shell.args(["-l", "127.0.0.1", "-p", "0", "-P", "0", "--grace", "0.1"]);
    shell.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null());
    shell.env("PROXY_CTRL_SUPERUSER", "admin:1234");
    let mut program = OnTerminal::start(shell);
    program.lose_terminal();
    program.says("INFO  SIGHUP: the terminal is gone", 1);
    program.stderr.wait_for(|line| line.contains("INFO  served: "));
}

/// nohup(1) leaves SIGHUP ignored: then it is to survive.
#[test]
fn under_nohup_it_outlives_its_terminal() {
    let echo = Origin::echo();
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP && exec \"$0\" \"$@\""]).arg(binary("socks5d"));
    shell.args(["-l", "127.0.0.1", "-p", "0", "-P", "0"]).env_remove("RUST_LOG");
    shell.env("PROXY_CTRL_SUPERUSER", "admin:1234").stdin(Stdio::null()).stdout(Stdio::null());
    let mut program = OnTerminal::start(shell);
    let mut tunnel = program.tunnel(&echo);
    program.lose_terminal();
    program.says("INFO  SIGHUP: nothing to do", 1);
    echoes(&mut tunnel);
    echoes(&mut program.tunnel(&echo));
}

/// Without a terminal at the start there is none that could go away.
#[test]
fn without_a_terminal_sighup_is_a_note() {
    let mut command = program(&[]);
    support::terminal::without_terminal(&mut command);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let (stderr, socks) = listening(&mut child);
    for times in 1..=2 {
        send_signal(&child, libc::SIGHUP);
        let noted = |line: &&String| line.ends_with("INFO  SIGHUP: nothing to do");
        eventually("it is noted", || stderr.all().iter().filter(noted).count() == times);
        assert!(TcpStream::connect(socks).is_ok());
    }
    send_signal(&child, libc::SIGTERM);
    assert_eq!(wait_for_exit(&mut child, PATIENCE).code(), Some(0));
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
