//! The servers: those of `-H` and `-p`, or of `METP_HOST` and `METP_PORT`.

use std::net::Ipv6Addr;

use common::usage::bad_value;
use getopts::Matches;
use metp_protocol::quantity;
use metp_protocol::text::{latin1_decode, latin1_encode, split_endpoint};

use super::environment::{Environment, HOST_VARIABLE, PORT_VARIABLE, variable};
use super::options::UsageError;

const DEFAULT_HOST: &str = "127.0.0.1";
const DEFAULT_PORT: u16 = 8080;

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// Name or address, an IPv6 one without brackets.
    pub host: String,
    /// METP port.
    pub port: u16,
}

/// The servers, in command-line order. A port after a host takes precedence over `-p`; options take precedence
/// over the environment.
pub fn servers(
    given: &Matches,
    environment: &Environment,
) -> Result<Vec<ServerAddress>, UsageError> {
    let option = given.opt_str("port").map(|text| port("-p", &text)).transpose()?;
    let of_variable = variable(&environment.port).map(latin1_decode);
    // A malformed variable is no error where no server takes its port from it.
    let usual = || match (option, &of_variable) {
        (Some(port), _) => Ok(port),
        (None, Some(text)) => port(PORT_VARIABLE, text),
        (None, None) => Ok(DEFAULT_PORT),
    };
    let hosts = given.opt_strs("host");
    if !hosts.is_empty() {
        return list("-H", &hosts.join(","), usual);
    }
    match variable(&environment.host).map(latin1_decode) {
        Some(hosts) => {
            let mut servers = list(HOST_VARIABLE, &hosts, usual)?;
            if let Some(port) = option {
                servers.iter_mut().for_each(|server| server.port = port);
            }
            Ok(servers)
        }
        None => list("-H", DEFAULT_HOST, usual),
    }
}

/// Parses a list of servers from `source`; `usual` is the port of those without one.
fn list(
    source: &str,
    hosts: &str,
    usual: impl Fn() -> Result<u16, UsageError>,
) -> Result<Vec<ServerAddress>, UsageError> {
    let server = |text: &str| {
        let wrong = || UsageError(bad_value(source, text, &"HOST, HOST:PORT or [IPV6]:PORT"));
        let (host, port) = endpoint(text).ok_or_else(wrong)?;
        Ok(ServerAddress { host, port: port.map_or_else(&usual, Ok)? })
    };
    hosts.split(',').map(server).collect()
}

/// Parses `host`, `host:port`, `[v6]`, `[v6]:port` or `v6`.
fn endpoint(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = split_endpoint(text)?;
    let address = host.split('%').next().unwrap_or_default();
    let is_v6 = text.starts_with('[') || host.contains(':');
    if is_v6 && address.parse::<Ipv6Addr>().is_err() {
        return None;
    }
    let host = String::from_utf8(latin1_encode(host)).ok()?;
    let good = !host.is_empty() && !host.contains(|c: char| c.is_control() || c == ' ');
    let port = match port {
        Some(port) => Some(number(port)?),
        None => None,
    };
    good.then_some((host, port))
}

fn port(source: &str, text: &str) -> Result<u16, UsageError> {
    number(text).ok_or_else(|| UsageError(bad_value(source, text, &"1 to 65535")))
}

fn number(text: &str) -> Option<u16> {
    quantity::count(text).and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_perhaps_a_port() {
        for (text, host, port) in [
            ("proxy.example", "proxy.example", None),
            ("proxy.example:81", "proxy.example", Some(81)),
            ("192.0.2.1:65535", "192.0.2.1", Some(65535)),
            ("::1", "::1", None),
            ("[::1]", "::1", None),
            ("[2001:db8::1]:1", "2001:db8::1", Some(1)),
            ("fe80::1%lo", "fe80::1%lo", None),
            ("[fe80::1%lo]:9", "fe80::1%lo", Some(9)),
        ] {
            assert_eq!(endpoint(text), Some((host.to_owned(), port)), "{text}");
        }
        for text in [
            "", ":", ":81", "a:", "a:0", "a:65536", "a:+1", "a:http", "[::1", "[::1]81", "[::1]:",
            "[a]:1", "::1:x", "a:1:2", "[]", "a b", "\u{1b}[m",
        ] {
            assert_eq!(endpoint(text), None, "{text}");
        }
    }
}
