//! A kernel that refuses system calls which are optimisations, as under a seccomp policy or gVisor: transfers
//! are whole all the same, and end as their peers end them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;

use socks5d::reactor::tcp_state::unacknowledged;
use support::origin::{Origin, closed_port};
use support::proxy::{Builder, Proxy};
use support::seccomp::{self, Refusal};
use support::socks::{connect_request, half_close, reset};
use support::udp::Association;
use support::{eventually, noise, read_exactly, read_to_end};

const MIB: usize = 1 << 20;

/// A tunnel, both of its ends.
fn both_ends(proxy: &Proxy) -> (TcpStream, TcpStream) {
    let (sender, receiver) = mpsc::channel();
    let origin = Origin::new(move |stream| drop(sender.send(stream)));
    let client = proxy.tunnel(origin.address);
    (client, receiver.recv_timeout(support::PATIENCE).expect("connected"))
}

/// A proxy to which these calls are refused, or none where the kernel has no filters.
fn start(refusals: &[Refusal]) -> Option<Proxy> {
    if !seccomp::available() {
        println!("skipped: seccomp filters cannot be had here");
        return None;
    }
    Some(Builder::default().refuses(refusals).start())
}

/// Sends 64 MiB and EOF one way while nothing comes the other way, compares each byte, then answers.
fn whole(mut sender: TcpStream, mut reader: TcpStream, what: &str) {
    // The length of the pattern is odd: a piece that is lost or doubled shows.
    let pattern = noise(MIB + 7, 21);
    let sent = pattern.clone();
    let writing = thread::spawn(move || {
        for piece in std::iter::repeat_n(&sent, 64) {
            sender.write_all(piece).expect("taken");
        }
        half_close(&sender);
        sender
    });
    for piece in 0..64 {
        assert!(read_exactly(&mut reader, pattern.len()) == pattern, "{what}: MiB {piece}");
    }
    assert_eq!(read_to_end(&mut reader), b"", "{what}");
    let mut sender = writing.join().expect("sent");
    reader.write_all(b"got it").expect("the other way is open");
    drop(reader);
    assert_eq!(read_to_end(&mut sender), b"got it", "{what}");
}

fn both_ways(proxy: &Proxy, what: &str) {
    let (client, server) = both_ends(proxy);
    whole(client, server, &format!("{what}, up"));
    let (client, server) = both_ends(proxy);
    whole(server, client, &format!("{what}, down"));
    assert_eq!(proxy.metrics()[2] as usize, 2 * (64 * (MIB + 7) + 6), "{what}");
    proxy.wait_until_idle();
}

#[test]
fn without_splice_transfers_are_whole() {
    for errno in [libc::ENOSYS, libc::EPERM, libc::EINVAL, libc::ENOMEM] {
        let refusal = Refusal { call: libc::SYS_splice, argument: None, errno };
        let Some(proxy) = start(&[refusal]) else { return };
        both_ways(&proxy, &format!("splice: {}", std::io::Error::from_raw_os_error(errno)));
    }
}

#[test]
fn without_large_pipes_transfers_are_whole() {
    for command in [libc::F_SETPIPE_SZ, libc::F_GETPIPE_SZ] {
        let argument = Some((1, u32::try_from(command).expect("small")));
        let refusal = Refusal { call: libc::SYS_fcntl, argument, errno: libc::EPERM };
        let Some(proxy) = start(&[refusal]) else { return };
        both_ways(&proxy, &format!("fcntl {command}"));
    }
}

/// What breaks while bytes are copied breaks for both peers, behind what had come, and nothing is left behind.
#[test]
fn without_splice_a_reset_is_passed_on() {
    let refusal = Refusal { call: libc::SYS_splice, argument: None, errno: libc::ENOSYS };
    a_reset_is_passed_on(&[refusal]);
}

/// A bad end looks bad also where SO_LINGER, which makes it so, is refused.
#[test]
fn without_so_linger_a_reset_is_passed_on() {
    let argument = Some((2, u32::try_from(libc::SO_LINGER).expect("small")));
    let refusal = Refusal { call: libc::SYS_setsockopt, argument, errno: libc::EPERM };
    a_reset_is_passed_on(&[refusal]);
}

fn a_reset_is_passed_on(refusals: &[Refusal]) {
    let Some(proxy) = start(refusals) else { return };
    let sockets = proxy.sockets();
    for upload in [false, true] {
        let (client, server) = both_ends(&proxy);
        let (mut sender, mut reader) = if upload { (client, server) } else { (server, client) };
        let sent = noise(4 * MIB, 5);
        let expected = sent.clone();
        let (finished, finish) = mpsc::channel();
        let writing = thread::spawn(move || {
            sender.write_all(&sent).expect("taken");
            finish.recv().expect("a word");
            reset(sender);
        });
        assert!(read_exactly(&mut reader, expected.len()) == expected, "upload {upload}");
        finished.send(()).expect("it waits");
        let end = reader.read(&mut [0]).expect_err("a reset and no EOF");
        assert_eq!(end.kind(), ErrorKind::ConnectionReset, "upload {upload}");
        writing.join().expect("sent");
        drop(reader);
        eventually("the tunnel is gone", || proxy.sockets() == sockets);
    }
}

