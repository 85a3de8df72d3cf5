//! A listening socket, and the errors of accept(2) by kind.
//!
//! It is edge-triggered like every descriptor: there is no second edge for a backlog that was left, so
//! the flag stays up until accept has returned `WouldBlock`. When descriptors or memory run out it pauses
//! until a session ends or [`ACCEPT_PAUSE`] has passed, instead of spinning or ending the process.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use common::episode::Episode;
use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, SockRef, Socket, Type};

use super::liveness::Liveness;

/// How long a listener waits after it ran out of something, unless a session ends earlier.
pub const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Connections that the kernel holds until they are accepted.
const ACCEPT_BACKLOG: i32 = 4096;

/// Connections that one call of [`Listener::accept`] skips because they were lost before they were accepted.
const MAX_LOST_PER_ACCEPT: u32 = 16;
/// Lost connections in a row after which the listener pauses: an error that never ends is not one of single
/// connections, whatever its number is.
const MAX_LOST_IN_A_ROW: u32 = 256;

/// A listening socket.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    ready: bool,
    /// Connections lost since one was accepted, none was left, or the listener paused.
    lost: u32,
    /// A connection that was accepted and waits for admission.
    held: Option<(TcpStream, SocketAddr)>,
    paused_until: Option<Instant>,
    /// A shortage of descriptors or memory. Its episode does not end before the backlog has been served.
    shortage: Episode,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What an attempt to accept came to.
pub enum Accepted {
    /// A connection, and its peer's canonical address.
    Connection(TcpStream, SocketAddr),
    /// No connection waits, or the listener pauses.
    Nothing,
    /// Descriptors or memory have run out, and the listener pauses. The error is given once in an episode.
    Exhausted(Option<io::Error>),
}

