//! getnameinfo(3), called directly: the name of an address, or an error that distinguishes an answer about the address
//! from a failure of this machine.
//!
//! Whoever owns an address decides what its name is, so what comes back is checked here; no type of C leaves this file.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::ffi::c_int;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ptr;

use socket2::SockAddr;

use super::getaddrinfo::{failure, set_errno};

/// Bytes of a name and its NUL, at most: the replies of SOCKS5 have one byte for the length of a name.
const NAME_BYTES: libc::socklen_t = 256;

/// The name of an address: 1 to 255 bytes of printable ASCII without blanks. Blocks, possibly for many seconds.
/// Allocates nothing in Rust but the name, so that want of memory is an error and no abort.
///
/// With NI_NAMEREQD, since an address without a name is otherwise returned as text.
///
/// # Errors
/// - `NotFound`: the address has no name (EAI_NONAME and the like), or none that is made of these bytes.
/// - `TimedOut`: no name server has given an answer (EAI_AGAIN, EAI_FAIL).
/// - All others are failures of this machine, such as EMFILE and ENOMEM, and say nothing about the address.
pub fn look_up(address: IpAddr) -> io::Result<String> {
    let address = SockAddr::from(SocketAddr::new(address, 0));
    let mut text = [0_u8; NAME_BYTES as usize];
    set_errno(0);
    // SAFETY: the address is read only, and as long as is said. The call writes up to NAME_BYTES bytes to `text`, which
    // has them; with a null pointer and no room, it looks for no service.
    let code = unsafe {
        libc::getnameinfo(
            address.as_ptr().cast(),
            address.len(),
            text.as_mut_ptr().cast(),
            NAME_BYTES,
            ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if code != 0 {
        return Err(error(code, io::Error::last_os_error().raw_os_error().unwrap_or(0)));
    }
    checked(&text)
}

/// The meaning of a code of getnameinfo; `errno` is its value after the call.
fn error(code: c_int, errno: c_int) -> io::Error {
    match code {
        // There is a name, and it is too long.
        libc::EAI_OVERFLOW => io::ErrorKind::NotFound.into(),
        _ => failure(code, errno),
    }
}

/// The text before the first NUL, if it can be the name of a host.
fn checked(text: &[u8]) -> io::Result<String> {
    let bytes = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let is_good = (1..NAME_BYTES as usize).contains(&bytes.len());
    let Ok(name) = str::from_utf8(bytes) else { return Err(io::ErrorKind::NotFound.into()) };
    if !is_good || !bytes.iter().all(u8::is_ascii_graphic) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut copy = String::new();
    copy.try_reserve_exact(name.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
    copy.push_str(name);
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn kind(name: io::Result<String>) -> Result<String, io::ErrorKind> {
        name.map_err(|error| error.kind())
    }

    /// Which of several lines of /etc/hosts counts is up to the C library, which takes ::1 for 127.0.0.1 too.
    #[test]
    fn loopback_has_a_name_that_hosts_has() {
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
        let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            // Without a line of its own it is up to name servers.
            if words.iter().any(|word| word.parse() == Ok(address)) {
                let name = look_up(address).expect("a name");
                assert!(words.contains(&name.as_str()), "{address}: {name}");
            }
        }
    }

    /// What a name server returns may be anything.
    #[test]
    fn what_cannot_be_a_name_is_not_found() {
        let longest = "a".repeat(255);
        for good in ["a", "host.example", "_x.example", "under_score", "a!b~", &longest] {
            let text = [good.as_bytes(), b"\0"].concat();
            assert_eq!(kind(checked(&text)), Ok(good.to_owned()));
        }
        let too_long = "a".repeat(256);
        for bad in ["", " ", "a b", "a\tb", "a\nb", "a\x7f", "\x1b[2J", "n\u{e4}me", &too_long] {
            let text = [bad.as_bytes(), b"\0"].concat();
            assert_eq!(kind(checked(&text)), Err(io::ErrorKind::NotFound), "{bad:?}");
        }
        assert_eq!(kind(checked(b"\xff\xfe\0")), Err(io::ErrorKind::NotFound));
        assert_eq!(kind(checked(b"")), Err(io::ErrorKind::NotFound));
        assert_eq!(kind(checked(b"a.example\0b.example\0")), Ok("a.example".to_owned()));
    }

    #[test]
    fn only_an_answer_about_the_address_is_not_found() {
        let kind = |code, errno| error(code, errno).kind();
        for errno in [0, libc::ENOENT, libc::ECONNREFUSED, libc::ERANGE] {
            assert_eq!(kind(libc::EAI_NONAME, errno), io::ErrorKind::NotFound);
            assert_eq!(kind(libc::EAI_AGAIN, errno), io::ErrorKind::TimedOut);
            assert_eq!(kind(libc::EAI_FAIL, errno), io::ErrorKind::TimedOut);
        }
        // The name has been found, whatever was short before.
        assert_eq!(kind(libc::EAI_OVERFLOW, libc::EMFILE), io::ErrorKind::NotFound);
        for code in [libc::EAI_NONAME, libc::EAI_AGAIN, libc::EAI_SYSTEM] {
            assert_eq!(error(code, libc::EMFILE).raw_os_error(), Some(libc::EMFILE));
        }
        assert_eq!(kind(libc::EAI_MEMORY, 0), io::ErrorKind::OutOfMemory);
        assert_eq!(kind(libc::EAI_FAMILY, 0), io::ErrorKind::Other);
    }
}
