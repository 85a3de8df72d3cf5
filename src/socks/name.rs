//! Names of targets.

use super::Context;
use super::request::ActiveRequest;
use crate::proto::socks5::Host;
use crate::reactor::endpoint::Stream;

/// A name that may be looked up. Names are bytes from the wire: an empty one, a `*`, and those with blanks, control
/// characters or broken UTF-8 exist nowhere. A backslash would be an escape (RFC 1035 §5.1): the name that is looked up
/// would not be the one that the rules have seen.
pub fn hostname(name: &[u8]) -> Option<&str> {
    let bad = name.is_empty()
        || name == b"*"
        || name.iter().any(|b| matches!(*b, 0x00..=0x20 | b'\\' | 0x7f));
    if bad { None } else { std::str::from_utf8(name).ok() }
}

/// The session waits for the name of this request no longer.
pub fn withdraw<S: Stream>(request: &ActiveRequest, cx: &mut Context<'_, S>) {
    if let Host::Name(name) = &request.target.host
        && let Some(name) = hostname(name)
    {
        cx.dns.cancel(cx.key, name);
    }
}

#[cfg(test)]
mod tests {
    use metp_protocol::text::ip_literal;

    use super::*;

    #[test]
    fn names_that_cannot_exist_are_not_looked_up() {
        for name in [&b""[..], b"*", b"a b", b"a\0b", b"a\n", b"\x7f", b"\xff\xfe", b"\t", b"a\\.b"]
        {
            assert_eq!(hostname(name), None, "{name:?}");
        }
        for name in ["localhost", "*.example", "xn--bcher-kva.example", "b\u{fc}cher.example"] {
            assert_eq!(hostname(name.as_bytes()), Some(name));
        }
    }

    #[test]
    fn literals_are_no_names() {
        assert_eq!(ip_literal("127.0.0.1"), Some([127, 0, 0, 1].into()));
        assert_eq!(ip_literal("::1"), "::1".parse().ok());
        assert_eq!(ip_literal("[::1]"), "::1".parse().ok());
        for name in ["localhost", "[::1", "1.2.3", "127.0.0.1.", ""] {
            assert_eq!(ip_literal(name), None, "{name}");
        }
    }
}
