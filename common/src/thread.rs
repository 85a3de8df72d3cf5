//! Threads by pthread_create(3), which reports when one cannot be started.
//!
//! A thread of Rust's library maps a stack for its signal handler when it is already running, and aborts the
//! process if there is no memory for that. Here everything that can fail happens before the thread exists.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::ffi::{CStr, c_void};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// The work of a thread.
type Work = Box<dyn FnOnce() + Send>;

/// Address space that a new thread has to leave to the rest of the process, in bytes. Where it is limited
/// (RLIMIT_AS, RLIMIT_DATA, strict overcommit), threads must not take the last of it: Rust aborts a process
/// that has no memory for its next buffer.
pub const MARGIN_BYTES: usize = 16 << 20;

/// Starts a detached thread. `name` is shown by ps(1): 15 bytes at most, longer ones are cut.
/// A panic ends the thread alone.
///
/// # Errors
/// If there is no memory for its stack beside [`MARGIN_BYTES`] for all else, or the system allows no more
/// threads.
pub fn start(
    name: &'static CStr,
    stack_bytes: usize,
    life: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    has_room(stack_bytes.saturating_add(MARGIN_BYTES))?;
    start_in_place(name, stack_bytes, life)
}

/// Like [`start`], in place of a thread that has ended: the C library has kept its stack for the next, so there
/// need not be room for another.
///
/// # Errors
/// If the system allows no more threads, or the stack was not kept and there is no memory for one.
pub fn start_in_place(
    name: &'static CStr,
    stack_bytes: usize,
    life: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let attributes = Attributes::new(stack_bytes)?;
    let life: Work = Box::new(move || {
        set_name(name);
        life();
    });
    let life = Box::into_raw(Box::new(life));
    let mut thread = 0;
    // SAFETY: `thread` and the attributes live during the call, which keeps neither. `start_routine` takes what `life`
    // points to, and it is the only one to do so: a Box of a closure that may be sent to another thread.
    let error = unsafe {
        libc::pthread_create(&raw mut thread, &raw const attributes.0, start_routine, life.cast())
    };
    if error == 0 {
        return Ok(());
    }
    // SAFETY: there is no thread, so the pointer is still this function's, as Box::into_raw gave it.
    drop(unsafe { Box::from_raw(life) });
    Err(io::Error::from_raw_os_error(error))
}

/// Attributes of a detached thread.
struct Attributes(libc::pthread_attr_t);

impl Attributes {
    fn new(stack_bytes: usize) -> io::Result<Self> {
        // SAFETY: pthread_attr_t is plain data; all zeros is a valid value to be initialised.
        let mut blank: libc::pthread_attr_t = unsafe { std::mem::zeroed() };
        // SAFETY: `blank` is valid, and the call keeps no pointer to it.
        done(unsafe { libc::pthread_attr_init(&raw mut blank) })?;
        // Only what has been initialised may be destroyed.
        let mut attributes = Attributes(blank);
        // SAFETY: the attributes have been initialised, and the call keeps no pointer.
        done(unsafe { libc::pthread_attr_setstacksize(&raw mut attributes.0, stack_bytes) })?;
        // SAFETY: as above.
        done(unsafe {
            libc::pthread_attr_setdetachstate(&raw mut attributes.0, libc::PTHREAD_CREATE_DETACHED)
        })?;
        Ok(attributes)
    }
}

/// The result of a call that returns its error number.
fn done(error: libc::c_int) -> io::Result<()> {
    match error {
        0 => Ok(()),
        _ => Err(io::Error::from_raw_os_error(error)),
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: `new` makes a value only of attributes that have been initialised; they are destroyed once, and
        // they are not used any more.
        unsafe { libc::pthread_attr_destroy(&raw mut self.0) };
    }
}

/// Whether `bytes` of memory are available: maps them and unmaps them untouched.
fn has_room(bytes: usize) -> io::Result<()> {
    let (access, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, at an address that the system chooses, touches nothing that is there.
    let place = unsafe { libc::mmap(ptr::null_mut(), bytes, access, kind, -1, 0) };
    if place == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this is the mapping just made, whole; nothing points into it.
    if unsafe { libc::munmap(place, bytes) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives the calling thread a lower priority: that of nice(1). A failure is harmless. Where priorities are those of
/// processes, nothing is changed.
pub fn lower_priority(nice: i32) {
    #[cfg(target_os = "linux")]
    // SAFETY: numbers in, a number out. On Linux 0 names the calling thread.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, nice);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = nice;
}

/// Names the calling thread. A failure is harmless.
fn set_name(name: &CStr) {
    #[cfg(target_os = "linux")]
    // SAFETY: the name ends in NUL, and the call copies 16 bytes of it at most.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
    }
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}

/// The start routine of a thread. No panic may leave it: the caller is C.
extern "C" fn start_routine(life: *mut c_void) -> *mut c_void {
    // SAFETY: this is the pointer that `start` made with Box::into_raw; it is passed to one thread, once.
    let life = unsafe { Box::from_raw(life.cast::<Work>()) };
    // The panic hook has logged it.
    let _ = catch_unwind(AssertUnwindSafe(*life));
    ptr::null_mut()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const LATE: Duration = Duration::from_secs(10);

    #[test]
    fn a_thread_lives_under_its_name() {
        let (tell, told) = mpsc::channel();
        let name = || std::fs::read_to_string("/proc/thread-self/comm");
        start(c"some", 128 * 1024, move || drop(tell.send(name()))).expect("a thread");
        let name = told.recv_timeout(LATE).expect("it lives").expect("Linux");
        assert_eq!(name, "some\n");
    }

    #[test]
    fn a_panic_ends_the_thread_alone() {
        let (tell, told) = mpsc::channel::<()>();
        let life = move || {
            let _dropped = tell;
            panic!("injected");
        };
        start(c"panics", 128 * 1024, life).expect("a thread");
        assert_eq!(told.recv_timeout(LATE), Err(mpsc::RecvTimeoutError::Disconnected));
    }

    /// What cannot be had is an error, and what the thread would have owned is dropped.
    #[test]
    fn a_thread_that_cannot_be_had_is_an_error() {
        for stack_bytes in [1 << 50, usize::MAX, 0, 1] {
            let (tell, told) = mpsc::channel::<()>();
            let error = start(c"never", stack_bytes, move || drop(tell)).expect_err("too much");
            assert!(error.raw_os_error().is_some(), "{error}");
            assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Disconnected));
        }
    }
}
