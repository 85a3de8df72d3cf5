//! What limits and logs count as one client's address.

use std::net::IpAddr;

/// What counts as one address: an IPv4 address, or an IPv6 network of 64 bits, which is what one customer gets
/// at least (RFC 6177 §2), with addresses beyond number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// An address.
    V4(u32),
    /// The first 64 bits of one.
    V6(u64),
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Network::V4(v4.to_bits()),
            IpAddr::V6(v6) => Network::V6((v6.to_bits() >> 64) as u64),
        }
    }
}
