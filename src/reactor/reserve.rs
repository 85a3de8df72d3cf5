//! Descriptors beyond those that a session was promised when it was admitted: a second connection attempt, sockets for
//! datagrams, a listener for one peer.
//!
//! A session asks the [`Reserve`] for a [`Promise`] before it opens them, and keeps it for as long as they are open.
//! The server says with each turn of the loop how many descriptors it can spare. What it owes to admitted sessions and
//! keeps for administrators is not among them, so a promise that has been given is always good, and one that is
//! refused leaves the session with what it has.

use std::cell::Cell;
use std::rc::Rc;

/// What the loop can promise besides the descriptors of admitted sessions.
#[derive(Default)]
pub struct Reserve {
    /// Descriptors of all promises that are kept now.
    promised: Rc<Cell<usize>>,
    /// Descriptors that may be promised at once.
    most: usize,
}

/// A number of descriptors that may be opened. Dropping it gives them back, in a panic too.
#[must_use]
pub struct Promise {
    promised: Rc<Cell<usize>>,
    descriptors: usize,
}

impl Reserve {
    /// So many descriptors may be promised from now on, besides those that are.
    pub fn allow(&mut self, descriptors: usize) {
        self.most = self.promised().saturating_add(descriptors);
    }

    /// Promises `descriptors` of them. `None`: that many are not free.
    pub fn take(&self, descriptors: usize) -> Option<Promise> {
        let promised = self.promised().checked_add(descriptors).filter(|sum| *sum <= self.most)?;
        self.promised.set(promised);
        Some(Promise { promised: Rc::clone(&self.promised), descriptors })
    }

    /// Descriptors that are promised now.
    pub fn promised(&self) -> usize {
        self.promised.get()
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.promised.set(self.promised.get().saturating_sub(self.descriptors));
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn no_more_is_promised_than_is_allowed() {
        let mut reserve = Reserve::default();
        assert!(reserve.take(1).is_none(), "nothing has been allowed");
        reserve.allow(3);
        let two = reserve.take(2);
        assert!(two.is_some() && reserve.take(2).is_none() && reserve.take(usize::MAX).is_none());
        let one = reserve.take(1);
        assert!(one.is_some() && reserve.take(1).is_none());
        assert_eq!(reserve.promised(), 3);
        drop(two);
        assert_eq!(reserve.promised(), 1);
        assert!(reserve.take(2).is_some(), "given back, it may be promised again");
        // What is promised stays so when less is allowed.
        reserve.allow(0);
        assert!(reserve.take(1).is_none() && reserve.promised() == 1);
        reserve.allow(1);
        assert!(reserve.take(1).is_some());
    }

    #[test]
    fn a_panic_gives_promises_back() {
        let mut reserve = Reserve::default();
        reserve.allow(4);
        let kept = reserve.take(1);
        let turn = catch_unwind(AssertUnwindSafe(|| {
            let _promise = reserve.take(3).expect("it is free");
            assert_eq!(reserve.promised(), 4);
            panic!("in the middle of a turn");
        }));
        assert!(turn.is_err());
        assert_eq!(reserve.promised(), 1);
        drop(kept);
        assert_eq!(reserve.promised(), 0);
    }
}
