//! The pieces that command lines are made of.

use std::time::Duration;

use super::{Cause, LONGEST_NAME, LONGEST_PASSWORD, Response};
use crate::quantity::{self, decimal, is_digits};
use crate::text::Escaped;

pub(super) fn bad(cause: Cause) -> Response {
    Response::BadRequest(Some(cause))
}

/// The arguments: what blanks separate.
pub(super) fn words(rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    rest.split(|byte| *byte == b' ').filter(|word| !word.is_empty())
}

/// A name, one blank, and a password that runs to the end of the line and may hold blanks.
pub(super) fn name_and_password(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = rest.iter().position(|byte| *byte != b' ')?;
    let mut parts = rest.get(start..)?.splitn(2, |byte| *byte == b' ');
    let (name, password) = (parts.next()?, parts.next()?);
    (!name.is_empty() && !password.is_empty()).then_some((name, password))
}

/// What [`acceptable_name`] accepts, for messages.
pub const NAME_RULE: &str = "names are 1 to 255 bytes, and not - alone";
/// What [`acceptable_password`] accepts, for messages.
pub const PASSWORD_RULE: &str = "passwords are 1 to 255 bytes";

/// The account of clients that need no login (§2.3): it is always there, and is no account to log in to.
pub const TRUSTED_NAME: &[u8] = b"-";

/// Whether a new account may have this name (§5.6).
///
/// ```
/// assert!(metp_protocol::acceptable_name(b"DOMAIN\\user") && metp_protocol::acceptable_name(b"a:b"));
/// assert!(!metp_protocol::acceptable_name(b"-") && !metp_protocol::acceptable_name(b""));
/// ```
pub fn acceptable_name(name: &[u8]) -> bool {
    (1..=LONGEST_NAME).contains(&name.len()) && name != TRUSTED_NAME
}

/// Whether an account may be given this password (§5.6), unless it is empty.
///
/// ```
/// assert!(metp_protocol::acceptable_password(b"two words"));
/// assert!(!metp_protocol::acceptable_password(&[b'x'; 256]));
/// ```
pub fn acceptable_password(password: &[u8]) -> bool {
    password.len() <= LONGEST_PASSWORD && fits_in_a_line(password)
}

/// Whether `text` can stand in a command line (§3.1): it holds no NUL, CR or LF.
///
/// ```
/// assert!(metp_protocol::fits_in_a_line(b"two words"));
/// assert!(!metp_protocol::fits_in_a_line(b"two\nlines"));
/// ```
pub fn fits_in_a_line(text: &[u8]) -> bool {
    !text.iter().any(|byte| matches!(byte, b'\0' | b'\r' | b'\n'))
}

pub(super) fn with_password(verb: &str, name: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    if password.is_empty() || !fits_in_a_line(password) {
        return None;
    }
    let mut line = format!("{verb} {} ", Escaped(name)).into_bytes();
    line.extend(password);
    line.push(b'\n');
    Some(line)
}

/// A number of at most `digits` digits (§5): one with more digits is out of range.
pub(super) fn number(word: &[u8], digits: usize) -> Result<u64, Response> {
    if !is_digits(word) {
        return Err(bad(Cause::Syntax));
    }
    decimal(word).filter(|_| word.len() <= digits).ok_or(bad(Cause::Range))
}

/// A time in seconds, with or without a fraction: no sign, no exponent, at most `longest`. It is rounded to
/// milliseconds, as it is shown.
pub(super) fn seconds(word: &[u8], longest: u32) -> Result<Duration, Response> {
    let mut parts = word.splitn(2, |byte| *byte == b'.');
    let (whole, fraction) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if !fraction.is_empty() && !is_digits(fraction) {
        return Err(bad(Cause::Syntax));
    }
    number(whole, 8)?;
    let time = std::str::from_utf8(word).ok().and_then(quantity::time);
    let longest = Duration::from_secs(longest.into());
    let time = time.filter(|time| *time <= longest).ok_or(bad(Cause::Range))?;
    Ok(Duration::new(time.as_secs(), time.subsec_millis() * 1_000_000))
}
