//! One value for each address family.

use std::net::IpAddr;

/// One value for IPv4 and one for IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerFamily<T> {
    /// The value for IPv4.
    pub v4: T,
    /// The value for IPv6.
    pub v6: T,
}

impl<T> PerFamily<T> {
    /// The value for the family of this address.
    pub fn of(&self, address: IpAddr) -> &T {
        match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        }
    }

    /// The value for the family of this address, to be changed.
    pub fn of_mut(&mut self, address: IpAddr) -> &mut T {
        match address {
            IpAddr::V4(_) => &mut self.v4,
            IpAddr::V6(_) => &mut self.v6,
        }
    }
}
