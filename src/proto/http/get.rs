//! The head of a GET or HEAD request (RFC 9110 §9.3.1, §9.3.2) to this server itself, and its responses.

use std::fmt;

use httparse::EMPTY_HEADER;
use metp_protocol::text::ip_literal;

use super::{
    Credentials, END, Fields, LONGEST_HEAD, Login, MOST_FIELDS, has_content, has_whole_line_ends,
};
use crate::proto::Parsed;

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub struct Get {
    /// The path, without a query.
    pub path: String,
    /// Whether only the head of the response is wanted.
    pub head_alone: bool,
    /// Whether the client speaks HTTP/1.1, so that a response may come in chunks (RFC 9112 §7.1).
    pub takes_chunks: bool,
    /// The host of the target, or else of the field Host, without its port (RFC 9112 §3.2.2). `None`: HTTP/1.0 without
    /// either.
    pub host: Option<String>,
    /// The field Authorization.
    pub login: Login,
}

/// Why bytes are not a request that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetError {
    /// It is a request with another method.
    Method,
    /// It cannot be a request, or one that could be understood in two ways.
    Malformed,
    /// Its head has no end within [`LONGEST_HEAD`].
    TooLong,
}

impl Get {
    /// Reads the head of a request.
    ///
    /// # Errors
    /// [`GetError`], as soon as that is certain; [`GetError::Method`] only once the head is whole.
    pub fn parse(input: &[u8]) -> Parsed<Self, GetError> {
        let end = input.windows(END.len()).position(|bytes| bytes == END);
        let end = end.and_then(|at| at.checked_add(END.len()));
        let head = end.and_then(|end| input.get(..end)).unwrap_or(input);
        if !has_whole_line_ends(head) {
            return Err(GetError::Malformed);
        }
        if head.len() > LONGEST_HEAD || (end.is_none() && head.len() == LONGEST_HEAD) {
            return Err(GetError::TooLong);
        }
        let mut fields = [EMPTY_HEADER; MOST_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(head) {
            Err(_) => return Err(GetError::Malformed),
            // There is an end, and no request before it: empty lines.
            Ok(httparse::Status::Partial) if end.is_some() => return Err(GetError::Malformed),
            Ok(httparse::Status::Partial) => return Ok(None),
            Ok(httparse::Status::Complete(_)) => {}
        }
        let head_alone = match request.method {
            Some("GET") => false,
            Some("HEAD") => true,
            _ => return Err(GetError::Method),
        };
        let fields = Fields(request.headers);
        let mut hosts = fields.named("Host");
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => Some(host_of(host).ok_or(GetError::Malformed)?),
            // HTTP/1.0 has no field Host.
            (None, _) if request.version == Some(0) => None,
            _ => return Err(GetError::Malformed),
        };
        if has_content(&fields) {
            return Err(GetError::Malformed);
        }
        let mut logins = fields.named("Authorization");
        let login = match logins.next() {
            None => Login::Missing,
            Some(value) => Credentials::parse(value).map_or(Login::Unusable, Login::Basic),
        };
        let target = request.path.and_then(target_of);
        let (Some((of_target, path)), None) = (target, logins.next()) else {
            return Err(GetError::Malformed);
        };
        let host = of_target.or(host);
        let takes_chunks = request.version == Some(1);
        Ok(Some((Get { path, head_alone, takes_chunks, host, login }, head.len())))
    }

    /// Whether the request is for this server: its host is an address, `localhost` or `name`. A page of another site
    /// whose name leads here (DNS rebinding) has another one.
    pub fn is_for(&self, name: Option<&str>) -> bool {
        let Some(host) = &self.host else { return true };
        let host = host.strip_suffix('.').unwrap_or(host);
        let is = |name: &str| host.eq_ignore_ascii_case(name);
        ip_literal(host).is_some() || is("localhost") || name.is_some_and(is)
    }
}

