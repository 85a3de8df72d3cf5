//! What this machine lacks for requests: ports, descriptors, memory. The client gets no more than a reply code, so the
//! log names cause and object: once in an episode, which is over when what was short can be had again
//! ([`Outage`]).

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Instant;

use common::episode::Outage;

use crate::reactor::errno;
use crate::state::service::Service;

/// What is short, by errno.
type Causes = Outage<Option<i32>>;

/// The shortages that there are.
#[derive(Default)]
pub struct Shortages {
    connections: Causes,
    datagrams: Causes,
    listeners: Causes,
    watches: Causes,
}

/// The error that stands for a promise of the [`Reserve`](crate::reactor::reserve::Reserve) that cannot be given.
pub fn no_descriptors() -> io::Error {
    io::Error::other("all descriptors are in use or promised (RLIMIT_NOFILE)")
}

impl Shortages {
    /// A connection attempt failed at once. `from`: the address that it was to leave from, if one is set. `is_last`: no
    /// address of the target is left.
    pub fn cannot_connect(
        &mut self,
        (target, from): (SocketAddr, Option<IpAddr>),
        is_last: bool,
        error: &io::Error,
        now: Instant,
    ) {
        warn(self.connection((target, from), is_last, error, now));
    }

    /// A connection attempt has started.
    pub fn can_connect(&mut self, now: Instant) {
        if self.connections.succeeds(now) {
            log::info!("there are ports and resources for connections again");
        }
    }

    /// A socket for datagrams could not be opened on this address, on one of `ports`.
    pub fn cannot_open_datagrams(
        &mut self,
        address: IpAddr,
        ports: Option<&RangeInclusive<u16>>,
        error: &io::Error,
        now: Instant,
    ) {
        let begins = self.datagrams.fails(error.raw_os_error(), now);
        let ports = Ports("udp-ports", ports);
        warn(
            begins.then(|| {
                format!("cannot open a socket for datagrams on {address}{ports}: {error}")
            }),
        );
    }

    /// A socket for datagrams to targets could not be opened on this address: those datagrams are dropped. A family that
    /// this machine does not have is no shortage.
    pub fn cannot_send_datagrams(&mut self, address: IpAddr, error: &io::Error, now: Instant) {
        if is_local(error) {
            self.cannot_open_datagrams(address, None, error, now);
        }
    }

    /// A socket for datagrams has been opened.
    pub fn can_open_datagrams(&mut self, now: Instant) {
        if self.datagrams.succeeds(now) {
            log::info!("sockets for datagrams can be opened again");
        }
    }

    /// There is no listener for a connection from `peer`, on one of `ports`.
    pub fn cannot_listen(
        &mut self,
        peer: IpAddr,
        ports: Option<&RangeInclusive<u16>>,
        error: &io::Error,
        now: Instant,
    ) {
        warn(self.listener(peer, ports, error, now));
    }

    /// There is one.
    pub fn can_listen(&mut self, now: Instant) {
        if self.listeners.succeeds(now) {
            log::info!("BIND has listeners again");
        }
    }

    /// The connection of a peer cannot be accepted.
    pub fn cannot_accept_peer(&mut self, listener: SocketAddr, error: &io::Error, now: Instant) {
        if is_local(error) && self.listeners.fails(error.raw_os_error(), now) {
            log::warn!("cannot accept a connection on {listener} for BIND: {error}");
        }
    }

    /// A connection that has been accepted cannot be registered.
    pub fn cannot_watch(&mut self, service: Service, error: &io::Error, now: Instant) {
        if self.watches.fails(error.raw_os_error(), now) {
            log::warn!("{service}: cannot watch a new connection, which is closed: {error}");
        }
    }

    /// One has been registered.
    pub fn can_watch(&mut self, now: Instant) {
        if self.watches.succeeds(now) {
            log::info!("new connections can be watched again");
        }
    }

    /// The line of a failed attempt. That an address of IPv6 has no local address is usual on a machine that has IPv4
    /// alone: it counts if nothing else is left.
    fn connection(
        &mut self,
        (target, from): (SocketAddr, Option<IpAddr>),
        is_last: bool,
        error: &io::Error,
        now: Instant,
    ) -> Option<String> {
        let code = error.raw_os_error()?;
        let what = match code {
            _ if errno::is_shortage(code) => "no resources for a connection",
            // EAGAIN: connect(2) has it for want of room in the table of routes, too.
            libc::EAGAIN => "no free local port, or no resources, for a connection",
            libc::EADDRNOTAVAIL | libc::EADDRINUSE if is_last || target.is_ipv4() => {
                "no free local port or address for a connection"
            }
            _ => return None,
        };
        let from = from.map(|from| format!(" from {from}")).unwrap_or_default();
        let begins = self.connections.fails(Some(code), now);
        begins.then(|| format!("{what} to {target}{from}: {error}"))
    }

    fn listener(
        &mut self,
        peer: IpAddr,
        ports: Option<&RangeInclusive<u16>>,
        error: &io::Error,
        now: Instant,
    ) -> Option<String> {
        let begins = is_local(error) && self.listeners.fails(error.raw_os_error(), now);
        let ports = Ports("bind-ports", ports);
        begins.then(|| format!("cannot listen for a connection from {peer}{ports}: {error}"))
    }
}