/// Where the kernel does not tell what is under way, the reset waits for its deadline, and not for nothing.
#[test]
fn without_siocoutq_a_reset_comes_behind_the_bytes() {
    let argument = Some((1, u32::try_from(libc::TIOCOUTQ).expect("small")));
    for errno in [libc::ENOSYS, libc::EPERM] {
        let refusal = Refusal { call: libc::SYS_ioctl, argument, errno };
        if !seccomp::available() {
            println!("skipped: seccomp filters cannot be had here");
            return;
        }
        let patience = ["--linger-timeout", "600"];
        let proxy = Builder::default().args(patience).refuses(&[refusal]).start();
        let (client, server) = both_ends(&proxy);
        let (mut sender, mut reader) = (server, client);
        let sent = noise(3 * MIB, 6);
        let expected = sent.clone();
        let sending = thread::spawn(move || {
            sender.write_all(&sent).expect("taken");
            // What this kernel holds is lost with the reset: that is not the proxy's doing.
            let queued = || unacknowledged(sender.as_fd()).expect("a socket");
            eventually("all is acknowledged", || queued() == 0);
            reset(sender);
        });
        // Slowly, until the tunnel is over: then the rest is under way.
        let over = || proxy.stdout.all().iter().any(|line| line.ends_with("\ttarget-reset"));
        let mut got = Vec::new();
        eventually("the tunnel is over, or all has come", || {
            let more = (expected.len() - got.len()).min(20_000);
            got.extend(read_exactly(&mut reader, more));
            over() || got.len() == expected.len()
        });
        got.extend(read_exactly(&mut reader, expected.len() - got.len()));
        assert!(got == expected, "{errno}");
        sending.join().expect("sent");
    }
}

/// EOF that cannot be passed on: who waits for it is told that something is wrong, and not left to wait.
#[test]
fn without_shutdown_a_half_close_ends_the_tunnel_badly() {
    for errno in [libc::ENOSYS, libc::ENOBUFS] {
        let refusal = Refusal { call: libc::SYS_shutdown, argument: None, errno };
        let Some(proxy) = start(&[refusal]) else { return };
        for upload in [false, true] {
            let (client, server) = both_ends(&proxy);
            let (mut sender, mut reader) = if upload { (client, server) } else { (server, client) };
            sender.write_all(b"all that there is").expect("taken");
            half_close(&sender);
            assert_eq!(read_exactly(&mut reader, 17), b"all that there is");
            let end = reader.read(&mut [0]).expect_err("a reset");
            assert_eq!(end.kind(), ErrorKind::ConnectionReset, "{errno}, upload {upload}");
        }
        proxy.wait_until_idle();
    }
}

/// RFC 1928 section 6: the reply tells what happened to the target, not that SO_ERROR cannot be asked for.
#[test]
fn without_so_error_a_refused_connection_is_one() {
    let argument = Some((2, u32::try_from(libc::SO_ERROR).expect("small")));
    for errno in [libc::ENOSYS, libc::EPERM, libc::ENOMEM] {
        let refusal = Refusal { call: libc::SYS_getsockopt, argument, errno };
        let Some(proxy) = start(&[refusal]) else { return };
        let (_reserved, nobody) = closed_port();
        proxy.client().say(&connect_request(nobody)).refused(5);
    }
}

/// Options of sockets that join datagrams, and that make their buffers larger: without them datagrams are relayed all
/// the same.
#[test]
fn without_options_of_udp_datagrams_are_whole() {
    for errno in [libc::ENOPROTOOPT, libc::EPERM] {
        let refusals = [libc::UDP_GRO, libc::SO_RCVBUF, libc::SO_RCVBUFFORCE].map(|name| {
            let name = u32::try_from(name).expect("small");
            Refusal { call: libc::SYS_setsockopt, argument: Some((2, name)), errno }
        });
        let Some(proxy) = start(&refusals) else { return };
        let target = support::udp::socket();
        let association = Association::open(&proxy);
        for length in [0, 1, 1200, 9000, 65_497] {
            association.exchanges(&target, &noise(length, 5));
        }
    }
}

/// A machine without IPv6 (EAFNOSUPPORT): a datagram to an IPv6 target is dropped and those to IPv4 targets go on; a
/// CONNECT is refused with 03, network unreachable.
#[test]
fn without_ipv6_the_other_family_is_served() {
    let domain = u32::try_from(libc::AF_INET6).expect("small");
    let refusal =
        Refusal { call: libc::SYS_socket, argument: Some((0, domain)), errno: libc::EAFNOSUPPORT };
    let Some(proxy) = start(&[refusal]) else { return };
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 53));
    proxy.client().say(&connect_request(v6)).refused(3);

    let target = support::udp::socket();
    let association = Association::open(&proxy);
    association.exchanges(&target, b"before");
    for _ in 0..3 {
        association.send(v6, b"nowhere");
    }
    association.exchanges(&target, b"after");
    assert_eq!(proxy.admin().figure("UDP_DROPPED_ERROR"), 3);
}
