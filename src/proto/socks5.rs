//! SOCKS version 5: RFC 1928, and the user/password sub-negotiation of RFC 1929.
//!
//! Messages in the order in which they travel: [`Hello`], the method choice, [`Credentials`], the
//! sub-negotiation status, [`Request`], [`Reply`]. This module knows the bytes and no policy: which accounts may
//! log in and where they may connect is decided in `socks/`.

pub mod datagram;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Parsed;
use metp_protocol::text::Escaped;

/// Protocol version, the first byte of hello, request and reply (RFC 1928 §3).
pub const VERSION: u8 = 0x05;
/// Version of the user/password sub-negotiation (RFC 1929 §2).
pub const AUTH_VERSION: u8 = 0x01;
/// Method "no authentication required" (RFC 1928 §3).
pub const METHOD_NO_AUTHENTICATION: u8 = 0x00;
/// Method "username/password" (RFC 1928 §3).
pub const METHOD_PASSWORD: u8 = 0x02;
/// Method "no acceptable methods" (RFC 1928 §3).
pub const METHOD_NO_ACCEPTABLE: u8 = 0xFF;
/// The longest client message, in bytes: credentials with a name and a password of 255 bytes each.
pub const LONGEST_MESSAGE: usize = 513;

const ATYP_IPV4: u8 = 0x01;
const ATYP_NAME: u8 = 0x03;
const ATYP_IPV6: u8 = 0x04;

/// Why bytes are not a SOCKS5 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The version byte is not the one that belongs there.
    Version(u8),
    /// The address type is none of 01, 03, 04 (RFC 1928 §5).
    AddressType(u8),
}

/// The client's first message (RFC 1928 §3).
///
/// ```text
/// +-----+----------+------------+
/// | VER | NMETHODS |  METHODS   |
/// +-----+----------+------------+
/// | 05  |    1     | 0 to 255   |
/// +-----+----------+------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The methods offered, one byte each, in the client's order.
    pub methods: &'a [u8],
}

impl<'a> Hello<'a> {
    /// Reads a hello. An unknown version is refused at its first byte.
    ///
    /// # Errors
    /// [`Error::Version`] unless the first byte is 05.
    pub fn parse(input: &'a [u8]) -> Parsed<Self, Error> {
        let mut wire = Wire::new(input);
        expect_version(&mut wire, VERSION)?;
        Ok(wire.counted().map(|methods| (Hello { methods }, wire.position)))
    }
}

/// The server's choice of method (RFC 1928 §3): `05 METHOD`.
pub fn method_choice(method: u8) -> [u8; 2] {
    [VERSION, method]
}

/// Name and password (RFC 1929 §2). Both are plain byte strings of 0 to 255 bytes; the RFC wants at least
/// one, and an empty one is a login that fails rather than a message that cannot be read.
///
/// ```text
/// +-----+------+----------+------+----------+
/// | VER | ULEN |  UNAME   | PLEN |  PASSWD  |
/// +-----+------+----------+------+----------+
/// | 01  |  1   | 1 to 255 |  1   | 1 to 255 |
/// +-----+------+----------+------+----------+
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// The account's name.
    pub name: &'a [u8],
    /// Its password.
    pub password: &'a [u8],
}

/// Shows the name alone, so that no debug print can carry a password.
impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", Escaped(self.name))
    }
}

impl<'a> Credentials<'a> {
    /// Reads name and password.
    ///
    /// # Errors
    /// [`Error::Version`] unless the first byte is 01.
    pub fn parse(input: &'a [u8]) -> Parsed<Self, Error> {
        let mut wire = Wire::new(input);
        expect_version(&mut wire, AUTH_VERSION)?;
        let Some(name) = wire.counted() else { return Ok(None) };
        let Some(password) = wire.counted() else { return Ok(None) };
        Ok(Some((Credentials { name, password }, wire.position)))
    }
}

/// The outcome of the sub-negotiation (RFC 1929 §2): `01 00` success, `01 01` failure.
pub fn auth_status(accepted: bool) -> [u8; 2] {
    [AUTH_VERSION, u8::from(!accepted)]
}

/// What a request asks for, its CMD (RFC 1928 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// 01: open a TCP connection to the target.
    Connect,
    /// 02: accept one TCP connection from the target.
    Bind,
    /// 03: relay UDP datagrams.
    UdpAssociate,
    /// F0: look up the addresses of a name (Tor's socks-extensions, "Name lookup").
    Resolve,
    /// F1: look up the name of an address (the same).
    ResolvePtr,
    /// Any other value; answered with [`ReplyCode::CommandNotSupported`].
    Unknown(u8),
}

impl From<u8> for Command {
    fn from(byte: u8) -> Self {
        match byte {
            0x01 => Command::Connect,
            0x02 => Command::Bind,
            0x03 => Command::UdpAssociate,
            0xF0 => Command::Resolve,
            0xF1 => Command::ResolvePtr,
            other => Command::Unknown(other),
        }
    }
}

impl From<Command> for u8 {
    fn from(command: Command) -> Self {
        match command {
            Command::Connect => 0x01,
            Command::Bind => 0x02,
            Command::UdpAssociate => 0x03,
            Command::Resolve => 0xF0,
            Command::ResolvePtr => 0xF1,
            Command::Unknown(other) => other,
        }
    }
}

/// The host part of a target, as the client sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// ATYP 01 or 04.
    Ip(IpAddr),
    /// ATYP 03: 0 to 255 bytes, not necessarily a valid name.
    Name(Box<[u8]>),
}

