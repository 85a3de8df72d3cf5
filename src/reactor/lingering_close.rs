//! A lingering close: send the final output, shut the writing direction, read until the peer has closed too.
//!
//! Closing a socket with unread input sends RST, and RST can destroy the final output before the peer has read
//! it. So what the peer still sends is read and discarded, until its EOF or a deadline.

use std::time::Instant;

use super::Flow;
use super::buffer::{Buffer, Pool};
use super::endpoint::{Endpoint, FlushError, Stream, Transfer};

/// Bytes that one turn reads and discards.
const DISCARD_BYTES_PER_TURN: usize = 64 * 1024;

/// A connection that closes once its final output is sent and its peer has closed.
pub struct LingeringClose {
    began: Instant,
}

impl LingeringClose {
    /// A lingering close that begins at `now`.
    pub fn new(now: Instant) -> Self {
        LingeringClose { began: now }
    }

    /// When it began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Sends, then reads and discards. `Close` once the peer has closed or failed.
    pub fn turn(
        &mut self,
        peer: &mut Endpoint<impl Stream>,
        final_output: &mut Buffer,
        pool: &mut Pool,
    ) -> Flow {
        match peer.flush(final_output, pool, &mut 0) {
            Ok(()) => {}
            Err(FlushError::Blocked) => return Flow::Wait,
            Err(FlushError::Failed(_)) => return Flow::Close,
        }
        // If shutdown(2) is refused, close(2) sends the FIN, once what has arrived is read.
        let finished = peer.finish().is_ok();
        match peer.discard(DISCARD_BYTES_PER_TURN) {
            Transfer::Moved(_) => Flow::Again,
            Transfer::Blocked if !finished => Flow::Close,
            Transfer::Blocked => Flow::Wait,
            Transfer::Ended | Transfer::Failed(_) => Flow::Close,
        }
    }
}
