//! One direction of a tunnel: from one endpoint, through a buffer, to the other.
//!
//! A lane reads only when its buffer is empty and the far side can be written. So a blocked lane holds no
//! more than one buffer, the kernel's own windows carry the back-pressure to the sender, and a changed
//! capacity applies from the next transfer on.
//!
//! A lane whose reads come back full is streaming: it moves its bytes through a pipe with splice(2) as long
//! as large pieces come, and copies again when they do not, no pipe can be had, or the call is refused: what
//! a pipe holds then is read out of it. Which of the two holds the bytes is not visible outside this file.

use std::io::{self, ErrorKind};

use super::buffer::{Buffer, Pool};
use super::endpoint::{Endpoint, FlushError, Stream, Transfer};
use super::errno::{self, retry_eintr};
use super::pipe::Pipe;

/// The life of one direction: `Open`, then `Draining`, then `Shut`.
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
    /// Bytes that may be read: no more is taken from the sender.
    pub allowance: u64,
}

/// From this buffer size on lanes may stream; with a smaller one the administrator wants small pieces.
const STREAMING_BUFFER_BYTES: usize = 64 * 1024;
/// Full reads in a row after which a lane streams.
const FULL_READS: u8 = 2;
/// A piece smaller than this, in bytes, ends streaming.
const SMALL_PIECE_BYTES: usize = 16 * 1024;

/// One direction of a tunnel. Where both hold bytes, those in the buffer are the older ones: they have been
/// read out of the pipe.
pub struct Lane {
    buffer: Buffer,
    /// Lent while it holds bytes.
    pipe: Option<Box<Pipe>>,
    /// Full reads in a row; from [`FULL_READS`] on the lane streams.
    full_reads: u8,
    phase: Phase,
}

