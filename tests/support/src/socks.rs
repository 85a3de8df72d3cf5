//! A SOCKS5 client in literal bytes.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};

use socket2::SockRef;

use crate::diag::connection;
use crate::{eventually, read_exactly};

/// Greeting with method 02 alone (RFC 1928 section 3).
pub const HELLO: &[u8] = b"\x05\x01\x02";
/// The server's choice of method 02.
pub const CHOSEN: &[u8] = b"\x05\x02";
/// A login that succeeded (RFC 1929 section 2).
pub const WELCOME: &[u8] = b"\x01\x00";
/// A login that failed.
pub const DENIED: &[u8] = b"\x01\x01";

/// A connection to a SOCKS server.
pub struct Client {
    /// The connection itself.
    pub stream: TcpStream,
}

/// Name and password as they travel (RFC 1929 section 2).
pub fn credentials(name: &[u8], password: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("255 at most");
    [&[1, length(name)][..], name, &[length(password)], password].concat()
}

/// A CONNECT to an address (RFC 1928 section 4).
pub fn connect_request(target: SocketAddr) -> Vec<u8> {
    let mut request = b"\x05\x01\x00".to_vec();
    match target.ip() {
        IpAddr::V4(address) => {
            request.push(1);
            request.extend(address.octets());
        }
        IpAddr::V6(address) => {
            request.push(4);
            request.extend(address.octets());
        }
    }
    request.extend(target.port().to_be_bytes());
    request
}

/// A CONNECT to a name.
pub fn name_request(name: &[u8], port: u16) -> Vec<u8> {
    let length = u8::try_from(name.len()).expect("255 at most");
    [b"\x05\x01\x00\x03", &[length][..], name, &port.to_be_bytes()].concat()
}

impl Client {
    /// A client that has said nothing yet.
    pub fn new(stream: TcpStream) -> Self {
        Client { stream }
    }

    /// Greets and logs in.
    pub fn logged_in(mut self, name: &str, password: &str) -> Self {
        self.say(HELLO).hears(CHOSEN);
        self.say(&credentials(name.as_bytes(), password.as_bytes())).hears(WELCOME);
        self
    }

    /// Opens a tunnel.
    pub fn connected(mut self, target: SocketAddr) -> TcpStream {
        let (code, _) = self.say(&connect_request(target)).reply();
        assert_eq!(code, 0, "CONNECT to {target}");
        self.stream
    }

    /// Sends bytes.
    pub fn say(&mut self, bytes: &[u8]) -> &mut Self {
        self.stream.write_all(bytes).expect("the server listens");
        self
    }

    /// Expects exactly these bytes.
    pub fn hears(&mut self, expected: &[u8]) -> &mut Self {
        assert_eq!(read_exactly(&mut self.stream, expected.len()), expected);
        self
    }

    /// Reads a reply: REP, and BND as an address (RFC 1928 section 6).
    pub fn reply(&mut self) -> (u8, SocketAddr) {
        let head = read_exactly(&mut self.stream, 4);
        assert_eq!((head[0], head[2]), (5, 0), "VER and RSV of {head:02x?}");
        let address: IpAddr = match head[3] {
            1 => <[u8; 4]>::try_from(read_exactly(&mut self.stream, 4)).expect("4 bytes").into(),
            4 => <[u8; 16]>::try_from(read_exactly(&mut self.stream, 16)).expect("16 bytes").into(),
            other => panic!("ATYP {other:02x} in a reply"),
        };
        let port = read_exactly(&mut self.stream, 2);
        (head[1], SocketAddr::new(address, u16::from_be_bytes([port[0], port[1]])))
    }

    /// Expects the refusal with this code, then EOF and no reset.
    pub fn refused(&mut self, code: u8) {
        self.hears(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).hears_eof();
    }

    /// Expects EOF, and no reset.
    pub fn hears_eof(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("EOF, not a reset");
        assert_eq!(rest, b"", "nothing more");
    }
}

/// Ends the writing direction.
pub fn half_close(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).expect("it is open");
}

/// Closes with RST instead of FIN.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).expect("a socket");
}

/// Waits until the server has read all that was sent to it. Sockets on 127.0.0.0/8 alone.
pub fn wait_until_read(stream: &TcpStream) {
    let ours = stream.local_addr().expect("a socket");
    let theirs = stream.peer_addr().expect("the server has not closed it");
    // Bytes wait at our end (on their way) or at the server's (unread).
    eventually("the server reads", || {
        connection(ours, theirs).is_some_and(|found| found.unacknowledged == 0)
            && connection(theirs, ours).is_some_and(|found| found.unread == 0)
    });
}
