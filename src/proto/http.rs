//! HTTP/1: the head of a CONNECT request (RFC 9110 §9.3.6, RFC 9112 §3), and the responses of a proxy.
//!
//! Nothing of a request is forwarded, so nobody behind this server can understand it in another way. Still a head that
//! could be understood in two ways is refused: lines that end in LF alone, folded lines, NUL, two fields of which there
//! must be one, and content, which CONNECT has not.

mod basic;
pub mod get;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use httparse::{EMPTY_HEADER, Header};

use super::Parsed;
use super::socks5::{Host, Target};
pub use basic::Credentials;
use metp_protocol::quantity::is_digits;

/// The longest head, in bytes: request line and fields, with the empty line behind them.
pub const LONGEST_HEAD: usize = 8192;
/// The most fields of a head.
const MOST_FIELDS: usize = 100;
/// The longest name of a target, in bytes: that of SOCKS5.
const LONGEST_NAME: usize = 255;

const END: &[u8] = b"\r\n\r\n";

/// The head of a CONNECT.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// The request target: host and port.
    pub target: Target,
    /// The field Proxy-Authorization.
    pub login: Login,
}

/// What a request has of a login.
#[derive(Debug, PartialEq, Eq)]
pub enum Login {
    /// Nothing.
    Missing,
    /// Name and password.
    Basic(Credentials),
    /// Another scheme than Basic, or a name and a password that cannot be read or that no account can have.
    Unusable,
}

/// Why bytes are not the head of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It is a request with another method.
    Method,
    /// It cannot be a request, or one that could be understood in two ways.
    Malformed(Fault),
}

/// What is wrong with a head. Displays as a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has no end within [`LONGEST_HEAD`].
    TooLong,
    /// A NUL, or a CR or LF that does not belong to a line end.
    LineEnd,
    /// What RFC 9112 §2 to §5 forbid otherwise.
    Syntax,
    /// The request target is not `host:port` (RFC 9112 §3.2.3).
    Target,
    /// No field Host, or more than one (RFC 9112 §3.2).
    Host,
    /// A CONNECT has no content (RFC 9110 §9.3.6).
    Content,
    /// More than one field Proxy-Authorization.
    Authorization,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::TooLong => "The head of the request is longer than 8 KiB.",
            Fault::LineEnd => "The request has a NUL, or a CR or LF that ends no line.",
            Fault::Syntax => "The request is malformed.",
            Fault::Target => "The target of a CONNECT is host:port.",
            Fault::Host => "The request needs one field Host.",
            Fault::Content => "A CONNECT has no content.",
            Fault::Authorization => "The request has more than one field Proxy-Authorization.",
        })
    }
}

