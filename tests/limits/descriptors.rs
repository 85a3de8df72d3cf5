//! Few descriptors, and inherited ones: a client that is let in gets a tunnel, an administrator always gets in,
//! nothing spins.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::descriptors::Descriptors;
use support::metp::Metp;
use support::origin::{Origin, listen};
use support::proxy::{Builder, Proxy, connect, wait_for_exit};
use support::socks::{Client, HELLO, connect_request, credentials};
use support::{PATIENCE, SOON, binary, eventually, exchange, read_exactly};

use super::clients::{connect_many, echoes, tunnel_to, whole_handshake};

fn admin_gets_in(proxy: &Proxy) -> Metp {
    let began = Instant::now();
    let admin = proxy.admin();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    admin
}

/// Seven descriptors for each child of this shell, besides the standard streams.
const INHERIT: &str = "exec 3<&0 4<&0 5<&0 6<&0 7<&0 8<&0 9<&0";

/// Whoever is let in gets a tunnel, although a quarter of the descriptors was taken before the start.
#[test]
fn what_the_parent_has_left_open_is_not_promised() {
    // 16 for the process itself, 4 for METP, two for each tunnel.
    for (limits, tunnels) in
        [("-n 40", 10), ("-n 40 && exec 3<&0 4<&0 5<&0 6<&0 7<&0 8<&0 9<&0", 6)]
    {
        let builder = Builder::default().limits(limits).args(["--max-connections", "1000"]);
        let (proxy, echo) = (builder.start(), Origin::echo());
        let mut admin = proxy.admin();
        let limit: usize = admin.info("connections-limit").parse().expect("a number");
        // The parent of this test may have left some open, too.
        assert!((1..=tunnels).contains(&limit), "{limit} with {limits}");
        assert_eq!(admin.info("descriptors-limit"), "40");
        let all = [HELLO, &credentials(b"admin", b"1234")[..], &connect_request(echo.address)[..]];
        let knock = |_| {
            let mut stream = connect(proxy.socks_address());
            stream.write_all(&all.concat()).expect("taken");
            stream
        };
        let mut clients: Vec<TcpStream> = (0..limit + 5).map(knock).collect();
        eventually("it is full", || admin.metrics()[1] == limit as u64);
        // Three more administrators find the place that is kept for them.
        let _others = [proxy.admin(), proxy.admin(), proxy.admin()];
        while !clients.is_empty() {
            assert!(admin.metrics()[1] <= limit as u64);
            let mut tunnel = clients.remove(0);
            assert_eq!(read_exactly(&mut tunnel, 14)[..6], [5, 2, 1, 0, 5, 0], "{limits}");
            exchange(&mut tunnel, 100);
        }
        assert!(proxy.stderr.all().iter().all(|line| !line.contains("os error")));
    }
}

/// The setting, or what the descriptors allow, whichever is less.
#[test]
fn the_limit_that_is_shown_is_the_one_that_admits() {
    let builder = Builder::default().limits("-n 40").args(["--max-connections", "3"]);
    let proxy = builder.start();
    let mut admin = proxy.admin();
    assert_eq!(admin.info("connections-limit"), "3");
    admin.set("max-connections", 1_000_000);
    let affordable: usize = admin.info("connections-limit").parse().expect("a number");
    assert!((1..=10).contains(&affordable), "{affordable}");
    assert_eq!(admin.setting("max-connections"), "1000000");
}

