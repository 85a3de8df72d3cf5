//! One direction of a tunnel: from one endpoint, through a buffer, to the other.
//!
//! A lane reads only when its buffer is empty and the far side can be written. So a blocked lane holds no
//! more than one buffer, the kernel's own windows carry the back-pressure to the sender, and a changed
//! capacity acts from the next transfer on.

use std::io;

use super::buffer::{Buffer, Pool};
use super::endpoint::{Endpoint, Stop, Stream, Transfer};

/// How far a direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Bytes may still come.
    Open,
    /// EOF was read; what waits in the buffer is still to be delivered.
    Draining,
    /// EOF has been passed on. The direction is over.
    Shut,
}

/// What one turn may spend, so that a busy tunnel leaves time to the others.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Bytes delivered; the turn ends once there are as many.
    pub bytes: u64,
    /// Reads, however short: tiny buffers cost calls instead of bytes.
    pub reads: u32,
}

/// One direction of a tunnel.
pub struct Lane {
    buffer: Buffer,
    phase: Phase,
}

/// What a turn came to.
#[derive(Debug)]
pub struct Pumped {
    /// Bytes delivered to the far side.
    pub bytes: u64,
    /// Why the turn ended.
    pub end: End,
}

/// Why a turn of a lane ended.
#[derive(Debug)]
pub enum End {
    /// Neither reading nor writing is possible; an event will come.
    Blocked,
    /// The budget is spent; there may be more to do at once.
    Spent,
    /// The direction is over.
    Shut,
    /// The sender has failed, and all that it sent has been delivered.
    SourceFailed(io::Error),
    /// The receiver takes nothing more.
    SinkFailed(io::Error),
}

impl Lane {
    /// A direction whose first bytes have already been received.
    pub fn new(buffer: Buffer) -> Self {
        Lane { buffer, phase: Phase::Open }
    }

    /// How far the direction has come.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// How many bytes wait in the buffer.
    pub fn waiting(&self) -> usize {
        self.buffer.bytes().len()
    }

    /// Gives the direction up: drops what waits.
    pub fn abandon(&mut self, pool: &mut Pool) {
        self.buffer.release(pool);
        self.phase = Phase::Shut;
    }

    /// Moves bytes until it would block, the direction is over, or the budget is spent. `last` tells that
    /// the other direction is over: then closing passes EOF on, and needs no call before it.
    pub fn pump(
        &mut self,
        from: &mut Endpoint<impl Stream>,
        to: &mut Endpoint<impl Stream>,
        pool: &mut Pool,
        budget: Budget,
        last: bool,
    ) -> Pumped {
        let mut bytes = 0;
        let mut reads = 0;
        let end = loop {
            match to.flush(&mut self.buffer, pool, &mut bytes) {
                Ok(()) => {}
                Err(Stop::Blocked) => break End::Blocked,
                Err(Stop::Failed(error)) => break End::SinkFailed(error),
            }
            match self.phase {
                Phase::Open if bytes >= budget.bytes || reads >= budget.reads => break End::Spent,
                Phase::Open if !to.writable() => break End::Blocked,
                Phase::Open => reads += 1,
                Phase::Draining => {
                    if !last {
                        to.finish();
                    }
                    self.phase = Phase::Shut;
                    break End::Shut;
                }
                Phase::Shut => break End::Shut,
            }
            let capacity = pool.size();
            match from.fill(&mut self.buffer, pool, capacity) {
                Transfer::Moved(_) => {}
                Transfer::Blocked => break End::Blocked,
                Transfer::Ended => self.phase = Phase::Draining,
                Transfer::Failed(error) => break End::SourceFailed(error),
            }
        };
        Pumped { bytes, end }
    }
}

#[cfg(test)]
mod tests;
