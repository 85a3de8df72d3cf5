//! The unit by which limits and logs count clients.

use std::net::IpAddr;

/// One client: an IPv4 address, or an IPv6 network of 64 bits, the least that one customer gets (RFC 6177 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientNetwork {
    /// An IPv4 address.
    V4(u32),
    /// The first 64 bits of an IPv6 address.
    V6(u64),
}

impl From<IpAddr> for ClientNetwork {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => ClientNetwork::V4(v4.to_bits()),
            IpAddr::V6(v6) => ClientNetwork::V6((v6.to_bits() >> 64) as u64),
        }
    }
}
