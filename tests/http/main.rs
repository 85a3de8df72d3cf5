//! HTTP for monitoring (`--http`), in literal bytes (RFC 9110, RFC 9112) and by curl.

#![cfg(test)]

mod access;
mod cuts;
mod health;
mod metrics;
mod page;
mod shown;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use support::proxy::{Builder, Proxy, connect};

/// A proxy that serves HTTP on loopback.
pub fn builder() -> Builder {
    Builder::default().args(["--http", "127.0.0.1:0"])
}

/// Where it does.
pub fn address(proxy: &Proxy) -> SocketAddr {
    let marker = "listening: service=http address=";
    let line = proxy.stderr.wait_for(|line| line.contains(marker));
    let address: SocketAddr = line.split("address=").nth(1).expect("one").parse().expect("one");
    match address.ip().is_unspecified() {
        true => SocketAddr::new([127, 0, 0, 1].into(), address.port()),
        false => address,
    }
}

/// A response.
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Status line and fields.
    pub head: String,
    /// The body, without the form of chunks.
    pub body: String,
}

/// Sends bytes, and reads all that comes until the end of the connection.
pub fn exchange(mut stream: TcpStream, request: &str) -> Response {
    stream.write_all(request.replace('\n', "\r\n").as_bytes()).expect("sent");
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("an orderly end");
    let text = String::from_utf8(response).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let body = match head.contains("Transfer-Encoding: chunked") {
        true => joined(body),
        false => body.to_owned(),
    };
    Response { status, head: head.to_owned(), body }
}

/// A body of chunks (RFC 9112 section 7.1); empty for a response without one.
fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    while !chunks.is_empty() {
        let (size, rest) = chunks.split_once("\r\n").expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        body.push_str(&rest[..size]);
        chunks = rest[size..].strip_prefix("\r\n").expect("the end of a chunk");
        if size == 0 {
            assert_eq!(chunks, "", "the last chunk is the last");
        }
    }
    body
}

/// A GET of a path.
pub fn get(proxy: &Proxy, path: &str) -> Response {
    exchange(
        connect(address(proxy)),
        &format!("GET {path} HTTP/1.1\nHost: localhost\nUser-Agent: test\n\n"),
    )
}
