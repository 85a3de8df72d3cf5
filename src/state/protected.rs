//! Where a client may connect. Decided on the address itself, right before each connection attempt, so that no
//! spelling and no name bypasses it.

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::proto::addresses::{embedded, is_this_network};
use crate::state::settings::{LocalFor, Settings};

/// What closes a destination, above all rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBy {
    /// It is one of the server's own ports.
    OwnPort,
    /// It is local, and the client is none of those that `local-for` names.
    LocalFor,
}

/// Whether a client at `source` may connect to `candidate`, which is canonical. `is_local_delivery` returns
/// whether the kernel would deliver a connection to this machine; it is called for the server's own ports alone.
///
/// The server's own ports are closed to all clients. Loopback, link-local and unspecified addresses are open to the
/// clients that `local-for` names; by default to those on loopback, which are on this machine already.
pub fn permitted(
    source: IpAddr,
    candidate: SocketAddr,
    settings: &Settings,
    is_local_delivery: impl FnMut(SocketAddr) -> io::Result<bool>,
) -> bool {
    closed_by(source, candidate, settings, is_local_delivery).is_none()
}

/// What closes `candidate` to a client at `source`, if anything does: see [`permitted`].
pub fn closed_by(
    source: IpAddr,
    candidate: SocketAddr,
    settings: &Settings,
    mut is_local_delivery: impl FnMut(SocketAddr) -> io::Result<bool>,
) -> Option<ClosedBy> {
    if is_own_port(candidate, settings) && is_here(candidate, &mut is_local_delivery) {
        return Some(ClosedBy::OwnPort);
    }
    let is_closed = !may_use_local(source, settings) && is_local(candidate.ip());
    is_closed.then_some(ClosedBy::LocalFor)
}

/// Whether a client at `source` may send a datagram to `target`, which is canonical: as [`permitted`], and it is the
/// address of one machine.
pub fn datagram_permitted(
    source: IpAddr,
    target: SocketAddr,
    settings: &Settings,
    is_local_delivery: impl FnMut(SocketAddr) -> io::Result<bool>,
) -> bool {
    may_be_sent_to(target) && permitted(source, target, settings, is_local_delivery)
}

/// Whether this is the address of one socket, to which a datagram can be sent: no multicast, no broadcast, not
/// unspecified, no port 0.
pub fn may_be_sent_to(target: SocketAddr) -> bool {
    let ip = target.ip();
    let is_one = match ip {
        IpAddr::V4(v4) => !v4.is_broadcast(),
        IpAddr::V6(_) => true,
    };
    target.port() != 0 && is_one && !ip.is_multicast() && !ip.is_unspecified()
}

/// Whether a client at `source` may hear of `address`, which is canonical.
pub fn may_use_local_address(source: IpAddr, address: IpAddr, settings: &Settings) -> bool {
    may_use_local(source, settings) || !is_local(address)
}

/// Whether a client at `source` may use a connection whose near end is `bound`. A connection from a loopback
/// address looks to its target like a client on this machine, whatever the target's address is: an IPv6 route of
/// type local is enough for that, on a machine without another IPv6 address.
pub fn may_come_from(source: IpAddr, bound: SocketAddr, settings: &Settings) -> bool {
    !bound.ip().is_loopback() || may_use_local(source, settings)
}

/// Whether the server itself has this port, on whatever address.
pub fn is_own_port(address: SocketAddr, settings: &Settings) -> bool {
    settings.own_ports.contains(&address.port())
}

/// Whether a socket has connected to itself: TCP's simultaneous open (RFC 9293 §3.5) allows it when the socket's
/// own port happens to be the one that it connects to.
pub fn is_itself(candidate: SocketAddr, bound: SocketAddr) -> bool {
    // connect(2) takes the unspecified address for loopback.
    let same = candidate.ip() == bound.ip()
        || (candidate.ip().is_unspecified() && bound.ip().is_loopback());
    same && candidate.port() == bound.port()
}

fn may_use_local(source: IpAddr, settings: &Settings) -> bool {
    match settings.local_for {
        LocalFor::All => true,
        LocalFor::Loopback => source.to_canonical().is_loopback(),
        LocalFor::Nobody => false,
    }
}

/// Whether an address leads to this machine or this link, also when it is wrapped in IPv6.
fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        // All of 0.0.0.0/8 is "this host on this network" (RFC 1122 §3.2.1.3).
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || is_this_network(v4),
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unicast_link_local()
                || embedded(v6).any(|v4| is_local(v4.into()))
        }
    }
}

/// Whether a connection would be delivered to this machine, also through a translator. Anything but a clear
/// answer counts as yes.
fn is_here(
    address: SocketAddr,
    is_local_delivery: &mut impl FnMut(SocketAddr) -> io::Result<bool>,
) -> bool {
    let translated = match address.ip().to_canonical() {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(embedded(v6)),
    };
    let translated = translated.into_iter().flatten();
    let translated = translated.map(|v4| SocketAddr::from((v4, address.port())));
    translated.chain([address]).any(|address| is_local_delivery(address).unwrap_or(true))
}

#[cfg(test)]
mod tests;
