//! Who the client of an association is: its address is fixed by the control connection, its port by what it sends.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Silence after which the client may go on from another port. A NAT router forgets a mapping after 30 s or more
/// (RFC 4787 §4.3 asks for 2 minutes, home routers do it earlier), and the client gets another port with its next
/// datagram. The same rule mends an announced port that was wrong.
const SILENCE: Duration = Duration::from_secs(30);

/// The address of an association's client.
///
/// Datagrams carry no login. What binds them to the client is the address of its control connection (RFC 1928 §7), and
/// the port of the first datagram from there. What the client says of itself in DST counts only if the address is its
/// own: behind a NAT it does not know its port, and many clients put the target there.
pub struct ClientAddress {
    /// The peer of the control connection, canonical. It gives the scope of a link-local address, too.
    control: SocketAddr,
    port: Option<u16>,
    /// Whether a datagram has come from that port; if not, it has been announced.
    confirmed: bool,
    /// When a datagram last came from that port, or when the association began.
    heard: Instant,
}

impl ClientAddress {
    /// The client with this control connection, which has announced this address and port.
    pub fn new(control: SocketAddr, announced: Option<(IpAddr, u16)>, now: Instant) -> Self {
        let own = announced.filter(|(ip, port)| *ip == control.ip() && *port != 0);
        ClientAddress { control, port: own.map(|(_, port)| port), confirmed: false, heard: now }
    }

    /// Whether a datagram from `source`, which is canonical, is the client's. The first one decides the port, and any
    /// other after [`SILENCE`]. `is_own` says whether it comes from one of this server's own sockets for datagrams: behind
    /// that is a client of this server, which sends to another's association.
    pub fn accepts(
        &mut self,
        source: SocketAddr,
        now: Instant,
        is_own: impl FnOnce() -> bool,
    ) -> bool {
        if source.ip() != self.control.ip() {
            return false;
        }
        let is_present = self.port == Some(source.port());
        if !is_present || !self.confirmed {
            let silent = now.saturating_duration_since(self.heard) >= SILENCE;
            let may_change = is_present || self.port.is_none() || silent;
            if !may_change || is_own() {
                return false;
            }
            (self.port, self.confirmed) = (Some(source.port()), true);
        }
        self.heard = now;
        true
    }

    /// The address without the port.
    pub fn ip(&self) -> IpAddr {
        self.control.ip()
    }

    /// Where datagrams for the client go; `None` before its first one.
    pub fn get(&self) -> Option<SocketAddr> {
        self.port.map(|port| {
            let mut address = self.control;
            address.set_port(port);
            address
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("a literal")
    }

    fn client(announced: Option<&str>) -> (ClientAddress, Instant) {
        let now = Instant::now();
        let announced = announced.map(at).map(|address| (address.ip(), address.port()));
        (ClientAddress::new(at("192.0.2.1:40000"), announced, now), now)
    }

    #[test]
    fn the_first_datagram_decides_the_port() {
        let (mut client, now) = client(None);
        assert_eq!(client.get(), None);
        assert!(!client.accepts(at("192.0.2.9:5000"), now, || false), "another address");
        assert_eq!(client.get(), None);
        assert!(client.accepts(at("192.0.2.1:5000"), now, || false));
        assert!(!client.accepts(at("192.0.2.1:5001"), now, || false), "another port");
        assert_eq!(client.get(), Some(at("192.0.2.1:5000")));
    }

    #[test]
    fn an_announced_port_counts_if_the_address_is_the_clients() {
        for announced in
            ["0.0.0.0:7000", "10.0.0.1:7000", "[::]:7000", "192.0.2.1:0", "192.0.2.80:53"]
        {
            let (mut client, now) = client(Some(announced));
            assert!(client.accepts(at("192.0.2.1:5000"), now, || false), "{announced}");
        }
        let (mut client, now) = client(Some("192.0.2.1:7000"));
        assert_eq!(client.get(), Some(at("192.0.2.1:7000")));
        assert!(!client.accepts(at("192.0.2.1:5000"), now, || false));
        assert!(client.accepts(at("192.0.2.1:7000"), now, || false));
    }

    #[test]
    fn after_a_silence_the_port_may_change() {
        for announced in [None, Some("192.0.2.1:7000")] {
            let (mut client, now) = client(announced);
            assert!(announced.is_some() || client.accepts(at("192.0.2.1:7000"), now, || false));
            let almost = now + SILENCE - Duration::from_millis(1);
            assert!(!client.accepts(at("192.0.2.1:5000"), almost, || false));
            assert!(!client.accepts(at("192.0.2.9:5000"), now + SILENCE, || false));
            assert!(client.accepts(at("192.0.2.1:5000"), now + SILENCE, || false));
            assert!(!client.accepts(at("192.0.2.1:7000"), now + SILENCE, || false), "the old one");
        }
    }

    #[test]
    fn a_datagram_of_the_present_port_begins_the_silence_anew() {
        let (mut client, now) = client(None);
        assert!(client.accepts(at("192.0.2.1:7000"), now, || false));
        assert!(client.accepts(at("192.0.2.1:7000"), now + SILENCE, || false));
        assert!(!client.accepts(at("192.0.2.1:5000"), now + SILENCE, || false));
    }

    #[test]
    fn a_socket_of_this_server_never_becomes_the_client() {
        let (mut client, now) = client(None);
        for when in [now, now + SILENCE] {
            assert!(!client.accepts(at("192.0.2.1:5000"), when, || true));
        }
        assert!(client.accepts(at("192.0.2.1:5001"), now, || false));
        // Nor one that is announced; once it is the client's it is not asked for again.
        let (mut client, now) = self::client(Some("192.0.2.1:7000"));
        assert!(!client.accepts(at("192.0.2.1:7000"), now, || true));
        assert!(client.accepts(at("192.0.2.1:7000"), now, || false));
        assert!(client.accepts(at("192.0.2.1:7000"), now, || panic!("asked again")));
    }
}
