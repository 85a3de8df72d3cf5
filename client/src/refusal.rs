//! The message for a command that the server refused: the command, the reason, and METP's rule where it has
//! one, as in `ADD-USER acct7: user exists`.

use metp_protocol::{BUFFER_SIZES, NAME_RULE, PASSWORD_RULE, split_cause};

use crate::failure::Failure;
use crate::invocation::Invocation;

/// The message for the failure of a command.
pub fn shown(invocation: &Invocation, failure: &Failure) -> String {
    match failure {
        Failure::Refused(text) | Failure::NotDone(text) => {
            format!("{}: {}", invocation.shown(), why(invocation, text))
        }
        Failure::Forbidden => format!("{}: {failure}", invocation.shown()),
        _ => failure.to_string(),
    }
}

/// The message for the failure of a live view, which is named by its option: `-f` or `-w`.
pub fn shown_live(option: &str, failure: &Failure) -> String {
    match failure {
        Failure::Refused(_) | Failure::NotDone(_) | Failure::Forbidden => {
            format!("{option}: {failure}")
        }
        _ => failure.to_string(),
    }
}

fn why(invocation: &Invocation, text: &str) -> String {
    match (split_cause(text), invocation.verb().as_str()) {
        (Some(("BADNAME", _)), "ADD-USER") => format!("{NAME_RULE}; {PASSWORD_RULE}"),
        (Some(("BADNAME", _)), "GENERATE-PASSWORD") => NAME_RULE.to_owned(),
        (Some(("BADNAME", _)), "CHANGE-PASSWORD") => PASSWORD_RULE.to_owned(),
        (Some(("RANGE", _)), "CHANGE-BUFFER") => {
            format!("{} to {} bytes", BUFFER_SIZES.start(), BUFFER_SIZES.end())
        }
        (Some((_, why)), _) if !why.is_empty() => why.to_owned(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use common::usage::OptionName;
    use metp_protocol::Command;

    use super::*;

    #[test]
    fn a_refusal_names_the_command_and_the_rule_but_no_password() {
        let name = b"acct7".to_vec();
        let add = Command::AddUser { name: name.clone(), password: b"secret".to_vec() };
        let change = Command::ChangePassword { name: name.clone(), password: b"secret".to_vec() };
        let bad_name = "Bad Request [BADNAME] name or password not acceptable";
        for (command, text, says) in [
            (&add, "Bad Request [EXISTS] user exists", "ADD-USER acct7: user exists"),
            (
                &add,
                bad_name,
                "ADD-USER acct7: names are 1 to 255 bytes, and not - alone; passwords are 1 to 255 bytes",
            ),
            (&change, bad_name, "CHANGE-PASSWORD acct7: passwords are 1 to 255 bytes"),
            (
                &Command::ChangeBuffer(0),
                "Bad Request [RANGE] number out of range",
                "CHANGE-BUFFER 0: 1 to 1048576 bytes",
            ),
            (
                &Command::DeleteUser(name.clone()),
                "Bad Request [NOUSER] no such user",
                "DELETE-USER acct7: no such user",
            ),
            (&Command::Users, "Bad Request", "USERS: Bad Request"),
            (&Command::Users, "no [ word", "USERS: no [ word"),
            (&Command::Users, "Bad Request [X]", "USERS: Bad Request [X]"),
            (&Command::Users, "400", "USERS: 400"),
        ] {
            let option = OptionName { short: "", long: "--x" };
            let invocation = Invocation::command(option, command.clone());
            assert_eq!(shown(&invocation, &Failure::Refused(text.to_owned())), says);
        }
        let invocation = Invocation::line(b"NONSENSE secret".to_vec());
        let refused = Failure::Refused("Bad Request [SYNTAX] unknown verb".to_owned());
        assert_eq!(shown(&invocation, &refused), "NONSENSE: unknown verb");
        assert_eq!(
            shown(&invocation, &Failure::Forbidden),
            "NONSENSE: Not authorized to execute command"
        );
    }
}