impl Listener {
    /// Binds and listens. Without an address it takes all interfaces, IPv4 and IPv6 through one socket,
    /// or IPv4 alone on a machine without IPv6. Accepted connections inherit TCP_NODELAY, SO_OOBINLINE and
    /// `liveness`.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and listen(2).
    pub fn open(
        address: Option<IpAddr>,
        port: u16,
        liveness: Liveness,
    ) -> io::Result<std::net::TcpListener> {
        let any6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let socket = match address {
            Some(address) => open(SocketAddr::new(address, port), liveness)?,
            None => match open(SocketAddr::new(any6, port), liveness) {
                Err(error) if no_ipv6(&error) => {
                    open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), liveness)?
                }
                result => result?,
            },
        };
        Ok(socket.into())
    }

    /// Takes a socket that listens already, and gives it what accepted connections inherit.
    ///
    /// # Errors
    /// Those of fcntl(2) and getsockname(2).
    pub fn adopt(socket: std::net::TcpListener, liveness: Liveness) -> io::Result<Self> {
        let address = socket.local_addr()?;
        prepare(&SockRef::from(&socket), address, liveness);
        socket.set_nonblocking(true)?;
        Ok(Listener {
            socket: TcpListener::from_std(socket),
            address,
            ready: true,
            lost: 0,
            held: None,
            paused_until: None,
            shortage: Episode::default(),
        })
    }

    /// Sets how connections that are accepted from now on find out that their peers are gone.
    pub fn set_liveness(&self, liveness: Liveness) {
        if let Err(error) = liveness.apply(&SockRef::from(&self.socket)) {
            log::warn!("cannot change keepalive and user timeout: {error}");
        }
    }

    /// Limits what the kernel keeps for each connection until its peer takes it, in bytes. That bounds its memory, and the
    /// writer sees soon whether the peer takes anything.
    pub fn limit_send_buffer(&self, bytes: usize) {
        if let Err(error) = SockRef::from(&self.socket).set_send_buffer_size(bytes) {
            log::warn!("cannot set SO_SNDBUF for connections to {}: {error}", self.address);
        }
    }

    /// The address it is bound to, with the port that was chosen if it was 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket, to be registered.
    pub fn socket(&mut self) -> &mut TcpListener {
        &mut self.socket
    }

    /// Takes the connection that was accepted and waits for admission.
    pub fn take_held(&mut self) -> Option<(TcpStream, SocketAddr)> {
        self.held.take()
    }

    /// An event has come: connections wait.
    pub fn on_event(&mut self) {
        self.ready = true;
    }

    /// Whether accepting may succeed now.
    pub fn ready(&self) -> bool {
        (self.ready || self.held.is_some()) && self.paused_until.is_none()
    }

    /// When a pause ends, if nothing ends it earlier.
    pub fn resumes(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Keeps a connection that was not admitted as the next one to be accepted, and pauses, until `until` at the
    /// latest. Returns whether this begins an episode of shortage, which the caller logs.
    pub fn hold(
        &mut self,
        stream: TcpStream,
        peer: SocketAddr,
        now: Instant,
        until: Option<Instant>,
    ) -> bool {
        self.held = Some((stream, peer));
        let begins = self.pause(now);
        self.paused_until = self.paused_until.into_iter().chain(until).min();
        begins
    }

    /// Ends a pause that is over.
    pub fn resume(&mut self, now: Instant) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
    }

    /// Ends any pause: places or descriptors have become free.
    pub fn resume_now(&mut self) {
        self.paused_until = None;
    }

    /// Ends a pause during which a connection is held: it may be admitted now.
    pub fn resume_if_held(&mut self) {
        if self.held.is_some() {
            self.paused_until = None;
        }
    }

    /// Stops accepting for [`ACCEPT_PAUSE`]. Returns whether this begins an episode of shortage, which the caller logs.
    fn pause(&mut self, now: Instant) -> bool {
        self.paused_until = Some(now + ACCEPT_PAUSE);
        self.shortage.begins_if_ended(now)
    }

    /// Accepts one connection.
    pub fn accept(&mut self, now: Instant) -> Accepted {
        if !self.ready() {
            return Accepted::Nothing;
        }
        if let Some((stream, peer)) = self.held.take() {
            return Accepted::Connection(stream, peer);
        }
        for _ in 0..MAX_LOST_PER_ACCEPT {
            let accepted = self.socket.accept();
            match self.judge(accepted, now) {
                Some(accepted) => return accepted,
                None => self.lost += 1,
            }
        }
        // Still ready: there may be more behind those that were lost, but now others have their turn.
        Accepted::Nothing
    }

    /// What accept(2) has said comes to; nothing if one connection was lost and the next may be asked for.
    fn judge(
        &mut self,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        now: Instant,
    ) -> Option<Accepted> {
        let error = match accepted {
            Ok((stream, peer)) => {
                self.lost = 0;
                return Some(Accepted::Connection(stream, canonical(peer)));
            }
            Err(error) => error,
        };
        if error.kind() == ErrorKind::WouldBlock {
            self.ready = false;
            self.lost = 0;
            self.shortage.end_if_quiet(now);
            return Some(Accepted::Nothing);
        }
        if concerns_one_connection(&error) && self.lost < MAX_LOST_IN_A_ROW {
            return None;
        }
        self.lost = 0;
        let first = self.pause(now);
        Some(Accepted::Exhausted(first.then_some(error)))
    }
}

/// An address in the one form that logs, limits and rules see: v4-mapped IPv6 becomes IPv4.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_canonical() {
            IpAddr::V4(v4) => SocketAddr::from((v4, v6.port())),
            IpAddr::V6(_) => address,
        },
        SocketAddr::V4(_) => address,
    }
}

fn open(address: SocketAddr, liveness: Liveness) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    prepare(&socket, address, liveness);
    socket.bind(&address.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    Ok(socket)
}