/// The host and the path of a request target in origin form, which has no host, or absolute form (RFC 9112 §3.2).
fn target_of(target: &str) -> Option<(Option<String>, String)> {
    let (host, path) = match target.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at_checked(end)?;
            // RFC 9110 §4.2.4: a name before the host is there to mislead.
            let host = host_of(authority.as_bytes()).filter(|host| !host.contains('@'))?;
            (Some(host), path)
        }
        _ => (None, target),
    };
    let (path, _) = path.split_once('?').unwrap_or((path, ""));
    let path = if path.is_empty() { "/" } else { path };
    path.starts_with('/').then(|| (host, path.to_owned()))
}

/// The host of a field Host (RFC 9110 §7.2), without its port and with the brackets of an IPv6 address.
fn host_of(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    let (host, port) = match text.rsplit_once(':') {
        // The last colon may be one of an address.
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (text, ""),
    };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
    let is_host = !host.is_empty() && !host.bytes().any(|byte| byte.is_ascii_whitespace());
    (is_port && is_host).then(|| host.to_owned())
}

/// The status of a response (RFC 9110 §15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum GetStatus {
    /// 200
    Ok = 200,
    /// 400
    BadRequest = 400,
    /// 401: a login is missing, or wrong.
    Unauthorized = 401,
    /// 403: another host is meant, or the account is no administrator's.
    Forbidden = 403,
    /// 404
    NotFound = 404,
    /// 405: another method than GET and HEAD.
    MethodNotAllowed = 405,
    /// 431: the head is too long.
    TooLarge = 431,
    /// 503: the server closes down, or too many logins wait.
    Unavailable = 503,
}

impl fmt::Display for GetStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phrase = match self {
            GetStatus::Ok => "OK",
            GetStatus::BadRequest => "Bad Request",
            GetStatus::Unauthorized => "Unauthorized",
            GetStatus::Forbidden => "Forbidden",
            GetStatus::NotFound => "Not Found",
            GetStatus::MethodNotAllowed => "Method Not Allowed",
            GetStatus::TooLarge => "Request Header Fields Too Large",
            GetStatus::Unavailable => "Service Unavailable",
        };
        write!(f, "{} {phrase}", *self as u16)
    }
}

/// How long a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// This number of bytes.
    Bytes(usize),
    /// It comes in chunks (RFC 9112 §7.1).
    Chunked,
    /// It ends with the connection.
    UntilClose,
}

/// What a browser may do with a response: use it in pages of this server alone, which load nothing from elsewhere, run no
/// script but those of this server, send nothing, and are in no frame (CSP level 3, Fetch).
const POLICY: &str = "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
     Cross-Origin-Resource-Policy: same-origin\r\nReferrer-Policy: no-referrer\r\n";

/// The head of a response. Each connection has one, and nothing of it is to be kept.
pub fn response_head(status: GetStatus, content_type: &str, length: Length) -> String {
    let length = match length {
        Length::Bytes(count) => format!("Content-Length: {count}\r\n"),
        Length::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
        Length::UntilClose => String::new(),
    };
    let more = match status {
        // RFC 7617 §2.
        GetStatus::Unauthorized => {
            "WWW-Authenticate: Basic realm=\"socks5d\", charset=\"UTF-8\"\r\n"
        }
        GetStatus::MethodNotAllowed => "Allow: GET, HEAD\r\n",
        // RFC 9110 §10.2.3.
        GetStatus::Unavailable => "Retry-After: 1\r\n",
        _ => "",
    };
    format!(
        "HTTP/1.1 {status}\r\n{more}Content-Type: {content_type}\r\n{length}Cache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n{POLICY}Connection: close\r\n\r\n"
    )
}

/// A chunk of a response (RFC 9112 §7.1). An empty one would end it.
pub fn chunk(bytes: &str) -> String {
    match bytes.len() {
        0 => String::new(),
        length => format!("{length:x}\r\n{bytes}\r\n"),
    }
}

