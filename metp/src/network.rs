//! Networks: an address and the length of its prefix, as in RFC 4632 §3.1 and RFC 4291 §2.3.

use std::fmt;
use std::net::IpAddr;

use crate::quantity::is_digits;

/// A network. Displays as `ADDRESS/LENGTH`.
///
/// IPv4 and IPv6 never meet: an IPv4-mapped address (RFC 4291 §2.5.5.2) is IPv4, in a network and in what is looked
/// for in it.
///
/// ```
/// use metp_protocol::network::Network;
///
/// let network = Network::parse("10.0.0.0/8").expect("a network");
/// assert!(network.contains([10, 1, 2, 3].into()) && !network.contains([11, 0, 0, 1].into()));
/// assert_eq!(Network::parse("::ffff:10.0.0.0/104"), Ok(network));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    /// With all bits behind the prefix zero.
    address: IpAddr,
    length: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// It is not an address, or an address, a slash and a length that the family has.
    Malformed,
    /// Bits behind the prefix are set: it may be an address that was meant, or this network.
    HostBits(Network),
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkError::Malformed => {
                f.write_str("a network, such as 10.0.0.0/8 or 2001:db8::/32")
            }
            NetworkError::HostBits(network) => {
                write!(f, "a network without bits behind its prefix, such as {network}")
            }
        }
    }
}

/// The bits of an address of IPv4, and of one of IPv6.
const V4_BITS: u8 = 32;
const V6_BITS: u8 = 128;
/// The length of the prefix that IPv4-mapped addresses have in common.
const MAPPED_BITS: u8 = V6_BITS - V4_BITS;

impl Network {
    /// Reads `ADDRESS/LENGTH`. An address alone is the network of this address.
    ///
    /// # Errors
    /// [`NetworkError`], which displays as what was expected.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Malformed)?;
        let bits = if address.is_ipv4() { V4_BITS } else { V6_BITS };
        let length = match length {
            None => bits,
            Some(text) if is_digits(text.as_bytes()) => text
                .parse()
                .ok()
                .filter(|length| *length <= bits && (text.len() == 1 || !text.starts_with('0')))
                .ok_or(NetworkError::Malformed)?,
            Some(_) => return Err(NetworkError::Malformed),
        };
        let (address, length) = match address.to_canonical() {
            // A shorter prefix is a network of IPv6 that has all mapped addresses, and others.
            IpAddr::V4(_) if address.is_ipv6() && length < MAPPED_BITS => (address, length),
            IpAddr::V4(v4) if address.is_ipv6() => (v4.into(), length - MAPPED_BITS),
            canonical => (canonical, length),
        };
        let network = Network { address: prefix(address, length), length };
        if network.address == address { Ok(network) } else { Err(NetworkError::HostBits(network)) }
    }

    /// The network with a prefix of this length that the address belongs to. A length that the family does not have counts
    /// as its greatest.
    ///
    /// ```
    /// use metp_protocol::network::Network;
    ///
    /// let network = Network::around([10, 1, 2, 3].into(), 8);
    /// assert_eq!(Network::parse("10.0.0.0/8"), Ok(network));
    /// ```
    pub fn around(address: IpAddr, length: u8) -> Self {
        let address = address.to_canonical();
        let length = length.min(if address.is_ipv4() { V4_BITS } else { V6_BITS });
        Network { address: prefix(address, length), length }
    }

    /// Whether it is of IPv4.
    pub fn is_v4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// The length of the prefix, in bits.
    pub fn prefix_length(&self) -> u8 {
        self.length
    }

    /// Whether an address belongs to it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && prefix(address, self.length) == self.address
    }

    /// Whether every address of its family belongs to it.
    pub fn is_everything(&self) -> bool {
        self.length == 0
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// The address with all bits behind the first `length` zero.
fn prefix(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let behind = u32::MAX.checked_shr(length.into()).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & !behind).into())
        }
        IpAddr::V6(v6) => {
            let behind = u128::MAX.checked_shr(length.into()).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & !behind).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> Network {
        Network::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn networks_are_shown_as_they_are_read() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.7/32", "192.0.2.7/32"),
            ("::/0", "::/0"),
            ("::1", "::1/128"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ] {
            assert_eq!(network(text).to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/8/8",
            "10/8",
            "10.0.0/24",
            "::/129",
            "::/ 0",
            " ::/0",
            "::/0 ",
            "[::]/0",
            "fe80::1%eth0/64",
            "example.com",
            "example.com/8",
            "10.0.0.0/255.0.0.0",
            "10.0.0.0/8a",
            "10.0.0.0/300",
            "010.0.0.0/8",
        ] {
            assert_eq!(Network::parse(text), Err(NetworkError::Malformed), "{text}");
        }
    }

    /// `192.168.1.5/24` may be an address or a network: the one who writes it has to say which.
    #[test]
    fn bits_behind_the_prefix_are_refused_with_the_network() {
        for (text, meant) in [
            ("192.168.1.5/24", "192.168.1.0/24"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("0.0.0.1/0", "0.0.0.0/0"),
            ("::ffff:10.1.0.0/104", "10.0.0.0/8"),
            ("::ffff:0.0.0.0/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(Network::parse(text), Err(NetworkError::HostBits(network(meant))), "{text}");
        }
    }

    #[test]
    fn the_families_never_meet() {
        let mapped = |v4: [u8; 4]| IpAddr::V6(std::net::Ipv4Addr::from(v4).to_ipv6_mapped());
        assert!(network("10.0.0.0/8").contains(mapped([10, 0, 0, 1])));
        assert!(network("::ffff:10.0.0.0/104").contains([10, 0, 0, 1].into()));
        assert!(!network("::/0").contains([10, 0, 0, 1].into()));
        assert!(!network("::/0").contains(mapped([10, 0, 0, 1])));
        assert!(!network("0.0.0.0/0").contains("::1".parse().expect("an address")));
    }

    #[test]
    fn prefixes_end_within_a_byte() {
        let odd = network("172.16.0.0/12");
        assert!(odd.contains([172, 31, 255, 255].into()) && !odd.contains([172, 32, 0, 0].into()));
        let odd = network("2001:db8:8000::/33");
        assert!(odd.contains("2001:db8:ffff::1".parse().expect("an address")));
        assert!(!odd.contains("2001:db8:7fff::1".parse().expect("an address")));
    }

    proptest! {
        #![proptest_config(support::property::config(256))]

        /// An independent reading: bit by bit.
        #[test]
        fn a_network_has_the_addresses_with_its_prefix(
            base in any::<u32>(), other in any::<u32>(), length in 0_u8..=32, near in any::<bool>(),
        ) {
            let other = if near { base ^ (other & 0xff) } else { other };
            let bits = |address: u32| (0..length).map(move |n| address >> (31 - n) & 1);
            let zeros = |address: u32| (0..32).fold(0, |sum, n| {
                sum | if n < length { address & (1 << (31 - n)) } else { 0 }
            });
            let text = format!("{}/{length}", std::net::Ipv4Addr::from(zeros(base)));
            let network = Network::parse(&text).expect("a network");
            let expected = bits(base).eq(bits(other));
            prop_assert_eq!(network.contains(IpAddr::V4(other.into())), expected);
            prop_assert_eq!(network.to_string(), text);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-f:./%]{0,24}") {
            if let Ok(network) = Network::parse(&text) {
                prop_assert_eq!(Network::parse(&network.to_string()), Ok(network));
            }
        }
    }
}
