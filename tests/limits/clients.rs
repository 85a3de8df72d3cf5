//! Clients for the tests of limits, many at a time.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use support::proxy::{Proxy, connect};
use support::socks::{HELLO, connect_request, credentials};
use support::{PATIENCE, read_exactly};

/// Clients that have said `said` and then nothing.
pub fn connect_many(server: SocketAddr, count: usize, said: &[u8]) -> Vec<TcpStream> {
    let knock = |_| {
        let mut stream = connect(server);
        // It may have been evicted already.
        let _ = stream.write_all(said);
        stream
    };
    (0..count).map(knock).collect()
}

/// Everything that a client says until its tunnel is open, in one piece.
pub fn whole_handshake(target: SocketAddr) -> Vec<u8> {
    [HELLO, &credentials(b"admin", b"1234")[..], &connect_request(target)[..]].concat()
}

/// A tunnel and its far end, without a thread.
pub fn tunnel_to(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = proxy.tunnel(listener.local_addr().expect("bound"));
    let (server, _) = listener.accept().expect("the tunnel leads here");
    server.set_read_timeout(Some(PATIENCE)).expect("a socket");
    (client, server)
}

/// Expects that a tunnel to an echoing server works.
pub fn echoes(tunnel: &mut TcpStream) {
    tunnel.write_all(b"here").expect("taken");
    assert_eq!(read_exactly(tunnel, 4), b"here");
}

/// Whether the server has closed this connection, whatever it has said before.
pub fn closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let mut bytes = [0; 64];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}
