//! getaddrinfo(3), called directly: its error codes distinguish an answer about the name from a failure of this
//! machine.
//!
//! The address list is freed here; no type of C leaves this file.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::ffi::c_int;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ptr;

use super::families::Family;
use crate::reactor::errno;

/// Bytes of a name and its NUL, at most: a longer one is not a name.
const NAME_BYTES: usize = 256;

/// All addresses of a name in one family for TCP, in order of preference, with port 0. Blocks, possibly for many
/// seconds. Allocates nothing in Rust but the list, so that want of memory is an error and no abort.
///
/// Not with AI_ADDRCONFIG: glibc then returns EAI_NONAME, also for what /etc/hosts has, unless an interface has an
/// address of the family that is not a loopback address; and a link-local one is enough for it to ask for AAAA records.
///
/// # Errors
/// - `NotFound`: there is no such name, or it has no address of the family (EAI_NONAME and the like).
/// - `TimedOut`: no name server has given an answer (EAI_AGAIN, EAI_FAIL).
/// - All others are failures of this machine, such as EMFILE and ENOMEM, and say nothing about the name.
pub fn look_up(name: &str, family: Family) -> io::Result<Vec<SocketAddr>> {
    let mut text = [0_u8; NAME_BYTES];
    let bytes = name.as_bytes();
    match text.get_mut(..bytes.len()) {
        Some(place) if bytes.len() < NAME_BYTES && !bytes.contains(&0) => {
            place.copy_from_slice(bytes);
        }
        _ => return Err(io::ErrorKind::NotFound.into()),
    }
    // SAFETY: addrinfo is plain data; all zeros, and null pointers, is how hints are to begin.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_family = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = List(ptr::null_mut());
    set_errno(0);
    // SAFETY: `text` ends in NUL, since its last byte at least is still 0; it and the hints are only read. The
    // call stores a list in `list` if it succeeds, and otherwise leaves it alone.
    let code = unsafe {
        libc::getaddrinfo(text.as_ptr().cast(), ptr::null(), &raw const hints, &raw mut list.0)
    };
    if code != 0 {
        return Err(failure(code, io::Error::last_os_error().raw_os_error().unwrap_or(0)));
    }
    list.addresses()
}

/// The meaning of a code of getaddrinfo, or of getnameinfo; `errno` is its value after the call.
///
/// glibc 2.36 returns EAI_NONAME when it could not read its own configuration for want of a descriptor, so errno has
/// precedence if it means a shortage, or a disk that cannot be read.
pub(super) fn failure(code: c_int, errno: c_int) -> io::Error {
    match (code, errno) {
        _ if errno::is_shortage(errno) || errno == libc::EIO => io::Error::from_raw_os_error(errno),
        // glibc 2.36 may have lost errno by then.
        (libc::EAI_SYSTEM, 0) => io::ErrorKind::Other.into(),
        (libc::EAI_SYSTEM, _) => io::Error::from_raw_os_error(errno),
        (libc::EAI_MEMORY, _) => io::ErrorKind::OutOfMemory.into(),
        (libc::EAI_AGAIN | libc::EAI_FAIL, _) => io::ErrorKind::TimedOut.into(),
        (libc::EAI_NONAME | libc::EAI_NODATA | EAI_ADDRFAMILY, _) => io::ErrorKind::NotFound.into(),
        _ => io::ErrorKind::Other.into(),
    }
}

/// The name has addresses, of no family that is known. glibc's netdb.h; the crate libc lacks it.
const EAI_ADDRFAMILY: c_int = -9;

pub(super) fn set_errno(value: c_int) {
    // SAFETY: errno belongs to this thread; the pointer is valid as long as the thread is.
    unsafe { *libc::__errno_location() = value };
}

/// A list from getaddrinfo, or null.
struct List(*mut libc::addrinfo);

impl Drop for List {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the list came from getaddrinfo and is freed once.
            unsafe { libc::freeaddrinfo(self.0) };
        }
    }
}

impl List {
    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let mut addresses = Vec::new();
        let mut next = self.0;
        while !next.is_null() {
            // SAFETY: it is not null, so it leads to an entry of the list, which lives as long as `self`.
            let entry = unsafe { &*next };
            next = entry.ai_next;
            if let Some(address) = address(entry) {
                addresses.try_reserve(1).map_err(|_| io::ErrorKind::OutOfMemory)?;
                addresses.push(address);
            }
        }
        Ok(addresses)
    }
}

