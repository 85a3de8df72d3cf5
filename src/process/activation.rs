//! Listening sockets that a service manager has opened and handed over: sd_listen_fds(3), without libsystemd.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::ffi::{OsStr, OsString};
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use metp_protocol::text::Escaped;
use socket2::{Domain, Protocol, Socket, Type};

use crate::state::service::{PerService, Service};

/// The first descriptor that is handed over.
const FIRST: RawFd = 3;
/// More than this are none of ours.
const MOST: RawFd = 64;

/// The variables that say what is handed over.
#[derive(Debug, Default)]
pub struct Variables {
    /// `LISTEN_FDS`: how many.
    pub count: Option<OsString>,
    /// `LISTEN_PID`: for which process.
    pub process: Option<OsString>,
    /// `LISTEN_FDNAMES`: what they are for, with colons between them.
    pub names: Option<OsString>,
}

/// The sockets that are handed over, by service. To be called once, before a descriptor is opened.
///
/// # Errors
/// One line: a name is unknown or comes twice, or what has it is no listening TCP socket.
pub fn sockets(variables: &Variables) -> Result<PerService<Option<TcpListener>>, String> {
    let mut found = PerService::<Option<TcpListener>>::default();
    let number = |text: &Option<OsString>| text.as_deref()?.to_str()?.parse::<u32>().ok();
    if variables.count.is_none() || number(&variables.process) != Some(std::process::id()) {
        // They are for another process, which has left its environment to this one.
        return Ok(found);
    }
    let count = number(&variables.count).and_then(|count| RawFd::try_from(count).ok());
    let Some(count) = count.filter(|count| (0..=MOST).contains(count)) else {
        return Err(format!("LISTEN_FDS: 0 to {MOST} expected"));
    };
    let names = variables.names.as_deref().map(OsStr::as_bytes).unwrap_or_default();
    let mut names = names.split(|byte| *byte == b':');
    for descriptor in (FIRST..).take(usize::try_from(count).unwrap_or_default()) {
        let name = names.next().unwrap_or_default();
        let is_named = |service: &Service| service.to_string().as_bytes() == name;
        let Some(service) = Service::ALL.into_iter().find(is_named) else {
            let name = Escaped(name);
            return Err(format!("LISTEN_FDNAMES: \"{name}\": socks, metp or http expected"));
        };
        let wrong = || format!("LISTEN_FDNAMES: {service}: a listening TCP socket expected");
        let socket = take(descriptor).filter(is_listening).ok_or_else(wrong)?;
        let slot = found.of_mut(service);
        if slot.is_some() {
            return Err(format!("LISTEN_FDNAMES: {service} comes twice: one socket expected"));
        }
        *slot = Some(socket.into());
    }
    let addresses = found.values().flatten().map(TcpListener::local_addr);
    let mut seen = Vec::new();
    for address in addresses.flatten() {
        if seen.contains(&address) {
            return Err(format!("LISTEN_FDS: {address} is handed over twice"));
        }
        seen.push(address);
    }
    Ok(found)
}

/// Takes a descriptor that is open, for this process alone.
fn take(descriptor: RawFd) -> Option<Socket> {
    // SAFETY: F_GETFD takes a number, touches no memory, and fails for what is not open.
    if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } == -1 {
        return None;
    }
    // SAFETY: it is open, has been handed over to this process, and is taken once: nothing here has opened it.
    let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    socket.set_cloexec(true).ok()?;
    Some(socket)
}

/// Whether it is a TCP socket that listens. It may be no socket at all.
pub fn is_listening(socket: &Socket) -> bool {
    let is_tcp = socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
        && socket.protocol().is_ok_and(|protocol| protocol == Some(Protocol::TCP));
    let is_ip = socket.domain().is_ok_and(|domain| [Domain::IPV4, Domain::IPV6].contains(&domain));
    is_tcp && is_ip && socket.is_listener().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(count: &str, process: &str) -> Result<usize, String> {
        let variables = Variables {
            count: Some(count.into()),
            process: Some(process.into()),
            names: Some("web".into()),
        };
        sockets(&variables).map(|found| found.values().flatten().count())
    }

    /// With another process's number nothing is looked at.
    #[test]
    fn what_is_for_another_process_is_left_alone() {
        assert_eq!(told("1", "1"), Ok(0));
        assert_eq!(told("1", "nobody"), Ok(0));
        assert_eq!(sockets(&Variables::default()).map(|_| ()), Ok(()));
    }

    #[test]
    fn a_count_is_a_number() {
        let own = std::process::id().to_string();
        assert_eq!(told("0", &own), Ok(0));
        for wrong in ["-1", "65", "x", "", "99999999999"] {
            assert_eq!(told(wrong, &own), Err("LISTEN_FDS: 0 to 64 expected".to_owned()));
        }
        let unknown = "LISTEN_FDNAMES: \"web\": socks, metp or http expected";
        assert_eq!(told("1", &own), Err(unknown.to_owned()));
    }

    #[test]
    fn only_tcp_sockets_that_listen_will_do() {
        let listening = TcpListener::bind("127.0.0.1:0").expect("loopback");
        assert!(is_listening(&Socket::from(listening)));
        for (domain, kind) in [
            (Domain::IPV4, Type::STREAM),
            (Domain::IPV4, Type::DGRAM),
            (Domain::UNIX, Type::STREAM),
        ] {
            assert!(!is_listening(&Socket::new(domain, kind, None).expect("a socket")));
        }
        let unix = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        unix.bind(&socket2::SockAddr::unix(path).expect("short")).expect("free");
        unix.listen(1).expect("a socket");
        assert!(!is_listening(&unix));
        let file = std::fs::File::open("/dev/null").expect("Linux");
        assert!(!is_listening(&Socket::from(OwnedFd::from(file))));
    }
}
