//! Descriptors of the test's own process, which all its tests share.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::note;

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
        let most = raise_limit();
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

/// Raises the soft limit of descriptors to the hard limit, which is returned. The soft one is for programs that
/// call select(2); a test has both ends of hundreds of connections.
pub(crate) fn raise_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that the call fills in.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0, "a limit");
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a valid rlimit that the call only reads.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0, "a limit");
    limit.rlim_max
}
