//! The services of this program, and what is kept once for each of them.

use std::fmt;

/// A service, with a listener and sessions of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// RFC 1928.
    Socks,
    /// The management protocol.
    Metp,
    /// HTTP, for monitoring.
    Http,
}

impl Service {
    /// All services, in the order of their numbers.
    pub const ALL: [Service; 3] = [Service::Socks, Service::Metp, Service::Http];
}

/// Displays as `socks`, `metp` or `http`.
impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Service::Socks => "socks",
            Service::Metp => "metp",
            Service::Http => "http",
        })
    }
}

/// One value for each service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerService<T> {
    /// The value for SOCKS.
    pub socks: T,
    /// The value for METP.
    pub metp: T,
    /// The value for HTTP.
    pub http: T,
}

impl<T> PerService<T> {
    /// Makes the values one after the other.
    pub fn from_fn(mut make: impl FnMut(Service) -> T) -> Self {
        let (socks, metp) = (make(Service::Socks), make(Service::Metp));
        PerService { socks, metp, http: make(Service::Http) }
    }

    /// The value for a service.
    pub const fn of(&self, service: Service) -> &T {
        match service {
            Service::Socks => &self.socks,
            Service::Metp => &self.metp,
            Service::Http => &self.http,
        }
    }

    /// Mutable access to the value for a service.
    pub fn of_mut(&mut self, service: Service) -> &mut T {
        match service {
            Service::Socks => &mut self.socks,
            Service::Metp => &mut self.metp,
            Service::Http => &mut self.http,
        }
    }

    /// All values, in the order of [`Service::ALL`].
    pub fn values(&self) -> impl Iterator<Item = &T> {
        Service::ALL.into_iter().map(|service| self.of(service))
    }

    /// Mutable access to all values.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let PerService { socks, metp, http } = self;
        [socks, metp, http].into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_a_value_of_its_own() {
        let mut values = PerService::from_fn(|service| service.to_string());
        assert_eq!(values.values().collect::<Vec<_>>(), ["socks", "metp", "http"]);
        for (number, service) in Service::ALL.into_iter().enumerate() {
            assert_eq!(service as usize, number);
            assert_eq!(*values.of(service), service.to_string());
            values.of_mut(service).push('!');
        }
        assert_eq!(values.values_mut().collect::<Vec<_>>(), ["socks!", "metp!", "http!"]);
    }
}
