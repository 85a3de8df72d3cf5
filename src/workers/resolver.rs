//! Names to addresses, in worker threads: getaddrinfo(3) blocks, the loop must not.
//!
//! The [`Workers`] do the work. Here is what is special about look-ups: what they may take of the process, and
//! what their results mean.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use common::episode::Episode;

use super::getaddrinfo;
use super::worker_pool::{Done, Failure, Kind, Limits, Workers};
use crate::reactor::waker::Wake;

/// getaddrinfo and the modules it loads put buffers of 64 KiB and more on the stack. It is all that a worker
/// takes of the address space, which may be limited: what the system's look-up allocates is a few KiB.
const STACK_BYTES: usize = 256 * 1024;
/// The address space of a worker: its stack, and two pages for a name whose servers do not answer.
const WORKER_BYTES: usize = STACK_BYTES + 8192;

/// What a worker calls: all addresses of a name, with a port put in. An error of the kind `NotFound` is the
/// answer that there is none, `TimedOut` means that no name server has answered; all others are failures of
/// this machine and say nothing about the name.
pub type Lookup = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The limits of a pool for look-ups in a process that may have this number of descriptors and, if that is limited,
/// of bytes of address space.
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
    Limits { threads, threads_in_all: threads_in_all.min(fitting), queue }
}

/// The result of a look-up.
pub struct LookupDone {
    /// The name that was asked for.
    pub name: String,
    /// The outcome.
    pub outcome: Outcome,
}

/// The outcome of a look-up.
#[derive(Debug)]
pub enum Outcome {
    /// The look-up found these addresses, in order of preference; at least one.
    Found(Vec<SocketAddr>),
    /// There is no such name, or it has no address.
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

/// The loop's side of the look-ups.
pub struct Resolver {
    workers: Workers<String, io::Result<Vec<SocketAddr>>>,
    /// Look-ups for which this machine lacked something.
    failures: Episode,
}

impl Resolver {
    /// A resolver that calls the waker when there are answers.
    pub fn new(limits: Limits, waker: impl Wake + 'static, lookup: Box<Lookup>) -> Self {
        let kind = Kind { thread: c"dns", jobs: "look-ups", stack_bytes: STACK_BYTES };
        let run = move |name: &String| lookup(name, 0);
        Resolver { workers: Workers::new(kind, limits, waker, run), failures: Episode::default() }
    }

    /// Changes the limits. Queries that wait already may be more than the new ones allow.
    pub fn limit(&mut self, limits: Limits) {
        self.workers.limit(limits);
    }

    /// The numbers of names that wait for a worker, and that are being looked up.
    pub fn load(&self) -> (usize, usize) {
        self.workers.load()
    }

    /// Asks for a name. Its answer comes with [`Resolver::answers`], unless it is cancelled.
    pub fn submit(&mut self, name: String) {
        self.workers.submit(name);
    }

    /// Drops a name that is not needed any more. Returns whether it could be dropped because no worker had
    /// taken it yet; otherwise its answer still comes.
    pub fn cancel(&mut self, name: &str) -> bool {
        self.workers.cancel(|waiting| waiting == name).is_some()
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

impl From<Done<String, io::Result<Vec<SocketAddr>>>> for LookupDone {
    fn from(Done { job, outcome }: Done<String, io::Result<Vec<SocketAddr>>>) -> Self {
        let outcome = match outcome {
            Ok(result) => result.into(),
            Err(Failure::Panicked) => Outcome::Failed(io::ErrorKind::Other.into()),
            Err(Failure::NoWorker) => Outcome::NoWorker,
            Err(Failure::Overflow) => Outcome::Overflow,
        };
        LookupDone { name: job, outcome }
    }
}

impl From<io::Result<Vec<SocketAddr>>> for Outcome {
    fn from(result: io::Result<Vec<SocketAddr>>) -> Self {
        match result {
            Ok(addresses) if addresses.is_empty() => Outcome::NotFound,
            Ok(addresses) => Outcome::Found(addresses),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound => Outcome::NotFound,
                io::ErrorKind::TimedOut => Outcome::Unanswered,
                _ => Outcome::Failed(error),
            },
        }
    }
}

/// Asks the system: /etc/hosts, DNS, and whatever else nsswitch.conf(5) names.
///
/// # Errors
/// As [`Lookup`] has them.
pub fn system_lookup(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = getaddrinfo::look_up(name)?;
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
        lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
        limits: Limits,
    ) -> Outcome {
        let (mut waits, waker) = Loop::new();
        let mut resolver = Resolver::new(limits, waker, Box::new(lookup));
        resolver.submit("example.com".to_owned());
        let mut answers = waits.wait(LATE, |now| (resolver.answers(), resolver.check(now)));
        assert_eq!(answers.len(), 1);
        let answer = answers.remove(0);
        assert_eq!(answer.name, "example.com");
        answer.outcome
    }

    const ONE: Limits = Limits { threads: 1, threads_in_all: 1, queue: 8 };

    #[test]
    fn names_are_answered() {
        let lookup = |_: &str, port| Ok(vec![SocketAddr::from(([192, 0, 2, 1], port))]);
        let Outcome::Found(addresses) = asked(lookup, ONE) else { panic!("not found") };
        assert_eq!(addresses, [SocketAddr::from(([192, 0, 2, 1], 0))]);
    }

    #[test]
    fn what_the_pool_says_is_an_outcome() {
        let outcome = asked(|_, _| panic!("injected"), ONE);
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
        let outcome = asked(|_, _| Ok(Vec::new()), Limits { queue: 0, ..ONE });
        assert!(matches!(outcome, Outcome::Overflow), "{outcome:?}");
        let done = Done { job: String::new(), outcome: Err(Failure::NoWorker) };
        assert!(matches!(LookupDone::from(done).outcome, Outcome::NoWorker));
    }

    #[test]
    fn errors_are_told_apart() {
        let outcome = |result: io::Result<Vec<SocketAddr>>| Outcome::from(result);
        assert!(matches!(outcome(Ok(Vec::new())), Outcome::NotFound));
        assert!(matches!(outcome(Err(io::ErrorKind::NotFound.into())), Outcome::NotFound));
        assert!(matches!(outcome(Err(io::ErrorKind::TimedOut.into())), Outcome::Unanswered));
        for errno in
            [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EAGAIN, libc::EIO]
        {
            let error = io::Error::from_raw_os_error(errno);
            assert!(matches!(outcome(Err(error)), Outcome::Failed(_)), "{errno}");
        }
        for kind in [io::ErrorKind::OutOfMemory, io::ErrorKind::Other] {
            assert!(matches!(outcome(Err(kind.into())), Outcome::Failed(_)), "{kind}");
        }
    }

    #[test]
    fn workers_leave_half_of_a_limited_address_space() {
        let limits = |address_space| lookup_limits(32, 1024, 1024, address_space);
        assert_eq!(limits(None), Limits { threads: 32, threads_in_all: 341, queue: 1024 });
        assert_eq!(limits(Some(200 << 20)), limits(None));
        let small = limits(Some(64 << 20));
        assert_eq!(small, Limits { threads_in_all: 124, ..limits(None) });
        assert!(small.threads_in_all * WORKER_BYTES <= 32 << 20);
        assert_eq!(limits(Some(0)).threads_in_all, 1);
    }
}
