//! Names to addresses of one family, in worker threads: getaddrinfo(3) blocks, the loop must not. It waits for the slower
//! family if it is asked for both, so a question about a name is two look-ups.
//!
//! The [`Workers`] do the work. Here is what is special about look-ups: what they may take of the process, and
//! what their results mean.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use common::episode::Episode;

use super::families::{Family, Rank, has_route};
use super::getaddrinfo;
use super::worker_pool::{Done, Failure, Kind, Limits, Workers};
use crate::reactor::waker::Wake;

/// getaddrinfo and the modules it loads put buffers of 64 KiB and more on the stack. It is all that a worker
/// takes of the address space, which may be limited: what the system's look-up allocates is a few KiB.
const STACK_BYTES: usize = 256 * 1024;
/// The address space of a worker: its stack, and two pages for a name whose servers do not answer.
const WORKER_BYTES: usize = STACK_BYTES + 8192;

/// Names in the queue take two places each: one for each family.
const LOOKUPS_OF_NAME: usize = 2;

/// What a worker calls: all addresses of a name in one family, with a port put in. An error of the kind `NotFound` is
/// the answer that there is none, `TimedOut` means that no name server has answered; all others are failures of
/// this machine and say nothing about the name.
pub type Lookup = dyn Fn(&str, Family, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Whether there is a route to an address; called by a worker.
pub type HasRoute = dyn Fn(IpAddr) -> bool + Send + Sync;

/// The limits of a pool for look-ups in a process that may have this number of descriptors and, if that is limited,
/// of bytes of address space. `threads` is the number of look-ups at once, of which a name takes two; `queue` is the
/// number of names that may wait, with both their look-ups.
///
/// Those of dead names may be sixteen times `threads`. Each may hold a descriptor: they hold a third of the
/// descriptors at most. The stacks of all workers take half of the address space at most.
pub fn lookup_limits(
    threads: usize,
    queue: usize,
    descriptors: usize,
    address_space: Option<usize>,
) -> Limits {
    let fitting = address_space.map_or(usize::MAX, |bytes| bytes / 2 / WORKER_BYTES).max(1);
    let threads_in_all = threads.saturating_mul(16).min((descriptors / 3).max(4));
    let queue = queue.saturating_mul(LOOKUPS_OF_NAME);
    Limits { threads, threads_in_all: threads_in_all.min(fitting), queue }
}

/// The result of a look-up.
pub struct LookupDone {
    /// The name that was asked for.
    pub name: String,
    /// The family that was asked for.
    pub family: Family,
    /// The outcome.
    pub outcome: Outcome,
}

/// The outcome of a look-up.
#[derive(Debug)]
pub enum Outcome {
    /// The look-up found these addresses, in order of preference; at least one.
    Found(Vec<SocketAddr>, Rank),
    /// There is no such name, or it has no address of this family.
    NotFound,
    /// No name server has answered the question.
    Unanswered,
    /// This machine could not ask, for want of descriptors or memory for instance.
    Failed(io::Error),
    /// No look-up was made: no worker could be started.
    NoWorker,
    /// No look-up was made: too many names wait.
    Overflow,
}

/// A look-up: a name and a family.
type Job = (String, Family);

/// The loop's side of the look-ups.
pub struct Resolver {
    workers: Workers<Job, Outcome>,
    /// Look-ups for which this machine lacked something.
    failures: Episode,
    /// The most workers that the limits have allowed so far.
    most_workers: usize,
}

impl Resolver {
    /// A resolver that calls the waker when there are answers.
    pub fn new(limits: Limits, waker: impl Wake + 'static, lookup: Box<Lookup>) -> Self {
        Self::with_routes(limits, waker, lookup, Box::new(has_route))
    }

    /// A resolver that does not ask the system for routes.
    pub fn with_routes(
        limits: Limits,
        waker: impl Wake + 'static,
        lookup: Box<Lookup>,
        has_route: Box<HasRoute>,
    ) -> Self {
        let kind = Kind { thread: c"dns", jobs: "look-ups", stack_bytes: STACK_BYTES };
        let run = move |(name, family): &Job| match lookup(name, *family, 0) {
            Err(error) => Outcome::from(error),
            Ok(addresses) => match addresses.first() {
                None => Outcome::NotFound,
                Some(first) => {
                    let rank = Rank::new(*family, first.ip(), &has_route);
                    Outcome::Found(addresses, rank)
                }
            },
        };
        let workers = Workers::new(kind, limits, waker, run);
        let most_workers = limits.threads_in_all.max(1);
        Resolver { workers, failures: Episode::default(), most_workers }
    }

    /// Changes the limits. Queries that wait already may be more than the new ones allow.
    pub fn limit(&mut self, limits: Limits) {
        self.most_workers = self.most_workers.max(limits.threads_in_all);
        self.workers.limit(limits);
    }

    /// The most workers that the limits have allowed so far: no more descriptors are held by look-ups.
    pub fn most_workers(&self) -> usize {
        self.most_workers
    }

    /// The numbers of look-ups that wait for a worker, and that are being made.
    pub fn load(&self) -> (usize, usize) {
        self.workers.load()
    }

    /// Asks for the addresses of a name in these families. An answer for each comes with [`Resolver::answers`], unless
    /// it is cancelled.
    /// Of several families, the last one is looked up first.
    pub fn submit(&mut self, name: &str, families: &[Family]) {
        self.workers.submit_all(families.iter().map(|family| (name.to_owned(), *family)));
    }

    /// Drops a look-up that is not needed any more. Returns whether it could be dropped because no worker had
    /// taken it yet; otherwise its answer still comes.
    pub fn cancel(&mut self, name: &str, family: Family) -> bool {
        self.workers.cancel(|waiting| waiting.0 == name && waiting.1 == family).is_some()
    }

    /// Whether answers have come. It reads a flag: cheap enough for each turn of the loop.
    pub fn ready(&self) -> bool {
        self.workers.ready()
    }

    /// Takes the answers that have come.
    pub fn answers(&mut self) -> Vec<LookupDone> {
        let answers: Vec<_> = self.workers.answers().into_iter().map(LookupDone::from).collect();
        for answer in &answers {
            if let Outcome::Failed(error) = &answer.outcome
                && self.failures.begins(Instant::now())
            {
                log::info!("names cannot be looked up: {error}");
            }
        }
        answers
    }

    /// Starts queued look-ups whose slots are held by slow ones. Returns when to call again, and to look for
    /// answers, since the call that wakes the loop may fail.
    pub fn check(&mut self, now: Instant) -> Instant {
        self.workers.check(now)
    }
}

impl From<Done<Job, Outcome>> for LookupDone {
    fn from(Done { job: (name, family), outcome }: Done<Job, Outcome>) -> Self {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(Failure::Panicked) => Outcome::Failed(io::ErrorKind::Other.into()),
            Err(Failure::NoWorker) => Outcome::NoWorker,
            Err(Failure::Overflow) => Outcome::Overflow,
        };
        LookupDone { name, family, outcome }
    }
}

