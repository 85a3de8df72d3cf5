//! Recognises other protocols by their first bytes: a client was sent to the wrong port, or is set up for another
//! kind of proxy. For log messages only; it decides nothing.

/// The signature of a PROXY header of version 2 (haproxy's proxy-protocol.txt, section 2.2).
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The first words of other protocols. HTTP: the methods of RFC 9110 section 9 and RFC 5789, and the
/// preface of HTTP/2 (RFC 9113 section 3.4).
const WORDS: [(&[u8], &str); 14] = [
    (b"PROXY ", "proxy-header"),
    (b"GET ", "http"),
    (b"HEAD ", "http"),
    (b"POST ", "http"),
    (b"PUT ", "http"),
    (b"DELETE ", "http"),
    (b"CONNECT ", "http"),
    (b"OPTIONS ", "http"),
    (b"TRACE ", "http"),
    (b"PATCH ", "http"),
    (b"PRI * HTTP/", "http"),
    (b"HELLO METP/", "metp"),
    (b"SSH-", "ssh"),
    (b"EHLO ", "smtp"),
];

/// The protocol in one word; `None` if the bytes received so far do not show it.
pub fn protocol(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x04, 0x01 | 0x02, ..] | [0x04] => Some("socks4"),
        [0x05, ..] => Some("socks5"),
        // A handshake record (RFC 8446 section 5.1), of SSL 3.0 or later.
        [0x16, 0x03, ..] | [0x16] => Some("tls"),
        // Its first four bytes alone may be empty lines, typed at a keyboard.
        [b'\r', _, _, _, _, ..] if begins_like(bytes, PROXY_V2) => Some("proxy-header"),
        _ => WORDS.iter().find(|(word, _)| bytes.starts_with(word)).map(|(_, protocol)| *protocol),
    }
}

/// Whether the two are equal in the length of the shorter one.
fn begins_like(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(byte, expected)| byte == expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_told_by_their_first_bytes() {
        for (bytes, expected) in [
            (&b"\x04\x01\x00\x50\x7f\x00\x00\x01user\x00"[..], "socks4"),
            (b"\x04", "socks4"),
            (b"\x05\x01\x02", "socks5"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "tls"),
            (b"GET / HTTP/1.1\r\n", "http"),
            (b"CONNECT example.com:443 HTTP/1.1\r\n", "http"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "proxy-header"),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c", "proxy-header"),
            (b"\r\n\r\n\0", "proxy-header"),
            (b"HELLO METP/1.0\n", "metp"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", "ssh"),
        ] {
            assert_eq!(protocol(bytes), Some(expected), "{bytes:?}");
        }
        for bytes in
            [&b""[..], b"\r\n\r\n", b"\r\n\r\n\r\n", b"GETAWAY", b"proxy ", b"\0\0", b"\x04\x09"]
        {
            assert_eq!(protocol(bytes), None, "{bytes:?}");
        }
    }
}
