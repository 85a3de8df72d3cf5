//! The end of a conversation: say the last words, half-close, listen until the peer has closed too.
//!
//! Closing a socket over unread input sends RST, and RST can destroy the last words before the peer has
//! read them. So what the peer still sends is read and forgotten, until its EOF or a deadline.

use std::time::Instant;

use super::Flow;
use super::buffer::{Buffer, Pool};
use super::endpoint::{Endpoint, FlushError, Stream, Transfer};

/// Bytes that one turn reads and forgets.
const BUDGET: usize = 64 * 1024;

/// A conversation that is over but for its last words.
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

    /// Goes on as far as it can. `Close` once the peer has closed or failed.
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
        // Where EOF cannot be sent, closing sends it, once what has come is read.
        let finished = peer.finish().is_ok();
        match peer.discard(BUDGET) {
            Transfer::Moved(_) => Flow::Again,
            Transfer::Blocked if !finished => Flow::Close,
            Transfer::Blocked => Flow::Wait,
            Transfer::Ended | Transfer::Failed(_) => Flow::Close,
        }
    }
}