/// Sets what accepted connections inherit.
fn prepare(socket: &Socket, address: SocketAddr, liveness: Liveness) {
    // Accepted connections inherit this, TCP_NODELAY and SO_OOBINLINE. With the last set from the start no
    // urgent byte is lost: the kernel drops an unread one when the next comes while it is off.
    // A restart can take the port again while old connections are in TIME-WAIT. Without any of these the server
    // serves, a little worse.
    for (option, set) in [
        ("SO_KEEPALIVE", liveness.apply(&SockRef::from(socket))),
        ("SO_OOBINLINE", socket.set_out_of_band_inline(true)),
        ("SO_REUSEADDR", socket.set_reuse_address(true)),
        ("TCP_NODELAY", socket.set_tcp_nodelay(true)),
    ] {
        if let Err(error) = set {
            log::warn!("cannot set {option} for connections to {address}: {error}");
        }
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// Errors of one connection, which was lost before it was accepted. accept(2) passes pending network
/// errors on to the caller; the next connection has nothing to do with them.
pub fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINTR
                | libc::ECONNABORTED
                | libc::EPROTO
                | libc::EPERM
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EOPNOTSUPP
        )
    )
}

#[cfg(test)]
mod tests {
    use common::episode::QUIET;

    use super::super::errno;
    use super::*;

    fn on_loopback() -> Listener {
        let loopback = Some([127, 0, 0, 1].into());
        let socket = Listener::open(loopback, 0, Liveness::default()).expect("loopback");
        Listener::adopt(socket, Liveness::default()).expect("a socket")
    }

    #[test]
    fn v4_mapped_addresses_become_ipv4() {
        let canon = |text: &str| canonical(text.parse().expect("a literal")).to_string();
        assert_eq!(canon("[::ffff:192.0.2.1]:80"), "192.0.2.1:80");
        assert_eq!(canon("[::1]:80"), "[::1]:80");
        assert_eq!(canon("[::192.0.2.1]:80"), "[::c000:201]:80");
        assert_eq!(canon("192.0.2.1:80"), "192.0.2.1:80");
    }

    #[test]
    fn a_shortage_pauses_and_is_reported_once_an_episode() {
        let mut listener = on_loopback();
        let now = Instant::now();
        assert!(listener.pause(now));
        assert!(!listener.pause(now));
        assert!(!listener.ready());
        listener.resume(now);
        assert!(!listener.ready());
        listener.resume(now + ACCEPT_PAUSE);
        assert!(listener.ready());
        assert!(matches!(listener.accept(now + ACCEPT_PAUSE), Accepted::Nothing));
        assert!(!listener.pause(now + ACCEPT_PAUSE), "the same episode");
        listener.resume_now();
        listener.on_event();
        assert!(matches!(listener.accept(now + QUIET * 2), Accepted::Nothing));
        assert!(listener.pause(now + QUIET * 2), "another episode");
    }

    /// A firewall, a security module or a broken driver may refuse every single connection.
    #[test]
    fn an_error_of_one_connection_that_never_ends_pauses() {
        let mut listener = on_loopback();
        let now = Instant::now();
        for code in [libc::ECONNABORTED, libc::EPROTO, libc::EPERM, libc::EINTR] {
            let error = || Err(io::Error::from_raw_os_error(code));
            for lost in 0..MAX_LOST_IN_A_ROW {
                assert!(listener.judge(error(), now).is_none(), "{code}: {lost}");
                listener.lost += 1;
            }
            assert!(matches!(listener.judge(error(), now), Some(Accepted::Exhausted(_))), "{code}");
            assert!(!listener.ready() && listener.resumes() == Some(now + ACCEPT_PAUSE));
            listener.resume_now();
            assert!(listener.judge(error(), now).is_none(), "counted anew");
        }
        // A connection that is accepted in between shows that not all of them are lost.
        listener.lost = MAX_LOST_IN_A_ROW;
        let would_block = Err(ErrorKind::WouldBlock.into());
        assert!(matches!(listener.judge(would_block, now), Some(Accepted::Nothing)));
        assert_eq!(listener.lost, 0);
    }

    #[test]
    fn errors_of_one_connection_do_not_pause() {
        let of = |code| concerns_one_connection(&io::Error::from_raw_os_error(code));
        assert!(of(libc::ECONNABORTED) && of(libc::EPROTO));
        assert!((1..134).filter(|code| errno::is_shortage(*code)).all(|code| !of(code)));
        assert!(!of(libc::EBADF) && !of(libc::EINVAL));
    }
}
