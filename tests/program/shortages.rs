//! What this machine lacks for requests: reply 01 for each (RFC 1928 section 6), and one line for all, with cause and object.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use support::origin::Origin;
use support::proxy::{Builder, Proxy};
use support::seccomp::{self, Refusal};
use support::socks::connect_request;
use support::udp::{associate_request, socket};

const REQUESTS: usize = 20;
const ANYBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// CONNECT, UDP ASSOCIATE or BIND, refused with 01 each time.
fn refused(proxy: &Proxy, request: &[u8]) {
    for _ in 0..REQUESTS {
        proxy.client().say(request).refused(1);
    }
}

/// There is one warning, and it is this one. What came before a reply of METP has been said.
fn says_once(proxy: &Proxy, wanted: &str) {
    proxy.stderr.wait_for(|line| line.ends_with(wanted));
    let warnings = proxy.stderr.all();
    let warnings: Vec<&String> = warnings
        .iter()
        .filter(|line| line.contains(" WARN  cannot ") || line.contains(" no "))
        .collect();
    assert!(matches!(warnings[..], [line] if line.ends_with(wanted)), "{warnings:?}");
}

/// A proxy to which the call is refused with each of these errors, in turn, or none where the kernel has no filters.
fn refusing(call: libc::c_long, argument: Option<(u8, u32)>, errno: i32) -> Option<Proxy> {
    if !seccomp::available() {
        println!("skipped: seccomp filters cannot be had here");
        return None;
    }
    Some(Builder::default().refuses(&[Refusal { call, argument, errno }]).start())
}

#[test]
fn a_lack_of_ports_for_connections_is_one_line() {
    let echo = Origin::echo();
    let at = echo.address;
    for (errno, wanted) in [
        (libc::EADDRNOTAVAIL, "Cannot assign requested address (os error 99)"),
        (libc::EADDRINUSE, "Address already in use (os error 98)"),
    ] {
        let Some(proxy) = refusing(libc::SYS_connect, None, errno) else { return };
        refused(&proxy, &connect_request(at));
        let what = "WARN  no free local port or address for a connection to";
        says_once(&proxy, &format!("{what} {at}: {wanted}"));
    }
}

#[test]
fn a_lack_of_buffers_for_connections_is_one_line() {
    let echo = Origin::echo();
    let at = echo.address;
    for (errno, wanted) in [
        (libc::ENOBUFS, "No buffer space available (os error 105)"),
        (libc::ENOMEM, "Cannot allocate memory (os error 12)"),
    ] {
        let Some(proxy) = refusing(libc::SYS_connect, None, errno) else { return };
        refused(&proxy, &connect_request(at));
        says_once(&proxy, &format!("WARN  no resources for a connection to {at}: {wanted}"));
    }
}

/// socket(2) fails for want of descriptors: of the type that a connection needs, and of that of datagrams.
#[test]
fn a_lack_of_descriptors_is_one_line() {
    let echo = Origin::echo();
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let of_type = |kind: i32| Some((1, u32::try_from(kind | flags).expect("flags")));
    let cause = "Too many open files (os error 24)";
    let datagrams = of_type(libc::SOCK_DGRAM);
    let Some(proxy) = refusing(libc::SYS_socket, datagrams, libc::EMFILE) else { return };
    refused(&proxy, &associate_request(ANYBODY));
    says_once(&proxy, &format!("WARN  cannot open a socket for datagrams on 127.0.0.1: {cause}"));
    drop(proxy.tunnel(echo.address));
}

#[test]
fn ports_that_are_taken_are_named_with_their_setting() {
    let cause = "Address already in use (os error 98)";
    let udp = socket();
    let port = udp.local_addr().expect("bound").port();
    let proxy = Proxy::with(&["--udp-ports", &format!("{port}-{port}")]);
    refused(&proxy, &associate_request(ANYBODY));
    says_once(
        &proxy,
        &format!(
            "WARN  cannot open a socket for datagrams on 127.0.0.1 (udp-ports {port}-{port}): {cause}"
        ),
    );
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = taken.local_addr().expect("bound").port();
    let proxy = Proxy::with(&["--bind-ports", &format!("{port}-{port}")]);
    let bind = b"\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x00";
    refused(&proxy, bind);
    says_once(
        &proxy,
        &format!(
            "WARN  cannot listen for a connection from 127.0.0.1 (bind-ports {port}-{port}): {cause}"
        ),
    );
}