impl From<io::Error> for Outcome {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Outcome::NotFound,
            io::ErrorKind::TimedOut => Outcome::Unanswered,
            _ => Outcome::Failed(error),
        }
    }
}

/// Asks the system: /etc/hosts, DNS, and whatever else nsswitch.conf(5) names.
///
/// # Errors
/// As [`Lookup`] has them.
pub fn system_lookup(name: &str, family: Family, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = getaddrinfo::look_up(name, family)?;
    addresses.iter_mut().for_each(|address| address.set_port(port));
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::workers::fixture::Loop;

    const LATE: Duration = Duration::from_secs(10);

    /// The outcome of a look-up of one name in a worker.
    fn asked(
        lookup: impl Fn(&str, Family, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
        limits: Limits,
    ) -> Outcome {
        let (mut waits, waker) = Loop::new();
        let mut resolver = Resolver::new(limits, waker, Box::new(lookup));
        resolver.submit("example.com", &[Family::V4]);
        let mut answers = waits.wait(LATE, |now| (resolver.answers(), resolver.check(now)));
        assert_eq!(answers.len(), 1);
        let answer = answers.remove(0);
        assert_eq!((answer.name.as_str(), answer.family), ("example.com", Family::V4));
        answer.outcome
    }

    const ONE: Limits = Limits { threads: 1, threads_in_all: 1, queue: 8 };

    #[test]
    fn names_are_answered() {
        let lookup = |_: &str, _, port| Ok(vec![SocketAddr::from(([192, 0, 2, 1], port))]);
        let Outcome::Found(addresses, _) = asked(lookup, ONE) else { panic!("not found") };
        assert_eq!(addresses, [SocketAddr::from(([192, 0, 2, 1], 0))]);
    }

    #[test]
    fn what_the_pool_says_is_an_outcome() {
        let outcome = asked(|_, _, _| panic!("injected"), ONE);
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
        let outcome = asked(|_, _, _| Ok(Vec::new()), Limits { queue: 0, ..ONE });
        assert!(matches!(outcome, Outcome::Overflow), "{outcome:?}");
        let done = Done { job: (String::new(), Family::V4), outcome: Err(Failure::NoWorker) };
        assert!(matches!(LookupDone::from(done).outcome, Outcome::NoWorker));
    }

    #[test]
    fn errors_are_told_apart() {
        let none = asked(|_, _, _| Ok(Vec::new()), ONE);
        assert!(matches!(none, Outcome::NotFound), "{none:?}");
        let outcome = |error: io::Error| Outcome::from(error);
        assert!(matches!(outcome(io::ErrorKind::NotFound.into()), Outcome::NotFound));
        assert!(matches!(outcome(io::ErrorKind::TimedOut.into()), Outcome::Unanswered));
        for errno in
            [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EAGAIN, libc::EIO]
        {
            let error = io::Error::from_raw_os_error(errno);
            assert!(matches!(outcome(error), Outcome::Failed(_)), "{errno}");
        }
        for kind in [io::ErrorKind::OutOfMemory, io::ErrorKind::Other] {
            assert!(matches!(outcome(kind.into()), Outcome::Failed(_)), "{kind}");
        }
    }

    #[test]
    fn workers_leave_half_of_a_limited_address_space() {
        let limits = |address_space| lookup_limits(32, 1024, 1024, address_space);
        assert_eq!(limits(None), Limits { threads: 32, threads_in_all: 341, queue: 2048 });
        assert_eq!(limits(Some(200 << 20)), limits(None));
        let small = limits(Some(64 << 20));
        assert_eq!(small, Limits { threads_in_all: 124, ..limits(None) });
        assert!(small.threads_in_all * WORKER_BYTES <= 32 << 20);
        assert_eq!(limits(Some(0)).threads_in_all, 1);
    }
}
