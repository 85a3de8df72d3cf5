//! Who gives the commands, and the passwords on the command line.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use getopts::Matches;
use metp_protocol::text::{Escaped, latin1_encode, split_account, unescape, without_line_end};

use super::environment::{Environment, LOGIN_VARIABLE, variable};
use super::options::UsageError;

/// A name, and where its password comes from.
pub struct Login {
    /// The account's name.
    pub name: Vec<u8>,
    /// Its password.
    pub password: PasswordSource,
}

/// Where a password comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// It is here.
    Given(Vec<u8>),
    /// It is the first line of this file.
    File(PathBuf),
    /// It is asked for.
    Prompt,
}

/// What a password is, on the command line and where a new one is asked for: without control characters, among
/// them those that cannot travel in a line of METP.
///
/// # Errors
/// What is wrong with it.
pub fn check_password(password: &[u8]) -> Result<(), &'static str> {
    match password {
        [] => Err("the password is empty"),
        _ if password.iter().any(u8::is_ascii_control) => {
            Err("the password holds a control character")
        }
        _ => Ok(()),
    }
}

/// The login of `-u`, else that of the environment.
pub fn login(given: &Matches, environment: &Environment) -> Result<Login, UsageError> {
    let (source, text) = match (given.opt_str("user"), variable(&environment.login)) {
        (Some(text), _) => ("-u", Cow::from(without_line_end(&latin1_encode(&text)).to_vec())),
        (None, Some(text)) => (LOGIN_VARIABLE, Cow::from(text)),
        (None, None) => {
            let text = format!("no user: -u USER:PASS or {LOGIN_VARIABLE} expected");
            return Err(UsageError(text));
        }
    };
    let (name, password) = match split_account(&text) {
        Some((name, password)) => (name, Some(password)),
        None => (&*text, None),
    };
    if name.is_empty() {
        return Err(UsageError(format!("{source}: the name is empty")));
    }
    let shown = Escaped(name);
    if name.iter().any(u8::is_ascii_control) {
        let hint = "the name holds a control character, which is written \\xHH";
        return Err(UsageError(format!("{source} {shown}: {hint}")));
    }
    let name = unescape(name).into_owned();
    if let Some(Err(wrong)) = password.map(check_password) {
        return Err(UsageError(format!("{source} {}: {wrong}", Escaped(&name))));
    }
    let password = match (given.opt_str("password-file"), password) {
        (Some(_), Some(_)) if source == "-u" => {
            return Err(UsageError("-u and --password-file both give a password".to_owned()));
        }
        (Some(path), _) => PasswordSource::File(OsString::from_vec(latin1_encode(&path)).into()),
        (None, Some(password)) => PasswordSource::Given(password.to_vec()),
        (None, None) => PasswordSource::Prompt,
    };
    Ok(Login { name, password })
}
