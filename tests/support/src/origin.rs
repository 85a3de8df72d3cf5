//! Servers behind the proxy, on loopback.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::PATIENCE;

/// A server that gives each connection to a function in a thread of its own. It lives as long as the
/// test's process.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
}

impl Origin {
    /// A server on 127.0.0.1.
    pub fn new(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Origin::on(Ipv4Addr::LOCALHOST.into(), serve)
    }

    /// A server on ::1.
    pub fn v6(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Origin::on(Ipv6Addr::LOCALHOST.into(), serve)
    }

    fn on(address: IpAddr, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = listen(address).expect("loopback");
        let address = listener.local_addr().expect("bound");
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serve = Arc::clone(&serve);
                let handler = move || {
                    // A peer that vanishes must not leave a thread behind.
                    let _ = stream.set_read_timeout(Some(PATIENCE * 3));
                    serve(stream);
                };
                let thread = std::thread::Builder::new().stack_size(128 * 1024);
                thread.spawn(handler).expect("a thread");
            }
        });
        Origin { address }
    }

    /// Sends back what it gets, and closes after the client has half-closed.
    pub fn echo() -> Self {
        Origin::new(echo)
    }

    /// Answers each HTTP request with `body` and closes.
    pub fn http(body: Vec<u8>) -> Self {
        Origin::http_on(Ipv4Addr::LOCALHOST.into(), body)
    }

    /// As [`Origin::http`], on another address.
    pub fn http_on(address: IpAddr, body: Vec<u8>) -> Self {
        Origin::on(address, move |stream| {
            // The client may be gone.
            let _ = http(stream, &body);
        })
    }
}

/// An address on 127.0.0.1 where every connection hangs: its backlog is full, and none is accepted while the
/// sockets live.
pub fn deaf() -> (Vec<Socket>, SocketAddr) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("loopback");
    listener.listen(0).expect("bound");
    let address = listener.local_addr().expect("bound");
    let mut sockets = vec![listener];
    for _ in 0..4 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        // The first is made at once, the others stay in progress.
        let _ = socket.connect(&address);
        sockets.push(socket);
    }
    (sockets, address.as_socket().expect("an IP address"))
}

/// A listener with a deep backlog.
pub fn listen(address: IpAddr) -> io::Result<TcpListener> {
    let address = SocketAddr::new(address, 0);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// A port on 127.0.0.1 without a listener. The socket keeps it from being taken.
pub fn closed_port() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("loopback");
    let address = socket.local_addr().expect("bound").as_socket().expect("an IP address");
    (socket, address)
}

/// An address on 127.0.0.1 that neither accepts connections nor refuses them, as long as the sockets live.
pub fn unresponsive() -> (Vec<TcpStream>, TcpListener) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("loopback");
    socket.listen(0).expect("bound");
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().expect("bound");
    // These are not accepted; once the backlog is full, the kernel ignores further ones.
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
    let waiting: Vec<TcpStream> = (0..64).map_while(connect).collect();
    assert!(waiting.len() < 64, "the backlog has no end");
    (waiting, listener)
}

/// Sends back what comes until EOF.
pub fn echo(mut stream: TcpStream) {
    let mut bytes = vec![0; 65536];
    while let Ok(count) = stream.read(&mut bytes) {
        if count == 0 || stream.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}

fn http(stream: TcpStream, body: &[u8]) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 2 {
        line.clear();
    }
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let mut stream = lines.into_inner();
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}
