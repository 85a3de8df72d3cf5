//! Names to addresses of one family, in worker threads: getaddrinfo(3) blocks, the loop must not. It waits for the slower
//! family if it is asked for both, so a question about a name is two look-ups. And addresses to names, with
//! getnameinfo(3) in the same threads, within the same limits.
//!
//! The [`Workers`] do the work. Here is what is special about look-ups: what they may take of the process, and
//! what their results mean.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use common::episode::Outage;

use super::families::{Family, Rank, has_route};
use super::worker_pool::{Done, Failure, Kind, Limits, Workers};
use super::{getaddrinfo, getnameinfo};
use crate::reactor::waker::Wake;

/// getaddrinfo, getnameinfo and the modules they load put buffers of 64 KiB and more on the stack. It is all that a
/// worker takes of the address space, which may be limited: what the system's look-up allocates is a few KiB.
const STACK_BYTES: usize = 256 * 1024;
/// The address space of a worker: its stack, and two pages for a name whose servers do not answer.
const WORKER_BYTES: usize = STACK_BYTES + 8192;

/// Names in the queue take two places each: one for each family.
const LOOKUPS_OF_NAME: usize = 2;

/// What a worker calls. An error of the kind `NotFound` is the answer that there is nothing, `TimedOut` means that no
/// name server has answered; all others are failures of this machine and say nothing about the name or the address.
///
/// A function is a `Lookup` too, for which no address has a name.
pub trait Lookup: Send + Sync {
    /// All addresses of a name in one family, in order of preference, with this port put in.
    ///
    /// # Errors
    /// As all look-ups have them.
    fn addresses(&self, name: &str, family: Family, port: u16) -> io::Result<Vec<SocketAddr>>;

    /// The name of an address: 1 to 255 bytes of printable ASCII without blanks.
    ///
    /// # Errors
    /// As all look-ups have them.
    fn name(&self, _address: IpAddr) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl<F> Lookup for F
where
    F: Fn(&str, Family, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync,
{
    fn addresses(&self, name: &str, family: Family, port: u16) -> io::Result<Vec<SocketAddr>> {
        self(name, family, port)
    }
}

/// Asks the system: /etc/hosts, DNS, and whatever else nsswitch.conf(5) names.
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn addresses(&self, name: &str, family: Family, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut addresses = getaddrinfo::look_up(name, family)?;
        addresses.iter_mut().for_each(|address| address.set_port(port));
        Ok(addresses)
    }

    fn name(&self, address: IpAddr) -> io::Result<String> {
        getnameinfo::look_up(address)
    }
}

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

/// The result of a look-up of addresses.
pub struct LookupDone {
    /// The name that was asked for.
    pub name: String,
    /// The family that was asked for.
    pub family: Family,
    /// The outcome.
    pub outcome: Outcome,
}

/// The result of a look-up of a name.
pub struct NameDone {
    /// The address that was asked for.
    pub address: IpAddr,
    /// The outcome.
    pub outcome: Outcome<String>,
}

/// At least one address, in order of preference, and what is known of the first.
pub type Ranked = (Vec<SocketAddr>, Rank);

/// The outcome of a look-up.
#[derive(Debug)]
pub enum Outcome<T = Ranked> {
    /// The look-up found this.
    Found(T),
    /// There is no such name, or it has no address of this family; or the address has no name.
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

/// A look-up.
enum Job {
    Addresses(String, Family),
    Name(IpAddr),
}

/// What has come of a job, of the same kind.
enum Answer {
    Addresses(Outcome),
    Name(Outcome<String>),
}

/// The loop's side of the look-ups.
pub struct Resolver {
    workers: Workers<Job, Answer>,
    /// Answers that were taken together with those of the other kind.
    addresses: Vec<LookupDone>,
    names: Vec<NameDone>,
    /// Look-ups for which this machine lacked something, by errno.
    failures: Outage<Option<i32>>,
    /// The most workers that the limits have allowed so far.
    most_workers: usize,
}

impl Resolver {
    /// A resolver that calls the waker when there are answers.
    pub fn new(limits: Limits, waker: impl Wake + 'static, lookup: Box<dyn Lookup>) -> Self {
        Self::with_routes(limits, waker, lookup, Box::new(has_route))
    }

    /// A resolver that does not ask the system for routes.
    pub fn with_routes(
        limits: Limits,
        waker: impl Wake + 'static,
        lookup: Box<dyn Lookup>,
        has_route: Box<HasRoute>,
    ) -> Self {
        let kind = Kind { thread: c"dns", jobs: "look-ups", stack_bytes: STACK_BYTES, nice: 0 };
        let run = move |job: &Job| match job {
            Job::Addresses(name, family) => {
                let addresses = lookup.addresses(name, *family, 0);
                Answer::Addresses(ranked(addresses, *family, &has_route))
            }
            Job::Name(address) => {
                Answer::Name(lookup.name(*address).map_or_else(Outcome::from, Outcome::Found))
            }
        };
        let workers = Workers::new(kind, limits, waker, run);
        let most_workers = limits.threads_in_all.max(1);
        let (addresses, names, failures) = Default::default();
        Resolver { workers, addresses, names, failures, most_workers }
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
        let job = |family: &Family| Job::Addresses(name.to_owned(), *family);
        self.workers.submit_all(families.iter().map(job));
    }

