use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::*;
use crate::reactor::datagram::scratch::SLOT_BYTES;

/// The kernel's calls, of which some are refused.
#[derive(Default)]
struct Scripted {
    /// What each call of sendmmsg comes to; `None`, and when there is no more: what the kernel says.
    sends: VecDeque<Option<i32>>,
    /// What is refused of messages that join datagrams.
    joining: Option<i32>,
    receives: VecDeque<Option<i32>>,
    /// Calls so far.
    calls: usize,
}

impl Calls for Scripted {
    fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: &mut [libc::mmsghdr],
    ) -> io::Result<usize> {
        self.calls += 1;
        match self.receives.pop_front().flatten() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Kernel.receive(socket, messages),
        }
    }

    fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: &mut [libc::mmsghdr],
    ) -> io::Result<usize> {
        self.calls += 1;
        if let Some(errno) = self.sends.pop_front().flatten() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let Some(errno) = self.joining else { return Kernel.send(socket, messages) };
        // As the kernel does it: all before the first that fails, and the error when that is the first.
        match messages.iter().position(|message| message.msg_hdr.msg_controllen > 0) {
            Some(0) => Err(io::Error::from_raw_os_error(errno)),
            Some(first) => Kernel.send(socket, &mut messages[..first]),
            None => Kernel.send(socket, messages),
        }
    }
}

const READABLE: Readiness = Readiness {
    readable: true,
    writable: false,
    read_closed: false,
    write_closed: false,
    error: false,
    priority: false,
};

