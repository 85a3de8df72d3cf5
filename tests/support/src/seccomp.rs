//! System calls that the kernel refuses to a child, as under a container's policy: a seccomp(2) filter that
//! is installed between fork and exec. It needs no privilege.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use libc::{c_ulong, sock_filter, sock_fprog};

/// A system call that is answered with an error and not made.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// Its number, for instance `libc::SYS_splice`.
    pub call: libc::c_long,
    /// Only where this argument, counted from zero, has this value.
    pub argument: Option<(u8, u32)>,
    /// The error, for instance `libc::ENOSYS`.
    pub errno: i32,
}

/// Offsets in `struct seccomp_data`: the number of the call, and the lower half of its first argument.
const NUMBER: u32 = 0;
const ARGUMENTS: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

/// Whether filters can be had here.
pub fn available() -> bool {
    let mut command = Command::new("true");
    command.stdin(Stdio::null());
    refuse(&mut command, &[]);
    command.status().is_ok_and(|status| status.success())
}

/// Has the kernel refuse these calls to the command and all that it starts.
pub fn refuse(command: &mut Command, refusals: &[Refusal]) {
    let mut filter = program(refusals);
    let install = move || {
        let length = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let program = sock_fprog { len: length, filter: filter.as_mut_ptr() };
        let unused: c_ulong = 0;
        // SAFETY: this option takes numbers alone.
        if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as c_ulong, unused, unused, unused) }
            != 0
        {
            return Err(io::Error::last_os_error());
        }
        let mode = c_ulong::from(libc::SECCOMP_MODE_FILTER);
        // SAFETY: `program` points to `length` instructions that outlive the call, which copies them.
        if unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and exec the function makes system calls alone: it neither allocates nor locks.
    unsafe { command.pre_exec(install) };
}

/// For each refusal: load the number, skip what follows if it is another; load the argument, skip; answer.
fn program(refusals: &[Refusal]) -> Vec<sock_filter> {
    let statement = |code, k| sock_filter { code, jt: 0, jf: 0, k };
    let load = |offset| statement((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, offset);
    let unless = |k, jf| sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf,
        k,
    };
    let answer = |verdict| statement((libc::BPF_RET | libc::BPF_K) as u16, verdict);
    let mut filter = Vec::new();
    for refusal in refusals {
        let number = u32::try_from(refusal.call).expect("numbers of calls are small");
        let errno = u32::try_from(refusal.errno).expect("an errno");
        filter
            .extend([load(NUMBER), unless(number, if refusal.argument.is_some() { 3 } else { 1 })]);
        if let Some((index, value)) = refusal.argument {
            filter.extend([load(ARGUMENTS + 8 * u32::from(index)), unless(value, 1)]);
        }
        filter.push(answer(libc::SECCOMP_RET_ERRNO | errno));
    }
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    filter
}
