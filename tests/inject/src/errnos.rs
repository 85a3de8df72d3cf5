//! Which errors make sense for which system call: those of its man page, and those that a seccomp policy, a
//! sandbox such as gVisor, or want of memory gives in their place.

/// Refused by a policy or unknown to the kernel, or memory is short: any call.
const ANY: [&str; 4] = ["ENOMEM", "EPERM", "ENOSYS", "EINVAL"];

/// Calls that are left alone: they cannot fail, or what they do must happen whatever they answer.
const UNTOUCHED: [&str; 9] = [
    "execve",
    "exit",
    "exit_group",
    "rt_sigreturn",
    "restart_syscall",
    "arch_prctl",
    "set_tid_address",
    "kill",
    "tgkill",
];

/// The errors for a call, the most likely first; none if it is left alone.
pub fn of(call: &str) -> Vec<&'static str> {
    if UNTOUCHED.contains(&call) {
        return Vec::new();
    }
    let own: &[&str] = match call {
        "accept" | "accept4" => {
            &["EMFILE", "ECONNABORTED", "EAGAIN", "EINTR", "ENFILE", "ENOBUFS", "EPROTO", "EIO"]
        }
        "recvfrom" | "recvmsg" | "recv" => {
            &["ECONNRESET", "EAGAIN", "EINTR", "ETIMEDOUT", "ENOBUFS", "EHOSTUNREACH", "EIO"]
        }
        "sendto" | "sendmsg" | "send" => {
            &["EPIPE", "ECONNRESET", "EAGAIN", "EINTR", "ENOBUFS", "ETIMEDOUT", "EIO"]
        }
        "recvmmsg" => &["ECONNREFUSED", "EAGAIN", "EINTR", "ENOBUFS", "EHOSTUNREACH", "EIO"],
        "sendmmsg" => &[
            "ECONNREFUSED",
            "EAGAIN",
            "EINTR",
            "ENOBUFS",
            "EMSGSIZE",
            "ENETUNREACH",
            "EIO",
            "EOPNOTSUPP",
        ],
        "read" | "readv" | "pread64" => &["EIO", "EAGAIN", "EINTR", "ECONNRESET"],
        "write" | "writev" => &["ENOSPC", "EPIPE", "EAGAIN", "EINTR", "EIO", "EFBIG"],
        "splice" => &["ECONNRESET", "EPIPE", "EAGAIN", "EINTR", "EIO", "EBADF", "ETIMEDOUT"],
        "socket" => &["EMFILE", "ENFILE", "ENOBUFS", "EACCES", "EAFNOSUPPORT"],
        "connect" => &[
            "ECONNREFUSED",
            "EADDRNOTAVAIL",
            "ENETUNREACH",
            "EHOSTUNREACH",
            "ETIMEDOUT",
            "EACCES",
            "EINTR",
            "EAGAIN",
        ],
        "bind" => &["EADDRINUSE", "EACCES", "EADDRNOTAVAIL", "ENOBUFS"],
        "listen" => &["EADDRINUSE"],
        "setsockopt" | "getsockopt" => &["ENOPROTOOPT", "ENOBUFS"],
        "getsockname" | "getpeername" => &["ENOBUFS", "ENOTCONN"],
        "shutdown" => &["ENOBUFS", "ENOTCONN"],
        "epoll_ctl" => &["ENOSPC", "EEXIST", "ENOENT"],
        "epoll_wait" | "epoll_pwait" => &["EINTR", "EBADF"],
        "epoll_create1" | "eventfd2" | "pipe2" | "dup" | "fcntl" => {
            &["EMFILE", "ENFILE", "EBUSY", "EAGAIN"]
        }
        "close" => &["EIO", "EINTR"],
        "openat" | "open" => &["EMFILE", "ENFILE", "ENOENT", "EACCES", "EIO"],
        "futex" => &["EAGAIN", "EINTR", "ETIMEDOUT"],
        "mmap" | "mprotect" | "munmap" | "mremap" | "madvise" | "brk" => &["EAGAIN"],
        "clone" | "clone3" => &["EAGAIN"],
        "poll" | "ppoll" | "select" | "pselect6" => &["EINTR"],
        "getrandom" => &["EINTR", "EAGAIN"],
        "ioctl" => &["ENOTTY"],
        _ => &[],
    };
    own.iter().chain(&ANY).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_has_an_error_twice() {
        for call in [
            "accept4", "recvfrom", "sendto", "recvmmsg", "sendmmsg", "splice", "fcntl", "close",
            "uname",
        ] {
            let errnos = of(call);
            let mut once = errnos.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), errnos.len(), "{call}");
            assert!(ANY.iter().all(|errno| errnos.contains(errno)), "{call}");
        }
        assert!(of("exit_group").is_empty());
    }
}