/// The chunk that ends a response.
pub const LAST_CHUNK: &str = "0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn get(text: &str) -> Result<Option<Get>, GetError> {
        let text = text.replace('\n', "\r\n");
        let parsed = Get::parse(text.as_bytes())?;
        Ok(parsed.map(|(get, taken)| {
            assert_eq!(taken, text.len());
            get
        }))
    }

    #[test]
    fn a_request_is_read() {
        let read = get("GET /metrics?x=1 HTTP/1.1\nHost: localhost:9105\nAccept: */*\n\n");
        let expected = Get {
            path: "/metrics".to_owned(),
            head_alone: false,
            takes_chunks: true,
            host: Some("localhost".to_owned()),
            login: Login::Missing,
        };
        assert_eq!(read, Ok(Some(expected)));
        let read = get("HEAD http://[::1]:5/ HTTP/1.0\nAuthorization: Basic YTpi\n\n");
        let read = read.expect("good").expect("whole");
        assert_eq!((read.path.as_str(), read.head_alone, read.takes_chunks), ("/", true, false));
        assert_eq!(read.host.as_deref(), Some("[::1]"), "that of the target");
        assert!(matches!(read.login, Login::Basic(_)));
        let read = get("GET http://a.example?x HTTP/1.1\nHost: b.example\n\n");
        let read = read.expect("good").expect("whole");
        assert_eq!((read.path.as_str(), read.host.as_deref()), ("/", Some("a.example")));
        for beginning in ["", "G", "GET / HTTP/1.1\n", "GET / HTTP/1.1\nHost: a\n"] {
            assert_eq!(get(beginning), Ok(None), "{beginning:?}");
        }
    }

    #[test]
    fn what_could_be_two_requests_is_none() {
        let host = "Host: a\n";
        for text in [
            "GET / HTTP/1.1\n\n".to_owned(),
            format!("GET / HTTP/1.1\n{host}{host}\n"),
            format!("GET / HTTP/1.1\n{host}Content-Length: 1\n\n"),
            format!("GET / HTTP/1.1\n{host}Transfer-Encoding: chunked\n\n"),
            format!(
                "GET / HTTP/1.1\n{host}Authorization: Basic YTpi\nAuthorization: Basic YTpi\n\n"
            ),
            format!("GET x HTTP/1.1\n{host}\n"),
            format!("GET * HTTP/1.1\n{host}\n"),
            "GET / HTTP/1.1\nHost:\n\n".to_owned(),
            "GET / HTTP/1.1\nHost: a b\n\n".to_owned(),
            "GET / HTTP/1.1\nHost: a:b\n\n".to_owned(),
            format!("GET http:///x HTTP/1.1\n{host}\n"),
            format!("GET http://b@a/ HTTP/1.1\n{host}\n"),
            format!("GET http://a:b/ HTTP/1.1\n{host}\n"),
            format!("GET https://a/ HTTP/1.1\n{host}\n"),
            "\n\n".to_owned(),
            format!("GET / HTTP/2.0\n{host}\n"),
        ] {
            assert_eq!(get(&text), Err(GetError::Malformed), "{text:?}");
        }
        assert_eq!(get(&format!("POST / HTTP/1.1\n{host}\n")), Err(GetError::Method));
        let long = format!("GET / HTTP/1.1\nHost: a\nX: {}", "x".repeat(LONGEST_HEAD));
        assert_eq!(get(&long), Err(GetError::TooLong));
        assert_eq!(Get::parse(b"GET / HTTP/1.1\nHost: a\n\n"), Err(GetError::Malformed));
    }

    #[test]
    fn other_hosts_are_told_apart() {
        for (host, is_for) in [
            ("127.0.0.1:9105", true),
            ("[::1]:9105", true),
            ("[::1]", true),
            ("LocalHost", true),
            ("localhost.:80", true),
            ("proxy.example:9105", true),
            ("PROXY.example.", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("xproxy.example", false),
        ] {
            let read = get(&format!("GET / HTTP/1.1\nHost: {host}\n\n")).expect(host).expect(host);
            assert_eq!(read.is_for(Some("proxy.example")), is_for, "{host}");
        }
    }
}
