use std::time::Duration;

use super::*;
use crate::proto::secret::Secret;
use crate::workers::fixture::Loop;

/// A vector of the reference implementation: password `password`, salt `somesalt`.
const ARGON2: &str =
    "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
/// Another one, with two lanes.
const LANES_2: &str =
    "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc";
/// A vector of crypt_blowfish: password `U*U`.
const BCRYPT: &str = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

#[test]
fn known_hashes_are_those_of_their_passwords() {
    let mut hasher = Hasher::default();
    for (hash, password) in [
        (ARGON2, &b"password"[..]),
        (LANES_2, b"password"),
        (BCRYPT, b"U*U"),
        (&BCRYPT.replace("$2y$", "$2b$"), b"U*U"),
    ] {
        assert!(matches!(Secret::parse(hash.as_bytes()), Ok(Secret::Slow(_))), "{hash}");
        assert_eq!(hasher.verifies(Some(hash), password), Ok(true), "{hash}");
        for wrong in [&b"Password"[..], b"", b"password\0", b"U*U\0", b"U*U\0x", b"U*"] {
            assert_eq!(hasher.verifies(Some(hash), wrong), Ok(false), "{hash} {wrong:?}");
        }
    }
}

#[test]
fn a_new_hash_is_that_of_its_password() {
    let mut hasher = Hasher::default();
    let hash = hasher.hash(b"secret").expect("made");
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    assert!(matches!(Secret::parse(hash.as_bytes()), Ok(Secret::Slow(_))));
    assert_eq!(hasher.verifies(Some(&hash), b"secret"), Ok(true));
    assert_eq!(hasher.verifies(Some(&hash), b"secret2"), Ok(false));
    assert_ne!(hasher.hash(b"secret").expect("made"), hash);
    assert_eq!(hasher.verifies(None, b"secret"), Ok(false));
}

/// bcrypt looks at 72 bytes. What is behind them must not be ignored.
#[test]
fn a_password_that_bcrypt_would_cut_is_wrong() {
    let long = [b'a'; 72];
    let hash = bcrypt::hash_with_salt(long, 4, [7; 16]).expect("made").to_string();
    let mut longer = long.to_vec();
    longer.push(b'b');
    let mut hasher = Hasher::default();
    assert_eq!(hasher.verifies(Some(&hash), &longer), Ok(false));
    assert_eq!(hasher.verifies(Some(&hash), &long), Ok(false));
    let hash = bcrypt::hash_with_salt(&long[..71], 4, [7; 16]).expect("made").to_string();
    assert_eq!(hasher.verifies(Some(&hash), &long[..71]), Ok(true));
}

#[test]
fn a_hash_that_cannot_be_read_is_nobodys() {
    let mut hasher = Hasher::default();
    for hash in ["", "$argon2id$", "$argon2id$v=19$m=1,t=0,p=0$c29tZXNhbHQ$AAAA", "$2y$05$"] {
        assert_eq!(hasher.verifies(Some(hash), b"x"), Ok(false), "{hash}");
    }
}

#[test]
fn threads_answer_with_the_number_of_the_question() {
    let (mut events, waker) = Loop::new();
    let mut workers = verifications(1, waker);
    for (number, hash, right) in
        [(1, Some(ARGON2), true), (2, Some(BCRYPT), false), (3, None, false)]
    {
        let hash = hash.map(Into::into);
        let password = Password::new(b"password");
        workers.submit(Verification { number, hash, password, more: number != 3 });
        let answers = events.wait(Duration::from_secs(20), |now| {
            let check = workers.check(now);
            (workers.answers(), check)
        });
        let [answer] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!((answer.job.number, answer.outcome), (number, Ok(Ok(right))));
    }
}

#[test]
fn no_debug_print_shows_a_password() {
    let password = Password::new(b"hunter2");
    assert_eq!(format!("{password:?}"), "Password");
}
