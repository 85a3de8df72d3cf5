//! A verifier that answers at once, or when the scenario lets it.

use std::time::Instant;

use socks5d::reactor::slab::Key;
use socks5d::state::users::Users;
use socks5d::state::verifier::{Asked, Counterfoil, Question, Ticket, Verdict, Verifier};

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
    fn ask(&mut self, question: &Question<'_>, users: &mut Users) -> Asked {
        let Question { key, name, password, .. } = *question;
        assert!(!std::mem::replace(&mut self.asked, true), "a second login in one session");
        let verdict = users.authenticate(name, password).into();
        if !self.defers {
            return Asked::Done(verdict);
        }
        let (ticket, counterfoil) = Ticket::new();
        self.outstanding = Some((key, verdict, counterfoil));
        Asked::Pending(ticket)
    }

    fn ready(&self, _: Instant) -> bool {
        self.outstanding.is_some()
    }

    fn verdicts(&mut self, _: &mut Users, _: Instant) -> Vec<(Key, Verdict)> {
        self.outstanding.take().into_iter().map(|(key, verdict, _)| (key, verdict)).collect()
    }

    fn check(&mut self, _: Instant) -> Option<Instant> {
        None
    }

    fn limit(&mut self, _: usize) {}
}
