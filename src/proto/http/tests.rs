//! Heads, whole and cut, and what could be understood in two ways.

use proptest::prelude::*;

use super::*;

fn read(head: &str) -> Result<Option<(Head, usize)>, Error> {
    Head::parse(head.as_bytes())
}

fn target(authority: &str) -> Option<String> {
    let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: x\r\n\r\n");
    match read(&head) {
        Ok(whole) => Some(whole.expect("whole").0.target.to_string()),
        Err(error) => {
            assert_eq!(error, Error::Malformed(Fault::Target), "{authority}");
            None
        }
    }
}

/// RFC 9110 §9.3.6, the example.
#[test]
fn a_connect_has_a_target_and_perhaps_a_login() {
    let head = "CONNECT server.example.com:80 HTTP/1.1\r\nHost: server.example.com:80\r\n\
                Proxy-Authorization: basic aGVsbG86d29ybGQ=\r\n\r\n";
    let (read, taken) =
        Head::parse(&[head.as_bytes(), b"\x16\x03\x01\0\n"].concat()).unwrap().unwrap();
    let credentials = Credentials { name: b"hello".to_vec(), password: b"world".to_vec() };
    assert_eq!(read.target.to_string(), "server.example.com:80");
    assert_eq!((read.login, taken), (Login::Basic(credentials), head.len()));
}

#[test]
fn every_beginning_of_a_head_is_incomplete() {
    let head = "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nX:y\r\n\r\n";
    for end in 0..head.len() {
        assert_eq!(read(&head[..end]), Ok(None), "{end}");
    }
    assert!(matches!(read(head), Ok(Some(_))));
}

