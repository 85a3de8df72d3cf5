//! Clients that take nothing, or too slowly.

use std::net::{SocketAddr, TcpStream};

use support::eventually;
use support::proxy::{Builder, Proxy, connect};

use super::{address, builder, exchange, get};

/// A connection with a small window, so that most of an answer stays with the server.
pub fn narrow(address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    socket.connect(&address.into()).expect("connected");
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(support::PATIENCE)).expect("set");
    stream
}

/// A server with 10,000 accounts, whose list is longer than what the kernel keeps of an answer.
fn many_accounts(options: &[&str]) -> (Proxy, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let many: String = (0..10_000).map(|number| format!("u{number}:=pw\n")).collect();
    std::fs::write(file.path(), many).expect("written");
    let users = file.path().to_str().expect("text");
    (builder().args(["--users", users]).args(options).start(), file)
}

/// Asks for the list, and reads nothing.
fn stalled(proxy: &Proxy) -> TcpStream {
    let mut stream = narrow(address(proxy));
    let request = b"GET /users.json HTTP/1.0\r\n\r\n";
    std::io::Write::write_all(&mut stream, request).expect("sent");
    stream
}

/// The value of a series of `/metrics`.
fn series(proxy: &Proxy, name: &str) -> u64 {
    let body = get(proxy, "/metrics").body;
    let line = body.lines().find_map(|line| line.strip_prefix(name)).expect("a series");
    line.trim().parse().expect("a number")
}

/// Half a list has no end that could pass for the end of the whole: the body of HTTP/1.0 ends with the connection.
#[test]
fn an_answer_that_is_cut_is_a_reset() {
    let (proxy, _file) = many_accounts(&["--linger-timeout", "0.2"]);
    let mut stream = stalled(&proxy);
    eventually("it is cut", || {
        series(&proxy, "socks5d_sessions{service=\"http\"}") == 1
            && series(&proxy, "socks5d_accepted_total{service=\"http\"}") > 2
    });
    let body = support::read_to_reset(&mut stream);
    assert!(!body.ends_with(b"]\n"), "all of it has come");
}

/// Clients that take nothing make room for others, although their answers have minutes.
#[test]
fn stalled_clients_keep_nobody_out() {
    let (proxy, _file) = many_accounts(&["--linger-timeout", "600"]);
    let stalled: Vec<TcpStream> = (0..32).map(|_| stalled(&proxy)).collect();
    for _ in 0..3 {
        assert_eq!(get(&proxy, "/healthz").body, "ok\n");
    }
    assert!(series(&proxy, "socks5d_refused_total{service=\"http\",reason=\"limit\"}") > 0);
    drop(stalled);
}

/// `u0:x` to `uf:x`, which no account has.
const LOGINS: [&str; 16] = [
    "dTA6eA==", "dTE6eA==", "dTI6eA==", "dTM6eA==", "dTQ6eA==", "dTU6eA==", "dTY6eA==", "dTc6eA==",
    "dTg6eA==", "dTk6eA==", "dWE6eA==", "dWI6eA==", "dWM6eA==", "dWQ6eA==", "dWU6eA==", "dWY6eA==",
];

/// A login that nobody has looked at is none that has failed (RFC 9110 §15.6.4).
#[test]
fn a_login_that_is_shed_is_to_be_tried_again() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    std::fs::write(file.path(), format!("alice:{hash}\n")).expect("written");
    let users = file.path().to_str().expect("text");
    let options = ["--http", "0.0.0.0:0", "--users", users, "--auth-threads", "1"];
    let proxy = Builder::default().args(options).start();
    let at = address(&proxy);
    let asked: Vec<_> = (0..LOGINS.len())
        .map(|number| {
            std::thread::spawn(move || {
                let login = LOGINS[number];
                let request = format!(
                    "GET /metrics HTTP/1.1\nHost: localhost\nAuthorization: Basic {login}\n\n"
                );
                exchange(connect(at), &request)
            })
        })
        .collect();
    let answers: Vec<_> = asked.into_iter().map(|asked| asked.join().expect("answered")).collect();
    for answer in &answers {
        assert!([401, 503].contains(&answer.status), "{}", answer.head);
        let retries = answer.head.contains("\r\nRetry-After: 1\r\n");
        assert_eq!(retries, answer.status == 503, "{}", answer.head);
    }
    let shed = answers.iter().filter(|answer| answer.status == 503).count() as u64;
    assert!(shed > 0, "one is computed, and four wait");
    assert_eq!(proxy.admin().figure("LOGINS_SHED"), shed);
}