fn address(entry: &libc::addrinfo) -> Option<SocketAddr> {
    let bytes = usize::try_from(entry.ai_addrlen).ok()?;
    match entry.ai_family {
        _ if entry.ai_addr.is_null() => None,
        libc::AF_INET if bytes >= size_of::<libc::sockaddr_in>() => {
            // SAFETY: an address of this family and length is a sockaddr_in, wherever it lies.
            let found = unsafe { entry.ai_addr.cast::<libc::sockaddr_in>().read_unaligned() };
            let ip = Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(found.sin_port)).into())
        }
        libc::AF_INET6 if bytes >= size_of::<libc::sockaddr_in6>() => {
            // SAFETY: an address of this family and length is a sockaddr_in6, wherever it lies.
            let found = unsafe { entry.ai_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
            let ip = Ipv6Addr::from(found.sin6_addr.s6_addr);
            let port = u16::from_be(found.sin6_port);
            Some(SocketAddrV6::new(ip, port, found.sin6_flowinfo, found.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_as_they_are_spelt() {
        let v4 = SocketAddr::from(([192, 0, 2, 7], 0));
        for (name, address) in [
            ("192.0.2.7", "192.0.2.7:0"),
            ("127.1", "127.0.0.1:0"),
            ("0x7f.1", "127.0.0.1:0"),
            ("2001:db8::7", "[2001:db8::7]:0"),
            ("::ffff:192.0.2.7", "[::ffff:192.0.2.7]:0"),
        ] {
            let address: SocketAddr = address.parse().expect("an address");
            let family = Family::of(address);
            assert_eq!(look_up(name, family).expect(name), [address], "{name}");
            match look_up(name, family.other()) {
                // The C library takes off what is mapped.
                Ok(found) => assert_eq!((name, found), ("::ffff:192.0.2.7", vec![v4])),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound, "{name}"),
            }
        }
    }

    /// What the C interface does not take is no name; nothing is cut off.
    #[test]
    fn what_cannot_be_a_name_is_not_found() {
        for name in ["127.0.0.1\0", "\0", &"1".repeat(256), &"1".repeat(100_000)] {
            for family in Family::ALL {
                let error = look_up(name, family).expect_err("no name");
                assert_eq!(error.kind(), io::ErrorKind::NotFound, "{}", name.len());
            }
        }
    }

    #[test]
    fn only_an_answer_about_the_name_is_not_found() {
        let kind = |code, errno| failure(code, errno).kind();
        for code in [libc::EAI_NONAME, libc::EAI_NODATA, EAI_ADDRFAMILY] {
            assert_eq!(kind(code, 0), io::ErrorKind::NotFound);
            // errno was left by an earlier failure on the way to the answer.
            assert_eq!(kind(code, libc::ENOENT), io::ErrorKind::NotFound);
            assert_eq!(kind(code, libc::ECONNREFUSED), io::ErrorKind::NotFound);
        }
        for code in [libc::EAI_AGAIN, libc::EAI_FAIL] {
            assert_eq!(kind(code, libc::EAGAIN), io::ErrorKind::TimedOut);
        }
        for code in [libc::EAI_NONAME, libc::EAI_AGAIN, libc::EAI_FAIL, libc::EAI_SYSTEM] {
            for errno in
                [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::ENOSPC, libc::EIO]
            {
                assert_eq!(failure(code, errno).raw_os_error(), Some(errno));
            }
        }
        assert_eq!(failure(libc::EAI_SYSTEM, libc::EPERM).raw_os_error(), Some(libc::EPERM));
        assert_eq!(failure(libc::EAI_SYSTEM, 0).raw_os_error(), None);
        assert_eq!(kind(libc::EAI_MEMORY, 0), io::ErrorKind::OutOfMemory);
        for code in [libc::EAI_FAMILY, libc::EAI_BADFLAGS, libc::EAI_OVERFLOW, 12345] {
            assert_eq!(kind(code, 0), io::ErrorKind::Other);
        }
    }
}
