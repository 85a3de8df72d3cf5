//! The ways in besides a login by RFC 1929: trusted networks, SOCKS4, HTTP CONNECT; and Tor's look-ups.
//!
//! The proxies here trust 127.0.0.2: a client from there is trusted, one from 127.0.0.1 a stranger.

mod http_connect;
mod http_heads;
mod resolve;
mod resolve_ptr;
mod socks4;
mod trust;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use support::proxy::{Proxy, connect_from};
use support::socks::Client;
use support::{eventually, read_exactly};

/// The source that the proxies trust.
const TRUSTED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A proxy that trusts 127.0.0.2, with further options. It never gives up waiting for a client to close.
fn trusting(arguments: &[&str]) -> Proxy {
    Proxy::with(&[&["--trust", "127.0.0.2", "--linger-timeout", "0"], arguments].concat())
}

/// A client that needs no login.
fn trusted(proxy: &Proxy) -> Client {
    Client::new(connect_from(TRUSTED, proxy.socks_address()))
}

/// A client that needs one.
fn stranger(proxy: &Proxy) -> Client {
    Client::new(proxy.socks())
}

/// The figures of the account `-`, as USER-METRICS shows them.
fn figures(proxy: &Proxy) -> String {
    let lines = proxy.admin().ask("USER-METRICS -");
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0].clone()
}

/// Sends a request, and payload through the tunnel that it opens to an echo server: `granted` is the answer.
fn echoes(client: &mut Client, request: &[u8], granted: &[u8]) {
    client.say(&[request, b"early "].concat());
    assert_eq!(read_exactly(&mut client.stream, granted.len()), granted);
    client.hears(b"early ").say(b"late").hears(b"late");
}

/// The line of the access log whose third field is this, split at its tabs.
fn line_of(proxy: &Proxy, kind: &str) -> Vec<String> {
    let fields = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    fields(&proxy.stdout.wait_for(|line| fields(line).get(2).is_some_and(|field| field == kind)))
}

/// The octets of a port.
fn port(address: SocketAddr) -> [u8; 2] {
    address.port().to_be_bytes()
}

/// Waits until no connection of the account `-` is open.
fn wait_until_left(proxy: &Proxy) {
    eventually("all have left", || figures(proxy).contains(" connections=0 "));
}
