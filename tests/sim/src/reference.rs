//! What a SOCKS server has to answer by RFC 1928 and RFC 1929, without any of the code under test: whole messages
//! off the front, one after the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A client's bytes as a server has to take them.
#[derive(Debug)]
pub struct Heard {
    /// The answers so far, to the byte. The reply to a request that can be read is not among them.
    pub answers: Vec<u8>,
    /// How far it has come.
    pub stage: Stage,
}

#[derive(Debug)]
pub enum Stage {
    /// A message is not whole yet, or the login not decided.
    Unfinished,
    /// Nothing more is to be said or taken.
    Over,
    /// A whole request, after a good login.
    Asked(Asked),
}

/// A request that can be read.
#[derive(Debug)]
pub struct Asked {
    pub command: u8,
    /// An address, or a name.
    pub host: Result<IpAddr, Vec<u8>>,
    pub port: u16,
    /// Where the payload begins.
    pub taken: usize,
}

/// Hears a client's bytes. `login` decides about name and password; `None` if that is not decided yet.
pub fn hear(bytes: &[u8], login: impl FnOnce(&[u8], &[u8]) -> Option<bool>) -> Heard {
    let mut answers = Vec::new();
    let stage = converse(bytes, login, &mut answers).unwrap_or(Stage::Unfinished);
    Heard { answers, stage }
}

/// `None`: a message is not whole yet, or the login not decided.
fn converse(
    bytes: &[u8],
    login: impl FnOnce(&[u8], &[u8]) -> Option<bool>,
    answers: &mut Vec<u8>,
) -> Option<Stage> {
    if *bytes.first()? != 5 {
        return Some(Stage::Over);
    }
    let mut at = 2 + usize::from(*bytes.get(1)?);
    if !bytes.get(2..at)?.contains(&2) {
        answers.extend([5, 0xff]);
        return Some(Stage::Over);
    }
    answers.extend([5, 2]);

    if *bytes.get(at)? != 1 {
        answers.extend([1, 1]);
        return Some(Stage::Over);
    }
    let name = counted(bytes, at + 1)?;
    let password = counted(bytes, at + 2 + name.len())?;
    at += 3 + name.len() + password.len();
    if !login(name, password)? {
        answers.extend([1, 1]);
        return Some(Stage::Over);
    }
    answers.extend([1, 0]);

    if *bytes.get(at)? != 5 {
        answers.extend(refusal(1));
        return Some(Stage::Over);
    }
    let (command, kind) = (*bytes.get(at + 1)?, *bytes.get(at + 3)?);
    at += 4;
    let host = match kind {
        1 => {
            let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
            at += 4;
            Ok(IpAddr::from(Ipv4Addr::from(octets)))
        }
        4 => {
            let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
            at += 16;
            Ok(IpAddr::from(Ipv6Addr::from(octets)))
        }
        3 => {
            let name = counted(bytes, at)?;
            at += 1 + name.len();
            Err(name.to_vec())
        }
        _ => {
            answers.extend(refusal(8));
            return Some(Stage::Over);
        }
    };
    let port = bytes.get(at..at + 2)?;
    let port = u16::from(port[0]) << 8 | u16::from(port[1]);
    Some(Stage::Asked(Asked { command, host, port, taken: at + 2 }))
}

/// A reply that refuses.
pub fn refusal(code: u8) -> [u8; 10] {
    [5, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

fn counted(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let length = usize::from(*bytes.get(at)?);
    bytes.get(at + 1..at + 1 + length)
}

/// What a datagram of RFC 1928 §7 says.
#[derive(Debug, PartialEq, Eq)]
pub struct Sending {
    /// An address, or a name.
    pub host: Result<IpAddr, Vec<u8>>,
    pub port: u16,
    /// Bytes of the payload: all that is behind the header.
    pub payload: usize,
}

/// Reads a datagram. `None`: it has to be dropped.
pub fn read_datagram(bytes: &[u8]) -> Option<Sending> {
    let fragment = *bytes.get(2)?;
    if fragment > 0 {
        return None;
    }
    let (host, rest) = match bytes.get(3)? {
        1 => {
            let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            (Ok(IpAddr::from(ip)), bytes.get(8..)?)
        }
        3 => {
            let end = 5 + usize::from(*bytes.get(4)?);
            let name = bytes.get(5..end)?;
            if name.is_empty() {
                return None;
            }
            (Err(name.to_vec()), bytes.get(end..)?)
        }
        4 => {
            let ip: [u8; 16] = bytes.get(4..20)?.try_into().ok()?;
            (Ok(IpAddr::from(ip)), bytes.get(20..)?)
        }
        _ => return None,
    };
    let port = u16::from(*rest.first()?) * 256 + u16::from(*rest.get(1)?);
    Some(Sending { host, port, payload: rest.len() - 2 })
}
