//! What the kernel knows of one TCP connection: sock_diag(7). /proc/net/tcp would tell it too, but that is read
//! as a whole, with the thousands of connections that other tests leave behind.

use std::io::{Read, Write};
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

/// Bytes that nobody has read yet, and those that the peer's kernel has not acknowledged: the queues of the
/// socket at `local` that is connected to `remote`. `None`: there is no such socket. IPv4 alone.
///
/// # Panics
/// If the kernel does not answer.
pub fn queues(local: SocketAddr, remote: SocketAddr) -> Option<(u32, u32)> {
    const BY_FAMILY: u16 = 20;
    let mut request = Vec::new();
    // nlmsghdr: length, type, NLM_F_REQUEST, sequence, port.
    request.extend(72_u32.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(1_u16.to_ne_bytes());
    request.extend([0; 8]);
    // inet_diag_req_v2: family, protocol, extensions, padding, states.
    let [family, protocol] =
        [libc::AF_INET, libc::IPPROTO_TCP].map(|number| number.to_le_bytes()[0]);
    request.extend([family, protocol, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    // inet_diag_sockid: ports, addresses, interface, no cookie.
    request.extend(local.port().to_be_bytes());
    request.extend(remote.port().to_be_bytes());
    for address in [local, remote] {
        let SocketAddr::V4(address) = address else { panic!("{address} is not IPv4") };
        request.extend(address.ip().octets());
        request.extend([0; 12]);
    }
    request.extend([0; 4]);
    request.extend([0xff; 8]);

    let diag = Some(Protocol::from(libc::NETLINK_SOCK_DIAG));
    let mut socket =
        Socket::new(Domain::from(libc::AF_NETLINK), Type::DGRAM, diag).expect("netlink");
    socket.write_all(&request).expect("the kernel takes it");
    let mut answer = [0; 1024];
    let count = socket.read(&mut answer).expect("an answer");
    let answer = &answer[..count];
    let number = |at: usize| u32::from_ne_bytes(answer[at..at + 4].try_into().expect("4 bytes"));
    // Behind the header: family, state, timer, retries, the socket's id, expiry; then the queues. Anything else
    // is an error: there is none. For want of a connection it may be the listener.
    let is_there = || answer[22..24] == remote.port().to_be_bytes();
    let found = answer[4..6] == BY_FAMILY.to_ne_bytes() && is_there();
    found.then(|| (number(72), number(76)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::eventually;

    #[test]
    fn unread_bytes_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("made");
        let (mut server, _) = listener.accept().expect("made");
        let ours = client.local_addr().expect("bound");
        let theirs = client.peer_addr().expect("connected");
        assert_eq!(queues(theirs, ours), Some((0, 0)));
        client.write_all(b"hello").expect("taken");
        eventually("it is there", || queues(theirs, ours) == Some((5, 0)));
        assert_eq!(queues(ours, theirs), Some((0, 0)));
        server.read_exact(&mut [0; 3]).expect("bytes");
        assert_eq!(queues(theirs, ours), Some((2, 0)));
        let mut other = ours;
        other.set_port(1);
        assert_eq!(queues(theirs, other), None);
    }
}
