//! Logins: a question, and a verdict that comes at once or later.
//!
//! A session asks a [`Verifier`] whether a name and a password belong together. The answer is
//! [`Done`](Asked::Done), and the session goes on in place, or [`Pending`](Asked::Pending): the session keeps
//! the [`Ticket`] and waits, and the loop hands it the verdict when that has come. What is slow, such as a
//! password hash, can so be computed in a worker thread.
//!
//! A session that ends meanwhile drops its ticket. The verdict then finds no session under its key, and a
//! verifier that has not begun need not begin.

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::service::Service;
use super::users::{UserId, Users};
use crate::reactor::slab::Key;

/// What has been found of a name and a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are those of this account.
    Accepted(UserId),
    /// They are nobody's, or the account is locked.
    Refused,
    /// Nobody has looked: too many logins wait. The session is closed without a status, since a false `wrong password`
    /// would make clients forget a good one.
    Shed,
}

impl From<Option<UserId>> for Verdict {
    fn from(user: Option<UserId>) -> Self {
        user.map_or(Verdict::Refused, Verdict::Accepted)
    }
}

/// A login that a session asks about.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The session.
    pub key: Key,
    /// Where it wants to log in.
    pub service: Service,
    /// Its canonical address.
    pub source: IpAddr,
    /// The name as it was given.
    pub name: &'a [u8],
    /// The password as it was given.
    pub password: &'a [u8],
    /// Whether the client is let in also if they are wrong. There is nothing to hide then.
    pub any_will_do: bool,
    /// The time.
    pub now: Instant,
}

impl Question<'_> {
    /// The address that has to be one from which clients may log in. `None`: any may. Limits never lock METP.
    pub fn limited_source(&self) -> Option<IpAddr> {
        match self.service {
            Service::Socks => Some(self.source),
            Service::Metp | Service::Http => None,
        }
    }
}

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
    /// Whose name and password are these? A session asks for one login at a time.
    fn ask(&mut self, question: &Question<'_>, users: &mut Users) -> Asked;

    /// Whether verdicts have come. Cheap enough for each turn of the loop.
    fn ready(&self, now: Instant) -> bool;

    /// Takes the verdicts that have come, each with the session that asked.
    fn verdicts(&mut self, users: &mut Users, now: Instant) -> Vec<(Key, Verdict)>;

    /// When to look for verdicts if the loop is not woken before. `None`: none is outstanding.
    fn check(&mut self, now: Instant) -> Option<Instant>;

    /// At most so many hashes are computed at once.
    fn limit(&mut self, threads: usize);

    /// How many hashes are waited for or being computed.
    fn queued(&self) -> usize {
        0
    }
}

/// Answers at once, where the passwords of all accounts are known: comparing takes less than a microsecond.
#[derive(Clone, Copy, Debug, Default)]
pub struct InPlace;

impl Verifier for InPlace {
    fn ask(&mut self, question: &Question<'_>, users: &mut Users) -> Asked {
        let user = users.authenticate(question.name, question.password);
        let source = question.limited_source();
        let admitted = |user: &UserId| source.is_none_or(|source| users.admits(*user, source));
        Asked::Done(user.filter(admitted).into())
    }

    fn ready(&self, _: Instant) -> bool {
        false
    }

    fn verdicts(&mut self, _: &mut Users, _: Instant) -> Vec<(Key, Verdict)> {
        Vec::new()
    }

    fn check(&mut self, _: Instant) -> Option<Instant> {
        None
    }

    fn limit(&mut self, _: usize) {}
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

    /// The verdict, if it has come. An account that was deleted or locked meanwhile lets no one in, not even if another
    /// account has its name now.
    pub fn verdict(&self, users: &Users) -> Option<Verdict> {
        Some(match self.verdict? {
            Verdict::Accepted(user) if user == UserId::TRUSTED => Verdict::Accepted(user),
            Verdict::Accepted(user) if users.get(user).is_none() || users.is_locked(user) => {
                Verdict::Refused
            }
            verdict => verdict,
        })
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
        let (mut users, alice) = users();
        let (now, mut verifier) = (Instant::now(), InPlace);
        let mut ask = |name, password| {
            let (key, service) = (Key::unpack(1), Service::Socks);
            let source = IpAddr::from([192, 0, 2, 1]);
            let any_will_do = false;
            let question = Question { key, service, source, name, password, any_will_do, now };
            match verifier.ask(&question, &mut users) {
                Asked::Done(verdict) => verdict,
                Asked::Pending(_) => panic!("it waits"),
            }
        };
        assert_eq!(ask(b"alice", b"pw"), Verdict::Accepted(alice));
        assert_eq!(ask(b"alice", b"no"), Verdict::Refused);
        assert_eq!(ask(b"nobody", b"pw"), Verdict::Refused);
        assert!(!InPlace.ready(now) && InPlace.verdicts(&mut users, now).is_empty());
        assert_eq!(InPlace.check(now), None);
    }

    #[test]
    fn a_login_that_is_dropped_is_not_awaited() {
        let (ticket, counterfoil) = Ticket::new();
        let mut login = PendingLogin::new(b"alice", ticket);
        login.verified(Verdict::Refused);
        assert!(counterfoil.is_awaited());
        drop(login);
        assert!(!counterfoil.is_awaited());
    }

    #[test]
    fn a_verdict_does_not_outlive_its_account() {
        let (mut users, alice) = users();
        let mut login = PendingLogin::new(b"alice", Ticket::new().0);
        assert_eq!(login.verdict(&users), None);
        login.verified(Verdict::Accepted(alice));
        assert_eq!(login.verdict(&users), Some(Verdict::Accepted(alice)));
        users.set_locked(alice, true);
        assert_eq!(login.verdict(&users), Some(Verdict::Refused));
        users.set_locked(alice, false);
        users.delete(alice);
        users.add(b"alice", b"pw", Role::Admin).expect("free again");
        assert_eq!(login.verdict(&users), Some(Verdict::Refused));
        assert_eq!(login.name(), b"alice");
    }
}
