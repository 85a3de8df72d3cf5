//! SOCKS version 4 (Ying-Da Lee's memo "SOCKS: A protocol for TCP proxy across firewalls"), and its extension 4A for
//! names ("SOCKS 4A: A Simple Extension to SOCKS 4 Protocol").
//!
//! There is one message each way, and a second reply to BIND. There is no password: USERID is what the client says of
//! itself, and proves nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Parsed;
use super::socks5::{Command, Host, Target};

/// Protocol version, the first byte of a request.
pub const VERSION: u8 = 0x04;
/// The longest USERID and the longest name, in bytes. The memos set no limit; SOCKS5 has this one.
pub const LONGEST_FIELD: usize = 255;
/// The longest request, in bytes: eight, and two fields, each with its NUL.
pub const LONGEST_MESSAGE: usize = FIXED_BYTES + 2 * (LONGEST_FIELD + 1);

/// VN, CD, DSTPORT and DSTIP.
const FIXED_BYTES: usize = 8;

/// Why bytes are not a SOCKS4 request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The version byte is not 04.
    Version(u8),
    /// USERID or the name is longer than [`LONGEST_FIELD`].
    FieldTooLong,
}

/// A client's request.
///
/// ```text
/// +----+----+---------+-------+----------+----+ - - - - -+ - -+
/// | VN | CD | DSTPORT | DSTIP |  USERID  | 00 |   NAME   | 00 |
/// +----+----+---------+-------+----------+----+ - - - - -+ - -+
/// | 04 | 1  |    2    |   4   | variable |    | variable |    |
/// +----+----+---------+-------+----------+----+ - - - - -+ - -+
/// NAME is there if DSTIP is 0.0.0.x with x not zero (4A). Port: network byte order.
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// CD: 01 CONNECT, 02 BIND; F0, to look up a name, is Tor's.
    pub command: Command,
    /// DSTIP and DSTPORT, or NAME and DSTPORT.
    pub target: Target,
    /// USERID, without its NUL.
    pub userid: &'a [u8],
}

impl<'a> Request<'a> {
    /// Reads a request.
    ///
    /// # Errors
    /// [`Error::Version`] unless the first byte is 04, [`Error::FieldTooLong`] as soon as a field has no end where it
    /// must have one.
    pub fn parse(input: &'a [u8]) -> Parsed<Self, Error> {
        match input.first() {
            Some(&VERSION) => {}
            Some(&other) => return Err(Error::Version(other)),
            None => return Ok(None),
        }
        let Some((&[_, code, high, low, a, b, c, d], rest)) = input.split_first_chunk() else {
            return Ok(None);
        };
        let command = match code {
            0x01 => Command::Connect,
            0x02 => Command::Bind,
            0xF0 => Command::Resolve,
            other => Command::Unknown(other),
        };
        let port = u16::from_be_bytes([high, low]);
        let Some((userid, length)) = terminated(rest)? else { return Ok(None) };
        let mut taken = FIXED_BYTES + length;
        let host = match [a, b, c, d] {
            [0, 0, 0, last] if last != 0 => {
                let behind = rest.get(length..).unwrap_or_default();
                let Some((name, length)) = terminated(behind)? else { return Ok(None) };
                taken += length;
                Host::Name(name.into())
            }
            octets => Host::Ip(Ipv4Addr::from(octets).into()),
        };
        Ok(Some((Request { command, target: Target { host, port }, userid }, taken)))
    }
}

/// A field, without its NUL.
fn terminated(input: &[u8]) -> Parsed<&[u8], Error> {
    match input.iter().take(LONGEST_FIELD + 1).position(|byte| *byte == 0) {
        Some(end) => Ok(Some((input.get(..end).unwrap_or_default(), end + 1))),
        None if input.len() > LONGEST_FIELD => Err(Error::FieldTooLong),
        None => Ok(None),
    }
}

/// The result of a request, its CD. 92 and 93 are about identd, which is never asked here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ReplyCode {
    /// 90: granted.
    Granted = 0x5A,
    /// 91: rejected or failed.
    Rejected = 0x5B,
}

