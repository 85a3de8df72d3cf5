//! Text from outside, made safe to show: one encoder for every sink (access log, diagnostics, METP,
//! terminal), and the way back.
//!
//! A byte outside `%x21-7E`, and the backslash itself, becomes `\xHH`. So a name cannot forge a line, a
//! column or an escape sequence, and two different names never look alike.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

/// Displays bytes with every byte outside `%x21-7E`, and the backslash, as `\xHH` (lower case).
#[derive(Clone, Copy)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0 {
            match byte {
                b'\\' | 0x00..=0x20 | 0x7f.. => write!(f, "\\x{byte:02x}")?,
                plain => f.write_char(char::from(plain))?,
            }
        }
        Ok(())
    }
}

/// Displays a whole line as printable ASCII: each other byte becomes `\xHH`. What came from outside has been
/// [`Escaped`] before, so this is for the words of libraries and panics.
pub struct Ascii<T>(pub T);

impl<T: fmt::Display> fmt::Display for Ascii<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Plain(f), "{}", self.0)
    }
}

/// Passes on what is printable ASCII, and the rest as `\xHH`.
struct Plain<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Plain<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return self.0.write_str(text);
        }
        for byte in text.bytes() {
            match byte {
                b' '..=b'~' => self.0.write_char(char::from(byte))?,
                _ => write!(self.0, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

/// The octets of an escape: `\xHH`.
const ESCAPE: usize = 4;

/// Cuts what has more than `most` octets, and lets it end in `...`. No escape is cut in two. The text is ASCII,
/// with its backslashes escaped.
///
/// ```
/// use metp_protocol::text::shortened;
///
/// assert_eq!(shortened("abcdefgh".to_owned(), 6), "abc...");
/// assert_eq!(shortened("a\\xffgh".to_owned(), 6), "a...");
/// ```
pub fn shortened(mut text: String, most: usize) -> String {
    const DOTS: &str = "...";
    if text.len() > most {
        let end = most.saturating_sub(DOTS.len());
        let escape = text.get(..end).and_then(|kept| kept.rfind('\\'));
        text.truncate(escape.filter(|start| start + ESCAPE > end).unwrap_or(end));
        text.push_str(DOTS);
    }
    text
}

/// Reverses [`Escaped`]: each well-formed `\xHH` becomes its byte, everything else stays as it is.
///
/// ```
/// use metp_protocol::text::unescape;
///
/// assert_eq!(&*unescape(b"a\\x20b\\x"), b"a b\\x");
/// ```
pub fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let (byte, after) = escape_at(rest).unwrap_or((first, after));
        bytes.push(byte);
        rest = after;
    }
    Cow::Owned(bytes)
}

/// A value that is a line of text, with its blanks, as `Field::text` has made it. What is not printable stays escaped.
///
/// ```
/// assert_eq!(metp_protocol::text::line_of_text("deny\\x20port\\x2025"), "deny port 25");
/// ```
pub fn line_of_text(value: &str) -> String {
    let plain = unescape(value.as_bytes());
    let is_printable = plain.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let plain = String::from_utf8(plain.into_owned()).ok().filter(|_| is_printable);
    plain.unwrap_or_else(|| value.to_owned())
}

/// Splits `NAME:PASSWORD` at the first colon, so that passwords may hold more of them.
///
/// ```
/// use metp_protocol::text::split_account;
///
/// assert_eq!(split_account(b"alice:p:q"), Some((&b"alice"[..], &b"p:q"[..])));
/// ```
pub fn split_account(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = text.splitn(2, |byte| *byte == b':');
    Some((parts.next()?, parts.next()?))
}

/// Splits `HOST`, `HOST:PORT`, `IPV6`, `[IPV6]` or `[IPV6]:PORT` into the host, without brackets, and the port.
/// `None` if a bracket is not closed, or something else than a port follows it. Neither part is checked further.
///
/// ```
/// use metp_protocol::text::split_endpoint;
///
/// assert_eq!(split_endpoint("[::1]:80"), Some(("::1", Some("80"))));
/// assert_eq!(split_endpoint("::1"), Some(("::1", None)));
/// ```
pub fn split_endpoint(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
        return Some((host, port));
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => Some((host, Some(port))),
        _ => Some((text, None)),
    }
}

/// Reads an IP address, with or without the brackets of a URL.
///
/// ```
/// use metp_protocol::text::ip_literal;
///
/// assert_eq!(ip_literal("[::1]"), ip_literal("::1"));
/// assert_eq!(ip_literal("[::1"), None);
/// ```
pub fn ip_literal(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(text).parse().ok()
}

