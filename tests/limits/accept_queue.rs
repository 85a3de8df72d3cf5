//! Clients that wait in the accept queue: because there is no room for them yet, or because accept(2) fails.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::origin::Origin;
use support::proxy::{Proxy, connect};
use support::read_exactly;
use support::socks::{CHOSEN, Client, HELLO, credentials};
use support::strace::Injected;

/// Clients beyond the limit wait in the accept queue, and get in as soon as a connection ends.
#[test]
fn at_the_limit_of_connections_others_wait() {
    let (proxy, echo) = (Proxy::with(&["--max-connections", "3"]), Origin::echo());
    let mut inside: Vec<TcpStream> = (0..3).map(|_| proxy.tunnel(echo.address)).collect();
    let mut waiting: Vec<Client> = (0..8).map(|_| Client::new(proxy.socks())).collect();
    for client in &mut waiting {
        client.say(HELLO);
    }
    proxy.stderr.wait_for(|line| line.contains("the limit of connections is reached"));
    assert_eq!(proxy.metrics()[..2], [3, 3]);
    for client in &mut waiting {
        client.stream.set_nonblocking(true).expect("a socket");
        let nothing = client.stream.read(&mut [0]).expect_err("nobody has greeted it");
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        client.stream.set_nonblocking(false).expect("a socket");
    }
    // Those inside are not disturbed, and METP has a limit of its own.
    for tunnel in &mut inside {
        tunnel.write_all(b"still").expect("taken");
        assert_eq!(read_exactly(tunnel, 5), b"still");
    }
    let start = Instant::now();
    for mut client in waiting {
        drop(inside.pop());
        client.hears(b"\x05\x02").say(&credentials(b"admin", b"1234")).hears(b"\x01\x00");
        let mut tunnel = client.connected(echo.address);
        tunnel.write_all(b"in").expect("taken");
        assert_eq!(read_exactly(&mut tunnel, 2), b"in");
        inside.insert(0, tunnel);
    }
    // A full server looks at its accept queue each second by itself; eight such looks would take longer.
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
    let warnings = proxy.stderr.all();
    let warnings = warnings.iter().filter(|line| line.contains("limit of connections"));
    assert_eq!(warnings.count(), 1, "one line an episode");
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
