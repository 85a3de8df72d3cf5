//! A client that never stops talking gets no more time than a silent one, on either port.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use support::eventually;
use support::proxy::{Proxy, connect};

/// What a busy machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(5);

/// Says `opening`, then talks without end and takes every answer. Returns how long the server endured it.
fn endures(server: SocketAddr, opening: &[u8], talk: &[u8]) -> Duration {
    let began = Instant::now();
    let mut stream = connect(server);
    stream.write_all(opening).expect("taken");
    let mut receiver = stream.try_clone().expect("a socket");
    let taking = std::thread::spawn(move || {
        let mut bytes = [0; 65536];
        while receiver.read(&mut bytes).is_ok_and(|count| count > 0) {}
    });
    let talk = talk.repeat(65536 / talk.len());
    while began.elapsed() < SLACK && stream.write_all(&talk).is_ok() {}
    let time = began.elapsed();
    stop(&stream);
    taking.join().expect("no panic");
    time
}

fn stop(stream: &TcpStream) {
    // The server may have closed it already.
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

/// METP section 1: 10 s to log in, whatever is said meanwhile. Else a few connections could keep
/// administrators out for ever.
#[test]
fn no_amount_of_talk_extends_the_time_for_a_metp_login() {
    let proxy = Proxy::with(&["--metp-login-timeout", "0.4"]);
    let time = endures(proxy.metp_address(), b"", b"HELLO METP/1.0\n");
    assert!((Duration::from_millis(400)..SLACK).contains(&time), "{time:?}");
}

#[test]
fn no_amount_of_talk_extends_the_farewell_of_metp() {
    let proxy = Proxy::with(&["--goodbye-timeout", "0.4"]);
    let time = endures(proxy.metp_address(), b"GET / HTTP/1.1\r\n", b"more and more\n");
    assert!((Duration::from_millis(400)..SLACK).contains(&time), "{time:?}");
}

#[test]
fn no_amount_of_talk_extends_the_farewell_of_socks() {
    let proxy = Proxy::with(&["--goodbye-timeout", "0.4"]);
    let time = endures(proxy.socks_address(), b"\x05\x01\x00", b"more and more\n");
    assert!((Duration::from_millis(400)..SLACK).contains(&time), "{time:?}");
    let mut admin = proxy.admin();
    eventually("the session is gone", || admin.metrics()[1] == 0);
}
