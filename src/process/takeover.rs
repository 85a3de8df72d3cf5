//! The part of the new server in a takeover (`src/server/takeover.rs` has that of the one before, and the order).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use common::process::cannot;
use metp_protocol::text::Ascii;
use socket2::Socket;

use super::activation::is_listening;
use crate::reactor::handover;
use crate::server::Addresses;
use crate::server::takeover::{HELLO, READY, YOURS};
use crate::state::service::{PerService, Service};

/// How long the server before may take to answer: it writes its figures meanwhile.
const MOST_TIME: Duration = Duration::from_secs(20);
/// The longest line of an answer.
const MOST_BYTES: usize = 256;

/// The server before, whose sockets this one has got.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    /// Its sockets.
    pub sockets: PerService<Option<TcpListener>>,
}

impl Predecessor {
    /// Asks the server that listens at this path for its sockets. `None`: there is none. `user` is one, besides this
    /// process's own and root, whom it may belong to.
    ///
    /// # Errors
    /// If it belongs to another user, or does not give them.
    pub fn connect(path: &Path, user: Option<u32>) -> io::Result<Option<Self>> {
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            // What a server has left that was killed.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let peer = handover::peer_user(&stream)?;
        if ![Some(0), Some(handover::own_user()), user].contains(&Some(peer)) {
            return Err(io::Error::other(format!("it belongs to user {peer}")));
        }
        stream.set_read_timeout(Some(MOST_TIME))?;
        stream.set_write_timeout(Some(MOST_TIME))?;
        // One that refuses may have closed it already; its answer is there all the same.
        let _ = (&stream).write_all(HELLO.as_bytes());
        let mut bytes = [0; MOST_BYTES];
        let (count, received) =
            handover::receive(&stream, &mut bytes).map_err(cannot("get its sockets"))?;
        let line = bytes.get(..count).unwrap_or_default();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let text = std::str::from_utf8(line).unwrap_or_default();
        let Some(names) = text.strip_prefix("sockets") else {
            let text = match text.strip_prefix("no: ") {
                Some(cause) => format!("the server there refuses: {}", Ascii(cause)),
                None => "the server there does not give its sockets".to_owned(),
            };
            return Err(io::Error::other(text));
        };
        let mut sockets = PerService::<Option<TcpListener>>::default();
        let names: Vec<&str> = names.split_whitespace().collect();
        if names.len() != received.len() {
            return Err(io::Error::other("the server there gives other sockets than it says"));
        }
        for (name, descriptor) in names.into_iter().zip(received) {
            let socket = Socket::from(descriptor);
            // A later version may have more services.
            if let Some(service) = Service::ALL.into_iter().find(|one| one.to_string() == name)
                && is_listening(&socket)
            {
                *sockets.of_mut(service) = Some(socket.into());
            }
        }
        Ok(Some(Predecessor { stream, sockets }))
    }

    /// Takes those of its sockets that are where the options want them, for services that have none.
    pub fn give(
        &mut self,
        wanted: &Addresses,
        sockets: &mut PerService<Option<TcpListener>>,
    ) -> io::Result<()> {
        for service in Service::ALL {
            let (Some(given), Some(wanted)) =
                (self.sockets.of_mut(service).take(), wanted.of(service))
            else {
                continue;
            };
            let address = given.local_addr()?;
            if sockets.of(service).is_none() && is_at(*wanted, address.ip(), address.port()) {
                *sockets.of_mut(service) = Some(given);
            }
        }
        Ok(())
    }

    /// This server accepts from now on: the one before drains. Returns the stream on which it sends its last figures.
    ///
    /// # Errors
    /// If it has given up waiting, or has ended.
    pub fn dismiss(mut self) -> io::Result<UnixStream> {
        let mut answer = [0; YOURS.len()];
        let answered = self
            .stream
            .write_all(READY.as_bytes())
            .and_then(|()| self.stream.read_exact(&mut answer));
        match answered {
            Ok(()) if answer == YOURS.as_bytes() => Ok(self.stream),
            _ => Err(io::Error::other("the server before has given up")),
        }
    }
}

/// Whether a socket listens where the options want it: port 0 is any.
fn is_at((wanted, wanted_port): (Option<IpAddr>, u16), address: IpAddr, port: u16) -> bool {
    let fits = match wanted {
        None => address.is_unspecified(),
        Some(wanted) => wanted == address,
    };
    fits && (wanted_port == 0 || wanted_port == port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_taken_where_the_options_want_them() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (wanted, port, address, fits) in [
            (None, 1080, "::", true),
            (None, 1080, "0.0.0.0", true),
            (None, 1080, "127.0.0.1", false),
            (Some("127.0.0.1"), 0, "127.0.0.1", true),
            (Some("127.0.0.1"), 1081, "127.0.0.1", false),
            (Some("127.0.0.1"), 1080, "0.0.0.0", false),
        ] {
            assert_eq!(is_at((wanted.map(ip), port), ip(address), 1080), fits, "{wanted:?}");
        }
    }
}