/// What a turn came to.
#[derive(Debug)]
pub struct Pumped {
    /// Bytes delivered to the far side.
    pub bytes: u64,
    /// Bytes read from the sender.
    pub read: u64,
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
    /// The allowance is used up, and there may be more to read.
    Starved,
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
        Lane { buffer, pipe: None, full_reads: 0, phase: Phase::Open }
    }

    /// The phase of the direction.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the lane streams: its last `FULL_READS` reads were full.
    pub fn streaming(&self) -> bool {
        self.full_reads >= FULL_READS
    }

    /// Bytes that have been read and not delivered.
    pub fn waiting(&self) -> usize {
        self.buffer.bytes().len() + self.pipe.as_ref().map_or(0, |pipe| pipe.held())
    }

    /// Gives the direction up and drops the bytes that wait.
    pub fn abandon(&mut self, pool: &mut Pool) {
        self.buffer.release(pool);
        self.give_back_pipe(pool);
        self.phase = Phase::Shut;
    }

    /// Moves bytes until it would block, the direction is over, or the budget is spent. `last`: the other
    /// direction is already shut, so the close(2) that follows sends the FIN, and shutdown(2) is skipped.
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
        let mut read = 0;
        let end = loop {
            match self.flush(to, pool, &mut bytes) {
                Ok(()) => {}
                Err(FlushError::Blocked) => break End::Blocked,
                Err(FlushError::Failed(error)) => break End::SinkFailed(error),
            }
            match self.phase {
                Phase::Open if bytes >= budget.bytes || reads >= budget.reads => break End::Spent,
                Phase::Open if !to.writable() => break End::Blocked,
                Phase::Open => reads += 1,
                Phase::Draining => {
                    if !last && let Err(error) = to.finish() {
                        break End::SinkFailed(error);
                    }
                    self.phase = Phase::Shut;
                    break End::Shut;
                }
                Phase::Shut => break End::Shut,
            }
            let left = budget.allowance.saturating_sub(read);
            // A small rest of it would end the streaming.
            let is_rest = read > 0 && left < SMALL_PIECE_BYTES as u64 && self.streaming();
            if left == 0 || is_rest {
                break if from.readable() { End::Starved } else { End::Blocked };
            }
            match self.fill(from, to, pool, left) {
                Transfer::Moved(count) => read += count as u64,
                Transfer::Blocked => break End::Blocked,
                Transfer::Ended => self.phase = Phase::Draining,
                Transfer::Failed(error) => break End::SourceFailed(error),
            }
        };
        Pumped { bytes, read, end }
    }

    /// Delivers what waits, and adds to `bytes` how many were taken.
    ///
    /// # Errors
    /// [`FlushError`]: why something still waits.
    pub fn flush(
        &mut self,
        to: &mut Endpoint<impl Stream>,
        pool: &mut Pool,
        bytes: &mut u64,
    ) -> Result<(), FlushError> {
        to.flush(&mut self.buffer, pool, bytes)?;
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        match to.drain_pipe(pipe, bytes) {
            Err(FlushError::Failed(error)) => {
                pool.pipes.refused(&error);
                match self.flush_by_copying(to, pool, bytes) {
                    // A socket reports its error once (SO_ERROR); later writes report less.
                    Err(FlushError::Failed(later)) if errno::is_of_the_peer(&later) => {
                        let known = errno::is_of_the_peer(&error);
                        return Err(FlushError::Failed(if known { error } else { later }));
                    }
                    copied => copied?,
                }
            }
            drained => drained?,
        }
        self.give_back_pipe(pool);
        Ok(())
    }

    /// Delivers what the pipe holds through the buffer, one capacity after the other. Whether the sink has
    /// failed, or splice(2) alone, shows here.
    fn flush_by_copying(
        &mut self,
        to: &mut Endpoint<impl Stream>,
        pool: &mut Pool,
        bytes: &mut u64,
    ) -> Result<(), FlushError> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        while pipe.held() > 0 {
            let capacity = pool.size();
            let read =
                self.buffer.fill(pool, capacity, |space| match retry_eintr(|| pipe.read(space)) {
                    Transfer::Moved(count) => (count, Ok(())),
                    Transfer::Failed(error) => (0, Err(error)),
                    Transfer::Blocked | Transfer::Ended => {
                        (0, Err(ErrorKind::UnexpectedEof.into()))
                    }
                });
            // Bytes that cannot be had out of a pipe are lost: the direction must not end as if it were whole.
            read.unwrap_or(Ok(())).map_err(FlushError::Failed)?;
            to.flush(&mut self.buffer, pool, bytes)?;
        }
        Ok(())
    }

    /// Takes the next piece from the sender, when nothing waits: `most` bytes at most.
    fn fill(
        &mut self,
        from: &mut Endpoint<impl Stream>,
        to: &Endpoint<impl Stream>,
        pool: &mut Pool,
        most: u64,
    ) -> Transfer {
        let full = pool.size();
        let capacity = usize::try_from(most).unwrap_or(usize::MAX).min(full);
        let mut failure = None;
        if self.streaming()
            && full >= STREAMING_BUFFER_BYTES
            && most >= SMALL_PIECE_BYTES as u64
            && from.spliceable()
            && to.spliceable()
            && from.readable()
            && let Some(mut pipe) = pool.pipes.lend()
        {
            let transfer = from.fill_pipe(&mut pipe, most);
            self.pipe = Some(pipe);
            match &transfer {
                Transfer::Moved(count) if *count < SMALL_PIECE_BYTES => self.full_reads = 0,
                Transfer::Moved(_) => {}
                Transfer::Failed(error) => {
                    pool.pipes.refused(error);
                    self.give_back_pipe(pool);
                }
                Transfer::Blocked | Transfer::Ended => self.give_back_pipe(pool),
            }
            // What looks like EOF may be urgent data, which splice(2) does not pass, and what looks like a
            // failure may be the call's own: reading decides.
            match transfer {
                Transfer::Moved(_) | Transfer::Blocked => return transfer,
                Transfer::Failed(error) => failure = Some(error),
                Transfer::Ended => {}
            }
        }
        let transfer = from.fill(&mut self.buffer, pool, capacity);
        // A socket reports its error once (SO_ERROR). After a call that has taken it, EOF is not true.
        if let (Transfer::Ended, Some(error)) = (&transfer, failure)
            && errno::is_of_the_peer(&error)
        {
            return Transfer::Failed(error);
        }
        self.full_reads = match transfer {
            Transfer::Moved(count) if count >= full => self.full_reads.saturating_add(1),
            // It was not allowed to read more.
            Transfer::Moved(count) if count >= capacity => self.full_reads,
            Transfer::Moved(_) => 0,
            _ => self.full_reads,
        };
        transfer
    }

    fn give_back_pipe(&mut self, pool: &mut Pool) {
        if let Some(pipe) = self.pipe.take() {
            pool.pipes.give_back(pipe);
        }
    }
}

#[cfg(test)]
mod refusals;
#[cfg(test)]
mod tests;
