//! One TCP connection as the kernel sees it: sock_diag(7). /proc/net/tcp has it too, but is read as a whole, with the
//! thousands of connections that other tests leave behind; so it is for kernels without sock_diag.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::LazyLock;

use socket2::{Domain, Protocol, Socket, Type};

/// A connection, seen from one of its ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Connection {
    /// Bytes received and not yet read.
    pub unread: u32,
    /// Bytes that the peer's kernel has not acknowledged.
    pub unacknowledged: u32,
    /// The timer that is running: 0 is none, 1 retransmission, 2 keepalive, 4 probes of a window that is closed.
    pub timer: u8,
}

/// The socket at `local` that is connected to `remote`. `None`: there is no such socket. IPv4 alone.
pub fn connection(local: SocketAddr, remote: SocketAddr) -> Option<Connection> {
    // A kernel without sock_diag answers as if there were no such socket: so it is asked for one that exists.
    static KNOWS: LazyLock<bool> = LazyLock::new(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let ends = (ours.local_addr().expect("bound"), ours.peer_addr().expect("connected"));
        by_netlink(ends.0, ends.1).is_some()
    });
    if *KNOWS { by_netlink(local, remote) } else { by_proc(local, remote) }
}

/// "SLOT: LOCAL REMOTE STATE SENDING:UNREAD TIMER:WHEN ..." (proc_net_tcp).
fn by_proc(local: SocketAddr, remote: SocketAddr) -> Option<Connection> {
    let shown = |address: SocketAddr| {
        let SocketAddr::V4(address) = address else { panic!("{address} is not IPv4") };
        format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
    };
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let (_, line) = table.split_once(&format!(" {} {} ", shown(local), shown(remote)))?;
    let mut pairs = line.split_whitespace().skip(1).filter_map(|pair| pair.split_once(':'));
    let ((sending, unread), (timer, _)) = (pairs.next()?, pairs.next()?);
    let number = |text| u32::from_str_radix(text, 16).ok();
    let timer = number(timer)?.try_into().ok()?;
    Some(Connection { unread: number(unread)?, unacknowledged: number(sending)?, timer })
}

fn by_netlink(local: SocketAddr, remote: SocketAddr) -> Option<Connection> {
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
    let mut socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::DGRAM, diag).ok()?;
    socket.write_all(&request).ok()?;
    let mut answer = [0; 1024];
    let count = socket.read(&mut answer).ok().filter(|count| *count >= 24)?;
    let answer = &answer[..count];
    let number = |at: usize| u32::from_ne_bytes(answer[at..at + 4].try_into().expect("4 bytes"));
    // Behind the header: family, state, timer, retries, the socket's id, expiry; then the queues. Anything else
    // is an error: there is none. For want of a connection it may be the listener.
    let is_there = || answer[22..24] == remote.port().to_be_bytes();
    let found = answer[4..6] == BY_FAMILY.to_ne_bytes() && is_there();
    let timer = *answer.get(18)?;
    found.then(|| Connection { unread: number(72), unacknowledged: number(76), timer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually;

    #[test]
    fn unread_bytes_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("made");
        let (mut server, _) = listener.accept().expect("made");
        let ours = client.local_addr().expect("bound");
        let theirs = client.peer_addr().expect("connected");
        let mut other = ours;
        other.set_port(1);
        let mut unread = 0;
        let queues = |found: Option<Connection>| found.map(|c| (c.unread, c.unacknowledged));
        for by in [connection, by_proc] {
            let ask = |local, remote| queues(by(local, remote));
            assert_eq!(ask(theirs, ours), Some((unread, 0)));
            client.write_all(b"hello").expect("taken");
            eventually("it is there", || ask(theirs, ours) == Some((unread + 5, 0)));
            eventually("it is acknowledged", || ask(ours, theirs) == Some((0, 0)));
            server.read_exact(&mut [0; 3]).expect("bytes");
            unread += 2;
            assert_eq!(ask(theirs, ours), Some((unread, 0)));
            assert_eq!(ask(theirs, other), None);
        }
    }
}
