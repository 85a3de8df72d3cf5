//! The account, and where its password comes from.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use getopts::Matches;
use metp_protocol::text::{Escaped, latin1_encode, split_account, unescape, without_line_end};

use super::environment::{
    Environment, LOGIN_FILE_VARIABLE, LOGIN_VARIABLE, login_of_file, variable,
};
use super::options::UsageError;

/// The account that logs in.
pub struct LoginArgs {
    pub name: Vec<u8>,
    pub password: PasswordSource,
}

/// The source of a password.
#[derive(Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// The command line or the environment: the password itself.
    Given(Vec<u8>),
    /// The first line of this file.
    File(PathBuf),
    /// The terminal.
    Prompt,
}

/// Checks a password of the command line, or a new one: it is not empty and holds no control characters. Some
/// of these cannot be sent in a line of METP.
///
/// # Errors
/// The error message.
pub fn check_password(password: &[u8]) -> Result<(), &'static str> {
    match password {
        [] => Err("the password is empty"),
        _ if password.iter().any(u8::is_ascii_control) => {
            Err("the password holds a control character")
        }
        _ => Ok(()),
    }
}

/// The account of `-u`, else of [`LOGIN_VARIABLE`], else of the file that [`LOGIN_FILE_VARIABLE`] names.
pub fn login(given: &Matches, environment: &Environment) -> Result<LoginArgs, UsageError> {
    let file = variable(&environment.login_file).map(|path| Path::new(OsStr::from_bytes(path)));
    let (source, text) = match (given.opt_str("user"), variable(&environment.login), file) {
        (Some(text), _, _) => ("-u", Cow::from(without_line_end(&latin1_encode(&text)).to_vec())),
        (None, Some(text), _) => (LOGIN_VARIABLE, Cow::from(text)),
        (None, None, Some(path)) => {
            let text = login_of_file(path).map_err(|error| {
                let path = Escaped(path.as_os_str().as_encoded_bytes());
                UsageError(format!("{LOGIN_FILE_VARIABLE} {path}: {error}"))
            })?;
            (LOGIN_FILE_VARIABLE, Cow::from(text))
        }
        (None, None, None) => {
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
    Ok(LoginArgs { name, password })
}
