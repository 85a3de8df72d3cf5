//! The part of the new server in a takeover (`src/server/takeover.rs` has that of the one before, and the order).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::process::cannot;
use metp_protocol::text::Ascii;
use socket2::{Domain, SockAddr, Socket, Type};

use super::activation::is_listening;
use crate::reactor::handover;
use crate::server::takeover::{ACCEPTS, HELLO, READY, YOURS};
use crate::server::{Addresses, Server};
use crate::state::service::{PerService, Service};

/// How long the server before may take to answer: it writes its figures meanwhile.
const MOST_TIME: Duration = Duration::from_secs(20);
/// The longest line of an answer.
const MOST_BYTES: usize = 256;

/// The server before, whose sockets this one has got.
#[derive(Debug)]
pub struct Predecessor {
    path: PathBuf,
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
        let stream = match connected(path) {
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
        let (count, received) = match handover::receive(&stream, &mut bytes) {
            // It has been killed meanwhile.
            Ok((0, _)) | Err(_) if is_gone(path) => return Ok(None),
            answer => answer.map_err(cannot("get its sockets"))?,
        };
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
        Ok(Some(Predecessor { path: path.to_owned(), stream, sockets }))
    }

    /// Takes those of its sockets that are where the options want them, for services that have none. Returns the
    /// addresses of the others, which are closed when it ends.
    ///
    /// # Errors
    /// If an address cannot be had of the system.
    pub fn give(
        &mut self,
        wanted: &Addresses,
        sockets: &mut PerService<Option<TcpListener>>,
    ) -> io::Result<Vec<SocketAddr>> {
        let mut others = Vec::new();
        for service in Service::ALL {
            let Some(given) = self.sockets.of_mut(service).take() else { continue };
            let address = given.local_addr()?;
            let is_wanted = wanted
                .of(service)
                .is_some_and(|wanted| is_at(wanted, address.ip(), address.port()));
            if is_wanted && sockets.of(service).is_none() {
                *sockets.of_mut(service) = Some(given);
            } else {
                others.push(address);
            }
        }
        Ok(others)
    }

    /// This server is ready. Returns whether the one before promises its sockets; `false`: it has ended, and they are this
    /// server's alone.
    ///
    /// # Errors
    /// If it has given up waiting: it goes on serving.
    fn asks(&mut self) -> io::Result<bool> {
        let mut answer = [0; YOURS.len()];
        let answered = self
            .stream
            .write_all(READY.as_bytes())
            .and_then(|()| self.stream.read_exact(&mut answer));
        match answered {
            Ok(()) if answer == YOURS.as_bytes() => Ok(true),
            _ if is_gone(&self.path) => Ok(false),
            _ => Err(given_up()),
        }
    }

    /// Nothing can hinder this server any more: the one before drains. Returns the stream on which it sends its last
    /// figures.
    ///
    /// # Errors
    /// If it has given up waiting, or has ended.
    fn accepts(mut self) -> io::Result<UnixStream> {
        self.stream.write_all(ACCEPTS.as_bytes()).map_err(|_| given_up())?;
        Ok(self.stream)
    }
}

/// The server before drains from now on, and this one has its place. Returns what the log has to warn of.
///
/// # Errors
/// If it has given up waiting, or the socket cannot have its name: then it goes on serving.
pub fn complete(
    predecessor: Option<Predecessor>,
    server: &mut Server,
    keeps_figures: bool,
) -> io::Result<Option<String>> {
    let promised = match predecessor {
        None => None,
        Some(mut predecessor) => {
            let promises = predecessor.asks().map_err(cannot("take over"))?;
            promises.then_some(predecessor)
        }
    };
    server.publish_takeover().map_err(cannot("name the socket of --takeover"))?;
    let Some(predecessor) = promised else { return Ok(None) };
    let stream = predecessor.accepts().map_err(cannot("take over"))?;
    if !keeps_figures {
        return Ok(None);
    }
    let awaited = server.await_figures(stream);
    Ok(awaited.err().map(|error| format!("--takeover: the last figures will not come: {error}")))
}

fn given_up() -> io::Error {
    io::Error::other("the server before has given up")
}

/// A connection to the server there, which may be stopped and have no room for one.
fn connected(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(MOST_TIME))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(OwnedFd::from(socket).into())
}

/// Whether no server listens at this path any more.
fn is_gone(path: &Path) -> bool {
    connected(path).is_err_and(|error| {
        matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
    })
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
