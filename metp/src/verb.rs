//! The verbs of commands, and who may use them (§5, §6).

use super::role::Role;

/// The verbs, and who may use them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    GetMetrics,
    GetLogs,
    Users,
    ChangeBuffer,
    AddUser,
    DeleteUser,
    SetRole,
    Quit,
    Capabilities,
    Ping,
    Info,
    UserMetrics,
    ChangePassword,
    Connections,
    Kill,
    Config,
    Subscribe,
    Unsubscribe,
    Shutdown,
    Trust,
    LockUser,
    UnlockUser,
    GeneratePassword,
    Import,
    Reload,
    Limits,
    SetLimit,
    ResetUsage,
    Rules,
    Rule,
}

const WORDS: [(&str, Verb); 30] = [
    ("GET_METRICS", Verb::GetMetrics),
    ("GET_LOGS", Verb::GetLogs),
    ("USERS", Verb::Users),
    ("CHANGE-BUFFER", Verb::ChangeBuffer),
    ("ADD-USER", Verb::AddUser),
    ("DELETE-USER", Verb::DeleteUser),
    ("SET-ROLE", Verb::SetRole),
    ("QUIT", Verb::Quit),
    ("CAPA", Verb::Capabilities),
    ("PING", Verb::Ping),
    ("INFO", Verb::Info),
    ("USER-METRICS", Verb::UserMetrics),
    ("CHANGE-PASSWORD", Verb::ChangePassword),
    ("CONNECTIONS", Verb::Connections),
    ("KILL", Verb::Kill),
    ("CONFIG", Verb::Config),
    ("SUBSCRIBE", Verb::Subscribe),
    ("UNSUBSCRIBE", Verb::Unsubscribe),
    ("SHUTDOWN", Verb::Shutdown),
    ("TRUST", Verb::Trust),
    ("LOCK-USER", Verb::LockUser),
    ("UNLOCK-USER", Verb::UnlockUser),
    ("GENERATE-PASSWORD", Verb::GeneratePassword),
    ("IMPORT", Verb::Import),
    ("RELOAD", Verb::Reload),
    ("LIMITS", Verb::Limits),
    ("SET-LIMIT", Verb::SetLimit),
    ("RESET-USAGE", Verb::ResetUsage),
    ("RULES", Verb::Rules),
    ("RULE", Verb::Rule),
];

/// The words of all verbs: those of METP/1.0 first.
pub fn verbs() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|(word, _)| *word)
}

impl Verb {
    /// Reads the word of the wire.
    pub(super) fn parse(word: &[u8]) -> Option<Self> {
        WORDS.iter().find(|(text, _)| text.as_bytes() == word).map(|(_, verb)| *verb)
    }

    /// Whether an account of this role may use it.
    pub(super) fn permitted(self, role: Role) -> bool {
        let everybody = [
            Verb::GetMetrics,
            Verb::Quit,
            Verb::Capabilities,
            Verb::Ping,
            Verb::UserMetrics,
            Verb::ChangePassword,
        ];
        role == Role::Admin || everybody.contains(&self)
    }

    /// Whether its last argument is a password, which runs to the end of the line.
    pub(super) fn takes_password(self) -> bool {
        matches!(self, Verb::AddUser | Verb::ChangePassword)
    }
}
