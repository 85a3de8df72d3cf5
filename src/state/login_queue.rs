//! Logins that wait for a hash, and which of them is next.
//!
//! Hashes are slow on purpose, so who may make the server compute them has to be limited: otherwise a flood of wrong
//! logins keeps everybody out. METP comes first, so that an administrator gets in during a flood; then comes the newest,
//! whose client still waits. A source has [`PER_SOURCE`] logins that wait, and all together have [`MOST`]; what is too
//! many is shed, the oldest first. Those who wait for one and the same login share its hash. A name that nobody has
//! costs the same hash as one that is known.
//!
//! A failure is told no earlier than [`FAILURE_DELAY`] after the credentials: how long a comparison took cannot be seen.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::client_network::ClientNetwork;
use super::digest::Digest;
use super::service::{PerService, Service};
use super::settings::HTTP_SESSIONS;
use super::users::{Confirmed, Login, Unverified, UserId, Users};
use super::verifier::{Asked, Counterfoil, Question, Ticket, Verdict};
use crate::reactor::slab::Key;
use crate::workers::passwords::{Password, Verification};

/// Logins that may wait for a hash, all together.
pub const MOST: usize = 1024;
/// Logins of one source that may wait for a hash; an IPv6 /64 is one.
pub const PER_SOURCE: usize = 4;
/// How long after the credentials a failure is told.
pub const FAILURE_DELAY: Duration = Duration::from_millis(100);

/// The logins that wait.
#[derive(Default)]
pub struct LoginQueue {
    /// Whether failures take their time even if no account has a hash.
    delays: bool,
    /// Those whose hash is not being computed, by their number: the last is the newest.
    waiting: PerService<BTreeMap<u64, Job>>,
    /// Those whose hash is being computed.
    running: BTreeMap<u64, Job>,
    /// How many of each source wait.
    sources: HashMap<(Service, ClientNetwork), usize>,
    /// The jobs for a login, waiting or running.
    by_digest: HashMap<LoginId, u64>,
    /// Failures that are told when it is time, in that order.
    failures: BTreeMap<(Instant, u64), Waiter>,
    /// Verdicts that have come.
    verdicts: Vec<(Key, Verdict)>,
    /// The number of the next job or failure.
    next: u64,
}

/// What equal logins have in common: the account, if there is one, and the digest of name and password.
type LoginId = (Option<UserId>, Digest);

/// A hash that is to be computed.
struct Job {
    /// The account and what its secret is compared with. `None`: nobody has the name.
    unverified: Option<Unverified>,
    login: LoginId,
    name: Box<[u8]>,
    password: Password,
    service: Service,
    source: ClientNetwork,
    waiters: Vec<Waiter>,
}

/// A session that waits.
#[derive(Clone)]
struct Waiter {
    key: Key,
    counterfoil: Counterfoil,
    /// When its credentials came.
    since: Instant,
    /// The address that has to be one from which clients may log in. `None`: any may.
    source: Option<IpAddr>,
}

/// What a hash has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is that of the password.
    Right,
    /// It is not.
    Wrong,
    /// It was not computed, for want of memory or threads.
    Failed,
}

impl LoginQueue {
    /// No login waits. Without `delays` failures are told at once as long as no account has a hash that takes
    /// milliseconds: all comparisons are alike then.
    pub fn new(delays: bool) -> Self {
        LoginQueue { delays, ..LoginQueue::default() }
    }

    /// Answers a session, or lets it wait.
    pub fn ask(&mut self, question: &Question<'_>, users: &mut Users) -> Asked {
        let login = users.check(question.name, question.password);
        let source = question.limited_source();
        if let Login::Accepted(user) = login
            && admits(users, user, source)
        {
            return Asked::Done(Verdict::Accepted(user));
        }
        // From an address that the account does not admit, a right password is as good as a wrong one.
        let known_wrong = !matches!(login, Login::Unverified(_));
        if (!self.delays && !users.has_hashes()) || (question.any_will_do && known_wrong) {
            return Asked::Done(Verdict::Refused);
        }
        let (ticket, counterfoil) = Ticket::new();
        let waiter = Waiter { key: question.key, counterfoil, since: question.now, source };
        match login {
            Login::Refused | Login::Accepted(_) => self.refuse(waiter, question.now),
            Login::Unknown(digest) if users.has_hashes() => {
                self.put(question, None, (None, digest), waiter);
            }
            Login::Unknown(_) => self.refuse(waiter, question.now),
            Login::Unverified(unverified) => {
                let login = unverified.login();
                self.put(question, Some(unverified), login, waiter);
            }
        }
        Asked::Pending(ticket)
    }

