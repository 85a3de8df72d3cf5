//! Lanes between scripted streams: every answer that a kernel can give, in every order.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use proptest::prelude::*;

use super::*;
use crate::reactor::liveness::Liveness;
use crate::reactor::tcp_state::Acknowledgement;

/// A stream that gives and takes what its script says, then would block.
#[derive(Default)]
struct Script {
    reads: VecDeque<io::Result<Vec<u8>>>,
    /// How many bytes each write may take.
    writes: VecDeque<io::Result<usize>>,
    written: Vec<u8>,
    finished: bool,
    keeps_urgent: u32,
}

impl Read for Script {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.reads.pop_front().unwrap_or(Err(ErrorKind::WouldBlock.into()))?;
        let count = bytes.len().min(space.len());
        space[..count].copy_from_slice(&bytes[..count]);
        if count < bytes.len() {
            self.reads.push_front(Ok(bytes.split_off(count)));
        }
        Ok(count)
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!self.finished, "written after the end");
        let room = self.writes.pop_front().unwrap_or(Err(ErrorKind::WouldBlock.into()))?;
        let count = bytes.len().min(room);
        self.written.extend(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Script {
    fn finish(&mut self) -> io::Result<()> {
        self.finished = true;
        Ok(())
    }

    fn set_nodelay(&mut self) -> io::Result<()> {
        unreachable!("no business of a lane")
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
        unreachable!("no business of a lane")
    }

    fn peer_address(&self) -> io::Result<SocketAddr> {
        unreachable!("no business of a lane")
    }

    fn set_oob_inline(&mut self) -> io::Result<()> {
        self.keeps_urgent += 1;
        Ok(())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn failure(&self) -> Option<io::Error> {
        unreachable!("no business of a lane")
    }
}

const PLENTY: Budget = Budget { bytes: u64::MAX, reads: u32::MAX, allowance: u64::MAX };

fn source<const N: usize>(reads: [io::Result<Vec<u8>>; N]) -> Endpoint<Script> {
    let mut endpoint = Endpoint::new(Script { reads: reads.into(), ..Script::default() });
    endpoint.raise(true, true);
    endpoint
}

fn sink<const N: usize>(writes: [io::Result<usize>; N]) -> Endpoint<Script> {
    let mut endpoint = Endpoint::new(Script { writes: writes.into(), ..Script::default() });
    endpoint.raise(true, true);
    endpoint
}

/// Gives turns while bytes move: each is preceded by the events that the kernel would send.
fn pump(
    lane: &mut Lane,
    from: &mut Endpoint<Script>,
    to: &mut Endpoint<Script>,
    pool: &mut Pool,
) -> Pumped {
    let mut bytes = 0;
    loop {
        let left = (from.stream().reads.len(), to.stream().writes.len());
        from.raise(left.0 > 0, false);
        to.raise(false, true);
        let pumped = lane.pump(from, to, pool, PLENTY, false);
        bytes += pumped.bytes;
        let moved = (from.stream().reads.len(), to.stream().writes.len()) != left;
        if !matches!(pumped.end, End::Blocked) || !moved {
            return Pumped { bytes, ..pumped };
        }
    }
}

fn data(bytes: &[u8]) -> io::Result<Vec<u8>> {
    Ok(bytes.to_vec())
}

fn lane() -> (Lane, Pool) {
    (Lane::new(Buffer::default()), Pool::new(4, usize::MAX))
}

/// No event comes between a full read and the next one, which would lose urgent data that it starts at.
#[test]
fn urgent_data_is_kept_from_the_first_full_read_on() {
    let (mut lane, mut pool) = lane();
    let script = Script { reads: [data(b"abc")].into(), ..Script::default() };
    let mut from = Endpoint::with_lazy_nodelay(script);
    let mut to = sink([Ok(9), Ok(9), Ok(9)]);
    pump(&mut lane, &mut from, &mut to, &mut pool);
    assert_eq!(from.stream().keeps_urgent, 0, "an event comes first");
    from.stream_mut().reads.extend([data(b"abcd"), data(b"efgh")]);
    pump(&mut lane, &mut from, &mut to, &mut pool);
    assert_eq!(from.stream().keeps_urgent, 1, "told once");
    assert_eq!(to.stream().written, b"abcabcdefgh");
}

#[test]
fn bytes_pass_in_order_and_eof_follows_them() {
    let (mut lane, mut pool) = lane();
    let mut from = source([data(b"abcdef"), data(b"g"), data(b"")]);
    let mut to = sink([Ok(3), Ok(9), Ok(9), Ok(9)]);
    let pumped = pump(&mut lane, &mut from, &mut to, &mut pool);
    assert!(matches!(pumped, Pumped { bytes: 7, end: End::Shut, .. }), "{pumped:?}");
    assert_eq!(to.stream().written, b"abcdefg");
    assert!(to.stream().finished);
    assert_eq!(lane.phase(), Phase::Shut);
}

#[test]
fn eof_waits_for_the_bytes_before_it() {
    let (mut lane, mut pool) = lane();
    let mut from = source([data(b"ab"), data(b"")]);
    let mut to = sink([Ok(1)]);
    let pumped = pump(&mut lane, &mut from, &mut to, &mut pool);
    assert!(matches!(pumped, Pumped { bytes: 1, end: End::Blocked, .. }), "{pumped:?}");
    assert_eq!((lane.waiting(), lane.phase()), (1, Phase::Open));
    assert!(!to.stream().finished);
    to.stream_mut().writes.push_back(Ok(1));
    to.raise(false, true);
    let pumped = pump(&mut lane, &mut from, &mut to, &mut pool);
    assert!(matches!(pumped, Pumped { bytes: 1, end: End::Shut, .. }), "{pumped:?}");
    assert!(to.stream().finished);
}

#[test]
fn nothing_is_read_while_the_far_side_cannot_be_written() {
    let (mut lane, mut pool) = lane();
    let mut from = source([data(b"abcd"), data(b"ef")]);
    let mut to = sink([]);
    for _ in 0..3 {
        let pumped = pump(&mut lane, &mut from, &mut to, &mut pool);
        assert!(matches!(pumped, Pumped { bytes: 0, end: End::Blocked, .. }), "{pumped:?}");
    }
    assert_eq!(lane.waiting(), 4);
    assert_eq!(from.stream().reads.len(), 1);
}

/// Such bytes would wait in a buffer for as long as the far side takes nothing.
#[test]
fn nothing_is_read_before_the_far_side_is_known_to_be_writable() {
    let (mut lane, mut pool) = lane();
    let mut from = source([data(b"abcd")]);
    let mut to = Endpoint::new(Script { writes: [Ok(4)].into(), ..Script::default() });
    let pumped = lane.pump(&mut from, &mut to, &mut pool, PLENTY, false);
    assert!(matches!(pumped, Pumped { bytes: 0, end: End::Blocked, .. }), "{pumped:?}");
    assert_eq!((lane.waiting(), pool.leased(), from.stream().reads.len()), (0, 0, 1));
    to.raise(false, true);
    let pumped = lane.pump(&mut from, &mut to, &mut pool, PLENTY, false);
    assert!(matches!(pumped, Pumped { bytes: 4, end: End::Blocked, .. }), "{pumped:?}");
}

#[test]
fn short_reads_and_writes_wait_for_the_next_event() {
    let (mut lane, mut pool) = lane();
    let mut from = source([data(b"ab"), data(b"cd")]);
    let mut to = sink([Ok(2), Ok(2)]);
    let pumped = lane.pump(&mut from, &mut to, &mut pool, PLENTY, false);
    assert!(matches!(pumped, Pumped { bytes: 2, end: End::Blocked, .. }), "{pumped:?}");
    assert_eq!((from.readable(), to.writable(), from.stream().reads.len()), (false, true, 1));

    let mut from = source([data(b"abcd")]);
    let mut to = sink([Ok(1), Ok(3)]);
    let pumped = lane.pump(&mut from, &mut to, &mut pool, PLENTY, false);
    assert!(matches!(pumped, Pumped { bytes: 1, end: End::Blocked, .. }), "{pumped:?}");
    assert_eq!((from.readable(), to.writable(), to.stream().writes.len()), (true, false, 1));
}

#[test]
fn the_last_lane_leaves_eof_to_close() {
    let (mut lane, mut pool) = lane();
    let mut from = source([data(b"")]);
    let mut to = sink([]);
    let pumped = lane.pump(&mut from, &mut to, &mut pool, PLENTY, true);
    assert!(matches!(pumped.end, End::Shut), "{pumped:?}");
    assert!(!to.stream().finished);
}

#[test]
fn a_spent_budget_ends_the_turn_with_the_flags_up() {
    let (mut lane, mut pool) = lane();
    let mut from = source([data(&[7; 40])]);
    let mut to = sink([Ok(4), Ok(4), Ok(4), Ok(4), Ok(4)]);
    let pumped = lane.pump(
        &mut from,
        &mut to,
        &mut pool,
        Budget { bytes: 8, reads: 99, allowance: u64::MAX },
        false,
    );
    assert!(matches!(pumped, Pumped { bytes: 8, end: End::Spent, .. }), "{pumped:?}");
    let pumped = lane.pump(
        &mut from,
        &mut to,
        &mut pool,
        Budget { bytes: 99, reads: 1, allowance: u64::MAX },
        false,
    );
    assert!(matches!(pumped, Pumped { bytes: 4, end: End::Spent, .. }), "{pumped:?}");
    assert!(from.readable() && to.writable());
}

#[test]
fn a_failed_source_is_reported_after_its_bytes() {
    let (mut lane, mut pool) = lane();
    let mut from = source([data(b"ab"), Err(ErrorKind::ConnectionReset.into())]);
    let mut to = sink([Ok(9)]);
    let pumped = pump(&mut lane, &mut from, &mut to, &mut pool);
    assert!(matches!(pumped, Pumped { bytes: 2, end: End::SourceFailed(_), .. }), "{pumped:?}");
    assert_eq!(to.stream().written, b"ab");
    assert!(!to.stream().finished, "a failure must not look like EOF");
}

#[test]
fn a_failed_sink_is_reported_with_what_it_took() {
    let (mut lane, mut pool) = lane();
    let mut from = source([data(b"abcd")]);
    let mut to = sink([Ok(1), Err(ErrorKind::BrokenPipe.into())]);
    let pumped = pump(&mut lane, &mut from, &mut to, &mut pool);
    assert!(matches!(pumped, Pumped { bytes: 1, end: End::SinkFailed(_), .. }), "{pumped:?}");
    lane.abandon(&mut pool);
    assert_eq!((lane.waiting(), lane.phase()), (0, Phase::Shut));
}

#[test]
fn interrupted_calls_are_repeated() {
    let (mut lane, mut pool) = lane();
    let mut from = source([Err(ErrorKind::Interrupted.into()), data(b"ab"), data(b"")]);
    let mut to = sink([Err(ErrorKind::Interrupted.into()), Ok(2)]);
    let pumped = pump(&mut lane, &mut from, &mut to, &mut pool);
    assert!(matches!(pumped, Pumped { bytes: 2, end: End::Shut, .. }), "{pumped:?}");
}

proptest! {
    #![proptest_config(support::property::config(256))]

    /// However reads and writes are cut, and however the capacity changes in mid-flight, the bytes
    /// arrive whole and in order, and are counted exactly.
    #[test]
    fn whatever_the_cuts_all_bytes_arrive(
        reads in prop::collection::vec(prop::option::of(1usize..20), 1..40),
        rooms in prop::collection::vec((prop::option::of(1usize..20), 1usize..24), 0..80),
    ) {
        let (mut lane, mut pool) = lane();
        let mut script = Script::default();
        let (mut sent, mut next) = (Vec::new(), 0u8);
        for read in reads {
            script.reads.push_back(match read {
                Some(count) => {
                    let bytes: Vec<u8> = (0..count).map(|i| next.wrapping_add(i as u8)).collect();
                    next = next.wrapping_add(count as u8);
                    sent.extend(&bytes);
                    Ok(bytes)
                }
                None => Err(ErrorKind::WouldBlock.into()),
            });
        }
        script.reads.push_back(data(b""));
        let (mut from, mut to) = (Endpoint::new(script), sink([]));
        let (mut counted, mut rooms) = (0, rooms.into_iter().chain((0..).map(|_| (Some(7), 3))));
        let mut turns = 0;
        while lane.phase() != Phase::Shut {
            let (room, capacity) = rooms.next().expect("endless");
            pool.resize(capacity);
            to.stream_mut().writes.push_back(room.ok_or(ErrorKind::WouldBlock.into()));
            from.raise(true, false);
            to.raise(false, true);
            let budget = Budget { bytes: 30, reads: 5, allowance: u64::MAX };
            counted += lane.pump(&mut from, &mut to, &mut pool, budget, false).bytes;
            turns += 1;
            prop_assert!(turns < 10_000, "stalled");
        }
        prop_assert_eq!(&to.stream().written, &sent);
        prop_assert_eq!(counted, sent.len() as u64);
    }
}
