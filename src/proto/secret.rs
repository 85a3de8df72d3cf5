//! Secrets as the users file has them: what a password is compared with.
//!
//! | secret | what it is |
//! |---|---|
//! | `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH` | Argon2id (RFC 9106), in PHC string format: for passwords that people choose |
//! | `$2b$05$...`, `$2y$05$...` | bcrypt, as `htpasswd -B` makes it: read, never made |
//! | `$b2$SALT$HASH` | BLAKE2b-256 (RFC 7693) of salt and password: for generated passwords alone |
//! | `=PASSWORD` | the password itself, with `\xHH` as METP has it |
//! | nothing | nobody's: no password fits |
//!
//! A hash that would take too much time or memory is refused here, so that none is ever computed.

use std::fmt;
use std::hint::black_box;
use std::ops::RangeInclusive;

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use common::secrets::wipe;
use metp_protocol::acceptable_password;
use metp_protocol::text::unescape;

/// The longest secret, in bytes, as text.
pub const LONGEST_SECRET: usize = 1024;

/// The most memory of an Argon2id hash, in KiB.
pub const MOST_MEMORY_KIB: u32 = 64 * 1024;
/// The most work of an Argon2id hash: its memory in KiB times its passes.
const MOST_WORK: u64 = 256 * 1024;
/// The most lanes of an Argon2id hash.
const MOST_LANES: u32 = 16;
/// The version of Argon2 in RFC 9106.
const ARGON2_VERSION: u32 = 0x13;
/// The sizes of an Argon2id hash, in bytes.
const HASH_BYTES: RangeInclusive<usize> = 16..=64;
/// The costs of bcrypt, as powers of two.
const BCRYPT_COSTS: RangeInclusive<u32> = 4..=13;
/// The length of a bcrypt hash, as text.
const BCRYPT_LENGTH: usize = 60;
/// The name of the scheme for generated passwords.
const TOKEN_SCHEME: &str = "b2";

/// A secret. No debug print shows it. A password in clear is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// Nobody's.
    None,
    /// A password in clear: 1 to 255 bytes.
    Clear(Box<[u8]>),
    /// That of a generated password.
    Token(Box<Token>),
    /// Argon2id or bcrypt, as text: a hash that takes milliseconds.
    Slow(Box<str>),
}

/// The hash of a generated password: fast, since such a password cannot be guessed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    salt: [u8; 16],
    hash: [u8; 32],
}

