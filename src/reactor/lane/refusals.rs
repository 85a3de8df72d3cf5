//! Lanes over real sockets whose splice(2) is refused: bytes and ends are those of the peers.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use socket2::SockRef;

use super::super::endpoint::Stream;
use super::super::liveness::Liveness;
use super::super::pipe::faults::{Call, clear, plan};
use super::super::tcp_state::Acknowledgement;
use super::*;

/// A real socket; an error may be planned for shutdown(2).
struct Real {
    socket: TcpStream,
    refuses_to_finish: Option<i32>,
    finishes: u32,
}

impl Read for Real {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        self.socket.read(space)
    }
}

impl Write for Real {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Real {
    fn finish(&mut self) -> io::Result<()> {
        self.finishes += 1;
        match self.refuses_to_finish {
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None => self.socket.shutdown(Shutdown::Write),
        }
    }

    fn set_nodelay(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn set_liveness(&mut self, _: Liveness) -> io::Result<()> {
        unreachable!("no business of a lane")
    }

    fn reset_on_close(&mut self) -> io::Result<()> {
        unreachable!("no business of a lane")
    }

    fn unacknowledged(&self) -> io::Result<usize> {
        unreachable!("no business of a lane")
    }

    fn acknowledgement(&self) -> io::Result<Acknowledgement> {
        unreachable!("no business of a lane")
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn peer_address(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }

    fn set_oob_inline(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn failure(&self) -> Option<io::Error> {
        unreachable!("no business of a lane")
    }
}

const CAPACITY: usize = 64 * 1024;
const PLENTY: Budget = Budget { bytes: u64::MAX, reads: u32::MAX, allowance: u64::MAX };

/// A peer on loopback, and the lane's end of the connection to it.
fn connection() -> (TcpStream, Endpoint<Real>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (socket, _) = listener.accept().expect("connected");
    socket.set_nonblocking(true).expect("a socket");
    (peer, Endpoint::new(Real { socket, refuses_to_finish: None, finishes: 0 }))
}

fn pool(now: Instant) -> Pool {
    let mut pool = Pool::new(CAPACITY, usize::MAX);
    pool.pipes.sweep(now, 4);
    pool
}

fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(|_| byte()).collect()
}

/// Moves `sent` and EOF through a lane whose every flag is up all the time, and returns what came out. The
/// reader takes up to `sip` bytes between two turns, and the clock advances by `step`.
fn transfer(sent: &[u8], pool: &mut Pool, sip: usize, step: Duration) -> Vec<u8> {
    let ((mut source, mut from), (mut sink, mut to)) = (connection(), connection());
    // Small windows: the sink blocks half-way, again and again.
    SockRef::from(&sink).set_recv_buffer_size(16 * 1024).expect("a socket");
    SockRef::from(&to.stream().socket).set_send_buffer_size(16 * 1024).expect("a socket");
    source.set_nonblocking(true).expect("a socket");
    sink.set_nonblocking(true).expect("a socket");
    let mut lane = Lane::new(Buffer::default());
    let (mut given, mut got, mut counted) = (0, Vec::new(), 0);
    let mut space = vec![0; sip];
    let mut now = Instant::now();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        while given < sent.len() {
            match source.write(&sent[given..]) {
                Ok(count) => given += count,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    break;
                }
            }
        }
        if given == sent.len() {
            // It may be called repeatedly.
            let _ = source.shutdown(Shutdown::Write);
        }
        from.raise(true, false);
        to.raise(false, true);
        now += step;
        pool.pipes.sweep(now, 4);
        let pumped = lane.pump(&mut from, &mut to, pool, PLENTY, false);
        counted += pumped.bytes;
        assert!(matches!(pumped.end, End::Blocked | End::Shut), "{:?}", pumped.end);
        assert!(lane.waiting() <= 256 * 1024 + CAPACITY, "{} bytes wait", lane.waiting());
        match sink.read(&mut space) {
            Ok(0) => break,
            Ok(count) => got.extend(&space[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(Instant::now() < deadline, "stalled after {} bytes", got.len());
    }
    assert_eq!(counted, sent.len() as u64);
    assert_eq!(lane.phase(), Phase::Shut);
    assert_eq!(pool.leased(), 0);
    got
}

#[test]
fn whatever_the_refusal_all_bytes_arrive_and_then_eof() {
    let sent = noise(3 << 20);
    for code in [
        libc::ENOSYS,
        libc::EPERM,
        libc::EINVAL,
        libc::ENOMEM,
        libc::EIO,
        libc::EINTR,
        // An error of the kind that peers cause, but not of this socket.
        libc::ECONNRESET,
        libc::EPIPE,
        libc::ETIMEDOUT,
    ] {
        // The calls alternate between filling and draining, more or less: both are hit.
        for calls in [0, 1, 2, 3, 10] {
            plan(Call::Splice, calls, code);
            let now = Instant::now();
            let mut pool = pool(now);
            let got = transfer(&sent, &mut pool, 50_000, Duration::ZERO);
            assert!(got == sent, "{code} after {calls} calls");
        }
    }
}

/// Two full reads in a row begin it, where buffers have 64 KiB or more; a piece of less than 16 KiB ends it.
#[test]
fn a_lane_streams_as_long_as_pieces_are_large() {
    for (capacity, pipes) in [(CAPACITY - 1, 0), (CAPACITY, 1)] {
        let ((mut source, mut from), (mut sink, mut to)) = (connection(), connection());
        SockRef::from(&from.stream().socket).set_recv_buffer_size(1 << 20).expect("a socket");
        let mut pool = Pool::new(capacity, usize::MAX);
        pool.pipes.sweep(Instant::now(), 4);
        let mut lane = Lane::new(Buffer::default());
        // Moves a piece that is there as a whole when it is read. Says whether the lane streams.
        let mut moves = |count: usize| {
            source.write_all(&noise(count)).expect("taken");
            let (mut space, deadline) = (vec![0; count], Instant::now() + Duration::from_secs(60));
            while from.stream().socket.peek(&mut space).ok() != Some(count) {
                assert!(Instant::now() < deadline, "{count} bytes do not arrive");
            }
            from.raise(true, false);
            let (mut moved, mut got) = (0, 0);
            sink.set_nonblocking(true).expect("a socket");
            while got < count {
                to.raise(false, true);
                moved += lane.pump(&mut from, &mut to, &mut pool, PLENTY, false).bytes;
                got += sink.read(&mut space).unwrap_or(0);
                assert!(Instant::now() < deadline, "stalled after {got} bytes");
            }
            assert_eq!(moved, count as u64);
            (lane.streaming(), pool.pipes.open())
        };
        assert_eq!(moves(capacity), (false, 0));
        assert_eq!(moves(capacity - 1), (false, 0));
        assert_eq!(moves(capacity), (false, 0));
        assert_eq!(moves(capacity), (true, pipes));
        let small = 16 * 1024;
        // Without a pipe each read that is not full ends it.
        assert_eq!(moves(small), (pipes > 0, pipes));
        assert_eq!(moves(small - 1), (false, pipes));
    }
}

#[test]
fn splicing_goes_on_once_a_shortage_is_over() {
    let now = Instant::now();
    let mut pool = pool(now);
    plan(Call::Splice, 2, libc::ENOMEM);
    let sent = noise(1 << 20);
    assert!(transfer(&sent, &mut pool, 50_000, Duration::ZERO) == sent);
    assert!(pool.pipes.lend().is_none(), "it pauses");
    pool.pipes.sweep(Instant::now() + Duration::from_secs(10), 4);
    assert!(pool.pipes.lend().is_some());
}

#[test]
fn bytes_that_cannot_be_had_out_of_a_pipe_do_not_end_in_eof() {
    // The second is of the kind that peers cause: still it is the pipe that has failed.
    for code in [libc::ENOSYS, libc::ECONNRESET] {
        let ((mut source, mut from), (mut sink, mut to)) = (connection(), connection());
        let mut pool = pool(Instant::now());
        let mut lane = Lane::new(Buffer::default());
        let sent = noise(1 << 20);
        source.set_nonblocking(true).expect("a socket");
        let mut given = 0;
        // Fill, then drain: refused, and the pipe cannot be read either.
        plan(Call::Splice, 1, code);
        plan(Call::Read, 0, libc::EIO);
        let mut space = vec![0; CAPACITY];
        sink.set_nonblocking(true).expect("a socket");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            given += source.write(&sent[given..]).unwrap_or(0);
            from.raise(true, false);
            to.raise(false, true);
            match lane.pump(&mut from, &mut to, &mut pool, PLENTY, false).end {
                End::SinkFailed(error) => break assert_eq!(error.raw_os_error(), Some(libc::EIO)),
                End::Blocked => {}
                other => panic!("{other:?}"),
            }
            let _ = sink.read(&mut space);
            assert!(Instant::now() < deadline, "stalled");
        }
        lane.abandon(&mut pool);
        assert_eq!((to.stream().finishes, pool.pipes.open()), (0, 0));
    }
}

/// The socket returns its error once. If splice(2) has taken it, a read says EOF, and a write EPIPE, as if the
/// peer had ended before.
#[test]
fn a_reset_stays_one_whichever_call_takes_it() {
    for reset_source in [true, false] {
        let ((mut source, mut from), (sink, mut to)) = (connection(), connection());
        let mut pool = pool(Instant::now());
        let mut lane = Lane::new(Buffer::default());
        source.write_all(&noise(2 * CAPACITY)).expect("taken");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !lane.streaming() {
            from.raise(true, true);
            to.raise(false, true);
            let pumped = lane.pump(&mut from, &mut to, &mut pool, PLENTY, false);
            assert!(matches!(pumped.end, End::Blocked), "{:?}", pumped.end);
            assert!(Instant::now() < deadline, "reads are not full");
            if from.stream().socket.peek(&mut [0]).is_err() {
                source.write_all(&noise(2 * CAPACITY)).expect("taken");
            }
        }
        // Until all of it has passed.
        while from.stream().socket.peek(&mut [0]).is_ok() || lane.waiting() > 0 {
            from.raise(true, true);
            to.raise(false, true);
            let _ = lane.pump(&mut from, &mut to, &mut pool, PLENTY, false);
            assert!(Instant::now() < deadline, "stalled");
        }
        let abort = |peer: TcpStream| {
            SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("a socket");
        };
        let failure = if reset_source {
            abort(source);
            from.raise(true, true);
            match lane.pump(&mut from, &mut to, &mut pool, PLENTY, false).end {
                End::SourceFailed(error) => error,
                other => panic!("{other:?}"),
            }
        } else {
            abort(sink);
            source.write_all(&noise(2 * CAPACITY)).expect("taken");
            loop {
                from.raise(true, true);
                to.raise(false, true);
                match lane.pump(&mut from, &mut to, &mut pool, PLENTY, false).end {
                    End::SinkFailed(error) => break error,
                    End::Blocked => assert!(Instant::now() < deadline, "nothing fails"),
                    other => panic!("{other:?}"),
                }
            }
        };
        assert_eq!(failure.kind(), ErrorKind::ConnectionReset, "source {reset_source}");
        lane.abandon(&mut pool);
        assert!(pool.pipes.lend().is_some(), "the peer's failure is no refusal");
    }
}

#[test]
fn eof_that_cannot_be_passed_on_is_a_failure_and_tried_again_where_that_may_help() {
    for (code, tries) in [(libc::ENOMEM, 4), (libc::ENOBUFS, 4), (libc::ENOSYS, 1)] {
        let ((source, mut from), (_sink, mut to)) = (connection(), connection());
        let mut pool = pool(Instant::now());
        let mut lane = Lane::new(Buffer::default());
        drop(source);
        to.stream_mut().refuses_to_finish = Some(code);
        let deadline = Instant::now() + Duration::from_secs(60);
        let end = loop {
            from.raise(true, true);
            to.raise(false, true);
            match lane.pump(&mut from, &mut to, &mut pool, PLENTY, false).end {
                End::Blocked => assert!(Instant::now() < deadline, "no EOF"),
                end => break end,
            }
        };
        assert!(matches!(end, End::SinkFailed(_)), "{end:?}");
        assert_eq!(to.stream().finishes, tries);
        // A peer that has gone needs no FIN.
        to.stream_mut().refuses_to_finish = Some(libc::ENOTCONN);
        let end = lane.pump(&mut from, &mut to, &mut pool, PLENTY, false).end;
        assert!(matches!(end, End::Shut), "{end:?}");
    }
}

proptest! {
    #![proptest_config(support::property::config(24))]

    /// Shortages come and go in mid-stream, wherever they hit.
    #[test]
    fn shortages_anywhere_lose_and_reorder_nothing(
        faults in prop::collection::vec((0u32..12, prop::sample::select(vec![
            libc::ENOMEM, libc::EINTR, libc::ENOBUFS, libc::ECONNRESET, libc::EAGAIN,
        ])), 1..12),
        sip in 1000usize..120_000,
    ) {
        for (calls, code) in faults {
            plan(Call::Splice, calls, code);
        }
        let sent = noise(2 << 20);
        let mut pool = pool(Instant::now());
        // Each pause is over with the next turn, and the next fault can hit.
        prop_assert!(transfer(&sent, &mut pool, sip, Duration::from_secs(11)) == sent);
        clear();
    }
}
