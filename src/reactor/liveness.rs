//! How the kernel finds out that a peer is gone: keepalive probes while nothing is under way (RFC 9293
//! §3.8.4), and the user timeout while sent bytes are not acknowledged (RFC 5482, TCP_USER_TIMEOUT).

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// What the kernel takes (tcp(7)): whole seconds that fit into 15 bits, and not zero.
const SHORTEST_IDLE: Duration = Duration::from_secs(1);
const LONGEST_IDLE: Duration = Duration::from_secs(32767);
/// Milliseconds in 31 bits, as tcp(7) takes them.
const LONGEST_USER_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBES: u32 = 6;

/// When a peer of which nothing is heard counts as gone. `None` turns either off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Liveness {
    /// Silence until the first of six probes, which follow each other every 10 s.
    keepalive: Option<Duration>,
    /// How long sent bytes may stay unacknowledged.
    user_timeout: Option<Duration>,
}

impl Liveness {
    /// With keepalive on, `user_timeout` is at least as long as keepalive and its probes take: the kernel ends
    /// a silent connection at the first unanswered probe behind the user timeout.
    pub fn new(keepalive: Option<Duration>, user_timeout: Option<Duration>) -> Self {
        let probed = keepalive.map(|idle| idle.saturating_add(PROBE_INTERVAL * PROBES));
        Liveness {
            keepalive,
            user_timeout: user_timeout.map(|time| time.max(probed.unwrap_or(time))),
        }
    }

    /// Sets both on a socket. Sockets accepted by a listener inherit them.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn apply(&self, socket: &SockRef<'_>) -> io::Result<()> {
        match self.keepalive {
            Some(idle) => {
                let idle = idle.clamp(SHORTEST_IDLE, LONGEST_IDLE);
                let keepalive = TcpKeepalive::new().with_time(idle);
                let keepalive = keepalive.with_interval(PROBE_INTERVAL).with_retries(PROBES);
                socket.set_tcp_keepalive(&keepalive)?;
            }
            None => socket.set_keepalive(false)?,
        }
        // Zero is the kernel's own timeout; less than a millisecond would become that.
        let shortest = Duration::from_millis(1);
        let time = self.user_timeout.map(|time| time.clamp(shortest, LONGEST_USER_TIMEOUT));
        socket.set_tcp_user_timeout(time)
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;

    /// A time in seconds has fractions, and a year is a legal one.
    #[test]
    fn the_kernel_takes_any_time() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        for millis in [1, 500, 1500, 32_768_000, 31_536_000_000] {
            let time = Some(Duration::from_millis(millis));
            for liveness in [Liveness::new(time, time), Liveness::new(None, time)] {
                liveness.apply(&SockRef::from(&socket)).expect("taken");
                let set = socket.tcp_user_timeout().expect("a socket").expect("not off");
                assert_eq!(set, liveness.user_timeout.expect("set").min(LONGEST_USER_TIMEOUT));
            }
            assert!(!socket.keepalive().expect("a socket"));
        }
        Liveness::new(None, None).apply(&SockRef::from(&socket)).expect("taken");
        assert_eq!(socket.tcp_user_timeout().expect("a socket"), None);
    }

    #[test]
    fn the_user_timeout_cuts_no_probe_short() {
        let seconds = |count| Some(Duration::from_secs(count));
        let of = |keepalive, user_timeout| Liveness::new(keepalive, user_timeout).user_timeout;
        assert_eq!(of(seconds(60), seconds(120)), seconds(120));
        assert_eq!(of(seconds(600), seconds(120)), seconds(660));
        assert_eq!(of(seconds(60), seconds(300)), seconds(300));
        assert_eq!(of(None, seconds(1)), seconds(1));
        assert_eq!(of(seconds(60), None), None);
        assert_eq!(of(Some(Duration::MAX), seconds(1)), Some(Duration::MAX));
    }
}