    /// Whether a verdict can be taken.
    pub fn is_ready(&self, now: Instant) -> bool {
        !self.verdicts.is_empty() || self.next_failure().is_some_and(|due| due <= now)
    }

    /// When the next failure is told.
    pub fn next_failure(&self) -> Option<Instant> {
        self.failures.first_key_value().map(|((due, _), _)| *due)
    }

    /// Takes the verdicts that have come, and the failures that are due.
    pub fn take(&mut self, now: Instant) -> Vec<(Key, Verdict)> {
        let mut verdicts = std::mem::take(&mut self.verdicts);
        while self.next_failure().is_some_and(|due| due <= now)
            && let Some((_, waiter)) = self.failures.pop_first()
        {
            verdicts.push((waiter.key, Verdict::Refused));
        }
        verdicts
    }

    /// How many hashes are being computed.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// How many logins wait for a hash.
    pub fn waiting(&self) -> usize {
        self.waiting.values().map(BTreeMap::len).sum()
    }

    /// The hash to be computed next. Logins whose sessions have ended are forgotten.
    pub fn start(&mut self) -> Option<Verification> {
        loop {
            let (number, job) = ORDER.into_iter().find_map(|service| self.newest(service))?;
            if !job.waiters.iter().any(|waiter| waiter.counterfoil.is_awaited()) {
                self.forget(number, &job.login);
                continue;
            }
            let hash = job.unverified.as_ref().map(|unverified| unverified.secret.clone());
            let password = job.password.clone();
            self.running.insert(number, job);
            return Some(Verification { number, hash, password, more: self.waiting() > 0 });
        }
    }

    /// A hash has been computed.
    pub fn done(&mut self, number: u64, outcome: Outcome, users: &mut Users, now: Instant) {
        let Some(job) = self.running.remove(&number) else { return };
        self.forget(number, &job.login);
        if outcome == Outcome::Failed {
            return self.shed(job);
        }
        let found = match &job.unverified {
            None => Confirmed::Refused,
            Some(login) if outcome == Outcome::Right => {
                users.confirm(login.user, login.epoch, &login.digest)
            }
            // The secret may be another one by now, and the password its own.
            Some(login) if users.get(login.user).is_some() => {
                match users.is_current(login.user, login.epoch) {
                    true => Confirmed::Refused,
                    false => Confirmed::Changed,
                }
            }
            Some(_) => Confirmed::Refused,
        };
        match found {
            Confirmed::Accepted(user) => self.accept(user, job.waiters, users, now),
            Confirmed::Refused => self.refuse_all(job.waiters, now),
            Confirmed::Changed => self.ask_again(job, users, now),
        }
    }

    /// The secret was changed while the hash of the old one was computed: what was found says nothing.
    fn ask_again(&mut self, job: Job, users: &mut Users, now: Instant) {
        let Job { name, password, service, source, waiters, .. } = job;
        match users.check(&name, password.bytes()) {
            Login::Accepted(user) => self.accept(user, waiters, users, now),
            Login::Refused | Login::Unknown(_) => self.refuse_all(waiters, now),
            Login::Unverified(unverified) => {
                let (login, unverified) = (unverified.login(), Some(unverified));
                self.put_job(Job { unverified, login, name, password, service, source, waiters });
            }
        }
    }

    fn put(
        &mut self,
        question: &Question<'_>,
        unverified: Option<Unverified>,
        login: LoginId,
        waiter: Waiter,
    ) {
        self.put_job(Job {
            unverified,
            login,
            name: question.name.into(),
            password: Password::new(question.password),
            service: question.service,
            source: IpAddr::into(question.source),
            waiters: vec![waiter],
        });
    }

