//! What commands do. No sockets here: a command and an account in, an answer out.

use super::listing::Listing;
use crate::ledger::Shared;
use crate::ledger::users::UserId;
use crate::proto::metp::{Cause, Command, Response, Role};

/// What a command is answered with.
pub struct Answer {
    /// The status line.
    pub response: Response,
    /// What follows a `200`, if anything does.
    pub body: Option<Listing>,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Answer { response, body: None }
    }
}

impl From<Listing> for Answer {
    fn from(body: Listing) -> Self {
        Answer { response: Response::Done, body: Some(body) }
    }
}

/// Carries out a command that `actor`'s role allows.
pub fn execute(command: Command, actor: UserId, shared: &mut Shared) -> Answer {
    match command {
        Command::GetMetrics => Listing::Metrics(Some(shared.metrics.body())).into(),
        Command::GetLogs => {
            Listing::Logs(shared.access_log.oldest(), shared.access_log.end()).into()
        }
        Command::Users => Listing::Users(None).into(),
        Command::ChangeBuffer(size) => {
            shared.settings.buffer_size = size;
            Response::Done.into()
        }
        Command::AddUser { name, password } => {
            match shared.users.add(&name, &password, Role::User) {
                Ok(_) => Response::Done.into(),
                Err(_) => refusal(Cause::Exists),
            }
        }
        Command::DeleteUser(name) => on_another(&name, actor, shared, |id, shared| {
            shared.users.delete(id);
        }),
        Command::SetRole(name, role) => on_another(&name, actor, shared, |id, shared| {
            shared.users.set_role(id, role);
        }),
        Command::Quit => Response::Goodbye.into(),
    }
}

/// Does something to the account of this name, unless it is the actor's own: so there is always an
/// administrator left.
fn on_another(
    name: &[u8],
    actor: UserId,
    shared: &mut Shared,
    change: impl FnOnce(UserId, &mut Shared),
) -> Answer {
    match shared.users.find(name) {
        None => refusal(Cause::NoUser),
        Some(id) if id == actor => refusal(Cause::Own),
        Some(id) => {
            change(id, shared);
            Response::Done.into()
        }
    }
}

fn refusal(cause: Cause) -> Answer {
    Response::BadRequest(Some(cause)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::access_log::AccessLog;
    use crate::ledger::metrics::Metrics;
    use crate::ledger::settings::Settings;
    use crate::ledger::users::Users;

    fn shared() -> (Shared, UserId) {
        let mut users = Users::default();
        let root = users.add(b"root", b"pw", Role::Admin).expect("new");
        users.add(b"alice", b"pw", Role::User).expect("new");
        let settings = Settings::default();
        let (metrics, access_log) = (Metrics::default(), AccessLog::new(1));
        (Shared { users, metrics, access_log, settings }, root)
    }

    fn says(line: &str, actor: UserId, shared: &mut Shared) -> String {
        let command = match Command::parse(line.as_bytes(), Role::Admin) {
            Ok(command) => command,
            Err(response) => return response.to_string(),
        };
        let mut answer = execute(command, actor, shared);
        let body = answer.body.as_mut().map(|body| body.piece(shared).text);
        [answer.response.to_string(), body.unwrap_or_default()].join("\n")
    }

    #[test]
    fn nobody_deletes_or_demotes_themselves() {
        let (mut shared, root) = shared();
        let own = "400 Bad Request [SELF] not on your own account\n";
        assert_eq!(says("DELETE-USER root", root, &mut shared), own);
        assert_eq!(says("SET-ROLE root user", root, &mut shared), own);
        assert_eq!(says("SET-ROLE root admin", root, &mut shared), own);
        assert_eq!(says("USERS", root, &mut shared), "200 OK\nroot admin\nalice user\n.\n");
    }

    #[test]
    fn an_admin_demotes_another() {
        let (mut shared, root) = shared();
        assert_eq!(says("SET-ROLE alice admin", root, &mut shared), "200 OK\n");
        assert_eq!(says("USERS", root, &mut shared), "200 OK\nroot admin\nalice admin\n.\n");
        assert_eq!(says("SET-ROLE alice user", root, &mut shared), "200 OK\n");
        assert_eq!(says("USERS", root, &mut shared), "200 OK\nroot admin\nalice user\n.\n");
    }

    #[test]
    fn accounts_come_and_go() {
        let (mut shared, root) = shared();
        let exists = "400 Bad Request [EXISTS] user exists\n";
        let no_user = "400 Bad Request [NOUSER] no such user\n";
        assert_eq!(says("ADD-USER bob two words", root, &mut shared), "200 OK\n");
        assert!(shared.users.authenticate(b"bob", b"two words").is_some());
        assert_eq!(says("ADD-USER bob other", root, &mut shared), exists);
        assert_eq!(says("DELETE-USER bob", root, &mut shared), "200 OK\n");
        assert_eq!(says("DELETE-USER bob", root, &mut shared), no_user);
        assert_eq!(says("SET-ROLE bob admin", root, &mut shared), no_user);
    }

    #[test]
    fn change_buffer_and_metrics() {
        let (mut shared, root) = shared();
        assert_eq!(says("CHANGE-BUFFER 4096", root, &mut shared), "200 OK\n");
        assert_eq!(shared.settings.buffer_size, 4096);
        shared.metrics = Metrics { accepted: 42, open: 5, bytes: 1_048_576, ..shared.metrics };
        assert_eq!(
            says("GET_METRICS", root, &mut shared),
            "200 OK\nHISTORICAL_CONNECTIONS: 42\nCURRENT_CONNECTIONS:    5\nBYTES_TRANSFERRED:      1048576\n.\n"
        );
        assert_eq!(says("GET_LOGS", root, &mut shared), "200 OK\n.\n");
    }
}
