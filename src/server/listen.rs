//! The ports: bound here, or taken from what was handed over.

use std::io;
use std::net::{IpAddr, TcpListener};

use common::process::cannot;

use super::config::{Addresses, Config};
use super::service::{ServiceState, listener_id, row};
use crate::reactor::listener::Listener;
use crate::reactor::selector::Selector;
use crate::reactor::token::Source;
use crate::state::service::{PerService, Service};
use crate::state::settings::Timeouts;

/// Binds the ports of the services that have no socket yet, for a server that is made later, perhaps by another user.
///
/// # Errors
/// If a port cannot be bound, naming it.
pub fn bind_ports(
    addresses: &Addresses,
    timeouts: &Timeouts,
    sockets: &mut PerService<Option<TcpListener>>,
) -> io::Result<()> {
    for service in Service::ALL {
        let socket = sockets.of_mut(service);
        if let (None, Some((address, port))) = (&socket, *addresses.of(service)) {
            *socket = Some(bind(service, address, port, timeouts)?);
        }
    }
    Ok(())
}

fn bind(
    service: Service,
    address: Option<IpAddr>,
    port: u16,
    timeouts: &Timeouts,
) -> io::Result<TcpListener> {
    let row = row(service);
    Listener::open(address, port, (row.liveness)(timeouts)).map_err(|error| {
        let shown = address.map_or("*".to_owned(), |address| address.to_string());
        let message = format!("cannot listen for {} on {shown} port {port}: {error}", row.name);
        io::Error::new(error.kind(), message)
    })
}

/// Binds the port of a service, or takes the socket that was handed over.
pub(super) fn listen(
    service: Service,
    config: &mut Config,
    selector: &Selector,
) -> io::Result<ServiceState> {
    let row = row(service);
    let timeouts = &config.settings.timeouts;
    let socket = match (config.sockets.of_mut(service).take(), *config.addresses().of(service)) {
        (Some(socket), _) => socket,
        (None, None) => return Ok(ServiceState::new(None)),
        (None, Some((address, port))) => bind(service, address, port, timeouts)?,
    };
    let mut listener = Listener::adopt(socket, (row.liveness)(timeouts))
        .map_err(cannot(&format!("use the socket for {}", row.name)))?;
    let source = Source::Listener(listener_id(service));
    selector
        .register_readable(listener.socket(), source)
        .map_err(cannot(&format!("watch the {} listener", row.name)))?;
    if let Some(bytes) = row.send_buffer {
        listener.limit_send_buffer(bytes);
    }
    Ok(ServiceState::new(Some(listener)))
}
