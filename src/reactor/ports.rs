//! Binding to a port of a range.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use socket2::Socket;

/// Ports of a range that are tried at most.
const ATTEMPTS: u32 = 64;

/// Binds to `address`, or to a free port of `ports` there, beginning at random.
///
/// # Errors
/// Those of bind(2). EADDRINUSE: none of the ports that were tried is free.
pub fn bind(
    socket: &Socket,
    mut address: SocketAddr,
    ports: Option<&RangeInclusive<u16>>,
) -> io::Result<()> {
    let Some(ports) = ports else { return socket.bind(&address.into()) };
    let (low, high) = (u32::from(*ports.start()), u32::from(*ports.end()));
    let count = (high + 1).saturating_sub(low).max(1);
    let start = (RandomState::new().hash_one(low) % u64::from(count)) as u32;
    let mut result = Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
    for attempt in 0..count.min(ATTEMPTS) {
        let offset = (start + attempt) % count;
        address.set_port(u16::try_from(low + offset).unwrap_or(*ports.end()));
        result = socket.bind(&address.into());
        if !matches!(&result, Err(error) if error.kind() == ErrorKind::AddrInUse) {
            break;
        }
    }
    result
}