/// Where a request wants to go. Displays as `host:port`, an IPv6 address in brackets, a name escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Address or name.
    pub host: Host,
    /// Port, in host byte order.
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Ip(address) => address.fmt(f),
            Host::Name(name) => Escaped(name).fmt(f),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

/// A client's request (RFC 1928 §4). RSV is skipped whatever it holds, as other servers do.
///
/// ```text
/// +-----+-----+-----+------+----------+----------+
/// | VER | CMD | RSV | ATYP | DST.ADDR | DST.PORT |
/// +-----+-----+-----+------+----------+----------+
/// | 05  |  1  | 00  |  1   | variable |    2     |
/// +-----+-----+-----+------+----------+----------+
/// ATYP 01: 4 bytes. 03: a length byte and that many bytes. 04: 16 bytes. Port: network byte order.
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// CMD.
    pub command: Command,
    /// DST.ADDR and DST.PORT.
    pub target: Target,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// [`Error::Version`] unless the first byte is 05, [`Error::AddressType`] as soon as ATYP is there and
    /// unknown: its length cannot be known either.
    pub fn parse(input: &[u8]) -> Parsed<Self, Error> {
        let mut wire = Wire::new(input);
        expect_version(&mut wire, VERSION)?;
        let (Some(command), Some(_rsv), Some(kind)) = (wire.byte(), wire.byte(), wire.byte())
        else {
            return Ok(None);
        };
        let host = match kind {
            ATYP_IPV4 => wire.array().map(|bytes: [u8; 4]| Host::Ip(Ipv4Addr::from(bytes).into())),
            // v4-mapped is IPv4 from here on, so that logs, limits and rules see one form.
            ATYP_IPV6 => {
                wire.array().map(|bytes: [u8; 16]| Host::Ip(Ipv6Addr::from(bytes).to_canonical()))
            }
            ATYP_NAME => wire.counted().map(|name| Host::Name(name.into())),
            other => return Err(Error::AddressType(other)),
        };
        let (Some(host), Some(port)) = (host, wire.array()) else { return Ok(None) };
        let target = Target { host, port: u16::from_be_bytes(port) };
        Ok(Some((Request { command: command.into(), target }, wire.position)))
    }

    /// Writes the request as a client sends it. A name is cut at 255 bytes, the most the length byte holds.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.command.into(), 0x00];
        match &self.target.host {
            Host::Ip(address) => encode_ip(*address, &mut out),
            Host::Name(name) => {
                let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
                out.extend([ATYP_NAME, length]);
                out.extend(name.iter().take(length.into()));
            }
        }
        out.extend(self.target.port.to_be_bytes());
        out
    }
}

/// The result of a request, its REP (RFC 1928 §6). Displays as the decimal number of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ReplyCode {
    /// 00
    Succeeded = 0x00,
    /// 01: anything that has no code of its own.
    GeneralFailure = 0x01,
    /// 02: refused by a rule of this server.
    NotAllowed = 0x02,
    /// 03
    NetworkUnreachable = 0x03,
    /// 04: also a name that does not exist, cannot exist, or did not resolve in time.
    HostUnreachable = 0x04,
    /// 05
    ConnectionRefused = 0x05,
    /// 06: the RFC's "TTL expired"; used for a connection that was not made in time.
    TimedOut = 0x06,
    /// 07
    CommandNotSupported = 0x07,
    /// 08
    AddressTypeNotSupported = 0x08,
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (*self as u8).fmt(f)
    }
}

/// The server's answer to a request (RFC 1928 §6), laid out like the request with REP in place of CMD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The result.
    pub code: ReplyCode,
    /// BND.ADDR and BND.PORT: the local address of the outgoing socket.
    pub bound: SocketAddr,
}

impl Reply {
    /// A refusal. There is no outgoing socket to name, so BND is 0.0.0.0:0.
    pub fn refusal(code: ReplyCode) -> Self {
        Reply { code, bound: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)) }
    }

    /// The reply as it travels: 10 bytes with an IPv4 address, 22 with IPv6.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.code as u8, 0x00];
        encode_ip(self.bound.ip(), &mut out);
        out.extend(self.bound.port().to_be_bytes());
        out
    }
}

/// The reply to a command that asks for a name: success, with the name in place of BND.ADDR and port 0 (Tor's
/// socks-extensions). A name is cut at 255 bytes, the most the length byte holds.
pub fn name_reply(name: &[u8]) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    let mut out = vec![VERSION, ReplyCode::Succeeded as u8, 0x00, ATYP_NAME, length];
    out.extend(name.iter().take(length.into()));
    out.extend([0, 0]);
    out
}

fn encode_ip(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => {
            out.push(ATYP_IPV4);
            out.extend(v4.octets());
        }
        IpAddr::V6(v6) => {
            out.push(ATYP_IPV6);
            out.extend(v6.octets());
        }
    }
}

/// Refuses a first byte that is there and not `version`; no byte yet is no error.
fn expect_version(wire: &mut Wire<'_>, version: u8) -> Result<(), Error> {
    match wire.byte() {
        Some(other) if other != version => Err(Error::Version(other)),
        _ => Ok(()),
    }
}

/// A reading position. Past the end it stays there and says `None`.
struct Wire<'a> {
    input: &'a [u8],
    position: usize,
}

impl<'a> Wire<'a> {
    fn new(input: &'a [u8]) -> Self {
        Wire { input, position: 0 }
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.position.checked_add(count)?;
        let bytes = self.input.get(self.position..end)?;
        self.position = end;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    /// A length byte and that many bytes.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let length = self.byte()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests;
