//! Digests of logins: what the server keeps of passwords.
//!
//! A digest is BLAKE2b (RFC 7693) of a name and its password, keyed with random bytes of this process. It shows neither
//! of the two, differs from process to process, and is worth nothing outside the process. It is no password hash: it
//! takes less than a microsecond, so that each login can be compared with it.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::hint::black_box;

use blake2::Blake2bMac;
use blake2::digest::consts::U32;
use blake2::digest::{FixedOutput, KeyInit, Update};

/// The size of the key, in bytes.
const KEY_BYTES: usize = 64;
/// The size of a digest, in bytes.
const BYTES: usize = 32;

/// The key of a process. No debug print shows it.
pub struct DigestKey(Blake2bMac<U32>);

/// The digest of a name and its password. As a key of a table it may be compared in a time that shows something of it:
/// nobody who does not know the key of the process can make one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Digest([u8; BYTES]);

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestKey")
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

impl DigestKey {
    /// A key of 128 random bits of the system, which SipHash makes longer.
    pub fn random() -> Self {
        let random = RandomState::new();
        let mut key = [0; KEY_BYTES];
        for (number, part) in key.chunks_mut(8).enumerate() {
            part.copy_from_slice(&random.hash_one(number).to_ne_bytes());
        }
        DigestKey(Blake2bMac::new(&key.into()))
    }

    /// The digest of a name and a password. Their lengths are in it: `ab`, `c` is another login than `a`, `bc`. So is the
    /// number of the credential: what was right once is not right for the next one.
    pub fn digest(&self, epoch: u64, name: &[u8], password: &[u8]) -> Digest {
        let mut mac = self.0.clone();
        mac.update(&epoch.to_le_bytes());
        for part in [name, password] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        Digest(mac.finalize_fixed().into())
    }
}

impl Digest {
    /// Whether both are the same, in a time that depends on neither.
    pub fn matches(&self, other: &Digest) -> bool {
        let pairs = self.0.iter().zip(&other.0);
        black_box(pairs.fold(0, |differs, (a, b)| black_box(differs | (a ^ b)))) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_one_login() {
        let key = DigestKey::random();
        let digest = key.digest(0, b"alice", b"secret");
        assert!(digest.matches(&key.digest(0, b"alice", b"secret")));
        for (name, password) in [
            (&b"alice"[..], &b"secre"[..]),
            (b"alice", b"secret\0"),
            (b"alice", b""),
            (b"alices", b"ecret"),
            (b"alic", b"esecret"),
            (b"", b"alicesecret"),
            (b"Alice", b"secret"),
        ] {
            assert!(!digest.matches(&key.digest(0, name, password)), "{name:?} {password:?}");
        }
        assert!(!digest.matches(&key.digest(1, b"alice", b"secret")));
    }

    #[test]
    fn each_process_has_its_own_key() {
        let digest = |key: &DigestKey| key.digest(0, b"alice", b"secret");
        assert!(!digest(&DigestKey::random()).matches(&digest(&DigestKey::random())));
    }

    /// As Python's hashlib has it:
    /// `blake2b(b"\0" * 8 + b"\x01" + b"\0" * 7 + b"a" + b"\x01" + b"\0" * 7 + b"b", digest_size=32, key=bytes(64))`.
    #[test]
    fn it_is_blake2b() {
        let key = DigestKey(Blake2bMac::new(&[0; KEY_BYTES].into()));
        let Digest(bytes) = key.digest(0, b"a", b"b");
        let shown: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, "109b5f15c7efd256981d307b90a69807ab9e316e72c66b84da03f852b56fc254");
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let key = DigestKey::random();
        assert_eq!(format!("{key:?} {:?}", key.digest(0, b"a", b"b")), "DigestKey Digest");
    }
}
