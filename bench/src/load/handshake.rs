//! A SOCKS5 client with blocking calls, for what is opened one after the other.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socks5d::proto::socks5::{Command, Request, Target};

use super::client::credentials;

/// No connect and no read takes longer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A connection with blocking calls that do not block for ever.
///
/// # Errors
/// Those of connect(2) and of the options.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A client of a SOCKS5 server that has said who it is.
///
/// # Errors
/// If the server cannot be reached, or refuses.
pub fn login(server: SocketAddr, login: bool) -> io::Result<TcpStream> {
    let mut stream = connect(server)?;
    let method = if login { 2 } else { 0 };
    stream.write_all(&[5, 1, method])?;
    expect(&mut stream, [5, method])?;
    if login {
        stream.write_all(&credentials())?;
        expect(&mut stream, [1, 0])?;
    }
    Ok(stream)
}

/// Makes a request. Returns BND of the reply, which is IPv4.
///
/// # Errors
/// If it is refused.
pub fn request(stream: &mut TcpStream, command: Command, target: Target) -> io::Result<SocketAddr> {
    stream.write_all(&Request { command, target }.encode())?;
    expect(stream, [5, 0])?;
    let mut rest = [0; 8];
    stream.read_exact(&mut rest)?;
    let [_, 1, a, b, c, d, high, low] = rest else {
        return Err(io::Error::other(format!("reply {rest:?}")));
    };
    Ok((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])).into())
}

fn expect(stream: &mut TcpStream, wanted: [u8; 2]) -> io::Result<()> {
    let mut answer = [0; 2];
    stream.read_exact(&mut answer)?;
    if answer == wanted { Ok(()) } else { Err(io::Error::other(format!("answer {answer:?}"))) }
}
