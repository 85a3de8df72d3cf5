//! A bad end looks bad: every end of a tunnel but an orderly one reaches both sides as a reset (RFC 9293
//! §3.10.5), behind everything that had been received. A peer that took it for EOF would take half for the whole.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;
use std::time::Duration;

use socket2::{SockFilter, SockRef};
use socks5d::reactor::tcp_state::unacknowledged;
use support::metp::value;
use support::origin::{Origin, listen};
use support::proxy::{Builder, Proxy};
use support::socks::{connect_request, reset};
use support::{PATIENCE, eventually, noise, note, read_exactly, read_to_end, read_to_reset};

/// A tunnel of `alice`: its client and its server.
fn tunnel(proxy: &Proxy) -> (TcpStream, TcpStream) {
    let listener: TcpListener = listen([127, 0, 0, 1].into()).expect("loopback");
    let target = listener.local_addr().expect("bound");
    let client = support::socks::Client::new(proxy.socks()).logged_in("alice", "pw");
    let client = client.connected(target);
    let (server, _) = listener.accept().expect("the tunnel leads here");
    server.set_read_timeout(Some(PATIENCE)).expect("a socket");
    server.set_write_timeout(Some(PATIENCE)).expect("a socket");
    (client, server)
}

fn start(arguments: &[&str]) -> Proxy {
    Builder::default().args(["-u", "alice:pw"]).args(arguments).start()
}

/// Waits until the peer's kernel has all that was written.
fn until_acknowledged(stream: &TcpStream) {
    let queued = || unacknowledged(stream.as_fd()).expect("a socket");
    eventually("all is acknowledged", || queued() == 0);
}

/// What the proxy has counted as delivered, both ways.
fn delivered(proxy: &Proxy, bytes: u64) {
    eventually("all has passed", || proxy.metrics()[2] == bytes);
}

type Act = fn(&mut Proxy, &TcpStream);

/// Each way to end a tunnel from outside, with its reason in the log.
const ENDS: [(&str, &[&str], Act); 8] = [
    ("killed", &[], |proxy, client| {
        let mut admin = proxy.admin();
        let line = admin.connection_from(client).expect("it is open");
        assert_eq!(admin.command(&format!("KILL {}", value(&line, "id"))), "200 OK killed=1");
    }),
    ("killed", &[], |proxy, _| {
        assert_eq!(proxy.admin().command("KILL USER alice"), "200 OK killed=1");
    }),
    ("user-deleted", &[], |proxy, _| {
        assert_eq!(proxy.admin().command("DELETE-USER alice"), "200 OK");
    }),
    ("idle-timeout", &[], |proxy, _| {
        assert_eq!(proxy.admin().command("CONFIG SET idle-timeout 0.1"), "200 OK");
    }),
    ("shutdown", &["--grace", "0.1"], |proxy, _| proxy.signal(libc::SIGTERM)),
    ("shutdown", &["--grace", "60"], |proxy, _| proxy.signal(libc::SIGINT)),
    ("shutdown", &["--grace", "60"], |proxy, _| {
        proxy.signal(libc::SIGTERM);
        proxy.stderr.wait_for(|line| line.contains("closing down"));
        proxy.signal(libc::SIGTERM);
    }),
    ("shutdown", &["--grace", "60"], |proxy, _| {
        assert_eq!(proxy.admin().command("SHUTDOWN GRACE 0"), "200 OK");
    }),
];

/// Nobody has read anything yet when it comes.
#[test]
fn ends_from_outside_are_resets_behind_all_bytes() {
    for (reason, arguments, act) in ENDS {
        let mut proxy = start(arguments);
        let (mut client, mut server) = tunnel(&proxy);
        let (up, down) = (noise(20_000, 1), noise(30_000, 2));
        client.write_all(&up).expect("taken");
        server.write_all(&down).expect("taken");
        delivered(&proxy, 50_000);
        act(&mut proxy, &client);
        assert!(read_to_reset(&mut client) == down, "{reason}");
        assert!(read_to_reset(&mut server) == up, "{reason}");
        let line = proxy.stdout.wait_for(|_| true);
        assert!(
            line.ends_with(&format!("\t{reason}")) && line.contains("\t20000\t30000\t"),
            "{line}"
        );
    }
}

/// One direction had come to its end already, which stays an EOF; the other one is cut.
#[test]
fn a_half_closed_tunnel_ends_with_a_reset() {
    let proxy = start(&["--half-close-timeout", "0.3"]);
    for by_client in [true, false] {
        let (client, server) = tunnel(&proxy);
        let (mut ended, mut open) = if by_client { (client, server) } else { (server, client) };
        ended.write_all(b"all").expect("taken");
        open.write_all(b"half").expect("taken");
        support::socks::half_close(&ended);
        assert_eq!(read_to_end(&mut open), b"all");
        assert_eq!(read_to_reset(&mut ended), b"half");
    }
}

