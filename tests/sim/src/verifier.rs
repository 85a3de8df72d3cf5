//! A verifier that answers at once, or when the scenario lets it.

use std::time::Instant;

use socks5d::reactor::slab::Key;
use socks5d::state::users::Users;
use socks5d::state::verifier::{Asked, Counterfoil, Ticket, Verdict, Verifier};

/// The verifier of one session.
pub struct FakeVerifier {
    defers: bool,
    outstanding: Option<(Key, Verdict, Counterfoil)>,
    asked: bool,
}

impl FakeVerifier {
    /// `defers`: it answers later.
    pub fn new(defers: bool) -> Self {
        FakeVerifier { defers, outstanding: None, asked: false }
    }

    /// Whether a session waits for its verdict.
    pub fn is_awaited(&self) -> bool {
        self.outstanding.as_ref().is_some_and(|(.., counterfoil)| counterfoil.is_awaited())
    }
}

impl Verifier for FakeVerifier {
    fn ask(&mut self, key: Key, name: &[u8], password: &[u8], users: &Users) -> Asked {
        assert!(!std::mem::replace(&mut self.asked, true), "a second login in one session");
        let verdict = users.authenticate(name, password);
        if !self.defers {
            return Asked::Done(verdict);
        }
        let (ticket, counterfoil) = Ticket::new();
        self.outstanding = Some((key, verdict, counterfoil));
        Asked::Pending(ticket)
    }

    fn ready(&self) -> bool {
        self.outstanding.is_some()
    }

    fn verdicts(&mut self) -> Vec<(Key, Verdict)> {
        self.outstanding.take().into_iter().map(|(key, verdict, _)| (key, verdict)).collect()
    }

    fn check(&mut self, _: Instant) -> Option<Instant> {
        None
    }
}
