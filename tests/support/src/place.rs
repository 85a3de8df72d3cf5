//! A METP server that is restarted: it is reached through a relay that stays, so that its address does not change.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use crate::origin::Origin;
use crate::proxy::{Proxy, connect};

/// An address, and the server that is there now. While there is none, sessions are ended before they begin.
pub struct Place {
    front: Origin,
    behind: Arc<Mutex<Option<SocketAddr>>>,
}

impl Place {
    /// A place where this server is.
    pub fn new(proxy: &Proxy) -> Self {
        let behind = Arc::new(Mutex::new(Some(proxy.metp_address())));
        let now = Arc::clone(&behind);
        let front = Origin::new(move |client| {
            let address = *now.lock().expect("nobody panics with it");
            if let Some(address) = address {
                relay(&client, &connect(address));
            }
        });
        Place { front, behind }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.front.address
    }

    /// From now on, another server is there, or none.
    pub fn is_now(&self, proxy: Option<&Proxy>) {
        *self.behind.lock().expect("nobody panics with it") = proxy.map(Proxy::metp_address);
    }
}

/// Passes on what comes until either side ends, which ends both.
fn relay(client: &TcpStream, server: &TcpStream) {
    server.set_read_timeout(None).expect("a socket");
    client.set_read_timeout(None).expect("a socket");
    std::thread::scope(|scope| {
        for (mut from, mut to) in [(client, server), (server, client)] {
            scope.spawn(move || {
                // A reset is an end, too.
                let _ = io::copy(&mut from, &mut to);
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
            });
        }
    });
}