/// RFC 9112 §3.2.3, RFC 3986 §3.2.
#[test]
fn targets_are_host_and_port() {
    for (text, shown) in [
        ("example.com:443", "example.com:443"),
        ("192.0.2.1:1", "192.0.2.1:1"),
        ("[2001:DB8::1]:65535", "[2001:db8::1]:65535"),
        ("[::ffff:192.0.2.1]:80", "192.0.2.1:80"),
        ("a_b.example:080", "a_b.example:80"),
    ] {
        assert_eq!(target(text).as_deref(), Some(shown));
    }
    let long = format!("{}:1", "n".repeat(256));
    for text in [
        "example.com",
        "example.com:",
        ":80",
        "example.com:0",
        "example.com:65536",
        "example.com:+1",
        "example.com:000080",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[::1:80",
        "[fe80::1%25lo]:80",
        "[1.2.3.4]:80",
        "user@example.com:80",
        "http://example.com:80",
        "/:80",
        "a/b:80",
        "a?b:80",
        "*",
        "*:x",
        &long,
    ] {
        assert_eq!(target(text), None, "{text}");
    }
    let longest = format!("{}:1", "n".repeat(255));
    assert_eq!(target(&longest), Some(longest));
}

/// RFC 9112 §3.2: a server has to refuse a head without Host, or with two. HTTP/1.0 knows no Host.
#[test]
fn there_is_one_host() {
    let fault = |head: &str| read(head).err();
    let host = Some(Error::Malformed(Fault::Host));
    assert_eq!(fault("CONNECT a:1 HTTP/1.1\r\n\r\n"), host);
    assert_eq!(fault("CONNECT a:1 HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"), host);
    assert_eq!(fault("CONNECT a:1 HTTP/1.0\r\n\r\n"), None);
    assert_eq!(fault("CONNECT a:1 HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"), host);
    assert_eq!(fault("CONNECT a:1 HTTP/1.1\r\nHost:\r\n\r\n"), None);
}

/// RFC 9112 §6.3 and §11.2 (request smuggling): whatever another server might understand otherwise.
#[test]
fn what_could_be_understood_in_two_ways_is_refused() {
    let with = |fields: &str| read(&format!("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"));
    for (fields, fault) in [
        ("Content-Length: 0", None),
        ("Content-Length: 1", Some(Fault::Content)),
        ("Content-Length: 0\r\nContent-Length: 0", Some(Fault::Content)),
        ("Content-Length: 0, 0", Some(Fault::Content)),
        ("Content-Length: +0", Some(Fault::Content)),
        ("Content-Length:", Some(Fault::Content)),
        ("Transfer-Encoding: chunked", Some(Fault::Content)),
        ("Content-Length: 0\r\nTransfer-Encoding: identity", Some(Fault::Content)),
        ("X: a\r\n folded", Some(Fault::Syntax)),
        ("X: a\r\n\tfolded", Some(Fault::Syntax)),
        (" X: a", Some(Fault::Syntax)),
        ("X : a", Some(Fault::Syntax)),
        ("X\t: a", Some(Fault::Syntax)),
        ("X", Some(Fault::Syntax)),
        (": a", Some(Fault::Syntax)),
        ("X: a\nY: b", Some(Fault::LineEnd)),
        ("X: a\rY: b", Some(Fault::LineEnd)),
        ("X: a\0b", Some(Fault::LineEnd)),
        ("X: a\r\r\nY: b", Some(Fault::LineEnd)),
        ("X: a\x01", Some(Fault::Syntax)),
        ("X: a\tb", None),
        ("X: \u{e9}", None),
        (
            "Proxy-Authorization: Basic YTpi\r\nProxy-Authorization: Basic YTpi",
            Some(Fault::Authorization),
        ),
    ] {
        assert_eq!(with(fields).err(), fault.map(Error::Malformed), "{fields:?}");
    }
    for (head, fault) in [
        ("CONNECT a:1 HTTP/1.1\nHost: a\n\n", Fault::LineEnd),
        ("CONNECT  a:1 HTTP/1.1\r\n", Fault::Syntax),
        ("CONNECT a:1  HTTP/1.1\r\n", Fault::Syntax),
        ("CONNECT a:1 HTTP/1.1 \r\n", Fault::Syntax),
        ("CONNECT\ta:1\tHTTP/1.1\r\n", Fault::Syntax),
        ("CONNECT a:1\r\n", Fault::Syntax),
        ("CONNECT a:1 HTTP/2.0\r\n", Fault::Syntax),
        ("CONNECT a:1 http/1.1\r\n", Fault::Syntax),
        ("PRI * HTTP/2.0\r\n\r\n", Fault::Syntax),
        ("HELLO METP/1.0\n", Fault::LineEnd),
        ("SSH-2.0-OpenSSH_9.6\r\n", Fault::Syntax),
    ] {
        assert_eq!(read(head), Err(Error::Malformed(fault)), "{head:?}");
    }
}

#[test]
fn other_methods_are_told_apart() {
    for head in [
        "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "Connect a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECTED a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(read(head), Err(Error::Method), "{head:?}");
    }
    assert_eq!(read("GET http://example.com/ HTTP/1.1\r\n"), Ok(None));
}

#[test]
fn heads_have_a_limit() {
    let of = |length: usize| {
        let head = "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n";
        let fill = "x".repeat(length - head.len());
        head.replace("X: ", &format!("X: {fill}"))
    };
    assert!(matches!(read(&of(LONGEST_HEAD)), Ok(Some((_, LONGEST_HEAD)))));
    let too_long = Err(Error::Malformed(Fault::TooLong));
    assert_eq!(read(&of(LONGEST_HEAD + 1)), too_long);
    assert_eq!(read(&of(LONGEST_HEAD + 1)[..LONGEST_HEAD]), too_long);
    assert_eq!(read(&of(LONGEST_HEAD + 1)[..LONGEST_HEAD - 1]), Ok(None));
    let many = format!("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n{}\r\n", "X:\r\n".repeat(MOST_FIELDS));
    assert_eq!(read(&many), Err(Error::Malformed(Fault::Syntax)));
}

/// RFC 9110 §11.7.1, §15.5.8: a 407 names what to log in with.
#[test]
fn responses_are_whole() {
    assert_eq!(established(), b"HTTP/1.1 200 Connection established\r\n\r\n");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    assert_eq!(
        text(refusal(Status::LoginRequired, "Log in.")),
        "HTTP/1.1 407 Proxy Authentication Required\r\n\
         Proxy-Authenticate: Basic realm=\"socks5d\", charset=\"UTF-8\"\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Length: 8\r\nConnection: close\r\n\r\nLog in.\n"
    );
    let plain = text(refusal(Status::BadGateway, "No."));
    assert!(plain.starts_with("HTTP/1.1 502 Bad Gateway\r\nContent-Type"), "{plain}");
}

proptest! {
    #![proptest_config(support::property::config(256))]

    /// No split of the input changes the result: what is certain stays as it is.
    #[test]
    fn more_bytes_change_no_answer(
        head in "CONNECT (a:1|\\[::1\\]:80|x) HTTP/1\\.[01](\r\n|\n)(Host: a\r\n){0,2}(X: [ -~]{0,9}\r\n){0,2}\r\n",
        rest in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let all = [head.as_bytes(), &rest].concat();
        let last = Head::parse(&all);
        for end in 0..all.len() {
            match Head::parse(&all[..end]) {
                Ok(None) => {}
                answer => prop_assert_eq!(&answer, &last, "{}", end),
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Head::parse(&bytes);
    }
}
