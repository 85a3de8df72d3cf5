//! How a client asks, and is answered: a request is served in one way, whatever protocol it came in.

use std::net::SocketAddr;

use crate::proto::http::{self, Status};
use crate::proto::socks4;
use crate::proto::socks5::{Reply, ReplyCode};
use crate::state::access_log::Kind;

/// The protocol of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// RFC 1928.
    Socks5,
    /// SOCKS4 and 4A.
    Socks4,
    /// CONNECT (RFC 9110 §9.3.6).
    Http,
}

impl Dialect {
    /// The kind of its requests in the access log.
    pub fn kind(self) -> Kind {
        match self {
            Dialect::Socks5 => Kind::Socks5,
            Dialect::Socks4 => Kind::Socks4,
            Dialect::Http => Kind::Http,
        }
    }

    /// The answer that the request has succeeded; `bound` is its BND.ADDR and BND.PORT.
    pub fn success(self, bound: SocketAddr) -> Vec<u8> {
        match self {
            Dialect::Socks5 => Reply { code: ReplyCode::Succeeded, bound }.encode(),
            Dialect::Socks4 => socks4::reply(socks4::ReplyCode::Granted, bound).to_vec(),
            Dialect::Http => http::established(),
        }
    }

    /// The answer that the request has failed.
    pub fn refusal(self, code: ReplyCode) -> Vec<u8> {
        match self {
            Dialect::Socks5 => Reply::refusal(code).encode(),
            Dialect::Socks4 => socks4_refusal(),
            Dialect::Http => {
                let (status, sentence) = status_of(code);
                http::refusal(status, sentence)
            }
        }
    }
}

/// The answer of SOCKS4 to whatever cannot be done: it has no other for it.
pub fn socks4_refusal() -> Vec<u8> {
    socks4::reply(socks4::ReplyCode::Rejected, Reply::refusal(ReplyCode::GeneralFailure).bound)
        .to_vec()
}

/// The status for a reply code of SOCKS, with its cause in a sentence.
fn status_of(code: ReplyCode) -> (Status, &'static str) {
    match code {
        ReplyCode::NotAllowed => (Status::Forbidden, "The rules of this proxy forbid the target."),
        ReplyCode::NetworkUnreachable => {
            (Status::BadGateway, "The network of the target cannot be reached.")
        }
        ReplyCode::HostUnreachable => {
            (Status::BadGateway, "The target cannot be reached, or its name was not found.")
        }
        ReplyCode::ConnectionRefused => {
            (Status::BadGateway, "The target has refused the connection.")
        }
        ReplyCode::TimedOut => (Status::GatewayTimeout, "The target did not answer in time."),
        ReplyCode::Succeeded
        | ReplyCode::GeneralFailure
        | ReplyCode::CommandNotSupported
        | ReplyCode::AddressTypeNotSupported => {
            (Status::Unavailable, "This proxy could not connect to the target.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_has_its_own_words() {
        let bound = SocketAddr::from(([192, 0, 2, 1], 80));
        assert_eq!(Dialect::Socks5.success(bound), b"\x05\0\0\x01\xc0\0\x02\x01\0\x50");
        assert_eq!(Dialect::Socks4.success(bound), b"\0\x5a\0\x50\xc0\0\x02\x01");
        assert!(Dialect::Http.success(bound).starts_with(b"HTTP/1.1 200 "));
        for (code, status) in [
            (ReplyCode::GeneralFailure, "503"),
            (ReplyCode::NotAllowed, "403"),
            (ReplyCode::NetworkUnreachable, "502"),
            (ReplyCode::HostUnreachable, "502"),
            (ReplyCode::ConnectionRefused, "502"),
            (ReplyCode::TimedOut, "504"),
        ] {
            assert_eq!(Dialect::Socks5.refusal(code)[..2], [5, code as u8]);
            assert_eq!(Dialect::Socks4.refusal(code), b"\0\x5b\0\0\0\0\0\0");
            let head = format!("HTTP/1.1 {status} ");
            assert!(Dialect::Http.refusal(code).starts_with(head.as_bytes()), "{code:?}");
        }
    }
}
