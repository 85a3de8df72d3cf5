//! The parsers of SOCKS4, of heads of HTTP and of networks.

use std::net::IpAddr;

use metp_protocol::network::{Network, NetworkError};
use socks5d::proto::http::get::{Get, GetError};
use socks5d::proto::http::{Head, LONGEST_HEAD};
use socks5d::proto::socks4::{LONGEST_MESSAGE, Request};
use socks5d::proto::socks5::Host;

use crate::parsers::restartable;
use crate::reference::{Dialect, Policy, Stage, hear};

/// Everybody is let in, so that what is read is the message alone.
const OPEN: Policy = Policy { trusted: true, any_login: true, http: true };

/// The memos of SOCKS4 and 4A, against an independent reading.
pub fn socks4(data: &[u8]) {
    restartable(data, LONGEST_MESSAGE, Request::parse);
    let Some(4) = data.first() else { return };
    let heard = hear(data, OPEN, |_, _| Some(true));
    match (Request::parse(data), heard.stage) {
        (Ok(None), Stage::Unfinished) | (Err(_), Stage::Over) => {}
        (Ok(Some((request, taken))), Stage::Asked(asked)) => {
            assert_eq!((taken, asked.dialect), (asked.taken, Dialect::Socks4));
            assert!(taken <= LONGEST_MESSAGE && request.userid.len() <= 255);
            let host = match request.target.host {
                Host::Ip(address) => Ok(address),
                Host::Name(name) => Err(name.to_vec()),
            };
            assert_eq!((host, request.target.port), (asked.host, asked.port));
        }
        (parsed, stage) => panic!("{parsed:?}, and by the memo {stage:?}"),
    }
}

/// RFC 9112, against an independent reading. No byte behind a head has to do with it.
pub fn http_head(data: &[u8]) {
    let parsed = Head::parse(data);
    assert_eq!(parsed, Head::parse(data), "not pure");
    if let Some(b'A'..=b'Z') = data.first() {
        match (&parsed, hear(data, OPEN, |_, _| Some(true)).stage) {
            (Ok(None) | Err(_), Stage::Head) | (_, Stage::Unknown) => {}
            (Err(_), Stage::Status(400 | 501)) => {}
            (Ok(Some((head, taken))), Stage::Asked(asked)) => {
                assert_eq!((*taken, head.target.port), (asked.taken, asked.port));
                let host = match &head.target.host {
                    Host::Ip(address) => Ok(*address),
                    Host::Name(name) => Err(name.to_vec()),
                };
                assert_eq!(host, asked.host);
            }
            (parsed, stage) => panic!("{parsed:?}, and by the RFC {stage:?}"),
        }
    }
    http_get(data);
    match parsed {
        Ok(Some((head, taken))) => {
            assert!(taken <= LONGEST_HEAD && data[..taken].ends_with(b"\r\n\r\n"));
            assert_eq!(Head::parse(&data[..taken]), Ok(Some((head, taken))));
            for end in [0, taken / 2, taken - 1] {
                assert_eq!(Head::parse(&data[..end]), Ok(None), "a beginning of a good head");
            }
        }
        Ok(None) => assert!(data.len() < LONGEST_HEAD),
        Err(_) => {}
    }
}

/// A request for this server itself: any bytes have an answer, the same for each beginning of them.
fn http_get(data: &[u8]) {
    let parsed = Get::parse(data);
    assert_eq!(parsed, Get::parse(data), "not pure");
    match parsed {
        Ok(Some((get, taken))) => {
            assert!(taken <= LONGEST_HEAD && data[..taken].ends_with(b"\r\n\r\n"));
            assert!(get.path.starts_with('/') && !get.path.contains('?'), "{get:?}");
            assert!(get.host.as_ref().is_none_or(|host| !host.is_empty()));
            // A name is given without the dot of the root.
            let name = get.host.as_ref().map(|host| host.strip_suffix('.').unwrap_or(host));
            assert!(get.is_for(name), "its own host is a host");
            for end in [0, taken / 2, taken - 1] {
                assert_eq!(Get::parse(&data[..end]), Ok(None), "a beginning of a good head");
            }
            assert_eq!(Get::parse(&data[..taken]), Ok(Some((get, taken))));
        }
        Ok(None) => assert!(data.len() < LONGEST_HEAD),
        Err(GetError::TooLong) => assert!(data.len() >= LONGEST_HEAD),
        Err(GetError::Malformed | GetError::Method) => {}
    }
}

/// RFC 4632 §3.1: what is read is written as it may be read, and an address is in its own network.
pub fn cidr(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Network::parse(&text) {
        Ok(network) | Err(NetworkError::HostBits(network)) => {
            let shown = network.to_string();
            assert_eq!(Network::parse(&shown), Ok(network), "{shown}");
            let (address, length) = shown.split_once('/').expect("a length");
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(address, address.to_canonical(), "{shown}");
            assert!(network.contains(address));
            assert_eq!(network.is_everything(), length == "0");
            let other: IpAddr = if address.is_ipv4() { [0; 16].into() } else { [0; 4].into() };
            assert!(!network.contains(other), "another family");
        }
        Err(NetworkError::Malformed) => {}
    }
}
