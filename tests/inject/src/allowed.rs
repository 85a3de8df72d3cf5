//! Findings that are known and not the server's fault, each with its reason.

use crate::case::{Finding, Kind, Phase};
use crate::strace::Fault;

/// What is excused: these calls with these errors (none: any), if the finding is of one of these kinds.
struct Excuse {
    phase: Option<Phase>,
    calls: &'static [&'static str],
    errnos: &'static [&'static str],
    /// At any position, or where the fault lasts.
    lasting: bool,
    kinds: &'static [Kind],
    /// Texts of which one is in the finding (of a death: in the last output); none: any finding.
    words: &'static [&'static str],
    reason: &'static str,
}

const EXCUSES: [Excuse; 18] = [
    Excuse {
        phase: None,
        calls: &["accept4"],
        errnos: &[],
        lasting: true,
        kinds: &[Kind::Stall],
        words: &[],
        reason: "nobody can be let in, or sent away, while accept fails: the kernel holds the connections",
    },
    Excuse {
        phase: None,
        calls: &["recvmmsg", "sendmmsg"],
        errnos: &[],
        lasting: true,
        kinds: &[Kind::Stall],
        words: &["datagrams: no datagrams"],
        reason: "no datagram can be relayed while these fail, and the association waits for better times",
    },
    Excuse {
        phase: None,
        calls: &["mmap", "munmap", "mprotect", "mremap", "brk", "madvise"],
        errnos: &[],
        lasting: false,
        kinds: &[Kind::Death],
        words: &["memory allocation of "],
        reason: "Rust's allocator aborts where it gets no memory",
    },
    Excuse {
        phase: Some(Phase::Start),
        calls: &["mmap", "munmap", "mprotect", "mremap", "brk", "madvise"],
        errnos: &[],
        lasting: false,
        kinds: &[Kind::Death],
        words: &["at the start: signal: 11 (SIGSEGV)", "error while loading shared libraries"],
        reason: "the loader of glibc needs memory, before the program runs",
    },
    Excuse {
        phase: None,
        calls: &["futex"],
        errnos: &[],
        lasting: false,
        kinds: &[Kind::Death],
        words: &["The futex facility returned an unexpected error code."],
        reason: "glibc aborts where a futex answers what it never does",
    },
    Excuse {
        phase: None,
        calls: &["futex"],
        errnos: &[],
        lasting: false,
        kinds: &[Kind::Stall, Kind::NotServed, Kind::Spin],
        words: &[],
        reason: "locks of glibc and Rust: a futex that does not wait or wake has no way back",
    },
    Excuse {
        phase: None,
        calls: &["epoll_wait", "epoll_pwait"],
        errnos: &[],
        lasting: false,
        kinds: &[Kind::Death],
        words: &["cannot wait for events: "],
        reason: "without events there is no loop: if it fails again and again the server says so and ends",
    },
    Excuse {
        phase: None,
        calls: &["epoll_wait", "epoll_pwait"],
        errnos: &[],
        lasting: true,
        kinds: &[Kind::Stall, Kind::NotServed, Kind::Spin],
        words: &[],
        reason: "without events there is no loop, until the server ends",
    },
    Excuse {
        phase: None,
        calls: &["recvfrom", "sendto", "splice", "read", "accept4", "recvmsg", "writev"],
        errnos: &["EAGAIN"],
        lasting: false,
        kinds: &[Kind::Stall, Kind::Leak],
        words: &[],
        reason: "a lie: the kernel says EAGAIN where it has bytes or room, and tells an edge once",
    },
    Excuse {
        phase: None,
        calls: &["close"],
        errnos: &[],
        lasting: false,
        kinds: &[Kind::Leak, Kind::Stall, Kind::NotServed],
        words: &[],
        reason: "the call is not made, so the descriptor stays; Linux closes it whatever it answers",
    },
    Excuse {
        phase: Some(Phase::Start),
        calls: &[
            "read",
            "openat",
            "fstat",
            "newfstatat",
            "pread64",
            "access",
            "prlimit64",
            "getrandom",
        ],
        errnos: &[],
        lasting: false,
        kinds: &[Kind::Death],
        words: &["at the start: "],
        reason: "the loader of glibc, before the program runs",
    },
    Excuse {
        phase: Some(Phase::Start),
        calls: &["poll", "rt_sigaction", "sigaltstack", "rt_sigprocmask", "sched_getaffinity"],
        errnos: &[],
        lasting: false,
        kinds: &[Kind::Death],
        words: &["at the start: "],
        reason: "Rust's runtime, before main",
    },
    Excuse {
        phase: Some(Phase::Start),
        calls: &["getrandom", "poll"],
        errnos: &["EINTR", "EAGAIN"],
        lasting: true,
        kinds: &[Kind::Stall],
        words: &[],
        reason: "Rust's runtime tries again for ever where it is interrupted for ever",
    },
    Excuse {
        phase: None,
        calls: &["read", "write"],
        errnos: &["EINTR"],
        lasting: true,
        kinds: &[Kind::Stall, Kind::Spin],
        words: &[],
        reason: "Rust's std and the threads of the logs try again for ever where they are interrupted for ever",
    },
    Excuse {
        phase: Some(Phase::Start),
        calls: &["rt_sigprocmask"],
        errnos: &[],
        lasting: false,
        kinds: &[Kind::Stall],
        words: &[],
        reason: "glibc blocks all signals while it starts a thread, and cannot unblock them",
    },
    Excuse {
        phase: Some(Phase::Start),
        calls: &["write"],
        errnos: &[],
        lasting: true,
        kinds: &[Kind::Stall],
        words: &[],
        reason: "a handler of signals may do little more than write: SIGTERM is lost while that fails for ever",
    },
    Excuse {
        phase: None,
        calls: &["shutdown"],
        errnos: &["ENOTCONN"],
        lasting: false,
        kinds: &[Kind::Stall],
        words: &[],
        reason: "a lie: the kernel says that a connection is over that is not; where it is, an event tells so",
    },
    Excuse {
        phase: None,
        calls: &["rseq"],
        errnos: &[],
        lasting: false,
        kinds: &[Kind::Death],
        words: &["Fatal glibc error: "],
        reason: "glibc's start of a thread",
    },
];

