//! A lane between two streams in memory: what the data path costs without the system calls around it.

#![allow(
    missing_docs,
    clippy::indexing_slicing,
    reason = "made by criterion_group; a benchmark may panic"
)]

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use socks5d::reactor::buffer::{Buffer, Pool};
use socks5d::reactor::endpoint::{Endpoint, Stream};
use socks5d::reactor::lane::{Budget, Lane};
use socks5d::reactor::liveness::Liveness;
use socks5d::reactor::tcp_state::Acknowledgement;

/// Gives `left` bytes in pieces of `piece`, then would block; takes everything and keeps nothing.
struct Ttls {
    left: usize,
    piece: usize,
}

impl Read for Ttls {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let count = self.left.min(self.piece).min(space.len());
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        space[..count].fill(7);
        self.left -= count;
        Ok(count)
    }
}

impl Write for Ttls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Ttls {
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn set_nodelay(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn set_liveness(&mut self, _: Liveness) -> io::Result<()> {
        Ok(())
    }

    fn reset_on_close(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn unacknowledged(&self) -> io::Result<usize> {
        Ok(0)
    }

    fn acknowledgement(&self) -> io::Result<Acknowledgement> {
        Ok(Acknowledgement::Complete)
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Err(ErrorKind::Unsupported.into())
    }

    fn peer_address(&self) -> io::Result<SocketAddr> {
        Err(ErrorKind::Unsupported.into())
    }

    fn set_oob_inline(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn failure(&self) -> Option<io::Error> {
        None
    }
}

fn endpoint() -> Endpoint<Ttls> {
    let mut endpoint = Endpoint::new(Ttls { left: 0, piece: 0 });
    endpoint.raise(true, true);
    endpoint
}

/// One turn that moves so many bytes in pieces of so many, with the default buffer.
fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lane");
    for (name, bytes, piece) in [
        ("one message of 64 bytes", 64, 64),
        ("1 MiB in pieces of 1 KiB", 1 << 20, 1 << 10),
        ("1 MiB in pieces of 64 KiB", 1 << 20, 1 << 16),
    ] {
        let (mut from, mut to) = (endpoint(), endpoint());
        let (mut lane, mut pool) = (Lane::new(Buffer::default()), Pool::new(1 << 16, usize::MAX));
        let budget = Budget { bytes: u64::MAX, reads: u32::MAX, allowance: u64::MAX };
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut moved = 0;
                *from.stream_mut() = Ttls { left: bytes, piece };
                // A short read lowers the flag, and the kernel would send an event for what is left.
                while moved < bytes as u64 {
                    from.raise(true, true);
                    moved += lane.pump(&mut from, &mut to, &mut pool, budget, false).bytes;
                }
                moved
            });
        });
    }
    group.finish();
}

criterion_group!(benches, turns);
criterion_main!(benches);
