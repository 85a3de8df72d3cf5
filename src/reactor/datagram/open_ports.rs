//! The ports of the server's own sockets for datagrams.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The ports that are open, and by how many sockets: those of both families, and of different addresses, may share one.
#[derive(Clone, Default)]
pub struct OpenPorts(Rc<RefCell<HashMap<u16, usize>>>);

/// A port that is open. Dropping it takes it off the list, in a panic too.
#[must_use]
pub struct OpenPort {
    ports: OpenPorts,
    port: u16,
}

impl OpenPorts {
    /// Enters the port of a socket that was opened.
    pub fn open(&self, port: u16) -> OpenPort {
        *self.0.borrow_mut().entry(port).or_default() += 1;
        OpenPort { ports: self.clone(), port }
    }

    /// Whether a socket with this port is open.
    pub fn is_open(&self, port: u16) -> bool {
        self.0.borrow().contains_key(&port)
    }

    /// Whether no socket is open.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}

impl Drop for OpenPort {
    fn drop(&mut self) {
        let mut ports = self.ports.0.borrow_mut();
        if let Some(count) = ports.get_mut(&self.port) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                ports.remove(&self.port);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_open_as_long_as_one_of_its_sockets() {
        let ports = OpenPorts::default();
        let (one, two) = (ports.open(53), ports.open(53));
        drop(one);
        assert!(ports.is_open(53) && !ports.is_open(54));
        drop(two);
        assert!(!ports.is_open(53) && ports.is_empty());
    }
}
