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
    reason: &'static str,
}

const EXCUSES: [Excuse; 14] = [
    Excuse {
        phase: None,
        calls: &["accept4"],
        errnos: &[],
        lasting: true,
        kinds: &[Kind::Stall],
        reason: "nobody can be let in, or sent away, while accept fails: the kernel holds the connections",
    },
    Excuse {
        phase: None,
        calls: &["mmap", "munmap", "mprotect", "mremap", "brk", "madvise"],
        errnos: &[],
        lasting: false,
        kinds: &[Kind::Death],
        reason: "Rust's allocator aborts where it gets no memory, and glibc's loader and threads without theirs",
    },
    Excuse {
        phase: None,
        calls: &["futex"],
        errnos: &[],
        lasting: false,
        kinds: &[Kind::Death, Kind::Stall, Kind::NotServed, Kind::Spin],
        reason: "locks of glibc and Rust: a futex that does not wait or wake has no way back",
    },
    Excuse {
        phase: None,
        calls: &["epoll_wait", "epoll_pwait"],
        errnos: &[],
        lasting: false,
        kinds: &[Kind::Death, Kind::Stall, Kind::NotServed, Kind::Spin],
        reason: "without events there is no loop: if it fails again and again the server says so and ends",
    },
    Excuse {
        phase: None,
        calls: &["recvfrom", "sendto", "splice", "read", "accept4", "recvmsg", "writev"],
        errnos: &["EAGAIN"],
        lasting: false,
        kinds: &[Kind::Stall, Kind::Leak],
        reason: "a lie: the kernel says EAGAIN where it has bytes or room, and tells an edge once",
    },
    Excuse {
        phase: None,
        calls: &["close"],
        errnos: &[],
        lasting: false,
        kinds: &[Kind::Leak, Kind::Stall, Kind::NotServed],
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
        reason: "the loader of glibc, before the program runs",
    },
    Excuse {
        phase: Some(Phase::Start),
        calls: &["poll", "rt_sigaction", "sigaltstack", "rt_sigprocmask", "sched_getaffinity"],
        errnos: &[],
        lasting: false,
        kinds: &[Kind::Death],
        reason: "Rust's runtime, before main",
    },
    Excuse {
        phase: Some(Phase::Start),
        calls: &["getrandom", "poll"],
        errnos: &["EINTR", "EAGAIN"],
        lasting: true,
        kinds: &[Kind::Stall],
        reason: "Rust's runtime tries again for ever where it is interrupted for ever",
    },
    Excuse {
        phase: None,
        calls: &["read", "write"],
        errnos: &["EINTR"],
        lasting: true,
        kinds: &[Kind::Stall, Kind::Spin],
        reason: "Rust's std and the threads of the logs try again for ever where they are interrupted for ever",
    },
    Excuse {
        phase: Some(Phase::Start),
        calls: &["rt_sigprocmask"],
        errnos: &[],
        lasting: false,
        kinds: &[Kind::Stall],
        reason: "glibc blocks all signals while it starts a thread, and cannot unblock them",
    },
    Excuse {
        phase: Some(Phase::Start),
        calls: &["write"],
        errnos: &[],
        lasting: true,
        kinds: &[Kind::Stall],
        reason: "a handler of signals may do little more than write: SIGTERM is lost while that fails for ever",
    },
    Excuse {
        phase: None,
        calls: &["shutdown"],
        errnos: &["ENOTCONN"],
        lasting: false,
        kinds: &[Kind::Stall],
        reason: "a lie: the kernel says that a connection is over that is not; where it is, an event tells so",
    },
    Excuse {
        phase: None,
        calls: &["rseq", "set_robust_list"],
        errnos: &[],
        lasting: false,
        kinds: &[Kind::Death],
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
    };
    EXCUSES.iter().find(fits).map(|excuse| excuse.reason)
}