/// More than all buffers on the way hold; the reader is late and slow.
#[test]
fn a_reset_by_either_side_comes_behind_its_bytes() {
    let proxy = start(&["--linger-timeout", "600"]);
    for (by_client, reason) in [(true, "client-reset"), (false, "target-reset")] {
        let (client, server) = tunnel(&proxy);
        let (mut sender, mut reader) = if by_client { (client, server) } else { (server, client) };
        let sent = noise(3 << 20, 3);
        let expected = sent.clone();
        // What the sender's kernel holds is lost with its reset: that is not the proxy's doing.
        let sending = thread::spawn(move || {
            sender.write_all(&sent).expect("taken");
            until_acknowledged(&sender);
            reset(sender);
        });
        assert!(read_exactly(&mut reader, 100_000) == expected[..100_000]);
        let rest = read_to_reset(&mut reader);
        assert!(rest == expected[100_000..], "{} bytes and the end", rest.len() + 100_000);
        sending.join().expect("sent");
        proxy.stdout.wait_for(|line| line.ends_with(reason));
    }
}

/// HTTP/1.0: the answer ends with the connection, so only the kind of the end tells half of it from all.
#[test]
fn curl_does_not_take_half_an_answer_for_the_whole() {
    let origin = Origin::new(|mut stream| {
        read_exactly(&mut stream, 16);
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhalf of the ans").expect("taken");
        until_acknowledged(&stream);
        reset(stream);
    });
    let proxy = start(&[]);
    let url = format!("http://{}/", origin.address);
    let fetch = |through: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["-q", "--silent", "--max-time", "20"]).args(through).arg(&url);
        curl.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let done = curl.output().expect("curl is installed");
        (done.status.code(), done.stdout)
    };
    let through = format!("socks5h://alice:pw@{}", proxy.socks_address());
    let [directly, proxied] = [&[][..], &["--proxy", &through]].map(fetch);
    assert_eq!(directly, (Some(56), b"half of the ans".to_vec()));
    assert_eq!(proxied, directly);
}

/// The proxy is the one that closes the connection to the target. With FIN it would keep the port for a
/// minute, and clients that reset could use all ports up.
#[test]
fn resets_leave_no_port_in_time_wait() {
    let proxy = start(&[]);
    // An address of its own: other connections of this machine are in TIME-WAIT, too.
    let listener: TcpListener = listen([127, 0, 66, 66].into()).expect("loopback");
    let target = listener.local_addr().expect("bound");
    for _ in 0..30 {
        let client = support::socks::Client::new(proxy.socks()).logged_in("alice", "pw");
        let client = client.connected(target);
        let (mut server, _) = listener.accept().expect("the tunnel leads here");
        server.set_read_timeout(Some(PATIENCE)).expect("a socket");
        reset(client);
        assert_eq!(read_to_reset(&mut server), b"");
    }
    proxy.wait_until_idle();
    // "SLOT: LOCAL REMOTE STATE ...", where 06 is TIME-WAIT (proc_net_tcp).
    let remote = format!("4242007F:{:04X}", target.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let waiting = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(2) == Some(&remote.as_str()) && fields.get(3) == Some(&"06")
    };
    assert_eq!(table.lines().filter(waiting).count(), 0);
}

/// Lets everything that comes to this socket vanish, so that its peer gets no answer any more. A classic BPF
/// program of one instruction: BPF_RET | BPF_K with 0 bytes. `false`: the system does not let us, which a note
/// says.
#[must_use]
fn vanish(stream: &TcpStream) -> bool {
    match SockRef::from(stream).attach_filter(&[SockFilter::new(6, 0, 0, 0)]) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            note("no permission for a socket filter: peers that vanish were not tried");
            false
        }
        Err(error) => panic!("a socket: {error}"),
    }
}

/// Keepalive does not probe while bytes are under way, and the kernel repeats them for a quarter of an hour.
#[test]
fn a_peer_that_vanishes_with_bytes_under_way_is_found_out() {
    let proxy = start(&["--ack-timeout", "1", "--keepalive", "600"]);
    for (client_vanishes, reason) in [(true, "client-timeout"), (false, "target-timeout")] {
        let (mut client, mut server) = tunnel(&proxy);
        let (gone, left) =
            if client_vanishes { (&mut client, &mut server) } else { (&mut server, &mut client) };
        if !vanish(gone) {
            return;
        }
        left.write_all(b"into the void").expect("taken");
        assert_eq!(read_to_reset(left), b"");
        proxy.stdout.wait_for(|line| line.ends_with(reason));
    }
}

