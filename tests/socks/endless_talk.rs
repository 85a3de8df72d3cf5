//! Clients that never stop talking: deadlines hold for them too.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use support::PATIENCE;
use support::proxy::{Proxy, connect};

/// So many that each has sent more whenever its turn comes.
const CLIENTS: usize = 32;

/// Connects, says `first` and goes on with `more` until it is cut off, many times at once.
fn flood(server: SocketAddr, first: &[u8], more: &[u8]) {
    let chunk = more.repeat((1 << 20) / more.len());
    let talk = |mut stream: TcpStream| {
        let began = Instant::now();
        stream.write_all(first).expect("taken");
        let mut answers = stream.try_clone().expect("a descriptor");
        // Answers that nobody takes would hold the server up.
        std::thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
        while stream.write_all(&chunk).is_ok() {
            assert!(began.elapsed() < PATIENCE, "it may talk for ever");
        }
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect(server)).collect();
    std::thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| talk(client));
        }
    });
}

#[test]
fn a_refused_socks_client_cannot_delay_its_close() {
    let proxy = Proxy::with(&["--linger-timeout", "0.3"]);
    flood(proxy.socks_address(), b"\x05\x01\x00", b"\x05\x01\x00");
    proxy.wait_until_idle();
}

/// Greetings are good, only the login never comes.
#[test]
fn a_metp_client_cannot_delay_the_end_of_its_login_time() {
    let proxy = Proxy::with(&["--metp-login-timeout", "0.3", "--linger-timeout", "0.3"]);
    flood(proxy.metp_address(), b"HELLO METP/1.0\n", b"HELLO METP/1.0\n");
}