    /// Asks for the name of an address. The answer comes with [`Resolver::names`], unless it is cancelled.
    pub fn submit_address(&mut self, address: IpAddr) {
        self.workers.submit(Job::Name(address));
    }

    /// Drops a look-up that is not needed any more. Returns whether it could be dropped because no worker had
    /// taken it yet; otherwise its answer still comes.
    pub fn cancel(&mut self, name: &str, family: Family) -> bool {
        let is_it = |job: &Job| matches!(job, Job::Addresses(n, f) if n == name && *f == family);
        self.workers.cancel(is_it).is_some()
    }

    /// [`Resolver::cancel`] for the name of an address.
    pub fn cancel_address(&mut self, address: IpAddr) -> bool {
        self.workers.cancel(|job| matches!(job, Job::Name(a) if *a == address)).is_some()
    }

    /// Whether answers have come. It reads a flag: cheap enough for each turn of the loop.
    pub fn ready(&self) -> bool {
        self.workers.ready() || !self.addresses.is_empty() || !self.names.is_empty()
    }

    /// Takes the addresses that have come.
    pub fn answers(&mut self) -> Vec<LookupDone> {
        self.take();
        std::mem::take(&mut self.addresses)
    }

    /// Takes the names that have come.
    pub fn names(&mut self) -> Vec<NameDone> {
        self.take();
        std::mem::take(&mut self.names)
    }

    /// Takes the answers of both kinds from the workers.
    fn take(&mut self) {
        for Done { job, outcome } in self.workers.answers() {
            match job {
                Job::Addresses(name, family) => {
                    let outcome = outcome.map_or_else(Outcome::from, Answer::addresses);
                    self.log_failure(&outcome);
                    self.addresses.push(LookupDone { name, family, outcome });
                }
                Job::Name(address) => {
                    let outcome = outcome.map_or_else(Outcome::from, Answer::name);
                    self.log_failure(&outcome);
                    self.names.push(NameDone { address, outcome });
                }
            }
        }
    }

    /// Logs the beginning and the end of a time in which this machine cannot ask. What no worker has begun says nothing
    /// about that.
    fn log_failure<T>(&mut self, outcome: &Outcome<T>) {
        let now = Instant::now();
        match outcome {
            Outcome::Failed(error) => {
                if self.failures.fails(error.raw_os_error(), now) {
                    log::warn!("names cannot be looked up: {error}");
                }
            }
            Outcome::Found(_) | Outcome::NotFound | Outcome::Unanswered => {
                if self.failures.succeeds(now) {
                    log::info!("names can be looked up again");
                }
            }
            Outcome::NoWorker | Outcome::Overflow => {}
        }
    }

    /// Starts queued look-ups whose slots are held by slow ones. Returns when to call again, and to look for
    /// answers, since the call that wakes the loop may fail.
    pub fn check(&mut self, now: Instant) -> Instant {
        let next = self.workers.check(now);
        if self.ready() { now } else { next }
    }
}

/// What has come of a look-up of addresses.
fn ranked(addresses: io::Result<Vec<SocketAddr>>, family: Family, has_route: &HasRoute) -> Outcome {
    match addresses {
        Err(error) => Outcome::from(error),
        Ok(addresses) => match addresses.first() {
            None => Outcome::NotFound,
            Some(first) => {
                let rank = Rank::new(family, first.ip(), has_route);
                Outcome::Found((addresses, rank))
            }
        },
    }
}

impl Answer {
    /// The answer to a job of this kind, which has no other.
    fn addresses(self) -> Outcome {
        match self {
            Answer::Addresses(outcome) => outcome,
            Answer::Name(_) => Outcome::NotFound,
        }
    }

    /// The answer to a job of this kind, which has no other.
    fn name(self) -> Outcome<String> {
        match self {
            Answer::Name(outcome) => outcome,
            Answer::Addresses(_) => Outcome::NotFound,
        }
    }
}

impl<T> From<Failure> for Outcome<T> {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Panicked => Outcome::Failed(io::ErrorKind::Other.into()),
            Failure::NoWorker => Outcome::NoWorker,
            Failure::Overflow => Outcome::Overflow,
        }
    }
}

impl<T> From<io::Error> for Outcome<T> {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Outcome::NotFound,
            io::ErrorKind::TimedOut => Outcome::Unanswered,
            _ => Outcome::Failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::workers::fixture::Loop;

    const LATE: Duration = Duration::from_secs(10);