/// EOF is under way like any byte.
#[test]
fn a_peer_that_vanishes_before_an_eof_is_found_out() {
    let proxy = start(&["--ack-timeout", "1", "--keepalive", "600", "--half-close-timeout", "0"]);
    for (client_vanishes, reason) in [(true, "client-timeout"), (false, "target-timeout")] {
        let (mut client, mut server) = tunnel(&proxy);
        client.write_all(b"ping").expect("taken");
        assert_eq!(read_exactly(&mut server, 4), b"ping");
        let (gone, left) =
            if client_vanishes { (&mut client, &mut server) } else { (&mut server, &mut client) };
        // So long that nothing is left to be asked about.
        thread::sleep(Duration::from_secs(2));
        if !vanish(gone) {
            return;
        }
        support::socks::half_close(left);
        assert_eq!(read_to_reset(left), b"");
        proxy.stdout.wait_for(|line| line.ends_with(reason));
    }
}

/// A setting that acts at once acts on what is under way already.
#[test]
fn a_new_ack_timeout_acts_on_open_tunnels() {
    for before in ["0", "3600"] {
        let proxy = start(&["--ack-timeout", before, "--keepalive", "600"]);
        let (client, mut server) = tunnel(&proxy);
        if !vanish(&client) {
            return;
        }
        server.write_all(b"into the void").expect("taken");
        delivered(&proxy, 13);
        assert_eq!(proxy.admin().command("CONFIG SET ack-timeout 1"), "200 OK");
        assert_eq!(read_to_reset(&mut server), b"");
        proxy.stdout.wait_for(|line| line.ends_with("\tclient-timeout"));
    }
}

/// The send buffer takes bytes for a peer that has vanished: that is no sign of life.
#[test]
fn bytes_for_a_peer_that_has_vanished_do_not_keep_it_alive() {
    let proxy = start(&["--ack-timeout", "1", "--idle-timeout", "3"]);
    let (client, mut server) = tunnel(&proxy);
    if !vanish(&client) {
        return;
    }
    eventually("sending fails", || {
        thread::sleep(Duration::from_millis(50));
        server.write_all(b"x").is_err()
    });
    proxy.stdout.wait_for(|line| line.ends_with("\tclient-timeout"));
}

/// A peer that only does not read answers the kernel's probes, and stays. TCP_USER_TIMEOUT would end it.
#[test]
fn a_peer_that_pauses_is_not_taken_for_one_that_has_vanished() {
    let proxy = start(&["--ack-timeout", "0.5", "--keepalive", "1"]);
    for client_pauses in [true, false] {
        let (client, server) = tunnel(&proxy);
        let (mut reader, mut sender) =
            if client_pauses { (client, server) } else { (server, client) };
        let sent = noise(16 << 20, 4);
        let expected = sent.clone();
        let sending = thread::spawn(move || {
            sender.write_all(&sent).expect("taken");
            sender
        });
        // Time itself is what is tested here: several times what a vanished peer has.
        thread::sleep(Duration::from_secs(3));
        assert!(read_exactly(&mut reader, expected.len()) == expected);
        drop(sending.join().expect("sent"));
        assert_eq!(read_to_end(&mut reader), b"");
    }
}

/// Subscribers, too: events that wait for them have nobody to take them.
#[test]
fn a_metp_client_that_vanishes_is_found_out() {
    let proxy = start(&["--ack-timeout", "1", "--keepalive", "0", "--subscriber-timeout", "0"]);
    let stream = support::proxy::connect(proxy.metp_address());
    let mut gone = support::metp::Metp::new(stream.try_clone().expect("a descriptor"));
    gone = gone.logged_in("admin", "1234");
    assert_eq!(gone.command("SUBSCRIBE auth"), "200 OK");
    let mut admin = proxy.admin();
    assert_eq!(admin.info("subscribers"), "1");
    if !vanish(&stream) {
        return;
    }
    // A login is an event for the subscriber.
    drop(proxy.client());
    eventually("it is gone", || admin.info("subscribers") == "0");
}

/// A client that is gone while its target is being connected leaves nothing that looks like an empty tunnel.
#[test]
fn a_client_that_resets_at_once_is_a_reset_for_the_target() {
    let proxy = start(&[]);
    let listener: TcpListener = listen([127, 0, 0, 1].into()).expect("loopback");
    let target: SocketAddr = listener.local_addr().expect("bound");
    for _ in 0..20 {
        let mut client = support::socks::Client::new(proxy.socks()).logged_in("alice", "pw");
        client.say(&connect_request(target));
        reset(client.stream);
        // Whether the connection was made or not depends on who was faster; an EOF must not come.
        listener.set_nonblocking(true).expect("a socket");
        proxy.wait_until_idle();
        if let Ok((mut server, _)) = listener.accept() {
            server.set_nonblocking(false).expect("a socket");
            server.set_read_timeout(Some(PATIENCE)).expect("a socket");
            assert_eq!(read_to_reset(&mut server), b"");
        }
    }
}
