//! The addresses of the server's own sockets for datagrams.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

/// The addresses and ports that sockets are bound to, and by how many.
#[derive(Clone, Default)]
pub struct OpenPorts(Rc<RefCell<HashMap<SocketAddr, usize>>>);

/// An address and port that a socket is bound to. Dropping it takes it off the list, in a panic too.
#[must_use]
pub struct OpenPort {
    ports: OpenPorts,
    bound: SocketAddr,
}

impl OpenPorts {
    /// Enters what a socket is bound to.
    pub fn open(&self, bound: SocketAddr) -> OpenPort {
        *self.0.borrow_mut().entry(bound).or_default() += 1;
        OpenPort { ports: self.clone(), bound }
    }

    /// Whether a socket that is bound to this address and port is open.
    pub fn is_open(&self, bound: SocketAddr) -> bool {
        self.0.borrow().contains_key(&bound)
    }

    /// Whether a socket that is bound to this port of all addresses of the family is open. It may have sent a datagram
    /// with this source if that is an address of this machine.
    pub fn is_open_everywhere(&self, source: SocketAddr) -> bool {
        let everywhere: IpAddr = match source {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        self.is_open(SocketAddr::new(everywhere, source.port()))
    }

    /// Whether no socket is open.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}

impl Drop for OpenPort {
    fn drop(&mut self) {
        let mut ports = self.ports.0.borrow_mut();
        if let Some(count) = ports.get_mut(&self.bound) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                ports.remove(&self.bound);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("a literal")
    }

    #[test]
    fn a_port_is_open_as_long_as_one_of_its_sockets() {
        let (ports, bound) = (OpenPorts::default(), at("127.0.0.1:53"));
        let (one, two) = (ports.open(bound), ports.open(bound));
        drop(one);
        assert!(ports.is_open(bound) && !ports.is_open(at("127.0.0.1:54")));
        assert!(!ports.is_open(at("127.0.0.2:53")) && !ports.is_open_everywhere(bound));
        drop(two);
        assert!(!ports.is_open(bound) && ports.is_empty());
    }

    #[test]
    fn a_socket_of_all_addresses_is_of_one_family() {
        let ports = OpenPorts::default();
        let _open = ports.open(at("0.0.0.0:53"));
        assert!(ports.is_open_everywhere(at("192.0.2.1:53")));
        assert!(!ports.is_open(at("192.0.2.1:53")) && !ports.is_open_everywhere(at("[::1]:53")));
    }
}
