//! Datagrams of an association (RFC 1928 §7): each has a header, on both ways between client and relay.
//!
//! ```text
//! +-----+------+------+----------+----------+----------+
//! | RSV | FRAG | ATYP | DST.ADDR | DST.PORT |   DATA   |
//! +-----+------+------+----------+----------+----------+
//! |  2  |  1   |  1   | variable |    2     | variable |
//! +-----+------+------+----------+----------+----------+
//! ```
//!
//! From the client DST is the target; to the client it is where the datagram came from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{ATYP_IPV4, ATYP_IPV6, ATYP_NAME, Wire};

/// Bytes of the longest header with an address: that of IPv6. That of IPv4 has 10.
pub const LONGEST_ADDRESS_HEADER: usize = 22;

/// A datagram of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// DST.ADDR and DST.PORT.
    pub destination: Destination<'a>,
    /// Bytes of the header. The payload begins there, and may be empty.
    pub header: usize,
}

/// DST of a datagram. The port is in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// ATYP 01 or 04, as it was sent: an IPv4 address may be v4-mapped.
    Address(SocketAddr),
    /// ATYP 03: a name of 1 to 255 bytes, and the port.
    Name(&'a [u8], u16),
}

/// Why a datagram cannot be relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramError {
    /// It is shorter than its header, its address type is none of 01, 03, 04, or its name is empty.
    Malformed,
    /// It is a fragment with this FRAG. A server need not join them, and has to drop them then.
    Fragment(u8),
}

impl<'a> Datagram<'a> {
    /// Reads the header. RSV is skipped whatever it holds, as in a request.
    ///
    /// # Errors
    /// [`DatagramError`]: the datagram is to be dropped.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DatagramError> {
        let mut wire = Wire::new(bytes);
        let read = (wire.array::<2>(), wire.byte(), wire.byte());
        let (Some(_rsv), Some(fragment), Some(kind)) = read else {
            return Err(DatagramError::Malformed);
        };
        if fragment != 0 {
            return Err(DatagramError::Fragment(fragment));
        }
        let destination = wire.destination(kind).ok_or(DatagramError::Malformed)?;
        Ok(Datagram { destination, header: wire.position })
    }
}

impl<'a> Wire<'a> {
    /// DST of a datagram with this ATYP.
    fn destination(&mut self, kind: u8) -> Option<Destination<'a>> {
        let ip: IpAddr = match kind {
            ATYP_IPV4 => Ipv4Addr::from(self.array::<4>()?).into(),
            ATYP_IPV6 => Ipv6Addr::from(self.array::<16>()?).into(),
            ATYP_NAME => {
                let name = self.counted().filter(|name| !name.is_empty())?;
                return Some(Destination::Name(name, u16::from_be_bytes(self.array()?)));
            }
            _ => return None,
        };
        Some(Destination::Address(SocketAddr::new(ip, u16::from_be_bytes(self.array()?))))
    }
}

/// The header of a datagram for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    bytes: [u8; LONGEST_ADDRESS_HEADER],
    length: u8,
}

impl Header {
    /// The header of a datagram that came from `source`.
    pub fn new(source: SocketAddr) -> Self {
        let [high, low] = source.port().to_be_bytes();
        let mut bytes = [0; LONGEST_ADDRESS_HEADER];
        let length = match source.ip() {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                put(&mut bytes, [0, 0, 0, ATYP_IPV4, a, b, c, d, high, low])
            }
            IpAddr::V6(v6) => {
                let head = [0, 0, 0, ATYP_IPV6].into_iter();
                put(&mut bytes, head.chain(v6.octets()).chain([high, low]))
            }
        };
        Header { bytes, length }
    }

    /// Its bytes: 10 or 22.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length.into()).unwrap_or_default()
    }
}

/// Puts values at the beginning of `bytes`. Returns how many.
fn put(bytes: &mut [u8], values: impl IntoIterator<Item = u8>) -> u8 {
    let mut count = 0;
    for (place, value) in bytes.iter_mut().zip(values) {
        *place = value;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("a literal")
    }

    #[test]
    fn each_kind_of_destination() {
        let parse = |bytes| Datagram::parse(bytes).expect("a datagram");
        let v4 = parse(b"\x00\x00\x00\x01\xc0\x00\x02\x01\x00\x35payload");
        assert_eq!(
            v4,
            Datagram { destination: Destination::Address(at("192.0.2.1:53")), header: 10 }
        );
        let v6 = parse(b"\x00\x00\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x35");
        assert_eq!(
            v6,
            Datagram { destination: Destination::Address(at("[2001:db8::1]:53")), header: 22 }
        );
        let name = parse(b"\x00\x00\x00\x03\x03a.b\x01\x00x");
        assert_eq!(name, Datagram { destination: Destination::Name(b"a.b", 256), header: 10 });
    }

    #[test]
    fn rsv_is_not_looked_at() {
        let parsed = Datagram::parse(b"\xff\xfe\x00\x01\xc0\x00\x02\x01\x00\x35");
        assert_eq!(parsed.expect("a datagram").header, 10);
    }

    /// "MUST drop any datagram whose FRAG field is other than X'00'".
    #[test]
    fn fragments_are_no_datagrams() {
        for fragment in [1, 0x7f, 0x80, 0x82, 0xff] {
            let bytes = [0, 0, fragment, 1, 192, 0, 2, 1, 0, 53];
            assert_eq!(Datagram::parse(&bytes), Err(DatagramError::Fragment(fragment)));
        }
    }

    #[test]
    fn a_part_of_a_header_is_malformed() {
        let headers: [&[u8]; 3] = [
            b"\x00\x00\x00\x01\xc0\x00\x02\x01\x00\x35",
            b"\x00\x00\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x35",
            b"\x00\x00\x00\x03\x03a.b\x01\x00",
        ];
        for header in headers {
            for length in 0..header.len() {
                assert_eq!(
                    Datagram::parse(&header[..length]),
                    Err(DatagramError::Malformed),
                    "{length}"
                );
            }
            assert!(Datagram::parse(header).is_ok(), "an empty payload");
        }
        for kind in [0, 2, 5, 0xff] {
            let bytes = [&[0, 0, 0, kind][..], &[1; 30]].concat();
            assert_eq!(Datagram::parse(&bytes), Err(DatagramError::Malformed), "ATYP {kind}");
        }
        assert_eq!(Datagram::parse(b"\x00\x00\x00\x03\x00\x00\x35"), Err(DatagramError::Malformed));
    }

    proptest! {
        #![proptest_config(support::property::config(512))]

        #[test]
        fn what_is_written_is_read(v4: [u8; 4], v6: [u8; 16], port: u16, payload: Vec<u8>) {
            for source in [SocketAddr::from((v4, port)), SocketAddr::from((v6, port))] {
                let header = Header::new(source);
                let bytes = [header.bytes(), &payload].concat();
                let expected = Datagram {
                    destination: Destination::Address(source),
                    header: header.bytes().len(),
                };
                prop_assert_eq!(Datagram::parse(&bytes), Ok(expected));
            }
        }

        #[test]
        fn no_bytes_are_too_strange(bytes: Vec<u8>) {
            if let Ok(datagram) = Datagram::parse(&bytes) {
                prop_assert!(datagram.header <= bytes.len() && datagram.header <= 262);
            }
        }
    }
}
