//! Random bytes of the operating system.

use std::io;

/// So many random bytes, fit for secrets.
///
/// # Errors
/// If the system has none to give.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same() {
        let [first, second]: [[u8; 16]; 2] = [bytes().expect("some"), bytes().expect("some")];
        assert_ne!(first, second);
    }
}