    /// The outcome of a look-up of one name in a worker.
    fn asked(lookup: impl Lookup + 'static, limits: Limits) -> Outcome {
        let (mut waits, waker) = Loop::new();
        let mut resolver = Resolver::new(limits, waker, Box::new(lookup));
        resolver.submit("example.com", &[Family::V4]);
        let mut answers = waits.wait(LATE, |now| (resolver.answers(), resolver.check(now)));
        assert_eq!(answers.len(), 1);
        let answer = answers.remove(0);
        assert_eq!((answer.name.as_str(), answer.family), ("example.com", Family::V4));
        answer.outcome
    }

    /// The outcome of a look-up of the name of this address in a worker.
    fn asked_name(lookup: impl Lookup + 'static, limits: Limits) -> Outcome<String> {
        let (mut waits, waker) = Loop::new();
        let mut resolver = Resolver::new(limits, waker, Box::new(lookup));
        resolver.submit_address(ADDRESS);
        let mut names = waits.wait(LATE, |now| (resolver.names(), resolver.check(now)));
        assert_eq!(names.len(), 1);
        let done = names.remove(0);
        assert_eq!(done.address, ADDRESS);
        done.outcome
    }

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    /// Addresses have this name, and names have no addresses.
    struct Named(fn() -> io::Result<String>);

    impl Lookup for Named {
        fn addresses(&self, _: &str, _: Family, _: u16) -> io::Result<Vec<SocketAddr>> {
            Ok(Vec::new())
        }

        fn name(&self, address: IpAddr) -> io::Result<String> {
            assert_eq!(address, ADDRESS);
            (self.0)()
        }
    }

    const ONE: Limits = Limits { threads: 1, threads_in_all: 1, queue: 8 };

    #[test]
    fn names_are_answered() {
        let lookup = |_: &str, _, port| Ok(vec![SocketAddr::from(([192, 0, 2, 1], port))]);
        let Outcome::Found((addresses, _)) = asked(lookup, ONE) else { panic!("not found") };
        assert_eq!(addresses, [SocketAddr::from(([192, 0, 2, 1], 0))]);
    }

    #[test]
    fn addresses_are_answered_with_their_names() {
        let outcome = asked_name(Named(|| Ok("a.example".to_owned())), ONE);
        assert!(matches!(&outcome, Outcome::Found(name) if name == "a.example"), "{outcome:?}");
        let outcome = asked_name(Named(|| Err(io::ErrorKind::NotFound.into())), ONE);
        assert!(matches!(outcome, Outcome::NotFound), "{outcome:?}");
        let outcome = asked_name(Named(|| Err(io::ErrorKind::TimedOut.into())), ONE);
        assert!(matches!(outcome, Outcome::Unanswered), "{outcome:?}");
        let outcome = asked_name(Named(|| Err(io::Error::from_raw_os_error(libc::EMFILE))), ONE);
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
        let outcome = asked_name(Named(|| panic!("injected")), ONE);
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
        let outcome = asked_name(Named(|| unreachable!()), Limits { queue: 0, ..ONE });
        assert!(matches!(outcome, Outcome::Overflow), "{outcome:?}");
    }

    #[test]
    fn a_function_knows_no_name_of_an_address() {
        let outcome = asked_name(|_: &str, _: Family, _: u16| Ok(Vec::new()), ONE);
        assert!(matches!(outcome, Outcome::NotFound), "{outcome:?}");
    }

    /// Both kinds come from the same workers: who takes one of them leaves the other one.
    #[test]
    fn answers_of_one_kind_leave_those_of_the_other() {
        let (mut waits, waker) = Loop::new();
        let lookup = Named(|| Ok("a.example".to_owned()));
        let mut resolver = Resolver::new(ONE, waker, Box::new(lookup));
        for by_address in [false, true] {
            resolver.submit("example.com", &[Family::V4]);
            resolver.submit_address(ADDRESS);
            let idle = |resolver: &Resolver| resolver.load() == (0, 0);
            waits.wait(LATE, |now| (vec![(); usize::from(idle(&resolver))], resolver.check(now)));
            assert!(idle(&resolver) && resolver.ready());
            if by_address {
                assert_eq!(resolver.names().len(), 1);
            } else {
                assert_eq!(resolver.answers().len(), 1);
            }
            let now = Instant::now();
            assert!(resolver.ready() && resolver.check(now) == now, "the other one is there");
            assert_eq!(resolver.names().len(), usize::from(!by_address));
            assert_eq!(resolver.answers().len(), usize::from(by_address));
            assert!(!resolver.ready());
        }
    }

    #[test]
    fn what_the_pool_says_is_an_outcome() {
        let outcome = asked(|_: &str, _, _| panic!("injected"), ONE);
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
        let outcome = asked(|_: &str, _, _| Ok(Vec::new()), Limits { queue: 0, ..ONE });
        assert!(matches!(outcome, Outcome::Overflow), "{outcome:?}");
        assert!(matches!(Outcome::<Ranked>::from(Failure::NoWorker), Outcome::NoWorker));
    }

    #[test]
    fn errors_are_told_apart() {
        let none = asked(|_: &str, _, _| Ok(Vec::new()), ONE);
        assert!(matches!(none, Outcome::NotFound), "{none:?}");
        let outcome = |error: io::Error| Outcome::<Ranked>::from(error);
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
