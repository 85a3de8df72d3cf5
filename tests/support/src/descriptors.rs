//! Descriptors of the test's own process, which all its tests share.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::note;
use crate::system::raise_descriptor_limit;

/// Descriptors that are kept for tests, in all.
static KEPT: Mutex<u64> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

/// For the tests that run at the same time and ask for none, because a few are enough for them.
const OTHERS: u64 = 1000;

/// Descriptors that a test may use until this is dropped.
#[must_use]
pub struct Descriptors(u64);

impl Descriptors {
    /// Keeps `count` descriptors for a test, once others have left as many. `None`: a process cannot have that many,
    /// and a note says what was not tried for want of them.
    ///
    /// A test that would take its descriptors step by step could find that the other tests have the rest.
    pub fn keep(count: u64, what: &str) -> Option<Self> {
        let most = raise_descriptor_limit();
        if most < count {
            note(&format!("{most} descriptors (ulimit -Hn) are too few, {what} was not tried"));
            return None;
        }
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |kept: &mut u64| *kept > 0 && *kept + count + OTHERS > most;
        // However long the others take: each of them has limits of its own.
        let kept = GIVEN_BACK.wait_while(kept, is_full);
        *kept.unwrap_or_else(PoisonError::into_inner) += count;
        Some(Descriptors(count))
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        *KEPT.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        GIVEN_BACK.notify_all();
    }
}
