//! Descriptors of the test process, which its tests share.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::note;
use crate::system::raise_descriptor_limit;

/// Descriptors that are kept for tests, in all.
static KEPT: Mutex<u64> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

/// Descriptors that are left to tests that reserve none.
const OTHERS: u64 = 1000;

/// Descriptors that a test may use until this is dropped.
#[must_use]
pub struct Descriptors(u64);

impl Descriptors {
    /// Reserves `count` descriptors for a test, and waits until they are free. `None`: a process cannot have that many,
    /// and a note says what was not tried.
    ///
    /// All at once: tests that reserved them in steps could block each other.
    pub fn keep(count: u64, what: &str) -> Option<Self> {
        let most = raise_descriptor_limit();
        if most < count {
            note(&format!("{most} descriptors (ulimit -Hn) are too few, {what} was not tried"));
            return None;
        }
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |kept: &mut u64| *kept > 0 && *kept + count + OTHERS > most;
        // Without a limit: each test that holds some has its own.
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
