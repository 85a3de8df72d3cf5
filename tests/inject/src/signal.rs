//! kill(2), and the end of children with this program: the calls that need `unsafe`.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Sends a signal to a process that this program has started, or one of its children.
pub fn send(pid: i32, signal: i32) {
    // 0 and -1 are whole groups, 1 is init.
    if pid > 1 {
        // SAFETY: kill takes two numbers and touches no memory of this process.
        unsafe { libc::kill(pid, signal) };
    }
}

/// Has the kernel send this signal to the process that the command starts, when the thread that starts it ends,
/// however that comes (PR_SET_PDEATHSIG(2const)).
pub fn die_with_parent(command: &mut Command, signal: i32) {
    let signal = libc::c_ulong::try_from(signal).unwrap_or_default();
    // SAFETY: between fork and exec only prctl is called, which takes numbers and is safe there: it is a plain
    // system call that allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || match libc::prctl(libc::PR_SET_PDEATHSIG, signal) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command};

    use super::*;

    #[test]
    fn a_child_ends_with_the_thread_that_has_started_it() {
        for signal in [libc::SIGKILL, libc::SIGTERM] {
            let start = move || -> io::Result<Child> {
                let mut command = Command::new("sleep");
                command.arg("1000");
                die_with_parent(&mut command, signal);
                command.spawn()
            };
            let mut child = std::thread::spawn(start).join().expect("no panic").expect("sleep(1)");
            assert_eq!(child.wait().expect("a child").signal(), Some(signal));
        }
    }
}
