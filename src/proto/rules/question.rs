//! What rules are asked.

use std::borrow::Cow;
use std::net::IpAddr;

use super::rule::Commands;

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The account's name.
    pub user: &'a [u8],
    /// The client's address.
    pub source: IpAddr,
    /// The kind of the request: one of them.
    pub command: Commands,
    /// The destination.
    pub asked: Asked<'a>,
}

/// What is known of the port of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// This is it.
    Is(u16),
    /// It has none: a look-up.
    Nothing,
    /// Nothing yet: that of a peer that is to connect.
    Unknown,
}

/// What is known of a destination.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// Nothing yet: an association, or a listener for anybody.
    Unknown,
    /// Its name, as the client has it, and the port. The address is not known yet.
    Name {
        /// As [`normal_name`] makes it, and never a literal.
        name: &'a str,
        /// The port.
        port: Port,
    },
    /// All.
    Address {
        /// The name that the client has asked for, if it was one, as [`normal_name`] makes it.
        name: Option<&'a str>,
        /// The address.
        address: IpAddr,
        /// The port.
        port: Port,
    },
}

/// A name as rules have it: in lower case, without the dot at the end of an absolute one (RFC 1034 §3.1).
///
/// ```
/// use socks5d::proto::rules::normal_name;
///
/// assert_eq!(normal_name("Example.COM."), "example.com");
/// ```
pub fn normal_name(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}
