//! Hashes of passwords, which take milliseconds: verified and made, in threads of low priority.
//!
//! A thread of low priority takes what tunnels leave: hashing never delays a byte. An Argon2id hash needs 19 MiB (at most
//! 64 for one of a foreign file), which a thread keeps while more jobs wait, and gives back afterwards.

use std::fmt;
use std::hint::black_box;
use std::io;
use std::sync::{Mutex, PoisonError};

use argon2::password_hash::phc::{Decimal, Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use common::random;
use common::secrets::wipe;

use super::worker_pool::{Kind, Limits, Workers};
use crate::reactor::waker::Wake;

/// The memory of a new hash, in KiB, its passes and its lanes: the second choice of OWASP, RFC 9106 otherwise.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// The sizes of salt and hash, in bytes.
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// bcrypt takes no more of a password, with the NUL that ends it; a longer one would be compared by its beginning alone.
const MOST_OF_BCRYPT: usize = 71;

/// The stack of a thread, in bytes. bcrypt has its tables of 4 KiB there; the memory of Argon2id is elsewhere.
const STACK_BYTES: usize = 256 * 1024;

/// A password that waits for its hash. Wiped when it is dropped; no debug print shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Box<[u8]>);

impl Password {
    /// Takes a copy of it.
    pub fn new(password: &[u8]) -> Self {
        Password(password.into())
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// A hash that is to be compared with a password.
#[derive(Debug)]
pub struct Verification {
    /// The number that the answer has.
    pub number: u64,
    /// The hash, as text. `None`: nobody's, the work of which is done all the same.
    pub hash: Option<Box<str>>,
    /// What is compared with it.
    pub password: Password,
    /// Whether others wait behind it.
    pub more: bool,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

impl fmt::Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory for the hash of a password")
    }
}

/// The threads.
pub type Verifications = Workers<Verification, Result<bool, NoMemory>>;

/// Starts what verifies: up to `threads` at once.
pub fn verifications(threads: usize, waker: impl Wake + 'static) -> Verifications {
    let kind = Kind { thread: c"passwords", jobs: "logins", stack_bytes: STACK_BYTES, nice: NICE };
    let spare = Mutex::new(Vec::<Hasher>::new());
    Workers::new(kind, limits(threads), waker, move |job: &Verification| {
        let mut lend = spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hasher = lend.pop().unwrap_or_default();
        drop(lend);
        let right = hasher.verifies(job.hash.as_deref(), job.password.bytes());
        if job.more {
            spare.lock().unwrap_or_else(PoisonError::into_inner).push(hasher);
        } else {
            spare.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        right
    })
}

/// The priority of the threads, as of nice(1): low enough that tunnels on the same core do not wait for them, high enough
/// that an administrator is let in on a machine that is busy with other things.
const NICE: i32 = 15;

/// The limits of the threads: they use the processor all the time, so that slow ones count as all others.
pub fn limits(threads: usize) -> Limits {
    Limits { threads, threads_in_all: threads, queue: threads }
}

/// Computes hashes, one after the other, in memory of its own.
#[derive(Default)]
pub struct Hasher {
    blocks: Vec<Block>,
}

impl Hasher {
    /// Whether this is the hash of the password. Without a hash it is not, after the same work as for one that
    /// [`Hasher::hash`] has made.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn verifies(&mut self, hash: Option<&str>, password: &[u8]) -> Result<bool, NoMemory> {
        match hash {
            Some(hash) if hash.starts_with("$argon2id$") => self.is_argon2(hash, password),
            Some(hash) => Ok(is_bcrypt(hash, password)),
            None => {
                let parameters = Params::new(MEMORY_KIB, PASSES, LANES, Some(HASH_BYTES));
                let mut output = [0; HASH_BYTES];
                let nobody = [0; SALT_BYTES];
                if let Ok(parameters) = parameters {
                    self.compute(parameters, password, &nobody, &mut output)?;
                }
                black_box(output);
                Ok(false)
            }
        }
    }

    fn is_argon2(&mut self, hash: &str, password: &[u8]) -> Result<bool, NoMemory> {
        // It has been looked at when it was read, so that none of these can be missing.
        let Ok(parsed) = PasswordHash::new(hash) else { return Ok(false) };
        let (Some(salt), Some(right)) = (parsed.salt, parsed.hash) else { return Ok(false) };
        let number = |name| parsed.params.get_decimal(name).unwrap_or_default();
        let size = right.as_bytes().len();
        let Ok(parameters) = Params::new(number("m"), number("t"), number("p"), Some(size)) else {
            return Ok(false);
        };
        let mut output = [0; Output::MAX_LENGTH];
        let Some(output) = output.get_mut(..size) else { return Ok(false) };
        if !self.compute(parameters, password, salt.as_ref(), output)? {
            return Ok(false);
        }
        // Compares in constant time.
        Ok(Output::new(output).is_ok_and(|output| output == right))
    }

    /// A new hash of a password that somebody has chosen, as the users file has it.
    ///
    /// # Errors
    /// If there is no memory, or no random bytes.
    pub fn hash(&mut self, password: &[u8]) -> io::Result<Box<str>> {
        let salt: [u8; SALT_BYTES] = random::bytes()?;
        let mut output = [0; HASH_BYTES];
        let wrong = |_| io::Error::other("the parameters of the hash are not accepted");
        let parameters = Params::new(MEMORY_KIB, PASSES, LANES, Some(HASH_BYTES)).map_err(wrong)?;
        let computed = self.compute(parameters, password, &salt, &mut output);
        if !computed
            .map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error.to_string()))?
        {
            return Err(io::Error::other("the hash cannot be computed"));
        }
        text(&salt, &output).ok_or_else(|| io::Error::other("the hash cannot be written"))
    }

    /// Computes an Argon2id hash. `false`: it cannot be computed with these parameters.
    fn compute(
        &mut self,
        parameters: Params,
        password: &[u8],
        salt: &[u8],
        output: &mut [u8],
    ) -> Result<bool, NoMemory> {
        let wanted = parameters.block_count();
        if let Some(missing) = wanted.checked_sub(self.blocks.len()) {
            self.blocks.try_reserve_exact(missing).map_err(|_| NoMemory)?;
            self.blocks.resize(wanted, Block::new());
        }
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters);
        let blocks = self.blocks.get_mut(..wanted).unwrap_or_default();
        Ok(argon2.hash_password_into_with_memory(password, salt, output, blocks).is_ok())
    }
}

fn is_bcrypt(hash: &str, password: &[u8]) -> bool {
    let right = bcrypt::verify(password, hash).unwrap_or(false);
    // A NUL in the middle would be the end of the password elsewhere.
    right && password.len() <= MOST_OF_BCRYPT && !password.contains(&0)
}

/// A hash in PHC string format.
fn text(salt: &[u8], output: &[u8]) -> Option<Box<str>> {
    let mut params = ParamsString::new();
    for (name, value) in [("m", MEMORY_KIB), ("t", PASSES), ("p", LANES)] {
        params.add_decimal(name, value as Decimal).ok()?;
    }
    let version = u32::from(Version::V0x13);
    let (salt, output) = (Salt::new(salt).ok()?, Output::new(output).ok()?);
    Some(format!("$argon2id$v={version}${params}${salt}${output}").into())
}

#[cfg(test)]
mod tests;