fn config(bind: SocketAddr) -> DatagramConfig {
    DatagramConfig { bind, ports: None, only_from: None }
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn scripted() -> UdpSocket<Scripted> {
    UdpSocket::with_calls(&config(loopback()), Scripted::default()).expect("loopback")
}

/// A socket of the standard library that waits, and not for ever.
fn peer() -> (StdSocket, SocketAddr) {
    let socket = StdSocket::bind(loopback()).expect("loopback");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    let address = socket.local_addr().expect("bound");
    (socket, address)
}

/// The length of the next datagram, and its first byte.
fn next(peer: &StdSocket) -> (usize, Option<u8>) {
    let mut bytes = vec![0; SLOT_BYTES];
    let count = peer.recv(&mut bytes).expect("a datagram");
    (count, bytes[..count].first().copied())
}

/// Puts payloads of these lengths into slot 0 and the outbox, each full of its number.
fn fill(scratch: &mut Scratch, header: Option<&[u8]>, to: &[(usize, SocketAddr)]) {
    let header = header.map(|header| scratch.add_header(header));
    let mut start = 0;
    for (number, (length, destination)) in to.iter().enumerate() {
        scratch.slot_mut(0)[start..start + length].fill(number as u8);
        scratch.push(header, 0, start..start + length, *destination);
        start += length;
    }
}

/// Waits until a socket has something, as an event would say it.
fn wait(socket: &impl AsFd) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut byte = [std::mem::MaybeUninit::uninit()];
    let socket = socket2::SockRef::from(socket);
    while matches!(socket.peek(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock) {
        assert!(Instant::now() < deadline, "nothing comes");
        std::thread::yield_now();
    }
}

fn errnos(scratch: &Scratch) -> Vec<i32> {
    scratch.failures().iter().map(|(_, errno)| *errno).collect()
}

#[test]
fn runs_are_sent_whole_and_in_order() {
    let (mut socket, mut scratch) = (scripted(), Scratch::default());
    let ((one, to_one), (two, to_two)) = (peer(), peer());
    // Equal lengths, a shorter one that ends a run, a longer one, another destination, empty ones.
    let lengths = [100, 100, 100, 60, 100, 100, 200, 0, 0, 1, 1];
    let plan: Vec<_> =
        lengths.map(|length| (length, to_one)).into_iter().chain([(100, to_two); 3]).collect();
    fill(&mut scratch, None, &plan);
    let sent = socket.send(&mut scratch);
    let payload: usize = plan.iter().map(|(length, _)| length).sum();
    assert_eq!(sent, Sent { datagrams: 14, payload: payload as u64 });
    assert_eq!(socket.calls.calls, 1);
    for (number, length) in lengths.into_iter().enumerate() {
        assert_eq!(next(&one), (length, (length > 0).then_some(number as u8)));
    }
    for number in 11..14 {
        assert_eq!(next(&two), (100, Some(number)));
    }
    assert!(scratch.failures().is_empty() && scratch.outgoing().next().is_none());
}

#[test]
fn each_datagram_of_a_run_has_its_header() {
    let (mut socket, mut scratch) = (scripted(), Scratch::default());
    let (one, to_one) = peer();
    fill(
        &mut scratch,
        Some(b"header"),
        &[(0, to_one), (0, to_one), (50, to_one), (50, to_one), (7, to_one)],
    );
    let sent = socket.send(&mut scratch);
    assert_eq!(sent, Sent { datagrams: 5, payload: 107 });
    for length in [0, 0, 50, 50, 7] {
        let mut bytes = [0; 100];
        let count = one.recv(&mut bytes).expect("a datagram");
        assert_eq!((&bytes[..6], count), (&b"header"[..], length + 6));
    }
}

/// The kernel or the device cannot cut: nothing is lost, nothing is doubled, and it is not tried again.
#[test]
fn without_joining_datagrams_are_sent_apart() {
    let of_length = [libc::EINVAL, libc::EMSGSIZE];
    for errno in [libc::EIO, libc::EOPNOTSUPP, libc::ENOPROTOOPT, libc::EINVAL, libc::EMSGSIZE] {
        let (mut socket, mut scratch) = (scripted(), Scratch::default());
        socket.calls.joining = Some(errno);
        let ((one, to_one), (two, to_two)) = (peer(), peer());
        let plan = [(80, to_two), (100, to_one), (100, to_one), (100, to_one), (70, to_two)];
        fill(&mut scratch, None, &plan);
        assert_eq!(socket.send(&mut scratch), Sent { datagrams: 5, payload: 450 });
        assert!(scratch.failures().is_empty());
        assert_eq!(
            [1, 2, 3].map(|number| (100, Some(number))),
            [next(&one), next(&one), next(&one)]
        );
        assert_eq!([next(&two), next(&two)], [(80, Some(0)), (70, Some(4))]);
        assert_eq!(socket.longest_joined, if of_length.contains(&errno) { 99 } else { 0 });
        // The next run is not joined any more, unless its datagrams are shorter and length was the trouble.
        let before = socket.calls.calls;
        fill(&mut scratch, None, &[(100, to_one); 3]);
        assert_eq!(socket.send(&mut scratch).datagrams, 3);
        assert_eq!(socket.calls.calls, before + 1);
    }
}

/// EINVAL for a destination has nothing to do with joining.
#[test]
fn a_bad_destination_does_not_end_joining() {
    let (mut socket, mut scratch) = (scripted(), Scratch::default());
    let (one, to_one) = peer();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    fill(&mut scratch, None, &[(100, nowhere), (100, nowhere), (100, to_one), (100, to_one)]);
    assert_eq!(socket.send(&mut scratch).datagrams, 2);
    assert_eq!(errnos(&scratch), [libc::EINVAL; 2]);
    assert_eq!(socket.longest_joined, LONGEST_PAYLOAD);
    assert_eq!([next(&one), next(&one)], [(100, Some(2)), (100, Some(3))]);
}

/// One that fails in the middle costs the others nothing.
#[test]
fn the_third_of_five_fails() {
    let (mut socket, mut scratch) = (scripted(), Scratch::default());
    let (one, to_one) = peer();
    let broadcast = SocketAddr::from(([255, 255, 255, 255], 9));
    fill(
        &mut scratch,
        None,
        &[(10, to_one), (20, to_one), (30, broadcast), (40, to_one), (50, to_one)],
    );
    assert_eq!(socket.send(&mut scratch).datagrams, 4);
    assert_eq!(errnos(&scratch), [libc::EACCES]);
    assert_eq!(scratch.failures()[0].0, broadcast);
    assert_eq!([10, 20, 40, 50], [next(&one).0, next(&one).0, next(&one).0, next(&one).0]);
}

/// The firewall says EPERM for each: all are dropped, and no call is repeated for ever.
#[test]
fn all_of_them_fail() {
    let (mut socket, mut scratch) = (scripted(), Scratch::default());
    socket.calls.sends = vec![Some(libc::EPERM); 3].into();
    let (_one, to_one) = peer();
    fill(&mut scratch, None, &[(1, to_one), (2, to_one), (3, to_one)]);
    assert_eq!(socket.send(&mut scratch), Sent::default());
    assert_eq!((errnos(&scratch), socket.calls.calls), (vec![libc::EPERM; 3], 3));
}

/// No room: the rest is dropped at once.
#[test]
fn a_full_buffer_drops_the_rest() {
    let (mut socket, mut scratch) = (scripted(), Scratch::default());
    socket.calls.sends = [None, Some(libc::EAGAIN)].into();
    let (one, to_one) = peer();
    let broadcast = SocketAddr::from(([255, 255, 255, 255], 9));
    // The first call stops before the third message.
    fill(&mut scratch, None, &[(1, to_one), (2, to_one), (3, broadcast), (4, to_one), (5, to_one)]);
    assert_eq!(socket.send(&mut scratch).datagrams, 2);
    assert_eq!((errnos(&scratch), socket.calls.calls), (vec![libc::EAGAIN; 3], 2));
    assert_eq!([next(&one).0, next(&one).0], [1, 2]);
}

/// ICMP about an earlier datagram takes the place of a sending once; interruptions as well.
#[test]
fn an_error_of_an_earlier_datagram_is_no_failure() {
    for errno in [
        libc::ECONNREFUSED,
        libc::EINTR,
        libc::EMSGSIZE,
        libc::ENOPROTOOPT,
        libc::EPROTO,
        libc::EACCES,
        libc::EHOSTUNREACH,
    ] {
        let (mut socket, mut scratch) = (scripted(), Scratch::default());
        socket.calls.sends = [Some(errno)].into();
        let (one, to_one) = peer();
        fill(&mut scratch, None, &[(5, to_one)]);
        assert_eq!(socket.send(&mut scratch).datagrams, 1);
        assert_eq!(next(&one).0, 5);
        // The same before a run: it stays joined.
        socket.calls.sends = [Some(errno)].into();
        fill(&mut scratch, None, &[(5, to_one); 3]);
        assert_eq!(socket.send(&mut scratch).datagrams, 3);
        assert_eq!([next(&one).0, next(&one).0, next(&one).0], [5; 3]);
        assert_eq!(socket.longest_joined, LONGEST_PAYLOAD);
        // Again and again, it is the datagram's own.
        socket.calls.sends = [Some(errno), Some(errno)].into();
        fill(&mut scratch, None, &[(5, to_one)]);
        assert_eq!((socket.send(&mut scratch).datagrams, errnos(&scratch)), (0, vec![errno]));
    }
}

#[test]
fn a_datagram_that_is_too_long_is_dropped_whole() {
    let (mut socket, mut scratch) = (scripted(), Scratch::default());
    let (one, to_one) = peer();
    let header = scratch.add_header(&[7; 10]);
    scratch.push(Some(header), 0, 0..65_498, to_one);
    scratch.push(Some(header), 0, 0..65_497, to_one);
    scratch.push(Some(header), 0, 0..0, to_one);
    assert_eq!(socket.send(&mut scratch).datagrams, 2);
    assert_eq!(errnos(&scratch), [libc::EMSGSIZE]);
    assert_eq!([next(&one).0, next(&one).0], [65_507, 10]);
}

#[test]
fn copies_are_sent_as_well() {
    let (mut socket, mut scratch) = (scripted(), Scratch::default());
    let (one, to_one) = peer();
    for payload in [&b"one"[..], b"two", b""] {
        scratch.push_copy(payload, to_one);
    }
    assert_eq!(socket.send(&mut scratch), Sent { datagrams: 3, payload: 6 });
    assert_eq!([next(&one), next(&one), next(&one)], [(3, Some(b'o')), (3, Some(b't')), (0, None)]);
}

/// A flag that is down needs an event; a batch that is not full lowers it, an error as the first result does not.
#[test]
fn readiness_follows_the_results() {
    let (mut socket, mut scratch) = (scripted(), Scratch::default());
    let (one, _) = peer();
    let to = socket.local_address().expect("bound");
    assert!(matches!(socket.receive(&mut scratch, MESSAGES), Received::Blocked));
    assert_eq!(socket.calls.calls, 0, "no event, no call");
    socket.on_event(READABLE);
    assert!(
        matches!(socket.receive(&mut scratch, MESSAGES), Received::Blocked) && !socket.readable()
    );

    socket.calls.receives = [Some(libc::ECONNREFUSED)].into();
    one.send_to(b"behind the error", to).expect("sent");
    wait(&socket.socket);
    socket.on_event(READABLE);
    assert!(
        matches!(socket.receive(&mut scratch, MESSAGES), Received::Failed(_)) && socket.readable()
    );
    assert!(
        matches!(socket.receive(&mut scratch, MESSAGES), Received::Messages) && !socket.readable()
    );
    assert_eq!(scratch.runs(), 1);

    // An error that does not go away: the next event is waited for.
    one.send_to(b"behind the errors", to).expect("sent");
    wait(&socket.socket);
    socket.on_event(READABLE);
    socket.calls.receives = vec![Some(libc::EPERM); 100].into();
    let mut calls = 0;
    while socket.readable() {
        assert!(matches!(socket.receive(&mut scratch, MESSAGES), Received::Failed(_)));
        calls += 1;
    }
    assert_eq!(calls, MOST_ERRORS);
    socket.calls.receives.clear();
    socket.on_event(READABLE);
    assert!(
        matches!(socket.receive(&mut scratch, MESSAGES), Received::Messages) && scratch.runs() == 1
    );

    // As many as were asked for: there may be more.
    for number in 0..=MESSAGES as u8 {
        one.send_to(&[number; 3][..usize::from(number % 3) + 1], to).expect("sent");
    }
    wait(&socket.socket);
    socket.on_event(READABLE);
    assert!(
        matches!(socket.receive(&mut scratch, MESSAGES), Received::Messages) && socket.readable()
    );
    assert_eq!(scratch.runs(), MESSAGES);
    assert!(
        matches!(socket.receive(&mut scratch, MESSAGES), Received::Messages) && !socket.readable()
    );
    assert_eq!((scratch.runs(), scratch.bytes(0, 0..1)), (1, &[MESSAGES as u8][..]));
}

/// What the kernel joins is taken apart again: sizes and contents as they were sent.
#[test]
fn joined_datagrams_are_taken_apart() {
    let (mut sender, mut scratch) = (scripted(), Scratch::default());
    let mut receiver = scripted();
    let to = receiver.local_address().expect("bound");
    let lengths = [1200, 1200, 1200, 1200, 700];
    fill(&mut scratch, None, &lengths.map(|length| (length, to)));
    assert_eq!(sender.send(&mut scratch).datagrams, 5);
    let mut got = Vec::new();
    while got.len() < lengths.len() {
        wait(&receiver.socket);
        receiver.on_event(READABLE);
        assert!(matches!(receiver.receive(&mut scratch, MESSAGES), Received::Messages));
        for slot in 0..scratch.runs() {
            let run = scratch.run(slot).expect("it is there");
            assert_eq!(run.source, sender.local_address().expect("bound"));
            assert_eq!(run.datagrams(), run.segments().count() as u64);
            got.extend(run.segments().map(|range| scratch.bytes(slot, range).to_vec()));
        }
    }
    let expected: Vec<Vec<u8>> =
        (0..).zip(lengths).map(|(number, length)| vec![number; length]).collect();
    assert!(got == expected, "{:?}", got.iter().map(Vec::len).collect::<Vec<_>>());
}

/// connect(2) to port 0 compares the address alone (udp(7) says nothing of it; Linux does so).
#[test]
fn the_kernel_filters_sources_by_address() {
    let v6 = StdSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    let families: &[(SocketAddr, Option<SocketAddr>)] =
        &[(loopback(), Some(([127, 0, 0, 9], 0).into())), ((Ipv6Addr::LOCALHOST, 0).into(), None)];
    for (own, stranger) in families.iter().filter(|(own, _)| own.is_ipv4() || v6) {
        let config =
            DatagramConfig { only_from: Some(SocketAddr::new(own.ip(), 4711)), ..config(*own) };
        let mut socket = UdpSocket::open(&config).expect("loopback");
        let to = socket.local_address().expect("bound");
        for stranger in stranger.iter() {
            StdSocket::bind(stranger).expect("loopback").send_to(b"stranger", to).expect("sent");
        }
        let (one, two) =
            (StdSocket::bind(own).expect("loopback"), StdSocket::bind(own).expect("loopback"));
        one.send_to(b"one", to).expect("sent");
        two.send_to(b"two", to).expect("sent");
        wait(&socket.socket);
        socket.on_event(READABLE);
        let mut scratch = Scratch::default();
        assert!(matches!(socket.receive(&mut scratch, MESSAGES), Received::Messages));
        let sources: Vec<SocketAddr> = (0..scratch.runs())
            .filter_map(|slot| scratch.run(slot))
            .map(|run| run.source)
            .collect();
        assert_eq!(sources, [one.local_addr().expect("bound"), two.local_addr().expect("bound")]);
        // It is connected, and sends to a port all the same.
        one.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        scratch.push_copy(b"answer", one.local_addr().expect("bound"));
        assert_eq!(socket.send(&mut scratch).datagrams, 1);
        assert_eq!(next(&one).0, 6);
    }
}

#[test]
fn a_port_of_a_range() {
    let taken = StdSocket::bind(loopback()).expect("loopback");
    let port = taken.local_addr().expect("bound").port();
    let config = DatagramConfig { ports: Some(port..=port), ..config(loopback()) };
    let error = UdpSocket::open(&config).err().expect("it is taken");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    drop(taken);
    let socket = UdpSocket::open(&config).expect("it is free");
    assert_eq!(socket.local_address().expect("bound").port(), port);
    for ports in [65_535..=65_535, 1024..=65_535] {
        let config = DatagramConfig { ports: Some(ports.clone()), ..config.clone() };
        let bound =
            UdpSocket::open(&config).expect("one of them is free").local_address().expect("bound");
        assert!(ports.contains(&bound.port()));
    }
}

#[test]
fn the_kernel_counts_its_drops() {
    let mut socket = scripted();
    let to = socket.local_address().expect("bound");
    let (one, _) = peer();
    assert_eq!(socket.kernel_drops(), 0);
    socket2::SockRef::from(&socket.socket).set_recv_buffer_size(4096).expect("a socket");
    for _ in 0..64 {
        one.send_to(&[0; 1000], to).expect("sent");
    }
    assert!(socket.kernel_drops() > 0);
    let _ = socket.source();
}