/// The text without the one line end, LF or CRLF, that a file, a here-document or `echo` has left behind it. A CR
/// alone is none: it stays, and is a control character like any other.
///
/// ```
/// assert_eq!(metp_protocol::text::without_line_end(b"secret\r\n"), b"secret");
/// ```
pub fn without_line_end(text: &[u8]) -> &[u8] {
    let line = text.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    line.unwrap_or(text)
}

/// Arbitrary bytes as text, one character for each: command lines are bytes, and the parser of options
/// takes text only. [`latin1_encode`] goes back.
///
/// ```
/// use metp_protocol::text::{latin1_decode, latin1_encode};
///
/// assert_eq!(latin1_encode(&latin1_decode(b"\xff\x00")), b"\xff\x00");
/// ```
pub fn latin1_decode(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// Reverses [`latin1_decode`].
pub fn latin1_encode(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(character).unwrap_or(b'?')).collect()
}

/// Displays a time in seconds, as short as can be, to the millisecond: `3`, `0.25`.
#[derive(Clone, Copy)]
pub struct Seconds(pub Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = format!("{}.{:03}", self.0.as_secs(), self.0.subsec_millis());
        f.write_str(shown.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// The byte that a well-formed `\xHH` at the start of `text` stands for, and what follows it.
fn escape_at(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, after) = text.strip_prefix(b"\\x")?.split_first_chunk::<2>()?;
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    Some((u8::try_from(high? * 16 + low?).ok()?, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_could_forge_a_line_is_escaped() {
        let shown = |bytes: &[u8]| Escaped(bytes).to_string();
        assert_eq!(shown(b"alice@example.com"), "alice@example.com");
        assert_eq!(shown(b"a b\tc\r\nd"), "a\\x20b\\x09c\\x0d\\x0ad");
        assert_eq!(shown(b"\x1b[2J\x7f\x00"), "\\x1b[2J\\x7f\\x00");
        assert_eq!(shown("\u{202e}".as_bytes()), "\\xe2\\x80\\xae");
        assert_eq!(shown(b"\\x41"), "\\x5cx41");
    }

    #[test]
    fn accounts_split_at_the_first_colon() {
        assert_eq!(split_account(b"alice:p:q"), Some((&b"alice"[..], &b"p:q"[..])));
        assert_eq!(split_account(b":"), Some((&b""[..], &b""[..])));
        assert_eq!(split_account(b"alice"), None);
    }

    #[test]
    fn endpoints_are_hosts_and_ports() {
        for (text, parts) in [
            ("a", Some(("a", None))),
            ("a:1", Some(("a", Some("1")))),
            ("192.0.2.1:", Some(("192.0.2.1", Some("")))),
            ("::1", Some(("::1", None))),
            ("[::1]", Some(("::1", None))),
            ("[fe80::1%lo]:1", Some(("fe80::1%lo", Some("1")))),
            ("[::1", None),
            ("[::1]1", None),
            ("", Some(("", None))),
        ] {
            assert_eq!(split_endpoint(text), parts, "{text}");
        }
    }

    #[test]
    fn one_line_end_is_cut_off() {
        for (text, line) in [
            (&b"a:b"[..], &b"a:b"[..]),
            (b"a:b\n", b"a:b"),
            (b"a:b\r\n", b"a:b"),
            (b"a:b\r", b"a:b\r"),
            (b"a:b\n\n", b"a:b\n"),
            (b"a:b\r\n\r\n", b"a:b\r\n"),
            (b"a:b\r\r\n", b"a:b\r"),
            (b"a:b\n\r", b"a:b\n\r"),
            (b"\na:b", b"\na:b"),
            (b"\r\n", b""),
            (b"", b""),
        ] {
            assert_eq!(without_line_end(text), line, "{text:?}");
        }
    }

    #[test]
    fn malformed_escapes_stay_as_they_are() {
        for text in [&b"\\"[..], b"\\x", b"\\x4", b"\\xg0", b"DOMAIN\\user"] {
            assert_eq!(unescape(text), text);
        }
        assert_eq!(&*unescape(b"a\\x20b\\x"), b"a b\\x");
    }

    proptest! {
        #![proptest_config(support::property::config(256))]

        #[test]
        fn escape_and_unescape_round_trip(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let shown = Escaped(&bytes).to_string();
            prop_assert!(shown.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
            prop_assert_eq!(&*unescape(shown.as_bytes()), &bytes[..]);
        }

        #[test]
        fn widen_and_narrow_round_trip(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(latin1_encode(&latin1_decode(&bytes)), bytes);
        }

        #[test]
        fn unescape_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(unescape(&bytes).len() <= bytes.len());
        }
    }
}