/// Whether it is this machine that lacks something, and not the way to the peer that is missing.
fn is_local(error: &io::Error) -> bool {
    error.raw_os_error().is_none_or(|code| {
        errno::is_shortage(code) || [libc::EADDRINUSE, libc::EADDRNOTAVAIL].contains(&code)
    })
}

/// The setting that names the ports, if they are limited.
struct Ports<'a>(&'static str, Option<&'a RangeInclusive<u16>>);

impl fmt::Display for Ports<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(ports) => write!(f, " ({} {}-{})", self.0, ports.start(), ports.end()),
            None => Ok(()),
        }
    }
}

fn warn(line: Option<String>) {
    if let Some(line) = line {
        log::warn!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use common::episode::QUIET;

    use super::*;

    const V4: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7000);
    const V6: SocketAddr = SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), 7000);

    fn error(code: i32) -> io::Error {
        io::Error::from_raw_os_error(code)
    }

    #[test]
    fn each_shortage_of_connections_has_a_line_with_target_and_cause() {
        let now = Instant::now();
        for (code, line) in [
            (
                libc::EADDRNOTAVAIL,
                "no free local port or address for a connection to 127.0.0.1:7000: Cannot assign requested address (os error 99)",
            ),
            (
                libc::EADDRINUSE,
                "no free local port or address for a connection to 127.0.0.1:7000: Address already in use (os error 98)",
            ),
            (
                libc::EAGAIN,
                "no free local port, or no resources, for a connection to 127.0.0.1:7000: Resource temporarily unavailable (os error 11)",
            ),
            (
                libc::EMFILE,
                "no resources for a connection to 127.0.0.1:7000: Too many open files (os error 24)",
            ),
            (
                libc::ENFILE,
                "no resources for a connection to 127.0.0.1:7000: Too many open files in system (os error 23)",
            ),
            (
                libc::ENOBUFS,
                "no resources for a connection to 127.0.0.1:7000: No buffer space available (os error 105)",
            ),
        ] {
            let told = Shortages::default().connection((V4, None), false, &error(code), now);
            assert_eq!(told.as_deref(), Some(line));
        }
        let from = IpAddr::from([192, 0, 2, 1]);
        let told = Shortages::default().connection(
            (V4, Some(from)),
            true,
            &error(libc::EADDRNOTAVAIL),
            now,
        );
        assert!(told.is_some_and(|line| line.contains(" to 127.0.0.1:7000 from 192.0.2.1: ")));
    }

    /// What says something about the target is no shortage here.
    #[test]
    fn errors_of_the_way_are_none_of_this_machine() {
        let (mut shortages, now) = (Shortages::default(), Instant::now());
        for code in [
            libc::ECONNREFUSED,
            libc::ENETUNREACH,
            libc::EHOSTUNREACH,
            libc::ETIMEDOUT,
            libc::EACCES,
        ] {
            assert_eq!(shortages.connection((V4, None), true, &error(code), now), None);
            assert_eq!(shortages.listener(V4.ip(), None, &error(code), now), None);
        }
    }

    /// A machine that has no IPv6 lacks nothing while there are other addresses.
    #[test]
    fn an_address_of_ipv6_without_ipv6_counts_as_the_last_one_alone() {
        let (mut shortages, now) = (Shortages::default(), Instant::now());
        let no_address = error(libc::EADDRNOTAVAIL);
        assert_eq!(shortages.connection((V6, None), false, &no_address, now), None);
        assert!(shortages.connection((V6, None), true, &no_address, now).is_some());
        let no_descriptor = error(libc::EMFILE);
        assert!(shortages.connection((V6, None), false, &no_descriptor, now).is_some());
    }

    /// However many requests fail, and however far apart they are.
    #[test]
    fn an_episode_has_one_line_until_it_is_over() {
        let (mut shortages, start) = (Shortages::default(), Instant::now());
        let no_port = error(libc::EADDRNOTAVAIL);
        let lines = (0..100)
            .filter_map(|number| {
                let now = start + Duration::from_secs(number * 11);
                shortages.connection((V4, None), true, &no_port, now)
            })
            .count();
        assert_eq!(lines, 1);
        let over = start + Duration::from_secs(99 * 11) + QUIET;
        assert!(shortages.connections.succeeds(over));
        assert!(shortages.connection((V4, None), true, &no_port, over).is_some());
    }

    #[test]
    fn listeners_name_peer_and_setting() {
        let (mut shortages, now) = (Shortages::default(), Instant::now());
        let told = shortages.listener(V4.ip(), Some(&(4000..=4001)), &error(libc::EADDRINUSE), now);
        assert_eq!(
            told.as_deref(),
            Some(
                "cannot listen for a connection from 127.0.0.1 (bind-ports 4000-4001): Address already in use (os error 98)"
            )
        );
        assert_eq!(shortages.listener(V6.ip(), None, &error(libc::EADDRINUSE), now), None);
        let told = shortages.listener(V4.ip(), None, &no_descriptors(), now);
        assert!(told.is_some_and(|line| line.ends_with("promised (RLIMIT_NOFILE)")));
    }
}
