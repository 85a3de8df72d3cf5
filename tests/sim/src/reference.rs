//! What a server has to answer by RFC 1928, RFC 1929, the memos of SOCKS4 and RFC 9112, without any of the code under
//! test: whole messages off the front, one after the other.

mod http;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the server lets in besides logins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// The client needs no login.
    pub trusted: bool,
    /// A wrong one will do, too.
    pub any_login: bool,
    /// CONNECT of HTTP is served.
    pub http: bool,
}

/// Who a login is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The account whose name and password were given.
    Account,
    /// Nobody in particular, from a trusted network.
    Trusted,
}

/// A client's bytes as a server has to take them.
#[derive(Debug)]
pub struct Heard {
    /// The answers so far, to the byte. The reply to a request that can be read is not among them, nor is a refusal in
    /// the words of HTTP.
    pub answers: Vec<u8>,
    /// Who has been let in.
    pub who: Option<Who>,
    /// How far it has come.
    pub stage: Stage,
}

#[derive(Debug)]
pub enum Stage {
    /// A message is not whole yet, or the login not decided.
    Unfinished,
    /// A head of HTTP is not whole yet; it may be refused (400) before it is.
    Head,
    /// Nothing more is to be said or taken.
    Over,
    /// A refusal with this status of HTTP is to be said, and nothing more.
    Status(u16),
    /// A head that this reading knows nothing of: some refusal is to be said.
    Unknown,
    /// A whole request, after a good login or without one.
    Asked(Asked),
}

/// The protocol of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Socks5,
    Socks4,
    Http,
}

/// A request that can be read.
#[derive(Debug)]
pub struct Asked {
    pub dialect: Dialect,
    pub command: u8,
    /// An address, or a name.
    pub host: Result<IpAddr, Vec<u8>>,
    pub port: u16,
    /// Where the payload begins.
    pub taken: usize,
}

/// Hears a client's bytes. `login` decides about name and password of an account; `None` if that is not decided yet.
pub fn hear(
    bytes: &[u8],
    policy: Policy,
    login: impl FnOnce(&[u8], &[u8]) -> Option<bool>,
) -> Heard {
    let mut heard = Heard { answers: Vec::new(), who: None, stage: Stage::Unfinished };
    let decide = |name: &[u8], password: &[u8]| {
        if policy.trusted && password.is_empty() {
            return Some(Some(Who::Trusted));
        }
        let otherwise = (policy.trusted && policy.any_login).then_some(Who::Trusted);
        login(name, password).map(|good| if good { Some(Who::Account) } else { otherwise })
    };
    let stage = match bytes.first() {
        None => None,
        Some(4) => socks4(bytes, policy, &mut heard),
        Some(b'A'..=b'Z') => http::converse(bytes, policy, decide, &mut heard),
        Some(5) => socks5(bytes, policy, decide, &mut heard),
        Some(_) => Some(Stage::Over),
    };
    heard.stage = stage.unwrap_or(Stage::Unfinished);
    heard
}

/// `None`: it is not whole yet.
fn socks4(bytes: &[u8], policy: Policy, heard: &mut Heard) -> Option<Stage> {
    let refused = [0, 0x5b, 0, 0, 0, 0, 0, 0];
    if !policy.trusted {
        heard.answers.extend(refused);
        return Some(Stage::Over);
    }
    let [_, command, high, low, a, b, c, d] = *bytes.first_chunk::<8>()?;
    let mut at = 8;
    let mut field = || {
        let rest = &bytes[at..];
        let end = rest.iter().position(|byte| *byte == 0);
        at += end.unwrap_or(rest.len()) + 1;
        match end {
            Some(end) if end <= 255 => Some(Ok(&rest[..end])),
            None if rest.len() <= 255 => None,
            _ => Some(Err(())),
        }
    };
    let mut fields = vec![field()?];
    if (a, b, c) == (0, 0, 0) && d != 0 && fields[0].is_ok() {
        fields.push(field()?);
    }
    if fields.iter().any(Result::is_err) {
        heard.answers.extend(refused);
        return Some(Stage::Over);
    }
    heard.who = Some(Who::Trusted);
    let host = match fields.get(1) {
        Some(name) => Err(name.expect("checked").to_vec()),
        None => Ok(IpAddr::from([a, b, c, d])),
    };
    let port = u16::from(high) << 8 | u16::from(low);
    Some(Stage::Asked(Asked { dialect: Dialect::Socks4, command, host, port, taken: at }))
}

/// `None`: a message is not whole yet, or the login not decided.
fn socks5(
    bytes: &[u8],
    policy: Policy,
    decide: impl FnOnce(&[u8], &[u8]) -> Option<Option<Who>>,
    heard: &mut Heard,
) -> Option<Stage> {
    let mut at = 2 + usize::from(*bytes.get(1)?);
    let methods = bytes.get(2..at)?;
    let answers = &mut heard.answers;
    if methods.contains(&2) {
        answers.extend([5, 2]);
        if *bytes.get(at)? != 1 {
            answers.extend([1, 1]);
            return Some(Stage::Over);
        }
        let name = counted(bytes, at + 1)?;
        let password = counted(bytes, at + 2 + name.len())?;
        at += 3 + name.len() + password.len();
        heard.who = decide(name, password)?;
        answers.extend([1, u8::from(heard.who.is_none())]);
    } else if methods.contains(&0) && policy.trusted {
        heard.who = Some(Who::Trusted);
        answers.extend([5, 0]);
    } else {
        answers.extend([5, 0xff]);
    }
    if heard.who.is_none() {
        return Some(Stage::Over);
    }

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
    let dialect = Dialect::Socks5;
    Some(Stage::Asked(Asked { dialect, command, host, port, taken: at + 2 }))
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