impl Head {
    /// Reads the head of a request.
    ///
    /// # Errors
    /// [`Error`]: what is wrong, as soon as that is certain; [`Error::Method`] only once the head is whole.
    pub fn parse(input: &[u8]) -> Parsed<Self, Error> {
        let end = input.windows(END.len()).position(|bytes| bytes == END);
        let end = end.and_then(|at| at.checked_add(END.len()));
        let head = end.and_then(|end| input.get(..end)).unwrap_or(input);
        let malformed = |fault| Err(Error::Malformed(fault));
        if !has_whole_line_ends(head) {
            return malformed(Fault::LineEnd);
        }
        if head.len() > LONGEST_HEAD || (end.is_none() && head.len() == LONGEST_HEAD) {
            return malformed(Fault::TooLong);
        }
        let mut fields = [EMPTY_HEADER; MOST_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(head) {
            Err(_) => return malformed(Fault::Syntax),
            Ok(httparse::Status::Partial) => return Ok(None),
            Ok(httparse::Status::Complete(_)) => {}
        }
        if request.method != Some("CONNECT") {
            return Err(Error::Method);
        }
        let Some(target) = request.path.and_then(authority) else {
            return malformed(Fault::Target);
        };
        let fields = Fields(request.headers);
        let hosts = fields.named("Host").count();
        // HTTP/1.0 has no field Host.
        if hosts > 1 || (hosts == 0 && request.version != Some(0)) {
            return malformed(Fault::Host);
        }
        if has_content(&fields) {
            return malformed(Fault::Content);
        }
        let mut logins = fields.named("Proxy-Authorization");
        let login = match logins.next() {
            None => Login::Missing,
            Some(value) => Credentials::parse(value).map_or(Login::Unusable, Login::Basic),
        };
        if logins.next().is_some() {
            return malformed(Fault::Authorization);
        }
        Ok(Some((Head { target, login }, head.len())))
    }
}

/// The fields of a head.
struct Fields<'a>(&'a [Header<'a>]);

impl<'a> Fields<'a> {
    /// The values of the fields with this name.
    fn named(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        let is_named = move |field: &&Header<'_>| field.name.eq_ignore_ascii_case(name);
        self.0.iter().filter(is_named).map(|field| field.value)
    }
}

/// Whether a request has content, or a length that could be read in two ways.
fn has_content(fields: &Fields<'_>) -> bool {
    let mut lengths = fields.named("Content-Length");
    let is_zero = |length: &[u8]| is_digits(length) && length.iter().all(|digit| *digit == b'0');
    let has_content = lengths.next().is_some_and(|length| !is_zero(length));
    has_content || lengths.next().is_some() || fields.named("Transfer-Encoding").count() > 0
}

/// Whether each CR and LF belongs to a CRLF, and there is no NUL. A CR may be last: its LF is still to come.
fn has_whole_line_ends(head: &[u8]) -> bool {
    let mut before = None;
    for byte in head {
        let good = match (before, *byte) {
            (_, 0) => false,
            (Some(b'\r'), byte) => byte == b'\n',
            (_, byte) => byte != b'\n',
        };
        if !good {
            return false;
        }
        before = Some(*byte);
    }
    true
}

/// Reads `host:port` (RFC 3986 §3.2, without userinfo; the port has to be there, RFC 9110 §9.3.6).
fn authority(text: &str) -> Option<Target> {
    let (host, port) = text.rsplit_once(':')?;
    let port = Some(port).filter(|port| is_digits(port.as_bytes()) && port.len() <= 5)?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let bracketed = host.strip_prefix('[').map(|rest| rest.strip_suffix(']'));
    let host = match bracketed {
        Some(literal) => {
            let address: Ipv6Addr = literal?.parse().ok()?;
            // As SOCKS5 has it: v4-mapped is IPv4 from here on.
            Host::Ip(IpAddr::V6(address).to_canonical())
        }
        None => match host.parse::<Ipv4Addr>() {
            Ok(address) => Host::Ip(address.into()),
            Err(_) if (1..=LONGEST_NAME).contains(&host.len()) && is_reg_name(host) => {
                Host::Name(host.as_bytes().into())
            }
            Err(_) => return None,
        },
    };
    Some(Target { host, port })
}

/// Whether it is a name (RFC 3986 §3.2.2), or would be one if it were ASCII: names of other scripts are passed on as
/// SOCKS5 passes them on.
fn is_reg_name(host: &str) -> bool {
    let delimiters = b":/?#[]@\\\"<>^`{|}";
    host.bytes().all(|byte| byte > b' ' && byte != 0x7f && !delimiters.contains(&byte))
}

/// The status of a response (RFC 9110 §15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    /// 200: the tunnel is open.
    Established = 200,
    /// 400
    BadRequest = 400,
    /// 403: a rule of this server.
    Forbidden = 403,
    /// 407: a login is missing, or wrong.
    LoginRequired = 407,
    /// 501: another method than CONNECT.
    NotImplemented = 501,
    /// 502: the target cannot be reached.
    BadGateway = 502,
    /// 503: this server lacks something.
    Unavailable = 503,
    /// 504: the target did not answer in time.
    GatewayTimeout = 504,
}

impl Status {
    fn phrase(self) -> &'static str {
        match self {
            Status::Established => "Connection established",
            Status::BadRequest => "Bad Request",
            Status::Forbidden => "Forbidden",
            Status::LoginRequired => "Proxy Authentication Required",
            Status::NotImplemented => "Not Implemented",
            Status::BadGateway => "Bad Gateway",
            Status::Unavailable => "Service Unavailable",
            Status::GatewayTimeout => "Gateway Timeout",
        }
    }
}

/// The response that opens a tunnel. It has no content and no field that tells its length (RFC 9110 §9.3.6).
pub fn established() -> Vec<u8> {
    let status = Status::Established;
    format!("HTTP/1.1 {} {}\r\n\r\n", status as u16, status.phrase()).into_bytes()
}

/// A response that ends the connection, with a sentence as its content.
pub fn refusal(status: Status, sentence: impl fmt::Display) -> Vec<u8> {
    let content = format!("{sentence}\n");
    let challenge = match status {
        // RFC 7617 §2. Names and passwords are bytes here, which UTF-8 says best.
        Status::LoginRequired => {
            "Proxy-Authenticate: Basic realm=\"socks5d\", charset=\"UTF-8\"\r\n"
        }
        _ => "",
    };
    format!(
        "HTTP/1.1 {} {}\r\n{challenge}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{content}",
        status as u16,
        status.phrase(),
        content.len(),
    )
    .into_bytes()
}

#[cfg(test)]
mod tests;