/// What is wrong with a secret. Displays as a sentence; nothing of the secret is in it but the name of its scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is longer than [`LONGEST_SECRET`].
    TooLong,
    /// It is none of those that are known.
    Unknown,
    /// Its scheme is known, the rest cannot be read.
    Malformed(&'static str),
    /// It is known, and weak: apr1, MD5, SHA-crypt, DES.
    Unsupported,
    /// It would take too long, or too much memory.
    TooCostly,
    /// The password in clear is longer than 255 bytes, or holds NUL, CR or LF.
    Password,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::TooLong => write!(f, "the secret has more than {LONGEST_SECRET} bytes"),
            Fault::Unknown => f.write_str(
                "the secret is no $argon2id$, $2b$, $2y$ or $b2$ hash; a password in clear begins with =",
            ),
            Fault::Malformed(scheme) => write!(f, "the {scheme} hash is malformed"),
            Fault::Unsupported => {
                f.write_str("this kind of hash is not supported; use htpasswd -B or socks5d --hash-password")
            }
            Fault::TooCostly => write!(
                f,
                "the hash is too costly: at most m={MOST_MEMORY_KIB}, m times t {MOST_WORK}, p={MOST_LANES} for argon2id, and {} for bcrypt",
                BCRYPT_COSTS.end(),
            ),
            Fault::Password => {
                f.write_str("a password has 1 to 255 bytes and holds no NUL, CR or LF")
            }
        }
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        if let Secret::Clear(password) = self {
            wipe(password);
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Secret::None => "None",
            Secret::Clear(_) => "Clear",
            Secret::Token(_) => "Token",
            Secret::Slow(_) => "Slow",
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Secret {
    /// Reads a secret.
    ///
    /// # Errors
    /// [`Fault`].
    ///
    /// ```
    /// use socks5d::proto::secret::{Fault, Secret};
    ///
    /// assert_eq!(Secret::parse(b"=in\\x20clear"), Ok(Secret::Clear(b"in clear".as_slice().into())));
    /// assert_eq!(Secret::parse(b"$apr1$salt$hash"), Err(Fault::Unsupported));
    /// ```
    pub fn parse(text: &[u8]) -> Result<Secret, Fault> {
        if text.len() > LONGEST_SECRET {
            return Err(Fault::TooLong);
        }
        if let Some(password) = text.strip_prefix(b"=") {
            let mut password = unescape(password).into_owned();
            let secret = match acceptable_password(&password) {
                true if password.is_empty() => Ok(Secret::None),
                true => Ok(Secret::Clear(password.as_slice().into())),
                false => Err(Fault::Password),
            };
            wipe(&mut password);
            return secret;
        }
        let text = std::str::from_utf8(text).map_err(|_| Fault::Unknown)?;
        let scheme = text.strip_prefix('$').and_then(|rest| rest.split_once('$'));
        match scheme.map(|(scheme, _)| scheme) {
            Some("argon2id") => check_argon2(text).map(|()| Secret::Slow(text.into())),
            Some("2b" | "2y") => check_bcrypt(text).map(|()| Secret::Slow(text.into())),
            Some(TOKEN_SCHEME) => Token::parse(text).map(|token| Secret::Token(Box::new(token))),
            Some("apr1" | "1" | "5" | "6" | "2a" | "2x" | "y" | "7" | "argon2i" | "argon2d") => {
                Err(Fault::Unsupported)
            }
            Some(_) => Err(Fault::Unknown),
            None if text.is_empty() => Ok(Secret::None),
            None if text.starts_with("{SHA}") => Err(Fault::Unsupported),
            None => Err(Fault::Unknown),
        }
    }
}

fn check_argon2(text: &str) -> Result<(), Fault> {
    const MALFORMED: Fault = Fault::Malformed("argon2id");
    let hash = PasswordHash::new(text).map_err(|_| MALFORMED)?;
    let number = |name| hash.params.get_decimal(name).ok_or(MALFORMED);
    let (memory, passes, lanes) = (number("m")?, number("t")?, number("p")?);
    let known = hash.params.iter().all(|(name, _)| matches!(name.as_str(), "m" | "t" | "p"));
    let sizes = hash.salt.is_some()
        && hash.hash.is_some_and(|hash| HASH_BYTES.contains(&hash.as_bytes().len()));
    if hash.version != Some(ARGON2_VERSION) || !known || !sizes || passes == 0 || lanes == 0 {
        return Err(MALFORMED);
    }
    if u64::from(memory) < 8 * u64::from(lanes) {
        return Err(MALFORMED);
    }
    let work = u64::from(memory).saturating_mul(u64::from(passes));
    match memory > MOST_MEMORY_KIB || work > MOST_WORK || lanes > MOST_LANES {
        true => Err(Fault::TooCostly),
        false => Ok(()),
    }
}

fn check_bcrypt(text: &str) -> Result<(), Fault> {
    const MALFORMED: Fault = Fault::Malformed("bcrypt");
    if text.len() != BCRYPT_LENGTH {
        return Err(MALFORMED);
    }
    // `$2y$05$` and 53 characters.
    let (cost, rest) = text.get(4..).and_then(|rest| rest.split_once('$')).ok_or(MALFORMED)?;
    let digits = cost.len() == 2 && cost.bytes().all(|byte| byte.is_ascii_digit());
    let cost: u32 = cost.parse().map_err(|_| MALFORMED)?;
    if !digits || cost < *BCRYPT_COSTS.start() || text.parse::<bcrypt::HashParts>().is_err() {
        return Err(MALFORMED);
    }
    debug_assert_eq!(rest.len(), 53);
    if cost > *BCRYPT_COSTS.end() { Err(Fault::TooCostly) } else { Ok(()) }
}

impl Token {
    /// The hash of a generated password with this salt.
    pub fn new(salt: [u8; 16], password: &[u8]) -> Self {
        Token { salt, hash: salted(&salt, password) }
    }

    fn parse(text: &str) -> Result<Self, Fault> {
        const MALFORMED: Fault = Fault::Malformed("b2");
        let hash = PasswordHash::new(text).map_err(|_| MALFORMED)?;
        let (salt, output) = (hash.salt.ok_or(MALFORMED)?, hash.hash.ok_or(MALFORMED)?);
        if hash.version.is_some() || !hash.params.is_empty() {
            return Err(MALFORMED);
        }
        let salt = salt.as_ref().try_into().map_err(|_| MALFORMED)?;
        let hash = output.as_bytes().try_into().map_err(|_| MALFORMED)?;
        Ok(Token { salt, hash })
    }

    /// Whether this is the password, in a time that does not depend on where the hashes differ.
    pub fn matches(&self, password: &[u8]) -> bool {
        let hash = salted(&self.salt, password);
        let differs = hash.iter().zip(&self.hash).fold(0, |all, (a, b)| black_box(all | (a ^ b)));
        black_box(differs) == 0 && !password.is_empty()
    }

    /// The secret as the users file has it.
    pub fn text(&self) -> String {
        let salt = Salt::new(&self.salt).map(|salt| salt.to_string()).unwrap_or_default();
        let hash = Output::new(&self.hash).map(|hash| hash.to_string()).unwrap_or_default();
        format!("${TOKEN_SCHEME}${salt}${hash}")
    }
}

/// BLAKE2b-256 of salt and password.
fn salted(salt: &[u8; 16], password: &[u8]) -> [u8; 32] {
    Blake2b::<U32>::new().chain_update(salt).chain_update(password).finalize().into()
}

#[cfg(test)]
mod tests;
