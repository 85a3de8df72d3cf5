//! A machine that is not kind: a full disk, a process that is stopped and goes on.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use support::origin::{Origin, closed_port, listen};
use support::proxy::{Builder, connect, wait_for_exit};
use support::socks::{Client, HELLO, connect_request, credentials};
use support::{PATIENCE, binary, eventually, read_exactly};

fn signal(pid: u32, signal: i32) {
    let pid = i32::try_from(pid).expect("pids are small");
    // SAFETY: kill takes two numbers; the process is our child and has not been waited for.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// Nothing that is written to the access log can be kept. Tunnels go on, nothing spins, nothing grows, and
/// the end is a good one.
#[test]
fn a_full_disk_under_the_access_log_stops_nobody() {
    let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux");
    let mut child = Command::new(binary("socks5d"))
        .args(["-l", "127.0.0.1", "-p", "0", "-P", "0"])
        .env("PROXY_CTRL_SUPERUSER", "admin:1234")
        .env("RUST_LOG", "info")
        .stdin(Stdio::null())
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("it says where it listens");
    let (_, address) = line.trim_end().split_once("address=").expect("an address");
    let address: SocketAddr = address.parse().expect("an address");
    let reader = thread::spawn(move || {
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).expect("text");
        rest
    });
    let (echo, (_held, closed)) = (Origin::echo(), closed_port());
    for _ in 0..300 {
        let mut client = Client::new(connect(address)).logged_in("admin", "1234");
        client.say(&connect_request(closed)).refused(5);
    }
    let mut tunnel =
        Client::new(connect(address)).logged_in("admin", "1234").connected(echo.address);
    tunnel.write_all(b"not blocked").expect("taken");
    assert_eq!(read_exactly(&mut tunnel, 11), b"not blocked");
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("a name").split(' ').collect();
        [11, 12]
            .map(|index: usize| fields[index].parse::<u64>().expect("a number"))
            .iter()
            .sum::<u64>()
    };
    let before = ticks();
    // This is a measurement, not a wait: what it costs to have lines that nobody takes.
    thread::sleep(Duration::from_millis(500));
    assert!(ticks() - before <= 3, "it writes again and again");
    signal(child.id(), libc::SIGTERM);
    drop(tunnel);
    assert_eq!(wait_for_exit(&mut child, PATIENCE).code(), Some(0));
    let said = reader.join().expect("read");
    assert!(said.lines().count() < 10, "{said}");
    assert_eq!(said.matches("the access log cannot be written").count(), 1, "told once: {said}");
}

/// Each of the deadlines passes while the process is stopped and what it waits for is there. When the process
/// goes on it sees what has come before it asks whether time is up.
#[test]
fn a_process_that_was_stopped_sees_first_what_has_come() {
    const TIME: Duration = Duration::from_millis(2500);
    let names = ["idle-timeout", "handshake-timeout", "metp-login-timeout", "metp-idle-timeout"];
    let proxy = Builder::default().start();
    let listener: TcpListener = listen([127, 0, 0, 1].into()).expect("loopback");
    let target = listener.local_addr().expect("bound");
    let open = |_| {
        let client = proxy.tunnel(target);
        let (server, _) = listener.accept().expect("the tunnel leads here");
        server.set_read_timeout(Some(PATIENCE)).expect("a socket");
        (client, server)
    };
    let mut tunnels: Vec<(TcpStream, TcpStream)> = (0..4).map(open).collect();
    let (mut admin, mut stranger) = (proxy.admin(), proxy.metp());
    let mut handshake = Client::new(proxy.socks());
    handshake.say(HELLO).hears(b"\x05\x02");
    // Only now, so that a busy machine has all the time it needs for what came before.
    for (client, server) in &mut tunnels {
        client.write_all(b"busy").expect("taken");
        assert_eq!(read_exactly(server, 4), b"busy");
    }
    for name in names {
        admin.set(name, TIME.as_secs_f64());
    }
    let state = |letter: char| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid()));
        stat.expect("it runs").contains(&format!(") {letter} "))
    };
    // It waits for events, and is stopped in the middle of that.
    let mut asleep = 0;
    eventually("it has nothing to do", || {
        asleep = if state('S') { asleep + 1 } else { 0 };
        asleep == 10
    });
    signal(proxy.pid(), libc::SIGSTOP);
    eventually("it is stopped", || state('T'));
    for (number, (client, server)) in tunnels.iter_mut().enumerate() {
        let from = if number % 2 == 0 { client } else { server };
        from.write_all(b"waited").expect("taken");
    }
    handshake.say(&credentials(b"admin", b"1234")).say(&connect_request(target));
    admin.say("GET_METRICS\n");
    stranger.say("HELLO METP/1.0\nAUTH admin 1234\n");
    // Time itself is what is tested here: all deadlines pass.
    thread::sleep(TIME + Duration::from_millis(200));
    signal(proxy.pid(), libc::SIGCONT);
    for (number, (client, server)) in tunnels.iter_mut().enumerate() {
        let to = if number % 2 == 0 { server } else { client };
        assert_eq!(read_exactly(to, 6), b"waited");
    }
    handshake.hears(b"\x01\x00");
    assert_eq!(handshake.reply().0, 0);
    admin.hears("200 OK\n");
    stranger.hears("200 Welcome to METP/1.0\n200 OK\n");
}
