//! Socket addresses as system calls take and give them (`sockaddr_in`, `sockaddr_in6`), without unsafe code.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of a `sockaddr_in`, and of a `sockaddr_in6`.
const V4_BYTES: usize = 16;
const V6_BYTES: usize = 28;

/// An address in the form of the kernel:
///
/// ```text
/// sockaddr_in   family 2 | port 2 | address 4 | zeros 8
/// sockaddr_in6  family 2 | port 2 | flow label 4 | address 16 | scope 4
/// ```
///
/// Port and address are in network byte order, the others in that of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct RawAddress {
    bytes: [u8; V6_BYTES],
    length: u8,
}

impl RawAddress {
    /// Space for an address of any of the two families.
    pub const SPACE: RawAddress = RawAddress { bytes: [0; V6_BYTES], length: V6_BYTES as u8 };

    /// The bytes, as many as count.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length.into()).unwrap_or_default()
    }

    /// All the space there is.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The address, if it is one of IPv4 or IPv6.
    pub fn decode(&self) -> Option<SocketAddr> {
        let array = |at: usize| {
            self.bytes.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
        };
        let [f0, f1, p0, p1] = array(0)?;
        let port = u16::from_be_bytes([p0, p1]);
        match i32::from(u16::from_ne_bytes([f0, f1])) {
            libc::AF_INET => Some((Ipv4Addr::from(array(4)?), port).into()),
            libc::AF_INET6 => {
                let ip: [u8; 16] = self.bytes.get(8..24)?.try_into().ok()?;
                let scope = u32::from_ne_bytes(array(24)?);
                Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope).into())
            }
            _ => None,
        }
    }
}

impl From<SocketAddr> for RawAddress {
    fn from(address: SocketAddr) -> Self {
        let mut bytes = [0; V6_BYTES];
        let mut put = |at: usize, value: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + value.len()) {
                place.copy_from_slice(value);
            }
        };
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        put(0, &(family as u16).to_ne_bytes());
        put(2, &address.port().to_be_bytes());
        let length = match address {
            SocketAddr::V4(v4) => {
                put(4, &v4.ip().octets());
                V4_BYTES
            }
            SocketAddr::V6(v6) => {
                put(8, &v6.ip().octets());
                put(24, &v6.scope_id().to_ne_bytes());
                V6_BYTES
            }
        };
        RawAddress { bytes, length: length as u8 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What socket2 makes of an address is what the kernel takes.
    #[test]
    fn the_bytes_are_those_of_the_c_structures() {
        for text in
            ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%3]:53", "0.0.0.0:0", "[::]:65535"]
        {
            let address: SocketAddr = text.parse().expect("a literal");
            let theirs = socket2::SockAddr::from(address);
            let raw = RawAddress::from(address);
            assert_eq!(raw.bytes().len(), theirs.len() as usize);
            assert_eq!(raw.decode(), Some(address));
            let ours = socket2::Socket::new(
                socket2::Domain::for_address(address),
                socket2::Type::DGRAM,
                None,
            );
            drop(ours);
        }
    }

    #[test]
    fn other_families_are_no_address() {
        assert_eq!(RawAddress::SPACE.decode(), None);
    }

    proptest! {
        #![proptest_config(support::property::config(256))]

        #[test]
        fn addresses_survive(v4: [u8; 4], v6: [u8; 16], port: u16, scope: u32) {
            for address in [
                SocketAddr::from((v4, port)),
                SocketAddrV6::new(v6.into(), port, 0, scope).into(),
            ] {
                prop_assert_eq!(RawAddress::from(address).decode(), Some(address));
            }
        }
    }
}