/// With too few it says so, in one line, before it serves anybody.
#[test]
fn too_few_descriptors_are_no_start() {
    for (limits, least) in
        [("ulimit -n 21".to_owned(), 22), (format!("ulimit -n 28 && {INHERIT}"), 29)]
    {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{limits} && exec \"$0\" -p 0 -P 0")]).arg(binary("socks5d"));
        shell.env_remove("PROXY_CTRL_SUPERUSER").env_remove("RUST_LOG").stdin(Stdio::null());
        shell.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = shell.spawn().expect("there is a shell");
        let status = wait_for_exit(&mut child, PATIENCE);
        let (mut stdout, mut said) = (String::new(), String::new());
        child.stdout.take().expect("piped").read_to_string(&mut stdout).expect("it has ended");
        child.stderr.take().expect("piped").read_to_string(&mut said).expect("it has ended");
        assert_eq!((status.code(), stdout.as_str()), (Some(1), ""));
        assert!(said.starts_with("socks5d: too few descriptors: the limit is 2"), "{said:?}");
        assert_eq!(said.matches('\n').count(), 1, "{said:?}");
        let needed = said.split(", and ").nth(1).and_then(|rest| rest.split(' ').next());
        let needed: usize = needed.and_then(|number| number.parse().ok()).expect("a number");
        assert!(needed >= least, "{said:?}");
    }
}

/// 500 clients that want tunnels at a process with 64 descriptors.
fn is_full_and_recovers(arguments: &[&str], said: impl Fn(SocketAddr) -> Vec<u8>) {
    let Some(_descriptors) = Descriptors::keep(2000, "500 clients at a time") else { return };
    let proxy = Builder::default().limits("-n 64").args(arguments).start();
    let echo = Origin::echo();
    let mut kept: Vec<TcpStream> = (0..5).map(|_| proxy.tunnel(echo.address)).collect();
    let said = said(echo.address);
    let clients = connect_many(proxy.socks_address(), 500, &said);
    let full = || proxy.descriptors() >= 30;
    eventually("it is full", full);
    // An administrator gets in although every connection there can be is there.
    let mut admin = admin_gets_in(&proxy);
    assert!(admin.metrics()[1] <= 24);
    kept.iter_mut().for_each(echoes);
    proxy.wait_until_at_rest();
    admin.metrics();
    kept.iter_mut().for_each(echoes);
    assert!(proxy.descriptors() <= 64);
    let lines = proxy.stderr.all();
    let episodes = lines.iter().filter(|line| line.contains(" WARN ")).count();
    assert!(episodes <= 1, "one line an episode: {lines:#?}");
    drop(clients);
    let began = Instant::now();
    echoes(&mut proxy.tunnel(echo.address));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    kept.iter_mut().for_each(echoes);
    drop(kept);
    eventually("nothing is left", || admin.metrics()[1] == 0);
}

#[test]
fn hundreds_of_silent_clients_find_few_descriptors() {
    is_full_and_recovers(&["--handshake-timeout", "0"], |_| Vec::new());
}

#[test]
fn hundreds_of_tunnels_find_few_descriptors() {
    is_full_and_recovers(&[], whole_handshake);
}

#[test]
fn hundreds_of_tunnels_find_a_limit_that_descriptors_do_not_allow() {
    is_full_and_recovers(&["--max-connections", "1000"], whole_handshake);
}