    /// Queues a job, or lets its sessions wait for the one that there is for the same login.
    fn put_job(&mut self, job: Job) {
        if let Some(number) = self.by_digest.get(&job.login) {
            return self.join(*number, job);
        }
        let number = self.next;
        self.next += 1;
        self.by_digest.insert(job.login.clone(), number);
        let (service, source) = (job.service, source_of(&job));
        *self.sources.entry(source).or_default() += 1;
        self.waiting.of_mut(service).insert(number, job);
        if self.sources.get(&source).is_some_and(|count| *count > PER_SOURCE) {
            let mut of_source = self.waiting.of(service).iter();
            let oldest = of_source.find(|(_, job)| source_of(job) == source);
            if let Some(number) = oldest.map(|(number, _)| *number) {
                self.shed_waiting(service, number);
            }
        }
        if self.waiting.http.len() > HTTP_SESSIONS
            && let Some(number) = self.waiting.http.keys().next().copied()
        {
            // Sessions that have ended leave their logins behind: there are no more than have a place.
            self.shed_waiting(Service::Http, number);
        }
        if self.waiting() > MOST {
            let oldest = ORDER.into_iter().rev().find_map(|service| {
                self.waiting.of(service).keys().next().map(|number| (service, *number))
            });
            if let Some((service, number)) = oldest {
                self.shed_waiting(service, number);
            }
        }
    }

    /// Sessions wait for a job that there is. If one of METP does, it is one of METP, and so on.
    fn join(&mut self, number: u64, news: Job) {
        if let Some(job) = self.running.get_mut(&number) {
            return job.waiters.extend(news.waiters);
        }
        for service in Service::ALL {
            let Some(mut job) = self.waiting.of_mut(service).remove(&number) else { continue };
            job.waiters.extend(news.waiters);
            if rank(news.service) < rank(job.service) {
                self.count_off(source_of(&job));
                (job.service, job.source) = (news.service, news.source);
                *self.sources.entry(source_of(&job)).or_default() += 1;
            }
            self.waiting.of_mut(job.service).insert(number, job);
            return;
        }
    }

    /// Takes the newest job of a service out of the queue.
    fn newest(&mut self, service: Service) -> Option<(u64, Job)> {
        let (number, job) = self.waiting.of_mut(service).pop_last()?;
        self.count_off(source_of(&job));
        Some((number, job))
    }

    fn shed_waiting(&mut self, service: Service, number: u64) {
        if let Some(job) = self.waiting.of_mut(service).remove(&number) {
            self.count_off(source_of(&job));
            self.forget(number, &job.login);
            self.shed(job);
        }
    }

    fn shed(&mut self, job: Job) {
        let awaited = job.waiters.into_iter().filter(|waiter| waiter.counterfoil.is_awaited());
        self.verdicts.extend(awaited.map(|waiter| (waiter.key, Verdict::Shed)));
    }

    /// Lets in those whose address the account admits.
    fn accept(&mut self, user: UserId, waiters: Vec<Waiter>, users: &Users, now: Instant) {
        for waiter in waiters {
            if admits(users, user, waiter.source) {
                self.verdicts.push((waiter.key, Verdict::Accepted(user)));
            } else {
                self.refuse(waiter, now);
            }
        }
    }

    fn refuse_all(&mut self, waiters: Vec<Waiter>, now: Instant) {
        for waiter in waiters {
            self.refuse(waiter, now);
        }
    }

    /// Tells a failure when it is time.
    fn refuse(&mut self, waiter: Waiter, now: Instant) {
        let due = waiter.since.checked_add(FAILURE_DELAY).unwrap_or(now).max(now);
        self.failures.insert((due, self.next), waiter);
        self.next += 1;
    }

    fn count_off(&mut self, source: (Service, ClientNetwork)) {
        if let Some(count) = self.sources.get_mut(&source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }

    /// A job is over: nobody can wait for it any more.
    fn forget(&mut self, number: u64, login: &LoginId) {
        if self.by_digest.get(login) == Some(&number) {
            self.by_digest.remove(login);
        }
    }
}

impl Unverified {
    fn login(&self) -> LoginId {
        (Some(self.user), self.digest.clone())
    }
}

/// Whether an account may be used from this address; `None`: from any.
fn admits(users: &Users, user: UserId, source: Option<IpAddr>) -> bool {
    source.is_none_or(|source| users.admits(user, source))
}

/// The order in which logins are verified, and the opposite of that in which they are shed.
const ORDER: [Service; 3] = [Service::Metp, Service::Socks, Service::Http];

/// The place of a service in that order.
fn rank(service: Service) -> Option<usize> {
    ORDER.iter().position(|other| *other == service)
}

/// Whose limit a job counts for: sources have one for each service.
fn source_of(job: &Job) -> (Service, ClientNetwork) {
    (job.service, job.source)
}

#[cfg(test)]
mod tests;