/// Why a finding is excused, if it is.
pub fn reason(phase: Phase, fault: &Fault, finding: &Finding) -> Option<&'static str> {
    let fits = |excuse: &&Excuse| {
        excuse.phase.is_none_or(|only| only == phase)
            && excuse.calls.contains(&fault.call.as_str())
            && (excuse.errnos.is_empty() || excuse.errnos.contains(&fault.errno))
            && (!excuse.lasting || fault.when.ends_with('+'))
            && excuse.kinds.contains(&finding.kind)
            && (excuse.words.is_empty()
                || excuse.words.iter().any(|word| finding.what.contains(word)))
    };
    EXCUSES.iter().find(fits).map(|excuse| excuse.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Want of memory excuses an allocator that gets none, and no other death of a server that runs.
    #[test]
    fn a_death_for_want_of_memory_is_known_by_its_last_words() {
        for call in ["mmap", "munmap", "mprotect", "mremap", "brk", "madvise"] {
            let fault = Fault { call: call.to_owned(), errno: "ENOMEM", when: "1" };
            let excused = |phase, kind, what: &str| {
                reason(phase, &fault, &Finding { kind, what: what.to_owned() }).is_some()
            };
            let aborted = "signal: 6 (SIGABRT): memory allocation of 4096 bytes failed";
            for phase in [Phase::Start, Phase::Serve] {
                assert!(excused(phase, Kind::Death, aborted));
                for what in [
                    "signal: 6 (SIGABRT): failed to set up alternative stack guard page",
                    "signal: 11 (SIGSEGV): ",
                    "thread 'dns' panicked at src/workers/resolver.rs:1:1:",
                ] {
                    assert!(!excused(phase, Kind::Death, what), "{call}: {what}");
                }
                assert!(!excused(phase, Kind::Stall, aborted));
                assert!(!excused(phase, Kind::WrongEnd, "download: 5 of 6 bytes"));
            }
            let loader = "at the start: signal: 11 (SIGSEGV): ";
            assert!(excused(Phase::Start, Kind::Death, loader));
            assert!(!excused(Phase::Serve, Kind::Death, loader));
        }
    }

    /// Bytes that were not sent, and false ends, are never excused.
    #[test]
    fn wrong_bytes_and_wrong_ends_are_never_excused() {
        let kinds = |excuse: &Excuse| excuse.kinds.to_vec();
        let wrong = |kind: &Kind| matches!(kind, Kind::WrongBytes | Kind::WrongEnd);
        assert!(!EXCUSES.iter().flat_map(kinds).any(|kind| wrong(&kind)));
    }
}
