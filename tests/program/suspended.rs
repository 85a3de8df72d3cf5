//! A process that is stopped and goes on.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use support::origin::listen;
use support::proxy::Builder;
use support::socks::{Client, HELLO, connect_request, credentials};
use support::{PATIENCE, eventually, read_exactly};

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
    proxy.signal(libc::SIGSTOP);
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
    proxy.signal(libc::SIGCONT);
    for (number, (client, server)) in tunnels.iter_mut().enumerate() {
        let to = if number % 2 == 0 { server } else { client };
        assert_eq!(read_exactly(to, 6), b"waited");
    }
    handshake.hears(b"\x01\x00");
    assert_eq!(handshake.reply().0, 0);
    admin.hears("200 OK\n");
    stranger.hears("200 Welcome to METP/1.0\n200 OK\n");
}
