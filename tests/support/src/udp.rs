//! UDP ASSOCIATE in literal bytes (RFC 1928 sections 4 and 7).

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};

use crate::PATIENCE;
use crate::proxy::Proxy;
use crate::socks::{Client, connect_request};

/// The longest datagram.
const LONGEST: usize = 65_536;

/// An association: its control connection, the address of the relay, and a socket of the client.
pub struct Association {
    /// The control connection.
    pub control: TcpStream,
    /// BND.ADDR and BND.PORT: where the client sends its datagrams.
    pub relay: SocketAddr,
    /// The client's socket.
    pub socket: UdpSocket,
}

/// A UDP ASSOCIATE request with this DST.
pub fn associate_request(announced: SocketAddr) -> Vec<u8> {
    let mut request = connect_request(announced);
    request[1] = 3;
    request
}

/// A socket on this address, which waits long for datagrams, and not for ever.
pub fn socket_on(address: IpAddr) -> UdpSocket {
    socket_at((address, 0).into())
}

/// The same on this address with its port, or on any if that is 0.
pub fn socket_at(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(address).expect("an address of this machine");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    socket
}

/// A socket on 127.0.0.1.
pub fn socket() -> UdpSocket {
    socket_on(Ipv4Addr::LOCALHOST.into())
}

/// The header of a datagram (RFC 1928 section 7): RSV, FRAG 0, ATYP, DST.ADDR and DST.PORT.
pub fn header(target: SocketAddr) -> Vec<u8> {
    let mut bytes = connect_request(target);
    bytes[..3].fill(0);
    bytes
}

/// The header for a name.
pub fn name_header(name: &[u8], port: u16) -> Vec<u8> {
    let length = u8::try_from(name.len()).expect("255 at most");
    [b"\x00\x00\x00\x03", &[length][..], name, &port.to_be_bytes()].concat()
}

/// Splits a datagram of the relay into its source and its payload.
pub fn parse(datagram: &[u8]) -> (SocketAddr, &[u8]) {
    assert_eq!(datagram[..3], [0, 0, 0], "RSV and FRAG");
    let (ip, rest): (IpAddr, _) = match datagram[3] {
        1 => (<[u8; 4]>::try_from(&datagram[4..8]).expect("4 bytes").into(), &datagram[8..]),
        4 => (<[u8; 16]>::try_from(&datagram[4..20]).expect("16 bytes").into(), &datagram[20..]),
        other => panic!("ATYP {other:02x} from the relay"),
    };
    (SocketAddr::new(ip, u16::from_be_bytes([rest[0], rest[1]])), &rest[2..])
}

/// The next datagram of a socket, and where it came from.
pub fn received(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = vec![0; LONGEST];
    let (count, from) = socket.recv_from(&mut bytes).expect("a datagram");
    bytes.truncate(count);
    (bytes, from)
}

impl Association {
    /// An association of the administrator, with 0.0.0.0:0 announced.
    pub fn open(proxy: &Proxy) -> Self {
        Association::of(proxy.client())
    }

    /// An association of a client that is logged in.
    pub fn of(client: Client) -> Self {
        Association::announcing(client, SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// The same with another DST.
    pub fn announcing(client: Client, announced: SocketAddr) -> Self {
        Association::requesting(client, &associate_request(announced))
    }

    /// The same with a request of its own.
    pub fn requesting(mut client: Client, request: &[u8]) -> Self {
        let (code, relay) = client.say(request).reply();
        assert_eq!(code, 0, "UDP ASSOCIATE");
        Association::opened(client, relay)
    }

    /// One for which the reply has named this relay.
    pub fn opened(client: Client, relay: SocketAddr) -> Self {
        let mut local = client.stream.local_addr().expect("connected");
        local.set_port(0);
        Association { control: client.stream, relay, socket: socket_at(local) }
    }

    /// Sends bytes to the relay as they are.
    pub fn send_bytes(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.relay).expect("sent");
    }

    /// Sends a payload to a target.
    pub fn send(&self, target: SocketAddr, payload: &[u8]) {
        self.send_bytes(&[&header(target), payload].concat());
    }

    /// The next datagram from the relay: its source and payload.
    pub fn receive(&self) -> (SocketAddr, Vec<u8>) {
        let (bytes, from) = received(&self.socket);
        assert_eq!(from, self.relay, "datagrams come from BND");
        let (source, payload) = parse(&bytes);
        (source, payload.to_vec())
    }

    /// Sends a payload to `target` and expects it there as the next datagram. Returns where it came from: the port of
    /// the association that targets see.
    pub fn reaches(&self, target: &UdpSocket, payload: &[u8]) -> SocketAddr {
        let address = target.local_addr().expect("bound");
        self.send(address, payload);
        let (bytes, from) = received(target);
        assert!(bytes == payload, "{} bytes instead of {}", bytes.len(), payload.len());
        from
    }

    /// A round trip to `target`, each way as the next datagram. Returns the port of the association that targets see.
    pub fn exchanges(&self, target: &UdpSocket, payload: &[u8]) -> SocketAddr {
        let from = self.reaches(target, payload);
        self.is_answered(target, from, payload);
        from
    }

    /// `target` sends a payload to the association, which is the next datagram for the client.
    pub fn is_answered(&self, target: &UdpSocket, mapped: SocketAddr, payload: &[u8]) {
        target.send_to(payload, mapped).expect("sent");
        let (source, received) = self.receive();
        assert_eq!(source, target.local_addr().expect("bound"));
        assert!(received == payload, "{} bytes instead of {}", received.len(), payload.len());
    }
}