/// A place that comes free is taken at once by the one who waits: not only when everybody has left.
#[test]
fn a_descriptor_that_comes_free_is_used_within_a_second() {
    let (proxy, echo) = (Builder::default().limits("-n 64").start(), Origin::echo());
    let mut all = connect_many(proxy.socks_address(), 150, &whole_handshake(echo.address));
    let began = Instant::now();
    while !all.is_empty() {
        // In order of arrival; each finds the place of one before it.
        let mut tunnel = all.remove(0);
        assert_eq!(read_exactly(&mut tunnel, 14)[..6], [5, 2, 1, 0, 5, 0]);
        echoes(&mut tunnel);
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// METP sessions take descriptors away from SOCKS, and whoever is let in is let in with both of its own:
/// no request ever fails for want of one.
#[test]
fn what_has_been_promised_is_there() {
    for sessions in [0, 1, 7, 20] {
        let builder = Builder::default().limits("-n 64").args(["--max-connections", "1000"]);
        let (proxy, echo) = (builder.start(), Origin::echo());
        let mut admins: Vec<Metp> = (0..sessions).map(|_| proxy.admin()).collect();
        let mut all = connect_many(proxy.socks_address(), 40, &whole_handshake(echo.address));
        // More of METP meanwhile, which log in or do not.
        let _strangers = connect_many(proxy.metp_address(), 40, b"HELLO METP/1.0\n");
        while !all.is_empty() {
            let mut tunnel = all.remove(0);
            assert_eq!(read_exactly(&mut tunnel, 14)[..6], [5, 2, 1, 0, 5, 0], "{sessions}");
        }
        for admin in &mut admins {
            admin.metrics();
        }
        assert!(proxy.stderr.all().iter().all(|line| !line.contains("os error")));
    }
}

/// Logged in and still without a request: their second descriptors are not given to anybody else.
#[test]
fn a_promise_is_kept_while_its_request_is_awaited() {
    let (proxy, echo) = (Builder::default().limits("-n 64").start(), Origin::echo());
    let mut tunnels: Vec<TcpStream> = (0..10).map(|_| proxy.tunnel(echo.address)).collect();
    let mut waiting: Vec<Client> = (0..10).map(|_| proxy.client()).collect();
    let mut admins = Vec::new();
    loop {
        let mut stream = connect(proxy.metp_address());
        stream.write_all(b"HELLO METP/1.0\nAUTH admin 1234\n").expect("taken");
        stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a socket");
        match stream.read(&mut [0; 31]) {
            Ok(_) => admins.push(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        assert!(admins.len() < 64, "there are no more descriptors");
    }
    assert!(!admins.is_empty());
    for client in &mut waiting {
        client.stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let (code, _) = client.say(&connect_request(echo.address)).reply();
        assert_eq!(code, 0);
        echoes(&mut client.stream);
    }
    tunnels.iter_mut().for_each(echoes);
}

/// Strangers at METP cannot take the descriptors that SOCKS lives on.
#[test]
fn strangers_at_metp_leave_descriptors_to_socks() {
    let builder = Builder::default().limits("-n 64").args(["--metp-login-timeout", "0"]);
    let (proxy, echo) = (builder.start(), Origin::echo());
    let _strangers = connect_many(proxy.metp_address(), 100, b"");
    for _ in 0..10 {
        let began = Instant::now();
        echoes(&mut proxy.tunnel(echo.address));
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
}

#[test]
fn the_soft_limit_of_descriptors_is_raised() {
    let Some(_descriptors) = Descriptors::keep(1500, "300 tunnels under a soft limit of 256")
    else {
        return;
    };
    let proxy = Builder::default().limits("-Sn 256").start();
    let listener = listen([127, 0, 0, 1].into()).expect("loopback");
    let _ends: Vec<_> = (0..300).map(|_| tunnel_to(&proxy, &listener)).collect();
    assert!(proxy.descriptors() > 600);
    assert_eq!(proxy.metrics()[1], 300);
}

/// Without descriptors left it neither dies nor spins, and goes on when there are some again.
fn survives_exhaustion(proxy: &mut Proxy, echo: SocketAddr) {
    let all_at_once =
        [HELLO, &credentials(b"admin", b"1234")[..], &connect_request(echo)[..]].concat();
    let knock = || {
        let mut client = proxy.socks();
        client.write_all(&all_at_once).expect("room in the backlog");
        client
    };
    let clients: Vec<TcpStream> = (0..200).map(|_| knock()).collect();
    proxy
        .stderr
        .wait_for(|line| line.contains("limit of connections") || line.contains("os error 24"));
    proxy.wait_until_at_rest();
    assert!(proxy.running());
    assert!(proxy.stderr.all().len() < 20, "{:#?}", proxy.stderr.all());
    drop(clients);
    let mut tunnel = proxy.tunnel(echo);
    tunnel.write_all(b"alive").expect("taken");
    assert_eq!(read_exactly(&mut tunnel, 5), b"alive");
}

#[test]
fn few_descriptors_limit_the_connections() {
    let (mut proxy, echo) = (Builder::default().limits("-n 64").start(), Origin::echo());
    survives_exhaustion(&mut proxy, echo.address);
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let builder = Builder::default().limits("-n 64").args(["--max-connections", "1000"]);
    let (mut proxy, echo) = (builder.start(), Origin::echo());
    survives_exhaustion(&mut proxy, echo.address);
}
