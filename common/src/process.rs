//! What a process gives up or hides before it begins: core dumps, privileges, secrets in its arguments and
//! environment.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::ffi::{CStr, OsString};
use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// Adds what was being done to an error, for the one line that is shown: `cannot WHAT: ERROR`.
pub fn cannot(what: &str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}

/// Limits the number of heaps (glibc arenas). To be called before a second thread is started.
///
/// glibc otherwise gives each thread a heap of its own, and reserves 64 MiB of address space for it. Two are
/// enough: one for the loop, so that it waits for no lock, and one for all threads that look up names and write
/// logs. Where address space is limited (RLIMIT_AS) they share the loop's, which reserves nothing.
pub fn share_heaps() {
    #[cfg(target_env = "gnu")]
    {
        let heaps = if address_space().is_some() { 1 } else { 2 };
        // SAFETY: this parameter takes a number (mallopt(3)), and no other thread allocates yet.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, heaps) };
    }
}

/// The limit of this process's address space in bytes (RLIMIT_AS); `None` if there is none.
pub fn address_space() -> Option<usize> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that the call fills in and does not keep.
    let told = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) } == 0;
    let limited = told && limit.rlim_cur != libc::RLIM_INFINITY;
    limited.then(|| usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
}

/// Gives up what this process never needs and an intruder would like: core dumps, which hold passwords,
/// and new privileges through programs with the set-user-ID bit.
///
/// # Errors
/// If the system refuses.
pub fn harden() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` is a valid rlimit that the call only reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) } != 0 {
        return Err(cannot("give up core dumps")(io::Error::last_os_error()));
    }
    #[cfg(target_os = "linux")]
    // SAFETY: this option takes four numbers and no pointer (PR_SET_NO_NEW_PRIVS(2const)).
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(cannot("give up new privileges")(io::Error::last_os_error()));
    }
    Ok(())
}

/// Locks a file for this process until the file is closed (flock(2)).
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if another process has it.
pub fn lock(file: &fs::File) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the call takes a number besides.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

unsafe extern "C" {
    /// The variables of this process: pointers to `NAME=VALUE`, and null behind the last (environ(7)).
    static environ: *const *mut libc::c_char;
}

/// Takes a secret out of the environment: from the variables that children would inherit, and from the
/// memory that /proc/PID/environ shows. To be called before there is a second thread.
pub fn take_from_environment(variable: &str) -> Option<OsString> {
    let secret = std::env::var_os(variable);
    // SAFETY: there is no other thread that could read or change the environment. Each pointer before the null
    // leads to a string that ends in NUL and belongs to the process, which is allowed to write there; nothing
    // is read behind the NUL, and none is used any more when the environment changes.
    unsafe {
        let mut entry = environ;
        // A variable may be there twice.
        while !entry.is_null() && !(*entry).is_null() {
            let name = CStr::from_ptr(*entry).to_bytes();
            let value =
                name.strip_prefix(variable.as_bytes()).filter(|rest| rest.starts_with(b"="));
            if let Some(length) = value.map(|value| value.len().saturating_sub(1)) {
                let at = name.len().saturating_sub(length);
                (*entry).add(at).write_bytes(0, length);
            }
            entry = entry.add(1);
        }
        std::env::remove_var(variable);
    }
    secret
}

/// Overwrites parts of the command line (the program's name left out) in the memory that /proc/PID/cmdline
/// shows, and that ps(1) therefore shows to all users. `secrets` has a range of octets for each argument. Where
/// that memory does not hold the arguments that the program has got, as behind a loader, all of it is
/// overwritten but the first. To be called before there is a second thread; [`std::env::args_os`] sees what is
/// written here from then on.
///
/// # Errors
/// If /proc does not say where that memory is.
pub fn erase_arguments(secrets: &[Range<usize>]) -> io::Result<()> {
    let (start, end) = command_line()?;
    // SAFETY: the kernel says that these addresses, of this process, hold its arguments: strings on its stack,
    // which it may write to. The standard library and libc keep pointers to them (argv), but no references, and
    // copy from there only on request. There is no request while this slice lives, since there is no other thread.
    // Later each string still ends where it did, since no NUL is overwritten.
    let memory = unsafe {
        let length = end.saturating_sub(start);
        std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut::<u8>(start), length)
    };
    erase(memory, secrets);
    Ok(())
}

fn erase(memory: &mut [u8], secrets: &[Range<usize>]) {
    const INSTEAD: u8 = b'*';
    let arguments = memory.strip_suffix(b"\0").unwrap_or(memory).split(|byte| *byte == 0).count();
    let expected = arguments == secrets.len().saturating_add(1);
    for (index, argument) in memory.split_mut(|byte| *byte == 0).enumerate() {
        let Some(index) = index.checked_sub(1) else { continue };
        let secret = match secrets.get(index) {
            Some(secret) if expected => argument.get_mut(secret.clone()),
            _ => Some(argument),
        };
        secret.unwrap_or_default().fill(INSTEAD);
    }
}

/// Where the arguments of this process begin and end in its memory: fields 48 and 49 of proc_pid_stat(5).
fn command_line() -> io::Result<(usize, usize)> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in brackets, may hold anything; the third field follows it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let mut addresses = fields.skip(48 - 3).map(|field| field.parse::<usize>());
    match (addresses.next(), addresses.next()) {
        // Under an emulator they may be missing, which shows as 0.
        (Some(Ok(start @ 1..)), Some(Ok(end))) if start < end => Ok((start, end)),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Lets a write to a file that may not grow fail, instead of ending the process.
pub fn ignore_file_size_signal() {
    ignore(libc::SIGXFSZ);
}

/// Ignores a signal (SIG_IGN). A number that is no signal changes nothing.
pub fn ignore(signal: i32) {
    // SAFETY: this call takes two numbers, SIG_IGN being one; no handler is installed. A number that is no signal
    // is refused, and changes nothing.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn erased(memory: &[u8], secrets: &[Range<usize>]) -> String {
        let mut memory = memory.to_vec();
        erase(&mut memory, secrets);
        String::from_utf8(memory).expect("text").replace('\0', " ")
    }

    #[test]
    fn what_is_secret_is_overwritten_and_no_more() {
        let line = b"socks5d\0-u\0a:secret\0-p\x001080\0";
        assert_eq!(erased(line, &[0..0, 2..8, 0..0, 0..0]), "socks5d -u a:****** -p 1080 ");
        // What goes beyond the argument, or belongs to another command line, is no reason to keep a secret.
        assert_eq!(erased(line, &[0..0, 2..8]), "socks5d ** ******** ** **** ");
        assert_eq!(erased(b"x\0", &[]), "x ");
        assert_eq!(erased(b"x\0\0y\0", &[0..0, 0..1]), "x  * ");
        assert_eq!(erased(b"", &[0..1, 0..1]), "");
    }
}
