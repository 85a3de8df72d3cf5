//! Logins: a question, and a verdict that comes at once or later.
//!
//! A session asks a [`Verifier`] whether a name and a password belong together. The answer is
//! [`Done`](Asked::Done), and the session goes on in place, or [`Pending`](Asked::Pending): the session keeps
//! the [`Ticket`] and waits, and the loop hands it the verdict when that has come. What is slow, such as a
//! password hash, can so be computed in a worker thread.
//!
//! A session that ends meanwhile drops its ticket. The verdict then finds no session under its key, and a
//! verifier that has not begun need not begin.

use std::sync::{Arc, Weak};
use std::time::Instant;

use super::users::{UserId, Users};
use crate::reactor::slab::Key;

/// The account whose name and password were given. `None`: there is none.
pub type Verdict = Option<UserId>;

/// The answer to the question of a session.
#[derive(Debug)]
pub enum Asked {
    /// The verdict.
    Done(Verdict),
    /// The verdict is delivered later, unless the ticket is dropped before.
    Pending(Ticket),
}

/// What decides about logins.
pub trait Verifier {
    /// The session `key` asks whose name and password these are. It asks for one login at a time.
    fn ask(&mut self, key: Key, name: &[u8], password: &[u8], users: &Users) -> Asked;

    /// Whether verdicts have come. Cheap enough for each turn of the loop.
    fn ready(&self) -> bool;

    /// Takes the verdicts that have come, each with the session that asked.
    fn verdicts(&mut self) -> Vec<(Key, Verdict)>;

    /// When to look for verdicts if the loop is not woken before. `None`: none is outstanding.
    fn check(&mut self, now: Instant) -> Option<Instant>;
}

/// Answers at once: comparing a password takes less than a microsecond.
#[derive(Clone, Copy, Debug, Default)]
pub struct InPlace;

impl Verifier for InPlace {
    fn ask(&mut self, _: Key, name: &[u8], password: &[u8], users: &Users) -> Asked {
        Asked::Done(users.authenticate(name, password))
    }

    fn ready(&self) -> bool {
        false
    }

    fn verdicts(&mut self) -> Vec<(Key, Verdict)> {
        Vec::new()
    }

    fn check(&mut self, _: Instant) -> Option<Instant> {
        None
    }
}

/// Held by the session that waits for a verdict. Dropping it withdraws the question.
#[derive(Debug)]
pub struct Ticket {
    _awaited: Arc<()>,
}

/// The verifier's end of a [`Ticket`]; it may go to another thread.
#[derive(Clone, Debug)]
pub struct Counterfoil(Weak<()>);

impl Ticket {
    /// A ticket for a session, and its counterfoil for the verifier.
    pub fn new() -> (Self, Counterfoil) {
        let awaited = Arc::new(());
        let counterfoil = Counterfoil(Arc::downgrade(&awaited));
        (Ticket { _awaited: awaited }, counterfoil)
    }
}

impl Counterfoil {
    /// Whether a session still waits for the verdict.
    pub fn is_awaited(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// A login whose verdict is outstanding, as a session keeps it.
#[derive(Debug)]
pub struct PendingLogin {
    name: Box<[u8]>,
    verdict: Option<Verdict>,
    /// Kept until the session does not wait any more.
    _ticket: Ticket,
}

impl PendingLogin {
    /// The login with this name.
    pub fn new(name: &[u8], ticket: Ticket) -> Self {
        PendingLogin { name: name.into(), verdict: None, _ticket: ticket }
    }

    /// The name, as it was given.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The verdict has come.
    pub fn verified(&mut self, verdict: Verdict) {
        self.verdict = Some(verdict);
    }

    /// The verdict, if it has come. An account that was deleted meanwhile lets no one in, not even if another
    /// account has its name now.
    pub fn verdict(&self, users: &Users) -> Option<Verdict> {
        let verdict = self.verdict?;
        Some(verdict.filter(|user| users.get(*user).is_some()))
    }
}

#[cfg(test)]
mod tests {
    use metp_protocol::Role;

    use super::*;

    fn users() -> (Users, UserId) {
        let mut users = Users::default();
        let alice = users.add(b"alice", b"pw", Role::User).expect("new");
        (users, alice)
    }

    #[test]
    fn in_place_is_at_once() {
        let (users, alice) = users();
        let ask = |name, password| InPlace.ask(Key::unpack(1), name, password, &users);
        assert!(matches!(ask(b"alice", b"pw"), Asked::Done(Some(user)) if user == alice));
        assert!(matches!(ask(b"alice", b"no"), Asked::Done(None)));
        assert!(matches!(ask(b"nobody", b"pw"), Asked::Done(None)));
        assert!(!InPlace.ready() && InPlace.verdicts().is_empty());
        assert_eq!(InPlace.check(Instant::now()), None);
    }

    #[test]
    fn a_login_that_is_dropped_is_not_awaited() {
        let (ticket, counterfoil) = Ticket::new();
        let mut login = PendingLogin::new(b"alice", ticket);
        login.verified(None);
        assert!(counterfoil.is_awaited());
        drop(login);
        assert!(!counterfoil.is_awaited());
    }

    #[test]
    fn a_verdict_does_not_outlive_its_account() {
        let (mut users, alice) = users();
        let mut login = PendingLogin::new(b"alice", Ticket::new().0);
        assert_eq!(login.verdict(&users), None);
        login.verified(Some(alice));
        assert_eq!(login.verdict(&users), Some(Some(alice)));
        users.delete(alice);
        users.add(b"alice", b"pw", Role::Admin).expect("free again");
        assert_eq!(login.verdict(&users), Some(None));
        assert_eq!(login.name(), b"alice");
    }
}
