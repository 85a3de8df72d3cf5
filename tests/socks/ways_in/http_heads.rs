//! Heads that are no CONNECT, or could be understood in two ways (RFC 9112 section 11.2): refused, and nothing reaches
//! a target.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::origin::Origin;
use support::proxy::Proxy;

use super::http_connect::answered;
use super::{trusted, trusting};

/// An origin that counts its connections.
fn counting() -> (Origin, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let origin = Origin::new(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    (origin, count)
}

fn refused(proxy: &Proxy, head: &[u8], status: &str) {
    let shown = String::from_utf8_lossy(head).into_owned();
    let mut client = trusted(proxy);
    client.say(head);
    let text = answered(&mut client, status);
    // No byte of the request comes back in the answer.
    assert!(!text.contains("127.0.0.1"), "{shown}: {text}");
}

#[test]
fn what_could_be_understood_in_two_ways_is_refused() {
    let proxy = trusting(&["--http-connect"]);
    let (origin, count) = counting();
    let at = origin.address;
    let with = |fields: &str| format!("CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n{fields}\r\n\r\n");
    for fields in [
        "Content-Length: 3",
        "Content-Length: 0\r\nContent-Length: 0",
        "Content-Length: 0\r\nContent-Length: 3",
        "Content-Length: 0,0",
        "Content-Length: -1",
        "Content-Length: 0x0",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\x0bchunked",
        "X: folded\r\n line",
        "X: folded\r\n\tline",
        "X: bare\nlf",
        "X: bare\rcr",
        "X: a\0b",
        "X\0: a",
        "Host: other.example",
        "Proxy-Authorization: Basic YTpi\r\nProxy-Authorization: Basic YTpi",
        "no colon",
        ": no name",
        "Na me: x",
    ] {
        refused(&proxy, with(fields).as_bytes(), "400");
    }
    for head in [
        format!("CONNECT {at} HTTP/1.1\nHost: {at}\n\n"),
        format!("CONNECT {at} HTTP/1.1\r\n\r\n"),
        format!("CONNECT {at} HTTP/2.0\r\nHost: {at}\r\n\r\n"),
        format!("CONNECT {at} HTTP/1.9\r\nHost: {at}\r\n\r\n"),
        format!("CONNECT {at}\r\nHost: {at}\r\n\r\n"),
        format!("CONNECT  {at} HTTP/1.1\r\nHost: {at}\r\n\r\n"),
        format!("CONNECT {at} HTTP/1.1\r\n Host: {at}\r\n\r\n"),
        format!("CONNECT http://{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n"),
        format!("CONNECT user:pw@{at} HTTP/1.1\r\nHost: {at}\r\n\r\n"),
        format!("CONNECT {at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n"),
        format!("CONNECT {at}#{at} HTTP/1.1\r\nHost: {at}\r\n\r\n"),
        "CONNECT 127.0.0.1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_owned(),
        "CONNECT 127.0.0.1: HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_owned(),
        "CONNECT 127.0.0.1:0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_owned(),
        "CONNECT 127.0.0.1:70000 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_owned(),
        "CONNECT [127.0.0.1]:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ] {
        refused(&proxy, head.as_bytes(), "400");
    }
    for method in ["GET", "HEAD", "Connect", "CONNECTX"] {
        refused(&proxy, format!("{method} {at} HTTP/1.1\r\nHost: {at}\r\n\r\n").as_bytes(), "501");
    }
    assert_eq!(count.load(Ordering::SeqCst), 0, "nothing was forwarded");
    assert_eq!(proxy.stdout.all(), [""; 0], "nothing was a request");
    assert_eq!(proxy.admin().figure("PANICS"), 0);
}

/// What is allowed, and other servers trip over.
#[test]
fn odd_heads_that_are_right_are_served() {
    let proxy = trusting(&["--http-connect"]);
    let echo = Origin::echo();
    let at = echo.address;
    for head in [
        format!("CONNECT {at} HTTP/1.0\r\n\r\n"),
        format!("CONNECT {at} HTTP/1.1\r\nhOST:\r\n\r\n"),
        format!("CONNECT {at} HTTP/1.1\r\nHost:another.example\r\nContent-Length: 0\r\n\r\n"),
        format!(
            "CONNECT {at} HTTP/1.1\r\nHost: {at}\r\nProxy-Connection: keep-alive\r\nX: \r\n\r\n"
        ),
        format!("CONNECT localhost:{} HTTP/1.1\r\nHost: localhost\r\n\r\n", at.port()),
        format!("CONNECT [::ffff:127.0.0.1]:{} HTTP/1.1\r\nHost: x\r\n\r\n", at.port()),
    ] {
        let mut client = trusted(&proxy);
        client.say(head.as_bytes()).hears(b"HTTP/1.1 200 Connection established\r\n\r\n");
        client.say(b"x").hears(b"x");
    }
}