/// The server's answer: VN is 00 in it. A client of version 4 has no room for an address of IPv6, and gets 0.0.0.0 in
/// its place; after a CONNECT it ignores the address.
pub fn reply(code: ReplyCode, bound: SocketAddr) -> [u8; 8] {
    let IpAddr::V4(address) = bound.ip() else {
        return reply(code, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    };
    let ([high, low], [a, b, c, d]) = (bound.port().to_be_bytes(), address.octets());
    [0x00, code as u8, high, low, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (Request<'_>, usize) {
        Request::parse(bytes).expect("a request").expect("whole")
    }

    /// The memo of version 4, "CONNECT" and "BIND".
    #[test]
    fn requests_with_an_address() {
        let (request, taken) = read(b"\x04\x01\x00\x50\xc0\x00\x02\x07Fred\x00GET");
        assert_eq!((request.command, request.userid), (Command::Connect, &b"Fred"[..]));
        assert_eq!((request.target.to_string(), taken), ("192.0.2.7:80".to_owned(), 13));
        let (request, taken) = read(b"\x04\x02\x00\x14\x00\x00\x00\x00\x00");
        assert_eq!((request.command, request.userid), (Command::Bind, &b""[..]));
        assert_eq!((request.target.to_string(), taken), ("0.0.0.0:20".to_owned(), 9));
        // There is no UDP in version 4, although 03 is that in version 5.
        let (request, _) = read(b"\x04\x03\x00\x50\xc0\x00\x02\x07\x00");
        assert_eq!(request.command, Command::Unknown(3));
    }

    /// The memo of 4A: the first three bytes of DSTIP are zero, the last one is not.
    #[test]
    fn requests_with_a_name() {
        let (request, taken) = read(b"\x04\x01\x01\xbb\x00\x00\x00\x01Fred\x00example.com\x00");
        assert_eq!((request.target.to_string(), taken), ("example.com:443".to_owned(), 25));
        let (request, _) = read(b"\x04\xf0\x00\x00\x00\x00\x00\xff\x00example.com\x00");
        assert_eq!(request.command, Command::Resolve);
        let (request, taken) = read(b"\x04\x01\x01\xbb\x00\x00\x00\x01\x00\x00");
        assert_eq!((request.target.host, taken), (Host::Name((*b"").into()), 10));
        let (request, _) = read(b"\x04\x01\x01\xbb\x00\x00\x01\x00\x00");
        assert_eq!(request.target.to_string(), "0.0.1.0:443");
    }

    #[test]
    fn every_beginning_of_a_request_is_incomplete() {
        let whole = b"\x04\x01\x01\xbb\x00\x00\x00\x01Fred\x00example.com\x00";
        for end in 0..whole.len() {
            assert_eq!(Request::parse(&whole[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn fields_have_a_limit() {
        let with = |user: usize, name: usize| {
            let mut bytes = b"\x04\x01\x00\x50\x00\x00\x00\x01".to_vec();
            bytes.extend(vec![b'u'; user].into_iter().chain([0]).chain(vec![b'n'; name]));
            bytes
        };
        let mut longest = with(255, 255);
        assert_eq!(Request::parse(&longest), Ok(None));
        longest.push(0);
        assert_eq!((longest.len(), read(&longest).1), (LONGEST_MESSAGE, LONGEST_MESSAGE));
        assert_eq!(Request::parse(&with(256, 0)), Err(Error::FieldTooLong));
        assert_eq!(Request::parse(&with(255, 256)), Err(Error::FieldTooLong));
        // Without its NUL, as soon as it can be known.
        let mut endless = b"\x04\x01\x00\x50\x00\x00\x00\x01".to_vec();
        endless.extend([b'u'; 256]);
        assert_eq!(Request::parse(&endless), Err(Error::FieldTooLong));
        assert_eq!(Request::parse(b"\x05\x01\x00"), Err(Error::Version(5)));
    }

    #[test]
    fn replies_have_eight_bytes() {
        let v4 = reply(ReplyCode::Granted, SocketAddr::from(([192, 0, 2, 7], 80)));
        assert_eq!(v4, *b"\x00\x5a\x00\x50\xc0\x00\x02\x07");
        let v6 = reply(ReplyCode::Rejected, "[2001:db8::1]:80".parse().expect("an address"));
        assert_eq!(v6, *b"\x00\x5b\x00\x00\x00\x00\x00\x00");
    }
}
